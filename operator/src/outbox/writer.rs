//! The one thread that changes the store.
//!
//! Whatever has come while the last transaction was written goes into the next one. Settling alone is in no hurry: it
//! waits a moment for company, because each transaction is a write to disk that somebody has to wait for.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{error, info};

use super::{
    Entry, OutboxError, Outcome, Registration, RowKey, Shared, SinkNo, TestResult, lock, now_ms,
    store::{self, Transaction},
};

/// Alerts in one transaction, roughly.
const ENTRIES: usize = 8192;
/// Orders of other kinds in one transaction.
const ORDERS: usize = 8192;
/// How long settling waits for company.
const LINGER: Duration = Duration::from_millis(20);
/// Rows of a sink that is gone, in one transaction.
const DROP_ROWS: usize = 2000;
/// Wait before the file is opened again.
const REOPEN: Duration = Duration::from_secs(1);
/// How often spools are looked through for old ones.
const FORGET: Duration = Duration::from_secs(3600);

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Op {
    Commit { entries: Vec<Entry>, done: oneshot::Sender<Result<(), OutboxError>>, room: OwnedSemaphorePermit },
    Register { sinks: Vec<Registration>, done: oneshot::Sender<Result<Vec<SinkNo>, OutboxError>> },
    Settle { sink: SinkNo, key: RowKey, outcome: Outcome },
    Retried { sink: SinkNo },
    Test { sink: SinkNo, test: TestResult, done: Sender<Result<(), OutboxError>> },
}

impl Op {
    fn urgent(&self) -> bool {
        match self {
            Self::Commit { .. } | Self::Register { .. } | Self::Test { .. } => true,
            Self::Settle { .. } | Self::Retried { .. } => false,
        }
    }

    fn entries(&self) -> usize {
        match self {
            Self::Commit { entries, .. } => entries.len(),
            Self::Register { .. } | Self::Settle { .. } | Self::Retried { .. } | Self::Test { .. } => 0,
        }
    }

    /// Does the work; a registration's numbers are the answer.
    fn apply(&self, txn: &mut Transaction<'_>) -> Result<Vec<SinkNo>, redb::Error> {
        match self {
            Self::Commit { entries, .. } => entries.iter().try_for_each(|entry| txn.insert(entry))?,
            Self::Register { sinks, .. } => {
                return Ok(sinks.iter().map(|sink| txn.register(&sink.uid, sink.limits, &sink.at_least)).collect());
            }
            Self::Settle { sink, key, outcome } => txn.settle(*sink, *key, *outcome)?,
            Self::Retried { sink } => txn.count(*sink, |counters| counters.retried += 1),
            Self::Test { sink, test, .. } => txn.test(*sink, test.clone()),
        }
        Ok(Vec::new())
    }
}

pub(super) fn spawn(shared: Arc<Shared>, orders: Receiver<Op>) -> io::Result<()> {
    let writer = Writer { shared, orders, waiting: Vec::new(), gone: BTreeSet::new(), forgot: None };
    thread::Builder::new().name("outbox".into()).spawn(move || writer.run()).map(|_| ())
}

