//! What the sensor costs the rest of the machine, and what it takes: the whole process, measured from outside.
//!
//! What is added to a call is compared with the same workload without a sensor in the same run, in turns, because the speed
//! of a machine drifts. The workload runs on the first CPU, the sensor where the scheduler puts it. Needs root.
//!
//! ```text
//! cargo xtask bench overhead
//! GYRFALCON_FALCO_RULES=/path/to/falco-rules cargo xtask bench overhead    # with Falco's stable rules instead of our own
//! cargo xtask bench overhead rate                                          # one part: added, alerts, judged or rate
//! ```
//! A bound that is missed makes it fail.

mod added;
mod alerts;
mod generate;
mod judged;
mod rate;
mod sensor;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use nix::{
    fcntl::{OFlag, open},
    sched::{CpuSet, sched_setaffinity},
    sys::stat::Mode,
    unistd::{Pid, geteuid},
};

/// Measures, and says whether its bounds were kept.
type Part = fn() -> bool;

/// The parts, in their order.
const PARTS: [(&str, Part); 4] =
    [("added", added::measure), ("alerts", alerts::measure), ("judged", judged::measure), ("rate", rate::measure)];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if generate::play(&args) {
        return ExitCode::SUCCESS;
    }
    if !geteuid().is_root() {
        eprintln!("ignored: measuring a running sensor needs root");
        return ExitCode::SUCCESS;
    }
    pin(0);
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    let mut kept = true;
    for (_, part) in PARTS.iter().filter(|(name, _)| wanted(name)) {
        kept &= part();
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Keeps this process on one CPU.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU below the limit");
    sched_setaffinity(Pid::from_raw(0), &set).expect("pinned to a CPU that exists");
}

/// Whether a figure keeps its bound; says so when not.
fn within(what: &str, figure: f64, bound: f64) -> bool {
    let kept = figure <= bound;
    if !kept {
        println!("  BOUND MISSED: {what}: {figure:.3} is more than {bound}");
    }
    kept
}

/// Falco's stable rules where they are, else our own.
fn rules() -> PathBuf {
    let falco = env::var_os("GYRFALCON_FALCO_RULES").map(|folder| Path::new(&folder).join("falco_rules.yaml"));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/rules");
    falco.filter(|path| path.exists()).unwrap_or(own)
}

fn open_and_close() {
    drop(open("/usr/bin/env", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).expect("a file that exists"));
}
