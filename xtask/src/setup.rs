//! `cargo xtask setup`: what this machine has for working on Gyrfalcon, and what the commands would install.
//!
//! Nothing has to be set up by hand: each command installs what it needs, after saying so. This is for those who want
//! to know first, and, with `--install`, for machine images that should have it all.

use anyhow::Result;

use crate::checkout::Checkout;
use crate::ebpf::{self, Machine, Next};
use crate::process;
use crate::{checkout, kernel_test, kubernetes};

/// Prints what is there and what would be installed.
pub fn show() -> Result<()> {
    let machine = Machine::observe()?;
    println!("There:");
    for (what, found) in inventory(&machine) {
        println!("  {what:<22} {}", found.unwrap_or_else(|| "-".to_owned()));
    }
    let steps = would_install(machine);
    println!(
        "\n{}",
        if steps.is_empty() { "Nothing would be installed." } else { "Would be installed when a command needs it:" }
    );
    for step in steps {
        println!("  {step}");
    }
    Ok(())
}

/// Installs everything now.
pub fn install(checkout: &Checkout) -> Result<()> {
    ebpf::build(checkout, ebpf::Arch::of_this_machine()?)?;
    kernel_test::install_needs();
    kubernetes::tools(checkout)?;
    process::announce("everything is there");
    Ok(())
}

fn inventory(machine: &Machine) -> Vec<(&'static str, Option<String>)> {
    let on_path = |program: &str| process::on_path(program).map(|path| path.display().to_string());
    let rustc = |rustc: &ebpf::Rustc| {
        let src = if rustc.has_src { "with" } else { "without" };
        format!("{}, LLVM {}, {src} rust-src", rustc.version, rustc.llvm)
    };
    let linkers = machine.linkers_built.iter().map(|(_, path)| path.display().to_string());
    vec![
        ("rustup's nightly", machine.nightly.as_ref().map(rustc)),
        ("Debian's rustc-web", machine.debian.as_ref().map(rustc)),
        ("bpf-linker on PATH", machine.linker_on_path.as_ref().map(|path| path.display().to_string())),
        ("bpf-linker, ours", linkers.reduce(|all, one| format!("{all}, {one}"))),
        ("cargo-deny", on_path("cargo-deny")),
        ("sudo", on_path("sudo")),
        ("for container cases", kernel_test::missing_needs().is_empty().then(|| "runc, busybox".to_owned())),
        ("Go", on_path("go")),
        ("a Kubernetes, ours", kubernetes().filter(|tools| kubernetes::missing(tools).is_empty()).map(folder)),
    ]
}

fn kubernetes() -> Option<e2e::Tools> {
    checkout::cache().ok().map(|cache| e2e::Tools::in_cache(&cache))
}

fn folder(tools: e2e::Tools) -> String {
    tools.folder().display().to_string()
}

fn would_install(mut machine: Machine) -> Vec<String> {
    let mut steps = Vec::new();
    while let Next::Do(step) = ebpf::next(&machine) {
        steps.push(step.describe());
        step.assume(&mut machine);
    }
    if ebpf::next(&machine) == Next::Stuck {
        steps.push("nothing for kernel programs: `cargo xtask build-ebpf` says what to do by hand".to_owned());
    }
    let packages = kernel_test::missing_needs();
    if !packages.is_empty() {
        steps.push(format!("install Debian's {} (for kernel tests that start containers)", packages.join(", ")));
    }
    let packages = kubernetes::missing_packages();
    if !packages.is_empty() {
        steps.push(format!("install Debian's {} (for `e2e` and `demo`)", packages.join(", ")));
    }
    let missing = kubernetes().map_or(0, |tools| kubernetes::missing(&tools).len());
    if missing > 0 {
        steps.push(format!("build {missing} programs of a Kubernetes with Go (for `e2e` and `demo`)"));
    }
    steps
}
