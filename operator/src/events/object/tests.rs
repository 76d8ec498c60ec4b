//! Tests of the objects: examples of their texts, and that the API server takes every one.

use std::sync::Arc;

use proptest::prelude::*;
use rules::alert::Priority;

use super::{validation::objections, *};
use crate::events::hit::RuleEvents;

pub(crate) fn rule(name: &str) -> Arc<Rule> {
    Arc::new(Rule {
        kind: api::Kind::ClusterFalcoRule,
        namespace: "".into(),
        resource: "core".into(),
        uid: "0b1c".into(),
        name: name.into(),
        events: RuleEvents::default(),
    })
}

pub(crate) fn hit(rule: &Arc<Rule>, subject: Subject, node: &str, output: &str) -> Hit {
    Hit {
        rule: Arc::clone(rule),
        priority: Priority::Warning,
        subject,
        node: Arc::new(Node { name: node.into(), uid: "n-uid".into() }),
        time_ns: 1_700_000_000_123_456_789,
        output: output.into(),
        tags: Arc::from([Box::from("mitre"), Box::from("T1059")]),
        bundle: "sha256:0123456789ab".into(),
    }
}

pub(crate) fn pod(namespace: &str, name: &str) -> Subject {
    let uid = format!("{name}-uid").into();
    Subject::Pod { namespace: namespace.into(), name: name.into(), uid, container: "app".into() }
}

fn event(hit: &Hit, count: u64) -> Event {
    let id = SeriesId::new(&hit.rule, hit.priority, &hit.subject);
    let output = Output::new(hit.output.clone());
    alert(&Shown { id, hit, output: &output, count, last_ns: hit.time_ns, writer: "w.1" }, "default")
}

