//! Random filters of the whole language, and random events for them.

use std::net::IpAddr;

use event::value::{Arena, Value};
use fastrand::Rng;
use gyrfalcon_rules::filter::print::escape;

use crate::common::MockEvent;

/// Fields by what can be done with them.
const TEXTS: &[&str] = &[
    "proc.name",
    "fd.name",
    "proc.pname",
    "proc.cmdline",
    "proc.exe",
    "fd.nameraw",
    "fd.typechar",
    "user.name",
    "proc.aname[2]",
    "proc.aname[1]",
    "container.id",
];
/// Those that may stand anywhere: on the right-hand side, in transformers.
const FREE_TEXTS: &[&str] = &["proc.name", "fd.name", "proc.pname", "proc.cmdline", "proc.exe", "fd.nameraw"];
const ANCESTORS: &[&str] = &["proc.aname", "proc.aexe", "proc.acmdline"];
const NUMBERS: &[&str] =
    &["proc.pid", "fd.num", "evt.rawres", "user.uid", "fd.sport", "proc.duration", "evt.rawtime", "evt.count"];
const BOOLS: &[&str] = &["evt.is_io", "evt.failed", "evt.is_open_write", "evt.is_open_read"];
const TYPES: &[&str] = &["openat", "close", "execve", "connect", "open", "unlink"];
const MODIFIERS: &[&str] = &["oneof", "anyof", "allof"];

/// Words that meet each other often.
const WORDS: &[&str] = &[
    "/", "/etc", "/etc/", "/etc/a", "/etc/a/b", "/ETC/A", "a", "A", "ab", "aB", "b", "ba", "etc", "", "x y", "\"q\"",
    "c'd", "host", "f", "/etc//a/", "-x", "-ab", "10", "2", "--", "--long", "a\\b", "<NA>",
];
const PATTERNS: &[&str] =
    &["*", "/*", "/etc/*", "*a", "a*", "*/a*", "?", "/etc/?", "*b*", "[ab]", "[!a]*", "*[ab]", "/e?c/[a]", "a?b*"];
