//! The thread that judges events: parses each once, asks the rules, hands alerts on.
//!
//! Like the event loop of the sensor it waits for nothing but work.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use event::{
    audit::{
        AuditError, AuditEvent, Level, Surroundings, Target,
        json::{Limits, ParseError},
    },
    containers::{ClusterChange, Labels},
    value::Arena,
};
use rules::{
    alert::Alert,
    audit::{Needs, needs},
    ruleset::Evaluation,
};
use tracing::warn;

use super::{
    metrics::{Counters, Loss},
    queue::{Batch, Work},
};
use crate::active::Active;

/// Memory of an event that is kept for the next; after a larger one it is given back.
const ARENA: usize = 8 << 20;

/// Kinds of requests whose blind rules are remembered.
const REMEMBERED: usize = 4096;

/// Namespaces whose labels are kept.
const NAMESPACES: usize = 100_000;

/// Least time between two warnings about the same rule.
const PATIENCE: Duration = Duration::from_secs(300);

/// Takes alerts, on the judge's thread: it must not wait.
pub trait Publish: Send {
    /// Takes one alert about what an event says.
    fn publish(&self, alert: Arc<Alert>, active: &Arc<Active>, rule: usize, event: &AuditEvent<'_>);
}

/// What a judge is started with.
pub struct Parts {
    /// What there is to do.
    pub work: Receiver<Work>,
    /// Where alerts go.
    pub publish: Box<dyn Publish>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What is known beside the events.
    pub surroundings: Surroundings,
    /// Bounds on one event.
    pub limits: Limits,
    /// The first rules.
    pub active: Arc<Active>,
}

/// Starts the thread.
pub fn start(parts: Parts) -> io::Result<thread::JoinHandle<()>> {
    let counters = Arc::clone(&parts.counters);
    counters.alive.store(true, Relaxed);
    thread::Builder::new().name("audit".to_owned()).spawn(move || {
        let _ended = Ended(counters);
        Judge::new(parts).run();
    })
}

/// Says that the thread has ended, however it did.
struct Ended(Arc<Counters>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.alive.store(false, Relaxed);
    }
}

struct Judge {
    parts: Parts,
    arena: Arena,
    evaluation: Evaluation,
    number: u64,
    namespaces: HashMap<Box<str>, Labels>,
    blind: Blind,
}

impl Judge {
    fn new(parts: Parts) -> Self {
        let blind = Blind::new(&parts.active);
        let mut judge = Self {
            parts,
            arena: Arena::new(),
            evaluation: Evaluation::default(),
            number: 0,
            namespaces: HashMap::new(),
            blind,
        };
        judge.count_rules();
        judge
    }

    fn count_rules(&mut self) {
        let rules = self.parts.active.ruleset.rules().len();
        self.parts.counters.rules.set(i64::try_from(rules).unwrap_or(i64::MAX));
    }

    fn run(mut self) {
        while let Ok(work) = self.parts.work.recv() {
            match work {
                Work::Batch(batch) => self.batch(&batch),
                Work::Rules(active, done) => {
                    self.blind = Blind::new(&active);
                    self.parts.active = active;
                    self.count_rules();
                    // Who waits for it may have given up.
                    let _ = done.send(());
                }
                Work::Cluster(change) => self.change(*change),
                Work::Reached(done) => drop(done.send(())),
                Work::Stop => return,
            }
        }
    }

    fn batch(&mut self, batch: &Batch) {
        for range in &batch.events {
            if let Some(text) = batch.text.get(range.clone()) {
                self.judge(text, batch.received_ns);
            }
        }
    }

