//! A bundle → the rules that one node runs.

use std::collections::BTreeMap;

use api::{
    ResourceId,
    condition::Reason,
    rule::{FalcoRuleSpec, Mode, RuleEvents, Throttle},
};
use rules::{diagnostic::Code, load::Options, ruleset::Ruleset};

use crate::{Assembly, Bundle, Limits, NodeFacts, Problem, Unit};

/// What one node runs.
#[derive(Debug)]
pub struct Compiled {
    /// The rules.
    pub ruleset: Ruleset,
    /// What became of each unit of the bundle, in its order; then the unreadable ones.
    pub units: Vec<UnitState>,
    /// For each rule, by [`rules::ruleset::RuleRef::index`], the index of its unit.
    pub of_rule: Vec<usize>,
}

/// What became of a unit on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitState {
    /// What it is of; `None` when that cannot be read.
    pub id: Option<ResourceId>,
    /// Uid of the resource: the key of counters.
    pub uid: String,
    /// The generation that runs here, or should.
    pub generation: i64,
    /// What a match does.
    pub mode: Mode,
    /// How many alerts are sent in how much time.
    pub throttle: Option<Throttle>,
    /// Kubernetes Events about its alerts.
    pub events: Option<RuleEvents>,
    /// What became of it.
    pub outcome: UnitOutcome,
    /// It has rules of a source that is judged elsewhere.
    pub elsewhere: bool,
}

/// What became of a unit on a node.
#[derive(Debug, Clone, PartialEq)]
pub enum UnitOutcome {
    /// It runs, with so many rules.
    Loaded {
        /// Rules that are not left out.
        rules: usize,
    },
    /// It is not for this node, or all its rules are of a source that is judged elsewhere.
    Skipped,
    /// It does not load here; the others run without it.
    Failed(Vec<Problem>),
}

/// Makes of a bundle what a node runs. Which units those are is decided here, by the labels of the node and the
/// percentages of rollouts. `options` gives the hostname, the event sources and the resolver; the bundle's settings
/// give the rest.
pub fn compile(bundle: &Bundle, node: &NodeFacts, options: &Options) -> Compiled {
    let limits = Limits::default();
    let mut assembly = Assembly::new(bundle.settings.options(options));
    let mut units = Vec::new();
    for (number, unit) in bundle.units.iter().enumerate() {
        let (spec, generation) = on_node(unit, node);
        let mut state = UnitState {
            id: Some(unit.id()),
            uid: unit.uid.clone(),
            generation,
            mode: spec.map_or(Mode::Alert, FalcoRuleSpec::mode),
            throttle: spec.and_then(|spec| spec.throttle.clone()),
            events: spec.and_then(|spec| spec.events.clone()),
            outcome: UnitOutcome::Skipped,
            elsewhere: false,
        };
        if let Some(spec) = spec {
            let active = node.is_selected(spec.node_selector.as_ref());
            let work = limits.work(unit.kind);
            let mut problems = assembly.add(number, &unit.id(), spec, active, work);
            state.elsewhere = problems.iter().any(|problem| problem.code == Code::UnknownSource.name());
            problems.retain(|problem| problem.error);
            state.outcome = match (active, problems.is_empty()) {
                (true, true) => UnitOutcome::Loaded { rules: 0 },
                (false, true) => UnitOutcome::Skipped,
                (_, false) => UnitOutcome::Failed(problems),
            };
        }
        units.push(state);
    }
    for unreadable in &bundle.unreadable {
        let help = "update the sensor to the version of the operator";
        let problem = Problem::of_field("unreadable", Reason::UnknownField, "spec", unreadable.message.clone(), help);
        units.push(UnitState {
            id: unreadable.id.clone(),
            uid: unreadable.uid.clone(),
            generation: unreadable.generation,
            mode: Mode::Alert,
            throttle: None,
            events: None,
            outcome: UnitOutcome::Failed(vec![problem]),
            elsewhere: false,
        });
    }
    let ruleset = assembly.ruleset();
    let of_rule: Vec<usize> =
        ruleset.rules().map(|rule| assembly.resource_of(rule.origin()).unwrap_or(usize::MAX)).collect();
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    of_rule.iter().for_each(|unit| *counts.entry(*unit).or_default() += 1);
    for (number, state) in units.iter_mut().enumerate() {
        if let UnitOutcome::Loaded { rules } = &mut state.outcome {
            *rules = counts.get(&number).copied().unwrap_or_default();
            if *rules == 0 && state.elsewhere {
                state.outcome = UnitOutcome::Skipped;
            }
        }
    }
    Compiled { ruleset, units, of_rule }
}

/// The spec that a node runs of a unit, and its generation.
fn on_node<'u>(unit: &'u Unit, node: &NodeFacts) -> (Option<&'u FalcoRuleSpec>, i64) {
    match &unit.rollout {
        Some(staged) if !node.is_within(staged.percent, &unit.uid) => {
            (staged.previous.as_deref(), staged.previous_generation.unwrap_or(unit.generation))
        }
        Some(_) | None => (Some(&unit.spec), unit.generation),
    }
}
