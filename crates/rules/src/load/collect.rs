//! Items → definitions: later items redefine, append to or override earlier ones.
//!
//! A definition keeps its place in the order when it is redefined (`index`), and remembers when it was last touched
//! (`touched`), which decides what it may refer to.

use event::fields::EventSource;
use hashbrown::HashMap;

use super::{
    Report,
    exception::{self, Exception},
    read::{How, Item, ListItem, MacroItem, Mode, RuleItem, RuleKey, RuleMode},
};
use crate::{
    alert::Priority,
    diagnostic::{Code, ItemKind, closest},
    filter::names::Catalogue,
    source::{Span, Text},
};

/// Definitions by name, in the order of their first appearance.
#[derive(Debug)]
pub(crate) struct Table<T> {
    pub(crate) entries: Vec<T>,
    by_name: HashMap<Box<str>, usize, ahash::RandomState>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), by_name: HashMap::default() }
    }
}

impl<T> Table<T> {
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        let at = self.position(name)?;
        self.entries.get_mut(at)
    }

    fn insert(&mut self, name: &str, entry: T) {
        self.by_name.insert(name.into(), self.entries.len());
        self.entries.push(entry);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }
}

#[derive(Debug)]
pub(crate) struct ListDef {
    pub(crate) name: Text,
    pub(crate) items: Vec<Text>,
    pub(crate) index: u32,
    pub(crate) touched: u32,
    /// Number of the file that touched it last.
    pub(crate) file: u32,
}

#[derive(Debug)]
pub(crate) struct MacroDef {
    pub(crate) name: Text,
    pub(crate) condition: Text,
    pub(crate) index: u32,
    pub(crate) touched: u32,
    pub(crate) file: u32,
}

#[derive(Debug)]
pub(crate) struct RuleDef {
    pub(crate) name: Text,
    pub(crate) source: Box<str>,
    /// The source, if it is one of ours.
    pub(crate) known_source: Option<EventSource>,
    pub(crate) condition: Text,
    pub(crate) output: Text,
    pub(crate) desc: Text,
    pub(crate) priority: Priority,
    pub(crate) enabled: bool,
    pub(crate) tags: Vec<Box<str>>,
    pub(crate) exceptions: Vec<Exception>,
    pub(crate) warn_evttypes: bool,
    pub(crate) skip_if_unknown_filter: bool,
    pub(crate) capture: bool,
    pub(crate) capture_duration: Option<u32>,
}

/// Everything defined so far.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    pub(crate) lists: Table<ListDef>,
    pub(crate) macros: Table<MacroDef>,
    pub(crate) rules: Table<RuleDef>,
    clock: u32,
    pub(crate) file: u32,
}

impl Definitions {
    /// Applies an item other than a requirement.
    pub(crate) fn apply(&mut self, item: Item, sources: &[EventSource], catalogue: Catalogue, report: &mut Report<'_>) {
        self.clock += 1;
        match item {
            Item::List(item) => self.list(item, report),
            Item::Macro(item) => self.macro_item(item, report),
            Item::Rule(item) => self.rule(*item, sources, catalogue, report),
            Item::EngineVersion(_) | Item::PluginVersions(_) => {}
        }
    }

    fn list(&mut self, item: ListItem, report: &mut Report<'_>) {
        let name = item.name.as_str().to_owned();
        if !is_bare(&name) {
            let message =
                "List has an invalid name. List names should match a regular expression: [^()\"'[:space:]=,]+";
            report.add(Code::InvalidListName, item.name.whole(), message, |d| d.item(ItemKind::List, &name));
        }
        let (clock, file) = (self.clock, self.file);
        match (self.lists.get_mut(&name), item.mode) {
            (Some(list), Mode::Append) => list.items.extend(item.items),
            (Some(list), Mode::Define) => {
                list.items = item.items;
                list.name = item.name;
            }
            (None, Mode::Append) => {
                let message = "List uses 'append' or 'override.items: append' but no list by that name already exists";
                let help = did_you_mean(&name, self.lists.names());
                report.add(Code::NothingToOverride, item.name.whole(), message, |d| {
                    d.maybe_help(help).item(ItemKind::List, &name)
                });
                return;
            }
            (None, Mode::Define) => {
                let list = ListDef { name: item.name, items: item.items, index: clock, touched: clock, file };
                self.lists.insert(&name, list);
                return;
            }
        }
        if let Some(list) = self.lists.get_mut(&name) {
            (list.touched, list.file) = (clock, file);
        }
    }

