//! The oracle: walks the tree as it was parsed, compares every constant anew, remembers nothing, hashes nothing.
//!
//! It is written from Falco's language, not from the engine: values are owned, transformers are loops, and each operator
//! is what its description says.

use std::{cmp::Ordering, net::IpAddr};

use event::{
    fields::{Field, Matching, Subject},
    value::{Value, ValueType},
};
use gyrfalcon_rules as rules;
use rules::filter::{
    ast::{Call, Check, Expr, Modifier, Op, Operand, Right, Test, Transformer},
    names::Catalogue,
};

/// A value that depends on nothing.
#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Number(i128),
    Bool(bool),
    Ip(IpAddr),
    List(Vec<Owned>),
}

/// Whether the filter holds.
pub fn holds<'a>(expr: &Expr, event: &impl Subject<'a>) -> bool {
    holds_with(expr, event, Catalogue::default())
}

/// As [`holds`], with these fields.
pub fn holds_with<'a>(expr: &Expr, event: &impl Subject<'a>, catalogue: Catalogue) -> bool {
    match expr {
        Expr::And(parts, _) => parts.iter().all(|part| holds_with(part, event, catalogue)),
        Expr::Or(parts, _) => parts.iter().any(|part| holds_with(part, event, catalogue)),
        Expr::Not(inner, _) => !holds_with(inner, event, catalogue),
        Expr::Macro(name, _) => panic!("no macro {name} in the oracle's world"),
        Expr::Check(check) => check_holds(check, event, catalogue),
    }
}

fn check_holds<'a>(check: &Check, event: &impl Subject<'a>, catalogue: Catalogue) -> bool {
    let Some(value) = operand(&check.left, event, catalogue) else { return false };
    let Test::Compare { op, modifier, right, .. } = &check.test else { return true };
    let field = match &check.left {
        Operand::Field(wanted) => Some(catalogue.resolve(wanted).expect("a known field")),
        _ => None,
    };
    let is_net = field.as_ref().is_some_and(|field| field.value_type() == ValueType::Net);
    let constants: Vec<&[u8]> = match right {
        Right::Value(literal) => vec![&literal.bytes],
        Right::List(items, _) => items.iter().map(|item| &*item.bytes).collect(),
        Right::Operand(other) => {
            let Some(other) = operand(other, event, catalogue) else { return false };
            return same_kind(*op, &value, &other);
        }
    };
    // Of the networks behind `in`, Falco looks at the first one only for the ends of a connection together.
    let either_end = field.as_ref().is_some_and(|found| found.field.matching == Matching::EitherEnd);
    let constants = match (is_net && either_end, op) {
        (true, Op::In | Op::Intersects) => constants.into_iter().take(1).collect(),
        _ => constants,
    };
    let one = |constant: &&[u8]| candidates(field.as_ref().map(|found| found.field), &value, *op, constant);
    match (modifier, op, &value) {
        (Some(Modifier::AnyOf), ..) => constants.iter().any(one),
        (Some(Modifier::AllOf), ..) => !constants.is_empty() && constants.iter().all(one),
        (Some(Modifier::OneOf), ..) => constants.iter().filter(|constant| one(constant)).count() == 1,
        (None, Op::In, Owned::List(items))
            if field.as_ref().is_none_or(|found| found.field.matching == Matching::Plain) =>
        {
            items.iter().all(|item| constants.iter().any(|constant| compare(item, Op::Eq, constant)))
        }
        (None, Op::In | Op::Intersects | Op::PMatch, _) => constants.iter().any(one),
        (None, ..) => constants.iter().all(one),
    }
}

/// The value of an operand; none when anything in it has none.
fn operand<'a>(wanted: &Operand, event: &impl Subject<'a>, catalogue: Catalogue) -> Option<Owned> {
    match wanted {
        Operand::Field(field) => {
            let resolved = catalogue.resolve(field).expect("a known field");
            event.field(resolved.field, &resolved.arg).map(owned)
        }
        Operand::Literal(literal) => Some(Owned::Text(literal.bytes.to_vec())),
        Operand::List(items, _) => {
            items.iter().map(|item| operand(item, event, catalogue)).collect::<Option<_>>().map(Owned::List)
        }
        Operand::Call(call) => transformed(call, event, catalogue),
    }
}

fn owned(value: Value<'_>) -> Owned {
    match value {
        Value::Text(text) => Owned::Text(text.to_vec()),
        Value::Bytes(bytes) => Owned::Bytes(bytes.to_vec()),
        Value::Bool(flag) => Owned::Bool(flag),
        Value::Int(number) => Owned::Number(number.into()),
        Value::Uint(number) => Owned::Number(number.into()),
        Value::Ip(ip) => Owned::Ip(ip),
        Value::List(items) => Owned::List(items.iter().map(|item| owned(*item)).collect()),
        other => panic!("no {other:?} in the oracle's world"),
    }
}

