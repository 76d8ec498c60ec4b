//! How the sensor does: taken together every few seconds by the thread that controls it, read by the operator, by
//! Prometheus and by the kubelet.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use event::loss::Loss;
use link::proto;

use super::{
    link::LinkStatus,
    metrics::{Metric, Sample},
    spool::Spool,
};
use crate::{driver::KernelCounter, pipeline::Counters, sensor::Sensor};

/// What others may ask.
pub struct Status {
    /// Alerts on disk.
    pub spool: Arc<Spool>,
    /// The link.
    pub link: Arc<LinkStatus>,
    /// The event loop runs.
    pub alive: AtomicBool,
    /// What was seen last.
    seen: Mutex<Seen>,
}

/// What is known about the running sensor.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Attached hooks; none before the sensor has started.
    pub hooks: Vec<String>,
    /// Hash of the running bundle; none before the first one.
    pub bundle: Option<String>,
    /// Rules that run.
    pub rules: u64,
    counters: Option<Arc<Counters>>,
    kernel_losses: Vec<(&'static str, u64)>,
}

impl Status {
    /// Of a sensor that has not started.
    pub fn new(spool: Arc<Spool>, link: Arc<LinkStatus>) -> Self {
        Self { spool, link, alive: AtomicBool::new(true), seen: Mutex::default() }
    }

    /// Looks at the running sensor.
    pub fn look(&self, sensor: &Sensor) {
        self.alive.store(sensor.alive(), Relaxed);
        let mut kernel_losses: Vec<(&'static str, u64)> = Vec::new();
        if let Ok(counts) = sensor.driver().counts() {
            let losses = KernelCounter::ALL.iter().filter(|counter| counter.is_loss());
            kernel_losses.extend(losses.map(|counter| (counter.label(), counts.total(*counter))));
            kernel_losses.push(("recursion", counts.recursion_misses));
        }
        let mut seen = self.seen();
        seen.hooks = sensor.driver().hooks();
        seen.rules = sensor.active().ruleset.rules().len() as u64;
        seen.counters = Some(Arc::clone(sensor.counters()));
        if !kernel_losses.is_empty() {
            seen.kernel_losses = kernel_losses;
        }
    }

    /// Notes the bundle that runs.
    pub fn runs(&self, hash: &str) {
        self.seen().bundle = Some(hash.to_owned());
    }

    /// Why the sensor is not ready, if it is not.
    pub fn unready(&self) -> Option<&'static str> {
        let seen = self.seen();
        if seen.hooks.is_empty() {
            return Some("the hooks are not attached yet");
        }
        seen.bundle
            .is_none()
            .then_some("no bundle is loaded: there is none in the cache, and none has come from the operator")
    }

    /// The values of a metric.
    pub fn samples(&self, metric: Metric) -> Vec<Sample> {
        let seen = self.seen().clone();
        let counted = |count: &dyn Fn(&Counters) -> u64| vec![(None, seen.counters.as_deref().map_or(0, count))];
        let one = |value: u64| vec![(None, value)];
        match metric {
            Metric::Events => counted(&|counters| counters.events.load(Relaxed)),
            Metric::Alerts => counted(&|counters| counters.alerts.load(Relaxed)),
            Metric::Processes => counted(&|counters| counters.processes.load(Relaxed)),
            Metric::Losses => {
                self.losses(&seen).into_iter().map(|(cause, count)| (Some(cause.to_owned()), count)).collect()
            }
            Metric::SpoolAlerts => one(self.spool.waiting()),
            Metric::SpoolBytes => one(self.spool.bytes()),
            Metric::LinkConnected => one(u64::from(self.link.connected())),
            Metric::BundleInfo => seen.bundle.into_iter().map(|hash| (Some(hash), 1)).collect(),
            Metric::Rules => one(seen.rules),
            Metric::MemoryBytes => one(memory()),
        }
    }

    /// Every loss with its count. The kernel's and the sensor's never share a name.
    fn losses(&self, seen: &Seen) -> Vec<(&'static str, u64)> {
        let sensor = seen.counters.iter().flat_map(|counters| counters.losses());
        let mut losses: Vec<_> = sensor.map(|(loss, count)| (loss.label(), count)).collect();
        losses.extend(&seen.kernel_losses);
        losses.extend(self.spool.losses().map(|(loss, count)| (loss.label(), count)));
        losses
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the reports for the operator.
pub struct Reporter {
    at: Instant,
    events: u64,
    per_second: f64,
}

impl Reporter {
    /// A reporter that has seen nothing yet.
    pub fn new() -> Self {
        Self { at: Instant::now(), events: 0, per_second: 0.0 }
    }

    /// A report of what was seen last.
    pub fn report(&mut self, status: &Status) -> proto::NodeReport {
        let seen = status.seen().clone();
        let events = seen.counters.as_ref().map_or(0, |counters| counters.events.load(Relaxed));
        let elapsed = self.at.elapsed().as_secs_f64();
        // A report that follows at once has nothing to divide.
        if elapsed >= 1.0 {
            self.per_second = (events - self.events) as f64 / elapsed;
            (self.at, self.events) = (Instant::now(), events);
        }
        let losses = status.losses(&seen);
        let expired = [Loss::HoldExpired, Loss::HoldFull].map(Loss::label);
        let facts_expired = losses.iter().filter(|(name, _)| expired.contains(name)).map(|(_, count)| count).sum();
        let losses: HashMap<_, _> =
            losses.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect();
        proto::NodeReport {
            events_per_second: self.per_second,
            events,
            losses,
            spooled: status.spool.waiting(),
            memory_bytes: memory(),
            hooks: seen.hooks,
            facts_expired,
        }
    }
}

/// Whether two reports differ in what the operator wants to know at once.
pub fn differs(one: &proto::NodeReport, other: &proto::NodeReport) -> bool {
    one.hooks != other.hooks || one.losses != other.losses
}

/// Resident memory in bytes; 0 when the system does not say.
fn memory() -> u64 {
    let pages =
        procfs::process::Process::myself().and_then(|process| process.statm()).map_or(0, |statm| statm.resident);
    pages * procfs::page_size()
}
