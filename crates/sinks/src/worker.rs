//! The thread of one sink: takes alerts from its queue and sees each through to an end.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use api::ResourceId;
use rules::alert::Alert;
use tracing::{info, warn};

use crate::{
    Loss, SendError, Sink,
    config::SinkConfig,
    pace::Pace,
    queue::{Outcome, Queue},
    retry::Retry,
    sink::{Again, Chain, build},
    tally::Tally,
};

/// Starts the thread of a sink. It first waits for the end of its predecessors, until the deadline: the same sink with
/// its old configuration, or whoever wrote to the same file. So alerts stay in order and a file has one writer.
pub(crate) fn spawn(
    config: &SinkConfig,
    queue: Arc<Queue>,
    tally: Arc<Tally>,
    predecessors: Vec<Arc<Queue>>,
    deadline: Instant,
) -> io::Result<JoinHandle<()>> {
    let mut worker = Worker {
        id: config.id.clone(),
        sink: build(config),
        retry: config.retry,
        pace: Pace::new(config.rate, Instant::now()),
        queue: Arc::clone(&queue),
        tally,
        episode: None,
    };
    thread::Builder::new().name(format!("sink-{}", config.kind().name())).spawn(move || {
        // Also when the thread panics, whoever waits for its end must not wait in vain.
        let _end = End(queue);
        for predecessor in predecessors {
            predecessor.wait_ended(deadline);
        }
        worker.run();
    })
}

struct End(Arc<Queue>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Worker {
    id: ResourceId,
    sink: Box<dyn Sink>,
    retry: Retry,
    pace: Pace,
    queue: Arc<Queue>,
    tally: Arc<Tally>,
    episode: Option<Episode>,
}

/// A time without deliveries, which is logged at its beginning and at its end and not in between.
struct Episode {
    since: Instant,
    dropped_before: u64,
}

impl Worker {
    fn run(&mut self) {
        if let Err(error) = self.sink.prepare() {
            self.failed(&error);
        }
        while let Some(alert) = self.queue.next() {
            if self.queue.take_reopen() {
                self.sink.reopen();
            }
            let wait = self.pace.next(Instant::now());
            let outcome = match wait.is_zero() || self.queue.pause(wait) {
                true => self.see_through(&alert),
                false => Outcome::Dropped(Loss::Stopped),
            };
            self.queue.settle(outcome);
        }
    }

    /// Sends an alert until it is delivered or lost.
    fn see_through(&mut self, alert: &Alert) -> Outcome {
        let mut failures = 0;
        loop {
            let error = match self.sink.send(alert) {
                Ok(()) => {
                    self.delivered();
                    return Outcome::Sent;
                }
                Err(error) => error,
            };
            failures += 1;
            self.failed(&error);
            let asked: Option<Duration> = match error.again() {
                Again::Never(loss) => return Outcome::Dropped(loss),
                Again::Later => None,
                Again::After(wait) => Some(wait),
            };
            if failures >= self.retry.max_attempts_in_memory() {
                return Outcome::Dropped(error.exhausted());
            }
            if !self.queue.pause(self.retry.wait(failures, asked, fastrand::f64())) {
                return Outcome::Dropped(Loss::Stopped);
            }
            self.tally.retried();
        }
    }

    fn failed(&mut self, error: &SendError) {
        let reason = Chain(error).to_string();
        if self.episode.is_none() {
            warn!(sink = %self.id, error = %reason, remedy = error.remedy(), "sink does not deliver");
            self.episode = Some(Episode { since: Instant::now(), dropped_before: self.tally.dropped_total() });
        }
        self.tally.set_failure(Some(error.describe()));
    }

    fn delivered(&mut self) {
        let Some(episode) = self.episode.take() else { return };
        let dropped = self.tally.dropped_total().saturating_sub(episode.dropped_before);
        let seconds = episode.since.elapsed().as_secs();
        info!(sink = %self.id, seconds, dropped, "sink delivers again");
        self.tally.set_failure(None);
    }
}
