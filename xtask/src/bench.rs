//! `cargo xtask bench`: the crates' benchmarks, then the sensor's, which measure the whole process as root.

use anyhow::{Result, bail};

use crate::checkout::{self, Checkout, Package, SENSOR, Target};
use crate::{binaries, ebpf, process, rooted};

const STEP: &str = "running benchmarks";

/// Runs every benchmark target, or those whose names are among the filters; and in each what its harness selects by the
/// other filters.
pub fn run(checkout: &Checkout, filters: &[String]) -> Result<()> {
    let (names, filters): (Vec<_>, Vec<_>) =
        filters.iter().cloned().partition(|filter| checkout.targets("bench").any(|(_, target)| target.name == *filter));
    let wanted = |target: &Target| names.is_empty() || names.contains(&target.name);
    let (sensors, crates): (Vec<_>, Vec<_>) =
        checkout.targets("bench").filter(|(_, target)| wanted(target)).partition(|(package, _)| package.name == SENSOR);
    if sensors.is_empty() && crates.is_empty() {
        bail!("no crate has benchmarks\n  remedy: add a [[bench]] target");
    }
    for (package, target) in crates {
        let mut command = checkout::cargo();
        command.current_dir(&checkout.root).args(["bench", "--package", &package.name, "--bench", &target.name, "--"]);
        process::run(command.args(&filters), STEP, binaries::READ_ABOVE)?;
    }
    // Last, because they take the machine for themselves.
    sensors.into_iter().try_for_each(|(package, target)| bench_sensor(checkout, package, target, &filters))
}

fn bench_sensor(checkout: &Checkout, package: &Package, target: &Target, filters: &[String]) -> Result<()> {
    let object = ebpf::build(checkout, ebpf::Arch::of_this_machine()?)?;
    let cargo_args = ["bench", "--package", &package.name, "--bench", &target.name];
    let program = rooted::build(checkout, &cargo_args, &target.name, &object)?;
    // What cargo tells a harness; without it some think that they are being tested.
    let mut command = rooted::command(package, &program, &[])?;
    process::run(command.arg("--bench").args(filters), STEP, binaries::READ_ABOVE)
}
