//! What the operator says about pods and namespaces, as the event loop takes it.

use std::collections::HashMap;

use event::containers::{ClusterChange, Labels, Namespace, Owner, Pod};
use link::proto;

/// The same, with the words of crate `event`.
pub fn cluster_change(facts: proto::PodFacts) -> ClusterChange {
    ClusterChange {
        complete: facts.complete,
        pods: facts.pods.into_iter().map(pod).collect(),
        pods_gone: facts.pods_gone.into_iter().map(Into::into).collect(),
        namespaces: facts.namespaces.into_iter().map(namespace).collect(),
        namespaces_gone: facts.namespaces_gone.into_iter().map(Into::into).collect(),
    }
}

fn pod(pod: proto::PodFact) -> Pod {
    let owner = |owner: proto::Owner| Owner { kind: owner.kind.into(), name: owner.name.into() };
    Pod {
        uid: pod.uid.into(),
        namespace: pod.namespace.into(),
        name: pod.name.into(),
        labels: labels(pod.labels),
        owners: pod.owners.into_iter().map(owner).collect(),
        config_hash: pod.config_hash.into(),
        ip: pod.ip.into(),
    }
}

fn namespace(namespace: proto::NamespaceFact) -> Namespace {
    Namespace { name: namespace.name.into(), labels: labels(namespace.labels) }
}

/// In order of name, so that what is made of them does not depend on the order of a hash map.
fn labels(labels: HashMap<String, String>) -> Labels {
    let mut labels: Labels = labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    labels.sort_unstable();
    labels
}
