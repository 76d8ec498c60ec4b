//! Pods and namespaces, as far as sensors and Events need them.
//!
//! A sensor learns about the pods of its own node and about all namespaces. What it is to be told is kept as a set of
//! names, not as a queue of changes: a sensor that is slow gets the latest state once, and no memory grows for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use link::proto;
use tokio::sync::Notify;

use super::{
    intern::Interner,
    slim::{CONFIG_HASH, CONFIG_MIRROR, SlimPod},
};

/// Label with the suffix that a Deployment's ReplicaSet has behind the Deployment's name.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Pairs of texts: labels, or kinds and names of owners.
type Pairs = [(Arc<str>, Arc<str>)];

/// One pod. There may be a hundred thousand: what several have in common they share.
#[derive(Debug, PartialEq, Eq)]
pub struct PodEntry {
    uid: Arc<str>,
    namespace: Arc<str>,
    name: Arc<str>,
    node: Arc<str>,
    labels: Arc<Pairs>,
    owners: Arc<Pairs>,
    config_hash: Option<Box<str>>,
    ip: Box<str>,
    service_account: Arc<str>,
    /// Neither ending nor ended.
    alive: bool,
}

/// What pods have in common.
#[derive(Debug, Default)]
struct Common {
    texts: Interner<str>,
    pairs: Interner<Pairs>,
}

impl Common {
    fn pairs<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Arc<Pairs> {
        let pairs: Vec<_> = pairs.map(|(key, value)| (self.texts.get(key), self.texts.get(value))).collect();
        self.pairs.get(&*pairs)
    }
}

impl PodEntry {
    /// What matters of a pod; none before it has a node.
    fn of(pod: &SlimPod, common: &mut Common) -> Option<Self> {
        let labels = pod.labels();
        let mut owners: Vec<(&str, &str)> = pod
            .owner_references()
            .iter()
            .filter(|owner| owner.controller == Some(true))
            .map(|owner| (owner.kind.as_str(), owner.name.as_str()))
            .collect();
        // A Deployment's name is in that of its ReplicaSet, in front of the hash: no need to follow ReplicaSets.
        let deployment = owners
            .iter()
            .find(|(kind, _)| *kind == "ReplicaSet")
            .and_then(|(_, name)| name.strip_suffix(labels.get(TEMPLATE_HASH)?.as_str())?.strip_suffix('-'));
        owners.extend(deployment.map(|name| ("Deployment", name)));
        let annotation = |name: &str| pod.annotations().get(name).map(|value| value.as_str().into());
        let phase = pod.status.phase.as_deref();
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        Some(Self {
            uid: pod.metadata.uid.as_deref()?.into(),
            namespace: common.texts.get(pod.metadata.namespace.as_deref()?),
            name: pod.metadata.name.as_deref()?.into(),
            node: common.texts.get(pod.spec.node_name.as_deref()?),
            labels: common.pairs(labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
            owners: common.pairs(owners.into_iter()),
            config_hash: annotation(CONFIG_MIRROR).and(annotation(CONFIG_HASH)),
            ip: text(&pod.status.pod_ip),
            service_account: common.texts.get(pod.spec.service_account_name.as_deref().unwrap_or_default()),
            alive: pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Failed" | "Succeeded")),
        })
    }

    fn fact(&self) -> proto::PodFact {
        let pairs = |pairs: &Arc<Pairs>| {
            let pairs = pairs.iter().map(|(a, b)| (a.to_string(), b.to_string()));
            pairs.collect::<Vec<_>>()
        };
        proto::PodFact {
            uid: self.uid.to_string(),
            namespace: self.namespace.to_string(),
            name: self.name.to_string(),
            labels: pairs(&self.labels).into_iter().collect(),
            owners: pairs(&self.owners).into_iter().map(|(kind, name)| proto::Owner { kind, name }).collect(),
            config_hash: self.config_hash.as_deref().unwrap_or_default().to_owned(),
            ip: self.ip.to_string(),
        }
    }
}

/// All pods that have a node, and all namespaces.
#[derive(Debug, Default, Clone)]
pub struct Pods(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    common: Common,
    pods: HashMap<Arc<str>, Arc<PodEntry>, ahash::RandomState>,
    by_node: HashMap<Arc<str>, Vec<Arc<PodEntry>>, ahash::RandomState>,
    /// By namespace and name: what Events regard.
    by_name: HashMap<(Arc<str>, Arc<str>), Arc<PodEntry>, ahash::RandomState>,
    namespaces: BTreeMap<Box<str>, BTreeMap<String, String>>,
    subscribers: HashMap<Box<str>, Vec<Weak<Mailbox>>>,
}

/// What one sensor has not been told yet.
#[derive(Debug, Default)]
struct Mailbox {
    pending: Mutex<Pending>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    /// Everything, instead of what is named below.
    complete: bool,
    pods: HashSet<Arc<str>>,
    namespaces: HashSet<Box<str>>,
}

/// The pods of one node, as they change.
#[derive(Debug)]
pub struct Subscription {
    node: Box<str>,
    mailbox: Arc<Mailbox>,
    tables: Pods,
}

impl Pods {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new or changed pod.
    pub fn set(&self, pod: &SlimPod) {
        let mut tables = self.lock();
        let Some(entry) = PodEntry::of(pod, &mut tables.common) else { return };
        if tables.pods.get(&entry.uid).is_some_and(|known| **known == entry) {
            return;
        }
        let entry = Arc::new(entry);
        tables.forget(&entry.uid);
        tables.by_node.entry(Arc::clone(&entry.node)).or_default().push(Arc::clone(&entry));
        tables.by_name.insert((Arc::clone(&entry.namespace), Arc::clone(&entry.name)), Arc::clone(&entry));
        tables.pods.insert(Arc::clone(&entry.uid), Arc::clone(&entry));
        tables.tell(&entry.node, |pending| _ = pending.pods.insert(Arc::clone(&entry.uid)));
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &str) {
        let mut tables = self.lock();
        let Some(entry) = tables.forget(uid) else { return };
        tables.tell(&entry.node, |pending| _ = pending.pods.insert(Arc::clone(&entry.uid)));
    }

