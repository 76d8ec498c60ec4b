//! Simulations: time passes as fast as the test runs, and an API server that is a map of Events.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::events::{
    hit::{Rule, RuleEvents},
    object::{
        COUNT,
        tests::{hit, pod},
        validation::objections,
    },
    redact::Redactor,
};

const SECOND: Duration = Duration::from_secs(1);

fn rule(name: &str) -> Arc<Rule> {
    let mut rule = crate::events::object::tests::rule(name);
    if let Some(rule) = Arc::get_mut(&mut rule) {
        rule.events = RuleEvents { redactor: Redactor::nothing(), ..RuleEvents::default() };
    }
    rule
}

fn at(since_start: Duration) -> Now {
    let unix_ns = 1_700_000_000_000_000_000 + u64::try_from(since_start.as_nanos()).expect("a short test");
    Now { since_start, unix_ns }
}

/// The aggregator with an API server that answers at once.
struct Simulation {
    aggregator: Aggregator,
    now: Duration,
    /// Count of each Event by its name.
    events: BTreeMap<String, u64>,
    /// Time and kind of every write.
    writes: Vec<(Duration, &'static str)>,
}

impl Simulation {
    fn new() -> Self {
        let identity = Identity { namespace: "gyrfalcon".into(), instance: "test".into() };
        Self {
            aggregator: Aggregator::new(Settings::default(), identity, at(Duration::ZERO)),
            now: Duration::ZERO,
            events: BTreeMap::new(),
            writes: Vec::new(),
        }
    }

    fn hit(&mut self, hit: Hit) {
        self.aggregator.hit(hit, at(self.now));
    }

    fn next(&mut self) -> Option<Write> {
        self.aggregator.next(at(self.now))
    }

    /// Sends what is to be sent.
    fn write(&mut self) {
        while let Some(write) = self.next() {
            self.succeed(write);
        }
    }

    fn succeed(&mut self, write: Write) {
        let name = format!("{}/{}", write.namespace, write.name);
        let (kind, annotations) = match &write.action {
            Action::Create(event) => {
                assert_eq!(objections(event), Vec::<String>::new());
                let suppressed = event.reason.as_deref() == Some("AlertsSuppressed");
                let annotations = event.metadata.annotations.clone().unwrap_or_default();
                (if suppressed { "announce" } else { "create" }, serde_json::json!(annotations))
            }
            Action::Patch(patch) => ("patch", patch["metadata"]["annotations"].clone()),
        };
        let count: u64 = annotations[COUNT].as_str().and_then(|count| count.parse().ok()).expect("a count");
        let mut outcome = Outcome::Written;
        if kind != "announce" {
            // As the writer does: what an earlier series counted in the same Event is added.
            let base = self.events.get(&name).copied().filter(|_| kind == "create");
            if let Some(base) = base {
                outcome = Outcome::Adopted { base };
            }
            self.events.insert(name, count + base.unwrap_or(0));
        }
        self.writes.push((self.now, kind));
        self.aggregator.done(write.id, outcome, at(self.now));
    }

    /// Lets time pass, in steps, with writes.
    fn pass(&mut self, time: Duration, step: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += step;
            self.write();
        }
    }

    #[track_caller]
    fn check_balance(&self) {
        let totals = self.aggregator.totals();
        assert_eq!(totals.injected, totals.represented + totals.suppressed + totals.unwanted, "{totals:?}");
        let sum: u64 = Cause::ALL.into_iter().map(|cause| self.aggregator.suppressed(cause)).sum();
        assert_eq!(sum, totals.suppressed);
    }

    fn kinds(&self, kind: &str) -> usize {
        self.writes.iter().filter(|(_, of)| *of == kind).count()
    }

    fn counted(&self) -> u64 {
        self.events.values().sum()
    }
}

#[test]
fn one_rule_in_one_pod_is_one_event_and_few_changes() {
    let mut simulation = Simulation::new();
    let alert = hit(&rule("r"), pod("shop", "web"), "node", "output");
    for _ in 0..6000 {
        for _ in 0..100 {
            simulation.hit(alert.clone());
        }
        simulation.write();
        simulation.now += Duration::from_millis(10);
    }
    simulation.pass(900 * SECOND, SECOND);
    assert_eq!(simulation.kinds("create"), 1);
    assert!(simulation.kinds("patch") <= 4, "{:?}", simulation.writes);
    assert_eq!(simulation.events.into_values().collect::<Vec<_>>(), [600_000]);
    assert_eq!(simulation.aggregator.totals().series, 0);
}

