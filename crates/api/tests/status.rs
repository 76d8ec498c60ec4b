//! What the operator writes as status fits the schemas, with every field in use.

use gyrfalcon_api::{
    condition::{Condition, ConditionStatus, ConditionType, Reason},
    config::{BundleStatus, Drops, SensorConfigStatus, SensorCounts, VersionCount},
    manifest,
    node::{NodeState, SensorNodeStatus, UnitHits},
    rule::{
        FalcoRuleStatus, Hits, NodeCounts, NodeFailure, RolloutPhase, RolloutStatus, RuleOverride, RuleProblem,
        RuleSummary, TestFailure, TestSummary, TopRule,
    },
    sink::{AlertSinkStatus, QueueStatus, SinkFailure, SinkTotals},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use serde_json::{Value, json};

fn time() -> Time {
    serde_json::from_value(json!("2026-11-24T06:40:12Z")).expect("a time")
}

fn condition(type_: ConditionType, reason: Reason) -> Condition {
    Condition::new(type_, ConditionStatus::True, reason, "a sentence", Some(4), time())
}

/// Reads a resource of a kind with this status; and whether each of the schema's fields is in it.
#[track_caller]
fn fits(kind: &str, spec: Value, status: &impl Serialize) {
    let name = if kind == "SensorConfig" { "default" } else { "x" };
    let status = serde_json::to_value(status).expect("plain data");
    let json = json!({
        "apiVersion": "gyrfalcon.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        "status": status,
    });
    let file = manifest::read(&json.to_string());
    assert_eq!(file.problems, [], "{json}");

    let crds = gyrfalcon_api::crds();
    let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).expect("a definition");
    let crd = serde_json::to_value(crd).expect("plain data");
    unused(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"], &status, kind);
}

/// Fails on a field of the schema that the value has not.
fn unused(schema: &Value, value: &Value, path: &str) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        assert!(value.get(name).is_some(), "{path}: this test leaves out {name}");
        unused(property, &value[name], &format!("{path}.{name}"));
    }
    if schema["items"].is_object() {
        unused(&schema["items"], &value[0], &format!("{path}[]"));
    }
}

#[test]
fn of_rules() {
    let problem = RuleProblem {
        rule: Some("curl in checkout".into()),
        code: "LOAD_ERR_COMPILE_CONDITION".into(),
        message: "nonexistent field proc.nme".into(),
        path: "spec.rule.condition".into(),
        line: 1,
        column: 21,
    };
    let other = RuleOverride { rule: "curl".into(), resource: "ClusterFalcoRule/core".into() };
    let status = FalcoRuleStatus {
        overrides: vec![other.clone()],
        overridden_by: vec![other],
        observed_generation: Some(4),
        serving_generation: Some(3),
        conditions: vec![condition(ConditionType::Ready, Reason::AllNodesLoaded)],
        summary: Some(RuleSummary { rules: 3, macros: 1, lists: 1, enabled: 2, warnings: 1 }),
        errors: vec![problem.clone()],
        warnings: vec![problem],
        nodes: Some(NodeCounts { desired: 1000, loaded: 998, stale: 1, failed: 1, skipped: 3 }),
        loaded_nodes: Some("998/1000".into()),
        node_failures: vec![NodeFailure {
            reason: Reason::LoadFailed.name().into(),
            message: "no field".into(),
            nodes: 1,
            examples: vec!["node-1".into()],
        }],
        bundle: Some("sha256:0123456789ab".into()),
        rollout: Some(RolloutStatus {
            step: 2,
            percent: 50,
            phase: RolloutPhase::RolledBack,
            since: time(),
            reason: Some("too loud".into()),
        }),
        hits: Some(Hits { total: 412, last_hour: 3, suppressed: 0, since: Some(time()), retired: 7 }),
        last_triggered: Some(time()),
        top_rules: vec![TopRule { rule: "curl in checkout".into(), hits: 412, last_triggered: Some(time()) }],
        tests: Some(TestSummary {
            passed: 1,
            failed: 1,
            failures: vec![TestFailure { name: "curl fires".into(), want: "1".into(), got: "0".into() }],
        }),
    };
    fits("FalcoRule", json!({ "rules": "- list: x" }), &status);
    fits("ClusterFalcoRule", json!({ "rules": "- list: x" }), &status);
}

#[test]
fn of_sinks() {
    let status = AlertSinkStatus {
        observed_generation: Some(1),
        conditions: vec![condition(ConditionType::TestDelivered, Reason::Delivered)],
        type_: Some("slack".into()),
        last_delivered: Some(time()),
        last_error: Some(SinkFailure { time: time(), message: "no".into(), http_code: Some(503) }),
        counters: Some(SinkTotals { sent: 1, failed: 1, retried: 1, dropped: 1, filtered: 1 }),
        queue: Some(QueueStatus { depth: 1, oldest_age_seconds: 60 }),
        last_test: Some("a-nonce".into()),
    };
    fits("AlertSink", json!({ "stdout": {} }), &status);
    fits("ClusterAlertSink", json!({ "stdout": {} }), &status);
}

#[test]
fn of_the_sensor_config() {
    let versions = vec![VersionCount { version: "0.1.0".into(), sensors: 3 }];
    let status = SensorConfigStatus {
        observed_generation: Some(1),
        conditions: vec![condition(ConditionType::Degraded, Reason::DropsHigh)],
        sensors: Some(SensorCounts { desired: 3, ready: 2, degraded: 1, versions }),
        bundle: Some(BundleStatus { hash: "sha256:0123456789ab".into(), rules: 25 }),
        drops: Some(Drops { total: 1 }),
    };
    fits("SensorConfig", json!({}), &status);
}

#[test]
fn of_nodes() {
    let status = SensorNodeStatus {
        node: Some("x".into()),
        version: Some("0.1.0".into()),
        kernel: Some("6.12.0".into()),
        architecture: Some("x86_64".into()),
        driver: Some("modern".into()),
        hooks: vec!["tp_btf/sys_exit".into()],
        bundle: Some("sha256:0123456789ab".into()),
        state: Some(NodeState::Stale),
        message: Some("loading".into()),
        events_per_second: Some(1200),
        lost: Some(3),
        losses: [("ring_full".to_owned(), 3)].into(),
        spooled: Some(0),
        memory_bytes: Some(48 << 20),
        last_seen: Some(time()),
        spool: Some("3f0c3a2e-0000-4000-8000-000000000000".into()),
        hits: vec![UnitHits { uid: "u".into(), hits: 3, suppressed: 1 }],
    };
    fits("SensorNode", json!({}), &status);
}