    /// Forgets every pod that is not among these: the end of a fresh list.
    pub fn retain(&self, uids: &HashSet<Box<str>>) {
        let gone: Vec<_> = self.lock().pods.keys().filter(|uid| !uids.contains(&***uid)).cloned().collect();
        gone.iter().for_each(|uid| self.remove(uid));
    }

    /// Takes in a new or changed namespace.
    pub fn set_namespace(&self, namespace: &Namespace) {
        let name: Box<str> = namespace.name_any().into();
        let labels = namespace.labels().clone();
        let mut tables = self.lock();
        if tables.namespaces.get(&name) != Some(&labels) {
            tables.namespaces.insert(name.clone(), labels);
            tables.tell_all(|pending| _ = pending.namespaces.insert(name.clone()));
        }
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&self, name: &str) {
        let mut tables = self.lock();
        if tables.namespaces.remove(name).is_some() {
            tables.tell_all(|pending| _ = pending.namespaces.insert(name.into()));
        }
    }

    /// Forgets every namespace that is not among these.
    pub fn retain_namespaces(&self, names: &HashSet<Box<str>>) {
        let gone: Vec<_> = self.lock().namespaces.keys().filter(|name| !names.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.remove_namespace(name));
    }

    /// Follows the pods of a node, beginning with all of them.
    pub fn subscribe(&self, node: &str) -> Subscription {
        let mailbox = Arc::new(Mailbox::default());
        mailbox.lock().complete = true;
        mailbox.arrived.notify_one();
        self.lock().subscribers.entry(node.into()).or_default().push(Arc::downgrade(&mailbox));
        Subscription { node: node.into(), mailbox, tables: self.clone() }
    }

    /// The uid that the API server knows a pod by: of a static pod, that of its mirror; of a pod of which only the name is
    /// known (a request in the audit log), that of the pod that has it now. None when there is no such pod.
    pub fn api_uid(&self, namespace: &str, name: &str, runtime_uid: &str) -> Option<String> {
        let tables = self.lock();
        if tables.pods.contains_key(runtime_uid) {
            return Some(runtime_uid.to_owned());
        }
        let entry = tables.by_name.get(&(namespace.into(), name.into()))?;
        let same = runtime_uid.is_empty() || entry.config_hash.as_deref() == Some(runtime_uid);
        same.then(|| entry.uid.to_string())
    }

    /// Whether a pod can be on this node: what a sensor says of a pod that is known to be elsewhere, or to be another, is
    /// not to be believed. A pod that is not known may have been there: alerts can be older than a pod is remembered.
    pub fn can_be_on(&self, node: &str, namespace: &str, name: &str, runtime_uid: &str) -> bool {
        let tables = self.lock();
        if let Some(pod) = tables.pods.get(runtime_uid) {
            return &*pod.node == node && &*pod.namespace == namespace && &*pod.name == name;
        }
        let named = tables.by_name.get(&(namespace.into(), name.into()));
        named.is_none_or(|pod| pod.config_hash.as_deref() != Some(runtime_uid) || &*pod.node == node)
    }