#[test]
fn a_large_cluster_stays_within_the_budget() {
    // Fewer alerts per second than in the field, as this is not optimised; the budget does not know the difference.
    const RATE: u64 = 500;
    let mut simulation = Simulation::new();
    let rules: Vec<Arc<Rule>> = (0..10).map(|i| rule(&format!("rule {i}"))).collect();
    let nodes: Vec<Arc<Node>> =
        (0..1000).map(|i| Arc::new(Node { name: format!("node-{i}").into(), uid: "".into() })).collect();
    let mut random = 1_u64;
    for _ in 0..600 {
        for _ in 0..RATE {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = |bits: u32, of: u64| usize::try_from((random >> bits) % of).expect("it is small");
            // Every other alert comes from a hundred busy pods.
            let (of_nodes, of_pods) = if random & 1 << 40 == 0 { (20, 5) } else { (1000, 100) };
            let node = &nodes[pick(33, of_nodes)];
            let name = format!("pod-{}-{}", node.name, pick(43, of_pods));
            let mut alert = hit(&rules[pick(23, 10)], pod(&format!("ns-{}", pick(43, 20)), &name), "", "output");
            alert.node = Arc::clone(node);
            simulation.hit(alert);
        }
        simulation.write();
        simulation.now += SECOND;
        assert!(simulation.aggregator.totals().bytes < 64 << 20);
    }
    simulation.check_balance();
    for (i, (start, _)) in simulation.writes.iter().enumerate().step_by(50) {
        for seconds in [1_u32, 10, 60, 300] {
            let end = *start + seconds * SECOND;
            let count = simulation.writes[i..].iter().take_while(|(time, _)| *time < end).count();
            let allowed = 200 + 25 * usize::try_from(seconds).expect("small");
            assert!(count <= allowed, "{count} writes in {seconds} s from {start:?}");
        }
    }
    let totals = simulation.aggregator.totals();
    assert!(totals.suppressed > 0 && totals.announced > 0, "{totals:?}");
    let kinds = [simulation.kinds("create"), simulation.kinds("patch")];
    assert!(kinds.into_iter().all(|count| count > 100), "neither new nor old Events starve: {kinds:?}");
    assert!(!simulation.aggregator.storms(at(simulation.now)).is_empty());

    simulation.pass(Duration::from_secs(3600), SECOND);
    let totals = simulation.aggregator.totals();
    assert_eq!(simulation.counted(), totals.represented, "what is represented is in an Event in the end");
    assert_eq!(totals.announced, totals.suppressed, "what is suppressed is announced in the end");
    assert_eq!(totals.injected, 600 * RATE);
    assert!(simulation.aggregator.storms(at(simulation.now)).is_empty());
    assert_eq!((totals.series, totals.bytes), (0, 0));
}

#[test]
fn a_first_alert_is_planned_at_once() {
    let mut simulation = Simulation::new();
    for i in 0..20 {
        simulation.hit(hit(&rule("r"), pod("shop", &format!("web-{i}")), "node", "output"));
        assert!(simulation.next().is_some());
    }
}

#[test]
fn what_is_urgent_comes_first_and_has_a_reserve() {
    let mut simulation = Simulation::new();
    for i in 0..30 {
        simulation.hit(hit(&rule("r"), pod("shop", &format!("web-{i}")), "node", "output"));
    }
    let mut urgent = hit(&rule("u"), pod("shop", "db"), "node", "output");
    urgent.priority = Priority::Critical;
    simulation.hit(urgent);
    let first = simulation.next().expect("something to write");
    assert!(first.name.starts_with("db."), "{}", first.name);
    assert_eq!(simulation.aggregator.suppressed(Cause::NodeBudget), 10);
    simulation.check_balance();
}

