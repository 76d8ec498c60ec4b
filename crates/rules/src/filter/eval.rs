//! Runs a [`Program`] against one event.

use bumpalo::collections::Vec as ArenaVec;
use event::{fields::Subject, value::Value};

use super::{
    ast::Modifier,
    index::{Ask, Node},
    matcher::{self, Matcher},
    program::{LeafId, NodeTest, Program, Quantifier, Slot, Target, ValueNode},
    transform,
    typed::ValueExpr,
};
use crate::scope::Scope;

/// What is remembered while one event is matched; kept by each thread and used again for the next event, also of
/// another ruleset. Entries of earlier events are told apart by their generation, so nothing is cleared.
#[derive(Debug, Default)]
pub struct Evaluation {
    generation: u32,
    /// Per comparison: generation × 2 + result.
    leaves: Vec<u32>,
    /// Per value: generation, and index in [`Run::values`].
    slots: Vec<(u32, u32)>,
    /// Per scope: generation × 2 + result.
    scopes: Vec<u32>,
    /// The rules that the event may match.
    found: Vec<u32>,
}

impl Evaluation {
    /// Largest generation that fits beside a result.
    const LAST: u32 = u32::MAX >> 1;

    fn next_event(&mut self, program: &Program, scopes: usize) {
        if self.generation >= Self::LAST {
            *self = Self::default();
        }
        self.generation += 1;
        self.leaves.resize(self.leaves.len().max(program.leaves.len()), 0);
        self.slots.resize(self.slots.len().max(program.values.len()), (0, 0));
        self.scopes.resize(self.scopes.len().max(scopes), 0);
    }
}

/// Room for so many values is made at once.
const VALUES: usize = 16;

/// The evaluation of one event.
pub(crate) struct Run<'r, 'a, S> {
    program: &'r Program,
    subject: &'r S,
    scratch: &'r mut Evaluation,
    /// Values computed so far.
    values: ArenaVec<'a, Option<Value<'a>>>,
}

impl<'r, 'a, S: Subject<'a>> Run<'r, 'a, S> {
    /// `scopes`: how many different ones there are.
    pub(crate) fn new(program: &'r Program, subject: &'r S, scratch: &'r mut Evaluation, scopes: usize) -> Self {
        scratch.next_event(program, scopes);
        Self { program, subject, scratch, values: ArenaVec::with_capacity_in(VALUES, subject.arena()) }
    }

    /// The conditions of a node that the event may match, in order. Give the list back with [`Run::done`].
    pub(crate) fn candidates(&mut self, node: &Node) -> Vec<u32> {
        let mut found = std::mem::take(&mut self.scratch.found);
        found.clear();
        node.search(self, &mut found);
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    /// Keeps the memory of a list for the next event.
    pub(crate) fn done(&mut self, found: Vec<u32>) {
        self.scratch.found = found;
    }

    /// Whether the condition that begins at `entry` holds.
    pub(crate) fn holds(&mut self, entry: Target) -> bool {
        let mut target = entry;
        // Steps only lead on to steps that were laid out before them, so this ends.
        while let Some(&step) = self.program.steps.get(target.0 as usize) {
            target = if self.leaf(step.leaf) { step.yes } else { step.no };
        }
        target == Target::ACCEPT
    }

    /// Whether the scope of this number admits the event.
    pub(crate) fn admits(&mut self, number: u32, scope: &Scope) -> bool {
        let known = self.scratch.scopes[number as usize];
        if known >> 1 == self.scratch.generation {
            return known & 1 == 1;
        }
        let admits = scope.admits(self.subject.whereabouts());
        self.scratch.scopes[number as usize] = self.scratch.generation << 1 | u32::from(admits);
        admits
    }

    fn compare(&mut self, id: LeafId) -> bool {
        let leaf = &self.program.leaves[id as usize];
        // No value: every comparison is false, `!=` too.
        let Some(value) = self.value(leaf.left) else { return false };
        match &leaf.test {
            NodeTest::Exists => true,
            NodeTest::One(quantifier, matcher) => passes(*quantifier, matcher, value),
            NodeTest::Several(quantifier, modifier, matchers) => {
                let mut passed = matchers.iter().filter(|matcher| passes(*quantifier, matcher, value));
                match modifier {
                    Modifier::AnyOf => passed.next().is_some(),
                    Modifier::OneOf => passed.next().is_some() && passed.next().is_none(),
                    Modifier::AllOf => !matchers.is_empty() && passed.count() == matchers.len(),
                }
            }
            NodeTest::Value(op, right) => self.value(*right).is_some_and(|right| matcher::compare(*op, value, right)),
        }
    }

    fn compute(&mut self, slot: Slot) -> Option<Value<'a>> {
        let arena = self.subject.arena();
        match &self.program.values[slot as usize] {
            ValueNode::Field(field, arg) => self.subject.field(field, arg),
            ValueNode::Literal(bytes) => Some(Value::Text(arena.alloc_slice_copy(bytes))),
            ValueNode::List(items) => Some(Value::List(self.all(items)?)),
            ValueNode::Call { transformer, args, selector } => {
                let args = self.all(args)?;
                transform::apply(*transformer, args, selector.as_deref(), arena)
            }
        }
    }

    fn all(&mut self, slots: &[Slot]) -> Option<&'a [Value<'a>]> {
        let mut values = ArenaVec::with_capacity_in(slots.len(), self.subject.arena());
        for slot in slots {
            values.push(self.value(*slot)?);
        }
        Some(values.into_bump_slice())
    }
}

