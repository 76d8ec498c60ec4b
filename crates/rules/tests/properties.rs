//! What holds for every filter, every event and every file.

mod common;

use std::net::{IpAddr, Ipv4Addr};

use common::{MockEvent, reference};
use event::value::{Arena, Value};
use gyrfalcon_rules as rules;
use proptest::{collection::vec, prelude::*};
use rules::{
    filter::{
        ast::TextId,
        parse::{Depth, parse},
        print::print,
    },
    load::{Loader, Options},
    ruleset::{Evaluation, Ruleset},
};

/// Words that meet each other often.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["/", "/etc", "/etc/a", "/ETC", "a", "ab", "b", "etc", "", "x y", "\"q\"", "c'd"])
            .prop_map(str::to_owned),
        "[ab/]{0,5}",
    ]
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![word(), "[ab/*?]{1,6}"]
}

fn quoted(word: &str) -> String {
    rules::filter::print::escape(word.as_bytes())
}

fn list(words: &[String]) -> String {
    format!("({})", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

fn select(words: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(words)
}

/// A comparison as text.
fn check() -> impl Strategy<Value = String> {
    let text = || select(&["proc.name", "fd.name", "proc.pname", "proc.aname", "proc.aname[2]", "proc.cmdline"]);
    let number = || select(&["proc.pid", "fd.num", "evt.rawres", "proc.apid"]);
    let order = select(&["=", "==", "!=", "<", "<=", ">", ">="]);
    prop_oneof![
        (text(), select(&["=", "==", "!=", "contains", "icontains", "startswith", "endswith"]), word())
            .prop_map(|(field, op, word)| format!("{field} {op} {}", quoted(&word))),
        (text(), select(&["glob", "iglob"]), pattern())
            .prop_map(|(field, op, word)| format!("{field} {op} {}", quoted(&word))),
        (text(), select(&["in", "intersects"]), vec(word(), 0..4))
            .prop_map(|(field, op, words)| format!("{field} {op} {}", list(&words))),
        (text(), vec(pattern(), 0..4)).prop_map(|(field, words)| format!("{field} pmatch {}", list(&words))),
        (
            text(),
            select(&["=", "!=", "contains", "startswith"]),
            select(&["anyof", "allof", "oneof"]),
            vec(word(), 0..4)
        )
            .prop_map(|(field, op, modifier, words)| format!("{field} {op} {modifier} {}", list(&words))),
        (number(), order, -2..4_i64).prop_map(|(field, op, number)| format!("{field} {op} {number}")),
        (select(&["fd.ip", "fd.sip"]), select(&["=", "!=", "in"]), 0..3_u8).prop_map(|(field, op, last)| match op {
            "in" => format!("{field} in (10.0.0.{last}, 10.0.0.9)"),
            op => format!("{field} {op} 10.0.0.{last}"),
        }),
        text().prop_map(|field| format!("{field} exists")),
        select(&["evt.type = openat", "evt.type != close", "evt.type in (openat, close)", "evt.is_io = true"])
            .prop_map(str::to_owned),
    ]
}

fn filter() -> impl Strategy<Value = String> {
    check().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" and "))),
            vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" or "))),
            inner.prop_map(|inner| format!("not ({inner})")),
        ]
    })
}

/// Values of an event; `None` is no value.
#[derive(Debug, Clone)]
struct Values {
    ty: &'static str,
    texts: Vec<Option<String>>,
    ancestors: Option<Vec<String>>,
    numbers: Vec<Option<i64>>,
    pids: Option<Vec<i64>>,
    ends: Option<Vec<u8>>,
    io: Option<bool>,
}

fn values() -> impl Strategy<Value = Values> {
    (
        select(&["openat", "close", "execve"]),
        vec(prop::option::of(word()), 5),
        prop::option::of(vec(word(), 0..3)),
        vec(prop::option::of(-2..4_i64), 3),
        prop::option::of(vec(-2..4_i64, 0..3)),
        prop::option::of(vec(0..3_u8, 0..3)),
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(ty, texts, ancestors, numbers, pids, ends, io)| Values {
            ty,
            texts,
            ancestors,
            numbers,
            pids,
            ends,
            io,
        })
}

