//! What a schema cannot say: fields that exclude or need each other.
//!
//! The same rules, with the same messages, are CEL expressions beside the fields, for the API server; a test runs
//! both over the same cases.

use crate::{
    problem::Path,
    resource::Spec,
    rule::{FalcoRuleSpec, RuleSpec},
    scalar::Span,
    sink::{AlertSinkSpec, FileSink, RetrySpec, WebhookSink},
};

/// A rule that a spec breaks: the place it is reported at, and its message.
pub(crate) type Broken = (Path, &'static str);

/// Every rule that the spec breaks.
pub(crate) fn check(spec: Spec<'_>) -> Vec<Broken> {
    let mut broken = Vec::new();
    let path = Path::default().key("spec");
    match spec {
        Spec::Rules(spec) => check_rules(spec, &path, &mut broken),
        Spec::Sink(spec) => check_sink(spec, &path, &mut broken),
    }
    broken
}

fn check_rules(spec: &FalcoRuleSpec, path: &Path, broken: &mut Vec<Broken>) {
    if !one([spec.rules.is_some(), spec.rule.is_some(), !spec.items.is_empty()]) {
        broken.push((path.clone(), "exactly one of rules, rule and items"));
    }
    if let Some(rule) = &spec.rule {
        check_rule(rule, &path.key("rule"), broken);
    }
    for (at, item) in spec.items.iter().enumerate() {
        let path = path.key("items").index(at);
        if !one([item.rule.is_some(), item.macro_.is_some(), item.list.is_some()]) {
            broken.push((path.clone(), "exactly one of rule, macro and list"));
        }
        if let Some(rule) = &item.rule {
            check_rule(rule, &path.key("rule"), broken);
        }
    }
}

fn check_rule(rule: &RuleSpec, path: &Path, broken: &mut Vec<Broken>) {
    let complete = rule.condition.is_some() && rule.output.is_some() && rule.priority.is_some();
    if rule.override_.is_none() && !complete {
        broken
            .push((path.clone(), "rule: condition, output and priority are needed unless the rule overrides another"));
    }
}

fn check_sink(spec: &AlertSinkSpec, path: &Path, broken: &mut Vec<Broken>) {
    if !one([spec.stdout.is_some(), spec.file.is_some(), spec.webhook.is_some()]) {
        broken.push((path.clone(), "exactly one of stdout, file and webhook"));
    }
    if spec.timeout.is_some() && spec.webhook.is_none() {
        broken.push((path.key("timeout"), "timeout: only a webhook has one"));
    }
    if !within(spec.timeout, 1, 600_000) {
        broken.push((path.key("timeout"), "timeout: from 1ms to 10m"));
    }
    if let Some(retry) = &spec.retry {
        check_retry(retry, &path.key("retry"), broken);
    }
    if let Some(file) = &spec.file {
        check_file(file, &path.key("file"), broken);
    }
    if let Some(webhook) = &spec.webhook {
        check_webhook(webhook, &path.key("webhook"), broken);
    }
}

fn check_retry(retry: &RetrySpec, path: &Path, broken: &mut Vec<Broken>) {
    if !within(retry.initial_backoff, 1, 3_600_000) {
        broken.push((path.key("initialBackoff"), "initialBackoff: from 1ms to 1h"));
    }
    if !within(retry.max_backoff, 1, 3_600_000) {
        broken.push((path.key("maxBackoff"), "maxBackoff: from 1ms to 1h"));
    }
}

fn check_file(file: &FileSink, path: &Path, broken: &mut Vec<Broken>) {
    if file.keep.is_some() && file.max_size.is_none() {
        broken.push((path.key("keep"), "keep: needs maxSize"));
    }
    if file.max_size.is_some_and(|size| size.bytes() < 4096) {
        broken.push((path.key("maxSize"), "maxSize: at least 4Ki"));
    }
}

fn check_webhook(webhook: &WebhookSink, path: &Path, broken: &mut Vec<Broken>) {
    let authority = webhook.url.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(rest));
    if authority.is_some_and(|authority| authority.contains('@')) {
        broken.push((path.key("url"), "url: a user name or password does not belong in a resource"));
    }
    let secret = ["authorization", "proxy-authorization", "cookie"];
    if webhook.headers.iter().any(|header| secret.contains(&header.name.to_ascii_lowercase().as_str())) {
        broken.push((path.key("headers"), "headers: credentials do not belong in a resource"));
    }
    if webhook.ca_file.is_some() && !webhook.url.starts_with("https:") {
        broken.push((path.key("caFile"), "caFile: needs a url with https"));
    }
}

fn one<const N: usize>(given: [bool; N]) -> bool {
    given.into_iter().filter(|given| *given).count() == 1
}

