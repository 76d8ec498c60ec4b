//! Tests that need a real Kubernetes, a real kernel, and root. `cargo xtask e2e` builds what they need and runs them.
//!
//! All cases share one cluster, started by the first that asks for it, and work at the same time, each in a namespace
//! of its own; one that disturbs the cluster waits until it is alone ([`harness`]). What a machine lacks makes cases
//! *ignored with the reason*, or failed when `REQUIRE_KERNEL=1` says that the machine is meant to have it. Nothing here
//! sleeps in place of a condition.

mod audit;
mod cluster;
mod config;
mod crowd;
mod facts;
mod faults;
mod garbage;
mod gyrfalcon;
mod harness;
mod receiver;
mod replicas;
mod steps;
mod talker;
mod walkthroughs;

use std::env;

use libtest_mimic::{Arguments, Trial};

fn main() {
    // libtest takes several filters, libtest-mimic one: those in front are looked at here.
    let words: Vec<String> = env::args().skip(1).collect();
    let (filters, options) = words.split_at(words.iter().take_while(|word| !word.starts_with('-')).count());
    let mut args = Arguments::from_iter([&["e2e".to_owned()], options].concat());
    // They wait for others most of the time.
    args.test_threads.get_or_insert(4);
    let chosen = |trial: &Trial| filters.is_empty() || filters.iter().any(|filter| trial.name().contains(filter));
    let trials = [
        cluster::trials(),
        facts::trials(),
        crowd::trials(),
        gyrfalcon::trials(),
        faults::trials(),
        garbage::trials(),
        config::trials(),
        replicas::trials(),
        walkthroughs::trials(),
        audit::trials(),
    ];
    let conclusion = libtest_mimic::run(&args, trials.into_iter().flatten().filter(chosen).collect());
    harness::stop();
    conclusion.exit();
}
