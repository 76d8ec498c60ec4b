//! One sensor's session: two loops, one for each direction, so that neither waits for the other.

use std::{sync::Arc, time::Duration};

use link::proto::{self, FromSensor, ToSensor, from_sensor, to_sensor};
use tokio::sync::{
    mpsc,
    watch::{self, error::RecvError},
};
use tonic::{Status, Streaming};

use super::{FromNode, Offer, Said, intake::Marks, limits, server::Shared};
use crate::cluster::pods::Subscription;

/// A sensor that says nothing for so long is gone; it reports every ten seconds.
const SILENCE: Duration = Duration::from_secs(45);
/// Pods in one message.
const PODS: usize = 500;

/// The direction to the sensor.
pub struct Outbound {
    pub node: Arc<str>,
    /// Hash of the bundle that the sensor runs already.
    pub runs: String,
    pub marks: Marks,
    pub sender: mpsc::Sender<Result<ToSensor, Status>>,
}

/// The direction from the sensor.
pub struct Inbound {
    pub node: Arc<str>,
    pub session: u64,
    pub spool: Arc<str>,
}

/// Runs until either side ends it; tells why.
pub async fn run(
    shared: &Shared,
    outbound: Outbound,
    inbound: Inbound,
    stream: Streaming<FromSensor>,
    mut ended: watch::Receiver<bool>,
) -> &'static str {
    let mut leadership = shared.leadership.clone();
    tokio::select! {
        why = outbound.run(shared) => why,
        why = inbound.run(shared, stream) => why,
        _ = ended.wait_for(|ended| *ended) => "the node connected anew",
        _ = leadership.wait_for(|now| !now.ours()) => "another replica leads",
    }
}

/// The sensor has gone.
struct Closed;

/// Waits until one of the marks moves. The operator keeps their senders as long as it lives.
async fn either(acked: &mut watch::Receiver<u64>, received: &mut watch::Receiver<u64>) -> Result<(), RecvError> {
    tokio::select! {
        changed = acked.changed() => changed,
        changed = received.changed() => changed,
    }
}

impl Outbound {
    async fn run(mut self, shared: &Shared) -> &'static str {
        match self.tell(shared).await {
            Ok(why) => why,
            Err(Closed) => "the sensor closed the stream",
        }
    }

    async fn tell(&mut self, shared: &Shared) -> Result<&'static str, Closed> {
        let pods = shared.pods.subscribe(&self.node);
        let mut nodes = shared.nodes.clone();
        let mut offer = shared.offer.clone();
        let Marks { mut acked, mut received } = self.marks.clone();
        let mut facts = proto::NodeFacts::default();
        // Labels and pods come first: what the bundle selects by them is then right at once.
        let table = nodes.borrow_and_update().clone();
        self.node_facts(&table, &mut facts).await?;
        self.pod_facts(&pods).await?;
        offer.mark_changed();
        loop {
            tokio::select! {
                Ok(()) = either(&mut acked, &mut received) => {
                    let (up_to, received) = (*acked.borrow_and_update(), *received.borrow_and_update());
                    self.send(to_sensor::Message::AlertsAck(proto::AlertsAck { up_to, received })).await?;
                }
                changed = offer.changed() => {
                    if changed.is_err() {
                        return Ok("the operator ends");
                    }
                    let now = offer.borrow_and_update().clone();
                    if let Some(now) = now {
                        self.offer(&now, &offer).await?;
                    }
                }
                changed = nodes.changed() => {
                    if changed.is_err() {
                        return Ok("the operator ends");
                    }
                    let table = nodes.borrow_and_update().clone();
                    self.node_facts(&table, &mut facts).await?;
                }
                told = pods.next() => self.split(told).await?,
                () = self.sender.closed() => return Err(Closed),
            }
        }
    }

    async fn send(&self, message: to_sensor::Message) -> Result<(), Closed> {
        self.sender.send(Ok(ToSensor { message: Some(message) })).await.map_err(|_| Closed)
    }

    async fn node_facts(&self, table: &super::NodeTable, told: &mut proto::NodeFacts) -> Result<(), Closed> {
        match table.get(&*self.node) {
            Some(facts) if facts != told => {
                *told = facts.clone();
                self.send(to_sensor::Message::NodeFacts(facts.clone())).await
            }
            _ => Ok(()),
        }
    }

    async fn pod_facts(&self, pods: &Subscription) -> Result<(), Closed> {
        let told = pods.next().await;
        self.split(told).await
    }

    /// Sends facts in messages of bounded size.
    async fn split(&self, mut facts: proto::PodFacts) -> Result<(), Closed> {
        while facts.pods.len() > PODS || facts.namespaces.len() > PODS {
            let pods = facts.pods.split_off(facts.pods.len().min(PODS));
            let namespaces = facts.namespaces.split_off(facts.namespaces.len().min(PODS));
            let rest = proto::PodFacts { pods, namespaces, ..proto::PodFacts::default() };
            self.send(to_sensor::Message::PodFacts(std::mem::replace(&mut facts, rest))).await?;
        }
        self.send(to_sensor::Message::PodFacts(facts)).await
    }

    /// Sends a bundle, and stops in the middle when there is a newer one.
    async fn offer(&mut self, now: &Offer, latest: &watch::Receiver<Option<Offer>>) -> Result<(), Closed> {
        let hash = now.hash.to_string();
        let bytes = now.bytes.len() as u64;
        self.send(to_sensor::Message::BundleOffer(proto::BundleOffer { hash: hash.clone(), bytes })).await?;
        if self.runs == hash {
            self.runs.clear();
            return Ok(());
        }
        self.runs.clear();
        let mut offset = 0;
        while offset < now.bytes.len() {
            if latest.has_changed().unwrap_or(true) {
                return Ok(());
            }
            let end = now.bytes.len().min(offset + link::CHUNK_BYTES);
            let data = now.bytes.slice(offset..end);
            let chunk = proto::BundleChunk { hash: hash.clone(), offset: offset as u64, data };
            self.send(to_sensor::Message::BundleChunk(chunk)).await?;
            offset = end;
        }
        Ok(())
    }
}

impl Inbound {
    async fn run(self, shared: &Shared, mut stream: Streaming<FromSensor>) -> &'static str {
        loop {
            let message = match tokio::time::timeout(SILENCE, stream.message()).await {
                Err(_) => return "the sensor was silent",
                Ok(Err(_)) => return "the connection broke",
                Ok(Ok(None)) => return "the sensor closed the stream",
                Ok(Ok(Some(message))) => message,
            };
            // What a newer sensor says and we don't know, we need not know.
            let Some(mut message) = message.message else { continue };
            limits::tame(&mut message);
            let said = match message {
                from_sensor::Message::Hello(_) => return "the sensor said Hello twice",
                from_sensor::Message::BundleAck(ack) => Said::Ack(ack),
                from_sensor::Message::Counts(counts) => Said::Counts(counts),
                from_sensor::Message::Report(report) => Said::Report(report),
                from_sensor::Message::Alerts(alerts) => {
                    if alerts.alerts.len() > link::WINDOW as usize {
                        return "the sensor sent more alerts than the window allows";
                    }
                    if !shared.intake.take(&self.node, &self.spool, alerts.alerts).await {
                        return "the operator ends";
                    }
                    match alerts.lost {
                        0 => continue,
                        lost => Said::Lost(lost),
                    }
                }
            };
            let told = FromNode { node: Arc::clone(&self.node), session: self.session, said };
            if shared.fleet.send(told).await.is_err() {
                return "the operator ends";
            }
        }
    }
}
