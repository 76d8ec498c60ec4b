//! A namespace sees itself and changes itself, whatever its owner writes.

mod common;

use bundle::Outcome;
use common::{judge, matches, on_node, resource, rule};
use gyrfalcon_bundle as bundle;
use proptest::{collection::vec, prelude::*};

const CLUSTER: &str = "rules: |
  - list: shells
    items: [bash, sh]
  - macro: spawned
    condition: (evt.type = execve)
  - macro: in_shell
    condition: (spawned and proc.name in (shells))
  - rule: Shell
    desc: a shell
    condition: in_shell
    output: shell
    priority: NOTICE
";

/// Everything that a namespace must not see, and does not, of rules that want to see everything.
const ELSEWHERE: [&str; 5] = [
    "proc.name=bash",
    "proc.name=bash container.id=host",
    "proc.name=bash container.id=abc",
    "proc.name=bash k8s.ns.name=kube-system",
    "proc.name=bash k8s.ns.name=shop2 k8s.pod.label[app]=web",
];

fn of_tenant(found: Vec<String>) -> Vec<String> {
    found.into_iter().filter(|rule| rule.starts_with("FalcoRule/")).collect()
}

#[test]
fn no_condition_widens_what_a_namespace_sees() {
    for spec in [
        rule("r", "evt.type = execve"),
        rule("r", "evt.type = execve or k8s.ns.name != shop"),
        rule("r", "evt.type = execve and not k8s.ns.name = shop or proc.name exists"),
        rule("r", "not (k8s.ns.name = shop) or evt.type = execve"),
        rule("r", "container.id = host or container.id != host or not container.id exists"),
        rule("r", "evt.num >= 0 or not evt.num >= 0"),
        rule("r", "spawned"),
        format!("{}podSelector: {{}}\n", rule("r", "spawned")),
        format!("{}includeHost: true\n", rule("r", "spawned")),
        format!("{}namespaceSelector: {{}}\n", rule("r", "spawned")),
        format!("{}podSelector: {{matchExpressions: [{{key: no, operator: DoesNotExist}}]}}\n", rule("r", "spawned")),
        format!("{}containerSelector: {{names: ['*']}}\n", rule("r", "spawned")),
        "rules: |\n  - rule: r\n    desc: d\n    condition: spawned\n    output: '%k8s.ns.name %proc.cmdline'\n    priority: INFO\n".into(),
        "rules: |\n  - macro: in_ns\n    condition: (evt.num >= 0)\n  - rule: r\n    desc: d\n    condition: in_ns\n    output: o\n    priority: INFO\n  - rule: r\n    condition: or evt.type = execve\n    override: {condition: append}\n".into(),
    ] {
        let accepted = judge(&[resource("core", CLUSTER), resource("shop/r", &spec)]);
        let node = on_node(&accepted.bundle);
        for event in ELSEWHERE {
            assert_eq!(of_tenant(matches(&node, event)), Vec::<String>::new(), "{spec} sees {event}");
        }
    }
}

#[test]
fn a_namespace_changes_nothing_of_the_cluster() {
    let change = |text: &str| format!("rules: |\n{text}");
    for spec in [
        change("  - rule: Shell\n    enabled: false\n"),
        change("  - rule: Shell\n    enabled: false\n    override: {enabled: replace}\n"),
        change("  - rule: Shell\n    condition: and evt.num < 0\n    append: true\n"),
        change("  - rule: Shell\n    condition: evt.num < 0\n    override: {condition: replace}\n"),
        change(
            "  - rule: Shell\n    exceptions: [{name: e, fields: proc.name, comps: in, values: [bash]}]\n    override: {exceptions: append}\n",
        ),
        change("  - macro: in_shell\n    condition: and evt.num < 0\n    append: true\n"),
        change("  - macro: spawned\n    condition: and evt.num < 0\n    override: {condition: append}\n"),
        change("  - list: shells\n    items: [zsh]\n    append: true\n"),
        format!("{}disable: [Shell]\n", rule("mine", "spawned")),
        format!(
            "{}exceptions: [{{rule: Shell, name: e, fields: [proc.name], values: [[bash]]}}]\n",
            rule("mine", "spawned")
        ),
    ] {
        let accepted = judge(&[resource("core", CLUSTER), resource("shop/r", &spec)]);
        let verdict = accepted.verdicts.iter().find(|(id, _)| &*id.name == "r").expect("a verdict").1;
        assert_eq!(verdict.outcome, Outcome::Rejected(api::condition::Reason::UnresolvedOverride), "{spec}");
        assert!(verdict.errors.iter().all(|problem| problem.help.is_some()), "{spec}");
        let node = on_node(&accepted.bundle);
        assert_eq!(matches(&node, "proc.name=bash"), ["ClusterFalcoRule/core: Shell"], "{spec}");
    }
}

