//! `cargo xtask run`: the newcomer's first command. Builds everything optimized, then becomes the sensor.
//!
//! *Becomes*: the sensor replaces this process, so Ctrl-C, exit code and terminal are its own.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::checkout::{self, Checkout, SENSOR};
use crate::process::{self, announce};
use crate::{binaries, ebpf};

/// What is loaded when nothing is named.
const DEFAULT_PATHS: [&str; 2] = ["config/rules", "config/samples"];

/// Builds and starts `gyrfalcon run`; returns only when that fails.
pub fn run(checkout: &Checkout, args: &[OsString]) -> Result<()> {
    let object = ebpf::build(checkout, ebpf::Arch::of_this_machine()?)?;
    announce("building gyrfalcon, optimized (a few minutes the first time)");
    let mut build = checkout::cargo();
    build.current_dir(&checkout.root).args(["build", "--release", "--package", SENSOR, "--bin", "gyrfalcon"]);
    ebpf::hand_over(&mut build, &object);
    process::run(&mut build, "building gyrfalcon", binaries::READ_ABOVE)?;

    let mut args = args.to_vec();
    if !args.iter().any(|arg| names_rules(arg)) {
        args.extend(DEFAULT_PATHS.iter().map(|path| shortest(&checkout.root.join(path))));
    }
    let mut sensor = process::as_root(checkout.target.join("release/gyrfalcon"))?;
    sensor.arg("run").args(args);
    announce(format_args!("starting {}{}", process::shown(&sensor), process::root_note()));
    Err(sensor.exec()).with_context(|| format!("cannot start `{}`", process::shown(&sensor)))
}

/// Whether an argument is a path to rules, and not a flag or a flag's value (`-o alerts.json`).
fn names_rules(arg: &OsStr) -> bool {
    let path = Path::new(arg);
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    !arg.as_encoded_bytes().starts_with(b"-") && (is_yaml || path.is_dir())
}

/// Relative to where the user stands, if it is below that.
fn shortest(path: &Path) -> OsString {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).as_os_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_from_flags_and_their_values() {
        for rules in ["../falco_rules.yaml", "my.yml", "/tmp"] {
            assert!(names_rules(OsStr::new(rules)), "{rules}");
        }
        for other in ["--json", "-o", "alerts.json", "--config=/tmp", "debug"] {
            assert!(!names_rules(OsStr::new(other)), "{other}");
        }
    }
}