fn within(span: Option<Span>, min_ms: u128, max_ms: u128) -> bool {
    span.is_none_or(|span| (min_ms..=max_ms).contains(&span.duration().as_millis()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube_cel::Validator;
    use serde_json::{Value, json};

    use super::*;
    use crate::{crd, resource::Kind};

    /// The messages of our rules and of the CEL expressions.
    fn both(kind: Kind, spec: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
        let ours = match kind {
            Kind::FalcoRule | Kind::ClusterFalcoRule => {
                check(Spec::Rules(&serde_json::from_value(spec.clone()).expect("a spec")))
            }
            Kind::AlertSink | Kind::ClusterAlertSink => {
                check(Spec::Sink(&serde_json::from_value(spec.clone()).expect("a spec")))
            }
        };
        let crd = crd::crd(kind);
        let schema = serde_json::to_value(crd::schema(&crd)).expect("plain data");
        let object = json!({ "metadata": { "name": "x" }, "spec": spec });
        let cel = match Validator::new().validate(&schema, &object, None) {
            Ok(()) => BTreeSet::new(),
            Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
        };
        (ours.into_iter().map(|(_, message)| message.to_owned()).collect(), cel)
    }

    #[track_caller]
    fn agree(kind: Kind, spec: Value, want: &[&str]) {
        let want: BTreeSet<String> = want.iter().map(|message| (*message).to_owned()).collect();
        let (ours, cel) = both(kind, &spec);
        assert_eq!(ours, want, "the check in Rust, of {spec}");
        assert_eq!(cel, want, "the CEL expressions, of {spec}");
    }

    #[test]
    fn a_rule_resource_has_exactly_one_source() {
        let one = "exactly one of rules, rule and items";
        agree(Kind::FalcoRule, json!({ "rules": "- list: a\n  items: []" }), &[]);
        agree(Kind::ClusterFalcoRule, json!({}), &[one]);
        let rule = json!({ "condition": "evt.type = execve", "output": "x", "priority": "INFO" });
        agree(Kind::FalcoRule, json!({ "rule": rule }), &[]);
        agree(Kind::ClusterFalcoRule, json!({ "rule": rule, "rules": "x" }), &[one]);
    }

    #[test]
    fn a_rule_is_complete_or_overrides() {
        let message = "rule: condition, output and priority are needed unless the rule overrides another";
        agree(Kind::FalcoRule, json!({ "rule": { "rule": "x" } }), &[message]);
        let change = json!({ "rule": "x", "enabled": false, "override": { "enabled": "replace" } });
        agree(Kind::FalcoRule, json!({ "rule": change }), &[]);
        agree(Kind::FalcoRule, json!({ "items": [{ "name": "x", "rule": change }] }), &[]);
        agree(Kind::FalcoRule, json!({ "items": [{ "name": "x", "rule": { "output": "x" } }] }), &[message]);
    }

    #[test]
    fn an_item_is_exactly_one_thing() {
        let message = "exactly one of rule, macro and list";
        let (list, macro_) = (json!({ "items": [1, "a"] }), json!({ "condition": "a" }));
        agree(
            Kind::FalcoRule,
            json!({ "items": [{ "name": "x", "list": list }, { "name": "y", "macro": macro_ }] }),
            &[],
        );
        agree(Kind::FalcoRule, json!({ "items": [{ "name": "x" }] }), &[message]);
        agree(Kind::FalcoRule, json!({ "items": [{ "name": "x", "list": list, "macro": macro_ }] }), &[message]);
    }

    #[test]
    fn a_sink_has_exactly_one_destination() {
        let one = "exactly one of stdout, file and webhook";
        agree(Kind::AlertSink, json!({ "stdout": {} }), &[]);
        agree(Kind::ClusterAlertSink, json!({}), &[one]);
        agree(Kind::ClusterAlertSink, json!({ "stdout": {}, "file": { "path": "/a/b" } }), &[one]);
    }

    #[test]
    fn times_have_bounds() {
        let webhook = json!({ "url": "http://x" });
        let timeout = |timeout: &str| json!({ "webhook": webhook, "timeout": timeout });
        agree(Kind::AlertSink, timeout("10m"), &[]);
        agree(Kind::AlertSink, timeout("11m"), &["timeout: from 1ms to 10m"]);
        agree(Kind::AlertSink, timeout("0s"), &["timeout: from 1ms to 10m"]);
        agree(Kind::AlertSink, json!({ "stdout": {}, "timeout": "1s" }), &["timeout: only a webhook has one"]);
        let retry = json!({ "initialBackoff": "0ms", "maxBackoff": "2h" });
        let messages = ["initialBackoff: from 1ms to 1h", "maxBackoff: from 1ms to 1h"];
        agree(Kind::AlertSink, json!({ "stdout": {}, "retry": retry }), &messages);
    }

    #[test]
    fn rotation_needs_a_size() {
        agree(Kind::AlertSink, json!({ "file": { "path": "/a", "keep": 2 } }), &["keep: needs maxSize"]);
        agree(Kind::AlertSink, json!({ "file": { "path": "/a", "maxSize": "4095" } }), &["maxSize: at least 4Ki"]);
        agree(Kind::AlertSink, json!({ "file": { "path": "/a", "maxSize": "4Ki", "keep": 2 } }), &[]);
    }

    #[test]
    fn a_webhook_carries_no_credentials() {
        let url = "url: a user name or password does not belong in a resource";
        for (text, messages) in [
            ("https://user:pass@host/x", &[url] as &[&str]),
            ("https://user@host", &[url]),
            ("https://host/a@b?c=d@e", &[]),
            ("http://[::1]:8080/x", &[]),
        ] {
            agree(Kind::AlertSink, json!({ "webhook": { "url": text } }), messages);
        }
        let headers = json!([{ "name": "AUTHORIZATION", "value": "Bearer x" }]);
        let message = "headers: credentials do not belong in a resource";
        agree(Kind::AlertSink, json!({ "webhook": { "url": "http://x", "headers": headers } }), &[message]);
        let message = "caFile: needs a url with https";
        agree(Kind::AlertSink, json!({ "webhook": { "url": "http://x", "caFile": "/ca.pem" } }), &[message]);
    }
}
