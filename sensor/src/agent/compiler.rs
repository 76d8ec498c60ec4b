//! The thread that makes rules of bundles, so that neither the event loop nor the link waits for it.
//!
//! Only the newest bundle and the newest facts wait for it. A bundle that does not compile, or cannot be put into effect,
//! leaves the one before running; both are told to the operator. What runs is kept for the next boot.

use std::{
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use link::proto;
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use super::{
    cache::Cache,
    link::{Acks, Verified},
};
use crate::active::Active;

/// What compiling gave.
pub struct Built {
    /// The rules.
    pub active: Active,
    /// What became of each resource.
    pub units: Vec<proto::UnitResult>,
}

/// Compiles the bytes of a bundle for a node with these facts; an error is a sentence for people.
pub type Compile = Box<dyn FnMut(&Verified, &proto::NodeFacts) -> Result<Built, String> + Send>;

/// Puts rules into effect; an error is a sentence for people.
pub type Effect = Box<dyn FnMut(Arc<Active>) -> Result<(), String> + Send>;

/// The way to the thread.
#[derive(Default)]
pub struct Compiler {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    bundle: Option<Verified>,
    facts: Option<proto::NodeFacts>,
    /// The cache is to be looked at again; who is told afterwards.
    reread: Vec<oneshot::Sender<()>>,
    closed: bool,
}

impl Compiler {
    /// A bundle to run in place of others.
    pub fn bundle(&self, bundle: Verified) {
        self.lock().bundle = Some(bundle);
        self.changed.notify_one();
    }

    /// What the node is now.
    pub fn facts(&self, facts: proto::NodeFacts) {
        self.lock().facts = Some(facts);
        self.changed.notify_one();
    }

    /// Runs the bundle in the cache, if it is another: the sensor before this one may have kept a newer one.
    pub fn reread(&self) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        self.lock().reread.push(done);
        self.changed.notify_one();
        told
    }

    /// Ends the thread.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// What there is to do; none when the thread is to end.
    fn next(&self) -> Option<Slot> {
        let mut slot = self.lock();
        while slot.bundle.is_none() && slot.facts.is_none() && slot.reread.is_empty() && !slot.closed {
            slot = self.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        (!slot.closed).then(|| mem::take(&mut *slot))
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread works with.
pub struct Parts {
    /// How bundles are compiled.
    pub compile: Compile,
    /// How rules are put into effect.
    pub effect: Effect,
    /// What is kept.
    pub cache: Cache,
    /// Where the outcome is told.
    pub acks: watch::Sender<Acks>,
    /// Called once, when the bundle of the last boot runs, or there is none.
    pub booted: Box<dyn FnOnce() + Send>,
}

/// Starts the thread.
pub fn start(compiler: Arc<Compiler>, parts: Parts) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("rules".to_owned()).spawn(move || Work::new(parts).run(&compiler))
}

struct Work {
    parts: Parts,
    /// What runs.
    bundle: Option<Verified>,
    facts: proto::NodeFacts,
}

impl Work {
    fn new(parts: Parts) -> Self {
        let facts = parts.cache.facts();
        Self { parts, bundle: None, facts }
    }

    fn run(mut self, compiler: &Compiler) {
        if let Some(bundle) = self.parts.cache.bundle() {
            info!(hash = bundle.hash, "running the cached bundle");
            self.put(bundle);
        }
        mem::replace(&mut self.parts.booted, Box::new(|| ()))();
        while let Some(Slot { bundle, facts, reread, .. }) = compiler.next() {
            if !reread.is_empty() {
                self.reread();
                // Nobody waits any more when the sensor is ending.
                reread.into_iter().for_each(|done| done.send(()).unwrap_or_default());
            }
            let changed = facts.is_some_and(|facts| self.learn(facts));
            match bundle {
                Some(bundle) if self.bundle.as_ref() == Some(&bundle) && !changed => {
                    self.parts.acks.send_modify(|acks| acks.repeat += 1);
                }
                Some(bundle) => self.put_and_keep(bundle),
                None => {
                    if changed && let Some(bundle) = self.bundle.clone() {
                        self.put_and_keep(bundle);
                    }
                }
            }
        }
    }

    /// Looks at the cache again.
    fn reread(&mut self) {
        let facts = self.parts.cache.facts();
        let moved = facts.labels != self.facts.labels;
        self.facts = facts;
        if let Some(bundle) = self.parts.cache.bundle()
            && (moved || self.bundle.as_ref() != Some(&bundle))
        {
            info!(hash = bundle.hash, "running the cached bundle");
            self.put(bundle);
        }
    }

    /// Puts a bundle into effect and keeps it for the next boot; or leaves what runs.
    fn put_and_keep(&mut self, bundle: Verified) {
        self.put(bundle.clone());
        if self.bundle.as_ref() == Some(&bundle)
            && let Err(error) = self.parts.cache.keep(&bundle)
        {
            warn!(error = %error, "cannot keep the bundle for the next boot");
        }
    }

    /// Takes over facts; whether they are new.
    fn learn(&mut self, facts: proto::NodeFacts) -> bool {
        if facts == self.facts {
            return false;
        }
        let changed = facts.labels != self.facts.labels;
        if let Err(error) = self.parts.cache.keep_facts(&facts) {
            warn!(error = %error, "cannot keep the labels of the node for the next boot");
        }
        self.facts = facts;
        changed
    }

    /// Compiles a bundle and puts it into effect, or leaves what runs. Writes nothing: the cache may belong to another sensor
    /// of this node.
    fn put(&mut self, bundle: Verified) {
        let began = Instant::now();
        let built = (self.parts.compile)(&bundle, &self.facts);
        let compile_ms = millis(began.elapsed());
        let done = built.and_then(|Built { active, units }| {
            let active = Arc::new(active.of_bundle(&bundle.hash));
            (self.parts.effect)(active)?;
            Ok(units)
        });
        let ack = proto::BundleAck { hash: bundle.hash.clone(), compile_ms, ..proto::BundleAck::default() };
        match done {
            Ok(units) => {
                info!(hash = bundle.hash, compile_ms, units = units.len(), "bundle active");
                let ack = proto::BundleAck { loaded: true, units, ..ack };
                self.parts.acks.send_modify(|acks| {
                    acks.running = Some(ack);
                    acks.failed = None;
                });
                self.bundle = Some(bundle);
            }
            Err(failure) => {
                error!(hash = bundle.hash, failure, "bundle not loaded: the one before goes on");
                self.parts.acks.send_modify(|acks| acks.failed = Some(proto::BundleAck { failure, ..ack }));
            }
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "compiler_tests.rs"]
mod tests;
