//! Builds the kernel programs, `sensor-ebpf/`, into `target/bpf/gyrfalcon-ebpf`.
//!
//! They are a package of their own, outside the workspace: another target, another compiler, other flags. A plain
//! `cargo build` must work without that compiler, and a build script that starts a second tool chain would make every
//! `cargo check` slow. So **the contract with the sensor** is one environment variable:
//!
//! * [`OBJECT_VAR`] (`GYRFALCON_EBPF_OBJECT`) is the absolute path of the object. xtask sets it for every cargo call
//!   that may build the sensor (see [`hand_over`]); nobody else has to.
//! * The sensor's build script prints `cargo::rerun-if-env-changed=GYRFALCON_EBPF_OBJECT`, and when the variable is set
//!   also `cargo::rerun-if-changed=<path>`; it starts nothing. The sensor embeds the file when it is set
//!   (`option_env!`, or a `cfg` from the build script around `include_bytes!(env!("GYRFALCON_EBPF_OBJECT"))`).
//! * Without the variable the sensor compiles too. Asked to run, it says that it was built without kernel programs and
//!   that `cargo xtask build` builds it with them.
//!
//! The object is rewritten only when its bytes change, so an unchanged one rebuilds nothing.
//!
//! Which compiler: [`plan`] decides, from what [`machine`] has seen; [`steps`] installs.

mod fingerprint;
mod machine;
mod plan;
mod steps;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

pub use machine::{Machine, Rustc};
pub use plan::{Next, next};

use crate::checkout::Checkout;
use crate::process::{self, announce};
use plan::{Compiler, Toolchain};

/// Names the object for the sensor's build.
pub const OBJECT_VAR: &str = "GYRFALCON_EBPF_OBJECT";
/// The version of bpf-linker that is built when the machine has none.
pub const LINKER_VERSION: &str = "0.13.0";

const TARGET: &str = "bpfel-unknown-none";
const BINARY: &str = "gyrfalcon-ebpf";

