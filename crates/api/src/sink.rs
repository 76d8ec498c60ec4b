//! `AlertSink` and `ClusterAlertSink`: where alerts go.
//!
//! Both kinds have one spec. In a cluster the namespaced kind gets only alerts about its own namespace. The fields say
//! what is wanted; how alerts are queued, retried and written is the crate `sinks`. Credentials are never in a spec,
//! only the names of the Secrets that hold them: see [`crate::secret`].

mod status;
mod webhook;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    status::{AlertSinkStatus, QueueStatus, SinkFailure, SinkTotals},
    webhook::{BasicAuth, Header, HeaderAuth, Method, WebhookAuth, WebhookSink},
};
use crate::{
    scalar::{Priority, Size, Span},
    secret::{ConfigMapKeyRef, SecretKeyRef},
};

/// A destination of alerts: exactly one of the fields `stdout`, `file`, `webhook` and `slack`, and which alerts it
/// gets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "gyrfalcon.dev",
    version = "v1alpha1",
    kind = "AlertSink",
    plural = "alertsinks",
    shortname = "asink",
    category = "security",
    category = "falco",
    namespaced,
    status = "AlertSinkStatus",
    derive = "PartialEq",
    doc = "A destination of alerts. In a cluster it gets only alerts about its own namespace; a sensor without a cluster has no namespaces and gives it every alert.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.type"),
    printcolumn(name = "Sent", type_ = "integer", json_path = ".status.counters.sent"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counters.failed"),
    printcolumn(name = "Queue", type_ = "integer", json_path = ".status.queue.depth"),
    printcolumn(name = "Last OK", type_ = "date", json_path = ".status.lastDelivered"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Dropped", type_ = "integer", json_path = ".status.counters.dropped", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters"),
)]
#[x_kube(
    validation = ("[has(self.stdout), has(self.file), has(self.webhook), has(self.slack)].filter(x, x).size() == 1", "exactly one of stdout, file, webhook and slack"),
    validation = ("!has(self.timeout) || has(self.webhook) || has(self.slack)", "timeout: only webhook and slack have one"),
)]
pub struct AlertSinkSpec {
    /// Write to the standard output: of the operator in a cluster, else of the sensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StdoutSink>,

    /// Append to a file on the host of a sensor without a cluster. In a cluster a file is refused, with the reason
    /// `Unsupported`: there is no one node whose file it would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSink>,

    /// Send each alert as an HTTP request, with Falco's JSON as its body. The body of the answer is ignored; redirects
    /// are not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSink>,

    /// Send each alert as a message to Slack, Mattermost or Rocket.Chat, through an incoming webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackSink>,

    /// Which alerts go here: those that pass every field given. Default: all.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<AlertMatch>,

    /// Where alerts wait while the destination is slow or away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueSpec>,

    /// How often and how fast a failed delivery is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,

    /// Deliver no faster than this. Alerts beyond it wait in the queue. Default: no limit; with `slack` 1 per second
    /// and a burst of 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,

    /// Longest time for one attempt of a webhook or Slack message, from looking up the name to the answer. From 1ms to 10m.
    /// Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('10m')", "timeout: from 1ms to 10m"))]
    pub timeout: Option<Span>,

    /// Send nothing. Alerts that arrive meanwhile are not kept for later. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// The same fields as those of an AlertSink, and `match.namespaces`. Secrets and ConfigMaps are those in the namespace
/// of the operator.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[serde(transparent)]
#[kube(
    group = "gyrfalcon.dev",
    version = "v1alpha1",
    kind = "ClusterAlertSink",
    plural = "clusteralertsinks",
    shortname = "casink",
    category = "security",
    category = "falco",
    status = "AlertSinkStatus",
    derive = "PartialEq",
    doc = "A destination of alerts about the whole cluster: every namespace, and the nodes themselves.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.type"),
    printcolumn(name = "Sent", type_ = "integer", json_path = ".status.counters.sent"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counters.failed"),
    printcolumn(name = "Queue", type_ = "integer", json_path = ".status.queue.depth"),
    printcolumn(name = "Last OK", type_ = "date", json_path = ".status.lastDelivered"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Dropped", type_ = "integer", json_path = ".status.counters.dropped", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters"),
)]
pub struct ClusterAlertSinkSpec(pub AlertSinkSpec);

/// The one destination that a spec names.
#[derive(Debug, Clone, PartialEq)]
pub enum Destination {
    /// Standard output.
    Stdout(StdoutSink),
    /// A file.
    File(FileSink),
    /// An HTTP receiver.
    Webhook(Box<WebhookSink>),
    /// A chat.
    Slack(SlackSink),
}

impl AlertSinkSpec {
    /// The destination; none when the spec names none or several, which a checked resource doesn't.
    pub fn destination(&self) -> Option<Destination> {
        match (&self.stdout, &self.file, &self.webhook, &self.slack) {
            (Some(stdout), None, None, None) => Some(Destination::Stdout(stdout.clone())),
            (None, Some(file), None, None) => Some(Destination::File(file.clone())),
            (None, None, Some(webhook), None) => Some(Destination::Webhook(Box::new(webhook.clone()))),
            (None, None, None, Some(slack)) => Some(Destination::Slack(slack.clone())),
            _ => None,
        }
    }

