//! Tells whether the kernel programs must be built again, without starting the other cargo.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A word that changes when a file below the folders, a name, or `identity` changes.
pub fn of(folders: &[&Path], identity: &str) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    for folder in folders {
        for file in files(folder)? {
            file.strip_prefix(folder).unwrap_or(&file).hash(&mut hasher);
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            bytes.hash(&mut hasher);
        }
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}

/// Every file below a folder, in a fixed order, without what cargo built there.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match (is_folder, entry.file_name() == "target") {
                (true, false) => folders.push(entry.path()),
                (true, true) => {}
                (false, _) => found.push(entry.path()),
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_changes_it_and_a_build_does_not() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("gyrfalcon-xtask-fingerprint-{}", std::process::id()));
        fs::create_dir_all(folder.join("src"))?;
        fs::create_dir_all(folder.join("target"))?;
        fs::write(folder.join("src/main.rs"), "one")?;
        let before = of(&[&folder], "flags")?;
        fs::write(folder.join("target/object"), "built")?;
        assert_eq!(of(&[&folder], "flags")?, before);
        assert_ne!(of(&[&folder], "other flags")?, before);
        fs::write(folder.join("src/main.rs"), "two")?;
        assert_ne!(of(&[&folder], "flags")?, before);
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}
