//! Rules, macros and lists in typed form, with Falco's keys.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{Cell, Priority, Scalar};

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
