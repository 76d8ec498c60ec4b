//! The thread of one sink: delivers what waits for it, in order, and says how that goes.
//!
//! A thread, because a destination that hangs must have only its own sink to stop. What is delivered is settled in the
//! outbox after the destination has taken it: a kill in between sends it twice, never not at all.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ::sinks::{Again, SendError, Sink, SinkConfig, build, pace::Pace, pace::Rate};
use api::{ResourceId, condition::Reason};
use rules::alert::{Alert, Priority};
use tracing::{info, warn};

use super::{
    Problem,
    desk::{Desk, Job},
    now_ms,
};
use crate::outbox::{self, Outbox, Outcome, Row, SinkNo, TestOutcome, TestResult, record};

/// Alerts read at once.
const ROWS: usize = 64;
/// And their bytes.
const BYTES: usize = 1 << 20;
/// How long an alert is tried where the spec sets no limit to attempts, in milliseconds.
const PATIENCE_MS: u64 = 24 * 3600 * 1000;
/// Attempts that an alert has in any case: it may have waited for long behind others.
const ATTEMPTS: u32 = 10;
/// Wait after the store could not be read.
const STORE: Duration = Duration::from_secs(1);
/// Enough for a client and its TLS; there may be a thousand such threads.
const STACK_BYTES: usize = 1 << 20;

pub(super) fn spawn(id: ResourceId, number: SinkNo, outbox: Outbox, desk: Arc<Desk>) -> io::Result<()> {
    let attempt = Attempt { order: 0, failures: 0 };
    let pace = Pace::new(None, Instant::now());
    let mut worker = Worker {
        id,
        number,
        outbox,
        desk,
        sink: None,
        revision: 0,
        cursor: 0,
        attempt,
        pace,
        rate: None,
        failing: None,
    };
    thread::Builder::new().name("sink".into()).stack_size(STACK_BYTES).spawn(move || worker.run()).map(|_| ())
}

struct Worker {
    id: ResourceId,
    number: SinkNo,
    outbox: Outbox,
    desk: Arc<Desk>,
    sink: Option<(Arc<SinkConfig>, Box<dyn Sink>)>,
    /// Of the job that `sink` was built for.
    revision: u64,
    /// Everything up to here was settled, perhaps not on disk yet.
    cursor: u64,
    attempt: Attempt,
    pace: Pace,
    rate: Option<Rate>,
    /// Since when nothing is delivered.
    failing: Option<Instant>,
}

/// How often the alert in hand was tried; outlives changes of the configuration.
struct Attempt {
    order: u64,
    failures: u32,
}

/// Whether to go on with the next alert.
enum Next {
    Alert,
    Job,
}

impl Worker {
    fn run(&mut self) {
        loop {
            let (revision, job) = self.desk.job();
            let problem = match job {
                Job::Stop => return,
                Job::Wait(problem) => {
                    self.sink = None;
                    self.revision = revision;
                    Some(problem)
                }
                Job::Deliver(config) => {
                    if revision != self.revision {
                        self.configure(config, revision);
                    }
                    None
                }
            };
            if let Some(nonce) = self.desk.take_test() {
                self.test(nonce, problem);
                continue;
            }
            let suspended = self.sink.as_ref().is_none_or(|(config, _)| config.suspended);
            if suspended {
                self.desk.bell.wait(None);
                continue;
            }
            self.deliver();
        }
    }

    fn configure(&mut self, config: Arc<SinkConfig>, revision: u64) {
        let mut sink = build(&config);
        self.revision = revision;
        if self.rate != config.rate {
            self.rate = config.rate;
            self.pace = Pace::new(config.rate, Instant::now());
        }
        if !config.suspended
            && let Err(error) = sink.prepare()
        {
            self.failed(&error);
        }
        self.sink = Some((config, sink));
    }

    /// Delivers what waits, and then waits for more.
    fn deliver(&mut self) {
        let rows = match self.outbox.read(self.number, self.cursor, ROWS, BYTES) {
            Ok(rows) => rows,
            Err(error) => {
                warn!(sink = %self.id, error = %link::chain(&error), "the outbox cannot be read; trying again");
                self.desk.pause(Instant::now() + STORE, self.revision);
                return;
            }
        };
        if rows.is_empty() {
            self.desk.bell.wait(None);
            return;
        }
        for row in rows {
            match self.see_through(&row) {
                Next::Alert => self.cursor = row.key.order,
                Next::Job => return,
            }
        }
    }

