//! What a running sensor adds to calls, and the memory that it takes.

use std::{process::Command, time::Instant};

use crate::{open_and_close, rules, sensor::Sensor, within};

/// Turns of the comparison.
const ROUNDS: usize = 5;
/// Batches of one turn; the fastest counts, as the others were disturbed.
const BATCHES: usize = 20;
/// Calls of one batch.
const CALLS: u32 = 20_000;
/// Programs of one batch: each is a fork, an exec and an exit.
const EXECS: u32 = 200;
/// Batches of them in one turn.
const EXEC_BATCHES: usize = 5;

/// What an untraced call may cost more, in nanoseconds: what Falco adds.
const CALL_NS: f64 = 120.0;
/// The same for `open` and `close`: half of what Falco adds.
const OPEN_NS: f64 = 1_855.0 / 2.0;
/// The same for `fork` and `exec`.
const EXEC_NS: f64 = 104_000.0 / 2.0;
/// Resident memory: half of Falco's.
const MEMORY_MIB: f64 = 30.5;

pub fn measure() -> bool {
    let rules = rules();
    println!("rules: {}", rules.display());
    let mut runs = (Vec::new(), Vec::new());
    let mut memory = 0;
    for _ in 0..ROUNDS {
        runs.0.push(workload());
        let sensor = Sensor::start(&[&rules], &[]);
        runs.1.push(workload());
        memory = sensor.resident_kib();
        sensor.stop();
    }
    let call = row("getppid", &runs, |run| run.call);
    let open = row("open + close of a file that no rule names", &runs, |run| run.open);
    row("write + read of one byte through a pipe", &runs, |run| run.pair);
    let exec = row("fork + exec of a program until its end", &runs, |run| run.exec);
    let memory = f64::from(memory) / 1024.0;
    println!("resident memory: {memory:.1} MiB");
    let bounds = [
        ("getppid", call, CALL_NS),
        ("open + close", open, OPEN_NS),
        ("fork + exec", exec, EXEC_NS),
        ("memory", memory, MEMORY_MIB),
    ];
    bounds.map(|(what, figure, bound)| within(what, figure, bound)).iter().all(|kept| *kept)
}

/// Nanoseconds.
struct Run {
    call: f64,
    open: f64,
    pair: f64,
    exec: f64,
}

fn workload() -> Run {
    let call = fastest(|| {
        // SAFETY: no memory involved. Called without a wrapper: every return to one is mispredicted after the kernel's
        // slow path, and that is not what is measured here.
        std::hint::black_box(unsafe { libc::getppid() });
    });
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    let pair = fastest(|| {
        nix::unistd::write(&writer, b"x").expect("room in the pipe");
        nix::unistd::read(&reader, &mut [0]).expect("a byte in the pipe");
    });
    Run { call, open: fastest(open_and_close), pair, exec: execs() }
}

/// Nanoseconds from the start of a program until its end was waited for, in the fastest batch.
fn execs() -> f64 {
    let batch = || {
        let start = Instant::now();
        for _ in 0..EXECS {
            let status = Command::new("/bin/true").env_clear().status();
            assert!(status.expect("a program that exists").success());
        }
        start.elapsed().as_nanos() as f64 / f64::from(EXECS)
    };
    (0..EXEC_BATCHES).map(|_| batch()).fold(f64::MAX, f64::min)
}

/// Nanoseconds of one call in the fastest batch.
fn fastest(work: impl Fn()) -> f64 {
    let batch = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            work();
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    (0..BATCHES).map(|_| batch()).fold(f64::MAX, f64::min)
}

/// Prints one workload; what the sensor adds, in nanoseconds.
fn row(name: &str, (without, with): &(Vec<Run>, Vec<Run>), figure: fn(&Run) -> f64) -> f64 {
    let median = |runs: &[Run]| {
        let mut values: Vec<f64> = runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (without, with) = (median(without), median(with));
    println!("{name}: {without:.0} ns without, {with:.0} ns with: +{:.0} ns, x{:.2}", with - without, with / without);
    with - without
}
