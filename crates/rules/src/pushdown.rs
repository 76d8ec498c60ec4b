//! What the kernel can decide early: a condition that an open call must meet for any rule to match it.
//!
//! From a condition's tree everything is kept that a kernel program can test cheaply (result, access mode, flags, ends of
//! the path) and everything else is taken to hold. The result may admit too much, never too little: a negation, a field
//! from elsewhere, an operator without an equivalent, a path atom that does not fit, all become "may match". The
//! programs add doubt of their own (see [`Path`]).
//!
//! Missing values need no care: a comparison without a value is false, so a positive comparison is necessary as it
//! stands, and negated ones are never used.

use event::catalogue::EventType;

use crate::filter::{
    ast::Op,
    typed::{Const, Leaf, LeafTest, Rhs, Typed, ValueExpr},
};

/// One way in which a call can be of interest: all of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Clause {
    /// What the call must do.
    pub needs: Needs,
    /// Where its path must lie; `None` is anywhere.
    pub path: Option<Path>,
}

/// Properties of an open call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Needs {
    /// Opens for reading.
    pub read: bool,
    /// Opens for writing.
    pub write: bool,
    /// Has `O_CREAT`.
    pub creat: bool,
    /// Has `O_TRUNC`.
    pub trunc: bool,
    /// Succeeded.
    pub success: bool,
    /// Failed.
    pub failure: bool,
}

/// A set of paths by their ends: a path is in it when it has one of the prefixes or suffixes.
///
/// Meant for paths in normal form: absolute, without `//`, `/.`, `./` or a slash at the end. Whoever tests must let every
/// other path pass, as its text is not yet what rules compare. The empty set stands for conditions that no path in normal
/// form meets (`contains "../"`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Path {
    /// Beginnings, sorted.
    pub prefixes: Vec<Box<[u8]>>,
    /// Ends, sorted.
    pub suffixes: Vec<Box<[u8]>>,
}

