//! Many resources, and resources that are made to be slow. The bounds are for unoptimised code on a busy machine; what
//! they catch is work that grows with the square of something.

mod common;

use std::time::{Duration, Instant};

use bundle::{Candidate, Outcome};
use common::{judge, resource, rule};
use gyrfalcon_bundle as bundle;

#[track_caller]
fn within(limit: Duration, what: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    let took = start.elapsed();
    println!("{what}: {took:?}");
    assert!(took < limit, "{what} took {took:?}");
}

#[test]
fn five_hundred_resources_are_judged_soon() {
    let mut resources: Vec<Candidate> = (0..500)
        .map(|n| {
            let name = match n % 5 {
                0 => format!("cluster-{n}"),
                namespace => format!("ns-{}-{namespace}/r{n}", n % 100),
            };
            let text = format!(
                "rules: |\n  - list: names{n}\n    items: [a{n}, b{n}]\n  - macro: m{n}\n    condition: (evt.type = execve and proc.name in (names{n}))\n  - rule: r{n}\n    desc: d\n    condition: m{n} and proc.cmdline contains x{n}\n    output: '%proc.cmdline'\n    priority: INFO\n"
            );
            resource(&name, &text)
        })
        .collect();
    resources.extend((0..50).map(|n| resource(&format!("broken-{n}"), &rule("x", "proc.nmae = x"))));
    within(Duration::from_secs(20), "500 resources and 50 broken ones", || {
        let accepted = judge(&resources);
        assert_eq!(accepted.bundle.units.len(), 500);
    });
}

#[test]
fn resources_that_are_made_to_be_slow_are_refused_soon() {
    let rules = |condition: &dyn Fn(usize) -> String, count: usize| {
        (0..count)
            .map(|n| format!("  - {{rule: r{n}, desc: d, condition: '{}', output: o, priority: INFO}}\n", condition(n)))
            .collect::<String>()
    };
    let doubling: String =
        (1..18).map(|n| format!("  - macro: m{n}\n    condition: (m{0} or m{0})\n", n - 1)).collect();
    let lists: String = (1..18).map(|n| format!("  - list: l{n}\n    items: [l{0}, l{0}, l{0}]\n", n - 1)).collect();
    let wide = format!("evt.type = open{}", " or no.such = a".repeat(30_000));
    for (what, text) in [
        ("ten thousand rules", rules(&|n| format!("evt.type = open and fd.num = {n}"), 10_000)),
        ("a thousand regular expressions", rules(&|n| format!("proc.name regex \"[a-z]{{1,200}}{n}\""), 900)),
        (
            "macros that double",
            format!("  - macro: m0\n    condition: (evt.type = open)\n{doubling}{}", rules(&|_| "m17".into(), 500)),
        ),
        (
            "lists of lists",
            format!(
                "  - list: l0\n    items: [a]\n{lists}{}",
                rules(&|n| format!("proc.name in (l17) and no.{n} = 1"), 500)
            ),
        ),
        ("a thousand mistakes", rules(&|n| format!("no.such{n} = a"), 1000)),
        ("mistakes in one condition", rules(&|_| wide.clone(), 1)),
    ] {
        within(Duration::from_secs(30), what, || {
            let accepted = judge(&[
                resource("shop/slow", &format!("rules: |\n{text}")),
                resource("core", &rule("r", "evt.type = open")),
            ]);
            let verdicts: Vec<_> = accepted.verdicts.values().map(|verdict| verdict.outcome).collect();
            assert!(matches!(verdicts[0], Outcome::Rejected(_)), "{what}: {:?}", verdicts[0]);
            assert_eq!(verdicts[1], Outcome::Accepted);
        });
    }
}

#[test]
fn the_official_rulesets_are_judged_soon() {
    let Ok(folder) = std::env::var("GYRFALCON_FALCO_RULES") else {
        return eprintln!("ignored: GYRFALCON_FALCO_RULES is not set");
    };
    let mut resources = Vec::new();
    for (at, file) in
        ["falco_rules", "falco-incubating_rules", "falco-sandbox_rules", "k8s_audit_rules"].iter().enumerate()
    {
        let text = std::fs::read_to_string(format!("{folder}/{file}.yaml")).expect("a ruleset");
        let mut candidate = resource(&file.replace('_', "-"), &format!("order: {at}\n"));
        candidate.spec.rules = Some(text);
        resources.push(candidate);
    }
    within(Duration::from_secs(20), "the official rulesets", || {
        let accepted = judge(&resources);
        let outcomes: Vec<_> =
            accepted.verdicts.values().map(|verdict| (verdict.outcome, verdict.errors.first())).collect();
        assert!(outcomes.iter().all(|(outcome, _)| *outcome == Outcome::Accepted), "{outcomes:?}");
    });
}
