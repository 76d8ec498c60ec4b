//! `cargo xtask kernel-test --vm VERSION`: the kernel tests on another kernel, in QEMU.
//!
//! A guest's root is this machine's, read-only over 9p with a layer in memory on top, so that the programs under test are
//! those that were built here and nothing has to be installed in the guest. Debian's kernels are taken, because they are
//! what people run and can be had anywhere ([`kernels`]). Without KVM a guest is many times slower than the machine: too
//! slow for every run of the tests, and cases assert no timings in it (`GYRFALCON_TEST_GUEST`).

mod guest;
mod initrd;
mod kernels;

use std::path::Path;

use anyhow::{Context, Result, bail};

use guest::{Accelerator, Outcome};
pub use kernels::Version;

use crate::checkout::{self, Checkout, SENSOR};
use crate::kernel_test::{self, TARGET};
use crate::{apt, process, rooted};

/// Programs that are needed, with the Debian packages they are in.
pub const NEEDS: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("modprobe", "kmod"),
    ("busybox", "busybox-static"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("lz4", "lz4"),
];

/// Runs the cases whose names contain one of the filters on each of the kernels; whether all ended well.
pub fn run(checkout: &Checkout, object: &Path, versions: &[Version], filters: &[String]) -> Result<bool> {
    let Some((package, _)) = checkout.target_named("test", TARGET) else {
        bail!("{SENSOR} has no test target `{TARGET}`\n  remedy: use a complete checkout");
    };
    if !process::is_root() {
        bail!("a guest reads this machine's files as they are, which takes root\n  remedy: run this as root");
    }
    apt::ensure(&NEEDS, "for guests with other kernels; about 100 MB")?;
    kernel_test::install_needs();
    let build = ["test", "--release", "--package", SENSOR, "--test", TARGET];
    let program = rooted::build(checkout, &build, TARGET, object)?;
    let folder = package.manifest.parent().context("a manifest without a folder")?;
    let cache = checkout::cache()?.join("kernels");
    let accelerator = Accelerator::best();
    let mut rows = Vec::new();
    for version in versions {
        let outcome = on(accelerator, &cache, *version, folder, &program, filters);
        if let Err(error) = &outcome {
            process::announce(format_args!("{}: {error:#}", version.name()));
        }
        rows.push((version, outcome));
    }
    println!();
    let mut well = true;
    for (version, outcome) in rows {
        let Ok((release, outcome)) = outcome else {
            println!("Linux {}: no result, see above", version.name());
            well = false;
            continue;
        };
        let (tally, took) = (outcome.tally, outcome.took.as_secs());
        println!("Linux {release}: {tally}, in {} min {:02} s by {}", took / 60, took % 60, accelerator.name());
        outcome.ignored.iter().for_each(|case| println!("    {case}"));
        well &= tally.failed == 0 && tally.passed > 0;
    }
    Ok(well)
}

/// Runs them on one kernel; its release, and how they ended.
fn on(
    accelerator: Accelerator,
    cache: &Path,
    version: Version,
    folder: &Path,
    program: &Path,
    filters: &[String],
) -> Result<(String, Outcome)> {
    let kernel = kernels::fetch(cache, version)?;
    let initrd = initrd::make(&kernel)?;
    process::announce(format_args!("booting Linux {} in QEMU, by {}", kernel.release, accelerator.name()));
    let outcome = guest::run(accelerator, &kernel, &initrd, folder, program, filters)?;
    Ok((kernel.release, outcome))
}
