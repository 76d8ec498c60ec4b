//! The gyrfalcon binary: a sensor on its own or of a cluster's node, and the tools of rule authors.
#![deny(unsafe_code)]

mod active;
mod agent;
mod audit;
#[expect(unsafe_code, reason = "opens cgroups by their ids")]
mod cgroups;
mod cli;
#[expect(unsafe_code, reason = "asks libc for the time zone")]
mod clock;
mod commands;
#[expect(unsafe_code, reason = "changes mounts by system call")]
mod confine;
mod containers;
#[expect(unsafe_code, reason = "maps the memory shared with the kernel")]
mod driver;
mod drops;
mod exit;
#[expect(unsafe_code, reason = "advises the kernel about memory")]
mod footprint;
mod health;
mod hold;
mod input;
mod log;
mod lookup;
mod names;
mod out;
mod pipeline;
mod procfs;
mod pushdown;
mod recorder;
mod report;
mod rules;
mod sensor;
mod signals;
mod throttle;
mod users;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::{
    cli::{Cli, Command},
    exit::Exit,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Input } else { Exit::Fine }.into();
        }
    };
    let level = match &cli.command {
        Command::Agent(args) => args.log_level,
        Command::Audit(args) => args.run.log_level,
        _ => tracing::Level::INFO,
    };
    log::start(level);
    let exit = match &cli.command {
        Command::Run(args) => commands::run::run(args),
        Command::Agent(args) => agent::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Check(args) => commands::check::check(args),
        Command::Test(args) => commands::test::test(args),
        Command::Explain(args) => commands::explain::explain(args),
        Command::Convert(args) => commands::convert::convert(args),
        Command::Record(args) => commands::record::record(args),
        Command::Replay(args) => commands::replay::replay(args),
        Command::Fields(args) => commands::list::fields(args),
        Command::Events(args) => commands::list::events(args),
        Command::Sinks => commands::list::sinks(),
        Command::Doctor(args) => commands::doctor::doctor(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "gyrfalcon", &mut script);
            out::print(&String::from_utf8_lossy(&script))
        }
    };
    exit.into()
}
