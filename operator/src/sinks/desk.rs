//! What the thread of a sink and the rest of the operator tell each other.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use ::sinks::{SendError, SinkConfig};
use api::condition::Reason;

use super::Problem;
use crate::outbox::Bell;

/// What the thread is to do.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// Deliver what waits.
    Deliver(Arc<SinkConfig>),
    /// Wait; the sink cannot work.
    Wait(Problem),
    /// End.
    Stop,
}

/// How deliveries go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// There was none since the operator started.
    Idle,
    /// The last one succeeded.
    Delivered,
    /// The last attempt failed.
    Failing {
        /// The stable word for it.
        reason: Reason,
        /// What happened, and what to do about it.
        message: String,
    },
}

/// The last failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened, and what to do about it.
    pub message: String,
    /// Status of the HTTP answer, where there was one.
    pub code: Option<u16>,
}

/// How a sink does.
#[derive(Debug, Clone)]
pub(super) struct Health {
    pub flow: Flow,
    pub last_delivered_ms: Option<u64>,
    pub last_failure: Option<Failure>,
}

#[derive(Debug)]
pub(super) struct Desk {
    pub bell: Arc<Bell>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    job: Job,
    /// Rises with each new job.
    revision: u64,
    test: Option<String>,
    /// The last test that was asked for.
    asked: Option<String>,
    health: Health,
    /// The destination does not accept our credentials: perhaps there are new ones.
    refused: bool,
}

impl Desk {
    pub fn new(job: Job) -> Self {
        let health = Health { flow: Flow::Idle, last_delivered_ms: None, last_failure: None };
        let state = State { job, revision: 1, test: None, asked: None, health, refused: false };
        Self { bell: Arc::default(), state: Mutex::new(state) }
    }

    /// Gives the thread something else to do, unless it is what it does already.
    pub fn assign(&self, job: Job) {
        let mut state = self.lock();
        let same = match (&state.job, &job) {
            (Job::Deliver(now), Job::Deliver(next)) => now == next,
            (Job::Wait(now), Job::Wait(next)) => now == next,
            (Job::Stop, Job::Stop) => true,
            (Job::Deliver(_) | Job::Wait(_) | Job::Stop, _) => false,
        };
        if !same {
            state.job = job;
            state.revision += 1;
            self.bell.ring();
        }
    }

    pub fn job(&self) -> (u64, Job) {
        let state = self.lock();
        (state.revision, state.job.clone())
    }

    pub fn ask_test(&self, nonce: String) {
        let mut state = self.lock();
        state.asked = Some(nonce.clone());
        state.test = Some(nonce);
        drop(state);
        self.bell.ring();
    }

    /// Whether that test was the last one asked for.
    pub fn was_asked(&self, nonce: &str) -> bool {
        self.lock().asked.as_deref() == Some(nonce)
    }

    pub fn take_test(&self) -> Option<String> {
        self.lock().test.take()
    }

    /// Whether there is something else to do than what began with this revision.
    pub fn interrupted(&self, revision: u64) -> bool {
        let state = self.lock();
        state.revision != revision || state.test.is_some()
    }

    /// Waits until a time. False when there is something else to do before.
    pub fn pause(&self, until: Instant, revision: u64) -> bool {
        loop {
            if self.interrupted(revision) {
                return false;
            }
            if !self.bell.wait(Some(until)) {
                return !self.interrupted(revision);
            }
        }
    }

    pub fn health(&self) -> Health {
        self.lock().health.clone()
    }

    pub fn delivered(&self, now_ms: u64) {
        let mut state = self.lock();
        state.health.flow = Flow::Delivered;
        state.health.last_delivered_ms = Some(now_ms);
        state.refused = false;
    }

    pub fn failed(&self, error: &SendError, now_ms: u64) {
        let (reason, message) = (error.reason(), error.describe());
        let mut state = self.lock();
        state.refused |= reason == Reason::AuthFailed;
        state.health.last_failure = Some(Failure { at_ms: now_ms, message: message.clone(), code: error.code() });
        state.health.flow = Flow::Failing { reason, message };
    }

    /// Whether credentials were refused since the last call.
    pub fn take_refused(&self) -> bool {
        std::mem::take(&mut self.lock().refused)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
