//! Debian and Ubuntu packages: the only place that calls apt-get.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process;

/// Whether this machine installs packages with apt.
pub fn present() -> bool {
    process::on_path("apt-get").is_some() && process::on_path("dpkg-query").is_some()
}

/// Packages of the programs that are not there, of pairs of the two.
pub fn missing(needs: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    // Not everyone's PATH has the folders for administrators, where Debian puts runc; root's has.
    let there = |program: &str| {
        let admin =
            ["/usr/local/sbin", "/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(program).exists());
        admin || process::on_path(program).is_some()
    };
    needs.iter().filter(|(program, _)| !there(program)).map(|(_, package)| *package).collect()
}

/// Installs the packages of programs that are not there.
pub fn ensure(needs: &[(&'static str, &'static str)], about: &str) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    if !present() {
        bail!("not installed: {} (install them with your package manager)", missing.join(", "));
    }
    install(&missing, about)
}

/// Installs packages, as root. Never at the price of another package: where apt would have to remove one (rustc-web
/// conflicts with rustc), it refuses, and the user decides.
pub fn install(packages: &[&str], about: &str) -> Result<()> {
    let list = packages.join(" ");
    process::announce(format_args!(
        "installing Debian packages with apt-get: {list} ({about}){}",
        process::root_note()
    ));
    let remedy = format!("install them by hand (apt-get update && apt-get install {list}), then run this again");
    // A list that cannot be refreshed (one unreachable third-party source is enough) may still be good enough to install from.
    if let Err(error) = process::run(apt_get()?.args(["update", "-qq"]), "refreshing the package lists", &remedy) {
        process::announce(format_args!("{error:#}; trying with the lists that are there"));
    }
    let mut install = apt_get()?;
    install.args(["install", "-y", "-qq", "--no-remove"]).args(packages).stdout(Stdio::null());
    process::run(&mut install, "installing Debian packages", &remedy)
}

fn apt_get() -> Result<Command> {
    let mut command = process::as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]);
    Ok(command)
}
