//! How the sensor does, as far as standalone and node sensors have it in common: taken together by the thread that
//! controls it, for whoever asks.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::metrics::{Metric, Sample};
use crate::{
    active::Active,
    driver::{Counts, KernelCounter, RingLevel},
    pipeline::Counters,
    sensor::Sensor,
};

/// What was seen last.
#[derive(Clone, Default)]
pub struct Seen {
    /// Attached hooks; none before the sensor has started.
    pub hooks: Vec<String>,
    /// What the event loop counts.
    pub counters: Option<Arc<Counters>>,
    active: Option<Arc<Active>>,
    kernel: Option<Arc<Counts>>,
    rings: Vec<RingLevel>,
    drop_alerts: u64,
}

impl Seen {
    /// Looks at the running sensor.
    pub fn look(&mut self, sensor: &Sensor) {
        self.hooks = sensor.driver().hooks();
        self.active = Some(Arc::clone(sensor.active()));
        self.counters = Some(Arc::clone(sensor.counters()));
        self.rings = sensor.driver().ring_levels();
        self.drop_alerts = sensor.drop_alerts();
        // What cannot be read now was read before.
        if let Ok(counts) = sensor.driver().counts() {
            self.kernel = Some(Arc::new(counts));
        }
    }

    /// The values of a metric that every sensor has.
    pub fn samples(&self, metric: Metric) -> Vec<Sample> {
        let counted = |count: &dyn Fn(&Counters) -> u64| Sample::plain(self.counters.as_deref().map_or(0, count));
        let of_rules = |value: fn(&(u64, u64, u64)) -> u64| -> Vec<Sample> {
            let rules = self.active.iter().flat_map(|active| active.measured());
            rules.map(|(name, measured)| Sample::of(name, value(&measured))).collect()
        };
        let of_rings = |value: fn(&RingLevel) -> u64| -> Vec<Sample> {
            let labels = |ring: &RingLevel| vec![ring.cpu.to_string(), ring.class.to_owned()];
            self.rings.iter().map(|ring| Sample { labels: labels(ring), value: value(ring) }).collect()
        };
        match metric {
            Metric::Events => counted(&|counters| counters.events.load(Relaxed)),
            Metric::Alerts => counted(&|counters| counters.alerts.load(Relaxed)),
            Metric::Processes => counted(&|counters| counters.processes.load(Relaxed)),
            Metric::Cgroups => counted(&|counters| counters.cgroups.load(Relaxed)),
            Metric::Containers => counted(&|counters| counters.containers.load(Relaxed)),
            Metric::HeldRecords => counted(&|counters| counters.held_records.load(Relaxed)),
            Metric::HeldBytes => counted(&|counters| counters.held_bytes.load(Relaxed)),
            Metric::Questions => counted(&|counters| counters.questions.load(Relaxed)),
            Metric::QuestionsDropped => counted(&|counters| counters.unasked.load(Relaxed)),
            Metric::RuleMatches => of_rules(|(hits, _, _)| *hits),
            Metric::RuleSamples => of_rules(|(_, samples, _)| *samples),
            Metric::RuleSampledNs => of_rules(|(_, _, ns)| *ns),
            Metric::RingBytes => of_rings(|ring| ring.bytes),
            Metric::RingPeakBytes => of_rings(|ring| ring.peak),
            Metric::RingSizeBytes => of_rings(|ring| ring.size),
            Metric::KernelSent => self.of_kernel(KernelCounter::Sent),
            Metric::KernelFiltered => self.of_kernel(KernelCounter::Filtered),
            Metric::KernelLosses => {
                let losses = self.kernel.iter().flat_map(|counts| &counts.losses);
                let labels = |cpu: usize, event: &str, cause: KernelCounter| {
                    vec![cpu.to_string(), event.to_owned(), cause.label().to_owned()]
                };
                losses
                    .map(|loss| Sample { labels: labels(loss.cpu, loss.event, loss.cause), value: loss.count })
                    .collect()
            }
            Metric::Losses => self.losses().into_iter().map(|(cause, count)| Sample::of(cause, count)).collect(),
            Metric::DropAlerts => Sample::plain(self.drop_alerts),
            Metric::Rules => Sample::plain(self.rules()),
            Metric::MemoryBytes => Sample::plain(memory()),
            Metric::SinkQueue
            | Metric::SinkSent
            | Metric::SinkDropped
            | Metric::SpoolAlerts
            | Metric::SpoolBytes
            | Metric::LinkConnected
            | Metric::BundleInfo => Vec::new(),
        }
    }

    fn of_kernel(&self, counter: KernelCounter) -> Vec<Sample> {
        let events = self.kernel.iter().flat_map(|counts| &counts.events);
        let counted = events.map(|(event, counts)| Sample::of(*event, counts.get(counter)));
        counted.filter(|sample| sample.value > 0).collect()
    }

    /// Rules that run.
    pub fn rules(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.ruleset.rules().len() as u64)
    }

    /// Every loss of kernel and event loop with its count; they never share a name.
    pub fn losses(&self) -> Vec<(&'static str, u64)> {
        let sensor = self.counters.iter().flat_map(|counters| counters.losses());
        let mut losses: Vec<_> = sensor.map(|(loss, count)| (loss.label(), count)).collect();
        if let Some(counts) = &self.kernel {
            let kernel = KernelCounter::ALL.iter().filter(|counter| counter.is_loss());
            losses.extend(kernel.map(|counter| (counter.label(), counts.total(*counter))));
            losses.push(("recursion", counts.recursion_misses()));
        }
        losses
    }
}

/// Resident memory in bytes; 0 when the system does not say.
pub fn memory() -> u64 {
    let pages =
        procfs::process::Process::myself().and_then(|process| process.statm()).map_or(0, |statm| statm.resident);
    pages * procfs::page_size()
}
