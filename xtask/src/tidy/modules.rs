//! Every Rust file is part of a program and says why it exists.
//!
//! A file that no `mod` names compiles nowhere, rots, and still looks alive.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::{File, Finding};
use crate::checkout::Package;
use crate::kernel_test;

/// Checks all Rust files.
pub fn check(root: &Path, packages: &[&Package], files: &[File]) -> Vec<Finding> {
    let rust: BTreeMap<PathBuf, &str> = files
        .iter()
        .filter(|file| file.is_rust())
        .filter_map(|file| Some((root.join(&file.path), file.text()?)))
        .collect();
    let reached = reached(packages, &rust);
    let mut findings = Vec::new();
    for (path, text) in &rust {
        let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
        if !reached.contains(path) {
            findings.push(Finding::error(&shown, 1, "no target and no `mod` reaches this file: name it, or remove it"));
        }
        if let Some(line) = first_code_before_docs(text) {
            findings.push(Finding::error(
                &shown,
                line,
                "a module opens with `//!`: why it exists, what it leaves to others",
            ));
        }
    }
    findings.extend(packages.iter().filter_map(|package| tested_kernel_target(root, package)));
    findings
}

/// Kernel tests need root, so a plain `cargo test` must leave them out.
fn tested_kernel_target(root: &Path, package: &Package) -> Option<Finding> {
    let target = package.targets.iter().find(|target| target.kind == "test" && target.name == kernel_test::TARGET)?;
    let manifest = package.manifest.strip_prefix(root).unwrap_or(&package.manifest).display().to_string();
    let message = "[[test]] kernel wants `test = false`: it needs root, so `cargo xtask kernel-test` runs it";
    target.tested.then(|| Finding::error(&manifest, 1, message))
}

/// The files that compilation starts from, and all that they name.
fn reached(packages: &[&Package], rust: &BTreeMap<PathBuf, &str>) -> BTreeSet<PathBuf> {
    let targets = packages.iter().flat_map(|package| &package.targets);
    let mut open: Vec<(PathBuf, bool)> = targets.map(|target| (target.src.clone(), true)).collect();
    let mut reached = BTreeSet::new();
    while let Some((file, is_root)) = open.pop() {
        let Some(text) = rust.get(&file).filter(|_| !reached.contains(&file)) else { continue };
        open.extend(
            named(&file, is_root, text).into_iter().filter(|file| rust.contains_key(file)).map(|file| (file, false)),
        );
        reached.insert(file);
    }
    reached
}

/// Every file that `mod name;` or `#[path]` or `include!` in this one may mean.
fn named(file: &Path, is_root: bool, text: &str) -> Vec<PathBuf> {
    let folder = file.parent().unwrap_or(file);
    let stem = file.file_stem().unwrap_or_default();
    let own_folder = is_root || stem == "mod";
    let children = if own_folder { folder.to_path_buf() } else { folder.join(stem) };
    let mut named = Vec::new();
    let mut path_attribute = None;
    for line in text.lines().map(str::trim) {
        let quoted = || line.split('"').nth(1);
        if line.starts_with("#[path") {
            path_attribute = quoted().map(|path| flat(&folder.join(path)));
        } else if line.starts_with("include!(") {
            named.extend(quoted().map(|path| flat(&folder.join(path))));
        } else if let Some(name) = module_name(line) {
            match path_attribute.take() {
                Some(path) => named.push(path),
                None => named.extend([children.join(format!("{name}.rs")), children.join(name).join("mod.rs")]),
            }
        }
    }
    named
}

/// `name` of `pub(crate) mod name;`.
fn module_name(line: &str) -> Option<&str> {
    // An attribute may stand before it on the same line.
    let line = line.rsplit(']').next().unwrap_or(line).trim();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1.trim(),
        Some(rest) => rest.trim(),
        None => line,
    };
    line.strip_prefix("mod ")?.strip_suffix(';').map(|name| name.trim_start_matches("r#"))
}

/// The path without `..`.
fn flat(path: &Path) -> PathBuf {
    let mut flat = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            flat.pop();
        } else {
            flat.push(component);
        }
    }
    flat
}

/// The line of the first code, if that comes before the module's docs.
fn first_code_before_docs(text: &str) -> Option<usize> {
    let skipped = |line: &str| line.is_empty() || line.starts_with("#!") || (line.starts_with("//") && !is_doc(line));
    let first = text.lines().enumerate().find(|(_, line)| !skipped(line.trim()));
    match first {
        Some((_, line)) if line.trim().starts_with("//!") => None,
        Some((index, _)) => Some(index + 1),
        None => Some(1),
    }
}

fn is_doc(line: &str) -> bool {
    line.starts_with("//!") || line.starts_with("///")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout::Target;

    #[test]
    fn modules_are_followed_through_all_three_spellings() {
        let target = Target { name: "a".into(), kind: "lib".into(), src: "/r/src/lib.rs".into(), tested: true };
        let package =
            Package { name: "a".into(), manifest: "/r/Cargo.toml".into(), targets: vec![target], uses: vec![] };
        let rust = BTreeMap::from([
            ("/r/src/lib.rs".into(), "pub mod b;\n#[cfg(test)] mod c;\n#[path = \"../other/d.rs\"]\nmod d;"),
            ("/r/src/b.rs".into(), "pub(crate) mod e;"),
            ("/r/src/b/e.rs".into(), ""),
            ("/r/src/c/mod.rs".into(), "mod f;"),
            ("/r/src/c/f.rs".into(), ""),
            ("/r/other/d.rs".into(), ""),
            ("/r/src/forgotten.rs".into(), ""),
        ]);
        let missing: Vec<_> = {
            let reached = reached(&[&package], &rust);
            rust.keys().filter(|file| !reached.contains(*file)).cloned().collect()
        };
        assert_eq!(missing, [PathBuf::from("/r/src/forgotten.rs")]);
    }

    #[test]
    fn docs_come_before_code() {
        assert_eq!(first_code_before_docs("// licence\n#![no_std]\n\n//! Why.\nfn a() {}"), None);
        assert_eq!(first_code_before_docs("use a;\n//! Late."), Some(1));
        assert_eq!(first_code_before_docs(""), Some(1));
    }
}
