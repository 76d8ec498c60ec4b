//! The store against kills, full queues, full disks and spoilt files.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{self, Error},
    path::Path,
};

use api::sink::Overflow;
use proptest::prelude::*;
use redb::{Builder, StorageBackend};

use super::*;

fn options(folder: &Path) -> Options {
    Options { folder: folder.into(), durable: true, max_bytes: Options::MAX_BYTES }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn entry(spool: &str, seq: u64, wanted: &[SinkNo]) -> Entry {
    let payload = format!("{spool}/{seq}").into_bytes();
    Entry { spool: spool.into(), seq, class: 4, payload, wanted: wanted.into(), filtered: vec![] }
}

fn registration(uid: &str, capacity: u64, overflow: Overflow) -> Registration {
    let limits = Limits { capacity, overflow };
    Registration { uid: uid.into(), limits, at_least: Counters::default(), bell: Arc::default() }
}

async fn register(outbox: &Outbox, uids: &[&str]) -> Vec<SinkNo> {
    let sinks = uids.iter().map(|uid| registration(uid, 1000, Overflow::DropLowestPriority)).collect();
    outbox.register(sinks).await.expect("registered")
}

fn waiting(outbox: &Outbox, sink: SinkNo) -> Vec<String> {
    let rows = outbox.read(sink, 0, usize::MAX, usize::MAX).expect("read");
    rows.into_iter().map(|row| String::from_utf8(row.payload).expect("text")).collect()
}

/// Waits until the thread has done what it was asked before.
async fn flush(outbox: &Outbox) {
    outbox.commit(vec![]).await.expect("committed");
}

#[test]
fn alerts_wait_for_the_sinks_that_want_them_in_order_of_arrival() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let outbox = Outbox::open(&options(folder.path())).expect("open");
        let sinks = register(&outbox, &["a", "b"]).await;
        let mut second = entry("s", 2, &sinks);
        second.class = 0;
        let mut third = entry("s", 3, &sinks[1..]);
        third.filtered = sinks[..1].to_vec();
        outbox.commit(vec![entry("s", 1, &sinks), second, third, entry("s", 4, &[])]).await.expect("committed");
        assert_eq!(waiting(&outbox, sinks[0]), ["s/1", "s/2"]);
        assert_eq!(waiting(&outbox, sinks[1]), ["s/1", "s/2", "s/3"]);
        assert_eq!(*outbox.acked("s").await.expect("read").borrow(), 4);
        let view = outbox.view(sinks[0]).expect("a sink");
        assert_eq!((view.depth, view.counters.filtered), (2, 1));
    });
}

#[test]
fn what_comes_again_is_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let outbox = Outbox::open(&options(folder.path())).expect("open");
        let sinks = register(&outbox, &["a"]).await;
        outbox.commit(vec![entry("s", 1, &sinks), entry("s", 2, &sinks)]).await.expect("committed");
        let again = (1..4).map(|seq| entry("s", seq, &sinks)).collect();
        outbox.commit(again).await.expect("committed");
        assert_eq!(waiting(&outbox, sinks[0]), ["s/1", "s/2", "s/3"]);
    });
}

#[test]
fn the_last_sink_to_settle_takes_the_alert_away() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let outbox = Outbox::open(&Options { durable: false, ..options(folder.path()) }).expect("open");
        let sinks = register(&outbox, &["a", "b", "c"]).await;
        let mut acked = outbox.acked("s").await.expect("read");
        outbox.commit(vec![entry("s", 1, &sinks), entry("s", 2, &sinks[..1])]).await.expect("committed");
        assert_eq!(*acked.borrow(), 0);
        for sink in &sinks {
            let row = outbox.read(*sink, 0, 1, 1).expect("read").remove(0);
            outbox.settle(*sink, row.key, Outcome::Sent);
            // A second time is no second delivery.
            outbox.settle(*sink, row.key, Outcome::Sent);
        }
        flush(&outbox).await;
        assert_eq!(*acked.borrow_and_update(), 1);
        let row = outbox.read(sinks[0], 0, 1, 1).expect("read").remove(0);
        outbox.settle(sinks[0], row.key, Outcome::Failed);
        flush(&outbox).await;
        assert_eq!(*acked.borrow_and_update(), 2);
        let counters = outbox.view(sinks[0]).expect("a sink").counters;
        assert_eq!((counters.sent, counters.failed), (1, 1));
        assert_eq!(outbox.bytes(), 0);
    });
}

