//! `cargo xtask deny`: licences and sources of everything that we link.
//!
//! cargo-deny is the tool for this and is used where it is installed. It takes longer to build than our whole
//! workspace takes to check, so elsewhere a smaller check reads the same deny.toml: the licences allowed, the sources
//! allowed, and duplicate versions. It knows nothing of advisories. The output says which of the two ran.

mod licence;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::checkout::{self, Checkout};
use crate::process::{self, announce};
use policy::{Policy, Severity};

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Checks the workspace and the kernel programs.
pub fn run(checkout: &Checkout) -> Result<()> {
    let manifests = ["Cargo.toml", "sensor-ebpf/Cargo.toml"].map(|path| checkout.root.join(path));
    let mut manifests = manifests.into_iter().filter(|path| path.is_file());
    if process::on_path("cargo-deny").is_some() {
        announce("checking licences, sources and versions with cargo-deny");
        return manifests.try_for_each(|manifest| cargo_deny(checkout, &manifest));
    }
    announce("checking licences, sources and versions with our own small check (cargo-deny is not installed)");
    let policy = Policy::read(&checkout.root.join("deny.toml"))?;
    let mut crates = BTreeMap::new();
    for manifest in manifests {
        dependencies(&manifest, &policy.targets, &mut crates)?;
    }
    judge(&policy, &crates.into_values().collect::<Vec<_>>())
}

fn cargo_deny(checkout: &Checkout, manifest: &Path) -> Result<()> {
    let mut command = checkout::cargo();
    command.args(["deny", "--manifest-path"]).arg(manifest).arg("check").arg("--config");
    command.arg(checkout.root.join("deny.toml")).args(["licenses", "bans", "sources"]);
    process::run(&mut command, "checking dependencies", "see what cargo-deny says above; exceptions go into deny.toml")
}

/// A package that we link.
#[derive(Debug, Clone)]
struct Crate {
    name: String,
    version: String,
    licence: Option<String>,
    /// Where it came from; a package of ours has none.
    source: Option<String>,
}

/// Adds what a manifest depends on for any of the targets, by cargo's identifier.
fn dependencies(manifest: &Path, targets: &[String], into: &mut BTreeMap<String, Crate>) -> Result<()> {
    let platforms: Vec<String> = targets.iter().map(|target| format!("--filter-platform={target}")).collect();
    let mut args = vec!["--all-features"];
    args.extend(platforms.iter().map(String::as_str));
    let metadata = checkout::metadata(manifest, &args)?;
    let nodes = metadata["resolve"]["nodes"].as_array().context("cargo metadata resolved nothing")?;
    let used: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let Some(id) = package["id"].as_str().filter(|id| used.contains(id)) else { continue };
        let found = Crate {
            name: text(&package["name"]).context("a package without a name")?,
            version: text(&package["version"]).context("a package without a version")?,
            licence: text(&package["license"]),
            source: text(&package["source"]),
        };
        into.insert(id.to_owned(), found);
    }
    Ok(())
}

fn judge(policy: &Policy, crates: &[Crate]) -> Result<()> {
    let mut problems: Vec<String> = crates.iter().flat_map(|one| refusals(policy, one)).collect();
    let duplicates = duplicates(crates);
    match policy.duplicates {
        Severity::Allow => {}
        Severity::Warn => duplicates.iter().for_each(|duplicate| eprintln!("warning: {duplicate}")),
        Severity::Deny => problems.extend(duplicates),
    }
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    match problems.len() {
        0 => {
            announce(format_args!(
                "{} crates, all from known sources and under licences that deny.toml allows",
                crates.len()
            ));
            Ok(())
        }
        count => bail!(
            "deny: {count} problems with dependencies\n  remedy: use another crate, or give the reason in deny.toml"
        ),
    }
}

fn refusals(policy: &Policy, one: &Crate) -> Vec<String> {
    let name = format!("{} {}", one.name, one.version);
    let mut refusals = Vec::new();
    match &one.licence {
        None => refusals.push(format!("{name} names no licence in its manifest")),
        Some(licence) if !licence::allowed(licence, &policy.licences_for(&one.name)) => {
            refusals.push(format!("{name} is licensed {licence}, which deny.toml does not allow"));
        }
        Some(_) => {}
    }
    let refused = match one.source.as_deref() {
        None | Some(CRATES_IO) => Severity::Allow,
        Some(source) if source.starts_with("git+") => policy.git,
        Some(_) => policy.registries,
    };
    match (refused, &one.source) {
        (Severity::Deny, Some(source)) => refusals.push(format!("{name} comes from {source}")),
        (Severity::Warn, Some(source)) => eprintln!("warning: {name} comes from {source}"),
        (Severity::Allow, _) | (_, None) => {}
    }
    refusals
}

fn duplicates(crates: &[Crate]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for one in crates {
        versions.entry(&one.name).or_default().insert(&one.version);
    }
    let several = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    several.map(|(name, versions)| format!("{name} in versions {}", Vec::from_iter(versions).join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Result<Policy> {
        Policy::parse(
            "[licenses]\nallow = [\"MIT\"]\nexceptions = [{ crate = \"ring\", allow = [\"ISC\"] }]\n\
             [sources]\nunknown-registry = \"deny\"\nunknown-git = \"deny\"",
        )
    }

    fn krate(name: &str, licence: Option<&str>, source: &str) -> Crate {
        let source = (!source.is_empty()).then(|| source.to_owned());
        Crate { name: name.into(), version: "1.0.0".into(), licence: licence.map(str::to_owned), source }
    }

    #[test]
    fn what_is_not_allowed_is_named() -> Result<()> {
        let policy = policy()?;
        let count = |one: &Crate| refusals(&policy, one).len();
        assert_eq!(count(&krate("a", Some("MIT"), CRATES_IO)), 0);
        assert_eq!(count(&krate("a", Some("GPL-3.0-only"), CRATES_IO)), 1);
        assert_eq!(count(&krate("a", None, "git+https://example.com/a")), 2);
        assert_eq!(count(&krate("a", Some("MIT"), "registry+https://example.com/index")), 1);
        assert_eq!(count(&krate("ring", Some("MIT AND ISC"), CRATES_IO)), 0);
        Ok(())
    }

    #[test]
    fn duplicates_are_listed_once() {
        let mut newer = krate("syn", Some("MIT"), CRATES_IO);
        newer.version = "3.0.0".into();
        let older = krate("syn", Some("MIT"), CRATES_IO);
        assert_eq!(duplicates(&[older.clone(), newer, older]), ["syn in versions 1.0.0, 3.0.0"]);
    }
}
