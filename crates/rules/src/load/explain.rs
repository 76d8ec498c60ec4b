//! What a rule comes down to: its condition with everything put in and where each part is written, the events it can
//! see, the fields it reads, and the rules that may take its events away when only the first match counts.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;

use super::{
    collect::Definitions,
    compile::Checked,
    loader::{LayerState, Loader},
    resolve::{compiled_items, words},
};
use crate::{
    diagnostic::{ItemKind, Place},
    filter::{
        ast::TextId,
        details::details,
        parse::{Depth, parse},
        typed::{LeafTest, Rhs, Typed},
    },
    pushdown::{self, Clauses},
};

/// A rule, explained.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Its name.
    pub rule: String,
    /// The namespace that wrote it; `None` for rules of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where its name stands.
    #[serde(serialize_with = "place")]
    pub place: Place,
    /// Its event source.
    pub source: String,
    /// Its priority.
    pub priority: &'static str,
    /// Its tags.
    pub tags: Vec<String>,
    /// Whether it runs.
    pub enabled: bool,
    /// Its condition as written, with what other files appended.
    pub written: String,
    /// Its condition with lists, macros and exceptions put in.
    pub condition: String,
    /// The lists and macros in it, outermost first.
    pub uses: Vec<Use>,
    /// Names of the exceptions that have values.
    pub exceptions: Vec<String>,
    /// Names of the event types that it can match.
    pub events: Vec<&'static str>,
    /// The fields that condition and output read.
    pub fields: Vec<String>,
    /// The rules before it that see some of its events, those first that match whenever it does.
    pub shadows: Vec<Shadow>,
    #[serde(skip)]
    typed: Arc<Typed>,
}

/// A list or macro in a condition.
#[derive(Debug, Clone, Serialize)]
pub struct Use {
    /// Which of both.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Where it is defined.
    #[serde(serialize_with = "place")]
    pub place: Place,
    /// What it stands for, as written.
    pub content: String,
    /// What names it: the rule itself, a macro, a list.
    pub by: String,
}

/// A rule that comes before another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shadow {
    /// Its name.
    pub rule: String,
    /// Whether it matches whenever the other one does: then that one never alerts while only the first match counts.
    pub always: bool,
    /// The event types that both see.
    pub events: Vec<&'static str>,
}

fn place<S: serde::Serializer>(place: &Place, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}:{}:{}", place.source, place.line, place.column))
}

impl Explanation {
    /// What an event must have for the rule to match it, as far as a kernel program can see it.
    pub fn necessary(&self, event: event::catalogue::EventType) -> Clauses {
        pushdown::necessary(&self.typed, event)
    }
}

impl Loader {
    /// Explains the rules with this name: one of the cluster, and one of each namespace that has it.
    pub fn explain(&self, rule: &str) -> Vec<Explanation> {
        let mut found = Vec::new();
        for (namespace, state) in self.layers() {
            let mut before = Vec::new();
            for checked in state.states.checked() {
                let Some(info) = self.info(checked, namespace, state) else { continue };
                let runs = info.enabled && info.selected;
                if info.name == rule {
                    found.extend(self.explained(checked, namespace, state, runs, &before));
                } else if runs {
                    before.push((info.name, checked));
                }
            }
        }
        found
    }

    fn explained(
        &self,
        checked: &Checked,
        namespace: Option<&str>,
        state: &LayerState,
        enabled: bool,
        before: &[(&str, &Checked)],
    ) -> Option<Explanation> {
        let rule = state.definitions.rules.entries.get(checked.rule)?;
        let layers = match namespace {
            Some(_) => vec![&state.definitions, self.cluster()],
            None => vec![&state.definitions],
        };
        let mut finder = Finder { loader: self, layers, seen: BTreeSet::new(), uses: Vec::new() };
        finder.condition(rule.condition.as_str(), "the rule");
        for value in rule.exceptions.iter().flat_map(|exception| exception.texts()) {
            finder.lists(value, "an exception");
        }
        let mut fields = BTreeSet::new();
        read_fields(&checked.condition, &mut fields);
        let templates = std::iter::once(&*checked.output).chain(checked.extra.iter().map(|(_, template)| template));
        for (field, arg) in templates.flat_map(|template| template.fields()) {
            fields.insert(spelled(field, arg));
        }
        Some(Explanation {
            rule: rule.name.as_str().to_owned(),
            namespace: namespace.map(str::to_owned),
            place: self.place(&rule.name),
            source: rule.source.to_string(),
            priority: rule.priority.name(),
            tags: rule.tags.iter().map(ToString::to_string).collect(),
            enabled,
            written: rule.condition.as_str().trim().to_owned(),
            condition: checked.canonical.clone(),
            uses: finder.uses,
            exceptions: rule
                .exceptions
                .iter()
                .filter(|known| known.has_values())
                .map(|known| known.name().to_owned())
                .collect(),
            events: names(checked.events),
            fields: fields.into_iter().collect(),
            shadows: shadows(checked, before),
            typed: checked.condition.clone(),
        })
    }
}