    /// Nodes with a living pod of this service account.
    pub fn nodes_of(&self, namespace: &str, service_account: &str) -> HashSet<Box<str>> {
        let tables = self.lock();
        let ours = |pod: &&Arc<PodEntry>| {
            pod.alive && &*pod.namespace == namespace && &*pod.service_account == service_account
        };
        tables.pods.values().filter(ours).map(|pod| Box::from(&*pod.node)).collect()
    }

    /// The names of living pods of a service account.
    pub fn pods_of(&self, namespace: &str, service_account: &str) -> HashSet<Box<str>> {
        let tables = self.lock();
        let ours = |pod: &&Arc<PodEntry>| {
            pod.alive && &*pod.namespace == namespace && &*pod.service_account == service_account
        };
        tables.pods.values().filter(ours).map(|pod| Box::from(&*pod.name)).collect()
    }

    /// The node that a pod runs on, if its uid is this.
    pub fn node_of(&self, uid: &str) -> Option<Box<str>> {
        self.lock().pods.get(uid).map(|pod| Box::from(&*pod.node))
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// Takes a pod out of all tables.
    fn forget(&mut self, uid: &str) -> Option<Arc<PodEntry>> {
        let entry = self.pods.remove(uid)?;
        if let Some(pods) = self.by_node.get_mut(&entry.node) {
            pods.retain(|pod| !Arc::ptr_eq(pod, &entry));
            if pods.is_empty() {
                self.by_node.remove(&entry.node);
            }
        }
        let name = (Arc::clone(&entry.namespace), Arc::clone(&entry.name));
        if self.by_name.get(&name).is_some_and(|other| Arc::ptr_eq(other, &entry)) {
            self.by_name.remove(&name);
        }
        Some(entry)
    }

    fn tell(&mut self, node: &str, note: impl Fn(&mut Pending)) {
        let Some(subscribers) = self.subscribers.get_mut(node) else { return };
        subscribers.retain(|mailbox| post(mailbox, &note));
        if subscribers.is_empty() {
            self.subscribers.remove(node);
        }
    }

    fn tell_all(&mut self, note: impl Fn(&mut Pending)) {
        self.subscribers.retain(|_, subscribers| {
            subscribers.retain(|mailbox| post(mailbox, &note));
            !subscribers.is_empty()
        });
    }
}

/// Leaves a note; whether anyone still reads them.
fn post(mailbox: &Weak<Mailbox>, note: &impl Fn(&mut Pending)) -> bool {
    let Some(mailbox) = mailbox.upgrade() else { return false };
    note(&mut mailbox.lock());
    mailbox.arrived.notify_one();
    true
}

impl Subscription {
    /// Waits until there is something to tell, and takes it.
    pub async fn next(&self) -> proto::PodFacts {
        loop {
            self.mailbox.arrived.notified().await;
            if let Some(facts) = self.take() {
                return facts;
            }
        }
    }

