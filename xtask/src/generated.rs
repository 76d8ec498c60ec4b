//! Files in the checkout that are made from tables in the code: compares them, or writes them.
//!
//! A crate that makes files has a test target called `generated`, which takes this module by its path (it needs
//! nothing but std, and no crate depends on xtask):
//!
//! ```text
//! #[path = "../../../xtask/src/generated.rs"]
//! mod generated;
//!
//! #[test]
//! fn generated_files_are_fresh() {
//!     generated::check(&api::generated());
//! }
//! ```
//!
//! where `generated()` is pure and returns paths from the checkout's root with their text. So `cargo test` notices a
//! stale file, and `cargo xtask codegen` is that same test with `GYRFALCON_CODEGEN=write`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Set to `write`, makes [`check`] write what differs.
pub const MODE_VAR: &str = "GYRFALCON_CODEGEN";

/// Compares each file with what is committed; with `GYRFALCON_CODEGEN=write`, writes it.
///
/// # Panics
///
/// When a file is stale or cannot be written: this is the body of a test.
#[track_caller]
pub fn check(files: &[(String, String)]) {
    let root = root();
    let write = std::env::var_os(MODE_VAR).is_some_and(|mode| mode == "write");
    let mut stale = String::new();
    for (path, text) in files {
        let file = root.join(path);
        let committed = fs::read_to_string(&file).unwrap_or_default();
        if committed == *text {
            continue;
        }
        if write {
            println!("writing {path}");
            put(&file, text);
        } else {
            let line = first_difference(&committed, text);
            let _ = write!(stale, "\n  {path}:{line}");
        }
    }
    assert!(stale.is_empty(), "stale generated files (remedy: cargo xtask codegen):{stale}");
}

fn put(file: &Path, text: &str) {
    let folder = file.parent().unwrap_or(file);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(file, text));
    assert!(written.is_ok(), "cannot write {}: {written:?}", file.display());
}

/// The number of the first line that is not the same.
fn first_difference(old: &str, new: &str) -> usize {
    old.lines().zip(new.lines()).take_while(|(old, new)| old == new).count() + 1
}

/// The nearest folder above the package under test that has a `.cargo/config.toml`: the checkout.
fn root() -> PathBuf {
    // At run time: what was compiled in may be another checkout's, where two share a target folder.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    let root = package.ancestors().find(|folder| folder.join(".cargo/config.toml").is_file());
    root.unwrap_or(&package).to_path_buf()
}