fn names(events: event::catalogue::EventSet) -> Vec<&'static str> {
    events.iter().map(event::catalogue::EventType::name).collect()
}

/// Looks for the lists and macros of texts.
struct Finder<'l> {
    loader: &'l Loader,
    /// The layer itself, then the one below it.
    layers: Vec<&'l Definitions>,
    seen: BTreeSet<(&'static str, String)>,
    uses: Vec<Use>,
}

impl Finder<'_> {
    fn condition(&mut self, text: &str, by: &str) {
        self.lists(text, by);
        // Lists are put in as text first, which can make a condition of what is none; their names alone parse as well.
        let Ok(tree) = parse(text, TextId::default(), Depth::RULES) else { return };
        for name in details(&tree).macros {
            let found = self.layers.iter().find_map(|layer| layer.macros.get(&name));
            let Some(definition) = found else { continue };
            if !self.seen.insert(("macro", name.clone())) {
                continue;
            }
            let content = definition.condition.as_str().trim().to_owned();
            let place = self.loader.place(&definition.name);
            self.uses.push(Use {
                kind: ItemKind::Macro.name(),
                name: name.clone(),
                place,
                content: content.clone(),
                by: by.to_owned(),
            });
            self.condition(&content, &format!("macro {name}"));
        }
    }

    fn lists(&mut self, text: &str, by: &str) {
        for word in words(text).filter(|word| !word.is_empty()) {
            let found = self.layers.iter().find_map(|layer| {
                let at = layer.lists.position(word)?;
                Some((*layer, at, layer.lists.entries.get(at)?))
            });
            let Some((layer, at, definition)) = found else { continue };
            if !self.seen.insert(("list", word.to_owned())) {
                continue;
            }
            let content = format!("({})", compiled_items(layer, at).join(", "));
            let place = self.loader.place(&definition.name);
            self.uses.push(Use {
                kind: ItemKind::List.name(),
                name: word.to_owned(),
                place,
                content,
                by: by.to_owned(),
            });
            let inner: Vec<String> = definition.items.iter().map(|item| item.as_str().to_owned()).collect();
            inner.iter().for_each(|item| self.lists(item, &format!("list {word}")));
        }
    }
}

fn spelled(field: &event::fields::Field, arg: &event::fields::Arg) -> String {
    use event::fields::{Arg, ArgRule};
    match (arg, field.arg) {
        (Arg::None, _) => field.name.to_owned(),
        (Arg::Index(index), _) => format!("{}[{index}]", field.name),
        (Arg::Key(key), ArgRule::Param | ArgRule::ParamName | ArgRule::DotSuffix) => format!("{}.{key}", field.name),
        (Arg::Key(key), _) => format!("{}[{key}]", field.name),
    }
}

fn read_fields(condition: &Typed, into: &mut BTreeSet<String>) {
    match condition {
        Typed::And(parts) | Typed::Or(parts) => parts.iter().for_each(|part| read_fields(part, into)),
        Typed::Not(inner) => read_fields(inner, into),
        Typed::Leaf(leaf) => {
            let mut add = |field: &'static event::fields::Field, arg: &event::fields::Arg| {
                into.insert(spelled(field, arg));
            };
            leaf.left.fields(&mut add);
            if let LeafTest::Compare { right: Rhs::Value(value), .. } = &leaf.test {
                value.fields(&mut add);
            }
        }
    }
}

/// The parts that must all hold.
fn conjuncts(condition: &Typed) -> Vec<&Typed> {
    match condition {
        Typed::And(parts) => parts.iter().flat_map(conjuncts).collect(),
        Typed::Or(_) | Typed::Not(_) | Typed::Leaf(_) => vec![condition],
    }
}

/// Rules that come before and see the same events.
fn shadows(checked: &Checked, before: &[(&str, &Checked)]) -> Vec<Shadow> {
    let own = conjuncts(&checked.condition);
    let mut found: Vec<_> = before
        .iter()
        .filter_map(|(name, earlier)| {
            let common = earlier.events.intersection(checked.events);
            let covers = |part: &&Typed| match part {
                Typed::Leaf(leaf) if let LeafTest::EventType(types) = &leaf.test => {
                    checked.events.intersection(types.complement()).is_empty()
                }
                part => own.contains(part),
            };
            let all_events = checked.events.intersection(earlier.events.complement()).is_empty();
            let always = all_events && conjuncts(&earlier.condition).iter().all(covers);
            (!common.is_empty()).then(|| Shadow { rule: (*name).to_owned(), always, events: names(common) })
        })
        .collect();
    found.sort_by_key(|shadow| !shadow.always);
    found
}
