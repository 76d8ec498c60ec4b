//! JSON text → a tree in the event's arena, within bounds.
//!
//! The text comes from the API server, and large parts of it from whoever sent the request: nothing about its size or
//! shape is taken for granted. What lies too deep or is too much is left out and marked, so that the rest of the event
//! is judged all the same: nobody hides an event by blowing it up.

use std::{cell::Cell, fmt};

use bumpalo::collections::Vec as ArenaVec;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{
    text::Text,
    value::{Arena, Value},
};

/// A value of a JSON document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Node<'a> {
    /// `null`, or what was left out.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number below zero.
    Int(i64),
    /// Any other whole number.
    Uint(u64),
    /// A number with a fraction, or a large one.
    Float(f64),
    /// A string, its escapes resolved.
    Text(&'a str),
    /// An array.
    Array(&'a [Self]),
    /// An object, its members in the order of the text.
    Object(&'a [(&'a str, Self)]),
}

/// How much of a document is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest document, in bytes; longer ones are refused.
    pub bytes: usize,
    /// Deepest nesting; what lies deeper is left out. At most [`Limits::MAX_DEPTH`].
    pub depth: u32,
    /// Most values, members of objects included; what is beyond is left out.
    pub values: u32,
}

impl Limits {
    /// The nesting that the parser itself stands for.
    pub const MAX_DEPTH: u32 = 120;
}

impl Default for Limits {
    /// Twice what the API server takes in a request (3 MiB), as an event holds the request's object and the response's;
    /// nesting far beyond any object of Kubernetes.
    fn default() -> Self {
        Self { bytes: 8 << 20, depth: 100, values: 500_000 }
    }
}

/// Why a text is no document.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is longer than the limit.
    #[error("{bytes} bytes are more than the {limit} that one event may have")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It is no JSON.
    #[error("not JSON")]
    Syntax(#[source] serde_json::Error),
}

/// Parses a document. The second result says whether something was left out.
pub fn parse<'a>(text: &'a [u8], limits: Limits, arena: &'a Arena) -> Result<(Node<'a>, bool), ParseError> {
    if text.len() > limits.bytes {
        return Err(ParseError::TooLarge { bytes: text.len(), limit: limits.bytes });
    }
    let budget = Budget { values: Cell::new(limits.values), cut: Cell::new(false) };
    let seed = Build { arena, budget: &budget, depth: limits.depth.min(Limits::MAX_DEPTH) };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let node = seed.deserialize(&mut reader).and_then(|node| reader.end().map(|()| node));
    Ok((node.map_err(ParseError::Syntax)?, budget.cut.get()))
}

/// What may still be kept.
struct Budget {
    values: Cell<u32>,
    cut: Cell<bool>,
}

