//! **Every** metric of the node agent, in one table: the name, what it is, the line for docs/sensor-metrics.md.
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

macro_rules! metrics {
    ($( #[doc = $doc:literal] $name:ident: $kind:ident $word:literal $(by $label:literal)?; )*) => {
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

            /// Its label, if it has one.
            pub const fn label(self) -> Option<&'static str> {
                match self { $( Self::$name => { let label: &[&'static str] = &[$($label)?]; label.first().copied() } )* }
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
    /// Events and alerts that were lost, and events that were judged knowing less, by cause.
    Losses: Counter "losses" by "cause";
    /// Processes that are known.
    Processes: Gauge "processes";
    /// Alerts on this node's disk that the operator has not acknowledged.
    SpoolAlerts: Gauge "spool_alerts";
    /// Size of the spool in bytes.
    SpoolBytes: Gauge "spool_bytes";
    /// Whether the operator is connected (1) or not (0).
    LinkConnected: Gauge "link_connected";
    /// The bundle that runs: always 1, with its hash.
    BundleInfo: Gauge "bundle_info" by "hash";
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

/// A value, with the label's value where the metric has one.
pub type Sample = (Option<String>, u64);

/// All metrics in the OpenMetrics text format.
pub fn text(samples: impl Fn(Metric) -> Vec<Sample>) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    for metric in Metric::ALL {
        let samples = samples(*metric);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        match (metric.kind(), metric.label()) {
            (MetricType::Counter, None) => {
                samples
                    .first()
                    .into_iter()
                    .for_each(|(_, value)| add(&mut registry, *metric, ConstCounter::new(*value)));
            }
            (MetricType::Counter, Some(label)) => {
                let family = Family::<Vec<(String, String)>, Counter>::default();
                for (of, value) in samples {
                    family.get_or_create(&vec![(label.to_owned(), of.unwrap_or_default())]).inc_by(value);
                }
                add(&mut registry, *metric, family);
            }
            (_, None) => samples
                .first()
                .into_iter()
                .for_each(|(_, value)| add(&mut registry, *metric, ConstGauge::new(gauge(*value)))),
            (_, Some(label)) => {
                let family = Family::<Vec<(String, String)>, Gauge>::default();
                for (of, value) in samples {
                    family.get_or_create(&vec![(label.to_owned(), of.unwrap_or_default())]).set(gauge(value));
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
