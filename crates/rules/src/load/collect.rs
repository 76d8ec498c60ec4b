//! Items → definitions: later items redefine, append to or override earlier ones.
//!
//! A definition keeps its place in the order when it is redefined (`index`), and remembers when it was last touched
//! (`touched`), which decides what it may refer to.

use std::sync::Arc;

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

/// Definitions by name, in the order of their first appearance. Changes are logged until they are kept for good, so
/// that what a unit of files did can be taken back.
#[derive(Debug)]
pub(crate) struct Table<T> {
    pub(crate) entries: Vec<Arc<T>>,
    by_name: HashMap<Box<str>, usize, ahash::RandomState>,
    /// What stood at a position before; nothing where an entry was added.
    log: Vec<(usize, Option<Arc<T>>)>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), by_name: HashMap::default(), log: Vec::new() }
    }
}

impl<T: Named + Clone> Table<T> {
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.entries.get(self.position(name)?).map(|entry| &**entry)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        let at = self.position(name)?;
        let entry = self.entries.get_mut(at)?;
        self.log.push((at, Some(entry.clone())));
        Some(Arc::make_mut(entry))
    }

    fn insert(&mut self, entry: T) {
        let at = self.entries.len();
        self.by_name.insert(entry.name().into(), at);
        self.entries.push(Arc::new(entry));
        self.log.push((at, None));
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// Positions that changed since the last [`Table::keep`], in order.
    pub(crate) fn changed(&self) -> Vec<usize> {
        let mut changed: Vec<_> = self.log.iter().map(|(at, _)| *at).collect();
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// Keeps the changes for good.
    fn keep(&mut self) {
        self.log.clear();
    }

    /// Takes the changes back that were not kept.
    fn undo(&mut self) {
        while let Some((at, before)) = self.log.pop() {
            match before {
                Some(before) => self.entries[at] = before,
                None => {
                    if let Some(added) = self.entries.pop() {
                        self.by_name.remove(added.name());
                    }
                }
            }
        }
    }
}

/// Something with a name.
pub(crate) trait Named {
    fn name(&self) -> &str;
}

impl Named for ListDef {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Named for MacroDef {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Named for RuleDef {
    fn name(&self) -> &str {
        self.name.as_str()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ListDef {
    pub(crate) name: Text,
    pub(crate) items: Vec<Text>,
    pub(crate) index: u32,
    pub(crate) touched: u32,
    /// Number of the file that touched it last.
    pub(crate) file: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct MacroDef {
    pub(crate) name: Text,
    pub(crate) condition: Text,
    pub(crate) index: u32,
    pub(crate) touched: u32,
    pub(crate) file: u32,
}

#[derive(Debug, Clone)]
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
    /// Number of the file that touched it last.
    pub(crate) file: u32,
}

/// Everything that one layer has defined so far.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    pub(crate) lists: Table<ListDef>,
    pub(crate) macros: Table<MacroDef>,
    pub(crate) rules: Table<RuleDef>,
    pub(crate) clock: u32,
    /// Number of the file that is read.
    pub(crate) file: u32,
    /// Number of the first file of the unit that is read.
    pub(crate) unit: u32,
}

/// What items are applied by.
pub(crate) struct Applying<'a> {
    pub(crate) sources: &'a [EventSource],
    pub(crate) catalogue: Catalogue,
    /// The layer below, for those of namespaces: what it defines can be used, but not changed.
    pub(crate) base: Option<&'a Definitions>,
    /// Whether the unit is in force. If not, it only defines what nobody has defined before.
    pub(crate) active: bool,
}

impl Definitions {
    /// Applies an item other than a requirement.
    pub(crate) fn apply(&mut self, item: Item, by: &Applying<'_>, report: &mut Report<'_>) {
        self.clock += 1;
        if !by.active && self.is_taken(&item) {
            return;
        }
        match item {
            Item::List(item) => self.list(item, by, report),
            Item::Macro(item) => self.macro_item(item, by, report),
            Item::Rule(item) => self.rule(*item, by, report),
            Item::EngineVersion(_) | Item::PluginVersions(_) => {}
        }
    }

    /// Keeps the changes of the last unit for good.
    pub(crate) fn keep(&mut self) {
        self.lists.keep();
        self.macros.keep();
        self.rules.keep();
    }

    /// Takes the changes of the last unit back.
    pub(crate) fn undo(&mut self) {
        self.lists.undo();
        self.macros.undo();
        self.rules.undo();
    }

    /// Whether another unit has defined what the item is about.
    fn is_taken(&self, item: &Item) -> bool {
        let file = match item {
            Item::List(item) => self.lists.get(item.name.as_str()).map(|list| list.file),
            Item::Macro(item) => self.macros.get(item.name.as_str()).map(|known| known.file),
            Item::Rule(item) => self.rules.get(item.name.as_str()).map(|rule| rule.file),
            Item::EngineVersion(_) | Item::PluginVersions(_) => None,
        };
        file.is_some_and(|file| file < self.unit)
    }

    fn list(&mut self, item: ListItem, by: &Applying<'_>, report: &mut Report<'_>) {
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
            (None, Mode::Append) if by.base.is_some_and(|base| base.lists.position(&name).is_some()) => {
                return foreign(item.name.whole(), ItemKind::List, &name, report);
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
                self.lists.insert(list);
                return;
            }
        }
        if let Some(list) = self.lists.get_mut(&name) {
            (list.touched, list.file) = (clock, file);
        }
    }

    fn macro_item(&mut self, item: MacroItem, by: &Applying<'_>, report: &mut Report<'_>) {
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
            (None, Mode::Append) if by.base.is_some_and(|base| base.macros.position(&name).is_some()) => {
                return foreign(item.name.whole(), ItemKind::Macro, &name, report);
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
                self.macros.insert(entry);
                return;
            }
        }
        if let Some(known) = self.macros.get_mut(&name) {
            (known.touched, known.file) = (clock, file);
        }
    }

    fn rule(&mut self, item: RuleItem, by: &Applying<'_>, report: &mut Report<'_>) {
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
        let changes = item.mode != RuleMode::Define && known.is_none();
        if changes && by.base.is_some_and(|base| base.rules.position(&name).is_some()) {
            return foreign(place, ItemKind::Rule, &name, report);
        }
        let names = &self.rules;
        let mut nothing = |message: &str| {
            let help = did_you_mean(&name, names.names());
            report.add(Code::NothingToOverride, place, message, |d| d.maybe_help(help).item(ItemKind::Rule, &name));
        };
        match (&item.mode, known) {
            (RuleMode::Define, _) => self.define(item, known, by, report),
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
            (RuleMode::Append, Some(_)) => {
                let keys = [(RuleKey::Condition, How::Append), (RuleKey::Exceptions, How::Append)];
                self.change(&name, &item, &keys, by.catalogue, report);
            }
            (RuleMode::Override(keys), Some(_)) => self.change(&name, &item, keys, by.catalogue, report),
            (RuleMode::Enable, Some(_)) => {
                let file = self.file;
                if let Some(rule) = self.rules.get_mut(&name) {
                    rule.enabled = item.enabled.unwrap_or(rule.enabled);
                    rule.file = file;
                }
            }
        }
    }

    fn define(&mut self, item: RuleItem, known: Option<usize>, by: &Applying<'_>, report: &mut Report<'_>) {
        let (Some(condition), Some(output), Some(desc), Some(priority)) =
            (item.condition, item.output, item.desc, item.priority)
        else {
            return;
        };
        let name = item.name.as_str().to_owned();
        let source = item.source.as_ref().map_or(EventSource::default().name(), Text::as_str);
        let known_source = EventSource::by_name(source).filter(|source| by.sources.contains(source));
        if known_source.is_none() {
            let place = item.source.as_ref().map_or(item.name.whole(), Text::whole);
            let help = EventSource::by_name(source).map(|source| source.program().to_owned());
            report.add(Code::UnknownSource, place, format!("Unknown source {source}, skipping"), |d| {
                d.maybe_help(help).item(ItemKind::Rule, &name)
            });
        }
        let catalogue = known_source.map(|source| Catalogue { source, ..by.catalogue });
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
            file: self.file,
            name: item.name,
        };
        match known.and_then(|_| self.rules.get_mut(&name)) {
            Some(known) => *known = rule,
            None => self.rules.insert(rule),
        }
    }

    fn change(
        &mut self,
        name: &str,
        item: &RuleItem,
        keys: &[(RuleKey, How)],
        catalogue: Catalogue,
        report: &mut Report<'_>,
    ) {
        let file = self.file;
        let Some(rule) = self.rules.get_mut(name) else { return };
        rule.file = file;
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
                                exception::append(exception.clone(), &mut rule.exceptions, catalogue, name, report)
                            }
                            How::Replace => {
                                exception::define(exception.clone(), &mut rule.exceptions, catalogue, name, report)
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

/// A namespace wants to change what is the cluster's.
fn foreign(place: Span, kind: ItemKind, name: &str, report: &mut Report<'_>) {
    let kind_name = kind.name();
    let message = format!("the {kind_name} '{name}' belongs to the cluster and can't be changed from a namespace");
    let help = match kind {
        ItemKind::List | ItemKind::Macro => {
            format!("define a {kind_name} `{name}` of your own, without append or override; your rules will use it")
        }
        _ => "write a rule of your own, or ask for the change in a ClusterFalcoRule".to_owned(),
    };
    report.add(Code::ForeignOverride, place, message, |d| d.help(help).item(kind, name));
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
