//! Builds the programs of the Kubernetes that tests and the demo run: which, and from what, says [`e2e::tools`].
//!
//! Each is built once, below the user's cache, under a name that changes with its sources; what is there is not built
//! again. Go does the rest: it downloads the modules that `e2e/tools` names, checks them against the sums there, and
//! keeps what it compiled, so that another version builds faster than the first.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use e2e::Tools;
use e2e::tools::{COMPILER_FLAGS, FOLDER_VAR, PROGRAMS, Part, Program, SYSTEM, linker_flags};

use crate::checkout::Checkout;
use crate::process::{self, announce};
use crate::{apt, checkout};

const NO_GO: &str = "building a Kubernetes needs Go 1.26 or later, and there is no `go` on PATH
  remedy: install Go (https://go.dev/doc/install); many distributions' package is too old";

/// Builds and installs what is missing; returns where it is.
pub fn tools(checkout: &Checkout) -> Result<Tools> {
    apt::ensure(&SYSTEM, "for containers and Services of a Kubernetes; a few seconds")?;
    if let Some(folder) = std::env::var_os(FOLDER_VAR).filter(|folder| !folder.is_empty()) {
        announce(format_args!("using the Kubernetes in {}", folder.display()));
        return Ok(Tools::at(folder));
    }
    let tools = Tools::in_cache(&checkout::cache()?);
    let missing = missing(&tools);
    if missing.is_empty() {
        return Ok(tools);
    }
    if process::on_path("go").is_none() {
        bail!("{NO_GO}");
    }
    let began = Instant::now();
    let folder = tools.folder();
    announce(format_args!(
        "building {} programs of a Kubernetes into {} (once; about 5 minutes on two cores when all are missing)",
        missing.len(),
        folder.display()
    ));
    for (index, program) in missing.iter().enumerate() {
        let started = Instant::now();
        build(checkout, program, folder)?;
        let took = started.elapsed().as_secs_f32();
        announce(format_args!("{}/{} {} in {took:.0} s", index + 1, missing.len(), program.name));
    }
    announce(format_args!("built a Kubernetes in {:.0} s", began.elapsed().as_secs_f32()));
    Ok(tools)
}

/// What [`tools`] would build.
pub fn missing(tools: &Tools) -> Vec<&'static Program> {
    let there = |program: &Program| {
        tools.folder().join(program.name).is_file()
            || program.part == Part::Client && process::on_path(program.name).is_some()
    };
    PROGRAMS.iter().filter(|program| !there(program)).collect()
}

/// Packages of the system that [`tools`] would install.
pub fn missing_packages() -> Vec<&'static str> {
    apt::missing(&SYSTEM)
}

fn build(checkout: &Checkout, program: &Program, folder: &Path) -> Result<()> {
    // Into another place first: what is in the folder is complete, whoever else builds at the same time.
    let parts = folder.with_file_name(format!("building-{}", std::process::id()));
    for folder in [folder, &parts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let part = parts.join(program.name);
    let mut go = Command::new("go");
    go.current_dir(checkout.root.join("e2e/tools").join(program.module.folder()))
        .args(["build", "-trimpath", "-tags", program.tags, "-ldflags", &linker_flags()])
        .arg(format!("-gcflags=all={COMPILER_FLAGS}"))
        .arg("-o")
        .arg(&part)
        .arg(program.package)
        // Static programs, which run in containers too; and neither the user's flags nor a workspace around us.
        .envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-mod=readonly -buildvcs=false"), ("GOWORK", "off")]);
    let remedy = "read Go's message above; without a network it cannot download modules";
    process::run(&mut go, &format!("building {}", program.name), remedy)?;
    let whole = folder.join(program.name);
    fs::rename(&part, &whole).with_context(|| format!("cannot move {} to its place", program.name))?;
    // Empty, or another program's build is still in it.
    let _ = fs::remove_dir(&parts);
    Ok(())
}
