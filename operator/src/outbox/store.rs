//! The tables of the outbox, and what one transaction does to them.
//!
//! ```text
//! alerts  (spool, seq)            → bytes           once, however many sinks want it
//! held    (spool, seq)            → queues          only where more than one queue holds the alert
//! queues  (sink, priority, order) → where the alert is, its size, its arrival
//! spools  name                    → number, committed up to, last seen
//! sinks   uid                     → number, counters, last test
//! ```
//!
//! A queue's rows are in order of arrival within each priority, so that the oldest of the least serious is found
//! without an index; reading merges the eight priorities back into order of arrival. Everything that a transaction
//! counts is counted in it: a count and the row that it counts are on disk together or not at all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use api::sink::Overflow;
use prost::Message as _;
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::{Counters, Entry, Outcome, Row, RowKey, SinkNo, TestResult, record::SinkRecord};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SPOOLS: TableDefinition<'_, &str, (u32, u64, u64)> = TableDefinition::new("spools");
const ALERTS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("alerts");
const HELD: TableDefinition<'_, (u32, u64), u32> = TableDefinition::new("held");
const QUEUES: TableDefinition<'_, (u32, u8, u64), QueueRow> = TableDefinition::new("queues");
const SINKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sinks");

/// Spool, sequence number, bytes of the alert, arrival in milliseconds since the Unix epoch.
type QueueRow = (u32, u64, u32, u64);

/// Version of the tables. Another one is somebody else's file.
pub(super) const FORMAT: u64 = 1;
/// Priorities, from 0.
pub(super) const CLASSES: u8 = 8;
/// What a row costs beyond its bytes, roughly.
const ROW_BYTES: u64 = 64;
/// A spool that nobody mentioned for so long is forgotten, in seconds.
const SPOOL_LIFE: u64 = 30 * 86_400;

/// What there is, in numbers. The transaction works on a copy, which becomes the truth when it is committed.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub bytes: u64,
    next_order: u64,
    next_sink: u32,
    next_spool: u32,
    pub sinks: BTreeMap<SinkNo, SinkState>,
    /// Some sinks are not in the file.
    unsaved: bool,
}

impl Totals {
    /// What a file that was opened anew contains, together with what is known from before: if it is a new file, numbers
    /// that are in use must stay what they are.
    pub fn succeed(mut self, before: &Self) -> Self {
        self.next_order = self.next_order.max(before.next_order);
        self.next_sink = self.next_sink.max(before.next_sink);
        for (number, known) in &before.sinks {
            match self.sinks.get_mut(number) {
                Some(sink) => sink.limits = known.limits,
                None => {
                    self.sinks.insert(*number, SinkState { depth: 0, bytes: 0, ..known.clone() });
                    self.unsaved = true;
                }
            }
        }
        self
    }
}

/// What there is of one sink.
#[derive(Debug, Clone)]
pub(super) struct SinkState {
    pub uid: Arc<str>,
    pub depth: u64,
    pub bytes: u64,
    pub counters: Counters,
    pub test: Option<TestResult>,
    /// None until the sink was registered since the start; it takes nothing then.
    pub limits: Option<Limits>,
}

/// Bounds of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Alerts that can wait.
    pub capacity: u64,
    /// Which one to give up when they are too many.
    pub overflow: Overflow,
}

/// Makes the tables of a new file, and tells whether those of an old one are ours.
pub(super) fn initialize(db: &Database) -> Result<bool, redb::Error> {
    let txn = db.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        let format = meta.get("format")?.map(|guard| guard.value());
        match format {
            Some(FORMAT) => {}
            Some(_) => return Ok(false),
            None => {
                meta.insert("format", FORMAT)?;
            }
        }
        txn.open_table(SPOOLS)?;
        txn.open_table(ALERTS)?;
        txn.open_table(HELD)?;
        txn.open_table(QUEUES)?;
        txn.open_table(SINKS)?;
    }
    txn.commit()?;
    Ok(true)
}

