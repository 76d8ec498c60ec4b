//! `cargo xtask bench`: the crates' benchmarks, then the sensor's, which measures the whole process as root.

use std::process::Command;

use anyhow::{Result, bail};

use crate::checkout::{self, Checkout, SENSOR};
use crate::{binaries, ebpf, process};

/// Runs every benchmark whose name contains one of the filters.
pub fn run(checkout: &Checkout, filters: &[String]) -> Result<()> {
    let mut packages: Vec<&str> = checkout.targets("bench").map(|(package, _)| &*package.name).collect();
    packages.dedup();
    if packages.is_empty() {
        bail!("no crate has benchmarks\n  remedy: add a [[bench]] target");
    }
    // The sensor's last: they take the machine for themselves.
    packages.sort_by_key(|name| *name == SENSOR);
    for package in packages {
        let mut command = bench(checkout, package)?;
        command.arg("--").args(filters);
        process::run(&mut command, "running benchmarks", binaries::READ_ABOVE)?;
    }
    Ok(())
}

fn bench(checkout: &Checkout, package: &str) -> Result<Command> {
    let mut command = checkout::cargo();
    command.current_dir(&checkout.root).args(["bench", "--package", package]);
    if package == SENSOR {
        ebpf::hand_over(&mut command, &ebpf::build(checkout, ebpf::Arch::of_this_machine()?)?);
        if !process::is_root() {
            process::announce("the sensor's benchmarks need root: run this as root if they refuse to start");
        }
    }
    Ok(command)
}
