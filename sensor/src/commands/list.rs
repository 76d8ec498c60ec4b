//! `gyrfalcon fields`, `events` and `sinks`: the vocabulary.

use event::{
    catalogue::{EventType, Origin},
    fields,
};
use serde_json::json;
use sinks::SinkType;

use crate::{cli, exit::Exit, rules::collected};

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
                    "waiting": field.extract.is_none(),
                    "deprecated": field.marks.deprecated,
                })
            })
            .collect();
        println!("{:#}", json!(rows));
    } else {
        for field in listed {
            let waiting = if field.extract.is_none() { "  (waiting: nothing delivers it yet)" } else { "" };
            println!("{:34} {:10} {}{waiting}", field.name, format!("{:?}", field.ty), field.doc);
        }
    }
    Exit::Fine
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
        println!("{:#}", json!(listed.map(row).collect::<Vec<_>>()));
    } else {
        for ty in listed {
            let mark = if collected.contains(ty) { "collected" } else { "-" };
            println!("{:24} {mark:10} {}", ty.name(), params(ty).join(" "));
        }
    }
    Exit::Fine
}

/// Every kind of sink.
pub fn sinks() -> Exit {
    for kind in SinkType::ALL {
        println!("{}\n    {}\n", kind.name(), kind.doc());
    }
    Exit::Fine
}
