//! Where a cluster has its files, and under which addresses its programs meet.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// All folders of clusters are named so, with the cluster's id behind it.
pub const PREFIX: &str = "gyrfalcon-e2e-";
/// The variable that marks every process of a cluster, and what it starts, with the cluster's id.
pub const MARK: &str = "GYRFALCON_E2E_CLUSTER";
/// The only node.
pub const NODE: &str = "node-1";
/// Addresses of Services. Only the cluster's own network namespace knows them.
pub const SERVICES: &str = "10.96.0.0/16";
/// Addresses of pods.
pub const PODS: &str = "10.244.0.0/16";
/// The domain that CoreDNS answers for.
pub const DOMAIN: &str = "cluster.local";

/// The files and addresses of one cluster.
#[derive(Debug)]
pub struct Layout {
    /// The cluster's own folder.
    pub dir: PathBuf,
    /// What tells this cluster from others.
    pub id: String,
    /// The link to the node's network namespace; without a node, everything is on loopback.
    pub link: Option<Link>,
    /// Where etcd serves clients.
    pub etcd_port: u16,
    /// Where etcd would serve other etcds.
    pub etcd_peer_port: u16,
    /// Where the API server serves.
    pub api_port: u16,
}

/// A pair of network interfaces between this process's network namespace and the node's: `198.18.N.1` and
/// `198.18.N.2`, from the addresses that are reserved for benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link(pub u8);

impl Link {
    /// The interface on our side.
    pub fn interface(self) -> String {
        format!("gyrf-e2e-{}", self.0)
    }

    /// Our address.
    pub fn host(self) -> String {
        format!("198.18.{}.1", self.0)
    }

    /// The node's address.
    pub fn node(self) -> String {
        format!("198.18.{}.2", self.0)
    }
}

impl Layout {
    /// Makes the folder. The link, if there is to be one, comes later.
    pub fn create(parent: &Path, node: bool) -> Result<Self> {
        let id = random_id()?;
        let dir = parent.join(format!("{PREFIX}{id}"));
        fs::create_dir_all(dir.join("logs")).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
        // In a network namespace of its own, a program can have any port.
        let [etcd_port, etcd_peer_port, api_port] = if node { [2379, 2380, 6443] } else { free_ports()? };
        Ok(Self { dir, id, link: None, etcd_port, etcd_peer_port, api_port })
    }

    /// A file in the cluster's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The log of a program.
    pub fn log(&self, program: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{program}.log"))
    }

    /// The address under which the cluster's programs and pods reach this process.
    pub fn host_address(&self) -> String {
        self.link.map_or_else(|| "127.0.0.1".to_owned(), Link::host)
    }

    /// The address of the control plane, and of the node.
    pub fn node_address(&self) -> String {
        self.link.map_or_else(|| "127.0.0.1".to_owned(), Link::node)
    }

    /// Where the API server is.
    pub fn server(&self) -> String {
        format!("https://{}:{}", self.node_address(), self.api_port)
    }

    /// The cgroup of all pods, in every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }
}

fn random_id() -> Result<String> {
    Ok(random_bytes::<4>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Bytes that nobody can guess.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut random = fs::File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    random.read_exact(&mut bytes).context("cannot read /dev/urandom")?;
    Ok(bytes)
}

/// Ports that nobody listens on. All are held until all are chosen, so they differ.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let held: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()
        .context("cannot find a free port on loopback")?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr().context("cannot ask for a port's number")?.port();
    }
    Ok(ports)
}