#[test]
fn many_pods_of_one_rule_become_one_event() {
    let mut simulation = Simulation::new();
    let everywhere = rule("r");
    for i in 0..200 {
        simulation.now += 3 * SECOND;
        simulation.hit(hit(&everywhere, pod("shop", &format!("web-{i}")), "node", "output"));
        simulation.write();
    }
    simulation.pass(900 * SECOND, SECOND);
    let of_namespace = simulation.events.iter().filter(|(name, _)| name.starts_with("default/shop."));
    assert_eq!(of_namespace.map(|(_, count)| *count).collect::<Vec<_>>(), [150]);
    assert_eq!(simulation.events.len(), 51);
    assert_eq!(simulation.aggregator.totals().collapsed, 150);
}

#[test]
fn a_rule_of_a_namespace_collapses_within_it() {
    let mut simulation = Simulation::new();
    let mut tenant = rule("r");
    let own = Arc::get_mut(&mut tenant).expect("nobody else has it");
    (own.kind, own.namespace, own.resource) = (api::Kind::FalcoRule, "shop".into(), "no-curl".into());
    for i in 0..60 {
        simulation.now += 3 * SECOND;
        simulation.hit(hit(&tenant, pod("shop", &format!("web-{i}")), "node", "output"));
        simulation.write();
    }
    assert!(simulation.events.keys().any(|name| name.starts_with("shop/no-curl.")));
}

#[test]
fn unwanted_alerts_are_no_events() {
    let mut simulation = Simulation::new();
    let mut notice = hit(&rule("r"), pod("shop", "web"), "node", "output");
    notice.priority = Priority::Notice;
    simulation.hit(notice);
    assert!(simulation.next().is_none());
    assert_eq!(simulation.aggregator.totals().unwanted, 1);
}

#[test]
fn suppressed_alerts_are_announced_once_with_their_rules() {
    let mut simulation = Simulation::new();
    for i in 0..40 {
        simulation.hit(hit(&rule(&format!("rule {}", i % 3)), pod("shop", &format!("web-{i}")), "node", "output"));
    }
    let mut announcements = Vec::new();
    for _ in 0..120 {
        simulation.now += 5 * SECOND;
        while let Some(write) = simulation.next() {
            if let Action::Create(event) = &write.action
                && event.reason.as_deref() == Some("AlertsSuppressed")
            {
                announcements.push(event.note.clone().unwrap_or_default());
            }
            simulation.succeed(write);
        }
    }
    expect_test::expect!["20 alerts have no Event of their own, because there were more than events.budgets allows: rule 0 ×7, rule 2 ×7, rule 1 ×6. The status of each rule counts them."].assert_eq(&announcements.join("\n"));
}

#[test]
fn the_event_of_a_predecessor_goes_on_counting() {
    let mut simulation = Simulation::new();
    let alert = hit(&rule("r"), pod("shop", "web"), "node", "output");
    simulation.hit(alert.clone());
    let write = simulation.next().expect("a create");
    simulation.aggregator.done(write.id, Outcome::Adopted { base: 41 }, at(simulation.now));
    simulation.hit(alert);
    simulation.pass(20 * SECOND, SECOND);
    assert_eq!(simulation.counted(), 43);
}

#[test]
fn an_event_that_has_expired_is_created_anew_with_its_count() {
    let mut simulation = Simulation::new();
    let alert = hit(&rule("r"), pod("shop", "web"), "node", "output");
    simulation.hit(alert.clone());
    simulation.write();
    simulation.hit(alert);
    simulation.now += 10 * SECOND;
    let patch = simulation.next().expect("a patch");
    assert!(matches!(patch.action, Action::Patch(_)));
    simulation.events.clear();
    simulation.aggregator.done(patch.id, Outcome::Gone, at(simulation.now));
    let create = simulation.next().expect("a create");
    assert!(matches!(create.action, Action::Create(_)));
    simulation.succeed(create);
    assert_eq!(simulation.counted(), 2);
}

