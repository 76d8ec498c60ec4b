//! Nodes → items: lists, macros, rules and requirements with the types their keys must have. Each item is judged by
//! itself; how items act on each other is the next stage's business.

use super::{Report, yaml::Node};
use crate::{
    alert::Priority,
    diagnostic::{Code, ItemKind},
    source::{ScalarStyle, Span, Text},
};

/// An item of a rules file.
#[derive(Debug)]
pub(crate) enum Item {
    EngineVersion(Text),
    PluginVersions(Vec<PluginRequirement>),
    List(ListItem),
    Macro(MacroItem),
    Rule(Box<RuleItem>),
}

/// What a list or macro does to one that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Define,
    Append,
}

#[derive(Debug)]
pub(crate) struct ListItem {
    pub(crate) name: Text,
    pub(crate) items: Vec<Text>,
    pub(crate) mode: Mode,
}

#[derive(Debug)]
pub(crate) struct MacroItem {
    pub(crate) name: Text,
    pub(crate) condition: Text,
    pub(crate) mode: Mode,
}

#[derive(Debug)]
pub(crate) struct RuleItem {
    pub(crate) name: Text,
    pub(crate) mode: RuleMode,
    pub(crate) condition: Option<Text>,
    pub(crate) output: Option<Text>,
    pub(crate) desc: Option<Text>,
    pub(crate) priority: Option<Priority>,
    pub(crate) source: Option<Text>,
    pub(crate) enabled: Option<bool>,
    pub(crate) tags: Option<Vec<Text>>,
    pub(crate) exceptions: Option<Vec<ExceptionItem>>,
    pub(crate) warn_evttypes: Option<bool>,
    pub(crate) skip_if_unknown_filter: Option<bool>,
    pub(crate) capture: Option<bool>,
    pub(crate) capture_duration: Option<u32>,
}

/// What a rule item does to a rule that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuleMode {
    Define,
    /// `append: true`
    Append,
    /// `override:` with these keys.
    Override(Vec<(RuleKey, How)>),
    /// Only `enabled:`.
    Enable,
}

/// What an override does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Append,
    Replace,
}

macro_rules! rule_keys {
    ($($variant:ident = $name:literal, append: $append:literal;)+) => {
        /// A key of a rule that can be overridden.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum RuleKey { $($variant,)+ }

        impl RuleKey {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            fn can_append(self) -> bool {
                match self { $(Self::$variant => $append,)+ }
            }
        }
    };
}

rule_keys! {
    Condition = "condition", append: true;
    Output = "output", append: true;
    Desc = "desc", append: true;
    Tags = "tags", append: true;
    Exceptions = "exceptions", append: true;
    Priority = "priority", append: false;
    Enabled = "enabled", append: false;
    WarnEvttypes = "warn_evttypes", append: false;
    SkipIfUnknownFilter = "skip-if-unknown-filter", append: false;
    Capture = "capture", append: false;
    CaptureDuration = "capture_duration", append: false;
}

/// One text, or several.
#[derive(Debug, Clone)]
pub(crate) enum OneOrMany {
    One(Text),
    Many(Vec<Text>, Span),
}

#[derive(Debug, Clone)]
pub(crate) struct ExceptionItem {
    pub(crate) name: Text,
    pub(crate) fields: Option<OneOrMany>,
    pub(crate) comps: Option<OneOrMany>,
    pub(crate) values: Option<Vec<Cell>>,
}

/// A value of an exception: text, or a list.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    One(Text),
    Many(Vec<Self>, Span),
}

/// Plugins of which one must be there.
#[derive(Debug)]
pub(crate) struct PluginRequirement {
    /// Name and version; the first is the one asked for, the others alternatives.
    pub(crate) any_of: Vec<(Text, Text)>,
}

/// A mapping whose keys are taken one by one, so that those left over are known to be unknown.
struct Keys<'n> {
    entries: Vec<(&'n Text, &'n Node)>,
    span: Span,
    kind: ItemKind,
    name: &'n str,
}

impl<'n> Keys<'n> {
    fn take(&mut self, key: &str) -> Option<&'n Node> {
        let mut found = None;
        self.entries.retain(|(name, node)| {
            let same = name.as_str() == key;
            if same && found.is_none() {
                found = Some(*node);
            }
            !same
        });
        found.filter(|node| !node.is_null())
    }

    fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, node)| name.as_str() == key && !node.is_null())
    }
}

