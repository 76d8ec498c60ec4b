//! What an event costs: bytes → record → process state → rules, on one thread, in CPU time.
//!
//! ```text
//! GYRFALCON_FALCO_RULES=/path/to/falco-rules cargo xtask bench engine
//! ```
//! Without the variable a hundred made-up rules stand for the official ones. The records are simulated, or those of a recording
//! (`mix.sh` and `mix.yaml` make one; paths are absolute):
//!
//! ```text
//! cargo xtask bench engine -- --recording FILE
//! ```
//! Every figure is the best of several passes over the same records, each from the process table that was there when they
//! began; ratios compare passes that took turns. A bound that is missed makes it fail.

mod load;
mod many;
#[path = "../../tests/mix/mod.rs"]
mod mix;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use allocation_counter::measure;
use event::{decode::Record, event::Event, fields::EventSource, value::Arena};
use gyrfalcon_rules::{
    load::{Loader, Options, RuleMatching},
    ruleset::{Evaluation, Ruleset},
};
use load::{Load, Step};
use mix::Class;
use nix::time::{ClockId, clock_gettime};

/// Records of a pass; of a recording that has fewer, at least so many in repetitions.
const RECORDS: usize = 200_000;
/// Passes; the fastest counts, as the others were disturbed.
const PASSES: usize = 7;
/// Events of a recording that one CPU second must suffice for, with the stable rules.
const EVENTS_A_SECOND: f64 = 4e6;
/// What 10,000 rules may cost, in terms of what 100 cost.
const TIMES: f64 = 3.0;

/// What reading and compiling all official rules may take.
const CHECK_SECONDS: f64 = 0.1;

/// CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of the thread").into()
}

fn seconds(work: impl FnOnce()) -> f64 {
    let before = cpu_time();
    work();
    (cpu_time() - before).as_secs_f64()
}

/// What one pass did.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    events: u64,
    matches: u64,
    seconds: f64,
}

impl Pass {
    fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    fn ns(&self) -> f64 {
        1e9 / self.rate()
    }
}

/// What the event loop of the sensor does with each record.
fn pass(load: &Load, ruleset: Option<&Ruleset>) -> Pass {
    let mut pass = Pass::default();
    let events = load.events();
    while pass.events < RECORDS as u64 * 9 / 10 {
        let mut state = load.start();
        let mut arena = Arena::new();
        let mut scratch = Evaluation::default();
        let mut number = 0;
        pass.seconds += seconds(|| {
            for step in load.steps() {
                let bytes = match step {
                    Step::Record(_, bytes) => bytes,
                    Step::Fact(fact) => {
                        fact(&mut state);
                        continue;
                    }
                };
                let Ok(record) = Record::decode(bytes) else { continue };
                state.apply(&record);
                number += 1;
                if let Some(ruleset) = ruleset
                    && let Some(event) = Event::new(&record, &state, &arena, number)
                {
                    ruleset.matches(&event, &mut scratch, |rule| {
                        pass.matches += 1;
                        std::hint::black_box(ruleset.alert(rule, &event));
                    });
                }
                arena.reset();
            }
        });
        pass.events += events as u64;
    }
    pass
}

fn best(load: &Load, ruleset: Option<&Ruleset>) -> Pass {
    let passes = (0..PASSES).map(|_| pass(load, ruleset));
    passes.min_by(|a, b| a.seconds.total_cmp(&b.seconds)).unwrap_or_default()
}

