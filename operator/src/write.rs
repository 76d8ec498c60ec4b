//! **The one writer of status.** Decides which objects are written when, so that the API server is not flooded.
//!
//! [`Schedule`] is pure: wanted statuses and times come in, what to write comes out. Nothing is written that is there
//! already; conditions within a second; counters once a minute for each object; and never more than five objects a
//! second for long.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Least time between two writes of one object for counters alone.
const ROUTINE: Duration = Duration::from_secs(60);
/// Least time between two writes of one object.
const URGENT: Duration = Duration::from_secs(1);
/// Objects a second.
const RATE: f64 = 5.0;
/// Objects at once after a quiet time.
const BURST: f64 = 50.0;
/// Time until a failed write is tried again; doubled each time, up to [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_secs(1);
/// Longest time until a failed write is tried again.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How soon a change should be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Counters, times.
    Routine,
    /// A condition, a generation, the first hit.
    Urgent,
}

/// What is wanted of each object, and when it was written.
#[derive(Debug)]
pub struct Schedule<K> {
    entries: HashMap<K, Entry>,
    tokens: f64,
    filled: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    /// What the API server has, as far as is known.
    there: Value,
    /// What it should have, and how soon; none when it has it.
    wanted: Option<(Value, Urgency)>,
    written: Option<Instant>,
    under_way: bool,
    failures: u32,
    failed: Option<Instant>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), tokens: BURST, filled: None }
    }
}

impl<K: Clone + Eq + Hash + Ord> Schedule<K> {
    /// Says what an object's status should be; `there` is what the API server was seen to have.
    pub fn want(&mut self, key: K, there: &Value, wanted: Value, urgency: Urgency) {
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            there: there.clone(),
            wanted: None,
            written: None,
            under_way: false,
            failures: 0,
            failed: None,
        });
        if !entry.under_way && entry.there != *there {
            // Someone else wrote it, or our own write has come back.
            entry.there = there.clone();
        }
        if entry.there == wanted && !entry.under_way {
            entry.wanted = None;
            return;
        }
        let urgency = entry.wanted.as_ref().map_or(urgency, |(_, before)| urgency.max(*before));
        entry.wanted = Some((wanted, urgency));
    }

    /// Forgets objects that are no more.
    pub fn retain(&mut self, alive: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| alive(key));
    }

    /// What to write now, most urgent first. Each must be answered by [`Schedule::written`].
    pub fn due(&mut self, now: Instant) -> Vec<(K, Value)> {
        let elapsed = self.filled.map_or(Duration::ZERO, |filled| now.saturating_duration_since(filled));
        self.tokens = (self.tokens + elapsed.as_secs_f64() * RATE).min(BURST);
        self.filled = Some(now);
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.due(now))
            .filter_map(|(key, entry)| Some((std::cmp::Reverse(entry.wanted.as_ref()?.1), entry.written, key.clone())))
            .collect();
        due.sort();
        let mut writes = Vec::new();
        for (.., key) in due {
            if self.tokens < 1.0 {
                break;
            }
            self.tokens -= 1.0;
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let Some((value, _)) = entry.wanted.take() else { continue };
            entry.under_way = true;
            entry.written = Some(now);
            writes.push((key, value));
        }
        writes
    }

    /// Says what became of a write.
    pub fn written(&mut self, key: &K, value: Value, succeeded: bool, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.under_way = false;
        if succeeded {
            if entry.wanted.as_ref().is_some_and(|(wanted, _)| *wanted == value) {
                entry.wanted = None;
            }
            entry.there = value;
            entry.failures = 0;
            entry.failed = None;
        } else {
            entry.failures = entry.failures.saturating_add(1);
            entry.failed = Some(now);
            entry.wanted.get_or_insert((value, Urgency::Urgent));
        }
    }

    /// How many objects wait to be written.
    pub fn waiting(&self) -> usize {
        self.entries.values().filter(|entry| entry.wanted.is_some()).count()
    }
}

impl Entry {
    fn due(&self, now: Instant) -> bool {
        let Some((_, urgency)) = &self.wanted else { return false };
        let since = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then));
        let least = match urgency {
            Urgency::Routine => ROUTINE,
            Urgency::Urgent => URGENT,
        };
        let backoff = BACKOFF.saturating_mul(1 << self.failures.saturating_sub(1).min(6)).min(BACKOFF_MAX);
        !self.under_way
            && since(self.written).is_none_or(|since| since >= least)
            && since(self.failed).is_none_or(|since| since >= backoff)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(schedule: &mut Schedule<u32>, now: Instant) -> Vec<u32> {
        let due = schedule.due(now);
        for (key, value) in &due {
            schedule.written(key, value.clone(), true, now);
        }
        due.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_is_there_is_not_written() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        for at in 0..100 {
            schedule.want(1, &json!({"a": 1}), json!({"a": 1}), Urgency::Urgent);
            assert!(run(&mut schedule, now + Duration::from_secs(at)).is_empty());
        }
    }

    #[test]
    fn counters_are_written_once_a_minute_and_conditions_within_a_second() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        let mut there = json!(0);
        let mut written = Vec::new();
        for second in 0..130 {
            let urgency = if second == 90 { Urgency::Urgent } else { Urgency::Routine };
            schedule.want(1, &there, json!(second + 1), urgency);
            for (key, value) in schedule.due(start + Duration::from_secs(second)) {
                written.push(second);
                there = value.clone();
                schedule.written(&key, value, true, start + Duration::from_secs(second));
            }
        }
        assert_eq!(written, [0, 60, 90]);
    }

    #[test]
    fn no_more_than_the_budget_is_written_and_the_urgent_comes_first() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        for key in 0..500 {
            let urgency = if key >= 490 { Urgency::Urgent } else { Urgency::Routine };
            schedule.want(key, &json!(0), json!(1), urgency);
        }
        let first = run(&mut schedule, now);
        assert_eq!(first.len(), 50);
        assert!((490..500).all(|key| first.contains(&key)));
        let second = run(&mut schedule, now + Duration::from_secs(2));
        assert_eq!(second.len(), 10);
        assert_eq!(schedule.waiting(), 440);
    }

    #[test]
    fn a_failed_write_is_tried_again_later_with_what_is_wanted_then() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        schedule.want(1, &json!(0), json!(1), Urgency::Urgent);
        let due = schedule.due(now);
        assert_eq!(due, [(1, json!(1))]);
        schedule.want(1, &json!(0), json!(2), Urgency::Routine);
        schedule.written(&1, json!(1), false, now);
        assert!(schedule.due(now).is_empty());
        assert_eq!(schedule.due(now + Duration::from_secs(60)), [(1, json!(2))]);
    }
}
