//! One comparison with constants, prepared: sets are hashed, patterns compiled, needles searched with SIMD.

use std::{cmp::Ordering, net::IpAddr, sync::Arc};

use event::value::Value;
use hashbrown::HashSet;
use ipnet::IpNet;
use memchr::memmem::Finder;
use regex::Regex;

use super::{
    ast::Op,
    glob::Glob,
    nets::Nets,
    path_set::PathSet,
    pattern,
    text_index::{TextIndex, TextTest},
    typed::Const,
};

/// Knows which addresses a host name stands for. Names are resolved outside, long before an event asks.
pub trait Resolver: Send + Sync {
    /// Whether the name resolves to the address, as far as is known.
    fn resolves_to(&self, name: &str, ip: IpAddr) -> bool;
}

/// A test of a single value.
pub(super) enum Matcher {
    /// `!=`
    Not(Box<Self>),
    /// Exactly these bytes.
    Bytes(Box<[u8]>),
    /// One of these.
    BytesIn(HashSet<Box<[u8]>, ahash::RandomState>),
    /// In the order of bytes.
    BytesOrder(Op, Box<[u8]>),
    Contains(Box<Finder<'static>>),
    /// ASCII case does not count.
    IContains(Box<[u8]>),
    StartsWith(Box<[u8]>),
    EndsWith(Box<[u8]>),
    Glob(Glob),
    Regex(Regex),
    Paths(PathSet),
    /// A number in this relation to the constant.
    Number(Op, i128),
    /// Sorted.
    NumberIn(Box<[i128]>),
    BoolIn(Box<[bool]>),
    IpIn(HashSet<IpAddr, ahash::RandomState>),
    NetIn(Box<Nets>),
    /// Text that compares so with any of many constants.
    Texts(Box<TextIndex>),
    /// Host names: an address that one of them resolves to, or one of them as text.
    Hosts(Box<[Box<str>]>, Option<Arc<dyn Resolver>>),
    /// What can't be: types have been checked.
    Nothing,
}

impl Matcher {
    /// The test for one operator and all the constants behind it.
    pub(super) fn new(op: Op, constants: &[Const]) -> Self {
        match (op, constants) {
            (Op::Ne, _) => Self::Not(Box::new(Self::new(Op::Eq, constants))),
            (Op::Eq | Op::EqEq, [Const::Bytes(bytes)]) => Self::Bytes(bytes.clone()),
            (Op::Eq | Op::EqEq | Op::In | Op::Intersects, _) => Self::set(constants),
            (Op::PMatch, _) => Self::Paths(PathSet::new(constants.iter().filter_map(|constant| match constant {
                Const::Bytes(bytes) => Some((&**bytes, 0)),
                Const::Int(_) | Const::Bool(_) | Const::Ip(_) | Const::Net(_) => None,
            }))),
            (Op::Lt | Op::Le | Op::Gt | Op::Ge, [Const::Int(number)]) => Self::Number(op, *number),
            (_, [Const::Bytes(bytes)]) => Self::bytes(op, bytes),
            _ => Self::Nothing,
        }
    }

    fn set(constants: &[Const]) -> Self {
        fn all<T>(constants: &[Const], pick: impl Fn(&Const) -> Option<T>) -> Option<Box<[T]>> {
            constants.iter().map(pick).collect()
        }
        match constants.first() {
            None => Self::Nothing,
            Some(Const::Bytes(_)) => {
                let items = all(constants, |c| if let Const::Bytes(bytes) = c { Some(bytes.clone()) } else { None });
                items.map_or(Self::Nothing, |items| Self::BytesIn(items.into_iter().collect()))
            }
            Some(Const::Int(_)) => {
                let items = all(constants, |c| if let Const::Int(number) = c { Some(*number) } else { None });
                items.map_or(Self::Nothing, |mut items| {
                    items.sort_unstable();
                    Self::NumberIn(items)
                })
            }
            Some(Const::Bool(_)) => all(constants, |c| if let Const::Bool(value) = c { Some(*value) } else { None })
                .map_or(Self::Nothing, Self::BoolIn),
            Some(Const::Ip(_)) => all(constants, |c| if let Const::Ip(ip) = c { Some(*ip) } else { None })
                .map_or(Self::Nothing, |ips| Self::IpIn(ips.into_iter().collect())),
            Some(Const::Net(_)) => all(constants, |c| if let Const::Net(net) = c { Some(*net) } else { None })
                .map_or(Self::Nothing, |nets: Box<[IpNet]>| {
                    Self::NetIn(Box::new(Nets::new(nets.into_iter().map(|net| (net, 0)))))
                }),
        }
    }

