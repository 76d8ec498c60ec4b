//! Attributes of mounts one after the other, with `mount`: for kernels without `mount_setattr` (before Linux 5.12).

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
};

/// A mount, as /proc/self/mountinfo has it (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    /// Without those about times of access, which the kernel keeps when none of them is given.
    flags: MsFlags,
}

impl Mount {
    fn of_line(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ').skip(4);
        let (point, options) = (words.next()?, words.next()?);
        let flags = options.split(|byte| *byte == b',').map(|option| match option {
            b"ro" => MsFlags::MS_RDONLY,
            b"nosuid" => MsFlags::MS_NOSUID,
            b"nodev" => MsFlags::MS_NODEV,
            b"noexec" => MsFlags::MS_NOEXEC,
            b"nosymfollow" => MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW),
            _ => MsFlags::empty(),
        });
        Some(Self { point: unescaped(point).into(), flags: flags.fold(MsFlags::empty(), |all, flag| all | flag) })
    }

    fn set(&self, flags: MsFlags) -> nix::Result<()> {
        const NONE: Option<&str> = None;
        mount(NONE, &self.point, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, NONE)
    }
}

/// Blanks and the like are written as three octal digits.
fn unescaped(word: &[u8]) -> OsString {
    let mut name = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| first == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(OsStr::from_bytes(digits).to_str()?, 8).ok());
        name.push(code.unwrap_or(first));
        rest = if code.is_some() { behind.get(3..).unwrap_or_default() } else { behind };
    }
    OsString::from_vec(name)
}

/// Sets and clears attributes of all mounts at and below a folder, or of none.
pub fn change(folder: &Path, set: MsFlags, clear: MsFlags) -> io::Result<()> {
    let table = fs::read("/proc/self/mountinfo")?;
    let mounts = table.split(|byte| *byte == b'\n').filter_map(Mount::of_line);
    let mut changed: Vec<Mount> = Vec::new();
    for mount in mounts.filter(|mount| mount.point.starts_with(folder)) {
        match mount.set((mount.flags | set).difference(clear)) {
            Ok(()) => changed.push(mount),
            // No path leads there: it is deleted, below another mount, or of a user who lets nobody else in.
            Err(Errno::ENOENT | Errno::EINVAL | Errno::EACCES) => {}
            Err(error) => {
                // As good as can be; the first error is the one that is told.
                for mount in changed.iter().rev() {
                    let _ = mount.set(mount.flags);
                }
                return Err(error.into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_with_its_blanks_and_its_own_options() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134x ro,noatime,nodev,noexec master:1 - ext3 /dev/root rw,nosuid";
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        assert_eq!(Mount::of_line(line), Some(Mount { point: r"/mnt 2\x".into(), flags }));
        assert_eq!(Mount::of_line(b""), None);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescaped(br"a\04"), r"a\04");
        assert_eq!(unescaped(br"a\999\"), r"a\999\");
    }
}
