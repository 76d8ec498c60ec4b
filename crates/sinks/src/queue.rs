//! The bounded queue in front of a sink, and the only thing that its thread and the rest of the program share.
//!
//! A mutex and a condition variable: a lock is held for a few instructions, never while anything is sent or written,
//! so the event loop passes without waiting. A lock-free queue could not take back the least serious alert, nor count
//! what it drops exactly.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use api::sink::{Overflow, QueueSpec};
use rules::alert::{Alert, Priority};

use crate::{Loss, tally::Tally};

/// Size and overflow policy of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Alerts that can wait.
    pub capacity: usize,
    /// Which one to give up when they are too many.
    pub overflow: Overflow,
}

impl QueueConfig {
    /// The queue that a spec describes, with its defaults.
    pub fn new(spec: Option<&QueueSpec>) -> Self {
        let spec = spec.cloned().unwrap_or_default();
        Self {
            capacity: spec.memory.map_or(10_000, |memory| memory.max(1) as usize),
            overflow: spec.overflow.unwrap_or(Overflow::DropLowestPriority),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    config: QueueConfig,
    tally: Arc<Tally>,
    state: Mutex<State>,
    /// Something arrived, or the phase changed: the sink's thread waits for it.
    arrived: Condvar,
    /// The sink's thread ended: who stops the sink waits for it.
    ended: Condvar,
    reopen: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Waiting alerts by priority, each with its place in the order of arrival.
    waiting: [VecDeque<(u64, Arc<Alert>)>; Priority::ALL.len()],
    len: usize,
    arrivals: u64,
    /// The sink's thread has an alert in hand.
    in_hand: bool,
    /// The sink's thread waits for `arrived`.
    idle: bool,
    ended: bool,
    /// Alerts that were left at the deadline.
    given_up: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Alerts come and go.
    Open,
    /// No more alerts come; those that wait are sent until the deadline.
    Draining(Instant),
    /// Everything was given up; the thread may go when it can.
    Abandoned,
}

/// What becomes of an alert after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Sent,
    Dropped(Loss),
}

impl Queue {
    pub fn new(config: QueueConfig, tally: Arc<Tally>) -> Self {
        let state = State {
            waiting: Default::default(),
            len: 0,
            arrivals: 0,
            in_hand: false,
            idle: false,
            ended: false,
            given_up: 0,
            phase: Phase::Open,
        };
        Self {
            config,
            tally,
            state: Mutex::new(state),
            arrived: Condvar::new(),
            ended: Condvar::new(),
            reopen: AtomicBool::new(false),
        }
    }

