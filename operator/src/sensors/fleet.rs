//! What the sensors say: which bundle each runs, what became of each resource there, how often rules matched.
//!
//! Pure: messages and times come in, answers go out. Counts are kept so that nothing is counted twice: every sensor
//! says how often its rules matched since its spool began, and a sum over nodes needs no history. What a spool had
//! counted before it was replaced, or its node removed, is moved to `retired`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Weak},
};

use link::proto::{self, UnitState};

use crate::sensors::{FromNode, Said};

/// Seconds for which a sensor that is not connected is taken to do what it did: it may be starting anew.
const AWAY: u64 = 60;
/// Resources that one sensor can count for, and rules of them.
const COUNTED: (usize, usize) = (10_000, 20_000);

/// One sensor.
#[derive(Debug, Clone, Default)]
pub struct Sensor {
    /// The session by which it is connected.
    session: Option<u64>,
    /// What it last said about itself; none when it is known only from its SensorNode.
    pub hello: Option<Box<proto::Hello>>,
    /// Hash of the bundle that it runs.
    pub running: Box<str>,
    /// What became of the resources of that bundle.
    results: Arc<Results>,
    /// A bundle that it did not load, and why.
    pub refused: Option<(Box<str>, Box<str>)>,
    /// Time from the offer of a bundle to its acknowledgement is not known here; this is the compile time alone.
    pub compile_ms: u32,
    /// Which spool the counts belong to.
    pub spool: Box<str>,
    counts: HashMap<Box<str>, Count>,
    /// The same by resource and rule.
    rules: HashMap<Box<str>, HashMap<Box<str>, u64>>,
    /// How it does.
    pub report: proto::NodeReport,
    /// Alerts that its spool gave up.
    pub alerts_lost: u64,
    /// When it last said anything, Unix time in seconds.
    pub seen: i64,
    /// When its session began, Unix time in seconds.
    pub since: i64,
}

/// Matches of one resource on one node, since the spool began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All matches.
    pub hits: u64,
    /// Those that made no alert.
    pub suppressed: u64,
}

impl Sensor {
    /// Whether it is connected now.
    pub fn connected(&self) -> bool {
        self.session.is_some()
    }

    /// Matches by resource, since the spool began.
    pub fn counts(&self) -> impl Iterator<Item = (&str, Count)> {
        self.counts.iter().map(|(uid, count)| (&**uid, *count))
    }

    /// Matches of one resource, since the spool began.
    pub fn count(&self, uid: &str) -> Count {
        self.counts.get(uid).copied().unwrap_or_default()
    }

    fn result(&self, uid: &str) -> Option<&proto::UnitResult> {
        self.results.by_uid.get(uid).and_then(|at| self.results.units.get(*at))
    }
}

/// What became of the resources of a bundle.
#[derive(Debug, Default)]
struct Results {
    units: Vec<proto::UnitResult>,
    by_uid: HashMap<Box<str>, usize>,
}

impl Results {
    fn new(units: Vec<proto::UnitResult>) -> Self {
        let by_uid = units.iter().enumerate().map(|(at, unit)| (unit.uid.as_str().into(), at)).collect();
        Self { units, by_uid }
    }
}

/// Matches of one resource on all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Total {
    /// On the nodes that there are.
    pub hits: u64,
    /// Of them, those that made no alert.
    pub suppressed: u64,
    /// On nodes and in spools that are no more.
    pub retired: u64,
    /// Unix time in nanoseconds of the last one; 0 when there was none.
    pub last_ns: u64,
    /// By rule.
    pub rules: BTreeMap<Box<str>, RuleTotal>,
}

/// Matches of one rule on all nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleTotal {
    hits: u64,
    /// What an earlier operator had counted: never show less.
    floor: u64,
    /// Unix time in nanoseconds of the last match.
    pub last_ns: u64,
}

impl RuleTotal {
    /// Matches.
    pub fn hits(self) -> u64 {
        self.hits.max(self.floor)
    }
}

