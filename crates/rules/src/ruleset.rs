//! Compiled rules: what the sensor asks for every event.
//!
//! A [`Ruleset`] never changes, so threads share it in an `Arc` and swap it for the next one between two events.
//! What changes while an event is matched is in the thread's own [`Evaluation`].

use std::sync::Arc;

use event::{
    catalogue::{EventSet, EventType},
    containers::Whereabouts,
    fields::{Arg, Field, Subject},
};
use hashbrown::HashMap;

pub use crate::filter::{Resolver, eval::Evaluation};
use crate::{
    alert::{Alert, Priority},
    filter::{
        eval::Run,
        index::Node,
        program::{Compiler, Program, Target},
        typed::{Leaf, LeafTest, Typed},
    },
    load::RuleMatching,
    output::Template,
    pushdown::{self, Clause, Clauses},
    scope::{Scope, namespace_of},
};

/// A rule as the matcher needs it.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) description: Box<str>,
    pub(crate) priority: Priority,
    pub(crate) source: Arc<str>,
    pub(crate) tags: Arc<[Box<str>]>,
    pub(crate) origin: Arc<str>,
    /// The namespace that wrote it; `None` for rules of the cluster.
    pub(crate) layer: Option<Box<str>>,
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) events: EventSet,
    pub(crate) condition: Arc<Typed>,
    pub(crate) output: Arc<Template>,
    /// Output fields beyond those of the message.
    pub(crate) extra: Arc<[(Arc<str>, Template)]>,
}

/// A compiled, immutable set of rules.
pub struct Ruleset {
    rules: Vec<Rule>,
    /// What is looked at for events of a type; types for which the same rules mean the same share it.
    plans: Vec<Plan>,
    /// Per event type, the plan of the cluster's rules.
    index: Box<[Option<PlanId>]>,
    /// The same for the rules of each namespace: those of others are never looked at.
    namespaces: HashMap<Box<str>, Box<[OfType]>, ahash::RandomState>,
    /// Different scopes of the rules.
    scopes: Vec<Arc<Scope>>,
    program: Program,
    matching: RuleMatching,
    hostname: Arc<str>,
}

/// Index of a [`Plan`].
type PlanId = u32;

/// A type with the plan for it; sorted by type.
type OfType = (EventType, PlanId);

/// The rules of one layer that can see events of a type.
struct Plan {
    /// In load order.
    candidates: Box<[Candidate]>,
    /// Leads to those that an event may match.
    node: Node,
}

/// A rule as it is for events of a type.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    rule: u32,
    /// Where its condition begins for the type.
    entry: Target,
    /// Index of its scope, or [`Candidate::EVERYWHERE`].
    scope: u32,
}

impl Candidate {
    const EVERYWHERE: u32 = u32::MAX;
}

impl std::fmt::Debug for Ruleset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ruleset").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

/// A rule of a ruleset.
#[derive(Clone, Copy)]
pub struct RuleRef<'r> {
    rule: &'r Rule,
    index: usize,
}

impl std::fmt::Debug for RuleRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.rule.name)
    }
}

impl<'r> RuleRef<'r> {
    /// Its index among the rules of its ruleset: the key of the caller's counters.
    pub fn index(self) -> usize {
        self.index
    }

    /// Its name.
    pub fn name(self) -> &'r str {
        &self.rule.name
    }

    /// What its author says about it (`desc`).
    pub fn description(self) -> &'r str {
        &self.rule.description
    }

    /// Its priority.
    pub fn priority(self) -> Priority {
        self.rule.priority
    }

    /// Sorted, without duplicates.
    pub fn tags(self) -> &'r [Box<str>] {
        &self.rule.tags
    }

    /// Its event source.
    pub fn source(self) -> &'r str {
        &self.rule.source
    }

    /// The file or resource that defined it.
    pub fn origin(self) -> &'r str {
        &self.rule.origin
    }

    /// The namespace that wrote it; `None` for rules of the cluster.
    pub fn namespace(self) -> Option<&'r str> {
        self.rule.layer.as_deref()
    }

    /// Where it looks; everywhere when there is none.
    pub fn scope(self) -> Option<&'r Scope> {
        self.rule.scope.as_deref()
    }

    /// Its condition, and the fields of its output.
    pub(crate) fn parts(self) -> (&'r Typed, Vec<(&'static Field, &'r Arg)>) {
        let extra = self.rule.extra.iter().flat_map(|(_, template)| template.fields());
        (&self.rule.condition, self.rule.output.fields().into_iter().chain(extra).collect())
    }

    /// The event types it can match.
    pub fn event_types(self) -> EventSet {
        self.rule.events
    }
}

