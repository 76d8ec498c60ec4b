//! The way from whoever receives events to the thread that judges them.
//!
//! What waits is bounded in bytes: a batch has its room before it is read, keeps it until its last event is judged, and gets
//! in whole or not at all.

use std::{
    ops::Range,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
};

use event::containers::ClusterChange;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::Counters;
use crate::active::Active;

/// Unit of room: what a batch takes is rounded up to it.
const UNIT: usize = 1024;

/// Events that came together.
pub struct Batch {
    /// Their text.
    pub text: Vec<u8>,
    /// Where each is in it.
    pub events: Vec<Range<usize>>,
    /// When they came, Unix time in nanoseconds.
    pub received_ns: u64,
    /// Their room in the queue.
    #[expect(dead_code, reason = "is held, not read")]
    pub room: Room,
}

/// Room for a batch; given back when it is dropped.
pub struct Room {
    bytes: i64,
    counters: Arc<Counters>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counters.queued.dec_by(self.bytes);
    }
}

/// What the thread gets to do.
pub enum Work {
    /// Judge these.
    Batch(Batch),
    /// Judge by these rules from now on, and say when.
    Rules(Arc<Active>, SyncSender<()>),
    /// What the cluster says about namespaces.
    Cluster(Box<ClusterChange>),
    /// Say when everything before has been judged.
    Reached(SyncSender<()>),
    /// End.
    Stop,
}

/// The end of those who give.
#[derive(Clone)]
pub struct Queue {
    sender: Sender<Work>,
    room: Arc<Semaphore>,
    units: usize,
    counters: Arc<Counters>,
}

impl Queue {
    /// A queue in which so many bytes may wait.
    pub fn new(bytes: usize, counters: Arc<Counters>) -> (Self, Receiver<Work>) {
        let (sender, receiver) = mpsc::channel();
        let units = (bytes / UNIT).clamp(1, u32::MAX as usize >> 1);
        (Self { sender, room: Arc::new(Semaphore::new(units)), units, counters }, receiver)
    }

    fn units(&self, bytes: usize) -> u32 {
        // More than there is would never be had.
        u32::try_from(bytes.div_ceil(UNIT).clamp(1, self.units)).unwrap_or(u32::MAX)
    }

    fn taken(&self, bytes: usize, permit: OwnedSemaphorePermit) -> Room {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.counters.queued.inc_by(bytes);
        Room { bytes, counters: Arc::clone(&self.counters), _permit: permit }
    }

    /// Room for so many bytes, if there is some now.
    pub fn room(&self, bytes: usize) -> Option<Room> {
        let permit = Arc::clone(&self.room).try_acquire_many_owned(self.units(bytes)).ok()?;
        Some(self.taken(bytes, permit))
    }

    /// Room for so many bytes, as soon as there is some. `None` when the receiver ends.
    pub async fn wait_for_room(&self, bytes: usize) -> Option<Room> {
        let permit = Arc::clone(&self.room).acquire_many_owned(self.units(bytes)).await.ok()?;
        Some(self.taken(bytes, permit))
    }

    /// Gives work; false when the thread has ended.
    pub fn give(&self, work: Work) -> bool {
        self.sender.send(work).is_ok()
    }

    /// Gives rules and waits until they are in effect; false when the thread has ended.
    pub fn rules(&self, active: Arc<Active>) -> bool {
        let (done, swapped) = mpsc::sync_channel(1);
        self.give(Work::Rules(active, done)) && swapped.recv().is_ok()
    }

    /// Waits until everything given before has been judged; false when the thread has ended.
    pub fn reached(&self) -> bool {
        let (done, reached) = mpsc::sync_channel(1);
        self.give(Work::Reached(done)) && reached.recv().is_ok()
    }
}
