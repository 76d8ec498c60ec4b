//! The names that we write on, and read from, objects of the cluster: annotations, labels, field managers, reporters.
//!
//! On objects of users nothing is written but status. The annotations below stand on Events, which are ours, save
//! [`TEST`], which a user sets.

/// Annotation of an AlertSink or ClusterAlertSink: with each new value one test alert is sent. The value is up to the
/// user; `status.lastTest` repeats it once the alert was tried.
pub const TEST: &str = "gyrfalcon.dev/test";

/// Annotation of an Event: priority of the alerts, as in `Warning`.
pub const PRIORITY: &str = "gyrfalcon.dev/priority";
/// Annotation of an Event: name of the rule, as its author wrote it.
pub const RULE: &str = "gyrfalcon.dev/rule";
/// Annotation of an Event: `metadata.uid` of the resource that has the rule.
pub const RULE_UID: &str = "gyrfalcon.dev/rule-uid";
/// Annotation of an Event: the bundle that the rule was in, as in [`crate::rule::FalcoRuleStatus::bundle`].
pub const BUNDLE: &str = "gyrfalcon.dev/bundle";
/// Annotation of an Event: how many alerts it stands for, as a decimal number. Not limited to the 32 bits of
/// `series.count`.
pub const COUNT: &str = "gyrfalcon.dev/count";
/// Annotation of an Event: output of the latest alert, redacted, at most [`MAX_LAST_OUTPUT_BYTES`]. The note of an
/// Event cannot be changed; this can.
pub const LAST_OUTPUT: &str = "gyrfalcon.dev/last-output";
/// Annotation of an Event: tags of the rule, separated by commas.
pub const TAGS: &str = "gyrfalcon.dev/tags";
/// Annotation of an Event: which start of the operator writes it, and the how manyeth series of that start it is: tells
/// own Events from those of a predecessor.
pub const WRITER: &str = "gyrfalcon.dev/writer";

/// Longest value of [`LAST_OUTPUT`], in bytes.
pub const MAX_LAST_OUTPUT_BYTES: usize = 1024;

/// Field manager of everything that the operator writes. Its writer holds the Lease.
pub const FIELD_MANAGER: &str = "gyrfalcon.dev/controller";

/// `reportingController` of Events about alerts: `kubectl get events --field-selector
/// reportingComponent=gyrfalcon.dev/sensor` lists them all. The instance is the node.
pub const ALERT_REPORTER: &str = "gyrfalcon.dev/sensor";
/// `action` of Events about alerts.
pub const DETECTED: &str = "Detected";
/// `reason` of the Event that sums up alerts for which the budget of Events had no place.
pub const ALERTS_SUPPRESSED: &str = "AlertsSuppressed";