impl std::fmt::Display for Clause {
    /// `opens for reading, succeeds, path begins with /etc or ends with .pem`; `any call` when nothing is needed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Needs { read, write, creat, trunc, success, failure } = self.needs;
        let named = [
            (read, "opens for reading"),
            (write, "opens for writing"),
            (creat, "has O_CREAT"),
            (trunc, "has O_TRUNC"),
            (success, "succeeds"),
            (failure, "fails"),
        ];
        let mut parts: Vec<String> =
            named.iter().filter(|(needed, _)| *needed).map(|(_, word)| (*word).to_owned()).collect();
        if let Some(path) = &self.path {
            let ends = |verb: &str, ends: &[Box<[u8]>]| {
                let shown: Vec<_> = ends.iter().map(|end| String::from_utf8_lossy(end).into_owned()).collect();
                (!shown.is_empty()).then(|| format!("{verb} {}", shown.join(", ")))
            };
            let known: Vec<_> = [ends("begins with", &path.prefixes), ends("ends with", &path.suffixes)]
                .into_iter()
                .flatten()
                .collect();
            parts.push(match known.is_empty() {
                true => "path is not in normal form".to_owned(),
                false => format!("path {}", known.join(" or ")),
            });
        }
        f.write_str(if parts.is_empty() { "any call" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// Clauses of which one must hold. None at all: no rule can match.
pub type Clauses = Vec<Clause>;

/// Most clauses that are kept; beyond, everything may match.
const MAX_CLAUSES: usize = 64;

impl Needs {
    /// Whether a call that does `self` meets `other`.
    pub fn meets(self, other: Self) -> bool {
        self.union(other) == self
    }

    fn union(self, other: Self) -> Self {
        Self {
            read: self.read | other.read,
            write: self.write | other.write,
            creat: self.creat | other.creat,
            trunc: self.trunc | other.trunc,
            success: self.success | other.success,
            failure: self.failure | other.failure,
        }
    }
}

impl Path {
    fn prefixes(prefixes: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        let mut path = Self { prefixes: prefixes.into_iter().collect(), suffixes: Vec::new() };
        path.tidy();
        path
    }

    fn suffixes(suffixes: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        let mut path = Self { prefixes: Vec::new(), suffixes: suffixes.into_iter().collect() };
        path.tidy();
        path
    }

    fn tidy(&mut self) {
        for ends in [&mut self.prefixes, &mut self.suffixes] {
            ends.sort();
            ends.dedup();
        }
    }

    fn union(mut self, other: Self) -> Self {
        self.prefixes.extend(other.prefixes);
        self.suffixes.extend(other.suffixes);
        self.tidy();
        self
    }

    /// How selective it is: the shortest end decides, and no end at all beats everything.
    fn selectivity(&self) -> usize {
        self.prefixes.iter().chain(&self.suffixes).map(|end| end.len()).min().unwrap_or(usize::MAX)
    }

    /// Whether a path in normal form is in the set.
    pub fn contains(&self, path: &[u8]) -> bool {
        self.prefixes.iter().any(|end| path.starts_with(end)) || self.suffixes.iter().any(|end| path.ends_with(end))
    }
}

/// What must hold for a condition to be true of an event of this type.
pub fn necessary(condition: &Typed, event: EventType) -> Clauses {
    simplify(positive(condition, event))
}

/// One of the clauses of several rules must hold.
pub fn any(rules: impl IntoIterator<Item = Clauses>) -> Clauses {
    simplify(rules.into_iter().flatten().collect())
}

fn may_match() -> Clauses {
    vec![Clause::default()]
}

fn positive(condition: &Typed, event: EventType) -> Clauses {
    match condition {
        Typed::And(all) => all.iter().map(|part| positive(part, event)).fold(may_match(), both),
        Typed::Or(any) => simplify(any.iter().flat_map(|part| positive(part, event)).collect()),
        Typed::Not(inner) => negative(inner, event),
        Typed::Leaf(leaf) => leaf_clauses(leaf, event),
    }
}

/// What must hold for a condition to be false: only event types are certain.
fn negative(condition: &Typed, event: EventType) -> Clauses {
    match condition {
        Typed::And(all) => simplify(all.iter().flat_map(|part| negative(part, event)).collect()),
        Typed::Or(any) => any.iter().map(|part| negative(part, event)).fold(may_match(), both),
        Typed::Not(inner) => positive(inner, event),
        Typed::Leaf(Leaf { test: LeafTest::EventType(types), .. }) => constant(!types.contains(event)),
        Typed::Leaf(_) => may_match(),
    }
}

fn constant(holds: bool) -> Clauses {
    if holds { may_match() } else { Vec::new() }
}

/// Both must hold: every pair of clauses. Of two path sets the more selective one is kept, as one is enough.
fn both(left: Clauses, right: Clauses) -> Clauses {
    if left.len() * right.len() > MAX_CLAUSES * MAX_CLAUSES {
        return may_match();
    }
    let mut clauses = Vec::with_capacity(left.len() * right.len());
    for a in &left {
        for b in &right {
            let needs = a.needs.union(b.needs);
            if needs.success && needs.failure {
                continue;
            }
            let path = match (&a.path, &b.path) {
                (Some(a), Some(b)) if b.selectivity() > a.selectivity() => Some(b.clone()),
                (Some(path), _) | (None, Some(path)) => Some(path.clone()),
                (None, None) => None,
            };
            clauses.push(Clause { needs, path });
        }
    }
    simplify(clauses)
}

/// Joins what differs only in the path, and drops what another clause includes.
fn simplify(clauses: Clauses) -> Clauses {
    let mut kept: Clauses = Vec::new();
    for clause in clauses {
        match kept.iter_mut().find(|other| other.needs == clause.needs) {
            Some(other) => {
                other.path = match (other.path.take(), clause.path) {
                    (Some(a), Some(b)) => Some(a.union(b)),
                    _ => None,
                }
            }
            None => kept.push(clause),
        }
    }
    let includes = |wide: &Clause, narrow: &Clause| {
        narrow.needs.meets(wide.needs) && (wide.path.is_none() || wide.path == narrow.path)
    };
    let all = kept.clone();
    kept.retain(|clause| !all.iter().any(|other| other != clause && includes(other, clause)));
    if kept.len() > MAX_CLAUSES { may_match() } else { kept }
}

/// A positive comparison.
fn leaf_clauses(leaf: &Leaf, event: EventType) -> Clauses {
    let (op, right) = match &leaf.test {
        LeafTest::EventType(types) => return constant(types.contains(event)),
        LeafTest::Exists | LeafTest::Compare { modifier: Some(_), .. } => return may_match(),
        LeafTest::Compare { op, modifier: None, right } => (*op, right),
    };
    let ValueExpr::Field(field, arg) = &leaf.left else { return may_match() };
    let constants = match right {
        Rhs::One(one) => std::slice::from_ref(one),
        Rhs::Many(many) => many,
        Rhs::Value(_) => return may_match(),
    };
    let clause = match field.name {
        "evt.is_open_read" => flag(op, constants, |needs| &mut needs.read),
        "evt.is_open_write" => flag(op, constants, |needs| &mut needs.write),
        "evt.failed" => result(op, constants),
        "evt.rawres" | "fd.num" => number(op, constants),
        "evt.res" => text_result(op, constants),
        "evt.arg" if is_param(arg, "flags") => open_flag(op, constants),
        "fd.name" | "fd.nameraw" => path(op, constants).map(in_path),
        "fd.directory" => directory(op, constants).map(in_path),
        "fd.filename" => filename(op, constants).map(in_path),
        _ => None,
    };
    vec![clause.unwrap_or_default()]
}

fn in_path(path: Path) -> Clause {
    Clause { needs: Needs::default(), path: Some(path) }
}

fn needs(set: impl FnOnce(&mut Needs)) -> Clause {
    let mut clause = Clause::default();
    set(&mut clause.needs);
    clause
}

fn is_param(arg: &event::fields::Arg, name: &str) -> bool {
    matches!(arg, event::fields::Arg::Key(key) if &**key == name)
}

/// `field = true`.
fn flag(op: Op, constants: &[Const], member: fn(&mut Needs) -> &mut bool) -> Option<Clause> {
    match (op, constants) {
        (Op::Eq | Op::EqEq, [Const::Bool(true)]) => Some(needs(|needs| *member(needs) = true)),
        _ => None,
    }
}

/// `evt.failed = …`.
fn result(op: Op, constants: &[Const]) -> Option<Clause> {
    match (op, constants) {
        (Op::Eq | Op::EqEq, [Const::Bool(true)]) => Some(needs(|needs| needs.failure = true)),
        (Op::Eq | Op::EqEq, [Const::Bool(false)]) => Some(needs(|needs| needs.success = true)),
        _ => None,
    }
}

/// A comparison with the result as a number: a descriptor, or a negative errno.
fn number(op: Op, constants: &[Const]) -> Option<Clause> {
    let [Const::Int(constant)] = constants else { return None };
    match op {
        Op::Ge | Op::Gt if *constant >= 0 => Some(needs(|needs| needs.success = true)),
        Op::Gt if *constant == -1 => Some(needs(|needs| needs.success = true)),
        Op::Lt if *constant <= 0 => Some(needs(|needs| needs.failure = true)),
        Op::Le if *constant < 0 => Some(needs(|needs| needs.failure = true)),
        _ => None,
    }
}

/// `evt.res`: `SUCCESS`, or the name of an errno, and they all begin with `E`.
fn text_result(op: Op, constants: &[Const]) -> Option<Clause> {
    let [Const::Bytes(text)] = constants else { return None };
    match op {
        Op::Eq | Op::EqEq if **text == *b"SUCCESS" => Some(needs(|needs| needs.success = true)),
        Op::Eq | Op::EqEq | Op::StartsWith if text.first() == Some(&b'E') => Some(needs(|needs| needs.failure = true)),
        _ => None,
    }
}

/// `evt.arg.flags contains O_TRUNC`.
fn open_flag(op: Op, constants: &[Const]) -> Option<Clause> {
    match (op, constants) {
        (Op::Contains, [Const::Bytes(text)]) => match &**text {
            b"O_TRUNC" => Some(needs(|needs| needs.trunc = true)),
            b"O_CREAT" => Some(needs(|needs| needs.creat = true)),
            _ => None,
        },
        _ => None,
    }
}

fn texts(constants: &[Const]) -> Option<Vec<&[u8]>> {
    constants
        .iter()
        .map(|constant| match constant {
            Const::Bytes(bytes) => Some(&**bytes),
            Const::Int(_) | Const::Bool(_) | Const::Ip(_) | Const::Net(_) => None,
        })
        .collect()
}

fn path(op: Op, constants: &[Const]) -> Option<Path> {
    let texts = texts(constants)?;
    match op {
        Op::Eq | Op::EqEq | Op::In | Op::Intersects | Op::StartsWith => begins(texts),
        Op::PMatch => begins(texts.into_iter().map(literal_front)),
        Op::Glob => begins(texts.into_iter().map(literal_front)),
        Op::EndsWith => ends(texts),
        Op::Contains if texts.iter().all(|text| text.windows(2).any(is_irregular)) => Some(Path::default()),
        _ => None,
    }
}

/// Two bytes that no path in normal form has side by side.
fn is_irregular(pair: &[u8]) -> bool {
    matches!(pair, b"//" | b"/." | b"./")
}

fn directory(op: Op, constants: &[Const]) -> Option<Path> {
    let texts = texts(constants)?;
    match op {
        Op::Eq | Op::EqEq | Op::In | Op::Intersects => {
            // The directory of `/x` is `/`.
            begins(texts.into_iter().map(|text| text.strip_suffix(b"/").unwrap_or(text)))
        }
        Op::StartsWith => begins(texts),
        Op::PMatch | Op::Glob => begins(texts.into_iter().map(literal_front)),
        _ => None,
    }
}

fn filename(op: Op, constants: &[Const]) -> Option<Path> {
    let texts = texts(constants)?;
    match op {
        Op::Eq | Op::EqEq | Op::In | Op::Intersects => {
            let whole = |text: &[u8]| [b"/", text].concat().into_boxed_slice();
            (!texts.iter().any(|text| text.is_empty())).then(|| Path::suffixes(texts.into_iter().map(whole)))
        }
        Op::EndsWith => ends(texts),
        _ => None,
    }
}

/// The part of a pattern before its first special character.
fn literal_front(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    &pattern[..end.unwrap_or(pattern.len())]
}

/// Paths that begin so. `None` when that is no restriction.
fn begins<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Option<Path> {
    let texts: Vec<&[u8]> = texts.into_iter().collect();
    // What does not begin with a slash is no beginning of a path in normal form; rules may mean relative paths.
    let restricts = |text: &&[u8]| text.len() > 1 && text[0] == b'/';
    texts.iter().all(restricts).then(|| {
        // A slash at the end (`pmatch (/etc/)`) belongs to what follows.
        Path::prefixes(texts.into_iter().map(|text| text.strip_suffix(b"/").unwrap_or(text).into()))
    })
}

/// Paths that end so.
fn ends(texts: Vec<&[u8]>) -> Option<Path> {
    let restricts = |text: &&[u8]| !text.is_empty() && !text.ends_with(b"/");
    texts.iter().all(restricts).then(|| Path::suffixes(texts.into_iter().map(Into::into)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(texts: &[&str]) -> Vec<Const> {
        texts.iter().map(|text| Const::Bytes(text.as_bytes().into())).collect()
    }

    #[test]
    fn of_two_path_sets_the_more_selective_one_is_kept() {
        let wide = vec![in_path(path(Op::StartsWith, &bytes(&["/etc"])).expect("a set"))];
        let narrow = vec![in_path(path(Op::In, &bytes(&["/etc/shadow", "/etc/sudoers"])).expect("a set"))];
        assert_eq!(both(wide, narrow.clone()), narrow);
    }

    #[test]
    fn a_clause_without_a_path_includes_the_others() {
        let any_write = needs(|needs| needs.write = true);
        let some_writes = Clause { path: directory(Op::Eq, &bytes(&["/etc"])), ..any_write.clone() };
        assert_eq!(simplify(vec![some_writes, any_write.clone()]), [any_write]);
    }

    #[test]
    fn success_and_failure_exclude_each_other() {
        let failed = vec![needs(|needs| needs.failure = true)];
        let succeeded = vec![needs(|needs| needs.success = true)];
        assert!(both(failed, succeeded).is_empty());
    }

    #[test]
    fn what_can_not_restrict_admits_everything() {
        assert_eq!(path(Op::StartsWith, &bytes(&["etc"])), None);
        assert_eq!(path(Op::StartsWith, &bytes(&["/"])), None);
        assert_eq!(path(Op::Contains, &bytes(&["ssh"])), None);
        assert_eq!(path(Op::EndsWith, &bytes(&["/"])), None);
        assert_eq!(path(Op::Contains, &bytes(&["../"])), Some(Path::default()));
    }
}
