//! `cargo xtask build`: kernel programs first, then the programs that people run, with the object handed over.

use anyhow::Result;

use crate::checkout::{self, Checkout};
use crate::{ebpf, process};

/// The remedy where the compiler has said it better.
pub const READ_ABOVE: &str = "read the messages above";

/// How much the compiler does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// Quick to run.
    Release,
}

/// Builds the kernel programs and every binary of the workspace.
pub fn build(checkout: &Checkout, profile: Profile) -> Result<()> {
    let object = ebpf::build(checkout, ebpf::Arch::of_this_machine()?)?;
    let mut command = checkout::cargo();
    command.current_dir(&checkout.root).args(["build", "--workspace", "--bins"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    ebpf::hand_over(&mut command, &object);
    process::run(&mut command, "building the workspace", READ_ABOVE)
}
