//! `cargo xtask codegen`: writes the files that are made from code, or with `--check` says which are stale.
//!
//! Which files, and how, is each crate's business: see [`crate::generated`]. That keeps xtask from depending on the
//! crates, some of which take minutes to build.

use anyhow::{Result, bail};

use crate::checkout::{self, Checkout};
use crate::{binaries, ebpf, generated, process};

/// The name of the test target.
const TARGET: &str = "generated";

/// Whether files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Write what is stale.
    Write,
    /// Fail when something is stale.
    Check,
}

/// Runs the crates' `generated` tests.
pub fn run(checkout: &Checkout, mode: Mode) -> Result<()> {
    let crates: Vec<&str> = checkout.targets("test").filter(|(_, t)| t.name == TARGET).map(|(p, _)| &*p.name).collect();
    if crates.is_empty() {
        bail!("no crate has a test target `{TARGET}`\n  remedy: see xtask/src/generated.rs for how to write one");
    }
    process::announce(format_args!("generated files of {}", crates.join(", ")));
    let mut command = checkout::cargo();
    // The whole workspace, so that features are unified as in `cargo xtask test` and nothing is built twice.
    command.current_dir(&checkout.root).args(["test", "--quiet", "--workspace", "--no-fail-fast", "--test", TARGET]);
    ebpf::hand_over_if_built(checkout, &mut command);
    if mode == Mode::Write {
        command.env(generated::MODE_VAR, "write").args(["--", "--nocapture"]);
    }
    process::run(&mut command, "checking generated files", binaries::READ_ABOVE)
}