/// Reads what there is.
pub(super) fn load(db: &Database) -> Result<Totals, redb::Error> {
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    let number = |key: &str| -> Result<u64, redb::Error> { Ok(meta.get(key)?.map_or(0, |guard| guard.value())) };
    let mut totals = Totals { next_order: number("order")?, ..Totals::default() };
    totals.next_sink = u32::try_from(number("sink")?).unwrap_or(u32::MAX);
    totals.next_spool = u32::try_from(number("spool")?).unwrap_or(u32::MAX);
    for row in txn.open_table(SINKS)?.iter()? {
        let (uid, record) = row?;
        let record = SinkRecord::decode(record.value()).map_err(|error| corrupted(&error))?;
        totals.sinks.insert(
            record.number,
            SinkState {
                uid: uid.value().into(),
                depth: 0,
                bytes: 0,
                counters: record.counters(),
                test: record.test(),
                limits: None,
            },
        );
    }
    for row in txn.open_table(QUEUES)?.iter()? {
        let (key, value) = row?;
        let bytes = u64::from(value.value().2);
        totals.bytes += ROW_BYTES;
        if let Some(sink) = totals.sinks.get_mut(&key.value().0) {
            sink.depth += 1;
            sink.bytes += bytes;
        }
    }
    for row in txn.open_table(ALERTS)?.iter()? {
        totals.bytes += ROW_BYTES + row?.1.value().len() as u64;
    }
    Ok(totals)
}

fn corrupted(error: &dyn std::error::Error) -> redb::Error {
    redb::Error::Corrupted(error.to_string())
}

/// The sequence number up to which a spool's alerts were committed.
pub(super) fn committed(db: &Database, spool: &str) -> Result<u64, redb::Error> {
    let spools = db.begin_read()?.open_table(SPOOLS)?;
    Ok(spools.get(spool)?.map_or(0, |guard| guard.value().1))
}

/// The sequence number up to which no sink waits for any of a spool's alerts.
pub(super) fn settled(db: &Database, spool: &str) -> Result<u64, redb::Error> {
    let txn = db.begin_read()?;
    let Some((number, mark, _)) = txn.open_table(SPOOLS)?.get(spool)?.map(|guard| guard.value()) else { return Ok(0) };
    let alerts = txn.open_table(ALERTS)?;
    let first = alerts.range((number, 0)..=(number, u64::MAX))?.next().transpose()?;
    Ok(first.map_or(mark, |(key, _)| key.value().1.saturating_sub(1)))
}

/// When the alert that waits longest for a sink arrived, in milliseconds since the Unix epoch.
pub(super) fn oldest(db: &Database, sink: SinkNo) -> Result<Option<u64>, redb::Error> {
    let queues = db.begin_read()?.open_table(QUEUES)?;
    let mut oldest: Option<(u64, u64)> = None;
    for class in 0..CLASSES {
        let first = queues.range((sink, class, 0)..=(sink, class, u64::MAX))?.next().transpose()?;
        let first = first.map(|(key, value)| (key.value().2, value.value().3));
        oldest = match (oldest, first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    Ok(oldest.map(|(_, arrived)| arrived))
}

/// The next rows of a sink's queue in order of arrival, after the given place.
pub(super) fn read(
    db: &Database,
    sink: SinkNo,
    after: u64,
    rows: usize,
    bytes: usize,
) -> Result<Vec<Row>, redb::Error> {
    let txn = db.begin_read()?;
    let queues = txn.open_table(QUEUES)?;
    let alerts = txn.open_table(ALERTS)?;
    let mut heads = BTreeMap::new();
    let mut ranges = Vec::new();
    for class in 0..CLASSES {
        let Some(from) = after.checked_add(1) else { break };
        let mut range = queues.range((sink, class, from)..=(sink, class, u64::MAX))?;
        if let Some(row) = range.next().transpose()? {
            heads.insert(row.0.value().2, (class, row.1.value()));
        }
        ranges.push(range);
    }
    let (mut found, mut size) = (Vec::new(), 0);
    while found.len() < rows && size < bytes {
        let Some((order, (class, (spool, seq, _, arrived_ms)))) = heads.pop_first() else { break };
        if let Some(row) = ranges.get_mut(usize::from(class)).and_then(Iterator::next).transpose()? {
            heads.insert(row.0.value().2, (class, row.1.value()));
        }
        // A queue row without its alert cannot be; if it is, the worker settles it and goes on.
        let payload = alerts.get((spool, seq))?.map(|guard| guard.value().to_vec()).unwrap_or_default();
        size += payload.len();
        found.push(Row { key: RowKey { class, order }, arrived_ms, payload });
    }
    Ok(found)
}

/// What a transaction touched: who has to be told after it is committed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Sinks whose queues grew.
    pub sinks: BTreeSet<SinkNo>,
    /// Spools whose marks moved.
    pub spools: BTreeSet<Arc<str>>,
    /// Numbers of spools of which alerts went.
    pub freed: bool,
    /// Alerts that were there already.
    pub duplicates: u64,
}

/// One write transaction.
pub(super) struct Transaction<'t> {
    alerts: Table<'t, (u32, u64), &'static [u8]>,
    held: Table<'t, (u32, u64), u32>,
    queues: Table<'t, (u32, u8, u64), QueueRow>,
    spools: Table<'t, &'static str, (u32, u64, u64)>,
    sinks: Table<'t, &'static str, &'static [u8]>,
    meta: Table<'t, &'static str, u64>,
    pub totals: Totals,
    pub touched: Touched,
    changed: BTreeSet<SinkNo>,
    marks: HashMap<Arc<str>, (u32, u64)>,
    max_bytes: u64,
    now_ms: u64,
}

