//! What tests of the agent have in common: rules without a kernel, and alerts of them.

use std::{sync::Arc, time::Duration};

use link::proto;
use rules::{
    alert::{Alert, Priority},
    load::{Loader, Options},
};

use super::spool::Hit;
use crate::active::{Active, Unit};

/// Longer than anything takes that works.
pub const LONG: Duration = Duration::from_secs(30);

/// One rule, `a file was opened`, of a resource with the uid `unit`.
pub fn active() -> Arc<Active> {
    let rule =
        "- rule: a file was opened\n  desc: d\n  condition: evt.type = openat\n  output: o\n  priority: NOTICE\n";
    let mut loader = Loader::new(Options::default());
    loader.add("rules.yaml", rule.as_bytes());
    let ruleset = loader.finish().ruleset.expect("a good rule");
    let unit = Unit { uid: "unit".into(), shadow: false, throttle: None };
    Arc::new(Active::new(ruleset, vec![unit], |_| Some(0)).of_bundle("hash"))
}

/// The alert with this text.
pub fn hit(active: &Arc<Active>, message: &str) -> Hit {
    let alert = Alert {
        hostname: "node".into(),
        time_ns: 5,
        rule: "a file was opened".into(),
        priority: Priority::Notice,
        source: "syscall".into(),
        tags: Arc::new([]),
        message: message.into(),
        output_fields: vec![("fd.name".into(), message.into())],
    };
    Hit { alert: Arc::new(alert), active: Arc::clone(active), rule: Some(0), pod: None, object: None }
}

/// An alert as it lies in the spool.
pub fn alert(message: &str) -> proto::Alert {
    proto::Alert {
        unit: "unit".to_owned(),
        rule: "rule".to_owned(),
        priority: "Warning".to_owned(),
        message: message.to_owned(),
        time_ns: 5,
        ..proto::Alert::default()
    }
}
