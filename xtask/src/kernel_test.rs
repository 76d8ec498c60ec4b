//! `cargo xtask kernel-test`: the sensor against this machine's kernel, as root.
//!
//! The tests are a target of the sensor, `kernel`, which is built as the developer and run as root, so that a target
//! folder never gets files that belong to root. Its Cargo.toml says `test = false`: a plain `cargo test` leaves it out.
//! What the cases need besides a kernel (a container runtime, a static busybox) is installed first.

use std::env;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::checkout::{self, Checkout, Package, SENSOR};
use crate::tally::{self, Tally};
use crate::{apt, binaries, ebpf, process};

/// The name of the test target.
pub const TARGET: &str = "kernel";
/// Programs that container cases start, with the Debian packages they are in.
pub const NEEDS: [(&str, &str); 2] = [("runc", "runc"), ("busybox", "busybox-static")];

/// Variables that tests read, to be carried through sudo.
const CARRIED: [&str; 4] = ["REQUIRE_KERNEL", "GYRFALCON_CONFORMANCE", "GYRFALCON_FALCO_RULES", "RUST_BACKTRACE"];

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
    let program = build(checkout, object)?;
    let mut command = as_root_in(package, &program)?;
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

fn build(checkout: &Checkout, object: &Path) -> Result<PathBuf> {
    let mut command = checkout::cargo();
    // The whole workspace, so that features are unified as in the other tests and nothing is built twice.
    command
        .current_dir(&checkout.root)
        .args(["test", "--workspace", "--test", TARGET, "--no-run", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit());
    ebpf::hand_over(&mut command, object);
    let output = command.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("building the kernel tests: cargo ended with {}\n  remedy: {}", output.status, binaries::READ_ABOVE);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages).context("cargo did not say where it put the kernel tests")
}

fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let is_ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == TARGET;
        is_ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    })
}

/// As `cargo test` would start it, but as root.
fn as_root_in(package: &Package, program: &Path) -> Result<Command> {
    let folder = package.manifest.parent().context("a manifest without a folder")?;
    process::announce(format_args!("running {}{}", program.display(), process::root_note()));
    let mut command = process::as_root("env")?;
    command.current_dir(folder).arg(format!("CARGO_MANIFEST_DIR={}", folder.display()));
    let carried = CARRIED.iter().filter_map(|name| Some(format!("{name}={}", env::var(name).ok()?)));
    command.args(carried).arg(program);
    Ok(command)
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_in_what_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"libc"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/t/kernel-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/kernel-1")));
    }
}
