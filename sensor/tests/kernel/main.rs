//! The sensor against this machine's kernel: the real binary, run as a user runs it, judged by what it prints.
//!
//! `cargo xtask kernel-test` runs this as root. What a case needs and does not find makes it *ignored with its reason*,
//! or failed when `REQUIRE_KERNEL=1` says that the machine is meant to have it ([`needs`]). Cases run one after the
//! other, for they share the kernel. Nothing here sleeps in place of a condition: a case waits for what it wants, with a
//! deadline, and knows from a [fence](harness::Sensor::fence) that something did not happen.
//!
//! This program is also what the sensor watches: with a hidden argument it plays a traced process ([`child`]).

mod agent;
mod child;
mod evasion;
mod falco;
mod flood;
mod harness;
mod health;
mod hooks;
mod host;
mod lifecycle;
mod needs;
mod operator;
mod privileges;
mod record;
mod reload;
mod rows;
mod storm;

use std::{env, process::ExitCode};

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(code) = falco::stand_in().or_else(falco::play).or_else(child::play) {
        return code;
    }
    // libtest takes several filters, libtest-mimic one: those in front are looked at here.
    let words: Vec<String> = env::args().skip(1).collect();
    let (filters, options) = words.split_at(words.iter().take_while(|word| !word.starts_with('-')).count());
    let mut args = Arguments::from_iter([&["kernel".to_owned()], options].concat());
    args.test_threads.get_or_insert(1);
    let _turn = (!args.list && nix::unistd::geteuid().is_root()).then(host::turn);
    let _place = host::Place::take();
    let trials = [
        rows::trials(),
        falco::trials(),
        evasion::trials(),
        lifecycle::trials(),
        reload::trials(),
        storm::trials(),
        agent::trials(),
        privileges::trials(),
        health::trials(),
        hooks::trials(),
        record::trials(),
        flood::trials(),
    ];
    let chosen = |trial: &Trial| filters.is_empty() || filters.iter().any(|filter| trial.name().contains(filter));
    libtest_mimic::run(&args, trials.into_iter().flatten().filter(chosen).collect()).exit_code()
}
