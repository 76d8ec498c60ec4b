//! **The one writer of status.** Decides which objects are written when, so that the API server is not flooded.
//!
//! [`Schedule`] is pure: wanted statuses and times come in, what to write comes out. Nothing is written that is there
//! already; conditions within a second; counters once a minute for each object; what few look at all the more seldom
//! the more objects there are; and never more than five objects a second for long, of which conditions come first.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Least time between two writes of one object for counters alone.
const ROUTINE: Duration = Duration::from_secs(60);
/// Least time between two writes of one object of a kind that there are many of.
const SOON: Duration = Duration::from_secs(10);
/// Least time between two writes of one object.
const URGENT: Duration = Duration::from_secs(1);
/// Objects a second.
const RATE: f64 = 5.0;
/// Objects at once after a quiet time.
const BURST: f64 = 50.0;
/// What others than the urgent leave of the burst.
const RESERVE: f64 = 25.0;
/// Time for each object between two writes that are in the background: half an object a second in all.
const BACKGROUND: Duration = Duration::from_secs(2);
/// Time until a failed write is tried again; doubled each time, up to [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_secs(1);
/// Longest time until a failed write is tried again.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How soon a change should be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Counters and times of a kind that there is an object of for every node: the more there are, the more seldom.
    Background,
    /// Counters, times.
    Routine,
    /// A change of state of a kind that there is an object of for every node: all may change at once.
    Soon,
    /// A condition, a generation, the first hit.
    Urgent,
}

/// What is wanted of each object, and when it was written.
#[derive(Debug)]
pub struct Schedule<K> {
    entries: HashMap<K, Entry>,
    /// Spreads what is in the background.
    spread: RandomState,
    tokens: f64,
    filled: Option<Instant>,
    /// Of counters of rules and states of nodes, the counters are next.
    counters_next: bool,
    held: usize,
}

#[derive(Debug)]
struct Entry {
    /// What the API server has, as far as is known.
    there: Value,
    /// What it should have, and how soon; none when it has it.
    wanted: Option<(Value, Urgency)>,
    written: Option<Instant>,
    /// Since when it is known; none before the first look.
    known: Option<Instant>,
    /// Where in the time of all the background its next time is: 0.5 to 1.5.
    share: f64,
    under_way: bool,
    failures: u32,
    failed: Option<Instant>,
}