/// Reads the items of one document.
pub(crate) fn items(document: &Node, report: &mut Report<'_>) -> Vec<Item> {
    if document.is_null() {
        return Vec::new();
    }
    let Node::Seq(nodes, _) = document else {
        let help = "begin each rule, macro or list with `- rule:`, `- macro:` or `- list:`";
        report.add(Code::WrongShape, document.span(), "a rules file must be a sequence of items", |d| d.help(help));
        return Vec::new();
    };
    nodes.iter().filter_map(|node| item(node, report)).collect()
}

fn item(node: &Node, report: &mut Report<'_>) -> Option<Item> {
    let Node::Map(entries, span) = node else {
        report.add(Code::WrongShape, node.span(), "an item must be a mapping", |d| d);
        return None;
    };
    let kinds: [(&str, ItemKind); 5] = [
        ("required_engine_version", ItemKind::EngineVersion),
        ("required_plugin_versions", ItemKind::PluginVersions),
        ("list", ItemKind::List),
        ("macro", ItemKind::Macro),
        ("rule", ItemKind::Rule),
    ];
    let of = |key: &str| entries.iter().find(|(name, _)| name.as_str() == key).map(|(_, node)| node);
    let Some((kind, head)) = kinds.iter().find_map(|(key, kind)| Some((*kind, of(key)?))) else {
        report.add(Code::UnknownItem, first_line(*span, entries), "unknown top level item", |d| {
            d.help("known are rule, macro, list, required_engine_version, required_plugin_versions")
        });
        report.schema_failed();
        return None;
    };
    let name = match head {
        Node::Scalar(text, _) => text.as_str(),
        Node::Seq(..) | Node::Map(..) => "",
    };
    let mut keys = Keys {
        entries: entries.iter().map(|(key, node)| (key, node)).collect(),
        span: first_line(*span, entries),
        kind,
        name,
    };
    let head = keys.take(kind.name())?;
    let item = match kind {
        ItemKind::EngineVersion => text(head, "required_engine_version", &keys, report).map(Item::EngineVersion),
        ItemKind::PluginVersions => plugins(head, &keys, report).map(Item::PluginVersions),
        ItemKind::List => list(head, &mut keys, report),
        ItemKind::Macro => macro_item(head, &mut keys, report),
        ItemKind::Rule => rule(head, &mut keys, report),
        ItemKind::Exception => None,
    };
    unknown_keys(&keys, report);
    item
}

/// The item's first entry: a whole rule is too much to underline.
fn first_line(span: Span, entries: &[(Text, Node)]) -> Span {
    entries.first().map_or(span, |(key, _)| key.whole())
}

fn unknown_keys(keys: &Keys<'_>, report: &mut Report<'_>) {
    for (key, _) in &keys.entries {
        let message = format!("Unknown key '{}'", key.as_str());
        report.schema_failed();
        report.add(Code::UnknownKey, key.whole(), message, |d| d.item(keys.kind, keys.name));
    }
}

fn wrong_shape(span: Span, message: String, keys: &Keys<'_>, report: &mut Report<'_>) {
    report.schema_failed();
    report.add(Code::WrongShape, span, message, |d| d.item(keys.kind, keys.name));
}

fn missing(key: &str, keys: &Keys<'_>, report: &mut Report<'_>) {
    let message = format!("{} has no '{key}'", keys.kind.name());
    report.schema_failed();
    report.add(Code::MissingKey, keys.span, message, |d| d.item(keys.kind, keys.name));
}

fn text(node: &Node, key: &str, keys: &Keys<'_>, report: &mut Report<'_>) -> Option<Text> {
    match node {
        Node::Scalar(text, _) => Some(text.clone()),
        Node::Seq(..) | Node::Map(..) => {
            wrong_shape(node.span(), format!("'{key}' must be text"), keys, report);
            None
        }
    }
}

fn texts(node: &Node, key: &str, keys: &Keys<'_>, report: &mut Report<'_>) -> Option<Vec<Text>> {
    match node {
        Node::Seq(items, _) => items.iter().map(|item| text(item, key, keys, report)).collect(),
        Node::Scalar(..) | Node::Map(..) => {
            wrong_shape(node.span(), format!("'{key}' must be a sequence"), keys, report);
            None
        }
    }
}

