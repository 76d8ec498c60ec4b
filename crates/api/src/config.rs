//! `SensorConfig`: what holds for all sensors and for the operator. There is one, named `default`.
//!
//! Every field may be missing, and so may the resource: [`SensorConfigSpec`]'s methods give what then holds.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{condition::Condition, scalar::Priority};

/// Settings of all sensors and of the operator. Every field has a default, and so has a cluster without this resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "gyrfalcon.dev",
    version = "v1alpha1",
    kind = "SensorConfig",
    plural = "sensorconfigs",
    shortname = "scfg",
    category = "security",
    category = "falco",
    status = "SensorConfigStatus",
    derive = "PartialEq",
    doc = "Settings of all sensors and of the operator. There is one, named default; without it, the defaults hold. A sensor without a cluster takes its settings from the command line and ignores this kind.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Degraded", type_ = "string", json_path = ".status.conditions[?(@.type=='Degraded')].status"),
    printcolumn(name = "Sensors", type_ = "integer", json_path = ".status.sensors.ready"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.sensors.desired"),
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.bundle.rules"),
    printcolumn(name = "Bundle", type_ = "string", json_path = ".status.bundle.hash"),
    printcolumn(name = "Lost", type_ = "integer", json_path = ".status.drops.total"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    validation = kube::core::Rule::new("self.metadata.name == 'default'").message("metadata.name: the one SensorConfig is named default"),
)]
pub struct SensorConfigSpec {
    /// Which rules get an event: `first`, only the first that matches, in load order; `all`, every one. The rules of a
    /// namespace and those of the cluster do not hide each other. Default: `first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_matching: Option<RuleMatching>,

    /// Leave out rules of all resources that are less serious than this. Default: `Debug`, which leaves out nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_priority: Option<Priority>,

    /// What is added to alerts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Outputs>,

    /// Kubernetes Events about alerts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsConfig>,

    /// How much a namespace may ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quotas: Option<Quotas>,

    /// How much the sensors log: `error`, `warn`, `info`, `debug` or `trace`. Default: what the sensor's command line
    /// says, which is `info` unless the chart says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

impl SensorConfigSpec {
    /// The name of the one resource of this kind.
    pub const NAME: &str = "default";

    /// Which rules get an event, with the default.
    pub fn rule_matching(&self) -> RuleMatching {
        self.rule_matching.unwrap_or(RuleMatching::First)
    }

    /// The least serious priority that is loaded, with its default.
    pub fn minimum_priority(&self) -> Priority {
        self.minimum_priority.unwrap_or(Priority::Debug)
    }

    /// What is added to alerts; nothing but the default where nothing is given.
    pub fn outputs(&self) -> Outputs {
        self.outputs.clone().unwrap_or_default()
    }

    /// The settings of Events; the defaults where nothing is given.
    pub fn events(&self) -> EventsConfig {
        self.events.clone().unwrap_or_default()
    }

    /// How much a namespace may ask for; the defaults where nothing is given.
    pub fn quotas(&self) -> Quotas {
        self.quotas.clone().unwrap_or_default()
    }
}

/// Which rules get an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "lowercase")]
pub enum RuleMatching {
    /// Only the first that matches, in load order.
    First,
    /// All that match.
    All,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what fails.
    Error,
    /// Also what may be about to.
    Warn,
    /// Also what happens in the normal course.
    Info,
    /// Also what helps to find a mistake.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word, as it stands in a spec and in a filter of the crate `tracing`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What is added to alerts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Outputs {
    /// Fields that every alert carries among its `output_fields`, for example `[proc.exepath]`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub append_fields: Vec<String>,

    /// What is added to the alerts of some rules, in this order. Falco: `append_output`. Default: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub append_output: Vec<AppendOutput>,

    /// Whether container and pod are added to the output of every rule on system calls, as Falco does. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_output: Option<bool>,
}

impl Outputs {
    /// Whether container and pod are added, with the default.
    pub fn suggested_output(&self) -> bool {
        self.suggested_output.unwrap_or(true)
    }
}

/// Something added to the alerts of the rules that pass every field of `match`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.extraOutput) || has(self.extraFields)", "one of extraOutput and extraFields is needed"))]
pub struct AppendOutput {
    /// The rules. Default: all.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<AppendMatch>,
    /// Text behind the output, with fields such as `%proc.cmdline` in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub extra_output: Option<String>,
    /// Fields among the `output_fields`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub extra_fields: Vec<String>,
}

/// Rules, by what they are: those that pass every field given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
pub struct AppendMatch {
    /// The rule of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub rule: Option<String>,
    /// Rules for this source: `syscall` or `k8s_audit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub source: Option<String>,
    /// Rules that have all of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tags: Vec<String>,
}

/// Kubernetes Events about alerts. Events are for looking at, and expire; sinks are the record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct EventsConfig {
    /// Whether there are any. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Only about alerts at least this serious. Default: `Warning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_priority: Option<Priority>,
    /// Namespace of Events about nodes, which are in no namespace: `default` or `kube-system`. Default: `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_events_namespace: Option<NodeEventsNamespace>,
    /// How many Events are written. Alerts beyond it are summed up in fewer Events, and counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budgets: Option<Budgets>,
    /// Regular expressions; what matches one is written as `***` in Events, which more people can read than alerts.
    /// Words that look like passwords and tokens are left out in any case. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub redact: Vec<String>,
}