/// How far a resource has come on the nodes that should run it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Nodes that should run it.
    pub desired: u32,
    /// Nodes that run this generation of it.
    pub loaded: u32,
    /// Nodes that run another one, or have not said.
    pub stale: u32,
    /// Nodes that refused it.
    pub failed: u32,
    /// Nodes that a selector leaves out.
    pub skipped: u32,
    /// Why nodes do not run it: the reason and how many, with the first three of their names, most nodes first.
    pub failures: Vec<Failure>,
}

/// See [`Load::failures`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Whether the nodes refused it, or have not said.
    pub refused: bool,
    /// Why.
    pub message: Box<str>,
    /// How many nodes.
    pub nodes: u32,
    /// The first three of them.
    pub examples: Vec<Box<str>>,
}

/// All sensors.
#[derive(Debug, Default)]
pub struct Fleet {
    sensors: BTreeMap<Arc<str>, Sensor>,
    totals: HashMap<Box<str>, Total>,
    /// Most nodes say the same about a bundle: kept once, and forgotten with the last sensor that says it.
    interned: Vec<Weak<Results>>,
}

/// What a message changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Noted {
    /// Which nodes run what.
    pub load: bool,
    /// Counts of rules.
    pub hits: bool,
}

impl Fleet {
    /// Adds what was known about a node before this operator began to lead: from its SensorNode.
    pub fn restore(&mut self, node: &str, spool: &str, seen: i64, counts: impl Iterator<Item = (String, Count)>) {
        let node: Arc<str> = node.into();
        if self.sensors.contains_key(&node) {
            return;
        }
        let counts: HashMap<Box<str>, Count> = counts.map(|(uid, count)| (uid.into(), count)).collect();
        for (uid, count) in &counts {
            let total = self.totals.entry(uid.clone()).or_default();
            total.hits = total.hits.saturating_add(count.hits);
            total.suppressed = total.suppressed.saturating_add(count.suppressed);
        }
        self.sensors.insert(node, Sensor { spool: spool.into(), seen, counts, ..Sensor::default() });
    }

    /// Adds what was counted on nodes that are no more: from the status of a rule resource.
    pub fn restore_retired(&mut self, uid: &str, retired: u64, last_ns: u64) {
        let total = self.totals.entry(uid.into()).or_default();
        total.retired = total.retired.max(retired);
        total.last_ns = total.last_ns.max(last_ns);
    }

    /// Adds how often single rules matched: from the status of a rule resource. Kept as a lower bound.
    pub fn restore_rule(&mut self, uid: &str, rule: &str, hits: u64, last_ns: u64) {
        let kept = self.totals.entry(uid.into()).or_default().rules.entry(rule.into()).or_default();
        kept.floor = kept.floor.max(hits);
        kept.last_ns = kept.last_ns.max(last_ns);
    }

    /// Takes in what a session says; `now` is Unix time in seconds.
    pub fn hear(&mut self, message: FromNode, now: i64) -> Noted {
        let FromNode { node, session, said } = message;
        if let Said::Hello(hello) = said {
            return self.hello(node, session, hello, now);
        }
        let Some(sensor) = self.sensors.get_mut(&node) else { return Noted::default() };
        // A session that was replaced has nothing to say any more.
        if sensor.session != Some(session) {
            return Noted::default();
        }
        sensor.seen = now;
        match said {
            Said::Hello(_) => Noted::default(),
            Said::Ack(ack) => self.ack(&node, ack),
            Said::Counts(counts) => self.count(&node, counts),
            Said::Report(report) => {
                sensor.report = report;
                Noted::default()
            }
            Said::Lost(lost) => {
                sensor.alerts_lost = sensor.alerts_lost.max(lost);
                Noted::default()
            }
            Said::Gone => {
                sensor.session = None;
                Noted { load: true, hits: false }
            }
        }
    }

    fn hello(&mut self, node: Arc<str>, session: u64, hello: Box<proto::Hello>, now: i64) -> Noted {
        let sensor = self.sensors.entry(node).or_default();
        if *sensor.spool != *hello.spool {
            for (uid, count) in std::mem::take(&mut sensor.counts) {
                let total = self.totals.entry(uid).or_default();
                total.hits = total.hits.saturating_sub(count.hits);
                total.suppressed = total.suppressed.saturating_sub(count.suppressed);
                total.retired = total.retired.saturating_add(count.hits);
            }
            sensor.rules.clear();
            sensor.spool = hello.spool.as_str().into();
            sensor.alerts_lost = 0;
        }
        if *sensor.running != *hello.bundle {
            sensor.running = hello.bundle.as_str().into();
            sensor.results = Arc::default();
        }
        sensor.session = Some(session);
        sensor.seen = now;
        sensor.since = now;
        sensor.hello = Some(hello);
        Noted { load: true, hits: true }
    }

