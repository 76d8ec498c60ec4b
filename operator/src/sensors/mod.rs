//! Serves the sensors: who may connect ([`auth`]), one session per sensor, what they all say ([`fleet`]), and where
//! their alerts go.
//!
//! Only the leader serves. Another replica says where the leader is; the sensor goes there.

pub mod auth;
pub mod fleet;
pub mod intake;
mod limits;
pub mod server;
mod session;
use std::{collections::HashMap, sync::Arc};

use link::proto;
use tonic::codegen::Bytes;

/// The bundle that sensors should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its hash, in lower-case hexadecimal digits.
    pub hash: Arc<str>,
    /// Its bytes, shared by all sessions.
    pub bytes: Bytes,
}

/// Labels and uid of every node.
pub type NodeTable = Arc<HashMap<Box<str>, proto::NodeFacts>>;

/// What a session tells the rest of the operator.
#[derive(Debug)]
pub struct FromNode {
    /// The node, as the token has it.
    pub node: Arc<str>,
    /// Tells this session from earlier ones of the node.
    pub session: u64,
    /// What there is to tell.
    pub said: Said,
}

/// See [`FromNode`].
#[derive(Debug)]
pub enum Said {
    /// The session began.
    Hello(Box<proto::Hello>),
    /// What became of a bundle.
    Ack(proto::BundleAck),
    /// How often rules matched.
    Counts(proto::Counts),
    /// How the sensor does.
    Report(proto::NodeReport),
    /// Alerts that the sensor's spool gave up, since the spool began.
    Lost(u64),
    /// The session ended.
    Gone,
}
