//! `cargo xtask kernel-test`: the sensor against this machine's kernel, as root.
//!
//! The tests are a target of the sensor, `kernel`. Its Cargo.toml says `test = false`: a plain `cargo test` leaves it out.
//! What the cases need besides a kernel (a container runtime, a static busybox) is installed first.

use std::path::Path;

use anyhow::{Result, bail};

use crate::checkout::{Checkout, SENSOR};
use crate::tally::{self, Tally};
use crate::{apt, process, rooted};

/// The name of the test target.
pub const TARGET: &str = "kernel";
/// Programs that container cases start, with the Debian packages they are in.
pub const NEEDS: [(&str, &str); 2] = [("runc", "runc"), ("busybox", "busybox-static")];

/// Why kernel tests cannot run here, if they cannot.
pub fn cannot_run(checkout: &Checkout) -> Option<String> {
    if checkout.target_named("test", TARGET).is_none() {
        return Some(format!("{SENSOR} has no test target `{TARGET}`"));
    }
    rooted::refused()
}

/// Builds and runs the cases whose names contain one of the filters; says how they ended.
pub fn run(checkout: &Checkout, object: &Path, filters: &[String]) -> Result<(bool, Tally)> {
    let Some((package, _)) = checkout.target_named("test", TARGET) else {
        bail!("{SENSOR} has no test target `{TARGET}`\n  remedy: use a complete checkout");
    };
    install_needs();
    // The whole workspace, so that features are unified as in the other tests and nothing is built twice.
    let program = rooted::build(checkout, &["test", "--workspace", "--test", TARGET], TARGET, object)?;
    let mut command = rooted::command(package, &program, &[])?;
    let (status, tally) = tally::run(command.args(filters))?;
    Ok((status.success(), tally))
}

/// Programs that are not there, as Debian packages.
pub fn missing_needs() -> Vec<&'static str> {
    apt::missing(&NEEDS)
}

/// Installs [`NEEDS`]. Without them the cases that want them say so themselves, so this is no failure here.
pub fn install_needs() {
    if let Err(error) = apt::ensure(&NEEDS, "for cases that start containers; a few seconds") {
        process::announce(format_args!("{error:#}\n  cases that start containers will be skipped"));
    }
}