/// A flag, in the spellings of YAML 1.1 that Falco's parser takes.
fn flag(key: &str, keys: &mut Keys<'_>, report: &mut Report<'_>) -> Option<bool> {
    let node = keys.take(key)?;
    if let Node::Scalar(text, style) = node {
        let word = text.as_str();
        let lower = word.to_ascii_lowercase();
        let cased = word == lower || word == word.to_ascii_uppercase() || word[1..] == lower[1..];
        let value = match &*lower {
            "y" | "yes" | "true" | "on" if cased => Some(true),
            "n" | "no" | "false" | "off" if cased => Some(false),
            _ => None,
        };
        if *style != ScalarStyle::Plain || !matches!(&*lower, "true" | "false") {
            report.schema_failed();
        }
        if value.is_some() {
            return value;
        }
    }
    wrong_shape(node.span(), format!("'{key}' must be true or false"), keys, report);
    None
}

fn list(head: &Node, keys: &mut Keys<'_>, report: &mut Report<'_>) -> Option<Item> {
    let name = text(head, "list", keys, report)?;
    let items = keys.take("items");
    let mode = simple_mode("items", keys, report);
    let Some(items) = items else {
        missing("items", keys, report);
        return None;
    };
    Some(Item::List(ListItem { name, items: texts(items, "items", keys, report)?, mode: mode? }))
}

fn macro_item(head: &Node, keys: &mut Keys<'_>, report: &mut Report<'_>) -> Option<Item> {
    let name = text(head, "macro", keys, report)?;
    let condition = keys.take("condition");
    let mode = simple_mode("condition", keys, report);
    let Some(condition) = condition else {
        missing("condition", keys, report);
        return None;
    };
    Some(Item::Macro(MacroItem { name, condition: text(condition, "condition", keys, report)?, mode: mode? }))
}

/// The mode of an item with one key that can be overridden.
fn simple_mode(key: &str, keys: &mut Keys<'_>, report: &mut Report<'_>) -> Option<Mode> {
    let append = append(keys, report);
    let Some(node) = keys.take("override") else {
        return Some(if append.is_some() { Mode::Append } else { Mode::Define });
    };
    if let Some(span) = append {
        append_and_override(span, keys, report);
        return None;
    }
    let mut mode = Mode::Define;
    for (name, how, span) in overrides(node, keys, report)? {
        if name != key {
            let message = format!("Key '{name}' cannot be overridden here, only '{key}'");
            report.add(Code::InvalidOverride, span, message, |d| d.item(keys.kind, keys.name));
            return None;
        }
        mode = if how == How::Append { Mode::Append } else { Mode::Define };
    }
    Some(mode)
}

/// The deprecated `append: true`; gives its place.
fn append(keys: &mut Keys<'_>, report: &mut Report<'_>) -> Option<Span> {
    let span = keys.entries.iter().find(|(key, _)| key.as_str() == "append").map(|(key, _)| key.whole())?;
    let append = flag("append", keys, report)?;
    if !append {
        return None;
    }
    let message =
        "'append' key is deprecated. Add an 'append' entry (e.g. 'condition: append') under 'override' instead.";
    report.add(Code::DeprecatedAppend, span, message, |d| d.item(keys.kind, keys.name));
    Some(span)
}

fn append_and_override(span: Span, keys: &Keys<'_>, report: &mut Report<'_>) {
    let message = "Keys 'override' and 'append: true' cannot be used together. Add an 'append' entry (e.g. \
                   'condition: append') under 'override' instead.";
    report.add(Code::AppendAndOverride, span, message, |d| d.item(keys.kind, keys.name));
}

fn overrides<'n>(node: &'n Node, keys: &Keys<'_>, report: &mut Report<'_>) -> Option<Vec<(&'n str, How, Span)>> {
    let Node::Map(entries, _) = node else {
        wrong_shape(node.span(), "'override' must be a mapping of keys to append or replace".to_owned(), keys, report);
        return None;
    };
    let entry = |(key, value): &'n (Text, Node)| {
        let word = match value {
            Node::Scalar(text, _) => text.as_str(),
            Node::Seq(..) | Node::Map(..) => "",
        };
        let how = match word {
            "append" => How::Append,
            "replace" => How::Replace,
            _ => {
                let message = format!("Invalid override operation for key '{}': '{word}'", key.as_str());
                report.add(Code::InvalidOverride, value.span(), message, |d| {
                    d.help("write `append` or `replace`").item(keys.kind, keys.name)
                });
                return None;
            }
        };
        Some((key.as_str(), how, key.whole()))
    };
    entries.iter().map(entry).collect()
}

