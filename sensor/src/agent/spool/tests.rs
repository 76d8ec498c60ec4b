//! The spool against crashes, damage and a full disk. Crashes are played by what they leave on the disk.

use std::{fs, path::Path};

use proptest::prelude::*;
use rules::alert::Priority;
use tempfile::TempDir;

use super::*;
use crate::agent::testing::{active, alert, hit};

const LIMITS: Limits = Limits { bytes: 1 << 20, segment_bytes: 4 << 10 };

fn open(folder: &Path) -> Store {
    Store::open(folder, LIMITS).expect("a spool that opens")
}

fn append(store: &mut Store, message: &str) {
    store.append(alert(message), Priority::Warning);
}

/// Number and text of everything from a number on.
fn read(spool: &Spool, from: u64) -> Vec<(u64, String)> {
    let mut cursor = Cursor::at(from);
    let mut all = Vec::new();
    loop {
        let batch = spool.read(&mut cursor, 7, 1000).expect("readable files");
        if batch.alerts.is_empty() {
            return all;
        }
        all.extend(batch.alerts.into_iter().map(|alert| (alert.seq, alert.message)));
    }
}

fn hits(spool: &Spool) -> u64 {
    spool.totals().since(0).0.iter().map(|unit| unit.hits).sum()
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == ENDING)).collect();
    paths.sort();
    paths
}

/// What a crash leaves: a copy of the folder.
fn crash(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
    }
    copy
}

#[test]
fn numbers_counts_and_id_go_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    append(&mut store, "one");
    append(&mut store, "two");
    store.sync();
    let id = store.spool().id().to_owned();
    assert_eq!(hits(store.spool()), 2);
    // Killed: nothing is saved. What was handed to the system stays.
    append(&mut store, "three");
    store.write();
    drop(store);
    let mut store = open(folder.path());
    append(&mut store, "four");
    store.sync();
    let spool = store.spool();
    let want: Vec<_> = ["one", "two", "three", "four"].into_iter().map(str::to_owned).collect();
    assert_eq!(read(spool, 1), (1..).zip(want).collect::<Vec<_>>());
    assert_eq!((spool.id(), hits(spool), spool.lost(), spool.waiting()), (&*id, 4, 0, 4));
    let batch = spool.read(&mut Cursor::at(4), 1, 1).expect("a readable file");
    assert_eq!(batch.alerts[0].id, format!("{id}-4"));
}

#[test]
fn what_is_acknowledged_is_removed_and_still_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    for n in 0..200 {
        append(&mut store, &format!("alert {n} {}", "x".repeat(100)));
    }
    store.sync();
    assert!(segments(folder.path()).len() > 3);
    store.spool().acknowledge(199);
    assert!(store.has_superfluous());
    store.save();
    assert_eq!(segments(folder.path()).len(), 1);
    drop(store);
    let store = open(folder.path());
    assert_eq!((store.spool().acked(), hits(store.spool()), store.spool().waiting()), (199, 200, 1));
    assert_eq!(read(store.spool(), 200).len(), 1);
}

#[test]
fn a_full_spool_gives_up_the_oldest_and_takes_no_trifles() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { bytes: 32 << 10, segment_bytes: 2 << 10 };
    let mut store = Store::open(folder.path(), limits).expect("a spool that opens");
    for n in 0..1000 {
        append(&mut store, &format!("alert {n} {}", "x".repeat(100)));
    }
    store.sync();
    let spool = Arc::clone(store.spool());
    assert!(spool.bytes() <= limits.bytes, "{}", spool.bytes());
    let left = read(&spool, 1);
    assert_eq!(left.last().map(|(seq, _)| *seq), Some(1000), "the newest is there");
    assert_eq!(left.len() as u64 + spool.lost(), 1000, "each alert is there or lost");
    let before = spool.lost();
    let trifle = alert(&"x".repeat(4000));
    store.append(trifle, Priority::Notice);
    store.sync();
    assert_eq!(spool.lost(), before + 1, "what is not serious pushes out nothing");
    assert_eq!(read(&spool, 1), left);
    assert_eq!(hits(&spool), 1000);
    store.save();
    assert_eq!(hits(&spool), 1001, "a hit is a hit, also without an alert");
    drop(store);
    let store = Store::open(folder.path(), limits).expect("a spool that opens");
    assert_eq!((store.spool().lost(), hits(store.spool())), (before + 1, 1001));
    assert_eq!(read(store.spool(), 1), left);
}

#[test]
fn a_crash_between_giving_up_and_removing_counts_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    for n in 0..200 {
        append(&mut store, &format!("alert {n} {}", "x".repeat(100)));
    }
    store.sync();
    let first = segments(folder.path())[0].clone();
    let bytes = fs::read(&first).expect("a segment");
    let state = state::State {
        id: store.spool().id().to_owned(),
        counted: 200,
        lost: 20,
        given_up: 20,
        ..state::State::default()
    };
    drop(store);
    // The state says that a segment is given up whose file is still there.
    let second: u64 =
        segments(folder.path())[1].file_stem().and_then(|stem| stem.to_str()?.parse().ok()).expect("a number");
    let state = state::State { given_up: second - 1, lost: second - 1, ..state };
    state::write(folder.path(), &state).expect("a state");
    fs::write(&first, bytes).expect("a segment");
    let store = open(folder.path());
    assert_eq!(store.spool().lost(), second - 1);
    assert_eq!(read(store.spool(), 1).first().map(|(seq, _)| *seq), Some(second));
}

