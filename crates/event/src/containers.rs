//! Which container a cgroup belongs to: read from the path of the cgroup, remembered by the cgroup's id.
//!
//! Ids of cgroups are not reused while the host runs, so an old entry is never wrong, only superfluous. What no process
//! is in any more is forgotten; besides, the map is bounded by forgetting the half that was not asked for lately.

mod cluster;
mod facts;

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

pub(crate) use self::{cluster::Cluster, facts::glob};
pub use self::{
    cluster::{ClusterChange, Labels, Namespace, Owner, Pod},
    facts::{ContainerFacts, Mount, PodFacts},
};

/// What Falco shows as `container.id` of a process in no container.
pub const HOST: &str = "host";

/// How much of a container's id is shown. Falco: 12 characters.
const SHOWN: usize = 12;

/// Hexadecimal digits of an id that a runtime made.
const FULL: usize = 64;

/// A container, as far as the cgroup tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Container {
    full_id: Box<str>,
    in_pod: bool,
}

impl Container {
    /// The id as Falco shows it: the first 12 characters.
    pub fn id(&self) -> &str {
        shown(&self.full_id)
    }

    /// The id as the runtime knows it.
    pub fn full_id(&self) -> &str {
        &self.full_id
    }

    /// Whether its cgroup lies where the kubelet makes those of pods.
    pub fn in_pod(&self) -> bool {
        self.in_pod
    }
}

/// An id as Falco shows it.
pub(crate) fn shown(id: &str) -> &str {
    id.get(..SHOWN).unwrap_or(id)
}

/// What is known about the container of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Membership {
    /// Nobody has said what the cgroup is.
    #[default]
    Unknown,
    /// In no container.
    Host,
    /// In this one.
    Container(Arc<Container>),
}

/// Nothing, to be borrowed.
pub(crate) static UNKNOWN: Membership = Membership::Unknown;

/// Where an event happened: what decides whether a rule with a scope may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Whereabouts<'a> {
    /// Nobody has said: no rule with a scope sees it.
    #[default]
    Unknown,
    /// In no container.
    Host,
    /// In a container.
    Container {
        /// What the runtime said about it; `None` when it has not.
        facts: Option<&'a ContainerFacts>,
        /// Labels of its pod; none when it is in no known one.
        pod_labels: &'a [(Box<str>, Box<str>)],
        /// Labels of its pod's namespace; `None` when nobody has said.
        namespace_labels: Option<&'a [(Box<str>, Box<str>)]>,
    },
    /// At an object of the Kubernetes API, as the audit log tells.
    Object {
        /// The object's namespace; empty for objects without one.
        namespace: &'a str,
        /// Labels of that namespace; `None` when nobody has said.
        namespace_labels: Option<&'a [(Box<str>, Box<str>)]>,
    },
}

/// The container that a cgroup path names, given its components leaf first. Nested cgroups that a container makes for
/// itself belong to it.
///
/// Recognised, as by Falco: a component that is 64 hexadecimal digits, alone (cgroupfs) or behind a runtime's prefix and
/// in front of `.scope` (systemd); LXC; and `/NAMESPACE/NAME`, as `ctr` of containerd makes it. For the last, Falco also
/// takes deeper paths and names below slices; those are services of the host and stay so here.
pub fn of_path<'a>(leaf_first: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Container> {
    let in_pod = || leaf_first.clone().any(|component| component.starts_with(b"kubepods"));
    let named = |id: &str| Some(Container { full_id: id.into(), in_pod: in_pod() });
    for (depth, component) in leaf_first.clone().enumerate() {
        let Ok(component) = std::str::from_utf8(component) else { continue };
        if let Some(id) = full_id(component) {
            return named(id);
        }
        if let Some(name) = component.strip_prefix("lxc.payload.") {
            return named(name);
        }
        if matches!(component, "lxc" | "lxc.payload")
            && let Some(below) = depth.checked_sub(1).and_then(|n| leaf_first.clone().nth(n))
        {
            return named(std::str::from_utf8(below).ok()?);
        }
    }
    let mut names = leaf_first.clone();
    let (name, namespace) = (names.next()?, names.next()?);
    let (name, namespace) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(namespace).ok()?);
    let plain = names.next().is_none() && is_namespace(namespace) && !is_unit(namespace) && !is_unit(name);
    (plain && (1..=FULL).contains(&name.len())).then(|| named(name))?
}

