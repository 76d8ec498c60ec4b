//! Reads /proc: every process once at the start, later the few that no record has told of.
//!
//! Nothing here is trusted to stay: a process can end between two reads, and then it is left out.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use event::state::{Seed, Start};
use procfs::process::Process;

use crate::driver::CgroupSource;

/// Most bytes of arguments, and of environment: the kernel programs' limit.
const TEXT_MAX: usize = abi::record::ARGS_MAX;

/// Where to look, and what for.
#[derive(Debug, Clone)]
pub struct Reader {
    controller: Option<&'static str>,
    mount: Option<PathBuf>,
    /// Read environments, too: shared by the clones, set when rules ask for them.
    env: Arc<AtomicBool>,
}

impl Reader {
    /// A reader that takes the cgroup from the hierarchy that records carry.
    pub fn new(cgroups: CgroupSource) -> Self {
        let controller = match cgroups {
            CgroupSource::Unified => None,
            CgroupSource::Controller { name, .. } => Some(name),
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self { mount: mount_point(&mounts, controller), controller, env: Arc::default() }
    }

    /// Whether environments are read from now on.
    pub fn read_env(&self, wanted: bool) {
        self.env.store(wanted, Relaxed);
    }

    /// Every process.
    pub fn all(&self) -> Vec<Seed> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut seeds: Vec<_> = pids.filter_map(|pid| self.one(pid)).collect();
        // Parents first, so that children find them.
        seeds.sort_by_key(|seed| (seed.start.ns(), seed.tgid));
        seeds
    }

    /// One process.
    pub fn one(&self, pid: i32) -> Option<Seed> {
        let process = Process::new(pid).ok()?;
        let stat = process.stat().ok()?;
        let status = process.status().ok()?;
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let cgroup_path = self.cgroup_path(&fs::read(folder.join("cgroup")).unwrap_or_default());
        let last = |numbers: &Option<Vec<i32>>| numbers.as_ref().and_then(|n| n.last()).map(|n| unsigned(*n));
        Some(Seed {
            tgid: unsigned(status.tgid),
            start: Start::Ticks(stat.starttime),
            ppid: unsigned(stat.ppid),
            comm: stat.comm.into_bytes(),
            argv: head(folder.join("cmdline")),
            env: self.env.load(Relaxed).then(|| head(folder.join("environ"))),
            exepath: link(folder.join("exe")),
            cwd: link(folder.join("cwd")),
            cgroup: self.cgroup_id(&cgroup_path),
            cgroup_path,
            vpid: last(&status.nstgid).unwrap_or(unsigned(pid)),
            sid: unsigned(stat.session),
            pgid: unsigned(stat.pgrp),
            vpgid: last(&status.nspgid).unwrap_or(unsigned(stat.pgrp)),
        })
    }

    /// The path in /proc/PID/cgroup that belongs to the hierarchy.
    fn cgroup_path(&self, table: &[u8]) -> Vec<u8> {
        let row = table.split(|byte| *byte == b'\n').find_map(|line| {
            let mut parts = line.splitn(3, |byte| *byte == b':');
            let controllers = parts.nth(1)?;
            let path = parts.next()?;
            let ours = match self.controller {
                Some(name) => controllers.split(|byte| *byte == b',').any(|c| c == name.as_bytes()),
                None => controllers.is_empty(),
            };
            ours.then(|| path.to_vec())
        });
        row.unwrap_or_default()
    }

    /// A cgroup's id is the inode number of its folder.
    fn cgroup_id(&self, path: &[u8]) -> u64 {
        let Some(mount) = &self.mount else { return 0 };
        let relative = Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
        fs::metadata(mount.join(relative)).map_or(0, |meta| meta.ino())
    }
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// The front of a file.
fn head(path: PathBuf) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap_or_default();
    bytes.truncate(TEXT_MAX);
    bytes
}

fn link(path: PathBuf) -> Vec<u8> {
    fs::read_link(path).map(|target| target.into_os_string().as_encoded_bytes().to_vec()).unwrap_or_default()
}

/// Where a hierarchy is mounted, from /proc/self/mountinfo (proc_pid_mountinfo(5)).
fn mount_point(table: &str, controller: Option<&str>) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let point = front.split(' ').nth(4)?;
        let mut back = back.split(' ');
        let kind = back.next()?;
        let options = back.nth(1)?;
        let ours = match controller {
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
            None => kind == "cgroup2",
        };
        ours.then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 30 0:23 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
26 30 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
27 30 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn the_hierarchy_is_found_by_its_controller() {
        assert_eq!(mount_point(MOUNTS, Some("cpu")), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(mount_point(MOUNTS, None), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point(MOUNTS, Some("pids")), None);
    }

    #[test]
    fn the_path_is_that_of_the_hierarchy() {
        let reader = |controller| Reader { controller, mount: None, env: Arc::default() };
        let table = b"4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/d\n";
        assert_eq!(reader(Some("memory")).cgroup_path(table), b"/a/b");
        assert_eq!(reader(None).cgroup_path(table), b"/d");
    }

    #[test]
    fn this_process_is_among_all() {
        let seeds = Reader::new(CgroupSource::Unified).all();
        let own = seeds.iter().find(|seed| seed.tgid == std::process::id()).expect("this process");
        assert!(!own.exepath.is_empty() && !own.argv.is_empty());
    }
}
