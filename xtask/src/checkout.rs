//! Where things are: the checkout, its packages, its target folder, and the cache folder for tools that we build.
//!
//! Everything else asks here, so that CARGO_TARGET_DIR, cargo's own configuration and XDG_CACHE_HOME are honoured in
//! one place.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The package with the `gyrfalcon` binary.
pub const SENSOR: &str = "gyrfalcon-sensor";

/// The checkout that this program was built from.
pub struct Checkout {
    /// The folder with the workspace's Cargo.toml.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
    /// The workspace's packages.
    pub packages: Vec<Package>,
}

/// A package of ours.
#[derive(Debug)]
pub struct Package {
    /// Its name in Cargo.toml.
    pub name: String,
    /// Its Cargo.toml.
    pub manifest: PathBuf,
    /// What is built from it.
    pub targets: Vec<Target>,
    /// Packages of ours that it uses.
    pub uses: Vec<Use>,
}

/// A library, binary, test, benchmark or build script.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// cargo's word for what it is: `lib`, `bin`, `test`, `bench`, `custom-build`…
    pub kind: String,
    /// The file that it starts with.
    pub src: PathBuf,
    /// Whether a plain `cargo test` runs it.
    pub tested: bool,
}

/// A dependency between packages of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct Use {
    /// The package used.
    pub name: String,
    /// `normal`, `dev` or `build`.
    pub kind: String,
}

impl Checkout {
    /// Asks cargo about the checkout.
    pub fn find() -> Result<Self> {
        let root = root();
        let metadata = metadata(&root.join("Cargo.toml"), &["--no-deps"])?;
        let target = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
        Ok(Self { target: PathBuf::from(target), packages: packages(&metadata)?, root })
    }

    /// The target of this kind and name, with its package.
    pub fn target_named(&self, kind: &str, name: &str) -> Option<(&Package, &Target)> {
        self.targets(kind).find(|(_, target)| target.name == name)
    }

    /// Every target of a kind.
    pub fn targets(&self, kind: &str) -> impl Iterator<Item = (&Package, &Target)> {
        let all = self.packages.iter().flat_map(|package| package.targets.iter().map(move |target| (package, target)));
        all.filter(move |(_, target)| target.kind == kind)
    }
}

/// The packages that `cargo metadata` told about.
pub fn packages(metadata: &Value) -> Result<Vec<Package>> {
    let all = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    all.iter().map(|package| read_package(package).context("cargo metadata describes a package badly")).collect()
}

fn read_package(package: &Value) -> Option<Package> {
    let read_target = |target: &Value| {
        Some(Target {
            name: text(&target["name"])?,
            kind: text(&target["kind"][0])?,
            src: text(&target["src_path"])?.into(),
            tested: target["test"].as_bool()?,
        })
    };
    let read_use = |dependency: &Value| {
        dependency["path"].as_str()?;
        let kind = dependency["kind"].as_str().unwrap_or("normal").to_owned();
        Some(Use { name: text(&dependency["name"])?, kind })
    };
    Some(Package {
        name: text(&package["name"])?,
        manifest: text(&package["manifest_path"])?.into(),
        targets: package["targets"].as_array()?.iter().map(read_target).collect::<Option<_>>()?,
        uses: package["dependencies"].as_array()?.iter().filter_map(read_use).collect(),
    })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The folder above xtask's own. cargo names that to what it runs; what was compiled in may be another checkout's, where
/// two share a target folder.
pub fn root() -> PathBuf {
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let xtask = Path::new(&xtask);
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// Runs `cargo metadata` and parses what it prints.
pub fn metadata(manifest: &Path, args: &[&str]) -> Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version=1", "--manifest-path"]).arg(manifest).args(args);
    let text = process::stdout_of(&mut command).context("cannot ask cargo about the workspace")?;
    serde_json::from_str(&text).context("cannot read what cargo metadata printed")
}

/// The cargo that runs xtask, or the one on PATH.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The folder for tools that xtask builds itself: `${XDG_CACHE_HOME:-~/.cache}/gyrfalcon`.
pub fn cache() -> Result<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("gyrfalcon"))
        .context("neither XDG_CACHE_HOME nor HOME is set to an absolute path; set HOME")
}
