//! Fields with fixed values, and an event that has them.

use std::collections::HashMap;

use event::{
    catalogue::EventType,
    containers::Whereabouts,
    fields::{Arg, ArgRule, Field, Marks, Matching, Subject},
    value::{Arena, Radix, Value, ValueType},
};
use gyrfalcon_rules as rules;
use rules::{
    filter::{ast::TextId, check, names::Catalogue, parse, print, program::Compiler},
    load::{Loader, Options},
    ruleset::Evaluation,
};

/// A field row of a test.
pub fn field(name: &str, ty: ValueType, list: bool) -> Field {
    let marks = Marks {
        no_rhs: false,
        no_transformer: list,
        filter_only: false,
        print_only: false,
        deprecated: false,
        suggested: false,
        hidden: false,
    };
    Field {
        name: name.to_owned().leak(),
        ty,
        list,
        radix: Radix::Decimal,
        arg: ArgRule::OptionalKey,
        matching: Matching::Plain,
        marks,
        doc: "a field of a test",
        extract: None,
        audit: None,
    }
}

/// A catalogue with these fields too. They live as long as the test program.
pub fn catalogue(fields: Vec<Field>) -> Catalogue {
    Catalogue { extra: fields.leak(), ..Catalogue::default() }
}

/// An event with fixed field values.
pub struct MockEvent<'a> {
    /// Memory of the evaluation.
    pub arena: &'a Arena,
    /// Its type.
    pub ty: EventType,
    /// Values by field name.
    pub values: HashMap<&'static str, Value<'a>>,
}

impl<'a> Subject<'a> for MockEvent<'a> {
    fn event_type(&self) -> EventType {
        self.ty
    }

    fn time_ns(&self) -> u64 {
        0
    }

    fn arena(&self) -> &'a Arena {
        self.arena
    }

    fn whereabouts(&self) -> Whereabouts<'a> {
        Whereabouts::Unknown
    }

    fn field(&self, field: &'static Field, _: &Arg) -> Option<Value<'a>> {
        self.values.get(field.name).copied()
    }
}

/// Parses, checks, compiles and evaluates; the error is a diagnostic.
pub fn evaluate<'a>(filter: &str, catalogue: Catalogue, event: &impl Subject<'a>) -> Result<bool, String> {
    let rules = format!(
        "- rule: r\n  desc: d\n  condition: {}\n  output: o\n  priority: INFO\n",
        serde_json::to_string(filter).map_err(|error| error.to_string())?
    );
    let mut loader = Loader::new(Options { catalogue, ..Options::default() });
    loader.add("r.yaml", rules.as_bytes());
    let loaded = loader.finish();
    let ruleset = loaded.ruleset.ok_or_else(|| {
        loaded.diagnostics.iter().filter(|d| d.is_error()).map(|d| d.message.clone()).collect::<Vec<_>>().join("; ")
    })?;
    let mut scratch = Evaluation::default();
    let mut matched = false;
    ruleset.matches(event, &mut scratch, |_| matched = true);
    Ok(matched)
}

/// Parses and checks a filter; gives the number of doubts, or the first mistake.
pub fn check_filter(filter: &str, catalogue: Catalogue) -> Result<usize, String> {
    let tree = parse::parse(filter, TextId::default(), parse::Depth::FALCO_DEFAULT).map_err(|e| e.message)?;
    let (typed, findings) = check::check(&tree, catalogue);
    match typed {
        Some(typed) => {
            // One type stands for all: what is compiled does not depend on it but for comparisons of the type.
            EventType::all().take(1).for_each(|ty| {
                Compiler::new(None).add(&typed, ty);
            });
            Ok(findings.len())
        }
        None => Err(findings.first().map_or_else(|| print::print(&tree), |finding| finding.message.clone())),
    }
}
