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
