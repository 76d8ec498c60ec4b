//! Definitions → conditions as trees: lists are put in as text, then the text is parsed, then macros are put in as
//! trees. Sizes are bounded at every step, as lists and macros can grow a small file exponentially.
//!
//! A layer of a namespace goes on where the layer of the cluster ends: its definitions count as later ones. Positions in
//! both together are those of a [`View`]: first the cluster's, then its own.

use std::{collections::BTreeSet, sync::Arc};

use hashbrown::HashSet;

use super::{
    Report,
    cache::{Layer, ListState, MacroState},
    collect::{Definitions, ListDef, MacroDef, did_you_mean},
    exception::{self, push_quoted},
};
use crate::{
    diagnostic::{Code, ItemKind},
    filter::{
        ast::{At, Expr, Op, Right, Test, TextId},
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

/// The first word of a list's name, if there is one.
pub(crate) fn first_word(name: &str) -> Option<&str> {
    words(name).find(|word| !word.is_empty())
}

/// The words of a text that may be lists, and some that are empty.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| char.is_ascii() && is_delimiter(char as u8))
}

/// What a regular expression costs, in nodes of a tree: it takes that much longer to compile.
const REGEX_WORK: usize = 2000;
/// Bytes of text that cost as much as a node.
const TEXT_WORK: usize = 16;

/// The definitions that a layer can see.
pub(crate) struct View<'d> {
    pub(crate) own: &'d Definitions,
    pub(crate) layer: &'d mut Layer,
    /// The layer of the cluster, for those of namespaces.
    pub(crate) base: Option<(&'d Definitions, &'d Layer)>,
    /// The texts that trees were parsed from, by [`TextId`].
    pub(crate) texts: &'d mut Vec<Text>,
    /// How much work may still be done.
    pub(crate) work: &'d mut usize,
}

/// What a condition was made of, by position in the view.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uses {
    pub(crate) lists: Vec<usize>,
    /// Those that are referred to by others too.
    pub(crate) macros: HashSet<usize>,
    /// The text with its lists.
    pub(crate) text: Option<TextId>,
}

