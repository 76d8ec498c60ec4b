//! Definitions → conditions as trees: lists are put in as text, then the text is parsed, then macros are put in as
//! trees. Sizes are bounded at every step, as lists and macros can grow a small file exponentially.

use std::{collections::BTreeSet, rc::Rc};

use hashbrown::{HashMap, HashSet};

use super::{
    Report,
    collect::{Definitions, did_you_mean},
    exception::{self, push_quoted},
};
use crate::{
    diagnostic::{Code, ItemKind},
    filter::{
        ast::{At, Expr, TextId},
        parse::{Depth, SyntaxError, parse},
    },
    source::{Span, Text},
};

/// Most bytes of a condition with its lists.
const MAX_TEXT: usize = 4 << 20;
/// Most nodes of a condition with its macros.
const MAX_NODES: usize = 200_000;
/// Deepest tree of a condition with its macros.
const MAX_DEPTH: usize = 500;
/// Longest chain of macros.
const MAX_MACROS: usize = 100;

/// Bytes at which a list's name may begin or end.
fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'(' | b')' | b',' | b'=')
}

/// A macro with its lists put in.
struct Parsed {
    /// `None` when it has an error that has been reported.
    tree: Option<Rc<Expr>>,
}

/// Puts lists and macros in.
pub(crate) struct Resolver<'d> {
    definitions: &'d Definitions,
    /// Compiled items of each list.
    lists: Vec<Text>,
    /// Lists by the first word of their name.
    words: HashMap<&'d str, Vec<usize>, ahash::RandomState>,
    macros: Vec<Parsed>,
    /// The texts that trees were parsed from, by [`TextId`].
    pub(crate) texts: Vec<Text>,
    /// Lists and macros that something refers to.
    pub(crate) used_lists: HashSet<usize>,
    pub(crate) used_macros: HashSet<usize>,
}

impl<'d> Resolver<'d> {
    /// Compiles all lists and macros.
    pub(crate) fn new(definitions: &'d Definitions, report: &mut Report<'_>) -> Self {
        let mut resolver = Self {
            definitions,
            lists: Vec::new(),
            words: HashMap::default(),
            macros: Vec::new(),
            texts: Vec::new(),
            used_lists: HashSet::new(),
            used_macros: HashSet::new(),
        };
        for at in 0..definitions.lists.entries.len() {
            let list = resolver.list(at);
            resolver.lists.push(list);
            let name = definitions.lists.entries[at].name.as_str();
            if let Some(word) =
                name.split(|char: char| char.is_ascii() && is_delimiter(char as u8)).find(|w| !w.is_empty())
            {
                resolver.words.entry(word).or_default().push(at);
            }
        }
        for definition in &definitions.macros.entries {
            let name = definition.name.as_str();
            let tree = resolver.parse(definition.condition.clone(), ItemKind::Macro, name, report);
            let visible = tree.filter(|tree| resolver.macro_references(tree, name, definition.touched, report));
            resolver.macros.push(Parsed { tree: visible.map(Rc::new) });
        }
        resolver.loops(report);
        resolver
    }

    /// The items of a list as text: names of earlier lists among them are replaced, one level deep.
    fn list(&mut self, at: usize) -> Text {
        let lists = &self.definitions.lists;
        let list = &lists.entries[at];
        let mut text = Text::made("", list.name.whole());
        let mut first = true;
        let mut push = |item: &Text| {
            text.push_made(if first { "" } else { ", " }, item.whole());
            first = false;
            push_quoted_item(&mut text, item);
        };
        for item in &list.items {
            match lists.position(item.as_str()).filter(|inner| lists.entries[*inner].index < list.touched) {
                Some(inner) => {
                    self.used_lists.insert(inner);
                    lists.entries[inner].items.iter().for_each(&mut push);
                }
                None => push(item),
            }
        }
        text
    }

    /// The items of a list after nesting, unquoted: for listings.
    pub(crate) fn compiled_items(definitions: &Definitions, at: usize) -> Vec<&str> {
        let lists = &definitions.lists;
        let list = &lists.entries[at];
        let mut items = Vec::new();
        for item in &list.items {
            match lists.position(item.as_str()).filter(|inner| lists.entries[*inner].index < list.touched) {
                Some(inner) => items.extend(lists.entries[inner].items.iter().map(Text::as_str)),
                None => items.push(item.as_str()),
            }
        }
        items
    }

    /// Puts the lists into a condition. They are taken in the order of their definition, each over the result of
    /// the ones before it.
    fn put_lists(&mut self, text: Text) -> Option<Text> {
        let mut text = text;
        let mut open = BTreeSet::new();
        let words = |text: &str,
                     open: &mut BTreeSet<usize>,
                     from: usize,
                     index: &HashMap<&str, Vec<usize>, ahash::RandomState>| {
            for word in text.split(|char: char| char.is_ascii() && is_delimiter(char as u8)) {
                open.extend(index.get(word).into_iter().flatten().filter(|list| **list >= from));
            }
        };
        words(text.as_str(), &mut open, 0, &self.words);
        while let Some(at) = open.pop_first() {
            let name = self.definitions.lists.entries[at].name.as_str();
            let items = &self.lists[at];
            let Some(replaced) = replace(&text, name, items) else { continue };
            self.used_lists.insert(at);
            text = replaced;
            if text.as_str().len() > MAX_TEXT {
                return None;
            }
            words(items.as_str(), &mut open, at + 1, &self.words);
        }
        Some(text)
    }

