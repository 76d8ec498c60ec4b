//! What was made of the definitions of a layer, kept between units of files, so that only what a unit changed is made
//! anew.
//!
//! A rule depends on its own definition, on the macros it refers to, directly or not, and on the lists that stand in
//! its text; a new list may be a word that stood there before. What failed is always tried again.

use std::{collections::BTreeSet, sync::Arc};

use hashbrown::{HashMap, HashSet};

use super::{
    Options, Report,
    collect::{Definitions, Named},
    compile::{self, Checked},
    resolve::{Uses, View, first_word, words},
};
use crate::{filter::ast::Expr, source::Text};

/// A list as text.
#[derive(Debug)]
pub(crate) struct ListState {
    pub(crate) text: Arc<Text>,
    /// Positions of the lists among its items.
    pub(crate) inner: Vec<usize>,
}

/// A macro with its lists put in.
#[derive(Debug)]
pub(crate) struct MacroState {
    /// `None` when it has an error that has been reported.
    pub(crate) tree: Option<Arc<Expr>>,
    pub(crate) uses: Uses,
}

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct RuleState {
    /// `None` when it has an error or is skipped.
    pub(crate) checked: Option<Arc<Checked>>,
    /// It has an error, of its own or of a macro.
    pub(crate) failed: bool,
    pub(crate) uses: Uses,
}

/// The states of a layer, by position.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(crate) lists: Vec<Arc<ListState>>,
    pub(crate) macros: Vec<Arc<MacroState>>,
    pub(crate) rules: Vec<Arc<RuleState>>,
    /// Lists by the first word of their name.
    pub(crate) words: HashMap<Box<str>, Vec<usize>, ahash::RandomState>,
    /// How many lists and macros of the cluster the layer sees.
    pub(crate) base_lists: usize,
    pub(crate) base_macros: usize,
    texts: Texts,
    log: Vec<Before>,
}

/// A state that was replaced.
#[derive(Debug)]
enum Before {
    List(usize, Arc<ListState>),
    Macro(usize, Arc<MacroState>),
    Rule(usize, Arc<RuleState>),
    /// A list was added.
    Word(Box<str>),
    /// How many states there were.
    Lengths(usize, usize, usize),
}

impl Layer {
    /// A layer over the cluster's, or the cluster's own.
    pub(crate) fn over(base: Option<&Self>) -> Self {
        Self {
            base_lists: base.map_or(0, |base| base.lists.len()),
            base_macros: base.map_or(0, |base| base.macros.len()),
            ..Self::default()
        }
    }

    /// Keeps the changes for good.
    pub(crate) fn keep(&mut self) {
        self.log.clear();
        self.log.push(Before::Lengths(self.lists.len(), self.macros.len(), self.rules.len()));
    }

    /// Takes the changes back that were not kept.
    pub(crate) fn undo(&mut self) {
        while let Some(before) = self.log.pop() {
            match before {
                Before::List(at, state) => self.lists[at] = state,
                Before::Macro(at, state) => self.macros[at] = state,
                Before::Rule(at, state) => self.rules[at] = state,
                Before::Word(word) => {
                    if let Some(lists) = self.words.get_mut(&word) {
                        lists.pop();
                    }
                }
                Before::Lengths(lists, macros, rules) => {
                    self.lists.truncate(lists);
                    self.macros.truncate(macros);
                    self.rules.truncate(rules);
                }
            }
        }
        self.keep();
    }

    fn set_list(&mut self, at: usize, state: ListState) {
        let state = Arc::new(state);
        match self.lists.get_mut(at) {
            Some(known) => self.log.push(Before::List(at, std::mem::replace(known, state))),
            None => self.lists.push(state),
        }
    }

    fn set_macro(&mut self, at: usize, state: MacroState) {
        let state = Arc::new(state);
        match self.macros.get_mut(at) {
            Some(known) => self.log.push(Before::Macro(at, std::mem::replace(known, state))),
            None => self.macros.push(state),
        }
    }

    fn set_rule(&mut self, at: usize, state: RuleState) {
        let state = Arc::new(state);
        match self.rules.get_mut(at) {
            Some(known) => self.log.push(Before::Rule(at, std::mem::replace(known, state))),
            None => self.rules.push(state),
        }
    }

    /// Makes a macro one with an error.
    pub(crate) fn break_macro(&mut self, at: usize) {
        let uses = self.macros.get(at).map(|state| state.uses.clone()).unwrap_or_default();
        self.set_macro(at, MacroState { tree: None, uses });
    }

    /// The rules without mistakes, in load order.
    pub(crate) fn checked(&self) -> impl Iterator<Item = &Arc<Checked>> {
        self.rules.iter().filter_map(|state| state.checked.as_ref())
    }

    /// Lists and macros of this layer that something in it refers to.
    pub(crate) fn used(&self) -> (HashSet<usize>, HashSet<usize>) {
        let uses = || self.macros.iter().map(|state| &state.uses).chain(self.rules.iter().map(|state| &state.uses));
        let lists = uses().flat_map(|uses| &uses.lists).chain(self.lists.iter().flat_map(|list| &list.inner));
        let macros = uses().flat_map(|uses| &uses.macros);
        let own = |base: usize| move |at: &usize| at.checked_sub(base);
        (lists.filter_map(own(self.base_lists)).collect(), macros.filter_map(own(self.base_macros)).collect())
    }
}

