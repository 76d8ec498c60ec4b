//! Values of a case: numbers, symbols of Falco's headers, bytes, addresses, and what the data does not state.

use std::{collections::BTreeMap, net::IpAddr};

use event::{catalogue::EventType, flags, params::ParamType};
use serde_json::Value as Json;

/// A value that a case gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A number, or several or-ed symbols.
    Number(i64),
    /// Text: a code point stands for a byte, as far as it goes.
    Text(Vec<u8>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An address and a port.
    Address(IpAddr, u16),
    /// Both ends of a connection.
    Tuple((IpAddr, u16), (IpAddr, u16)),
    /// Nothing was collected.
    Nothing,
    /// It stands in code that the case does not carry.
    Unstated,
}

/// Names that expressions may use.
pub type Names = BTreeMap<String, i64>;

impl Given {
    /// Reads a value.
    pub fn of(json: &Json, names: &Names) -> Self {
        match json {
            Json::Null => Self::Nothing,
            Json::Bool(flag) => Self::Number(i64::from(*flag)),
            Json::Number(number) => match number.as_i64().or_else(|| Some(number.as_u64()? as i64)) {
                Some(number) => Self::Number(number),
                None => Self::Unstated,
            },
            Json::String(text) => Self::Text(latin1(text)),
            Json::Array(parts) => {
                let number = |part: &Json| Self::of(part, names).number();
                let all: Option<Vec<i64>> = parts.iter().map(number).collect();
                all.map_or(Self::Unstated, |all| Self::Number(all.into_iter().fold(0, |sum, part| sum | part)))
            }
            Json::Object(_) => Self::of_object(json, names),
        }
    }

    fn of_object(json: &Json, names: &Names) -> Self {
        if let Some(name) = json["sym"].as_str() {
            return symbol(name).map_or(Self::Unstated, Self::Number);
        }
        if let Some(expr) = json["expr"].as_str() {
            return expression(expr, names);
        }
        if let Some(bytes) = json["bytes"].as_str() {
            return Self::Bytes(hex(bytes).unwrap_or_else(|| latin1(bytes)));
        }
        if json.get("packed_sockaddr").is_some() {
            return address(&json["packed_sockaddr"][0]).map_or(Self::Unstated, |(ip, port)| Self::Address(ip, port));
        }
        if json.get("packed_socktuple").is_some() {
            let ends = &json["packed_socktuple"];
            return match (address(&ends[0]), address(&ends[1])) {
                (Some(local), Some(remote)) => Self::Tuple(local, remote),
                _ => Self::Unstated,
            };
        }
        Self::Unstated
    }

    /// The number, when it is one.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The text or bytes, when it is that.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Text(bytes) | Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Code points up to 255 stand for bytes; other text is UTF-8.
pub fn latin1(text: &str) -> Vec<u8> {
    match text.chars().map(|char| u8::try_from(char as u32).ok()).collect() {
        Some(bytes) => bytes,
        None => text.as_bytes().to_vec(),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    text.len().is_multiple_of(2).then(|| (0..text.len()).step_by(2).map(pair).collect())?
}

/// Expressions that say what they are: a name, a number, or text of a number.
fn expression(expr: &str, names: &Names) -> Given {
    let expr = expr.trim();
    let inner = expr.strip_prefix("std::to_string(").and_then(|rest| rest.strip_suffix(')'));
    if let Some(inner) = inner {
        return match expression(inner, names) {
            Given::Number(number) => Given::Text(number.to_string().into_bytes()),
            _ => Given::Unstated,
        };
    }
    if let Some(number) = names.get(expr).copied().or_else(|| expr.parse().ok()).or_else(|| symbol(expr)) {
        return Given::Number(number);
    }
    // Any path that is longer than Falco's limit.
    if expr == "long_path.c_str()" {
        return Given::Text(format!("/{}", "A".repeat(1100)).into_bytes());
    }
    Given::Unstated
}

/// A constant of Falco's headers: of its tables of flags, or one of the few others that cases use.
pub fn symbol(name: &str) -> Option<i64> {
    let others = [("SOCK_STREAM", 1), ("SOCK_DGRAM", 2), ("SOCK_RAW", 3), ("INIT_TID", 1), ("INIT_PID", 1)];
    if let Some((_, value)) = others.iter().find(|(other, _)| *other == name) {
        return Some(*value);
    }
    if let Some(error) = name.strip_prefix("-SE_") {
        return errno(error).map(|number| -number);
    }
    let name = name.strip_prefix("PPM_")?;
    let sets = EventType::all().flat_map(|ty| ty.info().params).filter_map(|param| match param.ty {
        ParamType::Flags(set) | ParamType::Enum(set) | ParamType::Mode(set) => flags::names(set),
        _ => None,
    });
    let rows: Vec<_> = sets.flatten().collect();
    let ends = [name, name.split_once('_').map_or(name, |(_, rest)| rest)];
    let find = |wanted: &str| rows.iter().find(|(row, _)| *row == wanted).map(|(_, value)| *value as i64);
    ends.into_iter().find_map(find)
}

fn errno(name: &str) -> Option<i64> {
    (1..200).find(|number| event::errno::name(-number) == Some(name))
}

fn address(json: &Json) -> Option<(IpAddr, u16)> {
    let pair = &json["sockaddr"];
    Some((pair[1].as_str()?.parse().ok()?, u16::try_from(pair[0].as_u64()?).ok()?))
}
