//! How a node passes from one sensor to the next without a moment that nobody judges: when the DaemonSet is updated, or a
//! second `gyrfalcon agent` is started on a host.
//!
//! Both run for a while. Each has programs, rings, a process table and rules of its own; what there is only once is the
//! right to the state folder (its lock: spool, cache, link to the operator), and each event must be judged by one of them.
//! The one that begins loads, attaches and runs the cached bundle, and judges nothing yet. Then it asks the other, over a
//! socket in the state folder:
//!
//! ```text
//! new → old   hello VERSION NAME     when it starts
//! old → new   welcome NAME           or `no`: this is the one that I took over from
//! new → old   take BUNDLE            it runs this bundle, and puts records aside from now on
//! old → new   facts BYTES, until T   or `bundle`: another one is in the cache, look again
//! new → old   mine                   it goes on, and judges what happened at T or later
//! old → new   done                   all of before T is judged and on disk, lock and link are given up
//! ```
//!
//! *Whose is an event?* T is a time of the boot clock, which stamps the records of both. The old sensor's event loop names it
//! when it has delivered nothing of T or later, and delivers nothing of later from then on, so none is judged twice for
//! being late. The kernel runs programs on one hook in the order in which they were attached (`func_add` of
//! kernel/tracepoint.c), so the new sensor stamps an event later than the old one: an event between whose two stamps T lies
//! is judged by both, and none by neither.
//!
//! With the time come the facts about pods and namespaces that the operator has sent to the old one: rules with a selector would
//! miss them until the new one has its own link.
//!
//! *Where are the new one's alerts meanwhile?* In the queue in front of the spool, as when the disk is slow: bounded, and what
//! finds no room is counted.
//!
//! *Who fails?* Until `mine`, nothing is decided: the old sensor goes on when the new one ends, or says nothing for a
//! second. An old sensor that ends or hangs has no say: the new one judges from when it began to put them aside, so that
//! an event may be judged twice but not by nobody, and waits for the lock, which the kernel takes from a process that ends.
//! An old sensor that does not listen, being of a release that does not know all this, judges until it is ended; the new
//! one says that it is ready, judges nothing, and takes the lock then.
//!
//! *And the old one?* It idles until it is told to end, for if it ended by itself, it would be started again. When its
//! successor ends, it does end: the one that is started in its place will run. A sensor does not give back to one that it took
//! over from (`no`), or the two of an update would take turns.
//!
//! Neither collects the other's system calls ([`EventLoop::fellow`]): one that begins opens thousands of files of /proc, which
//! would fill the rings of the one that judges, and loads programs, which rules are about.
//!
//! Who can reach the socket has the state folder, and so the alerts; it belongs to root (docs/privileges.md has what he could
//! do). What is read from it is bounded nonetheless, and times that cannot be are refused. The socket ends with its process: there is no leftover of another boot to
//! be believed.

mod giver;
mod peer;
mod taker;
#[cfg(test)]
mod tests;
mod words;

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use event::containers::ClusterChange;
use tokio::{net::UnixListener, sync::oneshot};

pub use self::{
    giver::Giver,
    peer::Peer,
    taker::{Taken, Taker},
    words::Word,
};
use crate::{
    driver::boot_time_ns,
    pipeline::Input,
    sensor::{Failed, Teller},
};

/// The socket's name in the state folder.
const SOCKET: &str = "handover.sock";

/// What a sensor is to a node on which there may be another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It has the state folder; the usual one.
    #[default]
    Owner,
    /// It prepares, while another judges.
    Preparing,
    /// Another one has to be ended before it gets the state folder.
    Waiting,
    /// It has given the node to another, and comes back when that one ends.
    Reserve,
    /// It has given the node to another, and waits for its end.
    GaveUp,
}

impl Standing {
    /// Why this sensor is not ready, if it is not for that reason.
    pub fn unready(self) -> Option<&'static str> {
        match self {
            // Ready while it waits: this is what ends the other.
            Self::Owner | Self::Waiting => None,
            Self::Preparing => Some("another sensor of this node is about to hand over"),
            Self::Reserve => Some("another sensor has taken over from this one, which stands by"),
            Self::GaveUp => Some("another sensor has taken over from this one, which can be ended"),
        }
    }
}

/// The event loop, as far as a handover is concerned with it.
pub trait EventLoop: Clone + Send + Sync + 'static {
    /// Has it put aside what happens from now on; the time, or nothing when it has ended.
    fn pause(&self) -> impl Future<Output = Option<u64>> + Send;
    /// Has it take what it put aside, and go on.
    fn go_on(&self);
    /// The same, and has it judge what happened at this time or later.
    fn judge_from(&self, from_ns: u64);
    /// What the cluster has said about pods and namespaces; nothing when the loop has ended.
    fn known_of_cluster(&self) -> impl Future<Output = Option<ClusterChange>> + Send;
    /// Takes that over from another sensor.
    fn learn(&self, known: ClusterChange);
    /// Names the process of the other sensor.
    fn fellow(&self, process: Option<u32>);
    /// The time of the clock that stamps records.
    fn now(&self) -> u64;
}

impl EventLoop for Teller {
    async fn pause(&self) -> Option<u64> {
        let (done, paused) = oneshot::channel();
        self.tell(Input::Pause(done));
        paused.await.ok()
    }

    fn go_on(&self) {
        self.tell(Input::GoOn);
    }

    fn judge_from(&self, from_ns: u64) {
        self.tell(Input::JudgeFrom(from_ns));
    }

    async fn known_of_cluster(&self) -> Option<ClusterChange> {
        let (asked, known) = oneshot::channel();
        self.tell(Input::KnownOfCluster(asked));
        known.await.ok()
    }

    fn learn(&self, known: ClusterChange) {
        // Who sends is not told when there is room for more: there is no more.
        self.tell(Input::Cluster(Box::new(known), oneshot::channel().0));
    }

    fn fellow(&self, process: Option<u32>) {
        self.tell(Input::Fellow(process));
    }

    fn now(&self) -> u64 {
        boot_time_ns()
    }
}

/// Takes the lock of a state folder if no other sensor has it.
pub fn try_lock(state_dir: &Path) -> Result<Option<File>, Failed> {
    super::owned::locked(state_dir, |file| match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    })
}

/// Listens for a sensor that wants to take over; only the owner of the folder may. Needs a runtime.
pub fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    let path = state_dir.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(path)
}
