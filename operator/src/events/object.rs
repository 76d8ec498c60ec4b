//! The Event objects: their names, their text and their limits, so that the API server takes every one.
//!
//! What an Event says is fixed when it is created: afterwards the API server lets nothing change but `series` and
//! metadata. So the latest output is an annotation. Names follow from what the Event is about, so that a process that
//! has forgotten everything finds its Events again.

use std::{collections::BTreeMap, sync::Arc};

use api::labels;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use rules::alert::Priority;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    hit::{Hit, Node, Rule, Subject},
    redact,
};

pub use api::labels::{
    ALERT_REPORTER as CONTROLLER, BUNDLE, COUNT, LAST_OUTPUT, PRIORITY, RULE, RULE_UID, TAGS, WRITER,
};

/// Longest note, in bytes: limit of the API server.
pub const MAX_NOTE: usize = 1024;
/// Longest reason, action and reporting instance, in bytes: limit of the API server.
pub const MAX_WORD: usize = 128;
/// Longest part of an Event's name that comes from its subject, in bytes.
const MAX_STEM: usize = 200;
/// Longest name of an object, in bytes: limit of the API server.
const MAX_NAME: usize = 253;
/// Longest annotation with tags, in bytes.
const MAX_TAGS: usize = 1024;

/// A text, and how long it was before it was cut for the first time.
#[derive(Debug, Clone)]
pub struct Output {
    text: Box<str>,
    full: usize,
}

impl Output {
    /// Keeps what is needed of an output.
    pub fn new(text: Box<str>) -> Self {
        let full = text.len();
        match redact::fit(&text) {
            kept if kept.len() == full => Self { text, full },
            kept => Self { text: kept.into(), full },
        }
    }

    /// Size in memory, in bytes.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// Without secrets, as long as an Event may be; says how much is missing.
    fn show(&self, rule: &Rule) -> String {
        let text = rule.events.redactor.redact(&self.text);
        cut(&text, self.full - self.text.len())
    }
}

/// At most [`MAX_NOTE`] bytes of a text; says how many are missing, `missing` of them already.
fn cut(text: &str, missing: usize) -> String {
    if text.len() <= MAX_NOTE && missing == 0 {
        return text.to_owned();
    }
    // Room for the dots, the words and the longest number.
    const SUFFIX: usize = "…(+ B)".len() + 20;
    let end = text.floor_char_boundary(MAX_NOTE - SUFFIX);
    format!("{}…(+{} B)", text.get(..end).unwrap_or_default(), text.len() - end.min(text.len()) + missing)
}

/// Identity of a series: what counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesId([u8; 16]);

impl SeriesId {
    /// Of the alerts of a rule with a priority about a subject.
    pub fn new(rule: &Rule, priority: Priority, subject: &Subject) -> Self {
        let (kind, parts): (&str, [&str; 4]) = match subject {
            Subject::Pod { namespace, name, uid, container } => ("Pod", [namespace, name, uid, container]),
            Subject::Node(node) => ("Node", [&node.name, &node.uid, "", ""]),
            Subject::Namespace { name } => ("Namespace", [name, "", "", ""]),
            Subject::Rule(rule) => (rule.kind.name(), [&rule.namespace, &rule.resource, &rule.uid, ""]),
            Subject::Object { kind, namespace, name, uid, .. } => (kind, [namespace, name, uid, ""]),
        };
        let mut hash = Sha256::new();
        for part in [&*rule.uid, &*rule.name, priority.name(), kind].into_iter().chain(parts) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let mut id = [0; 16];
        id.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

fn hex16(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the API server takes this as the name of a namespace.
pub fn is_namespace(text: &str) -> bool {
    !text.contains('.') && text.len() <= 63 && is_subdomain(text)
}

fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        edge(label.as_bytes().first())
            && edge(label.as_bytes().last())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= MAX_NAME && text.split('.').all(label)
}

/// `STEM.HASH`: the stem is for people, the hash tells Events apart.
fn name(stem: &str, hash: &str) -> String {
    let stem = stem.get(..stem.floor_char_boundary(MAX_STEM)).unwrap_or_default();
    let stem = stem.trim_end_matches(['.', '-']);
    match is_subdomain(stem) {
        true => format!("{stem}.{hash}"),
        false => format!("alert.{hash}"),
    }
}

/// The reason for alerts of a rule: its name in UpperCamelCase, of ASCII letters and digits, never empty.
pub fn reason(rule: &str) -> String {
    let mut out = String::new();
    for word in rule.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let (first, rest) = word.split_at(1);
        out.push_str(&first.to_ascii_uppercase());
        out.push_str(rest);
    }
    if out.is_empty() {
        return format!("Rule{}", hex16(&[rule.as_bytes()]));
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "Rule");
    }
    out.truncate(MAX_WORD);
    out
}

