//! The agent of a node, with an operator that the case plays itself.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use ::bundle::{Bundle, Unit};
use api::{resource::Kind, rule::FalcoRuleSpec};
use libtest_mimic::Trial;
use link::proto::{self, from_sensor};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    child,
    harness::{self, GYRFALCON, LONG},
    needs::{Need, trial},
    operator::{Identity, NAME, Operator, Session},
};

const NEEDS: &[Need] = &[Need::Tracing];

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("agent: a bundle runs, its alerts arrive, and counts outlive a kill", NEEDS, counts_outlive_a_kill),
        trial("agent: rules run from the cache while the operator is away", NEEDS, runs_without_operator),
        trial("agent: a bundle that cannot be read leaves the one before", NEEDS, keeps_what_runs),
        trial("agent: a second one takes over and nothing is missed", NEEDS, takes_over),
        trial("agent: a second one takes over from one that hangs and is killed", NEEDS, takes_over_from_a_hung_one),
        trial("agent: the old one goes on or begins anew when the new one dies", NEEDS, outlives_the_new_one),
    ]
}

/// A node: what outlives the agent.
pub struct Node {
    folder: TempDir,
    /// How it and the operator know each other.
    pub identity: Identity,
    /// A program that nobody else runs, which reads what it is told.
    reader: PathBuf,
}

impl Node {
    /// One that no agent has run on.
    pub fn new() -> Self {
        let folder = harness::folder();
        let reader = folder.path().join("gyr-reader");
        fs::copy("/bin/cat", &reader).expect("a copy in a temporary folder");
        Self { folder, identity: Identity::new(), reader }
    }

    /// A bundle with one rule: the program reads passwords.
    fn bundle(&self) -> (String, Vec<u8>) {
        let rules = format!(
            "- rule: passwords were read\n  desc: By the program of the case.\n  condition: >-\n    evt.type in (open, openat) \
             and fd.name = /etc/shadow and proc.exepath = {}\n  output: read %fd.name by %proc.cmdline\n  priority: WARNING\n\
             - rule: programs were loaded\n  desc: By a sensor, which is none of the other's business.\n  condition: >-\n    \
             evt.type = bpf and proc.exepath = {GYRFALCON}\n  output: bpf by %proc.cmdline\n  priority: WARNING\n",
            self.reader.display()
        );
        let unit = Unit {
            kind: Kind::ClusterFalcoRule,
            namespace: String::new(),
            name: "passwords".to_owned(),
            uid: "uid-1".to_owned(),
            generation: 1,
            spec: FalcoRuleSpec { rules: Some(rules), ..FalcoRuleSpec::default() },
            rollout: None,
        };
        let bytes = Bundle { units: vec![unit], ..Bundle::default() }.to_bytes().expect("a bundle");
        (Bundle::hash(&bytes), bytes)
    }

    fn trigger(&self) {
        harness::run(&self.reader, &["/etc/shadow"]);
    }

    /// The same, with a number in its command line.
    fn trigger_number(&self, number: u64) {
        let mut command = Command::new(&self.reader);
        command.args(["/etc/shadow", &format!("n{number}")]).stdin(Stdio::null());
        // There is no file with the name of the number.
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("a copy of cat");
        assert_eq!(status.code(), Some(1));
    }

    /// Where the agent keeps what outlives it.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts the agent.
    pub fn agent(&self, operator: SocketAddr) -> Agent {
        Agent::start(self.folder.path(), &self.identity, operator)
    }
}

/// A running agent. Dropped, it is killed.
pub struct Agent {
    process: Child,
    log: mpsc::Receiver<String>,
}