fn rule(head: &Node, keys: &mut Keys<'_>, report: &mut Report<'_>) -> Option<Item> {
    let name = text(head, "rule", keys, report)?;
    let present: Vec<RuleKey> = RuleKey::ALL.iter().copied().filter(|key| keys.has(key.name())).collect();
    let mode = rule_mode(&present, keys, report);
    let mut whole = |key: &str| keys.take(key);
    let (condition, output, desc, source) = (whole("condition"), whole("output"), whole("desc"), whole("source"));
    let (priority, tags, exceptions, duration) =
        (whole("priority"), whole("tags"), whole("exceptions"), whole("capture_duration"));
    let errors = report.errors();
    let wanted = |node: Option<&Node>, key: &str, report: &mut Report<'_>| text(node?, key, keys, report);
    let condition = wanted(condition, "condition", report);
    let output = wanted(output, "output", report);
    let desc = wanted(desc, "desc", report);
    let source = wanted(source, "source", report);
    let priority_text = wanted(priority, "priority", report);
    let duration_text = wanted(duration, "capture_duration", report);
    let mut priority = None;
    if let Some(text) = priority_text {
        priority = Priority::parse(text.as_str());
        if priority.is_none() {
            let message = format!("Invalid priority '{}'", text.as_str());
            let names: Vec<_> = Priority::ALL.iter().map(|p| p.name()).collect();
            report.schema_failed();
            report.add(Code::UnknownPriority, text.whole(), message, |d| {
                d.help(format!("possible are {}", names.join(", "))).item(keys.kind, keys.name)
            });
        }
    }
    let mut capture_duration = None;
    if let Some(text) = duration_text {
        capture_duration = text.as_str().parse().ok();
        if capture_duration.is_none() {
            wrong_shape(text.whole(), "'capture_duration' must be a number of milliseconds".to_owned(), keys, report);
        }
    }
    let tags = tags.and_then(|node| texts(node, "tags", keys, report));
    let exceptions = exceptions.and_then(|node| self::exceptions(node, keys, report));
    let enabled = flag("enabled", keys, report);
    let warn_evttypes = flag("warn_evttypes", keys, report);
    let skip_if_unknown_filter = flag("skip-if-unknown-filter", keys, report);
    let capture = flag("capture", keys, report);
    if report.errors() > errors {
        return None;
    }
    Some(Item::Rule(Box::new(RuleItem {
        name,
        mode: mode?,
        condition,
        output,
        desc,
        priority,
        source,
        enabled,
        tags,
        exceptions,
        warn_evttypes,
        skip_if_unknown_filter,
        capture,
        capture_duration,
    })))
}

fn rule_mode(present: &[RuleKey], keys: &mut Keys<'_>, report: &mut Report<'_>) -> Option<RuleMode> {
    let append = append(keys, report);
    if let Some(node) = keys.take("override") {
        if let Some(span) = append {
            append_and_override(span, keys, report);
            return None;
        }
        let written = overrides(node, keys, report)?;
        return rule_overrides(&written, present, keys, report).map(RuleMode::Override);
    }
    if append.is_some() {
        return Some(RuleMode::Append);
    }
    let required = [RuleKey::Condition, RuleKey::Output, RuleKey::Desc, RuleKey::Priority];
    let absent: Vec<_> = required.into_iter().filter(|key| !present.contains(key)).collect();
    if absent.len() == required.len() && present.contains(&RuleKey::Enabled) {
        let message = "The standalone 'enabled' key usage is deprecated. The correct approach requires also a \
                       'replace' entry under the 'override' key (i.e. 'enabled: replace').";
        report.add(Code::DeprecatedEnabled, keys.span, message, |d| d.item(keys.kind, keys.name));
        return Some(RuleMode::Enable);
    }
    absent.iter().for_each(|key| missing(key.name(), keys, report));
    absent.is_empty().then_some(RuleMode::Define)
}

fn rule_overrides(
    written: &[(&str, How, Span)],
    present: &[RuleKey],
    keys: &Keys<'_>,
    report: &mut Report<'_>,
) -> Option<Vec<(RuleKey, How)>> {
    let mut found = Vec::new();
    let mut wrong = |span: Span, message: String| {
        report.add(Code::InvalidOverride, span, message, |d| d.item(keys.kind, keys.name));
    };
    for (name, how, span) in written {
        let (word, other) = match how {
            How::Append => ("append", "replace"),
            How::Replace => ("replace", "append"),
        };
        match RuleKey::ALL.iter().find(|key| key.name() == *name) {
            None => wrong(*span, format!("Key '{name}' cannot be overridden")),
            Some(key) if *how == How::Append && !key.can_append() => {
                wrong(*span, format!("Key '{name}' cannot be appended to, use '{other}' instead"));
            }
            Some(key) if !present.contains(key) => {
                let article = if *how == How::Append { "An" } else { "A" };
                wrong(
                    *span,
                    format!("{article} {word} override for '{name}' was specified but '{name}' is not defined"),
                );
            }
            Some(key) => found.push((*key, *how)),
        }
    }
    for key in present.iter().filter(|key| !written.iter().any(|(name, ..)| *name == key.name())) {
        wrong(keys.span, format!("Unexpected key '{}': it is not listed under 'override'", key.name()));
    }
    (found.len() == written.len() && found.len() == present.len()).then_some(found)
}