    fn macro_item(&mut self, item: MacroItem, report: &mut Report<'_>) {
        let name = item.name.as_str().to_owned();
        if !is_identifier(&name) {
            let message =
                "Macro has an invalid name. Macro names should match a regular expression: [a-zA-Z]+[a-zA-Z0-9_]*";
            report.add(Code::InvalidMacroName, item.name.whole(), message, |d| d.item(ItemKind::Macro, &name));
        }
        let (clock, file) = (self.clock, self.file);
        match (self.macros.get_mut(&name), item.mode) {
            (Some(known), Mode::Append) => append(&mut known.condition, &item.condition),
            (Some(known), Mode::Define) => {
                known.condition = item.condition;
                known.name = item.name;
            }
            (None, Mode::Append) => {
                let message =
                    "Macro uses 'append' or 'override.condition: append' but no macro by that name already exists";
                let help = did_you_mean(&name, self.macros.names());
                report.add(Code::NothingToOverride, item.name.whole(), message, |d| {
                    d.maybe_help(help).item(ItemKind::Macro, &name)
                });
                return;
            }
            (None, Mode::Define) => {
                let entry = MacroDef { name: item.name, condition: item.condition, index: clock, touched: clock, file };
                self.macros.insert(&name, entry);
                return;
            }
        }
        if let Some(known) = self.macros.get_mut(&name) {
            (known.touched, known.file) = (clock, file);
        }
    }

    fn rule(&mut self, item: RuleItem, sources: &[EventSource], catalogue: Catalogue, report: &mut Report<'_>) {
        let name = item.name.as_str().to_owned();
        let place = item.name.whole();
        let known = self.rules.position(&name);
        if let (Some(source), Some(rule)) = (&item.source, known.map(|at| &self.rules.entries[at]))
            && source.as_str() != &*rule.source
        {
            let message = "Rule has been re-defined with a different source";
            report.add(Code::SourceChanged, source.whole(), message, |d| d.item(ItemKind::Rule, &name));
            return;
        }
        let names = &self.rules;
        let mut nothing = |message: &str| {
            let help = did_you_mean(&name, names.names());
            report.add(Code::NothingToOverride, place, message, |d| d.maybe_help(help).item(ItemKind::Rule, &name));
        };
        match (&item.mode, known) {
            (RuleMode::Define, _) => self.define(item, known, sources, catalogue, report),
            (RuleMode::Append, None) => {
                nothing("Rule uses 'append' or 'override.<key>: append' but no rule by that name already exists");
            }
            (RuleMode::Override(keys), None) => match keys.iter().any(|(_, how)| *how == How::Append) {
                true => {
                    nothing("Rule uses 'append' or 'override.<key>: append' but no rule by that name already exists")
                }
                false => nothing(
                    "An 'override.<key>: replace' to a rule was requested but no rule by that name already exists",
                ),
            },
            (RuleMode::Enable, None) => nothing("Rule has 'enabled' key only, but no rule by that name already exists"),
            (RuleMode::Append, Some(at)) => {
                let keys = [(RuleKey::Condition, How::Append), (RuleKey::Exceptions, How::Append)];
                self.change(at, &item, &keys, catalogue, report);
            }
            (RuleMode::Override(keys), Some(at)) => self.change(at, &item, keys, catalogue, report),
            (RuleMode::Enable, Some(at)) => {
                let rule = &mut self.rules.entries[at];
                rule.enabled = item.enabled.unwrap_or(rule.enabled);
            }
        }
    }

