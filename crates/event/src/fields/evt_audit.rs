//! The fields that events of any source have, for events of the audit log.

use super::{Arg, EventSource, Subject, k8s_audit::Found, time as clock};
use crate::{audit::AuditEvent, value::Value};

const NS: u64 = 1_000_000_000;

pub(super) fn num<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.num))
}

pub(super) fn time<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::time_of_day(e.arena(), e.time_ns(), e.surroundings.utc_offset_s, true)))
}

pub(super) fn time_s<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::time_of_day(e.arena(), e.time_ns(), e.surroundings.utc_offset_s, false)))
}

pub(super) fn iso8601<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::iso8601(e.arena(), e.time_ns())))
}

pub(super) fn datetime<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::date_time(e.arena(), e.time_ns(), e.surroundings.utc_offset_s, true)))
}

pub(super) fn datetime_s<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(clock::date_time(e.arena(), e.time_ns(), e.surroundings.utc_offset_s, false)))
}

pub(super) fn rawtime<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.time_ns()))
}

pub(super) fn rawtime_s<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.time_ns() / NS))
}

pub(super) fn rawtime_ns<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Uint(e.time_ns() % NS))
}

pub(super) fn plugin<'a>(_: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(b"k8saudit"))
}

pub(super) fn source<'a>(_: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(EventSource::K8sAudit.name().as_bytes()))
}

pub(super) fn is_async<'a>(_: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Bool(false))
}

pub(super) fn hostname<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    Some(Value::Text(e.surroundings.hostname.as_bytes()))
}