#[test]
fn what_a_namespace_defines_is_its_own() {
    let hiding = "rules: |
  - list: shells
    items: [nothing]
  - macro: spawned
    condition: (evt.num < 0)
  - rule: Shell
    desc: mine
    condition: in_shell or proc.name in (shells)
    output: o
    priority: INFO
";
    let accepted = judge(&[
        resource("core", CLUSTER),
        resource("shop/a", hiding),
        resource("shop/b", &rule("b", "spawned")),
        resource("bank/b", &rule("b", "spawned and proc.name in (shells)")),
    ]);
    assert!(accepted.verdicts.values().all(|verdict| verdict.outcome == Outcome::Accepted));
    let node = on_node(&accepted.bundle);
    let cluster = "ClusterFalcoRule/core: Shell";
    assert_eq!(matches(&node, "proc.name=bash"), [cluster]);
    assert_eq!(matches(&node, "proc.name=bash k8s.ns.name=bank"), [cluster, "FalcoRule/bank/b: b"]);
    // The cluster's macro means to it what it means to the cluster; its own list hides the cluster's.
    assert_eq!(matches(&node, "proc.name=bash k8s.ns.name=shop"), [cluster, "FalcoRule/shop/a: Shell"]);
    assert_eq!(matches(&node, "proc.name=nothing k8s.ns.name=shop"), ["FalcoRule/shop/a: Shell"]);
    assert_eq!(matches(&node, "proc.name=nothing k8s.ns.name=bank"), Vec::<String>::new());
}

#[test]
fn first_counts_for_the_cluster_and_each_namespace() {
    let two = "rules: |
  - rule: one
    desc: d
    condition: spawned
    output: o
    priority: INFO
  - rule: two
    desc: d
    condition: spawned
    output: o
    priority: INFO
";
    let accepted = judge(&[resource("core", CLUSTER), resource("shop/a", two)]);
    let node = on_node(&accepted.bundle);
    assert_eq!(
        matches(&node, "proc.name=bash k8s.ns.name=shop"),
        ["ClusterFalcoRule/core: Shell", "FalcoRule/shop/a: one"]
    );
}

fn condition() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "k8s.ns.name = shop",
        "k8s.ns.name != shop",
        "k8s.ns.name exists",
        "container.id = host",
        "container.id != host",
        "evt.type = execve",
        "evt.num >= 0",
        "proc.name in (shells)",
        "proc.name exists",
        "spawned",
        "in_shell",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" and "))),
            vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" or "))),
            inner.prop_map(|inner| format!("not ({inner})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_of_a_namespace_never_sees_anything_else(condition in condition(), names in vec("[a-z]{1,5}", 1..4)) {
        let accepted = judge(&[resource("core", CLUSTER), resource("shop/r", &rule("r", &condition))]);
        let node = on_node(&accepted.bundle);
        for event in ELSEWHERE {
            prop_assert_eq!(of_tenant(matches(&node, event)), Vec::<String>::new());
        }
        for name in names.iter().filter(|name| *name != "shop") {
            let event = format!("k8s.ns.name={name} proc.name={name}");
            prop_assert_eq!(of_tenant(matches(&node, &event)), Vec::<String>::new());
        }
    }
}
