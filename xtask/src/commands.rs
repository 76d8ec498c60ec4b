//! The commands: one row each, with its name, what it is for, its arguments and what runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::binaries::{self, Profile};
use crate::checkout::Checkout;
use crate::codegen::{self, Mode};
use crate::suite::{self, Request, Step};
use crate::vm::{self, Version};
use crate::{bench, chart, demo, deny, e2e_test, ebpf, image, run, setup, tidy};

struct Row {
    name: &'static str,
    about: &'static str,
    args: fn(Command) -> Command,
    run: fn(&ArgMatches) -> Result<ExitCode>,
}

/// In the order in which a newcomer meets them.
const ROWS: &[Row] = &[
    Row {
        name: "run",
        about: "Build everything and start the sensor here, as root, with our rules and samples",
        args: |command| {
            command.arg(rest("args", "For `gyrfalcon run`; without a path among them, our rules are added"))
        },
        run: |args| done(run::run(&Checkout::find()?, &values::<OsString>(args, "args"))),
    },
    Row {
        name: "build",
        about: "Build the kernel programs and every binary",
        args: |command| command.arg(release()),
        run: |args| done(binaries::build(&Checkout::find()?, profile(args))),
    },
    Row { name: "build-ebpf", about: "Build the kernel programs alone", args: build_ebpf_args, run: build_ebpf },
    Row {
        name: "test",
        about: "Test everything that can be tested here: checks, lints, tests, and the sensor against this kernel",
        args: |command| command.arg(only()).arg(rest("filter", "Only tests whose names contain one of these")),
        run: |args| test(args, Vec::new()),
    },
    Row {
        name: "kernel-test",
        about: "Test the sensor against this kernel, as root",
        args: |command| {
            let versions = Version::ALL.map(Version::name).into_iter().chain(["all"]).collect::<Vec<_>>();
            let vm = Arg::new("vm").long("vm").value_name("VERSION").value_delimiter(',').value_parser(versions);
            command
                .arg(vm.help("On this kernel of Debian's, in QEMU; takes a quarter of an hour for each without KVM"))
                .arg(rest("filter", "Only cases whose names contain one of these"))
        },
        run: kernel_test,
    },
    Row {
        name: "e2e",
        about: "Test everything together on a real Kubernetes, which is built and started here, as root",
        args: |command| {
            command
                .arg(flag("prepare", "Only build what the tests need"))
                .arg(rest("filter", "Only cases whose names contain one of these"))
        },
        run: e2e,
    },
    Row {
        name: "demo",
        about: "Start a Kubernetes here with Gyrfalcon in it, as root, and show an alert",
        args: |command| {
            command
                .arg(flag("detach", "Leave it running, until --stop"))
                .arg(flag("stop", "End what --detach left running").conflicts_with("detach"))
        },
        run: |args| {
            let checkout = Checkout::find()?;
            done(if args.get_flag("stop") { demo::stop() } else { demo::run(&checkout, args.get_flag("detach")) })
        },
    },
    Row {
        name: demo::IN_CLUSTER,
        about: "The part of `demo` that needs root",
        args: |command| {
            let path = |name| Arg::new(name).required(true).value_parser(value_parser!(PathBuf));
            command.hide(true).arg(path("tools")).arg(path("images")).arg(flag("detach", "Leave it running"))
        },
        run: |args| {
            let path = |name| args.get_one::<PathBuf>(name).cloned().unwrap_or_default();
            done(demo::in_cluster(&Checkout::find()?, &path("tools"), &path("images"), args.get_flag("detach")))
        },
    },
    Row {
        name: "image",
        about: "Build container images of the sensor and the operator, as archives",
        args: |command| {
            let out = Arg::new("out").long("out").value_name("DIR").value_parser(value_parser!(PathBuf));
            command.arg(out.help("Where to put them [default: images in cargo's target folder]"))
        },
        run: |args| done(image::run(&Checkout::find()?, args.get_one::<PathBuf>("out").map(PathBuf::as_path))),
    },
    Row {
        name: "bench",
        about: "Run the benchmarks",
        args: |command| {
            command.arg(rest(
                "filter",
                "Only this target (engine, overhead, outbox…), and in it what contains one of the other words",
            ))
        },
        run: |args| done(bench::run(&Checkout::find()?, &values::<String>(args, "filter"))),
    },
    Row {
        name: "codegen",
        about: "Write the files that are made from code: CRDs, reference pages",
        args: |command| command.arg(flag("check", "Write nothing, fail when something is stale")),
        run: |args| {
            let mode = if args.get_flag("check") { Mode::Check } else { Mode::Write };
            done(codegen::run(&Checkout::find()?, mode))
        },
    },
    Row {
        name: "chart",
        about: "Check the Helm chart: lint, schema, and its renders against the committed ones",
        args: |command| command.arg(flag("bless", "Write the renders and install.yaml as they are")),
        run: |args| {
            let mode = if args.get_flag("bless") { Mode::Write } else { Mode::Check };
            done(chart::run(&Checkout::find()?, mode))
        },
    },
    Row {
        name: "tidy",
        about: "Check what no compiler checks: who uses whom, files nobody names, unargued unsafe, unfinished work",
        args: |command| command.arg(flag("bless", "Write the crate graph as it is")),
        run: |args| {
            let checkout = Checkout::find()?;
            done(if args.get_flag("bless") { tidy::bless(&checkout) } else { tidy::run(&checkout) })
        },
    },
    Row {
        name: "deny",
        about: "Check licences and sources of dependencies",
        args: |command| command,
        run: |_| done(deny::run(&Checkout::find()?)),
    },
    Row {
        name: "setup",
        about: "Show what is installed here and what the commands would install",
        args: |command| command.arg(flag("install", "Install it now")),
        run: |args| done(if args.get_flag("install") { setup::install(&Checkout::find()?) } else { setup::show() }),
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
    Command::new("cargo xtask")
        .bin_name("cargo xtask")
        .about("Every developer command of Gyrfalcon")
        .after_help(
            "What a command needs is installed when it is needed, after saying so; `setup` shows it beforehand.",
        )
        .disable_help_subcommand(true)
        .subcommands(rows)
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

/// Everything that follows, flags behind `--` included.
fn rest(name: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(name).help(help).num_args(0..);
    // Arguments of the sensor may be paths, and those may be anything.
    if name == "args" { arg.value_parser(value_parser!(OsString)).last(true) } else { arg }
}

fn values<T: Clone + Send + Sync + 'static>(args: &ArgMatches, name: &str) -> Vec<T> {
    args.get_many::<T>(name).into_iter().flatten().cloned().collect()
}

fn only() -> Arg {
    let names = Step::ALL.map(Step::name);
    Arg::new("only").long("only").value_delimiter(',').value_parser(names).help("Only these steps")
}

fn test(args: &ArgMatches, steps: Vec<Step>) -> Result<ExitCode> {
    let named = |name: &String| Step::named(name);
    let only = match steps.is_empty() {
        true => values::<String>(args, "only").iter().filter_map(named).collect(),
        false => steps,
    };
    let require_kernel = std::env::var_os("REQUIRE_KERNEL").is_some_and(|value| value == "1");
    let request = Request { only, filters: values(args, "filter"), require_kernel };
    let well = suite::run(&Checkout::find()?, &request)?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn kernel_test(args: &ArgMatches) -> Result<ExitCode> {
    let names = values::<String>(args, "vm");
    if names.is_empty() {
        return test(args, vec![Step::Kernel]);
    }
    let all = names.iter().any(|name| name == "all");
    let chosen = |version: &Version| all || names.iter().any(|name| name == version.name());
    let versions: Vec<_> = Version::ALL.into_iter().filter(chosen).collect();
    let checkout = Checkout::find()?;
    let object = ebpf::build(&checkout, ebpf::Arch::of_this_machine()?)?;
    let well = vm::run(&checkout, &object, &versions, &values(args, "filter"))?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn e2e(args: &ArgMatches) -> Result<ExitCode> {
    let checkout = Checkout::find()?;
    if args.get_flag("prepare") {
        return done(e2e_test::prepare(&checkout));
    }
    let well = e2e_test::alone(&checkout, &values::<String>(args, "filter"))?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build_ebpf_args(command: Command) -> Command {
    let arch = Arg::new("arch").long("arch").value_parser(ebpf::Arch::NAMES).help(
        "Whose registers the programs read; for another machine they are only compiled [default: this machine's]",
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
