//! How full the rings are, told by the thread that reads them to those who ask.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use abi::control::{RING_CLASSES, RING_STATE, RING_URGENT};

use super::ring::Ring;

/// How full one ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLevel {
    /// The CPU that writes it.
    pub cpu: usize,
    /// What is in it.
    pub class: &'static str,
    /// Bytes that wait, as it was last looked at.
    pub bytes: u64,
    /// The most that was found since the start.
    pub peak: u64,
    /// Its size.
    pub size: u64,
}

/// Of all rings, in their order.
pub struct Levels(Vec<Level>);

#[derive(Default)]
struct Level {
    bytes: AtomicU64,
    peak: AtomicU64,
    size: u64,
}

impl Levels {
    pub(super) fn new(rings: &[Ring]) -> Self {
        Self(rings.iter().map(|ring| Level { size: ring.size(), ..Level::default() }).collect())
    }

    /// Notes how full they are. Only the reader of the rings does.
    pub(super) fn note(&self, rings: &[Ring]) {
        for (level, ring) in self.0.iter().zip(rings) {
            let bytes = ring.waiting();
            level.bytes.store(bytes, Relaxed);
            if bytes > level.peak.load(Relaxed) {
                level.peak.store(bytes, Relaxed);
            }
        }
    }

    /// What was noted last.
    pub fn read(&self) -> Vec<RingLevel> {
        let level = |(index, level): (usize, &Level)| RingLevel {
            cpu: index / RING_CLASSES as usize,
            class: match index as u32 % RING_CLASSES {
                RING_STATE => "state",
                RING_URGENT => "urgent",
                _ => "bulk",
            },
            bytes: level.bytes.load(Relaxed),
            peak: level.peak.load(Relaxed),
            size: level.size,
        };
        self.0.iter().enumerate().map(level).collect()
    }
}