/// Runs one transaction to its end.
pub(super) fn transact<T>(
    db: &Database,
    totals: &Totals,
    max_bytes: u64,
    now_ms: u64,
    work: impl FnOnce(&mut Transaction<'_>) -> Result<T, redb::Error>,
) -> Result<(T, Totals, Touched), redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate).map_err(|error| corrupted(&error))?;
    let (done, totals, touched) = {
        let mut open = Transaction::open(&txn, totals.clone(), max_bytes, now_ms)?;
        let done = work(&mut open)?;
        open.store()?;
        (done, open.totals, open.touched)
    };
    txn.commit()?;
    Ok((done, totals, touched))
}

impl<'t> Transaction<'t> {
    fn open(txn: &'t WriteTransaction, totals: Totals, max_bytes: u64, now_ms: u64) -> Result<Self, redb::Error> {
        Ok(Self {
            alerts: txn.open_table(ALERTS)?,
            held: txn.open_table(HELD)?,
            queues: txn.open_table(QUEUES)?,
            spools: txn.open_table(SPOOLS)?,
            sinks: txn.open_table(SINKS)?,
            meta: txn.open_table(META)?,
            totals,
            touched: Touched::default(),
            changed: BTreeSet::new(),
            marks: HashMap::new(),
            max_bytes,
            now_ms,
        })
    }

    /// Writes the numbers that changed.
    fn store(&mut self) -> Result<(), redb::Error> {
        for (name, (number, mark)) in &self.marks {
            self.spools.insert(&**name, (*number, *mark, self.now_ms / 1000))?;
        }
        if std::mem::take(&mut self.totals.unsaved) {
            self.changed.extend(self.totals.sinks.keys());
        }
        for number in &self.changed {
            let Some(sink) = self.totals.sinks.get(number) else { continue };
            let record = SinkRecord::new(*number, &sink.counters, sink.test.as_ref()).encode_to_vec();
            self.sinks.insert(&*sink.uid, record.as_slice())?;
        }
        self.meta.insert("order", self.totals.next_order)?;
        self.meta.insert("sink", u64::from(self.totals.next_sink))?;
        self.meta.insert("spool", u64::from(self.totals.next_spool))?;
        Ok(())
    }

    /// Takes an alert in, unless it is there already.
    pub fn insert(&mut self, entry: &Entry) -> Result<(), redb::Error> {
        let Some(spool) = self.advance(&entry.spool, entry.seq)? else {
            self.touched.duplicates += 1;
            return Ok(());
        };
        for number in &entry.filtered {
            self.count(*number, |counters| counters.filtered += 1);
        }
        let mut holders = 0_u32;
        for number in &entry.wanted {
            holders += u32::from(self.enqueue(*number, spool, entry)?);
        }
        if holders == 0 {
            return Ok(());
        }
        self.alerts.insert((spool, entry.seq), entry.payload.as_slice())?;
        if holders > 1 {
            self.held.insert((spool, entry.seq), holders)?;
        }
        self.totals.bytes += ROW_BYTES + entry.payload.len() as u64;
        while self.totals.bytes > self.max_bytes && self.shed()? {}
        Ok(())
    }

