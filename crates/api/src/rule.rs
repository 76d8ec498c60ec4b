//! `FalcoRule` and `ClusterFalcoRule`: detection rules in Falco's language.
//!
//! Both kinds have one spec. The namespaced kind lacks a few fields in its schema (see [`crate::crd`]) and, in a
//! cluster, sees only what happens in its namespace. How a spec becomes text for the rule loader is in
//! [`crate::falco`].

mod item;
mod status;
mod tuning;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    item::{ExceptionSpec, ListSpec, MacroSpec, Override, RuleItem, RuleSpec},
    status::{
        FalcoRuleStatus, Hits, NodeCounts, NodeFailure, RolloutPhase, RolloutStatus, RuleOverride, RuleProblem,
        RuleSummary, TestFailure, TestSummary, TopRule,
    },
    tuning::{
        ConfigMapRef, ContainerSelector, Expectation, Rollback, Rollout, RuleEvents, RuleException, RuleTest, Strategy,
        TestEvent, TestPolicy, Throttle,
    },
};
use crate::{scalar::Priority, selector::LabelSelector};

/// Detection rules, given in exactly one of the fields `rules`, `rule`, `items` and `configMapRef`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "gyrfalcon.dev",
    version = "v1alpha1",
    kind = "FalcoRule",
    plural = "falcorules",
    shortname = "frule",
    shortname = "fr",
    category = "security",
    category = "falco",
    namespaced,
    status = "FalcoRuleStatus",
    derive = "PartialEq",
    selectable = ".spec.mode",
    doc = "Detection rules in Falco's language. In a cluster they see only what happens in their own namespace; a sensor without a cluster has no namespaces and lets them see everything.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.summary.rules"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.loadedNodes"),
    printcolumn(name = "Hits", type_ = "integer", json_path = ".status.hits.total"),
    printcolumn(name = "Last Hit", type_ = "date", json_path = ".status.lastTriggered"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Bundle", type_ = "string", json_path = ".status.bundle", priority = 1),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters"),
)]
#[x_kube(
    validation = ("[has(self.rules), has(self.rule), has(self.items), has(self.configMapRef)].filter(x, x).size() == 1", "exactly one of rules, rule, items and configMapRef"),
    validation = ("!has(self.rule) || has(self.rule.override) || (has(self.rule.condition) && has(self.rule.output) && has(self.rule.priority))", "rule: condition, output and priority are needed unless the rule overrides another"),
)]
pub struct FalcoRuleSpec {
    /// A Falco rules file, verbatim: rules, macros, lists, appends and overrides, comments and all. Mistakes are
    /// reported with line and column of this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 524_288))]
    pub rules: Option<String>,

    /// A single rule, with Falco's keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub rule: Option<RuleSpec>,

    /// Rules, macros and lists as a list that other tools can patch entry by entry. They are loaded in this order:
    /// an entry may use what stands above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 500))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub items: Vec<RuleItem>,

    /// A ConfigMap with a Falco rules file. It is followed: a change to it is a change of the rules. A sensor without
    /// a cluster has no ConfigMaps and refuses this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapRef>,

    /// Place in the load order of all ClusterFalcoRules, ascending; resources of the same order load by name. A
    /// resource can use, append to and override what was loaded before it. Default: 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 999))]
    pub order: Option<u16>,

    /// What a match does. `Alert` sends an alert; `Shadow` counts the match and sends nothing, to try a rule out;
    /// `Disabled` does not load the rules, though their macros and lists stay available. `"Off"` is the same, and needs
    /// its quotes: kubectl takes the bare word for `false`. Default: `Alert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,

    /// Stop following changes to this resource: what is loaded stays loaded. A sensor that starts while this is true
    /// has nothing loaded for the resource and loads nothing. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Leave out rules of this resource that are less serious than this. Default: `Debug`, which leaves out nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_priority: Option<Priority>,

    /// Names of rules that are switched off after this resource was loaded: its own, or of resources loaded before
    /// it. A name that no loaded rule bears is a mistake and is reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub disable: Vec<String>,

    /// Load only rules of this resource that have one of these tags. Default: all rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tags_include: Vec<String>,

    /// Leave out rules of this resource that have one of these tags, also those that `tagsInclude` names. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tags_exclude: Vec<String>,

