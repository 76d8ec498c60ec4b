//! The link against an operator that behaves well, badly, or not at all.

#[path = "../../../tests/kernel/operator.rs"]
mod operator;

use std::{collections::BTreeMap, fs, net::SocketAddr, sync::mpsc};

use ::bundle::Bundle;
use ::link::proto::{from_sensor, to_sensor};
use prost::Message;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;

use self::operator::{Identity, NAME, Operator, Session};
use super::*;
use crate::{
    active::Active,
    agent::{
        spool::{self, Limits, Writer},
        testing::{LONG, active, hit},
    },
};

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// What the link was sent.
#[derive(Debug)]
enum Got {
    Bundle(Verified),
    Node(proto::NodeFacts),
    Pods(proto::PodFacts),
}

impl Receive for mpsc::SyncSender<Got> {
    fn bundle(&self, bundle: Verified) {
        let _ = self.send(Got::Bundle(bundle));
    }

    fn node_facts(&self, facts: proto::NodeFacts) {
        let _ = self.send(Got::Node(facts));
    }

    fn pod_facts(&self, facts: proto::PodFacts) -> oneshot::Receiver<()> {
        let _ = self.send(Got::Pods(facts));
        oneshot::channel().1
    }
}

/// The sensor's side: a spool, and a link from it.
struct Side {
    _folder: TempDir,
    spool: Arc<Spool>,
    queue: Arc<Queue>,
    writer: Option<Writer>,
    active: Arc<Active>,
    acks: watch::Sender<Acks>,
    got: mpsc::Receiver<Got>,
    status: Arc<LinkStatus>,
    link: JoinHandle<()>,
}

impl Side {
    fn start(identity: &Identity, dial: SocketAddr) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_ansi(false).try_init();
        let folder = tempfile::tempdir().expect("a folder");
        let (spool, queue, writer) = spool::start(folder.path(), Limits::mib(64)).expect("a spool");
        let (sender, got) = mpsc::sync_channel(16);
        let acks = watch::Sender::new(Acks::default());
        let status = Arc::new(LinkStatus::default());
        let parts = Parts {
            address: Address {
                dial: dial.to_string(),
                name: NAME.to_owned(),
                ca: identity.ca(),
                token: identity.token(),
            },
            hello: proto::Hello { node: "node-7".to_owned(), ..proto::Hello::default() },
            spool: Arc::clone(&spool),
            queue: Arc::clone(&queue),
            acks: acks.clone(),
            report: watch::Sender::new(proto::NodeReport { events: 7, ..proto::NodeReport::default() }).subscribe(),
            receive: Arc::new(sender),
            status: Arc::clone(&status),
        };
        let link = tokio::spawn(run(parts));
        let active = active();
        queue.runs(Arc::clone(&active));
        Self { _folder: folder, spool, queue, writer: Some(writer), active, acks, got, status, link }
    }

    /// Puts alerts into the spool and waits until they are durable.
    async fn alerts(&self, count: u64) {
        let mut durable = self.spool.durable();
        let first = *durable.borrow() + 1;
        for n in first..first + count {
            // The queue is bounded, and an alert that finds no room is not what these tests are about.
            if n % 1000 == 0 {
                timeout(durable.wait_for(|last| *last >= n - 1)).await.expect("the spool lives");
            }
            self.queue.push(hit(&self.active, &format!("alert {n}")));
        }
        timeout(durable.wait_for(|last| *last >= first + count - 1)).await.expect("the spool lives");
    }

    fn bundle(&self) -> Verified {
        match self.got.recv_timeout(LONG) {
            Ok(Got::Bundle(bundle)) => bundle,
            other => panic!("no bundle but {other:?}"),
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.link.abort();
        if let Some(writer) = self.writer.take() {
            writer.stop();
        }
    }
}

async fn timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it took too long")
}

/// Numbers and texts of alerts, as they should be.
fn check(alerts: &proto::Alerts, side: &Side) {
    for (seq, alert) in (alerts.first..).zip(&alerts.alerts) {
        assert_eq!((alert.seq, &*alert.message), (seq, &*format!("alert {seq}")));
        assert_eq!(alert.id, format!("{}-{seq}", side.spool.id()));
        assert_eq!((&*alert.unit, &*alert.bundle, &*alert.priority), ("unit", "hash", "Notice"));
        assert_eq!(alert.output_fields, format!("{{\"fd.name\":\"alert {seq}\"}}"));
    }
}

