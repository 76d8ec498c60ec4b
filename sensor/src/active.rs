//! Rules that run: the compiled set, and what the sensor keeps about each rule and each resource.
//!
//! Counts are atomics because the event loop counts while other threads read. Nothing here waits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use abi::{control::want, syscalls::SYSCALLS};
use event::{
    catalogue::{Category, EventSet, EventType},
    fields::{EventSource, Subject},
};
use rules::{
    load::{Loader, Options},
    ruleset::Ruleset,
};

use crate::{
    driver::{self, Filters, Rows},
    pushdown,
    throttle::Throttle,
};

/// Compiled rules with what the sensor keeps about each.
pub struct Active {
    /// The rules.
    pub ruleset: Ruleset,
    /// By [`rules::ruleset::RuleRef::index`].
    rules: Vec<RuleState>,
    units: Vec<Unit>,
    bundle: Box<str>,
}

/// A resource that rules came from.
pub struct Unit {
    /// Its uid; empty outside of a cluster.
    pub uid: Box<str>,
    /// Matches are counted only.
    pub shadow: bool,
    /// How many alerts are sent.
    pub throttle: Option<Throttle>,
}

#[derive(Default)]
struct RuleState {
    unit: Option<usize>,
    hits: AtomicU64,
    suppressed: AtomicU64,
    untaken: AtomicU64,
    last_ns: AtomicU64,
    samples: AtomicU64,
    sampled_ns: AtomicU64,
}

/// Hits that have no alert in the spool, since they were last taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Silent {
    /// Shadow mode or throttle.
    pub suppressed: u64,
    /// There was no room for the alert.
    pub untaken: u64,
    /// Time of the last of them, Unix time in nanoseconds.
    pub last_ns: u64,
}

impl Active {
    /// A ruleset; `of_rule` gives the index of each rule's resource.
    pub fn new(ruleset: Ruleset, units: Vec<Unit>, of_rule: impl Fn(usize) -> Option<usize>) -> Self {
        let state = |rule| RuleState { unit: of_rule(rule), ..RuleState::default() };
        let rules = (0..ruleset.rules().len()).map(state).collect();
        Self { ruleset, rules, units, bundle: "".into() }
    }

    /// The same, from the bundle with this hash.
    pub fn of_bundle(self, hash: &str) -> Self {
        Self { bundle: hash.into(), ..self }
    }