/// CPU time by what the events are about, timed in runs of the same class.
fn by_class(load: &Load, ruleset: &Ruleset) -> BTreeMap<&'static str, f64> {
    let mut best: BTreeMap<&'static str, f64> = BTreeMap::new();
    for class in [Class::Open, Class::Exec, Class::Connect, Class::Change] {
        let of_class: Vec<_> = load.records().filter(|(of, _)| *of == class).map(|(_, bytes)| bytes).collect();
        let mut fastest = f64::INFINITY;
        for _ in 0..PASSES {
            let mut state = load.start();
            for step in load.steps() {
                match step {
                    Step::Record(Class::Exec | Class::Fork, bytes) => {
                        state.apply(&Record::decode(bytes).expect("a record"));
                    }
                    Step::Record(..) => {}
                    Step::Fact(fact) => fact(&mut state),
                }
            }
            let (mut arena, mut scratch, mut number) = (Arena::new(), Evaluation::default(), 0);
            let time = seconds(|| {
                for bytes in &of_class {
                    let Ok(record) = Record::decode(bytes) else { continue };
                    state.apply(&record);
                    number += 1;
                    if let Some(event) = Event::new(&record, &state, &arena, number) {
                        ruleset.matches(&event, &mut scratch, |rule| {
                            std::hint::black_box(ruleset.alert(rule, &event));
                        });
                    }
                    arena.reset();
                }
            });
            fastest = fastest.min(time);
        }
        let name = match class {
            Class::Open => "opens",
            Class::Exec => "execs",
            Class::Connect => "connects",
            Class::Change => "changes of files",
            Class::Exit | Class::Fork | Class::Other => continue,
        };
        best.insert(name, fastest / of_class.len() as f64 * 1e9);
    }
    best
}

/// Allocations of events that no rule matched, after the first half of the records has filled tables and pools.
fn allocations(load: &Load, ruleset: &Ruleset) -> (u64, u64) {
    let mut state = load.start();
    let (mut arena, mut scratch, mut number) = (Arena::new(), Evaluation::default(), 0);
    let (mut events, mut allocations) = (0, 0);
    let half = load.steps().count() / 2;
    for (at, step) in load.steps().enumerate() {
        let bytes = match step {
            Step::Record(_, bytes) => bytes,
            Step::Fact(fact) => {
                fact(&mut state);
                continue;
            }
        };
        let mut matched = false;
        let info = measure(|| {
            let Ok(record) = Record::decode(bytes) else { return };
            state.apply(&record);
            number += 1;
            if let Some(event) = Event::new(&record, &state, &arena, number) {
                ruleset.matches(&event, &mut scratch, |_| matched = true);
            }
            arena.reset();
        });
        if !matched && at >= half {
            events += 1;
            allocations += info.count_total;
        }
    }
    (events, allocations)
}

fn compile(texts: &[String], matching: RuleMatching) -> (Ruleset, f64, i64) {
    let options = Options { rule_matching: matching, work: usize::MAX, ..Options::default() };
    let mut ruleset = None;
    let mut time = 0.0;
    let memory = measure(|| {
        time = seconds(|| {
            let mut loader = Loader::new(options);
            for (at, text) in texts.iter().enumerate() {
                loader.add(&format!("rules-{at}.yaml"), text.as_bytes());
            }
            let loaded = loader.finish();
            let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.is_error()).map(ToString::to_string).collect();
            assert!(errors.is_empty(), "{}", errors.join("\n"));
            ruleset = loaded.ruleset;
        });
    });
    (ruleset.expect("rules without errors"), time, memory.bytes_current)
}

/// What it takes to read and compile all official rules, each file after the other, those on the audit log among them.
fn check_time() -> bool {
    let Some(official) = std::env::var_os("GYRFALCON_FALCO_RULES").map(PathBuf::from) else { return true };
    let read = |name: &str| std::fs::read(official.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let files = ["falco_rules", "falco-incubating_rules", "falco-sandbox_rules", "k8s_audit_rules"]
        .map(|name| read(&format!("{name}.yaml")));
    let sources = vec![EventSource::Syscall, EventSource::K8sAudit];
    let check = || {
        seconds(|| {
            let mut loader = Loader::new(Options { sources: sources.clone(), ..Options::default() });
            for (at, file) in files.iter().enumerate() {
                loader.add(&format!("rules-{at}.yaml"), file);
            }
            assert!(loader.finish().ruleset.is_some(), "the official rules have no errors");
        })
    };
    let fastest = (0..PASSES).map(|_| check()).fold(f64::INFINITY, f64::min);
    println!("\nall four official files read and compiled in {:.0} ms", fastest * 1e3);
    fastest <= CHECK_SECONDS
}

/// The official rules where they are, each set with its name.
fn rulesets() -> Vec<(&'static str, Vec<String>)> {
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let Some(official) = std::env::var_os("GYRFALCON_FALCO_RULES").map(PathBuf::from) else {
        return vec![("a hundred distinct rules", vec![many::rules(100)])];
    };
    let file = |name: &str| read(&official.join(name));
    let stable = file("falco_rules.yaml");
    let all = vec![stable.clone(), file("falco-incubating_rules.yaml"), file("falco-sandbox_rules.yaml")];
    vec![("stable", vec![stable]), ("stable, incubating and sandbox", all)]
}

/// The recording that was asked for.
fn recording() -> Option<PathBuf> {
    std::env::args_os().skip_while(|arg| arg != "--recording").nth(1).map(PathBuf::from)
}

/// Whether a part of the benchmark was asked for.
fn wanted(part: &str) -> bool {
    let mut filters = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match &*arg {
            "--recording" => drop(args.next()),
            option if option.starts_with("--") => {}
            _ => filters.push(arg),
        }
    }
    filters.is_empty() || filters.iter().any(|filter| part.contains(filter.as_str()))
}

