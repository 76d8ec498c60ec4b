//! What becomes of resources, alone and together.

mod common;

use bundle::{Accepted, Bundle, Candidate};
use common::{judge, judge_after, matches, on_node, resource, rule, said};
use expect_test::{Expect, expect};
use gyrfalcon_bundle as bundle;

#[track_caller]
fn check(resources: &[Candidate], want: Expect) -> Accepted {
    let accepted = judge(resources);
    want.assert_eq(&said(&accepted));
    accepted
}

const MACROS: &str = "rules: |
  - list: shells
    items: [bash, sh]
  - macro: spawned
    condition: (evt.type in (execve, execveat))
  - rule: Shell
    desc: a shell
    condition: spawned and proc.name in (shells)
    output: shell
    priority: NOTICE
";

#[test]
fn rules_of_a_namespace_use_what_the_cluster_defines() {
    let accepted = check(
        &[resource("shop/curl", &rule("curl", "spawned and not proc.name in (shells)")), resource("core", MACROS)],
        expect![[r#"
            FalcoRule/shop/curl: Accepted, serving 1
            ClusterFalcoRule/core: Accepted, serving 1
        "#]],
    );
    let node = on_node(&accepted.bundle);
    assert_eq!(matches(&node, "k8s.ns.name=shop proc.name=curl"), ["FalcoRule/shop/curl: curl"]);
    assert_eq!(matches(&node, "k8s.ns.name=shop proc.name=sh"), ["ClusterFalcoRule/core: Shell"]);
    assert_eq!(matches(&node, "k8s.ns.name=other proc.name=curl"), Vec::<String>::new());
    assert_eq!(matches(&node, "proc.name=curl"), Vec::<String>::new());
}

#[test]
fn a_mistake_is_placed_in_the_resource() {
    check(
        &[
            resource("core", &MACROS.replace("proc.name in", "proc.nme in")),
            resource(
                "shop/curl",
                "items:\n- {name: a, list: {items: [a]}}\n- name: b\n  rule: {condition: \"evt.type = execve and\\n proc.pid in (a)\", output: \"%proc.nmae\", priority: INFO}\n",
            ),
        ],
        expect![[r#"
            FalcoRule/shop/curl: Rejected(CompileError), serving nothing
              error spec.items[0].list.items[0]:1:1: `a` isn't a number
              error spec.items[1].rule.output:1:1: no field `proc.nmae`; did you mean `proc.name`?
            ClusterFalcoRule/core: Rejected(CompileError), serving nothing
              error spec.rules:7:26: no field `proc.nme`; did you mean `proc.name`?
        "#]],
    );
}

#[test]
fn the_last_good_version_stays() {
    let good = judge(&[resource("core", MACROS), resource("shop/curl", &rule("curl", "spawned"))]);
    let bad = Candidate { generation: 2, ..resource("shop/curl", &rule("curl", "spwaned")) };
    let after = judge_after(&[bad.clone(), resource("core", MACROS)], &good.bundle);
    expect![[r#"
        FalcoRule/shop/curl: Rejected(CompileError), serving 1
          error spec.rule.condition:1:1: Undefined macro 'spwaned' used in filter.; did you mean `spawned`?
        ClusterFalcoRule/core: Accepted, serving 1
    "#]]
    .assert_eq(&said(&after));
    assert_eq!(after.bundle, good.bundle);
    let another = Candidate { uid: "another".into(), ..bad };
    let after = judge_after(&[another, resource("core", MACROS)], &good.bundle);
    assert_eq!(after.bundle.units.len(), 1, "a resource that was made again has no past");
}

#[test]
fn a_bundle_survives_the_wire() {
    let accepted = judge(&[resource("core", MACROS), resource("shop/curl", &rule("curl", "spawned"))]);
    let bytes = accepted.bundle.to_bytes().expect("bytes");
    let hash = Bundle::hash(&bytes);
    assert_eq!(Bundle::read(&bytes, &hash).expect("a bundle"), accepted.bundle);
    assert!(Bundle::read(&bytes[1..], &hash).is_err());
}

#[test]
fn of_two_rules_with_one_name_the_older_resource_has_it() {
    let older = Candidate { created: 1, ..resource("z", &rule("r", "evt.type = execve")) };
    let newer = Candidate { created: 2, ..resource("a", &rule("r", "evt.type = open")) };
    let later = Candidate { created: 3, ..resource("b", &format!("{}order: 600\n", rule("r", "evt.type = execve"))) };
    let accepted = check(
        &[newer.clone(), older.clone(), later],
        expect![[r#"
            ClusterFalcoRule/a: Rejected(NameConflict), serving nothing
              error spec:1:1: the rule `r` is defined already by ClusterFalcoRule/z, which is older; give the rule another name, use `override`, or set another `spec.order`
            ClusterFalcoRule/b: Accepted, serving 1
            ClusterFalcoRule/z: Accepted, serving 1
        "#]],
    );
    assert_eq!(matches(&on_node(&accepted.bundle), "proc.name=x"), ["ClusterFalcoRule/b: r"]);
    // One that does not hold keeps no name.
    let broken = Candidate { spec: resource("z", &rule("r", "evt.type =")).spec, ..older };
    check(
        &[broken, newer],
        expect![[r#"
            ClusterFalcoRule/a: Accepted, serving 1
            ClusterFalcoRule/z: Rejected(CompileError), serving nothing
              error spec.rule.condition:1:10: expected a value: a number, a bare string, or a quoted string
        "#]],
    );
}

#[test]
fn what_others_defined_can_be_overridden_only_if_it_is_there() {
    check(
        &[
            resource("core", MACROS),
            resource(
                "tune",
                "rules: |\n  - rule: Shell\n    enabled: false\n    override: {enabled: replace}\n  - rule: Shel\n    enabled: false\n    override: {enabled: replace}\n",
            ),
        ],
        expect![[r#"
            ClusterFalcoRule/core: Accepted, serving 1
            ClusterFalcoRule/tune: Rejected(UnresolvedOverride), serving nothing
              error spec.rules:4:9: An 'override.<key>: replace' to a rule was requested but no rule by that name already exists; did you mean `Shell`?
        "#]],
    );
}

#[test]
fn tests_decide() {
    let tests = |count: u32, policy: &str| {
        format!(
            "{}testPolicy: {policy}\ntests:\n- name: curl fires\n  events: [{{evt.type: execve, proc.name: curl, k8s.ns.name: shop}}]\n  expect: [{{rule: curl, count: {count}}}]\n",
            rule("curl", "spawned and proc.name = curl")
        )
    };
    check(
        &[resource("core", MACROS), resource("shop/a", &tests(1, "Require")), resource("bank/a", &tests(1, "Require"))],
        expect![[r#"
            FalcoRule/bank/a: Rejected(TestsFailed), serving nothing
              error spec.tests[0]:1:1: test `curl fires`: want curl: 1; got curl: 0
            FalcoRule/shop/a: Accepted, serving 1
            ClusterFalcoRule/core: Accepted, serving 1
        "#]],
    );
    let accepted = judge(&[resource("core", MACROS), resource("bank/a", &tests(1, "Report"))]);
    let verdict = accepted.verdicts.values().next().expect("a verdict");
    assert_eq!((verdict.trial.passed, verdict.trial.failures.len(), verdict.serving_generation), (0, 1, Some(1)));
}

#[test]
fn quotas_refuse_what_came_last() {
    let many = |name: &str, created: i64| Candidate {
        created,
        ..resource(
            name,
            &format!(
                "items: [{}]",
                (0..150)
                    .map(|n| format!(
                        "{{name: {}-{n}, rule: {{condition: evt.type = open, output: o, priority: INFO}}}}",
                        name.replace('/', "-")
                    ))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        )
    };
    check(
        &[many("shop/a", 2), many("shop/b", 1), many("bank/a", 3)],
        expect![[r#"
            FalcoRule/bank/a: Accepted, serving 1
            FalcoRule/shop/a: Rejected(QuotaExceeded), serving nothing
              error spec:1:1: the namespace would have 300 rules; at most 200 are accepted; remove rules, or ask for a larger quota in the SensorConfig
            FalcoRule/shop/b: Accepted, serving 1
        "#]],
    );
}

#[test]
fn the_answer_does_not_depend_on_the_order_of_the_question() {
    let mut resources = vec![
        resource("core", MACROS),
        resource("tune", "disable: [Shell]\nrules: '[]'\n"),
        resource("z", &rule("same", "spawned")),
        Candidate { created: 5, ..resource("y", &rule("same", "spawned")) },
        resource("broken", &rule("x", "spawned and")),
        resource("shop/a", &rule("a", "spawned")),
        resource("shop/b", &rule("a", "spawned")),
        resource("bank/a", &rule("a", "no_macro")),
    ];
    let first = judge(&resources);
    for _ in 0..resources.len() {
        resources.rotate_left(3);
        resources.swap(0, 1);
        assert_eq!(judge(&resources), first);
    }
    // Nor does one that is broken change what becomes of the others.
    resources.retain(|candidate| &*candidate.id.name != "broken");
    let without = judge(&resources);
    assert_eq!(without.bundle, first.bundle);
    assert!(without.verdicts.iter().all(|(id, verdict)| first.verdicts.get(id) == Some(verdict)));
}

#[test]
fn suspended_resources_stay_as_they_are() {
    let good = judge(&[resource("core", MACROS)]);
    let paused = Candidate {
        generation: 2,
        ..resource("core", &format!("{}suspend: true\n", rule("other", "evt.type = open")))
    };
    let after = judge_after(std::slice::from_ref(&paused), &good.bundle);
    assert_eq!(after.bundle, good.bundle);
    assert!(judge(&[paused]).bundle.units.is_empty());
}

#[test]
fn a_rollout_leaves_other_nodes_as_they_are() {
    let old = resource("core", MACROS);
    let good = judge(std::slice::from_ref(&old));
    let new = Candidate { generation: 2, percent: Some(0), ..resource("core", &rule("other", "evt.type = execve")) };
    let staged = judge_after(std::slice::from_ref(&new), &good.bundle);
    assert_eq!(matches(&on_node(&staged.bundle), "proc.name=bash"), ["ClusterFalcoRule/core: Shell"]);
    assert_eq!(on_node(&staged.bundle).units[0].generation, 1);
    let further = judge_after(&[Candidate { percent: Some(100), ..new }], &staged.bundle);
    assert_eq!(matches(&on_node(&further.bundle), "proc.name=bash"), ["ClusterFalcoRule/core: other"]);
}

#[test]
fn units_that_a_node_does_not_run_still_lend_their_macros() {
    let elsewhere = resource("core", &format!("{MACROS}nodeSelector: {{matchLabels: {{pool: gpu}}}}\n"));
    let accepted = judge(&[elsewhere, resource("shop/curl", &rule("curl", "spawned"))]);
    let node = on_node(&accepted.bundle);
    assert_eq!(node.units[0].outcome, bundle::UnitOutcome::Skipped);
    assert_eq!(node.units[1].outcome, bundle::UnitOutcome::Loaded { rules: 1 });
    assert_eq!(matches(&node, "k8s.ns.name=shop proc.name=sh"), ["FalcoRule/shop/curl: curl"]);
}

#[test]
fn a_unit_of_a_newer_operator_is_left_out() {
    let accepted = judge(&[resource("core", MACROS), resource("shop/curl", &rule("curl", "evt.type = execve"))]);
    let text = String::from_utf8(accepted.bundle.to_bytes().expect("bytes")).expect("text");
    let newer = text.replacen("\"rules\":", "\"moonSelector\":{},\"rules\":", 1);
    let read = Bundle::read(newer.as_bytes(), &Bundle::hash(newer.as_bytes())).expect("a bundle");
    let node = on_node(&read);
    assert_eq!(node.units.len(), 2);
    assert!(
        matches!(&node.units[1].outcome, bundle::UnitOutcome::Failed(problems) if problems[0].message.contains("does not know"))
    );
    assert_eq!(matches(&node, "k8s.ns.name=shop"), ["FalcoRule/shop/curl: curl"]);
}

#[test]
fn who_changes_a_rule_and_whose_it_is_are_told_of_each_other() {
    let change = "order: 600\ndisable: [Shell]\nrules: |
  - rule: Other
    enabled: false
    override: {enabled: replace}
";
    let accepted = judge(&[
        resource("core", MACROS),
        resource("more", &rule("Other", "spawned")),
        resource("redefines", &format!("order: 550\n{}", rule("Other", "spawned and proc.name = a"))),
        resource("zz", change),
        resource("shop/curl", &rule("Shell", "spawned")),
    ]);
    let told: Vec<_> = accepted
        .verdicts
        .iter()
        .map(|(id, verdict)| {
            let pairs = |pairs: &[(String, String)]| {
                pairs.iter().map(|(rule, of)| format!("{rule}/{of}")).collect::<Vec<_>>().join(" ")
            };
            let of = &verdict.overrides;
            format!("{id} changes [{}], is changed [{}]", pairs(&of.overrides), pairs(&of.overridden_by))
        })
        .collect();
    expect![[r#"
        FalcoRule/shop/curl changes [], is changed []
        ClusterFalcoRule/core changes [], is changed [Shell/ClusterFalcoRule/zz]
        ClusterFalcoRule/more changes [], is changed [Other/ClusterFalcoRule/redefines]
        ClusterFalcoRule/redefines changes [Other/ClusterFalcoRule/more], is changed [Other/ClusterFalcoRule/zz]
        ClusterFalcoRule/zz changes [Other/ClusterFalcoRule/redefines Shell/ClusterFalcoRule/core], is changed []"#]]
    .assert_eq(&told.join("\n"));
}