    fn parse(&mut self, text: Text, kind: ItemKind, name: &str, report: &mut Report<'_>) -> Option<Expr> {
        let place = text.whole();
        let Some(text) = self.put_lists(text) else {
            too_large(place, kind, name, report);
            return None;
        };
        let id = TextId(self.texts.len() as u32);
        let parsed = parse(text.as_str(), id, Depth::RULES);
        let result = match parsed {
            Ok(tree) if depth(&tree) > MAX_DEPTH => {
                too_large(place, kind, name, report);
                None
            }
            Ok(tree) => Some(tree),
            Err(SyntaxError { message, start, end, help }) => {
                let span = text.span(start..end);
                report.add(Code::Syntax, span, message, |d| d.maybe_help(help.map(str::to_owned)).item(kind, name));
                None
            }
        };
        self.texts.push(text);
        result
    }

    /// Whether all macros that a macro refers to were there when it was last touched.
    fn macro_references(&mut self, tree: &Expr, name: &str, touched: u32, report: &mut Report<'_>) -> bool {
        let macros = &self.definitions.macros;
        let mut complete = true;
        for (wanted, at) in references(tree) {
            match macros.position(wanted).filter(|found| macros.entries[*found].index < touched) {
                Some(found) => {
                    self.used_macros.insert(found);
                }
                None => {
                    complete = false;
                    let help = match macros.position(wanted) {
                        Some(_) => Some(format!("`{wanted}` is defined further down: move it up")),
                        None => did_you_mean(wanted, macros.names()),
                    };
                    undefined(self.span(at), wanted, help, ItemKind::Macro, name, report);
                }
            }
        }
        complete
    }

    /// Reports macros that refer to themselves, and breaks the loops.
    fn loops(&mut self, report: &mut Report<'_>) {
        // 0: not seen, 1: on the path, 2: done. The path is a stack of our own: chains may be long.
        let mut state = vec![0_u8; self.macros.len()];
        for start in 0..self.macros.len() {
            let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
            let mut enter = Some(start).filter(|start| state[*start] == 0);
            loop {
                if let Some(at) = enter.take() {
                    state[at] = 1;
                    let next = self.macros[at].tree.as_deref().map(references).unwrap_or_default();
                    let next = next.into_iter().filter_map(|(name, _)| self.definitions.macros.position(name));
                    path.push((at, next.collect()));
                }
                let too_long = path.len() > MAX_MACROS;
                let Some((at, next)) = path.last_mut() else { break };
                let at = *at;
                match next.pop() {
                    Some(found) if state[found] == 0 && !too_long => enter = Some(found),
                    Some(found) if state[found] == 1 || state[found] == 0 => {
                        let definition = &self.definitions.macros.entries[at];
                        let message = match state[found] {
                            1 => "reference loop in macro".to_owned(),
                            _ => format!("more than {MAX_MACROS} macros refer to each other in a chain"),
                        };
                        report.add(Code::MacroLoop, definition.name.whole(), message, |d| {
                            d.item(ItemKind::Macro, definition.name.as_str())
                        });
                        self.macros[at].tree = None;
                    }
                    Some(_) => {}
                    None => {
                        state[at] = 2;
                        path.pop();
                    }
                }
            }
        }
    }

    /// The whole condition of a rule. Mistakes are reported; `None` if there are any.
    pub(crate) fn rule(&mut self, at: usize, report: &mut Report<'_>) -> Option<Expr> {
        let definitions = self.definitions;
        let rule = &definitions.rules.entries[at];
        let name = rule.name.as_str();
        let text = exception::condition(&rule.condition, &rule.exceptions);
        let tree = self.parse(text, ItemKind::Rule, name, report)?;
        let mut complete = true;
        for (wanted, at) in references(&tree) {
            match definitions.macros.position(wanted) {
                Some(found) => {
                    self.used_macros.insert(found);
                    complete &= self.macros[found].tree.is_some();
                }
                None => {
                    complete = false;
                    let help = did_you_mean(wanted, definitions.macros.names());
                    undefined(self.span(at), wanted, help, ItemKind::Rule, name, report);
                }
            }
        }
        if !complete {
            return None;
        }
        let mut budget = MAX_NODES;
        let expanded = self.expand(&tree, &mut budget, MAX_MACROS);
        match expanded {
            Expanded::Tree(tree) if depth(&tree) <= MAX_DEPTH => Some(tree),
            Expanded::Tree(_) | Expanded::TooLarge => {
                too_large(rule.condition.whole(), ItemKind::Rule, name, report);
                None
            }
            Expanded::Broken => None,
        }
    }

