//! Runs the tests that a resource contains: written events against its rules, as they would be loaded.
//!
//! Each rule is judged by itself, as with `ruleMatching: all`; whether it is switched off by `mode` or left out by its
//! priority does not matter, whether it is enabled does.

use std::collections::HashSet;

use api::{
    ResourceId,
    rule::{FalcoRuleSpec, RuleTest, TestFailure, TestSummary},
    scalar::{FieldItem, FieldValue},
};
use event::value::Arena;
use rules::{
    diagnostic::closest,
    filter::names::Catalogue,
    load::RuleInfo,
    ruleset::{Evaluation, Ruleset},
    unmet::Parts,
    written::{Given, Written, WrittenError},
};

use crate::Assembly;

/// Of a part of a condition, so many characters are told.
const PART: usize = 200;

/// What the tests of a resource came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trial {
    /// How many passed.
    pub passed: u32,
    /// Those that failed, in the order of the resource.
    pub failures: Vec<Failure>,
}

/// A test that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// Index of the test in `spec.tests`.
    pub index: usize,
    /// Name of the test.
    pub name: String,
    /// What was expected: `curl in checkout: 1`. Several expectations are separated by semicolons.
    pub want: String,
    /// What happened instead.
    pub got: String,
    /// Of each rule that matched too often or too seldom, what became of each event: `events[0] matches`,
    /// ``events[1] does not: `fd.num >= 0` does not hold``. Only where [`Limits::explain_tests`](crate::Limits) asks for it.
    pub events: Vec<String>,
    /// What may be the cause.
    pub help: Option<String>,
}

impl Trial {
    /// Whether no test failed.
    pub fn is_passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The form that a status has.
    pub fn to_status(&self) -> TestSummary {
        let cut = |text: &str, limit: usize| text.chars().take(limit).collect::<String>();
        let failure = |failure: &Failure| TestFailure {
            name: cut(&failure.name, 256),
            want: cut(&failure.want, 1024),
            got: cut(&failure.got, 1024),
        };
        TestSummary {
            passed: self.passed,
            failed: self.failures.len() as u32,
            failures: self.failures.iter().take(TestSummary::MAX_FAILURES).map(failure).collect(),
        }
    }
}

/// Runs the tests of the resource that was added last.
pub fn run(assembly: &Assembly<'_>, id: &ResourceId, spec: &FalcoRuleSpec, explain: bool) -> Trial {
    let mut trial = Trial::default();
    if spec.tests.is_empty() {
        return trial;
    }
    let named: Vec<&str> =
        spec.tests.iter().flat_map(|test| &test.expect).map(|expectation| expectation.rule.as_str()).collect();
    let (ruleset, known) = assembly.on_trial(id, &named);
    let mut scratch = Evaluation::default();
    for (index, test) in spec.tests.iter().enumerate() {
        match run_test(test, id, &ruleset, &known, explain, &mut scratch) {
            Ok(()) => trial.passed += 1,
            Err(failure) => trial.failures.push(Failure { index, name: test.name.clone(), ..*failure }),
        }
    }
    trial
}

fn run_test(
    test: &RuleTest,
    id: &ResourceId,
    ruleset: &Ruleset,
    known: &[RuleInfo<'_>],
    explain: bool,
    scratch: &mut Evaluation,
) -> Result<(), Box<Failure>> {
    let mut events = Vec::new();
    for (at, fields) in test.events.iter().enumerate() {
        let lists: Vec<Vec<Given<'_>>> = fields.0.values().map(items).collect();
        let given = fields.0.iter().zip(&lists).map(|((name, value), items)| (name.as_str(), given(value, items)));
        let written = Written::new(given, Catalogue::default()).map_err(|errors| {
            let said: Vec<_> = errors.iter().map(|error| say(at, error)).collect();
            Box::new(Failure { want: "events that can be read".to_owned(), got: said.join("; "), ..Failure::default() })
        })?;
        let arena = Arena::new();
        let mut matched = HashSet::new();
        ruleset.matches(&written.subject(&arena), scratch, |rule| _ = matched.insert(rule.name()));
        events.push((written, matched));
    }
    let (mut want, mut got, mut failure) = (Vec::new(), Vec::new(), Failure::default());
    for expectation in &test.expect {
        let rule = expectation.rule.as_str();
        let Some(info) = known.iter().find(|info| info.name == rule) else {
            want.push(format!("{rule}: {}", expectation.count));
            got.push(format!("{rule}: no such rule here"));
            let close = closest(rule, known.iter().map(|info| info.name));
            failure.help = close.map(|name| format!("did you mean `{name}`?"));
            continue;
        };
        let count = events.iter().filter(|(_, matched)| matched.contains(rule)).count();
        if count == expectation.count as usize {
            continue;
        }
        want.push(format!("{rule}: {}", expectation.count));
        got.push(format!("{rule}: {count}"));
        if explain {
            let parts = Parts::new(info.condition, info.source).filter(|_| info.enabled);
            let told = events.iter().enumerate().map(|(at, (written, matched))| match matched.contains(rule) {
                true => format!("events[{at}] matches"),
                false => format!("events[{at}] does not: {}", reason(info, parts.as_ref(), written)),
            });
            failure.events.extend(told);
        }
        let of_host = events.iter().any(|(written, _)| written.is_of_host());
        if count < expectation.count as usize && of_host && id.kind.namespaced() {
            let namespace = &id.namespace;
            failure.help =
                Some(format!("a FalcoRule does not see the host: give the event `k8s.ns.name: {namespace}`"));
        }
    }
    if want.is_empty() {
        return Ok(());
    }
    Err(Box::new(Failure { want: want.join("; "), got: got.join("; "), ..failure }))
}

/// Why an event does not match a rule.
fn reason(rule: &RuleInfo<'_>, parts: Option<&Parts>, written: &Written) -> String {
    if !rule.enabled {
        return "the rule is off".to_owned();
    }
    let arena = Arena::new();
    match parts.and_then(|parts| parts.unmet(&written.subject(&arena))) {
        Some(part) => format!("`{}` does not hold", part.chars().take(PART).collect::<String>()),
        None => "it is not of the namespace, pods or nodes of the rule".to_owned(),
    }
}

/// The values of a list.
fn items(value: &FieldValue) -> Vec<Given<'_>> {
    let item = |item| match item {
        &FieldItem::Bool(value) => Given::Bool(value),
        &FieldItem::Number(value) => Given::Number(value),
        FieldItem::Text(text) => Given::Text(text),
    };
    match value {
        FieldValue::List(items) => items.iter().map(item).collect(),
        FieldValue::Bool(_) | FieldValue::Number(_) | FieldValue::Text(_) | FieldValue::Other(_) => Vec::new(),
    }
}

fn given<'a>(value: &'a FieldValue, items: &'a [Given<'a>]) -> Given<'a> {
    match value {
        FieldValue::Bool(value) => Given::Bool(*value),
        FieldValue::Number(number) => Given::Number(*number),
        FieldValue::Text(text) => Given::Text(text),
        FieldValue::List(_) => Given::List(items),
        // A mistake that is reported when the resource is read.
        FieldValue::Other(_) => Given::List(&[]),
    }
}

fn say(at: usize, error: &WrittenError) -> String {
    let help = error.help.as_deref().map(|help| format!("; {help}")).unwrap_or_default();
    format!("events[{at}]: {}: {}{help}", error.field, error.message)
}
