//! `AlertSink` and `ClusterAlertSink`: where alerts go.
//!
//! Both kinds have one spec. In a cluster the namespaced kind gets only alerts about its own namespace. The fields say
//! what is wanted; how alerts are queued, retried and written is the crate `sinks`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    condition::Condition,
    scalar::{Priority, Size, Span},
};

/// A destination of alerts: exactly one of the fields `stdout`, `file` and `webhook`, and which alerts it gets.
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
    printcolumn(name = "Dropped", type_ = "integer", json_path = ".status.counters.dropped"),
    printcolumn(name = "Queue", type_ = "integer", json_path = ".status.queue.depth"),
    printcolumn(name = "Last OK", type_ = "date", json_path = ".status.lastDelivered"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    validation = kube::core::Rule::new("self.metadata.name.size() <= 63").message("metadata.name: at most 63 characters"),
)]
#[x_kube(
    validation = ("[has(self.stdout), has(self.file), has(self.webhook)].filter(x, x).size() == 1", "exactly one of stdout, file and webhook"),
    validation = ("!has(self.timeout) || has(self.webhook)", "timeout: only a webhook has one"),
)]
pub struct AlertSinkSpec {
    /// Write to the standard output of the sensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StdoutSink>,

    /// Append to a file on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSink>,

    /// Send each alert as an HTTP request, with Falco's JSON as its body. The body of the answer is ignored; redirects
    /// are not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSink>,

    /// Which alerts go here: those that pass every field given. Default: all.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub match_: Option<AlertMatch>,

    /// Where alerts wait while the destination is slow or away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueSpec>,

    /// How often and how fast a failed delivery is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,

    /// Longest time for one attempt of a webhook, from looking up the name to the answer. From 1ms to 10m.
    /// Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("duration(self) >= duration('1ms') && duration(self) <= duration('10m')", "timeout: from 1ms to 10m"))]
    pub timeout: Option<Span>,

    /// Send nothing. Alerts that arrive meanwhile are not kept for later. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// The same fields as those of an AlertSink.
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
    printcolumn(name = "Dropped", type_ = "integer", json_path = ".status.counters.dropped"),
    printcolumn(name = "Queue", type_ = "integer", json_path = ".status.queue.depth"),
    printcolumn(name = "Last OK", type_ = "date", json_path = ".status.lastDelivered"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
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
    Webhook(WebhookSink),
}

impl AlertSinkSpec {
    /// The destination; none when the spec names none or several, which a checked resource doesn't.
    pub fn destination(&self) -> Option<Destination> {
        match (&self.stdout, &self.file, &self.webhook) {
            (Some(stdout), None, None) => Some(Destination::Stdout(stdout.clone())),
            (None, Some(file), None) => Some(Destination::File(file.clone())),
            (None, None, Some(webhook)) => Some(Destination::Webhook(webhook.clone())),
            _ => None,
        }
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

/// Send each alert as an HTTP request. The answer's body is ignored; redirects are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.caFile) || self.url.startsWith('https:')", "caFile: needs a url with https"))]
pub struct WebhookSink {
    /// Where to send, `http://` or `https://`. No user name or password: the resource can be read by many.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/?#\s]+([/?#]\S*)?$"))]
    #[x_kube(validation = ("!self.matches('^https?://[^/?#]*@')", "url: a user name or password does not belong in a resource"))]
    pub url: String,

    /// `POST` or `PUT`. Default: `POST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,

    /// Further headers of each request. `Content-Type: application/json` and `User-Agent` are there already, and can
    /// be replaced. Headers that carry credentials are refused: the resource can be read by many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = ("self.all(h, !(h.name.lowerAscii() in ['authorization', 'proxy-authorization', 'cookie']))", "headers: credentials do not belong in a resource"))]
    pub headers: Vec<Header>,

    /// File on the node with certificates (PEM) of the authorities to trust, instead of those that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 4096), regex(pattern = r"^/([^/\x00]+/)*[^/\x00]+$"))]
    pub ca_file: Option<String>,
}

/// Method of an HTTP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// POST.
    Post,
    /// PUT.
    Put,
}

/// A header of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Name of the header.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 1024), regex(pattern = r"^[\t\x20-\x7e]*$"))]
    pub value: String,
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
    /// How many alerts to keep in memory. Default: 10000.
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
    /// Attempts for one alert before it is given up and counted, the first one included. Default: 10.
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

/// What the cluster makes of the sink.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertSinkStatus {
    /// The `metadata.generation` that this status describes; -1 before the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1))]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled and Delivering, at most one of each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// `stdout`, `file` or `webhook`, for `kubectl get`.
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
}

/// A failed delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct SinkFailure {
    /// When it failed.
    pub time: Time,
    /// Why, with what to do about it.
    #[schemars(length(max = 256))]
    pub message: String,
}

/// What became of the alerts, since the sink was created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct SinkTotals {
    /// Delivered.
    pub sent: i64,
    /// Attempts that were repeated.
    pub retried: i64,
    /// Given up, for whatever reason.
    pub dropped: i64,
    /// Not for this sink, by its `match`.
    pub filtered: i64,
}

/// What waits in a sink's queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct QueueStatus {
    /// Alerts that wait.
    pub depth: i64,
}