#[test]
fn a_full_queue_gives_up_what_its_policy_says() {
    for (overflow, want) in [
        (Overflow::DropOldest, ["s/2", "s/3"]),
        (Overflow::DropNewest, ["s/0", "s/1"]),
        (Overflow::DropLowestPriority, ["s/1", "s/3"]),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let outbox = Outbox::open(&options(folder.path())).expect("open");
            let sinks = outbox.register(vec![registration("a", 2, overflow)]).await.expect("registered");
            for (at, class) in [5, 2, 7, 5].into_iter().enumerate() {
                let mut entry = entry("s", at as u64 + 1, &sinks);
                entry.payload = format!("s/{at}").into_bytes();
                entry.class = class;
                outbox.commit(vec![entry]).await.expect("committed");
            }
            assert_eq!(waiting(&outbox, sinks[0]), want, "{overflow:?}");
            assert_eq!(outbox.view(sinks[0]).expect("a sink").counters.dropped, 2);
        });
    }
}

#[test]
fn a_full_disk_is_paid_for_by_the_sink_that_takes_most_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let outbox = Outbox::open(&Options { max_bytes: 100_000, ..options(folder.path()) }).expect("open");
        let sinks = register(&outbox, &["hog", "modest"]).await;
        for seq in 1..=500 {
            let mut entry = entry("s", seq, if seq <= 5 { &sinks } else { &sinks[..1] });
            entry.payload.resize(1000, b' ');
            outbox.commit(vec![entry]).await.expect("committed");
        }
        assert!(outbox.bytes() <= 100_000, "{}", outbox.bytes());
        let (hog, modest) = (outbox.view(sinks[0]).expect("a sink"), outbox.view(sinks[1]).expect("a sink"));
        assert_eq!((modest.depth, modest.counters.dropped), (5, 0));
        assert_eq!(hog.depth + hog.counters.dropped, 500);
    });
}

#[test]
fn rows_of_a_sink_that_is_gone_are_dropped_and_its_number_is_never_given_again() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let outbox = Outbox::open(&options(folder.path())).expect("open");
        let before = register(&outbox, &["a", "b"]).await;
        outbox.commit((1..=10).map(|seq| entry("s", seq, &before)).collect()).await.expect("committed");
        let after = register(&outbox, &["b", "c"]).await;
        assert_eq!(after[0], before[1]);
        assert!(!before.contains(&after[1]));
        outbox.commit(vec![entry("s", 11, &before)]).await.expect("committed");
        flush(&outbox).await;
        assert_eq!((waiting(&outbox, before[0]).len(), waiting(&outbox, before[1]).len()), (0, 11));
        assert!(outbox.view(before[0]).is_none());
    });
}

#[test]
fn tests_and_counts_outlive_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let test = TestResult {
            nonce: "1".into(),
            at_ms: 7,
            outcome: TestOutcome::Failed { reason: Reason::AuthFailed, message: "no".into() },
        };
        let outbox = Outbox::open(&options(folder.path())).expect("open");
        let sinks = register(&outbox, &["a"]).await;
        outbox.test(sinks[0], test.clone()).expect("written");
        outbox.retried(sinks[0]);
        flush(&outbox).await;
        drop(outbox);
        let outbox = reopen(folder.path()).await;
        let mut known = registration("a", 1, Overflow::DropOldest);
        known.at_least.sent = 40;
        let sinks = outbox.register(vec![known]).await.expect("registered");
        let view = outbox.view(sinks[0]).expect("a sink");
        assert_eq!(view.test, Some(test));
        assert_eq!(view.counters, Counters { sent: 40, retried: 1, ..Counters::default() });
    });
}

