//! What a rule resource says beside the rules: where they apply, how loud they are, how a change is tried and spread.

use std::{collections::BTreeMap, time::Duration};

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{Cell, FieldValue, Priority, Span};

/// A key of a ConfigMap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct ConfigMapRef {
    /// Namespace of the ConfigMap. Only a ClusterFalcoRule has this field; a FalcoRule reads from its own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Key whose value is the rules file. Default: `rules.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: Option<String>,
    /// Whether the ConfigMap or the key may be missing: then there are no rules. Default: false, which makes it a
    /// mistake with the reason `RefNotFound`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

impl ConfigMapRef {
    /// The key that is read where none is given.
    pub const DEFAULT_KEY: &str = "rules.yaml";

    /// The key, with its default.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(Self::DEFAULT_KEY)
    }

    /// Whether it may be missing, with the default.
    pub fn optional(&self) -> bool {
        self.optional.unwrap_or(false)
    }
}

/// Containers, by name and image: those that pass both fields, of those given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
pub struct ContainerSelector {
    /// Containers whose name in the pod matches one of these patterns; `*` stands for any text, `?` for any
    /// character. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,
    /// Containers whose image, as in `docker.io/library/nginx:1.29`, matches one of these patterns; `*` stands for
    /// any text, `?` for any character. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub images: Vec<String>,
}

/// An exception that is added to a rule. Every row of `values` gives one value for each of `fields`; the exception
/// applies when all comparisons of any row hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct RuleException {
    /// Name of the rule that gets the exception.
    #[schemars(length(min = 1, max = 256))]
    pub rule: String,
    /// Name of the exception. When the rule has one of that name, the rows of `values` are added to it.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The fields that are compared, for example `[proc.name, fd.directory]`. Not needed when the rule has an
    /// exception of that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub fields: Vec<String>,
    /// The comparison for each field, for example `["=", startswith]`. Default: `=` for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub comps: Vec<String>,
    /// Rows of values, each with one value for each field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 16)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<Vec<Cell>>,
}

/// How many alerts are sent in how much time. Each node counts for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Throttle {
    /// How many alerts of one rule with equal values of `key` are sent in one `interval`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_key: u32,
    /// Length of the time, from the first alert on, for example `1m`. From 1s to 24h.
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('24h')", "interval: from 1s to 24h"))]
    pub interval: Span,
    /// Fields that tell alerts apart, for example `[container.id, proc.name]`. Default: none, so that all alerts of
    /// a rule count together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub key: Vec<String>,
}

/// Kubernetes Events about alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct RuleEvents {
    /// Whether there are any. Default: as in the SensorConfig, which is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Only about alerts at least this serious. Default: as in the SensorConfig, which is `Warning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_priority: Option<Priority>,
    /// Regular expressions; what matches one is written as `***` in Events, which more people can read than alerts.
    /// They add to those of the SensorConfig.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub redact: Vec<String>,
}

/// Events, and how often rules must match them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct RuleTest {
    /// Name of the test, for reports.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The events, each as its fields and their values: `{evt.type: execve, proc.name: curl}`. A field that is not
    /// given has no value.
    #[schemars(length(min = 1, max = 50))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub events: Vec<TestEvent>,
    /// How often each rule must match. Rules that are not named may match or not.
    #[schemars(length(min = 1, max = 50))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["rule".into()]))]
    pub expect: Vec<Expectation>,
}

/// An event of a test: its fields and their values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
pub struct TestEvent(pub BTreeMap<String, FieldValue>);

/// How often a rule must match the events of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expectation {
    /// Name of the rule, one of this resource.
    #[schemars(length(min = 1, max = 256))]
    pub rule: String,
    /// How often it must match: 0 when it must not.
    #[schemars(range(min = 0, max = 50))]
    pub count: u32,
}

/// What a failed test means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum TestPolicy {
    /// The change is not accepted.
    Require,
    /// The status says so.
    Report,
}

/// How a change reaches the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[x_kube(
    validation = ("(has(self.strategy) && self.strategy == 'Staged') || !(has(self.steps) || has(self.interval))", "steps and interval: only the strategy Staged has them"),
)]
pub struct Rollout {
    /// `Immediate`: all nodes at once; `Staged`: a growing part of the nodes, the others run what they ran before.
    /// Default: `Immediate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Share of the nodes that run the change, step by step, in percent, ascending and ending with 100. Default:
    /// `[1, 10, 50, 100]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 20), inner(range(min = 1, max = 100)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = ("self.isSorted() && self[self.size() - 1] == 100", "steps: ascending percentages, the last of them 100"))]
    pub steps: Vec<u8>,
    /// How long a step must go well before the next one, for example `10m`. From 1s to 24h. Default: `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) >= duration('1s') && duration(self) <= duration('24h')", "interval: from 1s to 24h"))]
    pub interval: Option<Span>,
    /// When a change is undone: all nodes run again what they ran before it, and the condition `Ready` has the reason
    /// `RolledBack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
}

/// The percentages of a staged rollout where none are given.
const DEFAULT_STEPS: &[u8] = &[1, 10, 50, 100];
/// The time between steps where none is given.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);

impl Rollout {
    /// Share of the nodes that run a change, step by step, in percent; with the defaults, so `[100]` for an immediate
    /// one.
    pub fn steps(&self) -> &[u8] {
        match (self.strategy.unwrap_or(Strategy::Immediate), self.steps.as_slice()) {
            (Strategy::Immediate, _) => &[100],
            (Strategy::Staged, []) => DEFAULT_STEPS,
            (Strategy::Staged, steps) => steps,
        }
    }

    /// How long a step must go well before the next one, with its default.
    pub fn interval(&self) -> Duration {
        self.interval.map_or(DEFAULT_INTERVAL, Span::duration)
    }

    /// Whether a node that refuses a change undoes it everywhere, with the default.
    pub fn rollback_on_load_error(&self) -> bool {
        self.rollback.as_ref().and_then(|rollback| rollback.on_load_error).unwrap_or(true)
    }

    /// So many alerts in a minute on one node undo a change; none where alerts never do.
    pub fn rollback_alerts_per_minute(&self) -> Option<u32> {
        self.rollback.as_ref().and_then(|rollback| rollback.max_alerts_per_node_per_minute)
    }
}

/// How a change spreads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Strategy {
    /// To all nodes at once.
    Immediate,
    /// To a growing part of the nodes.
    Staged,
}

/// When a change is undone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// When a node refuses the rules. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_load_error: Option<bool>,
    /// When the rules of the resource send more alerts than this in one minute on any node that runs the change,
    /// while the rollout goes on. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_alerts_per_node_per_minute: Option<u32>,
}
