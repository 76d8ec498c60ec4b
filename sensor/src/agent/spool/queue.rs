//! The bounded queue between the event loop and the spool's thread.
//!
//! A mutex and a condition variable: the lock is held for a few instructions, never while anything is encoded or written,
//! so the event loop passes without waiting.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use link::proto;
use rules::alert::Alert;

use crate::active::Active;

/// Most alerts that wait.
const ALERTS: usize = 8192;

/// Most bytes of alerts that wait.
const BYTES: usize = 16 << 20;

/// One alert on its way to the spool.
pub struct Hit {
    /// The alert.
    pub alert: Arc<Alert>,
    /// The rules that the event was judged by.
    pub active: Arc<Active>,
    /// Which of them; none for what the sensor says about itself.
    pub rule: Option<usize>,
    /// Where it happened; none for the host.
    pub pod: Option<proto::Pod>,
    /// The object that a request of the audit log was about.
    pub object: Option<proto::Object>,
}

impl Hit {
    /// Roughly the memory that it takes.
    fn bytes(&self) -> usize {
        let value = |value: &serde_json::Value| 64 + value.as_str().map_or(0, str::len);
        let fields: usize = self.alert.output_fields.iter().map(|(_, field)| value(field)).sum();
        256 + self.alert.message.len() + fields
    }
}

/// See the module.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    hits: VecDeque<Hit>,
    bytes: usize,
    /// Rules whose silent hits are to be collected.
    fresh: Vec<Arc<Active>>,
    poked: bool,
    closed: bool,
    /// The spool's thread waits.
    idle: bool,
}

/// What the spool's thread gets.
pub struct Work {
    /// Alerts, in order.
    pub hits: VecDeque<Hit>,
    /// Rules that came into effect.
    pub fresh: Vec<Arc<Active>>,
    /// No more will come.
    pub closed: bool,
}

impl Queue {
    /// Takes an alert in, or counts it as a hit without one.
    pub fn push(&self, hit: Hit) {
        let bytes = hit.bytes();
        let mut state = self.lock();
        if state.closed || state.hits.len() >= ALERTS || state.bytes + bytes > BYTES {
            drop(state);
            if let Some(rule) = hit.rule {
                hit.active.count_untaken(rule, hit.alert.time_ns);
            }
            return;
        }
        state.bytes += bytes;
        state.hits.push_back(hit);
        self.wake(state);
    }

    /// Alerts that wait.
    pub fn waiting(&self) -> usize {
        self.lock().hits.len()
    }

    /// Says which rules run from now on.
    pub fn runs(&self, active: Arc<Active>) {
        let mut state = self.lock();
        state.fresh.push(active);
        self.wake(state);
    }

    /// Has the thread look at what is acknowledged.
    pub fn poke(&self) {
        let mut state = self.lock();
        state.poked = true;
        self.wake(state);
    }

    /// Lets no more in; the thread ends when everything is durable.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wake(state);
    }

    /// Waits for something to do, or until `until`.
    pub fn wait(&self, until: Instant) -> Work {
        let mut state = self.lock();
        while state.hits.is_empty() && state.fresh.is_empty() && !state.poked && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state.idle = true;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.idle = false;
        state.poked = false;
        state.bytes = 0;
        Work { hits: std::mem::take(&mut state.hits), fresh: std::mem::take(&mut state.fresh), closed: state.closed }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
