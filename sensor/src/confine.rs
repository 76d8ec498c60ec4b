//! The sensor gives up what it does not need, before it looks at anything that others control.
//!
//! It runs as root and reads what every program of the machine wants it to read. So two questions are answered here:
//! what can someone do who makes the sensor do the wrong thing by what it observes, and what can someone do who runs code
//! inside of it? Capabilities that it does not use are gone ([`capabilities`]), nothing can be executed and no process
//! touched ([`calls`]), and nothing can be written but the folders of its own output ([`mounts`]). None of this can be
//! taken back. docs/privileges.md says it for users.
//!
//! All of it belongs to a thread and is inherited by those that it starts: [`confine`] must be called while there is
//! only one.

mod calls;
mod capabilities;
mod mounts;

use std::{
    fs,
    path::{Path, PathBuf},
};

use link::chain;
use tracing::{info, warn};

/// Where the sensor can still write.
#[derive(Debug, Clone)]
pub struct Writable {
    folders: Vec<PathBuf>,
    /// Whether anything holds it back elsewhere.
    limited: bool,
}

impl Writable {
    /// Whether a file can be written. What is no ordinary file is not held back.
    pub fn allows(&self, file: &Path) -> bool {
        let special = fs::metadata(file).is_ok_and(|found| !found.is_file());
        !self.limited || special || self.folders.iter().any(|folder| file.starts_with(folder))
    }

    /// The folders, for messages.
    pub fn shown(&self) -> String {
        shown(&self.folders)
    }
}

fn shown(folders: &[PathBuf]) -> String {
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(" ")
}

/// Confines this thread and all that it will start. `files` are written, in folders that are made if need be.
///
/// What the kernel, or a container, does not permit is said in the log and left out: a sensor that is less confined is
/// better than none.
pub fn confine(files: &[PathBuf]) -> Writable {
    let folders = mounts::folders(files);
    raise_memlock();
    let file_system = mounts::read_only_but(&folders);
    let limited = file_system.is_ok();
    if let Err(error) = &file_system {
        info!(reason = %chain(error), "the file system stays as writable as it is");
    }
    let kept = match capabilities::keep(&folders) {
        Ok(kept) => kept,
        Err(error) => {
            warn!(error = %chain(&error), "cannot give up capabilities");
            return Writable { folders, limited };
        }
    };
    let calls = calls::refuse();
    if let Err(error) = &calls {
        warn!(error = %chain(error), "cannot refuse system calls that the sensor does not use");
    }
    info!(
        capabilities = kept.join(" "),
        system_calls = if calls.is_ok() { "refused: execution, tracing, mounting" } else { "all" },
        writable = if limited { shown(&folders) } else { "all".to_owned() },
        "confined"
    );
    Writable { folders, limited }
}

/// Before Linux 5.11 rings and maps count as locked memory, and later the right to raise the limit is gone.
fn raise_memlock() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    // Newer kernels need none; if it is too low, loading says so.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}