    /// Takes an alert in, or counts the one that has to go. Gives the alert back when no more are let in.
    pub fn push(&self, alert: Arc<Alert>) -> Result<(), Arc<Alert>> {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Err(alert);
        }
        if state.len >= self.config.capacity {
            self.tally.dropped(Loss::QueueFull, 1);
            let class = match self.config.overflow {
                Overflow::DropOldest => state.oldest(),
                Overflow::DropNewest => None,
                Overflow::DropLowestPriority => state.least_serious().filter(|class| *class >= class_of(&alert)),
            };
            if class.and_then(|class| state.take(class)).is_none() {
                return Ok(());
            }
        }
        let arrival = state.arrivals;
        state.arrivals += 1;
        state.len += 1;
        if let Some(waiting) = state.waiting.get_mut(class_of(&alert)) {
            waiting.push_back((arrival, alert));
        }
        if std::mem::take(&mut state.idle) {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// The next alert in order of arrival; none when there will be no more. It is in hand until [`Self::settle`].
    pub fn next(&self) -> Option<Arc<Alert>> {
        let mut state = self.lock();
        loop {
            match state.phase {
                Phase::Open => {}
                Phase::Draining(deadline) if state.len > 0 && Instant::now() < deadline => {}
                Phase::Draining(_) => {
                    self.give_up(&mut state);
                    return None;
                }
                Phase::Abandoned => return None,
            }
            if let Some(alert) = state.oldest().and_then(|class| state.take(class)) {
                state.in_hand = true;
                return Some(alert);
            }
            state.idle = true;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits before another attempt for the alert in hand. False when there is no time for one.
    ///
    /// When draining begins, the wait is over: the receiver may be back, and this is the last chance to find out.
    pub fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        let draining = state.phase != Phase::Open;
        loop {
            let now = Instant::now();
            match state.phase {
                Phase::Open => {}
                Phase::Draining(deadline) if !draining => return now < deadline,
                Phase::Draining(deadline) if until < deadline => {}
                Phase::Draining(_) | Phase::Abandoned => return false,
            }
            let Some(left) = until.checked_duration_since(now).filter(|left| !left.is_zero()) else { return true };
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Counts what became of the alert in hand, unless it was given up meanwhile.
    pub fn settle(&self, outcome: Outcome) {
        let mut state = self.lock();
        if !std::mem::take(&mut state.in_hand) {
            return;
        }
        match outcome {
            Outcome::Sent => self.tally.sent(),
            Outcome::Dropped(loss) => self.tally.dropped(loss, 1),
        }
    }

    /// Lets no more alerts in; those that wait are sent until the deadline.
    pub fn close(&self, deadline: Instant) {
        let mut state = self.lock();
        match state.phase {
            Phase::Open => state.phase = Phase::Draining(deadline),
            Phase::Draining(earlier) => state.phase = Phase::Draining(earlier.min(deadline)),
            Phase::Abandoned => {}
        }
        self.arrived.notify_all();
    }

    /// Waits until the sink's thread has ended. False when it hasn't by the deadline.
    pub fn wait_ended(&self, deadline: Instant) -> bool {
        self.wait_for_end(deadline).ended
    }

    /// Waits until the sink's thread has ended, and at the deadline gives up what is left. Returns how many alerts that
    /// were.
    pub fn stop(&self, deadline: Instant) -> u64 {
        let mut state = self.wait_for_end(deadline);
        if !state.ended {
            self.give_up(&mut state);
        }
        state.given_up
    }

    /// Gives up what is left when the deadline for draining has passed. Once the thread has ended or was given up:
    /// how many alerts were left.
    pub fn reap(&self) -> Option<u64> {
        let mut state = self.lock();
        if let Phase::Draining(deadline) = state.phase
            && Instant::now() >= deadline
        {
            self.give_up(&mut state);
        }
        (state.ended || state.phase == Phase::Abandoned).then_some(state.given_up)
    }

    /// The sink's thread has ended, for whatever reason.
    pub fn end(&self) {
        let mut state = self.lock();
        if !state.ended {
            self.give_up(&mut state);
            state.ended = true;
            self.ended.notify_all();
        }
    }

    /// Alerts that wait, the one in hand included.
    pub fn queued(&self) -> u64 {
        let state = self.lock();
        state.len as u64 + u64::from(state.in_hand)
    }

    /// Whether a quarter of the places is taken.
    pub fn is_crowded(&self) -> bool {
        self.lock().len.saturating_mul(4) > self.config.capacity
    }

    /// Asks the sink to open its file anew before the next alert.
    pub fn request_reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    /// Whether that was asked for since the last call.
    pub fn take_reopen(&self) -> bool {
        self.reopen.swap(false, Relaxed)
    }

    fn wait_for_end(&self, deadline: Instant) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while !state.ended {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            let Some(left) = left else { break };
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    fn give_up(&self, state: &mut State) {
        let left = state.len as u64 + u64::from(std::mem::take(&mut state.in_hand));
        state.waiting = Default::default();
        state.len = 0;
        state.phase = Phase::Abandoned;
        state.given_up += left;
        self.tally.dropped(Loss::Stopped, left);
        self.arrived.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The class whose first alert waited longest.
    fn oldest(&self) -> Option<usize> {
        let fronts = self.waiting.iter().enumerate().filter_map(|(class, waiting)| Some((waiting.front()?.0, class)));
        fronts.min().map(|(_, class)| class)
    }

    fn least_serious(&self) -> Option<usize> {
        self.waiting.iter().rposition(|waiting| !waiting.is_empty())
    }

    fn take(&mut self, class: usize) -> Option<Arc<Alert>> {
        let (_, alert) = self.waiting.get_mut(class)?.pop_front()?;
        self.len -= 1;
        Some(alert)
    }
}

fn class_of(alert: &Alert) -> usize {
    alert.priority as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SinkType, testing};

    fn queue(capacity: usize, overflow: Overflow) -> Queue {
        Queue::new(QueueConfig { capacity, overflow }, Arc::default())
    }

    fn push(queue: &Queue, rule: &str, priority: Priority) {
        queue.push(Arc::new(testing::alert(rule, priority, &[]))).expect("open");
    }

    /// Names of the alerts that wait, in the order in which they leave.
    fn drain(queue: &Queue) -> Vec<String> {
        queue.close(Instant::now() + Duration::from_secs(3600));
        std::iter::from_fn(|| {
            let alert = queue.next()?;
            queue.settle(Outcome::Sent);
            Some(alert.rule.to_string())
        })
        .collect()
    }

    fn dropped(queue: &Queue, loss: Loss) -> u64 {
        queue.tally.read(&testing::id("x"), SinkType::Stdout, 0).dropped(loss)
    }

    #[test]
    fn alerts_leave_in_order_of_arrival_whatever_their_priority() {
        let queue = queue(10, Overflow::DropLowestPriority);
        push(&queue, "a", Priority::Debug);
        push(&queue, "b", Priority::Emergency);
        push(&queue, "c", Priority::Debug);
        assert_eq!(drain(&queue), ["a", "b", "c"]);
    }

    #[test]
    fn a_full_queue_gives_up_what_its_policy_says() {
        for (overflow, want) in [
            (Overflow::DropOldest, ["2", "3"]),
            (Overflow::DropNewest, ["0", "1"]),
            (Overflow::DropLowestPriority, ["1", "3"]),
        ] {
            let queue = queue(2, overflow);
            push(&queue, "0", Priority::Notice);
            push(&queue, "1", Priority::Critical);
            push(&queue, "2", Priority::Debug);
            push(&queue, "3", Priority::Notice);
            assert_eq!(dropped(&queue, Loss::QueueFull), 2, "{overflow:?}");
            assert_eq!(drain(&queue), want, "{overflow:?}");
        }
    }

    #[test]
    fn noise_does_not_push_out_what_matters() {
        let queue = queue(2, Overflow::DropLowestPriority);
        push(&queue, "a", Priority::Critical);
        push(&queue, "b", Priority::Critical);
        for _ in 0..1000 {
            push(&queue, "noise", Priority::Debug);
        }
        assert_eq!(dropped(&queue, Loss::QueueFull), 1000);
        assert_eq!(drain(&queue), ["a", "b"]);
    }

    #[test]
    fn what_is_left_at_the_deadline_is_counted_once() {
        let queue = queue(10, Overflow::DropOldest);
        (0..3).for_each(|_| push(&queue, "a", Priority::Notice));
        assert!(queue.next().is_some());
        queue.close(Instant::now());
        assert!(!queue.wait_ended(Instant::now()));
        assert_eq!(queue.stop(Instant::now()), 3);
        // The alert in hand was given up, so its late success does not count.
        queue.settle(Outcome::Sent);
        assert!(queue.push(Arc::new(testing::alert("late", Priority::Notice, &[]))).is_err());
        assert!(queue.next().is_none());
        assert_eq!(dropped(&queue, Loss::Stopped), 3);
        assert_eq!(queue.tally.read(&testing::id("x"), SinkType::Stdout, 0).sent, 0);
    }

    #[test]
    fn a_pause_ends_when_there_is_no_time_for_another_attempt() {
        let queue = queue(10, Overflow::DropOldest);
        assert!(queue.pause(Duration::ZERO));
        queue.close(Instant::now() + Duration::from_secs(1));
        assert!(!queue.pause(Duration::from_secs(60)));
    }
}
