//! Alerts on disk until the operator has them, and the counts that agree with them.
//!
//! The event loop puts alerts into a bounded [`Queue`]; the [`writer`]'s thread numbers them, appends them to segment
//! files and makes them durable together: at once when it is quiet, every [`COMMIT`] or [`COMMIT_BYTES`] in a burst. Only
//! what is durable is counted, sent, and given a number for good; so a power cut loses at most the last 200 ms, and the
//! end of the process (`kill -9`) only what was still in the queue.
//!
//! In the folder, all of it rewritten or appended so that a crash at any byte leaves a state that can be read:
//!
//! * `NUMBER.alerts`: segments, named by the number of their first alert; frames of length, CRC-32 and one alert.
//! * `state`: the spool's id, what is acknowledged, how often each rule matched up to which alert. What segments hold
//!   beyond that alert is counted again when the spool is opened.
//!
//! The spool is bounded. When it is full, alerts less serious than `Warning` are not taken in, and others push out the
//! oldest segment; both are counted as lost.

mod frame;
mod loss;
mod queue;
mod reader;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod totals;
mod writer;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::watch;

pub use self::{
    loss::Loss,
    queue::{Hit, Queue},
    reader::{Batch, Cursor},
    state::replace,
    store::{SpoolError, Store},
    totals::Totals,
    writer::Writer,
};

/// How long alerts of a burst wait for each other before they are made durable.
pub const COMMIT: Duration = Duration::from_millis(200);

/// How many bytes of a burst are made durable at once.
pub const COMMIT_BYTES: u64 = 64 << 10;

/// Largest alert in bytes.
pub const ALERT_BYTES: usize = 1 << 20;

/// How large the spool may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All segments together, in bytes.
    pub bytes: u64,
    /// One segment, in bytes: what is given up at once.
    pub segment_bytes: u64,
}

impl Limits {
    /// A spool of so many MiB.
    pub fn mib(mib: u32) -> Self {
        let bytes = u64::from(mib) << 20;
        Self { bytes, segment_bytes: (bytes / 16).min(8 << 20) }
    }
}

/// What other threads see of the spool, and how they tell it what is acknowledged.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    id: Box<str>,
    index: Mutex<Index>,
    totals: Mutex<Totals>,
    /// Number of the last durable alert.
    durable: watch::Sender<u64>,
    losses: [AtomicU64; Loss::ALL.len()],
}

/// Where alerts are. The lock is held for a few instructions.
#[derive(Debug, Default)]
struct Index {
    /// Oldest first; the last one is being written.
    segments: VecDeque<Segment>,
    acked: u64,
    /// Alerts lost since the spool began.
    lost: u64,
    /// The segment that is being written is damaged: go on in another.
    begin_anew: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    first: u64,
    /// Length of its durable part in bytes.
    bytes: u64,
}

impl Spool {
    /// Random, made with the folder: numbers and counts hold within it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Notes that the operator has everything up to this number. It cannot have more than there is.
    pub fn acknowledge(&self, up_to: u64) {
        let durable = *self.durable.borrow();
        let mut index = self.lock();
        index.acked = index.acked.max(up_to.min(durable));
    }

    /// Notes what the operator says at the beginning of a session: it may know of numbers that a failing disk has
    /// forgotten. They are not given again.
    pub fn resume_behind(&self, acked: u64) {
        if acked < FORGETFUL {
            let mut index = self.lock();
            index.acked = index.acked.max(acked);
        }
    }

    /// Number up to which the operator has everything.
    pub fn acked(&self) -> u64 {
        self.lock().acked
    }

    /// Tells of every number that becomes durable.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    /// Alerts that are not acknowledged.
    pub fn waiting(&self) -> u64 {
        let durable = *self.durable.borrow();
        durable.saturating_sub(self.acked())
    }

    /// Size of all segments in bytes.
    pub fn bytes(&self) -> u64 {
        self.lock().segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Alerts that were lost, since the spool began.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// The durable counts.
    pub fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Losses since the start of the sensor.
    pub fn losses(&self) -> impl Iterator<Item = (Loss, u64)> + '_ {
        Loss::ALL.iter().map(|loss| (*loss, self.lost_by(*loss)))
    }

    /// Losses of one kind since the start of the sensor.
    pub fn lost_by(&self, loss: Loss) -> u64 {
        self.losses.get(loss as usize).map_or(0, |count| count.load(Relaxed))
    }

    fn count(&self, loss: Loss, alerts: u64) {
        if let Some(count) = self.losses.get(loss as usize) {
            count.fetch_add(alerts, Relaxed);
        }
    }

    fn path(&self, first: u64) -> PathBuf {
        segment_path(&self.folder, first)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // No code under the lock can panic half-way through a change.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name of the segment that begins with this alert.
fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.{ENDING}"))
}

/// No spool has so many alerts; a larger number is nonsense.
const FORGETFUL: u64 = 1 << 60;

const ENDING: &str = "alerts";

/// Opens a spool and starts the thread that writes it.
pub fn start(folder: &Path, limits: Limits) -> Result<(Arc<Spool>, Arc<Queue>, Writer), SpoolError> {
    let queue = Arc::new(Queue::default());
    let (spool, writer) = start_behind(&queue, folder, limits)?;
    Ok((spool, queue, writer))
}

/// The same behind a queue that has filled up already.
pub fn start_behind(queue: &Arc<Queue>, folder: &Path, limits: Limits) -> Result<(Arc<Spool>, Writer), SpoolError> {
    let store = Store::open(folder, limits)?;
    let spool = Arc::clone(store.spool());
    let writer = Writer::start(store, Arc::clone(queue)).map_err(SpoolError::Thread)?;
    Ok((spool, writer))
}