fn exceptions(node: &Node, keys: &Keys<'_>, report: &mut Report<'_>) -> Option<Vec<ExceptionItem>> {
    let Node::Seq(items, _) = node else {
        wrong_shape(node.span(), "'exceptions' must be a sequence".to_owned(), keys, report);
        return None;
    };
    items.iter().map(|item| exception(item, keys, report)).collect()
}

fn exception(node: &Node, keys: &Keys<'_>, report: &mut Report<'_>) -> Option<ExceptionItem> {
    let Node::Map(entries, span) = node else {
        wrong_shape(node.span(), "an exception must be a mapping".to_owned(), keys, report);
        return None;
    };
    let mut own = Keys {
        entries: entries.iter().map(|(key, node)| (key, node)).collect(),
        span: first_line(*span, entries),
        kind: ItemKind::Exception,
        name: keys.name,
    };
    let name = match own.take("name") {
        Some(node) => text(node, "name", &own, report),
        None => {
            missing("name", &own, report);
            None
        }
    };
    let mut one_or_many = |key: &str| match own.take(key) {
        None => Some(None),
        Some(Node::Scalar(text, _)) => Some(Some(OneOrMany::One(text.clone()))),
        Some(node) => texts(node, key, &own, report).map(|texts| Some(OneOrMany::Many(texts, node.span()))),
    };
    let (fields, comps) = (one_or_many("fields"), one_or_many("comps"));
    let values = match own.take("values") {
        None => Some(None),
        Some(Node::Seq(items, _)) => {
            items.iter().map(|item| cell(item, &own, report)).collect::<Option<Vec<_>>>().map(Some)
        }
        Some(node) => {
            wrong_shape(node.span(), "'values' must be a sequence".to_owned(), &own, report);
            None
        }
    };
    unknown_keys(&own, report);
    Some(ExceptionItem { name: name?, fields: fields?, comps: comps?, values: values? })
}

fn cell(node: &Node, keys: &Keys<'_>, report: &mut Report<'_>) -> Option<Cell> {
    match node {
        Node::Scalar(text, _) => Some(Cell::One(text.clone())),
        Node::Seq(items, span) => {
            let items = items.iter().map(|item| cell(item, keys, report)).collect::<Option<_>>()?;
            Some(Cell::Many(items, *span))
        }
        Node::Map(..) => {
            wrong_shape(node.span(), "a value of an exception must be text or a sequence".to_owned(), keys, report);
            None
        }
    }
}

fn plugins(head: &Node, keys: &Keys<'_>, report: &mut Report<'_>) -> Option<Vec<PluginRequirement>> {
    let Node::Seq(items, _) = head else {
        wrong_shape(head.span(), "'required_plugin_versions' must be a sequence".to_owned(), keys, report);
        return None;
    };
    let requirement = |node: &Node| {
        let mut any_of = vec![plugin(node, keys, report)?];
        if let Node::Map(entries, _) = node
            && let Some((_, Node::Seq(alternatives, _))) =
                entries.iter().find(|(key, _)| key.as_str() == "alternatives")
        {
            for alternative in alternatives {
                any_of.push(plugin(alternative, keys, report)?);
            }
        }
        Some(PluginRequirement { any_of })
    };
    items.iter().map(requirement).collect()
}

fn plugin(node: &Node, keys: &Keys<'_>, report: &mut Report<'_>) -> Option<(Text, Text)> {
    let entry = |key: &str| match node {
        Node::Map(entries, _) => entries.iter().find(|(name, _)| name.as_str() == key).map(|(_, node)| node),
        Node::Scalar(..) | Node::Seq(..) => None,
    };
    match (entry("name"), entry("version")) {
        (Some(name), Some(version)) => {
            Some((text(name, "name", keys, report)?, text(version, "version", keys, report)?))
        }
        _ => {
            wrong_shape(node.span(), "a plugin requirement needs 'name' and 'version'".to_owned(), keys, report);
            None
        }
    }
}
