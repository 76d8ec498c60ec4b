//! What this machine has for building kernel programs. Looks, changes nothing.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::plan::{LINKER_LLVMS, Step};
use super::{LINKER_VERSION, process};
use crate::{apt, checkout};

/// Debian's compiler. By path, because rustup's comes first on PATH.
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Debian's cargo.
pub const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// There is a rustup.
    pub rustup: bool,
    /// rustup's nightly compiler.
    pub nightly: Option<Rustc>,
    /// Debian's compiler, if it is new enough to build the programs and came with its sources' package.
    pub debian: Option<Rustc>,
    /// apt-get can be asked for packages.
    pub apt: bool,
    /// A bpf-linker on PATH. Its LLVM cannot be told from outside, so it is believed to fit.
    pub linker_on_path: Option<PathBuf>,
    /// Linkers that xtask built, by the version of LLVM in them.
    pub linkers_built: Vec<(u32, PathBuf)>,
    /// There is a cargo-binstall.
    pub binstall: bool,
    /// Versions of LLVM, with headers, below /usr/lib.
    pub llvms: Vec<u32>,
    /// Steps not to be tried again.
    pub refused: Refusals,
}

/// A compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rustc {
    /// First line of `rustc -vV`.
    pub version: String,
    /// The LLVM in it, whose bitcode the linker must understand.
    pub llvm: u32,
    /// The sources of `core` are there.
    pub has_src: bool,
}

/// Which steps were taken, and which of them in vain.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    done: HashSet<Step>,
    refused: HashSet<Step>,
}

impl Refusals {
    /// Notes that a step ended well; false if that had been noted before.
    pub fn insert_done(&mut self, step: &Step) -> bool {
        self.done.insert(step.clone())
    }

    /// The step is not to be tried again.
    pub fn refuse(&mut self, step: Step) {
        self.refused.insert(step);
    }

    /// Whether the step was refused.
    pub fn contains(&self, step: &Step) -> bool {
        self.refused.contains(step)
    }
}

impl Machine {
    /// Looks at everything.
    pub fn observe() -> Result<Self> {
        let rustup = process::on_path("rustup").is_some();
        Ok(Self {
            rustup,
            nightly: if rustup { nightly() } else { None },
            debian: debian(),
            apt: apt::present(),
            linker_on_path: process::on_path("bpf-linker"),
            linkers_built: linkers_built()?,
            binstall: process::on_path("cargo-binstall").is_some(),
            llvms: llvms(),
            refused: Refusals::default(),
        })
    }
}

/// `cargo run` tells its children which tool chain it came from; another tool chain must not hear of it.
pub fn forget_our_toolchain(command: &mut Command) {
    const OURS: [&str; 8] = [
        "CARGO",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "LD_LIBRARY_PATH",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    for name in OURS {
        command.env_remove(name);
    }
}

/// Where a linker that we build for this LLVM goes: `cargo install --root`.
pub fn linker_root(llvm: u32) -> Result<PathBuf> {
    Ok(checkout::cache()?.join(format!("bpf-linker-{LINKER_VERSION}-llvm-{llvm}")))
}

/// Where Debian puts the LLVM of that version.
pub fn llvm_prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

fn nightly() -> Option<Rustc> {
    rustc(|| {
        let mut command = Command::new("rustup");
        // RUSTUP_AUTO_INSTALL: looking must not download.
        command.args(["run", "nightly", "rustc"]).env("RUSTUP_AUTO_INSTALL", "0");
        command
    })
}

fn debian() -> Option<Rustc> {
    if !Path::new(DEBIAN_CARGO).is_file() {
        return None;
    }
    // Edition 2024 and what aya-ebpf uses want a recent compiler; Debian 12's ordinary one is 1.63.
    rustc(|| Command::new(DEBIAN_RUSTC)).filter(|rustc| rustc.has_src && rustc.llvm >= LINKER_LLVMS[0])
}

fn rustc(command: impl Fn() -> Command) -> Option<Rustc> {
    let ask = |question: &[&str]| {
        let mut command = command();
        forget_our_toolchain(&mut command);
        process::stdout_of(command.args(question)).ok()
    };
    let about = ask(&["-vV"])?;
    let llvm = about.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let sysroot = ask(&["--print", "sysroot"])?;
    let core = "lib/rustlib/src/rust/library/core/src/lib.rs";
    Some(Rustc {
        version: about.lines().next()?.to_owned(),
        llvm: llvm.split('.').next()?.parse().ok()?,
        has_src: Path::new(sysroot.trim_end()).join(core).is_file(),
    })
}

fn linkers_built() -> Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for llvm in LINKER_LLVMS {
        let linker = linker_root(llvm)?.join("bin/bpf-linker");
        // An upgraded or removed LLVM leaves a linker behind that cannot start: then it isn't there.
        if linker.is_file() && process::stdout_of(Command::new(&linker).arg("--version")).is_ok() {
            found.push((llvm, linker));
        }
    }
    Ok(found)
}

fn llvms() -> Vec<u32> {
    let has_headers = |llvm: &u32| fs::exists(llvm_prefix(*llvm).join("include/llvm-c/Core.h")).unwrap_or(false);
    LINKER_LLVMS.into_iter().filter(has_headers).collect()
}
