//! Which event types can a condition hold for?
//!
//! `not` is pushed down to the comparisons; those of the event's type give a set, those of `evt.num` are decided
//! where they can be (the official rules spell "never" as `evt.num=0`), and all others may hold for any event.

use event::catalogue::{EventSet, EventType};

use super::{
    ast::{Check, Expr, Literal, Op, Operand, Right, Test},
    check::is_event_type,
};

/// The event types for which the filter may be true. Macros must have been put in.
pub fn event_types(expr: &Expr) -> EventSet {
    infer(expr, false)
}

fn infer(expr: &Expr, negated: bool) -> EventSet {
    match (expr, negated) {
        (Expr::And(parts, _), false) | (Expr::Or(parts, _), true) => {
            parts.iter().fold(EventSet::all(), |set, part| set.intersection(infer(part, negated)))
        }
        (Expr::And(parts, _), true) | (Expr::Or(parts, _), false) => {
            parts.iter().fold(EventSet::EMPTY, |set, part| set.union(infer(part, negated)))
        }
        (Expr::Not(inner, _), _) => infer(inner, !negated),
        (Expr::Macro(..), _) => EventSet::all(),
        (Expr::Check(check), _) => check_types(check, negated),
    }
}

/// `exists` on the event type holds always, and Falco takes `not … exists` to hold never; elsewhere both may hold.
fn check_types(check: &Check, negated: bool) -> EventSet {
    if is_event_type(&check.left) {
        return match named_types(&check.test) {
            Some(set) if negated => set.complement(),
            Some(set) => set,
            None => EventSet::all(),
        };
    }
    match (number_test(check), negated) {
        (Some(Truth::Never), false) | (Some(Truth::Always), true) => EventSet::EMPTY,
        (Some(Truth::Never | Truth::Always) | None, _) => EventSet::all(),
    }
}

fn named_types(test: &Test) -> Option<EventSet> {
    let Test::Compare { op, modifier: None, right, .. } = test else {
        return matches!(test, Test::Exists).then(EventSet::all);
    };
    let names = match right {
        Right::Value(literal) => std::slice::from_ref(literal),
        Right::List(items, _) => items,
        Right::Operand(_) => return None,
    };
    let known = |name: &Literal| EventType::by_name(std::str::from_utf8(&name.bytes).ok()?);
    let set: EventSet = names.iter().filter_map(known).collect();
    match op.normal() {
        Op::Eq | Op::In => Some(set),
        Op::Ne => Some(set.complement()),
        _ => None,
    }
}

/// What is known about a comparison of `evt.num`, which is at least 1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Truth {
    Always,
    Never,
}

fn number_test(check: &Check) -> Option<Truth> {
    let Operand::Field(field) = &check.left else { return None };
    let Test::Compare { op, modifier: None, right, .. } = &check.test else { return None };
    if &*field.name != "evt.num" {
        return None;
    }
    // Only what is plainly a number is decided: digits, no sign, no base.
    let number = |literal: &Literal| {
        let text = std::str::from_utf8(&literal.bytes).ok()?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?
    };
    match (op.normal(), right) {
        (Op::Eq, Right::Value(value)) => (number(value)? == 0).then_some(Truth::Never),
        (Op::Ne, Right::Value(value)) => (number(value)? == 0).then_some(Truth::Always),
        (Op::Lt, Right::Value(value)) => (number(value)? <= 1).then_some(Truth::Never),
        (Op::Le, Right::Value(value)) => (number(value)? == 0).then_some(Truth::Never),
        (Op::Gt, Right::Value(value)) => (number(value)? == 0).then_some(Truth::Always),
        (Op::Ge, Right::Value(value)) => (number(value)? <= 1).then_some(Truth::Always),
        (Op::In, Right::List(items, _)) => items.iter().all(|item| number(item) == Some(0)).then_some(Truth::Never),
        _ => None,
    }
}