/// Takes alerts up to a number, at least, and acknowledges each message; the number that comes next.
async fn take(session: &mut Session, side: &Side, from: u64, up_to: u64) -> u64 {
    let mut next = from;
    while next <= up_to {
        let alerts = session.alerts().await;
        assert_eq!(alerts.first, next, "nothing is skipped");
        check(&alerts, side);
        next += alerts.alerts.len() as u64;
        session.acknowledge(next - 1).await;
    }
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_begins_with_token_and_hello() {
    let identity = Identity::new();
    let mut operator = Operator::start(&identity, ANYWHERE);
    let side = Side::start(&identity, operator.address);
    let mut session = operator.session().await;
    let hello = session.welcome(0, 10).await;
    assert_eq!(session.authorization, "Bearer token-one");
    assert_eq!((&*hello.node, &*hello.spool, hello.protocol), ("node-7", side.spool.id(), ::link::PROTOCOL));
    let report =
        session.expect(|message| if let from_sensor::Message::Report(report) = message { Some(report) } else { None });
    assert_eq!(report.await.events, 7);
    assert!(side.status.connected());
    // Kubernetes has replaced the token.
    fs::write(identity.token(), "token-two").expect("a file");
    drop(session);
    let session = operator.session().await;
    assert_eq!(session.authorization, "Bearer token-two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_comes_in_chunks_and_what_is_wrong_is_refused() {
    let identity = Identity::new();
    let mut operator = Operator::start(&identity, ANYWHERE);
    let side = Side::start(&identity, operator.address);
    let mut session = operator.session().await;
    session.welcome(0, 10).await;
    let old = vec![b'a'; ::link::CHUNK_BYTES * 2];
    let new = vec![b'b'; ::link::CHUNK_BYTES + 1];
    let (old_hash, new_hash) = (Bundle::hash(&old), Bundle::hash(&new));

    session.offer(&old_hash, old.len() as u64).await;
    session.chunk(&old_hash, 0, &old[..::link::CHUNK_BYTES]).await;
    // A newer one overtakes it.
    session.offer(&new_hash, new.len() as u64).await;
    session.chunk(&old_hash, ::link::CHUNK_BYTES as u64, &old[::link::CHUNK_BYTES..]).await;
    session.chunk(&new_hash, 0, &new[..::link::CHUNK_BYTES]).await;
    session.chunk(&new_hash, ::link::CHUNK_BYTES as u64, &new[::link::CHUNK_BYTES..]).await;
    assert_eq!(side.bundle(), Verified { hash: new_hash.clone(), bytes: new });

    session.offer(&old_hash, 3).await;
    session.chunk(&old_hash, 0, b"abc").await;
    let ack = session.bundle_ack().await;
    assert_eq!((&*ack.hash, ack.loaded), (&*old_hash, false));
    assert!(ack.failure.contains("hash"), "{}", ack.failure);

    session.offer(&new_hash, ::link::BUNDLE_BYTES + 1).await;
    let ack = session.bundle_ack().await;
    assert_eq!((&*ack.hash, ack.loaded), (&*new_hash, false));
    assert!(side.got.try_recv().is_err(), "nothing else was taken");

    // What runs is said again in each session.
    let running = proto::BundleAck { hash: new_hash, loaded: true, ..proto::BundleAck::default() };
    side.acks.send_modify(|acks| acks.running = Some(running.clone()));
    assert_eq!(session.bundle_ack().await, running);
    drop(session);
    let mut session = operator.session().await;
    assert_eq!(session.welcome(0, 10).await.bundle, running.hash);
    assert_eq!(session.bundle_ack().await, running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_survive_an_operator_that_is_killed() {
    let identity = Identity::new();
    let mut operator = Operator::start(&identity, ANYWHERE);
    let side = Side::start(&identity, operator.address);
    let address = operator.address;
    side.alerts(3000).await;
    let mut session = operator.session().await;
    session.welcome(0, 1000).await;
    let next = take(&mut session, &side, 1, 700).await;
    let mut seen = BTreeMap::new();
    let alerts = session.alerts().await;
    seen.extend(alerts.alerts.into_iter().map(|alert| (alert.seq, alert)));
    // Killed: some alerts were sent, and not acknowledged.
    drop(operator);
    let mut operator = Operator::start(&identity, address);
    let mut session = operator.session().await;
    session.welcome(650, 1000).await;
    let first = session.alerts().await;
    assert!((651..=next).contains(&first.first), "{} is not behind what was acknowledged", first.first);
    let mut next = None;
    for alert in &first.alerts {
        if let Some(before) = seen.get(&alert.seq) {
            assert_eq!(alert, before, "a repetition is the same");
        }
        assert!(next.is_none_or(|next| next == alert.seq), "nothing is skipped");
        next = Some(alert.seq + 1);
    }
    let next = next.expect("alerts");
    session.acknowledge(next - 1).await;
    take(&mut session, &side, next, 3000).await;
    timeout(side.status.all_delivered(&side.spool)).await;
    assert_eq!((side.spool.waiting(), side.spool.lost()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_acknowledges_nothing_gets_a_window_and_no_more() {
    let identity = Identity::new();
    let mut operator = Operator::start(&identity, ANYWHERE);
    let side = Side::start(&identity, operator.address);
    side.alerts(2000).await;
    let mut session = operator.session().await;
    session.welcome(0, 300).await;
    let mut got = 0;
    while got < 300 {
        got += session.alerts().await.alerts.len();
    }
    // Counts go on, alerts do not: what follows the counts would have been sent before.
    side.alerts(1).await;
    let counts = session.counts().await;
    assert!(counts.units.iter().all(|unit| unit.uid == "unit"));
    assert_eq!(got, 300);
    session.acknowledge(u64::MAX).await;
    let alerts = session.alerts().await;
    assert_eq!((alerts.first, side.spool.acked()), (301, 300), "nobody can acknowledge what was not sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_does_not_read_costs_nothing_but_the_disk() {
    let identity = Identity::new();
    let mut operator = Operator::start(&identity, ANYWHERE);
    let side = Side::start(&identity, operator.address);
    let mut session = operator.session().await;
    session.welcome(0, ::link::WINDOW).await;
    // The session is never read: its flow control stops the link, and nothing else.
    side.alerts(20_000).await;
    assert_eq!((side.spool.waiting(), side.spool.lost()), (20_000, 0));
    take(&mut session, &side, 1, 20_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_sends_the_sensor_to_the_leader() {
    let identity = Identity::new();
    let standby = Operator::start(&identity, ANYWHERE);
    let mut leader = Operator::start(&identity, ANYWHERE);
    let mut status = Status::failed_precondition("not the leader");
    let hint: MetadataValue<_> = leader.address.to_string().parse().expect("text");
    status.metadata_mut().insert(LEADER_HINT, hint);
    standby.refuse(status);
    let _side = Side::start(&identity, standby.address);
    leader.session().await.welcome(0, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_gone_is_asked_for_again() {
    let identity = Identity::new();
    let gone = Operator::start(&identity, ANYWHERE).address;
    let mut operator = Operator::start(&identity, ANYWHERE);
    let mut status = Status::failed_precondition("not the leader");
    status.metadata_mut().insert(LEADER_HINT, gone.to_string().parse().expect("text"));
    operator.refuse(status);
    let side = Side::start(&identity, operator.address);
    operator.refuse_no_more();
    operator.session().await.welcome(0, 10).await;
    drop(side);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_operator_is_not_trusted() {
    let (ours, theirs) = (Identity::new(), Identity::new());
    let operator = Operator::start(&theirs, ANYWHERE);
    let address =
        Address { dial: operator.address.to_string(), name: NAME.to_owned(), ca: ours.ca(), token: ours.token() };
    let refused = dial::dial(&address, None).await;
    assert!(matches!(refused, Err(SessionError::Connect { .. })), "{refused:?}");
    let elsewhere = Address { name: "elsewhere.test".to_owned(), ca: theirs.ca(), ..address };
    let refused = dial::dial(&elsewhere, None).await;
    assert!(matches!(refused, Err(SessionError::Connect { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_come_whole_and_then_as_they_change() {
    let identity = Identity::new();
    let mut operator = Operator::start(&identity, ANYWHERE);
    let side = Side::start(&identity, operator.address);
    side.alerts(3).await;
    let mut session = operator.session().await;
    session.welcome(0, 10).await;
    let counts = session.counts().await;
    let hits = |counts: &proto::Counts| counts.units.iter().map(|unit| unit.hits).collect::<Vec<_>>();
    assert_eq!((counts.complete, hits(&counts)), (true, vec![3]));
    assert_eq!(counts.units[0].rules[0].rule, "a file was opened");
    side.alerts(2).await;
    let counts = session.counts().await;
    assert_eq!((counts.complete, hits(&counts)), (false, vec![5]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_are_handed_on_and_what_is_unknown_is_passed_over() {
    let identity = Identity::new();
    let mut operator = Operator::start(&identity, ANYWHERE);
    let side = Side::start(&identity, operator.address);
    let mut session = operator.session().await;
    session.welcome(0, 10).await;
    session.send_unknown().await;
    let node = proto::NodeFacts { uid: "uid".to_owned(), ..proto::NodeFacts::default() };
    session.send(to_sensor::Message::NodeFacts(node)).await;
    session.send(to_sensor::Message::PodFacts(proto::PodFacts { complete: true, ..proto::PodFacts::default() })).await;
    assert!(matches!(side.got.recv_timeout(LONG), Ok(Got::Node(facts)) if facts.uid == "uid"));
    assert!(matches!(side.got.recv_timeout(LONG), Ok(Got::Pods(facts)) if facts.complete));
}

#[test]
fn a_newer_message_is_none_of_ours() {
    // Field 99 of a later protocol, as the one of the choice and beside one that we know.
    let unknown = [0x9a, 0x06, 0x02, b'h', b'i'];
    assert_eq!(proto::ToSensor::decode(&unknown[..]), Ok(proto::ToSensor { message: None }));
    let welcome = proto::Welcome { protocol: 2, acked: 5, ..proto::Welcome::default() };
    let bytes = [welcome.encode_to_vec(), unknown.to_vec()].concat();
    assert_eq!(proto::Welcome::decode(&bytes[..]), Ok(welcome));
}
