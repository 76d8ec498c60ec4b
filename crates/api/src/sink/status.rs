//! What the operator says about a sink.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;

/// What the cluster makes of the sink.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertSinkStatus {
    /// The `metadata.generation` that this status describes; -1 before the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Accepted, Delivering and TestDelivered, at most one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// `stdout`, `file`, `webhook` or `slack`, for `kubectl get`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub type_: Option<String>,
    /// When an alert was last delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<Time>,
    /// The last failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<SinkFailure>,
    /// What became of the alerts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<SinkTotals>,
    /// What waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
    /// The value of the annotation `gyrfalcon.dev/test` for which a test alert was sent last. What became of that
    /// alert is the condition `TestDelivered`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_test: Option<String>,
}

/// A failed delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct SinkFailure {
    /// When it failed.
    pub time: Time,
    /// Why, with what to do about it.
    #[schemars(length(max = 256))]
    pub message: String,
    /// Status of the HTTP answer, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 999))]
    pub http_code: Option<u16>,
}

impl SinkFailure {
    /// Longest message, in bytes.
    pub const MAX_MESSAGE_BYTES: usize = 256;
}

/// What became of the alerts, since the sink was created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct SinkTotals {
    /// Delivered.
    pub sent: i64,
    /// Given up because the destination refused them, or did not take them in `retry.maxAttempts` attempts.
    #[serde(default)]
    pub failed: i64,
    /// Attempts that were repeated.
    pub retried: i64,
    /// Given up for any other reason: the queue was full, the sink was suspended or removed.
    pub dropped: i64,
    /// Not for this sink, by its `match`.
    pub filtered: i64,
}

/// What waits in a sink's queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// Alerts that wait.
    pub depth: i64,
    /// How long the oldest of them has waited, in seconds.
    #[serde(default)]
    pub oldest_age_seconds: i64,
}