    /// Moves a spool's mark; none when it was there already, else the spool's number.
    fn advance(&mut self, name: &Arc<str>, seq: u64) -> Result<Option<u32>, redb::Error> {
        if !self.marks.contains_key(name) {
            let known = self.spools.get(&**name)?.map(|guard| guard.value());
            let known = known.map_or_else(
                || {
                    let number = self.totals.next_spool;
                    self.totals.next_spool = number.saturating_add(1);
                    (number, 0)
                },
                |(number, mark, _)| (number, mark),
            );
            self.marks.insert(Arc::clone(name), known);
        }
        let Some((number, mark)) = self.marks.get_mut(name) else { return Ok(None) };
        // Also when nothing is new: the sensor missed the acknowledgement.
        self.touched.spools.insert(Arc::clone(name));
        if seq <= *mark {
            return Ok(None);
        }
        *mark = seq;
        Ok(Some(*number))
    }

    /// Puts an alert into a queue; false when it found no place.
    fn enqueue(&mut self, number: SinkNo, spool: u32, entry: &Entry) -> Result<bool, redb::Error> {
        let Some(sink) = self.totals.sinks.get(&number) else { return Ok(false) };
        let Some(limits) = sink.limits else { return Ok(false) };
        let class = entry.class.min(CLASSES - 1);
        if sink.depth >= limits.capacity {
            let victim = match limits.overflow {
                Overflow::DropNewest => None,
                Overflow::DropOldest => self.first(number)?,
                Overflow::DropLowestPriority => self.least_serious(number)?.filter(|victim| victim.class >= class),
            };
            let Some(victim) = victim else {
                self.count(number, |counters| counters.dropped += 1);
                return Ok(false);
            };
            self.remove(number, victim)?;
            self.count(number, |counters| counters.dropped += 1);
        }
        let order = self.totals.next_order + 1;
        self.totals.next_order = order;
        let bytes = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
        self.queues.insert((number, class, order), (spool, entry.seq, bytes, self.now_ms))?;
        self.totals.bytes += ROW_BYTES;
        if let Some(sink) = self.totals.sinks.get_mut(&number) {
            sink.depth += 1;
            sink.bytes += u64::from(bytes);
        }
        self.touched.sinks.insert(number);
        Ok(true)
    }

    /// Makes room on disk: the queue that takes most gives up an alert. False when there is none.
    fn shed(&mut self) -> Result<bool, redb::Error> {
        let largest = self.totals.sinks.iter().filter(|(_, sink)| sink.depth > 0);
        let largest = largest.max_by_key(|(_, sink)| sink.bytes + sink.depth * ROW_BYTES);
        let Some((number, overflow)) =
            largest.map(|(number, sink)| (*number, sink.limits.map(|limits| limits.overflow)))
        else {
            return Ok(false);
        };
        let victim = match overflow {
            Some(Overflow::DropOldest) => self.first(number)?,
            Some(Overflow::DropNewest) => self.last(number)?,
            Some(Overflow::DropLowestPriority) | None => self.least_serious(number)?,
        };
        let Some(victim) = victim else { return Ok(false) };
        self.remove(number, victim)?;
        self.count(number, |counters| counters.dropped += 1);
        Ok(true)
    }

    /// Takes an alert out of a queue, because it was delivered or given up. Nothing when it is gone already.
    pub fn settle(&mut self, number: SinkNo, key: RowKey, outcome: Outcome) -> Result<(), redb::Error> {
        if self.remove(number, key)? {
            self.count(number, |counters| match outcome {
                Outcome::Sent => counters.sent += 1,
                Outcome::Failed => counters.failed += 1,
            });
        }
        Ok(())
    }

    /// Changes the counters of a sink.
    pub fn count(&mut self, number: SinkNo, change: impl FnOnce(&mut Counters)) {
        if let Some(sink) = self.totals.sinks.get_mut(&number) {
            change(&mut sink.counters);
            self.changed.insert(number);
        }
    }

    /// Remembers how far a test came.
    pub fn test(&mut self, number: SinkNo, test: TestResult) {
        if let Some(sink) = self.totals.sinks.get_mut(&number) {
            sink.test = Some(test);
            self.changed.insert(number);
        }
    }