impl Agent {
    fn start(folder: &Path, identity: &Identity, operator: SocketAddr) -> Self {
        let mut command = Command::new(GYRFALCON);
        child::dies_with_parent(&mut command);
        let mut process = command
            .args(["agent", "--node-name", "node-7", "--operator-name", NAME, "--health-listen", "127.0.0.1:0"])
            .args(["--operator", &operator.to_string(), "--spool-mib", "16"])
            .arg("--state-dir")
            .arg(folder.join("state"))
            .arg("--ca")
            .arg(identity.ca())
            .arg("--token")
            .arg(identity.token())
            .env_remove("GYRFALCON_LOG")
            .env_remove("GYRFALCON_OPERATOR_SERVICE_HOST")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sensor was built with this test");
        let stderr = process.stderr.take().expect("piped");
        let (sender, log) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("agent: {line}");
                let _ = sender.send(line);
            }
        });
        Self { process, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line on standard error.
    #[track_caller]
    pub fn expect_log(&self, wanted: &str) {
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| panic!("the agent did not say: {wanted}"));
            if line.contains(wanted) {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("pids are small");
        kill(Pid::from_raw(pid), signal).expect("it is our child, and not yet waited for");
    }

    fn kill(mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it is our child");
    }

    #[track_caller]
    fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = harness::wait_for(&mut self.process, LONG).expect("the agent did not end");
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Plays the operator's side.
fn play<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// Gives a bundle and waits for what becomes of it.
async fn give(session: &mut Session, hash: &str, bytes: &[u8]) -> proto::BundleAck {
    session.offer(hash, bytes.len() as u64).await;
    let mut offset = 0;
    for chunk in bytes.chunks(200) {
        session.chunk(hash, offset, chunk).await;
        offset += chunk.len() as u64;
    }
    session
        .expect(|message| match message {
            from_sensor::Message::BundleAck(ack) if ack.hash == hash => Some(ack),
            _ => None,
        })
        .await
}

/// Waits until the sensor has said so many hits of the resource: counts may come before the alerts.
async fn hits(session: &mut Session, hits: u64) {
    let deadline = Instant::now() + LONG;
    loop {
        let said = session.hits.get("uid-1").copied().unwrap_or(0);
        assert!(said <= hits, "{said} hits");
        if said == hits {
            return;
        }
        assert!(Instant::now() < deadline, "{said} hits, not {hits}");
        session.next().await;
    }
}

fn counts_outlive_a_kill() {
    let node = Node::new();
    let (hash, bytes) = node.bundle();
    let mut operator = Operator::start(&node.identity, ANYWHERE);
    let agent = node.agent(operator.address);
    let (spool, first) = play(async {
        let mut session = operator.session().await;
        let hello = session.welcome(0, 100).await;
        assert_eq!((&*hello.node, &*hello.bundle), ("node-7", ""));
        assert!(!hello.kernel.is_empty() && !hello.boot_id.is_empty());
        let ack = give(&mut session, &hash, &bytes).await;
        assert!(ack.loaded, "{ack:?}");
        assert_eq!(
            (&*ack.units[0].uid, ack.units[0].state(), ack.units[0].generation),
            ("uid-1", proto::UnitState::Loaded, 1)
        );
        node.trigger();
        let alerts = session.alerts().await;
        let alert = alerts.alerts[0].clone();
        assert_eq!((alerts.first, alerts.lost, alerts.alerts.len()), (1, 0, 1));
        assert_eq!((&*alert.rule, &*alert.unit, &*alert.bundle), ("passwords were read", "uid-1", &*hash));
        assert_eq!((alert.seq, &*alert.id), (1, &*format!("{}-1", hello.spool)));
        assert!(alert.message.starts_with("read /etc/shadow by"), "{}", alert.message);
        let fields: serde_json::Value = serde_json::from_str(&alert.output_fields).expect("JSON");
        assert_eq!(fields["fd.name"], "/etc/shadow");
        hits(&mut session, 1).await;
        (hello.spool, alert)
    });
    // The alert was not acknowledged.
    agent.kill();
    let agent = node.agent(operator.address);
    play(async {
        let mut session = operator.session().await;
        let hello = session.welcome(0, 100).await;
        assert_eq!((&hello.bundle, &hello.spool), (&hash, &spool), "it runs what it ran");
        assert_eq!(session.alerts().await.alerts, [first], "again, and the same");
        node.trigger();
        let alerts = session.alerts().await;
        assert_eq!((alerts.first, alerts.alerts.len()), (2, 1));
        hits(&mut session, 2).await;
        session.acknowledge(2).await;
    });
    agent.stop();
}

fn runs_without_operator() {
    let node = Node::new();
    let (hash, bytes) = node.bundle();
    let mut operator = Operator::start(&node.identity, ANYWHERE);
    let address = operator.address;
    let agent = node.agent(address);
    play(async {
        let mut session = operator.session().await;
        session.welcome(0, 100).await;
        assert!(give(&mut session, &hash, &bytes).await.loaded);
    });
    agent.expect_log("bundle active");
    agent.stop();
    drop(operator);

    let agent = node.agent(address);
    agent.expect_log("bundle active");
    node.trigger();
    agent.expect_log("no link to the operator");
    let mut operator = Operator::start(&node.identity, address);
    play(async {
        let mut session = operator.session().await;
        assert_eq!(session.welcome(0, 100).await.bundle, hash);
        let alerts = session.alerts().await;
        assert_eq!((alerts.first, alerts.alerts.len()), (1, 1));
        hits(&mut session, 1).await;
        session.acknowledge(1).await;
    });
    agent.stop();
}

fn keeps_what_runs() {
    let node = Node::new();
    let (hash, bytes) = node.bundle();
    let mut operator = Operator::start(&node.identity, ANYWHERE);
    let agent = node.agent(operator.address);
    play(async {
        let mut session = operator.session().await;
        session.welcome(0, 100).await;
        assert!(give(&mut session, &hash, &bytes).await.loaded);
        let nonsense = b"{\"format\":99}";
        let ack = give(&mut session, &Bundle::hash(nonsense), nonsense).await;
        assert!(!ack.loaded && ack.failure.contains("format"), "{ack:?}");
        node.trigger();
        assert_eq!(session.alerts().await.alerts[0].bundle, hash);
    });
    agent.stop();
}

/// Starts an agent, and gives it the bundle with the rule.
fn first_agent(node: &Node, operator: &mut Operator) -> (Agent, Session) {
    let (hash, bytes) = node.bundle();
    let agent = node.agent(operator.address);
    let session = play(async {
        let mut session = operator.session().await;
        session.welcome(0, 100).await;
        assert!(give(&mut session, &hash, &bytes).await.loaded);
        session
    });
    (agent, session)
}

/// Waits for the alerts of so many numbers; how many came twice. What is told has been counted as a hit.
fn all_numbers(operator: &mut Operator, count: u64) -> u64 {
    play(async {
        let mut session = operator.session().await;
        // Nothing was acknowledged: everything that was ever in the spool comes.
        session.welcome(0, 100_000).await;
        let mut heard: BTreeMap<u64, u64> = BTreeMap::new();
        while (heard.len() as u64) < count {
            // What a sensor says about itself is of no resource.
            for alert in session.alerts().await.alerts.into_iter().filter(|alert| !alert.unit.is_empty()) {
                let behind = alert.message.split_once("gyr-reader /etc/shadow n").map(|(_, behind)| behind);
                let number = behind.and_then(|behind| behind.split(' ').next()?.parse().ok());
                *heard
                    .entry(number.unwrap_or_else(|| panic!("no number: {} {}", alert.rule, alert.message)))
                    .or_default() += 1;
            }
        }
        assert!(heard.keys().copied().eq(0..count), "{heard:?}");
        let told = heard.values().sum();
        hits(&mut session, told).await;
        told - count
    })
}

fn takes_over() {
    let node = Node::new();
    let mut operator = Operator::start(&node.identity, ANYWHERE);
    let (old, _session) = first_agent(&node, &mut operator);
    let (stop, said) = (AtomicBool::new(false), AtomicU64::new(0));
    let new = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                node.trigger_number(said.fetch_add(1, Relaxed));
                // Often, but not so that a ring fills up while a busy machine lets the event loop wait.
                thread::sleep(Duration::from_millis(4));
            }
        });
        let new = node.agent(operator.address);
        // The talker ends also when something here fails.
        let _stop = OnDrop(|| stop.store(true, Relaxed));
        new.expect_log("this sensor has the node");
        old.expect_log("this one can be ended");
        let more = said.load(Relaxed) + 20;
        while said.load(Relaxed) < more {
            thread::yield_now();
        }
        new
    });
    old.stop();
    let count = said.load(Relaxed);
    let twice = all_numbers(&mut operator, count);
    eprintln!("{count} alerts, {twice} of them twice");
    // One processor each can be between the two stamps of an event.
    let processors = thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    assert!(twice <= processors, "{twice} of {count}");
    new.stop();
}

