//! Which records a sensor judges, while two of them are on one host.
//!
//! Records bear the time of the kernel's boot clock, which both sensors share: so one moment is enough to say who judges
//! what. Until it is agreed, the one that will judge what comes after puts records aside, for one that has been taken into the
//! state cannot be judged any more.

/// Most bytes of records that are put aside: what comes then stays in the rings.
const ASIDE: usize = 32 << 20;

/// What is judged and what is delivered, by the records' times (boot clock, nanoseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Records of before are taken into the state only.
    from_ns: u64,
    /// Records of later wait.
    last_ns: u64,
}

impl Share {
    /// Everything: no other sensor is there.
    pub const ALL: Self = Self { from_ns: 0, last_ns: u64::MAX };

    /// Nothing yet: another sensor judges.
    pub const NOTHING: Self = Self { from_ns: u64::MAX, last_ns: u64::MAX };

    /// Delivers nothing that happens at `now` or later.
    pub fn pause(&mut self, now: u64) {
        self.last_ns = now.saturating_sub(1);
    }

    /// Delivers again.
    pub fn go_on(&mut self) {
        self.last_ns = u64::MAX;
    }

    /// Delivers again, and judges what happened at `from_ns` or later.
    pub fn judge_from(&mut self, from_ns: u64) {
        *self = Self { from_ns, last_ns: u64::MAX };
    }

    /// Whether a record of this time is judged.
    pub fn judges(self, time: u64) -> bool {
        time >= self.from_ns
    }

    /// The time of the last record that is delivered.
    pub fn last_ns(self) -> u64 {
        self.last_ns
    }

    /// Whether a record of this time is to wait.
    pub fn is_later(self, time: u64) -> bool {
        time > self.last_ns
    }

    /// Whether a record that is to be delivered may not be visible yet, if it takes `ripe_ns` to become so.
    pub fn unripe(self, now: u64, ripe_ns: u64) -> bool {
        self.last_ns != u64::MAX && now <= self.last_ns.saturating_add(ripe_ns)
    }
}

/// Records that wait until it is known who judges them, in the order in which they came.
#[derive(Debug, Default)]
pub struct Aside {
    records: Vec<(Box<[u8]>, u16)>,
    bytes: usize,
}

impl Aside {
    /// Puts a record of a CPU aside.
    pub fn push(&mut self, record: &[u8], cpu: u16) {
        self.bytes += record.len();
        self.records.push((record.into(), cpu));
    }

    /// Whether no more should be put aside.
    pub fn is_full(&self) -> bool {
        self.bytes >= ASIDE
    }
}

impl IntoIterator for Aside {
    type Item = (Box<[u8]>, u16);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.records.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a sensor ever judges a record that it sees at this time.
    fn told(share: Share, time: u64) -> bool {
        time <= share.last_ns() && share.judges(time)
    }

    proptest! {
        /// One that stands behind the other in the kernel sees the same event a moment later: it is judged by at least one,
        /// and by both only when the agreed moment lies between the two.
        #[test]
        fn what_one_leaves_the_other_takes(moment in 1..1000u64, time in 0..1000u64, behind in 0..5u64) {
            let (mut old, mut new) = (Share::ALL, Share::NOTHING);
            old.pause(moment);
            new.pause(moment.saturating_sub(behind));
            new.judge_from(moment);
            let (first, second) = (told(old, time), told(new, time + behind));
            prop_assert!(first || second, "lost");
            prop_assert_eq!(first && second, time < moment && moment <= time + behind);
        }
    }

    #[test]
    fn a_handover_that_fails_changes_nothing() {
        let mut old = Share::ALL;
        old.pause(5);
        assert_eq!((old.last_ns(), old.unripe(5, 2), old.unripe(7, 2)), (4, true, false));
        old.go_on();
        assert_eq!(old, Share::ALL);
        let mut new = Share::NOTHING;
        new.pause(5);
        new.go_on();
        assert_eq!(new, Share::NOTHING);
        assert!(!Share::ALL.unripe(0, 2));
    }
}
