//! Nodes: which should have a sensor, and the SensorNode of each.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use api::node::{NodeState, SensorNodeStatus, UnitHits};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;
use link::proto;

use crate::{
    conditions::cut,
    sensors::{
        NodeTable,
        fleet::{Fleet, Sensor},
    },
    write::Urgency,
};

/// Seconds for which `lastSeen` of a connected sensor may be behind, so that a quiet node is not written all the time.
const SEEN_STEP: i64 = 300;
/// Seconds that a sensor has for a new bundle before it is shown as stale.
const SETTLING: i64 = 20;
/// Events per second are shown in steps of this share, for the same reason.
const RATE_STEP: f64 = 0.25;

/// Labels and uid of every node, for sensors.
pub fn table(nodes: &[Arc<Node>]) -> NodeTable {
    let facts = |node: &Arc<Node>| {
        let labels = node.labels().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let facts = proto::NodeFacts { labels, uid: node.uid().unwrap_or_default() };
        (Box::from(node.name_any()), facts)
    };
    Arc::new(nodes.iter().map(facts).collect::<HashMap<_, _>>())
}

/// The nodes that should run what they are given: those with a connected sensor, and those that are ready and have a
/// pod of the sensor's. A node that is not ready is not waited for.
pub fn desired(nodes: &[Arc<Node>], with_pod: &HashSet<Box<str>>, fleet: &Fleet) -> BTreeSet<Box<str>> {
    let ready = nodes.iter().filter(|node| is_ready(node)).map(|node| Box::from(node.name_any()));
    let ready = ready.filter(|name| with_pod.contains(name));
    let connected = fleet.sensors().filter(|(_, sensor)| sensor.connected()).map(|(node, _)| Box::from(node));
    ready.chain(connected).collect()
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What the SensorNode of a node should say, and how soon.
pub fn plan(
    node: &str,
    sensor: &Sensor,
    bundle: Option<&str>,
    before: &SensorNodeStatus,
) -> (SensorNodeStatus, Urgency) {
    let (state, message) = state(sensor, bundle);
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let text = |text: &str, bytes| Some(cut(text, bytes)).filter(|text| !text.is_empty());
    let mut status = match &sensor.hello {
        // Known only from what an earlier operator wrote: that stays.
        None => before.clone(),
        Some(hello) => SensorNodeStatus {
            version: text(&hello.version, 64),
            kernel: text(&hello.kernel, 128),
            architecture: text(&hello.architecture, 32),
            driver: text(&hello.driver, 64),
            hooks: sensor.report.hooks.iter().take(64).map(|hook| cut(hook, 128)).collect(),
            bundle: Some(&sensor.running).filter(|hash| !hash.is_empty()).map(|hash| bundle::short_hash(hash)),
            events_per_second: Some(rate(sensor.report.events_per_second, before.events_per_second)),
            lost: Some(count(sensor.report.losses.values().fold(0, |sum: u64, lost| sum.saturating_add(*lost)))),
            losses: sensor.report.losses.iter().take(64).map(|(kind, lost)| (cut(kind, 64), count(*lost))).collect(),
            spooled: Some(count(sensor.report.spooled)),
            memory_bytes: Some(memory(sensor.report.memory_bytes, before.memory_bytes)),
            last_seen: seen(sensor, state, before),
            spool: text(&sensor.spool, 64),
            ..SensorNodeStatus::default()
        },
    };
    status.node = Some(node.to_owned());
    status.state = Some(state);
    status.message = text(&message, 1024);
    let mut hits: Vec<_> = sensor
        .counts()
        .map(|(uid, hits)| UnitHits { uid: uid.to_owned(), hits: count(hits.hits), suppressed: count(hits.suppressed) })
        .collect();
    hits.sort_by(|a, b| b.hits.cmp(&a.hits).then_with(|| a.uid.cmp(&b.uid)));
    hits.truncate(SensorNodeStatus::MAX_HITS);
    hits.sort_by(|a, b| a.uid.cmp(&b.uid));
    status.hits = hits;
    let first = |before: Option<i64>, now: Option<i64>| before.unwrap_or(0) == 0 && now.unwrap_or(0) > 0;
    let soon = before.state != status.state
        || before.bundle != status.bundle
        || before.spool != status.spool
        || before.hooks != status.hooks
        || first(before.memory_bytes, status.memory_bytes)
        || first(before.lost, status.lost);
    (status, if soon { Urgency::Soon } else { Urgency::Background })
}

/// Whether a sensor is behind, but not for so long that it would be worth saying: a thousand sensors that load a new bundle
/// within seconds need not be shown as stale before they are shown as ready. `offered` is when the bundle was; times are
/// Unix times in seconds.
pub fn is_settling(status: &SensorNodeStatus, sensor: &Sensor, offered: i64, now: i64) -> bool {
    let asked = offered.max(sensor.since);
    status.state == Some(NodeState::Stale) && (0..SETTLING).contains(&(now - asked))
}

/// When it was last seen: as it is shown while that is not long ago, exactly when its state changes.
fn seen(sensor: &Sensor, state: NodeState, before: &SensorNodeStatus) -> Option<Time> {
    let fresh =
        |shown: &&Time| before.state == Some(state) && (0..SEEN_STEP).contains(&(sensor.seen - shown.0.as_second()));
    let shown = before.last_seen.as_ref().filter(fresh).cloned();
    shown.or_else(|| Timestamp::from_second(sensor.seen).ok().map(Time))
}

fn state(sensor: &Sensor, bundle: Option<&str>) -> (NodeState, String) {
    if !sensor.connected() {
        return (NodeState::Offline, "the sensor is not connected".to_owned());
    }
    match (bundle, &sensor.refused) {
        (Some(bundle), _) if *sensor.running == *bundle => (NodeState::Ready, String::new()),
        (Some(bundle), Some((refused, why))) if **refused == *bundle => (NodeState::Failed, why.to_string()),
        (Some(_), _) => (NodeState::Stale, "the current bundle has not been acknowledged yet".to_owned()),
        (None, _) => (NodeState::Stale, "there is no bundle yet".to_owned()),
    }
}

/// The rate, or the one before while they are about the same.
fn rate(now: f64, before: Option<i64>) -> i64 {
    let now = now.max(0.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a rate that is shown")]
    match before {
        Some(before) if (now - before as f64).abs() <= (before as f64 * RATE_STEP).max(10.0) => before,
        _ => now as i64,
    }
}

/// The memory, or what was shown while it is about the same.
fn memory(now: u64, before: Option<i64>) -> i64 {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    match before {
        Some(before) if now.abs_diff(before) <= before.unsigned_abs() / 4 => before,
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensors::{FromNode, Said};

    fn fleet(running: &str) -> Fleet {
        let mut fleet = Fleet::default();
        let hello =
            proto::Hello { spool: "s".into(), bundle: running.into(), version: "1".into(), ..proto::Hello::default() };
        fleet.hear(FromNode { node: "a".into(), session: 1, said: Said::Hello(Box::new(hello)) }, 1_000);
        fleet
    }

    fn sensor(fleet: &Fleet) -> &Sensor {
        fleet.sensor("a").expect("a sensor")
    }

    #[test]
    fn a_sensor_is_ready_when_it_runs_the_current_bundle() {
        let fleet = fleet("0123456789abcdef");
        let before = SensorNodeStatus::default();
        let (status, urgency) = plan("a", sensor(&fleet), Some("0123456789abcdef"), &before);
        assert_eq!((status.state, urgency), (Some(NodeState::Ready), Urgency::Soon));
        assert_eq!(status.bundle.as_deref(), Some("sha256:0123456789ab"));
        let (stale, _) = plan("a", sensor(&fleet), Some("fedcba9876543210"), &before);
        assert_eq!(stale.state, Some(NodeState::Stale));
    }

    #[test]
    fn a_sensor_that_loads_a_new_bundle_is_not_shown_as_stale_at_once() {
        let fleet = fleet("0123456789abcdef");
        let behind = plan("a", sensor(&fleet), Some("fedcba9876543210"), &SensorNodeStatus::default()).0;
        assert!(is_settling(&behind, sensor(&fleet), 0, 1_005), "it has just connected");
        assert!(is_settling(&behind, sensor(&fleet), 2_000, 2_005), "the bundle is new");
        assert!(!is_settling(&behind, sensor(&fleet), 2_000, 2_000 + SETTLING));
        let ready = plan("a", sensor(&fleet), Some("0123456789abcdef"), &SensorNodeStatus::default()).0;
        assert!(!is_settling(&ready, sensor(&fleet), 2_000, 2_005));
    }

    #[test]
    fn a_quiet_node_has_the_same_status_for_minutes() {
        let mut fleet = fleet("0123456789abcdef");
        let report = |rate| proto::NodeReport { events_per_second: rate, ..proto::NodeReport::default() };
        let say = |fleet: &mut Fleet, rate, at| {
            fleet.hear(FromNode { node: "a".into(), session: 1, said: Said::Report(report(rate)) }, at);
        };
        say(&mut fleet, 100.0, 1_200);
        let (first, _) = plan("a", sensor(&fleet), None, &SensorNodeStatus::default());
        say(&mut fleet, 110.0, 1_400);
        let (second, urgency) = plan("a", sensor(&fleet), None, &first);
        assert_eq!((&second, urgency), (&first, Urgency::Background));
    }

    #[test]
    fn a_node_that_is_not_ready_is_not_waited_for() {
        let node = |name: &str, ready: &str| {
            let object = serde_json::json!({
                "metadata": {"name": name},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            });
            Arc::new(serde_json::from_value::<Node>(object).expect("a node"))
        };
        let nodes = [node("a", "False"), node("b", "True"), node("c", "False"), node("d", "True")];
        let with_pod = ["a", "b", "c"].into_iter().map(Box::from).collect();
        let desired: Vec<_> = desired(&nodes, &with_pod, &fleet("")).into_iter().collect();
        assert_eq!(desired, ["a".into(), "b".into()], "a is connected, b is ready, c neither, d has no sensor");
    }
}