    /// One test for all constants of an `anyof`, where there is one.
    pub(super) fn any_of<'c>(op: Op, constants: impl Iterator<Item = &'c Const>) -> Option<Self> {
        let test = match op {
            Op::Eq | Op::EqEq => TextTest::Equal,
            Op::StartsWith | Op::BStartsWith => TextTest::Prefix,
            Op::EndsWith => TextTest::Suffix,
            Op::Contains | Op::BContains => TextTest::Contains,
            Op::IContains => TextTest::ContainsFolded,
            Op::Ne
            | Op::Lt
            | Op::Le
            | Op::Gt
            | Op::Ge
            | Op::Glob
            | Op::IGlob
            | Op::Regex
            | Op::In
            | Op::Intersects
            | Op::PMatch => {
                return None;
            }
        };
        let key = |constant: &Const| match constant {
            Const::Bytes(bytes) => Some((test, bytes.clone(), 0)),
            Const::Int(_) | Const::Bool(_) | Const::Ip(_) | Const::Net(_) => None,
        };
        let keys: Vec<_> = constants.map(key).collect::<Option<_>>()?;
        Some(Self::Texts(Box::new(TextIndex::new(&keys))))
    }

    fn bytes(op: Op, bytes: &[u8]) -> Self {
        match op {
            Op::Lt | Op::Le | Op::Gt | Op::Ge => Self::BytesOrder(op, bytes.into()),
            Op::Contains | Op::BContains => Self::Contains(Box::new(Finder::new(bytes).into_owned())),
            Op::IContains => Self::IContains(bytes.into()),
            Op::StartsWith | Op::BStartsWith => Self::StartsWith(bytes.into()),
            Op::EndsWith => Self::EndsWith(bytes.into()),
            Op::Glob => Self::Glob(Glob::new(bytes, false)),
            Op::IGlob => Self::Glob(Glob::new(bytes, true)),
            Op::Regex => pattern::regex(bytes).map_or(Self::Nothing, Self::Regex),
            Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Intersects | Op::PMatch => Self::Nothing,
        }
    }

    /// The test for host names.
    pub(super) fn hosts(op: Op, names: Box<[Box<str>]>, resolver: Option<Arc<dyn Resolver>>) -> Self {
        let hosts = Self::Hosts(names, resolver);
        if op == Op::Ne { Self::Not(Box::new(hosts)) } else { hosts }
    }

    /// Whether a single value passes.
    pub(super) fn test(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Not(inner), _) => !inner.test(value),
            (Self::Number(op, constant), _) => order(value, *constant).is_some_and(|order| holds(*op, order)),
            (Self::NumberIn(constants), Value::Double(_)) => {
                constants.iter().any(|constant| order(value, *constant) == Some(Ordering::Equal))
            }
            (Self::NumberIn(constants), _) => {
                integer(value).is_some_and(|number| constants.binary_search(&number).is_ok())
            }
            (Self::BoolIn(constants), Value::Bool(value)) => constants.contains(&value),
            (Self::IpIn(constants), Value::Ip(ip)) => constants.contains(&ip),
            (Self::NetIn(nets), Value::Ip(ip)) => nets.contains(ip),
            (Self::NetIn(nets), Value::Net(net)) => nets.equal(&net).is_some(),
            (Self::Hosts(names, Some(resolver)), Value::Ip(ip)) => {
                names.iter().any(|name| resolver.resolves_to(name, ip))
            }
            (Self::Hosts(names, _), Value::Text(text)) => names.iter().any(|name| name.as_bytes() == text),
            (_, Value::Text(bytes) | Value::Bytes(bytes)) => self.test_bytes(bytes),
            _ => false,
        }
    }

    fn test_bytes(&self, value: &[u8]) -> bool {
        match self {
            Self::Bytes(wanted) => **wanted == *value,
            Self::BytesIn(set) => set.contains(value),
            Self::BytesOrder(op, constant) => holds(*op, value.cmp(constant)),
            Self::Contains(finder) => finder.find(value).is_some(),
            Self::IContains(needle) => contains_folded(value, needle),
            Self::StartsWith(prefix) => value.starts_with(prefix),
            Self::EndsWith(suffix) => value.ends_with(suffix),
            Self::Glob(glob) => glob.matches(value),
            Self::Regex(regex) => regex.is_match(&String::from_utf8_lossy(value)),
            Self::Paths(paths) => paths.covers(value),
            Self::Texts(texts) => texts.any(value),
            Self::Not(_)
            | Self::Number(..)
            | Self::NumberIn(_)
            | Self::BoolIn(_)
            | Self::IpIn(_)
            | Self::NetIn(_)
            | Self::Hosts(..)
            | Self::Nothing => false,
        }
    }
}

