//! Where the tests stand on this host: alone, and in a cgroup that is no container's.
//!
//! A shell may itself run in a cgroup whose path looks like a container's to Falco's patterns. Then nothing that is
//! started from it would be on the `host`, and the cases could not tell whether the sensor is right. So the tests move
//! into a cgroup below their own, with a name that only hosts have.

use std::{
    fs,
    path::{Path, PathBuf},
};

const NAME: &str = "gyrfalcon-test.scope";

/// Waits until no other run of these tests is under way on this machine, and keeps others waiting until it is dropped.
/// Cases of the conformance data use the same files, and a storm of processes disturbs everybody.
pub fn turn() -> fs::File {
    let path = std::env::temp_dir().join("gyrfalcon-kernel-tests.lock");
    let file =
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).expect("a file for taking turns");
    if file.try_lock().is_err() {
        eprintln!("another run of the kernel tests is under way; waiting for its end");
        file.lock().expect("a lock");
    }
    file
}

/// Membership in the cgroups of the tests; given up when dropped.
pub struct Place {
    moves: Vec<(PathBuf, PathBuf)>,
}

impl Place {
    /// Moves this process, wherever it may, in the hierarchies that sensors look at.
    pub fn take() -> Self {
        let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut moves = Vec::new();
        for line in table.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let Some(root) = mount_of(controllers, &mounts) else { continue };
            let old = root.join(path.trim_start_matches('/'));
            let new = old.join(NAME);
            if fs::create_dir_all(&new).is_ok() && join(&new) {
                moves.push((old, new));
            }
        }
        Self { moves }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for (old, new) in &self.moves {
            join(old);
            let _ = fs::remove_dir(new);
        }
    }
}

fn join(cgroup: &Path) -> bool {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).is_ok()
}

/// Where the hierarchy is mounted: cgroup v2, or the v1 controllers whose paths name containers.
fn mount_of(controllers: &str, mounts: &str) -> Option<PathBuf> {
    let wanted = controllers.is_empty() || controllers.split(',').any(|name| matches!(name, "memory" | "pids" | "cpu"));
    let found = mounts.lines().filter(|_| wanted).find(|line| match line.split_once(" - ") {
        Some((_, kind)) if controllers.is_empty() => kind.starts_with("cgroup2 "),
        Some((_, kind)) => kind.starts_with("cgroup ") && kind.ends_with(&format!(",{controllers}")),
        None => false,
    })?;
    found.split(' ').nth(4).map(PathBuf::from)
}

/// What `container.id` should be of a process of the tests: `host`, unless this whole machine is a container.
pub fn container_id() -> String {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let is_id = |name: &&str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let scope = |name: &str| name.trim_end_matches(".scope").rsplit('-').next().unwrap_or_default().to_owned();
    let names = table.lines().flat_map(|line| line.split('/')).map(scope);
    names.into_iter().find(|name| is_id(&name.as_str())).map_or_else(|| "host".to_owned(), |id| id[..12].to_owned())
}
