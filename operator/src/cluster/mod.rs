//! What the API server says there is: pods, nodes, namespaces and our own resources, followed by watches.
//!
//! Every replica follows, so that a new leader knows the cluster at once and any replica can answer the webhook.

mod intern;
pub mod kinds;
pub mod pods;
pub mod slim;
pub mod watch;

pub use self::watch::{Change, Changes, Cluster, ConfigMapKey, Lookup};