/// The machine whose registers the programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit PCs.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// Names, as `--arch` takes them.
    pub const NAMES: [&str; 2] = ["x86_64", "aarch64"];

    /// The architecture of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::X86_64, Self::Aarch64].into_iter().find(|arch| arch.name() == name)
    }

    /// The architecture that this program runs on: the one whose sensor is built here.
    pub fn of_this_machine() -> Result<Self> {
        let name = std::env::consts::ARCH;
        Self::named(name).with_context(|| {
            format!("no kernel programs for {name}\n  remedy: build on one of {}", Self::NAMES.join(", "))
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// `gyrfalcon-ebpf` is always this machine's, whatever was built last.
    fn object_name(self) -> String {
        match Self::of_this_machine() {
            Ok(here) if here == self => BINARY.to_owned(),
            _ => format!("{BINARY}-{}", self.name()),
        }
    }
}

/// Builds the kernel programs if anything changed, installing what that needs. Returns the object's path.
pub fn build(checkout: &Checkout, arch: Arch) -> Result<PathBuf> {
    let source = checkout.root.join("sensor-ebpf");
    if !source.join("Cargo.toml").is_file() {
        bail!("there are no kernel programs in {}\n  remedy: use a complete checkout", source.display());
    }
    let toolchain = toolchain()?;
    let out = checkout.target.join("bpf");
    let object = out.join(arch.object_name());
    let stamp = object.with_extension("fingerprint");
    let fingerprint = fingerprint::of(&[&source, &checkout.root.join("crates/abi")], &identity(&toolchain, arch)?)?;
    if object.is_file() && fs::read_to_string(&stamp).is_ok_and(|last| last == fingerprint) {
        announce(format_args!("kernel programs are up to date: {}", object.display()));
        return Ok(object);
    }
    let began = Instant::now();
    announce(format_args!(
        "building kernel programs with {} in {} (about 1 min the first time)",
        toolchain.compiler.name(),
        source.display()
    ));
    let build_dir = out.join("build");
    compile(&toolchain, arch, &source, &build_dir)?;
    let built = build_dir.join(TARGET).join("release").join(BINARY);
    replace_if_different(&built, &object)?;
    fs::write(&stamp, fingerprint).with_context(|| format!("cannot write {}", stamp.display()))?;
    announce(format_args!("built {} in {:.1} s", object.display(), began.elapsed().as_secs_f32()));
    Ok(object)
}

/// Sets what the sensor's build reads. For every cargo call that may build the sensor.
pub fn hand_over(command: &mut Command, object: &Path) {
    command.env(OBJECT_VAR, object);
}

/// Like [`hand_over`], where the object is welcome but not needed: then a sensor built with it is not built again.
pub fn hand_over_if_built(checkout: &Checkout, command: &mut Command) {
    let object = checkout.target.join("bpf").join(BINARY);
    if object.is_file() {
        hand_over(command, &object);
    }
}

/// Finds a tool chain, or makes one: does what [`next`] says until it says that it is ready.
fn toolchain() -> Result<Toolchain> {
    let mut machine = Machine::observe()?;
    loop {
        match next(&machine) {
            Next::Ready(toolchain) => return Ok(toolchain),
            Next::Do(step) => {
                let done = steps::perform(&step);
                let refused = done.is_err();
                if let Err(error) = done {
                    announce(format_args!("{error:#}"));
                    announce("going on with the next way to get there");
                }
                let mut refusals = std::mem::take(&mut machine.refused);
                // A step that went well and is asked for again has not done its work: that is a refusal, not a loop.
                if refused || !refusals.insert_done(&step) {
                    refusals.refuse(step);
                }
                machine = Machine { refused: refusals, ..Machine::observe()? };
            }
            Next::Stuck => bail!("{STUCK}"),
        }
    }
}

const STUCK: &str = "no tool chain for kernel programs, and every way to get one was refused (see above)
  remedy: either
    rustup toolchain install nightly --component rust-src, and a bpf-linker on PATH that is built for its LLVM
    (`cargo binstall bpf-linker`, or the linker's release page), or
    on Debian 12 and later: apt-get install rustc-web cargo-web rust-web-src llvm-22-dev";

fn compile(toolchain: &Toolchain, arch: Arch, source: &Path, build_dir: &Path) -> Result<()> {
    let mut command = match &toolchain.compiler {
        Compiler::Rustup { .. } => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo"]);
            command
        }
        Compiler::Debian { .. } => {
            let mut command = Command::new(machine::DEBIAN_CARGO);
            command.env("RUSTC", machine::DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
            command
        }
    };
    machine::forget_our_toolchain(&mut command);
    command
        .current_dir(source)
        .args(["build", "--release", "-Zbuild-std=core", "--target", TARGET, "--bin", BINARY, "--target-dir"])
        .arg(build_dir)
        // The separator is cargo's own; unlike RUSTFLAGS this takes the quotes in the cfg as they are.
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(arch).join("\x1f"))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker);
    let remedy = format!(
        "read the compiler's message above. A linker error about bitcode means that {} has an older LLVM than {}: \
         remove it from PATH, or install one that fits",
        toolchain.linker.display(),
        toolchain.compiler.name()
    );
    process::run(&mut command, "building kernel programs", &remedy)
}

fn rustflags(arch: Arch) -> [String; 3] {
    let arch = format!("--cfg=bpf_target_arch=\"{}\"", arch.name());
    [arch, "-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned()]
}

/// What, besides the sources, decides what the object looks like.
fn identity(toolchain: &Toolchain, arch: Arch) -> Result<String> {
    let linker = &toolchain.linker;
    let meta = linker.metadata().with_context(|| format!("cannot look at {}", linker.display()))?;
    let changed = meta.modified().context("this file system keeps no modification times")?;
    Ok(format!("{:?} {} {changed:?} {} {:?}", toolchain.compiler, linker.display(), meta.len(), rustflags(arch)))
}

/// Leaves out what only debuggers read: three quarters of the object, which every sensor would carry. `.BTF` was made of
/// it, and stays.
fn without_debug_info(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = object::build::elf::Builder::read(object)?;
    let debug = |name: &[u8]| name.strip_prefix(b".rel").unwrap_or(name).starts_with(b".debug");
    for section in &mut builder.sections {
        section.delete = debug(&section.name);
    }
    builder.delete_orphans();
    // The linker keeps names of sections among those of symbols; here they have a table each.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    let mut bytes = Vec::new();
    builder.write(&mut bytes)?;
    Ok(bytes)
}

fn replace_if_different(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("the build left no {}", built.display()))?;
    let bytes = without_debug_info(&bytes).with_context(|| format!("{} is no object file", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(object, bytes).with_context(|| format!("cannot write {}", object.display()))
}
