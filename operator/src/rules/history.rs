//! How often something happened within the last hour, from a count that only grows.

use std::collections::{HashMap, VecDeque};

/// Minutes that are looked back.
const MINUTES: i64 = 60;

/// Counts by key, a snapshot for each minute in which one changed.
#[derive(Debug, Default)]
pub struct History(HashMap<Box<str>, VecDeque<(i64, u64)>>);

impl History {
    /// Says what the count is now; `now` is Unix time in seconds. The first count of a key is where it begins.
    pub fn note(&mut self, key: &str, count: u64, now: i64) {
        let minute = now.div_euclid(60);
        let snapshots = self.0.entry(key.into()).or_default();
        // The clock was set back: what was noted keeps its distances, and ends now.
        if let Some(ahead) = snapshots.back().map(|(last, _)| last - minute).filter(|ahead| *ahead > 0) {
            snapshots.iter_mut().for_each(|(noted, _)| *noted -= ahead);
        }
        match snapshots.back_mut() {
            Some((last, known)) if *last == minute => *known = (*known).max(count),
            Some((_, known)) if *known >= count => {}
            Some(_) => snapshots.push_back((minute, count)),
            // Counted before anyone looked: as if it was there in the minute before.
            None => snapshots.push_back((minute - 1, count)),
        }
        // One snapshot at or before the beginning of the hour stays: the hour is counted from it.
        while snapshots.get(1).is_some_and(|(second, _)| *second <= minute - MINUTES) {
            snapshots.pop_front();
        }
    }

    /// How much the count grew within the hour before `now`, to a minute.
    pub fn last_hour(&self, key: &str, now: i64) -> u64 {
        let Some(snapshots) = self.0.get(key) else { return 0 };
        let begin = now.div_euclid(60) - MINUTES;
        let before = snapshots.iter().rev().find(|(minute, _)| *minute <= begin).or(snapshots.front());
        let (Some((_, first)), Some((_, last))) = (before, snapshots.back()) else { return 0 };
        last.saturating_sub(*first)
    }

    /// Forgets the others.
    pub fn retain(&mut self, alive: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| alive(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_counted_to_the_minute() {
        let mut history = History::default();
        history.note("a", 100, 0);
        assert_eq!(history.last_hour("a", 0), 0, "what was there before is not of this hour");
        history.note("a", 103, 60);
        history.note("a", 105, 70);
        assert_eq!(history.last_hour("a", 70), 5);
        history.note("a", 106, 1800);
        assert_eq!(history.last_hour("a", 3659), 6);
        assert_eq!(history.last_hour("a", 3660), 1);
        assert_eq!(history.last_hour("a", 5400), 0);
    }

    #[test]
    fn a_clock_that_is_set_back_or_forth_neither_fills_memory_nor_counts_twice() {
        let mut history = History::default();
        history.note("a", 0, 1_000_000);
        history.note("a", 5, 1_000_060);
        for minute in 0..200 {
            history.note("a", 6 + minute, i64::try_from(minute).unwrap_or_default() * 60);
        }
        assert!(history.0.values().all(|snapshots| snapshots.len() <= 62));
        assert_eq!(history.last_hour("a", 199 * 60), 60);
        history.note("a", 300, 9_000_000);
        assert_eq!(history.last_hour("a", 9_000_000), 95);
    }

    #[test]
    fn memory_is_bounded_by_the_hour() {
        let mut history = History::default();
        for minute in 0..10_000 {
            history.note("a", minute, i64::try_from(minute).unwrap_or_default() * 60);
        }
        assert!(history.0.values().all(|snapshots| snapshots.len() <= 62));
    }
}