    fn ack(&mut self, node: &Arc<str>, ack: proto::BundleAck) -> Noted {
        let known = self.interned.iter().filter_map(Weak::upgrade).find(|results| results.units == ack.units);
        let results = known.unwrap_or_else(|| {
            self.interned.retain(|results| results.strong_count() > 0);
            let results = Arc::new(Results::new(ack.units));
            self.interned.push(Arc::downgrade(&results));
            results
        });
        let Some(sensor) = self.sensors.get_mut(node) else { return Noted::default() };
        if ack.loaded {
            sensor.running = ack.hash.into();
            sensor.results = results;
            sensor.refused = None;
            sensor.compile_ms = ack.compile_ms;
        } else {
            sensor.refused = Some((ack.hash.into(), ack.failure.into()));
        }
        Noted { load: true, hits: false }
    }

    fn count(&mut self, node: &Arc<str>, counts: proto::Counts) -> Noted {
        let Some(sensor) = self.sensors.get_mut(node) else { return Noted::default() };
        let mut noted = Noted::default();
        let mut rules: usize = sensor.rules.values().map(HashMap::len).sum();
        for unit in counts.units {
            // An honest sensor has fewer; what is beyond is believed by nobody.
            if sensor.counts.len() >= COUNTED.0 && !sensor.counts.contains_key(unit.uid.as_str()) {
                continue;
            }
            let total = self.totals.entry(unit.uid.as_str().into()).or_default();
            let by_rule = sensor.rules.entry(unit.uid.as_str().into()).or_default();
            let known = sensor.counts.entry(unit.uid.into()).or_default();
            let more = unit.hits.saturating_sub(known.hits);
            // A sensor's counts only grow; less is a message from before.
            known.hits += more;
            total.hits = total.hits.saturating_add(more);
            let suppressed = unit.suppressed.saturating_sub(known.suppressed);
            known.suppressed += suppressed;
            total.suppressed = total.suppressed.saturating_add(suppressed);
            total.last_ns = total.last_ns.max(unit.last_ns);
            noted.hits |= more > 0 || suppressed > 0;
            for rule in unit.rules {
                if !by_rule.contains_key(rule.rule.as_str()) {
                    if rules >= COUNTED.1 {
                        continue;
                    }
                    rules += 1;
                }
                let known = by_rule.entry(rule.rule.as_str().into()).or_default();
                let more = rule.hits.saturating_sub(*known);
                *known += more;
                let kept = total.rules.entry(rule.rule.into()).or_default();
                kept.hits = kept.hits.saturating_add(more);
                kept.last_ns = kept.last_ns.max(rule.last_ns);
            }
        }
        noted
    }

    /// Forgets a node that is no more; what it counted is retired.
    pub fn remove(&mut self, node: &str) {
        let Some(sensor) = self.sensors.remove(node) else { return };
        for (uid, count) in sensor.counts {
            let total = self.totals.entry(uid).or_default();
            total.hits = total.hits.saturating_sub(count.hits);
            total.suppressed = total.suppressed.saturating_sub(count.suppressed);
            total.retired = total.retired.saturating_add(count.hits);
        }
    }

    /// Forgets what resources counted that are no more.
    pub fn retain_units(&mut self, uids: &HashSet<&str>) {
        self.totals.retain(|uid, _| uids.contains(&**uid));
        for sensor in self.sensors.values_mut() {
            sensor.counts.retain(|uid, _| uids.contains(&**uid));
            sensor.rules.retain(|uid, _| uids.contains(&**uid));
        }
    }

    /// All sensors by node.
    pub fn sensors(&self) -> impl Iterator<Item = (&str, &Sensor)> {
        self.sensors.iter().map(|(node, sensor)| (&**node, sensor))
    }

