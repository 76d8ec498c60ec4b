//! `cargo xtask tidy`: what no compiler checks and a reviewer would have to. Also a test of this crate.
//!
//! Looks at what git tracks and at what cargo knows, builds nothing, and takes well under two seconds; so it can be run
//! at any time. Whether generated files are fresh is not here: that needs the crates built, and is a test of each
//! ([`crate::generated`]). Every finding has a place and says what to do.

mod graph;
mod modules;
mod text;
mod tree;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::checkout::{self, Checkout, Package};
use crate::process;

pub use graph::bless;

/// Whether a finding fails the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It does.
    Error,
    /// It is worth a look.
    Warning,
}

/// Something that is not tidy.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    weight: Weight,
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    fn error(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { weight: Weight::Error, path: path.to_owned(), line, message: message.into() }
    }

    fn warning(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { weight: Weight::Warning, ..Self::error(path, line, message) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Error => "error",
            Weight::Warning => "warning",
        };
        write!(f, "{}:{}: {weight}: {}", self.path, self.line, self.message)
    }
}

/// A tracked file, as it is in the working tree.
struct File {
    /// From the checkout's root, with slashes.
    path: String,
    bytes: Vec<u8>,
}

impl File {
    /// Its text, or nothing if it is not text.
    fn text(&self) -> Option<&str> {
        str::from_utf8(&self.bytes).ok()
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Checks everything, prints the findings, fails if one is an error.
pub fn run(checkout: &Checkout) -> Result<()> {
    let files = tracked(checkout)?;
    let findings = check(checkout, &files)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.iter().filter(|finding| finding.weight == Weight::Error).count() {
        0 => {
            process::announce(format_args!("{} tracked files are tidy", files.len()));
            Ok(())
        }
        errors => bail!("tidy: {errors} places to mend; see above"),
    }
}

fn check(checkout: &Checkout, files: &[File]) -> Result<Vec<Finding>> {
    let outside = outside_packages(checkout)?;
    let packages: Vec<&Package> = checkout.packages.iter().chain(&outside).collect();
    let expected = fs::read_to_string(checkout.root.join(graph::EXPECTED)).unwrap_or_default();

    let mut findings = graph::check(&packages, &expected);
    findings.extend(modules::check(&checkout.root, &packages, files));
    for file in files {
        findings.extend(tree::check(file));
        if let Some(text) = file.text() {
            findings.extend(text::check(&file.path, text, file.is_rust()));
        }
    }
    Ok(findings)
}

/// What git tracks and the working tree has.
fn tracked(checkout: &Checkout) -> Result<Vec<File>> {
    let mut git = Command::new("git");
    git.current_dir(&checkout.root).args(["ls-files", "-z"]);
    let list = process::stdout_of(&mut git)
        .context("tidy looks at what git tracks\n  remedy: install git, and use a clone rather than an archive")?;
    let read = |path: &str| Some(File { path: path.to_owned(), bytes: fs::read(checkout.root.join(path)).ok()? });
    Ok(list.split_terminator('\0').filter_map(read).collect())
}

/// Packages that are no members of the workspace.
fn outside_packages(checkout: &Checkout) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for folder in ["sensor-ebpf", "fuzz"] {
        let manifest: PathBuf = checkout.root.join(folder).join("Cargo.toml");
        if manifest.is_file() {
            packages.extend(checkout::packages(&checkout::metadata(&manifest, &["--no-deps"])?)?);
        }
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_tidy() -> Result<()> {
        let checkout = Checkout::find()?;
        let findings = check(&checkout, &tracked(&checkout)?)?;
        let errors = findings.iter().filter(|finding| finding.weight == Weight::Error);
        let errors: Vec<String> = errors.map(Finding::to_string).collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        Ok(())
    }
}
