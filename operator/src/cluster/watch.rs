//! Follows what the operator reads, and says when something changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Debug,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::Duration,
};

use api::{
    config::{SensorConfig, SensorConfigSpec},
    node::SensorNode,
    rule::{ClusterFalcoRule, FalcoRule},
    sink::{AlertSink, ClusterAlertSink},
};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt, reflector,
        reflector::Store,
        utils::Backoff,
        watcher,
        watcher::{Config, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinHandle};
use tracing::warn;

use super::{pods::Pods, slim::SlimPod};

/// What changed: a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change(u32);

impl Change {
    /// Rule resources, or ConfigMaps that they name.
    pub const RULES: Self = Self(1);
    /// Sinks.
    pub const SINKS: Self = Self(2);
    /// The configuration.
    pub const CONFIG: Self = Self(4);
    /// Nodes, SensorNodes, or pods of sensors.
    pub const NODES: Self = Self(8);
    /// Everything.
    pub const ALL: Self = Self(15);

    /// Whether any of these changed.
    pub fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Collects what changed until someone looks.
#[derive(Debug, Default)]
pub struct Changes {
    bits: AtomicU32,
    arrived: Notify,
}

impl Changes {
    /// Notes a change.
    pub fn note(&self, change: Change) {
        self.bits.fetch_or(change.0, SeqCst);
        self.arrived.notify_one();
    }

    /// Waits for a change and takes all there are.
    pub async fn next(&self) -> Change {
        loop {
            match self.bits.swap(0, SeqCst) {
                0 => self.arrived.notified().await,
                bits => return Change(bits),
            }
        }
    }
}

/// The observed cluster. Clones share it.
#[derive(Clone)]
pub struct Cluster {
    /// Rules of namespaces.
    pub rules: Store<FalcoRule>,
    /// Rules of the cluster.
    pub cluster_rules: Store<ClusterFalcoRule>,
    /// Sinks of namespaces.
    pub sinks: Store<AlertSink>,
    /// Sinks of the cluster.
    pub cluster_sinks: Store<ClusterAlertSink>,
    /// The configuration: at most one.
    pub config: Store<SensorConfig>,
    /// What the operator has written about each node.
    pub sensor_nodes: Store<SensorNode>,
    /// Nodes, without what nobody reads.
    pub nodes: Store<Node>,
    /// Pods and namespaces.
    pub pods: Pods,
    /// ConfigMaps that rules name.
    pub config_maps: ConfigMaps,
    /// What changed, but for sinks.
    pub changes: Arc<Changes>,
    /// That sinks changed, or their quota: they are followed by every replica, the rest only by the leader.
    pub sink_changes: Arc<Changes>,
    /// That the configuration changed, for whoever writes Events.
    pub config_changes: Arc<Changes>,
    synced: Arc<[AtomicBool; 2]>,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    /// Starts to follow everything.
    pub fn follow(client: &Client) -> Self {
        let changes = Arc::new(Changes::default());
        let sink_changes = Arc::new(Changes::default());
        let config_changes = Arc::new(Changes::default());
        let pods = Pods::default();
        let synced = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        tokio::spawn(follow_pods(client.clone(), pods.clone(), Arc::clone(&changes), Arc::clone(&synced)));
        tokio::spawn(follow_namespaces(client.clone(), pods.clone(), Arc::clone(&synced)));
        Self {
            rules: mirror(client, Change::RULES, &[&changes], |_| {}),
            cluster_rules: mirror(client, Change::RULES, &[&changes], |_| {}),
            sinks: mirror(client, Change::SINKS, &[&sink_changes], |_| {}),
            cluster_sinks: mirror(client, Change::SINKS, &[&sink_changes], |_| {}),
            config: mirror(client, Change::CONFIG, &[&changes, &config_changes, &sink_changes], |_| {}),
            sensor_nodes: mirror(client, Change::NODES, &[&changes], |_| {}),
            nodes: mirror(client, Change::NODES, &[&changes], |node: &mut Node| {
                // Of a node, only its labels, uid and readiness are of use; images and heartbeats would only cost.
                node.metadata.annotations = None;
                node.spec = None;
                if let Some(status) = &mut node.status {
                    status.images = None;
                    status.addresses = None;
                    status.allocatable = None;
                    status.capacity = None;
                    status.volumes_attached = None;
                    status.volumes_in_use = None;
                }
            }),
            pods,
            config_maps: ConfigMaps::new(client.clone(), Arc::clone(&changes)),
            changes,
            sink_changes,
            config_changes,
            synced,
        }
    }

