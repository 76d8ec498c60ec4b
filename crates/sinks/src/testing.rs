//! Alerts for the tests of this crate.

use api::{Kind, ResourceId};
use rules::alert::{Alert, Priority};

pub(crate) fn alert(rule: &str, priority: Priority, tags: &[&str]) -> Alert {
    Alert {
        hostname: "node-1".into(),
        time_ns: 1_700_000_000_000_000_000,
        rule: rule.into(),
        priority,
        source: "syscall".into(),
        tags: tags.iter().map(|tag| Box::from(*tag)).collect(),
        message: format!("{rule} happened").into(),
        output_fields: vec![("proc.name".into(), "nc".into())],
    }
}

pub(crate) fn id(name: &str) -> ResourceId {
    ResourceId { kind: Kind::ClusterAlertSink, namespace: "".into(), name: name.into() }
}
