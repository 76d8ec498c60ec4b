//! What the sensor says about itself on standard error.

use std::sync::atomic::Ordering::Relaxed;

use tracing::{info, warn};

use crate::{
    active::Active,
    driver::{Driver, KernelCounter},
    pipeline::Counters,
};

/// Says which rules run, and which wait for events that are not collected yet.
pub fn rules(active: &Active) {
    let waiting = active.waiting();
    for (_, rule, types) in &waiting {
        warn!(rule, events = types.join(" "), "rule waits for events that are not collected yet");
    }
    for (rule, types) in active.partial() {
        warn!(rule, missing = types.join(" "), "rule sees only some of its events");
    }
    let loaded = active.ruleset.rules().len();
    info!(rules = loaded, active = loaded - waiting.len(), waiting = waiting.len(), "rules loaded");
}

/// Events that rules did not see, whoever lost them.
pub fn lost(driver: &Driver, counters: &Counters) -> u64 {
    let lost: u64 = counters.losses().filter(|(loss, _)| loss.is_event()).map(|(_, count)| count).sum();
    lost + driver.counts().map_or(0, |counts| counts.lost())
}

/// Every loss by name; nothing when there is none.
pub fn losses(driver: &Driver, counters: &Counters) {
    for (loss, count) in counters.losses().filter(|(_, count)| *count > 0) {
        warn!(cause = loss.label(), count, "lost in the sensor: {}", loss.log());
    }
    let counts = match driver.counts() {
        Ok(counts) => counts,
        Err(error) => return warn!(error = %link::chain(&error), "cannot read the kernel's counters"),
    };
    for (event, count) in counts.events {
        for counter in KernelCounter::ALL.iter().filter(|counter| counter.is_loss() && count.get(**counter) > 0) {
            warn!(event, cause = counter.label(), count = count.get(*counter), "lost in the kernel");
        }
    }
    if counts.recursion_misses > 0 {
        warn!(
            cause = "recursion",
            count = counts.recursion_misses,
            "lost in the kernel: a program was interrupted by itself"
        );
    }
}

/// How often each rule matched, most often first.
pub fn hits(active: &Active) {
    let mut hits: Vec<_> = active.hits().filter(|(_, count)| *count > 0).collect();
    hits.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (rule, matches) in hits {
        info!(rule, matches, "rule matched since the last reload");
    }
}

/// The last words.
pub fn stopped(driver: &Driver, counters: &Counters) {
    let filtered = driver.counts().map_or(0, |counts| counts.total(KernelCounter::Filtered));
    info!(
        events = counters.events.load(Relaxed),
        filtered,
        alerts = counters.alerts.load(Relaxed),
        lost = lost(driver, counters),
        processes = counters.processes.load(Relaxed),
        "stopped"
    );
}
