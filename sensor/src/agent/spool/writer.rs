//! The thread that writes the spool.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use link::proto;

use super::{COMMIT, COMMIT_BYTES, Loss, Store, queue::Hit, queue::Queue};
use crate::active::Active;

/// How often counts without alerts, and the state, are saved while they change: what a crash can lose of them.
const SAVE: Duration = Duration::from_secs(1);

/// Longest sleep.
const IDLE: Duration = Duration::from_secs(1);

/// The running thread.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    thread: thread::JoinHandle<()>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts it.
    pub fn start(store: Store, queue: Arc<Queue>) -> io::Result<Self> {
        let taken = Arc::clone(&queue);
        let thread = thread::Builder::new().name("spool".to_owned()).spawn(move || run(store, &taken))?;
        Ok(Self { queue, thread })
    }

    /// Whether the thread has ended, which it does only when it is stopped.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets no more alerts in, makes everything durable, and ends.
    pub fn stop(self) {
        self.queue.close();
        // A panic in the thread has been printed already.
        let _ = self.thread.join();
    }
}

fn run(mut store: Store, queue: &Queue) {
    let mut actives: Vec<Arc<Active>> = Vec::new();
    let mut synced: Option<Instant> = None;
    let mut saved = Instant::now();
    loop {
        let now = Instant::now();
        let due = if store.pending() > 0 { synced.map_or(now, |at| at + COMMIT) } else { now + IDLE };
        let work = queue.wait(due);
        actives.extend(work.fresh);
        for hit in work.hits {
            append(&mut store, &hit);
        }
        store.write();
        let now = Instant::now();
        let waited = synced.is_none_or(|at| now >= at + COMMIT);
        if store.pending() > 0 && (waited || store.pending() >= COMMIT_BYTES || work.closed) {
            store.sync();
            synced = Some(now);
        }
        if now >= saved + SAVE || work.closed {
            collect(&mut store, &mut actives);
        }
        if store.has_superfluous() || (store.unsaved() && now >= saved + SAVE) || work.closed {
            store.save();
            saved = now;
        }
        if work.closed {
            return;
        }
    }
}

fn append(store: &mut Store, hit: &Hit) {
    let alert = &hit.alert;
    let fields: serde_json::Map<_, _> =
        alert.output_fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let message = proto::Alert {
        unit: hit.rule.and_then(|rule| hit.active.unit(rule)).map_or_else(String::new, |unit| unit.uid.to_string()),
        rule: alert.rule.to_string(),
        priority: alert.priority.name().to_owned(),
        source: alert.source.to_string(),
        tags: alert.tags.iter().map(ToString::to_string).collect(),
        time_ns: alert.time_ns,
        message: alert.message.to_string(),
        output_fields: serde_json::Value::Object(fields).to_string(),
        pod: hit.pod.clone(),
        object: hit.object.clone(),
        seq: 0,
        bundle: hit.active.bundle().to_owned(),
        id: String::new(),
    };
    store.append(message, alert.priority);
}

/// Counts hits that made no alert, also of rules that were replaced and may still have been judging a moment ago.
fn collect(store: &mut Store, actives: &mut Vec<Arc<Active>>) {
    // Nobody judges by rules that only this list holds: what is taken from them now is the last.
    let over: Vec<bool> = actives.iter().map(|active| Arc::strong_count(active) == 1).collect();
    for active in actives.iter() {
        let names: Vec<&str> = active.ruleset.rules().map(|rule| rule.name()).collect();
        for (index, silent) in active.take_silent() {
            let (Some(unit), Some(rule)) = (active.unit(index), names.get(index)) else { continue };
            store.count(&unit.uid, rule, silent.suppressed + silent.untaken, silent.suppressed, silent.last_ns);
            if silent.untaken > 0 {
                store.lose(Loss::QueueFull, silent.untaken);
            }
        }
    }
    let mut over = over.into_iter();
    actives.retain(|_| !over.next().unwrap_or(false));
}
