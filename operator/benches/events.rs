//! How many alerts per second the decision about Events takes in: the part that every alert passes.
//!
//! ```text
//! cargo bench -p gyrfalcon-operator --bench events
//! ```

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use operator::events::{
    aggregate::{Aggregator, Identity, Outcome, Settings},
    hit::{Hit, Node, Now, Rule, RuleEvents, Subject},
};
use rules::alert::Priority;

/// Alerts of one measurement.
const ALERTS: u32 = 500_000;

/// Ten rules that match in a number of pods on each of a number of nodes, in turn.
fn alerts(nodes: usize, pods: usize) -> Vec<Hit> {
    let rule = |i: usize| Rule {
        kind: api::Kind::ClusterFalcoRule,
        namespace: "".into(),
        resource: "core".into(),
        uid: "7c1f6a52-3f0e-4b1e-9a52-0c9a1f1d2b3c".into(),
        name: format!("Rule number {i}").into(),
        events: RuleEvents::default(),
    };
    let rules: Vec<Arc<Rule>> = (0..10).map(|i| Arc::new(rule(i))).collect();
    let tags: Arc<[Box<str>]> = Arc::from([Box::from("container")]);
    let mut alerts = Vec::new();
    for node in 0..nodes {
        let node = Arc::new(Node { name: format!("node-{node}").into(), uid: "".into() });
        for (pod, rule) in (0..pods).flat_map(|pod| rules.iter().map(move |rule| (pod, rule))) {
            alerts.push(Hit {
                rule: Arc::clone(rule),
                priority: Priority::Warning,
                subject: Subject::Pod {
                    namespace: format!("team-{}", pod % 7).into(),
                    name: format!("{}-pod-{pod}", node.name).into(),
                    uid: format!("0b1c2d3e-{pod}-{}", node.name).into(),
                    container: "app".into(),
                },
                node: Arc::clone(&node),
                time_ns: 1_700_000_000_000_000_000,
                output: "A shell was spawned in a container with an attached terminal (user=root cmdline=sh)".into(),
                tags: Arc::clone(&tags),
                bundle: "sha256:0123456789ab".into(),
            });
        }
    }
    alerts
}

fn measure(name: &str, alerts: &[Hit]) {
    let at = |since_start: Duration| Now { since_start, unix_ns: 1_700_000_000_000_000_000 };
    let identity = Identity { namespace: "gyrfalcon".into(), instance: "bench".into() };
    let mut aggregator = Aggregator::new(Settings::default(), identity, at(Duration::ZERO));
    let mut taken = Duration::ZERO;
    for (i, alert) in (0..ALERTS).zip(alerts.iter().cycle()) {
        // Ten thousand alerts are a second. The alert is made outside: that is its sender's part.
        let (now, alert) = (at(Duration::from_micros(100) * i), alert.clone());
        let start = Instant::now();
        aggregator.hit(black_box(alert), now);
        if i % 100 == 0 {
            while let Some(write) = aggregator.next(now) {
                aggregator.done(black_box(write).id, Outcome::Written, now);
            }
        }
        taken += start.elapsed();
    }
    let totals = aggregator.totals();
    println!(
        "{name}: {:.0} alerts/s ({} represented, {} suppressed, {} KiB)",
        f64::from(ALERTS) / taken.as_secs_f64(),
        totals.represented,
        totals.suppressed,
        totals.bytes >> 10,
    );
}

fn main() {
    measure("one pod, ten rules", &alerts(1, 1));
    measure("1000 nodes, 100 pods each, ten rules", &alerts(1000, 100));
}
