//! Paths of cgroups, as the host has them.
//!
//! What /proc says is relative to the cgroup namespace of the reader, and in a container that is the container's own: other
//! processes are at `/../../…`. The hierarchy of the host, mounted somewhere, has the whole path, and finds a cgroup by its
//! id even when its processes are gone.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

/// One hierarchy of cgroups.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    /// Where its root is mounted.
    mount: PathBuf,
    /// The mount, opened.
    root: Arc<File>,
    /// Path of what this process sees as the root.
    base: Vec<u8>,
}

impl Hierarchy {
    /// Finds the hierarchy of a controller, or the unified one, below the host's root.
    pub fn find(controller: Option<&str>, host_root: &Path) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let (host, own) = mount_points(&mounts, controller, host_root);
        let mount = host.or_else(|| own.as_ref().map(|own| own.point.clone()))?;
        let root = Arc::new(File::open(&mount).ok()?);
        let mut hierarchy = Self { mount, root, base: Vec::new() };
        hierarchy.base = own.and_then(|own| hierarchy.base(&own)).unwrap_or_default();
        Some(hierarchy)
    }

    /// The whole path of what this process sees as the root: a mount tells, whose place is known both ways.
    fn base(&self, own: &Mount) -> Option<Vec<u8>> {
        let path = self.path(fs::metadata(&own.point).ok()?.ino())?;
        let below = own.root.strip_prefix('/').unwrap_or(&own.root);
        Some(path.strip_suffix(below.as_bytes())?.to_owned())
    }

    /// The path of the cgroup with this id. `None` when it is gone, before Linux 5.5, and without `CAP_DAC_READ_SEARCH`.
    pub fn path(&self, id: u64) -> Option<Vec<u8>> {
        let cgroup = open_by_id(&self.root, id).ok()?;
        let path = fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd())).ok()?;
        let below = path.strip_prefix(&self.mount).ok()?;
        Some([b"/", below.as_os_str().as_bytes()].concat())
    }

    /// The id of the cgroup at this path: the inode number of its folder. 0 when there is none.
    pub fn id(&self, path: &[u8]) -> u64 {
        let relative = Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
        fs::metadata(self.mount.join(relative)).map_or(0, |meta| meta.ino())
    }

    /// The whole path of what /proc shows to this process.
    pub fn absolute(&self, shown: &[u8]) -> Vec<u8> {
        absolute(&self.base, shown)
    }
}

/// Joins a path that may begin with `/..` to the path that it is relative to.
fn absolute(base: &[u8], shown: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in base.split(|b| *b == b'/').chain(shown.split(|b| *b == b'/')) {
        match name {
            b"" => {}
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    [b"/", names.join(&b'/').as_slice()].concat()
}

/// A mount of a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// Where it is mounted.
    point: PathBuf,
    /// The cgroup that is mounted there, as this process sees its path.
    root: String,
}

/// Where a hierarchy is mounted, from /proc/self/mountinfo (proc_pid_mountinfo(5)): below the host's root, and elsewhere.
fn mount_points(table: &str, controller: Option<&str>, host_root: &Path) -> (Option<PathBuf>, Option<Mount>) {
    let mut mounts = table.lines().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let kind = back.next()?;
        let options = back.nth(1)?;
        let ours = match controller {
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
            None => kind == "cgroup2",
        };
        ours.then(|| Mount { point: PathBuf::from(point), root: root.to_owned() })
    });
    if host_root == Path::new("/") {
        return (None, mounts.next());
    }
    let (host, own): (Vec<_>, Vec<_>) = mounts.partition(|mount| mount.point.starts_with(host_root));
    // One from outside of the namespace does not say where the namespace is.
    let own = own.into_iter().find(|mount| !mount.root.starts_with("/.."));
    (host.into_iter().next().map(|mount| mount.point), own)
}

/// `struct file_handle` of a kernfs node.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: [u8; 8],
}

/// `FILEID_KERNFS` of `include/linux/exportfs.h`.
const KERNFS: libc::c_int = 0xfe;

fn open_by_id(root: &File, id: u64) -> io::Result<OwnedFd> {
    let handle = Handle { bytes: 8, kind: KERNFS, id: id.to_ne_bytes() };
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the kernel reads the handle, whose length it says itself, and returns a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, root.as_raw_fd(), &raw const handle, flags) };
    match i32::try_from(fd) {
        // SAFETY: the descriptor is new, and ours.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 30 0:23 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
26 30 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
26 30 0:25 /../../.. /sys/fs/cgroup/hidden rw,relatime - cgroup2 cgroup2 rw
27 30 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
28 30 0:25 /../../.. /host/sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn the_hierarchy_is_found_by_its_controller() {
        let own = |controller| mount_points(MOUNTS, controller, Path::new("/")).1.map(|mount| mount.point);
        assert_eq!(own(Some("cpu")), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(own(None), Some("/sys/fs/cgroup/hidden".into()));
        assert_eq!(own(Some("pids")), None);
    }

    #[test]
    fn in_a_container_there_is_that_of_the_host_and_the_own() {
        let (host, own) = mount_points(MOUNTS, None, Path::new("/host"));
        assert_eq!(host, Some("/host/sys/fs/cgroup/unified".into()));
        assert_eq!(own, Some(Mount { point: "/sys/fs/cgroup/unified".into(), root: "/".into() }));
        assert_eq!(mount_points(MOUNTS, Some("cpu"), Path::new("/host")).0, None);
    }

    #[test]
    fn what_proc_shows_is_relative_to_the_namespace() {
        for (base, shown, want) in [
            ("/kubepods/burstable/podA/1", "/../../../besteffort/podB/2", "/kubepods/besteffort/podB/2"),
            ("/kubepods/burstable/podA/1", "/", "/kubepods/burstable/podA/1"),
            ("/kubepods/burstable/podA/1", "/../../../../system.slice/x", "/system.slice/x"),
            ("", "/a/b", "/a/b"),
            ("", "/../..", "/"),
        ] {
            assert_eq!(absolute(base.as_bytes(), shown.as_bytes()), want.as_bytes(), "{base} {shown}");
        }
    }
}
