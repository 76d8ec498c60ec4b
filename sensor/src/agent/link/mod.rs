//! The link to the operator: one session after the other, on threads of its own.
//!
//! An operator that is away, slow or hostile costs bounded memory (one bundle being received, a few messages being sent)
//! and the spool's bounded disk, and nothing else: no other thread waits for what happens here.

mod backoff;
mod dial;
mod receive;
mod session;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ::link::{LEADER_HINT, proto};
use tokio::sync::{oneshot, watch};
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use self::backoff::Backoff;
pub use self::{dial::Address, receive::Verified};
use super::spool::{Queue, Spool};
use ::link::chain;

/// Who takes what the operator sends. Called on the link's threads: it must not wait long.
pub trait Receive: Send + Sync + 'static {
    /// A bundle to run.
    fn bundle(&self, bundle: Verified);
    /// About this node.
    fn node_facts(&self, facts: proto::NodeFacts);
    /// About its pods. Nothing more is read before the receiver is resolved, so that not more than one message waits.
    fn pod_facts(&self, facts: proto::PodFacts) -> oneshot::Receiver<()>;
}

/// What there is to say about bundles: the last word on each matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Acks {
    /// The bundle that runs.
    pub running: Option<proto::BundleAck>,
    /// The last one that was refused.
    pub failed: Option<proto::BundleAck>,
    /// Changes when all of it is to be said again: the operator has offered what runs already.
    pub repeat: u64,
}

/// What a session is about.
pub struct Parts {
    /// Where the operator is.
    pub address: Address,
    /// Who this sensor is; spool and bundle are filled in.
    pub hello: proto::Hello,
    /// Alerts and counts.
    pub spool: Arc<Spool>,
    /// Told when alerts are acknowledged.
    pub queue: Arc<Queue>,
    /// What to say about bundles.
    pub acks: watch::Sender<Acks>,
    /// How the sensor does.
    pub report: watch::Receiver<proto::NodeReport>,
    /// Who takes what is received.
    pub receive: Arc<dyn Receive>,
    /// How the link does.
    pub status: Arc<LinkStatus>,
}

/// How the link does, for others.
#[derive(Debug, Default)]
pub struct LinkStatus {
    /// There is a session.
    pub connected: AtomicBool,
    /// What the operator has: rises whenever it acknowledges something.
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    acked: u64,
    /// Version of the counts that were sent.
    counted: u64,
}

impl LinkStatus {
    /// Whether there is a session.
    pub fn connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Notes that there is no session, and will be none.
    pub fn disconnected(&self) {
        self.connected.store(false, Relaxed);
    }

    /// Waits until the operator has all alerts and counts of a spool.
    pub async fn all_delivered(&self, spool: &Spool) {
        let mut progress = self.progress.subscribe();
        let version = spool.totals().since(u64::MAX).1;
        // The sender is here: waiting does not fail.
        let _ = progress.wait_for(|progress| spool.waiting() == 0 && progress.counted >= version).await;
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The CA file is of no use.
    #[error("cannot use the CA in {}: {reason}; it is the ConfigMap gyrfalcon-ca, which the operator writes", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The token file is of no use.
    #[error("cannot read the token in {}; it is a projected service account token", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name is no DNS name.
    #[error("`{name}` is no DNS name; see --operator-name")]
    Name {
        /// The name.
        name: String,
    },
    /// No connection.
    #[error("cannot connect to the operator at {address}")]
    Connect {
        /// Where it was tried.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The operator did not answer in time.
    #[error("the operator is silent: {step} took too long")]
    Silent {
        /// What was waited for.
        step: &'static str,
    },
    /// The operator ended the session, or refused it.
    #[error("the operator says {}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The operator said something else than a welcome, or nothing.
    #[error("the operator did not begin with a welcome")]
    NoWelcome,
    /// The other side is too old or too new.
    #[error(
        "the operator speaks version {theirs} of the protocol, this sensor {ours}; install releases that are at most one apart"
    )]
    Version {
        /// The operator's.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The operator closed the stream.
    #[error("the operator ended the session")]
    Ended,
    /// The spool could not be read.
    #[error("cannot read the spool")]
    Spool(#[source] io::Error),
}

impl SessionError {
    /// Where the leader is, if a standby replica has said so.
    fn leader(&self) -> Option<SocketAddr> {
        let Self::Status(status) = self else { return None };
        if status.code() != Code::FailedPrecondition {
            return None;
        }
        status.metadata().get(LEADER_HINT)?.to_str().ok()?.parse().ok()
    }
}

/// A session that lasted so long was a success: the next attempt is made soon.
const SUCCESS: Duration = Duration::from_secs(5);

/// Hints that are followed without waiting, one after the other.
const HOPS: u32 = 3;

/// Keeps a session going until the future is dropped.
pub async fn run(parts: Parts) {
    let mut backoff = Backoff::default();
    let mut leader = None;
    let mut hops = 0;
    let mut said = String::new();
    loop {
        let began = Instant::now();
        let at = leader.take();
        let ended = session::session(&parts, at, || said.clear()).await;
        parts.status.connected.store(false, Relaxed);
        let Err(error) = ended;
        if began.elapsed() >= SUCCESS {
            backoff.reset();
            hops = 0;
        }
        leader = error.leader();
        if let Some(leader) = leader
            && hops < HOPS
        {
            debug!(%leader, "the operator's leader is elsewhere");
            hops += 1;
            continue;
        }
        hops = 0;
        let text = chain(&error).to_string();
        // An operator that is away is said once.
        if text != said {
            warn!(error = text, waiting = parts.spool.waiting(), "no link to the operator");
            said = text;
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

fn connected(parts: &Parts, welcome: &proto::Welcome, at: Option<SocketAddr>) {
    parts.status.connected.store(true, Relaxed);
    let at = at.map_or_else(|| parts.address.dial.clone(), |at| at.to_string());
    info!(operator = at, version = welcome.version, acked = welcome.acked, "linked to the operator");
}
