//! Where alerts are safe until every sink that wants them has them.
//!
//! A sensor may forget an alert when the operator has acknowledged it, so an acknowledgement follows a commit. All
//! changes pass through one thread, which puts whatever waits into one transaction: many sensors share one write to
//! disk. Readers see the last commit and wait for nobody.
//!
//! The store knows nothing about alerts but their priority, and nothing about sinks but a number and a bound; routing
//! and sending is done by [`crate::sinks`]. Alerts come at least once: after a kill, what was sent but not yet settled is
//! sent again, and what was committed but not yet acknowledged is recognised by its sequence number.

mod bell;
mod file;
pub mod record;
mod store;
mod writer;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use api::condition::Reason;
use tokio::sync::{Semaphore, oneshot, watch};

pub use self::{bell::Bell, file::OpenError, record::Envelope, store::Limits};
use self::{file::File, store::Totals, writer::Op};

/// Number of a sink in the store; never given to another one.
pub type SinkNo = u32;

/// Alerts that wait for a commit, in KiB: who brings more waits.
const INTAKE_KIB: u32 = 16 << 10;

/// Where the store is and how large it may grow.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the file `outbox.redb`.
    pub folder: PathBuf,
    /// The folder outlives the pod, so that a commit is as good as a delivery.
    pub durable: bool,
    /// Most bytes of alerts and queues. The file is up to twice as large.
    pub max_bytes: u64,
}

impl Options {
    /// Default of [`Self::max_bytes`].
    pub const MAX_BYTES: u64 = 1 << 30;
}

/// An alert on its way into the store.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name of the sensor's spool.
    pub spool: Arc<str>,
    /// Its place there; places only rise within a spool.
    pub seq: u64,
    /// Its priority, 0 for the most serious.
    pub class: u8,
    /// The alert.
    pub payload: Vec<u8>,
    /// Sinks that are to get it.
    pub wanted: Vec<SinkNo>,
    /// Sinks whose `match` left it out, to be counted.
    pub filtered: Vec<SinkNo>,
}

/// Place of an alert in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// Priority.
    pub class: u8,
    /// Order of arrival.
    pub order: u64,
}

/// An alert that waits for a sink.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its place.
    pub key: RowKey,
    /// When it arrived, in milliseconds since the Unix epoch.
    pub arrived_ms: u64,
    /// The alert.
    pub payload: Vec<u8>,
}

/// What became of an alert that is no longer to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has it.
    Sent,
    /// It was given up: refused for good, or in vain for too long.
    Failed,
}

/// What became of a sink's alerts since it was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Delivered.
    pub sent: u64,
    /// Given up because the destination refused them for good, or did not take them for too long.
    pub failed: u64,
    /// Attempts that were repeated.
    pub retried: u64,
    /// Given up because the queue, or the disk, was full.
    pub dropped: u64,
    /// Not for this sink, by its `match`.
    pub filtered: u64,
}

impl Counters {
    /// The larger of each two counts.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self {
            sent: self.sent.max(other.sent),
            failed: self.failed.max(other.failed),
            retried: self.retried.max(other.retried),
            dropped: self.dropped.max(other.dropped),
            filtered: self.filtered.max(other.filtered),
        }
    }
}

/// How far a test got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// Value of the annotation that asked for it.
    pub nonce: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What came of it.
    pub outcome: TestOutcome,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestOutcome {
    /// It was begun. Found after a start, it was interrupted: nobody knows whether the alert arrived.
    Started,
    /// The destination took the alert.
    Delivered,
    /// It didn't.
    Failed {
        /// The stable word for it.
        reason: Reason,
        /// What happened, and what to do about it.
        message: String,
    },
}

/// A queue as [`Outbox::register`] takes it.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Uid of the resource.
    pub uid: Arc<str>,
    /// Bounds of the queue.
    pub limits: Limits,
    /// Counts that the resource's status has: ours go on from there.
    pub at_least: Counters,
    /// Rung when the queue grew.
    pub bell: Arc<Bell>,
}

/// What there is of one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Alerts that wait.
    pub depth: u64,
    /// What became of the others.
    pub counters: Counters,
    /// The last test.
    pub test: Option<TestResult>,
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Nothing was changed. The store opens its file anew and goes on; the sensor sends again.
    #[error("the outbox could not use its file; see the operator's log, and the room on its volume")]
    Failed,
    /// Reading failed.
    #[error("cannot read the outbox")]
    Read {
        /// The library's reason.
        source: redb::Error,
    },
    /// The operator ends.
    #[error("the outbox was closed")]
    Closed,
}

/// The store. Cheap to clone; it is closed when the last clone goes.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    ops: mpsc::Sender<Op>,
    room: Arc<Semaphore>,
}

/// What the thread and its callers share.
#[derive(Debug)]
struct Shared {
    file: File,
    durable: bool,
    max_bytes: u64,
    totals: Mutex<Totals>,
    bells: Mutex<HashMap<SinkNo, Arc<Bell>>>,
    acks: Mutex<HashMap<Arc<str>, watch::Sender<u64>>>,
}

