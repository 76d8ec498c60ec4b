//! The state folder, of which there is one for all sensors of a node, and what goes with it: spool, link, and the socket at
//! which the next sensor calls.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{net::UnixListener, runtime::Runtime};
use tracing::{info, warn};

use super::{
    handover,
    spool::{self, Limits, Queue, Spool, Writer},
};
use crate::sensor::Failed;

/// Who it is, and what is its.
#[derive(Clone)]
pub struct Place {
    /// The folder.
    pub state_dir: PathBuf,
    /// How much may wait in the spool.
    pub limits: Limits,
    /// As the next start will have it, too; empty when it has none.
    pub name: String,
}

/// What goes with the state folder.
pub struct Owned {
    /// Whoever has it owns the folder.
    pub lock: File,
    /// What waits for the operator.
    pub spool: Arc<Spool>,
    /// Who writes into it.
    pub writer: Writer,
    /// Where the next sensor calls, until this one attends to it.
    pub listener: Option<UnixListener>,
    /// The link's task, once it is started.
    pub link: Option<tokio::task::JoinHandle<()>>,
}

impl Owned {
    /// Opens what the owner has.
    pub fn open(lock: File, place: &Place, queue: &Arc<Queue>, runtime: &Runtime) -> Result<Self, Failed> {
        let _inside = runtime.enter();
        let listener = handover::listen(&place.state_dir)
            .inspect_err(|error| warn!(error = %error, "the next sensor will have to wait for the end of this one"))
            .ok();
        let (spool, writer) = spool::start_behind(queue, &place.state_dir.join("spool"), place.limits)?;
        Ok(Self { lock, spool, writer, listener, link: None })
    }
}

/// Only one sensor may use the folder: waits for one that is ending.
pub fn lock(state_dir: &Path) -> Result<File, Failed> {
    locked(state_dir, |file| {
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            info!(folder = %state_dir.display(), "waiting for another sensor to end, which uses the same folder");
            file.lock()?;
        }
        Ok(file)
    })
}

/// Does something with the lock of a folder, which is made if need be.
pub fn locked<T>(state_dir: &Path, act: impl FnOnce(File) -> io::Result<T>) -> Result<T, Failed> {
    let acted = fs::create_dir_all(state_dir).and_then(|()| act(File::create(state_dir.join("lock"))?));
    Ok(acted.map_err(|source| StateDir { folder: state_dir.to_owned(), source })?)
}

/// The state folder is of no use.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the folder {}; see --state-dir", folder.display())]
struct StateDir {
    folder: PathBuf,
    #[source]
    source: io::Error,
}