    /// The sensor of a node.
    pub fn sensor(&self, node: &str) -> Option<&Sensor> {
        self.sensors.get(node)
    }

    /// How often the rules of a resource matched.
    pub fn total(&self, uid: &str) -> Option<&Total> {
        self.totals.get(uid)
    }

    /// How far a resource has come on the nodes that should run a sensor. Each should run one of these generations: in
    /// the middle of a rollout there are two.
    ///
    /// `nodes` are those with a sensor that should work. A node that runs the resource counts, whichever bundle it has it
    /// from: what else changed in the cluster does not matter to the resource. A sensor that has been away for a minute
    /// counts no more; `now` is Unix time in seconds.
    pub fn load(&self, uid: &str, generations: &[i64], nodes: &BTreeSet<Box<str>>, now: i64) -> Load {
        let mut load = Load::default();
        let mut failures: HashMap<(bool, String), Failure> = HashMap::new();
        let mut fail = |refused: bool, message: String, node: &str| {
            let text = message.as_str().into();
            let none = || Failure { refused, message: text, nodes: 0, examples: Vec::new() };
            let failure = failures.entry((refused, message)).or_insert_with(none);
            failure.nodes += 1;
            if failure.examples.len() < 3 {
                failure.examples.push(node.into());
            }
        };
        for node in nodes {
            let sensor = self.sensors.get(&**node);
            // Seen in the future: the clock was set back, and nobody knows for how long it has been away.
            let there = |sensor: &&Sensor| sensor.connected() || now.abs_diff(sensor.seen) <= AWAY;
            let result = sensor.filter(there).and_then(|sensor| sensor.result(uid));
            match result.map(|result| (result.state(), result)) {
                Some((UnitState::Skipped, _)) => {
                    load.skipped += 1;
                    continue;
                }
                Some((UnitState::Loaded, result)) if generations.contains(&result.generation) => {
                    load.loaded += 1;
                }
                Some((UnitState::Failed, result)) if generations.contains(&result.generation) => {
                    load.failed += 1;
                    fail(true, result.message.clone(), node);
                }
                _ => match sensor {
                    Some(Sensor { refused: Some((_, why)), session: Some(_), .. }) => {
                        load.failed += 1;
                        fail(true, format!("the bundle was refused: {why}"), node);
                    }
                    Some(Sensor { session: Some(_), .. }) => {
                        load.stale += 1;
                        fail(false, "the sensor has not acknowledged it yet".to_owned(), node);
                    }
                    Some(_) | None => {
                        load.stale += 1;
                        fail(false, "the sensor is not connected".to_owned(), node);
                    }
                },
            }
            load.desired += 1;
        }
        load.failures = failures.into_values().collect();
        load.failures.sort_by(|a, b| b.nodes.cmp(&a.nodes).then_with(|| a.message.cmp(&b.message)));
        load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn hear(fleet: &mut Fleet, node: &str, session: u64, said: Said) -> Noted {
        fleet.hear(FromNode { node: node.into(), session, said }, NOW)
    }

    fn hello(fleet: &mut Fleet, node: &str, session: u64, spool: &str) {
        let hello = proto::Hello { node: node.into(), spool: spool.into(), ..proto::Hello::default() };
        hear(fleet, node, session, Said::Hello(Box::new(hello)));
    }

    fn hits(fleet: &mut Fleet, node: &str, session: u64, hits: u64) -> Noted {
        let rules = vec![proto::RuleCounts { rule: "r".into(), hits, last_ns: hits }];
        let units = vec![proto::UnitCounts { uid: "u".into(), hits, rules, ..proto::UnitCounts::default() }];
        hear(fleet, node, session, Said::Counts(proto::Counts { units, complete: false }))
    }

    fn sum(fleet: &Fleet) -> (u64, u64, u64) {
        fleet
            .total("u")
            .map_or((0, 0, 0), |total| (total.hits, total.retired, total.rules.get("r").map_or(0, |rule| rule.hits())))
    }

    fn ack(fleet: &mut Fleet, node: &str, session: u64, state: UnitState, generation: i64) {
        let unit = proto::UnitResult {
            uid: "u".into(),
            generation,
            state: state.into(),
            message: "no such field".into(),
            ..proto::UnitResult::default()
        };
        let ack = proto::BundleAck { hash: "h".into(), loaded: true, units: vec![unit], ..proto::BundleAck::default() };
        hear(fleet, node, session, Said::Ack(ack));
    }

    fn nodes(names: &[&str]) -> BTreeSet<Box<str>> {
        names.iter().map(|name| Box::from(*name)).collect()
    }

    #[test]
    fn counts_are_sums_over_nodes() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "a", 1, "s1");
        hello(&mut fleet, "b", 2, "s2");
        hits(&mut fleet, "a", 1, 3);
        hits(&mut fleet, "b", 2, 4);
        assert_eq!(sum(&fleet), (7, 0, 7));
    }

    #[test]
    fn nothing_is_counted_twice_when_a_sensor_or_the_operator_starts_anew() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "a", 1, "s1");
        hits(&mut fleet, "a", 1, 3);
        hits(&mut fleet, "a", 1, 3);
        hello(&mut fleet, "a", 2, "s1");
        assert!(!hits(&mut fleet, "a", 2, 3).hits);
        assert_eq!(sum(&fleet), (3, 0, 3));

        let mut next = Fleet::default();
        next.restore("a", "s1", NOW, [("u".to_owned(), Count { hits: 2, suppressed: 0 })].into_iter());
        next.restore_rule("u", "r", 2, 2);
        assert_eq!(sum(&next), (2, 0, 2));
        hello(&mut next, "a", 1, "s1");
        hits(&mut next, "a", 1, 5);
        assert_eq!(sum(&next), (5, 0, 5));
    }

    #[test]
    fn what_a_lost_spool_or_a_removed_node_had_counted_stays() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "a", 1, "s1");
        hits(&mut fleet, "a", 1, 3);
        hello(&mut fleet, "a", 2, "s2");
        hits(&mut fleet, "a", 2, 1);
        assert_eq!(sum(&fleet), (1, 3, 4));
        fleet.remove("a");
        assert_eq!(sum(&fleet), (0, 4, 4));
    }

    #[test]
    fn a_session_that_was_replaced_is_not_heard() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "a", 1, "s1");
        hello(&mut fleet, "a", 2, "s1");
        hear(&mut fleet, "a", 1, Said::Gone);
        assert!(fleet.sensor("a").is_some_and(Sensor::connected));
        assert_eq!(hits(&mut fleet, "a", 1, 9), Noted::default());
    }

    #[test]
    fn a_load_tells_how_many_nodes_run_the_generation_and_why_others_do_not() {
        let mut fleet = Fleet::default();
        for (at, node) in ["a", "b", "c", "d"].iter().enumerate() {
            hello(&mut fleet, node, at as u64, node);
        }
        ack(&mut fleet, "a", 0, UnitState::Loaded, 2);
        ack(&mut fleet, "b", 1, UnitState::Loaded, 1);
        ack(&mut fleet, "c", 2, UnitState::Failed, 2);
        ack(&mut fleet, "d", 3, UnitState::Skipped, 2);
        let load = fleet.load("u", &[2], &nodes(&["a", "b", "c", "d", "e"]), NOW);
        assert_eq!((load.desired, load.loaded, load.stale, load.failed, load.skipped), (4, 1, 2, 1, 1));
        let failures: Vec<_> = load.failures.iter().map(|f| format!("{} {:?}", f.message, f.examples)).collect();
        assert_eq!(
            failures,
            [
                r#"no such field ["c"]"#,
                r#"the sensor has not acknowledged it yet ["b"]"#,
                r#"the sensor is not connected ["e"]"#
            ]
        );
    }

    #[test]
    fn a_sensor_that_stays_away_does_not_count() {
        let mut fleet = Fleet::default();
        hello(&mut fleet, "a", 1, "s");
        ack(&mut fleet, "a", 1, UnitState::Loaded, 1);
        hear(&mut fleet, "a", 1, Said::Gone);
        let load = |now| fleet.load("u", &[1], &nodes(&["a"]), now);
        assert_eq!((load(NOW + 60).loaded, load(NOW + 60).stale), (1, 0));
        assert_eq!((load(NOW + 61).loaded, load(NOW + 61).stale), (0, 1));
    }
}
