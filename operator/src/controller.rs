//! What the leader does: observes, plans, writes. One loop owns all of it.
//!
//! What changes arrives from the watches and from the sensors' sessions; what follows from it is planned by pure
//! functions in [`crate::rules`], [`crate::nodes`] and [`crate::sensors::fleet`]; what is to be written is left to
//! [`crate::write`], which decides when.

mod hand;
mod statuses;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use api::rule::{RolloutPhase, RolloutStatus};
use bundle::Bundle;
use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt, runtime::reflector::ObjectRef};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tracing::{info, warn};

use self::hand::{Hand, Key};
use crate::{
    announce::Announcer,
    cluster::{Change, Cluster},
    leader::Leadership,
    metrics::{ByHash, Metrics},
    nodes,
    rules::{
        history::History,
        judge::{Basis, Judged, Percents, judge},
        keep::Keep,
        observe::{self, RuleResource},
        rollout::{self, Progress},
    },
    sensors::{
        FromNode, NodeTable, Offer,
        auth::{audit_key, is_audit},
        fleet::Fleet,
    },
    sinks::SinkSet,
    write::Schedule,
};

/// How long changes are collected before they are acted on.
const SETTLE: Duration = Duration::from_millis(50);
/// Least time between two plans of all statuses.
const PLAN: Duration = Duration::from_millis(500);
/// Plans are made so often although nothing was heard: times pass, rollouts go on.
const IDLE: Duration = Duration::from_secs(10);
/// Least time between two looks at what is to be written, but for those after a plan.
const LOOK: Duration = Duration::from_millis(100);
/// Messages of sensors that are taken at once.
const BATCH: usize = 1024;

/// What the loop is given.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// What there is.
    pub cluster: Cluster,
    /// Where the last bundle is kept.
    pub keep: Keep,
    /// What sensors say.
    pub heard: mpsc::Receiver<FromNode>,
    /// What sensors should run.
    pub offer: watch::Sender<Option<Offer>>,
    /// Labels of nodes, for sensors.
    pub nodes: watch::Sender<NodeTable>,
    /// What became of the resources, for whoever makes Events.
    pub judged: watch::Sender<Option<Judged>>,
    /// Makes Events.
    pub announcer: Arc<Announcer>,
    /// Deliver alerts.
    pub sinks: SinkSet,
    /// Namespace and name of the sensors' service account.
    pub sensors: (String, String),
    /// The same of the receivers of the audit log.
    pub receivers: (String, String),
    /// Whether this replica still leads; while that is not known, nothing is decided and nothing written.
    pub leadership: watch::Receiver<Leadership>,
    /// What is measured.
    pub metrics: Metrics,
}

/// The loop and what it owns.
pub struct Controller {
    cluster: Cluster,
    keep: Keep,
    heard: mpsc::Receiver<FromNode>,
    offer: watch::Sender<Option<Offer>>,
    node_table: watch::Sender<NodeTable>,
    judged_tx: watch::Sender<Option<Judged>>,
    announcer: Arc<Announcer>,
    sinks: SinkSet,
    sensors: (String, String),
    receivers: (String, String),
    leadership: watch::Receiver<Leadership>,
    metrics: Metrics,
    fleet: Fleet,
    history: History,
    schedule: Schedule<Key>,
    hand: Hand,
    basis: Basis,
    previous: Arc<Bundle>,
    judged: Option<Judged>,
    /// The bundle that has to be kept, until it is.
    unkept: Option<Offer>,
    rollouts: HashMap<String, Rollout>,
    desired: BTreeSet<Box<str>>,
    /// Since when the current bundle is offered, Unix time in seconds.
    offered: i64,
    /// Events that all sensors have lost, and when that last rose.
    lost: Option<(u64, Option<Instant>)>,
}

/// A rollout of one generation.
#[derive(Debug)]
struct Rollout {
    generation: i64,
    status: RolloutStatus,
    /// When its step began, on a clock that nobody sets.
    began: Instant,
    /// Hits of each node at the beginning of the minute.
    minute: (Instant, HashMap<Box<str>, u64>),
}

impl Controller {
    /// Takes over: learns what an earlier leader had written.
    pub async fn new(parts: Parts) -> Self {
        let previous = restore(&parts.keep).await;
        let mut controller = Self {
            hand: Hand::new(parts.client.clone(), parts.metrics.clone(), parts.leadership.clone()),
            cluster: parts.cluster,
            keep: parts.keep,
            heard: parts.heard,
            offer: parts.offer,
            node_table: parts.nodes,
            judged_tx: parts.judged,
            announcer: parts.announcer,
            sinks: parts.sinks,
            sensors: parts.sensors,
            receivers: parts.receivers,
            leadership: parts.leadership,
            metrics: parts.metrics,
            fleet: Fleet::default(),
            history: History::default(),
            schedule: Schedule::default(),
            basis: Basis::default(),
            previous: Arc::new(previous),
            judged: None,
            unkept: None,
            rollouts: HashMap::new(),
            desired: BTreeSet::new(),
            offered: 0,
            lost: None,
        };
        controller.recall();
        controller
    }

