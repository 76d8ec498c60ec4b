//! The sensor's alert about itself: it lost more events in the last second than it may.
//!
//! Rule, message and fields are Falco's (`userspace/falco/event_drops.cpp`), so that whoever watches for Falco's drop alert
//! sees ours; so are threshold, token bucket and their defaults (`syscall_event_drops` in falco.yaml). Falco's action
//! `exit` is not there: a sensor that has ended loses everything.

use std::{sync::Arc, time::Instant};

use rules::alert::{Alert, Priority};

use crate::{
    cli::{DropAction, Drops as Policy},
    driver::{Counts, KernelCounter},
};

const RULE: &str = "Falco internal: syscall event drop";

/// Falco's kinds of calls: the field of the alert, and the events that count there (`driver/modern_bpf/helpers/interfaces/
/// attached_programs.h` of Falco's libs). What is in none of them is in the total only.
const CATEGORIES: [(&str, &[&str]); 8] = [
    ("n_drops_buffer_clone_fork_exit", &["fork", "clone", "clone3", "vfork"]),
    ("n_drops_buffer_execve_exit", &["exec", "execve", "execveat"]),
    ("n_drops_buffer_connect_exit", &["connect"]),
    ("n_drops_buffer_open_exit", &["creat", "open", "openat", "openat2", "open_by_handle_at"]),
    (
        "n_drops_buffer_dir_file_exit",
        &[
            "chdir",
            "chmod",
            "chroot",
            "fchdir",
            "fchmod",
            "fchmodat",
            "link",
            "linkat",
            "mkdir",
            "mkdirat",
            "mount",
            "rename",
            "renameat",
            "renameat2",
            "rmdir",
            "symlink",
            "symlinkat",
            "umount",
            "umount2",
            "unlink",
            "unlinkat",
        ],
    ),
    ("n_drops_buffer_other_interest_exit", &[]),
    ("n_drops_buffer_close_exit", &["close"]),
    ("n_drops_buffer_proc_exit", &["exit"]),
];

/// What was counted up to a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Events, lost ones included.
    events: u64,
    drops: u64,
    buffer: u64,
    categories: [u64; CATEGORIES.len()],
    scratch: u64,
    bug: u64,
}

impl Totals {
    /// Of what kernel programs and event loop counted; `refused` records came, but were of no use.
    pub fn new(counts: &Counts, refused: u64) -> Self {
        let total = |counter| counts.total(counter);
        let full = |events: &[&str]| -> u64 {
            let of = counts.events.iter().filter(|(name, _)| events.contains(name));
            of.map(|(_, counts)| counts.get(KernelCounter::RingFull)).sum()
        };
        let drops = counts.lost() + refused;
        Self {
            events: total(KernelCounter::Sent) + counts.lost(),
            drops,
            buffer: total(KernelCounter::RingFull),
            categories: CATEGORIES.map(|(_, events)| full(events)),
            scratch: total(KernelCounter::TooLarge),
            bug: total(KernelCounter::NoHelper) + total(KernelCounter::NoRing) + counts.recursion_misses() + refused,
        }
    }

    fn since(&self, before: &Self) -> Self {
        let mut categories = self.categories;
        categories.iter_mut().zip(before.categories).for_each(|(now, then)| *now = now.saturating_sub(then));
        Self {
            events: self.events.saturating_sub(before.events),
            drops: self.drops.saturating_sub(before.drops),
            buffer: self.buffer.saturating_sub(before.buffer),
            categories,
            scratch: self.scratch.saturating_sub(before.scratch),
            bug: self.bug.saturating_sub(before.bug),
        }
    }
}

/// Decides when losses are told.
pub struct Drops {
    policy: Policy,
    hostname: Arc<str>,
    before: Totals,
    tokens: f64,
    filled: Instant,
    told: u64,
}

/// What to do about losses.
pub struct Told {
    /// For the log.
    pub log: Option<String>,
    /// For the sinks.
    pub alert: Option<Alert>,
}

impl Drops {
    /// Nothing is lost yet.
    pub fn new(policy: Policy, hostname: Arc<str>, now: Instant) -> Self {
        Self { tokens: policy.drops_max_burst, policy, hostname, before: Totals::default(), filled: now, told: 0 }
    }

