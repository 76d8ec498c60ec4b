//! `cargo xtask kernel-test`: the sensor against this machine's kernel, as root.
//!
//! The tests are a target of the sensor, `kernel`. Its Cargo.toml says `test = false`: a plain `cargo test` leaves it out.
//! What the cases need besides a kernel (a container runtime, a static busybox) is installed first.

use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};

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
    if process::is_root() {
        return None;
    }
    if process::on_path("sudo").is_none() {
        return Some("they need root, and there is no sudo".to_owned());
    }
    let asks = !succeeds(Command::new("sudo").args(["-n", "true"]));
    (asks && !std::io::stdin().is_terminal()).then(|| "sudo asks for a password, and there is no terminal".to_owned())
}

/// Builds and runs the cases whose names contain one of the filters; says how they ended.
pub fn run(checkout: &Checkout, object: &Path, filters: &[String]) -> Result<(bool, Tally)> {
    let Some((package, _)) = checkout.target_named("test", TARGET) else {
        bail!("{SENSOR} has no test target `{TARGET}`\n  remedy: use a complete checkout");
    };
    install_needs();
    // The whole workspace, so that features are unified as in the other tests and nothing is built twice.
    let program = rooted::build(checkout, &["test", "--workspace", "--test", TARGET], TARGET, object)?;
    let mut command = rooted::command(package, &program)?;
    let (status, tally) = tally::run(command.args(filters))?;
    Ok((status.success(), tally))
}

/// Programs that are not there, as Debian packages.
pub fn missing_needs() -> Vec<&'static str> {
    // Not everyone's PATH has the folders for administrators, where Debian puts runc; root's has.
    let there = |program: &str| {
        let admin =
            ["/usr/local/sbin", "/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(program).exists());
        admin || process::on_path(program).is_some()
    };
    NEEDS.iter().filter(|(program, _)| !there(program)).map(|(_, package)| *package).collect()
}

/// Installs [`NEEDS`]. Without them the cases that want them say so themselves, so this is no failure here.
pub fn install_needs() {
    let missing = missing_needs();
    if missing.is_empty() {
        return;
    }
    let installed = if apt::present() {
        apt::install(&missing, "for cases that start containers; a few seconds")
    } else {
        Err(anyhow::anyhow!("not installed: {} (install them with your package manager)", missing.join(", ")))
    };
    if let Err(error) = installed {
        process::announce(format_args!("{error:#}\n  cases that start containers will be skipped"));
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