    fn judge(&mut self, text: &[u8], received_ns: u64) {
        let Self { parts, arena, evaluation, number, namespaces, blind } = self;
        let Parts { publish, counters, surroundings, limits, active, .. } = parts;
        match AuditEvent::parse(text, *limits, *number + 1, surroundings, arena) {
            Ok(event) => {
                *number += 1;
                let mut event = event.or_at(received_ns);
                let target = event.target();
                event.namespace_labels = namespaces.get(target.namespace);
                if event.cut {
                    counters.lose(Loss::EventCut);
                }
                counters.events.inc();
                counters.bytes.inc_by(text.len() as u64);
                counters.last_ns.store(event.time().unwrap_or_default(), Relaxed);
                active.ruleset.matches(&event, evaluation, |rule| {
                    if active.count(rule.index(), &event) {
                        counters.alerts.inc();
                        publish.publish(Arc::new(active.ruleset.alert(rule, &event)), active, rule.index(), &event);
                    }
                });
                blind.look(&event, &target, counters);
            }
            Err(AuditError::Parse(ParseError::TooLarge { .. })) => counters.lose(Loss::EventTooLarge),
            Err(AuditError::Parse(ParseError::Syntax(_))) => counters.lose(Loss::EventMalformed),
            Err(AuditError::Other(_)) => counters.lose(Loss::NotAnEvent),
        }
        match arena.allocated_bytes() > ARENA {
            true => *arena = Arena::new(),
            false => arena.reset(),
        }
    }

    fn change(&mut self, change: ClusterChange) {
        if change.complete {
            self.namespaces.clear();
        }
        for namespace in change.namespaces {
            if self.namespaces.len() < NAMESPACES || self.namespaces.contains_key(&namespace.name) {
                self.namespaces.insert(namespace.name, namespace.labels);
            }
        }
        for gone in change.namespaces_gone {
            self.namespaces.remove(&gone);
        }
    }
}

/// Rules that cannot judge events of some kind of request, because the API server logs too little of it.
struct Blind {
    /// Rules whose conditions need more than metadata.
    rules: Vec<Rule>,
    /// Indices of the blind rules, by kind of request.
    known: HashMap<RequestKind, Box<[usize]>>,
}

/// Level; resource and part, verb, stage.
type RequestKind = (Option<Level>, Box<str>);

struct Rule {
    name: Box<str>,
    needs: Needs,
    warned: Option<Instant>,
}

impl Blind {
    fn new(active: &Active) -> Self {
        let rules = active.ruleset.rules().map(|rule| (rule.name(), needs(rule)));
        let rules = rules.filter(|(_, needs)| needs.condition > Level::Metadata);
        let rules = rules.map(|(name, mut needs)| {
            needs.clauses = needs.requests();
            Rule { name: name.into(), needs, warned: None }
        });
        Self { rules: rules.collect(), known: HashMap::new() }
    }

    fn look(&mut self, event: &AuditEvent<'_>, target: &Target<'_>, counters: &Counters) {
        let level = event.level();
        if self.rules.is_empty() || level == Some(Level::RequestResponse) {
            return;
        }
        let text = |name| event.root.get(name).and_then(event::audit::json::Node::text).unwrap_or_default();
        let (verb, stage) = (text("verb"), text("stage"));
        let key = (level, format!("{}/{} {verb} {stage}", target.resource, target.subresource).into_boxed_str());
        let blind = match self.known.get(&key) {
            Some(blind) => blind.clone(),
            None => {
                let sees = |rule: &Rule| level.is_some_and(|level| level >= rule.needs.condition);
                let asks = |rule: &Rule| {
                    let mut clauses = rule.needs.clauses.iter();
                    clauses.any(|clause| clause.admits(target.resource, target.subresource, verb, stage))
                };
                let blind = self.rules.iter().enumerate().filter(|(_, rule)| !sees(rule) && asks(rule));
                let blind: Box<[usize]> = blind.map(|(index, _)| index).collect();
                if self.known.len() >= REMEMBERED {
                    self.known.clear();
                }
                self.known.insert(key, blind.clone());
                blind
            }
        };
        for index in blind {
            let Some(rule) = self.rules.get_mut(index) else { continue };
            let events = counters.blind(&rule.name);
            if rule.warned.is_none_or(|at| at.elapsed() >= PATIENCE) {
                rule.warned = Some(Instant::now());
                let (level, needed) = (level.map_or("an unknown level", Level::name), rule.needs.condition.name());
                warn!(
                    rule = &*rule.name,
                    resource = target.resource,
                    verb,
                    level,
                    needed,
                    events,
                    "rule is blind: the API server logs too little of these requests; `gyrfalcon audit policy` prints the policy it needs"
                );
            }
        }
    }
}
