//! Many comparisons of one text with constants, made together: which of them hold?
//!
//! Equal texts by hash, prefixes and suffixes by trie, substrings by Aho-Corasick, paths by a trie of components: the cost
//! follows the value and what holds for it, not the number of constants.

use std::ops::ControlFlow;

use aho_corasick::AhoCorasick;
use hashbrown::HashMap;
use memchr::memmem::Finder;

use super::{matcher::contains_folded, path_set::PathSet, trie::Trie};

/// How a constant is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum TextTest {
    Equal,
    Prefix,
    Suffix,
    Contains,
    /// ASCII case does not count.
    ContainsFolded,
    /// A path, component by component.
    Path,
}

/// The prepared comparisons.
#[derive(Debug, Default)]
pub(super) struct TextIndex {
    equal: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    /// The lengths of equal texts, as bits: most values have another, and need no hash.
    lengths: u64,
    prefixes: Option<Trie<false>>,
    suffixes: Option<Trie<true>>,
    contains: Option<Needles>,
    folded: Option<Needles>,
    paths: Option<PathSet>,
}

impl TextIndex {
    /// Prepares comparisons, each with its number. Of equal ones, one number is kept.
    pub(super) fn new(keys: &[(TextTest, Box<[u8]>, u32)]) -> Self {
        let of = |wanted: TextTest| {
            keys.iter()
                .filter(move |(test, ..)| *test == wanted)
                .map(|(_, text, id)| (&**text, *id))
                .collect::<Vec<_>>()
        };
        fn some<'k, T>(keys: Vec<(&'k [u8], u32)>, make: impl FnOnce(Vec<(&'k [u8], u32)>) -> T) -> Option<T> {
            if keys.is_empty() { None } else { Some(make(keys)) }
        }
        let mut prefixes = of(TextTest::Prefix);
        let (mut contains, mut folded) = (of(TextTest::Contains), of(TextTest::ContainsFolded));
        // The empty text is in every value, as it is at the front of every value.
        for needles in [&mut contains, &mut folded] {
            prefixes.extend(needles.extract_if(.., |(needle, _)| needle.is_empty()));
        }
        let equal = of(TextTest::Equal);
        Self {
            lengths: equal.iter().fold(0, |lengths, (text, _)| lengths | length_bit(text)),
            equal: equal.into_iter().map(|(text, id)| (text.into(), id)).collect(),
            prefixes: some(prefixes, Trie::new),
            suffixes: some(of(TextTest::Suffix), Trie::new),
            contains: some(contains, |needles| Needles::new(needles, false)),
            folded: some(folded, |needles| Needles::new(needles, true)),
            paths: some(of(TextTest::Path), PathSet::new),
        }
    }

    /// Calls `found` with the number of each comparison that holds; of some more than once.
    pub(super) fn visit(&self, value: &[u8], mut found: impl FnMut(u32)) {
        if self.lengths & length_bit(value) != 0
            && let Some(id) = self.equal.get(value)
        {
            found(*id);
        }
        if let Some(prefixes) = &self.prefixes {
            prefixes.visit(value, &mut found);
        }
        if let Some(suffixes) = &self.suffixes {
            suffixes.visit(value, &mut found);
        }
        if let Some(needles) = &self.contains {
            needles.visit(value, &mut found);
        }
        if let Some(needles) = &self.folded {
            needles.visit(value, &mut found);
        }
        if let Some(paths) = &self.paths {
            // It says continue itself.
            let _ = paths.visit(value, &mut |id| {
                found(id);
                ControlFlow::Continue(())
            });
        }
    }

    /// Whether any comparison holds.
    pub(super) fn any(&self, value: &[u8]) -> bool {
        let mut any = false;
        self.visit(value, |_| any = true);
        any
    }
}

/// Longer texts share the last bit.
fn length_bit(text: &[u8]) -> u64 {
    1 << text.len().min(63)
}

/// Substrings.
#[derive(Debug)]
enum Needles {
    /// One after the other: a few, for which this is faster, or more than an automaton can hold.
    Each(Box<[(Finder<'static>, u32)]>),
    EachFolded(Box<[(Box<[u8]>, u32)]>),
    Automaton(Box<AhoCorasick>, Box<[u32]>),
}

impl Needles {
    /// An automaton takes a step for each byte of the value, a finder passes over many bytes at once.
    const FEW: usize = 4;

    fn new(mut needles: Vec<(&[u8], u32)>, fold: bool) -> Self {
        needles.sort_unstable();
        needles.dedup_by(|a, b| a.0 == b.0);
        if needles.len() > if fold { 1 } else { Self::FEW } {
            let mut builder = AhoCorasick::builder();
            let texts = needles.iter().map(|(text, _)| text);
            if let Ok(automaton) = builder.ascii_case_insensitive(fold).build(texts) {
                return Self::Automaton(Box::new(automaton), needles.into_iter().map(|(_, id)| id).collect());
            }
        }
        match fold {
            true => {
                Self::EachFolded(needles.into_iter().map(|(text, id)| (text.to_ascii_lowercase().into(), id)).collect())
            }
            false => Self::Each(needles.into_iter().map(|(text, id)| (Finder::new(text).into_owned(), id)).collect()),
        }
    }

    fn visit(&self, value: &[u8], mut found: impl FnMut(u32)) {
        match self {
            Self::Each(needles) => {
                needles.iter().filter(|(needle, _)| needle.find(value).is_some()).for_each(|(_, id)| found(*id));
            }
            Self::EachFolded(needles) => {
                needles.iter().filter(|(needle, _)| contains_folded(value, needle)).for_each(|(_, id)| found(*id));
            }
            Self::Automaton(automaton, ids) => {
                for hit in automaton.find_overlapping_iter(value) {
                    found(ids[hit.pattern().as_usize()]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_comparison_that_holds_is_found() {
        use TextTest::{Contains, ContainsFolded, Equal, Path, Prefix, Suffix};
        let keys = [
            (Equal, "/etc/Shadow"),
            (Equal, "/etc"),
            (Prefix, "/etc/"),
            (Prefix, "/var"),
            (Suffix, "dow"),
            (Suffix, "x"),
            (Contains, "c/S"),
            (Contains, "shadow"),
            (Contains, ""),
            (ContainsFolded, "SHADOW"),
            (ContainsFolded, "passwd"),
            (Path, "etc"),
            (Path, "/et"),
        ];
        let keys: Vec<_> = keys.iter().zip(0..).map(|((test, text), id)| (*test, text.as_bytes().into(), id)).collect();
        let mut found = Vec::new();
        TextIndex::new(&keys).visit(b"/etc/Shadow", |id| found.push(id));
        found.sort_unstable();
        assert_eq!(found, [0, 2, 4, 6, 8, 9, 11]);
    }

    #[test]
    fn many_substrings_are_found_as_few_are() {
        let texts = ["a/b", "b/", "/b/c", "x", "c/d", "b/c/", "/"];
        for count in 1..=texts.len() {
            let keys: Vec<_> = texts[..count].iter().zip(0..).map(|(text, id)| (text.as_bytes(), id)).collect();
            let mut found = Vec::new();
            Needles::new(keys, false).visit(b"/a/b/c/", |id| found.push(id));
            found.sort_unstable();
            found.dedup();
            let want: Vec<u32> = [0, 1, 2, 5, 6].into_iter().filter(|id| (*id as usize) < count).collect();
            assert_eq!(found, want, "{count}");
        }
    }
}
