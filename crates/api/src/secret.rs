//! References to what a spec must not contain: credentials, and certificates that change by themselves.
//!
//! A reference has no namespace. What it names is in the namespace of the resource, for cluster-wide kinds in that of
//! the operator: so nobody reads a Secret through us that they could not put beside their resource.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A key of a Secret in the namespace of the resource; for cluster-wide kinds in the namespace of the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct SecretKeyRef {
    /// Name of the Secret, in the namespace of the resource; for cluster-wide kinds in the namespace of the operator.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Key in it whose value is meant.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A key of a ConfigMap in the namespace of the resource; for cluster-wide kinds in the namespace of the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap, in the namespace of the resource; for cluster-wide kinds in the namespace of the
    /// operator.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Key in it whose value is meant.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Certificates (PEM) in a Secret or a ConfigMap: exactly one of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.secret) != has(self.configMap)", "exactly one of secret and configMap"))]
pub struct CaRef {
    /// Key of a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretKeyRef>,
    /// Key of a ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapKeyRef>,
}
