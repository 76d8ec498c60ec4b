//! Plans every status from what is known, and hands the plans to the schedule.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use api::{
    Kind, ResourceId,
    condition::{ConditionStatus, ConditionType, Reason},
    config::{BundleStatus, Drops, SensorConfigStatus, SensorCounts, VersionCount},
    node::{NodeState, SensorNodeStatus},
    rule::{FalcoRuleStatus, RolloutPhase},
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;

use super::{Controller, Key};
use crate::{
    conditions::Conditions,
    follow,
    metrics::{ByNode, BySink},
    nodes,
    rules::{
        judge::judgement,
        observe::{self, RuleResource},
        review,
        status::{self, Seen},
    },
    sensors::auth::{audit_key, is_audit},
    sinks::{Difference, difference, plan_sink_status},
    write::Urgency,
};

/// Sensors that lose events are said to until none has for so long.
const DROPS_CALM: Duration = Duration::from_secs(300);

impl Controller {
    /// Plans all statuses.
    pub(super) fn plan(&mut self) {
        let nodes = self.cluster.nodes.state();
        let with_pod = self.cluster.pods.nodes_of(&self.sensors.0, &self.sensors.1);
        self.desired = nodes::desired(&nodes, &with_pod, &self.fleet);
        let receivers = self.cluster.pods.pods_of(&self.receivers.0, &self.receivers.1);
        self.desired.extend(receivers.iter().map(|pod| audit_key(pod).into()));
        let mut alive = HashSet::new();
        let storms = self.announcer.storms();
        for rule in observe::resources(&self.cluster) {
            alive.insert(rule.id());
            self.plan_rule(&rule, &storms);
        }
        self.plan_sinks(&mut alive);
        self.plan_nodes(&mut alive);
        self.plan_config(&mut alive);
        self.schedule.retain(|key| alive.contains(&key.id));
    }

    fn plan_rule(&mut self, rule: &RuleResource, storms: &HashSet<Box<str>>) {
        let (id, uid) = (rule.id(), rule.uid());
        let Some(judged) = &self.judged else { return };
        // Not judged yet: it will be in a moment.
        let Some(verdict) = judged.verdicts.get(&id).filter(|verdict| verdict.uid == uid) else { return };
        let mut judgement = judgement(verdict);
        let rollout = self.rollouts.get(uid).map(|rollout| &rollout.status);
        if rollout.is_some_and(|rollout| rollout.phase == RolloutPhase::RolledBack) {
            let unit = judged.bundle.units.iter().find(|unit| unit.uid == uid);
            judgement.serving =
                unit.and_then(|unit| unit.rollout.as_ref()).and_then(|staged| staged.previous_generation);
        }
        let generations = self.generations(uid, judgement.serving.unwrap_or_default());
        let empty = FalcoRuleStatus::default();
        let before = rule.status().unwrap_or(&empty);
        let now = Timestamp::now();
        let load = self.fleet.load(uid, &generations, &self.desired, now.as_second());
        // Rules on the audit log run nowhere when nothing receives it.
        let unheard = judgement.audit && !self.desired.iter().any(|name| is_audit(name));
        let total = self.fleet.total(uid);
        let count = total.map_or(0, |total| total.hits.saturating_add(total.retired));
        let shown = before.hits.as_ref().map_or(0, |hits| u64::try_from(hits.total).unwrap_or(0));
        self.history.note(uid, count.max(shown), now.as_second());
        let (status, urgency) = status::plan(&Seen {
            generation: rule.generation(),
            spec: rule.spec(),
            judgement: &judgement,
            load: &load,
            unheard,
            total,
            last_hour: self.history.last_hour(uid, now.as_second()),
            bundle: &bundle::short_hash(&judged.offer.hash),
            storm: storms.contains(uid),
            rollout,
            before,
            now,
        });
        self.want(Key { id, owner: None }, rule.status(), &status, urgency);
    }

    fn plan_sinks(&mut self, alive: &mut HashSet<ResourceId>) {
        for sink in follow::observe(&self.cluster) {
            alive.insert(sink.id.clone());
            let view = self.sinks.view(&sink.id);
            let before = sink.status.as_ref();
            let status = plan_sink_status(Some(sink.generation), view.as_ref(), before, Timestamp::now());
            if let Some(view) = &view {
                let by_sink = BySink { sink: sink.id.to_string() };
                let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
                self.metrics.sink_sent.get_or_create(&by_sink).set(count(view.counters.sent));
                self.metrics.sink_failed.get_or_create(&by_sink).set(count(view.counters.dropped));
                self.metrics.sink_queue.get_or_create(&by_sink).set(count(view.depth));
            }
            let urgency = match difference(before, &status) {
                Difference::None | Difference::Counts => Urgency::Routine,
                Difference::Words => Urgency::Urgent,
            };
            self.want(Key { id: sink.id.clone(), owner: None }, before, &status, urgency);
        }
    }

