//! Where things are: the checkout, its target folder, and the cache folder for tools that we build ourselves.
//!
//! Everything else asks here, so that CARGO_TARGET_DIR, cargo's own configuration and XDG_CACHE_HOME are honoured in
//! one place.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The checkout that this program was built from.
pub struct Checkout {
    /// The folder with the workspace's Cargo.toml.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
}

impl Checkout {
    /// Asks cargo about the checkout.
    pub fn find() -> Result<Self> {
        let root = root();
        let metadata = metadata(&root, &["--no-deps"])?;
        let target = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?;
        Ok(Self { root, target: PathBuf::from(target) })
    }
}

/// The folder above xtask's own; known at compile time, since xtask is run from where it was built.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// Runs `cargo metadata` and parses what it prints.
pub fn metadata(root: &Path, args: &[&str]) -> Result<Value> {
    let mut command = cargo();
    command.current_dir(root).args(["metadata", "--format-version=1"]).args(args);
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
