//! What must hold for a condition to hold: the ways by which rules are found without being asked.
//!
//! A condition needs at least one *key* of each of its covers. `proc.name in (a, b) and fd.name startswith /etc` has two
//! covers, of two keys and of one; an `or` has one made of the best of its parts. A cover is only necessary, never more,
//! so each step may give up. Two-valued logic makes this easy: a comparison without a value is false, so a positive one
//! is necessary as it stands; negated ones are not used, except those of the event's type, which is known.

use std::net::IpAddr;

use event::{catalogue::EventType, fields::Matching, value::ValueType};
use ipnet::IpNet;

use super::{
    ast::{Modifier, Op},
    glob,
    text_index::TextTest,
    typed::{Const, Leaf, LeafTest, Rhs, Typed, ValueExpr},
};

/// One way in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// The value, or a candidate among several, compares so with this text.
    Text(TextTest, Box<[u8]>),
    /// It is this number.
    Int(i128),
    /// It is this truth.
    Bool(bool),
    /// It is this address.
    Ip(IpAddr),
    /// It is this network or an address in it.
    Net(IpNet),
    /// The comparison as a whole holds.
    Leaf,
}

/// Keys of which at least one is needed, each with the comparison it comes from.
#[derive(Debug, Clone)]
pub(super) struct Cover<'c> {
    pub(super) keys: Vec<(&'c Leaf, Key)>,
    /// How often it lets events pass, and what asking costs, as estimated: from 0, good, to 1, useless.
    pub(super) weight: f32,
}

impl Cover<'_> {
    /// Whether it is worth asking first, before anything is looked up: a fact about the event that costs nothing and
    /// divides the events of a type, such as whether a file is opened for writing.
    pub(super) fn is_gate(&self) -> bool {
        match &*self.keys {
            [(leaf, Key::Bool(_))] => {
                matches!(&leaf.left, ValueExpr::Field(field, _) if field.name.starts_with("evt.is_open_"))
            }
            _ => false,
        }
    }
}

/// What a condition needs.
#[derive(Debug, Clone)]
pub(super) enum Need<'c> {
    /// It can't hold.
    Never,
    /// One key of each of these; nothing is known when there are none.
    All(Vec<Cover<'c>>),
}

/// A cover with more keys is not worth its memory.
const MOST_KEYS: usize = 4096;

/// Most covers of one condition that are kept, the best ones.
const MOST_COVERS: usize = 16;

/// What a condition needs to hold for an event of this type.
pub(super) fn need(condition: &Typed, ty: EventType) -> Need<'_> {
    of(condition, ty, false)
}

fn of(condition: &Typed, ty: EventType, negated: bool) -> Need<'_> {
    match (condition, negated) {
        (Typed::And(parts), false) | (Typed::Or(parts), true) => all(parts.iter().map(|part| of(part, ty, negated))),
        (Typed::Or(parts), false) | (Typed::And(parts), true) => any(parts.iter().map(|part| of(part, ty, negated))),
        (Typed::Not(inner), _) => of(inner, ty, !negated),
        (Typed::Leaf(leaf), _) => match &leaf.test {
            LeafTest::EventType(set) if set.contains(ty) == negated => Need::Never,
            LeafTest::EventType(_) => Need::All(Vec::new()),
            LeafTest::Exists | LeafTest::Compare { .. } if negated => Need::All(Vec::new()),
            LeafTest::Exists => Need::All(vec![whole(leaf, 0.95)]),
            LeafTest::Compare { op, modifier, right } => compared(leaf, *op, *modifier, right),
        },
    }
}

fn all<'c>(parts: impl Iterator<Item = Need<'c>>) -> Need<'c> {
    let mut covers = Vec::new();
    for part in parts {
        match part {
            Need::Never => return Need::Never,
            Need::All(more) => covers.extend(more),
        }
    }
    covers.sort_by(|a, b| a.weight.total_cmp(&b.weight));
    let gates: Vec<_> = covers.iter().skip(MOST_COVERS).filter(|cover| cover.is_gate()).cloned().collect();
    covers.truncate(MOST_COVERS);
    covers.extend(gates);
    Need::All(covers)
}

