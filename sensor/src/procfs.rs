//! Reads /proc: every process once at the start, later the few that no record has told of.
//!
//! Nothing here is trusted to stay: a process can end between two reads, and then it is left out.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use event::state::{Seed, Start};
use procfs::process::Process;

use crate::{cgroups::Hierarchy, driver::CgroupSource};

/// Most bytes of arguments, and of environment: the kernel programs' limit.
const TEXT_MAX: usize = abi::record::ARGS_MAX;

/// Where to look, and what for.
#[derive(Debug, Clone)]
pub struct Reader {
    controller: Option<&'static str>,
    hierarchy: Option<Hierarchy>,
    /// Read environments, too: shared by the clones, set when rules ask for them.
    env: Arc<AtomicBool>,
}

impl Reader {
    /// A reader that takes the cgroup from the hierarchy that records carry, and its path from where the host's root is.
    pub fn new(cgroups: CgroupSource, host_root: &Path) -> Self {
        let controller = match cgroups {
            CgroupSource::Unified => None,
            CgroupSource::Controller { name, .. } => Some(name),
        };
        Self { hierarchy: Hierarchy::find(controller, host_root), controller, env: Arc::default() }
    }

    /// The path of the cgroup with this id, while it exists.
    pub fn cgroup(&self, id: u64) -> Option<Vec<u8>> {
        self.hierarchy.as_ref()?.path(id)
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
        let cgroup = self.hierarchy.as_ref().map_or(0, |hierarchy| hierarchy.id(&cgroup_path));
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
            cgroup,
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
        match &self.hierarchy {
            Some(hierarchy) => hierarchy.absolute(&row.unwrap_or_default()),
            None => row.unwrap_or_default(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_hierarchy() {
        let reader = |controller| Reader { controller, hierarchy: None, env: Arc::default() };
        let table = b"4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/d\n";
        assert_eq!(reader(Some("memory")).cgroup_path(table), b"/a/b");
        assert_eq!(reader(None).cgroup_path(table), b"/d");
    }

    #[test]
    fn this_process_is_among_all() {
        let seeds = Reader::new(CgroupSource::Unified, Path::new("/")).all();
        let own = seeds.iter().find(|seed| seed.tgid == std::process::id()).expect("this process");
        assert!(!own.exepath.is_empty() && !own.argv.is_empty());
    }
}
