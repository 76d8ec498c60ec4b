//! Reads records from all rings in order of time, and sleeps when there are none.
//!
//! Each CPU writes to rings of its own, so records of one process can come from several. They are merged by time
//! stamp. A record can become visible a little after one with a later stamp on another CPU; therefore a record is
//! delivered only when it is older than [`RIPE_NS`]. Nothing polls: the programs force a wake-up when they find that the
//! consumer has said that it sleeps. While records come, they are delivered in batches: going to sleep and waking up costs as
//! much as judging dozens of them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering, fence},
    },
    time::Duration,
};

use abi::{control::RING_CLASSES, record::Header};
use aya::maps::MapData;
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::{EfdFlags, EventFd},
};

use super::{
    levels::Levels,
    load::DriverError,
    ring::{Ring, page_size},
};

/// How long a record rests before it is delivered: longer than any program takes from its time stamp to the ring.
pub const RIPE_NS: u64 = 1_000_000;

/// Shortest sleep while records rest.
const PAUSE_NS: u64 = 250_000;

/// The same when many come.
const BUSY_PAUSE_NS: u64 = 1_000_000;

/// How many records between two sleeps are many.
const BUSY: usize = 32;

/// The page shared with the programs: [`abi::control::Control`].
pub struct ControlPage {
    page: NonNull<u8>,
    _map: MapData,
}

// SAFETY: the page is reached through atomics only.
unsafe impl Send for ControlPage {}
// SAFETY: as above.
unsafe impl Sync for ControlPage {}

impl ControlPage {
    pub(super) fn new(map: MapData) -> Result<Self, DriverError> {
        let fd = map.fd().as_fd().as_raw_fd();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the map was made to be mapped.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), page_size(), protection, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(page.cast::<u8>()) {
            Some(page) if page.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { page, _map: map }),
            _ => Err(DriverError::Memory { what: "the control page", source: io::Error::last_os_error() }),
        }
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        // SAFETY: all callers stay below the three words of `Control`, which the page begins with.
        unsafe { self.page.cast::<AtomicU32>().add(index).as_ref() }
    }

    fn asleep(&self) -> &AtomicU32 {
        self.word(0)
    }

    /// Stores the bits of [`abi::control::want`].
    pub fn want(&self, wants: u32) {
        self.word(1).store(wants, Ordering::SeqCst);
    }

    /// Stores the process whose system calls are left out.
    fn leave_out(&self, process: Option<u32>) {
        self.word(2).store(process.unwrap_or(0), Ordering::SeqCst);
    }
}

impl Drop for ControlPage {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped.
        unsafe { libc::munmap(self.page.as_ptr().cast(), page_size()) };
    }
}

/// Wakes the consumer from another thread.
#[derive(Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Makes the current or next [`Consumer::wait`] return.
    pub fn wake(&self) {
        // The counter saturates after 2^64 - 2 calls without a wait; then it is readable anyway.
        let _ = self.0.write(1);
    }
}

/// The reader of all rings.
pub struct Consumer {
    rings: Vec<Ring>,
    /// Time stamp and ring of every ring's next record, oldest first.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    /// Whether a ring is in `heads`.
    queued: Vec<bool>,
    /// Records delivered since the last sleep.
    delivered: usize,
    control: Arc<ControlPage>,
    epoll: Epoll,
    bell: Arc<EventFd>,
    levels: Arc<Levels>,
}

impl Consumer {
    pub(super) fn new(rings: Vec<Ring>, control: Arc<ControlPage>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        for ring in &rings {
            epoll.add(ring, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        }
        let queued = vec![false; rings.len()];
        let heads = BinaryHeap::with_capacity(rings.len());
        let levels = Arc::new(Levels::new(&rings));
        Ok(Self { rings, heads, queued, delivered: 0, control, epoll, bell: Arc::new(bell), levels })
    }

    /// How many CPUs have rings.
    pub fn cpus(&self) -> usize {
        self.rings.len() / RING_CLASSES as usize
    }

    /// How full the rings are, for others.
    pub fn levels(&self) -> Arc<Levels> {
        Arc::clone(&self.levels)
    }

    /// Collects no system calls of this process from now on.
    pub fn leave_out(&self, process: Option<u32>) {
        self.control.leave_out(process);
    }

    /// A handle that wakes this consumer.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.bell))
    }

