//! The sinks of the cluster: which alerts each gets, its thread, its secrets, and how it does.
//!
//! [`SinkSet::apply`] is told what AlertSinks there are; [`SinkSet::publish`] puts alerts into the [outbox](crate::outbox)
//! with the sinks that want each; a thread per sink takes them from there. Nothing here writes to the cluster: status
//! is planned from a [`SinkStatusView`] by whoever may write.

mod desk;
mod plan;
pub mod secrets;
mod worker;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};

use ::sinks::{
    SinkConfig, SinkType,
    route::{Admission, Route},
};
use api::{
    ResourceId,
    condition::Reason,
    sink::{AlertSinkSpec, AlertSinkStatus},
};
use futures::future::join_all;
use tokio::sync::watch;
use tracing::error;

use self::{
    desk::{Desk, Job},
    secrets::Unresolved,
};
pub use self::{
    desk::{Failure, Flow},
    plan::{Difference, difference, plan_sink_status},
    secrets::SecretSource,
};
use crate::conditions::cut;
use crate::outbox::{Counters, Entry, Envelope, Limits, Outbox, OutboxError, Registration, SinkNo, TestResult, record};

/// How often Secrets are read again.
const REFRESH: Duration = Duration::from_secs(60);
/// And while a sink cannot work without.
const REFRESH_PROBLEM: Duration = Duration::from_secs(10);
/// And after the destination refused what they contain; not more often.
const REFRESH_REFUSED: Duration = Duration::from_secs(5);
/// How often is looked whether one is due.
const TICK: Duration = Duration::from_secs(1);

