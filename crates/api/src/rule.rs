//! `FalcoRule` and `ClusterFalcoRule`: detection rules in Falco's language.
//!
//! Both kinds have one spec. The namespaced kind lacks `order` in its schema (see [`crate::crd`]) and, in a cluster,
//! sees only what happens in its namespace. How a spec becomes text for the rule loader is in [`crate::falco`].

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    condition::Condition,
    scalar::{Cell, Priority, Scalar},
};

/// Detection rules, given in exactly one of the fields `rules`, `rule` and `items`.
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
    validation = kube::core::Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters"),
)]
#[x_kube(
    validation = ("[has(self.rules), has(self.rule), has(self.items)].filter(x, x).size() == 1", "exactly one of rules, rule and items"),
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

    /// Place in the load order of all ClusterFalcoRules, ascending; resources of the same order load by name. A
    /// resource can use, append to and override what was loaded before it. Default: 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 999))]
    pub order: Option<u16>,

    /// What a match does. `Alert` sends an alert; `Shadow` counts the match and sends nothing, to try a rule out;
    /// `Off` does not load the rules, though their macros and lists stay available. Default: `Alert`.
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
}

/// The same fields as those of a FalcoRule, and `order`.
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

    /// What a match does, with its default.
    pub fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::Alert)
    }

    /// Whether changes are not to be followed.
    pub fn suspended(&self) -> bool {
        self.suspend.unwrap_or(false)
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
}

/// One entry of `items`: exactly one of rule, macro and list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = ("[has(self.rule), has(self.macro), has(self.list)].filter(x, x).size() == 1", "exactly one of rule, macro and list"),
    validation = ("!has(self.rule) || has(self.rule.override) || (has(self.rule.condition) && has(self.rule.output) && has(self.rule.priority))", "rule: condition, output and priority are needed unless the rule overrides another"),
)]
pub struct RuleItem {
    /// Key of the entry, and the name of what it defines unless that has a name of its own.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,

    /// A rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub rule: Option<RuleSpec>,

    /// A macro: a condition with a name.
    #[serde(rename = "macro", skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub macro_: Option<MacroSpec>,

    /// A list of values with a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub list: Option<ListSpec>,
}

/// A rule, with Falco's keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct RuleSpec {
    /// Name of the rule. Default: the name of the entry, or of the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub rule: Option<String>,

    /// What the rule detects, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384))]
    pub desc: Option<String>,

    /// The filter that an event must pass, for example `evt.type = execve and proc.name = nc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub condition: Option<String>,

    /// Text of the alert, with fields such as `%proc.cmdline` in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16_384))]
    pub output: Option<String>,

    /// How serious a match is: Emergency, Alert, Critical, Error, Warning, Notice, Informational (or Info), Debug, in
    /// any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,

    /// Where the events come from: `syscall` or `k8s_audit`. Default: `syscall`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub source: Option<String>,

    /// Whether the rule is on. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// Words that alerts carry and sinks can select by, for example `container` or `T1059`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub tags: Vec<String>,

    /// Cases in which the rule does not match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub exceptions: Vec<ExceptionSpec>,

    /// Whether to warn when the condition names no event types, which makes a rule expensive. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warn_evttypes: Option<bool>,

    /// Skip the rule, with a warning, when its condition names a field that does not exist. Default: false, which
    /// makes such a field an error.
    #[serde(rename = "skip-if-unknown-filter", skip_serializing_if = "Option::is_none")]
    pub skip_if_unknown_filter: Option<bool>,

    /// Makes this a change to a rule that was loaded before: for each key given here with a value above, `append`
    /// adds to what the rule has, `replace` takes its place.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16, "minProperties" = 1))]
    pub override_: Option<BTreeMap<String, Override>>,
}

/// How a key of an override changes what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "lowercase")]
pub enum Override {
    /// Add to it.
    Append,
    /// Take its place.
    Replace,
}

/// A case in which a rule does not match. Every row of `values` gives one value for each of `fields`; the exception
/// applies when all comparisons of any row hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExceptionSpec {
    /// Name of the exception, unique in its rule.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The fields that are compared, for example `[proc.name, fd.directory]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub fields: Vec<String>,
    /// The comparison for each field, for example `["=", startswith]`. Default: `=` for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    pub comps: Vec<String>,
    /// Rows of values, each with one value for each field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 16)))]
    pub values: Vec<Vec<Cell>>,
}

/// A macro, with Falco's keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct MacroSpec {
    /// Name of the macro. Default: the name of the entry.
    #[serde(rename = "macro", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub macro_: Option<String>,
    /// The filter that the name stands for.
    #[schemars(length(min = 1, max = 65_536))]
    pub condition: String,
    /// Makes this a change to a macro that was loaded before: `condition: append` or `condition: replace`.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16, "minProperties" = 1))]
    pub override_: Option<BTreeMap<String, Override>>,
}

/// A list, with Falco's keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct ListSpec {
    /// Name of the list. Default: the name of the entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub list: Option<String>,
    /// The values; the name of another list stands for its values.
    #[schemars(length(max = 10_000))]
    pub items: Vec<Scalar>,
    /// Makes this a change to a list that was loaded before: `items: append` or `items: replace`.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16, "minProperties" = 1))]
    pub override_: Option<BTreeMap<String, Override>>,
}

/// What the cluster makes of the rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FalcoRuleStatus {
    /// The `metadata.generation` that this status describes; -1 before the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Accepted and Programmed, at most one of each type.
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
    /// How many nodes run the rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// `nodes` as a text such as `998/1000`, for `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub loaded_nodes: Option<String>,
    /// How often the rules matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hits: Option<Hits>,
    /// When a rule last matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_triggered: Option<Time>,
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
}

/// A mistake, or what is probably one, with its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleProblem {
    /// Stable word for the kind of problem, for example `LOAD_ERR_COMPILE_CONDITION`.
    #[schemars(length(max = 64))]
    pub code: String,
    /// What is wrong.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Name of the rule, macro or list concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub item: Option<String>,
    /// Field of the resource, for example `spec.rule.condition`.
    #[schemars(length(max = 256))]
    pub path: String,
    /// Line in that field, from 1.
    pub line: u32,
    /// Column in that line, from 1.
    pub column: u32,
}

/// How many nodes run the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct NodeCounts {
    /// Nodes that should.
    pub desired: u32,
    /// Nodes that do, at the observed generation.
    pub loaded: u32,
    /// Nodes that refused them.
    pub failed: u32,
}

/// How often rules matched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct Hits {
    /// Matches since the resource was created, in all modes.
    pub total: i64,
}
