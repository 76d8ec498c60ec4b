//! Takes the steps that [`super::plan`] asks for. Each is announced: what, where to, how long about.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::machine;
use super::plan::Step;
use super::{LINKER_VERSION, process};
use crate::{apt, checkout};

/// A download that has not ended by then has no network worth waiting for.
const SOURCE_LIMIT: Duration = Duration::from_secs(90);
const NIGHTLY_LIMIT: Duration = Duration::from_secs(900);

impl Step {
    /// What is done, where to, and how long that takes.
    pub fn describe(&self) -> String {
        match self {
            Self::Nightly => {
                "install rustup's nightly tool chain with rust-src (below RUSTUP_HOME, about 1 min)".into()
            }
            Self::NightlySource => "add rust-src to rustup's nightly (below RUSTUP_HOME, a few seconds)".into(),
            Self::BinstallLinker => "install bpf-linker with cargo binstall (below CARGO_HOME, a few seconds)".into(),
            Self::Llvm(llvm) => format!("install Debian's llvm-{llvm}-dev (system packages, about 1 min)"),
            Self::BuildLinker(llvm) => {
                let root =
                    machine::linker_root(*llvm).map_or_else(|_| "the cache".into(), |root| root.display().to_string());
                format!("build bpf-linker {LINKER_VERSION} with LLVM {llvm} (into {root}, about 1 min)")
            }
            Self::DebianCompiler => {
                "install Debian's rustc-web, cargo-web and rust-web-src (system packages, beside rustup's; about 1 min)"
                    .into()
            }
        }
    }
}

/// Takes one step.
pub fn perform(step: &Step) -> Result<()> {
    match step {
        Step::Nightly => {
            process::announce(step.describe());
            rustup(
                &["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"],
                NIGHTLY_LIMIT,
            )
        }
        Step::NightlySource => {
            process::announce(step.describe());
            rustup(&["component", "add", "rust-src", "--toolchain", "nightly"], SOURCE_LIMIT)
        }
        Step::BinstallLinker => {
            process::announce(step.describe());
            let mut command = checkout::cargo();
            command.args(["binstall", "--no-confirm", "bpf-linker"]);
            process::run(&mut command, "installing bpf-linker", "install a bpf-linker by hand and put it on PATH")
        }
        Step::Llvm(llvm) => apt::install(&[&format!("llvm-{llvm}-dev")], "about 1 min"),
        Step::BuildLinker(llvm) => {
            process::announce(step.describe());
            build_linker(*llvm)
        }
        Step::DebianCompiler => apt::install(
            &["rustc-web", "cargo-web", "rust-web-src"],
            "a compiler that can build core, beside rustup's; about 1 min",
        ),
    }
}

fn rustup(args: &[&str], limit: Duration) -> Result<()> {
    let mut command = Command::new("rustup");
    machine::forget_our_toolchain(&mut command);
    command.args(args).env("RUSTUP_MAX_RETRIES", "0").env_remove("RUST_BACKTRACE");
    process::run_within(&mut command, limit, "downloading with rustup", "check the network, or use Debian's packages")
}

/// With the stable compiler that runs xtask: bpf-linker is an ordinary program.
fn build_linker(llvm: u32) -> Result<()> {
    let root = machine::linker_root(llvm)?;
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let prefix = machine::llvm_prefix(llvm);
    let mut command = checkout::cargo();
    command
        .current_dir(&root)
        .args(["install", "bpf-linker", "--quiet", "--locked", "--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
        .arg(&root)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("LLVM_PREFIX", &prefix)
        .env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix)
        .env("RUSTFLAGS", format!("-L{}", prefix.join("lib").display()));
    process::run(&mut command, "building bpf-linker", "install a bpf-linker by hand and put it on PATH")
}
