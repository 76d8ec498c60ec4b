//! The tree of a filter after checking: fields are rows of the catalogue, constants have the field's type, and
//! whatever could be wrong has been reported. Equal comparisons compare and hash as equal, which is how the
//! compiler finds those that several rules share.

use std::net::IpAddr;

use event::{
    catalogue::EventSet,
    fields::{Arg, Field, Matching},
    value::ValueType,
};
use ipnet::IpNet;

use super::ast::{Modifier, Op, Transformer};

/// A checked filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Typed {
    /// All of them.
    And(Vec<Self>),
    /// Any of them.
    Or(Vec<Self>),
    /// The opposite: two-valued, so it is true where the comparison had no value.
    Not(Box<Self>),
    /// One comparison.
    Leaf(Leaf),
}

/// A comparison of a value that is computed from the event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// The value.
    pub left: ValueExpr,
    /// Its type.
    pub shape: Shape,
    /// How several candidates are treated.
    pub matching: Matching,
    /// The comparison.
    pub test: LeafTest,
}

/// A comparison without its left-hand side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LeafTest {
    /// There is a value.
    Exists,
    /// The event is one of these: what `evt.type` and `syscall.type` come down to.
    EventType(EventSet),
    /// An operator.
    Compare {
        /// Which; never [`Op::EqEq`].
        op: Op,
        /// How many right-hand values must satisfy it.
        modifier: Option<Modifier>,
        /// The right-hand side.
        right: Rhs,
    },
}

/// A right-hand side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rhs {
    /// One constant.
    One(Const),
    /// Several.
    Many(Vec<Const>),
    /// Another value of the event.
    Value(ValueExpr),
}

/// A constant of a field's type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Const {
    /// Text or bytes; patterns are checked already.
    Bytes(Box<[u8]>),
    /// Integers of every kind, times, ports, and what a double is compared with.
    Int(i128),
    /// `true`, `false`.
    Bool(bool),
    /// An address.
    Ip(IpAddr),
    /// A network.
    Net(IpNet),
}

/// How a value is computed from an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueExpr {
    /// A field.
    Field(&'static Field, Arg),
    /// A transformer.
    Call {
        /// Which.
        transformer: Transformer,
        /// Its arguments.
        args: Vec<Self>,
        /// What stands in brackets behind it.
        selector: Option<Box<[u8]>>,
    },
    /// A constant.
    Literal(Box<[u8]>),
    /// A list.
    List(Vec<Self>),
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Of the value, or of its elements.
    pub ty: ValueType,
    /// There may be several.
    pub list: bool,
}

impl Shape {
    /// A single value.
    pub const fn one(ty: ValueType) -> Self {
        Self { ty, list: false }
    }
}

impl ValueExpr {
    /// Calls `visit` for every field in it.
    pub fn fields<'a>(&'a self, visit: &mut impl FnMut(&'static Field, &'a Arg)) {
        match self {
            Self::Field(field, arg) => visit(field, arg),
            Self::Call { args, .. } => args.iter().for_each(|arg| arg.fields(visit)),
            Self::Literal(_) => {}
            Self::List(items) => items.iter().for_each(|item| item.fields(visit)),
        }
    }
}

/// The words for a type in a message.
pub fn type_name(shape: Shape) -> &'static str {
    if shape.list {
        return "a list";
    }
    match shape.ty {
        ValueType::Text => "text",
        ValueType::Bytes => "bytes",
        ValueType::Bool => "true or false",
        ValueType::Int(_) | ValueType::Uint(_) => "a number",
        ValueType::Port => "a port",
        ValueType::Ip => "an address",
        ValueType::Net => "a network",
        ValueType::RelTime => "a duration in nanoseconds",
        ValueType::AbsTime => "a time in nanoseconds",
        ValueType::Double => "a number",
        ValueType::Dynamic => "a value",
    }
}