    /// The configuration, or what holds without one.
    pub fn configuration(&self) -> SensorConfigSpec {
        self.config.state().first().map(|config| config.spec.clone()).unwrap_or_default()
    }

    /// Waits until everything has been listed once.
    pub async fn synced(&self) {
        // A store whose writer is gone never becomes ready, but then neither does the program live on.
        let _ = tokio::join!(
            self.rules.wait_until_ready(),
            self.cluster_rules.wait_until_ready(),
            self.sinks.wait_until_ready(),
            self.cluster_sinks.wait_until_ready(),
            self.config.wait_until_ready(),
            self.sensor_nodes.wait_until_ready(),
            self.nodes.wait_until_ready(),
        );
        while !self.synced.iter().all(|synced| synced.load(Relaxed)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How long a watch waits until it asks again. That of kube goes up to a minute, with which an operator that starts while
/// the API server is away would be blind for so long after it is back; a dozen watches do not burden an API server.
#[derive(Debug)]
struct Patience(Duration);

impl Patience {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(5);
}

impl Default for Patience {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let doubled = (self.0 * 2).min(Self::LONGEST);
        Some(std::mem::replace(&mut self.0, doubled))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

fn page() -> Config {
    Config::default().page_size(500)
}

/// Reports what a watch complains about, once per kind of complaint.
fn complain<T, E: std::error::Error + 'static>(
    stream: impl Stream<Item = Result<T, E>>,
    what: &'static str,
) -> impl Stream<Item = T> {
    let mut last = String::new();
    stream.inspect_ok(|_| {}).filter_map(move |item| {
        let kept = match item {
            Ok(item) => {
                last.clear();
                Some(item)
            }
            Err(error) => {
                let text = link::chain(&error).to_string();
                if text != last {
                    warn!(kind = what, error = text, "cannot follow; trying again");
                    last = text;
                }
                None
            }
        };
        std::future::ready(kept)
    })
}

fn mirror<K>(client: &Client, change: Change, changes: &[&Arc<Changes>], slim: fn(&mut K)) -> Store<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let api: Api<K> = Api::all(client.clone());
    let kind = Box::leak(K::kind(&K::DynamicType::default()).into_owned().into_boxed_str());
    let stream = watcher(api, page())
        .backoff(Patience::default())
        .modify(move |object| {
            object.meta_mut().managed_fields = None;
            slim(object);
        })
        .reflect(writer);
    let changes: Vec<Arc<Changes>> = changes.iter().map(|changes| Arc::clone(changes)).collect();
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(complain(stream, kind));
        while let Some(event) = stream.next().await {
            // Within a list the store is not replaced yet.
            if !matches!(event, Event::Init | Event::InitApply(_)) {
                changes.iter().for_each(|changes| changes.note(change));
            }
        }
    });
    store
}

async fn follow_pods(client: Client, pods: Pods, changes: Arc<Changes>, synced: Arc<[AtomicBool; 2]>) {
    let api: Api<SlimPod> = Api::all(client);
    let mut listed = HashSet::new();
    let mut stream = std::pin::pin!(complain(watcher(api, page()).backoff(Patience::default()), "Pod"));
    while let Some(event) = stream.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => {
                listed.extend(pod.metadata.uid.as_deref().map(Box::from));
                pods.set(&pod);
            }
            Event::InitDone => {
                pods.retain(&std::mem::take(&mut listed));
                synced[0].store(true, Relaxed);
                changes.note(Change::NODES);
            }
            Event::Apply(pod) => {
                pods.set(&pod);
                changes.note(Change::NODES);
            }
            Event::Delete(pod) => {
                pod.metadata.uid.as_deref().inspect(|uid| pods.remove(uid));
                changes.note(Change::NODES);
            }
        }
    }
}