    fn plan_nodes(&mut self, alive: &mut HashSet<ResourceId>) {
        let bundle = self.offer.borrow().as_ref().map(|offer| offer.hash.clone());
        let table = self.node_table.borrow().clone();
        let known: BTreeMap<String, _> =
            self.cluster.sensor_nodes.state().into_iter().map(|node| (node.name_any(), node)).collect();
        let (mut connected, mut stale, mut plans) = (0, 0, Vec::new());
        let now = Timestamp::now().as_second();
        for (node, sensor) in self.fleet.sensors() {
            let before = known.get(node).and_then(|node| node.status.clone());
            let (status, urgency) =
                nodes::plan(node, sensor, bundle.as_deref(), before.as_ref().unwrap_or(&SensorNodeStatus::default()));
            connected += i64::from(sensor.connected());
            stale += i64::from(sensor.connected() && status.state != Some(NodeState::Ready));
            let by_node = ByNode { node: node.to_owned() };
            self.metrics.sensor_losses.get_or_create(&by_node).set(status.lost.unwrap_or_default());
            let lost = i64::try_from(sensor.alerts_lost).unwrap_or(i64::MAX);
            self.metrics.sensor_alerts_lost.get_or_create(&by_node).set(lost);
            // A SensorNode belongs to a Node: without one there is none.
            if let Some(facts) = table.get(node) {
                let id = ResourceId { kind: Kind::SensorNode, namespace: "".into(), name: node.into() };
                alive.insert(id.clone());
                if nodes::is_settling(&status, sensor, self.offered, now) {
                    continue;
                }
                plans.push((Key { id, owner: Some(facts.uid.as_str().into()) }, before, status, urgency));
            }
        }
        for (key, before, status, urgency) in plans {
            self.want(key, before.as_ref(), &status, urgency);
        }
        self.metrics.sensors_connected.set(connected);
        self.metrics.sensors_stale.set(stale);
        self.metrics.sensors_desired.set(i64::try_from(self.desired.len()).unwrap_or(i64::MAX));
    }

    fn plan_config(&mut self, alive: &mut HashSet<ResourceId>) {
        let Some(config) = self.cluster.config.state().first().cloned() else { return };
        let id = ResourceId { kind: Kind::SensorConfig, namespace: "".into(), name: config.name_any().into() };
        alive.insert(id.clone());
        let empty = SensorConfigStatus::default();
        let before = config.status.as_ref().unwrap_or(&empty);
        let offer = self.offer.borrow().clone();
        let runs = |sensor: &crate::sensors::fleet::Sensor| {
            sensor.connected() && offer.as_ref().is_some_and(|offer| *sensor.running == *offer.hash)
        };
        let desired = u32::try_from(self.desired.len()).unwrap_or(u32::MAX);
        let ready = self.desired.iter().filter(|node| self.fleet.sensor(node).is_some_and(runs)).count();
        let ready = u32::try_from(ready).unwrap_or(u32::MAX);
        let mut versions: BTreeMap<String, u32> = BTreeMap::new();
        let mut lost = 0_u64;
        for (_, sensor) in self.fleet.sensors() {
            lost = sensor.report.losses.values().fold(lost, |sum, lost| sum.saturating_add(*lost));
            if let Some(hello) = &sensor.hello {
                *versions.entry(hello.version.clone()).or_default() += 1;
            }
        }
        let mut conditions = Conditions::new(&before.conditions, config.metadata.generation, Timestamp::now());
        let text = format!("{ready} of {desired} sensors run the current bundle");
        let mistakes = review::mistakes(&config);
        match (mistakes.first(), ready == desired) {
            (Some(first), _) => {
                let more = match mistakes.len() - 1 {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                let text = format!("{first}{more}; it is left out, everything else holds");
                conditions.set(ConditionType::Ready, ConditionStatus::False, Reason::InvalidSpec, &text);
                conditions.set(ConditionType::Stalled, ConditionStatus::True, Reason::InvalidSpec, &text);
            }
            (None, true) => conditions.set(ConditionType::Ready, ConditionStatus::True, Reason::AllSensorsReady, &text),
            (None, false) => {
                conditions.set(ConditionType::Ready, ConditionStatus::Unknown, Reason::SensorsNotReady, &text);
                conditions.set(ConditionType::Reconciling, ConditionStatus::True, Reason::Progressing, &text);
            }
        }
        // What an earlier leader had shown is no news.
        let shown = before.drops.as_ref().map_or(0, |drops| u64::try_from(drops.total).unwrap_or(0));
        let (known, rose) = self.lost.unwrap_or((shown, None));
        let rose = if lost > known { Some(Instant::now()) } else { rose };
        self.lost = Some((lost, rose));
        let degraded = rose.is_some_and(|rose| rose.elapsed() < DROPS_CALM);
        match degraded {
            true => {
                let text = "sensors lose events; `kubectl get sensornodes` shows where";
                conditions.set(ConditionType::Degraded, ConditionStatus::True, Reason::DropsHigh, text);
            }
            false => {
                let text = "nothing was lost in the last five minutes";
                conditions.set(ConditionType::Degraded, ConditionStatus::False, Reason::Healthy, text);
            }
        }
        let rules = self
            .judged
            .as_ref()
            .map_or(0, |judged| judged.verdicts.values().map(|verdict| verdict.summary.enabled).sum());
        let status = SensorConfigStatus {
            observed_generation: config.metadata.generation,
            conditions: conditions.finish(),
            sensors: Some(SensorCounts {
                desired,
                ready,
                degraded: desired.saturating_sub(ready),
                versions: versions.into_iter().map(|(version, sensors)| VersionCount { version, sensors }).collect(),
            }),
            bundle: offer.map(|offer| BundleStatus { hash: bundle::short_hash(&offer.hash), rules }),
            drops: Some(Drops { total: i64::try_from(lost).unwrap_or(i64::MAX) }),
        };
        let same = SensorConfigStatus { drops: before.drops.clone(), ..status.clone() } == *before;
        let urgency = if same { Urgency::Routine } else { Urgency::Urgent };
        self.want(Key { id, owner: None }, config.status.as_ref(), &status, urgency);
    }

    pub(super) fn want<S: Serialize>(&mut self, key: Key, there: Option<&S>, wanted: &S, urgency: Urgency) {
        let value = |status: &S| serde_json::to_value(status).unwrap_or(Value::Null);
        self.schedule.want(key, &there.map_or(Value::Null, value), value(wanted), urgency);
    }
}
