//! What the sensor says about itself on standard error.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tracing::{info, warn};

use crate::{
    active::Active,
    driver::{Counts, Driver, KernelCounter},
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

/// What the memory is bounded by; all of it is fixed at the start.
pub fn bounds(driver: &Driver, state: event::state::Limits) {
    let hold = crate::hold::Limits::default();
    info!(
        ring_memory_mib = driver.memory() >> 20,
        rings = driver.ring_levels().len(),
        processes = state.processes,
        cgroups = state.cgroups,
        held_records = hold.records,
        held_mib = hold.bytes >> 20,
        "memory is bounded"
    );
}

/// How the sensor does; `before` events had been judged so long ago. Returns how many there are now.
pub fn summary(driver: &Driver, counts: &Counts, counters: &Counters, before: u64, elapsed: Duration) -> u64 {
    let events = counters.events.load(Relaxed);
    let fullest = driver.ring_levels().into_iter().map(|ring| 100 * ring.peak / ring.size.max(1)).max();
    info!(
        events,
        per_second = (events.saturating_sub(before) as f64 / elapsed.as_secs_f64()).round(),
        filtered = counts.total(KernelCounter::Filtered),
        alerts = counters.alerts.load(Relaxed),
        lost = counts.lost() + counters.refused(),
        processes = counters.processes.load(Relaxed),
        containers = counters.containers.load(Relaxed),
        held = counters.held_records.load(Relaxed),
        fullest_ring_percent = fullest.unwrap_or(0),
        memory_mib = crate::health::memory() >> 20,
        "summary"
    );
    events
}

/// Lost events by cause, those that there are.
pub fn lost_events(driver: &Driver, counters: &Counters) -> Vec<(String, u64)> {
    let of_sensor = counters.losses().filter(|(loss, _)| loss.is_event());
    let mut lost: Vec<_> = of_sensor.map(|(loss, count)| (loss.label().to_owned(), count)).collect();
    if let Ok(counts) = driver.counts() {
        for counter in KernelCounter::ALL.iter().filter(|counter| counter.is_loss()) {
            lost.push((format!("kernel: {}", counter.label()), counts.total(*counter)));
        }
        lost.push(("kernel: recursion".to_owned(), counts.recursion_misses()));
    }
    lost.retain(|(_, count)| *count > 0);
    lost
}

/// Every loss by name; nothing when there is none.
pub fn losses(counts: &Counts, counters: &Counters) {
    for (loss, count) in counters.losses().filter(|(_, count)| *count > 0) {
        warn!(cause = loss.label(), count, "lost in the sensor: {}", loss.log());
    }
    for (event, count) in &counts.events {
        for counter in KernelCounter::ALL.iter().filter(|counter| counter.is_loss() && count.get(**counter) > 0) {
            let of = counts.losses.iter().filter(|loss| loss.event == *event && loss.cause == *counter);
            let cpus: Vec<_> = of.map(|loss| format!("{}:{}", loss.cpu, loss.count)).collect();
            warn!(
                event,
                cause = counter.label(),
                count = count.get(*counter),
                cpus = cpus.join(","),
                "lost in the kernel"
            );
        }
    }
    for (program, count) in &counts.skipped {
        warn!(
            program,
            cause = "recursion",
            count,
            "lost in the kernel: a program was interrupted or preempted, and under way on that processor"
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
pub fn stopped(counts: &Counts, counters: &Counters) {
    info!(
        events = counters.events.load(Relaxed),
        filtered = counts.total(KernelCounter::Filtered),
        alerts = counters.alerts.load(Relaxed),
        lost = counts.lost() + counters.refused(),
        processes = counters.processes.load(Relaxed),
        "stopped"
    );
}