impl View<'_> {
    /// The base's definitions as far as they count: what came later does not.
    fn base_lists(&self) -> usize {
        self.layer.base_lists
    }

    fn base_macros(&self) -> usize {
        self.layer.base_macros
    }

    fn list_def(&self, at: usize) -> Option<&ListDef> {
        match at.checked_sub(self.base_lists()) {
            Some(own) => self.own.lists.entries.get(own).map(|list| &**list),
            None => self.base?.0.lists.entries.get(at).map(|list| &**list),
        }
    }

    fn list_text(&self, at: usize) -> Option<Arc<Text>> {
        match at.checked_sub(self.base_lists()) {
            Some(own) => self.layer.lists.get(own).map(|state| state.text.clone()),
            None => self.base?.1.lists.get(at).map(|state| state.text.clone()),
        }
    }

    fn find_list(&self, name: &str) -> Option<usize> {
        let own = self.own.lists.position(name).map(|at| at + self.base_lists());
        let base = || self.base?.0.lists.position(name).filter(|at| *at < self.base_lists());
        own.or_else(base)
    }

    fn macro_def(&self, at: usize) -> Option<&MacroDef> {
        match at.checked_sub(self.base_macros()) {
            Some(own) => self.own.macros.entries.get(own).map(|known| &**known),
            None => self.base?.0.macros.entries.get(at).map(|known| &**known),
        }
    }

    fn macro_state_of(&self, at: usize) -> Option<&Arc<MacroState>> {
        match at.checked_sub(self.base_macros()) {
            Some(own) => self.layer.macros.get(own),
            None => self.base?.1.macros.get(at),
        }
    }

    fn find_macro(&self, name: &str) -> Option<usize> {
        let own = self.own.macros.position(name).map(|at| at + self.base_macros());
        let base = || self.base?.0.macros.position(name).filter(|at| *at < self.base_macros());
        own.or_else(base)
    }

    fn macro_names(&self) -> impl Iterator<Item = &str> {
        self.own.macros.names().chain(self.base.into_iter().flat_map(|(base, _)| base.macros.names()))
    }

    /// Lists whose name begins with a word, except those that the layer hides by one of its own.
    fn lists_of_word(&self, word: &str, from: usize, open: &mut BTreeSet<usize>) {
        let own = self.layer.words.get(word).into_iter().flatten().map(|at| at + self.base_lists());
        open.extend(own.filter(|at| *at >= from));
        let Some((base, layer)) = self.base else { return };
        for at in layer.words.get(word).into_iter().flatten().copied() {
            let name = base.lists.entries.get(at).map(|list| list.name.as_str());
            let hidden = name.is_none_or(|name| self.own.lists.position(name).is_some());
            if at >= from && at < self.base_lists() && !hidden {
                open.insert(at);
            }
        }
    }

    fn charge(&mut self, work: usize) -> bool {
        let left = self.work.checked_sub(work);
        *self.work = left.unwrap_or(0);
        left.is_some()
    }

    /// The items of a list as text: names of earlier lists among them are replaced, one level deep.
    pub(crate) fn list(&mut self, at: usize) -> Option<ListState> {
        let list = self.own.lists.entries.get(at)?;
        let mut text = Text::made("", list.name.whole());
        let mut inner = Vec::new();
        let mut first = true;
        let mut push = |item: &Text| {
            text.push_made(if first { "" } else { ", " }, item.whole());
            first = false;
            push_quoted_item(&mut text, item);
        };
        for item in &list.items {
            let found = self.find_list(item.as_str());
            match found.and_then(|found| Some((found, self.list_def(found)?))) {
                Some((found, def)) if def.index < list.touched => {
                    inner.push(found);
                    def.items.iter().for_each(&mut push);
                }
                _ => push(item),
            }
        }
        self.charge(text.as_str().len() / TEXT_WORK);
        Some(ListState { text: Arc::new(text), inner })
    }

    /// Puts the lists into a condition. They are taken in the order of their definition, each over the result of
    /// the ones before it.
    fn put_lists(&mut self, text: Text, uses: &mut Uses) -> Option<Text> {
        let mut text = text;
        let mut open = BTreeSet::new();
        words(text.as_str()).for_each(|word| self.lists_of_word(word, 0, &mut open));
        while let Some(at) = open.pop_first() {
            let (Some(list), Some(items)) = (self.list_def(at), self.list_text(at)) else { continue };
            let Some(replaced) = replace(&text, list.name.as_str(), &items) else { continue };
            uses.lists.push(at);
            text = replaced;
            if text.as_str().len() > MAX_TEXT || !self.charge(items.as_str().len() / TEXT_WORK) {
                return None;
            }
            words(items.as_str()).for_each(|word| self.lists_of_word(word, at + 1, &mut open));
        }
        Some(text)
    }

    fn parse(
        &mut self,
        text: Text,
        kind: ItemKind,
        name: &str,
        uses: &mut Uses,
        report: &mut Report<'_>,
    ) -> Option<Expr> {
        let place = text.whole();
        let enough = self.charge(text.as_str().len() / TEXT_WORK);
        let Some(text) = self.put_lists(text, uses).filter(|_| enough) else {
            self.too_large(place, kind, name, report);
            return None;
        };
        let id = TextId(self.texts.len() as u32);
        uses.text = Some(id);
        let parsed = parse(text.as_str(), id, Depth::RULES);
        let result = match parsed {
            Ok(tree) if depth(&tree) > MAX_DEPTH => {
                self.too_large(place, kind, name, report);
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

    /// A macro of this layer with its lists put in.
    pub(crate) fn macro_state(&mut self, at: usize, report: &mut Report<'_>) -> MacroState {
        let mut uses = Uses::default();
        let own = self.own;
        let tree = own.macros.entries.get(at).and_then(|definition| {
            let name = definition.name.as_str();
            let tree = self.parse(definition.condition.clone(), ItemKind::Macro, name, &mut uses, report)?;
            self.macro_references(&tree, name, definition.touched, &mut uses, report).then_some(tree)
        });
        MacroState { tree: tree.map(Arc::new), uses }
    }

    /// Whether all macros that a macro refers to were there when it was last touched.
    fn macro_references(
        &self,
        tree: &Expr,
        name: &str,
        touched: u32,
        uses: &mut Uses,
        report: &mut Report<'_>,
    ) -> bool {
        let mut complete = true;
        for (wanted, at) in references(tree) {
            let found = self.find_macro(wanted);
            match found.filter(|found| self.macro_def(*found).is_some_and(|known| known.index < touched)) {
                Some(found) => {
                    uses.macros.insert(found);
                }
                None => {
                    complete = false;
                    let help = match found {
                        Some(_) => Some(format!("`{wanted}` is defined further down: move it up")),
                        None => did_you_mean(wanted, self.macro_names()),
                    };
                    undefined(self.span(at), wanted, help, ItemKind::Macro, name, report);
                }
            }
        }
        complete
    }

    /// Reports macros that refer to themselves, and breaks the loops.
    pub(crate) fn loops(&mut self, report: &mut Report<'_>) {
        let base = self.base_macros();
        let next = |view: &Self, at: usize| -> Vec<usize> {
            let tree = view.layer.macros.get(at).and_then(|state| state.tree.as_deref());
            let names = tree.map(references).unwrap_or_default();
            names.into_iter().filter_map(|(name, _)| view.find_macro(name)?.checked_sub(base)).collect()
        };
        // 0: not seen, 1: on the path, 2: done. The path is a stack of our own: chains may be long.
        let mut state = vec![0_u8; self.layer.macros.len()];
        for start in 0..state.len() {
            let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
            let mut enter = Some(start).filter(|start| state[*start] == 0);
            loop {
                if let Some(at) = enter.take() {
                    state[at] = 1;
                    path.push((at, next(self, at)));
                }
                let too_long = path.len() > MAX_MACROS;
                let Some((at, next)) = path.last_mut() else { break };
                let at = *at;
                match next.pop() {
                    Some(found) if state[found] == 0 && !too_long => enter = Some(found),
                    Some(found) if state[found] == 1 || state[found] == 0 => {
                        let definition = &self.own.macros.entries[at];
                        let message = match state[found] {
                            1 => "reference loop in macro".to_owned(),
                            _ => format!("more than {MAX_MACROS} macros refer to each other in a chain"),
                        };
                        report.add(Code::MacroLoop, definition.name.whole(), message, |d| {
                            d.item(ItemKind::Macro, definition.name.as_str())
                        });
                        self.layer.break_macro(at);
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
    pub(crate) fn rule(&mut self, at: usize, uses: &mut Uses, report: &mut Report<'_>) -> Option<Expr> {
        let rule = self.own.rules.entries.get(at)?;
        let name = rule.name.as_str();
        let text = exception::condition(&rule.condition, &rule.exceptions);
        let tree = self.parse(text, ItemKind::Rule, name, uses, report)?;
        let mut complete = true;
        for (wanted, at) in references(&tree) {
            match self.find_macro(wanted) {
                Some(found) => {
                    uses.macros.insert(found);
                    complete &= self.macro_state_of(found).is_some_and(|state| state.tree.is_some());
                }
                None => {
                    complete = false;
                    let help = did_you_mean(wanted, self.macro_names());
                    undefined(self.span(at), wanted, help, ItemKind::Rule, name, report);
                }
            }
        }
        if !complete {
            return None;
        }
        let mut budget = MAX_NODES.min(*self.work);
        let before = budget;
        let expanded = self.expand(&tree, &mut budget, MAX_MACROS, false, uses);
        self.charge(before - budget);
        match expanded {
            Expanded::Tree(tree) if depth(&tree) <= MAX_DEPTH && self.charge(regexes(&tree) * REGEX_WORK) => Some(tree),
            Expanded::Tree(_) | Expanded::TooLarge => {
                self.too_large(rule.condition.whole(), ItemKind::Rule, name, report);
                None
            }
            Expanded::Broken => None,
        }
    }

    /// `in_base`: the tree is a macro of the cluster, whose names mean what they mean to the cluster.
    fn expand(&self, expr: &Expr, budget: &mut usize, chain: usize, in_base: bool, uses: &mut Uses) -> Expanded {
        let Some(left) = budget.checked_sub(1) else { return Expanded::TooLarge };
        *budget = left;
        let parts = |parts: &[Expr], budget: &mut usize, uses: &mut Uses| {
            let mut expanded = Vec::with_capacity(parts.len());
            for part in parts {
                match self.expand(part, budget, chain, in_base, uses) {
                    Expanded::Tree(part) => expanded.push(part),
                    other => return Err(other),
                }
            }
            Ok(expanded)
        };
        Expanded::Tree(match expr {
            Expr::And(items, at) => match parts(items, budget, uses) {
                Ok(items) => Expr::And(items, *at),
                Err(other) => return other,
            },
            Expr::Or(items, at) => match parts(items, budget, uses) {
                Ok(items) => Expr::Or(items, *at),
                Err(other) => return other,
            },
            Expr::Not(inner, at) => match self.expand(inner, budget, chain, in_base, uses) {
                Expanded::Tree(inner) => Expr::Not(Box::new(inner), *at),
                other => return other,
            },
            Expr::Check(_) => expr.clone(),
            Expr::Macro(name, _) => {
                let found = match (in_base, self.base) {
                    (true, Some((base, _))) => base.macros.position(name),
                    _ => self.find_macro(name),
                };
                let tree = found.and_then(|found| self.macro_state_of(found)?.tree.clone());
                let (Some(found), Some(tree)) = (found, tree) else { return Expanded::Broken };
                uses.macros.insert(found);
                return match chain.checked_sub(1) {
                    Some(chain) => self.expand(&tree, budget, chain, found < self.base_macros(), uses),
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

    fn too_large(&self, span: Span, kind: ItemKind, name: &str, report: &mut Report<'_>) {
        if *self.work > 0 {
            let message = "the condition is too large, or nests too deeply, with its lists and macros put in";
            return report.add(Code::ConditionTooLarge, span, message, |d| d.item(kind, name));
        }
        let message = "the conditions of what is loaded together are too much work";
        let help = "use `in`, `startswith`, `contains` or `glob` instead of regular expressions, and shorter lists";
        report.add(Code::TooMuchWork, span, message, |d| d.help(help).item(kind, name));
    }
}

/// The items of a list after nesting, unquoted: for listings.
pub(crate) fn compiled_items(definitions: &Definitions, at: usize) -> Vec<&str> {
    let lists = &definitions.lists;
    let list = &lists.entries[at];
    let mut items = Vec::new();
    for item in &list.items {
        match lists.get(item.as_str()).filter(|inner| inner.index < list.touched) {
            Some(inner) => items.extend(inner.items.iter().map(Text::as_str)),
            None => items.push(item.as_str()),
        }
    }
    items
}

/// A tree with its macros put in, or why not.
enum Expanded {
    Tree(Expr),
    TooLarge,
    /// A macro has an error of its own.
    Broken,
}

/// How many regular expressions a tree contains.
fn regexes(tree: &Expr) -> usize {
    let of = |test: &Test| match test {
        Test::Compare { op: Op::Regex, right: Right::List(items, _), .. } => items.len(),
        Test::Compare { op: Op::Regex, .. } => 1,
        _ => 0,
    };
    tree.checks().map(|check| of(&check.test)).sum()
}

fn undefined(span: Span, wanted: &str, help: Option<String>, kind: ItemKind, name: &str, report: &mut Report<'_>) {
    let message = format!("Undefined macro '{wanted}' used in filter.");
    report.add(Code::UndefinedMacro, span, message, |d| d.maybe_help(help).item(kind, name));
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
