//! What became of a sink's alerts, in numbers that add up.
//!
//! Every alert that was published is counted exactly once for each sink: as filtered, sent, given up under one
//! [`Loss`], or still queued.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use api::ResourceId;

use crate::{Loss, SinkType};

/// Counters of one sink. They outlive changes of its configuration.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    filtered: AtomicU64,
    sent: AtomicU64,
    retried: AtomicU64,
    dropped: [AtomicU64; Loss::COUNT],
    failure: Mutex<Option<String>>,
}

/// A reading of one sink's counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkCounters {
    /// The resource that asked for the sink.
    pub id: ResourceId,
    /// What kind of destination it has.
    pub kind: SinkType,
    /// Alerts that wait, the one on its way included.
    pub queued: u64,
    /// Alerts that the sink's `match` left out.
    pub filtered: u64,
    /// Alerts delivered.
    pub sent: u64,
    /// Attempts that were repeated.
    pub retried: u64,
    /// Why the last attempt failed; none while the sink delivers.
    pub failure: Option<String>,
    dropped: [u64; Loss::COUNT],
}

impl SinkCounters {
    /// Alerts given up for one cause.
    pub fn dropped(&self, loss: Loss) -> u64 {
        self.dropped.get(loss as usize).copied().unwrap_or_default()
    }

    /// Alerts given up for any cause.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

impl Tally {
    pub fn filtered(&self) {
        self.filtered.fetch_add(1, Relaxed);
    }

    pub fn sent(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    pub fn retried(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    pub fn dropped(&self, loss: Loss, alerts: u64) {
        if let Some(counter) = self.dropped.get(loss as usize) {
            counter.fetch_add(alerts, Relaxed);
        }
    }

    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|counter| counter.load(Relaxed)).sum()
    }

    pub fn set_failure(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    pub fn read(&self, id: &ResourceId, kind: SinkType, queued: u64) -> SinkCounters {
        SinkCounters {
            id: id.clone(),
            kind,
            queued,
            filtered: self.filtered.load(Relaxed),
            sent: self.sent.load(Relaxed),
            retried: self.retried.load(Relaxed),
            failure: self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            dropped: std::array::from_fn(|at| self.dropped.get(at).map_or(0, |counter| counter.load(Relaxed))),
        }
    }
}
