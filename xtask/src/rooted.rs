//! Tests and benchmarks that need root: built as the developer, run as root.
//!
//! `sudo cargo test` would leave files in the target folder that belong to root, and look for root's own tool chain.

use std::env;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::checkout::{self, Checkout, Package};
use crate::{binaries, ebpf, process};

/// Variables that tests and benchmarks read, to be carried through sudo.
pub const CARRIED: [&str; 6] = [
    "REQUIRE_KERNEL",
    "GYRFALCON_CONFORMANCE",
    "GYRFALCON_FALCO_RULES",
    "GYRFALCON_E2E_LONG",
    "GYRFALCON_HOOKS",
    "RUST_BACKTRACE",
];

/// Why nothing can be run as root here, if it cannot.
pub fn refused() -> Option<String> {
    if process::is_root() {
        return None;
    }
    if process::on_path("sudo").is_none() {
        return Some("they need root, and there is no sudo".to_owned());
    }
    let asks = !succeeds(Command::new("sudo").args(["-n", "true"]));
    (asks && !std::io::stdin().is_terminal()).then(|| "sudo asks for a password, and there is no terminal".to_owned())
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Builds a target with a cargo command such as `test --test kernel`; returns the program.
pub fn build(checkout: &Checkout, cargo_args: &[&str], target: &str, object: &Path) -> Result<PathBuf> {
    let mut command = checkout::cargo();
    command.current_dir(&checkout.root).args(cargo_args).args(["--no-run", "--message-format=json-render-diagnostics"]);
    ebpf::hand_over(&mut command, object);
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("building `{target}`: cargo ended with {}\n  remedy: {}", output.status, binaries::READ_ABOVE);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages, target).with_context(|| format!("cargo did not say where it put `{target}`"))
}

/// Starts it as cargo would, but as root, and with these variables.
pub fn command(package: &Package, program: &Path, variables: &[(&str, &Path)]) -> Result<Command> {
    let folder = package.manifest.parent().context("a manifest without a folder")?;
    process::announce(format_args!("running {}{}", program.display(), process::root_note()));
    let mut command = process::as_root("env")?;
    command.current_dir(folder).arg(format!("CARGO_MANIFEST_DIR={}", folder.display()));
    let carried = CARRIED.iter().filter_map(|name| Some(format!("{name}={}", env::var(name).ok()?)));
    let own = variables.iter().map(|(name, value)| format!("{name}={}", value.display()));
    command.args(carried).args(own).arg(program);
    Ok(command)
}

fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let is_ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == target;
        is_ours.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_in_what_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"libc"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/t/kernel-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "kernel"), Some(PathBuf::from("/t/kernel-1")));
        assert_eq!(executable(messages, "overhead"), None);
    }
}
