//! What the path of Events takes in: one alert, with what an Event about it needs to know.
//!
//! Everything that many hits have in common (rule, node, tags) is shared, so that a hit is cheap to pass on. What is in
//! here came over the network from a node: nothing is taken for well-formed.

use std::{sync::Arc, time::Duration};

use rules::alert::Priority;

use super::redact::Redactor;
use crate::sensors::auth::is_audit;

/// A moment, on the two clocks that are needed. Nothing in the pure part asks for the time itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some fixed moment, on a clock that is never set back: for waits, rates and periods.
    pub since_start: Duration,
    /// Nanoseconds since the Unix epoch: for what people read.
    pub unix_ns: u64,
}

/// Whether and how there are Events about the alerts of a rule resource.
#[derive(Debug, Clone)]
pub struct RuleEvents {
    /// Whether there are any.
    pub enabled: bool,
    /// Only about alerts at least this serious.
    pub minimum_priority: Priority,
    /// What takes secrets out of their text.
    pub redactor: Arc<Redactor>,
}

impl Default for RuleEvents {
    /// What the resources say by default: from `Warning` on, with the usual words taken out.
    fn default() -> Self {
        Self { enabled: true, minimum_priority: Priority::Warning, redactor: Redactor::standard() }
    }
}

/// A rule, and the resource that it comes from.
#[derive(Debug)]
pub struct Rule {
    /// Kind of the resource: `FalcoRule` or `ClusterFalcoRule`.
    pub kind: api::Kind,
    /// Its namespace; empty for a kind without.
    pub namespace: Box<str>,
    /// Its name.
    pub resource: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// Name of the rule in the resource.
    pub name: Box<str>,
    /// What the resource and the SensorConfig say about Events.
    pub events: RuleEvents,
}

/// A node.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Box<str>,
    /// Its uid; empty if it is not known.
    pub uid: Box<str>,
}

impl Node {
    /// Whether it is a node: a receiver of the audit log stands in the place of one, and speaks for the cluster.
    pub fn is_one(&self) -> bool {
        !is_audit(&self.name)
    }
}

/// What an Event is about.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A pod, or one of its containers.
    Pod {
        /// Its namespace.
        namespace: Box<str>,
        /// Its name.
        name: Box<str>,
        /// Its uid, as the container runtime knows it.
        uid: Box<str>,
        /// The container; empty if it is not known.
        container: Box<str>,
    },
    /// A node: what happened there happened outside of all pods.
    Node(Arc<Node>),
    /// A namespace.
    Namespace {
        /// Its name.
        name: Box<str>,
    },
    /// The resource of a rule: many things that match it count together.
    Rule(Arc<Rule>),
    /// The target of a request, for alerts of the audit log.
    Object {
        /// Group and version: `v1`, `apps/v1`.
        api_version: Box<str>,
        /// Its kind.
        kind: Box<str>,
        /// Its namespace; empty if it has none.
        namespace: Box<str>,
        /// Its name.
        name: Box<str>,
        /// Its uid; empty if it is not known.
        uid: Box<str>,
    },
}

impl Subject {
    /// Its namespace; nothing for what is in none.
    pub fn namespace(&self) -> Option<&str> {
        let namespace = match self {
            Self::Pod { namespace, .. } | Self::Object { namespace, .. } => namespace,
            Self::Rule(rule) => &rule.namespace,
            Self::Node(_) | Self::Namespace { .. } => return None,
        };
        Some(namespace.as_ref()).filter(|namespace| !namespace.is_empty())
    }
}

/// One alert.
#[derive(Debug, Clone)]
pub struct Hit {
    /// The rule that matched.
    pub rule: Arc<Rule>,
    /// Its priority.
    pub priority: Priority,
    /// What it is about.
    pub subject: Subject,
    /// Where it happened.
    pub node: Arc<Node>,
    /// When it happened, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The rendered output, without time and priority.
    pub output: Box<str>,
    /// Tags of the rule.
    pub tags: Arc<[Box<str>]>,
    /// Hash of the bundle that the sensor ran.
    pub bundle: Arc<str>,
}

impl Hit {
    /// What it is about when nothing narrower will do: its node, or what is of no node, its rule.
    pub fn fallback(&self) -> Subject {
        match self.node.is_one() {
            true => Subject::Node(Arc::clone(&self.node)),
            false => Subject::Rule(Arc::clone(&self.rule)),
        }
    }
}

impl Subject {
    /// Size of its texts in memory, in bytes; what is shared costs nothing.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Pod { namespace, name, uid, container } => namespace.len() + name.len() + uid.len() + container.len(),
            Self::Node(_) | Self::Rule(_) => 0,
            Self::Namespace { name } => name.len(),
            Self::Object { api_version, kind, namespace, name, uid } => {
                api_version.len() + kind.len() + namespace.len() + name.len() + uid.len()
            }
        }
    }
}
