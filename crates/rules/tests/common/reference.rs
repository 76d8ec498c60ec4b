//! The oracle: walks the tree as it was parsed, compares every constant anew, remembers nothing, hashes nothing.
//! Of the language it knows what its callers generate: fields, constants and the operators of text and numbers.

use std::cmp::Ordering;

use event::{
    fields::{Field, Matching, Subject},
    value::Value,
};
use gyrfalcon_rules as rules;
use rules::filter::{
    ast::{Check, Expr, Modifier, Op, Operand, Right, Test},
    names::Catalogue,
};

/// Whether the filter holds.
pub fn holds<'a>(expr: &Expr, event: &impl Subject<'a>) -> bool {
    match expr {
        Expr::And(parts, _) => parts.iter().all(|part| holds(part, event)),
        Expr::Or(parts, _) => parts.iter().any(|part| holds(part, event)),
        Expr::Not(inner, _) => !holds(inner, event),
        Expr::Macro(name, _) => panic!("no macro {name} in the oracle's world"),
        Expr::Check(check) => check_holds(check, event),
    }
}

fn check_holds<'a>(check: &Check, event: &impl Subject<'a>) -> bool {
    let Operand::Field(wanted) = &check.left else { panic!("no transformers in the oracle's world") };
    let resolved = Catalogue::default().resolve(wanted).expect("a known field");
    let Some(value) = event.field(resolved.field, &resolved.arg) else { return false };
    let Test::Compare { op, modifier, right, .. } = &check.test else { return true };
    let constants: Vec<&[u8]> = match right {
        Right::Value(literal) => vec![&literal.bytes],
        Right::List(items, _) => items.iter().map(|item| &*item.bytes).collect(),
        Right::Operand(_) => panic!("no right-hand fields in the oracle's world"),
    };
    let field = resolved.field;
    let one = |constant: &&[u8]| candidates(field, value, *op, constant);
    match (modifier, op) {
        (Some(Modifier::AnyOf), _) => constants.iter().any(one),
        (Some(Modifier::AllOf), _) => !constants.is_empty() && constants.iter().all(one),
        (Some(Modifier::OneOf), _) => constants.iter().filter(|constant| one(constant)).count() == 1,
        (None, Op::In | Op::Intersects | Op::PMatch) => constants.iter().any(one),
        (None, _) => constants.iter().all(one),
    }
}

fn candidates(field: &Field, value: Value<'_>, op: Op, constant: &[u8]) -> bool {
    match (value, field.matching, op) {
        (Value::List(items), Matching::EitherEnd, Op::Ne) => {
            !items.is_empty() && items.iter().all(|item| compare(*item, op, constant))
        }
        (Value::List(items), ..) => items.iter().any(|item| compare(*item, op, constant)),
        (value, ..) => compare(value, op, constant),
    }
}

fn compare(value: Value<'_>, op: Op, constant: &[u8]) -> bool {
    let text = match value {
        Value::Text(text) => text,
        Value::Int(number) => return number_holds(op, number.cmp(&parsed(constant))),
        Value::Uint(number) => return number_holds(op, (number as i64).cmp(&parsed(constant))),
        Value::Bool(flag) => return (flag == (constant == b"true")) != (op == Op::Ne),
        Value::Ip(ip) => return (String::from_utf8_lossy(constant) == ip.to_string()) != (op == Op::Ne),
        other => panic!("no {other:?} in the oracle's world"),
    };
    let lower = |bytes: &[u8]| bytes.to_ascii_lowercase();
    match op {
        Op::Eq | Op::EqEq | Op::In | Op::Intersects => text == constant,
        Op::Ne => text != constant,
        Op::Lt | Op::Le | Op::Gt | Op::Ge => number_holds(op, text.cmp(constant)),
        Op::Contains => contains(text, constant),
        Op::IContains => contains(&lower(text), &lower(constant)),
        Op::StartsWith => text.starts_with(constant),
        Op::EndsWith => text.ends_with(constant),
        Op::Glob => glob(constant, text),
        Op::IGlob => glob(&lower(constant), &lower(text)),
        Op::PMatch => {
            let parts = |path: &[u8]| -> Vec<Vec<u8>> {
                path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect()
            };
            let (path, prefix) = (parts(text), parts(constant));
            path.len() >= prefix.len() && prefix.iter().zip(&path).all(|(pattern, part)| glob(pattern, part))
        }
        Op::Regex | Op::BContains | Op::BStartsWith => panic!("no {} in the oracle's world", op.word()),
    }
}

fn parsed(constant: &[u8]) -> i64 {
    String::from_utf8_lossy(constant).parse().expect("a number")
}

fn number_holds(op: Op, order: Ordering) -> bool {
    match op {
        Op::Lt => order.is_lt(),
        Op::Le => order.is_le(),
        Op::Gt => order.is_gt(),
        Op::Ge => order.is_ge(),
        Op::Ne => order.is_ne(),
        _ => order.is_eq(),
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    (0..=text.len()).any(|at| text[at..].starts_with(needle))
}

/// Patterns of `*`, `?` and plain bytes, by the textbook.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', pattern)), _) => (0..=text.len()).any(|at| glob(pattern, &text[at..])),
        (Some((b'?', pattern)), Some((_, text))) => glob(pattern, text),
        (Some((wanted, pattern)), Some((byte, text))) => wanted == byte && glob(pattern, text),
        _ => false,
    }
}
