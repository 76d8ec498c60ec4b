//! The control plane, its nodes and pods, and what its API server counts.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use e2e::{Cluster, ClusterOptions, Component};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, Node, Pod, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use super::{ACCOUNT, SYSTEM};

/// Requests at the same time.
const AT_ONCE: usize = 24;
/// Namespaces that the pods are spread over.
pub const TEAMS: usize = 10;

/// A node with the sensor's pod and a few others.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its name.
    pub node: String,
    /// The sensor's pod: name and uid.
    pub sensor: (String, String),
    /// Other pods: namespace, name, uid.
    pub pods: Vec<(String, String, String)>,
}

/// A control plane.
pub struct Plane {
    /// The programs.
    pub cluster: Arc<Cluster>,
    /// As administrator.
    pub client: Client,
}

/// How often a kind of request was made: verb, resource, subresource, code.
pub type Requests = BTreeMap<(String, String, String, String), u64>;

impl Plane {
    /// Starts it, and prepares the operator's namespace.
    pub async fn start() -> Result<Self> {
        Self::start_with(ClusterOptions::default()).await
    }

    /// The same with more than the plain control plane.
    pub async fn start_with(options: ClusterOptions) -> Result<Self> {
        let cluster = tokio::task::spawn_blocking(|| Cluster::start(options)).await??;
        // Nodes without kubelets would be declared dead, and pods evicted.
        cluster.stop_component(Component::ControllerManager)?;
        cluster.stop_component(Component::Scheduler)?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is at the root")?;
        let crds = root.join("crds").display().to_string();
        cluster.kubectl(["apply", "--server-side", "--filename", &crds])?.success()?;
        cluster.kubectl(["wait", "--for=condition=Established", "crd", "--all"])?.success()?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(cluster.kubeconfig())?, &options).await?;
        let plane = Self { cluster: Arc::new(cluster), client: Client::try_from(config)? };
        let teams = (0..TEAMS).map(|team| (format!("team-{team}"), "app"));
        for (namespace, account) in [(SYSTEM.to_owned(), ACCOUNT)].into_iter().chain(teams) {
            let object = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
            Api::<Namespace>::all(plane.client.clone()).create(&PostParams::default(), &object).await?;
            plane.account(&namespace, account).await?;
        }
        Ok(plane)
    }

    /// Makes a service account.
    pub async fn account(&self, namespace: &str, name: &str) -> Result<()> {
        let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        accounts.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Makes nodes, ready or not, each with a pod of the sensor's and `pods` others.
    pub async fn places(&self, nodes: std::ops::Range<usize>, pods: usize, ready: bool) -> Result<Vec<Place>> {
        let places = stream::iter(nodes).map(|number| self.place(number, pods, ready));
        places.buffered(AT_ONCE).try_collect().await
    }

    async fn place(&self, number: usize, pods: usize, ready: bool) -> Result<Place> {
        let node = format!("node-{number:04}");
        let object = json!({
            "metadata": {"name": node, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": node}},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        let object = serde_json::from_value(object)?;
        Api::<Node>::all(self.client.clone()).create(&PostParams::default(), &object).await?;
        let sensor = format!("gyrfalcon-sensor-{number:04}");
        let uid = self.pod(SYSTEM, &sensor, &node, ACCOUNT).await?;
        let mut others = Vec::new();
        for pod in 0..pods {
            let namespace = format!("team-{}", (number + pod) % TEAMS);
            let name = format!("app-{number:04}-{pod}");
            let uid = self.pod(&namespace, &name, &node, "app").await?;
            others.push((namespace, name, uid));
        }
        Ok(Place { node, sensor: (sensor, uid), pods: others })
    }

    /// Makes a pod on a node; its uid.
    pub async fn pod(&self, namespace: &str, name: &str, node: &str, account: &str) -> Result<String> {
        let object = json!({
            "metadata": {"name": name, "labels": {"app": name, "tier": "backend", "pod-template-hash": "5d59d67564"}},
            "spec": {
                "nodeName": node,
                "serviceAccountName": account,
                "automountServiceAccountToken": false,
                "containers": [{"name": "app", "image": "example.org/app:1"}],
            },
        });
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let made = pods.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        made.uid().context("a pod has a uid")
    }

    /// A token bound to a pod.
    pub async fn token(&self, account: &str, pod: &(String, String), audience: &str) -> Result<String> {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience.to_owned()]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.0.clone()),
                    uid: Some(pod.1.clone()),
                }),
                expiration_seconds: Some(7200),
            }),
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), SYSTEM);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        answer.status.and_then(|status| status.token).context("an answer has a token")
    }

    /// Tokens of all these sensors, in their order.
    pub async fn tokens(&self, places: &[Place]) -> Result<Vec<String>> {
        let tokens = stream::iter(places).map(|place| self.token(ACCOUNT, &place.sensor, link::TOKEN_AUDIENCE));
        tokens.buffered(AT_ONCE).try_collect().await
    }

    /// What the API server has counted so far.
    pub async fn requests(&self) -> Result<Requests> {
        let request = axum::http::Request::get("/metrics").body(Vec::new())?;
        let text = self.client.request_text(request).await?;
        let mut requests = Requests::new();
        for line in text.lines() {
            let Some((labels, count)) =
                line.strip_prefix("apiserver_request_total{").and_then(|rest| rest.rsplit_once("} "))
            else {
                continue;
            };
            let label = |name: &str| {
                let from = labels.split_once(&format!("{name}=\"")).map_or("", |(_, rest)| rest);
                from.split_once('"').map_or("", |(value, _)| value).to_owned()
            };
            // `subresource` ends with `resource` as well.
            let resource = labels.split(',').find_map(|label| label.strip_prefix("resource=\"")).unwrap_or("\"");
            let key = (label("verb"), resource.trim_end_matches('"').to_owned(), label("subresource"), label("code"));
            *requests.entry(key).or_default() += count.parse::<f64>().unwrap_or(0.0) as u64;
        }
        Ok(requests)
    }

    /// Waits until a rule of the cluster is Ready in its current generation.
    pub async fn rule_ready(&self, name: &str, longest: Duration) -> Result<()> {
        use api::{condition::ConditionStatus, rule::ClusterFalcoRule};
        use kube::runtime::wait::await_condition;
        let ready = |rule: Option<&ClusterFalcoRule>| {
            rule.is_some_and(|rule| {
                let status = rule.status.clone().unwrap_or_default();
                let ready = status
                    .conditions
                    .iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == ConditionStatus::True);
                ready && status.observed_generation == rule.metadata.generation
            })
        };
        let rules: Api<ClusterFalcoRule> = Api::all(self.client.clone());
        let waited = tokio::time::timeout(longest, await_condition(rules, name, ready)).await;
        waited.with_context(|| format!("ClusterFalcoRule {name} is not Ready"))??;
        Ok(())
    }
}

/// What was written between two looks, by kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Writes {
    /// Events made or changed.
    pub events: u64,
    /// Of status.
    pub status: u64,
    /// Renewals of Leases.
    pub leases: u64,
    /// Everything else that changes something.
    pub other: u64,
    /// Writes that failed, of any kind.
    pub failed: u64,
}

/// What was written between two looks.
pub fn writes(before: &Requests, after: &Requests) -> Writes {
    let mut writes = Writes::default();
    for (key, count) in after {
        let more = count - before.get(key).copied().unwrap_or(0).min(*count);
        let (verb, resource, subresource, code) = (key.0.as_str(), key.1.as_str(), key.2.as_str(), key.3.as_str());
        if !matches!(verb, "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE") || resource == "tokenreviews" {
            continue;
        }
        let kind = match (resource, subresource) {
            _ if !code.starts_with('2') => &mut writes.failed,
            ("events", _) => &mut writes.events,
            ("leases", _) => &mut writes.leases,
            (_, "status") => &mut writes.status,
            _ => &mut writes.other,
        };
        *kind += more;
    }
    writes
}
