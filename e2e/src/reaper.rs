//! Nothing of a cluster outlives the process that started it, however that process ends.
//!
//! A shell script ([`SCRIPT`]) waits at a pipe that this process holds open, and then kills and removes everything. It
//! is a process of its own because destructors do not run for a cluster in a `static`, nor after a signal. It is also
//! the only way to end a cluster: [`crate::Cluster::stop`] closes the pipe. Should it be killed as well, the next start
//! of a cluster removes what it finds ([`reap_stale`]).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal;
use nix::unistd::Pid;

use crate::kubectl;
use crate::layout::PREFIX;
use crate::wait::wait_for;

/// What ends a cluster. In the language of the shell, because it must run when this program is gone.
const SCRIPT: &str = include_str!("reap.sh");

/// In a cluster's folder: the process that the cluster ends with, as its id and start time.
const OWNER: &str = "owner";

/// Longer than it takes to kill a node full of containers.
const LONGEST: Duration = Duration::from_secs(60);

/// The process that waits for our end.
#[derive(Debug)]
pub(crate) struct Reaper(Child);

impl Reaper {
    /// Starts it for a cluster's folder. From here on the cluster ends with this process.
    pub fn start(dir: &Path) -> Result<Self> {
        fs::write(dir.join(OWNER), format!("{} {}", std::process::id(), start_time(std::process::id()).unwrap_or(0)))
            .context("cannot write the owner of a cluster")?;
        let mut command = script(dir);
        // In a process group of its own: Ctrl-C at the terminal is for the owner.
        command.arg("wait").stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        Ok(Self(command.spawn().context("cannot start the shell that ends the cluster")?))
    }

    /// Has the cluster ended, and waits for that.
    pub fn reap(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let ended = wait_for(LONGEST, "the end of the cluster's processes", || self.0.try_wait().transpose())?;
        let status = ended.context("cannot wait for the shell that ends the cluster")?;
        if !status.success() {
            bail!("the cluster could not be removed completely: the shell ended with {status}");
        }
        Ok(())
    }

    /// Lets the cluster run on. Somebody else has to [`reap`] it.
    pub fn dismiss(mut self, dir: &Path) -> Result<()> {
        // Before the pipe is closed, for it would act on that.
        self.0.kill().context("cannot end the shell that ends the cluster")?;
        self.0.wait().context("cannot wait for the shell that ends the cluster")?;
        fs::write(dir.join(OWNER), DETACHED).context("cannot write the owner of a cluster")
    }
}

/// The owner of a cluster that was let go.
const DETACHED: &str = "detached";

/// Ends the cluster in that folder, whoever started it.
pub fn reap(dir: &Path) -> Result<()> {
    kubectl::run(&mut script(dir), None)?.success().map(|_| ())
}

/// Ends our clusters below a folder whose owners have died without ending them. Where that is not possible it is said, for
/// it is no reason not to start another.
pub fn reap_stale(parent: &Path) {
    for dir in clusters(parent).iter().filter(|dir| is_stale(dir)) {
        if let Err(error) = reap(dir) {
            eprintln!("cannot remove what is left of a cluster in {}: {error:#}", dir.display());
        }
    }
}

/// Folders of clusters that were let go ([`crate::Cluster::detach`]).
pub fn detached(parent: &Path) -> Vec<PathBuf> {
    let is_detached = |dir: &PathBuf| fs::read_to_string(dir.join(OWNER)).is_ok_and(|owner| owner == DETACHED);
    clusters(parent).into_iter().filter(is_detached).collect()
}

fn clusters(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)).map(|entry| entry.path()).collect()
}

fn is_stale(dir: &Path) -> bool {
    if fs::metadata(dir).is_ok_and(|meta| meta.uid() != nix::unistd::geteuid().as_raw()) {
        return false;
    }
    // A folder without an owner is one that is being made.
    let Ok(owner) = fs::read_to_string(dir.join(OWNER)) else { return false };
    let mut words = owner.split(' ').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started))) = (words.next(), words.next()) else { return false };
    let Ok(pid) = u32::try_from(pid) else { return false };
    start_time(pid) != Some(started)
}

/// When a process was started, in ticks since boot; `None` when there is none.
fn start_time(pid: u32) -> Option<u64> {
    let alive = signal::kill(Pid::from_raw(i32::try_from(pid).ok()?), None) != Err(nix::errno::Errno::ESRCH);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok().filter(|_| alive)?;
    // Behind the name, which may contain anything: state is the third field, the start time the twenty-second.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn script(dir: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "reap"]).arg(dir);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time() {
        assert!(start_time(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(u32::MAX >> 1), None);
    }
}
