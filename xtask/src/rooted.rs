//! Tests and benchmarks that need root: built as the developer, run as root.
//!
//! `sudo cargo test` would leave files in the target folder that belong to root, and look for root's own tool chain.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::checkout::{self, Checkout, Package};
use crate::{binaries, ebpf, process};

/// Variables that tests and benchmarks read, to be carried through sudo.
const CARRIED: [&str; 4] = ["REQUIRE_KERNEL", "GYRFALCON_CONFORMANCE", "GYRFALCON_FALCO_RULES", "RUST_BACKTRACE"];

/// Builds a target of the sensor with a cargo command such as `test --test kernel`; returns the program.
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

/// Starts it as cargo would, but as root.
pub fn command(package: &Package, program: &Path) -> Result<Command> {
    let folder = package.manifest.parent().context("a manifest without a folder")?;
    process::announce(format_args!("running {}{}", program.display(), process::root_note()));
    let mut command = process::as_root("env")?;
    command.current_dir(folder).arg(format!("CARGO_MANIFEST_DIR={}", folder.display()));
    let carried = CARRIED.iter().filter_map(|name| Some(format!("{name}={}", env::var(name).ok()?)));
    command.args(carried).arg(program);
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
