//! A mount namespace of the sensor's own, in which everything is read-only but what it writes.
//!
//! Landlock cannot do this: who is in a Landlock domain may not look at processes outside of it, and executable, folder
//! and environment in /proc are what the sensor reads. Read-only mounts also hold for /proc/PID/mem and for files of
//! /sys, and without devices and without execution nothing on any mount is a way out. It takes `CAP_SYS_ADMIN`, which is
//! given up right after; a container that lacks it has its own read-only root.

mod each;

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
    /// The kernel, or what watches over it, refused.
    #[error("cannot change mounts at {}", folder.display())]
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
    by(change, folders)
}

/// Sets and clears attributes of all mounts at and below a folder.
type Change = fn(&Path, MsFlags, MsFlags) -> io::Result<()>;

fn by(change: Change, folders: &[PathBuf]) -> Result<(), MountError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(MountError::Namespace)?;
    const NONE: Option<&str> = None;
    // What the host mounts later arrives here; nothing goes the other way.
    mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE).map_err(MountError::Separate)?;
    let random: Vec<PathBuf> = RANDOM.iter().map(PathBuf::from).filter(|device| device.exists()).collect();
    for folder in folders.iter().chain(&random) {
        let bound = mount(Some(folder), folder, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE);
        bound.map_err(|source| MountError::Bind { folder: folder.clone(), source })?;
    }
    let change = |folder: &Path, set, clear| {
        change(folder, set, clear).map_err(|source| MountError::Change { folder: folder.to_owned(), source })
    };
    let nothing = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID;
    change(Path::new("/"), nothing, MsFlags::empty())?;
    for folder in folders {
        let device = if folder.starts_with("/dev") { MsFlags::MS_NODEV } else { MsFlags::empty() };
        change(folder, MsFlags::empty(), MsFlags::MS_RDONLY | device)?;
    }
    for device in &random {
        change(device, MsFlags::empty(), MsFlags::MS_NODEV)?;
    }
    // The working directory is what it was before its folder was mounted onto itself: enter it anew.
    if let Ok(here) = env::current_dir() {
        let _ = env::set_current_dir(here);
    }
    Ok(())
}

/// All at once, which takes Linux 5.12; before that, one after the other.
fn change(folder: &Path, set: MsFlags, clear: MsFlags) -> io::Result<()> {
    match at_once(folder, set, clear) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => each::change(folder, set, clear),
        done => done,
    }
}

fn at_once(folder: &Path, set: MsFlags, clear: MsFlags) -> io::Result<()> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    let attributes = libc::mount_attr { attr_set: bits(set), attr_clr: bits(clear), propagation: 0, userns_fd: 0 };
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
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The attributes that this module changes, as `mount_setattr` has them.
fn bits(flags: MsFlags) -> u64 {
    let pairs = [
        (MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    ];
    pairs.iter().filter(|(flag, _)| flags.contains(*flag)).fold(0, |all, (_, bit)| all | bit)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Without the rights there is nothing to try.
    #[test]
    fn only_the_folders_can_be_written_and_of_devices_only_random_numbers_read() {
        for change in [change as Change, each::change] {
            let place = tempfile::tempdir().expect("a folder");
            let inside = place.path().canonicalize().expect("a folder");
            let outside = tempfile::tempdir().expect("a folder");
            let (file, other) = (inside.join("file"), outside.path().join("file"));
            let tried = std::thread::spawn(move || match by(change, &[inside]) {
                Err(MountError::Namespace(_)) => None,
                done => {
                    let write = |path: PathBuf| fs::write(path, "text").map_err(|error| error.kind());
                    let reads = (RANDOM.map(read), read("/dev/zero"));
                    Some((done.map_err(|error| error.to_string()), write(file), write(other), reads))
                }
            });
            let reads = ([Ok(8), Ok(8)], Err(io::ErrorKind::PermissionDenied));
            if let Some(tried) = tried.join().expect("a thread") {
                assert_eq!(tried, (Ok(()), Ok(()), Err(io::ErrorKind::ReadOnlyFilesystem), reads));
            }
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
