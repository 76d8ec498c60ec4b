//! The gRPC service: lets sensors in, and starts a session for each.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::Stream;
use link::proto::{self, FromSensor, ToSensor, from_sensor, link_server, to_sensor};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};
use tracing::{info, warn};

use super::{
    FromNode, NodeTable, Offer, Said,
    auth::{Gate, same},
    intake::Intake,
    limits, session,
};
use crate::{cluster::pods::Pods, leader::Leadership};

/// How long a sensor has for its first message.
const HELLO: Duration = Duration::from_secs(10);
/// Messages to a sensor that wait for it to read.
const OUTBOUND: usize = 16;
/// Longest name of a spool.
const SPOOL_BYTES: usize = 64;

/// What sessions share.
#[derive(Clone)]
pub struct Shared {
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// What sensors should run; none before the first has been made.
    pub offer: watch::Receiver<Option<Offer>>,
    /// Labels of nodes.
    pub nodes: watch::Receiver<NodeTable>,
    /// Pods by node.
    pub pods: Pods,
    /// Takes alerts.
    pub intake: Intake,
    /// Takes everything else.
    pub fleet: mpsc::Sender<FromNode>,
}

/// The service.
#[derive(Clone)]
pub struct Server {
    gate: Gate,
    shared: Shared,
    sessions: Arc<Sessions>,
}

#[derive(Default)]
struct Sessions {
    next: AtomicU64,
    /// The session of each node.
    running: Mutex<HashMap<Arc<str>, Running>>,
}

/// A session, and what ends it.
struct Running {
    id: u64,
    end: watch::Sender<bool>,
}

impl Server {
    /// A service that lets in whom the gate does.
    pub fn new(gate: Gate, shared: Shared) -> Self {
        Self { gate, shared, sessions: Arc::default() }
    }

    /// Refuses while another replica leads, and says where that one is. Who is unsure lets the API server decide, which has
    /// to answer about the token anyway.
    fn leading(&self) -> Result<(), Status> {
        let leader = match &*self.shared.leadership.borrow() {
            Leadership::Leading | Leadership::Unsure => return Ok(()),
            Leadership::Following(leader) => leader.clone(),
        };
        let mut status = Status::failed_precondition("another replica leads");
        let address = leader.as_deref().and_then(|identity| identity.rsplit_once('_')).map(|(_, address)| address);
        if let Some(value) = address.and_then(|address| MetadataValue::try_from(address).ok()) {
            status.metadata_mut().insert(link::LEADER_HINT, value);
        }
        Err(status)
    }
}

impl Sessions {
    /// Begins a session; the one that the node had ends.
    fn begin(&self, node: &Arc<str>) -> (u64, watch::Receiver<bool>) {
        let id = self.next.fetch_add(1, Relaxed) + 1;
        let (end, ended) = watch::channel(false);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = running.insert(Arc::clone(node), Running { id, end }) {
            before.end.send_replace(true);
        }
        (id, ended)
    }

    fn end(&self, node: &Arc<str>, id: u64) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(node).is_some_and(|running| running.id == id) {
            running.remove(node);
        }
    }
}

#[tonic::async_trait]
impl link_server::Link for Server {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ToSensor, Status>> + Send>>;

    async fn session(&self, request: Request<Streaming<FromSensor>>) -> Result<Response<Self::SessionStream>, Status> {
        self.leading()?;
        let refuse = |refusal: super::auth::Refusal| {
            warn!(error = %link::chain(&refusal), "sensor refused");
            Status::from(&refusal)
        };
        let caller = self.gate.caller(request.metadata()).await.map_err(refuse)?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no Hello in time"))??;
        let mut hello = match first.and_then(|message| message.message) {
            Some(from_sensor::Message::Hello(hello)) => hello,
            _ => return Err(Status::invalid_argument("the first message must be Hello")),
        };
        same(&caller, &hello).map_err(refuse)?;
        let actual = caller.key();
        limits::tame_hello(&mut hello);
        if hello.protocol < link::OLDEST_PROTOCOL {
            warn!(node = actual, protocol = hello.protocol, version = hello.version, "sensor is too old");
            return Err(Status::failed_precondition(format!(
                "protocol {} is too old; this operator understands {} and newer: update the sensor",
                hello.protocol,
                link::OLDEST_PROTOCOL
            )));
        }
        if hello.spool.is_empty() || hello.spool.len() > SPOOL_BYTES {
            return Err(Status::invalid_argument("a spool has a name of 1 to 64 bytes"));
        }
        let node: Arc<str> = actual.into();
        let marks = self.shared.intake.marks(&hello.spool).await.map_err(|error| {
            warn!(error = %link::chain(&error), "the store of alerts cannot be read");
            Status::unavailable("the operator cannot read its store")
        })?;
        let (id, ended) = self.sessions.begin(&node);
        let (sender, outbound) = mpsc::channel(OUTBOUND);
        let welcome = proto::Welcome {
            protocol: link::PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            acked: *marks.acked.borrow(),
            window: link::WINDOW,
            received: *marks.received.borrow(),
        };
        // The channel is empty: there is room.
        let _ = sender.try_send(Ok(ToSensor { message: Some(to_sensor::Message::Welcome(welcome)) }));
        info!(node = &*node, version = hello.version, kernel = hello.kernel, "sensor connected");
        let (server, runs) = (self.clone(), hello.bundle.clone());
        let spool: Arc<str> = hello.spool.as_str().into();
        tokio::spawn(async move {
            let said = |said| FromNode { node: Arc::clone(&node), session: id, said };
            if server.shared.fleet.send(said(Said::Hello(Box::new(hello)))).await.is_err() {
                return;
            }
            let tell = session::Outbound { node: Arc::clone(&node), runs, marks, sender };
            let listen = session::Inbound { node: Arc::clone(&node), session: id, spool };
            let why = session::run(&server.shared, tell, listen, inbound, ended).await;
            info!(node = &*node, why, "sensor disconnected");
            server.sessions.end(&node, id);
            // When nobody listens any more, the operator is ending.
            let _ = server.shared.fleet.send(said(Said::Gone)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }
}
