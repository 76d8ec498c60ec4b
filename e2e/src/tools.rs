//! The programs that a cluster consists of: which there are, from which Go module each is built, and where they are.
//!
//! Building them is xtask's work (`cargo xtask e2e --prepare`); it puts them into a folder of the user's cache whose
//! name has the key of what they are built from, so that other versions are other folders and nothing is built twice.

use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Names a folder with the programs, instead of the cache.
pub const FOLDER_VAR: &str = "GYRFALCON_E2E_TOOLS";
/// What to do when programs are missing.
pub const REMEDY: &str = "cargo xtask e2e --prepare (builds them once, about 5 minutes on two cores; needs Go)";

/// A Go module in `e2e/tools`. Programs that agree on the versions of their libraries share one, and what is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Module {
    /// Kubernetes, etcd, CoreDNS, the CNI plugins, Helm.
    Kubernetes,
    /// containerd: it wants a newer CRI API than the kubelet.
    Containerd,
}

impl Module {
    /// Its folder in `e2e/tools`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Containerd => "containerd",
        }
    }

    /// What decides what is built: versions, and Go code of ours.
    fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Kubernetes => &[
                include_str!("../tools/kubernetes/go.mod"),
                include_str!("../tools/kubernetes/go.sum"),
                include_str!("../tools/kubernetes/coredns/main.go"),
            ],
            Self::Containerd => {
                &[include_str!("../tools/containerd/go.mod"), include_str!("../tools/containerd/go.sum")]
            }
        }
    }
}

/// A program that xtask builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Program {
    /// The name of the file.
    pub name: &'static str,
    /// What it is built from.
    pub module: Module,
    /// The package of its `main`.
    pub package: &'static str,
    /// Parts of it that are left out, as build tags.
    pub tags: &'static str,
    /// What it is for.
    pub part: Part,
}

/// For what a program is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Every cluster.
    ControlPlane,
    /// A cluster with a node.
    Node,
    /// For people and tests; one on PATH does as well.
    Client,
}

/// The parts of gRPC that trace requests keep the linker from dropping unused methods.
const KUBERNETES: &str = "grpcnotrace";
/// Drivers of file systems that need C headers, or that nobody mounts here.
const CONTAINERD: &str = "grpcnotrace,no_btrfs,no_devmapper,no_zfs";

/// What the compiler does to every program. Nothing is inlined and nothing described for debuggers: that is a third of the compiler's
/// work, and these programs wait most of their time.
pub const COMPILER_FLAGS: &str = "-l -dwarf=false";

/// In the order in which they are built: what most others share comes first, so that progress is steady.
#[rustfmt::skip]
pub const PROGRAMS: &[Program] = &[
    program("etcd", Module::Kubernetes, "go.etcd.io/etcd/server/v3", Part::ControlPlane),
    program("kube-apiserver", Module::Kubernetes, "k8s.io/kubernetes/cmd/kube-apiserver", Part::ControlPlane),
    program("kube-controller-manager", Module::Kubernetes, "k8s.io/kubernetes/cmd/kube-controller-manager", Part::ControlPlane),
    program("kube-scheduler", Module::Kubernetes, "k8s.io/kubernetes/cmd/kube-scheduler", Part::ControlPlane),
    program("kubectl", Module::Kubernetes, "k8s.io/kubernetes/cmd/kubectl", Part::Client),
    program("kubelet", Module::Kubernetes, "k8s.io/kubernetes/cmd/kubelet", Part::Node),
    program("kube-proxy", Module::Kubernetes, "k8s.io/kubernetes/cmd/kube-proxy", Part::Node),
    program("coredns", Module::Kubernetes, "./coredns", Part::Node),
    program("ptp", Module::Kubernetes, "github.com/containernetworking/plugins/plugins/main/ptp", Part::Node),
    program("loopback", Module::Kubernetes, "github.com/containernetworking/plugins/plugins/main/loopback", Part::Node),
    program("host-local", Module::Kubernetes, "github.com/containernetworking/plugins/plugins/ipam/host-local", Part::Node),
    program("helm", Module::Kubernetes, "helm.sh/helm/v3/cmd/helm", Part::Client),
    program("containerd", Module::Containerd, "github.com/containerd/containerd/v2/cmd/containerd", Part::Node),
    program("containerd-shim-runc-v2", Module::Containerd, "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", Part::Node),
    program("ctr", Module::Containerd, "github.com/containerd/containerd/v2/cmd/ctr", Part::Node),
];

