//! What the cluster says about a rule resource.
//!
//! Written by the operator alone, and bounded: it has the same size in a cluster of ten nodes and of ten thousand.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;

/// What the cluster makes of the rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FalcoRuleStatus {
    /// The `metadata.generation` that this status describes; -1 before the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub observed_generation: Option<i64>,
    /// The `metadata.generation` that nodes run: less than `observedGeneration` while a change is not accepted,
    /// suspended or rolled back. Absent while none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub serving_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Accepted, Programmed, TestsPassed and AlertStorm, at most one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What the resource contains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<RuleSummary>,
    /// Mistakes that keep the resource from being accepted; the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub errors: Vec<RuleProblem>,
    /// Things that are probably not meant; the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub warnings: Vec<RuleProblem>,
    /// Rules of other resources that this one redefines, changes or disables; the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub overrides: Vec<RuleOverride>,
    /// Rules of this resource that others redefine, change or disable; the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub overridden_by: Vec<RuleOverride>,
    /// How many nodes run the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// `nodes` as a text such as `998/1000`, for `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub loaded_nodes: Option<String>,
    /// Why nodes do not run the rules, most nodes first; the first 5 reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub node_failures: Vec<NodeFailure>,
    /// The bundle that carries the rules to the nodes: `sha256:` and 12 characters of its hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub bundle: Option<String>,
    /// How far a staged rollout is; absent without `spec.rollout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// How often the rules matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hits: Option<Hits>,
    /// When a rule last matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_triggered: Option<Time>,
    /// The rules that matched most often, most hits first; the first 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub top_rules: Vec<TopRule>,
    /// What `spec.tests` came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tests: Option<TestSummary>,
}

impl FalcoRuleStatus {
    /// How many errors are kept, and how many warnings.
    pub const MAX_PROBLEMS: usize = 20;
    /// How many overrides are kept, either way.
    pub const MAX_OVERRIDES: usize = 20;
    /// How many reasons of failing nodes are kept.
    pub const MAX_NODE_FAILURES: usize = 5;
    /// How many of the most frequent rules are kept.
    pub const MAX_TOP_RULES: usize = 10;
}

/// What a rule resource contains.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct RuleSummary {
    /// Rules.
    pub rules: u32,
    /// Macros.
    pub macros: u32,
    /// Lists.
    pub lists: u32,
    /// Rules that are on: neither disabled nor left out by priority or tags.
    #[serde(default)]
    pub enabled: u32,
    /// Warnings, also those that `warnings` has no place for.
    #[serde(default)]
    pub warnings: u32,
}

/// A mistake, or what is probably one, with its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleProblem {
    /// Name of the rule, macro or list concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub rule: Option<String>,
    /// Stable word for the kind of problem, for example `LOAD_ERR_COMPILE_CONDITION`.
    #[schemars(length(max = 64))]
    pub code: String,
    /// What is wrong.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Field of the resource, for example `spec.rule.condition`.
    #[schemars(length(max = 256))]
    pub path: String,
    /// Line in that field, from 1.
    pub line: u32,
    /// Column in that line, from 1.
    pub column: u32,
}

/// A rule that one resource defines and another one changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleOverride {
    /// Name of the rule.
    #[schemars(length(max = 256))]
    pub rule: String,
    /// The other resource, for example `ClusterFalcoRule/core` or `FalcoRule/shop/no-curl`.
    #[schemars(length(max = 512))]
    pub resource: String,
}

/// How many nodes run the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct NodeCounts {
    /// Nodes that should. A node that is not ready does not count.
    pub desired: u32,
    /// Nodes that do, at the serving generation.
    pub loaded: u32,
    /// Nodes that run an older bundle, or have not said what they run.
    #[serde(default)]
    pub stale: u32,
    /// Nodes that refused them.
    pub failed: u32,
    /// Nodes that need not, by `spec.nodeSelector`.
    #[serde(default)]
    pub skipped: u32,
}

/// Nodes that do not run the rules for the same reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct NodeFailure {
    /// Why, as one word for programs: one of the reasons of the condition `Programmed`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Why, as a sentence for people.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// How many nodes.
    pub nodes: u32,
    /// Names of some of them, at most 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub examples: Vec<String>,
}

impl NodeFailure {
    /// How many nodes are named.
    pub const MAX_EXAMPLES: usize = 3;
}

/// How far a staged rollout is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct RolloutStatus {
    /// The step, from 1, of `spec.rollout.steps`.
    pub step: u32,
    /// Share of the nodes that get the change in this step, in percent.
    #[schemars(range(max = 100))]
    pub percent: u8,
    /// Whether the rollout goes on, has reached all nodes, or was undone.
    pub phase: RolloutPhase,
    /// When the step began.
    pub since: Time,
    /// Why the rollout is where it is, as a sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// Where a staged rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum RolloutPhase {
    /// Some nodes run the change; after `spec.rollout.interval` the next step follows.
    Progressing,
    /// All nodes run it.
    Completed,
    /// It did harm, and all nodes run again what they ran before. A new change begins a new rollout.
    RolledBack,
}

/// How often rules matched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct Hits {
    /// Matches since `since`, in all modes, on all nodes. Never decreases.
    pub total: i64,
    /// Matches in the last hour.
    #[serde(rename = "last1h", default)]
    pub last_hour: i64,
    /// Matches that sent no alert because of `spec.throttle`.
    #[serde(default)]
    pub suppressed: i64,
    /// When counting began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The part of `total` that was counted on nodes that no longer exist, or before their counters began anew.
    #[serde(default)]
    pub retired: i64,
}

/// How often one rule matched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopRule {
    /// Name of the rule.
    #[schemars(length(max = 256))]
    pub rule: String,
    /// Its matches since `status.hits.since`.
    pub hits: i64,
    /// When it last matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_triggered: Option<Time>,
}

/// What the tests of a resource came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
pub struct TestSummary {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// What failed; the first 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub failures: Vec<TestFailure>,
}

impl TestSummary {
    /// How many failures are kept.
    pub const MAX_FAILURES: usize = 10;
}

/// A test that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestFailure {
    /// Name of the test.
    #[schemars(length(max = 256))]
    pub name: String,
    /// What was expected, for example `curl in checkout: 1`.
    #[schemars(length(max = 1024))]
    pub want: String,
    /// What happened instead, for example `curl in checkout: 0`.
    #[schemars(length(max = 1024))]
    pub got: String,
}