/// Compares two values of an event with each other.
pub(super) fn compare(op: Op, left: Value<'_>, right: Value<'_>) -> bool {
    if let (Value::List(left), Value::List(right)) = (left, right) {
        let found = |value: &Value<'_>| right.iter().any(|other| equal(*value, *other));
        return match op {
            Op::In => left.iter().all(found),
            _ => left.iter().any(found),
        };
    }
    match op {
        Op::Eq | Op::EqEq | Op::In | Op::Intersects => equal(left, right),
        Op::Ne => !equal(left, right),
        Op::Lt | Op::Le | Op::Gt | Op::Ge => match (left, right, integer(right)) {
            (_, _, Some(number)) => order(left, number).is_some_and(|order| holds(op, order)),
            (Value::Text(left), Value::Text(right), None) => holds(op, left.cmp(right)),
            (Value::Double(left), Value::Double(right), None) => {
                left.partial_cmp(&right).is_some_and(|order| holds(op, order))
            }
            _ => false,
        },
        _ => match right {
            Value::Text(right) | Value::Bytes(right) => match left {
                Value::Text(left) | Value::Bytes(left) => compare_text(op, left, right),
                _ => false,
            },
            _ => false,
        },
    }
}

/// Two texts of an event: nothing can be prepared, so nothing is.
fn compare_text(op: Op, left: &[u8], right: &[u8]) -> bool {
    match op {
        Op::Contains | Op::BContains => memchr::memmem::find(left, right).is_some(),
        Op::IContains => contains_folded(left, right),
        Op::StartsWith | Op::BStartsWith => left.starts_with(right),
        Op::EndsWith => left.ends_with(right),
        Op::Glob => Glob::new(right, false).matches(left),
        Op::IGlob => Glob::new(right, true).matches(left),
        // Patterns and sets take constants only, and the others are compared as values.
        Op::Regex
        | Op::PMatch
        | Op::Eq
        | Op::EqEq
        | Op::Ne
        | Op::Lt
        | Op::Le
        | Op::Gt
        | Op::Ge
        | Op::In
        | Op::Intersects => false,
    }
}

fn equal(left: Value<'_>, right: Value<'_>) -> bool {
    match (left, right, integer(left), integer(right)) {
        (_, _, Some(left), Some(right)) => left == right,
        (Value::Text(left) | Value::Bytes(left), Value::Text(right) | Value::Bytes(right), ..) => left == right,
        (left, right, ..) => left == right,
    }
}

fn integer(value: Value<'_>) -> Option<i128> {
    match value {
        Value::Int(number) => Some(i128::from(number)),
        Value::Uint(number) => Some(i128::from(number)),
        Value::Text(_)
        | Value::Bytes(_)
        | Value::Bool(_)
        | Value::Ip(_)
        | Value::Net(_)
        | Value::Double(_)
        | Value::List(_) => None,
    }
}

fn order(value: Value<'_>, constant: i128) -> Option<Ordering> {
    match value {
        Value::Double(number) => number.partial_cmp(&(constant as f64)),
        _ => integer(value).map(|number| number.cmp(&constant)),
    }
}

fn holds(op: Op, order: Ordering) -> bool {
    match op {
        Op::Lt => order.is_lt(),
        Op::Le => order.is_le(),
        Op::Gt => order.is_gt(),
        Op::Ge => order.is_ge(),
        _ => order.is_eq(),
    }
}

/// Substring search that ignores ASCII case.
pub(super) fn contains_folded(value: &[u8], needle: &[u8]) -> bool {
    let Some((&first, _)) = needle.split_first() else { return true };
    let Some(last) = value.len().checked_sub(needle.len()) else { return false };
    memchr::memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), value)
        .take_while(|at| *at <= last)
        .any(|at| value[at..at + needle.len()].eq_ignore_ascii_case(needle))
}
