//! What holds for every filter, every event and every file.

use gyrfalcon_rules as rules;
use proptest::{collection::vec, prelude::*};
use rules::{
    filter::{
        ast::TextId,
        parse::{Depth, parse},
        print::print,
    },
    load::{Loader, Options},
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

/// What fuzzing once found is kept, and tried here.
#[test]
fn inputs_that_once_crashed() {
    let text = |bytes: &[u8], exercise: fn(&str)| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            exercise(text);
        }
    };
    for target in ["filter_parse", "rules_load", "output_format"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions").join(target);
        for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let bytes = std::fs::read(file.path()).expect("a readable file");
            match target {
                "filter_parse" => text(&bytes, rules::testing::exercise_filter),
                "rules_load" => rules::testing::exercise_rules(&bytes),
                _ => text(&bytes, rules::testing::exercise_output),
            }
        }
    }
}
