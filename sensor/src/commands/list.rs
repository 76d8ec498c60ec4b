//! `gyrfalcon fields`, `events` and `sinks`: the vocabulary.

use event::{
    catalogue::{EventType, Origin},
    fields,
};
use serde_json::json;
use sinks::SinkType;

use crate::{active::collected, cli, exit::Exit, out};

fn shown(prefix: Option<&str>, name: &str) -> bool {
    prefix.is_none_or(|prefix| name.starts_with(prefix))
}

/// Every field with type and meaning.
pub fn fields(args: &cli::Listing) -> Exit {
    let prefix = args.prefix.as_deref();
    let listed = fields::all().filter(|field| !field.marks.hidden && shown(prefix, field.name));
    if args.json {
        let rows: Vec<_> = listed
            .map(|field| {
                json!({
                    "name": field.name,
                    "type": format!("{:?}", field.ty),
                    "list": field.list,
                    "argument": format!("{:?}", field.arg),
                    "description": field.doc,
                    "waiting": field.is_waiting(),
                    "deprecated": field.marks.deprecated,
                })
            })
            .collect();
        return out::print(&format!("{:#}\n", json!(rows)));
    }
    let line = |field: &fields::Field| {
        let waiting = if field.is_waiting() { "  (waiting: nothing delivers it yet)" } else { "" };
        format!("{:34} {:10} {}{waiting}\n", field.name, format!("{:?}", field.ty), field.doc)
    };
    out::print(&listed.map(line).collect::<String>())
}

/// Every event type with its parameters.
pub fn events(args: &cli::Listing) -> Exit {
    let prefix = args.prefix.as_deref();
    let collected = collected();
    let listed = EventType::all().filter(|ty| shown(prefix, ty.name()) && ty.info().origin != Origin::Meta);
    let params = |ty: EventType| ty.info().params.iter().map(|param| param.name).collect::<Vec<_>>();
    if args.json {
        let row = |ty: EventType| {
            json!({
                "name": ty.name(),
                "category": format!("{:?}", ty.info().category),
                "parameters": params(ty),
                "collected": collected.contains(ty),
            })
        };
        return out::print(&format!("{:#}\n", json!(listed.map(row).collect::<Vec<_>>())));
    }
    let line = |ty: EventType| {
        let mark = if collected.contains(ty) { "collected" } else { "-" };
        format!("{:24} {mark:10} {}\n", ty.name(), params(ty).join(" "))
    };
    out::print(&listed.map(line).collect::<String>())
}

/// Every kind of sink.
pub fn sinks() -> Exit {
    let text = SinkType::ALL.iter().map(|kind| format!("{}\n    {}\n\n", kind.name(), kind.doc()));
    out::print(&text.collect::<String>())
}
