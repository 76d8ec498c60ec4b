//! What the programs count, in memory that is shared with them.
//!
//! Not asked for element by element with bpf(2), as would be usual: during each such question a kernel that has the programs
//! as tracepoints of perf does not call them (docs/kernels.md, Linux 7.0), and there are hundreds each second.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use abi::{loss::COUNTERS, record::kind};
use aya::maps::MapData;

use super::{load::DriverError, ring::page_size};

/// The map `COUNTERS`: for each processor one element per record kind.
pub struct CounterMap {
    memory: NonNull<u8>,
    len: usize,
    cpus: u32,
    _map: MapData,
}

// SAFETY: the memory is reached through atomics only.
unsafe impl Send for CounterMap {}

impl CounterMap {
    /// How many elements the map must have.
    pub fn entries(cpus: u32) -> u32 {
        cpus.saturating_mul(kind::MAX)
    }

    /// Maps it; it was made with [`Self::entries`] of them.
    pub fn new(map: MapData, cpus: u32) -> Result<Self, DriverError> {
        let len = (Self::entries(cpus) as usize * size_of::<[u64; COUNTERS]>()).next_multiple_of(page_size());
        let fd = map.fd().as_fd().as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice; the map was made to be mapped, and is as long.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(memory.cast::<u8>()) {
            Some(memory) if memory.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { memory, len, cpus, _map: map }),
            _ => Err(DriverError::Memory { what: "the counters", source: io::Error::last_os_error() }),
        }
    }

    /// The counters of a record kind on each processor.
    pub fn of(&self, kind: u16) -> impl Iterator<Item = [u64; COUNTERS]> {
        let kind = u32::from(kind).min(kind::MAX - 1);
        (0..self.cpus).map(move |cpu| {
            let element = (cpu * kind::MAX + kind) as usize * COUNTERS;
            // SAFETY: the element is one of `entries`, all of which are mapped; pages begin aligned.
            std::array::from_fn(|word| unsafe {
                self.memory.cast::<AtomicU64>().add(element + word).as_ref().load(Ordering::Relaxed)
            })
        })
    }
}

impl Drop for CounterMap {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}
