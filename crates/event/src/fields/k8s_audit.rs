//! Fields of Kubernetes audit events: what the source `k8s_audit` can ask for, pods aside.
//!
//! They are those of Falco's plugin `k8saudit`. A string of the document is taken as it is, anything else as its JSON text; what
//! is absent or `null` has no value. Where the plugin is wrong, this is right; each difference is in
//! docs/coming-from-falco.md.

use bumpalo::collections::Vec as ArenaVec;

use super::{Arg, ArgRule, Field};
use crate::{
    audit::{AuditEvent, json::Node},
    text::{Text as Writer, text},
    value::{Value, ValueType::*},
};

pub(super) type Found<'a> = Option<Value<'a>>;

/// The value at the end of a way through objects.
macro_rules! path {
    ($($part:literal),+) => { |e, _| value(e, e.root.at(&[$($part),+])) };
}

/// One row per field: name, type, what it means, and behind it argument rule, marks and extractor.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = &[
    Field::new("ka.auditid", Text, "id of the request; its stages share it").audit(path!("auditID")),
    Field::new("ka.stage", Text, "stage of the request: RequestReceived, ResponseStarted, ResponseComplete, Panic").audit(path!("stage")),
    Field::new("ka.auth.decision", Text, "authorization decision: allow or forbid").audit(path!("annotations", "authorization.k8s.io/decision")),
    Field::new("ka.auth.reason", Text, "why it was decided so").audit(path!("annotations", "authorization.k8s.io/reason")),
    Field::new("ka.auth.openshift.decision", Text, "OpenShift authentication decision").audit(path!("annotations", "authentication.openshift.io/decision")),
    Field::new("ka.auth.openshift.username", Text, "OpenShift authenticated user").audit(path!("annotations", "authentication.openshift.io/username")),
    Field::new("ka.validations.admission.policy.failure", Text, "failure of a ValidatingAdmissionPolicy that audits").audit(path!("annotations", "validation.policy.admission.k8s.io/validation_failure")),
    Field::new("ka.security.pod.violations", Text, "violations that Pod Security admission audits").audit(path!("annotations", "pod-security.kubernetes.io/audit-violations")),
    Field::new("ka.cluster.name", Text, "name of the cluster, where a provider adds it").audit(path!("annotations", "cluster_name")),
    Field::new("ka.user.name", Text, "user of the request").audit(path!("user", "username")),
    Field::new("ka.user.groups", Text, "groups of that user").list().audit(|e, _| strings(e, e.root.at(&["user", "groups"])?.items())),
    Field::new("ka.impuser.name", Text, "user who is impersonated").audit(path!("impersonatedUser", "username")),
    Field::new("ka.verb", Text, "verb of the request: get, list, watch, create, update, patch, delete…").audit(path!("verb")),
    Field::new("ka.uri", Text, "URI of the request").audit(path!("requestURI")),
    Field::new("ka.uri.param", Text, "value of a parameter of the URI; several are joined by blanks").arg(ArgRule::RequiredKey).audit(uri_param),
    Field::new("ka.uri.params", Text, "all values of a parameter of the URI").list().arg(ArgRule::RequiredKey).audit(uri_params),
    Field::new("ka.useragent", Text, "what the client calls itself").audit(path!("userAgent")),
    Field::new("ka.sourceips", Text, "addresses of the client and of proxies").list().arg(ArgRule::OptionalIndex)
        .audit(|e, arg| strings(e, chosen(e.root.get("sourceIPs")?.items(), arg))),
    Field::new("ka.target.name", Text, "name of the object; none when the API server was to choose it (see `ka.resp.name`)").audit(path!("objectRef", "name")),
    Field::new("ka.target.namespace", Text, "namespace of the object").audit(path!("objectRef", "namespace")),
    Field::new("ka.target.resource", Text, "resource: pods, configmaps…").audit(path!("objectRef", "resource")),
    Field::new("ka.target.subresource", Text, "part of the resource: exec, status…").audit(path!("objectRef", "subresource")),
    Field::new("ka.target.pod.name", Text, "name of the pod in the answer to a request about a pod").audit(target_pod),
    Field::new("ka.resp.name", Text, "name of the object in the answer").audit(path!("responseObject", "metadata", "name")),
    Field::new("ka.response.code", Text, "HTTP status of the answer").audit(path!("responseStatus", "code")),
    Field::new("ka.response.reason", Text, "reason of a failure").audit(path!("responseStatus", "reason")),
    Field::new("ka.req.binding.subjects", Text, "subjects of a binding, as JSON").list().audit(|e, _| strings(e, e.root.at(&["requestObject", "subjects"])?.items())),
    Field::new("ka.req.binding.subjects.user_names", Text, "users that are bound").list().audit(|e, _| subjects(e, "User", false)),
    Field::new("ka.req.binding.subjects.serviceaccount_names", Text, "service accounts that are bound").list().audit(|e, _| subjects(e, "ServiceAccount", false)),
    Field::new("ka.req.binding.subjects.serviceaccount_ns_names", Text, "service accounts that are bound, as namespace:name").list().audit(|e, _| subjects(e, "ServiceAccount", true)),
    Field::new("ka.req.binding.subjects.group_names", Text, "groups that are bound").list().audit(|e, _| subjects(e, "Group", false)),
    Field::new("ka.req.binding.role", Text, "role that subjects are bound to").audit(path!("requestObject", "roleRef", "name")),
    Field::new("ka.req.binding.subject.has_name", Text, "whether a subject has the name: true or false").arg(ArgRule::RequiredKey).deprecated().audit(has_subject),
    Field::new("ka.req.configmap.name", Text, "name of the ConfigMap").audit(path!("objectRef", "name")),
    Field::new("ka.req.configmap.obj", Text, "data of the ConfigMap, as JSON").audit(path!("requestObject", "data")),
    Field::new("ka.req.role.rules", Text, "rules of a role, as JSON").list().audit(|e, _| strings(e, e.root.at(&["requestObject", "rules"])?.items())),
    Field::new("ka.req.role.rules.apiGroups", Text, "API groups in rules of a role").list().arg(ArgRule::OptionalIndex).audit(|e, arg| of_rules(e, arg, "apiGroups")),
    Field::new("ka.req.role.rules.nonResourceURLs", Text, "URLs in rules of a role").list().arg(ArgRule::OptionalIndex).audit(|e, arg| of_rules(e, arg, "nonResourceURLs")),
    Field::new("ka.req.role.rules.verbs", Text, "verbs in rules of a role").list().arg(ArgRule::OptionalIndex).audit(|e, arg| of_rules(e, arg, "verbs")),
    Field::new("ka.req.role.rules.resources", Text, "resources in rules of a role").list().arg(ArgRule::OptionalIndex).audit(|e, arg| of_rules(e, arg, "resources")),
    Field::new("ka.req.service.type", Text, "type of a Service").audit(path!("requestObject", "spec", "type")),
    Field::new("ka.req.service.ports", Text, "ports of a Service, as one JSON text, or the one with an index").list().arg(ArgRule::OptionalIndex).audit(service_ports),
];

