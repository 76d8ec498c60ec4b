//! Every way in which a kernel program can fail to deliver an event.
//!
//! Counters live in the array `COUNTERS`: for each CPU one element per record kind, holding one `u64` per [`KernelCounter`].

macro_rules! counters {
    ($( $(#[doc = $doc:literal])+ $name:ident = $label:literal, )*) => {
        /// What the kernel programs count, per CPU and record kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum KernelCounter { $( $(#[doc = $doc])+ $name, )* }

        impl KernelCounter {
            /// Every counter, in the order of the array.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// Metric label.
            pub const fn label(self) -> &'static str {
                match self { $( Self::$name => $label, )* }
            }

            /// Index in the array.
            pub const fn index(self) -> usize { self as usize }

            /// Whether a count here is an event that rules did not see.
            pub const fn is_loss(self) -> bool { !matches!(self, Self::Sent | Self::Filtered) }
        }
    };
}

counters! {
    /// Records handed to the sensor.
    Sent = "sent",
    /// Events that no loaded rule can match: dropped before they were collected.
    Filtered = "filtered",
    /// The ring had no room: the sensor reads too slowly.
    RingFull = "ring_full",
    /// The record outgrew the buffer it is built in.
    TooLarge = "too_large",
    /// A helper program was missing from its slot.
    NoHelper = "no_helper",
    /// No ring exists for this CPU.
    NoRing = "no_ring",
    /// The ring was three quarters full, and the process had put in more than its share: the rest is for others.
    Backoff = "backoff",
}

/// Length of the counter array: a power of two, so that programs can index it without a range check.
pub const COUNTERS: usize = 8;
