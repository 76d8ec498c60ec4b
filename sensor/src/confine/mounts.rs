//! A mount namespace of the sensor's own, in which everything is read-only but what it writes.
//!
//! Landlock cannot do this: who is in a Landlock domain may not look at processes outside of it, and executable, folder
//! and environment in /proc are what the sensor reads. Read-only mounts also hold for /proc/PID/mem and for files of
//! /sys, and without devices and without execution nothing on any mount is a way out. It takes `CAP_SYS_ADMIN`, which is
//! given up right after; a container that lacks it has its own read-only root.

use std::{
    env,
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Devices that can still be opened: a statically linked program reads random numbers from them, as it cannot find out
/// whether its libc has `getrandom` (<https://docs.rs/getrandom/latest/getrandom/#supported-targets>).
const RANDOM: [&str; 2] = ["/dev/random", "/dev/urandom"];

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No rights, or no such namespaces.
    #[error("no mount namespace of its own (it takes CAP_SYS_ADMIN)")]
    Namespace(#[source] nix::Error),
    /// Mounts of the host could not be made to arrive here only.
    #[error("cannot separate mounts from those of the host")]
    Separate(#[source] nix::Error),
    /// A folder could not be made a mount.
    #[error("cannot mount {} onto itself", folder.display())]
    Bind {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: nix::Error,
    },
    /// `mount_setattr` is there since Linux 5.12.
    #[error("cannot change {} (mount_setattr, Linux 5.12)", folder.display())]
    Change {
        /// The mount.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What must be writable so that these files can be written, renamed and made anew: their folders, which are made if
/// need be. Of a device or a pipe: itself.
pub fn folders(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for file in files {
        let special = fs::metadata(file).is_ok_and(|found| !found.is_file() && !found.is_dir());
        let folder = if special || file.is_dir() { file } else { file.parent().unwrap_or(file) };
        if !special {
            // Where it cannot be made, the sink will say so.
            let _ = fs::create_dir_all(folder);
        }
        // A pipe behind /dev/stdout has no place to be mounted on, and needs none.
        if let Ok(folder) = folder.canonicalize()
            && !folders.contains(&folder)
        {
            folders.push(folder);
        }
    }
    folders
}

/// Makes everything read-only to this thread and those that it starts, except these folders.
pub fn read_only_but(folders: &[PathBuf]) -> Result<(), MountError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(MountError::Namespace)?;
    const NONE: Option<&str> = None;
    // What the host mounts later arrives here; nothing goes the other way.
    mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE).map_err(MountError::Separate)?;
    let random: Vec<PathBuf> = RANDOM.iter().map(PathBuf::from).filter(|device| device.exists()).collect();
    for folder in folders.iter().chain(&random) {
        let bound = mount(Some(folder), folder, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE);
        bound.map_err(|source| MountError::Bind { folder: folder.clone(), source })?;
    }
    let nothing = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOSUID;
    change(Path::new("/"), nothing, 0)?;
    for folder in folders {
        let device = if folder.starts_with("/dev") { libc::MOUNT_ATTR_NODEV } else { 0 };
        change(folder, 0, libc::MOUNT_ATTR_RDONLY | device)?;
    }
    for device in &random {
        change(device, 0, libc::MOUNT_ATTR_NODEV)?;
    }
    // The working directory is what it was before its folder was mounted onto itself: enter it anew.
    if let Ok(here) = env::current_dir() {
        let _ = env::set_current_dir(here);
    }
    Ok(())
}

/// Sets and clears attributes of all mounts below a folder.
fn change(folder: &Path, set: u64, clear: u64) -> Result<(), MountError> {
    let failed = |source| MountError::Change { folder: folder.to_owned(), source };
    let path = CString::new(folder.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    // SAFETY: the kernel reads a C string and a struct whose size it is told; both live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(failed(io::Error::last_os_error())) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Without the rights there is nothing to try.
    #[test]
    fn of_all_devices_only_random_numbers_can_be_read() {
        let tried = std::thread::spawn(|| match read_only_but(&[]) {
            Err(MountError::Namespace(_)) => None,
            done => Some((done.map_err(|error| error.to_string()), RANDOM.map(read), read("/dev/zero"))),
        });
        let read_all = [Ok(8), Ok(8)];
        if let Some(tried) = tried.join().expect("a thread") {
            assert_eq!(tried, (Ok(()), read_all, Err(io::ErrorKind::PermissionDenied)));
        }
    }

    fn read(device: &str) -> Result<usize, io::ErrorKind> {
        let read = fs::File::open(device).and_then(|mut file| file.read(&mut [0; 8]));
        read.map_err(|error| error.kind())
    }

    #[test]
    fn what_is_written_is_the_folder_or_the_device() {
        let place = tempfile::tempdir().expect("a folder");
        let place = place.path().canonicalize().expect("a folder");
        let files = [place.join("a/one.log"), place.join("a/two.log"), "/dev/null".into(), place.clone()];
        assert_eq!(folders(&files), [place.join("a"), "/dev/null".into(), place]);
    }
}
