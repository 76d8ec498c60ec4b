//! Events of the Kubernetes audit log: what rules of the source `k8s_audit` see.
//!
//! An event is a JSON document of the group `audit.k8s.io` (<https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/>).
//! It is parsed once, into the arena of its evaluation; a field reads from that tree what a rule asks for.

pub mod json;
mod timestamp;

use std::sync::LazyLock;

use self::json::{Limits, Node, ParseError};
use crate::{
    catalogue::EventType,
    containers::{Labels, Whereabouts},
    fields::{Arg, EventSource, Field, Subject},
    value::{Arena, Value},
};

/// How much of a request and its answer is in an event: `level`, in the order of the audit policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Who asked for what, and how it ended.
    Metadata,
    /// Also what was sent.
    Request,
    /// Also what came back.
    RequestResponse,
}

impl Level {
    /// Every level, the lowest first.
    pub const ALL: [Self; 3] = [Self::Metadata, Self::Request, Self::RequestResponse];

    /// The word in events and policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// What is known beside the event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `evt.hostname`.
    pub hostname: Box<str>,
    /// Seconds that local time is ahead of UTC.
    pub utc_offset_s: i32,
}

/// Why a text is no audit event.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It is no document.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It is a document, but not of an audit event.
    #[error("no audit event: {0}")]
    Other(&'static str),
}

/// One event. It owns nothing.
pub struct AuditEvent<'a> {
    /// The whole document.
    pub root: Node<'a>,
    /// Sequence number, from 1.
    pub num: u64,
    /// Something of it was too deep or too much and is missing.
    pub cut: bool,
    /// What is known beside it.
    pub surroundings: &'a Surroundings,
    /// Labels of the namespace of its object, when somebody knows them.
    pub namespace_labels: Option<&'a Labels>,
    time_ns: Option<u64>,
    arena: &'a Arena,
}

impl<'a> AuditEvent<'a> {
    /// Reads an event. Its time is `stageTimestamp`, else `requestReceivedTimestamp`.
    pub fn parse(
        text: &'a [u8],
        limits: Limits,
        num: u64,
        surroundings: &'a Surroundings,
        arena: &'a Arena,
    ) -> Result<Self, AuditError> {
        let (root, cut) = json::parse(text, limits, arena)?;
        if !matches!(root, Node::Object(_)) {
            return Err(AuditError::Other("it is not an object"));
        }
        match root.get("kind").and_then(Node::text) {
            Some("Event") | None => {}
            Some(_) => return Err(AuditError::Other("its kind is not Event")),
        }
        if root.get("auditID").and_then(Node::text).is_none() {
            return Err(AuditError::Other("it has no auditID"));
        }
        let moment = |key| root.get(key).and_then(Node::text).and_then(timestamp::unix_ns);
        let time_ns = moment("stageTimestamp").or_else(|| moment("requestReceivedTimestamp"));
        Ok(Self { root, num, cut, surroundings, namespace_labels: None, time_ns, arena })
    }

    /// Its time, nanoseconds since the Unix epoch; `None` when it does not say.
    pub fn time(&self) -> Option<u64> {
        self.time_ns
    }

    /// Sets the time of an event that has none.
    #[must_use]
    pub fn or_at(mut self, time_ns: u64) -> Self {
        self.time_ns.get_or_insert(time_ns);
        self
    }

    /// The level it was logged at; `None` when that is none that we know.
    pub fn level(&self) -> Option<Level> {
        let name = self.root.get("level")?.text()?;
        Level::ALL.into_iter().find(|level| level.name() == name)
    }

    /// What the request was about.
    pub fn target(&self) -> Target<'a> {
        let part = |name| self.root.at(&["objectRef", name]).and_then(Node::text).unwrap_or_default();
        let created = || self.root.at(&["responseObject", "metadata", "name"]).and_then(Node::text).unwrap_or_default();
        let sub = part("subresource");
        Target {
            group: part("apiGroup"),
            version: part("apiVersion"),
            resource: part("resource"),
            subresource: sub,
            namespace: part("namespace"),
            // The name of an object that the API server was to choose is only in the answer.
            name: if part("name").is_empty() && sub.is_empty() { created() } else { part("name") },
            uid: part("uid"),
        }
    }

    /// Memory for values.
    pub fn arena(&self) -> &'a Arena {
        self.arena
    }
}

/// The object of a request. What is not said is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Target<'a> {
    /// API group; empty for the core.
    pub group: &'a str,
    /// Version of the group.
    pub version: &'a str,
    /// Resource: `pods`.
    pub resource: &'a str,
    /// Part of it: `exec`.
    pub subresource: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Uid.
    pub uid: &'a str,
}

/// The type that all events of the source have.
static TYPE: LazyLock<Option<EventType>> = LazyLock::new(|| EventSource::K8sAudit.event_types().iter().next());

impl<'a> Subject<'a> for AuditEvent<'a> {
    fn event_type(&self) -> EventType {
        TYPE.expect("the catalogue has an event type for other sources")
    }

    fn time_ns(&self) -> u64 {
        self.time_ns.unwrap_or_default()
    }

    fn arena(&self) -> &'a Arena {
        self.arena
    }

    fn whereabouts(&self) -> Whereabouts<'a> {
        Whereabouts::Object {
            namespace: self.root.at(&["objectRef", "namespace"]).and_then(Node::text).unwrap_or_default(),
            namespace_labels: self.namespace_labels.map(|labels| &labels[..]),
        }
    }

    fn field(&self, field: &'static Field, arg: &Arg) -> Option<Value<'a>> {
        (field.audit?)(self, arg)
    }
}