    fn take(&self) -> Option<proto::PodFacts> {
        // The tables first, as everyone does who posts.
        let tables = self.tables.lock();
        let pending = std::mem::take(&mut *self.mailbox.lock());
        if pending.complete {
            let pods = tables.by_node.get(&*self.node).into_iter().flatten().map(|pod| pod.fact());
            return Some(proto::PodFacts {
                complete: true,
                pods: pods.collect(),
                namespaces: tables.namespaces.iter().map(|(name, labels)| namespace(name, labels)).collect(),
                ..proto::PodFacts::default()
            });
        }
        if pending.pods.is_empty() && pending.namespaces.is_empty() {
            return None;
        }
        let mut facts = proto::PodFacts::default();
        for uid in &pending.pods {
            match tables.pods.get(uid) {
                Some(pod) => facts.pods.push(pod.fact()),
                None => facts.pods_gone.push(uid.to_string()),
            }
        }
        for name in &pending.namespaces {
            match tables.namespaces.get(name) {
                Some(labels) => facts.namespaces.push(namespace(name, labels)),
                None => facts.namespaces_gone.push(name.to_string()),
            }
        }
        Some(facts)
    }
}

fn namespace(name: &str, labels: &BTreeMap<String, String>) -> proto::NamespaceFact {
    proto::NamespaceFact { name: name.to_owned(), labels: labels.clone().into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, name: &str, node: &str, more: serde_json::Value) -> SlimPod {
        let mut object = json!({
            "metadata": {"namespace": "shop", "name": name, "uid": uid},
            "spec": {"nodeName": node, "containers": [], "serviceAccountName": "default"},
        });
        if let (Some(metadata), Some(more)) = (object["metadata"].as_object_mut(), more.as_object()) {
            metadata.extend(more.clone());
        }
        serde_json::from_value(object).expect("a pod")
    }

    fn plain(uid: &str, name: &str, node: &str) -> SlimPod {
        pod(uid, name, node, json!({}))
    }

    #[test]
    fn a_sensor_is_told_of_the_pods_of_its_own_node() {
        let pods = Pods::default();
        pods.set(&plain("u1", "one", "a"));
        pods.set(&plain("u2", "two", "b"));
        let facts = pods.subscribe("a").take().expect("everything");
        assert!(facts.complete);
        assert_eq!(facts.pods.iter().map(|pod| pod.uid.as_str()).collect::<Vec<_>>(), ["u1"]);
    }

    #[test]
    fn what_changes_is_told_once_and_in_its_last_state() {
        let pods = Pods::default();
        let a = pods.subscribe("a");
        assert!(a.take().is_some_and(|facts| facts.complete));
        pods.set(&plain("u1", "one", "a"));
        pods.set(&plain("u2", "two", "a"));
        pods.set(&plain("u3", "three", "b"));
        pods.remove("u2");
        let facts = a.take().expect("changes");
        assert_eq!(facts.pods.len(), 1);
        assert_eq!(facts.pods_gone, ["u2"]);
        assert_eq!(a.take(), None);
        pods.set(&plain("u1", "one", "a"));
        assert_eq!(a.take(), None, "the same again is no change");
    }

    #[test]
    fn the_deployment_is_read_from_the_replica_set() {
        let more = json!({
            "labels": {"pod-template-hash": "5d7f"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-5d7f", "uid": "x", "controller": true},
            ],
        });
        let pods = Pods::default();
        pods.set(&pod("u1", "checkout-5d7f-abc", "a", more));
        let facts = pods.subscribe("a").take().expect("everything");
        let owners: Vec<_> = facts
            .pods
            .iter()
            .flat_map(|pod| &pod.owners)
            .map(|owner| format!("{}/{}", owner.kind, owner.name))
            .collect();
        assert_eq!(owners, ["ReplicaSet/checkout-5d7f", "Deployment/checkout"]);
    }

    #[test]
    fn a_static_pod_is_found_by_the_uid_that_the_runtime_knows() {
        let more = json!({"annotations": {CONFIG_MIRROR: "h4sh", CONFIG_HASH: "h4sh"}});
        let pods = Pods::default();
        pods.set(&pod("api", "etcd-a", "a", more));
        assert_eq!(pods.api_uid("shop", "etcd-a", "h4sh").as_deref(), Some("api"));
        assert_eq!(pods.api_uid("shop", "etcd-a", "api").as_deref(), Some("api"));
        assert_eq!(pods.api_uid("shop", "etcd-a", "other"), None, "an earlier pod of the same name");
        assert_eq!(pods.api_uid("shop", "etcd-a", "").as_deref(), Some("api"), "named in a request");
        assert_eq!(pods.api_uid("shop", "nobody", ""), None);
    }

    #[test]
    fn a_sensor_is_not_believed_about_pods_of_other_nodes() {
        let more = json!({"annotations": {CONFIG_MIRROR: "h4sh", CONFIG_HASH: "h4sh"}});
        let pods = Pods::default();
        pods.set(&plain("u1", "one", "a"));
        pods.set(&pod("api", "etcd-a", "a", more));
        assert!(pods.can_be_on("a", "shop", "one", "u1"));
        assert!(!pods.can_be_on("b", "shop", "one", "u1"), "it is on another node");
        assert!(!pods.can_be_on("a", "bank", "one", "u1"), "it is in another namespace");
        assert!(pods.can_be_on("a", "shop", "etcd-a", "h4sh"));
        assert!(!pods.can_be_on("b", "shop", "etcd-a", "h4sh"), "its mirror is on another node");
        assert!(pods.can_be_on("b", "shop", "one", "gone"), "an earlier pod of the same name");
    }

    #[test]
    fn namespaces_are_told_to_every_sensor() {
        let pods = Pods::default();
        let a = pods.subscribe("a");
        a.take();
        let namespace = json!({"metadata": {"name": "shop", "labels": {"team": "web"}}});
        pods.set_namespace(&serde_json::from_value(namespace).expect("a namespace"));
        assert_eq!(a.take().map(|facts| facts.namespaces.len()), Some(1));
        pods.remove_namespace("shop");
        assert_eq!(a.take().map(|facts| facts.namespaces_gone), Some(vec!["shop".to_owned()]));
    }
}