/// Opens a store whose former thread is about to end.
async fn reopen(folder: &Path) -> Outbox {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match Outbox::open(&options(folder)) {
            Ok(outbox) => return outbox,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_file_that_cannot_be_used_is_put_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("outbox.redb");
    runtime().block_on(async {
        for spoil in [
            |path: &Path| fs::write(path, "not a database").expect("written"),
            |path: &Path| {
                // Zeros in the middle of a sound file.
                let mut bytes = fs::read(path).expect("read");
                let len = bytes.len();
                bytes.get_mut(len / 4..len / 2).expect("a part").fill(0);
                fs::write(path, bytes).expect("written");
            },
            |path: &Path| {
                let db = redb::Database::open(path).expect("open");
                let txn = db.begin_write().expect("begun");
                let meta = redb::TableDefinition::<'_, &str, u64>::new("meta");
                txn.open_table(meta).expect("a table").insert("format", 99).expect("inserted");
                txn.commit().expect("committed");
            },
        ] {
            let outbox = reopen(folder.path()).await;
            let sinks = register(&outbox, &["a"]).await;
            outbox.commit((1..100).map(|seq| entry("s", seq, &sinks)).collect()).await.expect("committed");
            drop(outbox);
            drop(reopen(folder.path()).await);
            let _ = fs::remove_file(path.with_file_name("outbox.redb.unusable"));
            wait_closed(&path).await;
            spoil(&path);
            let outbox = reopen(folder.path()).await;
            assert!(path.with_file_name("outbox.redb.unusable").exists());
            let sinks = register(&outbox, &["a"]).await;
            outbox.commit(vec![entry("s", 1, &sinks)]).await.expect("committed");
            assert_eq!(waiting(&outbox, sinks[0]), ["s/1"]);
        }
    });
}

/// Waits until the thread of a store has ended.
async fn wait_closed(path: &Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while let Err(error) = redb::Database::open(path) {
        assert!(std::time::Instant::now() < deadline, "{error:?}");
        tokio::task::yield_now().await;
    }
}

/// A disk of which a kill leaves what was synced, and some of the rest.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Image>>);

#[derive(Debug, Clone, Default)]
struct Image {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    /// What is left when the power goes now. Every n-th unsynced write made it.
    fn killed(&self, every: usize) -> Self {
        let image = lock(&self.0);
        let mut left = image.synced.clone();
        for (at, bytes) in image.unsynced.iter().step_by(every) {
            let at = usize::try_from(*at).expect("small");
            left.resize(left.len().max(at + bytes.len()), 0);
            left[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Self(Arc::new(Mutex::new(Image { now: left.clone(), synced: left, unsynced: vec![] })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(Error::other)?;
        let image = lock(&self.0);
        let from = image.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(Error::other)?;
        let mut image = lock(&self.0);
        image.now.resize(len, 0);
        image.synced.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut image = lock(&self.0);
        image.synced = image.now.clone();
        image.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(Error::other)?;
        let mut image = lock(&self.0);
        let to = image.now.get_mut(at..at + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        to.copy_from_slice(data);
        image.unsynced.push((offset, data.into()));
        Ok(())
    }
}

fn open_on(disk: Disk, durable: bool) -> Outbox {
    let db = Builder::new().create_with_backend(disk).expect("a database");
    let (file, totals) = File::on(db).expect("tables");
    let options = Options { durable, ..options(Path::new("")) };
    Outbox::start(file, totals, &options).expect("started")
}

#[derive(Debug, Clone)]
enum Step {
    /// A sensor sends so many alerts, some of them again, to some sinks.
    Send { spool: u8, alerts: u8, again: u8, wanted: u8 },
    /// A sink delivers so many, and says so, or is cut off before it can.
    Deliver { sink: u8, alerts: u8 },
    /// The power goes, while something is being written or not.
    Kill { every: u8, in_flight: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, 1..12_u8, 0..4_u8, 0..8_u8)
            .prop_map(|(spool, alerts, again, wanted)| Step::Send { spool, alerts, again, wanted }),
        4 => (0..3_u8, 1..20_u8).prop_map(|(sink, alerts)| Step::Deliver { sink, alerts }),
        1 => (1..4_u8, any::<bool>()).prop_map(|(every, in_flight)| Step::Kill { every, in_flight }),
    ]
}

const SINKS: [&str; 3] = ["a", "b", "c"];

/// What the world outside of the operator sees.
#[derive(Default)]
struct World {
    /// Highest place that each spool has used, and what it has been told is safe.
    spools: HashMap<u8, (u64, u64)>,
    /// Who wants which alert.
    wanted: HashMap<(u8, u64), u8>,
    /// What each sink got, in order.
    got: [Vec<(u8, u64)>; 3],
}

impl World {
    fn batch(&mut self, spool: u8, alerts: u8, again: u8, wanted: u8, sinks: &[SinkNo]) -> Vec<Entry> {
        let (used, safe) = *self.spools.entry(spool).or_default();
        // Everything that is not known to be safe is sent again, and some of what is.
        let from = safe.saturating_sub(u64::from(again)) + 1;
        let to = used + u64::from(alerts);
        (from..=to)
            .map(|seq| {
                let wanted = *self.wanted.entry((spool, seq)).or_insert(wanted);
                let sinks = (0..3).filter(|at| wanted & (1 << at) != 0).map(|at| sinks[at]).collect::<Vec<_>>();
                let mut entry = entry(&spool.to_string(), seq, &sinks);
                entry.class = (seq % 8) as u8;
                entry
            })
            .inspect(|entry| {
                self.spools.entry(spool).and_modify(|(used, _)| *used = entry.seq.max(*used));
            })
            .collect()
    }

    async fn commit(&mut self, outbox: &Outbox, spool: u8, batch: Vec<Entry>) {
        outbox.commit(batch).await.expect("committed");
        let safe = *outbox.acked(&spool.to_string()).await.expect("read").borrow();
        self.spools.entry(spool).and_modify(|(_, known)| *known = safe);
    }

    /// Delivers in a batch; returns the keys to settle.
    fn deliver(&mut self, outbox: &Outbox, at: usize, sink: SinkNo, alerts: usize) -> Vec<RowKey> {
        let rows = outbox.read(sink, 0, alerts, usize::MAX).expect("read");
        rows.iter()
            .map(|row| {
                let text = std::str::from_utf8(&row.payload).expect("text");
                let (spool, seq) = text.split_once('/').expect("a place");
                self.got[at].push((spool.parse().expect("a spool"), seq.parse().expect("a number")));
                row.key
            })
            .collect()
    }
}

async fn check_kills(steps: Vec<Step>, durable: bool) {
    let mut disk = Disk::default();
    let mut outbox = open_on(disk.clone(), durable);
    let mut sinks = register(&outbox, &SINKS).await;
    let mut world = World::default();
    for step in steps {
        match step {
            Step::Send { spool, alerts, again, wanted } => {
                let batch = world.batch(spool, alerts, again, wanted, &sinks);
                world.commit(&outbox, spool, batch).await;
            }
            Step::Deliver { sink, alerts } => {
                let at = usize::from(sink);
                for key in world.deliver(&outbox, at, sinks[at], usize::from(alerts)) {
                    outbox.settle(sinks[at], key, Outcome::Sent);
                }
                // So that the next batch is not the same one.
                flush(&outbox).await;
            }
            Step::Kill { every, in_flight } => {
                if in_flight {
                    // Sent and delivered, but nobody is told: it may be on disk or not.
                    let batch = world.batch(0, 5, 0, 7, &sinks);
                    let keys = world.deliver(&outbox, 0, sinks[0], 5);
                    keys.into_iter().for_each(|key| outbox.settle(sinks[0], key, Outcome::Sent));
                    let committed = outbox.commit(batch);
                    let soon = std::time::Duration::from_micros(u64::from(every) * 100);
                    let _ = tokio::time::timeout(soon, committed).await;
                }
                disk = disk.killed(usize::from(every));
                outbox = open_on(disk.clone(), durable);
                sinks = register(&outbox, &SINKS).await;
            }
        }
    }
    // Sensors send what they have left, and sinks deliver everything.
    for spool in world.spools.keys().copied().collect::<Vec<_>>() {
        let batch = world.batch(spool, 0, 0, 7, &sinks);
        world.commit(&outbox, spool, batch).await;
    }
    for (at, sink) in sinks.iter().enumerate() {
        for key in world.deliver(&outbox, at, *sink, usize::MAX) {
            outbox.settle(*sink, key, Outcome::Sent);
        }
    }
    flush(&outbox).await;
    assert_eq!(outbox.bytes(), 0, "something is left");
    for (at, got) in world.got.iter().enumerate() {
        let wanted: BTreeSet<_> =
            world.wanted.iter().filter(|(_, sinks)| **sinks & (1 << at) != 0).map(|(place, _)| *place).collect();
        assert_eq!(got.iter().copied().collect::<BTreeSet<_>>(), wanted, "sink {at} got other alerts than it wanted");
        let mut first: BTreeMap<u8, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (spool, seq) in got.iter().filter(|place| seen.insert(**place)) {
            let before = first.insert(*spool, *seq).unwrap_or_default();
            assert!(before < *seq, "sink {at}: {seq} of spool {spool} came after {before}");
        }
    }
    for (spool, (used, _)) in &world.spools {
        assert_eq!(*outbox.acked(&spool.to_string()).await.expect("read").borrow(), *used);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_kill_loses_an_alert_or_changes_their_order(steps in prop::collection::vec(step(), 1..30), durable: bool) {
        runtime().block_on(check_kills(steps, durable));
    }
}