fn any<'c>(parts: impl Iterator<Item = Need<'c>>) -> Need<'c> {
    let mut cover = Cover { keys: Vec::new(), weight: 0.0 };
    let mut possible = false;
    for part in parts {
        let Need::All(covers) = part else { continue };
        possible = true;
        // They are sorted where there are several.
        let Some(best) = covers.into_iter().min_by(|a, b| a.weight.total_cmp(&b.weight)) else {
            return Need::All(Vec::new());
        };
        cover.keys.extend(best.keys);
        cover.weight += best.weight;
        if cover.keys.len() > MOST_KEYS {
            return Need::All(Vec::new());
        }
    }
    if possible { Need::All(vec![cover]) } else { Need::Never }
}

fn whole(leaf: &Leaf, passes: f32) -> Cover<'_> {
    Cover { keys: vec![(leaf, Key::Leaf)], weight: passes }
}

fn compared<'c>(leaf: &'c Leaf, op: Op, modifier: Option<Modifier>, right: &Rhs) -> Need<'c> {
    let constants = match right {
        Rhs::One(constant) => std::slice::from_ref(constant),
        Rhs::Many(constants) => constants,
        Rhs::Value(_) => return Need::All(vec![whole(leaf, 0.5)]),
    };
    let needs_some = match (op, modifier) {
        // With no element, `in` holds for a list without elements.
        (Op::In, None) => !leaf.shape.list,
        (_, None | Some(Modifier::AnyOf | Modifier::OneOf | Modifier::AllOf)) => true,
    };
    if constants.is_empty() && needs_some {
        return Need::Never;
    }
    // A list may be empty, host names are known outside, doubles equal integers in ways of their own, and long lists
    // have a hash of their own.
    let as_whole = !needs_some
        || leaf.matching == Matching::HostName
        || matches!(leaf.shape.ty, ValueType::Double | ValueType::Dynamic)
        || constants.len() > MOST_KEYS;
    if as_whole {
        return Need::All(vec![whole(leaf, 0.5)]);
    }
    let price = price(&leaf.left);
    let common = common(&leaf.left);
    let key = |constant: &Const| key(op, constant).map(|(key, passes)| (key, passes.max(common)));
    let single = |constant: &Const| match key(constant) {
        Some((key, passes)) => Cover { keys: vec![(leaf, key)], weight: (passes + price).min(1.0) },
        None => whole(leaf, (0.5 + price).min(1.0)),
    };
    match modifier {
        Some(Modifier::AllOf) => Need::All(constants.iter().take(MOST_COVERS).map(single).collect()),
        None | Some(Modifier::AnyOf | Modifier::OneOf) => {
            let keys: Option<Vec<_>> = constants.iter().map(key).collect();
            let Some(keys) = keys else { return Need::All(vec![whole(leaf, (0.5 + price).min(1.0))]) };
            let passes: f32 = keys.iter().map(|(_, passes)| passes).sum();
            let weight = (passes.min(0.9) + price).min(1.0);
            Need::All(vec![Cover { keys: keys.into_iter().map(|(key, _)| (leaf, key)).collect(), weight }])
        }
    }
}