const EXPRESSIONS: &[&str] = &["a", ".*", "/etc/.*", ".*a", "[ab]+", "a|b", "a?b*", "/etc/a|.*b", ".+", "[ab]?a", ""];
const ENCODED: &[&str] = &["YQ==", "YQ", "YWI=", "L2V0Yw==", "*", "YWJj", "YW", "Y"];
const ADDRESSES: &[&str] = &["10.0.0.1", "10.0.0.2", "10.1.0.1", "192.168.1.1", "fd00::1", "2001:db8::1"];
const NETWORKS: &[&str] =
    &["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "0.0.0.0/0", "192.168.0.0/16", "fd00::/8", "::/0", "fd00::1/128"];

/// Makes filters and events; the same seed makes the same ones.
pub struct Generator(Rng);

impl Generator {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    fn one<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.0.usize(..among.len())]
    }

    // ---- filters

    /// A whole filter.
    pub fn filter(&mut self) -> String {
        let depth = self.0.u32(1..5);
        let condition = self.condition(depth);
        match self.0.u32(..3) {
            // As most rules are written: for some events only.
            0 => format!("evt.type in ({}) and {condition}", self.types()),
            1 => format!("evt.type = {} and {condition}", self.one(TYPES)),
            _ => condition,
        }
    }

    fn condition(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self.check();
        }
        let parts = |generator: &mut Self, word: &str| {
            let count = generator.0.usize(2..4);
            let parts: Vec<_> = (0..count).map(|_| generator.condition(depth - 1)).collect();
            format!("({})", parts.join(word))
        };
        match self.0.u32(..10) {
            0..=3 => parts(self, " and "),
            4..=6 => parts(self, " or "),
            7 | 8 => format!("not ({})", self.condition(depth - 1)),
            _ => self.check(),
        }
    }

    fn types(&mut self) -> String {
        (0..self.0.usize(1..4)).map(|_| self.one(TYPES)).collect::<Vec<_>>().join(", ")
    }

    fn word(&mut self) -> String {
        match self.0.u32(..4) {
            0 => (0..self.0.usize(..6)).map(|_| self.one(&['a', 'b', '/'])).collect(),
            _ => self.one(WORDS).to_owned(),
        }
    }

    fn constant(&mut self) -> String {
        let word = self.word();
        escape(word.as_bytes())
    }

    fn pattern(&mut self) -> String {
        match self.0.u32(..3) {
            0 => self.constant(),
            1 => escape(
                (0..self.0.usize(1..6)).map(|_| self.one(&['a', 'b', '/', '*', '?'])).collect::<String>().as_bytes(),
            ),
            _ => escape(self.one(PATTERNS).as_bytes()),
        }
    }

    /// `(a, b)` of up to four, sometimes of many.
    fn list(&mut self, item: impl Fn(&mut Self) -> String) -> String {
        let count = if self.0.u32(..20) == 0 { self.0.usize(10..40) } else { self.0.usize(..5) };
        format!("({})", (0..count).map(|_| item(self)).collect::<Vec<_>>().join(", "))
    }

    /// A value that is text, as a field or computed.
    fn text(&mut self, depth: u32) -> String {
        if depth == 0 || self.0.u32(..4) > 0 {
            return self.one(FREE_TEXTS).to_owned();
        }
        match self.0.u32(..7) {
            0 => format!("tolower({})", self.text(depth - 1)),
            1 => format!("toupper({})", self.text(depth - 1)),
            2 => format!("basename({})", self.text(depth - 1)),
            3 => format!("b64({})", self.text(depth - 1)),
            4 => format!("concat({}, \"{}\")", self.text(depth - 1), self.one(&["a", "/", "x y"])),
            5 => format!("join(\"{}\", {})", self.one(&["", ",", "/"]), self.texts(depth - 1)),
            _ => format!(
                "getopt({}, \"{}\")[{}]",
                self.texts(depth - 1),
                self.one(&["xa:b", "x:", "ab"]),
                self.one(&["a", "b", "x"])
            ),
        }
    }

    /// A list of texts.
    fn texts(&mut self, depth: u32) -> String {
        let items: Vec<_> = (0..self.0.usize(1..4))
            .map(|_| match self.0.u32(..3) {
                0 => self.text(depth.min(1)),
                1 => self.one(&["\"-x\"", "\"-ab\"", "\"a\"", "\"-xa\""]).to_owned(),
                _ => self.one(FREE_TEXTS).to_owned(),
            })
            .collect();
        format!("({})", items.join(", "))
    }

    fn check(&mut self) -> String {
        match self.0.u32(..28) {
            0..=4 => {
                let field = self.any_text();
                let op = self.one(&["=", "==", "!=", "contains", "icontains", "startswith", "endswith"]);
                format!("{field} {op} {}", self.constant())
            }
            5 => format!("{} {} {}", self.any_text(), self.one(&["glob", "iglob"]), self.pattern()),
            6 => format!("{} regex {}", self.any_text(), escape(self.one(EXPRESSIONS).as_bytes())),
            7..=9 => format!("{} {} {}", self.any_text(), self.one(&["in", "intersects"]), self.list(Self::constant)),
            10 | 11 => format!("{} pmatch {}", self.any_text(), self.list(Self::pattern)),
            12 | 13 => {
                let op = self.one(&["=", "!=", "contains", "icontains", "startswith", "endswith"]);
                format!("{} {op} {} {}", self.any_text(), self.one(MODIFIERS), self.list(Self::constant))
            }
            14 => format!(
                "{} {} {} {}",
                self.any_text(),
                self.one(&["glob", "iglob"]),
                self.one(MODIFIERS),
                self.list(Self::pattern)
            ),
            15 | 16 => {
                let op = self.one(&["=", "==", "!=", "<", "<=", ">", ">="]);
                format!("{} {op} {}", self.number_field(), self.number())
            }
            17 => format!("{} {} {}", self.number_field(), self.one(&["in", "intersects"]), self.list(|g| g.number())),
            18 => format!(
                "{} {} {} {}",
                self.number_field(),
                self.one(&["=", "!="]),
                self.one(MODIFIERS),
                self.list(|g| g.number())
            ),
            19 => format!("{} {} {}", self.one(BOOLS), self.one(&["=", "!="]), self.0.bool()),
            20 => self.address(),
            21 => self.bytes(),
            22 => {
                // One field with another.
                let op = self.one(&[
                    "=",
                    "!=",
                    "contains",
                    "icontains",
                    "startswith",
                    "endswith",
                    "glob",
                    "iglob",
                    "<",
                    ">=",
                ]);
                let (left, right) = (self.text(1), self.text(2));
                if right.contains('(') { format!("{left} {op} {right}") } else { format!("{left} {op} val({right})") }
            }
            23 => {
                let op = self.one(&["=", "!=", "<", "<=", ">", ">="]);
                let (left, right) =
                    self.one(&[("proc.pid", "fd.num"), ("fd.num", "evt.rawres"), ("evt.rawres", "proc.pid")]);
                format!("{left} {op} val({right})")
            }
            24 => format!(
                "getopt({}, \"xa:b\") {} {}",
                self.texts(1),
                self.one(&["in", "intersects"]),
                self.list(Self::constant)
            ),
            25 => self.event_type(),
            26 => {
                // Text is ordered, too, but what stands behind such an operator must read as a number.
                if self.0.u32(..3) == 0 {
                    let op = self.one(&["<", "<=", ">", ">="]);
                    return format!("{} {op} {}", self.any_text(), self.0.u32(..20));
                }
                let field = match self.0.u32(..5) {
                    0 => self.one(ANCESTORS).to_owned(),
                    1 => self.one(NUMBERS).to_owned(),
                    2 => "fd.ip".to_owned(),
                    _ => self.text(1),
                };
                format!("{field} exists")
            }
            _ => format!("proc.fdusage {} {}", self.one(&["=", "!=", "<", "<=", ">", ">="]), self.number()),
        }
    }

    /// A field with text, of the process or of all its ancestors, or computed.
    fn any_text(&mut self) -> String {
        match self.0.u32(..8) {
            0 => self.one(ANCESTORS).to_owned(),
            1 => self.text(2),
            _ => self.one(TEXTS).to_owned(),
        }
    }

    fn number_field(&mut self) -> String {
        match self.0.u32(..6) {
            0 => "proc.apid".to_owned(),
            1 => "fd.port".to_owned(),
            2 => format!("len({})", self.text(1)),
            _ => self.one(NUMBERS).to_owned(),
        }
    }

    fn number(&mut self) -> String {
        match self.0.u32(..8) {
            0 => "0x2".to_owned(),
            1 => "443".to_owned(),
            _ => self.0.u32(..5).to_string(),
        }
    }

    fn address(&mut self) -> String {
        match self.0.u32(..8) {
            7 => format!("fd.net in {}", self.list(|g| g.one(NETWORKS).to_owned())),
            0 => format!("fd.ip {} {}", self.one(&["=", "!="]), self.one(ADDRESSES)),
            1 => format!("fd.sip in {}", self.list(|g| g.one(ADDRESSES).to_owned())),
            2 => format!("fd.ip in {}", self.list(|g| g.one(ADDRESSES).to_owned())),
            3 => format!("fd.snet {} {}", self.one(&["=", "!="]), self.one(NETWORKS)),
            4 => format!("fd.snet in {}", self.list(|g| g.one(NETWORKS).to_owned())),
            5 => format!("fd.net {} {}", self.one(&["=", "!="]), self.one(NETWORKS)),
            _ => format!(
                "fd.sip.name {} {}",
                self.one(&["=", "!="]),
                self.one(&["one.example", "two.example", "nobody.example"])
            ),
        }
    }

    fn bytes(&mut self) -> String {
        match self.0.u32(..4) {
            0 => format!(
                "evt.buffer {} {}",
                self.one(&["bcontains", "bstartswith"]),
                self.one(&["61", "6162", "2f", "ff", "612f"])
            ),
            1 => format!("evt.buffer in {}", self.list(Self::constant)),
            _ => format!(
                "evt.buffer {} {}",
                self.one(&["=", "!=", "contains", "startswith", "endswith"]),
                self.constant()
            ),
        }
    }

    fn event_type(&mut self) -> String {
        match self.0.u32(..6) {
            0 => format!("evt.type = {}", self.one(TYPES)),
            1 => format!("evt.type != {}", self.one(TYPES)),
            2 | 3 => format!("evt.type in ({})", self.types()),
            4 => "evt.num = 0".to_owned(),
            _ => format!("evt.type startswith {}", self.one(&["open", "close", "x", "c"])),
        }
    }

    // ---- events

    /// An event in which each field has a value or not.
    pub fn event<'a>(&mut self, arena: &'a Arena) -> MockEvent<'a> {
        let ty = self.one(TYPES);
        let mut event = MockEvent::new(arena, ty, &[("evt.num", Value::Uint(1))]);
        let mut set = |name: &str, value: Option<Value<'a>>| {
            event.values.extend(value.map(|value| (name.to_owned(), value)));
        };
        for name in TEXTS {
            let value = self.maybe(|generator| generator.value(arena));
            set(name, value);
        }
        for name in ANCESTORS {
            let value = self.maybe(|generator| generator.several(arena, |generator| generator.value(arena)));
            set(name, value);
        }
        for name in NUMBERS {
            let signed = matches!(*name, "proc.pid" | "fd.num" | "evt.rawres");
            let value = self.maybe(|generator| match (signed, generator.0.u32(..6)) {
                (_, 0) => Value::Uint(443),
                (true, _) => Value::Int(generator.0.i64(-2..5)),
                (false, _) => Value::Uint(generator.0.u64(..5)),
            });
            set(name, value);
        }
        for name in BOOLS {
            let value = self.maybe(|generator| Value::Bool(generator.0.bool()));
            set(name, value);
        }
        let value = self.maybe(|generator| generator.several(arena, |generator| Value::Int(generator.0.i64(-2..5))));
        set("proc.apid", value);
        let value =
            self.maybe(|generator| generator.several(arena, |generator| Value::Uint(generator.one(&[2, 3, 443]))));
        set("fd.port", value);
        let ends = self.maybe(|generator| generator.several(arena, Self::ip));
        for name in ["fd.ip", "fd.net"] {
            set(name, ends);
        }
        let end = self.maybe(Self::ip);
        for name in ["fd.sip", "fd.snet", "fd.sip.name"] {
            set(name, end);
        }
        let value = self.maybe(|generator| match generator.value(arena) {
            Value::Text(text) => Value::Bytes(text),
            other => other,
        });
        set("evt.buffer", value);
        let value = self.maybe(|generator| Value::Double(generator.one(&[0.0, 0.5, 1.0, 2.0, 443.0])));
        set("proc.fdusage", value);
        event
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.0.u32(..6) > 0).then(|| make(self))
    }

    fn several<'a>(&mut self, arena: &'a Arena, make: impl Fn(&mut Self) -> Value<'a>) -> Value<'a> {
        let items: Vec<_> = (0..self.0.usize(..4)).map(|_| make(self)).collect();
        Value::List(arena.alloc_slice_copy(&items))
    }

    fn value<'a>(&mut self, arena: &'a Arena) -> Value<'a> {
        let mut text = match self.0.u32(..16) {
            0 => self.one(ENCODED).to_owned(),
            1 => format!("{}{}", self.word(), self.word()),
            2 => self.one(PATTERNS).to_owned(),
            _ => self.word(),
        }
        .into_bytes();
        if self.0.u32(..50) == 0 {
            // What programs pass need not be UTF-8.
            text.push(0xff);
        }
        Value::Text(arena.alloc_slice_copy(&text))
    }

    fn ip<'a>(&mut self) -> Value<'a> {
        let ip: IpAddr = self.one(ADDRESSES).parse().expect("an address");
        Value::Ip(ip)
    }
}