/// Does something at the end, whatever comes before.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn takes_over_from_a_hung_one() {
    let node = Node::new();
    let mut operator = Operator::start(&node.identity, ANYWHERE);
    let (old, mut session) = first_agent(&node, &mut operator);
    for number in 0..5 {
        node.trigger_number(number);
    }
    play(hits(&mut session, 5));
    let new = node.agent(operator.address);
    old.expect_log("another sensor is about to take over");
    old.signal(Signal::SIGSTOP);
    new.expect_log("alerts wait until it has ended");
    for number in 5..25 {
        node.trigger_number(number);
    }
    old.kill();
    new.expect_log("this sensor has the node");
    node.trigger_number(25);
    assert_eq!(all_numbers(&mut operator, 26), 0);
    new.stop();
}

fn outlives_the_new_one() {
    let node = Node::new();
    let mut operator = Operator::start(&node.identity, ANYWHERE);
    let (mut old, mut session) = first_agent(&node, &mut operator);
    let new = node.agent(operator.address);
    old.expect_log("another sensor is about to take over");
    new.kill();
    old.expect_log("another sensor does not take over");
    node.trigger_number(0);
    play(hits(&mut session, 1));

    let new = node.agent(operator.address);
    old.expect_log("this one can be ended");
    new.expect_log("this sensor has the node");
    node.trigger_number(1);
    assert_eq!(all_numbers(&mut operator, 2), 0);
    new.kill();
    let status = harness::wait_for(&mut old.process, LONG).expect("what is started in its place is to run");
    assert_eq!(status.code(), Some(2));

    let third = node.agent(operator.address);
    third.expect_log("bundle active");
    node.trigger_number(2);
    assert_eq!(all_numbers(&mut operator, 3), 0);
    third.stop();
}