#[test]
fn what_happened_in_a_namespace_that_ends_is_told_of_the_node() {
    let mut simulation = Simulation::new();
    for i in 0..3 {
        simulation.hit(hit(&rule("r"), pod("gone", &format!("web-{i}")), "node", "output"));
    }
    while let Some(write) = simulation.next() {
        match write.namespace.as_str() {
            "gone" => simulation.aggregator.done(write.id, Outcome::NamespaceGone, at(simulation.now)),
            _ => simulation.succeed(write),
        }
    }
    simulation.pass(400 * SECOND, SECOND);
    let events: Vec<(&str, u64)> =
        simulation.events.iter().map(|(name, count)| (name.split_at(13).0, *count)).collect();
    assert_eq!(events, [("default/node.", 3)]);
    simulation.check_balance();
}

#[test]
fn what_the_api_server_refuses_is_suppressed() {
    let mut simulation = Simulation::new();
    let alert = hit(&rule("r"), pod("shop", "web"), "node", "output");
    simulation.hit(alert.clone());
    let write = simulation.next().expect("a create");
    simulation.aggregator.done(write.id, Outcome::Refused, at(simulation.now));
    simulation.hit(alert.clone());
    assert_eq!(simulation.aggregator.suppressed(Cause::Refused), 2);
    simulation.pass(700 * SECOND, SECOND);
    simulation.hit(alert);
    assert!(matches!(simulation.next(), Some(Write { action: Action::Create(_), .. })), "it is tried again");
    simulation.check_balance();
}

#[test]
fn when_the_api_server_is_down_memory_is_bounded_and_nothing_is_sent_twice() {
    let mut simulation = Simulation::new();
    let long = "word ".repeat(2000);
    let mut attempts = 0;
    let mut failing = VecDeque::new();
    for second in 0..600_u64 {
        for i in 0..100_u64 {
            let name = format!("web-{second}-{i}");
            let node = format!("node-{}", (second * 100 + i) % 1000);
            let mut alert = hit(&rule(&format!("r{}", i % 50)), pod(&format!("ns{}", i % 40), &name), &node, &long);
            alert.priority = Priority::Critical;
            simulation.hit(alert);
        }
        // Eight requests at a time, each of which takes a second to fail.
        while failing.len() < 8
            && let Some(write) = simulation.next()
        {
            failing.push_back(write);
        }
        simulation.now += SECOND;
        for write in failing.drain(..) {
            attempts += 1;
            simulation.aggregator.done(write.id, Outcome::Failed { throttled: None }, at(simulation.now));
        }
        assert!(simulation.aggregator.totals().bytes < 48 << 20);
    }
    assert!(attempts < 400, "{attempts} requests to a server that is down");
    assert!(simulation.aggregator.suppressed(Cause::Memory) > 0);
    simulation.check_balance();
    simulation.pass(Duration::from_secs(7200), SECOND);
    let totals = simulation.aggregator.totals();
    assert_eq!(simulation.kinds("create"), simulation.events.len(), "no Event was created twice");
    assert_eq!(simulation.counted(), totals.represented);
    assert_eq!(totals.announced, totals.suppressed);
}

#[test]
fn the_api_server_is_left_alone_for_as_long_as_it_asks() {
    let mut simulation = Simulation::new();
    simulation.hit(hit(&rule("r"), pod("shop", "web"), "node", "output"));
    let write = simulation.next().expect("a create");
    simulation.aggregator.done(write.id, Outcome::Failed { throttled: Some(30 * SECOND) }, at(simulation.now));
    simulation.now += 29 * SECOND;
    assert!(simulation.next().is_none());
    simulation.hit(hit(&rule("r"), pod("shop", "db"), "node", "output"));
    assert_eq!(simulation.aggregator.suppressed(Cause::ClusterBudget), 1, "the bucket is empty until then");
    simulation.now += SECOND;
    assert!(simulation.next().is_some());
}

#[test]
fn one_event_that_always_fails_is_given_up() {
    let mut simulation = Simulation::new();
    simulation.hit(hit(&rule("r"), pod("poison", "web"), "node", "output"));
    for i in 0..40 {
        simulation.now += 40 * SECOND;
        simulation.hit(hit(&rule("r"), pod("shop", &format!("web-{i}")), &format!("n{i}"), "output"));
        for _ in 0..2 {
            match simulation.next() {
                Some(write) if write.namespace == "poison" => {
                    let failed = Outcome::Failed { throttled: None };
                    simulation.aggregator.done(write.id, failed, at(simulation.now));
                }
                Some(write) => simulation.succeed(write),
                None => {}
            }
            simulation.now += SECOND;
        }
    }
    assert_eq!(simulation.aggregator.suppressed(Cause::Refused), 1);
}

