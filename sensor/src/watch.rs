//! Notices that the files of the user changed.
//!
//! Editors and Kubernetes replace files by renaming, so folders are watched, not files. A burst of changes is one
//! change: a reload begins when nothing has happened for [`QUIET`], and after [`PATIENCE`] in any case. Other files in the
//! same folder (a log of alerts, say) are nobody's business.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::mpsc::Sender,
    time::Duration,
};

use notify::{Config, EventKind, PollWatcher, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use link::chain;

use crate::input;

/// How long the files must have been left alone.
pub const QUIET: Duration = Duration::from_millis(100);

/// Longest time that a burst of changes puts a reload off.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How often files are compared where the kernel cannot tell us.
const POLL: Duration = Duration::from_secs(5);

/// Keeps the watch alive.
pub struct Watch(#[expect(dead_code, reason = "dropping it ends the watch")] Box<dyn Watcher + Send>);

/// Sends `message()` for every change below the paths.
pub fn watch<T: Send + 'static>(paths: &[PathBuf], sender: &Sender<T>, message: fn() -> T) -> Option<Watch> {
    let handler = {
        let sender = sender.clone();
        let names: Vec<OsString> = paths.iter().filter_map(|path| Some(path.file_name()?.to_owned())).collect();
        move |event: notify::Result<notify::Event>| match event {
            // Reading the files is our own doing.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) if !event.paths.is_empty() && !event.paths.iter().any(|path| concerns(path, &names)) => {}
            // An error means that events may be missing: look.
            Ok(_) | Err(_) => {
                let _ = sender.send(message());
            }
        }
    };
    match RecommendedWatcher::new(handler.clone(), Config::default()).and_then(|watcher| arm(watcher, paths)) {
        Ok(watcher) => return Some(watcher),
        Err(error) => {
            warn!(
                error = %chain(&error),
                remedy = "raise the sysctls fs.inotify.max_user_watches and fs.inotify.max_user_instances",
                "cannot watch the rules through inotify, comparing them every 5 s"
            );
        }
    }
    let config = Config::default().with_poll_interval(POLL);
    match PollWatcher::new(handler, config).and_then(|watcher| arm(watcher, paths)) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            warn!(error = %chain(&error), "cannot watch the rules; send SIGHUP after a change");
            None
        }
    }
}

/// Whether a change of this path can change what is loaded: a file that was named, one that is read in a folder, or
/// the link by which Kubernetes exchanges all files of a mounted ConfigMap (`..data`).
fn concerns(path: &Path, names: &[OsString]) -> bool {
    let Some(name) = path.file_name() else { return true };
    input::is_read(path) || name.as_encoded_bytes().starts_with(b"..") || names.iter().any(|named| named == name)
}

fn arm<W: Watcher + Send + 'static>(mut watcher: W, paths: &[PathBuf]) -> notify::Result<Watch> {
    let mut folders: Vec<&Path> = paths.iter().map(|path| folder(path)).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(Watch(Box::new(watcher)))
}

/// The folder in which a change of this path shows.
fn folder(path: &Path) -> &Path {
    if path.is_dir() {
        return path;
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_read_matter() {
        let names = ["rules".into(), "odd.rules".into()];
        let concerns = |path: &str| concerns(Path::new(path), &names);
        assert!(concerns("/r/a.yaml") && concerns("/r/odd.rules") && concerns("/r/..data"));
        assert!(!concerns("/r/alerts.jsonl") && !concerns("/r/.a.yaml.swp"));
    }
}
