//! What several tests share: an event with fixed field values, and an evaluator so plain that it is beyond doubt.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod reference;

use std::collections::HashMap;

use event::{
    catalogue::EventType,
    containers::Whereabouts,
    fields::{Arg, Field, Subject},
    value::{Arena, Value},
};

/// An event with fixed values, by field name and argument as it is written.
pub struct MockEvent<'a> {
    /// Memory of the evaluation.
    pub arena: &'a Arena,
    /// Its type.
    pub ty: EventType,
    /// Values by field.
    pub values: HashMap<String, Value<'a>>,
}

impl<'a> MockEvent<'a> {
    /// An event of a type with values.
    pub fn new(arena: &'a Arena, ty: &str, values: &[(&str, Value<'a>)]) -> Self {
        let ty = EventType::by_name(ty).expect("an event type");
        Self { arena, ty, values: values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect() }
    }
}

/// A field with its argument as a filter spells it.
pub fn spelling(field: &Field, arg: &Arg) -> String {
    match arg {
        Arg::None => field.name.to_owned(),
        Arg::Index(index) => format!("{}[{index}]", field.name),
        Arg::Key(key) => format!("{}[{key}]", field.name),
    }
}

impl<'a> Subject<'a> for MockEvent<'a> {
    fn event_type(&self) -> EventType {
        self.ty
    }

    fn time_ns(&self) -> u64 {
        1_700_000_000_123_456_789
    }

    fn arena(&self) -> &'a Arena {
        self.arena
    }

    fn whereabouts(&self) -> Whereabouts<'a> {
        Whereabouts::Unknown
    }

    fn field(&self, field: &'static Field, arg: &Arg) -> Option<Value<'a>> {
        if field.name == "evt.type" {
            return Some(Value::Text(self.ty.name().as_bytes()));
        }
        self.values.get(&spelling(field, arg)).copied()
    }
}
