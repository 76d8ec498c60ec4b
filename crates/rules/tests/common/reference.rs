//! The oracle: walks the tree as it was parsed, compares every constant anew, remembers nothing about an event, hashes
//! nothing. Written from the description of the language, and slow in every way that makes it plain.

use std::{cell::RefCell, cmp::Ordering, collections::HashMap, net::IpAddr};

use event::{
    fields::{Arg, Field, Matching, Subject},
    value::{Value, ValueType},
};
use gyrfalcon_rules as rules;
use rules::filter::{
    ast::{Call, Check, Expr, FieldRef, Literal, Modifier, Op, Operand, Right, Test, Transformer},
    names::Catalogue,
};

/// A value that owns its parts.
#[derive(Debug, Clone, PartialEq)]
enum Plain {
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Bool(bool),
    Number(i128),
    Double(f64),
    Ip(IpAddr),
    List(Vec<Plain>),
}

impl From<Value<'_>> for Plain {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Text(text) => Self::Text(text.to_vec()),
            Value::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Value::Bool(truth) => Self::Bool(truth),
            Value::Int(number) => Self::Number(number.into()),
            Value::Uint(number) => Self::Number(number.into()),
            Value::Double(number) => Self::Double(number),
            Value::Ip(ip) => Self::Ip(ip),
            Value::Net(net) => panic!("no event has a network: {net}"),
            Value::List(items) => Self::List(items.iter().map(|item| Self::from(*item)).collect()),
        }
    }
}

/// What a field's values are like.
#[derive(Clone, Copy)]
struct Kind {
    ty: ValueType,
    matching: Matching,
    list: bool,
}

/// Addresses of the hosts that filters may name.
pub fn host(name: &str) -> Option<IpAddr> {
    match name {
        "one.example" => "10.0.0.1".parse().ok(),
        "two.example" => "10.0.0.2".parse().ok(),
        _ => None,
    }
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
    let Some(left) = value(&check.left, event, catalogue) else { return false };
    let Test::Compare { op, modifier, right, .. } = &check.test else { return true };
    let kind = kind(&check.left, catalogue);
    let constants: Vec<&Literal> = match right {
        Right::Value(literal) => vec![literal],
        Right::List(items, _) => items.iter().collect(),
        Right::Operand(operand) => {
            return value(operand, event, catalogue).is_some_and(|right| values_hold(*op, &left, &right));
        }
    };
    // Of the networks behind `in`, Falco looks at the first one only for the ends of a connection together.
    let first_only = kind.ty == ValueType::Net && kind.matching == Matching::EitherEnd;
    let constants: Vec<_> = match (first_only, op) {
        (true, Op::In | Op::Intersects) => constants.into_iter().take(1).collect(),
        _ => constants,
    };
    let one = |constant: &&Literal| candidates(kind, &left, *op, &[constant]);
    match modifier {
        Some(Modifier::AnyOf) => constants.iter().any(one),
        Some(Modifier::AllOf) => !constants.is_empty() && constants.iter().all(one),
        Some(Modifier::OneOf) => constants.iter().filter(|constant| one(constant)).count() == 1,
        None => candidates(kind, &left, *op, &constants),
    }
}

/// The comparison for each of several candidates.
fn candidates(kind: Kind, value: &Plain, op: Op, constants: &[&Literal]) -> bool {
    let one = |value: &Plain| {
        let mut each = constants.iter().map(|constant| compare(kind, value, op, &constant.bytes));
        match op {
            Op::In | Op::Intersects | Op::PMatch => each.any(|holds| holds),
            _ => each.all(|holds| holds),
        }
    };
    match value {
        Plain::List(items) if kind.list && op == Op::In => items.iter().all(one),
        Plain::List(items) if kind.matching == Matching::EitherEnd && op == Op::Ne => {
            !items.is_empty() && items.iter().all(one)
        }
        Plain::List(items) => items.iter().any(one),
        single => one(single),
    }
}

