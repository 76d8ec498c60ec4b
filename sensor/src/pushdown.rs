//! Puts the necessary conditions of the rules into the form of the kernel's filter.
//!
//! What does not fit (too many clauses, too many ends of paths) makes the filter wider, never narrower.

use abi::filter::{CLAUSES, Clause, Filter, PREFIX_BYTES, SUFFIXES, Suffix, need};
use event::catalogue::EventType;
use rules::{
    pushdown::{Clauses, Needs, Path},
    ruleset::Ruleset,
};

use crate::driver::Filters;

/// The system calls that have a filter.
const FILTERED: [&str; 2] = ["open", "openat"];

/// Filters for a ruleset.
pub fn filters(ruleset: &Ruleset) -> Filters {
    let mut sets = Vec::new();
    let mut rows = Vec::new();
    for name in FILTERED {
        let Some(event) = EventType::by_name(name) else { continue };
        if let Some(filter) = filter(&ruleset.necessary(event), &mut sets) {
            rows.push((name, filter));
        }
    }
    let prefixes = prefixes(&sets);
    Filters { rows, prefixes }
}

/// One filter; `None` when everything has to pass. `sets` are the path sets of all filters: bit `i` is `sets[i]`.
fn filter(clauses: &Clauses, sets: &mut Vec<Path>) -> Option<Filter> {
    if clauses.len() > CLAUSES {
        return None;
    }
    let mut filter = Filter { enabled: 1, clauses: clauses.len() as u32, ..Filter::OFF };
    let mut suffixes: Vec<Suffix> = Vec::new();
    for (clause, to) in clauses.iter().zip(&mut filter.clause) {
        let paths = match &clause.path {
            Some(path) => 1 << set(path, sets)?,
            None => 0,
        };
        *to = Clause { needs: bits(clause.needs), reserved: 0, paths };
        suffixes.extend(clause.path.iter().flat_map(|path| &path.suffixes).map(|end| suffix(end, paths)));
    }
    filter.suffixes = suffixes.len() as u32;
    for (at, suffix) in suffixes.into_iter().enumerate() {
        *filter.suffix.get_mut(at)? = suffix;
    }
    Some(filter)
}

const _: () = assert!(SUFFIXES <= 64 && CLAUSES <= 64);

/// Index of a path set.
fn set(path: &Path, sets: &mut Vec<Path>) -> Option<usize> {
    let known = sets.iter().position(|set| set == path);
    known.or_else(|| {
        sets.push(path.clone());
        (sets.len() <= 64).then(|| sets.len() - 1)
    })
}

fn bits(needs: Needs) -> u32 {
    [
        (needs.read, need::READ),
        (needs.write, need::WRITE),
        (needs.creat, need::CREAT),
        (needs.trunc, need::TRUNC),
        (needs.success, need::SUCCESS),
        (needs.failure, need::FAILURE),
    ]
    .into_iter()
    .filter_map(|(needed, bit)| needed.then_some(bit))
    .sum()
}

/// The last eight bytes of an end, right-aligned in a word.
fn suffix(end: &[u8], paths: u64) -> Suffix {
    let last = &end[end.len().saturating_sub(8)..];
    let (mut value, mut mask) = ([0; 8], [0; 8]);
    value[8 - last.len()..].copy_from_slice(last);
    mask[8 - last.len()..].fill(0xff);
    Suffix { value: u64::from_le_bytes(value), mask: u64::from_le_bytes(mask), paths }
}

/// Every prefix with its sets and those of all shorter ones: the trie answers with the longest only.
fn prefixes(sets: &[Path]) -> Vec<(Vec<u8>, u64)> {
    let cut = |prefix: &[u8]| prefix[..prefix.len().min(PREFIX_BYTES)].to_vec();
    let mut prefixes: Vec<(Vec<u8>, u64)> = Vec::new();
    for (index, path) in sets.iter().enumerate() {
        prefixes.extend(path.prefixes.iter().map(|prefix| (cut(prefix), 1 << index)));
    }
    prefixes.sort();
    let whole =
        |of: &[u8]| prefixes.iter().filter(|(shorter, _)| of.starts_with(shorter)).fold(0, |sets, (_, set)| sets | set);
    let mut merged: Vec<_> = prefixes.iter().map(|(prefix, _)| (prefix.clone(), whole(prefix))).collect();
    merged.dedup();
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(prefixes: &[&str], suffixes: &[&str]) -> Path {
        let boxed = |ends: &[&str]| ends.iter().map(|end| end.as_bytes().into()).collect();
        Path { prefixes: boxed(prefixes), suffixes: boxed(suffixes) }
    }

    #[test]
    fn a_prefix_carries_the_sets_of_shorter_ones() {
        let sets = [path(&["/etc"], &[]), path(&["/etc/pam.d", "/var"], &[])];
        assert_eq!(prefixes(&sets), [(b"/etc".to_vec(), 1), (b"/etc/pam.d".to_vec(), 3), (b"/var".to_vec(), 2)]);
    }

    #[test]
    fn an_end_is_right_aligned() {
        let Suffix { value, mask, .. } = suffix(b"abc", 1);
        assert_eq!((value.to_le_bytes(), mask), (*b"\0\0\0\0\0abc", 0xffff_ff00_0000_0000));
        assert_eq!(suffix(b"0123456789", 1).value.to_le_bytes(), *b"23456789");
    }

    #[test]
    fn too_many_ends_let_everything_pass() {
        let ends: Vec<String> = (0..=SUFFIXES).map(|i| format!("end{i}")).collect();
        let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
        let clause = rules::pushdown::Clause { needs: Needs::default(), path: Some(path(&[], &ends)) };
        assert_eq!(filter(&vec![clause], &mut Vec::new()), None);
    }
}
