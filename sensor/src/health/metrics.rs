//! **Every** metric of a sensor, standalone or of a node, in one table: the name, what it is, the line for docs/sensor-metrics.md.
//!
//! Nothing here knows the sensor: values come as a [`Sample`] for each metric, when Prometheus asks.

use prometheus_client::{
    encoding::EncodeMetric,
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

/// In front of every name.
pub const PREFIX: &str = "gyrfalcon_sensor";

/// The command that has a metric which the other has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// `gyrfalcon run`.
    Run,
    /// `gyrfalcon agent`.
    Agent,
}

macro_rules! metrics {
    ($( #[doc = $doc:literal] $name:ident: $kind:ident $word:literal $(by $($label:literal)+)? $(in $only:ident)?; )*) => {
        /// The metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric { $( #[doc = $doc] $name, )* }

        impl Metric {
            /// All of them, in the order in which they are shown.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// Its name between prefix and, for a counter, `_total`.
            pub const fn word(self) -> &'static str { match self { $( Self::$name => $word, )* } }

            /// Counter or gauge.
            pub const fn kind(self) -> MetricType { match self { $( Self::$name => MetricType::$kind, )* } }

            /// Its labels.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $( Self::$name => &[$($($label),+)?], )* }
            }

            /// Who has it, when not every sensor does.
            #[allow(dead_code, reason = "for the reference, which tests/generated.rs makes")]
            pub const fn only(self) -> Option<Only> {
                match self { $( Self::$name => { let only: &[Only] = &[$(Only::$only)?]; only.first().copied() } )* }
            }

            /// What it means.
            pub const fn doc(self) -> &'static str { match self { $( Self::$name => $doc, )* } }
        }
    };
}

metrics! {
    /// Events that were judged.
    Events: Counter "events";
    /// Alerts that rules made.
    Alerts: Counter "alerts";
    /// How often a rule matched since the rules were last replaced.
    RuleMatches: Counter "rule_matches" by "rule";
    /// Time that the condition of a rule took in the sampled events, in nanoseconds. A comparison that several rules share is counted for the first of them alone.
    RuleSampledNs: Counter "rule_sampled_nanoseconds" by "rule";
    /// Sampled events for which the condition of a rule was evaluated: every 1,024th event is sampled.
    RuleSamples: Counter "rule_samples" by "rule";
    /// Events and alerts that were lost, and events that were judged knowing less, by cause.
    Losses: Counter "losses" by "cause";
    /// Events that the kernel programs lost, by CPU, event and cause; only those that happened.
    KernelLosses: Counter "kernel_losses" by "cpu" "event" "cause";
    /// Records that the kernel programs sent.
    KernelSent: Counter "kernel_sent" by "event";
    /// Events that the kernel programs dropped because no loaded rule can match them; no loss.
    KernelFiltered: Counter "kernel_filtered" by "event";
    /// Losses told by an internal alert, see `--drops-threshold`.
    DropAlerts: Counter "drop_alerts";
    /// Bytes of records that wait in a ring.
    RingBytes: Gauge "ring_bytes" by "cpu" "ring";
    /// Most bytes that have waited in a ring since the start.
    RingPeakBytes: Gauge "ring_peak_bytes" by "cpu" "ring";
    /// Size of a ring in bytes.
    RingSizeBytes: Gauge "ring_size_bytes" by "cpu" "ring";
    /// Processes that are known.
    Processes: Gauge "processes";
    /// Cgroups that are known.
    Cgroups: Gauge "cgroups";
    /// Containers whose facts are known.
    Containers: Gauge "containers";
    /// Records that wait for facts about their container.
    HeldRecords: Gauge "held_records";
    /// Bytes of records that wait for facts about their container.
    HeldBytes: Gauge "held_bytes";
    /// Questions about processes, cgroups and containers that wait for room in a queue.
    Questions: Gauge "questions";
    /// Questions that were not asked because too many waited.
    QuestionsDropped: Counter "questions_dropped";
    /// Alerts that a sink has not sent yet.
    SinkQueue: Gauge "sink_queue" by "sink" in Run;
    /// Alerts that a sink delivered.
    SinkSent: Counter "sink_sent" by "sink" in Run;
    /// Alerts that a sink gave up.
    SinkDropped: Counter "sink_dropped" by "sink" in Run;
    /// Alerts on this node's disk that the operator has not acknowledged.
    SpoolAlerts: Gauge "spool_alerts" in Agent;
    /// Size of the spool in bytes.
    SpoolBytes: Gauge "spool_bytes" in Agent;
    /// Whether the operator is connected (1) or not (0).
    LinkConnected: Gauge "link_connected" in Agent;
    /// The bundle that runs: always 1, with its hash.
    BundleInfo: Gauge "bundle_info" by "hash" in Agent;
    /// Rules that run.
    Rules: Gauge "rules";
    /// Resident memory of the sensor in bytes.
    MemoryBytes: Gauge "memory_bytes";
}

impl Metric {
    /// The name as Prometheus knows it.
    #[allow(dead_code, reason = "for the reference, which tests/generated.rs makes")]
    pub fn name(self) -> String {
        let total = if matches!(self.kind(), MetricType::Counter) { "_total" } else { "" };
        format!("{PREFIX}_{}{total}", self.word())
    }
}

/// A value, with the values of the labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// In the order of the metric's labels.
    pub labels: Vec<String>,
    /// The value.
    pub value: u64,
}

#[allow(dead_code, reason = "tests/generated.rs makes samples of its own")]
impl Sample {
    /// The value of a metric without labels.
    pub fn plain(value: u64) -> Vec<Self> {
        vec![Self { labels: Vec::new(), value }]
    }

    /// One value of a metric with one label.
    pub fn of(label: impl Into<String>, value: u64) -> Self {
        Self { labels: vec![label.into()], value }
    }
}

/// All metrics in the OpenMetrics text format; one without samples is left out.
pub fn text(samples: impl Fn(Metric) -> Vec<Sample>) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    for metric in Metric::ALL {
        let samples = samples(*metric);
        let Some(first) = samples.first() else { continue };
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let labels = |sample: &Sample| -> Vec<(String, String)> {
            metric.labels().iter().map(|name| (*name).to_owned()).zip(sample.labels.iter().cloned()).collect()
        };
        match (metric.kind(), metric.labels()) {
            (MetricType::Counter, []) => add(&mut registry, *metric, ConstCounter::new(first.value)),
            (MetricType::Counter, _) => {
                let family = Family::<Vec<(String, String)>, Counter>::default();
                for sample in &samples {
                    family.get_or_create(&labels(sample)).inc_by(sample.value);
                }
                add(&mut registry, *metric, family);
            }
            (_, []) => add(&mut registry, *metric, ConstGauge::new(gauge(first.value))),
            (_, _) => {
                let family = Family::<Vec<(String, String)>, Gauge>::default();
                for sample in &samples {
                    family.get_or_create(&labels(sample)).set(gauge(sample.value));
                }
                add(&mut registry, *metric, family);
            }
        }
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

fn add(registry: &mut Registry, metric: Metric, value: impl EncodeMetric + Send + Sync + std::fmt::Debug + 'static) {
    // The library ends the text with a dot of its own.
    registry.register(metric.word(), metric.doc().trim().trim_end_matches('.'), value);
}
