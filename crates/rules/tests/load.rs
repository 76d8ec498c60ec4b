//! Files that people write, right and wrong, and what they are told.

mod common;

use common::MockEvent;
use event::value::{Arena, Value};
use expect_test::{Expect, expect};
use gyrfalcon_rules as rules;
use rules::{
    load::{AppendOutput, Loader, Options, RuleMatching, Selection, Selector},
    ruleset::Evaluation,
};

fn rule(condition: &str) -> String {
    format!("- rule: r\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n")
}

/// Everything that is said about these files.
#[track_caller]
fn check(files: &[&str], want: Expect) {
    let mut loader = Loader::new(Options::default());
    for (index, file) in files.iter().enumerate() {
        loader.add(&format!("{index}.yaml"), file.as_bytes());
    }
    let said: String = loader.finish().diagnostics.iter().map(ToString::to_string).collect();
    want.assert_eq(&said);
}

#[test]
fn a_mistake_in_a_folded_condition_is_shown_where_it_stands() {
    let file = "- rule: r
  desc: d
  condition: >
    evt.type = openat and
      fd.nmae startswith /etc and
    proc.name in (a,, b)
  output: o
  priority: INFO
";
    check(
        &[file],
        expect![[r#"
        error[syntax]: expected a value: a number, a bare string, or a quoted string
          0.yaml:6:21       proc.name in (a,, b)
                                            ^ text with blanks, quotes, commas, `=` or parentheses needs quotes
    "#]],
    );
    check(
        &[&file.replace(",,", ",")],
        expect![[r#"
        error[unknown-field]: no field `fd.nmae`
          0.yaml:5:7         fd.nmae startswith /etc and
                             ^^^^^^^ did you mean `fd.name`?
    "#]],
    );
}

#[test]
fn a_mistake_in_a_plain_condition_of_several_lines_is_shown_where_it_stands() {
    check(
        &[&rule("evt.type = openat\n    and proc.pid contains 3\n    and proc.name = val(proc.pid)")],
        expect![[r#"
        error[wrong-operator]: `contains` can't be used with `proc.pid`, which is a number
          0.yaml:4:18       and proc.pid contains 3
                                         ^^^^^^^^ possible are: exists, <=, <, >=, >, =, !=, intersects, in
        error[right-hand-field]: both sides must have the same type: `proc.name = val(proc.pid)`
          0.yaml:5:25       and proc.name = val(proc.pid)
                                                ^^^^^^^^
    "#]],
    );
}

#[test]
fn all_mistakes_of_a_condition_are_reported() {
    check(
        &[&rule("evt.type = opnat and proc.aname[x] = a and proc.pid = b and proc.name regex \"a(\"")],
        expect![[r#"
        error[unknown-event-type]: unknown event type `opnat`
          0.yaml:3:25     condition: evt.type = opnat and proc.aname[x] = a and proc.pid = b and proc.name regex "a("
                                                ^^^^^ did you mean `openat`?
        error[field-argument]: `x` isn't an index of `proc.aname`
          0.yaml:3:35     condition: evt.type = opnat and proc.aname[x] = a and proc.pid = b and proc.name regex "a("
                                                          ^^^^^^^^^^^^^
        error[invalid-value]: `b` isn't a number
          0.yaml:3:68     condition: evt.type = opnat and proc.aname[x] = a and proc.pid = b and proc.name regex "a("
                                                                                           ^
        error[invalid-regex]: invalid regular expression: unclosed group
          0.yaml:3:90     condition: evt.type = opnat and proc.aname[x] = a and proc.pid = b and proc.name regex "a("
                                                                                                                 ^^^^
    "#]],
    );
}

#[test]
fn a_mistake_in_a_list_is_shown_in_the_list() {
    let file = format!("- list: calls\n  items: [open, opeat]\n{}", rule("evt.type in (calls)"));
    check(
        &[&file],
        expect![[r#"
        error[unknown-event-type]: unknown event type `opeat`
          0.yaml:2:17     items: [open, opeat]
                                        ^^^^^ did you mean `openat`?
    "#]],
    );
}

#[test]
fn macros_must_be_defined_before_they_are_used_by_macros() {
    let file = format!("- macro: a\n  condition: b\n- macro: b\n  condition: evt.type = open\n{}", rule("a and c"));
    check(
        &[&file],
        expect![[r#"
        error[undefined-macro]: Undefined macro 'b' used in filter.
          0.yaml:2:14     condition: b
                                     ^ `b` is defined further down: move it up
        error[undefined-macro]: Undefined macro 'c' used in filter.
          0.yaml:7:20     condition: a and c
                                           ^
        warning[unused-macro]: Macro 'b' not referred to by any other rule/macro
          0.yaml:3:10   - macro: b
                                 ^
    "#]],
    );
}

#[test]
fn a_macro_that_comes_to_refer_to_itself_is_a_loop() {
    let first = format!("- macro: a\n  condition: evt.type = open\n- macro: b\n  condition: a\n{}", rule("b"));
    check(
        &[&first, "- macro: a\n  condition: b\n"],
        expect![[r#"
        error[macro-loop]: reference loop in macro
          0.yaml:3:10   - macro: b
                                 ^
    "#]],
    );
}

#[test]
fn oddities_of_yaml_have_a_place() {
    check(
        &["- rule: r\n\tdesc: x\n"],
        expect![[r#"
            error[invalid-yaml]: invalid YAML: while scanning a plain scalar, found a tab
              0.yaml:1:9   - rule: r
                                   ^ YAML is indented with blanks, not with tabs
        "#]],
    );
    check(
        &["- list: a\n  items: [x]\n  items: [y]\n"],
        expect![[r#"
        warning[duplicate-key]: key 'items' stands twice here, the first one counts
          0.yaml:3:3     items: [y]
                         ^^^^^
        warning[unused-list]: List 'a' not referred to by any other rule/macro/list
          0.yaml:1:9   - list: a
                               ^
    "#]],
    );
    check(
        &["rule: x\n"],
        expect![[r#"
        error[wrong-shape]: a rules file must be a sequence of items
          0.yaml:1:1   rule: x
                       ^^^^^^^ begin each rule, macro or list with `- rule:`, `- macro:` or `- list:`
    "#]],
    );
    check(
        &["- list: [a]\n  items: x\n"],
        expect![[r#"
        error[wrong-shape]: 'list' must be text
          0.yaml:1:9   - list: [a]
                               ^^^
        warning[unknown-key]: Unknown key 'items'
          0.yaml:2:3     items: x
                         ^^^^^
    "#]],
    );
    check(
        &[&format!("- list: {}", "[".repeat(200))],
        expect![[r#"
        error[yaml-too-complex]: YAML that nests too deeply isn't accepted
          0.yaml:1:71   - list: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
                                                                                              ^
    "#]],
    );
}

#[test]
fn byte_order_marks_line_ends_and_bytes() {
    let file =
        format!("\u{feff}{}", rule("evt.type = open and\n    proc.name = é and proc.nme = x").replace('\n', "\r\n"));
    check(
        &[&file],
        expect![[r#"
        error[unknown-field]: no field `proc.nme`
          0.yaml:4:23       proc.name = é and proc.nme = x
                                              ^^^^^^^^ did you mean `proc.name`?
    "#]],
    );
    let mut loader = Loader::new(Options::default());
    loader.add("b.yaml", b"- list: a\n  items: [\xff]\n");
    expect![[r#"
        error[invalid-utf8]: the file isn't UTF-8
          b.yaml:2:11     items: [�]
                                  ^
    "#]]
    .assert_eq(&loader.finish().diagnostics[0].to_string());
}

#[test]
fn a_large_value_with_many_aliases_is_refused_before_it_is_copied() {
    let (large, aliases) = (vec!["x"; 10_000].join(", "), vec!["*a"; 50_000].join(", "));
    let file = format!("- list: large\n  items: &a [{large}]\n- list: l\n  items: [{aliases}]\n");
    let mut loader = Loader::new(Options::default());
    loader.add("a.yaml", file.as_bytes());
    let diagnostics = loader.finish().diagnostics;
    assert!(diagnostics[0].to_string().starts_with("error[yaml-too-complex]: YAML that is too large with its aliases"));
    // As people use them.
    let mut loader = Loader::new(Options::default());
    loader.add("b.yaml", b"- list: a\n  items: &a [x, y]\n- list: b\n  items: *a\n");
    assert!(loader.finish().diagnostics.iter().all(|diagnostic| !diagnostic.to_string().starts_with("error")));
}

#[test]
fn aliases_that_explode_are_refused() {
    let mut file = "- list: l0\n  items: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let alias = format!("*a{}", level - 1);
        file.push_str(&format!("- list: l{level}\n  items: &a{level} [{}]\n", vec![alias; 10].join(", ")));
    }
    check(
        &[&file],
        expect![[r#"
            error[yaml-too-complex]: YAML that is too large with its aliases put in isn't accepted
              0.yaml:10:45     items: &a4 [*a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3]
                                                                         ^^^
        "#]],
    );
}

#[test]
fn macros_that_explode_are_refused() {
    let mut file = "- macro: m0\n  condition: evt.type = open\n".to_owned();
    for level in 1..40 {
        let inner = format!("m{}", level - 1);
        file.push_str(&format!("- macro: m{level}\n  condition: {inner} and {inner}\n"));
    }
    file.push_str(&rule("m39"));
    check(
        &[&file],
        expect![[r#"
        error[condition-too-large]: the condition is too large, or nests too deeply, with its lists and macros put in
          0.yaml:83:14     condition: m39
                                      ^^^
    "#]],
    );
}

#[test]
fn parentheses_regexes_and_files_have_limits() {
    check(
        &[&rule(&format!("{}proc.name = a", "(".repeat(10_000)))],
        expect![[r#"
        error[syntax]: exceeded max depth limit of 1000
          0.yaml:3:1015   ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((
                                                                                     ^
    "#]],
    );
    check(
        &[&rule("evt.type = open and proc.name regex (a{1000}){1000}")],
        expect![[r#"
        error[syntax]: expected a value: a number, a bare string, or a quoted string
          0.yaml:3:50     condition: evt.type = open and proc.name regex (a{1000}){1000}
                                                                         ^ text with blanks, quotes, commas, `=` or parentheses needs quotes
    "#]],
    );
    check(
        &[&rule("evt.type = open and proc.name regex '((a{1000}){1000}){1000}'")],
        expect![[r#"
        error[invalid-regex]: the regular expression is too large
          0.yaml:3:50     condition: evt.type = open and proc.name regex '((a{1000}){1000}){1000}'
                                                                         ^^^^^^^^^^^^^^^^^^^^^^^^^
    "#]],
    );
    check(
        &[&"#".repeat(50_000_000)],
        expect![[r#"
        error[file-too-large]: 0.yaml has 50000000 bytes; at most 16777216 are read
    "#]],
    );
}

#[test]
fn outputs_are_checked() {
    let file = rule("evt.type = open").replace("output: o", "output: a %proc.nmae b %evt.arg c %");
    check(
        &[&file],
        expect![[r#"
        error[invalid-output]: no field `proc.nmae`
          0.yaml:4:13     output: a %proc.nmae b %evt.arg c %
                                    ^^^^^^^^^^ did you mean `proc.name`?
        error[invalid-output]: `evt.arg` needs the name of a parameter: `evt.arg.name`
          0.yaml:4:26     output: a %proc.nmae b %evt.arg c %
                                                 ^^^^^^^^
        error[invalid-output]: no field behind `%`
          0.yaml:4:37     output: a %proc.nmae b %evt.arg c %
                                                            ^ a token is `%field`, `%field[argument]`, `%20field` or `%transformer(field)`
    "#]],
    );
}

#[test]
fn requirements_are_checked() {
    check(
        &["- required_engine_version: 99\n- required_engine_version: x\n"],
        expect![[r#"
        error[engine-too-old]: Rules require engine version 0.99.0, but engine version is 0.63.0
          0.yaml:1:28   - required_engine_version: 99
                                                   ^^
        error[invalid-version]: Unable to parse engine version 'x' as a semver string
          0.yaml:2:28   - required_engine_version: x
                                                   ^
    "#]],
    );
    check(
        &["- required_plugin_versions: [{name: nope, version: 1.0.0, alternatives: [{name: json, version: 9.0.0}]}]"],
        expect![[r#"
        error[plugin-missing]: Plugin 'nope' of version 1.0.0 or a newer compatible one is required
          0.yaml:1:37   - required_plugin_versions: [{name: nope, version: 1.0.0, alternatives: [{name: json, version: 9.0.0}]}]
                                                            ^^^^ built in are container 0.7.0, json 0.7.3, k8saudit 0.18.0, k8smeta 0.4.1
    "#]],
    );
}

/// The names of the rules that match, and the alert of the first.
fn alerts(file: &str, options: Options, event: &MockEvent<'_>) -> (Vec<String>, String) {
    let mut loader = Loader::new(options);
    loader.add("r.yaml", file.as_bytes());
    let loaded = loader.finish();
    let ruleset = loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    let (mut names, mut alert) = (Vec::new(), None);
    ruleset.matches(event, &mut Evaluation::default(), |rule| {
        names.push(rule.name().to_owned());
        alert.get_or_insert_with(|| ruleset.alert(rule, event));
    });
    (names, alert.map_or_else(String::new, |alert| serde_json::to_string_pretty(&alert).expect("JSON")))
}

const ALERTS: &str = r#"
- rule: first
  desc: d
  condition: evt.type = openat and fd.name startswith /etc
  output: "Opened (file=%fd.name %5proc.name|%proc.pid missing=%proc.pname %toupper(proc.name) %proc.aname[2])"
  priority: WARNING
  tags: [b, a, b]
- rule: second
  desc: d
  condition: evt.type = openat
  output: o
  priority: DEBUG
  enabled: false
"#;

#[test]
fn an_alert_has_falcos_keys_and_values() {
    let arena = Arena::new();
    let event = MockEvent::new(
        &arena,
        "openat",
        &[
            ("fd.name", Value::Text(b"/etc/x\n\x1b[31m\xff")),
            ("proc.name", Value::Text(b"cat")),
            ("proc.pid", Value::Int(7)),
        ],
    );
    let options = Options {
        hostname: "node".into(),
        append_output: vec![AppendOutput::suggested()],
        rule_matching: RuleMatching::All,
        ..Options::default()
    };
    let (names, alert) = alerts(ALERTS, options, &event);
    assert_eq!(names, ["first"]);
    expect![[r#"
        {
          "hostname": "node",
          "output": "22:13:20.123456789: Warning Opened (file=/etc/x\\n\\x1b[31m� cat  |7 missing=<NA> CAT <NA>) container_id=<NA> container_name=<NA> container_image_repository=<NA> container_image_tag=<NA> k8s_pod_name=<NA> k8s_ns_name=<NA>",
          "output_fields": {
            "container.id": null,
            "container.image.repository": null,
            "container.image.tag": null,
            "container.name": null,
            "evt.time": 1700000000123456789,
            "fd.name": "/etc/x\n\u001b[31m�",
            "k8s.ns.name": null,
            "k8s.pod.name": null,
            "proc.aname[2]": null,
            "proc.name": "cat",
            "proc.pid": 7,
            "proc.pname": null,
            "toupper(proc.name)": "CAT"
          },
          "priority": "Warning",
          "rule": "first",
          "source": "syscall",
          "tags": [
            "a",
            "b"
          ],
          "time": "2023-11-14T22:13:20.123456789Z"
        }"#]].assert_eq(&alert);
}

#[test]
fn selection_beats_enabled_and_the_last_one_wins() {
    let arena = Arena::new();
    let event = MockEvent::new(&arena, "openat", &[("fd.name", Value::Text(b"/etc"))]);
    let select = |enable, selector| Selection { enable, selector };
    let options = Options {
        rule_matching: RuleMatching::All,
        selection: vec![
            select(false, Selector::Rule("*".into())),
            select(true, Selector::Rule("sec*".into())),
            select(true, Selector::Tag("a".into())),
        ],
        ..Options::default()
    };
    assert_eq!(alerts(ALERTS, options.clone(), &event).0, ["first", "second"]);
    let first = Options { rule_matching: RuleMatching::First, ..options };
    assert_eq!(alerts(ALERTS, first, &event).0, ["first"]);
}

#[test]
fn no_value_makes_every_comparison_false_and_not_makes_that_true() {
    let arena = Arena::new();
    let event = MockEvent::new(&arena, "openat", &[]);
    for (condition, want) in [
        ("proc.name != x", false),
        ("proc.name = x", false),
        ("not proc.name = x", true),
        ("not proc.name != x", true),
        ("proc.name in ()", false),
        ("not proc.name exists", true),
        ("proc.name != allof (a)", false),
        ("proc.pid < 5", false),
        ("proc.name = val(proc.pname)", false),
        ("proc.name contains ''", false),
    ] {
        let file = rule(&format!("evt.type = openat and {condition}"));
        assert_eq!(!alerts(&file, Options::default(), &event).0.is_empty(), want, "{condition}");
    }
}

#[test]
fn exceptions_become_part_of_the_condition_and_keep_their_place() {
    let file = format!(
        "{}  exceptions:\n    - {{name: a, fields: [proc.name, fd.name], comps: [=, in], values: [[x, [y, z]], [\"a b\", shells]]}}\n    \
         - {{name: b, fields: proc.pid, values: [1, two]}}\n    - {{name: c, fields: [proc.nmae], values: [[x]]}}\n",
        rule("evt.type = open and proc.name = a or proc.name = b"),
    );
    check(
        &[&format!("- list: shells\n  items: [bash, sh]\n{file}")],
        expect![[r#"
        error[invalid-exception]: 'proc.nmae' is not a supported filter field
          0.yaml:11:26       - {name: c, fields: [proc.nmae], values: [[x]]}
                                                  ^^^^^^^^^ did you mean `proc.name`?
        error[invalid-value]: `two` isn't a number
          0.yaml:10:47       - {name: b, fields: proc.pid, values: [1, two]}
                                                                       ^^^
    "#]],
    );
    let mut loader = Loader::new(Options::default());
    let fixed = file.replace("two", "2").replace("nmae", "name");
    loader.add("r.yaml", format!("- list: shells\n  items: [bash, sh]\n{fixed}").as_bytes());
    expect![[r#"(((evt.type = open and proc.name = a) or proc.name = b) and not ((proc.name = x and fd.name in (y, z)) or (proc.name = "a b" and fd.name in (bash, sh))) and not proc.pid in (1, 2) and not proc.name = x)"#]].assert_eq(&loader.listing().rules[0].condition);
}

#[test]
fn a_field_of_another_source_is_named_as_such() {
    check(
        &[&rule("evt.type = open and ka.verb = get")],
        expect![[r#"
        error[unknown-field]: no field `ka.verb`
          0.yaml:3:34     condition: evt.type = open and ka.verb = get
                                                         ^^^^^^^ it is a field of events of the source k8s_audit
    "#]],
    );
}

#[test]
fn lists_are_text_and_an_empty_one_takes_its_comma_along() {
    let file = "- list: none\n  items: []\n- list: some\n  items: [a, \"b c\", none]\n";
    let mut loader = Loader::new(Options::default());
    loader.add("r.yaml", format!("{file}{}", rule("evt.type=open and proc.name in (x, none, some,none)")).as_bytes());
    expect![[r#"(evt.type = open and proc.name in (x, a, "b c"))"#]].assert_eq(&loader.listing().rules[0].condition);
}

#[test]
fn load_results_have_falcos_form() {
    let mut loader = Loader::new(Options::default());
    loader.add("r.yaml", rule("evt.type = opne").as_bytes());
    let results = loader.finish().falco_load_results();
    expect![[r#"
        {
          "falco_load_results": [
            {
              "errors": [
                {
                  "code": "LOAD_ERR_COMPILE_CONDITION",
                  "codedesc": "A condition can't be compiled.",
                  "context": {
                    "locations": [
                      {
                        "item_name": "r",
                        "item_type": "rule",
                        "position": {
                          "column": 24,
                          "line": 2,
                          "name": "r.yaml",
                          "offset": 44
                        }
                      }
                    ],
                    "snippet": "  condition: evt.type = opne"
                  },
                  "message": "unknown event type `opne` (did you mean `open`?)"
                }
              ],
              "name": "r.yaml",
              "schema_validation": "ok",
              "successful": false,
              "warnings": []
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&results).expect("JSON"));
}

#[test]
fn brackets_may_close_at_the_margin_as_in_falco() {
    let lists: String = (0..40)
        .map(|index| format!("- list: l{index}\n  items: [\na, # it's a comment]\n\"b]\",\nc{index}\n]\n"))
        .collect();
    let mut loader = Loader::new(Options::default());
    loader.add("r.yaml", lists.as_bytes());
    let listing = loader.listing();
    assert_eq!(listing.lists.len(), 40);
    assert_eq!(listing.lists[39].items, ["a", "b]", "c39"]);
    let file = format!("- list: a\n  items: [\nopen, # x\nopne\n]\n{}", rule("evt.type in (a)"));
    check(
        &[&file],
        expect![[r#"
        error[unknown-event-type]: unknown event type `opne`
          0.yaml:4:1   opne
                       ^^^^ did you mean `open`?
    "#]],
    );
}

#[test]
fn a_list_of_a_million_words_is_compiled_and_looked_up_by_hash() {
    let words: Vec<String> = (0..1_000_000).map(|n| format!("w{n}")).collect();
    let file = format!("- list: words\n  items: [{}]\n", words.join(", "))
        + "- rule: r\n  desc: d\n  condition: evt.type = open and proc.name in (words)\n  output: o\n  priority: INFO\n";
    let mut loader = Loader::new(Options::default());
    loader.add("a.yaml", file.as_bytes());
    let loaded = loader.finish();
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.is_error()).map(ToString::to_string).collect();
    let Some(ruleset) = loaded.ruleset else {
        // Refusing it is as good, as long as it is said where.
        return assert!(errors[0].contains("a.yaml:"), "{}", errors[0]);
    };
    let arena = Arena::new();
    for (name, want) in [("w999999", 1), ("w", 0)] {
        let event = MockEvent::new(&arena, "open", &[("proc.name", Value::Text(name.as_bytes()))]);
        let mut matches = 0;
        ruleset.matches(&event, &mut Evaluation::default(), |_| matches += 1);
        assert_eq!(matches, want, "{name}");
    }
}

#[test]
fn a_file_of_fifty_megabytes_is_refused_before_it_is_parsed() {
    let file = "- list: a\n  items: [b]\n".repeat((50 << 20) / 24);
    let mut loader = Loader::new(Options::default());
    loader.add("a.yaml", file.as_bytes());
    let diagnostics = loader.finish().diagnostics;
    assert_eq!(diagnostics.len(), 1);
    assert!(diagnostics[0].is_error());
}

#[test]
fn many_regexes_use_up_the_work_of_a_file() {
    let file: String = (0..200)
        .map(|n| {
            let condition = format!("evt.type = open and proc.name regex '(a|b{n}){{1,60}}[a-z]{{1,90}}x'");
            format!("- rule: r{n}\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n")
        })
        .collect();
    let mut loader = Loader::new(Options { work: 100_000, ..Options::default() });
    loader.add("a.yaml", file.as_bytes());
    let loaded = loader.finish();
    let errors = loaded.diagnostics.iter().filter(|d| d.is_error()).count();
    assert!(errors > 0 && loaded.ruleset.is_none(), "{errors} errors");
}

#[test]
fn ten_thousand_rules_about_distinct_things_are_compiled() {
    let file: String = (0..10_000)
        .map(|n| {
            let condition =
                format!("evt.type in (open, openat) and fd.name startswith /srv/team{n}/ and proc.name != app{n}");
            format!("- rule: r{n}\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n")
        })
        .collect();
    let mut loader = Loader::new(Options { rule_matching: RuleMatching::All, ..Options::default() });
    loader.add("a.yaml", file.as_bytes());
    let ruleset = loader.finish().ruleset.expect("no errors");
    let arena = Arena::new();
    let values = [("fd.name", Value::Text(b"/srv/team77/x")), ("proc.name", Value::Text(b"app78"))];
    let event = MockEvent::new(&arena, "openat", &values);
    let mut matched = Vec::new();
    ruleset.matches(&event, &mut Evaluation::default(), |rule| matched.push(rule.name().to_owned()));
    assert_eq!(matched, ["r77"]);
}

#[test]
fn static_fields_are_constants_of_conditions_and_outputs() {
    let statics = [("site".to_owned(), "berlin".to_owned())];
    let catalogue = rules::filter::names::Catalogue::default().with_statics(&statics).expect("a good name");
    let options = Options { catalogue, append_output: vec![AppendOutput::suggested()], ..Options::default() };
    let mut loader = Loader::new(options);
    let file = "- rule: r\n  desc: d\n  condition: evt.type = open and static.site = berlin and toupper(static.site) = BERLIN and proc.name != val(static.site)\n  output: o\n  priority: INFO\n- rule: s\n  desc: d\n  condition: evt.type = open and static.sight = x\n  output: o\n  priority: INFO\n";
    let result = loader.add("r.yaml", file.as_bytes());
    let help: Vec<_> = result.diagnostics.iter().filter_map(|d| d.help.clone()).collect();
    assert_eq!(help, ["did you mean `static.site`?"]);
    let output = loader.listing().rules[0].output.clone();
    assert!(output.ends_with(" static_site=%static.site"), "{output}");
    let arena = Arena::new();
    let event = MockEvent::new(&arena, "open", &[("proc.name", Value::Text(b"cat"))]);
    let ruleset = loader.compiled();
    let mut alerts = Vec::new();
    ruleset.matches(&event, &mut Evaluation::default(), |rule| alerts.push(ruleset.alert(rule, &event)));
    let alert = alerts.first().expect("a match");
    assert!(alert.message.ends_with(" static_site=berlin"), "{}", alert.message);
    assert!(alert.output_fields.iter().any(|(key, value)| &**key == "static.site" && value == "berlin"));
    assert!(rules::filter::names::Catalogue::default().with_statics(&[("a-b".to_owned(), String::new())]).is_err());
}

#[test]
fn an_argument_that_is_named_by_its_place_is_told_by_its_name() {
    check(
        &[&rule("evt.type = socket and evt.arg[0] contains AF_PACKET")],
        expect![[r#"
            warning[positional-argument]: `evt.arg[0]` is `fd` of socket
              0.yaml:3:36     condition: evt.type = socket and evt.arg[0] contains AF_PACKET
                                                               ^^^^^^^^^^ write `evt.arg.NAME`; those of socket are fd, domain, type, proto, flags. What stood at a place was something else in earlier versions of Falco
        "#]],
    );
    check(
        &[&rule("evt.type in (open, openat, openat2) and evt.arg[1] startswith /etc")],
        expect![[r#"
            warning[positional-argument]: `evt.arg[1]` is `dirfd` of openat and openat2; `name` of open
              0.yaml:3:54     condition: evt.type in (open, openat, openat2) and evt.arg[1] startswith /etc
                                                                                 ^^^^^^^^^^ write `evt.arg.NAME`; those of open are fd, name, flags, mode, dev, ino. What stood at a place was something else in earlier versions of Falco
        "#]],
    );
    check(
        &[&rule("evt.type = close and evt.arg[7] = a")],
        expect![[r#"
            warning[positional-argument]: `evt.arg[7]` is nothing: no event of this rule has so many arguments
              0.yaml:3:35     condition: evt.type = close and evt.arg[7] = a
                                                              ^^^^^^^^^^ write `evt.arg.NAME`; those of close are res, fd. What stood at a place was something else in earlier versions of Falco
        "#]],
    );
    check(&[&rule("evt.type = socket and evt.arg.domain contains AF_PACKET")], expect![[""]]);
}
