//! What fuzz targets and their replays do with bytes from outside: everything that a user's text goes through. No input
//! may make any of it panic, hang or take memory without bound.

use event::{
    catalogue::EventType,
    containers::Whereabouts,
    fields::{Arg, EventSource, Field, Subject},
    value::{Arena, Value, ValueType},
};

use crate::{
    diagnostic::Colour,
    filter::{
        ast::TextId,
        check,
        names::Catalogue,
        parse::{Depth, parse},
        print,
    },
    load::{AppendOutput, Loader, Options},
    output::Template,
    ruleset::{Evaluation, Ruleset},
};

/// An event that has some value for every field.
struct Anything<'a> {
    ty: EventType,
    arena: &'a Arena,
}

impl<'a> Subject<'a> for Anything<'a> {
    fn event_type(&self) -> EventType {
        self.ty
    }

    fn time_ns(&self) -> u64 {
        u64::MAX
    }

    fn arena(&self) -> &'a Arena {
        self.arena
    }

    fn whereabouts(&self) -> Whereabouts<'a> {
        Whereabouts::Host
    }

    fn field(&self, field: &'static Field, _: &Arg) -> Option<Value<'a>> {
        let one = match field.ty {
            ValueType::Text | ValueType::Dynamic => Value::Text(b"/etc/\xff\x1bx"),
            ValueType::Bytes => Value::Bytes(b"\0a\xff"),
            ValueType::Bool => Value::Bool(true),
            ValueType::Int(_) => Value::Int(-1),
            ValueType::Uint(_) | ValueType::Port | ValueType::RelTime | ValueType::AbsTime => Value::Uint(7),
            ValueType::Ip | ValueType::Net => Value::Ip([10, 0, 0, 1].into()),
            ValueType::Double => Value::Double(0.5),
        };
        Some(if field.list { Value::List(self.arena.alloc_slice_copy(&[one, one])) } else { one })
    }
}

fn judge(ruleset: &Ruleset) {
    let mut evaluation = Evaluation::default();
    for ty in ruleset.event_types().iter().take(3) {
        let arena = Arena::new();
        let event = Anything { ty, arena: &arena };
        ruleset.matches(&event, &mut evaluation, |rule| {
            let alert = ruleset.alert(rule, &event);
            let _ = (alert.text(), serde_json::to_string(&alert));
        });
    }
}

/// A text as a filter: parsed, printed, parsed again, checked, compiled and judged.
pub fn exercise_filter(text: &str) {
    let Ok(tree) = parse(text, TextId::default(), Depth::RULES) else { return };
    let again = parse(&print::print(&tree), TextId::default(), Depth::RULES);
    assert_eq!(again.as_ref(), Ok(&tree), "what is printed says the same");
    let _ = check::check(&tree, Catalogue::default());
    // As a condition of a rule; quoted so that it is one whatever it contains.
    let condition = serde_json::Value::from(text);
    exercise_rules(format!("- {{rule: r, desc: d, condition: {condition}, output: o, priority: INFO}}").as_bytes());
}

/// Bytes as a rules file: loaded, explained, described and judged.
pub fn exercise_rules(bytes: &[u8]) {
    let options = Options {
        append_output: vec![AppendOutput::suggested()],
        sources: EventSource::ALL.to_vec(),
        work: 200_000,
        ..Options::default()
    };
    let mut loader = Loader::new(options);
    loader.add("fuzz.yaml", bytes);
    let _ = loader.listing();
    let names: Vec<String> = loader.rules().take(3).map(|rule| rule.name.to_owned()).collect();
    names.iter().for_each(|name| drop(loader.explain(name)));
    let loaded = loader.finish();
    for diagnostic in &loaded.diagnostics {
        let _ = diagnostic.render(Colour::Never);
    }
    let _ = loaded.falco_load_results();
    if let Some(ruleset) = &loaded.ruleset {
        judge(ruleset);
    }
}

/// A text as the output of a rule: parsed and rendered.
pub fn exercise_output(text: &str) {
    let Ok(template) = Template::parse(text, Catalogue::default()) else { return };
    let arena = Arena::new();
    let Some(ty) = EventType::by_name("openat") else { return };
    let event = Anything { ty, arena: &arena };
    let mut values = Vec::new();
    template.values(&event, &mut values);
    let _ = (template.render(&event), template.single_value(&event), template.fields());
}
