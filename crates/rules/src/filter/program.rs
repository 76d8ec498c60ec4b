//! Typed trees → a program that all rules share.
//!
//! A value that several comparisons need is computed once per event, and a comparison that several rules contain is
//! made once per event: both are numbered, equal ones get the same number. What is left of a condition is a chain
//! of steps "make this comparison; go there if it holds, there if not", in which `and`, `or` and `not` are only
//! the choice of targets.

use std::sync::Arc;

use event::{
    catalogue::EventType,
    fields::{Arg, Field, Matching},
    value::ValueType,
};
use hashbrown::HashMap;

use super::{
    ast::{Modifier, Op, Transformer},
    matcher::{Matcher, Resolver},
    typed::{Const, Leaf, LeafTest, Rhs, Typed, ValueExpr},
};

/// Number of a value.
pub(super) type Slot = u32;
/// Number of a comparison.
pub(super) type LeafId = u32;

/// Where evaluation goes on: a step, or one of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target(pub(super) u32);

impl Target {
    /// The condition holds.
    pub const ACCEPT: Self = Self(u32::MAX);
    /// It doesn't.
    pub const REJECT: Self = Self(u32::MAX - 1);
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) leaf: LeafId,
    pub(super) yes: Target,
    pub(super) no: Target,
}

/// How a value is computed; arguments are numbers of other values.
pub(super) enum ValueNode {
    Field(&'static Field, Arg),
    Literal(Box<[u8]>),
    List(Box<[Slot]>),
    Call { transformer: Transformer, args: Box<[Slot]>, selector: Option<Box<[u8]>> },
}

/// How many candidates of a value must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    /// Any of at least one.
    Any,
    /// Each of at least one.
    Each,
    /// Each, if there are any: `in` on a list.
    All,
}

/// A comparison.
pub(super) struct LeafNode {
    pub(super) left: Slot,
    pub(super) test: NodeTest,
}

pub(super) enum NodeTest {
    Exists,
    /// With constants.
    One(Quantifier, Matcher),
    /// With several constants, under a modifier.
    Several(Quantifier, Modifier, Box<[Matcher]>),
    /// With another value.
    Value(Op, Slot),
}

/// The conditions of a ruleset.
#[derive(Default)]
pub struct Program {
    pub(super) values: Vec<ValueNode>,
    pub(super) leaves: Vec<LeafNode>,
    pub(super) steps: Vec<Step>,
    hosts: Vec<Box<str>>,
}

impl Program {
    /// The fields that conditions use.
    pub fn fields(&self) -> impl Iterator<Item = (&'static Field, &Arg)> {
        self.values.iter().filter_map(|value| match value {
            ValueNode::Field(field, arg) => Some((*field, arg)),
            ValueNode::Literal(_) | ValueNode::List(_) | ValueNode::Call { .. } => None,
        })
    }

    /// The host names that conditions compare addresses with.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|name| &**name)
    }

    /// How many different comparisons there are.
    pub fn comparisons(&self) -> usize {
        self.leaves.len()
    }
}

/// Builds a [`Program`] condition by condition.
#[derive(Default)]
pub struct Compiler {
    program: Program,
    slots: HashMap<ValueExpr, Slot, ahash::RandomState>,
    leaves: HashMap<Leaf, LeafId, ahash::RandomState>,
    resolver: Option<Arc<dyn Resolver>>,
}

impl Compiler {
    /// A compiler of conditions whose host names `resolver` knows.
    pub fn new(resolver: Option<Arc<dyn Resolver>>) -> Self {
        Self { resolver, ..Self::default() }
    }

    /// Adds a condition as it is for events of one type; gives its first step.
    pub fn add(&mut self, condition: &Typed, ty: EventType) -> Target {
        self.condition(condition, ty, Target::ACCEPT, Target::REJECT)
    }

    /// The program of all that was added.
    pub fn finish(mut self) -> Program {
        self.program.hosts.sort_unstable();
        self.program.hosts.dedup();
        self.program
    }

    /// Lays out steps from the last to the first, as each must know where to go. Of which type the event is, is known.
    fn condition(&mut self, condition: &Typed, ty: EventType, yes: Target, no: Target) -> Target {
        match condition {
            Typed::And(parts) => parts.iter().rev().fold(yes, |next, part| self.condition(part, ty, next, no)),
            Typed::Or(parts) => parts.iter().rev().fold(no, |next, part| self.condition(part, ty, yes, next)),
            Typed::Not(inner) => self.condition(inner, ty, no, yes),
            Typed::Leaf(Leaf { test: LeafTest::EventType(set), .. }) => match set.contains(ty) {
                true => yes,
                false => no,
            },
            // Both ways lead to the same place where what follows has been decided.
            Typed::Leaf(_) if yes == no => yes,
            Typed::Leaf(leaf) => {
                let leaf = self.leaf(leaf);
                self.program.steps.push(Step { leaf, yes, no });
                Target(self.program.steps.len() as u32 - 1)
            }
        }
    }