/// The 64 digits in a component such as `cri-containerd-<id>.scope`.
fn full_id(component: &str) -> Option<&str> {
    // The first that fits is taken: longer ones first.
    const PREFIXES: [&str; 7] =
        ["docker-", "cri-containerd-", "crio-", "libpod-payload-", "libpod-", "nerdctl-", "containerd-"];
    let scope = component.strip_suffix(".scope").unwrap_or(component);
    let id = PREFIXES
        .iter()
        .find_map(|prefix| scope.strip_prefix(prefix))
        // cgroupfs names of containerd's CRI under a systemd slice: `kubepods-….slice:cri-containerd:<id>`.
        .or_else(|| scope.rsplit_once(":cri-containerd:").map(|(_, id)| id))
        .unwrap_or(component);
    (id.len() == FULL && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

/// `[A-Za-z0-9]+([._-][A-Za-z0-9]+)*`, the form of containerd's namespaces.
fn is_namespace(name: &str) -> bool {
    name.split(['.', '_', '-']).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Whether systemd made it.
fn is_unit(name: &str) -> bool {
    [".service", ".slice", ".scope"].iter().any(|suffix| name.ends_with(suffix))
}

/// The map from cgroup ids to containers.
#[derive(Debug)]
pub struct Containers {
    /// Entries of one half: the map holds at most twice as many.
    half: usize,
    recent: HashMap<u64, Membership>,
    old: HashMap<u64, Membership>,
    /// Cgroups that nobody was in at the last look, see [`Containers::keep`].
    idle: HashSet<u64>,
    /// What the runtime said, by full id.
    facts: HashMap<Box<str>, Arc<ContainerFacts>>,
}

impl Containers {
    /// An empty map of at most `limit` cgroups.
    pub fn new(limit: usize) -> Self {
        Self {
            half: (limit / 2).max(1),
            recent: HashMap::new(),
            old: HashMap::new(),
            idle: HashSet::new(),
            facts: HashMap::new(),
        }
    }

    /// What is known about a cgroup.
    pub fn get(&self, cgroup: u64) -> Option<&Membership> {
        self.recent.get(&cgroup).or_else(|| self.old.get(&cgroup))
    }

    /// As [`Containers::get`], and the entry counts as used. The second value: the entry pushed others out.
    pub(crate) fn touch(&mut self, cgroup: u64) -> (Option<Membership>, bool) {
        if let Some(found) = self.recent.get(&cgroup) {
            return (Some(found.clone()), false);
        }
        match self.old.remove(&cgroup) {
            Some(found) => {
                let dropped = self.insert(cgroup, found.clone());
                (Some(found), dropped)
            }
            None => (None, false),
        }
    }

    /// Says what a cgroup is. `true` when others had to be forgotten.
    pub(crate) fn insert(&mut self, cgroup: u64, membership: Membership) -> bool {
        self.old.remove(&cgroup);
        let mut dropped = false;
        if self.recent.len() >= self.half && !self.recent.contains_key(&cgroup) {
            dropped = !self.old.is_empty();
            self.old = std::mem::take(&mut self.recent);
        }
        self.recent.insert(cgroup, membership);
        dropped
    }

    /// Learns a cgroup from its path, unless it is known. `true` when others had to be forgotten.
    pub(crate) fn learn<'a>(&mut self, cgroup: u64, leaf_first: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
        match self.get(cgroup) {
            Some(Membership::Host | Membership::Container(_)) => false,
            None | Some(Membership::Unknown) => {
                let membership = of_path(leaf_first).map_or(Membership::Host, |c| self.share(c));
                self.insert(cgroup, membership)
            }
        }
    }

    /// Forgets the cgroups that nobody is in, now as at the last look. One that was learned since then stays: its process
    /// may not be in the table yet. If it is met again, it is learned again.
    pub(crate) fn keep(&mut self, inhabited: &HashSet<u64>) {
        let Self { recent, old, idle, .. } = self;
        for half in [&mut *recent, &mut *old] {
            half.retain(|cgroup, _| inhabited.contains(cgroup) || !idle.contains(cgroup));
        }
        idle.clear();
        idle.extend(recent.keys().chain(old.keys()).filter(|cgroup| !inhabited.contains(*cgroup)));
    }

    /// One allocation per container: nested cgroups share it.
    fn share(&self, container: Container) -> Membership {
        let known = self.recent.values().find(|m| matches!(m, Membership::Container(c) if **c == container));
        known.cloned().unwrap_or_else(|| Membership::Container(Arc::new(container)))
    }

    /// What the runtime said about a container.
    pub fn facts(&self, container: &Container) -> Option<&ContainerFacts> {
        self.facts.get(container.full_id()).map(|facts| &**facts)
    }

    /// Sets what the runtime says. `false` when there are too many containers.
    pub(crate) fn set_facts(&mut self, full_id: &str, facts: ContainerFacts) -> bool {
        if self.facts.len() >= self.half && !self.facts.contains_key(full_id) {
            return false;
        }
        self.facts.insert(full_id.into(), Arc::new(facts));
        true
    }

    /// Forgets a container that is gone.
    pub(crate) fn forget_facts(&mut self, full_id: &str) {
        self.facts.remove(full_id);
    }

    /// Number of containers with facts.
    pub(crate) fn facts_len(&self) -> usize {
        self.facts.len()
    }

    /// Number of cgroups in the map.
    pub fn len(&self) -> usize {
        self.recent.len() + self.old.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3fe8ff7f1b1a3a4b1ab4f1ab4f1ab4f1ab4f1ab4f1ab4f1ab4f1ab4f1ab4f1ab";

    #[track_caller]
    fn check(path: &str, want: Option<&str>) {
        let path = path.replace("ID", ID);
        let names: Vec<_> = path.rsplit('/').filter(|n| !n.is_empty()).map(str::as_bytes).collect();
        assert_eq!(of_path(names.into_iter()).as_ref().map(Container::id), want, "{path}");
    }

    #[test]
    fn runtimes_are_recognised() {
        let id = Some(&ID[..12]);
        check("/docker/ID", id);
        check("/system.slice/docker-ID.scope", id);
        check("/kubepods/besteffort/pod6d0e/ID", id);
        check("/kubepods.slice/kubepods-pod6d0e.slice/cri-containerd-ID.scope", id);
        check("/kubepods.slice/kubepods-pod6d0e.slice/crio-ID.scope", id);
        check("/kubepods/burstable/pod6d0e/crio-ID", id);
        check("/system.slice/containerd.service/kubepods-pod6d0e.slice:cri-containerd:ID", id);
        check("/machine.slice/libpod-ID.scope/container", id);
        check("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", id);
        check("/docker/ID/system.slice/sshd.service", id);
        check("/ID", id);
        check("/lxc/web/init.scope", Some("web"));
        check("/lxc.payload.web/system.slice/cron.service", Some("web"));
        check("/default/my-nginx-container", Some("my-nginx-con"));
    }

    /// Paths as runtimes make them, with either driver of cgroups, in the hierarchies of v1, v2 and hybrid hosts.
    #[test]
    fn layouts_of_runtimes_drivers_and_versions() {
        let id = Some(&ID[..12]);
        for path in [
            // Docker: cgroupfs (v1), systemd (v2), rootless, in Docker, with a parent of its own.
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            "/docker/0000000000000000000000000000000000000000000000000000000000000000/docker/ID",
            "/teams.slice/teams-red.slice/docker-ID.scope/init.scope",
            // Podman: cgroupfs, systemd, rootless, split, in a pod, and its payload below the container's own group.
            "/libpod_parent/libpod-ID",
            "/machine.slice/libpod-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_0.slice/libpod-ID.scope/container",
            "/system.slice/web.service/libpod-payload-ID",
            // containerd under the kubelet: each class of pods, each driver, and a kubelet with a root of its own.
            "/kubepods/podb2e0a6c1/ID",
            "/kubepods/besteffort/podb2e0a6c1/ID",
            "/kubepods.slice/kubepods-podb2e0a6c1.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podb2e0a6c1.slice/cri-containerd-ID.scope",
            "/kubelet/kubepods/burstable/podb2e0a6c1/ID",
            "/system.slice/containerd.service/kubepods-burstable-podb2e0a6c1.slice:cri-containerd:ID",
            // CRI-O: each driver.
            "/kubepods/burstable/podb2e0a6c1/crio-ID",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podb2e0a6c1.slice/crio-ID.scope",
            "/kubepods.slice/kubepods-podb2e0a6c1.slice/crio-ID.scope/container",
            // kind and other nodes that are containers: the inner one counts.
            "/docker/0000000000000000000000000000000000000000000000000000000000000000/kubelet/kubepods/podb2e0a6c1/ID",
            // nerdctl and ctr.
            "/system.slice/nerdctl-ID.scope",
            "/default/ID",
            "/k8s.io/ID",
        ] {
            check(path, id);
        }
    }

    #[test]
    fn containers_of_pods_are_told_apart() {
        let in_pod = |path: &str| {
            let path = path.replace("ID", ID);
            let names: Vec<_> = path.rsplit('/').filter(|n| !n.is_empty()).map(str::as_bytes).collect();
            of_path(names.into_iter()).map(|container| container.in_pod())
        };
        assert_eq!(in_pod("/kubepods/burstable/pod6d0e/ID"), Some(true));
        assert_eq!(
            in_pod("/kubelet.slice/kubepods-burstable.slice/kubepods-pod6d0e.slice/cri-containerd-ID.scope"),
            Some(true)
        );
        assert_eq!(in_pod("/system.slice/containerd.service/kubepods-pod6d0e.slice:cri-containerd:ID"), Some(true));
        assert_eq!(in_pod("/docker/ID"), Some(false));
    }

    #[test]
    fn the_host_is_the_host() {
        for path in [
            "/",
            "/init.scope",
            "/plain-runc-name",
            "/system.slice/sshd.service",
            "/system.slice/foo",
            "/user.slice/user-0.slice/session-1.scope",
            "/user.slice/user-0.slice/session-1.scope/name",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/kubepods/besteffort/pod6d0e",
            "/a/b/c",
        ] {
            check(path, None);
        }
    }

    #[test]
    fn the_map_stays_bounded_and_keeps_what_is_used() {
        let mut map = Containers::new(100);
        map.learn(1, [ID.as_bytes()].into_iter());
        for cgroup in 2..1000 {
            map.insert(cgroup, Membership::Host);
            assert!(map.len() <= 100);
            assert!(matches!(map.touch(1).0, Some(Membership::Container(_))));
        }
        assert!(map.get(2).is_none());
    }

    #[test]
    fn a_cgroup_is_forgotten_at_the_second_look_that_finds_nobody_in_it() {
        let mut map = Containers::new(100);
        for cgroup in 1..=3 {
            map.insert(cgroup, Membership::Host);
        }
        let inhabited = |cgroups: &[u64]| cgroups.iter().copied().collect();
        map.keep(&inhabited(&[1, 2]));
        assert_eq!(map.len(), 3, "3 may be of a process that is not in the table yet");
        map.insert(4, Membership::Host);
        map.keep(&inhabited(&[1, 3]));
        assert_eq!(map.len(), 4, "3 has somebody in it now; 2 was left, and 4 is new");
        map.keep(&inhabited(&[1]));
        let left: Vec<_> = (1..=4).filter(|cgroup| map.get(*cgroup).is_some()).collect();
        assert_eq!(left, [1, 3]);
    }
}