impl Ruleset {
    pub(crate) fn new(
        rules: Vec<Rule>,
        resolver: Option<Arc<dyn Resolver>>,
        matching: RuleMatching,
        hostname: Arc<str>,
    ) -> Self {
        let mut compiler = Compiler::new(resolver);
        let mut scopes: Vec<Arc<Scope>> = Vec::new();
        let mut known: HashMap<Arc<Scope>, u32, ahash::RandomState> = HashMap::default();
        // Every rule, once for all types for which it comes down to the same.
        let mut variants: Vec<(Candidate, EventType)> = Vec::new();
        let mut layers: HashMap<Option<&str>, Vec<Vec<u32>>, ahash::RandomState> = HashMap::default();
        for (index, rule) in rules.iter().enumerate() {
            let scope = match &rule.scope {
                Some(scope) => *known.entry(scope.clone()).or_insert_with(|| {
                    scopes.push(scope.clone());
                    scopes.len() as u32 - 1
                }),
                None => Candidate::EVERYWHERE,
            };
            let layer = layers.entry(rule.layer.as_deref()).or_insert_with(|| vec![Vec::new(); EventType::COUNT]);
            for types in alike(&rule.condition, rule.events) {
                let Some(example) = types.first() else { continue };
                let entry = compiler.add(&rule.condition, *example);
                if entry != Target::REJECT {
                    let variant = variants.len() as u32;
                    variants.push((Candidate { rule: index as u32, entry, scope }, *example));
                    types.iter().for_each(|ty| layer[ty.index()].push(variant));
                }
            }
        }
        let mut plans = Vec::new();
        let mut planned: HashMap<Vec<u32>, PlanId, ahash::RandomState> = HashMap::default();
        let mut plan = |of_type: Vec<u32>| {
            if of_type.is_empty() {
                return None;
            }
            Some(*planned.entry(of_type).or_insert_with_key(|of_type| {
                let of_type = of_type.iter().map(|variant| variants[*variant as usize]);
                let candidates: Box<[_]> = of_type.clone().map(|(candidate, _)| candidate).collect();
                let condition = |rule: u32| &*rules[rule as usize].condition;
                let conditions = of_type.map(|(candidate, example)| (condition(candidate.rule), example));
                let node = Node::new(conditions, &mut compiler);
                plans.push(Plan { candidates, node });
                plans.len() as PlanId - 1
            }))
        };
        let of_cluster = layers.remove(&None).unwrap_or_else(|| vec![Vec::new(); EventType::COUNT]);
        let index = of_cluster.into_iter().map(&mut plan).collect();
        let mut namespaces = HashMap::default();
        for (name, layer) in layers {
            let of_types = EventType::all().zip(layer).filter_map(|(ty, of_type)| Some((ty, plan(of_type)?)));
            namespaces.insert(Box::from(name.unwrap_or_default()), of_types.collect());
        }
        let program = compiler.finish();
        Self { plans, index, namespaces, scopes, rules, program, matching, hostname }
    }

    /// The event types that some rule can match: what must be collected.
    pub fn event_types(&self) -> EventSet {
        self.rules.iter().fold(EventSet::EMPTY, |set, rule| set.union(rule.events))
    }

    /// What an event of this type must meet for any rule to match it: see [`pushdown`]. Scopes only narrow what
    /// conditions ask for and are left out.
    pub fn necessary(&self, event: EventType) -> Clauses {
        self.necessary_of(event, |_, _| true)
    }

    /// The same, of those clauses alone that are wanted of rules of their priority.
    pub fn necessary_of(&self, event: EventType, wanted: impl Fn(Priority, &Clause) -> bool) -> Clauses {
        let seeing = self.rules.iter().filter(|rule| rule.events.contains(event));
        pushdown::any(seeing.map(|rule| {
            let mut clauses = pushdown::necessary(&rule.condition, event);
            clauses.retain(|clause| wanted(rule.priority, clause));
            clauses
        }))
    }

    /// The fields that conditions and outputs use, some more than once.
    pub fn fields(&self) -> impl Iterator<Item = (&'static Field, &Arg)> {
        let templates = self
            .rules
            .iter()
            .flat_map(|rule| std::iter::once(&*rule.output).chain(rule.extra.iter().map(|(_, template)| template)));
        self.program.fields().chain(templates.flat_map(Template::fields))
    }

