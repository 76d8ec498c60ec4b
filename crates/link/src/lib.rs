//! The protocol between operator and sensors: messages, limits, and how versions get along.
//!
//! A sensor opens one stream over TLS, with its service-account token in the `authorization` metadata, and says
//! [`proto::Hello`]; the operator checks the token against the node's name and answers [`proto::Welcome`]. From then on:
//!
//! * Bundle: the operator offers what should run ([`proto::BundleOffer`], [`proto::BundleChunk`]); the sensor answers with
//!   a [`proto::BundleAck`] for each, whether it was loaded or not.
//! * Alerts: the sensor sends from its spool, at most [`proto::Welcome::window`] beyond what the operator has received,
//!   and forgets what is safe ([`proto::AlertsAck`]): a destination that is away holds up neither. What an operator has
//!   not received is sent again in the next session: alerts arrive at least once, in order, and their sequence numbers
//!   tell repetitions.
//! * Counts are cumulative within a spool, so that a repetition counts nothing twice.
#![forbid(unsafe_code)]

mod chain;

pub use chain::{Chain, chain};

/// The messages and the service, as `proto/link.proto` describes them.
#[expect(missing_docs, reason = "generated; the comments are in proto/link.proto")]
pub mod proto {
    tonic::include_proto!("gyrfalcon.link.v1");
}

/// Version of the protocol that this code speaks.
pub const PROTOCOL: u32 = 1;

/// Oldest version of the protocol that this code understands.
pub const OLDEST_PROTOCOL: u32 = 1;

/// Audience of the tokens by which sensors show who they are.
pub const TOKEN_AUDIENCE: &str = "gyrfalcon-operator";

/// Metadata key by which a standby replica says where the leader listens (`IP:PORT`).
pub const LEADER_HINT: &str = "gyrfalcon-leader";

/// Largest message in bytes, either way. Bundles travel in chunks of [`CHUNK_BYTES`].
pub const MESSAGE_BYTES: usize = 4 << 20;

/// Bytes of a bundle in one message: a thousand slow sensors have one in memory each.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Largest bundle in bytes.
pub const BUNDLE_BYTES: u64 = 64 << 20;

/// Bytes of alerts in one message, and one alert more. After an outage a thousand sensors send at once, and the operator has a
/// message of each in memory before it takes the first: decoded, five times as large.
pub const ALERTS_BYTES: usize = 16 << 10;

/// Alerts that may be under way without an acknowledgement.
pub const WINDOW: u32 = 4096;
