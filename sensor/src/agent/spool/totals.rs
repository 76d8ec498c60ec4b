//! How often each rule matched, since the spool began.

use std::collections::{BTreeMap, HashMap};

use link::proto;

/// Most resources that are counted; beyond, those that have not matched for the longest time are forgotten.
const UNITS: usize = 8192;

/// Most rules of a resource that are counted by name; beyond, the same.
const RULES: usize = 4096;

/// Counts of all resources that ever had a hit.
#[derive(Debug, Default)]
pub struct Totals {
    units: HashMap<Box<str>, Unit>,
    version: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Unit {
    hits: u64,
    suppressed: u64,
    last_ns: u64,
    rules: BTreeMap<Box<str>, Rule>,
    /// Version of the totals when it last changed.
    changed: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rule {
    hits: u64,
    last_ns: u64,
}

impl Totals {
    /// Counts hits of a rule, and how many of them made no alert because that is wanted.
    pub fn hit(&mut self, unit: &str, rule: &str, hits: u64, suppressed: u64, time_ns: u64) {
        self.version += 1;
        if !self.units.contains_key(unit) {
            forget(&mut self.units, UNITS, |unit| unit.last_ns);
            self.units.insert(unit.into(), Unit::default());
        }
        let Some(unit) = self.units.get_mut(unit) else { return };
        unit.changed = self.version;
        unit.hits = unit.hits.saturating_add(hits);
        unit.suppressed = unit.suppressed.saturating_add(suppressed);
        unit.last_ns = unit.last_ns.max(time_ns);
        if !unit.rules.contains_key(rule) {
            if unit.rules.len() >= RULES
                && let Some(oldest) =
                    unit.rules.iter().min_by_key(|(_, rule)| rule.last_ns).map(|(name, _)| name.clone())
            {
                unit.rules.remove(&oldest);
            }
            unit.rules.insert(rule.into(), Rule::default());
        }
        if let Some(rule) = unit.rules.get_mut(rule) {
            rule.hits = rule.hits.saturating_add(hits);
            rule.last_ns = rule.last_ns.max(time_ns);
        }
    }

    /// What changed after a version (0: everything), and the version that this is.
    pub fn since(&self, version: u64) -> (Vec<proto::UnitCounts>, u64) {
        let mut units: Vec<_> = self
            .units
            .iter()
            .filter(|(_, unit)| unit.changed > version || version == 0)
            .map(|(uid, unit)| unit.counts(uid))
            .collect();
        units.sort_by(|a, b| a.uid.cmp(&b.uid));
        (units, self.version)
    }

    /// The same counts as another, taking over only what changed there since they were the same.
    pub fn follow(&mut self, other: &Self) {
        for (uid, unit) in other.units.iter().filter(|(_, unit)| unit.changed > self.version) {
            self.units.insert(uid.clone(), unit.clone());
        }
        if self.units.len() > other.units.len() {
            self.units.retain(|uid, _| other.units.contains_key(uid));
        }
        self.version = other.version;
    }

    /// From what was stored.
    pub fn from_counts(counts: Vec<proto::UnitCounts>) -> Self {
        let unit = |counts: proto::UnitCounts| {
            let rule = |rule: proto::RuleCounts| (rule.rule.into(), Rule { hits: rule.hits, last_ns: rule.last_ns });
            let unit = Unit {
                hits: counts.hits,
                suppressed: counts.suppressed,
                last_ns: counts.last_ns,
                rules: counts.rules.into_iter().map(rule).collect(),
                changed: 1,
            };
            (counts.uid.into(), unit)
        };
        Self { units: counts.into_iter().map(unit).collect(), version: 1 }
    }
}

/// Makes room for one more.
fn forget(units: &mut HashMap<Box<str>, Unit>, most: usize, age: impl Fn(&Unit) -> u64) {
    if units.len() < most {
        return;
    }
    if let Some(oldest) = units.iter().min_by_key(|(_, unit)| age(unit)).map(|(uid, _)| uid.clone()) {
        units.remove(&oldest);
    }
}

impl Unit {
    fn counts(&self, uid: &str) -> proto::UnitCounts {
        let rules = self.rules.iter().map(|(name, rule)| proto::RuleCounts {
            rule: name.to_string(),
            hits: rule.hits,
            last_ns: rule.last_ns,
        });
        proto::UnitCounts {
            uid: uid.to_owned(),
            hits: self.hits,
            suppressed: self.suppressed,
            last_ns: self.last_ns,
            rules: rules.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(units: &[proto::UnitCounts]) -> Vec<(&str, u64, u64)> {
        units.iter().map(|unit| (unit.uid.as_str(), unit.hits, unit.suppressed)).collect()
    }

    #[test]
    fn what_changed_is_told_once() {
        let mut totals = Totals::default();
        totals.hit("a", "one", 1, 0, 5);
        totals.hit("b", "two", 3, 2, 6);
        let (all, version) = totals.since(0);
        assert_eq!(sums(&all), [("a", 1, 0), ("b", 3, 2)]);
        totals.hit("a", "one", 1, 0, 4);
        let (changed, _) = totals.since(version);
        assert_eq!(sums(&changed), [("a", 2, 0)]);
        assert_eq!(changed[0].last_ns, 5, "time does not go back");
    }

    #[test]
    fn a_follower_has_the_same_counts() {
        let (mut totals, mut follower) = (Totals::default(), Totals::default());
        for round in 0..5 {
            totals.hit(&format!("unit {}", round % 3), "rule", 1, 0, round);
            follower.follow(&totals);
            assert_eq!(follower.since(0), totals.since(0));
        }
        let stored = Totals::from_counts(totals.since(0).0);
        assert_eq!(stored.since(0).0, totals.since(0).0);
    }
}