struct Writer {
    shared: Arc<Shared>,
    orders: Receiver<Op>,
    /// Orders of a transaction that failed and that nobody will give again.
    waiting: Vec<Op>,
    /// Sinks that are no more, but some of their rows.
    gone: BTreeSet<SinkNo>,
    forgot: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        while let Some(group) = self.gather() {
            self.write(group);
        }
    }

    /// Everything that goes into the next transaction; none when there will be no more.
    fn gather(&mut self) -> Option<Vec<Op>> {
        let mut group = std::mem::take(&mut self.waiting);
        if group.is_empty() && self.gone.is_empty() {
            group.push(self.orders.recv().ok()?);
        }
        let mut entries: usize = group.iter().map(Op::entries).sum();
        let mut urgent = !self.gone.is_empty() || group.iter().any(Op::urgent);
        let linger = Instant::now() + LINGER;
        while entries < ENTRIES && group.len() < ORDERS {
            let next = match urgent {
                true => self.orders.try_recv().ok(),
                false => {
                    let left = linger.saturating_duration_since(Instant::now());
                    self.orders.recv_timeout(left).ok()
                }
            };
            let Some(op) = next else { break };
            urgent |= op.urgent();
            entries += op.entries();
            group.push(op);
        }
        Some(group)
    }

    fn write(&mut self, group: Vec<Op>) {
        let totals = lock(&self.shared.totals).clone();
        let gone = self.gone.first().copied();
        let forget = self.forgot.is_none_or(|then| then.elapsed() > FORGET);
        let work = |txn: &mut Transaction<'_>| {
            let mut answers = Vec::with_capacity(group.len());
            for op in &group {
                answers.push(op.apply(txn)?);
            }
            let dropped = match gone {
                Some(sink) => txn.drop_sink(sink, DROP_ROWS)?,
                None => false,
            };
            if forget {
                txn.forget_spools()?;
            }
            Ok((answers, dropped))
        };
        let max_bytes = self.shared.max_bytes;
        // The library may panic over a file that changed under its feet. The transaction is void then, as after any
        // other failure, and the file is looked through before it is used again.
        let written = catch_unwind(AssertUnwindSafe(|| {
            self.shared.file.read(|db| store::transact(db, &totals, max_bytes, now_ms(), work))
        }));
        let written = written.unwrap_or_else(|_| Err(redb::Error::Corrupted("writing it failed".into())));
        match written {
            Ok(((answers, dropped), totals, touched)) => {
                *lock(&self.shared.totals) = totals;
                if dropped {
                    self.gone.pop_first();
                }
                if forget {
                    self.forgot = Some(Instant::now());
                }
                for (op, numbers) in group.iter().zip(&answers) {
                    if let Op::Register { sinks, .. } = op {
                        self.registered(sinks, numbers);
                    }
                }
                // Before the answers, so that who has one sees what it says.
                self.tell(&touched);
                answer(group, answers);
            }
            Err(error) => self.fail(group, &error),
        }
    }

    fn registered(&mut self, sinks: &[Registration], numbers: &[SinkNo]) {
        *lock(&self.shared.bells) =
            numbers.iter().zip(sinks).map(|(number, sink)| (*number, Arc::clone(&sink.bell))).collect();
        let kept: HashSet<SinkNo> = numbers.iter().copied().collect();
        let mut totals = lock(&self.shared.totals);
        for (number, sink) in totals.sinks.iter_mut().filter(|(number, _)| !kept.contains(number)) {
            // From now on it takes nothing.
            sink.limits = None;
            self.gone.insert(*number);
        }
        // A resource that went and came back before its rows were dropped.
        self.gone.retain(|number| !kept.contains(number));
    }

    /// Wakes sinks, and acknowledges what is safe now.
    fn tell(&self, touched: &store::Touched) {
        let bells = lock(&self.shared.bells);
        touched.sinks.iter().filter_map(|sink| bells.get(sink)).for_each(|bell| bell.ring());
        drop(bells);
        let mut acks = lock(&self.shared.acks);
        acks.retain(|_, sender| !sender.is_closed());
        for (spool, sender) in acks.iter() {
            if !touched.spools.contains(spool) && (self.shared.durable || !touched.freed) {
                continue;
            }
            match self.shared.safe(spool) {
                // Also when nothing moved, for a sensor that sent again what was acknowledged already.
                Ok(safe) => {
                    sender.send_if_modified(|now| {
                        let moved = safe > *now || touched.duplicates > 0;
                        *now = safe.max(*now);
                        moved
                    });
                }
                Err(error) => error!(%error, "the outbox cannot be read; an acknowledgement is late"),
            }
        }
    }

    /// Nothing of the group is in the store. Who waits for an answer is told; the rest is done later.
    fn fail(&mut self, group: Vec<Op>, error: &redb::Error) {
        error!(%error, "the outbox could not be written; sensors keep their alerts until it can");
        for op in group {
            match op {
                Op::Commit { done, .. } => {
                    let _ = done.send(Err(OutboxError::Failed));
                }
                Op::Register { done, .. } => {
                    let _ = done.send(Err(OutboxError::Failed));
                }
                Op::Test { done, .. } => {
                    let _ = done.send(Err(OutboxError::Failed));
                }
                Op::Settle { .. } | Op::Retried { .. } => self.waiting.push(op),
            }
        }
        thread::sleep(REOPEN);
        match self.shared.file.reopen() {
            Ok(fresh) => {
                let mut totals = lock(&self.shared.totals);
                *totals = fresh.succeed(&totals);
                drop(totals);
                info!("the outbox was opened anew");
            }
            Err(error) => error!(error = %link::chain(&error), "the outbox cannot be opened; trying again"),
        }
    }
}

fn answer(group: Vec<Op>, answers: Vec<Vec<SinkNo>>) {
    for (op, numbers) in group.into_iter().zip(answers) {
        // Whoever asked may have gone; what was asked is done all the same.
        match op {
            Op::Commit { done, room, .. } => {
                drop(room);
                let _ = done.send(Ok(()));
            }
            Op::Register { done, .. } => {
                let _ = done.send(Ok(numbers));
            }
            Op::Test { done, .. } => {
                let _ = done.send(Ok(()));
            }
            Op::Settle { .. } | Op::Retried { .. } => {}
        }
    }
}