/// The key of a comparison with one constant, and how often it may let events pass.
fn key(op: Op, constant: &Const) -> Option<(Key, f32)> {
    let text = |test, bytes: &[u8], passes| (!bytes.is_empty()).then(|| (Key::Text(test, bytes.into()), passes));
    let equal = matches!(op, Op::Eq | Op::EqEq | Op::In | Op::Intersects);
    match (op, constant) {
        (_, Const::Bytes(bytes)) if equal => {
            let passes = if matches!(&**bytes, b"" | b"host" | b"<NA>") { 0.5 } else { 0.002 };
            Some((Key::Text(TextTest::Equal, bytes.clone()), passes))
        }
        (Op::StartsWith | Op::BStartsWith, Const::Bytes(bytes)) => text(TextTest::Prefix, bytes, at_an_end(bytes)),
        (Op::EndsWith, Const::Bytes(bytes)) => text(TextTest::Suffix, bytes, at_an_end(bytes)),
        (Op::Contains | Op::BContains, Const::Bytes(bytes)) => text(TextTest::Contains, bytes, inside(bytes)),
        (Op::IContains, Const::Bytes(bytes)) => {
            text(TextTest::ContainsFolded, &bytes.to_ascii_lowercase(), 2.0 * inside(bytes))
        }
        (Op::PMatch, Const::Bytes(bytes)) => {
            let path = super::path_set::normal(bytes);
            text(TextTest::Path, &path, at_an_end(&path))
        }
        (Op::Glob, Const::Bytes(pattern)) => match glob::longest_literal(pattern) {
            glob::Literal::Whole(bytes) => text(TextTest::Equal, &bytes, 0.002),
            glob::Literal::Front(bytes) => text(TextTest::Prefix, &bytes, at_an_end(&bytes)),
            glob::Literal::Inside(bytes) => text(TextTest::Contains, &bytes, inside(&bytes)),
            glob::Literal::End(bytes) => text(TextTest::Suffix, &bytes, at_an_end(&bytes)),
        },
        (Op::IGlob, Const::Bytes(pattern)) => {
            let bytes = glob::longest_literal(pattern).bytes().to_ascii_lowercase();
            text(TextTest::ContainsFolded, &bytes, 2.0 * inside(&bytes))
        }
        (_, Const::Int(number)) if equal => Some((Key::Int(*number), if *number == 0 { 0.4 } else { 0.05 })),
        (_, Const::Bool(truth)) if equal => Some((Key::Bool(*truth), 0.4)),
        (_, Const::Ip(ip)) if equal => Some((Key::Ip(*ip), 0.002)),
        (_, Const::Net(net)) if equal => Some((Key::Net(*net), if net.prefix_len() > 16 { 0.005 } else { 0.1 })),
        _ => None,
    }
}

/// How many values begin or end so: paths mostly share their first components.
fn at_an_end(text: &[u8]) -> f32 {
    match text.len() {
        0..=1 => 0.9,
        2..=4 => 0.3,
        5..=8 => 0.05,
        _ => 0.01,
    }
}

fn inside(needle: &[u8]) -> f32 {
    match needle.len() {
        0..=1 => 0.5,
        2..=3 => 0.1,
        _ => 0.01,
    }
}

/// How common each of the values is at least: those of some fields are few words.
fn common(value: &ValueExpr) -> f32 {
    let ValueExpr::Field(field, _) = value else { return 0.0 };
    match field.name {
        "fd.typechar" | "fd.type" | "fd.l4proto" | "fd.sockfamily" | "evt.res" | "evt.category" | "evt.io_dir"
        | "evt.dir" | "evt.source" | "container.type" => 0.4,
        "user.name" | "user.uid" | "user.loginname" | "user.loginuid" | "group.name" | "group.gid" | "user.shell"
        | "proc.tty" => 0.1,
        "k8s.ns.name" | "container.image.tag" => 0.02,
        _ => 0.0,
    }
}

