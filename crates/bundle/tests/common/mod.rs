//! What several tests share: resources written as YAML, and events written as fields.
#![allow(dead_code, reason = "each test program uses a part of it")]

use api::{Kind, ResourceId};
use bundle::{Accepted, Bundle, Candidate, Compiled, ConfigMap, Limits, NodeFacts, Settings, accept, compile};
use event::value::Arena;
use gyrfalcon_bundle as bundle;
use rules::{
    load::Options,
    ruleset::Evaluation,
    written::{Given, Written},
};

/// A resource: `shop/curl` is a FalcoRule, `core` a ClusterFalcoRule.
pub fn resource(name: &str, spec: &str) -> Candidate {
    let (kind, namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Kind::FalcoRule, namespace, name),
        None => (Kind::ClusterFalcoRule, "", name),
    };
    Candidate {
        id: ResourceId { kind, namespace: namespace.into(), name: name.into() },
        uid: format!("uid-{namespace}-{name}"),
        generation: 1,
        created: 1000,
        spec: serde_yaml_ng::from_str(spec).expect("a spec"),
        config_map: ConfigMap::None,
        percent: None,
    }
}

/// A spec with one rule in it.
pub fn rule(name: &str, condition: &str) -> String {
    let text = serde_json::to_string(condition).expect("text");
    format!("rule: {{rule: {name}, condition: {text}, output: o, priority: INFO}}\n")
}

/// Judges without a past.
pub fn judge(resources: &[Candidate]) -> Accepted {
    judge_after(resources, &Bundle::default())
}

/// Judges after a bundle.
pub fn judge_after(resources: &[Candidate], previous: &Bundle) -> Accepted {
    accept(resources, previous, &Settings::default(), &Limits::default())
}

/// Everything that verdicts say, one line for each resource and problem.
pub fn said(accepted: &Accepted) -> String {
    let mut lines = String::new();
    for (id, verdict) in &accepted.verdicts {
        let serving = verdict.serving_generation.map_or("nothing".to_owned(), |generation| generation.to_string());
        lines.push_str(&format!("{id}: {:?}, serving {serving}\n", verdict.outcome));
        verdict.errors.iter().for_each(|problem| lines.push_str(&format!("  error {problem}\n")));
        verdict.warnings.iter().for_each(|problem| lines.push_str(&format!("  warning {problem}\n")));
    }
    lines
}

/// What a node without labels runs.
pub fn on_node(bundle: &Bundle) -> Compiled {
    compile(bundle, &NodeFacts::default(), &Options::default())
}

/// An event: `k8s.ns.name=shop proc.name=curl`, of type execve unless it says otherwise.
pub fn written(fields: &str) -> Written {
    let mut given: Vec<(&str, Given<'_>)> = fields
        .split_whitespace()
        .map(|field| field.split_once('=').map(|(name, value)| (name, Given::Text(value))).expect("a field"))
        .collect();
    if !given.iter().any(|(name, _)| *name == "evt.type") {
        given.push(("evt.type", Given::Text("execve")));
    }
    Written::new(given, rules::filter::names::Catalogue::default()).expect("an event")
}

/// The rules that match an event, with their resources.
pub fn matches(compiled: &Compiled, fields: &str) -> Vec<String> {
    let written = written(fields);
    let arena = Arena::new();
    let mut scratch = Evaluation::default();
    let mut found = Vec::new();
    compiled.ruleset.matches(&written.subject(&arena), &mut scratch, |rule| {
        let unit = compiled.of_rule.get(rule.index()).and_then(|unit| compiled.units.get(*unit));
        let id = unit.and_then(|unit| unit.id.as_ref()).expect("a unit");
        found.push(format!("{id}: {}", rule.name()));
    });
    found
}
