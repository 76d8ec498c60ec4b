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

/// The way back: what is known, as the operator would say it.
pub fn pod_facts(known: ClusterChange) -> proto::PodFacts {
    let texts = |texts: Vec<Box<str>>| texts.into_iter().map(Into::into).collect();
    let named = |labels: Labels| labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let owner = |owner: Owner| proto::Owner { kind: owner.kind.into(), name: owner.name.into() };
    let pod = |pod: Pod| proto::PodFact {
        uid: pod.uid.into(),
        namespace: pod.namespace.into(),
        name: pod.name.into(),
        labels: named(pod.labels),
        owners: pod.owners.into_iter().map(owner).collect(),
        config_hash: pod.config_hash.into(),
        ip: pod.ip.into(),
    };
    let namespace =
        |namespace: Namespace| proto::NamespaceFact { name: namespace.name.into(), labels: named(namespace.labels) };
    proto::PodFacts {
        complete: known.complete,
        pods: known.pods.into_iter().map(pod).collect(),
        pods_gone: texts(known.pods_gone),
        namespaces: known.namespaces.into_iter().map(namespace).collect(),
        namespaces_gone: texts(known.namespaces_gone),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_go_both_ways() {
        let owner = |kind: &str| Owner { kind: kind.into(), name: "web".into() };
        let change = ClusterChange {
            complete: true,
            pods: vec![Pod {
                uid: "u".into(),
                namespace: "shop".into(),
                name: "web-1".into(),
                labels: vec![("a".into(), "1".into()), ("b".into(), "2".into())],
                owners: vec![owner("ReplicaSet"), owner("Deployment")],
                config_hash: "h".into(),
                ip: "10.0.0.1".into(),
            }],
            pods_gone: vec!["gone".into()],
            namespaces: vec![Namespace { name: "shop".into(), labels: vec![("team".into(), "a".into())] }],
            namespaces_gone: vec!["left".into()],
        };
        assert_eq!(cluster_change(pod_facts(change.clone())), change);
    }
}