fn main() -> ExitCode {
    if !std::env::args().any(|arg| arg == "--bench") {
        // `cargo test` builds it in the debug profile, in which figures mean nothing.
        return ExitCode::SUCCESS;
    }
    let load = match recording() {
        Some(path) => Load::recorded(&path),
        None => Load::simulated(RECORDS),
    };
    load.print();
    let mut fine = true;
    if wanted("official") {
        fine &= official(&load);
    }
    if wanted("distinct") {
        fine &= distinct(&load);
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The rules that people have.
fn official(load: &Load) -> bool {
    let mut fine = check_time();
    println!("\ndecode and state alone: {:.0} ns an event", best(load, None).ns());
    for (at, (name, texts)) in rulesets().iter().enumerate() {
        for matching in [RuleMatching::First, RuleMatching::All] {
            let (ruleset, time, memory) = compile(texts, matching);
            let best = best(load, Some(&ruleset));
            println!(
                "{name}, {matching:?}: {:.2} million events a CPU second, {:.0} ns an event; {} rules, {} comparisons, {} matches; \
                 loaded in {:.0} ms, {:.1} MiB",
                best.rate() / 1e6,
                best.ns(),
                ruleset.rules().len(),
                ruleset.comparisons(),
                best.matches,
                time * 1e3,
                memory as f64 / 1_048_576.0,
            );
            if at == 0 {
                fine &= recording().is_none() || best.rate() >= EVENTS_A_SECOND;
                for (class, ns) in by_class(load, &ruleset) {
                    println!("    {class}: {ns:.0} ns");
                }
                let (events, allocations) = allocations(load, &ruleset);
                println!("    {allocations} allocations in {events} events that no rule matched");
            }
        }
    }

    fine
}

/// Cost by number of rules.
fn distinct(load: &Load) -> bool {
    let mut fine = true;
    println!("\ndistinct rules");
    for matching in [RuleMatching::First, RuleMatching::All] {
        let sets: Vec<_> = [100, 1000, 10_000].map(|count| (count, compile(&[many::rules(count)], matching))).into();
        let mut best = vec![Pass { seconds: f64::INFINITY, ..Pass::default() }; sets.len()];
        for _ in 0..PASSES {
            for (best, (_, (ruleset, ..))) in best.iter_mut().zip(&sets) {
                let pass = pass(load, Some(ruleset));
                if pass.seconds < best.seconds {
                    *best = pass;
                }
            }
        }
        for (pass, (count, (ruleset, time, memory))) in best.iter().zip(&sets) {
            println!(
                "{count:6}, {matching:?}: {:.0} ns an event, {:.2} times the cost of 100; {} comparisons, {} matches; loaded in \
                 {:.2} s, {:.1} MiB",
                pass.ns(),
                pass.ns() / best[0].ns(),
                ruleset.comparisons(),
                pass.matches,
                time,
                *memory as f64 / 1_048_576.0,
            );
        }
        fine &= best[2].ns() <= TIMES * best[0].ns();
    }
    fine
}
