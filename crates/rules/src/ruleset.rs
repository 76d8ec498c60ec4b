//! Compiled rules: what the sensor asks for every event.
//!
//! A [`Ruleset`] never changes, so threads share it in an `Arc` and swap it for the next one between two events.
//! What changes while an event is matched is in the thread's own [`Evaluation`].

use std::sync::Arc;

use event::{
    catalogue::{EventSet, EventType},
    fields::{Arg, Field, Subject},
};

pub use crate::filter::{Resolver, eval::Evaluation};
use crate::{
    alert::{Alert, Priority},
    filter::{
        eval::Run,
        program::{Program, Target},
        typed::Typed,
    },
    load::RuleMatching,
    output::Template,
    pushdown::{self, Clauses},
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
    pub(crate) events: EventSet,
    pub(crate) entry: Target,
    pub(crate) condition: Typed,
    pub(crate) output: Template,
    /// Output fields beyond those of the message.
    pub(crate) extra: Vec<(Arc<str>, Template)>,
}

/// A compiled, immutable set of rules.
pub struct Ruleset {
    rules: Vec<Rule>,
    /// Per event type, the rules that can see it, in load order, and where their conditions begin for it.
    index: Vec<Box<[(u32, Target)]>>,
    program: Program,
    matching: RuleMatching,
    hostname: Arc<str>,
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

    /// The event types it can match.
    pub fn event_types(self) -> EventSet {
        self.rule.events
    }
}

impl Ruleset {
    pub(crate) fn new(rules: Vec<Rule>, program: Program, matching: RuleMatching, hostname: Arc<str>) -> Self {
        let of_type = |ty: EventType| {
            let seeing = rules.iter().enumerate().filter(|(_, rule)| rule.events.contains(ty));
            let entry = |(index, rule): (usize, &Rule)| (index as u32, program.entry_for(rule.entry, ty));
            seeing.map(entry).filter(|(_, entry)| *entry != Target::REJECT).collect()
        };
        let index = EventType::all().map(of_type).collect();
        Self { rules, index, program, matching, hostname }
    }

    /// The event types that some rule can match: what must be collected.
    pub fn event_types(&self) -> EventSet {
        self.rules.iter().fold(EventSet::EMPTY, |set, rule| set.union(rule.events))
    }

    /// What an event of this type must meet for any rule to match it: see [`pushdown`].
    pub fn necessary(&self, event: EventType) -> Clauses {
        let seeing = self.rules.iter().filter(|rule| rule.events.contains(event));
        pushdown::any(seeing.map(|rule| pushdown::necessary(&rule.condition, event)))
    }

    /// The fields that conditions and outputs use, some more than once.
    pub fn fields(&self) -> impl Iterator<Item = (&'static Field, &Arg)> {
        let templates = self
            .rules
            .iter()
            .flat_map(|rule| std::iter::once(&rule.output).chain(rule.extra.iter().map(|(_, template)| template)));
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

    /// Calls `on_match` for the rules that match the event: the first, or all of them in load order.
    pub fn matches<'a, 'r>(
        &'r self,
        subject: &impl Subject<'a>,
        scratch: &mut Evaluation,
        mut on_match: impl FnMut(RuleRef<'r>),
    ) {
        let candidates = &self.index[subject.event_type().index()];
        if candidates.is_empty() {
            return;
        }
        let mut run = Run::new(&self.program, subject, scratch);
        for &(index, entry) in candidates {
            if run.holds(entry) {
                let rule = &self.rules[index as usize];
                on_match(RuleRef { rule, index: index as usize });
                if self.matching == RuleMatching::First {
                    return;
                }
            }
        }
    }

    /// The alert for a rule that matched the event.
    pub fn alert<'a>(&self, rule: RuleRef<'_>, subject: &impl Subject<'a>) -> Alert {
        let rule = rule.rule;
        let mut output_fields = Vec::new();
        rule.output.values(subject, &mut output_fields);
        for (key, template) in &rule.extra {
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
