//! What a schema cannot say: fields that exclude or need each other.
//!
//! The same rules, with the same messages, are CEL expressions beside the fields, for the API server; a test runs
//! both over the same cases.

use regex::Regex;

use crate::{
    config::SensorConfigSpec,
    problem::Path,
    resource::{Kind, Resource, Spec},
    rule::{FalcoRuleSpec, Rollout, RuleSpec, Strategy},
    scalar::{Cell, FieldValue, Span},
    secret::CaRef,
    selector::LabelSelector,
    sink::{AlertSinkSpec, FileSink, RetrySpec, WebhookAuth, WebhookSink},
};

/// A rule that a resource breaks: the place it is reported at, and its message.
pub type Broken = (Path, &'static str);

/// Every rule that the resource breaks: those that the API server checks, and those about values that it cannot check,
/// such as regular expressions.
///
/// The operator asks, too: a resource may be older than the definition it is stored under.
pub fn check(resource: &Resource) -> Vec<Broken> {
    let mut broken = as_cel(resource);
    let path = Path::default().key("spec");
    let patterns = match resource.spec() {
        Spec::Rules(spec) => spec.events.as_ref().map(|events| (&events.redact, path.key("events"))),
        Spec::Config(spec) => spec.events.as_ref().map(|events| (&events.redact, path.key("events"))),
        Spec::Sink(_) | Spec::Node => None,
    };
    if let Spec::Rules(spec) = resource.spec() {
        check_values(spec, &path, &mut broken);
    }
    if let Some((patterns, path)) = patterns {
        for (at, _) in patterns.iter().enumerate().filter(|(_, pattern)| Regex::new(pattern).is_err()) {
            broken.push((path.key("redact").index(at), "redact: not a regular expression"));
        }
    }
    broken
}

/// Values whose types a structural schema has no words for.
fn check_values(spec: &FalcoRuleSpec, path: &Path, broken: &mut Vec<Broken>) {
    let mut cells = |values: &[Vec<Cell>], path: Path| {
        for (row_at, row) in values.iter().enumerate() {
            for (at, _) in row.iter().enumerate().filter(|(_, cell)| matches!(cell, Cell::Other(_))) {
                broken.push((path.key("values").index(row_at).index(at), Cell::WANTED));
            }
        }
    };
    let items = spec.items.iter().enumerate().map(|(at, item)| (&item.rule, path.key("items").index(at).key("rule")));
    for (rule, path) in [(&spec.rule, path.key("rule"))].into_iter().chain(items) {
        for (at, exception) in rule.iter().flat_map(|rule| &rule.exceptions).enumerate() {
            cells(&exception.values, path.key("exceptions").index(at));
        }
    }
    for (at, exception) in spec.exceptions.iter().enumerate() {
        cells(&exception.values, path.key("exceptions").index(at));
    }
    for (test_at, test) in spec.tests.iter().enumerate() {
        for (at, event) in test.events.iter().enumerate() {
            for (field, _) in event.0.iter().filter(|(_, value)| matches!(value, FieldValue::Other(_))) {
                let path = path.key("tests").index(test_at).key("events").index(at).key(field);
                broken.push((path, FieldValue::WANTED));
            }
        }
    }
}

/// Every rule that the resource breaks and that is a CEL expression, too.
fn as_cel(resource: &Resource) -> Vec<Broken> {
    let mut broken = Vec::new();
    let id = resource.id();
    let path = Path::default().key("spec");
    match resource.spec() {
        Spec::Rules(spec) => check_rules(id.kind, spec, &path, &mut broken),
        Spec::Sink(spec) => check_sink(id.kind, spec, &path, &mut broken),
        Spec::Config(spec) => {
            if &*id.name != SensorConfigSpec::NAME {
                let path = Path::default().key("metadata").key("name");
                broken.push((path, "metadata.name: the one SensorConfig is named default"));
            }
            check_config(spec, &path, &mut broken);
        }
        Spec::Node => {}
    }
    broken
}

fn check_rules(kind: Kind, spec: &FalcoRuleSpec, path: &Path, broken: &mut Vec<Broken>) {
    let sources = [spec.rules.is_some(), spec.rule.is_some(), !spec.items.is_empty(), spec.config_map_ref.is_some()];
    if !one(sources) {
        broken.push((path.clone(), "exactly one of rules, rule, items and configMapRef"));
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
    for (name, selector) in [
        ("nodeSelector", &spec.node_selector),
        ("namespaceSelector", &spec.namespace_selector),
        ("podSelector", &spec.pod_selector),
    ] {
        check_selector(selector.as_ref(), &path.key(name), broken);
    }
    if let Some(throttle) = &spec.throttle
        && !within(Some(throttle.interval), 1_000, DAY_MS)
    {
        broken.push((path.key("throttle").key("interval"), "interval: from 1s to 24h"));
    }
    if let Some(rollout) = &spec.rollout {
        check_rollout(rollout, &path.key("rollout"), broken);
    }
    if kind == Kind::FalcoRule {
        check_namespaced_rules(spec, path, broken);
    }
}

/// The schema of the namespaced kind has no such fields; a resource that was not read through it may.
fn check_namespaced_rules(spec: &FalcoRuleSpec, path: &Path, broken: &mut Vec<Broken>) {
    for (given, field) in [
        (spec.order.is_some(), "order"),
        (spec.node_selector.is_some(), "nodeSelector"),
        (spec.namespace_selector.is_some(), "namespaceSelector"),
        (spec.include_host.is_some(), "includeHost"),
    ] {
        if given {
            broken.push((path.key(field), CLUSTER_ONLY));
        }
    }
    if spec.config_map_ref.as_ref().is_some_and(|reference| reference.namespace.is_some()) {
        broken.push((path.key("configMapRef").key("namespace"), CLUSTER_ONLY));
    }
}

const CLUSTER_ONLY: &str = "only the cluster-wide kind has this field";
const PER_SECOND: &str = "perSecond: more than 0";
const DAY_MS: u128 = 24 * 3_600_000;

fn check_selector(selector: Option<&LabelSelector>, path: &Path, broken: &mut Vec<Broken>) {
    for (at, requirement) in selector.iter().flat_map(|selector| &selector.match_expressions).enumerate() {
        if requirement.operator.takes_values() == requirement.values.is_empty() {
            let path = path.key("matchExpressions").index(at);
            broken.push((path, "values: needed for In and NotIn, and for no other operator"));
        }
    }
}

fn check_rollout(rollout: &Rollout, path: &Path, broken: &mut Vec<Broken>) {
    let staged = rollout.strategy == Some(Strategy::Staged);
    if !staged && (!rollout.steps.is_empty() || rollout.interval.is_some()) {
        broken.push((path.clone(), "steps and interval: only the strategy Staged has them"));
    }
    let to_all = rollout.steps.is_sorted() && rollout.steps.last() == Some(&100);
    if !rollout.steps.is_empty() && !to_all {
        broken.push((path.key("steps"), "steps: ascending percentages, the last of them 100"));
    }
    if !within(rollout.interval, 1_000, DAY_MS) {
        broken.push((path.key("interval"), "interval: from 1s to 24h"));
    }
}

fn check_config(spec: &SensorConfigSpec, path: &Path, broken: &mut Vec<Broken>) {
    let budgets = spec.events.as_ref().and_then(|events| events.budgets.as_ref());
    for (name, budget) in budgets.into_iter().flat_map(|budgets| {
        [("controller", &budgets.controller), ("namespace", &budgets.namespace), ("node", &budgets.node)]
    }) {
        if budget.as_ref().is_some_and(|budget| budget.per_second <= 0.0) {
            let path = path.key("events").key("budgets").key(name).key("perSecond");
            broken.push((path, PER_SECOND));
        }
    }
    let appended = spec.outputs.iter().flat_map(|outputs| &outputs.append_output).enumerate();
    for (at, _) in appended.filter(|(_, append)| append.extra_output.is_none() && append.extra_fields.is_empty()) {
        let path = path.key("outputs").key("appendOutput").index(at);
        broken.push((path, "one of extraOutput and extraFields is needed"));
    }
}

fn check_rule(rule: &RuleSpec, path: &Path, broken: &mut Vec<Broken>) {
    let complete = rule.condition.is_some() && rule.output.is_some() && rule.priority.is_some();
    if rule.override_.is_none() && !complete {
        broken
            .push((path.clone(), "rule: condition, output and priority are needed unless the rule overrides another"));
    }
}

fn check_sink(kind: Kind, spec: &AlertSinkSpec, path: &Path, broken: &mut Vec<Broken>) {
    if !one([spec.stdout.is_some(), spec.file.is_some(), spec.webhook.is_some(), spec.slack.is_some()]) {
        broken.push((path.clone(), "exactly one of stdout, file, webhook and slack"));
    }
    if spec.timeout.is_some() && spec.webhook.is_none() && spec.slack.is_none() {
        broken.push((path.key("timeout"), "timeout: only webhook and slack have one"));
    }
    if kind == Kind::AlertSink && spec.match_.as_ref().is_some_and(|match_| !match_.namespaces.is_empty()) {
        broken.push((path.key("match").key("namespaces"), CLUSTER_ONLY));
    }
    if !within(spec.timeout, 1, 600_000) {
        broken.push((path.key("timeout"), "timeout: from 1ms to 10m"));
    }
    if spec.rate_limit.as_ref().is_some_and(|limit| limit.per_second <= 0.0) {
        broken.push((path.key("rateLimit").key("perSecond"), PER_SECOND));
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
    let authority = webhook
        .url
        .as_deref()
        .and_then(|url| url.split_once("://"))
        .map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(rest));
    if authority.is_some_and(|authority| authority.contains('@')) {
        broken.push((path.key("url"), "url: a user name or password does not belong in a resource"));
    }
    let secret = ["authorization", "proxy-authorization", "cookie"];
    if webhook.headers.iter().any(|header| secret.contains(&header.name.to_ascii_lowercase().as_str())) {
        broken.push((path.key("headers"), "headers: credentials do not belong in a resource"));
    }
    if webhook.url.is_some() == webhook.url_ref.is_some() {
        broken.push((path.clone(), "exactly one of url and urlRef"));
    }
    let plain = webhook.url.as_ref().is_some_and(|url| !url.starts_with("https:"));
    if webhook.ca_file.is_some() && plain {
        broken.push((path.key("caFile"), "caFile: needs a url with https"));
    }
    if webhook.ca_ref.is_some() && plain {
        broken.push((path.key("caRef"), "caRef: needs a url with https"));
    }
    if webhook.ca_file.is_some() && webhook.ca_ref.is_some() {
        broken.push((path.key("caRef"), "caFile and caRef: at most one of them"));
    }
    if let Some(CaRef { secret, config_map }) = &webhook.ca_ref
        && secret.is_some() == config_map.is_some()
    {
        broken.push((path.key("caRef"), "exactly one of secret and configMap"));
    }
    if let Some(WebhookAuth { bearer_ref, basic, header_ref }) = &webhook.auth
        && !one([bearer_ref.is_some(), basic.is_some(), header_ref.is_some()])
    {
        broken.push((path.key("auth"), "exactly one of bearerRef, basic and headerRef"));
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
    use crate::crd;

    /// A resource of a kind with a name that it may have.
    fn resource(kind: Kind, spec: &Value) -> Resource {
        let name = if kind == Kind::SensorConfig { "default" } else { "x" };
        named(kind, name, spec)
    }

    fn named(kind: Kind, name: &str, spec: &Value) -> Resource {
        let json = json!({
            "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": kind.name(), "metadata": { "name": name }, "spec": spec,
        });
        let wanted = "a resource";
        match kind {
            Kind::FalcoRule => Resource::FalcoRule(serde_json::from_value(json).expect(wanted)),
            Kind::ClusterFalcoRule => Resource::ClusterFalcoRule(serde_json::from_value(json).expect(wanted)),
            Kind::AlertSink => Resource::AlertSink(serde_json::from_value(json).expect(wanted)),
            Kind::ClusterAlertSink => Resource::ClusterAlertSink(serde_json::from_value(json).expect(wanted)),
            Kind::SensorConfig => Resource::SensorConfig(serde_json::from_value(json).expect(wanted)),
            Kind::SensorNode => Resource::SensorNode(serde_json::from_value(json).expect(wanted)),
        }
    }

    /// The messages of our rules and of the CEL expressions.
    fn both(resource: &Resource, spec: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
        let id = resource.id();
        let crd = crd::crd(id.kind);
        let schema = serde_json::to_value(crd::schema(&crd)).expect("plain data");
        let object = json!({ "metadata": { "name": id.name }, "spec": spec });
        let cel = match Validator::new().validate(&schema, &object, None) {
            Ok(()) => BTreeSet::new(),
            Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
        };
        (as_cel(resource).into_iter().map(|(_, message)| message.to_owned()).collect(), cel)
    }

    #[track_caller]
    fn agree(kind: Kind, spec: Value, want: &[&str]) {
        let want: BTreeSet<String> = want.iter().map(|message| (*message).to_owned()).collect();
        let (ours, cel) = both(&resource(kind, &spec), &spec);
        assert_eq!(ours, want, "the check in Rust, of {spec}");
        assert_eq!(cel, want, "the CEL expressions, of {spec}");
    }

    #[test]
    fn a_rule_resource_has_exactly_one_source() {
        let one = "exactly one of rules, rule, items and configMapRef";
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
        let one = "exactly one of stdout, file, webhook and slack";
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
        agree(Kind::AlertSink, json!({ "stdout": {}, "timeout": "1s" }), &["timeout: only webhook and slack have one"]);
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
    #[test]
    fn rules_may_come_from_a_config_map() {
        let reference = json!({ "namespace": "shop", "name": "rules" });
        agree(Kind::ClusterFalcoRule, json!({ "configMapRef": reference }), &[]);
        let both = json!({ "configMapRef": reference, "rules": "x" });
        agree(Kind::ClusterFalcoRule, both, &["exactly one of rules, rule, items and configMapRef"]);
    }

    #[test]
    fn selectors_have_values_where_the_operator_takes_them() {
        let message = "values: needed for In and NotIn, and for no other operator";
        for field in ["nodeSelector", "namespaceSelector", "podSelector"] {
            for (requirement, messages) in [
                (json!({ "key": "a", "operator": "In", "values": ["b"] }), &[] as &[&str]),
                (json!({ "key": "a", "operator": "NotIn", "values": [] }), &[message]),
                (json!({ "key": "a", "operator": "In" }), &[message]),
                (json!({ "key": "a", "operator": "Exists" }), &[]),
                (json!({ "key": "a", "operator": "DoesNotExist", "values": ["b"] }), &[message]),
            ] {
                let spec = json!({ "rules": "x", field: { "matchExpressions": [requirement] } });
                agree(Kind::ClusterFalcoRule, spec, messages);
            }
        }
    }

    #[test]
    fn a_throttle_counts_for_some_time() {
        let throttle = |interval: &str| json!({ "rules": "x", "throttle": { "perKey": 1, "interval": interval } });
        agree(Kind::FalcoRule, throttle("1s"), &[]);
        agree(Kind::FalcoRule, throttle("24h"), &[]);
        agree(Kind::FalcoRule, throttle("999ms"), &["interval: from 1s to 24h"]);
        agree(Kind::FalcoRule, throttle("25h"), &["interval: from 1s to 24h"]);
    }

    #[test]
    fn steps_of_a_rollout_lead_to_all_nodes() {
        let rollout = |rollout: Value| json!({ "rules": "x", "rollout": rollout });
        let staged = |steps: Value| rollout(json!({ "strategy": "Staged", "steps": steps }));
        agree(Kind::FalcoRule, staged(json!([5, 50, 100])), &[]);
        agree(Kind::FalcoRule, rollout(json!({ "strategy": "Staged", "interval": "10m" })), &[]);
        agree(Kind::FalcoRule, rollout(json!({ "rollback": { "onLoadError": false } })), &[]);
        let message = "steps: ascending percentages, the last of them 100";
        agree(Kind::FalcoRule, staged(json!([5, 50])), &[message]);
        agree(Kind::FalcoRule, staged(json!([50, 5, 100])), &[message]);
        let message = "steps and interval: only the strategy Staged has them";
        agree(Kind::FalcoRule, rollout(json!({ "steps": [100] })), &[message]);
        agree(Kind::FalcoRule, rollout(json!({ "strategy": "Immediate", "interval": "1m" })), &[message]);
        let message = "interval: from 1s to 24h";
        agree(Kind::FalcoRule, rollout(json!({ "strategy": "Staged", "interval": "100ms" })), &[message]);
    }

    #[test]
    fn a_webhook_has_one_address() {
        let key = json!({ "name": "hook", "key": "url" });
        agree(Kind::AlertSink, json!({ "webhook": { "urlRef": key } }), &[]);
        agree(Kind::AlertSink, json!({ "webhook": {} }), &["exactly one of url and urlRef"]);
        let both = json!({ "webhook": { "url": "http://x", "urlRef": key } });
        agree(Kind::ClusterAlertSink, both, &["exactly one of url and urlRef"]);
    }

    #[test]
    fn a_webhook_trusts_one_set_of_authorities() {
        let key = json!({ "name": "ca", "key": "ca.crt" });
        let webhook = |url: &str, ca: Value| json!({ "webhook": { "url": url, "caRef": ca } });
        agree(Kind::AlertSink, webhook("https://x", json!({ "secret": key })), &[]);
        agree(Kind::AlertSink, webhook("https://x", json!({ "configMap": key })), &[]);
        let message = "caRef: needs a url with https";
        agree(Kind::AlertSink, webhook("http://x", json!({ "secret": key })), &[message]);
        let message = "exactly one of secret and configMap";
        agree(Kind::AlertSink, webhook("https://x", json!({ "secret": key, "configMap": key })), &[message]);
        agree(Kind::AlertSink, webhook("https://x", json!({})), &[message]);
        let both = json!({ "webhook": { "url": "https://x", "caFile": "/ca.pem", "caRef": { "secret": key } } });
        agree(Kind::AlertSink, both, &["caFile and caRef: at most one of them"]);
    }

    #[test]
    fn a_webhook_has_one_kind_of_credentials() {
        let key = json!({ "name": "hook", "key": "token" });
        let auth = |auth: Value| json!({ "webhook": { "url": "https://x", "auth": auth } });
        agree(Kind::AlertSink, auth(json!({ "bearerRef": key })), &[]);
        agree(Kind::AlertSink, auth(json!({ "basic": { "usernameRef": key, "passwordRef": key } })), &[]);
        agree(Kind::AlertSink, auth(json!({ "headerRef": { "name": "X-Key", "ref": key } })), &[]);
        let message = "exactly one of bearerRef, basic and headerRef";
        agree(Kind::AlertSink, auth(json!({})), &[message]);
        let both = json!({ "bearerRef": key, "headerRef": { "name": "X-Key", "ref": key } });
        agree(Kind::ClusterAlertSink, auth(both), &[message]);
    }

    #[test]
    fn slack_takes_its_address_from_a_secret() {
        let slack = json!({ "urlRef": { "name": "slack", "key": "url" } });
        agree(Kind::AlertSink, json!({ "slack": slack, "timeout": "5s" }), &[]);
        let both = json!({ "slack": slack, "stdout": {} });
        agree(Kind::AlertSink, both, &["exactly one of stdout, file, webhook and slack"]);
    }

    #[test]
    fn there_is_one_sensor_config() {
        agree(Kind::SensorConfig, json!({}), &[]);
        let spec = json!({});
        let message = BTreeSet::from(["metadata.name: the one SensorConfig is named default".to_owned()]);
        assert_eq!(both(&named(Kind::SensorConfig, "other", &spec), &spec), (message.clone(), message));
    }

    #[test]
    fn names_of_resources_fit_into_labels() {
        let (spec, name) = (json!({ "rules": "x" }), "x".repeat(64));
        let (_, cel) = both(&named(Kind::FalcoRule, &name, &spec), &spec);
        assert_eq!(cel, BTreeSet::from(["metadata.name: at most 63 characters".to_owned()]));
    }

    #[test]
    fn something_happens_per_second() {
        for (per_second, messages) in [(json!(0), &[PER_SECOND] as &[&str]), (json!(0.5), &[]), (json!(1), &[])] {
            let limit = json!({ "perSecond": per_second, "burst": 1 });
            agree(Kind::AlertSink, json!({ "stdout": {}, "rateLimit": limit }), messages);
            for of in ["controller", "namespace", "node"] {
                agree(Kind::SensorConfig, json!({ "events": { "budgets": { of: limit } } }), messages);
            }
        }
    }

    #[test]
    fn what_is_appended_is_something() {
        let append = |append: Value| json!({ "outputs": { "appendOutput": [append] } });
        agree(Kind::SensorConfig, append(json!({ "extraOutput": "x" })), &[]);
        agree(Kind::SensorConfig, append(json!({ "extraFields": ["proc.exe"] })), &[]);
        let message = "one of extraOutput and extraFields is needed";
        agree(Kind::SensorConfig, append(json!({ "match": { "rule": "x" } })), &[message]);
    }

    #[test]
    fn a_namespace_has_no_say_in_the_cluster() {
        for (kind, spec) in [
            (Kind::FalcoRule, json!({ "rules": "x", "nodeSelector": {} })),
            (Kind::FalcoRule, json!({ "rules": "x", "namespaceSelector": {} })),
            (Kind::FalcoRule, json!({ "rules": "x", "includeHost": true })),
            (Kind::FalcoRule, json!({ "rules": "x", "order": 1 })),
            (Kind::FalcoRule, json!({ "configMapRef": { "name": "x", "namespace": "y" } })),
            (Kind::AlertSink, json!({ "stdout": {}, "match": { "namespaces": ["x"] } })),
        ] {
            let messages: Vec<&str> = check(&resource(kind, &spec)).into_iter().map(|(_, message)| message).collect();
            assert_eq!(messages, [CLUSTER_ONLY], "{spec}");
        }
    }

    #[test]
    fn what_is_redacted_is_a_regular_expression() {
        for (kind, spec, messages) in [
            (Kind::FalcoRule, json!({ "rules": "x", "events": { "redact": ["a+"] } }), &[] as &[&str]),
            (Kind::FalcoRule, json!({ "rules": "x", "events": { "redact": ["a", "("] } }), &["spec.events.redact[1]"]),
            (Kind::SensorConfig, json!({ "events": { "redact": ["["] } }), &["spec.events.redact[0]"]),
        ] {
            let places: Vec<String> =
                check(&resource(kind, &spec)).into_iter().map(|(path, _)| path.to_string()).collect();
            assert_eq!(places, messages, "{spec}");
        }
    }
}
