//! Every way in which an alert can fail to reach a sink.

/// Declares the causes: one row gives the variant, its word and its meaning.
macro_rules! losses {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a sink gave up an alert. The words are metric labels: they do not change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Loss { $($(#[doc = $doc])+ $variant,)+ }

        impl Loss {
            /// Every cause, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// How many causes there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable word for the cause.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the cause means: the text of the generated documentation.
            pub fn doc(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

losses! {
    /// The queue was full, and its overflow policy chose this alert.
    QueueFull = "queue_full",
    /// The receiver did not take the alert in any attempt.
    RetriesExhausted = "retries_exhausted",
    /// The receiver refused the alert for good, so that another attempt would be in vain.
    Refused = "refused",
    /// Writing failed in every attempt: no space, no folder, no permission.
    WriteFailed = "write_failed",
    /// Nobody reads the other end of standard output any more.
    Closed = "closed",
    /// The sink was removed, changed or stopped, and the alert was not delivered before the deadline.
    Stopped = "stopped",
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
