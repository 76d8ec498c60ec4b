//! Where container runtimes listen.

use std::path::{Path, PathBuf};

/// Where they listen by default, below the host's root: containerd, CRI-O, k3s and RKE2, k0s, MicroK8s, Docker through
/// cri-dockerd, Docker and Podman themselves.
const WELL_KNOWN: [&str; 8] = [
    "run/containerd/containerd.sock",
    "run/crio/crio.sock",
    "run/k3s/containerd/containerd.sock",
    "run/k0s/containerd.sock",
    "var/snap/microk8s/common/run/containerd.sock",
    "run/cri-dockerd.sock",
    "run/docker.sock",
    "run/podman/podman.sock",
];

/// One socket to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its path as this process sees it.
    pub path: PathBuf,
    /// The user named it: it is an error when nobody listens.
    pub named: bool,
}

impl Socket {
    /// Whether Docker's API is spoken there, and not CRI: by the name, which is the same everywhere.
    pub fn speaks_docker(&self) -> bool {
        self.path.file_name().is_some_and(|name| name == "docker.sock" || name == "podman.sock")
    }
}

/// The sockets that the user named, or else the well-known ones below the host's root, whether they exist or not.
pub fn sockets(named: &[PathBuf], host_root: &Path) -> Vec<Socket> {
    if named.is_empty() {
        return WELL_KNOWN.iter().map(|path| Socket { path: host_root.join(path), named: false }).collect();
    }
    named.iter().map(|path| Socket { path: path.clone(), named: true }).collect()
}

/// Reads `unix:///run/containerd/containerd.sock`, or the path alone.
pub fn parse(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if path.starts_with('/') {
        Ok(path.into())
    } else {
        Err("expected unix:///PATH, for example unix:///run/containerd/containerd.sock".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_named_as_everywhere_in_kubernetes() {
        assert_eq!(parse("unix:///run/crio/crio.sock"), Ok("/run/crio/crio.sock".into()));
        assert_eq!(parse("/run/crio/crio.sock"), Ok("/run/crio/crio.sock".into()));
        assert!(parse("tcp://127.0.0.1:80").is_err());
        assert!(parse("unix://run/crio.sock").is_err());
    }

    #[test]
    fn dockers_api_is_known_by_the_name_of_the_socket() {
        let speaks = |path: &str| Socket { path: path.into(), named: true }.speaks_docker();
        assert!(speaks("/run/docker.sock") && speaks("/run/user/1000/podman/podman.sock"));
        assert!(!speaks("/run/cri-dockerd.sock") && !speaks("/run/containerd/containerd.sock"));
    }

    #[test]
    fn well_known_sockets_lie_below_the_root_of_the_host() {
        let found = sockets(&[], Path::new("/host"));
        assert!(found.iter().all(|socket| socket.path.starts_with("/host") && !socket.named));
        let named = sockets(&["/a.sock".into()], Path::new("/host"));
        assert_eq!(named, [Socket { path: "/a.sock".into(), named: true }]);
    }
}
