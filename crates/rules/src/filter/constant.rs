//! Constants of a filter: text → value of the field's type.

use std::{borrow::Cow, net::IpAddr};

use event::value::ValueType;
use ipnet::IpNet;

use super::{
    ast::Op,
    lex::hex,
    typed::{Const, Shape, type_name},
};

/// Longest text that can be compared with: Falco's limit, kept so that rules mean the same on both.
const MAX_TEXT: usize = 255;

/// Services that may stand for a port: those that rules are known to name. The host's `/etc/services` isn't read,
/// so that a rule means the same everywhere.
static SERVICES: &[(&str, u16)] = &[
    ("bootpc", 68),
    ("bootps", 67),
    ("domain", 53),
    ("ftp", 21),
    ("ftp-data", 20),
    ("git", 9418),
    ("http", 80),
    ("http-alt", 8080),
    ("https", 443),
    ("imap", 143),
    ("imap2", 143),
    ("imaps", 993),
    ("ircd", 6667),
    ("kerberos", 88),
    ("ldap", 389),
    ("ldaps", 636),
    ("microsoft-ds", 445),
    ("ms-sql-s", 1433),
    ("mysql", 3306),
    ("netbios-ns", 137),
    ("netbios-ssn", 139),
    ("nfs", 2049),
    ("ntp", 123),
    ("pop3", 110),
    ("pop3s", 995),
    ("postgresql", 5432),
    ("redis", 6379),
    ("rsync", 873),
    ("smtp", 25),
    ("smtps", 465),
    ("snmp", 161),
    ("ssh", 22),
    ("submission", 587),
    ("sunrpc", 111),
    ("syslog", 514),
    ("telnet", 23),
    ("tftp", 69),
    ("x11", 6000),
];

/// Reads a constant that `op` compares with a value of this shape. The error says what was expected.
pub(crate) fn constant(bytes: &[u8], shape: Shape, op: Op) -> Result<Const, String> {
    let text = String::from_utf8_lossy(bytes);
    let expected = |what: &str| format!("`{text}` isn't {what}");
    match shape.ty {
        ValueType::Text => plain_text(bytes, &text).map(Const::Bytes),
        ValueType::Bytes => byte_string(bytes, op).map(Const::Bytes),
        ValueType::Bool => match bytes {
            b"true" => Ok(Const::Bool(true)),
            b"false" => Ok(Const::Bool(false)),
            _ => Err(expected("`true` or `false`")),
        },
        ValueType::Int(bits) => {
            let limit = 1_i128 << (bits.clamp(1, 64) - 1);
            integer(&text, -limit..=limit - 1)
        }
        ValueType::Uint(bits) => integer(&text, 0..=(1_i128 << bits.clamp(1, 64)) - 1),
        ValueType::Port => match SERVICES.binary_search_by(|(name, _)| (*name).cmp(&text)) {
            Ok(index) => Ok(Const::Int(i128::from(SERVICES[index].1))),
            Err(_) => integer(&text, 0..=0xffff).map_err(|_| expected("a port or the name of a known service")),
        },
        ValueType::RelTime | ValueType::AbsTime => integer(&text, 0..=i128::from(u64::MAX)),
        ValueType::Double => integer(&text, i128::from(i64::MIN)..=i128::from(i64::MAX)),
        ValueType::Ip => address(&text).map(Const::Ip).ok_or_else(|| expected("an IP address")),
        ValueType::Net => network(&text).map(Const::Net).ok_or_else(|| expected("a network such as 10.0.0.0/8")),
        ValueType::Dynamic => Err(format!("{} of unknown type can't be compared with a constant", type_name(shape))),
    }
}

fn plain_text(bytes: &[u8], text: &str) -> Result<Box<[u8]>, String> {
    if bytes.contains(&0) {
        return Err("a NUL byte can only be compared with bytes, not with text".to_owned());
    }
    match bytes.len() > MAX_TEXT {
        true => Err(format!("`{}…` is longer than {MAX_TEXT} bytes", text.chars().take(32).collect::<String>())),
        false => Ok(bytes.into()),
    }
}

fn byte_string(bytes: &[u8], op: Op) -> Result<Box<[u8]>, String> {
    let value: Cow<'_, [u8]> = match op {
        Op::BContains | Op::BStartsWith => {
            let pairs = bytes.chunks(2).map(|pair| match pair {
                [high, low] => Some(hex(*high)? << 4 | hex(*low)?),
                _ => None,
            });
            let text = String::from_utf8_lossy(bytes);
            pairs.collect::<Option<Vec<u8>>>().ok_or(format!("`{text}` isn't an even number of hex digits"))?.into()
        }
        _ => bytes.into(),
    };
    match value.len() > MAX_TEXT {
        true => Err(format!("the constant is longer than {MAX_TEXT} bytes")),
        false => Ok(value.into_owned().into()),
    }
}

fn integer(text: &str, range: std::ops::RangeInclusive<i128>) -> Result<Const, String> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let number = match hexadecimal {
        Some(digits) if digits.starts_with(['+', '-']) => None,
        Some(digits) => i128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match number {
        Some(number) if range.contains(&number) => Ok(Const::Int(number)),
        Some(_) => Err(format!("`{text}` is outside of {} to {}", range.start(), range.end())),
        None => Err(format!("`{text}` isn't a number")),
    }
}

/// A dot makes it IPv4, as in Falco; otherwise it must be IPv6.
fn address(text: &str) -> Option<IpAddr> {
    match text.contains('.') && !text.contains(':') {
        true => text.parse().ok().map(IpAddr::V4),
        false => text.parse().ok().map(IpAddr::V6),
    }
}

fn network(text: &str) -> Option<IpNet> {
    let (ip, length) = text.split_once('/')?;
    Some(IpNet::new(address(ip)?, length.parse().ok()?).ok()?.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_sorted_so_that_look_up_works() {
        assert!(SERVICES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn numbers_keep_to_the_width_of_the_field() {
        let byte = Shape::one(ValueType::Uint(8));
        assert_eq!(constant(b"0xff", byte, Op::Eq), Ok(Const::Int(255)));
        assert!(constant(b"256", byte, Op::Eq).is_err());
        assert!(constant(b"-1", byte, Op::Eq).is_err());
        assert_eq!(constant(b"-1", Shape::one(ValueType::Int(64)), Op::Eq), Ok(Const::Int(-1)));
    }
}
