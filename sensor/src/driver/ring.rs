//! The consumer's side of a BPF ring buffer.
//!
//! Differs from aya's in two ways that the merge of many rings needs: the head can be looked at without being taken,
//! and consumed space is given back once per batch. The memory layout is documented in the kernel's
//! Documentation/bpf/ringbuf.rst: a page with the consumer's position, a page with the producer's, then the data, twice in a
//! row so that a record is always contiguous. Of the second copy only as much is mapped as one record can reach into: the
//! kernel counts each mapped page as resident memory of the process, touched or not.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use abi::record::RECORD_MAX;

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: u64 = 8;

/// How far behind the end of the data the longest record can reach.
const TAIL: usize = RECORD_MAX + HEADER as usize;

/// A mapping that is undone on drop.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, offset: usize, len: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset as libc::off_t)
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; borrows of it end with `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// One ring. Not `Sync`: it has one consumer.
pub struct Ring {
    /// Keeps the map alive, and is what to wait for.
    map: OwnedFd,
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    mask: u64,
    /// Everything before it has been looked at.
    position: u64,
    /// Everything before it has been given back.
    released: u64,
    /// How far the producer was known to be: its position is read only when this is reached, because each read takes the
    /// cache line from the CPU that writes records.
    known: u64,
}

// SAFETY: the mappings are owned and reached through `&mut self` only.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps a ring of `size` bytes (a power of two, a multiple of the page size).
    pub fn new(map: OwnedFd, size: u32) -> io::Result<Self> {
        let page = page_size();
        let consumer = Mapping::new(map.as_fd(), 0, page, true)?;
        let tail = TAIL.next_multiple_of(page).min(size as usize);
        let producer = Mapping::new(map.as_fd(), page, page + size as usize + tail, false)?;
        let mut ring =
            Self { map, consumer, producer, page, mask: u64::from(size) - 1, position: 0, released: 0, known: 0 };
        ring.position = ring.consumed().load(Ordering::Relaxed);
        (ring.released, ring.known) = (ring.position, ring.position);
        Ok(ring)
    }

    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the first word of the consumer's page is its position; pages are aligned.
        unsafe { self.consumer.start.cast::<AtomicU64>().as_ref() }
    }

    fn produced(&self) -> &AtomicU64 {
        // SAFETY: the first word of the producer's page is its position.
        unsafe { self.producer.start.cast::<AtomicU64>().as_ref() }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.mask + 1
    }

    /// Bytes that the producer wrote and nobody has looked at.
    pub fn waiting(&self) -> u64 {
        self.produced().load(Ordering::Relaxed).saturating_sub(self.position)
    }

    /// Length word of the record at the position, if the producer has begun one there.
    fn head(&mut self) -> Option<u32> {
        if self.position >= self.known {
            self.known = self.produced().load(Ordering::Acquire);
            if self.position >= self.known {
                return None;
            }
        }
        let at = self.page + (self.position & self.mask) as usize;
        // SAFETY: `at` lies in the data area: the mask bounds it, and records are 8-aligned.
        let word = unsafe { self.producer.start.add(at).cast::<AtomicU32>().as_ref() };
        Some(word.load(Ordering::Acquire))
    }

    /// The next record, left in place. `None` when there is none, or when it is still being written.
    pub fn peek(&mut self) -> Option<&[u8]> {
        loop {
            let word = self.head()?;
            if word & BUSY != 0 {
                return None;
            }
            let len = word & !DISCARDED;
            if word & DISCARDED != 0 {
                self.skip(len);
                continue;
            }
            let at = self.page + ((self.position & self.mask) + HEADER) as usize;
            // No program of ours sends what does not fit: of such a record the decoder would see the front, and refuse it.
            let len = (len as usize).min(self.producer.len - at);
            // SAFETY: the kernel wrote `len` bytes there, contiguous thanks to the second copy, and mapped up to the end of
            // `producer`; it will not write there again before `release` has passed them, which takes `&mut self` and so
            // ends this borrow.
            return Some(unsafe { std::slice::from_raw_parts(self.producer.start.add(at).as_ptr(), len) });
        }
    }

    /// Moves behind the record that `peek` showed.
    pub fn advance(&mut self) {
        if let Some(word) = self.head()
            && word & BUSY == 0
        {
            self.skip(word & !DISCARDED);
        }
    }

    fn skip(&mut self, len: u32) {
        self.position += (u64::from(len) + HEADER).next_multiple_of(8);
    }

    /// Gives everything that was advanced over back to the producer.
    pub fn release(&mut self) {
        if self.released != self.position {
            self.released = self.position;
            self.consumed().store(self.position, Ordering::Release);
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// The page size of this machine.
pub fn page_size() -> usize {
    // SAFETY: no memory involved.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}