fn compare(kind: Kind, value: &Plain, op: Op, constant: &[u8]) -> bool {
    let text = String::from_utf8_lossy(constant);
    let number = || match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).expect("a number"),
        None if &*text == "https" => 443,
        None => text.parse().expect("a number"),
    };
    match value {
        Plain::Number(value) => order_holds(op, value.cmp(&number())),
        Plain::Double(value) => value.partial_cmp(&(number() as f64)).is_some_and(|order| order_holds(op, order)),
        Plain::Bool(truth) => (*truth == (&*text == "true")) != (op == Op::Ne),
        Plain::Ip(ip) if kind.matching == Matching::HostName => {
            let by_name = matches!(op, Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Intersects);
            by_name && (host(&text) == Some(*ip)) != (op == Op::Ne)
        }
        Plain::Ip(ip) => match text.split_once('/') {
            Some((net, length)) => {
                inside(*ip, net.parse().expect("an address"), length.parse().expect("a length")) != (op == Op::Ne)
            }
            None => (text.parse() == Ok(*ip)) != (op == Op::Ne),
        },
        Plain::Text(text) => text_holds(op, text, constant),
        Plain::Bytes(bytes) if matches!(op, Op::BContains | Op::BStartsWith) => {
            let wanted: Vec<u8> = constant.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
            if op == Op::BContains { contains(bytes, &wanted) } else { bytes.starts_with(&wanted) }
        }
        Plain::Bytes(bytes) => text_holds(op, bytes, constant),
        Plain::List(_) => panic!("no lists in lists"),
    }
}

fn digit(digit: u8) -> u8 {
    (digit as char).to_digit(16).expect("a hexadecimal digit") as u8
}

fn inside(ip: IpAddr, net: IpAddr, length: u32) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (4, u128::from(u32::from(ip)) << 96),
        IpAddr::V6(ip) => (6, u128::from(ip)),
    };
    let ((family, ip), (other, net)) = (bits(ip), bits(net));
    family == other && (length == 0 || (ip ^ net) >> (128 - length) == 0)
}

/// Two values of the event.
fn values_hold(op: Op, left: &Plain, right: &Plain) -> bool {
    match (left, right) {
        (Plain::List(left), Plain::List(right)) if op == Op::In => left.iter().all(|item| right.contains(item)),
        (Plain::List(left), Plain::List(right)) => left.iter().any(|item| right.contains(item)),
        (left, Plain::List(right)) => right.contains(left),
        (Plain::Number(left), Plain::Number(right)) => order_holds(op, left.cmp(right)),
        (Plain::Double(left), Plain::Double(right)) => {
            left.partial_cmp(right).map_or(op == Op::Ne, |order| order_holds(op, order))
        }
        (Plain::Text(left) | Plain::Bytes(left), Plain::Text(right) | Plain::Bytes(right)) => {
            text_holds(op, left, right)
        }
        (left, right) => (left == right) != (op == Op::Ne),
    }
}

fn text_holds(op: Op, text: &[u8], constant: &[u8]) -> bool {
    let lower = |bytes: &[u8]| bytes.to_ascii_lowercase();
    match op {
        Op::Eq | Op::EqEq | Op::In | Op::Intersects => text == constant,
        Op::Ne => text != constant,
        Op::Lt | Op::Le | Op::Gt | Op::Ge => order_holds(op, text.cmp(constant)),
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
            let one = |pattern: &[u8], part: &[u8]| match pattern.iter().any(|byte| b"?*[".contains(byte)) {
                true => glob(pattern, part),
                false => pattern == part,
            };
            path.len() >= prefix.len() && prefix.iter().zip(&path).all(|(pattern, part)| one(pattern, part))
        }
        Op::Regex if constant.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/.*+?|[]".contains(byte)) => {
            constant.split(|byte| *byte == b'|').any(|branch| regex(branch, text))
        }
        Op::Regex => {
            let pattern = format!("^(?:{})$", String::from_utf8_lossy(constant));
            regex::Regex::new(&pattern).expect("a pattern").is_match(&String::from_utf8_lossy(text))
        }
        Op::BContains | Op::BStartsWith => panic!("{} is for bytes", op.word()),
    }
}

