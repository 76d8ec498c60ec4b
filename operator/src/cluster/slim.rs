//! Pods as far as the operator reads them: the rest of what the API server sends is skipped while it is read, so that a
//! list of ten thousands of them costs little more than what is kept.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A pod.
#[derive(Debug, Clone, Deserialize)]
pub struct SlimPod {
    /// Without annotations but those of [`KEPT`], and without what only the API server needs.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What is wanted of it.
    #[serde(default)]
    pub spec: SlimSpec,
    /// How it does.
    #[serde(default)]
    pub status: SlimStatus,
}

/// See [`SlimPod`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimSpec {
    /// The node that it runs on, once it has one.
    pub node_name: Option<String>,
    /// Its service account.
    pub service_account_name: Option<String>,
}

/// See [`SlimPod`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimStatus {
    /// Where in its life it is.
    pub phase: Option<String>,
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
}

/// Annotation of a mirror pod: what the container runtime calls the pod's uid.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation that only mirror pods bear.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotations that are kept.
pub const KEPT: [&str; 2] = [CONFIG_HASH, CONFIG_MIRROR];

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        deletion_timestamp: Option<Time>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        owner_references: Option<Vec<OwnerReference>>,
    }
    let slim = Slim::deserialize(deserializer)?;
    let annotations = slim.annotations.map(|mut annotations| {
        annotations.retain(|name, _| KEPT.contains(&name.as_str()));
        annotations
    });
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        deletion_timestamp: slim.deletion_timestamp,
        labels: slim.labels,
        annotations,
        owner_references: slim.owner_references,
        ..ObjectMeta::default()
    })
}

impl Resource for SlimPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_pod_only_what_is_used_is_kept() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"app": "web"},
                "annotations": {"kubernetes.io/config.hash": "h", "example.org/long": "text"},
                "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
            },
            "spec": {"nodeName": "a", "serviceAccountName": "default", "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let pod: SlimPod = serde_json::from_value(pod).expect("a pod");
        assert_eq!(pod.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(pod.metadata.annotations.as_ref().map(BTreeMap::len), Some(1));
        assert_eq!(pod.metadata.managed_fields, None);
        assert_eq!((pod.spec.node_name.as_deref(), pod.status.pod_ip.as_deref()), (Some("a"), Some("10.0.0.1")));
    }
}
