//! Fields of events in JSON, whatever they are about: those of Falco's plugin `json`. Here the events are those of the audit
//! log.

use super::{Arg, ArgRule, Field, k8s_audit::Found};
use crate::{
    audit::{AuditEvent, json::Node},
    fields::Subject,
    text::text,
    value::{Value, ValueType::*},
};

/// One row per field: name, type, what it means, and behind it argument rule and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("json.value", Text, "value at an RFC 6901 pointer, as text").arg(ArgRule::RequiredKey).audit(value),
    Field::new("json.obj", Text, "whole payload, pretty printed").audit(obj),
    Field::new("json.rawtime", Text, "event timestamp as text").audit(rawtime),
    Field::new("jevt.value", Text, "alias of json.value").arg(ArgRule::RequiredKey).audit(value),
    Field::new("jevt.obj", Text, "alias of json.obj").audit(obj),
    Field::new("jevt.rawtime", Text, "alias of json.rawtime").audit(rawtime),
];

/// Where the official rules look for ephemeral containers, as they were sent before Kubernetes 1.22.
const FORMER: &str = "/requestObject/ephemeralContainers/";
/// Where they are now.
const NOW: &[&str] = &["requestObject", "spec", "ephemeralContainers"];

fn value<'a>(e: &AuditEvent<'a>, arg: &Arg) -> Found<'a> {
    let Arg::Key(pointer) = arg else { return None };
    let found = e.root.pointer(pointer).or_else(|| former(e, pointer));
    found.map(|node| node.value(e.arena()))
}

/// Ephemeral containers at their present place, for a pointer to the former one.
fn former<'a>(e: &AuditEvent<'a>, pointer: &str) -> Option<Node<'a>> {
    let rest = pointer.strip_prefix(FORMER)?;
    e.root.at(NOW)?.pointer(&format!("/{rest}"))
}

fn obj<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.root.pretty(e.arena())))
}

fn rawtime<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(text!(e.arena(), "{}", e.time_ns())))
}
