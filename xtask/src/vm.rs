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

pub use kernels::Version;

use crate::checkout::{self, Checkout, SENSOR};
use crate::kernel_test::{self, TARGET};
use crate::tally::Tally;
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
    let program = rooted::build(checkout, &["test", "--workspace", "--test", TARGET], TARGET, object)?;
    let folder = package.manifest.parent().context("a manifest without a folder")?;
    let cache = checkout::cache()?.join("kernels");
    let mut rows: Vec<(String, Tally)> = Vec::new();
    for version in versions {
        let kernel = kernels::fetch(&cache, *version)?;
        let initrd = initrd::make(&kernel)?;
        process::announce(format_args!("booting Linux {} in QEMU", kernel.release));
        let tally = guest::run(&kernel, &initrd, folder, &program, filters)?;
        rows.push((kernel.release, tally));
    }
    println!();
    for (release, tally) in &rows {
        println!("Linux {release}: {tally}");
    }
    Ok(rows.iter().all(|(_, tally)| tally.failed == 0 && tally.passed > 0))
}
