//! Event sources: which fields the rules of a source can name.

use super::{AUDIT, CLASSES, Field, evt};
use crate::catalogue::{EventSet, EventType, Origin};

/// Where events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EventSource {
    /// The kernel.
    #[default]
    Syscall,
    /// The Kubernetes API server's audit log.
    K8sAudit,
}

/// Fields of events of any source.
static GENERAL: &[&str] = &[
    "evt.num",
    "evt.time",
    "evt.time.s",
    "evt.time.iso8601",
    "evt.datetime",
    "evt.datetime.s",
    "evt.rawtime",
    "evt.rawtime.s",
    "evt.rawtime.ns",
    "evt.reltime",
    "evt.reltime.s",
    "evt.reltime.ns",
    "evt.pluginname",
    "evt.plugininfo",
    "evt.source",
    "evt.is_async",
    "evt.asynctype",
    "evt.hostname",
];

impl EventSource {
    /// Every source.
    pub const ALL: [Self; 2] = [Self::Syscall, Self::K8sAudit];

    /// The word in a rule's `source`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syscall => "syscall",
            Self::K8sAudit => "k8s_audit",
        }
    }

    /// What evaluates its rules, as a remedy for those who load them elsewhere.
    pub fn program(self) -> &'static str {
        match self {
            Self::Syscall => "rules on system calls are evaluated by `gyrfalcon run`",
            Self::K8sAudit => "rules on the audit log are evaluated by `gyrfalcon audit`",
        }
    }

    /// The source with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }

    /// The fields that its rules can name.
    pub fn fields(self) -> Box<dyn Iterator<Item = &'static Field>> {
        match self {
            Self::Syscall => Box::new(CLASSES.iter().copied().flatten()),
            Self::K8sAudit => Box::new(
                evt::FIELDS.iter().filter(|field| GENERAL.contains(&field.name)).chain(AUDIT.iter().copied().flatten()),
            ),
        }
    }

    /// As [`lookup`](super::lookup), among the fields of this source.
    pub fn lookup(self, text: &str) -> Option<(&'static Field, &str)> {
        let named = |field: &'static Field| Some((field, text.strip_prefix(field.name)?));
        self.fields().filter_map(named).min_by_key(|(_, rest)| rest.len())
    }

    /// The event types it can deliver.
    pub fn event_types(self) -> EventSet {
        let of_plugin = |ty: &EventType| ty.info().origin == Origin::Plugin;
        match self {
            Self::Syscall => EventType::all().filter(|ty| !of_plugin(ty)).collect(),
            Self::K8sAudit => EventType::all().filter(of_plugin).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn general_fields_are_in_the_catalogue() {
        assert!(GENERAL.iter().all(|name| evt::FIELDS.iter().any(|field| field.name == *name)));
    }

    #[test]
    fn a_source_knows_only_its_own_fields() {
        assert!(EventSource::Syscall.lookup("ka.verb").is_none());
        assert!(EventSource::K8sAudit.lookup("proc.name").is_none());
        let (field, rest) = EventSource::K8sAudit.lookup("ka.req.pod.containers.image.repository[0]").expect("a field");
        assert_eq!((field.name, rest), ("ka.req.pod.containers.image.repository", "[0]"));
    }
}