impl Outbox {
    /// Opens the store, or makes it. A file that cannot be used is put aside, loudly, and a new one begun: alerts that
    /// were not acknowledged come again, and an operator that cannot start would help nobody.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let (file, totals) = File::open(options)?;
        Self::start(file, totals, options)
    }

    fn start(file: File, totals: Totals, options: &Options) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            file,
            durable: options.durable,
            max_bytes: options.max_bytes,
            totals: Mutex::new(totals),
            bells: Mutex::default(),
            acks: Mutex::default(),
        });
        let (ops, orders) = mpsc::channel();
        writer::spawn(Arc::clone(&shared), orders).map_err(|source| OpenError::Thread { source })?;
        let room = Arc::new(Semaphore::new(INTAKE_KIB as usize));
        Ok(Self(Arc::new(Inner { shared, ops, room })))
    }

    /// Puts alerts into the store; when this returns without an error, they are on disk. What the store has already is
    /// left out. Waits while too much waits before it.
    pub async fn commit(&self, entries: Vec<Entry>) -> Result<(), OutboxError> {
        let bytes: usize = entries.iter().map(|entry| entry.payload.len() + 256).sum();
        let kib = u32::try_from(bytes / 1024).unwrap_or(INTAKE_KIB).clamp(1, INTAKE_KIB);
        let room = Arc::clone(&self.0.room).acquire_many_owned(kib).await.map_err(|_| OutboxError::Closed)?;
        let (done, answer) = oneshot::channel();
        self.order(Op::Commit { entries, done, room })?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// The sequence number up to which a spool's alerts are safe, now and from now on: committed, where the store
    /// outlives the pod, else settled with every sink.
    pub async fn acked(&self, spool: &str) -> Result<watch::Receiver<u64>, OutboxError> {
        let (outbox, spool) = (self.clone(), Arc::<str>::from(spool));
        let read = tokio::task::spawn_blocking(move || outbox.subscribe(&spool)).await;
        read.map_err(|_| OutboxError::Closed)?.map_err(|source| OutboxError::Read { source })
    }

    /// The sequence number up to which a spool's alerts are in the store, or were.
    pub async fn committed(&self, spool: &str) -> Result<u64, OutboxError> {
        let (outbox, spool) = (self.clone(), spool.to_owned());
        let read = move || outbox.0.shared.file.read(|db| store::committed(db, &spool));
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|_| OutboxError::Closed)?.map_err(|source| OutboxError::Read { source })
    }

    fn subscribe(&self, spool: &Arc<str>) -> Result<watch::Receiver<u64>, redb::Error> {
        // The lock is held while reading, so that a commit between reading and subscribing is not missed.
        let mut acks = lock(&self.0.shared.acks);
        let safe = self.0.shared.safe(spool)?;
        let sender = acks.entry(Arc::clone(spool)).or_insert_with(|| watch::Sender::new(safe));
        sender.send_if_modified(|now| std::mem::replace(now, safe.max(*now)) < safe);
        Ok(sender.subscribe())
    }

    /// Makes these the sinks that there are, and returns their numbers in the same order. Queues of others are dropped.
    pub async fn register(&self, sinks: Vec<Registration>) -> Result<Vec<SinkNo>, OutboxError> {
        let (done, answer) = oneshot::channel();
        self.order(Op::Register { sinks, done })?;
        answer.await.map_err(|_| OutboxError::Closed)?
    }

    /// The next rows of a queue in order of arrival, after the given one: at most so many, and no more once their bytes
    /// are so many.
    pub fn read(&self, sink: SinkNo, after: u64, rows: usize, bytes: usize) -> Result<Vec<Row>, OutboxError> {
        let read = self.0.shared.file.read(|db| store::read(db, sink, after, rows, bytes));
        read.map_err(|source| OutboxError::Read { source })
    }

    /// Takes a row out of a queue, soon. Until then a kill would bring it back.
    pub fn settle(&self, sink: SinkNo, key: RowKey, outcome: Outcome) {
        // When the thread has ended, so does the process, and the row comes back.
        let _ = self.order(Op::Settle { sink, key, outcome });
    }

    /// Counts an attempt that repeats another, soon.
    pub fn retried(&self, sink: SinkNo) {
        let _ = self.order(Op::Retried { sink });
    }

    /// Remembers how far a test got; when this returns without an error, it is on disk. Blocks.
    pub fn test(&self, sink: SinkNo, test: TestResult) -> Result<(), OutboxError> {
        let (done, answer) = mpsc::channel();
        self.order(Op::Test { sink, test, done })?;
        answer.recv().map_err(|_| OutboxError::Closed)?
    }

    /// What there is of a sink; none when it isn't registered.
    pub fn view(&self, sink: SinkNo) -> Option<QueueView> {
        let totals = lock(&self.0.shared.totals);
        let state = totals.sinks.get(&sink)?;
        Some(QueueView { depth: state.depth, counters: state.counters, test: state.test.clone() })
    }

    /// When the alert that waits longest for a sink arrived, in milliseconds since the Unix epoch.
    pub fn oldest(&self, sink: SinkNo) -> Result<Option<u64>, OutboxError> {
        self.0.shared.file.read(|db| store::oldest(db, sink)).map_err(|source| OutboxError::Read { source })
    }

    /// Bytes of alerts and queues.
    pub fn bytes(&self) -> u64 {
        lock(&self.0.shared.totals).bytes
    }

    fn order(&self, op: Op) -> Result<(), OutboxError> {
        self.0.ops.send(op).map_err(|_| OutboxError::Closed)
    }
}

impl Shared {
    /// See [`Outbox::acked`].
    fn safe(&self, spool: &str) -> Result<u64, redb::Error> {
        self.file.read(|db| match self.durable {
            true => store::committed(db, spool),
            false => store::settled(db, spool),
        })
    }
}

/// Takes a lock under which nothing can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unix time in milliseconds as it was when this process first asked, and from then on by a clock that nobody sets: an
/// alert does not grow old, nor a spool forgotten, because somebody sets the other one.
pub fn now_ms() -> u64 {
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let ms = |since: Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let (start, unix) = START.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), ms(since))
    });
    unix.saturating_add(ms(start.elapsed()))
}

#[cfg(test)]
mod tests;