    /// The host names that conditions compare addresses with; to be resolved outside.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        self.program.host_names()
    }

    /// The enabled rules in load order.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = RuleRef<'_>> {
        self.rules.iter().enumerate().map(|(index, rule)| RuleRef { rule, index })
    }

    /// How many different comparisons all conditions are made of.
    pub fn comparisons(&self) -> usize {
        self.program.comparisons()
    }

    /// Calls `on_match` for the rules that match the event and whose scope admits it: of the rules of the cluster, and
    /// of those of the event's namespace, the first, or all of them in load order.
    pub fn matches<'a, 'r>(
        &'r self,
        subject: &impl Subject<'a>,
        scratch: &mut Evaluation,
        on_match: impl FnMut(RuleRef<'r>),
    ) {
        self.matches_watched(subject, scratch, on_match, |_| {});
    }

    /// As [`Ruleset::matches`]; `after` is called after the condition of a rule was evaluated, whatever the result, and
    /// before `on_match`. For measuring: this crate knows no clock.
    pub fn matches_watched<'a, 'r>(
        &'r self,
        subject: &impl Subject<'a>,
        scratch: &mut Evaluation,
        mut on_match: impl FnMut(RuleRef<'r>),
        mut after: impl FnMut(usize),
    ) {
        let ty = subject.event_type();
        let of_cluster = self.index.get(ty.index()).copied().flatten();
        let of_namespace = match self.namespaces.is_empty() {
            true => None,
            false => self.of_namespace(subject.whereabouts(), ty),
        };
        if of_cluster.is_none() && of_namespace.is_none() {
            return;
        }
        let mut run = Run::new(&self.program, subject, scratch, self.scopes.len());
        for plan in [of_cluster, of_namespace].into_iter().flatten() {
            let Plan { candidates, node } = &self.plans[plan as usize];
            let found = run.candidates(node);
            for candidate in &found {
                let candidate = &candidates[*candidate as usize];
                let scope = self.scopes.get(candidate.scope as usize);
                let admitted = scope.is_none_or(|scope| run.admits(candidate.scope, scope));
                let index = candidate.rule as usize;
                let matched = admitted && run.holds(candidate.entry);
                after(index);
                if matched {
                    on_match(RuleRef { rule: &self.rules[index], index });
                    if self.matching == RuleMatching::First {
                        break;
                    }
                }
            }
            run.done(found);
        }
    }

    /// The plan of the rules of the namespace where something happened.
    fn of_namespace(&self, place: Whereabouts<'_>, ty: EventType) -> Option<PlanId> {
        let of_types = self.namespaces.get(namespace_of(place)?)?;
        let at = of_types.binary_search_by_key(&ty, |(ty, _)| *ty).ok()?;
        of_types.get(at).map(|(_, plan)| *plan)
    }

    /// The alert for a rule that matched the event.
    pub fn alert<'a>(&self, rule: RuleRef<'_>, subject: &impl Subject<'a>) -> Alert {
        let rule = rule.rule;
        let mut output_fields = Vec::new();
        rule.output.values(subject, &mut output_fields);
        for (key, template) in &*rule.extra {
            output_fields.push((key.clone(), template.single_value(subject)));
        }
        output_fields.push(("evt.time".into(), subject.time_ns().into()));
        output_fields.sort_by(|a, b| a.0.cmp(&b.0));
        output_fields.dedup_by(|a, b| a.0 == b.0);
        Alert {
            hostname: self.hostname.clone(),
            time_ns: subject.time_ns(),
            rule: rule.name.clone(),
            priority: rule.priority,
            source: rule.source.clone(),
            tags: rule.tags.clone(),
            message: rule.output.render(subject).into(),
            output_fields,
        }
    }
}

/// The types of a set in groups within which all comparisons of the type that the condition makes come out the same.
fn alike(condition: &Typed, events: EventSet) -> Vec<Vec<EventType>> {
    let mut sets = Vec::new();
    type_sets(condition, &mut sets);
    let mut groups: Vec<(Vec<bool>, Vec<EventType>)> = Vec::new();
    for ty in events.iter() {
        let signature: Vec<_> = sets.iter().map(|set| set.contains(ty)).collect();
        match groups.iter_mut().find(|(known, _)| *known == signature) {
            Some((_, types)) => types.push(ty),
            None => groups.push((signature, vec![ty])),
        }
    }
    groups.into_iter().map(|(_, types)| types).collect()
}

fn type_sets<'c>(condition: &'c Typed, sets: &mut Vec<&'c EventSet>) {
    match condition {
        Typed::And(parts) | Typed::Or(parts) => parts.iter().for_each(|part| type_sets(part, sets)),
        Typed::Not(inner) => type_sets(inner, sets),
        Typed::Leaf(Leaf { test: LeafTest::EventType(set), .. }) => {
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        Typed::Leaf(_) => {}
    }
}
