//! **Every** metric of the operator, in one table. `/metrics` serves them in the OpenMetrics text format.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Label `sink`: kind, namespace and name of the resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BySink {
    /// For example `AlertSink/shop/slack`.
    pub sink: String,
}

/// Label `node`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByNode {
    /// Name of the node.
    pub node: String,
}

/// Label `cause`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByCause {
    /// One of a closed set of words.
    pub cause: String,
}

/// Label `hash`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByHash {
    /// Of the bundle.
    pub hash: String,
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $name:literal,)+) => {
        /// The metrics. Clones share their values.
        #[derive(Debug, Clone, Default)]
        pub struct Metrics { $($(#[doc = $doc])+ pub $field: $ty,)+ }

        impl Metrics {
            /// Names and meanings, for docs/metrics.md. Counters are served with `_total` behind the name.
            pub const ROWS: &[(&str, &str, &str)] = &[$(($name, stringify!($ty), concat!($($doc),+)),)+];

            /// Registers all of them.
            pub fn register(&self, registry: &mut Registry) {
                $(registry.register($name, concat!($($doc),+).trim_ascii().trim_end_matches('.'), self.$field.clone());)+
            }
        }
    };
}

metrics! {
    /// Whether this replica leads (1) or not (0); 0 also while the API server does not say.
    leading: Gauge = "gyrfalcon_leading",
    /// Sensors that are connected.
    sensors_connected: Gauge = "gyrfalcon_sensors_connected",
    /// Nodes that should have a sensor.
    sensors_desired: Gauge = "gyrfalcon_sensors_desired",
    /// Connected sensors that do not run the current bundle.
    sensors_stale: Gauge = "gyrfalcon_sensors_stale",
    /// The bundle that sensors should run: always 1, with its hash as label.
    bundle_info: Family<ByHash, Gauge> = "gyrfalcon_bundle_info",
    /// Rules in the bundle.
    bundle_rules: Gauge = "gyrfalcon_bundle_rules",
    /// Rule resources that are not accepted.
    rules_refused: Gauge = "gyrfalcon_rules_refused",
    /// Alerts taken from sensors, repetitions left out.
    alerts: Counter = "gyrfalcon_alerts",
    /// Alerts that sensors sent again and that were known already.
    alerts_repeated: Counter = "gyrfalcon_alerts_repeated",
    /// Alerts that a sensor said to be about a pod of another node; they count as alerts of the sensor's node.
    alerts_foreign: Counter = "gyrfalcon_alerts_foreign",
    /// Events that sensors lost since they started, by node.
    sensor_losses: Family<ByNode, Gauge> = "gyrfalcon_sensor_losses",
    /// Alerts that sensors gave up because their spool was full, by node.
    sensor_alerts_lost: Family<ByNode, Gauge> = "gyrfalcon_sensor_alerts_lost",
    /// Requests about Kubernetes Events, by what came of them.
    events_written: Family<ByCause, Counter> = "gyrfalcon_events_written",
    /// Alerts that an Event counts, or will with its next change.
    events_represented: Gauge = "gyrfalcon_events_represented",
    /// Alerts that nobody wants Events about: below the minimum priority, or switched off.
    events_unwanted: Gauge = "gyrfalcon_events_unwanted",
    /// Alerts of resources that the operator does not know. They are no Events; sinks get them.
    events_unknown: Gauge = "gyrfalcon_events_unknown",
    /// Alerts that no Event stands for, by cause.
    events_suppressed: Family<ByCause, Counter> = "gyrfalcon_events_suppressed",
    /// Writes of status.
    status_written: Counter = "gyrfalcon_status_written",
    /// Writes of status that failed.
    status_failed: Counter = "gyrfalcon_status_failed",
    /// Objects whose status is not what it should be yet.
    status_waiting: Gauge = "gyrfalcon_status_waiting",
    /// Objects whose status would be written now if the budget allowed it.
    status_held: Gauge = "gyrfalcon_status_held",
    /// Alerts that a sink delivered.
    sink_sent: Family<BySink, Gauge> = "gyrfalcon_sink_sent",
    /// Alerts that a sink gave up.
    sink_failed: Family<BySink, Gauge> = "gyrfalcon_sink_failed",
    /// Alerts that wait for a sink.
    sink_queue: Family<BySink, Gauge> = "gyrfalcon_sink_queue",
    /// Seconds that making the last bundle took.
    reconcile_seconds: Gauge<f64, AtomicU64> = "gyrfalcon_reconcile_seconds",
}

impl Metrics {
    /// A registry with all of them.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        self.register(&mut registry);
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_served() {
        let metrics = Metrics::default();
        metrics.alerts.inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).expect("text");
        assert!(text.contains("gyrfalcon_alerts_total 1"));
        let names: std::collections::BTreeSet<_> = Metrics::ROWS.iter().map(|(name, ..)| name).collect();
        assert_eq!(names.len(), Metrics::ROWS.len());
    }
}
