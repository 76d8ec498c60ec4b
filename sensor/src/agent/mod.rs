//! `gyrfalcon agent`: the sensor of one node of a cluster.
//!
//! Rules come from the operator as a bundle, and from the cache of the last boot before the operator is reached. Alerts
//! go to the spool and from there to the operator. What waits for whom:
//!
//! ```text
//! event loop → queue (bounded, never waits) → spool's thread → disk → link's threads → operator
//! operator → link's threads → compiler's thread → this thread → event loop (swaps between two events)
//! ```

pub mod bundle;
pub mod cache;
pub mod compiler;
mod deliver;
pub mod facts;
pub mod link;
pub mod spool;
pub mod status;
#[cfg(test)]
mod testing;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ::link::proto;
use rules::load::Options;
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{oneshot, watch},
};
use tracing::{error, info, warn};

use self::{
    cache::Cache,
    compiler::Compiler,
    deliver::Deliver,
    link::{Acks, LinkStatus, Receive, Verified},
    spool::{Limits, Queue, Writer},
    status::{Reporter, Status},
};
use ::link::chain;

use crate::{
    active::Active,
    cli,
    confine::confine,
    driver::Hooks,
    exit::Exit,
    health,
    names::Names,
    pipeline::Input,
    sensor::{Failed, Sensor, Setup, Stopping, Teller},
    signals,
};

/// How often what nobody announces is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often the operator gets a report when nothing special happens.
const REPORT: Duration = Duration::from_secs(10);

/// How long alerts may take to reach the operator when the sensor stops.
const DRAIN: Duration = Duration::from_secs(5);

/// What wakes the thread that controls the sensor.
enum Wake {
    /// A signal that ends the sensor.
    Signal,
    /// Put these rules into effect, and answer.
    Rules(Arc<Active>, SyncSender<Result<(), String>>),
    /// The bundle of the last boot runs, or there is none.
    Booted,
}

/// Runs until a signal ends it.
pub fn run(args: &cli::Agent) -> Exit {
    // Before there is any other thread. A folder that cannot be made is reported by who uses it.
    let _ = fs::create_dir_all(&args.link.state_dir);
    let hooks = Hooks::choose();
    confine(std::slice::from_ref(&args.link.state_dir));
    let (sender, wakes) = mpsc::channel();
    if let Err(error) = signals::send(&[SIGINT, SIGTERM], sender.clone(), |_| Wake::Signal) {
        error!(error = %error, "cannot receive signals");
        return Exit::System;
    }
    match Agent::start(args, hooks, sender) {
        Ok(agent) => agent.control(&wakes),
        Err(failed) => {
            error!(error = %chain(&*failed), "cannot start");
            Exit::System
        }
    }
}

/// The running parts.
struct Agent {
    sensor: Sensor,
    status: Arc<Status>,
    queue: Arc<Queue>,
    writer: Writer,
    compiler: Arc<Compiler>,
    rules: JoinHandle<()>,
    runtime: Runtime,
    /// The link's parts, until it is started.
    link: Option<link::Parts>,
    report: watch::Sender<proto::NodeReport>,
    reporter: Reporter,
    reported: Instant,
    _lock: File,
}

