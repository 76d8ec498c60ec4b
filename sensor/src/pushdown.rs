//! Puts the necessary conditions of the rules into the form of the kernel's filter.
//!
//! What does not fit (too many clauses, too many ends of paths) makes the filter wider, never narrower.

use abi::{
    filter::{CLAUSES, Filter, PREFIX_BYTES, SUFFIXES, Suffix, need},
    syscalls::SYSCALLS,
};
use event::catalogue::EventType;
use rules::{
    alert::Priority,
    pushdown::{Clause, Needs, Path},
    ruleset::{RuleRef, Ruleset},
};

use crate::driver::Filters;

/// The system calls that have a filter.
pub const FILTERED: [&str; 2] = ["open", "openat"];

/// What rules at least this serious may match goes into rings of its own, which a storm of other events does not fill.
const SERIOUS: Priority = Priority::Warning;

/// Filters for a ruleset.
pub fn filters(ruleset: &Ruleset) -> Filters {
    let serious = |priority| priority <= SERIOUS;
    let mut sets: Vec<Path> = Vec::new();
    let mut rows = Vec::new();
    for name in FILTERED {
        let Some(event) = EventType::by_name(name) else { continue };
        let wanted = |priority, clause: &Clause| serious(priority) && tells_apart(clause);
        let (urgent, all) = (ruleset.necessary_of(event, wanted), ruleset.necessary(event));
        let mut together = sets.clone();
        if let Some(filter) = filter(&urgent, &all, &mut together) {
            rows.push((name, filter));
            sets = together;
        } else if let Some(filter) = filter(&[], &all, &mut sets) {
            // Too much to tell serious ones apart.
            rows.push((name, filter));
        }
    }
    let prefixes = prefixes(&sets);
    let filtered = |name| FILTERED.contains(&name);
    let whole = SYSCALLS.iter().map(|row| row.name).filter(|name| !filtered(*name)).filter(|name| {
        let event = EventType::by_name(name);
        let seen = |rule: &RuleRef<'_>| event.is_some_and(|event| rule.event_types().contains(event));
        ruleset.rules().any(|rule| serious(rule.priority()) && seen(&rule))
    });
    Filters { rows, prefixes, urgent: whole.collect() }
}

/// Whether a clause picks some opens out of all. One that any open for reading meets does not: what is urgent would be
/// all that programs read, in the smaller rings, and would drive out what other serious rules look for.
fn tells_apart(clause: &Clause) -> bool {
    let Clause { needs: Needs { read: _, write, creat, trunc, success: _, failure }, path } = clause;
    path.is_some() || *write || *creat || *trunc || *failure
}