    pub(super) fn leaf(&mut self, leaf: &Leaf) -> LeafId {
        if let Some(&id) = self.leaves.get(leaf) {
            return id;
        }
        let left = self.slot(&leaf.left);
        let test = match &leaf.test {
            LeafTest::Exists => NodeTest::Exists,
            // Decided when conditions are added.
            LeafTest::EventType(_) => NodeTest::Exists,
            LeafTest::Compare { op, modifier, right } => self.test(leaf, *op, *modifier, right),
        };
        self.program.leaves.push(LeafNode { left, test });
        let id = self.program.leaves.len() as LeafId - 1;
        self.leaves.insert(leaf.clone(), id);
        id
    }

    fn test(&mut self, leaf: &Leaf, op: Op, modifier: Option<Modifier>, right: &Rhs) -> NodeTest {
        let quantifier = match (leaf.matching, op) {
            (Matching::Plain | Matching::HostName, Op::In) => Quantifier::All,
            (Matching::EitherEnd, Op::Ne) => Quantifier::Each,
            (Matching::Plain | Matching::HostName | Matching::EachAncestor | Matching::EitherEnd, _) => Quantifier::Any,
        };
        let constants = match right {
            Rhs::One(constant) => std::slice::from_ref(constant),
            Rhs::Many(constants) => constants,
            Rhs::Value(value) => return NodeTest::Value(op, self.slot(value)),
        };
        // Of the networks behind `in`, Falco looks at the first one only for the ends of a connection together.
        let constants = match (leaf.matching, leaf.shape.ty, op) {
            (Matching::EitherEnd, ValueType::Net, Op::In | Op::Intersects) => constants.get(..1).unwrap_or_default(),
            _ => constants,
        };
        let constants: Vec<_> = constants.iter().collect();
        match modifier {
            None => NodeTest::One(quantifier, self.matcher(leaf, op, &constants)),
            Some(modifier) => {
                let together = (quantifier == Quantifier::Any && modifier == Modifier::AnyOf)
                    .then(|| Matcher::any_of(op, constants.iter().copied()))
                    .flatten();
                if let Some(together) = together {
                    return NodeTest::One(quantifier, together);
                }
                let each = constants.into_iter().map(|constant| self.matcher(leaf, op, &[constant]));
                NodeTest::Several(quantifier, modifier, each.collect())
            }
        }
    }

    fn matcher(&mut self, leaf: &Leaf, op: Op, constants: &[&Const]) -> Matcher {
        let constants: Vec<_> = constants.iter().map(|constant| (*constant).clone()).collect();
        let by_name = matches!(op, Op::Eq | Op::Ne | Op::In | Op::Intersects);
        if leaf.matching != Matching::HostName || !by_name {
            return Matcher::new(op, &constants);
        }
        let names = constants.iter().filter_map(|constant| match constant {
            Const::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into()),
            Const::Int(_) | Const::Bool(_) | Const::Ip(_) | Const::Net(_) => None,
        });
        let names: Box<[Box<str>]> = names.collect();
        self.program.hosts.extend(names.iter().cloned());
        Matcher::hosts(op, names, self.resolver.clone())
    }

    pub(super) fn slot(&mut self, value: &ValueExpr) -> Slot {
        if let Some(&slot) = self.slots.get(value) {
            return slot;
        }
        let node = match value {
            ValueExpr::Field(field, arg) => ValueNode::Field(field, arg.clone()),
            ValueExpr::Literal(bytes) => ValueNode::Literal(bytes.clone()),
            ValueExpr::List(items) => ValueNode::List(items.iter().map(|item| self.slot(item)).collect()),
            ValueExpr::Call { transformer, args, selector } => ValueNode::Call {
                transformer: *transformer,
                args: args.iter().map(|arg| self.slot(arg)).collect(),
                selector: selector.clone(),
            },
        };
        self.program.values.push(node);
        let slot = self.program.values.len() as Slot - 1;
        self.slots.insert(value.clone(), slot);
        slot
    }
}
