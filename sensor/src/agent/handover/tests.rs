//! Two sensors at a real socket, one of which does what the test says.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use event::containers::{ClusterChange, Namespace};
use tempfile::TempDir;
use tokio::{net::UnixListener, task::JoinHandle};

use super::{EventLoop, Giver, Peer, Standing, Taken, Taker, Word, listen, try_lock, words::VERSION};
use crate::{agent::testing::LONG, pipeline::Share, sensor::Failed};

/// What the clock shows when an event loop is paused.
const NOW: u64 = 1_000;

/// An event loop that is told things.
#[derive(Clone)]
struct Loop(Arc<Mutex<State>>);

struct State {
    share: Share,
    fellow: Option<u32>,
    now: u64,
    pauses: u32,
    known: ClusterChange,
}

impl Loop {
    fn new(share: Share, now: u64) -> Self {
        Self(Arc::new(Mutex::new(State { share, fellow: None, now, pauses: 0, known: ClusterChange::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    /// Waits until it judges what happens at `time`, or does not.
    async fn wait(&self, wanted: impl Fn(&State) -> bool) {
        let wait = async {
            while !wanted(&self.state()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("in time");
    }
}

impl EventLoop for Loop {
    async fn pause(&self) -> Option<u64> {
        let mut state = self.state();
        let now = state.now;
        state.share.pause(now);
        state.pauses += 1;
        Some(now)
    }

    fn go_on(&self) {
        self.state().share.go_on();
    }

    fn judge_from(&self, from_ns: u64) {
        self.state().share.judge_from(from_ns);
    }

    async fn known_of_cluster(&self) -> Option<ClusterChange> {
        Some(self.state().known.clone())
    }

    fn learn(&self, known: ClusterChange) {
        self.state().known = known;
    }

    fn fellow(&self, process: Option<u32>) {
        self.state().fellow = process;
    }

    fn now(&self) -> u64 {
        self.state().now
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn locked(folder: &TempDir) -> File {
    try_lock(folder.path()).expect("a folder").expect("nobody else has it")
}

/// The old sensor, which runs the bundle `b1`.
fn giver(folder: &Path, event_loop: &Loop, before: Option<&str>) -> JoinHandle<Peer> {
    let listener = listen(folder).expect("a socket");
    let giver = Giver {
        event_loop: event_loop.clone(),
        bundle: || "b1".to_owned(),
        name: "old".to_owned(),
        before: before.map(str::to_owned),
    };
    tokio::spawn(async move { giver.wait(&listener).await })
}

/// The new sensor, its event loop, and what it is.
struct New {
    event_loop: Loop,
    standing: Arc<Mutex<Standing>>,
    reread: Arc<AtomicU32>,
    taken: JoinHandle<Result<Taken, Failed>>,
}

impl New {
    /// Starts it; its bundle is `b1` once the cache was read so often.
    async fn start(folder: &TempDir, after_reading: u32) -> Self {
        let event_loop = Loop::new(Share::NOTHING, NOW);
        let standing = Arc::new(Mutex::new(Standing::Preparing));
        let reread = Arc::new(AtomicU32::new(0));
        let mut peer = Peer::find(folder.path(), "new").await.expect("a socket that can be used");
        let (told, read, looked) = (Arc::clone(&standing), Arc::clone(&reread), Arc::clone(&reread));
        let taker = Taker {
            event_loop: event_loop.clone(),
            bundle: move || if looked.load(Relaxed) < after_reading { "b0" } else { "b1" }.to_owned(),
            reread: move || {
                read.fetch_add(1, Relaxed);
                let (done, read) = tokio::sync::oneshot::channel();
                done.send(()).expect("it is there");
                read
            },
            standing: move |standing| *told.lock().expect("no panic") = standing,
            state_dir: folder.path().to_owned(),
        };
        let taken = tokio::spawn(async move { taker.take(peer.as_mut()).await });
        Self { event_loop, standing, reread, taken }
    }

    fn share(&self) -> Share {
        self.event_loop.state().share
    }

    fn standing(&self) -> Standing {
        *self.standing.lock().expect("no panic")
    }

    async fn stands(&self, wanted: Standing) {
        let wait = async {
            while self.standing() != wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("in time");
    }

    async fn taken(self) -> Taken {
        let taken = tokio::time::timeout(LONG, self.taken).await.expect("in time").expect("no panic");
        taken.expect("a folder")
    }
}

/// An old sensor that the test plays: it has greeted.
async fn old(listener: &UnixListener) -> Peer {
    let mut peer = Peer::new(listener.accept().await.expect("a call").0).expect("ourselves");
    assert_eq!(peer.hear(LONG).await.expect("a hello"), Word::Hello(VERSION, "new".to_owned()));
    peer.say(Word::Welcome("old".to_owned())).await.expect("it listens");
    peer
}

/// A new sensor, and an old one that the test plays: it has welcomed the other.
struct Met {
    _folder: TempDir,
    lock: File,
    listener: UnixListener,
    new: New,
    peer: Peer,
}

async fn met() -> Met {
    let folder = folder();
    let lock = locked(&folder);
    let listener = listen(folder.path()).expect("a socket");
    let new = New::start(&folder, 0).await;
    let peer = old(&listener).await;
    Met { _folder: folder, lock, listener, new, peer }
}

/// A new sensor that the test plays: it is welcome.
async fn new(folder: &TempDir) -> Peer {
    let mut peer = Peer::find(folder.path(), "new").await.expect("a good socket").expect("somebody listens");
    assert_eq!(peer.hear(LONG).await.expect("a welcome"), Word::Welcome("old".to_owned()));
    peer
}

/// The time that the old sensor names, after the facts.
async fn time(peer: &mut Peer) -> Word {
    let Word::Facts(count) = peer.hear(LONG).await.expect("facts") else { panic!("no facts") };
    peer.bytes(count, LONG).await.expect("the facts");
    peer.hear(LONG).await.expect("a time")
}

fn judging_from(time: u64) -> Share {
    let mut share = Share::NOTHING;
    share.judge_from(time);
    share
}

fn paused(time: u64) -> Share {
    let mut share = Share::ALL;
    share.pause(time);
    share
}

#[tokio::test]
async fn a_node_is_handed_over_at_the_old_sensors_time() {
    let folder = folder();
    let lock = locked(&folder);
    let old = Loop::new(Share::ALL, NOW + 5);
    // More than a socket takes at once.
    let namespace = |number| Namespace { name: format!("{number}").into(), labels: vec![("a".into(), "b".into())] };
    let known =
        ClusterChange { complete: true, namespaces: (0..50_000).map(namespace).collect(), ..ClusterChange::default() };
    old.state().known = known.clone();
    let given = giver(folder.path(), &old, None);
    let new = New::start(&folder, 0).await;
    let mut peer = tokio::time::timeout(LONG, given).await.expect("in time").expect("no panic");
    assert_eq!(old.state().share, paused(NOW + 5));
    assert_eq!(old.state().fellow, Some(std::process::id()));
    assert_eq!(new.standing(), Standing::Preparing, "not ready yet: the old one still judges what it has");
    drop(lock);
    peer.say(Word::Done).await.expect("it listens");
    let share = new.event_loop.clone();
    let taken = new.taken().await;
    assert_eq!(taken.before.as_deref(), Some("old"));
    assert_eq!(share.state().share, judging_from(NOW + 5));
    assert!(share.state().known == known, "it knows what the old one knew");
    assert!(try_lock(folder.path()).expect("a folder").is_none(), "the new one has it");
}

#[tokio::test]
async fn the_node_is_taken_with_the_bundle_that_the_old_sensor_runs() {
    let folder = folder();
    drop(locked(&folder));
    let old = Loop::new(Share::ALL, NOW);
    let given = giver(folder.path(), &old, None);
    let new = New::start(&folder, 2).await;
    tokio::time::timeout(LONG, given)
        .await
        .expect("in time")
        .expect("no panic")
        .say(Word::Done)
        .await
        .expect("it listens");
    let (reread, share) = (Arc::clone(&new.reread), new.event_loop.clone());
    new.taken().await;
    assert_eq!((reread.load(Relaxed), share.state().pauses), (2, 3));
    // And with another if that one does not load here.
    let given = giver(folder.path(), &old, None);
    let new = New::start(&folder, u32::MAX).await;
    tokio::time::timeout(LONG, given)
        .await
        .expect("in time")
        .expect("no panic")
        .say(Word::Done)
        .await
        .expect("it listens");
    new.taken().await;
}

#[tokio::test]
async fn an_old_sensor_goes_on_when_the_new_one_ends_or_hangs_or_talks_nonsense() {
    let folder = folder();
    let old = Loop::new(Share::ALL, NOW);
    let given = giver(folder.path(), &old, None);
    // It ends before it is ready, and when it is.
    drop(new(&folder).await);
    let mut ends = new(&folder).await;
    ends.say(Word::Take(None)).await.expect("it listens");
    assert_eq!(time(&mut ends).await, Word::Until(NOW));
    assert_eq!(old.state().share, paused(NOW));
    drop(ends);
    old.wait(|state| state.share == Share::ALL && state.fellow.is_none()).await;
    // It is told a time and says nothing.
    let mut hangs = new(&folder).await;
    hangs.say(Word::Take(Some("b1".to_owned()))).await.expect("it listens");
    assert_eq!(time(&mut hangs).await, Word::Until(NOW));
    old.wait(|state| state.share == Share::ALL && state.fellow.is_none()).await;
    hangs.say(Word::Mine).await.expect_err("too late");
    // It says what it cannot say.
    for word in [Word::Mine, Word::Done, Word::Until(7)] {
        let mut lies = new(&folder).await;
        lies.say(word).await.expect("it listens");
        lies.ended().await;
    }
    let mut long = new(&folder).await;
    long.say(Word::Take(Some("x".repeat(600)))).await.expect("it listens");
    long.ended().await;
    let mut newer = Peer::find(folder.path(), "new").await.expect("a good socket").expect("somebody listens");
    newer.say(Word::Hello(2, "new".to_owned())).await.expect("it listens");
    assert_eq!(old.state().share, Share::ALL);
    // The next one is served.
    drop(newer);
    let mut good = new(&folder).await;
    good.say(Word::Take(None)).await.expect("it listens");
    assert_eq!(time(&mut good).await, Word::Until(NOW));
    good.say(Word::Mine).await.expect("it listens");
    tokio::time::timeout(LONG, given).await.expect("in time").expect("no panic");
    assert_eq!(old.state().share, paused(NOW));
}

#[tokio::test]
async fn a_sensor_does_not_give_back_to_the_one_that_it_took_over_from() {
    let folder = folder();
    let lock = locked(&folder);
    let old = Loop::new(Share::ALL, NOW);
    let given = giver(folder.path(), &old, Some("new"));
    let new = New::start(&folder, 0).await;
    new.stands(Standing::Reserve).await;
    assert_eq!((old.state().share, new.share()), (Share::ALL, Share::NOTHING));
    // Until it ends.
    given.abort();
    drop(lock);
    let event_loop = new.event_loop.clone();
    assert_eq!(new.taken().await.before, None);
    assert_eq!(event_loop.state().share, judging_from(NOW));
}

#[tokio::test]
async fn when_the_old_sensor_ends_the_new_one_judges_from_when_it_stopped_to_deliver() {
    let Met { _folder, lock, listener, new, mut peer } = met().await;
    assert_eq!(peer.hear(LONG).await.expect("a request"), Word::Take(Some("b1".to_owned())));
    assert!(!new.share().judges(NOW) && new.share().last_ns() < NOW);
    drop((peer, listener, lock));
    let event_loop = new.event_loop.clone();
    new.taken().await;
    assert_eq!(event_loop.state().share, judging_from(NOW));
}

#[tokio::test]
async fn when_the_old_sensor_hangs_the_new_one_judges_and_waits_for_its_end() {
    let Met { _folder, lock, listener: _listener, new, peer: _hangs } = met().await;
    new.stands(Standing::Waiting).await;
    assert_eq!(new.share(), judging_from(NOW));
    assert!(!new.taken.is_finished());
    drop(lock);
    new.taken().await;
}

#[tokio::test]
async fn when_the_old_sensor_ends_after_the_time_was_agreed_the_time_holds() {
    let Met { _folder, lock, listener, new, mut peer } = met().await;
    peer.hear(LONG).await.expect("a request");
    peer.say(Word::Until(NOW + 9)).await.expect("it listens");
    assert_eq!(peer.hear(LONG).await.expect("a word"), Word::Mine);
    drop((peer, listener, lock));
    let event_loop = new.event_loop.clone();
    new.taken().await;
    assert_eq!(event_loop.state().share, judging_from(NOW + 9));
}

#[tokio::test]
async fn times_that_cannot_be_are_not_believed() {
    for lie in [
        Word::Until(NOW - 1),
        Word::Until(NOW + 2_000_000_000),
        Word::Until(u64::MAX),
        Word::Done,
        Word::Mine,
        Word::Facts(u32::MAX),
    ] {
        let Met { _folder, lock, listener: _listener, new, mut peer } = met().await;
        peer.hear(LONG).await.expect("a request");
        peer.say(lie).await.expect("it listens");
        new.stands(Standing::Waiting).await;
        assert_eq!(new.share(), judging_from(NOW));
        drop(lock);
        new.taken().await;
    }
}

#[tokio::test]
async fn of_an_older_release_the_node_is_taken_when_it_has_ended() {
    let folder = folder();
    let lock = locked(&folder);
    // A socket that another process left behind.
    drop(listen(folder.path()).expect("a socket"));
    let new = New::start(&folder, 0).await;
    new.stands(Standing::Waiting).await;
    assert_eq!(new.share(), Share::NOTHING);
    assert_eq!(new.standing().unready(), None, "or nothing would end the other");
    drop(lock);
    let event_loop = new.event_loop.clone();
    new.taken().await;
    assert_eq!(event_loop.state().share, judging_from(NOW));
}