/// Programs of the system that a node needs, with the Debian packages they are in.
pub const SYSTEM: [(&str, &str); 4] =
    [("runc", "runc"), ("busybox", "busybox-static"), ("nft", "nftables"), ("ip", "iproute2")];

const fn program(name: &'static str, module: Module, package: &'static str, part: Part) -> Program {
    let tags = match module {
        Module::Kubernetes => KUBERNETES,
        Module::Containerd => CONTAINERD,
    };
    Program { name, module, package, tags, part }
}

/// The folder in which the programs are.
#[derive(Debug, Clone)]
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// The programs in a folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where they are meant to be: in the folder that [`FOLDER_VAR`] names, or in the cache.
    pub fn locate() -> Result<Self> {
        if let Some(folder) = env::var_os(FOLDER_VAR).filter(|folder| !folder.is_empty()) {
            return Ok(Self::at(folder));
        }
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set to an absolute path; set HOME")?;
        Ok(Self::in_cache(&cache.join("gyrfalcon")))
    }

    /// Where they are meant to be below our folder of the cache.
    pub fn in_cache(ours: &Path) -> Self {
        Self::at(ours.join(format!("k8s-{}", key())).join("bin"))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program of ours, or else one of the system.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let ours = self.folder.join(name);
        let found = ours.is_file().then_some(ours).or_else(|| on_path(name));
        found.with_context(|| format!("there is no {name}\n  remedy: {REMEDY}"))
    }

    /// Why a cluster cannot be started here, if it cannot.
    pub fn missing(&self, node: bool) -> Option<String> {
        let needed = |program: &&Program| match program.part {
            Part::ControlPlane => true,
            Part::Node => node,
            Part::Client => program.name == "kubectl",
        };
        let there = |name: &str, client: bool| self.folder.join(name).is_file() || client && on_path(name).is_some();
        let ours = PROGRAMS.iter().filter(needed).filter(|p| !there(p.name, p.part == Part::Client)).map(|p| p.name);
        let system = SYSTEM.iter().filter(|(name, _)| node && on_path(name).is_none()).map(|(name, _)| *name);
        let missing: Vec<&str> = ours.chain(system).collect();
        if !missing.is_empty() {
            return Some(format!("not installed: {} (remedy: {REMEDY})", missing.join(", ")));
        }
        (node && !nix::unistd::geteuid().is_root()).then(|| "a node needs root".to_owned())
    }

    /// Fails when a cluster cannot be started here.
    pub fn check(&self, node: bool) -> Result<()> {
        self.missing(node).map_or(Ok(()), |reason| bail!("{reason}"))
    }
}

/// What the linker does to every program: leaves out what debuggers need, and writes the version of Kubernetes into those
/// that ask for it. Built outside of its own repository it does not know it, and Helm refuses charts for a cluster of
/// no version.
pub fn linker_flags() -> String {
    let version = kubernetes_version();
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let helm = "helm.sh/helm/v3/pkg/chartutil";
    format!(
        "-s -w -X k8s.io/component-base/version.gitVersion=v{version} \
         -X {helm}.k8sVersionMajor={major} -X {helm}.k8sVersionMinor={minor}"
    )
}

/// The version that `tools/kubernetes/go.mod` names, without the `v`.
fn kubernetes_version() -> &'static str {
    let module = include_str!("../tools/kubernetes/go.mod");
    let required = |line: &'static str| line.trim().strip_prefix("k8s.io/kubernetes v");
    module.lines().find_map(required).unwrap_or_default()
}

/// A word that changes with what the programs are built from, and how.
fn key() -> String {
    let mut hasher = DefaultHasher::new();
    (PROGRAMS, COMPILER_FLAGS).hash(&mut hasher);
    linker_flags().hash(&mut hasher);
    [Module::Kubernetes, Module::Containerd].iter().for_each(|module| module.sources().hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

/// The full path of a program; root's PATH has the folders for administrators, others' may not.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(admin).map(|folder| folder.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_named_once() {
        let mut names: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_is_missing_comes_with_a_remedy() {
        let missing = Tools::at("/no/such/folder").missing(false).unwrap_or_default();
        assert!(missing.contains("kube-apiserver") && missing.contains("--prepare"), "{missing}");
        assert!(!missing.contains("containerd"), "{missing}");
    }

    #[test]
    fn programs_know_the_version_of_kubernetes() {
        let flags = linker_flags();
        assert!(flags.contains("gitVersion=v1.") && flags.contains("k8sVersionMajor=1 "), "{flags}");
    }
}
