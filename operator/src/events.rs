//! Alerts as Kubernetes Events, without flooding the API server.
//!
//! [`aggregate`] decides what is written and when, within [`budget`]; [`object`] says how an Event looks, [`redact`] what
//! must not be in it; [`writer`] sends. This module brings them together with time and tasks. Only the leader has one: it
//! starts without knowing anything, and finds the Events of its predecessor by their names.

pub mod aggregate;
pub mod budget;
pub mod hit;
pub mod object;
pub mod redact;
pub mod writer;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use kube::Client;
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tracing::warn;

use self::{
    aggregate::{Aggregator, Cause, Identity, Outcome, Settings, Storm, Totals, WriteId},
    hit::{Hit, Now},
    writer::{Regarding, Results, Writer},
};

/// Requests at the same time.
const CONCURRENCY: usize = 8;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// The clock of the system, from now on.
pub fn system_clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Now { since_start: start.elapsed(), unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX) }
    })
}

/// Numbers for metrics.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Alerts, and series in memory.
    pub totals: Totals,
    /// Alerts that no Event counts, by cause.
    pub suppressed: Vec<(Cause, u64)>,
    /// Writes, by what became of them.
    pub writes: Vec<(writer::Result, u64)>,
    /// Writes that are being sent.
    pub in_flight: usize,
}

struct Shared {
    aggregator: Mutex<Aggregator>,
    clock: Clock,
    wake: Notify,
    stop: Notify,
    /// Nothing is sent.
    held: AtomicBool,
    results: Arc<Results>,
    in_flight: AtomicUsize,
}

impl Shared {
    /// The aggregator. It is held for the time of a decision, never while waiting.
    fn aggregator(&self) -> MutexGuard<'_, Aggregator> {
        self.aggregator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes Events about alerts until it is stopped. Dropped, it stops at once.
pub struct Events {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Events {
    /// Starts to write. `settings` may change; `pods` gives the uids of pods.
    pub fn start(
        client: Client,
        settings: watch::Receiver<Settings>,
        identity: Identity,
        pods: Arc<dyn Regarding>,
        clock: Clock,
    ) -> Self {
        let results = Arc::new(Results::default());
        let aggregator = Aggregator::new(settings.borrow().clone(), identity, clock());
        let shared = Arc::new(Shared {
            aggregator: Mutex::new(aggregator),
            clock,
            wake: Notify::new(),
            stop: Notify::new(),
            held: AtomicBool::new(false),
            results: Arc::clone(&results),
            in_flight: AtomicUsize::new(0),
        });
        let writer = Arc::new(Writer::new(client, pods, results));
        let task = tokio::spawn(run(Arc::clone(&shared), writer, settings));
        Self { shared, task }
    }

    /// Takes in alerts. Does not wait: each is counted in a series or as suppressed before this returns, so nothing
    /// piles up.
    pub fn hits(&self, hits: Vec<Hit>) {
        let now = (self.shared.clock)();
        {
            let mut aggregator = self.shared.aggregator();
            hits.into_iter().for_each(|hit| aggregator.hit(hit, now));
        }
        self.shared.wake.notify_one();
    }

    /// Sends nothing while `held`. Alerts are counted in their series as ever, so the memory they take stays bounded.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Relaxed);
        self.shared.wake.notify_one();
    }

    /// The rules that fire faster than their alerts can be Events, for their condition `AlertStorm`.
    pub fn storms(&self) -> Vec<Storm> {
        let now = (self.shared.clock)();
        self.shared.aggregator().storms(now)
    }

    /// Numbers for metrics.
    pub fn counters(&self) -> Counters {
        let aggregator = self.shared.aggregator();
        Counters {
            totals: aggregator.totals(),
            suppressed: Cause::ALL.into_iter().map(|cause| (cause, aggregator.suppressed(cause))).collect(),
            writes: writer::Result::ALL.into_iter().map(|of| (of, self.shared.results.count(of))).collect(),
            in_flight: self.shared.in_flight.load(Relaxed),
        }
    }

    /// Writes what is not written yet, within the budget and for no longer than `patience`, and stops. What is left
    /// then is counted as suppressed. Gives the final numbers.
    pub async fn stop(mut self, patience: Duration) -> Counters {
        self.shared.stop.notify_one();
        if tokio::time::timeout(patience, &mut self.task).await.is_err() {
            self.task.abort();
            let now = (self.shared.clock)();
            self.shared.aggregator().abandon(now);
            warn!("stopped before all Events were written");
        }
        self.counters()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends what the aggregator gives, until it is stopped and has nothing left.
async fn run(shared: Arc<Shared>, writer: Arc<Writer>, mut settings: watch::Receiver<Settings>) {
    let mut flying: JoinSet<(WriteId, Outcome)> = JoinSet::new();
    let (mut stopping, mut changes) = (false, true);
    loop {
        let held = shared.held.load(Relaxed);
        let most = if shared.aggregator().is_failing() { 1 } else { CONCURRENCY };
        while !held && flying.len() < most {
            let now = (shared.clock)();
            let Some(write) = shared.aggregator().next(now) else { break };
            let (id, writer) = (write.id.clone(), Arc::clone(&writer));
            flying.spawn(async move { (id, writer.write(write).await) });
        }
        shared.in_flight.store(flying.len(), Relaxed);
        if stopping && flying.is_empty() && shared.aggregator().is_idle() {
            return;
        }
        let now = (shared.clock)();
        let wake_at = shared.aggregator().wake_at(now).filter(|_| !held && flying.len() < most);
        let timer = async {
            match wake_at {
                Some(at) => tokio::time::sleep(at.saturating_sub(now.since_start)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(done) = flying.join_next() => {
                if let Ok((id, outcome)) = done {
                    let now = (shared.clock)();
                    shared.aggregator().done(id, outcome, now);
                }
            }
            changed = settings.changed(), if changes => {
                changes = changed.is_ok();
                let new = settings.borrow_and_update().clone();
                shared.aggregator().set(new);
            }
            () = shared.stop.notified(), if !stopping => {
                stopping = true;
                shared.aggregator().stop();
            }
            () = shared.wake.notified() => {}
            () = timer => {}
        }
    }
}

#[cfg(test)]
mod tests;