impl<'a, S: Subject<'a>> Ask<'a> for Run<'_, 'a, S> {
    fn leaf(&mut self, id: LeafId) -> bool {
        let known = self.scratch.leaves[id as usize];
        if known >> 1 == self.scratch.generation {
            return known & 1 == 1;
        }
        let result = self.compare(id);
        self.scratch.leaves[id as usize] = self.scratch.generation << 1 | u32::from(result);
        result
    }

    fn value(&mut self, slot: Slot) -> Option<Value<'a>> {
        let (generation, index) = self.scratch.slots[slot as usize];
        if generation == self.scratch.generation {
            return self.values[index as usize];
        }
        let value = self.compute(slot);
        self.scratch.slots[slot as usize] = (self.scratch.generation, self.values.len() as u32);
        self.values.push(value);
        value
    }
}

fn passes(quantifier: Quantifier, matcher: &Matcher, value: Value<'_>) -> bool {
    let Value::List(candidates) = value else { return matcher.test(value) };
    match quantifier {
        Quantifier::Any => candidates.iter().any(|candidate| matcher.test(*candidate)),
        Quantifier::Each => !candidates.is_empty() && candidates.iter().all(|candidate| matcher.test(*candidate)),
        Quantifier::All => candidates.iter().all(|candidate| matcher.test(*candidate)),
    }
}

/// Computes one value outside of a program: for outputs, which are rare.
pub(crate) fn value<'a>(expr: &ValueExpr, subject: &impl Subject<'a>) -> Option<Value<'a>> {
    let arena = subject.arena();
    let all = |exprs: &[ValueExpr]| {
        let mut values = ArenaVec::with_capacity_in(exprs.len(), arena);
        for expr in exprs {
            values.push(value(expr, subject)?);
        }
        let values: &'a [Value<'a>] = values.into_bump_slice();
        Some(values)
    };
    match expr {
        ValueExpr::Field(field, arg) => subject.field(field, arg),
        ValueExpr::Literal(bytes) => Some(Value::Text(arena.alloc_slice_copy(bytes))),
        ValueExpr::List(items) => all(items).map(Value::List),
        ValueExpr::Call { transformer, args, selector } => {
            transform::apply(*transformer, all(args)?, selector.as_deref(), arena)
        }
    }
}