    /// Cases in which rules do not match, added to the exceptions that the rules have. A FalcoRule can name only its
    /// own rules, a ClusterFalcoRule also rules of resources loaded before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["rule".into(), "name".into()]))]
    pub exceptions: Vec<RuleException>,

    /// Nodes that load the rules, by the labels of the Node. The others count as `skipped`. Default: all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub node_selector: Option<LabelSelector>,

    /// Only events of pods in namespaces with these labels. Default: all namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub namespace_selector: Option<LabelSelector>,

    /// Only events of pods with these labels. Default: all pods, and containers that belong to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub pod_selector: Option<LabelSelector>,

    /// Only events of these containers. Default: all containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_selector: Option<ContainerSelector>,

    /// Also events of the node itself, outside of any container. Default: true without `namespaceSelector`,
    /// `podSelector` and `containerSelector`, else false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_host: Option<bool>,

    /// Send at most so many alerts in so much time. What is left out is counted in `status.hits.suppressed`.
    /// Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,

    /// Kubernetes Events about alerts of these rules. Default: as in the SensorConfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<RuleEvents>,

    /// Events that the rules must or must not match. They run when the resource changes, before any node gets it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub tests: Vec<RuleTest>,

    /// What a failed test means. `Require`: the change is not accepted, and what was accepted before stays loaded;
    /// `Report`: the condition `TestsPassed` says so. Default: `Require`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_policy: Option<TestPolicy>,

    /// How a change reaches the nodes. Default: all at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// The same fields as those of a FalcoRule, and those that only the cluster has a say in: `order`, `nodeSelector`,
/// `namespaceSelector`, `includeHost` and the namespace of `configMapRef`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[serde(transparent)]
#[kube(
    group = "gyrfalcon.dev",
    version = "v1alpha1",
    kind = "ClusterFalcoRule",
    plural = "clusterfalcorules",
    shortname = "cfrule",
    shortname = "cfr",
    category = "security",
    category = "falco",
    status = "FalcoRuleStatus",
    derive = "PartialEq",
    selectable = ".spec.mode",
    doc = "Detection rules in Falco's language that see the whole cluster: every namespace, and the nodes themselves.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.summary.rules"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.loadedNodes"),
    printcolumn(name = "Hits", type_ = "integer", json_path = ".status.hits.total"),
    printcolumn(name = "Last Hit", type_ = "date", json_path = ".status.lastTriggered"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Bundle", type_ = "string", json_path = ".status.bundle", priority = 1),
    printcolumn(name = "Order", type_ = "integer", json_path = ".spec.order", priority = 1),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters"),
)]
pub struct ClusterFalcoRuleSpec(pub FalcoRuleSpec);

impl FalcoRuleSpec {
    /// Place in the load order where none is given.
    pub const DEFAULT_ORDER: u16 = 500;

    /// The place in the load order, with its default.
    pub fn order(&self) -> u16 {
        self.order.unwrap_or(Self::DEFAULT_ORDER)
    }

    /// What a match does, with its default. [`Mode::Disabled`] comes as [`Mode::Off`].
    pub fn mode(&self) -> Mode {
        match self.mode {
            Some(Mode::Disabled) => Mode::Off,
            Some(mode) => mode,
            None => Mode::Alert,
        }
    }

    /// Whether changes are not to be followed.
    pub fn suspended(&self) -> bool {
        self.suspend.unwrap_or(false)
    }

    /// What a failed test means, with its default.
    pub fn test_policy(&self) -> TestPolicy {
        self.test_policy.unwrap_or(TestPolicy::Require)
    }

    /// Whether the rules see the node itself, with the default of a ClusterFalcoRule. A FalcoRule in a cluster never
    /// does.
    pub fn include_host(&self) -> bool {
        let selective =
            self.namespace_selector.is_some() || self.pod_selector.is_some() || self.container_selector.is_some();
        self.include_host.unwrap_or(!selective)
    }

    /// The least serious priority that is loaded, with its default.
    pub fn minimum_priority(&self) -> Priority {
        self.minimum_priority.unwrap_or(Priority::Debug)
    }
}

/// What a match does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Mode {
    /// Send an alert.
    Alert,
    /// Count the match, send nothing.
    Shadow,
    /// Don't load the rules.
    Off,
    /// The same, in a word that YAML 1.1 does not take for `false`.
    Disabled,
}