impl Agent {
    fn start(args: &cli::Agent, hooks: Hooks, wakes: Sender<Wake>) -> Result<Self, Failed> {
        let lock = lock(&args.link.state_dir)?;
        let (spool, queue, writer) =
            spool::start(&args.link.state_dir.join("spool"), Limits::mib(args.link.spool_mib))?;
        let link_status = Arc::new(LinkStatus::default());
        let status = Arc::new(Status::new(Arc::clone(&spool), Arc::clone(&link_status)));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .thread_name("link")
            .enable_all()
            .build()?;
        let listener = runtime
            .block_on(TcpListener::bind(args.health_listen))
            .map_err(|source| health::Listen { address: args.health_listen, source })?;
        let asked: Arc<dyn health::Ask> = status.clone();
        runtime.spawn(health::serve(listener, asked));

        let names = Arc::new(Names::default());
        let options =
            Options { hostname: args.node_name.as_str().into(), resolver: Some(names.clone()), ..Options::default() };
        let hello = hello(args, &hooks);
        let setup = Setup {
            hooks,
            driver: crate::driver::Options {
                ring_bytes: args.ring_mib << 20,
                data_bytes: args.snaplen,
                ..crate::driver::Options::default()
            },
            options: options.clone(),
            publish: Box::new(Deliver { queue: Arc::clone(&queue) }),
            tap: None,
            containers: args.containers.clone(),
            drops: args.drops.clone(),
            names,
        };
        let sensor = Sensor::start(setup, Arc::new(Active::none(&options)?))?;
        status.look(&sensor);

        let acks = watch::Sender::new(Acks::default());
        let compiler = Arc::new(Compiler::default());
        let node = args.node_name.clone();
        let rules = compiler::start(
            Arc::clone(&compiler),
            compiler::Parts {
                compile: Box::new(move |bundle, facts| bundle::compile(bundle, &node, facts, &options)),
                effect: effect(wakes.clone()),
                cache: Cache::open(&args.link.state_dir)?,
                acks: acks.clone(),
                booted: Box::new(move || {
                    // The control thread ends last.
                    let _ = wakes.send(Wake::Booted);
                }),
            },
        )?;
        let report = watch::Sender::new(proto::NodeReport::default());
        let link = link::Parts {
            address: address(args),
            hello,
            spool,
            queue: Arc::clone(&queue),
            acks,
            report: report.subscribe(),
            receive: Arc::new(Inbox { compiler: Arc::clone(&compiler), event_loop: sensor.teller() }),
            status: link_status,
        };
        Ok(Self {
            sensor,
            status,
            queue,
            writer,
            compiler,
            rules,
            runtime,
            link: Some(link),
            report,
            reporter: Reporter::new(),
            reported: Instant::now(),
            _lock: lock,
        })
    }

    /// Answers what wakes it until it is told to stop.
    fn control(mut self, wakes: &Receiver<Wake>) -> Exit {
        self.tell();
        let mut ticked = Instant::now();
        loop {
            match wakes.recv_timeout(TICK.saturating_sub(ticked.elapsed())) {
                Ok(Wake::Signal) => return self.stop(wakes),
                Ok(Wake::Rules(active, done)) => {
                    // The compiler waits for the answer as long as it lives.
                    let _ = done.send(self.replace(&active));
                }
                Ok(Wake::Booted) => {
                    if let Some(parts) = self.link.take() {
                        self.runtime.spawn(link::run(parts));
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    ticked = Instant::now();
                    self.sensor.tick();
                    self.status.look(&self.sensor);
                    self.tell();
                    if let Some(thread) = self.ended() {
                        error!(thread, "a thread has ended that should not; the sensor must be started anew");
                        return Exit::System;
                    }
                }
            }
        }
    }

    /// The thread that has panicked, if one has.
    fn ended(&self) -> Option<&'static str> {
        let threads = [
            ("events", !self.sensor.alive()),
            ("spool", self.writer.is_finished()),
            ("rules", self.rules.is_finished()),
        ];
        threads.into_iter().find_map(|(name, ended)| ended.then_some(name))
    }

    fn replace(&mut self, active: &Arc<Active>) -> Result<(), String> {
        // Before the loop judges by them: no silent hit is overlooked.
        self.queue.runs(Arc::clone(active));
        self.sensor.replace(Arc::clone(active), || Ok(())).map_err(|failed| chain(&*failed).to_string())?;
        self.status.runs(active.bundle());
        self.status.look(&self.sensor);
        Ok(())
    }

    /// Reports to the operator when it is time, or when something special happened.
    fn tell(&mut self) {
        let report = self.reporter.report(&self.status);
        if self.reported.elapsed() >= REPORT || status::differs(&report, &self.report.borrow()) {
            self.report.send_replace(report);
            self.reported = Instant::now();
        }
    }