    fn expand(&self, expr: &Expr, budget: &mut usize, chain: usize) -> Expanded {
        let Some(left) = budget.checked_sub(1) else { return Expanded::TooLarge };
        *budget = left;
        let parts = |parts: &[Expr], budget: &mut usize| {
            let mut expanded = Vec::with_capacity(parts.len());
            for part in parts {
                match self.expand(part, budget, chain) {
                    Expanded::Tree(part) => expanded.push(part),
                    other => return Err(other),
                }
            }
            Ok(expanded)
        };
        Expanded::Tree(match expr {
            Expr::And(items, at) => match parts(items, budget) {
                Ok(items) => Expr::And(items, *at),
                Err(other) => return other,
            },
            Expr::Or(items, at) => match parts(items, budget) {
                Ok(items) => Expr::Or(items, *at),
                Err(other) => return other,
            },
            Expr::Not(inner, at) => match self.expand(inner, budget, chain) {
                Expanded::Tree(inner) => Expr::Not(Box::new(inner), *at),
                other => return other,
            },
            Expr::Check(_) => expr.clone(),
            Expr::Macro(name, _) => {
                let found = self.definitions.macros.position(name);
                let Some(tree) = found.and_then(|found| self.macros.get(found)?.tree.clone()) else {
                    return Expanded::Broken;
                };
                return match chain.checked_sub(1) {
                    Some(chain) => self.expand(&tree, budget, chain),
                    None => Expanded::TooLarge,
                };
            }
        })
    }

    /// Where a stretch of a tree's text stems from.
    pub(crate) fn span(&self, at: At) -> Span {
        let text = &self.texts[at.text.0 as usize];
        text.span(at.start as usize..at.end as usize)
    }
}

/// A tree with its macros put in, or why not.
enum Expanded {
    Tree(Expr),
    TooLarge,
    /// A macro has an error of its own.
    Broken,
}

fn undefined(span: Span, wanted: &str, help: Option<String>, kind: ItemKind, name: &str, report: &mut Report<'_>) {
    let message = format!("Undefined macro '{wanted}' used in filter.");
    report.add(Code::UndefinedMacro, span, message, |d| d.maybe_help(help).item(kind, name));
}

fn too_large(span: Span, kind: ItemKind, name: &str, report: &mut Report<'_>) {
    let message = "the condition is too large, or nests too deeply, with its lists and macros put in";
    report.add(Code::ConditionTooLarge, span, message, |d| d.item(kind, name));
}

fn push_quoted_item(text: &mut Text, item: &Text) {
    match item.as_str().is_empty() {
        true => text.push_made("\"\"", item.whole()),
        false => push_quoted(text, item),
    }
}

/// Every macro that a tree names.
pub(crate) fn references(tree: &Expr) -> Vec<(&str, At)> {
    let mut found = Vec::new();
    let mut open = vec![tree];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::And(parts, _) | Expr::Or(parts, _) => open.extend(parts.iter().rev()),
            Expr::Not(inner, _) => open.push(inner),
            Expr::Macro(name, at) => found.push((&**name, *at)),
            Expr::Check(_) => {}
        }
    }
    found
}

/// Levels of `and`, `or` and `not`.
fn depth(tree: &Expr) -> usize {
    let mut deepest = 0;
    let mut open = vec![(tree, 1)];
    while let Some((expr, level)) = open.pop() {
        deepest = deepest.max(level);
        match expr {
            Expr::And(parts, _) | Expr::Or(parts, _) => open.extend(parts.iter().map(|part| (part, level + 1))),
            Expr::Not(inner, _) => open.push((inner, level + 1)),
            Expr::Macro(..) | Expr::Check(_) => {}
        }
    }
    deepest
}

/// Replaces a list's name wherever it stands alone, by its items. `None` if it doesn't.
fn replace(text: &Text, name: &str, items: &Text) -> Option<Text> {
    let value = text.as_str();
    let bytes = value.as_bytes();
    let mut result: Option<Text> = None;
    let mut done = 0;
    let mut from = 0;
    while let Some(start) = value.get(from..).and_then(|rest| rest.find(name)).map(|at| from + at) {
        let end = start + name.len();
        from = end;
        let before = start.checked_sub(1).is_none_or(|at| is_delimiter(bytes[at]));
        let behind = bytes.get(end).is_none_or(|byte| is_delimiter(*byte));
        if !before || !behind {
            // Names may overlap themselves: go on behind the first character.
            from = start + value[start..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        let place = text.span(start..end);
        let result = result.get_or_insert_with(|| Text::made("", text.whole()));
        let (mut cut, mut resume) = (start, end);
        if items.as_str().is_empty() {
            // An empty list takes one comma with it.
            let left = value[done..start].trim_end();
            let right = value[end..].len() - value[end..].trim_start().len();
            if left.ends_with(',') {
                cut = done + left.len() - 1;
            } else if value[end + right..].starts_with(',') {
                resume = end + right + 1;
            }
        }
        result.push(&text.slice(done..cut));
        result.push_made(" ", place);
        result.push(items);
        result.push_made(" ", place);
        done = resume;
        from = from.max(resume);
    }
    let mut result = result?;
    result.push(&text.slice(done..value.len()));
    Some(result)
}