impl Budget {
    fn take(&self) -> bool {
        match self.values.get().checked_sub(1) {
            Some(left) => {
                self.values.set(left);
                true
            }
            None => {
                self.cut.set(true);
                false
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Build<'a, 'b> {
    arena: &'a Arena,
    budget: &'b Budget,
    /// Levels of nesting that are left.
    depth: u32,
}

impl<'a> Build<'a, '_> {
    /// One level down.
    fn inner(self) -> Option<Self> {
        let depth = self.depth.checked_sub(1);
        if depth.is_none() {
            self.budget.cut.set(true);
        }
        Some(Self { depth: depth?, ..self })
    }
}

impl<'de: 'a, 'a> DeserializeSeed<'de> for Build<'a, '_> {
    type Value = Node<'a>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Build<'a, '_> {
    type Value = Node<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Node<'a>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'a>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'a>, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'a>, E> {
        Ok(Node::Uint(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node<'a>, E> {
        Ok(Node::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Node<'a>, E> {
        Ok(Node::Text(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'a>, E> {
        Ok(Node::Text(self.arena.alloc_str(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'a>, A::Error> {
        let Some(inner) = self.inner() else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Node::Null);
        };
        let mut kept = ArenaVec::new_in(self.arena);
        loop {
            if self.budget.take() {
                let Some(item) = items.next_element_seed(inner)? else { break };
                kept.push(item);
            } else if items.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(Node::Array(kept.into_bump_slice()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node<'a>, A::Error> {
        let Some(inner) = self.inner() else {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Node::Null);
        };
        let mut kept = ArenaVec::new_in(self.arena);
        loop {
            if self.budget.take() {
                let Some(key) = members.next_key_seed(Key(self.arena))? else { break };
                kept.push((key, members.next_value_seed(inner)?));
            } else if members.next_entry::<IgnoredAny, IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(Node::Object(kept.into_bump_slice()))
    }
}

/// The name of a member.
struct Key<'a>(&'a Arena);

impl<'de: 'a, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = &'a str;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<&'a str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de: 'a, 'a> Visitor<'de> for Key<'a> {
    type Value = &'a str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<&'a str, E> {
        Ok(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<&'a str, E> {
        Ok(self.0.alloc_str(value))
    }
}

impl<'a> Node<'a> {
    /// A member of an object, unless it is `null`. Of several with the same name the last counts, as for the API server.
    pub fn get(self, name: &str) -> Option<Self> {
        let Self::Object(members) = self else { return None };
        let found = members.iter().rev().find(|(key, _)| *key == name)?.1;
        (found != Self::Null).then_some(found)
    }

    /// What is at the end of a way through objects.
    pub fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// The string that is there.
    pub fn text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The elements of an array; none when it is something else.
    pub fn items(self) -> &'a [Self] {
        if let Self::Array(items) = self { items } else { &[] }
    }

    /// What a JSON pointer (RFC 6901) points to, unless it is `null`.
    pub fn pointer(self, pointer: &str) -> Option<Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |node, token| match node {
            Self::Array(items) => {
                let plain = token == "0" || !token.starts_with(['0', '+']);
                items.get(token.parse::<usize>().ok().filter(|_| plain)?).copied().filter(|item| *item != Self::Null)
            }
            _ if token.contains('~') => node.get(&token.replace("~1", "/").replace("~0", "~")),
            _ => node.get(token),
        })
    }

    /// The value as a field shows it: strings as they are, all else as JSON.
    pub fn value(self, arena: &'a Arena) -> Value<'a> {
        Value::Text(match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bool(true) => b"true",
            Self::Bool(false) => b"false",
            other => {
                let mut text = Text::new(arena);
                other.write(&mut text, None);
                text.finish()
            }
        })
    }

    /// The document with two blanks for each level.
    pub fn pretty(self, arena: &'a Arena) -> &'a [u8] {
        let mut text = Text::new(arena);
        self.write(&mut text, Some(0));
        text.finish()
    }

    /// JSON without blanks, or with line breaks at this depth. The depth of a tree is bounded by its parser.
    fn write(self, out: &mut Text<'_>, depth: Option<usize>) {
        let inner = depth.map(|depth| depth + 1);
        // Writing to the arena cannot fail.
        let _ = match self {
            Self::Null => fmt::Write::write_str(out, "null"),
            Self::Bool(value) => fmt::Write::write_fmt(out, format_args!("{value}")),
            Self::Int(value) => fmt::Write::write_fmt(out, format_args!("{value}")),
            Self::Uint(value) => fmt::Write::write_fmt(out, format_args!("{value}")),
            Self::Float(value) => fmt::Write::write_fmt(out, format_args!("{value}")),
            Self::Text(text) => {
                quote(out, text);
                Ok(())
            }
            Self::Array(items) => {
                out.push(b"[");
                for (index, item) in items.iter().enumerate() {
                    separate(out, index, inner);
                    item.write(out, inner);
                }
                close(out, items.is_empty(), depth, b"]");
                Ok(())
            }
            Self::Object(members) => {
                out.push(b"{");
                for (index, (key, value)) in members.iter().enumerate() {
                    separate(out, index, inner);
                    quote(out, key);
                    out.push(if inner.is_some() { b": " } else { b":" });
                    value.write(out, inner);
                }
                close(out, members.is_empty(), depth, b"}");
                Ok(())
            }
        };
    }
}

fn separate(out: &mut Text<'_>, index: usize, depth: Option<usize>) {
    if index > 0 {
        out.push(b",");
    }
    if let Some(depth) = depth {
        out.push(b"\n");
        indent(out, depth);
    }
}

fn indent(out: &mut Text<'_>, depth: usize) {
    for _ in 0..depth {
        out.push(b"  ");
    }
}

fn close(out: &mut Text<'_>, empty: bool, depth: Option<usize>, bracket: &[u8]) {
    if !empty && let Some(depth) = depth {
        out.push(b"\n");
        indent(out, depth);
    }
    out.push(bracket);
}

/// A string in quotes; only what must be escaped is.
fn quote(out: &mut Text<'_>, text: &str) {
    out.push(b"\"");
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        out.push(&text.as_bytes()[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => drop(out.push(b"\\\"")),
            b'\\' => drop(out.push(b"\\\\")),
            b'\n' => drop(out.push(b"\\n")),
            b'\r' => drop(out.push(b"\\r")),
            b'\t' => drop(out.push(b"\\t")),
            other => drop(fmt::Write::write_fmt(out, format_args!("\\u{other:04x}"))),
        }
    }
    out.push(&text.as_bytes()[plain..]);
    out.push(b"\"");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn print(text: &str) -> String {
        let arena = Arena::new();
        let (node, _) = parse(text.as_bytes(), Limits::default(), &arena).expect("JSON");
        let mut out = Text::new(&arena);
        node.write(&mut out, None);
        String::from_utf8(out.finish().to_vec()).expect("text")
    }

    #[test]
    fn what_is_printed_is_what_was_read() {
        let text = r#"{"a":[1,-2,3.5,true,null,"x\"\\\n\u0001é"],"b":{},"c":[]}"#;
        assert_eq!(print(text), text);
        assert_eq!(print(" [ 18446744073709551615 , 1e3 ] "), "[18446744073709551615,1000]");
    }

    #[test]
    fn pretty_text_has_two_blanks_for_each_level() {
        let arena = Arena::new();
        let (node, _) = parse(br#"{"a":[1,{"b":2}],"c":{}}"#, Limits::default(), &arena).expect("JSON");
        let pretty = String::from_utf8_lossy(node.pretty(&arena)).into_owned();
        assert_eq!(pretty, "{\n  \"a\": [\n    1,\n    {\n      \"b\": 2\n    }\n  ],\n  \"c\": {}\n}");
    }

    #[test]
    fn pointers_are_those_of_rfc_6901() {
        let arena = Arena::new();
        let text = br#"{"a":{"b":[10,20]},"m/n":1,"t~u":2,"":3,"nil":null,"01":4}"#;
        let (node, _) = parse(text, Limits::default(), &arena).expect("JSON");
        let at = |pointer| node.pointer(pointer);
        assert_eq!(at("/a/b/1"), Some(Node::Uint(20)));
        assert_eq!(at("/m~1n"), Some(Node::Uint(1)));
        assert_eq!(at("/t~0u"), Some(Node::Uint(2)));
        assert_eq!(at("/"), Some(Node::Uint(3)));
        assert_eq!(at("/01"), Some(Node::Uint(4)));
        assert_eq!(at(""), Some(node));
        for nothing in ["/nil", "/a/b/2", "/a/b/-", "/a/b/01", "/a/b/+1", "/a/b/x", "/a/x", "a", "/m/n"] {
            assert_eq!(at(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn the_last_of_several_members_counts() {
        let arena = Arena::new();
        let (node, _) = parse(br#"{"a":1,"a":2}"#, Limits::default(), &arena).expect("JSON");
        assert_eq!(node.get("a"), Some(Node::Uint(2)));
    }

    #[test]
    fn what_is_too_deep_or_too_much_is_left_out_and_the_rest_stays() {
        let arena = Arena::new();
        let deep = format!(r#"{{"a":{}{},"b":1}}"#, "[".repeat(50_000), "]".repeat(50_000));
        let (node, cut) = parse(deep.as_bytes(), Limits::default(), &arena).expect("JSON");
        assert!(cut);
        assert_eq!(node.get("b"), Some(Node::Uint(1)));
        let few = Limits { values: 4, ..Limits::default() };
        let (node, cut) = parse(br#"{"a":1,"b":[1,2,3],"c":[[]]}"#, few, &arena).expect("JSON");
        assert!(cut);
        assert_eq!(node.get("a"), Some(Node::Uint(1)));
        let (_, cut) = parse(br#"{"a":1,"b":[1]}"#, Limits { values: 5, ..few }, &arena).expect("JSON");
        assert!(!cut, "the ends of an object and of an array are asked for, too");
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        let arena = Arena::new();
        for text in ["", "{", "[1,]", "{\"a\":1}x", "nul", "\"\\x\"", "{\"a\" 1}", "\u{1}", "[1e999999]"] {
            assert!(parse(text.as_bytes(), Limits::default(), &arena).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"", Limits::default(), &arena).is_err());
        let long = Limits { bytes: 3, ..Limits::default() };
        assert!(matches!(parse(b"null", long, &arena), Err(ParseError::TooLarge { bytes: 4, limit: 3 })));
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(text in prop::collection::vec(any::<u8>(), 0..200), depth in 0..8_u32, values in 0..50_u32) {
            let arena = Arena::new();
            let _ = parse(&text, Limits { bytes: 100, depth, values }, &arena);
        }

        #[test]
        fn nor_do_brackets(text in "[\\[\\]{}\",:0-9a\\\\ ]{0,300}") {
            let arena = Arena::new();
            if let Ok((node, _)) = parse(text.as_bytes(), Limits::default(), &arena) {
                let mut out = Text::new(&arena);
                node.write(&mut out, None);
                let again = out.finish();
                prop_assert_eq!(parse(again, Limits::default(), &arena).map_err(|_| ()), Ok((node, false)));
            }
        }
    }
}
