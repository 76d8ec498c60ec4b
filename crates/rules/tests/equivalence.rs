//! Compiled rules match exactly what the oracle says: a million pairs of filter and event, of fixed seeds and one new one.
//!
//! Filters are generated from a grammar of the whole language, over words that meet each other often, and compiled many
//! at a time, so that they share values, comparisons and automata. `GYRFALCON_SEED=… cargo test --test equivalence`
//! repeats a run.

mod common;
mod generator;

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
};

use common::reference;
use event::value::Arena;
use generator::Generator;
use gyrfalcon_rules::{
    filter::{
        Resolver,
        ast::{Expr, TextId},
        parse::{Depth, parse},
    },
    load::{Loader, Options, RuleMatching},
    ruleset::{Evaluation, Ruleset},
};

/// Pairs of all fixed seeds.
const PAIRS: usize = 1_000_000;
/// Pairs of the new seed.
const RANDOM_PAIRS: usize = 50_000;

struct Hosts;

impl Resolver for Hosts {
    fn resolves_to(&self, name: &str, ip: IpAddr) -> bool {
        reference::host(name) == Some(ip)
    }
}

fn compile(filters: &[String], matching: RuleMatching) -> Ruleset {
    let mut file = String::new();
    for (index, filter) in filters.iter().enumerate() {
        let condition = serde_json::to_string(filter).expect("text");
        file.push_str(&format!("- {{rule: r{index}, desc: d, condition: {condition}, output: o, priority: INFO}}\n"));
    }
    let options =
        Options { rule_matching: matching, resolver: Some(Arc::new(Hosts)), work: usize::MAX, ..Options::default() };
    let mut loader = Loader::new(options);
    loader.add("r.yaml", file.as_bytes());
    let loaded = loader.finish();
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.is_error()).map(ToString::to_string).collect();
    loaded.ruleset.unwrap_or_else(|| panic!("{}", errors.concat()))
}

/// What a run has seen, so that one that compares nothing does not pass.
#[derive(Default)]
struct Seen {
    pairs: usize,
    matches: usize,
}

/// One batch: filters as the rules of one ruleset, and events. Every hundredth batch or so has many rules.
fn batch(seed: u64, scratch: &mut Evaluation, seen: &mut Seen) {
    let mut generator = Generator::new(seed);
    let (rules, events) = match seed % 16 {
        0 => (1, 200),
        1..=3 => (12, 400),
        4..=12 => (60, 300),
        13 | 14 => (150, 200),
        _ => (400, 100),
    };
    let filters: Vec<String> = (0..rules).map(|_| generator.filter()).collect();
    let trees: Vec<Expr> = filters
        .iter()
        .map(|filter| {
            parse(filter, TextId::default(), Depth::RULES).unwrap_or_else(|error| panic!("{filter}: {error:?}"))
        })
        .collect();
    let matching = if seed % 4 == 1 { RuleMatching::First } else { RuleMatching::All };
    let ruleset = compile(&filters, matching);
    let mut arena = Arena::new();
    for _ in 0..events {
        {
            let event = generator.event(&arena);
            let mut matched = Vec::new();
            ruleset.matches(&event, scratch, |rule| matched.push(rule.index()));
            let mut wanted = (0..rules).filter(|index| reference::holds(&trees[*index], &event));
            let wanted: Vec<usize> = match matching {
                RuleMatching::First => wanted.next().into_iter().collect(),
                RuleMatching::All => wanted.collect(),
            };
            if matched != wanted {
                let matched: HashSet<_> = matched.into_iter().collect();
                let wanted: HashSet<_> = wanted.into_iter().collect();
                let wrong: Vec<_> = matched.symmetric_difference(&wanted).map(|index| &filters[*index]).collect();
                panic!("seed {seed}: {wrong:#?}\n{:?} {:#?}", event.ty, event.values);
            }
            seen.pairs += rules;
            seen.matches += wanted.len();
        }
        arena.reset();
    }
}

/// Batches from a seed on until there are so many pairs.
fn run(first: u64, pairs: usize) {
    let mut scratch = Evaluation::default();
    let mut seen = Seen::default();
    let mut seed = first;
    while seen.pairs < pairs {
        batch(seed, &mut scratch, &mut seen);
        seed = seed.wrapping_add(1);
    }
    assert!(seen.matches > pairs / 20, "{} of {} pairs match: too few to say anything", seen.matches, seen.pairs);
}

#[test]
fn compiled_rules_match_what_the_oracle_says() {
    // Two halves, so that two CPUs share the work.
    std::thread::scope(|scope| {
        scope.spawn(|| run(1_000_000, PAIRS / 2));
        run(2_000_000, PAIRS / 2);
    });
}

#[test]
fn a_new_seed_agrees_as_well() {
    let given = std::env::var("GYRFALCON_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    eprintln!("GYRFALCON_SEED={seed}");
    run(seed, RANDOM_PAIRS);
}