    /// Sets the bounds of a sink's queue, making the queue when it is new.
    pub fn register(&mut self, uid: &Arc<str>, limits: Limits, at_least: &Counters) -> SinkNo {
        let known = self.totals.sinks.iter().find(|(_, sink)| sink.uid == *uid).map(|(number, _)| *number);
        let number = known.unwrap_or_else(|| {
            let number = self.totals.next_sink;
            self.totals.next_sink = number.saturating_add(1);
            number
        });
        let state = self.totals.sinks.entry(number).or_insert_with(|| SinkState {
            uid: Arc::clone(uid),
            depth: 0,
            bytes: 0,
            counters: Counters::default(),
            test: None,
            limits: None,
        });
        state.limits = Some(limits);
        let counters = state.counters.max(at_least);
        if known.is_none() || counters != state.counters {
            state.counters = counters;
            self.changed.insert(number);
        }
        number
    }

    /// Removes up to so many rows of a sink that is gone, and the sink with the last. True when it is.
    pub fn drop_sink(&mut self, number: SinkNo, rows: usize) -> Result<bool, redb::Error> {
        for _ in 0..rows {
            let Some(key) = self.least_serious(number)? else {
                if let Some(sink) = self.totals.sinks.remove(&number) {
                    self.sinks.remove(&*sink.uid)?;
                }
                return Ok(true);
            };
            self.remove(number, key)?;
        }
        Ok(false)
    }

    /// Forgets spools that nobody mentioned for long and of which no alert is left.
    pub fn forget_spools(&mut self) -> Result<(), redb::Error> {
        let before = (self.now_ms / 1000).saturating_sub(SPOOL_LIFE);
        let mut old = Vec::new();
        for row in self.spools.iter()? {
            let (name, value) = row?;
            let (number, _, seen) = value.value();
            if seen < before && self.alerts.range((number, 0)..=(number, u64::MAX))?.next().is_none() {
                old.push(name.value().to_owned());
            }
        }
        for name in old {
            self.spools.remove(name.as_str())?;
        }
        Ok(())
    }

    fn first(&self, number: SinkNo) -> Result<Option<RowKey>, redb::Error> {
        let mut first: Option<RowKey> = None;
        for class in 0..CLASSES {
            let row = self.queues.range((number, class, 0)..=(number, class, u64::MAX))?.next().transpose()?;
            let row = row.map(|(key, _)| RowKey { class, order: key.value().2 });
            first = [first, row].into_iter().flatten().min_by_key(|key| key.order);
        }
        Ok(first)
    }

    fn last(&self, number: SinkNo) -> Result<Option<RowKey>, redb::Error> {
        let mut last: Option<RowKey> = None;
        for class in 0..CLASSES {
            let row = self.queues.range((number, class, 0)..=(number, class, u64::MAX))?.next_back().transpose()?;
            let row = row.map(|(key, _)| RowKey { class, order: key.value().2 });
            last = [last, row].into_iter().flatten().max_by_key(|key| key.order);
        }
        Ok(last)
    }

    /// The oldest of the least serious.
    fn least_serious(&self, number: SinkNo) -> Result<Option<RowKey>, redb::Error> {
        for class in (0..CLASSES).rev() {
            let row = self.queues.range((number, class, 0)..=(number, class, u64::MAX))?.next().transpose()?;
            if let Some((key, _)) = row {
                return Ok(Some(RowKey { class, order: key.value().2 }));
            }
        }
        Ok(None)
    }

    /// Takes a row out of a queue, and the alert with its last row. False when there is no such row.
    fn remove(&mut self, number: SinkNo, key: RowKey) -> Result<bool, redb::Error> {
        let row = self.queues.remove((number, key.class, key.order))?.map(|guard| guard.value());
        let Some((spool, seq, bytes, _)) = row else { return Ok(false) };
        self.totals.bytes = self.totals.bytes.saturating_sub(ROW_BYTES);
        if let Some(sink) = self.totals.sinks.get_mut(&number) {
            sink.depth = sink.depth.saturating_sub(1);
            sink.bytes = sink.bytes.saturating_sub(u64::from(bytes));
        }
        let holders = self.held.get((spool, seq))?.map(|guard| guard.value());
        match holders {
            Some(holders) if holders > 2 => {
                self.held.insert((spool, seq), holders - 1)?;
            }
            Some(_) => {
                self.held.remove((spool, seq))?;
            }
            None => {
                self.alerts.remove((spool, seq))?;
                self.totals.bytes = self.totals.bytes.saturating_sub(ROW_BYTES + u64::from(bytes));
                self.touched.freed = true;
            }
        }
        Ok(true)
    }
}