    /// Delivers up to `limit` records that are older than `until` (boot-time clock), oldest first, each with the CPU that it
    /// was made on. Returns how many.
    pub fn drain(&mut self, until: u64, limit: usize, mut deliver: impl FnMut(&[u8], u16)) -> usize {
        self.levels.note(&self.rings);
        self.look();
        let mut delivered = 0;
        while delivered < limit {
            let Some(mut head) = self.heads.peek_mut() else { break };
            let Reverse((time, index)) = *head;
            if time > until {
                break;
            }
            let ring = &mut self.rings[index];
            if let Some(bytes) = ring.peek() {
                deliver(bytes, (index / RING_CLASSES as usize) as u16);
                delivered += 1;
            }
            ring.advance();
            match ring.peek() {
                // It moves to its place when `head` is dropped.
                Some(next) => *head = Reverse((time_of(next), index)),
                None => {
                    PeekMut::pop(head);
                    self.queued[index] = false;
                }
            }
        }
        for ring in &mut self.rings {
            ring.release();
        }
        self.delivered += delivered;
        delivered
    }

    /// Looks at the rings that had no record before.
    fn look(&mut self) {
        for (index, ring) in self.rings.iter_mut().enumerate() {
            if !self.queued[index]
                && let Some(bytes) = ring.peek()
            {
                self.heads.push(Reverse((time_of(bytes), index)));
                self.queued[index] = true;
            }
        }
    }

    /// Sleeps until there is something to deliver, the waker is used, or `timeout` is over.
    pub fn wait(&mut self, timeout: Duration) {
        let delivered = std::mem::take(&mut self.delivered);
        if let Some(&Reverse((time, _))) = self.heads.peek() {
            return std::thread::sleep(rest(time, boot_time_ns(), delivered).min(timeout));
        }
        self.control.asleep().store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.look();
        if self.heads.is_empty() {
            for ring in &mut self.rings {
                ring.release();
            }
            let timeout = EpollTimeout::try_from(timeout).unwrap_or(EpollTimeout::ZERO);
            let mut events = [EpollEvent::empty(); 8];
            // A signal may end the wait early; the caller comes back.
            let _ = self.epoll.wait(&mut events, timeout);
            let _ = self.bell.read();
        }
        self.control.asleep().store(0, Ordering::SeqCst);
    }
}

/// How long to sleep while the oldest record is of this time, after that many were delivered.
fn rest(oldest: u64, now: u64, delivered: usize) -> Duration {
    let ripe = oldest.saturating_add(RIPE_NS).saturating_sub(now).min(RIPE_NS);
    let pause = if delivered < BUSY { PAUSE_NS } else { BUSY_PAUSE_NS };
    Duration::from_nanos(ripe.max(pause))
}

/// Time stamp of a record; what is too short for one is delivered at once, and refused by the decoder.
fn time_of(bytes: &[u8]) -> u64 {
    Header::decode(bytes).map_or(0, |header| header.time)
}

/// The boot-time clock, which stamps records.
pub fn boot_time_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_record_is_delivered_when_it_is_ripe() {
        assert_eq!(rest(5_000_000, 5_020_000, 0), Duration::from_nanos(980_000));
    }

    #[test]
    fn records_that_keep_coming_are_delivered_in_batches() {
        // Ripe in ten microseconds: those behind it are worth waiting for.
        assert_eq!(rest(5_000_000, 5_990_000, 3), Duration::from_nanos(PAUSE_NS));
        assert_eq!(rest(5_000_000, 5_990_000, BUSY), Duration::from_nanos(BUSY_PAUSE_NS));
        // Ripe long ago.
        assert_eq!(rest(5_000_000, 9_000_000, 1), Duration::from_nanos(PAUSE_NS));
    }

    #[test]
    fn a_stamp_of_the_future_stops_nothing() {
        assert_eq!(rest(u64::MAX, 5_000_000, 0), Duration::from_nanos(RIPE_NS));
    }
}