/// A node's name as `reportingInstance`; the hash keeps long ones apart.
fn instance(name: &str) -> String {
    match name.len() {
        0 => "unknown".to_owned(),
        1..=MAX_WORD => name.to_owned(),
        _ => {
            let kept = name.get(..name.floor_char_boundary(MAX_WORD - 17)).unwrap_or_default();
            format!("{kept}-{}", hex16(&[name.as_bytes()]))
        }
    }
}

fn time(unix_ns: u64) -> MicroTime {
    // Every u64 is within the years that a timestamp can have; the epoch itself would count as no time at all.
    let micros = i64::try_from(unix_ns / 1000).unwrap_or(i64::MAX).max(1);
    MicroTime(Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX))
}

/// What `regarding` and `related` say about a subject.
fn reference(subject: &Subject) -> ObjectReference {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let reference = |version: &str, kind: &str, namespace: &str, name: &str, uid: &str| ObjectReference {
        api_version: text(version),
        kind: text(kind),
        namespace: text(namespace),
        name: text(name),
        uid: text(uid),
        ..ObjectReference::default()
    };
    match subject {
        Subject::Pod { namespace, name, uid, container } => ObjectReference {
            field_path: text(container).map(|name| format!("spec.containers{{{name}}}")),
            ..reference("v1", "Pod", namespace, name, uid)
        },
        // Without a uid kubectl finds the Events of a node by its name, as those of the kubelet.
        Subject::Node(node) if node.uid.is_empty() => reference("v1", "Node", "", &node.name, &node.name),
        Subject::Node(node) => reference("v1", "Node", "", &node.name, &node.uid),
        Subject::Namespace { name } => reference("v1", "Namespace", "", name, ""),
        Subject::Rule(rule) => {
            let version = format!("{}/{}", api::GROUP, api::VERSION);
            reference(&version, rule.kind.name(), &rule.namespace, &rule.resource, &rule.uid)
        }
        Subject::Object { api_version, kind, namespace, name, uid } => {
            reference(api_version, kind, namespace, name, uid)
        }
    }
}

fn stem(subject: &Subject) -> &str {
    match subject {
        Subject::Pod { name, .. } | Subject::Namespace { name } | Subject::Object { name, .. } => name,
        Subject::Node(node) => &node.name,
        Subject::Rule(rule) => &rule.resource,
    }
}

/// A series of alerts, as far as its Event shows it.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its identity.
    pub id: SeriesId,
    /// Its first alert. The output in it is not looked at.
    pub hit: &'a Hit,
    /// The output to show.
    pub output: &'a Output,
    /// How many alerts there have been.
    pub count: u64,
    /// Time of the latest alert, nanoseconds since the Unix epoch.
    pub last_ns: u64,
    /// See [`WRITER`].
    pub writer: &'a str,
}

/// Name of the Event of a series that began at a time. A new day is a new Event.
pub fn series_name(id: SeriesId, subject: &Subject, first_ns: u64) -> String {
    let day = first_ns / 86_400_000_000_000;
    name(stem(subject), &hex16(&[&id.0, &day.to_le_bytes()]))
}

/// The namespace of an Event about a subject: that of the subject, or the one for what is in none.
pub fn namespace<'a>(subject: &'a Subject, nodes: &'a str) -> &'a str {
    subject.namespace().unwrap_or(nodes)
}

fn series(count: u64, last_ns: u64) -> EventSeries {
    EventSeries { count: i32::try_from(count).unwrap_or(i32::MAX).max(2), last_observed_time: time(last_ns) }
}

