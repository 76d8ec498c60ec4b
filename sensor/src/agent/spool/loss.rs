//! Every way in which an alert can get lost before the operator has it: one row each.

macro_rules! losses {
    ($( #[doc = $doc:literal] $name:ident = $label:literal; )*) => {
        /// Why an alert is not in the spool.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Loss { $( #[doc = $doc] $name, )* }

        impl Loss {
            /// Every loss.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// Metric label.
            pub const fn label(self) -> &'static str { match self { $( Self::$name => $label, )* } }

            /// One line for docs.
            #[allow(dead_code, reason = "for the reference, which tests/generated.rs makes")]
            pub const fn doc(self) -> &'static str { match self { $( Self::$name => $doc, )* } }
        }
    };
}

losses! {
    /// Alerts came faster than the disk takes them: the queue in front of the spool was full.
    QueueFull = "alert_queue_full";
    /// The operator was away for too long, and the spool was full.
    SpoolFull = "spool_full";
    /// The disk did not take an alert, or gave back something else.
    SpoolFailed = "spool_failed";
    /// An alert was larger than 1 MiB.
    AlertTooLarge = "alert_too_large";
}
