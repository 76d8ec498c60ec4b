//! The fields of the sample plugin that Falco's own tests load, as fields of ours.

use std::sync::LazyLock;

use event::{
    event::Event,
    fields::{Arg, Extract, Field},
    value::{Value, ValueType},
};
use gyrfalcon_rules as rules;
use rules::filter::names::Catalogue;

use super::mock;

/// The plugin takes two kinds of events apart.
fn is_open(event: &Event<'_>) -> Option<bool> {
    match event.info().name {
        "open" => Some(true),
        "inotify_init1" => Some(false),
        _ => None,
    }
}

fn open<'a>(event: &Event<'a>, _: &Arg) -> Option<Value<'a>> {
    is_open(event).map(|open| Value::Uint(open.into()))
}

fn proc_name<'a>(event: &Event<'a>, _: &Arg) -> Option<Value<'a>> {
    is_open(event)?;
    Some(Value::Text(event.process_name()))
}

fn tick<'a>(event: &Event<'a>, _: &Arg) -> Option<Value<'a>> {
    is_open(event)?;
    Some(Value::Text(b"false"))
}

/// The catalogue with the plugin's fields.
pub fn catalogue() -> Catalogue {
    static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
        let rows: [(&str, ValueType, Option<Extract>); 5] = [
            ("sample.is_open", ValueType::Uint(64), Some(open)),
            ("sample.proc_name", ValueType::Text, Some(proc_name)),
            ("sample.tick", ValueType::Text, Some(tick)),
            ("sample.open_count", ValueType::Uint(64), None),
            ("sample.evt_count", ValueType::Uint(64), None),
        ];
        rows.into_iter().map(|(name, ty, extract)| Field { extract, ..mock::field(name, ty, false) }).collect()
    });
    Catalogue { extra: &FIELDS, ..Catalogue::default() }
}