    /// How often losses were told.
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Looks at the counts, once a second.
    pub fn look(&mut self, totals: Totals, now: Instant, unix_ns: u64) -> Option<Told> {
        let lost = totals.since(&self.before);
        self.before = totals;
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.policy.drops_rate).min(self.policy.drops_max_burst);
        self.filled = now;
        let over = lost.drops > 0 && lost.drops as f64 > self.policy.drops_threshold * lost.events as f64;
        if !over || self.tokens < 1.0 || self.policy.drops_actions.contains(&DropAction::Ignore) {
            return None;
        }
        self.tokens -= 1.0;
        self.told += 1;
        let message = format!("{RULE}. {} system calls dropped in last second.", lost.drops);
        let wanted = |action| self.policy.drops_actions.contains(&action);
        Some(Told {
            log: wanted(DropAction::Log).then(|| message.clone()),
            alert: wanted(DropAction::Alert).then(|| self.alert(&lost, &message, unix_ns)),
        })
    }

    fn alert(&self, lost: &Totals, message: &str, unix_ns: u64) -> Alert {
        let mut fields: Vec<(&str, u64)> = vec![
            ("ebpf_enabled", 1),
            ("n_drops", lost.drops),
            ("n_drops_buffer_total", lost.buffer),
            ("n_drops_bug", lost.bug),
            // Memory that cannot be read leaves a parameter empty here; no event is lost by it.
            ("n_drops_page_faults", 0),
            ("n_drops_scratch_map", lost.scratch),
            ("n_evts", lost.events),
        ];
        fields.extend(CATEGORIES.iter().zip(lost.categories).map(|((name, _), count)| (*name, count)));
        fields.sort_unstable();
        Alert {
            hostname: Arc::clone(&self.hostname),
            time_ns: unix_ns,
            rule: RULE.into(),
            priority: Priority::Debug,
            source: "internal".into(),
            tags: Arc::new([]),
            message: message.into(),
            output_fields: fields.into_iter().map(|(name, count)| (name.into(), count.to_string().into())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;

    fn policy() -> Policy {
        Policy {
            drops_threshold: 0.1,
            drops_rate: 0.033_33,
            drops_max_burst: 1.0,
            drops_actions: vec![DropAction::Log, DropAction::Alert],
        }
    }

    fn totals(events: u64, drops: u64) -> Totals {
        Totals { events, drops, buffer: drops, ..Totals::default() }
    }

    #[test]
    fn the_alert_is_falcos() {
        let began = Instant::now();
        let mut drops = Drops::new(policy(), "node-7".into(), began);
        let told = drops.look(totals(1000, 500), began, 1_700_000_000_000_000_000).expect("half of it was lost");
        let alert = serde_json::to_string_pretty(&told.alert.expect("an alert")).expect("JSON");
        expect![[r#"
            {
              "hostname": "node-7",
              "output": "22:13:20.000000000: Debug Falco internal: syscall event drop. 500 system calls dropped in last second.",
              "output_fields": {
                "ebpf_enabled": "1",
                "n_drops": "500",
                "n_drops_buffer_clone_fork_exit": "0",
                "n_drops_buffer_close_exit": "0",
                "n_drops_buffer_connect_exit": "0",
                "n_drops_buffer_dir_file_exit": "0",
                "n_drops_buffer_execve_exit": "0",
                "n_drops_buffer_open_exit": "0",
                "n_drops_buffer_other_interest_exit": "0",
                "n_drops_buffer_proc_exit": "0",
                "n_drops_buffer_total": "500",
                "n_drops_bug": "0",
                "n_drops_page_faults": "0",
                "n_drops_scratch_map": "0",
                "n_evts": "1000"
              },
              "priority": "Debug",
              "rule": "Falco internal: syscall event drop",
              "source": "internal",
              "tags": [],
              "time": "2023-11-14T22:13:20.000000000Z"
            }"#]]
        .assert_eq(&alert);
    }

    #[test]
    fn what_is_below_the_threshold_is_not_told() {
        let began = Instant::now();
        let mut drops = Drops::new(policy(), "".into(), began);
        assert!(drops.look(totals(1000, 100), began, 0).is_none(), "a tenth is allowed");
        assert!(drops.look(totals(2000, 100), began, 0).is_none(), "nothing more was lost");
        assert!(drops.look(totals(3000, 201), began, 0).is_some(), "this second, more than a tenth");
    }

    #[test]
    fn it_is_told_every_thirty_seconds_at_most() {
        let began = Instant::now();
        let mut drops = Drops::new(policy(), "".into(), began);
        let told: Vec<_> = (0..100)
            .filter(|second| {
                let lost = 1000 * (second + 1);
                drops.look(totals(lost, lost), began + Duration::from_secs(*second), 0).is_some()
            })
            .collect();
        assert_eq!(told, [0, 31, 62, 93]);
        assert_eq!(drops.told(), 4);
    }
}