/// A sink as the cluster has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The resource.
    pub id: ResourceId,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.creationTimestamp`, Unix time in seconds.
    pub created: i64,
    /// `metadata.generation`.
    pub generation: i64,
    /// What is wanted.
    pub spec: AlertSinkSpec,
    /// Value of the annotation `gyrfalcon.dev/test`.
    pub test: Option<String>,
    /// What its status says.
    pub status: Option<AlertSinkStatus>,
    /// Why it is not to be used, whatever its spec says: then it has neither queue nor thread.
    pub refused: Option<Problem>,
}

/// What holds for all sinks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the Secrets of ClusterAlertSinks.
    pub namespace: Arc<str>,
    /// Sinks of namespaces may send to loopback and link-local addresses.
    pub allow_local: bool,
}

/// Why a sink cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable word for it.
    pub reason: Reason,
    /// What is wrong and what to do about it.
    pub message: String,
    /// Only a change of the resource can cure it.
    pub stalled: bool,
}

/// How a sink does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkStatusView {
    /// The `metadata.generation` that this is about.
    pub generation: i64,
    /// What kind of destination it has.
    pub kind: Option<SinkType>,
    /// Why it cannot work.
    pub problem: Option<Problem>,
    /// `spec.suspend`.
    pub suspended: bool,
    /// How deliveries go.
    pub flow: Flow,
    /// When an alert was last delivered since the operator started, in milliseconds since the Unix epoch.
    pub last_delivered_ms: Option<u64>,
    /// The last failed attempt since the operator started.
    pub last_failure: Option<Failure>,
    /// What became of its alerts.
    pub counters: Counters,
    /// Alerts that wait.
    pub depth: u64,
    /// When the one that waits longest arrived, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<u64>,
    /// The last test.
    pub test: Option<TestResult>,
}

/// All sinks. Cheap to clone; the threads end with the last clone.
#[derive(Clone)]
pub struct SinkSet(Arc<Inner>);

struct Inner {
    outbox: Outbox,
    source: Arc<dyn SecretSource>,
    settings: Settings,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    lanes: RwLock<Arc<BTreeMap<ResourceId, Arc<Lane>>>>,
    /// What is said about sinks that are not used.
    refused: RwLock<BTreeMap<ResourceId, SinkStatusView>>,
    applied: watch::Sender<bool>,
}

/// One sink.
struct Lane {
    observed: Observed,
    number: SinkNo,
    route: Route,
    prepared: Prepared,
    desk: Arc<Desk>,
    due: Instant,
    fetched: Instant,
}

/// What became of a spec.
#[derive(Debug, Clone)]
enum Prepared {
    Config(Arc<SinkConfig>),
    Problem(Problem),
}

impl Prepared {
    fn job(&self) -> Job {
        match self {
            Self::Config(config) => Job::Deliver(Arc::clone(config)),
            Self::Problem(problem) => Job::Wait(problem.clone()),
        }
    }

    fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Config(_) => None,
            Self::Problem(problem) => Some(problem),
        }
    }
}

impl SinkSet {
    /// No sinks yet. Must be called within a runtime, which reads Secrets again from time to time.
    pub fn new(outbox: Outbox, source: Arc<dyn SecretSource>, settings: Settings) -> Self {
        let inner = Arc::new(Inner {
            outbox,
            source,
            settings,
            changing: tokio::sync::Mutex::default(),
            lanes: RwLock::default(),
            refused: RwLock::default(),
            applied: watch::Sender::new(false),
        });
        tokio::spawn(refresh(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Makes these the sinks that there are: all sinks of the cluster, once they are known. Queues of sinks that are not
    /// among them are dropped. `leading` is whether this replica sends the tests that annotations ask for.
    pub async fn apply(&self, observed: Vec<Observed>, leading: bool) -> Result<(), OutboxError> {
        let _changing = self.0.changing.lock().await;
        let before = self.0.lanes();
        let (refused, observed): (Vec<_>, Vec<_>) = observed.into_iter().partition(|sink| sink.refused.is_some());
        let refused = refused.into_iter().map(|sink| (sink.id.clone(), refused_view(&sink))).collect();
        *self.0.refused.write().unwrap_or_else(PoisonError::into_inner) = refused;
        let prepared = join_all(observed.iter().map(|sink| self.0.prepare(sink, before.get(&sink.id)))).await;
        let mut desks = Vec::new();
        let mut registrations = Vec::new();
        for (sink, prepared) in observed.iter().zip(&prepared) {
            let known = before.get(&sink.id).filter(|lane| lane.observed.uid == sink.uid);
            let desk = known.map_or_else(|| Arc::new(Desk::new(prepared.job())), |lane| Arc::clone(&lane.desk));
            registrations.push(registration(sink, &desk));
            desks.push(desk);
        }
        let numbers = self.0.outbox.register(registrations).await?;
        let mut lanes = BTreeMap::new();
        for (((observed, prepared), desk), number) in observed.into_iter().zip(prepared).zip(desks).zip(numbers) {
            let known = before.get(&observed.id).filter(|lane| Arc::ptr_eq(&lane.desk, &desk));
            match known {
                Some(_) => desk.assign(prepared.job()),
                None => {
                    let spawned = worker::spawn(observed.id.clone(), number, self.0.outbox.clone(), Arc::clone(&desk));
                    if let Err(error) = spawned {
                        // The next call tries again.
                        error!(sink = %observed.id, %error, "the system has no thread for a sink");
                        continue;
                    }
                }
            }
            if leading && let Some(nonce) = self.0.test_due(&observed, number, &desk) {
                desk.ask_test(nonce);
            }
            let now = Instant::now();
            let fetched = known.filter(|lane| lane.observed.spec == observed.spec).map_or(now, |lane| lane.fetched);
            let due = due(&prepared, fetched);
            let route = route(&observed);
            lanes.insert(observed.id.clone(), Arc::new(Lane { observed, number, route, prepared, desk, due, fetched }));
        }
        for (id, lane) in before.iter() {
            if lanes.get(id).is_none_or(|kept| !Arc::ptr_eq(&kept.desk, &lane.desk)) {
                lane.desk.assign(Job::Stop);
            }
        }
        self.0.set_lanes(lanes);
        self.0.applied.send_replace(true);
        Ok(())
    }

    /// Puts alerts into the outbox, for each sink that wants them. When this returns without an error, they are on
    /// disk. Waits for the first [`Self::apply`]: before it, nobody knows who wants what.
    pub async fn publish(&self, alerts: Vec<Envelope>) -> Result<(), OutboxError> {
        let mut applied = self.0.applied.subscribe();
        applied.wait_for(|applied| *applied).await.map_err(|_| OutboxError::Closed)?;
        let lanes = self.0.lanes();
        let entries = alerts.into_iter().map(|alert| entry(&lanes, alert)).collect();
        self.0.outbox.commit(entries).await
    }

    /// How a sink does; none for one that was not applied.
    pub fn view(&self, id: &ResourceId) -> Option<SinkStatusView> {
        let Some(lane) = self.0.lanes().get(id).map(Arc::clone) else {
            return self.0.refused.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        };
        let queue = self.0.outbox.view(lane.number)?;
        let health = lane.desk.health();
        let oldest_ms = match queue.depth {
            0 => None,
            _ => self.0.outbox.oldest(lane.number).unwrap_or_default(),
        };
        Some(SinkStatusView {
            generation: lane.observed.generation,
            kind: SinkType::of(&lane.observed.spec),
            problem: lane.prepared.problem().cloned(),
            suspended: lane.observed.spec.suspended(),
            flow: health.flow,
            last_delivered_ms: health.last_delivered_ms,
            last_failure: health.last_failure,
            counters: queue.counters,
            depth: queue.depth,
            oldest_ms,
            test: queue.test,
        })
    }

    /// The sinks that were applied.
    pub fn ids(&self) -> Vec<ResourceId> {
        self.0.lanes().keys().cloned().collect()
    }

    /// The outbox behind the sinks.
    pub fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }
}

impl Inner {
    fn lanes(&self) -> Arc<BTreeMap<ResourceId, Arc<Lane>>> {
        Arc::clone(&self.lanes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_lanes(&self, lanes: BTreeMap<ResourceId, Arc<Lane>>) {
        *self.lanes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(lanes);
    }

    /// Makes a configuration of a spec. What is known already is not read again.
    async fn prepare(&self, sink: &Observed, known: Option<&Arc<Lane>>) -> Prepared {
        let known = known.filter(|lane| lane.observed.uid == sink.uid && lane.observed.spec == sink.spec);
        match known {
            Some(lane) => lane.prepared.clone(),
            None => self.fetch(sink, None).await,
        }
    }

    /// Reads what a spec names and makes a configuration of it. `known` stays when the API server cannot be asked.
    async fn fetch(&self, sink: &Observed, known: Option<&Prepared>) -> Prepared {
        let namespace = match sink.id.kind.namespaced() {
            true => &sink.id.namespace,
            false => &*self.settings.namespace,
        };
        let secrets = match secrets::resolve(&*self.source, &sink.spec, namespace).await {
            Ok(secrets) => secrets,
            Err(Unresolved::Problem(problem)) => return Prepared::Problem(problem),
            Err(Unresolved::Failed(problem)) => {
                return known.cloned().unwrap_or(Prepared::Problem(problem));
            }
        };
        let config = SinkConfig::new(sink.id.clone(), &sink.spec, &secrets);
        match config.and_then(|config| config.in_cluster(self.settings.allow_local)) {
            Ok(config) => Prepared::Config(Arc::new(config)),
            Err(error) => Prepared::Problem(Problem {
                reason: error.reason(),
                message: link::chain(&error).to_string(),
                // A Secret may be to blame, and change.
                stalled: sink.spec.secrets().is_empty() && sink.spec.config_maps().is_empty(),
            }),
        }
    }

    /// The value of the annotation, if a test was not made for it yet.
    fn test_due(&self, sink: &Observed, number: SinkNo, desk: &Desk) -> Option<String> {
        let nonce = sink.test.as_deref().filter(|nonce| !nonce.is_empty())?;
        let nonce = cut(nonce, plan::NONCE_BYTES);
        let told = sink.status.as_ref().and_then(|status| status.last_test.as_deref());
        let made = self.outbox.view(number).and_then(|view| view.test);
        let done = told == Some(&*nonce) || made.is_some_and(|test| test.nonce == nonce) || desk.was_asked(&nonce);
        (!done).then_some(nonce)
    }

    /// Reads again what is due.
    async fn refresh(&self) {
        let _changing = self.changing.lock().await;
        let now = Instant::now();
        let mut lanes = (*self.lanes()).clone();
        let mut changed = false;
        for lane in lanes.values_mut() {
            let spec = &lane.observed.spec;
            let named = !spec.secrets().is_empty() || !spec.config_maps().is_empty();
            let refused = now.duration_since(lane.fetched) >= REFRESH_REFUSED && lane.desk.take_refused();
            if !named || (now < lane.due && !refused) {
                continue;
            }
            let prepared = self.fetch(&lane.observed, Some(&lane.prepared)).await;
            lane.desk.assign(prepared.job());
            let fetched = Instant::now();
            *lane = Arc::new(Lane {
                observed: lane.observed.clone(),
                number: lane.number,
                route: lane.route.clone(),
                due: due(&prepared, fetched),
                prepared,
                desk: Arc::clone(&lane.desk),
                fetched,
            });
            changed = true;
        }
        if changed {
            self.set_lanes(lanes);
        }
    }
}

impl Drop for Inner {
    /// Ends the threads, each after what it does at the moment.
    fn drop(&mut self) {
        for lane in self.lanes().values() {
            lane.desk.assign(Job::Stop);
        }
    }
}

async fn refresh(inner: Weak<Inner>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.refresh().await;
    }
}

fn due(prepared: &Prepared, fetched: Instant) -> Instant {
    match prepared {
        Prepared::Config(_) => fetched + REFRESH,
        Prepared::Problem(_) => fetched + REFRESH_PROBLEM,
    }
}

/// How a sink does that is not used. What it had counted stays.
fn refused_view(sink: &Observed) -> SinkStatusView {
    SinkStatusView {
        generation: sink.generation,
        kind: SinkType::of(&sink.spec),
        problem: sink.refused.clone(),
        suspended: sink.spec.suspended(),
        flow: Flow::Idle,
        last_delivered_ms: None,
        last_failure: None,
        counters: told(sink),
        depth: 0,
        oldest_ms: None,
        test: None,
    }
}

/// Which alerts a sink gets does not depend on its secrets: they wait while those are missing.
fn route(sink: &Observed) -> Route {
    let route = Route::new(sink.spec.match_.as_ref());
    match sink.id.kind.namespaced() {
        true => route.only_namespace(&sink.id.namespace),
        false => route,
    }
}

fn registration(sink: &Observed, desk: &Arc<Desk>) -> Registration {
    let queue = ::sinks::queue::QueueConfig::new(sink.spec.queue.as_ref());
    Registration {
        uid: Arc::clone(&sink.uid),
        limits: Limits { capacity: queue.capacity as u64, overflow: queue.overflow },
        at_least: told(sink),
        bell: Arc::clone(&desk.bell),
    }
}

/// What its status says that it had counted.
fn told(sink: &Observed) -> Counters {
    let told = sink.status.as_ref().and_then(|status| status.counters.clone()).unwrap_or_default();
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    Counters {
        sent: count(told.sent),
        failed: count(told.failed),
        retried: count(told.retried),
        dropped: count(told.dropped),
        filtered: count(told.filtered),
    }
}

fn entry(lanes: &BTreeMap<ResourceId, Arc<Lane>>, envelope: Envelope) -> Entry {
    let Envelope { spool, seq, alert, namespace } = envelope;
    let (mut wanted, mut filtered) = (Vec::new(), Vec::new());
    for lane in lanes.values() {
        match lane.route.admit(&alert, namespace.as_deref()) {
            // What could never be sent is not kept either, nor what is not to be sent.
            Admission::Admitted if lane.observed.spec.suspended() => {}
            Admission::Admitted if lane.prepared.problem().is_some_and(|problem| problem.stalled) => {}
            Admission::Admitted => wanted.push(lane.number),
            Admission::Filtered => filtered.push(lane.number),
            Admission::Foreign => {}
        }
    }
    let payload = if wanted.is_empty() { Vec::new() } else { record::encode(&alert) };
    Entry { spool, seq, class: alert.priority as u8, payload, wanted, filtered }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