    /// Runs until `stop` is true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut dirty = Some(Change::ALL);
        let mut heard = Vec::new();
        let (mut plan_at, mut look_at) = (Instant::now(), Instant::now());
        let mut planned: Option<Instant> = None;
        loop {
            let mut noted = false;
            tokio::select! {
                change = self.cluster.changes.next() => {
                    dirty = Some(dirty.map_or(change, |before| before.and(change)));
                    tokio::time::sleep(SETTLE).await;
                }
                count = self.heard.recv_many(&mut heard, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    let now = Timestamp::now().as_second();
                    for message in heard.drain(..) {
                        let news = self.fleet.hear(message, now);
                        noted |= news.load || news.hits;
                    }
                }
                written = self.hand.finished() => {
                    self.schedule.written(&written.key, written.value, written.succeeded, Instant::now());
                }
                _ = tick.tick() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
            // What others might decide otherwise meanwhile waits; what sensors say is still heard.
            if *self.leadership.borrow() != Leadership::Leading {
                continue;
            }
            if let Some(change) = dirty.take() {
                noted = true;
                if change.any(Change::NODES) {
                    self.observe_nodes();
                }
                if change.any(Change::RULES.and(Change::CONFIG)) {
                    self.judge().await;
                }
            }
            if noted {
                let soon = planned.map_or_else(Instant::now, |planned| planned + PLAN);
                plan_at = plan_at.min(soon);
            }
            if Instant::now() >= plan_at {
                if self.advance_rollouts() {
                    self.judge().await;
                }
                self.plan();
                planned = Some(Instant::now());
                plan_at = Instant::now() + IDLE;
                look_at = Instant::now();
            }
            self.keep_bundle();
            // Looking at every object for each message of a thousand sensors would take all the time.
            if Instant::now() >= look_at {
                look_at = Instant::now() + LOOK;
                self.write_due();
                self.announcer.measure(&self.metrics);
                self.metrics.status_waiting.set(i64::try_from(self.schedule.waiting()).unwrap_or(i64::MAX));
                self.metrics.status_held.set(i64::try_from(self.schedule.held()).unwrap_or(i64::MAX));
            }
        }
        // What is due is written; a new leader does the rest.
        if *self.leadership.borrow() == Leadership::Leading {
            self.plan();
            self.write_due();
        }
        self.hand.finish(Duration::from_secs(5)).await;
    }

    fn write_due(&mut self) {
        for (key, value) in self.schedule.due(Instant::now()) {
            let there = || self.cluster.sensor_nodes.get(&ObjectRef::new(&key.id.name)).is_some();
            let make = key.owner.is_some() && !there();
            self.hand.write(key, value, make);
        }
    }