    /// Sends an alert until it is delivered or given up, or there is something else to do.
    fn see_through(&mut self, row: &Row) -> Next {
        let Some(alert) = record::decode(&row.payload) else {
            warn!(sink = %self.id, "an alert in the outbox is not one; it is given up");
            return self.settle(row, Outcome::Failed);
        };
        if self.attempt.order != row.key.order {
            self.attempt = Attempt { order: row.key.order, failures: 0 };
            let wait = self.pace.next(Instant::now());
            if !wait.is_zero() && !self.desk.pause(Instant::now() + wait, self.revision) {
                // Its turn is taken; it need not wait again.
                return Next::Job;
            }
        }
        loop {
            if self.desk.interrupted(self.revision) {
                return Next::Job;
            }
            let Some((config, sink)) = &mut self.sink else { return Next::Job };
            let retry = config.retry;
            if self.attempt.failures > 0 {
                self.outbox.retried(self.number);
            }
            let error = match sink.send(&alert) {
                Ok(()) => {
                    self.delivered();
                    return self.settle(row, Outcome::Sent);
                }
                Err(error) => error,
            };
            self.attempt.failures = self.attempt.failures.saturating_add(1);
            self.failed(&error);
            let asked = match error.again() {
                Again::Never(_) => return self.settle(row, Outcome::Failed),
                Again::Later => None,
                Again::After(wait) => Some(wait),
            };
            if self.in_vain(retry.max_attempts, row) {
                return self.settle(row, Outcome::Failed);
            }
            let wait = retry.wait(self.attempt.failures, asked, fastrand::f64());
            if !self.desk.pause(Instant::now() + wait, self.revision) {
                return Next::Job;
            }
        }
    }

    /// Whether an alert was tried often enough.
    fn in_vain(&self, max_attempts: Option<u32>, row: &Row) -> bool {
        match max_attempts {
            Some(attempts) => self.attempt.failures >= attempts,
            None => self.attempt.failures >= ATTEMPTS && outbox::now_ms().saturating_sub(row.arrived_ms) > PATIENCE_MS,
        }
    }

    fn settle(&mut self, row: &Row, outcome: Outcome) -> Next {
        self.outbox.settle(self.number, row.key, outcome);
        Next::Alert
    }

    fn failed(&mut self, error: &SendError) {
        if self.failing.is_none() {
            warn!(sink = %self.id, reason = error.reason().name(), error = %error.describe(), "sink does not deliver");
            self.failing = Some(Instant::now());
        }
        self.desk.failed(error, now_ms());
    }

    fn delivered(&mut self) {
        if let Some(since) = self.failing.take() {
            info!(sink = %self.id, seconds = since.elapsed().as_secs(), "sink delivers again");
        }
        self.desk.delivered(now_ms());
    }

    /// Sends one alert to this sink and no other, once. That it was begun is on disk before it is sent: whatever
    /// happens, the same value of the annotation does not send another.
    fn test(&mut self, nonce: String, problem: Option<Problem>) {
        let result = |outcome| TestResult { nonce: nonce.clone(), at_ms: now_ms(), outcome };
        let begun = self.outbox.test(self.number, result(TestOutcome::Started));
        if let Err(error) = begun {
            warn!(sink = %self.id, error = %link::chain(&error), "the test of a sink could not be begun; trying again");
            self.desk.pause(Instant::now() + STORE, self.revision);
            return self.desk.ask_test(nonce);
        }
        let outcome = match (&mut self.sink, problem) {
            (_, Some(Problem { reason, message, .. })) => TestOutcome::Failed { reason, message },
            (Some((config, _)), None) if config.suspended => {
                TestOutcome::Failed { reason: Reason::Suspended, message: "spec.suspend is true".into() }
            }
            (Some((_, sink)), None) => match sink.send(&test_alert(&self.id, &nonce)) {
                Ok(()) => TestOutcome::Delivered,
                Err(error) => {
                    let (reason, message) = (error.reason(), error.describe());
                    self.failed(&error);
                    TestOutcome::Failed { reason, message }
                }
            },
            // A job is one or the other.
            (None, None) => return,
        };
        if outcome == TestOutcome::Delivered {
            self.delivered();
        }
        if let Err(error) = self.outbox.test(self.number, result(outcome)) {
            warn!(sink = %self.id, error = %link::chain(&error), "the result of a sink's test is lost");
        }
    }
}

/// The alert of a test.
fn test_alert(id: &ResourceId, nonce: &str) -> Alert {
    Alert {
        hostname: "gyrfalcon-operator".into(),
        time_ns: now_ms().saturating_mul(1_000_000),
        rule: "Test of an alert sink".into(),
        priority: Priority::Notice,
        source: "internal".into(),
        tags: ["gyrfalcon".into(), "test".into()].into(),
        message: format!("This is a test of {id}, which somebody asked for; nothing has happened").into(),
        output_fields: vec![("gyrfalcon.sink".into(), id.to_string().into()), ("gyrfalcon.test".into(), nonce.into())],
    }
}