    /// Detaches, judges what is in the rings, makes all alerts durable, and sends what can be sent.
    fn stop(self, wakes: &Receiver<Wake>) -> Exit {
        let Self { sensor, status, writer, compiler, runtime, .. } = self;
        compiler.close();
        let Stopping { pipeline, rest } = sensor.stop();
        let delivered = status.clone();
        let finished = std::thread::spawn(move || {
            let panicked = pipeline.join().is_err();
            writer.stop();
            let all =
                async { tokio::time::timeout(DRAIN, delivered.link.all_delivered(&delivered.spool)).await.is_ok() };
            let sent = delivered.link.connected() && runtime.block_on(all);
            runtime.shutdown_timeout(Duration::from_secs(1));
            (panicked, sent)
        });
        while !finished.is_finished() {
            match wakes.recv_timeout(Duration::from_millis(10)) {
                Ok(Wake::Signal) => {
                    warn!("stopped at once; alerts in the spool are sent after the next start");
                    return Exit::System;
                }
                Ok(Wake::Rules(_, done)) => {
                    let _ = done.send(Err("the sensor is stopping".to_owned()));
                }
                Ok(Wake::Booted) | Err(_) => {}
            }
        }
        let (panicked, sent) = finished.join().unwrap_or((true, false));
        if !sent && status.spool.waiting() > 0 {
            info!(alerts = status.spool.waiting(), "alerts stay in the spool until the next start");
        }
        rest.tell();
        if panicked { Exit::System } else { Exit::Fine }
    }
}

/// Hands rules to the control thread and waits for what becomes of them.
fn effect(wakes: Sender<Wake>) -> compiler::Effect {
    Box::new(move |active| {
        let (done, answer) = mpsc::sync_channel(1);
        let ended = |_| "the sensor is stopping".to_owned();
        wakes.send(Wake::Rules(active, done)).map_err(|_| "the sensor is stopping".to_owned())?;
        answer.recv().map_err(ended)?
    })
}

/// Where the link puts what the operator sends.
struct Inbox {
    compiler: Arc<Compiler>,
    event_loop: Teller,
}

impl Receive for Inbox {
    fn bundle(&self, bundle: Verified) {
        self.compiler.bundle(bundle);
    }

    fn node_facts(&self, facts: proto::NodeFacts) {
        self.compiler.facts(facts);
    }

    fn pod_facts(&self, facts: proto::PodFacts) -> oneshot::Receiver<()> {
        let (done, taken) = oneshot::channel();
        self.event_loop.tell(Input::Cluster(Box::new(facts::cluster_change(facts)), done));
        taken
    }
}

/// Only one sensor may use the folder: waits for one that is ending.
pub fn lock(state_dir: &Path) -> Result<File, Failed> {
    let locked = || -> io::Result<File> {
        fs::create_dir_all(state_dir)?;
        let file = File::create(state_dir.join("lock"))?;
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            info!(folder = %state_dir.display(), "waiting for another sensor to end, which uses the same folder");
            file.lock()?;
        }
        Ok(file)
    };
    Ok(locked().map_err(|source| StateDir { folder: state_dir.to_owned(), source })?)
}

/// The state folder is of no use.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the folder {}; see --state-dir", folder.display())]
struct StateDir {
    folder: PathBuf,
    #[source]
    source: io::Error,
}

fn address(args: &cli::Agent) -> link::Address {
    let (dial, name) = args.link.operator();
    link::Address { dial, name, ca: args.link.ca.clone(), token: args.link.token.clone() }
}

fn hello(args: &cli::Agent, hooks: &Hooks) -> proto::Hello {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    proto::Hello {
        node: args.node_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: read("/proc/sys/kernel/osrelease"),
        architecture: std::env::consts::ARCH.to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        driver: hooks.name().to_owned(),
        ..proto::Hello::default()
    }
}