impl<K> Default for Schedule<K> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            spread: RandomState::new(),
            tokens: BURST,
            filled: None,
            counters_next: true,
            held: 0,
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Schedule<K> {
    /// Says what an object's status should be; `there` is what the API server was seen to have.
    pub fn want(&mut self, key: K, there: &Value, wanted: Value, urgency: Urgency) {
        let share = share(self.spread.hash_one(&key));
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            there: there.clone(),
            wanted: None,
            written: None,
            known: None,
            share,
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
        self.entries.values_mut().for_each(|entry| _ = entry.known.get_or_insert(now));
        let background = self.background();
        let mut due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.due(now, background))
            .filter_map(|(key, entry)| Some((entry.wanted.as_ref()?.1, entry.written, key.clone())))
            .collect();
        due.sort_by(|a, b| (a.1, &a.2).cmp(&(b.1, &b.2)));
        // Counters of rules and states of nodes take turns, also from one look to the next, which may allow one write only:
        // however many there are of one, the other goes on.
        let (mut first, mut second) = ((1..).step_by(2), (2..).step_by(2));
        let (routine, others) = if self.counters_next { (&mut first, &mut second) } else { (&mut second, &mut first) };
        let mut turn = |urgency| match urgency {
            Urgency::Urgent => Some(0),
            Urgency::Routine => routine.next(),
            Urgency::Soon | Urgency::Background => others.next(),
        };
        let mut due: Vec<_> = due.into_iter().map(|(urgency, _, key)| (turn(urgency), urgency, key)).collect();
        due.sort_by_key(|(turn, ..)| *turn);
        self.held = due.len();
        let mut writes = Vec::new();
        for (_, urgency, key) in due {
            if self.tokens < if urgency < Urgency::Urgent { RESERVE + 1.0 } else { 1.0 } {
                break;
            }
            self.tokens -= 1.0;
            if urgency < Urgency::Urgent {
                self.counters_next = urgency != Urgency::Routine;
            }
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let Some((value, _)) = entry.wanted.take() else { continue };
            entry.under_way = true;
            entry.written = Some(now);
            // What was written together is not written together the next time.
            entry.share = share(self.spread.hash_one((&key, entry.share.to_bits())));
            writes.push((key, value));
        }
        self.held -= writes.len();
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

    /// How many objects wait to be written, or are being written.
    pub fn waiting(&self) -> usize {
        self.entries.values().filter(|entry| entry.wanted.is_some() || entry.under_way).count()
    }

    /// How many objects the last look would have given if the budget had allowed it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Time between two writes of an object that are in the background.
    fn background(&self) -> Duration {
        let objects = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        BACKGROUND.saturating_mul(objects).max(ROUTINE)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(random: u64) -> f64 {
    0.5 + (random % 1024) as f64 / 1024.0
}

impl Entry {
    fn due(&self, now: Instant, background: Duration) -> bool {
        let Some((_, urgency)) = &self.wanted else { return false };
        let since = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then));
        let least = match urgency {
            Urgency::Background => background.mul_f64(self.share),
            Urgency::Routine => ROUTINE,
            Urgency::Soon => SOON,
            Urgency::Urgent => URGENT,
        };
        let backoff = BACKOFF.saturating_mul(1 << self.failures.saturating_sub(1).min(6)).min(BACKOFF_MAX);
        // What an earlier leader wrote, it may just have written.
        let last = self.written.or(self.known.filter(|_| *urgency == Urgency::Background));
        !self.under_way
            && since(last).is_none_or(|since| since >= least)
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
        assert_eq!(first.len(), 25);
        assert!((490..500).all(|key| first.contains(&key)));
        let second = run(&mut schedule, now + Duration::from_secs(2));
        assert_eq!(second.len(), 10);
        assert_eq!(schedule.waiting(), 465);
    }

    #[test]
    fn the_urgent_need_not_wait_for_a_thousand_others() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        for key in 0..1000 {
            schedule.want(key, &json!(0), json!(1), Urgency::Soon);
        }
        assert_eq!(run(&mut schedule, start).len(), 25);
        for at in 1..20 {
            let now = start + Duration::from_secs(at);
            schedule.want(2000, &json!(at - 1), json!(at), Urgency::Urgent);
            let written = run(&mut schedule, now);
            assert_eq!(written.first(), Some(&2000), "second {at}");
            assert!(written.len() <= 5, "second {at}");
        }
    }

    /// Looks ten times a second for as long as it takes, and says after how many looks an object was written.
    fn looks_until(schedule: &mut Schedule<u32>, key: u32, start: Instant) -> Option<u32> {
        (0..2_000).find(|look| run(schedule, start + Duration::from_millis(100) * *look).contains(&key))
    }

    #[test]
    fn counters_of_rules_are_written_while_a_thousand_nodes_wait() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        schedule.want(2000, &json!(0), json!(1), Urgency::Routine);
        run(&mut schedule, start);
        for key in 0..1000 {
            schedule.want(key, &json!(0), json!(1), Urgency::Soon);
        }
        run(&mut schedule, start);
        schedule.want(2000, &json!(1), json!(2), Urgency::Routine);
        let looks = looks_until(&mut schedule, 2000, start);
        assert!(looks.is_some_and(|looks| (600..605).contains(&looks)), "{looks:?}");
        assert!(schedule.waiting() > 500);
    }

    #[test]
    fn states_of_nodes_are_written_while_the_counters_of_a_thousand_rules_wait() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        for key in 0..1000 {
            schedule.want(key, &json!(0), json!(1), Urgency::Routine);
        }
        run(&mut schedule, start);
        schedule.want(2000, &json!(0), json!(1), Urgency::Soon);
        let looks = looks_until(&mut schedule, 2000, start);
        assert!(looks.is_some_and(|looks| looks < 10), "{looks:?}");
    }

    #[test]
    fn what_changes_on_every_node_all_the_time_is_half_a_write_a_second() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        let mut written = Vec::new();
        for second in 0..8_000_u64 {
            if second % 10 == 0 {
                (0..1000).for_each(|key| schedule.want(key, &json!(0), json!(second + 1), Urgency::Background));
            }
            let now = start + Duration::from_secs(second);
            written.push(run(&mut schedule, now).len());
        }
        let busiest = written.chunks(60).map(|minute| minute.iter().sum::<usize>()).max();
        assert!(busiest.is_some_and(|most| most <= 75), "{busiest:?}");
        assert!(written.iter().sum::<usize>() > 2_000);
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
