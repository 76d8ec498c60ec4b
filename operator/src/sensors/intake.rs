//! Takes alerts from sensors: first into the outbox, then on to whoever makes Events of them.
//!
//! An alert that was taken before (its sensor did not hear the acknowledgement) changes nothing. Sensors are held up
//! while the outbox is busy: besides the message that each session has read, [`AT_ONCE`] bytes are in memory for them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use link::proto;
use prost::Message as _;
use rules::alert::{Alert, Priority};
use tokio::sync::{Semaphore, watch};
use tracing::warn;

use crate::{
    cluster::pods::Pods,
    metrics::Metrics,
    outbox::{Envelope, OutboxError},
    sensors::auth::{audit_pod, is_audit},
    sinks::SinkSet,
};

/// Spools whose marks are kept without a session.
const SPOOLS: usize = 10_000;

/// Bytes of alerts that are on their way into the outbox at once, as they came over the wire. There they take several
/// times as much: fields are parsed, and copied for each sink.
const AT_ONCE: u32 = 8 << 20;

/// Gets the alerts that are new, after they are safe.
pub trait Announce: Send + Sync + 'static {
    /// Must not wait.
    fn announce(&self, node: &Arc<str>, alerts: Vec<proto::Alert>);
}

/// Takes alerts. Clones share everything.
#[derive(Clone)]
pub struct Intake(Arc<Inner>);

struct Inner {
    sinks: SinkSet,
    pods: Pods,
    announce: Arc<dyn Announce>,
    metrics: Metrics,
    /// Highest sequence number that was taken, by spool.
    taken: Mutex<HashMap<Arc<str>, watch::Sender<u64>>>,
    /// A permit for each byte of [`AT_ONCE`].
    room: Semaphore,
}

/// How far a spool has come.
#[derive(Debug, Clone)]
pub struct Marks {
    /// Number up to which alerts are safe: the sensor may forget them.
    pub acked: watch::Receiver<u64>,
    /// Number up to which alerts are in the store: the sensor may send others.
    pub received: watch::Receiver<u64>,
}

impl Intake {
    /// Takes alerts into the outbox of these sinks; `pods` tells which of them can be right about where they happened.
    pub fn new(sinks: SinkSet, pods: Pods, announce: Arc<dyn Announce>, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            sinks,
            pods,
            announce,
            metrics,
            taken: Mutex::default(),
            room: Semaphore::new(AT_ONCE as usize),
        }))
    }

    /// How far a spool has come, now and from now on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn marks(&self, spool: &str) -> Result<Marks, OutboxError> {
        let outbox = self.0.sinks.outbox();
        self.taken(spool, outbox.committed(spool).await?);
        let acked = outbox.acked(spool).await?;
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() > SPOOLS {
            // What no session reads, the outbox knows as well.
            taken.retain(|known, mark| **known == *spool || mark.receiver_count() > 0);
        }
        Ok(Marks { acked, received: taken.entry(spool.into()).or_default().subscribe() })
    }

    /// Raises what was taken of a spool; what it was before.
    fn taken(&self, spool: &str, up_to: u64) -> u64 {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let known = taken.entry(spool.into()).or_default();
        let before = *known.borrow();
        known.send_if_modified(|known| std::mem::replace(known, up_to.max(*known)) < up_to);
        before
    }

    /// Takes alerts that a sensor sent; false when the operator is ending. Waits until they are in the store.
    pub async fn take(&self, node: &Arc<str>, spool: &Arc<str>, mut alerts: Vec<proto::Alert>) -> bool {
        self.confine(node, &mut alerts);
        let Some(last) = alerts.iter().map(|alert| alert.seq).max() else { return true };
        let bytes: usize = alerts.iter().map(proto::Alert::encoded_len).sum();
        let Ok(room) = self.0.room.acquire_many(u32::try_from(bytes).unwrap_or(u32::MAX).min(AT_ONCE)).await else {
            return false;
        };
        let envelopes = alerts.iter().map(|alert| envelope(node, spool, alert)).collect();
        if let Err(error) = self.0.sinks.publish(envelopes).await {
            warn!(node = &**node, error = %link::chain(&error), "alerts are not in the store; the sensor sends them again");
            return false;
        }
        drop(room);
        let before = self.taken(spool, last);
        let count = alerts.len();
        let fresh: Vec<_> = alerts.into_iter().filter(|alert| alert.seq > before).collect();
        self.0.metrics.alerts.inc_by(fresh.len() as u64);
        self.0.metrics.alerts_repeated.inc_by((count - fresh.len()) as u64);
        if !fresh.is_empty() {
            self.0.announce.announce(node, fresh);
        }
        true
    }
}

impl Intake {
    /// Leaves of where alerts happened only what can be true: a sensor speaks for its own node. Such an alert counts as one
    /// of the node itself, so that neither Events nor sinks of somebody else's namespace have it.
    fn confine(&self, node: &Arc<str>, alerts: &mut [proto::Alert]) {
        let elsewhere = |pod: &mut proto::Pod| !self.0.pods.can_be_on(node, &pod.namespace, &pod.name, &pod.uid);
        // What receivers of the audit log tell is about objects, wherever they are; sensors know of pods only.
        let foreign = match is_audit(node) {
            true => alerts.iter_mut().filter_map(|alert| alert.pod.take()).count(),
            false => {
                let objects = alerts.iter_mut().filter_map(|alert| alert.object.take()).count();
                objects + alerts.iter_mut().filter_map(|alert| alert.pod.take_if(elsewhere)).count()
            }
        };
        if foreign > 0 {
            self.0.metrics.alerts_foreign.inc_by(foreign as u64);
            warn!(node = &**node, alerts = foreign, "a sensor sent alerts about pods that are not on its node");
        }
    }
}

/// A sensor's node; the pod of a receiver of the audit log.
fn hostname(node: &Arc<str>) -> Arc<str> {
    audit_pod(node).map_or_else(|| Arc::clone(node), Arc::from)
}

/// The alert as sinks see it. Where it happened is taken from what the sensor knows, not from the text of the alert.
fn envelope(node: &Arc<str>, spool: &Arc<str>, alert: &proto::Alert) -> Envelope {
    let fields = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&alert.output_fields);
    let of_pod = alert.pod.as_ref().map(|pod| pod.namespace.as_str());
    let of_object = || alert.object.as_ref().map(|object| object.namespace.as_str());
    let namespace = of_pod.or_else(of_object).filter(|namespace| !namespace.is_empty());
    Envelope {
        spool: Arc::clone(spool),
        seq: alert.seq,
        alert: Alert {
            hostname: hostname(node),
            time_ns: alert.time_ns,
            rule: alert.rule.as_str().into(),
            priority: Priority::parse(&alert.priority).unwrap_or(Priority::Debug),
            source: alert.source.as_str().into(),
            tags: alert.tags.iter().map(|tag| tag.as_str().into()).collect(),
            message: alert.message.as_str().into(),
            output_fields: fields.unwrap_or_default().into_iter().map(|(name, value)| (name.into(), value)).collect(),
        },
        namespace: namespace.map(Into::into),
    }
}
