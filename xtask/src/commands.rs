//! The commands: one row each, with its name, what it is for, its arguments and what runs.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::binaries::{self, Profile};
use crate::checkout::Checkout;
use crate::ebpf;

struct Row {
    name: &'static str,
    about: &'static str,
    args: fn(Command) -> Command,
    run: fn(&ArgMatches) -> Result<ExitCode>,
}

const ROWS: &[Row] = &[
    Row {
        name: "build",
        about: "Build the kernel programs and every binary",
        args: |command| command.arg(release()),
        run: |args| done(binaries::build(&Checkout::find()?, profile(args))),
    },
    Row {
        name: "build-ebpf",
        about: "Build the kernel programs; installs what that needs, after saying so",
        args: build_ebpf_args,
        run: build_ebpf,
    },
];

/// Runs the command that the arguments name.
pub fn dispatch() -> Result<ExitCode> {
    let matches = command().get_matches();
    let (name, args) = matches.subcommand().unwrap_or(("", &matches));
    match ROWS.iter().find(|row| row.name == name) {
        Some(row) => (row.run)(args),
        None => done(command().print_help().map_err(Into::into)),
    }
}

fn command() -> Command {
    let rows = ROWS.iter().map(|row| (row.args)(Command::new(row.name).about(row.about)));
    Command::new("cargo xtask").bin_name("cargo xtask").about("Every developer command of Gyrfalcon").subcommands(rows)
}

fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

fn release() -> Arg {
    flag("release", "Optimized")
}

fn profile(args: &ArgMatches) -> Profile {
    if args.get_flag("release") { Profile::Release } else { Profile::Dev }
}

fn build_ebpf_args(command: Command) -> Command {
    let arch = Arg::new("arch").long("arch").value_parser(ebpf::Arch::NAMES).help(
        "Whose registers the programs read; another machine's programs are only compiled [default: this machine's]",
    );
    // Programs that are not optimized do not pass the kernel's verifier, so there is only one way to build them.
    command.arg(arch).arg(release().hide(true))
}

fn build_ebpf(args: &ArgMatches) -> Result<ExitCode> {
    let arch = match args.get_one::<String>("arch").and_then(|name| ebpf::Arch::named(name)) {
        Some(arch) => arch,
        None => ebpf::Arch::of_this_machine()?,
    };
    done(ebpf::build(&Checkout::find()?, arch).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_every_command_are_sound() {
        command().debug_assert();
    }
}
