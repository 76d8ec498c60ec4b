//! Arguments of events that are named by their place.
//!
//! `evt.arg[0]` of `socket` is its descriptor. Before system calls were told by one event each, Falco had another for their
//! beginning, and there it was the domain: a rule of that time, like the first for CVE-2020-14386 (`evt.type = socket and
//! evt.arg[0] contains AF_PACKET`), loads without a mistake and never matches. So each place is told by its name.

use std::collections::BTreeMap;

use event::catalogue::EventSet;

use super::{
    ast::{Expr, FieldRef, Right, Test},
    check::Finding,
};
use crate::diagnostic::Code;

/// Names that are told of one place.
const NAMES: usize = 3;

/// A doubt about each argument that a condition over these events names by its place. Macros must have been put in.
pub(crate) fn doubts(expr: &Expr, events: &EventSet) -> Vec<Finding> {
    let mut places = Vec::new();
    let mut note = |field: &FieldRef| {
        let place = field.arg.as_deref().and_then(|arg| std::str::from_utf8(arg).ok()?.parse::<usize>().ok());
        places.extend(place.filter(|_| &*field.name == "evt.arg").map(|place| (place, field.at)));
    };
    for check in expr.checks() {
        check.left.fields(&mut note);
        if let Test::Compare { right: Right::Operand(operand), .. } = &check.test {
            operand.fields(&mut note);
        }
    }
    if places.is_empty() {
        return Vec::new();
    }
    let arguments = events.iter().next().map(|event| {
        let names: Vec<&str> = event.info().params.iter().map(|param| param.name).collect();
        format!("; those of {} are {}", event.name(), names.join(", "))
    });
    let finding = |(place, at)| {
        let help = format!(
            "write `evt.arg.NAME`{}. What stood at a place was something else in earlier versions of Falco",
            arguments.as_deref().unwrap_or_default()
        );
        let message = format!("`evt.arg[{place}]` is {}", meaning(place, events));
        Finding { code: Code::PositionalArgument, message, at, help: Some(help) }
    };
    places.into_iter().map(finding).collect()
}

/// What stands at a place, in words.
fn meaning(place: usize, events: &EventSet) -> String {
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for event in events.iter() {
        if let Some(param) = event.info().params.get(place) {
            names.entry(param.name).or_default().push(event.name().to_owned());
        }
    }
    let some = |words: &[String], and: &str| match words.get(..NAMES) {
        Some(first) if words.len() > NAMES => format!("{}{and}others", first.join(", ")),
        _ => words.join(and),
    };
    if names.is_empty() {
        return "nothing: no event of this rule has so many arguments".to_owned();
    }
    let words: Vec<String> =
        names.iter().map(|(name, events)| format!("`{name}` of {}", some(events, " and "))).collect();
    some(&words, "; ")
}