/// What it costs to have the value, in events let pass in vain.
fn price(value: &ValueExpr) -> f32 {
    match value {
        ValueExpr::Literal(_) => 0.0,
        ValueExpr::List(items) => items.iter().map(price).sum(),
        ValueExpr::Call { args, .. } => 0.03 + args.iter().map(price).sum::<f32>(),
        ValueExpr::Field(field, _) => match field.name {
            "proc.name" | "proc.pname" | "evt.failed" | "evt.rawres" | "user.uid" | "user.loginuid" | "proc.tty"
            | "proc.pid" | "proc.ppid" | "group.gid" => 0.0,
            name if name.starts_with("fd.") || name.starts_with("evt.is_") => 0.001,
            name if name.starts_with("fs.path.") => 0.005,
            // Text that is put together for each event, and mostly long.
            "proc.cmdline" | "proc.pcmdline" | "proc.args" | "proc.exeline" | "proc.aargs" | "proc.acmdline"
            | "proc.env" | "proc.aenv" | "evt.args" | "evt.info" => 0.04,
            name if name.starts_with("evt.arg") || name.starts_with("thread.cap_") => 0.1,
            _ if field.matching == Matching::EachAncestor => 0.02,
            _ => 0.005,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{
        ast::TextId,
        check::check,
        names::Catalogue,
        parse::{Depth, parse},
    };

    /// The best cover, and how many there are.
    #[track_caller]
    fn best(filter: &str, ty: &str) -> String {
        let tree = parse(filter, TextId::default(), Depth::RULES).expect("a filter");
        let (typed, _) = check(&tree, Catalogue::default());
        let typed = typed.expect("a filter without mistakes");
        let spell = |(leaf, key): &(&Leaf, Key)| {
            let ValueExpr::Field(field, _) = &leaf.left else { return "?".to_owned() };
            let key = match key {
                Key::Text(test, text) => format!("{test:?} {}", String::from_utf8_lossy(text)),
                other => format!("{other:?}"),
            };
            format!("{} {key}", field.name)
        };
        match need(&typed, EventType::by_name(ty).expect("an event type")) {
            Need::Never => "never".to_owned(),
            Need::All(covers) => match covers.iter().min_by(|a, b| a.weight.total_cmp(&b.weight)) {
                None => "nothing".to_owned(),
                Some(best) => best.keys.iter().map(spell).collect::<Vec<_>>().join(", "),
            },
        }
    }

    #[test]
    fn the_rarest_cheap_comparison_leads_to_a_rule() {
        let filter = "evt.type = openat and evt.is_open_read = true and fd.name startswith /opt/app/secrets and proc.cmdline contains x1234";
        assert_eq!(best(filter, "openat"), "fd.name Prefix /opt/app/secrets");
        assert_eq!(best(filter, "connect"), "never");
    }

    #[test]
    fn words_that_every_other_event_has_lead_nowhere() {
        let filter = "evt.type = openat and fd.typechar = f and evt.is_open_read = true and fd.name startswith /etc/ and fd.num >= 0";
        assert_eq!(best(filter, "openat"), "fd.name Prefix /etc/");
        assert_eq!(
            best("container.id = host and proc.pname in (a, b)", "openat"),
            "proc.pname Equal a, proc.pname Equal b"
        );
    }

    #[test]
    fn an_or_needs_a_key_of_each_part() {
        let filter = "(evt.type = openat and fd.name = /a/b or proc.name in (x, y)) and not proc.pname = z";
        assert_eq!(best(filter, "openat"), "fd.name Equal /a/b, proc.name Equal x, proc.name Equal y");
        assert_eq!(best(filter, "connect"), "proc.name Equal x, proc.name Equal y");
        assert_eq!(best("proc.name = a or not proc.pname = z", "openat"), "nothing");
    }

    #[test]
    fn patterns_are_found_by_their_longest_part() {
        assert_eq!(best("fd.name glob '/home/*/.ssh/id_*'", "openat"), "fd.name Contains /.ssh/id_");
        assert_eq!(best("fd.name pmatch (/var//run/, etc)", "openat"), "fd.name Path var/run, fd.name Path etc");
        assert_eq!(best("fd.name startswith allof (/etc, /etc/ssh)", "openat"), "fd.name Prefix /etc/ssh");
    }

    #[test]
    fn what_is_negated_or_empty_is_no_way_in() {
        assert_eq!(best("not proc.name = a", "openat"), "nothing");
        assert_eq!(best("not (proc.name = a or not proc.pname = b)", "openat"), "proc.pname Equal b");
        assert_eq!(best("proc.name in ()", "openat"), "never");
        assert_eq!(best("proc.name != a", "openat"), "proc.name Leaf");
    }
}