fn order_holds(op: Op, order: Ordering) -> bool {
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

/// Patterns of `*`, `?`, `[ab]`, `[!ab]`, `\\x` and plain bytes, by the textbook.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', pattern)), _) => (0..=text.len()).any(|at| glob(pattern, &text[at..])),
        (Some((b'?', pattern)), Some((_, text))) => glob(pattern, text),
        (Some((b'\\', quoted)), Some((byte, text))) => {
            quoted.split_first().is_some_and(|(wanted, pattern)| wanted == byte && glob(pattern, text))
        }
        (Some((b'[', class)), Some((byte, text))) if class.contains(&b']') => {
            let end = class.iter().position(|byte| *byte == b']').expect("a closed class");
            let (members, negated) = match class[..end].strip_prefix(b"!") {
                Some(members) => (members, true),
                None => (&class[..end], false),
            };
            members.contains(byte) != negated && glob(&class[end + 1..], text)
        }
        (Some((wanted, pattern)), Some((byte, text))) => wanted == byte && glob(pattern, text),
        _ => false,
    }
}

/// Expressions of bytes, `.` and `[ab]`, each alone or with `*`, `+` or `?` behind it, over the whole text.
fn regex(pattern: &[u8], text: &[u8]) -> bool {
    let Some(first) = pattern.first() else { return text.is_empty() };
    let atom = match first {
        b'[' => pattern.iter().position(|byte| *byte == b']').expect("a closed class") + 1,
        _ => 1,
    };
    let takes = |byte: &u8| match first {
        b'.' => *byte != b'\n',
        b'[' => pattern[1..atom - 1].contains(byte),
        wanted => wanted == byte,
    };
    let (rest, least, most) = match pattern.get(atom) {
        Some(b'*') => (&pattern[atom + 1..], 0, usize::MAX),
        Some(b'+') => (&pattern[atom + 1..], 1, usize::MAX),
        Some(b'?') => (&pattern[atom + 1..], 0, 1),
        _ => (&pattern[atom..], 1, 1),
    };
    let run = text.iter().take_while(|byte| takes(byte)).count();
    (least..=run.min(most)).any(|taken| regex(rest, &text[taken..]))
}

// ---- values

/// A field with its argument, and the type of its value.
type Found = (&'static Field, Arg, ValueType);

thread_local! {
    /// Looking a field up takes longer than all the rest.
    static RESOLVED: RefCell<HashMap<(usize, String), Found>> = RefCell::default();
}

fn resolve(wanted: &FieldRef, catalogue: Catalogue) -> Found {
    let spelling = format!("{}[{}]", wanted.name, String::from_utf8_lossy(wanted.arg.as_deref().unwrap_or(b"")));
    RESOLVED.with_borrow_mut(|known| {
        let found = known.entry((catalogue.extra.as_ptr() as usize, spelling)).or_insert_with(|| {
            let resolved = catalogue.resolve(wanted).expect("a known field");
            (resolved.field, resolved.arg.clone(), resolved.value_type())
        });
        found.clone()
    })
}

fn kind(operand: &Operand, catalogue: Catalogue) -> Kind {
    match operand {
        Operand::Field(wanted) => {
            let (field, arg, ty) = resolve(wanted, catalogue);
            let matching = match (field.matching, &arg) {
                (Matching::EachAncestor, Arg::Index(_)) => Matching::Plain,
                (matching, _) => matching,
            };
            Kind { ty, matching, list: field.list }
        }
        Operand::Call(call) => {
            let first = call.args.first().map(|arg| kind(arg, catalogue));
            let list = match call.transformer {
                Transformer::Getopt => call.selector.is_none(),
                Transformer::Len | Transformer::Join | Transformer::Concat => false,
                _ => first.is_some_and(|first| first.list),
            };
            let ty = if call.transformer == Transformer::Len { ValueType::Uint(64) } else { ValueType::Text };
            Kind { ty, matching: Matching::Plain, list }
        }
        Operand::Literal(_) => Kind { ty: ValueType::Text, matching: Matching::Plain, list: false },
        Operand::List(..) => Kind { ty: ValueType::Text, matching: Matching::Plain, list: true },
    }
}

fn value<'a>(operand: &Operand, event: &impl Subject<'a>, catalogue: Catalogue) -> Option<Plain> {
    match operand {
        Operand::Field(wanted) => {
            let (field, arg, _) = resolve(wanted, catalogue);
            event.field(field, &arg).map(Plain::from)
        }
        Operand::Call(call) => {
            let args = call.args.iter().map(|arg| value(arg, event, catalogue)).collect::<Option<Vec<_>>>()?;
            transformed(call, args)
        }
        Operand::Literal(literal) => Some(Plain::Text(literal.bytes.to_vec())),
        Operand::List(items, _) => {
            items.iter().map(|item| value(item, event, catalogue)).collect::<Option<_>>().map(Plain::List)
        }
    }
}