/// A value as text.
pub(super) fn value<'a>(e: &AuditEvent<'a>, node: Option<Node<'a>>) -> Found<'a> {
    node.map(|node| node.value(e.arena()))
}

/// What an index leaves of a list.
pub(super) fn chosen<'a>(items: &'a [Node<'a>], arg: &Arg) -> &'a [Node<'a>] {
    match arg {
        Arg::Index(index) => items.get(*index as usize).map_or(&[], std::slice::from_ref),
        Arg::None | Arg::Key(_) => items,
    }
}

/// Several values; none at all is no value.
pub(super) fn several<'a>(e: &AuditEvent<'a>, values: impl IntoIterator<Item = Value<'a>>) -> Found<'a> {
    let mut kept = ArenaVec::new_in(e.arena());
    kept.extend(values);
    (!kept.is_empty()).then(|| Value::List(kept.into_bump_slice()))
}

/// The elements of an array that are something.
pub(super) fn strings<'a>(e: &AuditEvent<'a>, items: &'a [Node<'a>]) -> Found<'a> {
    several(e, items.iter().filter(|item| **item != Node::Null).map(|item| item.value(e.arena())))
}

fn target_pod<'a>(e: &AuditEvent<'a>, _: &Arg) -> Found<'a> {
    let target = e.root.get("objectRef")?;
    let is_pod = target.get("resource").and_then(Node::text) == Some("pods") && target.get("subresource").is_none();
    value(e, e.root.at(&["responseObject", "metadata", "name"]).filter(|_| is_pod))
}