    /// Hash of the bundle that the rules came in; empty when they came otherwise.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// No rules at all: what the sensor judges by before it is ready.
    pub fn none(options: &Options) -> Result<Self, &'static str> {
        let ruleset = Loader::new(options.clone()).finish().ruleset.ok_or("the empty ruleset does not load")?;
        Ok(Self::new(ruleset, Vec::new(), |_| None))
    }

    /// Counts a match; whether it is to be an alert.
    pub fn count<'a>(&self, index: usize, subject: &impl Subject<'a>) -> bool {
        let Some(rule) = self.rules.get(index) else { return false };
        rule.hits.fetch_add(1, Relaxed);
        let Some(unit) = self.unit(index) else { return true };
        let alert = !unit.shadow && unit.throttle.as_ref().is_none_or(|throttle| throttle.passes(index, subject));
        if !alert {
            rule.last_ns.fetch_max(subject.time_ns(), Relaxed);
            rule.suppressed.fetch_add(1, Relaxed);
        }
        alert
    }

    /// Counts an alert that found no room.
    pub fn count_untaken(&self, index: usize, time_ns: u64) {
        if let Some(rule) = self.rules.get(index) {
            rule.last_ns.fetch_max(time_ns, Relaxed);
            rule.untaken.fetch_add(1, Relaxed);
        }
    }

    /// Takes the hits of each rule that have no alert: they are counted elsewhere from now on.
    pub fn take_silent(&self) -> impl Iterator<Item = (usize, Silent)> {
        self.rules.iter().enumerate().filter_map(|(index, rule)| {
            let (suppressed, untaken) = (rule.suppressed.swap(0, Relaxed), rule.untaken.swap(0, Relaxed));
            let silent = Silent { suppressed, untaken, last_ns: rule.last_ns.load(Relaxed) };
            (suppressed + untaken > 0).then_some((index, silent))
        })
    }

    /// The resource of a rule.
    pub fn unit(&self, rule: usize) -> Option<&Unit> {
        self.units.get(self.rules.get(rule)?.unit?)
    }

    /// Matches so far, by rule.
    pub fn hits(&self) -> impl Iterator<Item = (&str, u64)> {
        self.ruleset.rules().zip(&self.rules).map(|(rule, state)| (rule.name(), state.hits.load(Relaxed)))
    }

    /// Notes how long a rule's condition took in a sampled event.
    pub fn sample(&self, index: usize, took_ns: u64) {
        if let Some(rule) = self.rules.get(index) {
            rule.samples.fetch_add(1, Relaxed);
            rule.sampled_ns.fetch_add(took_ns, Relaxed);
        }
    }

    /// By rule: matches, samples, and nanoseconds that the samples took together.
    pub fn measured(&self) -> impl Iterator<Item = (&str, (u64, u64, u64))> {
        let read =
            |state: &RuleState| (state.hits.load(Relaxed), state.samples.load(Relaxed), state.sampled_ns.load(Relaxed));
        self.ruleset.rules().zip(&self.rules).map(move |(rule, state)| (rule.name(), read(state)))
    }

    /// The system calls that must be traced. A rule for every event type asks for what Falco would give it: all calls
    /// with parameters of their own but those that read and write.
    pub fn rows(&self) -> Rows {
        let mut types = EventSet::EMPTY;
        for rule in self.ruleset.rules() {
            let named = rule.event_types();
            types = types.union(if is_every_type(&named) { named.intersection(ordinary()) } else { named });
        }
        Rows::of(|name| EventType::by_name(name).is_some_and(|ty| types.contains(ty)))
    }

    /// What the kernel can drop before it is collected.
    pub fn filters(&self) -> Filters {
        pushdown::filters(&self.ruleset)
    }

    /// What records must carry beyond their parameters: bits of [`want`].
    pub fn wants(&self) -> u32 {
        let throttles = self.units.iter().filter_map(|unit| unit.throttle.as_ref()).flat_map(Throttle::fields);
        self.ruleset.fields().map(|(field, _)| field).chain(throttles).fold(0, |wants, field| {
            wants
                | match field.name {
                    "proc.cwd" => want::CWD,
                    "proc.env" | "proc.aenv" => want::ENV,
                    "proc.stdin.type" | "proc.stdin.name" | "proc.stdout.type" | "proc.stdout.name"
                    | "proc.stderr.type" | "proc.stderr.name" => want::STANDARD,
                    "fd.types" => want::KINDS,
                    _ => 0,
                }
        })
    }

    /// Rules that no event of this sensor can match: index, name, and the event types that they wait for.
    pub fn waiting(&self) -> Vec<(usize, &str, Vec<&'static str>)> {
        let collected = collected().union(EventSource::K8sAudit.event_types());
        self.ruleset
            .rules()
            .filter(|rule| rule.event_types().intersection(collected).is_empty())
            .map(|rule| (rule.index(), rule.name(), rule.event_types().iter().map(EventType::name).collect()))
            .collect()
    }

    /// Rules that see only some of the event types that they name, and those that they miss.
    pub fn partial(&self) -> Vec<(&str, Vec<&'static str>)> {
        let collected = collected();
        self.ruleset
            .rules()
            .filter_map(|rule| {
                let missing = rule.event_types().intersection(collected.complement());
                let some = !rule.event_types().intersection(collected).is_empty();
                let every = is_every_type(&rule.event_types());
                (some && !every && !missing.is_empty())
                    .then(|| (rule.name(), missing.iter().map(EventType::name).collect()))
            })
            .collect()
    }
}

/// Whether a rule asks for whatever there is.
fn is_every_type(types: &EventSet) -> bool {
    types.len() > EventType::COUNT / 2
}

/// The event types that a rule for every type is given.
fn ordinary() -> EventSet {
    let is_io = |ty: &EventType| matches!(ty.info().category, Category::IoRead | Category::IoWrite);
    SYSCALLS.iter().filter_map(|row| EventType::by_name(row.name)).filter(|ty| !is_io(ty)).collect()
}

/// The event types that this sensor delivers.
pub fn collected() -> EventSet {
    let fixed = ["execve", "procexit"].into_iter();
    fixed.chain(driver::names()).filter_map(EventType::by_name).collect()
}