#[test]
fn an_event_about_a_pod() {
    let hit = hit(&rule("Terminal shell in container"), pod("shop", "web-0"), "node-1", "Shell (token=abc cmd=sh)");
    let event = serde_json::to_value(event(&hit, 3)).expect("it is JSON");
    expect_test::expect![[r#"
        {
          "action": "Detected",
          "apiVersion": "events.k8s.io/v1",
          "eventTime": "2023-11-14T22:13:20.123456Z",
          "kind": "Event",
          "metadata": {
            "annotations": {
              "gyrfalcon.dev/bundle": "sha256:0123456789ab",
              "gyrfalcon.dev/count": "3",
              "gyrfalcon.dev/priority": "Warning",
              "gyrfalcon.dev/rule": "Terminal shell in container",
              "gyrfalcon.dev/rule-uid": "0b1c",
              "gyrfalcon.dev/tags": "mitre,T1059",
              "gyrfalcon.dev/writer": "w.1"
            },
            "name": "web-0.3dcf19e7cbe6a1ca",
            "namespace": "shop"
          },
          "note": "Shell (token=*** cmd=sh)",
          "reason": "TerminalShellInContainer",
          "regarding": {
            "apiVersion": "v1",
            "fieldPath": "spec.containers{app}",
            "kind": "Pod",
            "name": "web-0",
            "namespace": "shop",
            "uid": "web-0-uid"
          },
          "related": {
            "apiVersion": "gyrfalcon.dev/v1alpha1",
            "kind": "ClusterFalcoRule",
            "name": "core",
            "uid": "0b1c"
          },
          "reportingController": "gyrfalcon.dev/sensor",
          "reportingInstance": "node-1",
          "series": {
            "count": 3,
            "lastObservedTime": "2023-11-14T22:13:20.123456Z"
          },
          "type": "Warning"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&event).expect("it is JSON"));
}

#[test]
fn reasons_are_words_in_upper_camel_case() {
    for (name, want) in [
        ("Terminal shell in container", "TerminalShellInContainer"),
        ("Launch Suspicious Network Tool (nc/ncat)", "LaunchSuspiciousNetworkToolNcNcat"),
        ("2fa disabled", "Rule2faDisabled"),
        ("DB-read", "DBRead"),
    ] {
        assert_eq!(reason(name), want);
    }
    assert!(reason("规则").starts_with("Rule"));
    assert_ne!(reason("规则"), reason("规"));
    assert_eq!(reason(&"a ".repeat(500)).len(), MAX_WORD);
}

#[test]
fn a_note_says_how_much_is_missing() {
    let note = |text: String| Output::new(text.into()).show(&rule("r"));
    assert_eq!(note("x".repeat(1024)).len(), 1024);
    let cut = note("x".repeat(2000));
    assert!(cut.ends_with("x…(+1004 B)") && cut.len() <= 1024, "{cut}");
    let cut = note("🦀".repeat(300));
    assert!(cut.len() <= 1024 && cut.ends_with(" B)"), "{cut}");
    let words = note("word ".repeat(100_000));
    assert!(words.len() <= 1024 && words.ends_with("…(+499004 B)"), "{words}");
}

#[test]
fn the_name_follows_from_what_the_event_is_about() {
    let rule = rule("r");
    let first = event(&hit(&rule, pod("shop", "web-0"), "a", "one"), 1).metadata.name;
    assert_eq!(first, event(&hit(&rule, pod("shop", "web-0"), "b", "two"), 7).metadata.name);
    assert_ne!(first, event(&hit(&rule, pod("shop", "web-1"), "a", "one"), 1).metadata.name);
    let mut tomorrow = hit(&rule, pod("shop", "web-0"), "a", "one");
    tomorrow.time_ns += 86_400_000_000_000;
    assert_ne!(first, event(&tomorrow, 1).metadata.name);
}

#[test]
fn long_names_of_nodes_stay_different() {
    let (one, two) = (format!("{}1", "n".repeat(252)), format!("{}2", "n".repeat(252)));
    assert_ne!(instance(&one), instance(&two));
    assert_eq!(instance("node-1"), "node-1");
}

fn subjects() -> impl Strategy<Value = Subject> {
    let label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    let any = "\\PC{0,300}";
    prop_oneof![
        (label, any, any, any).prop_map(|(namespace, name, uid, container)| Subject::Pod {
            namespace: namespace.into(),
            name: name.into(),
            uid: uid.into(),
            container: container.into()
        }),
        ("[a-z.-]{0,253}", any)
            .prop_map(|(name, uid)| Subject::Node(Arc::new(Node { name: name.into(), uid: uid.into() }))),
        label.prop_map(|name| Subject::Namespace { name: name.into() }),
        any.prop_map(|name| Subject::Rule(rule(&name))),
        ("[a-z0-9-]{1,5}(\\.[a-z0-9-]{0,50}){0,5}", label).prop_map(|(name, namespace)| Subject::Object {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            namespace: namespace.into(),
            name: name.into(),
            uid: "".into()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_api_server_takes_every_alert(
        name in "\\PC{0,300}", subject in subjects(), node in "[a-z0-9.-]{0,253}|\u{1f980}{0,80}",
        output in "(\\PC|\u{1f980}){0,2000}", count in 1..u64::MAX, time_ns: u64,
        priority in prop::sample::select(&Priority::ALL), tags in prop::collection::vec("\\PC{0,400}", 0..5),
    ) {
        let mut hit = hit(&rule(&name), subject, &node, &output);
        (hit.priority, hit.time_ns, hit.tags) = (priority, time_ns, tags.into_iter().map(Box::from).collect());
        prop_assert_eq!(objections(&event(&hit, count)), Vec::<String>::new());
    }

    #[test]
    fn the_api_server_takes_every_announcement(
        node in prop::option::of("[a-z0-9.-]{0,253}"), operator in "[a-z0-9-]{0,63}", total in 1..u64::MAX,
        rules in prop::collection::vec(("\\PC{0,300}", any::<u64>()), 0..10), since_ns: u64,
    ) {
        let node = node.map(|name| Arc::new(Node { name: name.into(), uid: "".into() }));
        let rules: Vec<(Box<str>, u64)> = rules.into_iter().map(|(name, n)| (name.into(), n)).collect();
        let announced = Announced {
            node: node.as_ref(), operator: &operator, total, rules: &rules, since_ns, now_ns: since_ns, writer: "w.2",
        };
        prop_assert_eq!(objections(&announcement(&announced, "kube-system")), Vec::<String>::new());
    }
}
