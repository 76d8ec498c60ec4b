//! One series: the alerts that share an Event, what is known of them, and when the Event is due for a change.

use std::time::Duration;

use crate::events::{
    hit::{Hit, Now},
    object::Output,
};

/// When the Event of an active series is changed, after the first alert; then every [`BEAT`].
const BEATS: [Duration; 3] = [Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];
/// Between later changes.
const BEAT: Duration = Duration::from_secs(600);
/// A series ends when it has been quiet for so long.
pub(super) const QUIET: Duration = Duration::from_secs(360);
/// What a series takes beside its texts, in bytes: itself, its places in queues and map, small allocations.
const OVERHEAD: usize = 768;

/// Where the Event of a series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not created yet: waits in a queue, or is being written.
    New,
    /// Created, nothing to do before its timer.
    Idle,
    /// Created, and a change of it waits for its turn, or is being written.
    Due,
    /// The API server does not take it: its alerts count as suppressed until the timer.
    Refused,
}

/// The alerts that share an Event.
#[derive(Debug)]
pub(super) struct Series {
    /// The first alert; its output is moved to `output`.
    pub hit: Hit,
    /// The output to show: that of the first alert until the Event is created, then the latest.
    pub output: Output,
    /// The node whose bound it counts against; nothing for what happens on many.
    pub counted: bool,
    pub began: Duration,
    pub last: Duration,
    pub last_ns: u64,
    /// Alerts in this series.
    pub count: u64,
    /// Alerts before it in the same Event, counted by a predecessor.
    pub base: u64,
    /// Of `count`, how many the API server knows of.
    pub written: u64,
    /// Of `count`, how many are being written.
    pub in_flight: Option<u64>,
    pub stage: Stage,
    /// Ends as soon as all is written.
    pub closing: bool,
    /// How many changes have been due.
    pub beats: u32,
    /// Which timer is valid.
    pub timer: u64,
    pub writer: String,
    /// Failed attempts while others succeeded.
    pub failures: u32,
    /// Successful writes of all series at the last failed attempt.
    pub successes_seen: u64,
}

impl Series {
    pub fn new(mut hit: Hit, counted: bool, writer: String, now: Now) -> Self {
        let output = Output::new(std::mem::take(&mut hit.output));
        Self {
            last_ns: hit.time_ns,
            hit,
            output,
            counted,
            began: now.since_start,
            last: now.since_start,
            count: 1,
            base: 0,
            written: 0,
            in_flight: None,
            stage: Stage::New,
            closing: false,
            beats: 0,
            timer: 0,
            writer,
            failures: 0,
            successes_seen: 0,
        }
    }

    /// Counts one more alert. Gives back by how much the size in memory changed.
    pub fn absorb(&mut self, hit: Hit, now: Now) -> isize {
        self.count = self.count.saturating_add(1);
        self.last = now.since_start;
        self.last_ns = self.last_ns.max(hit.time_ns);
        if self.stage == Stage::New {
            return 0;
        }
        let before = self.output.size();
        self.output = Output::new(hit.output);
        isize::try_from(self.output.size()).unwrap_or(0) - isize::try_from(before).unwrap_or(0)
    }

    /// Size in memory, in bytes.
    pub fn size(&self) -> usize {
        let subject = self.hit.subject.size();
        OVERHEAD + self.output.size() + self.writer.len() + subject
    }

    /// Whether the API server knows of fewer alerts than there are.
    pub fn is_dirty(&self) -> bool {
        self.count > self.written
    }

    /// When its Event is to be changed next, if it is active.
    pub fn next_beat(&self) -> Duration {
        let beats = usize::try_from(self.beats).unwrap_or(usize::MAX);
        let after = match BEATS.get(beats) {
            Some(after) => *after,
            None => {
                let further = self.beats.saturating_sub(2);
                BEATS.last().copied().unwrap_or_default().saturating_add(BEAT.saturating_mul(further))
            }
        };
        self.began.saturating_add(after)
    }

    /// Counts the changes that were due by now.
    pub fn pass_beats(&mut self, now: Duration) {
        while self.next_beat() <= now {
            self.beats += 1;
        }
    }

    /// When something is to be decided about it.
    pub fn deadline(&self) -> Duration {
        self.next_beat().min(self.last.saturating_add(QUIET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::object::tests::{hit, pod, rule};

    #[test]
    fn changes_become_rarer() {
        let now = Now { since_start: Duration::from_secs(5), unix_ns: 1 };
        let mut series = Series::new(hit(&rule("r"), pod("ns", "p"), "n", "o"), true, String::new(), now);
        let mut beats = Vec::new();
        for _ in 0..6 {
            beats.push(series.next_beat().as_secs() - 5);
            series.pass_beats(series.next_beat());
        }
        assert_eq!(beats, [10, 60, 300, 900, 1500, 2100]);
    }
}
