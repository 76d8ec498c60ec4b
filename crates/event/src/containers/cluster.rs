//! What the cluster says about pods and namespaces, beyond what the container runtime knows: the owners of a pod, labels of
//! its namespace, the real uid of a static pod. Plain data, brought by the sensor from the operator.

use std::sync::Arc;

use hashbrown::HashMap;

use super::PodFacts;

/// Most bytes of pods and namespaces together: more than 8,000 namespaces and 1,000 pods with labels of usual length.
const BYTES: usize = 16 << 20;

/// What an entry costs beyond its texts, and a text beyond its bytes, in bytes, roughly.
const ENTRY: usize = 256;
const TEXT: usize = 24;

/// A name and its value, as labels have them.
pub type Labels = Vec<(Box<str>, Box<str>)>;

/// A pod as the API server has it. Text that is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Uid of the object.
    pub uid: Box<str>,
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// Labels.
    pub labels: Labels,
    /// Who owns it, and who owns those: the controller first.
    pub owners: Vec<Owner>,
    /// Of a static pod: what the container runtime takes for the pod's uid.
    pub config_hash: Box<str>,
    /// Its address.
    pub ip: Box<str>,
}

impl Pod {
    fn bytes(&self) -> usize {
        let texts = [&self.uid, &self.namespace, &self.name, &self.config_hash, &self.ip];
        let owners = self.owners.iter().flat_map(|owner| [&owner.kind, &owner.name]);
        texts.into_iter().chain(owners).map(text).sum::<usize>() + labels(&self.labels) + ENTRY
    }
}

impl Namespace {
    fn bytes(&self) -> usize {
        text(&self.name) + labels(&self.labels) + ENTRY
    }
}

#[expect(clippy::borrowed_box, reason = "it is mapped over boxes")]
fn text(text: &Box<str>) -> usize {
    text.len() + TEXT
}

fn labels(labels: &Labels) -> usize {
    labels.iter().map(|(name, value)| text(name) + text(value)).sum()
}

/// An owner of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// Kind, for example `ReplicaSet`.
    pub kind: Box<str>,
    /// Name.
    pub name: Box<str>,
}

impl Pod {
    /// The name of its owner of a kind.
    pub fn owner(&self, kind: &str) -> Option<&str> {
        self.owners.iter().find(|owner| &*owner.kind == kind).map(|owner| &*owner.name)
    }
}

/// A namespace as the API server has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: Box<str>,
    /// Labels.
    pub labels: Labels,
}

/// What changed among the pods of this node and the namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterChange {
    /// This is all there is: what is not named here is forgotten.
    pub complete: bool,
    /// Pods that are new or different.
    pub pods: Vec<Pod>,
    /// Uids of pods that are gone.
    pub pods_gone: Vec<Box<str>>,
    /// Namespaces that are new or different.
    pub namespaces: Vec<Namespace>,
    /// Names of namespaces that are gone.
    pub namespaces_gone: Vec<Box<str>>,
}

/// The pods of this node and the namespaces.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Most pods, and most namespaces.
    limit: usize,
    /// Most bytes of all of them, and how many there are.
    limit_bytes: usize,
    bytes: usize,
    pods: HashMap<Box<str>, Arc<Pod>>,
    /// Static pods by what the runtime takes for their uid.
    by_hash: HashMap<Box<str>, Arc<Pod>>,
    namespaces: HashMap<Box<str>, Namespace>,
}