#[test]
fn a_damaged_state_makes_a_new_spool_and_keeps_the_alerts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    append(&mut store, "one");
    store.sync();
    let id = store.spool().id().to_owned();
    drop(store);
    fs::write(folder.path().join("state"), "nonsense").expect("a file");
    let store = open(folder.path());
    assert_ne!(store.spool().id(), id);
    assert_eq!(read(store.spool(), 1), [(1, "one".to_owned())]);
    assert_eq!(hits(store.spool()), 0, "they were counted under the old name");
}

#[test]
fn damage_in_the_middle_is_skipped_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    for n in 0..200 {
        append(&mut store, &format!("alert {n} {}", "x".repeat(100)));
    }
    store.save();
    let paths = segments(folder.path());
    let mut bytes = fs::read(&paths[1]).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&paths[1], bytes).expect("a segment");
    let spool = store.spool();
    let left = read(spool, 1);
    assert!(spool.lost() > 0);
    assert_eq!(left.len() as u64 + spool.lost(), 200);
    assert!(left.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[test]
fn an_operator_that_knows_more_is_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = open(folder.path());
    append(&mut store, "one");
    store.sync();
    store.spool().acknowledge(u64::MAX);
    assert_eq!(store.spool().acked(), 1, "nobody has more than there is");
    store.spool().resume_behind(10);
    append(&mut store, "eleven");
    store.sync();
    assert_eq!(read(store.spool(), 11), [(11, "eleven".to_owned())]);
    store.spool().resume_behind(u64::MAX);
    assert_eq!(store.spool().acked(), 10);
}

#[test]
fn hits_without_alert_are_counted_before_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, queue, writer) = start(folder.path(), LIMITS).expect("a spool");
    let active = active();
    queue.runs(Arc::clone(&active));
    queue.push(hit(&active, "one"));
    active.count_untaken(0, 7);
    writer.stop();
    let totals = spool.totals().since(0).0;
    assert_eq!((totals[0].hits, totals[0].suppressed, totals[0].last_ns), (2, 0, 7));
    assert_eq!((spool.lost(), read(&spool, 1)), (1, vec![(1, "one".to_owned())]));
    queue.push(hit(&active, "late"));
    assert_eq!(active.take_silent().count(), 1, "nothing is taken in any more, and that is counted");
    drop(spool);
    let store = open(folder.path());
    assert_eq!((hits(store.spool()), store.spool().lost()), (2, 1));
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Write,
    Sync,
    Save,
    Acknowledge(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..600usize).prop_map(Step::Append),
        1 => Just(Step::Write),
        2 => Just(Step::Sync),
        1 => Just(Step::Save),
        1 => any::<u8>().prop_map(Step::Acknowledge),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The newest segment, cut off at any byte behind what is durable: everything durable is there, what is there is what
    /// was appended, each alert is counted once, and numbers go on.
    #[test]
    fn a_crash_loses_nothing_durable_and_makes_nothing_up(steps in steps(), cut in 0.0..1.0f64) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = open(folder.path());
        let mut appended = Vec::new();
        let mut durable = 0;
        for step in steps {
            match step {
                Step::Append(length) => {
                    let message = format!("{} {}", appended.len(), "x".repeat(length));
                    append(&mut store, &message);
                    appended.push(message);
                }
                Step::Write => store.write(),
                Step::Sync => store.sync(),
                Step::Save => store.save(),
                Step::Acknowledge(part) => {
                    let last = *store.spool().durable().borrow();
                    store.spool().acknowledge(last * u64::from(part) / 255);
                }
                Step::Restart => {
                    store.write();
                    drop(store);
                    store = open(folder.path());
                }
            }
            durable = *store.spool().durable().borrow();
        }
        store.write();
        let acked = store.spool().acked();
        let safe = store.spool().lock().segments.back().map_or(0, |segment| segment.bytes);
        let copy = crash(folder.path());
        drop(store);
        if let Some(newest) = segments(copy.path()).pop() {
            let file = fs::OpenOptions::new().write(true).open(newest).expect("a segment");
            let length = file.metadata().expect("a segment").len();
            file.set_len(safe + ((length - safe) as f64 * cut) as u64).expect("a shorter file");
        }
        let mut store = open(copy.path());
        let left = read(store.spool(), acked + 1);
        for (seq, message) in &left {
            prop_assert_eq!(Some(message), appended.get(*seq as usize - 1));
        }
        let last = left.last().map_or(acked, |(seq, _)| *seq);
        prop_assert!(last >= durable, "alert {durable} was durable; the last one is {last}");
        prop_assert!(left.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
        prop_assert_eq!(hits(store.spool()), last);
        append(&mut store, "next");
        store.sync();
        prop_assert_eq!(read(store.spool(), last + 1), [(last + 1, "next".to_owned())]);
    }

    /// Any byte of any file changed, any file cut: the spool opens, and what it gives is what was put in.
    #[test]
    fn damage_makes_nothing_up(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), cut: bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = open(folder.path());
        for n in 0..100 {
            append(&mut store, &format!("{n} {}", "x".repeat(n)));
        }
        store.save();
        drop(store);
        let paths: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.path()).collect();
        let path = &paths[file.index(paths.len())];
        let mut bytes = fs::read(path).expect("a file");
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 0x55 }
        fs::write(path, bytes).expect("a file");
        let store = open(folder.path());
        for (seq, message) in read(store.spool(), 1) {
            let n = seq as usize - 1;
            prop_assert_eq!(message, format!("{n} {}", "x".repeat(n)));
        }
    }
}