async fn follow_namespaces(client: Client, pods: Pods, synced: Arc<[AtomicBool; 2]>) {
    let api: Api<Namespace> = Api::all(client);
    let mut listed = HashSet::new();
    let mut stream = std::pin::pin!(complain(watcher(api, page()).backoff(Patience::default()), "Namespace"));
    while let Some(event) = stream.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(namespace) => {
                listed.extend(namespace.metadata.name.as_deref().map(Box::from));
                pods.set_namespace(&namespace);
            }
            Event::InitDone => {
                pods.retain_namespaces(&std::mem::take(&mut listed));
                synced[1].store(true, Relaxed);
            }
            Event::Apply(namespace) => pods.set_namespace(&namespace),
            Event::Delete(namespace) => {
                namespace.metadata.name.as_deref().inspect(|name| pods.remove_namespace(name));
            }
        }
    }
}

/// Namespace and name of a ConfigMap.
pub type ConfigMapKey = (String, String);

/// The ConfigMaps that rules name, each followed by a watch of its own: the operator never reads others.
#[derive(Clone)]
pub struct ConfigMaps {
    client: Client,
    changes: Arc<Changes>,
    followed: Arc<Mutex<HashMap<ConfigMapKey, Followed>>>,
}

struct Followed {
    /// None until the first answer.
    content: Arc<Mutex<Option<Lookup>>>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the API server says about a ConfigMap.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// It isn't there.
    Missing,
    /// Its data.
    Found(Arc<BTreeMap<String, String>>),
}

impl ConfigMaps {
    fn new(client: Client, changes: Arc<Changes>) -> Self {
        Self { client, changes, followed: Arc::default() }
    }

    /// Follows exactly these from now on.
    pub fn follow(&self, keys: &BTreeSet<ConfigMapKey>) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|key, _| keys.contains(key));
        for key in keys {
            followed.entry(key.clone()).or_insert_with(|| {
                let content = Arc::new(Mutex::new(None));
                let task = follow_config_map(
                    Api::namespaced(self.client.clone(), &key.0),
                    key.1.clone(),
                    Arc::clone(&content),
                    Arc::clone(&self.changes),
                );
                Followed { content, task: tokio::spawn(task) }
            });
        }
    }

    /// What is known about one; none while the API server has not answered.
    pub fn get(&self, key: &ConfigMapKey) -> Option<Lookup> {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.get(key)?.content.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn follow_config_map(
    api: Api<ConfigMap>,
    name: String,
    content: Arc<Mutex<Option<Lookup>>>,
    changes: Arc<Changes>,
) {
    let set = |lookup: Lookup| {
        let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
        if content.as_ref() != Some(&lookup) {
            *content = Some(lookup);
            changes.note(Change::RULES);
        }
    };
    let data = |map: ConfigMap| Lookup::Found(Arc::new(map.data.unwrap_or_default()));
    let config = Config::default().fields(&format!("metadata.name={name}"));
    let mut listed = None;
    let mut stream = std::pin::pin!(complain(watcher(api, config).backoff(Patience::default()), "ConfigMap"));
    while let Some(event) = stream.next().await {
        match event {
            Event::Init => listed = None,
            Event::InitApply(map) => listed = Some(map),
            Event::InitDone => set(listed.take().map_or(Lookup::Missing, data)),
            Event::Apply(map) => set(data(map)),
            Event::Delete(_) => set(Lookup::Missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_back_five_seconds_after_the_api_server_at_the_latest() {
        let mut patience = Patience::default();
        let waits: Vec<u128> = patience.by_ref().take(1000).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits[..5], [500, 1000, 2000, 4000, 5000]);
        assert!(waits[5..].iter().all(|wait| *wait == 5000));
        patience.reset();
        assert_eq!(patience.next(), Some(Patience::FIRST));
    }
}