/// Compiles what the unit changed in a layer, and what depends on that.
pub(crate) fn update(
    own: &Definitions,
    layer: &mut Layer,
    base: Option<(&Definitions, &Layer)>,
    (texts, mut work): (&mut Vec<Text>, usize),
    options: &Options,
    report: &mut Report<'_>,
) {
    let (known_lists, known_macros) = (layer.lists.len(), layer.macros.len());
    let lists = layer.stale_lists(own);
    let mut view = View { own, layer, base, texts, work: &mut work };
    for at in &lists {
        view.layer.learn_list(*at, own);
        if let Some(state) = view.list(*at) {
            view.layer.set_list(*at, state);
        }
    }
    // What is new is used by nothing that was there before; its name may have been a mere word there.
    let replaced: Vec<usize> = lists.iter().copied().filter(|at| *at < known_lists).collect();
    let words: Vec<&str> = lists.iter().filter_map(|at| first_word(own.lists.entries.get(*at)?.name())).collect();

    let mut macros: BTreeSet<usize> = own.macros.changed().into_iter().collect();
    macros.extend(words.iter().flat_map(|word| view.layer.texts.macros.with(word)));
    let stale =
        |(_, state): &(usize, &Arc<MacroState>)| state.tree.is_none() || view.layer.uses_list(&state.uses, &replaced);
    macros.extend(view.layer.macros.iter().enumerate().filter(stale).map(|(at, _)| at));
    macros.retain(|at| *at < own.macros.entries.len());
    for at in &macros {
        let state = match report.is_full() {
            false => view.macro_state(*at, report),
            true => MacroState { tree: None, uses: Uses::default() },
        };
        view.note_words(&state.uses, *at, |texts| &mut texts.macros);
        view.layer.set_macro(*at, state);
    }
    if !macros.is_empty() {
        view.loops(report);
    }

    let replaced_macros: Vec<usize> = macros.into_iter().filter(|at| *at < known_macros).collect();
    let mut rules: BTreeSet<usize> = own.rules.changed().into_iter().collect();
    rules.extend(words.iter().flat_map(|word| view.layer.texts.rules.with(word)));
    let stale = |(_, state): &(usize, &Arc<RuleState>)| {
        let layer = &*view.layer;
        state.failed || layer.uses_list(&state.uses, &replaced) || layer.uses_macro(&state.uses, &replaced_macros)
    };
    rules.extend(view.layer.rules.iter().enumerate().filter(stale).map(|(at, _)| at));
    rules.retain(|at| *at < own.rules.entries.len());
    for at in rules {
        let state = match report.is_full() {
            false => compile::rule(at, &mut view, options, report),
            true => RuleState { checked: None, failed: true, uses: Uses::default() },
        };
        view.note_words(&state.uses, at, |texts| &mut texts.rules);
        view.layer.set_rule(at, state);
    }
    compile::unused(own, view.layer, report);
}

/// Which texts contain a word. May name texts that no longer do.
#[derive(Debug, Default)]
struct Index(HashMap<Box<str>, Vec<usize>, ahash::RandomState>);

impl Index {
    fn with(&self, word: &str) -> impl Iterator<Item = usize> {
        self.0.get(word).into_iter().flatten().copied()
    }

    fn note(&mut self, word: &str, at: usize) {
        match self.0.get_mut(word) {
            Some(known) if known.last() == Some(&at) => {}
            Some(known) => known.push(at),
            None => drop(self.0.insert(word.into(), vec![at])),
        }
    }
}

/// The words of all conditions.
#[derive(Debug, Default)]
struct Texts {
    macros: Index,
    rules: Index,
}

impl View<'_> {
    fn note_words(&mut self, uses: &Uses, at: usize, of: fn(&mut Texts) -> &mut Index) {
        let Some(text) = uses.text.and_then(|id| self.texts.get(id.0 as usize)) else { return };
        let index = of(&mut self.layer.texts);
        words(text.as_str()).for_each(|word| index.note(word, at));
    }
}

impl Layer {
    /// Lists that changed, and those that contain one that did.
    fn stale_lists(&self, own: &Definitions) -> Vec<usize> {
        let mut stale = own.lists.changed();
        if !stale.is_empty() {
            let inner = |state: &ListState| stale.iter().any(|at| state.inner.contains(&(at + self.base_lists)));
            let containing = self.lists.iter().enumerate().filter(|(_, state)| inner(state)).map(|(at, _)| at);
            let containing: Vec<_> = containing.collect();
            stale.extend(containing);
            stale.sort_unstable();
            stale.dedup();
        }
        stale
    }

    fn learn_list(&mut self, at: usize, own: &Definitions) {
        let word = own.lists.entries.get(at).and_then(|list| first_word(list.name()));
        if let (true, Some(word)) = (at >= self.lists.len(), word) {
            self.words.entry(word.into()).or_default().push(at);
            self.log.push(Before::Word(word.into()));
        }
    }

    fn uses_list(&self, uses: &Uses, lists: &[usize]) -> bool {
        lists.iter().any(|at| uses.lists.contains(&(at + self.base_lists)))
    }

    fn uses_macro(&self, uses: &Uses, macros: &[usize]) -> bool {
        macros.iter().any(|at| uses.macros.contains(&(at + self.base_macros)))
    }
}