/// Subjects of one kind. A binding without any has an empty list, which is a value.
fn subjects<'a>(e: &AuditEvent<'a>, kind: &str, with_namespace: bool) -> Found<'a> {
    let binding = e.root.get("requestObject")?;
    let subjects = binding.get("subjects");
    if subjects.is_none() && binding.get("roleRef").is_none() {
        return None;
    }
    let mut names = ArenaVec::new_in(e.arena());
    for subject in subjects.map_or(&[][..], Node::items) {
        let Some(name) = subject.get("name").and_then(Node::text) else { continue };
        if subject.get("kind").and_then(Node::text) != Some(kind) {
            continue;
        }
        let namespace = subject.get("namespace").and_then(Node::text).unwrap_or_default();
        names.push(Value::Text(match with_namespace {
            true => text!(e.arena(), "{namespace}:{name}"),
            false => name.as_bytes(),
        }));
    }
    Some(Value::List(names.into_bump_slice()))
}

fn has_subject<'a>(e: &AuditEvent<'a>, arg: &Arg) -> Found<'a> {
    let Arg::Key(wanted) = arg else { return None };
    let subjects = e.root.at(&["requestObject", "subjects"])?.items();
    let found = subjects.iter().any(|subject| subject.get("name").and_then(Node::text) == Some(wanted));
    Some(Value::Text(if found { b"true" } else { b"false" }))
}

/// One part of all rules of a role, or of the rule with an index.
fn of_rules<'a>(e: &AuditEvent<'a>, arg: &Arg, part: &str) -> Found<'a> {
    let rules = chosen(e.root.at(&["requestObject", "rules"])?.items(), arg);
    let parts = rules.iter().filter_map(|rule| rule.get(part)).flat_map(Node::items);
    several(e, parts.map(|item| item.value(e.arena())))
}

fn service_ports<'a>(e: &AuditEvent<'a>, arg: &Arg) -> Found<'a> {
    let ports = e.root.at(&["requestObject", "spec", "ports"])?;
    match arg {
        Arg::Index(_) => strings(e, chosen(ports.items(), arg)),
        Arg::None | Arg::Key(_) => several(e, [ports.value(e.arena())]),
    }
}

/// The values of a parameter in the order of the URI, decoded.
fn params<'e, 'a: 'e>(e: &'e AuditEvent<'a>, arg: &'e Arg) -> Option<impl Iterator<Item = &'a [u8]> + 'e> {
    let Arg::Key(wanted) = arg else { return None };
    let uri = e.root.get("requestURI")?.text()?;
    let (_, query) = uri.split_once('?')?;
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    Some(query.split('&').filter_map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(e, name) == wanted.as_bytes()).then(|| decoded(e, value))
    }))
}

fn uri_param<'a>(e: &AuditEvent<'a>, arg: &Arg) -> Found<'a> {
    let mut joined = Writer::new(e.arena());
    let mut count = 0;
    for value in params(e, arg)? {
        if count > 0 {
            joined.push(b" ");
        }
        joined.push(value);
        count += 1;
    }
    (count > 0).then(|| Value::Text(joined.finish()))
}

fn uri_params<'a>(e: &AuditEvent<'a>, arg: &Arg) -> Found<'a> {
    several(e, params(e, arg)?.map(Value::Text))
}

/// A part of a query without `%` and `+`. What is no valid escape stays as it is.
fn decoded<'a>(e: &AuditEvent<'a>, part: &'a str) -> &'a [u8] {
    if !part.contains(['%', '+']) {
        return part.as_bytes();
    }
    let mut out = Writer::with_capacity(e.arena(), part.len());
    let mut rest = part.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |at: usize| char::from(*tail.get(at)?).to_digit(16);
        rest = tail;
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(&[(high * 16 + low) as u8]);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', ..) => drop(out.push(b" ")),
            (byte, ..) => drop(out.push(&[byte])),
        }
    }
    out.finish()
}