/// One filter: the clauses of serious rules, then those of all that are not among them. `None` when everything has to
/// pass. `sets` are the path sets of all filters: bit `i` is `sets[i]`.
fn filter(urgent: &[Clause], all: &[Clause], sets: &mut Vec<Path>) -> Option<Filter> {
    let others = all.iter().filter(|clause| !urgent.contains(clause)).map(|clause| (clause, 0));
    let clauses: Vec<_> = urgent.iter().map(|clause| (clause, 1)).chain(others).collect();
    if clauses.len() > CLAUSES {
        return None;
    }
    let mut filter = Filter { enabled: 1, clauses: clauses.len() as u32, ..Filter::OFF };
    let mut suffixes: Vec<Suffix> = Vec::new();
    for ((clause, urgent), to) in clauses.into_iter().zip(&mut filter.clause) {
        let paths = match &clause.path {
            Some(path) => 1 << set(path, sets)?,
            None => 0,
        };
        *to = abi::filter::Clause { needs: bits(clause.needs), urgent, paths };
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
    fn clauses_of_serious_rules_are_urgent_and_come_first() {
        let clause = |prefix: &str| Clause { needs: Needs::default(), path: Some(path(&[prefix], &[])) };
        let (serious, other) = (clause("/etc/shadow"), clause("/tmp"));
        let all = [other, serious.clone()];
        let filter = filter(&[serious], &all, &mut Vec::new()).expect("it fits");
        let urgent: Vec<_> = filter.clause.iter().take(filter.clauses as usize).map(|clause| clause.urgent).collect();
        assert_eq!(urgent, [1, 0]);
    }

    #[test]
    fn what_any_open_for_reading_meets_is_not_urgent() {
        let mut loader = rules::load::Loader::new(rules::load::Options::default());
        let rule = |name: &str, condition: &str| {
            format!(
                "- rule: {name}\n  desc: x\n  condition: evt.type = openat and {condition}\n  output: x\n  priority: ERROR\n"
            )
        };
        let rules = [
            rule("any", "evt.is_open_read = true and fd.name contains liblzma"),
            rule("shadow", "evt.is_open_read = true and fd.name = /etc/shadow"),
            rule("written", "evt.is_open_write = true and fd.name contains cron"),
        ];
        loader.add("test", rules.concat().as_bytes());
        let filters = filters(&loader.finish().ruleset.expect("rules"));
        let (_, filter) = filters.rows.iter().find(|(row, _)| *row == "openat").expect("a filter");
        let clauses = &filter.clause[..filter.clauses as usize];
        let urgent = |clause: &abi::filter::Clause| clause.urgent == 1;
        assert!(clauses.iter().all(|clause| urgent(clause) == (clause.needs != need::READ || clause.paths != 0)));
        assert_eq!((clauses.len(), clauses.iter().filter(|clause| urgent(clause)).count()), (3, 2));
    }

    #[test]
    fn calls_that_serious_rules_name_are_urgent() {
        let mut loader = rules::load::Loader::new(rules::load::Options::default());
        let rule = |call: &str, priority: &str| {
            format!("- rule: {call}\n  desc: x\n  condition: evt.type = {call}\n  output: x\n  priority: {priority}\n")
        };
        loader.add(
            "test",
            [rule("ptrace", "WARNING"), rule("mkdirat", "NOTICE"), rule("openat", "CRITICAL")].concat().as_bytes(),
        );
        let filters = filters(&loader.finish().ruleset.expect("rules"));
        assert_eq!(filters.urgent, ["ptrace"], "an open is judged by its path");
    }

    #[test]
    fn too_many_ends_let_everything_pass() {
        let ends: Vec<String> = (0..=SUFFIXES).map(|i| format!("end{i}")).collect();
        let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
        let clause = rules::pushdown::Clause { needs: Needs::default(), path: Some(path(&[], &ends)) };
        assert_eq!(filter(&[], &[clause], &mut Vec::new()), None);
    }

    /// What the kernel does with an open, in its own order of steps.
    fn passes(clauses: &[Clause], call: Needs, path: &[u8]) -> bool {
        let normal = path.len() >= 8
            && path[0] == b'/'
            && !path.ends_with(b"/")
            && !path.windows(2).any(|pair| matches!(pair, b"//" | b"/." | b"./"));
        clauses.iter().any(|clause| {
            let somewhere = clause.path.as_ref().is_some_and(|set| normal && !set.contains(path));
            call.meets(clause.needs) && !somewhere
        })
    }

    /// The rules of the folder that `GYRFALCON_FALCO_RULES` names, and our own.
    fn rulesets() -> Vec<Ruleset> {
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/rules"))];
        folders.extend(std::env::var_os("GYRFALCON_FALCO_RULES").map(Into::into));
        let options = || rules::load::Options {
            rule_matching: rules::load::RuleMatching::All,
            ..rules::load::Options::default()
        };
        let mut rulesets = Vec::new();
        for folder in folders {
            let (files, errors) = crate::input::read(&[folder]);
            assert!(errors.is_empty());
            for file in files {
                let compiled = crate::rules::compile(&[file], &[], &crate::rules::Specs::new(), options(), false);
                rulesets.extend(compiled.active.map(|active| active.ruleset));
            }
        }
        rulesets
    }

    /// The property that the filter must never break: whatever rules match, the kernel lets pass.
    #[test]
    fn no_open_that_a_rule_matches_is_dropped() {
        use event::{
            decode::Record,
            event::Event,
            state::{Host, Limits, State},
            testing::Encoder,
            value::Arena,
        };
        const PARTS: [&str; 32] = [
            "/x..",
            "/y.",
            "/etc",
            "/shadow",
            "/passwd",
            "/sudoers",
            "/sudoers.d",
            "/pam.d",
            "/x",
            "/var",
            "/log",
            "/syslog",
            "/auth.log",
            "/root",
            "/.ssh",
            "/authorized_keys",
            "/..",
            "/.",
            "//",
            "/bin",
            "/usr",
            "/cron.d",
            "/release_agent",
            "/dev",
            "/shm",
            "/proc",
            "/self",
            "/environ",
            "/.bashrc",
            "/tmp",
            "/lib",
            "/ld.so.preload",
        ];
        const FLAGS: [i64; 6] = [0, 1, 2, 0o101, 0o1101, 0o1102];
        let state = State::new(Limits::default(), Host::default());
        let mut arena = Arena::new();
        let mut scratch = rules::ruleset::Evaluation::default();
        let mut matches = 0u64;
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % below as u64) as usize
        };
        let rulesets = rulesets();
        let openat = EventType::by_name("openat").expect("an event");
        let clauses: Vec<Vec<Clause>> = rulesets.iter().map(|ruleset| ruleset.necessary(openat)).collect();
        for _ in 0..20_000 {
            let path: String = (0..=next(5)).map(|_| PARTS[next(PARTS.len())]).collect();
            let (flags, failed) = (FLAGS[next(FLAGS.len())], next(4) == 0);
            let bytes = Encoder::syscall("openat")
                .comm(["cat", "nginx", "sshd"][next(3)])
                .ret(if failed { -2 } else { 3 })
                .int("fd", if failed { -2 } else { 3 })
                .int("dirfd", -100)
                .text("name", &path)
                .int("flags", flags)
                .encode();
            let record = Record::decode(&bytes).expect("a record");
            let call = Needs {
                read: matches!(flags & 3, 0 | 2),
                write: matches!(flags & 3, 1 | 2),
                creat: flags & 0o100 != 0,
                trunc: flags & 0o1000 != 0,
                success: !failed,
                failure: failed,
            };
            for (ruleset, clauses) in rulesets.iter().zip(&clauses) {
                let event = Event::new(&record, &state, &arena, 1).expect("an event");
                let mut matched = None;
                ruleset.matches(&event, &mut scratch, |rule| matched = Some(rule.name()));
                if let Some(rule) = matched {
                    matches += 1;
                    assert!(
                        passes(clauses, call, path.as_bytes()),
                        "{rule} matches {path} (flags {flags:#o}), which is dropped"
                    );
                }
            }
            arena.reset();
        }
        assert!(matches > 100, "only {matches} matches: the property was hardly tested");
    }
}