fn transformed(call: &Call, args: Vec<Plain>) -> Option<Plain> {
    let first = args.first()?.clone();
    match (call.transformer, first) {
        (Transformer::Val, first) => Some(first),
        (Transformer::Len, Plain::List(items)) => Some(Plain::Number(items.len() as i128)),
        (Transformer::Len, Plain::Text(text) | Plain::Bytes(text)) => Some(Plain::Number(text.len() as i128)),
        (Transformer::Concat, _) => Some(Plain::Text(texts(&args)?.concat())),
        (Transformer::Join, Plain::Text(separator)) => match args.get(1)? {
            Plain::List(items) => Some(Plain::Text(texts(items)?.join(&separator[..]))),
            _ => None,
        },
        (Transformer::Getopt, Plain::List(words)) => {
            let known = texts(&args)?.pop()?;
            let found = options(&texts(&words)?, &known);
            match &call.selector {
                None => Some(Plain::List(found.into_iter().flatten().map(Plain::Text).collect())),
                Some(letter) => {
                    let last = found.into_iter().rfind(|option| option[0] == **letter)?;
                    last.into_iter().next_back().map(Plain::Text)
                }
            }
        }
        (transformer, Plain::Text(text)) => changed(transformer, &text).map(Plain::Text),
        (transformer, Plain::Bytes(bytes)) => changed(transformer, &bytes).map(Plain::Bytes),
        (transformer, Plain::List(items)) => {
            let each = texts(&items)?.into_iter().map(|text| changed(transformer, &text).map(Plain::Text));
            each.collect::<Option<_>>().map(Plain::List)
        }
        _ => None,
    }
}

/// Texts, and numbers as text; of a list as an argument, nothing.
fn texts(values: &[Plain]) -> Option<Vec<Vec<u8>>> {
    let text = |value: &Plain| match value {
        Plain::Text(text) | Plain::Bytes(text) => Some(text.clone()),
        Plain::Number(number) => Some(number.to_string().into_bytes()),
        Plain::List(_) => Some(Vec::new()),
        Plain::Bool(_) | Plain::Double(_) | Plain::Ip(_) => None,
    };
    values.iter().map(text).collect()
}

fn changed(transformer: Transformer, text: &[u8]) -> Option<Vec<u8>> {
    Some(match transformer {
        Transformer::ToLower => text.to_ascii_lowercase(),
        Transformer::ToUpper => text.to_ascii_uppercase(),
        Transformer::Basename => text.rsplit(|byte| *byte == b'/').next()?.to_vec(),
        Transformer::B64 => {
            let decoded = base64(text)?;
            decoded.split(|byte| *byte == 0).next()?.to_vec()
        }
        other => panic!("{other:?} has its own rule"),
    })
}

/// Letters with their values, in order.
fn options(words: &[Vec<u8>], known: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        if word.len() > 2 && word.starts_with(b"--") {
            continue;
        }
        if word == b"--" || word == b"-" || !word.starts_with(b"-") {
            break;
        }
        for (index, letter) in word.iter().enumerate().skip(1) {
            let place = known.iter().position(|option| option == letter && *letter != b':');
            let Some(place) = place else {
                found.push(vec![b"?".to_vec()]);
                continue;
            };
            if known.get(place + 1) != Some(&b':') {
                found.push(vec![vec![*letter]]);
                continue;
            }
            let mut value = word[index + 1..].to_vec();
            if value.is_empty() {
                value = words.get(at).cloned().unwrap_or_default();
                at += 1;
            }
            found.push(vec![vec![*letter], value]);
            break;
        }
    }
    found
}

/// Padding may be left out.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text;
    let padding = digits.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &digits[..digits.len() - padding];
    if padding > 2 || padding > 0 && !(digits.len() + padding).is_multiple_of(4) || digits.len() % 4 == 1 {
        return None;
    }
    let mut bits = String::new();
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits.push_str(&format!("{value:06b}"));
    }
    let (whole, rest) = bits.split_at(bits.len() / 8 * 8);
    let byte = |chunk: &[u8]| u8::from_str_radix(std::str::from_utf8(chunk).expect("digits"), 2).expect("eight bits");
    (!rest.contains('1')).then(|| whole.as_bytes().chunks(8).map(byte).collect())
}
