//! What the sensor found about processes that are older than it, or that it missed: plain data, read from /proc by the
//! sensor itself.

use super::process::Start;

/// One process, as /proc shows it. Empty text is "not known".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Start: field 22 of /proc/PID/stat as [`Start::Ticks`].
    pub start: Start,
    /// Parent's process id; 0 for none.
    pub ppid: u32,
    /// Name: /proc/PID/comm without the line end.
    pub comm: Vec<u8>,
    /// Arguments: /proc/PID/cmdline as it is, each ended by NUL.
    pub argv: Vec<u8>,
    /// Environment: /proc/PID/environ as it is; `None` when no rule asks for it.
    pub env: Option<Vec<u8>>,
    /// Target of /proc/PID/exe. ` (deleted)` at the end and `/memfd:` in front are understood.
    pub exepath: Vec<u8>,
    /// Target of /proc/PID/cwd.
    pub cwd: Vec<u8>,
    /// Path of the cgroup whose id records carry, from /proc/PID/cgroup.
    pub cgroup_path: Vec<u8>,
    /// Id of that cgroup (its inode number); 0 when unknown.
    pub cgroup: u64,
    /// Process id in its own namespace: last number of `NStgid`.
    pub vpid: u32,
    /// Session id in the initial namespace.
    pub sid: u32,
    /// Process group in the initial namespace.
    pub pgid: u32,
    /// Process group in its own namespace: last number of `NSpgid`.
    pub vpgid: u32,
}

impl Seed {
    /// The path of the executable as records show it.
    pub(crate) fn exepath(&self) -> &[u8] {
        let path = self.exepath.strip_suffix(b" (deleted)").unwrap_or(&self.exepath);
        if path.starts_with(b"/memfd:") { &path[1..] } else { path }
    }

    /// Components of the cgroup path, leaf first. `..` in front (the reader sits in a cgroup namespace) is dropped.
    pub(crate) fn cgroup_components(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.cgroup_path.rsplit(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b"..")
    }
}