fn transformed<'a>(call: &Call, event: &impl Subject<'a>, catalogue: Catalogue) -> Option<Owned> {
    let args = call.args.iter().map(|arg| operand(arg, event, catalogue)).collect::<Option<Vec<_>>>()?;
    let text_of = |value: &Owned| match value {
        Owned::Text(text) => Some(text.clone()),
        Owned::Number(number) => Some(number.to_string().into_bytes()),
        _ => None,
    };
    let each = |change: &dyn Fn(&[u8]) -> Option<Vec<u8>>| match args.first()? {
        Owned::Text(text) => change(text).map(Owned::Text),
        Owned::Bytes(bytes) => change(bytes).map(Owned::Bytes),
        Owned::List(items) => {
            let text = |item: &Owned| change(&text_of(item)?).map(Owned::Text);
            items.iter().map(text).collect::<Option<_>>().map(Owned::List)
        }
        _ => None,
    };
    match call.transformer {
        Transformer::ToLower => each(&|text| Some(text.to_ascii_lowercase())),
        Transformer::ToUpper => each(&|text| Some(text.to_ascii_uppercase())),
        Transformer::Basename => each(&|text| text.split(|byte| *byte == b'/').next_back().map(<[u8]>::to_vec)),
        Transformer::B64 => each(&base64),
        Transformer::Len => match args.first()? {
            Owned::List(items) => Some(Owned::Number(items.len() as i128)),
            Owned::Text(bytes) | Owned::Bytes(bytes) => Some(Owned::Number(bytes.len() as i128)),
            _ => None,
        },
        Transformer::Join => match &args[..] {
            [Owned::Text(separator), Owned::List(items)] => {
                let texts = items.iter().map(text_of).collect::<Option<Vec<_>>>()?;
                Some(Owned::Text(texts.join(&separator[..])))
            }
            _ => None,
        },
        Transformer::Concat => Some(Owned::Text(args.iter().map(text_of).collect::<Option<Vec<_>>>()?.concat())),
        Transformer::Val => args.into_iter().next(),
        Transformer::Getopt => panic!("no getopt in the oracle's world"),
    }
}

/// Base64 by its table; padding may be missing.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let trimmed: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'=').collect();
    let mut bits: u32 = 0;
    let mut count = 0;
    let mut out = Vec::new();
    for byte in trimmed {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

/// Two values of an event.
fn same_kind(op: Op, left: &Owned, right: &Owned) -> bool {
    match (op, left, right) {
        (Op::In, Owned::List(left), Owned::List(right)) => left.iter().all(|item| right.contains(item)),
        (Op::Intersects, Owned::List(left), Owned::List(right)) => left.iter().any(|item| right.contains(item)),
        (Op::In | Op::Intersects, left, Owned::List(right)) => right.contains(left),
        (_, Owned::Number(left), Owned::Number(right)) => number_holds(op, left.cmp(right)),
        (_, Owned::Text(left), Owned::Text(right)) => text_holds(op, left, right),
        (_, Owned::Bytes(left), Owned::Bytes(right)) => text_holds(op, left, right),
        (Op::Ne, ..) => left != right,
        _ => left == right,
    }
}

fn candidates(field: Option<&Field>, value: &Owned, op: Op, constant: &[u8]) -> bool {
    match (value, field.map(|field| field.matching), op) {
        (Owned::List(items), Some(Matching::EitherEnd), Op::Ne) => {
            !items.is_empty() && items.iter().all(|item| compare(item, op, constant))
        }
        (Owned::List(items), ..) => items.iter().any(|item| compare(item, op, constant)),
        (value, ..) => compare(value, op, constant),
    }
}

fn compare(value: &Owned, op: Op, constant: &[u8]) -> bool {
    match value {
        Owned::Text(text) => text_holds(op, text, constant),
        Owned::Bytes(bytes) => match op {
            Op::BContains => contains(bytes, &unhex(constant)),
            Op::BStartsWith => bytes.starts_with(&unhex(constant)),
            _ => text_holds(op, bytes, constant),
        },
        Owned::Number(number) => number_holds(op, number.cmp(&parsed(constant))),
        Owned::Bool(flag) => (*flag == (constant == b"true")) != (op == Op::Ne),
        Owned::Ip(ip) => address_holds(*ip, constant) != (op == Op::Ne),
        Owned::List(_) => panic!("no lists in lists in the oracle's world"),
    }
}

/// Whether an address is the constant, or in the network that it is.
fn address_holds(ip: IpAddr, constant: &[u8]) -> bool {
    let text = String::from_utf8_lossy(constant);
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (32, u128::from(u32::from(ip))),
        IpAddr::V6(ip) => (128, u128::from(ip)),
    };
    let Some((network, length)) = text.split_once('/') else {
        return text.parse::<IpAddr>().expect("an address") == ip;
    };
    let (width, network) = bits(network.parse().expect("a network"));
    let (own_width, own) = bits(ip);
    let length: u32 = length.parse().expect("a length");
    let rest = width - length;
    width == own_width && (rest == 128 || network >> rest == own >> rest)
}

fn text_holds(op: Op, text: &[u8], constant: &[u8]) -> bool {
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
        Op::Regex => {
            let pattern = format!("^(?:{})$", String::from_utf8_lossy(constant));
            regex::Regex::new(&pattern).expect("a pattern").is_match(&String::from_utf8_lossy(text))
        }
        Op::BContains | Op::BStartsWith => panic!("{} is for bytes", op.word()),
    }
}

fn unhex(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits")).collect()
}

fn parsed(constant: &[u8]) -> i128 {
    let text = String::from_utf8_lossy(constant);
    match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).expect("a number"),
        None => text.parse().expect("a number"),
    }
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

/// Patterns of `*`, `?`, classes and plain bytes, by the textbook.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', pattern)), _) => (0..=text.len()).any(|at| glob(pattern, &text[at..])),
        (Some((b'?', pattern)), Some((_, text))) => glob(pattern, text),
        (Some((b'[', class)), Some((byte, text))) if class.contains(&b']') => {
            let end = class.iter().position(|byte| *byte == b']').unwrap_or_default();
            let (negated, members) = match class[..end].split_first() {
                Some((b'!', members)) => (true, members),
                _ => (false, &class[..end]),
            };
            members.contains(byte) != negated && glob(&class[end + 1..], text)
        }
        (Some((wanted, pattern)), Some((byte, text))) => wanted == byte && glob(pattern, text),
        _ => false,
    }
}