impl EventsConfig {
    /// Whether there are Events, with the default.
    pub fn enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// The least serious priority that Events are written for, with its default.
    pub fn minimum_priority(&self) -> Priority {
        self.minimum_priority.unwrap_or(Priority::Warning)
    }

    /// Namespace of Events about nodes, with its default.
    pub fn node_events_namespace(&self) -> &'static str {
        match self.node_events_namespace.unwrap_or(NodeEventsNamespace::Default) {
            NodeEventsNamespace::Default => "default",
            NodeEventsNamespace::KubeSystem => "kube-system",
        }
    }

    /// The budget of the whole cluster, with its default.
    pub fn controller_budget(&self) -> Budget {
        let budget = self.budgets.as_ref().and_then(|budgets| budgets.controller.clone());
        budget.unwrap_or(Budget { per_second: 25.0, burst: 200 })
    }

    /// The budget of each namespace, with its default.
    pub fn namespace_budget(&self) -> Budget {
        let budget = self.budgets.as_ref().and_then(|budgets| budgets.namespace.clone());
        budget.unwrap_or(Budget { per_second: 5.0, burst: 50 })
    }

    /// The budget of each node, with its default.
    pub fn node_budget(&self) -> Budget {
        let budget = self.budgets.as_ref().and_then(|budgets| budgets.node.clone());
        budget.unwrap_or(Budget { per_second: 0.5, burst: 25 })
    }
}

/// Where Events about nodes are: Kubernetes allows two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "kebab-case")]
pub enum NodeEventsNamespace {
    /// Where kubectl looks.
    Default,
    /// Where fewer people look.
    KubeSystem,
}

/// How many Events are written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct Budgets {
    /// For the whole cluster: creations and changes of Events. Default: 25 per second, 200 at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<Budget>,
    /// For each namespace: creations and changes of Events. Default: 5 per second, 50 at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Budget>,
    /// For alerts from each node: creations of Events. Default: 0.5 per second, 25 at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Budget>,
}

/// A rate, and what may come at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Events per second in the long run. May be a fraction: 0.5 is one in two seconds.
    // The API server compares whole numbers with the whole part of a bound, so 0 needs a rule of its own.
    #[schemars(range(min = 0.001, max = 1000))]
    #[x_kube(validation = ("double(self) > 0.0", "perSecond: more than 0"))]
    pub per_second: f64,
    /// Events at once after a quiet time.
    #[schemars(range(min = 1, max = 10_000))]
    pub burst: u32,
}

/// How much a namespace may ask for. What is beyond it is not accepted, with the reason `QuotaExceeded`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct Quotas {
    /// Rules of all FalcoRules of one namespace together. Default: 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub per_namespace_rules: Option<u32>,
    /// FalcoRules in one namespace. Default: 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub per_namespace_resources: Option<u32>,
    /// AlertSinks in one namespace. Those that were created last are refused first. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub per_namespace_sinks: Option<u32>,
}

impl Quotas {
    /// Rules of one namespace, with the default.
    pub fn per_namespace_rules(&self) -> u32 {
        self.per_namespace_rules.unwrap_or(200)
    }

    /// FalcoRules of one namespace, with the default.
    pub fn per_namespace_resources(&self) -> u32 {
        self.per_namespace_resources.unwrap_or(50)
    }

    /// AlertSinks of one namespace, with the default.
    pub fn per_namespace_sinks(&self) -> u32 {
        self.per_namespace_sinks.unwrap_or(10)
    }
}

/// How the sensors are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SensorConfigStatus {
    /// The `metadata.generation` that this status describes; -1 before the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled and Degraded, at most one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many sensors there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensors: Option<SensorCounts>,
    /// What the sensors are given to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleStatus>,
    /// What the sensors lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drops: Option<Drops>,
}

/// How many sensors there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
pub struct SensorCounts {
    /// Nodes that should have one: those that are ready.
    pub desired: u32,
    /// Sensors that are connected and run the current bundle.
    pub ready: u32,
    /// Sensors that are connected and refused the bundle, or lose events.
    pub degraded: u32,
    /// How many sensors have which version, most sensors first; the first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["version".into()]))]
    pub versions: Vec<VersionCount>,
}

/// How many sensors have a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionCount {
    /// The version.
    #[schemars(length(max = 64))]
    pub version: String,
    /// How many sensors have it.
    pub sensors: u32,
}

/// What the sensors are given to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct BundleStatus {
    /// `sha256:` and 12 characters of its hash.
    #[schemars(length(max = 64))]
    pub hash: String,
    /// How many rules are in it.
    pub rules: u32,
}

/// What the sensors lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct Drops {
    /// Events and alerts that no sensor could process, on all nodes, for any reason. The reasons are in the
    /// SensorNodes.
    pub total: i64,
}
