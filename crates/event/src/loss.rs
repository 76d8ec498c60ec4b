//! Every way in which an event, or knowledge about one, can get lost on its way to the rules: one row each, with the
//! metric label, the sentence for the log, and the doc line for docs/metrics.md.

use abi::loss::KernelCounter;

use crate::decode::DecodeError;

macro_rules! losses {
    ($( #[doc = $doc:literal] $name:ident = $label:literal, $log:literal; )*) => {
        /// What was lost in the sensor. What the kernel programs lose is [`KernelCounter`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Loss { $( #[doc = $doc] $name, )* }

        impl Loss {
            /// Every loss, in the order of [`Losses`].
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// Metric label.
            pub const fn label(self) -> &'static str { match self { $( Self::$name => $label, )* } }

            /// Sentence for the log.
            pub const fn log(self) -> &'static str { match self { $( Self::$name => $log, )* } }

            /// Whether rules did not see the event at all; otherwise they judged it knowing less.
            pub const fn is_event(self) -> bool { matches!(self, Self::Malformed | Self::UnknownRecord) }

            /// One line for docs.
            pub const fn doc(self) -> &'static str { match self { $( Self::$name => $doc, )* } }
        }
    };
}

losses! {
    /// The bytes of a record were cut off or contradicted themselves; the event was not judged.
    Malformed = "malformed_record", "a record is malformed";
    /// A record of a kind, or with a block, that this sensor does not know; the event was not judged.
    UnknownRecord = "unknown_record", "a record is of an unknown form";
    /// A record outgrew its buffer in the kernel: the event was judged with fields missing.
    IncompleteRecord = "incomplete_record", "a record is incomplete";
    /// An event of a process that neither a fork nor the start-up scan told of: judged without its arguments.
    UnknownProcess = "unknown_process", "an event belongs to an unknown process";
    /// The process table was full: a live process was forgotten.
    ProcessTableFull = "process_table_full", "the process table is full";
    /// The map from cgroups to containers was full: a membership was forgotten and must be looked up again.
    CgroupTableFull = "cgroup_table_full", "the table of cgroups is full";
    /// More containers than the sensor keeps facts about: their fields stay empty.
    ContainerTableFull = "container_table_full", "the table of containers is full";
    /// The wait for container facts ran out: events were judged with container fields missing.
    HoldExpired = "hold_expired", "container facts did not arrive in time";
    /// Too many events waited for container facts: events were judged with container fields missing.
    HoldFull = "hold_full", "too many events wait for container facts";
}

impl From<&DecodeError> for Loss {
    fn from(error: &DecodeError) -> Self {
        match error {
            DecodeError::ShortHeader { .. }
            | DecodeError::TooManyAncestors { .. }
            | DecodeError::ShortAncestors { .. }
            | DecodeError::ShortBlockHeader { .. }
            | DecodeError::ShortBlock { .. }
            | DecodeError::Duplicate { .. }
            | DecodeError::WrongSize { .. } => Self::Malformed,
            DecodeError::UnknownKind { .. } | DecodeError::UnknownTag { .. } | DecodeError::UnknownStatus { .. } => {
                Self::UnknownRecord
            }
        }
    }
}

/// One line for docs of what the kernel programs count.
pub const fn kernel_doc(counter: KernelCounter) -> &'static str {
    match counter {
        KernelCounter::Sent => "Records handed to the sensor; no loss.",
        KernelCounter::Filtered => "Events that no loaded rule can match, dropped before they were collected; no loss.",
        KernelCounter::RingFull => "The ring had no room: the sensor reads too slowly.",
        KernelCounter::TooLarge => "The record outgrew the buffer it is built in.",
        KernelCounter::NoHelper => "A helper program was missing from its slot.",
        KernelCounter::NoRing => "No ring exists for the CPU.",
        KernelCounter::Backoff => {
            "The ring was three quarters full, and the process had sent more than its share: the rest is for others."
        }
    }
}

/// How often each loss happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses([u64; Loss::ALL.len()]);

impl Losses {
    /// Counts one.
    pub fn add(&mut self, loss: Loss) {
        let count = &mut self.0[loss as usize];
        *count = count.saturating_add(1);
    }

    /// How often this one happened.
    pub fn get(&self, loss: Loss) -> u64 {
        self.0[loss as usize]
    }

    /// All of them with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Loss, u64)> + '_ {
        Loss::ALL.iter().map(|loss| (*loss, self.get(*loss)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_words_and_unique() {
        let mut labels: Vec<_> = Loss::ALL.iter().map(|loss| loss.label()).collect();
        labels.sort_unstable();
        assert!(labels.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