    fn define(
        &mut self,
        item: RuleItem,
        known: Option<usize>,
        sources: &[EventSource],
        catalogue: Catalogue,
        report: &mut Report<'_>,
    ) {
        let (Some(condition), Some(output), Some(desc), Some(priority)) =
            (item.condition, item.output, item.desc, item.priority)
        else {
            return;
        };
        let name = item.name.as_str().to_owned();
        let source = item.source.as_ref().map_or(EventSource::default().name(), Text::as_str);
        let known_source = EventSource::by_name(source).filter(|source| sources.contains(source));
        if known_source.is_none() {
            let place = item.source.as_ref().map_or(item.name.whole(), Text::whole);
            report.add(Code::UnknownSource, place, format!("Unknown source {source}, skipping"), |d| {
                d.item(ItemKind::Rule, &name)
            });
        }
        let catalogue = known_source.map(|source| Catalogue { source, ..catalogue });
        let mut exceptions = Vec::new();
        for exception in item.exceptions.unwrap_or_default() {
            exception::define(exception, &mut exceptions, catalogue, &name, report);
        }
        let rule = RuleDef {
            source: source.into(),
            known_source,
            condition: condition.trimmed(),
            output: output.trimmed(),
            desc,
            priority,
            enabled: item.enabled.unwrap_or(true),
            tags: tags(item.tags),
            exceptions,
            warn_evttypes: item.warn_evttypes.unwrap_or(true),
            skip_if_unknown_filter: item.skip_if_unknown_filter.unwrap_or(false),
            capture: item.capture.unwrap_or(false),
            capture_duration: item.capture_duration,
            name: item.name,
        };
        match known {
            Some(at) => self.rules.entries[at] = rule,
            None => self.rules.insert(&name, rule),
        }
    }

    fn change(
        &mut self,
        at: usize,
        item: &RuleItem,
        keys: &[(RuleKey, How)],
        catalogue: Catalogue,
        report: &mut Report<'_>,
    ) {
        let rule = &mut self.rules.entries[at];
        let name = rule.name.as_str().to_owned();
        let text = |old: &mut Text, new: &Option<Text>, how: How| match (new, how) {
            (Some(new), How::Append) => append(old, new),
            (Some(new), How::Replace) => *old = new.trimmed(),
            (None, _) => {}
        };
        for (key, how) in keys {
            match key {
                RuleKey::Condition => text(&mut rule.condition, &item.condition, *how),
                RuleKey::Output => text(&mut rule.output, &item.output, *how),
                RuleKey::Desc => text(&mut rule.desc, &item.desc, *how),
                RuleKey::Tags => {
                    let more = tags(item.tags.clone());
                    match how {
                        How::Append => rule.tags.extend(more),
                        How::Replace => rule.tags = more,
                    }
                    rule.tags.sort_unstable();
                    rule.tags.dedup();
                }
                RuleKey::Exceptions => {
                    if *how == How::Replace {
                        rule.exceptions.clear();
                    }
                    let catalogue = rule.known_source.map(|source| Catalogue { source, ..catalogue });
                    for exception in item.exceptions.iter().flatten() {
                        match how {
                            How::Append => {
                                exception::append(exception.clone(), &mut rule.exceptions, catalogue, &name, report)
                            }
                            How::Replace => {
                                exception::define(exception.clone(), &mut rule.exceptions, catalogue, &name, report)
                            }
                        }
                    }
                }
                RuleKey::Priority => rule.priority = item.priority.unwrap_or(rule.priority),
                RuleKey::Enabled => rule.enabled = item.enabled.unwrap_or(rule.enabled),
                RuleKey::WarnEvttypes => rule.warn_evttypes = item.warn_evttypes.unwrap_or(rule.warn_evttypes),
                RuleKey::SkipIfUnknownFilter => {
                    rule.skip_if_unknown_filter = item.skip_if_unknown_filter.unwrap_or(rule.skip_if_unknown_filter);
                }
                RuleKey::Capture => rule.capture = item.capture.unwrap_or(rule.capture),
                RuleKey::CaptureDuration => rule.capture_duration = item.capture_duration.or(rule.capture_duration),
            }
        }
    }
}

/// "did you mean" for a name.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    closest(name, known).map(|name| format!("did you mean `{name}`?"))
}

/// Joins texts with one blank; they are parsed together, so `or` and `and` mix by precedence.
fn append(old: &mut Text, new: &Text) {
    let new = new.trimmed();
    let start = Span { end: new.whole().start, ..new.whole() };
    *old = old.trimmed();
    old.push_made(" ", start);
    old.push(&new);
}

fn tags(tags: Option<Vec<Text>>) -> Vec<Box<str>> {
    let mut tags: Vec<Box<str>> = tags.unwrap_or_default().iter().map(|tag| tag.as_str().into()).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

fn is_bare(name: &str) -> bool {
    !name.is_empty() && !name.contains(|char: char| char.is_whitespace() || "()\"'=,".contains(char))
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|char: char| char.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