fn event<'a>(arena: &'a Arena, values: &Values) -> MockEvent<'a> {
    let text = |text: &String| Value::Text(arena.alloc_slice_copy(text.as_bytes()));
    let ip = |last: u8| Value::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
    let mut event = MockEvent::new(arena, values.ty, &[]);
    let mut set = |name: &str, value: Option<Value<'a>>| {
        event.values.extend(value.map(|value| (name.to_owned(), value)));
    };
    for (name, value) in
        ["proc.name", "fd.name", "proc.pname", "proc.aname[2]", "proc.cmdline"].iter().zip(&values.texts)
    {
        set(name, value.as_ref().map(text));
    }
    let list = |items: Vec<Value<'a>>| Value::List(arena.alloc_slice_copy(&items));
    set("proc.aname", values.ancestors.as_ref().map(|names| list(names.iter().map(text).collect())));
    for (name, value) in ["proc.pid", "fd.num", "evt.rawres"].iter().zip(&values.numbers) {
        set(name, value.map(Value::Int));
    }
    set("proc.apid", values.pids.as_ref().map(|pids| list(pids.iter().map(|pid| Value::Int(*pid)).collect())));
    set("fd.ip", values.ends.as_ref().map(|ends| list(ends.iter().map(|last| ip(*last)).collect())));
    set("fd.sip", values.ends.as_ref().and_then(|ends| ends.first().map(|last| ip(*last))));
    set("evt.is_io", values.io.map(Value::Bool));
    event
}

/// Each filter as a rule of one ruleset: they share comparisons and values.
fn ruleset(filters: &[String]) -> Ruleset {
    let mut file = String::new();
    for (index, filter) in filters.iter().enumerate() {
        let condition = serde_json::to_string(filter).expect("text");
        file.push_str(&format!("- {{rule: r{index}, desc: d, condition: {condition}, output: o, priority: INFO}}\n"));
    }
    let options = Options { rule_matching: rules::load::RuleMatching::All, ..Options::default() };
    let mut loader = Loader::new(options);
    loader.add("r.yaml", file.as_bytes());
    let loaded = loader.finish();
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.is_error()).map(ToString::to_string).collect();
    loaded.ruleset.unwrap_or_else(|| panic!("{}", errors.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printing_and_parsing_again_gives_the_same_tree(filter in filter()) {
        let tree = parse(&filter, TextId::default(), Depth::RULES).expect("a filter");
        let again = parse(&print(&tree), TextId::default(), Depth::RULES).expect("a filter");
        prop_assert_eq!(again, tree);
    }

    #[test]
    fn any_constant_survives_printing(bytes in vec(any::<u8>(), 0..20)) {
        let text = format!("a.b = {}", rules::filter::print::escape(&bytes));
        let tree = parse(&text, TextId::default(), Depth::RULES).expect("a filter");
        prop_assert_eq!(print(&tree), text);
    }

    #[test]
    fn compiled_rules_match_what_the_oracle_says(filters in vec(filter(), 1..6), events in vec(values(), 1..6)) {
        let ruleset = ruleset(&filters);
        let mut scratch = Evaluation::default();
        for values in &events {
            let arena = Arena::new();
            let event = event(&arena, values);
            let mut matched = Vec::new();
            ruleset.matches(&event, &mut scratch, |rule| matched.push(rule.index()));
            let wanted: Vec<usize> = filters.iter().enumerate().filter(|(_, filter)| {
                let tree = parse(filter, TextId::default(), Depth::RULES).expect("a filter");
                reference::holds(&tree, &event)
            }).map(|(index, _)| index).collect();
            prop_assert_eq!(matched, wanted, "{:?}", filters);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z.()\\[\\]'\"=<> ,\\\\!]{0,60}") {
        let _ = parse(&text, TextId::default(), Depth::RULES);
    }

    #[test]
    fn no_bytes_make_the_loader_panic(bytes in vec(any::<u8>(), 0..300)) {
        let mut loader = Loader::new(Options::default());
        loader.add("x", &bytes);
        let loaded = loader.finish();
        loaded.diagnostics.iter().for_each(|d| { let _ = d.to_string(); });
    }

    #[test]
    fn no_mutation_of_a_rules_file_makes_the_loader_panic(
        at in any::<prop::sample::Index>(), length in 0..20_usize, with in "[a-z:\\-\\[\\]{}&*#|>'\" \t\n%().=]{0,8}",
    ) {
        let mut text = FILE.to_owned();
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        text.replace_range(start..end, &with);
        let mut loader = Loader::new(Options::default());
        loader.add("x", text.as_bytes());
        let loaded = loader.finish();
        loaded.diagnostics.iter().for_each(|d| { let _ = d.to_string(); });
    }
}

const FILE: &str = r#"- required_engine_version: 0.50.0
- required_plugin_versions: [{name: container, version: 0.4.0}]
- list: shells
  items: [bash, "a b", 'sh']
- macro: open
  condition: >
    evt.type in (open, openat)
      and fd.name startswith /etc
- rule: one
  desc: |
    text
  condition: open and proc.name in (shells) and
    not proc.pname = "x\x41"
  output: "%proc.name[x] %fd.name %20proc.pid %tolower(proc.exe)"
  priority: WARNING
  tags: [a, b]
  exceptions:
    - name: e
      fields: [proc.name, fd.name]
      comps: [=, in]
      values:
        - [a, [b, c]]
- rule: one
  condition: or proc.name = y
  override: {condition: append}
"#;
