//! `SensorNode`: what one node's sensor does. Written by the operator, for people to look at; one per node, owned by
//! the Node and gone with it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Empty: there is nothing to want.
#[expect(clippy::duplicated_attributes, reason = "columns may have the same type and priority")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "gyrfalcon.dev",
    version = "v1alpha1",
    kind = "SensorNode",
    plural = "sensornodes",
    shortname = "sn",
    category = "security",
    category = "falco",
    status = "SensorNodeStatus",
    derive = "PartialEq",
    doc = "What the sensor of one node does. Written by the operator, to be read only: it has the name of the Node, and goes with it. A sensor without a cluster ignores this kind.",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Kernel", type_ = "string", json_path = ".status.kernel"),
    printcolumn(name = "Bundle", type_ = "string", json_path = ".status.bundle"),
    printcolumn(name = "Events/s", type_ = "integer", json_path = ".status.eventsPerSecond"),
    printcolumn(name = "Lost", type_ = "integer", json_path = ".status.lost"),
    printcolumn(name = "Last Seen", type_ = "date", json_path = ".status.lastSeen"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Driver", type_ = "string", json_path = ".status.driver", priority = 1),
    printcolumn(name = "Spooled", type_ = "integer", json_path = ".status.spooled", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
pub struct SensorNodeSpec {}

/// What a sensor does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SensorNodeStatus {
    /// Name of the Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Version of the sensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// Release of the kernel, as `uname -r` prints it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub kernel: Option<String>,
    /// Architecture of the kernel, for example `x86_64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub architecture: Option<String>,
    /// How events are taken from the kernel, for example `modern`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub driver: Option<String>,
    /// Where the sensor is attached in the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub hooks: Vec<String>,
    /// The bundle that runs: `sha256:` and 12 characters of its hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub bundle: Option<String>,
    /// Whether the sensor runs what it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// Why the state is what it is, as a sentence for people; absent while there is nothing to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// Events that the sensor judges, per second, over the last minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub events_per_second: Option<i64>,
    /// What was lost since the sensor started, of all kinds together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub lost: Option<i64>,
    /// What was lost since the sensor started, by kind; the kinds are those of the metric
    /// `gyrfalcon_losses_total`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub losses: BTreeMap<String, i64>,
    /// Alerts that wait on the node for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub spooled: Option<i64>,
    /// Memory of the sensor, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub memory_bytes: Option<i64>,
    /// When the operator last heard of the sensor, to five minutes; exact when the state last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// Which spool the counts in `hits` belong to. A sensor with a new spool counts from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub spool: Option<String>,
    /// How often the rules of each resource matched on this node, within the life of the spool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    pub hits: Vec<UnitHits>,
}

impl SensorNodeStatus {
    /// How many resources are counted.
    pub const MAX_HITS: usize = 2000;
}

/// Whether a sensor runs what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum NodeState {
    /// It is connected and runs the current bundle.
    Ready,
    /// It is connected and does not run the current bundle yet.
    Stale,
    /// It is not connected.
    Offline,
    /// It is connected and refused the current bundle, or cannot see what happens on its node.
    Failed,
}

/// How often the rules of one resource matched on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnitHits {
    /// `metadata.uid` of the FalcoRule or ClusterFalcoRule.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Matches, in all modes.
    pub hits: i64,
    /// Matches that sent no alert because of `spec.throttle`.
    #[serde(default)]
    pub suppressed: i64,
}