impl Cluster {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            limit_bytes: BYTES,
            bytes: 0,
            pods: HashMap::new(),
            by_hash: HashMap::new(),
            namespaces: HashMap::new(),
        }
    }

    /// Takes over a change; how many pods and namespaces found no room.
    pub fn change(&mut self, change: ClusterChange) -> usize {
        if change.complete {
            self.pods.clear();
            self.by_hash.clear();
            self.namespaces.clear();
            self.bytes = 0;
        }
        for uid in &change.pods_gone {
            self.forget(uid);
        }
        for name in &change.namespaces_gone {
            self.forget_namespace(name);
        }
        let mut left = 0;
        for pod in change.pods {
            self.forget(&pod.uid);
            let bytes = pod.bytes();
            if self.pods.len() >= self.limit || self.bytes + bytes > self.limit_bytes {
                left += 1;
                continue;
            }
            self.bytes += bytes;
            let pod = Arc::new(pod);
            if !pod.config_hash.is_empty() {
                self.by_hash.insert(pod.config_hash.clone(), Arc::clone(&pod));
            }
            self.pods.insert(pod.uid.clone(), pod);
        }
        for namespace in change.namespaces {
            self.forget_namespace(&namespace.name);
            let bytes = namespace.bytes();
            if self.namespaces.len() >= self.limit || self.bytes + bytes > self.limit_bytes {
                left += 1;
                continue;
            }
            self.bytes += bytes;
            self.namespaces.insert(namespace.name.clone(), namespace);
        }
        left
    }

    /// All that is known, as one change.
    pub fn all(&self) -> ClusterChange {
        ClusterChange {
            complete: true,
            pods: self.pods.values().map(|pod| Pod::clone(pod)).collect(),
            namespaces: self.namespaces.values().cloned().collect(),
            ..ClusterChange::default()
        }
    }

    fn forget(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.bytes -= pod.bytes();
        // A static pod that was replaced may have the same hash: only its own entry goes.
        if self.by_hash.get(&pod.config_hash).is_some_and(|other| other.uid == pod.uid) {
            self.by_hash.remove(&pod.config_hash);
        }
    }

    fn forget_namespace(&mut self, name: &str) {
        if let Some(namespace) = self.namespaces.remove(name) {
            self.bytes -= namespace.bytes();
        }
    }

    /// The pod that the runtime speaks of.
    pub fn pod(&self, facts: &PodFacts) -> Option<&Pod> {
        self.pods.get(&facts.uid).or_else(|| self.by_hash.get(&facts.uid)).map(|pod| &**pod)
    }

    /// A namespace by its name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, hash: &str) -> Pod {
        Pod { uid: uid.into(), config_hash: hash.into(), ..Pod::default() }
    }

    fn facts(uid: &str) -> PodFacts {
        PodFacts { uid: uid.into(), ..PodFacts::default() }
    }

    #[test]
    fn static_pods_are_found_by_what_the_runtime_calls_their_uid() {
        let mut cluster = Cluster::new(10);
        cluster.change(ClusterChange { pods: vec![pod("a", ""), pod("b", "hash")], ..ClusterChange::default() });
        assert_eq!(cluster.pod(&facts("hash")).map(|pod| &*pod.uid), Some("b"));
        assert_eq!(cluster.pod(&facts("a")).map(|pod| &*pod.uid), Some("a"));
        // The mirror pod was made anew before the old one was reported gone.
        cluster.change(ClusterChange { pods: vec![pod("c", "hash")], ..ClusterChange::default() });
        cluster.change(ClusterChange { pods_gone: vec!["b".into()], ..ClusterChange::default() });
        assert_eq!(cluster.pod(&facts("hash")).map(|pod| &*pod.uid), Some("c"));
    }

    #[test]
    fn what_is_known_can_be_told_another() {
        let (mut one, mut other) = (Cluster::new(10), Cluster::new(10));
        let namespaces = vec![Namespace { name: "shop".into(), labels: vec![("team".into(), "a".into())] }];
        one.change(ClusterChange { pods: vec![pod("a", "hash")], namespaces, ..ClusterChange::default() });
        other.change(ClusterChange { pods: vec![pod("b", "")], ..ClusterChange::default() });
        other.change(one.all());
        assert_eq!(other.all(), one.all());
        assert_eq!(other.pod(&facts("hash")).map(|pod| &*pod.uid), Some("a"));
        assert_eq!(other.pod(&facts("b")), None);
    }

    #[test]
    fn texts_of_any_length_take_no_more_room_than_there_is() {
        let mut cluster = Cluster { limit_bytes: 10_000, ..Cluster::new(100) };
        let labels = vec![("name".into(), "x".repeat(1000).into())];
        let named = |name: String| Pod { labels: labels.clone(), ..pod(&name, "") };
        for round in 0..5 {
            let pods = (0..20).map(|number| named(format!("{round}-{number}"))).collect();
            let namespaces =
                (0..20).map(|number| Namespace { name: format!("{number}").into(), labels: labels.clone() });
            let change = ClusterChange { pods, namespaces: namespaces.collect(), ..ClusterChange::default() };
            assert!(cluster.change(change) > 20, "round {round}");
            assert!(cluster.bytes <= 10_000, "round {round}");
        }
        let uids: Vec<_> = cluster.pods.keys().cloned().collect();
        let names: Vec<_> = cluster.namespaces.keys().cloned().collect();
        cluster.change(ClusterChange { pods_gone: uids, namespaces_gone: names, ..ClusterChange::default() });
        assert_eq!(cluster.bytes, 0);
    }

    #[test]
    fn a_complete_change_forgets_the_rest_and_tables_are_bounded() {
        let mut cluster = Cluster::new(2);
        let pods = |names: &[&str]| names.iter().map(|name| pod(name, "")).collect();
        assert_eq!(cluster.change(ClusterChange { pods: pods(&["a", "b", "c"]), ..ClusterChange::default() }), 1);
        assert_eq!(cluster.change(ClusterChange { complete: true, pods: pods(&["c"]), ..ClusterChange::default() }), 0);
        assert!(cluster.pod(&facts("a")).is_none() && cluster.pod(&facts("c")).is_some());
    }
}