    /// The keys of Secrets that the destination needs, with the field that names each, from `spec` on.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretKeyRef)> {
        let slack = self.slack.iter().map(|slack| ("spec.slack.urlRef", &slack.url_ref));
        slack.chain(self.webhook.iter().flat_map(WebhookSink::secrets)).collect()
    }

    /// The keys of ConfigMaps that the destination needs, with the field that names each, from `spec` on.
    pub fn config_maps(&self) -> Vec<(&'static str, &ConfigMapKeyRef)> {
        let ca = self.webhook.as_ref().and_then(|webhook| webhook.ca_ref.as_ref());
        ca.and_then(|ca| ca.config_map.as_ref()).map(|key| ("spec.webhook.caRef.configMap", key)).into_iter().collect()
    }

    /// Whether nothing is to be sent.
    pub fn suspended(&self) -> bool {
        self.suspend.unwrap_or(false)
    }
}

/// How an alert is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Falco's line of text.
    Text,
    /// Falco's JSON object, on one line.
    Json,
}

/// Write to the standard output of the sensor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct StdoutSink {
    /// `text` or `json`, one alert a line. Default: `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// Append to a file on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.keep) || has(self.maxSize)", "keep: needs maxSize"))]
pub struct FileSink {
    /// Absolute path of the file. It and its folder are created when missing, for their owner only. When the file is
    /// renamed or removed, as logrotate does, a new one is begun.
    #[schemars(length(min = 2, max = 4096), regex(pattern = r"^/([^/\x00]+/)*[^/\x00]+$"))]
    pub path: String,

    /// `text` or `json`, one alert a line. Default: `json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,

    /// Begin a new file before this one grows larger, for example `100Mi`; the old one is renamed to PATH.1, that to
    /// PATH.2 and so on. At least `4Ki`. Default: no limit, which leaves the size to logrotate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("quantity(self).compareTo(quantity('4Ki')) >= 0", "maxSize: at least 4Ki"))]
    pub max_size: Option<Size>,

    /// How many old files to keep besides the current one, with `maxSize`. Default: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub keep: Option<u8>,
}

/// Send each alert as a message to a chat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct SlackSink {
    /// Key of a Secret with the address of the incoming webhook. Whoever knows that address can post.
    pub url_ref: SecretKeyRef,
}

/// How fast alerts are delivered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Alerts per second in the long run. May be a fraction: 0.1 is one in ten seconds.
    // The API server compares whole numbers with the whole part of a bound, so 0 needs a rule of its own.
    #[schemars(range(min = 0.001, max = 10_000))]
    #[x_kube(validation = ("double(self) > 0.0", "perSecond: more than 0"))]
    pub per_second: f64,
    /// Alerts at once after a quiet time. Default: 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<u32>,
}

impl RateLimit {
    /// Alerts at once where nothing else is said.
    pub const DEFAULT_BURST: u32 = 20;

    /// The burst, with its default.
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or(Self::DEFAULT_BURST)
    }
}

/// Which alerts go to a sink: those that pass every field given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct AlertMatch {
    /// Alerts at least this serious. Default: `Debug`, which is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_priority: Option<Priority>,

    /// Alerts of rules whose name matches one of these patterns; `*` stands for any text, `?` for any character.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub rules: Vec<String>,

    /// Alerts by the tags of their rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<TagMatch>,

    /// Alerts from one of these sources: `syscall`, `k8s_audit`, or `internal` for alerts of the sensor about itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub sources: Vec<String>,

    /// Alerts about pods in namespaces whose name matches one of these patterns; `*` stands for any text, `?` for any
    /// character. Alerts about a node itself are in no namespace. Default: all, the nodes included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub namespaces: Vec<String>,
}

/// Alerts by the tags of their rules: those that pass every field given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
pub struct TagMatch {
    /// At least one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub any: Vec<String>,
    /// All of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub all: Vec<String>,
    /// None of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub none: Vec<String>,
}

/// Where alerts wait while the destination is slow or away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct QueueSpec {
    /// How many alerts to keep: in a cluster on the operator's disk, else in memory. Default: 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub memory: Option<u32>,
    /// Which alert to give up when the queue is full: `DropOldest`, `DropNewest`, or `DropLowestPriority`, the oldest
    /// among the least serious. Each is counted. Default: `DropLowestPriority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflow: Option<Overflow>,
}

/// Which alert to give up when a queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Overflow {
    /// The one that waited longest.
    DropOldest,
    /// The one that arrives.
    DropNewest,
    /// The oldest among the least serious, which may be the one that arrives.
    DropLowestPriority,
}

/// How often and how fast a failed delivery is tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct RetrySpec {
    /// Attempts for one alert before it is given up and counted, the first one included. Default: in a cluster no limit
    /// but a day, since alerts wait on disk; 10 on a sensor without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: Option<u16>,
    /// Wait after the first failure; it doubles with each further one. The actual wait is a random part of it, at
    /// least half. From 1ms to 1h. Default: 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('1h')", "initialBackoff: from 1ms to 1h"))]
    pub initial_backoff: Option<Span>,
    /// Longest wait, also when the receiver asks for a longer one with `Retry-After`; never less than
    /// `initialBackoff`. From 1ms to 1h. Default: 5m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('1h')", "maxBackoff: from 1ms to 1h"))]
    pub max_backoff: Option<Span>,
}
