//! What the user gave us to read: files and folders of manifests and plain Falco rules files.
//!
//! Reading is separate from compiling so that a reload can look at all files first, report every mistake, and only then
//! touch what is running.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use api::manifest::{self, ManifestFile};

/// Endings that a folder is searched for. Falco takes the first two.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// One file that was read.
pub struct File {
    /// Its path as the user would write it.
    pub path: PathBuf,
    /// What it holds.
    pub content: Content,
}

/// What a file holds.
pub enum Content {
    /// A plain Falco rules file.
    Rules(Vec<u8>),
    /// Kubernetes manifests, and the text they were read from.
    Manifests {
        /// What is in it.
        file: ManifestFile,
        /// Its text, for diagnostics.
        text: String,
    },
}

/// Why a path can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The path, or a file in it, can't be read.
    #[error("cannot read {}: {hint}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// What to do about it.
        hint: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The paths hold nothing to read.
    #[error(
        "no rules in {paths}: expected files ending in .yaml, .yml or .json with FalcoRule or ClusterFalcoRule manifests, or Falco rules"
    )]
    Nothing {
        /// The paths.
        paths: String,
    },
}

impl PartialEq for File {
    /// Whether the same text was read from the same place.
    fn eq(&self, other: &Self) -> bool {
        let text = |file: &Self| match &file.content {
            Content::Rules(bytes) => bytes.clone(),
            Content::Manifests { text, .. } => text.clone().into_bytes(),
        };
        self.path == other.path && text(self) == text(other)
    }
}

/// Reads every file below the paths: a file is taken as it is, a folder's files in order of name.
pub fn read(paths: &[PathBuf]) -> (Vec<File>, Vec<InputError>) {
    let mut files = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        match list(path) {
            Ok(found) => {
                for path in found {
                    match read_file(&path) {
                        Ok(file) => files.push(file),
                        Err(error) => errors.push(error),
                    }
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if files.is_empty() && errors.is_empty() {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        errors.push(InputError::Nothing { paths: paths.join(", ") });
    }
    (files, errors)
}

/// Whether a folder's file is read, by its ending.
pub fn is_read(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

/// The files that a path stands for.
fn list(path: &Path) -> Result<Vec<PathBuf>, InputError> {
    let error = |source| read_error(path, source);
    if !fs::metadata(path).map_err(error)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(error)? {
        let file = entry.map_err(error)?.path();
        // Through symbolic links: a mounted ConfigMap is made of them.
        if is_read(&file) && fs::metadata(&file).is_ok_and(|meta| meta.is_file()) {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

fn read_file(path: &Path) -> Result<File, InputError> {
    let bytes = fs::read(path).map_err(|source| read_error(path, source))?;
    let content = match std::str::from_utf8(&bytes) {
        Ok(text) if !manifest::is_rules_file(text) && !text.trim().is_empty() => {
            Content::Manifests { file: manifest::read(text), text: text.to_owned() }
        }
        // The rule loader has its own, better words for what is wrong with a rules file.
        _ => Content::Rules(bytes),
    };
    Ok(File { path: path.to_owned(), content })
}

fn read_error(path: &Path, source: io::Error) -> InputError {
    let hint = match source.kind() {
        io::ErrorKind::NotFound => "is the path right?",
        io::ErrorKind::PermissionDenied => "permission denied; run with sudo or change its mode",
        _ => "is the disk healthy?",
    };
    InputError::Read { path: path.to_owned(), hint, source }
}