/// The Event of a series; `nodes` is the namespace of Events about what is in none.
pub fn alert(shown: &Shown<'_>, nodes: &str) -> Event {
    let Shown { id, hit, output, count, last_ns, writer } = *shown;
    let rule = &hit.rule;
    let mut tags = String::new();
    for tag in hit.tags.iter().take_while(|tag| tag.len() < MAX_TAGS) {
        if tags.len() + tag.len() >= MAX_TAGS {
            break;
        }
        tags.push_str(if tags.is_empty() { "" } else { "," });
        tags.push_str(tag);
    }
    let note = output.show(rule);
    let annotations = [
        (PRIORITY, hit.priority.name().to_owned()),
        (RULE, cut(&rule.name, 0)),
        (RULE_UID, cut(&rule.uid, 0)),
        (BUNDLE, cut(&hit.bundle, 0)),
        (COUNT, count.to_string()),
        (TAGS, tags),
        (WRITER, writer.to_owned()),
    ];
    let warning = hit.priority <= Priority::Warning;
    // A rule about itself: the second mention says nothing.
    let related = match &hit.subject {
        Subject::Rule(_) => None,
        _ => Some(reference(&Subject::Rule(rule.clone()))),
    };
    // What concerns a rule or a namespace happened on many nodes.
    let place = match &hit.subject {
        Subject::Rule(_) | Subject::Namespace { .. } => "all-nodes",
        Subject::Pod { .. } | Subject::Node(_) | Subject::Object { .. } => &hit.node.name,
    };
    Event {
        metadata: ObjectMeta {
            name: Some(series_name(id, &hit.subject, hit.time_ns)),
            namespace: Some(namespace(&hit.subject, nodes).to_owned()),
            annotations: Some(annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ..ObjectMeta::default()
        },
        event_time: Some(time(hit.time_ns)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance(place)),
        action: Some(labels::DETECTED.to_owned()),
        reason: Some(reason(&rule.name)),
        regarding: Some(reference(&hit.subject)),
        related,
        type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
        note: Some(if note.is_empty() { cut(&rule.name, 0) } else { note }),
        series: (count >= 2).then(|| series(count, last_ns)),
        ..Event::default()
    }
}

/// The change of a series' Event: a JSON merge patch. Counts in it are totals, so it may be sent twice.
pub fn renewal(shown: &Shown<'_>) -> serde_json::Value {
    json!({
        "metadata": { "annotations": {
            COUNT: shown.count.to_string(),
            LAST_OUTPUT: shown.output.show(&shown.hit.rule),
            WRITER: shown.writer,
        }},
        "series": series(shown.count, shown.last_ns),
    })
}

/// What an announcement of suppressed alerts says.
#[derive(Debug)]
pub struct Announced<'a> {
    /// The node they come from; nothing for all nodes.
    pub node: Option<&'a Arc<Node>>,
    /// Namespace of the operator, which the announcement for all nodes is about.
    pub operator: &'a str,
    /// How many there are.
    pub total: u64,
    /// Per rule, most first.
    pub rules: &'a [(Box<str>, u64)],
    /// When the first was suppressed, nanoseconds since the Unix epoch.
    pub since_ns: u64,
    /// Now, nanoseconds since the Unix epoch.
    pub now_ns: u64,
    /// See [`WRITER`].
    pub writer: &'a str,
}

/// The Event that says that alerts have none of their own.
pub fn announcement(announced: &Announced<'_>, nodes: &str) -> Event {
    let (subject, place) = match announced.node {
        Some(node) if node.is_one() => (Subject::Node(Arc::clone(node)), &*node.name),
        Some(node) => (Subject::Namespace { name: announced.operator.into() }, &*node.name),
        None => (Subject::Namespace { name: announced.operator.into() }, "all-nodes"),
    };
    let top: Vec<String> = announced.rules.iter().take(5).map(|(rule, n)| format!("{} ×{n}", word(rule))).collect();
    let more = announced.rules.len().saturating_sub(5);
    let more = if more == 0 { String::new() } else { format!(", and {more} more rules") };
    let note = format!(
        "{} alerts have no Event of their own, because there were more than events.budgets allows: {}{more}. \
         The status of each rule counts them.",
        announced.total,
        top.join(", ")
    );
    let annotations: BTreeMap<String, String> =
        [(COUNT, announced.total.to_string()), (WRITER, announced.writer.to_owned())]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
    Event {
        metadata: ObjectMeta {
            name: Some(name(stem(&subject), &hex16(&[b"suppressed", place.as_bytes(), announced.writer.as_bytes()]))),
            namespace: Some(nodes.to_owned()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        event_time: Some(time(announced.since_ns)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance(place)),
        action: Some("Suppressed".to_owned()),
        reason: Some(labels::ALERTS_SUPPRESSED.to_owned()),
        regarding: Some(reference(&subject)),
        type_: Some("Warning".to_owned()),
        note: Some(cut(&note, 0)),
        series: (announced.total >= 2).then(|| series(announced.total, announced.now_ns)),
        ..Event::default()
    }
}

/// A rule's name in a list of several.
fn word(text: &str) -> &str {
    text.get(..text.floor_char_boundary(100)).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod validation;