    /// Takes in what the statuses of an earlier leader say.
    fn recall(&mut self) {
        for node in self.cluster.sensor_nodes.state() {
            let Some(status) = &node.status else { continue };
            let seen = status.last_seen.as_ref().map_or(0, |seen| seen.0.as_second());
            let count = |count: i64| u64::try_from(count).unwrap_or(0);
            let counts = status.hits.iter().map(|hits| {
                let count = crate::sensors::fleet::Count { hits: count(hits.hits), suppressed: count(hits.suppressed) };
                (hits.uid.clone(), count)
            });
            self.fleet.restore(&node.name_any(), status.spool.as_deref().unwrap_or_default(), seen, counts);
        }
        let now = Timestamp::now().as_second();
        for rule in observe::resources(&self.cluster) {
            let Some(status) = rule.status() else { continue };
            let nanoseconds = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
                let seconds = time.as_ref().map_or(0, |time| time.0.as_second());
                u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000)
            };
            let hits = status.hits.clone().unwrap_or_default();
            let count = |count: i64| u64::try_from(count).unwrap_or(0);
            self.fleet.restore_retired(rule.uid(), count(hits.retired), nanoseconds(&status.last_triggered));
            for top in &status.top_rules {
                self.fleet.restore_rule(rule.uid(), &top.rule, count(top.hits), nanoseconds(&top.last_triggered));
            }
            self.history.note(rule.uid(), count(hits.total), now);
            if let (Some(rollout), Some(generation)) = (&status.rollout, status.observed_generation) {
                let minute = (Instant::now(), HashMap::new());
                // What an earlier leader has waited counts; a wrong clock at most makes the step begin anew.
                let waited = Duration::from_secs(u64::try_from(now - rollout.since.0.as_second()).unwrap_or(0));
                let began = Instant::now().checked_sub(waited).unwrap_or_else(Instant::now);
                let rollout = Rollout { generation, status: rollout.clone(), began, minute };
                self.rollouts.insert(rule.uid().to_owned(), rollout);
            }
        }
    }

    fn observe_nodes(&mut self) {
        let nodes = self.cluster.nodes.state();
        let table = nodes::table(&nodes);
        let receivers = self.cluster.pods.pods_of(&self.receivers.0, &self.receivers.1);
        let there = |name: &str| match is_audit(name) {
            true => receivers.iter().any(|pod| audit_key(pod) == name),
            false => table.contains_key(name),
        };
        let gone: Vec<String> = self
            .fleet
            .sensors()
            .filter(|(node, sensor)| !there(node) && !sensor.connected())
            .map(|(node, _)| node.to_owned())
            .collect();
        gone.iter().for_each(|node| self.fleet.remove(node));
        self.node_table.send_if_modified(|now| {
            let changed = *now != table;
            if changed {
                *now = table;
            }
            changed
        });
    }

    /// Makes the bundle anew if what it is made of has changed.
    async fn judge(&mut self) {
        let resources = observe::resources(&self.cluster);
        // Until the API server has answered about every ConfigMap, what runs goes on.
        let Some(candidates) = observe::candidates(&self.cluster, &resources, &self.percents(&resources)) else {
            return;
        };
        let basis = Basis::new(candidates, self.cluster.configuration());
        if self.judged.is_some() && basis == self.basis {
            return;
        }
        let previous = Arc::clone(&self.previous);
        let judging = tokio::task::spawn_blocking(move || {
            let judged = judge(basis.candidates(), &previous, basis.config());
            (basis, judged)
        });
        let judged = match judging.await {
            Ok((basis, Ok(judged))) => {
                self.basis = basis;
                judged
            }
            Ok((_, Err(error))) => return warn!(error = %link::chain(&error), "the bundle cannot be written"),
            Err(error) => return warn!(error = %link::chain(&error), "the rules could not be judged"),
        };
        self.previous = Arc::clone(&judged.bundle);
        let alive: HashSet<&str> = resources.iter().map(RuleResource::uid).collect();
        self.fleet.retain_units(&alive);
        self.history.retain(|uid| alive.contains(uid));
        self.rollouts.retain(|uid, _| alive.contains(uid.as_str()));
        self.measure(&judged);
        let changed = self.offer.send_if_modified(|now| {
            let changed = now.as_ref() != Some(&judged.offer);
            if changed {
                *now = Some(judged.offer.clone());
            }
            changed
        });
        if changed {
            info!(
                bundle = bundle::short_hash(&judged.offer.hash),
                resources = judged.bundle.units.len(),
                bytes = judged.offer.bytes.len(),
                milliseconds = u64::try_from(judged.took.as_millis()).unwrap_or(u64::MAX),
                "new bundle"
            );
            self.unkept = Some(judged.offer.clone());
            self.offered = Timestamp::now().as_second();
        }
        self.judged_tx.send_replace(Some(judged.clone()));
        self.judged = Some(judged);
    }

    fn measure(&self, judged: &Judged) {
        let metrics = &self.metrics;
        metrics.reconcile_seconds.set(judged.took.as_secs_f64());
        metrics.bundle_info.clear();
        metrics.bundle_info.get_or_create(&ByHash { hash: judged.offer.hash.to_string() }).set(1);
        let refused = judged.verdicts.values().filter(|v| matches!(v.outcome, bundle::Outcome::Rejected(_))).count();
        metrics.rules_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
        let rules: u64 = judged.verdicts.values().map(|verdict| u64::from(verdict.summary.enabled)).sum();
        metrics.bundle_rules.set(i64::try_from(rules).unwrap_or(i64::MAX));
    }

    /// Keeps the bundle in the cluster, in the background; what fails is tried again.
    fn keep_bundle(&mut self) {
        if let Some(offer) = self.unkept.take() {
            self.hand.keep(&self.keep, offer);
        }
    }

    /// Shares of the nodes that run the current generation, of resources whose rollout begins, goes on or was undone.
    fn percents(&self, resources: &[RuleResource]) -> Percents {
        let percent = |rule: &RuleResource| {
            let known = self.rollouts.get(rule.uid()).filter(|known| known.generation == rule.generation());
            let status = match known {
                Some(known) => Some(known.status.clone()),
                None => rollout::advance(rule.spec().rollout.as_ref(), None, &Progress::default(), Timestamp::now()),
            };
            let staged = status.filter(|status| status.phase != RolloutPhase::Completed)?;
            Some((rule.uid().to_owned(), staged.percent))
        };
        resources.iter().filter_map(percent).collect()
    }

    /// Takes rollouts a step further where it is time; whether the bundle changes by it.
    fn advance_rollouts(&mut self) -> bool {
        let mut changed = false;
        for rule in observe::resources(&self.cluster) {
            let (uid, generation) = (rule.uid(), rule.generation());
            let verdict = self.judged.as_ref().and_then(|judged| judged.verdicts.get(&rule.id()));
            // Only what was accepted can be rolled out; what was refused leaves the rollout before it as it is.
            let accepted = verdict.is_some_and(|verdict| verdict.generation == generation && verdict.errors.is_empty());
            if !accepted {
                continue;
            }
            let known = self.rollouts.get(uid).filter(|rollout| rollout.generation == generation);
            let progress = known.map(|known| self.progress(uid, known)).unwrap_or_default();
            let before = known.map(|known| &known.status);
            let next = rollout::advance(rule.spec().rollout.as_ref(), before, &progress, Timestamp::now());
            if before == next.as_ref() && (next.is_some() || !self.rollouts.contains_key(uid)) {
                continue;
            }
            changed = true;
            match next {
                Some(status) => {
                    if let Some(reason) = &status.reason {
                        warn!(resource = %rule.id(), reason, "rollout undone");
                    }
                    let minute = (Instant::now(), self.hits_by_node(uid));
                    let rollout = Rollout { generation, status, began: Instant::now(), minute };
                    self.rollouts.insert(uid.to_owned(), rollout);
                }
                None => {
                    self.rollouts.remove(uid);
                }
            }
        }
        let due = |rollout: &Rollout| rollout.minute.0.elapsed() >= Duration::from_secs(60);
        let old: Vec<String> =
            self.rollouts.iter().filter(|(_, rollout)| due(rollout)).map(|(uid, _)| uid.clone()).collect();
        for uid in old {
            let hits = self.hits_by_node(&uid);
            if let Some(rollout) = self.rollouts.get_mut(&uid) {
                rollout.minute = (Instant::now(), hits);
            }
        }
        changed
    }

    fn hits_by_node(&self, uid: &str) -> HashMap<Box<str>, u64> {
        self.fleet.sensors().map(|(node, sensor)| (node.into(), sensor.count(uid).hits)).collect()
    }

    fn progress(&self, uid: &str, known: &Rollout) -> Progress {
        let load =
            self.fleet.load(uid, &self.generations(uid, known.generation), &self.desired, Timestamp::now().as_second());
        let alerts = self.fleet.sensors().map(|(node, sensor)| {
            let before = known.minute.1.get(node).copied().unwrap_or_default();
            sensor.count(uid).hits.saturating_sub(before)
        });
        Progress {
            loaded: load.desired > 0 && load.loaded == load.desired,
            refused: load.failures.iter().find(|failure| failure.refused).map(|failure| failure.message.to_string()),
            alerts_per_minute: alerts.max().unwrap_or_default(),
            lasted: known.began.elapsed(),
        }
    }

    /// The generations of a resource that nodes may run now: in the middle of a rollout there are two.
    fn generations(&self, uid: &str, serving: i64) -> Vec<i64> {
        let units = self.judged.as_ref().map(|judged| &judged.bundle.units);
        let unit = units.into_iter().flatten().find(|unit| unit.uid == uid);
        let previous = unit.and_then(|unit| unit.rollout.as_ref()?.previous_generation);
        std::iter::once(unit.map_or(serving, |unit| unit.generation)).chain(previous).collect()
    }
}

async fn restore(keep: &Keep) -> Bundle {
    loop {
        match keep.load().await {
            Ok(None) => return Bundle::default(),
            Ok(Some(bytes)) => match Bundle::read(&bytes, &Bundle::hash(&bytes)) {
                Ok(bundle) => return bundle,
                Err(error) => {
                    warn!(error = %link::chain(&error), "the bundle that an earlier operator kept cannot be read; resources with mistakes have no last good version");
                    return Bundle::default();
                }
            },
            Err(error) => {
                warn!(error = %link::chain(&error), "cannot read the bundle that an earlier operator kept; trying again");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}
