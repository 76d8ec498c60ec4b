//! A real Kubernetes on this machine, for tests and for `cargo xtask demo`.
//!
//! [`Cluster::start`] brings up etcd and a control plane in about three seconds, and with [`ClusterOptions::node`] also
//! containerd, a kubelet, kube-proxy and CoreDNS, so that pods run as real containers under runc, reach Services by
//! address and name, and the API server at its cluster address. The programs are built from the Go modules in
//! `e2e/tools` by xtask, once ([`tools`]). Without a node no rights are needed; a node needs root.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let cluster = e2e::Cluster::start(e2e::ClusterOptions::default())?;
//! let version = cluster.kubectl_json(["version"])?;
//! println!("{} at {}", version["serverVersion"]["gitVersion"], cluster.kubeconfig().display());
//! # Ok(())
//! # }
//! ```
//!
//! A cluster with a node has a network and a mount namespace of its own: Services, pod addresses, firewall rules,
//! mounts, and what is written below /var and /run are nobody else's, two clusters do not meet, and all of it vanishes
//! with the last process. Processes are *not* in a namespace of their own: a sensor on the node must see the ids that
//! the kernel reports. Whoever starts a cluster is watched, so that nothing stays when it dies ([`reaper`]).
//!
//! This library starts programs and waits for them. What is tested with them is the tests' business.

pub mod image;
pub mod install;
pub mod reaper;
pub mod tools;

mod audit;
mod capability;
mod cluster;
mod component;
mod kubectl;
mod layout;
mod log;
mod namespace;
mod node;
mod wait;

pub use audit::AuditWebhook;
pub use capability::capabilities_here;
pub use cluster::{Cluster, ClusterOptions};
pub use component::Component;
pub use kubectl::Output;
pub use namespace::Namespace;
pub use tools::Tools;
pub use wait::{interrupted, try_wait_for, wait_for};