#[test]
fn a_node_has_no_more_series_than_its_bound() {
    let mut simulation = Simulation::new();
    let no_limit = crate::events::budget::Rate { per_second: 1e6, burst: 1_000_000 };
    let budgets = Budgets { controller: no_limit, namespace: no_limit, node: no_limit };
    simulation.aggregator = Aggregator::new(
        Settings { budgets, ..Settings::default() },
        Identity { namespace: "x".into(), instance: "i".into() },
        at(Duration::ZERO),
    );
    for i in 0..5000_usize {
        simulation.now += Duration::from_millis(1);
        simulation.hit(hit(&rule(&format!("r{}", i / 50)), pod("shop", &format!("web-{i}")), "node", "output"));
        simulation.write();
    }
    assert_eq!(simulation.aggregator.totals().series, MAX_SERIES_OF_NODE);
    assert_eq!(simulation.counted(), 5000, "a series that had to end was written");
}

#[test]
fn a_stop_writes_what_is_left() {
    let mut simulation = Simulation::new();
    let alert = hit(&rule("r"), pod("shop", "web"), "node", "output");
    for _ in 0..3 {
        simulation.hit(alert.clone());
        simulation.write();
    }
    simulation.aggregator.stop();
    simulation.hit(hit(&rule("r"), pod("shop", "late"), "node", "output"));
    simulation.write();
    assert_eq!(simulation.counted(), 3);
    assert_eq!(simulation.aggregator.suppressed(Cause::Stopped), 1);
    simulation.check_balance();
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Hits { rule: u8, pod: u8, node: u8, priority: usize, count: u8 },
    Pass { millis: u32 },
    Write { outcome: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u8, any::<u8>(), 0..4_u8, 0..8_usize, 1..20_u8)
            .prop_map(|(rule, pod, node, priority, count)| Step::Hits { rule, pod, node, priority, count }),
        1 => (0..400_000_u32).prop_map(|millis| Step::Pass { millis }),
        3 => any::<u8>().prop_map(|outcome| Step::Write { outcome }),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_alert_is_counted_exactly_once(steps in steps()) {
        let mut simulation = Simulation::new();
        let rules: Vec<Arc<Rule>> = (0..6).map(|i| rule(&format!("rule {i}"))).collect();
        let mut flying: VecDeque<Write> = VecDeque::new();
        for step in steps {
            match step {
                Step::Hits { rule, pod: name, node, priority, count } => {
                    let subject = pod(&format!("ns{}", name % 3), &format!("pod-{name}"));
                    let mut alert = hit(&rules[usize::from(rule)], subject, &format!("node-{node}"), "some output");
                    alert.priority = Priority::ALL[priority];
                    (0..count).for_each(|_| simulation.hit(alert.clone()));
                }
                Step::Pass { millis } => simulation.now += Duration::from_millis(u64::from(millis)),
                Step::Write { outcome } => {
                    flying.extend(simulation.next());
                    if flying.len() > 4 && let Some(write) = flying.pop_front() {
                        let failed = |throttled| Outcome::Failed { throttled };
                        let outcome = match outcome {
                            0..=20 => failed(None),
                            21..=30 => failed(Some(SECOND)),
                            31..=40 => Outcome::Refused,
                            41..=50 if write.namespace != "default" => Outcome::NamespaceGone,
                            51..=60 if matches!(write.action, Action::Patch(_)) => Outcome::Gone,
                            _ => { simulation.succeed(write); continue },
                        };
                        if outcome == Outcome::Gone {
                            simulation.events.remove(&format!("{}/{}", write.namespace, write.name));
                        }
                        simulation.aggregator.done(write.id, outcome, at(simulation.now));
                    }
                }
            }
            simulation.check_balance();
        }
        for write in flying {
            simulation.succeed(write);
        }
        simulation.pass(Duration::from_secs(7200), SECOND);
        let totals = simulation.aggregator.totals();
        prop_assert_eq!((totals.series, totals.bytes), (0, 0));
        simulation.check_balance();
    }
}
