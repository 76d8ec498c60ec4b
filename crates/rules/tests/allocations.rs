//! An event that no rule matches takes no memory from the heap, unless there are more processes than ever before.

#[path = "../benches/engine/many.rs"]
mod many;
mod mix;

use std::path::Path;

use allocation_counter::measure;
use event::{decode::Record, event::Event, value::Arena};
use gyrfalcon_rules::{
    load::{Loader, Options, RuleMatching},
    ruleset::{Evaluation, Ruleset},
};

/// Rules about many things, and the official ones where they are.
fn rulesets() -> Vec<Ruleset> {
    let load = |files: Vec<String>| {
        let mut loader = Loader::new(Options { rule_matching: RuleMatching::All, ..Options::default() });
        for (at, text) in files.iter().enumerate() {
            loader.add(&format!("{at}.yaml"), text.as_bytes());
        }
        let loaded = loader.finish();
        let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.is_error()).map(ToString::to_string).collect();
        loaded.ruleset.unwrap_or_else(|| panic!("{}", errors.concat()))
    };
    let mut rulesets = vec![load(vec![many::rules(320)])];
    if let Some(official) = std::env::var_os("GYRFALCON_FALCO_RULES") {
        let read = |name: &str| std::fs::read_to_string(Path::new(&official).join(name)).expect("a rules file");
        let names = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];
        rulesets.push(load(names.map(read).into()));
    }
    rulesets
}

/// How often tables may grow during the events that are looked at.
const GROWTHS: usize = 2;

#[test]
fn an_event_that_no_rule_matches_allocates_nothing() {
    for ruleset in rulesets() {
        check(&ruleset);
    }
}

fn check(ruleset: &Ruleset) {
    // Twelve seconds, of which processes that ended are kept for five.
    let records = mix::records(120_000, 11);
    let mut state = mix::state();
    let (mut arena, mut scratch) = (Arena::new(), Evaluation::default());
    let (mut quiet, mut allocations, mut most) = (0, Vec::new(), 0);
    for ((class, bytes), number) in records.iter().zip(1..) {
        let mut matched = false;
        let info = measure(|| {
            let record = Record::decode(bytes).expect("a record");
            state.apply(&record);
            if let Some(event) = Event::new(&record, &state, &arena, number) {
                ruleset.matches(&event, &mut scratch, |_| matched = true);
            }
            arena.reset();
        });
        let is_peak = state.processes() >= most;
        most = most.max(state.processes());
        if number > 80_000 && !matched && !is_peak {
            quiet += 1;
            if info.count_total > 0 {
                allocations.push((number, class, info.count_total));
            }
        }
    }
    assert!(quiet > 30_000, "{quiet} events without a match are too few");
    // The map of processes may still double.
    assert!(allocations.len() <= GROWTHS, "{} events allocate: {allocations:?}", allocations.len());
}
