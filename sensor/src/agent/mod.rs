//! `gyrfalcon agent`: the sensor of one node of a cluster.
//!
//! Rules come from the operator as a bundle, and from the cache of the last boot before the operator is reached. Alerts
//! go to the spool and from there to the operator. What waits for whom:
//!
//! ```text
//! event loop → queue (bounded, never waits) → spool's thread → disk → link's threads → operator
//! operator → link's threads → compiler's thread → this thread → event loop (swaps between two events)
//! ```
//!
//! A sensor that begins while another has the state folder prepares everything but spool and link, and takes over from it:
//! [`handover`].

pub mod bundle;
pub mod cache;
pub mod compiler;
mod deliver;
pub mod facts;
pub mod handover;
pub mod link;
pub mod owned;
pub mod spool;
pub mod status;
#[cfg(test)]
mod testing;

use std::{
    fs, io,
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
    handover::{EventLoop, Giver, Peer, Standing, Taken, Taker},
    link::{Acks, Receive, Verified},
    owned::{Owned, Place},
    spool::{Limits, Queue},
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
    pipeline::{Input, Share},
    sensor::{Failed, Sensor, Setup, Stopping, Teller},
    signals,
};

/// How often what nobody announces is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often the operator gets a report when nothing special happens.
const REPORT: Duration = Duration::from_secs(10);

/// How long alerts may take to reach the operator when the sensor stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a sensor that is told to stop with alerts in memory waits for the folder that they belong into.
const FOLDER: Duration = Duration::from_secs(5);

/// What wakes the thread that controls the sensor.
enum Wake {
    /// A signal that ends the sensor.
    Signal,
    /// Put these rules into effect, and answer.
    Rules(Arc<Active>, SyncSender<Result<(), String>>),
    /// The bundle of the last boot runs, or there is none.
    Booted,
    /// The node was taken over from another sensor, or cannot be.
    Taken(Result<Taken, Failed>),
    /// Another sensor judges from now on.
    HandOver(Peer),
    /// The sensor that took over has ended.
    Alone,
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
    /// What the owner of the state folder has; none while another sensor is.
    owned: Option<Owned>,
    compiler: Arc<Compiler>,
    rules: JoinHandle<()>,
    runtime: Runtime,
    /// What the link needs beyond the spool.
    link: LinkParts,
    report: watch::Sender<proto::NodeReport>,
    reporter: Reporter,
    reported: Instant,
    /// The sensor to take over from, until it is asked; none: it does not listen.
    other: Option<Peer>,
    wakes: Sender<Wake>,
    place: Place,
}

#[derive(Clone)]
struct LinkParts {
    address: link::Address,
    hello: proto::Hello,
    acks: watch::Sender<Acks>,
    receive: Arc<Inbox>,
}

impl Agent {
    fn start(args: &cli::Agent, hooks: Hooks, wakes: Sender<Wake>) -> Result<Self, Failed> {
        let place = Place {
            state_dir: args.link.state_dir.clone(),
            limits: Limits::mib(args.link.spool_mib),
            name: args.pod_name.clone(),
        };
        let lock = handover::try_lock(&place.state_dir)?;
        let status = Arc::new(Status::new(Arc::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .thread_name("operator-link")
            .enable_all()
            .build()?;
        let second = lock.is_none();
        let other = if second {
            info!(folder = %place.state_dir.display(), "another sensor uses the same folder: preparing to take over");
            status.stands(Standing::Preparing);
            runtime.block_on(Peer::find(&place.state_dir, &place.name)).unwrap_or_else(|error| {
                warn!(reason = %chain(&error), "the other sensor cannot be asked");
                None
            })
        } else {
            None
        };
        let asked: Arc<dyn health::Ask> = status.clone();
        match runtime.block_on(TcpListener::bind(args.health_listen)) {
            Ok(listener) => drop(runtime.spawn(health::serve(listener, asked))),
            // On a host both have the same address, and one after the other.
            Err(error) if second && error.kind() == io::ErrorKind::AddrInUse => {
                warn!(address = %args.health_listen, "no health is served until the other sensor has ended");
                runtime.spawn(serve_later(args.health_listen, asked));
            }
            Err(source) => return Err(health::Listen { address: args.health_listen, source }.into()),
        }

        let names = Arc::new(Names::default());
        let options =
            Options { hostname: args.node_name.as_str().into(), resolver: Some(names.clone()), ..Options::default() };
        let hello = hello(args, &hooks);
        let queue = Arc::new(Queue::default());
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
            share: if second { Share::NOTHING } else { Share::ALL },
        };
        let owned = lock.map(|lock| Owned::open(lock, &place, &queue, &runtime)).transpose()?;
        let sensor = Sensor::start(setup, Arc::new(Active::none(&options)?))?;
        sensor.teller().fellow(other.as_ref().and_then(Peer::process));
        status.look(&sensor);

        let acks = watch::Sender::new(Acks::default());
        let compiler = Arc::new(Compiler::default());
        let node = args.node_name.clone();
        let booted = wakes.clone();
        let rules = compiler::start(
            Arc::clone(&compiler),
            compiler::Parts {
                compile: Box::new(move |bundle, facts| bundle::compile(bundle, &node, facts, &options)),
                effect: effect(wakes.clone()),
                cache: Cache::open(&args.link.state_dir)?,
                acks: acks.clone(),
                booted: Box::new(move || {
                    // The control thread ends last.
                    let _ = booted.send(Wake::Booted);
                }),
            },
        )?;
        let link = LinkParts {
            address: address(args),
            hello,
            acks,
            receive: Arc::new(Inbox { compiler: Arc::clone(&compiler), event_loop: sensor.teller() }),
        };
        let agent = Self {
            sensor,
            status,
            queue,
            owned: None,
            compiler,
            rules,
            runtime,
            link,
            report: watch::Sender::new(proto::NodeReport::default()),
            reporter: Reporter::new(),
            reported: Instant::now(),
            other,
            wakes,
            place,
        };
        Ok(match owned {
            Some(owned) => agent.own(owned, None),
            None => agent,
        })
    }

    /// Begins to be the owner of the state folder; `before` is who handed it over.
    fn own(mut self, mut owned: Owned, before: Option<String>) -> Self {
        // It is set once: an owner never becomes one again.
        let _ = self.status.spool.set(Arc::clone(&owned.spool));
        self.status.stands(Standing::Owner);
        if let Some(listener) = owned.listener.take() {
            let (status, wakes) = (Arc::clone(&self.status), self.wakes.clone());
            let bundle = move || status.bundle();
            let name = self.place.name.clone();
            let giver = Giver { event_loop: self.sensor.teller(), bundle, name, before };
            self.runtime.spawn(async move {
                let peer = giver.wait(&listener).await;
                // Nobody listens any more when the sensor is ending.
                let _ = wakes.send(Wake::HandOver(peer));
            });
        }
        self.owned = Some(owned);
        self
    }

    /// Asks the other sensor for the node.
    fn take(&mut self) {
        let Place { state_dir, .. } = self.place.clone();
        let (for_bundle, for_standing) = (Arc::clone(&self.status), Arc::clone(&self.status));
        let compiler = Arc::clone(&self.compiler);
        let (mut other, wakes) = (self.other.take(), self.wakes.clone());
        let event_loop = self.sensor.teller();
        let taker = Taker {
            event_loop: event_loop.clone(),
            bundle: move || for_bundle.bundle(),
            reread: move || compiler.reread(),
            standing: move |standing| for_standing.stands(standing),
            state_dir,
        };
        self.runtime.spawn(async move {
            let taken = taker.take(other.as_mut()).await;
            // Nobody listens any more when the sensor is ending.
            let _ = wakes.send(Wake::Taken(taken));
            // As long as the connection is open, the number is no other process's, and the other knows that this one lives.
            if let Some(mut other) = other {
                other.ended().await;
                event_loop.fellow(None);
            }
        });
    }

    /// Starts the link.
    fn connect(&mut self) {
        let Some(owned) = &mut self.owned else { return };
        let LinkParts { address, hello, acks, receive } = self.link.clone();
        owned.link = Some(self.runtime.spawn(link::run(link::Parts {
            address,
            hello,
            spool: Arc::clone(&owned.spool),
            queue: Arc::clone(&self.queue),
            acks,
            report: self.report.subscribe(),
            receive,
            status: Arc::clone(&self.status.link),
        })));
    }

    /// Answers what wakes it until it is told to stop.
    fn control(mut self, wakes: &Receiver<Wake>) -> Exit {
        self.tell();
        let mut ticked = Instant::now();
        // When it was told to stop, if it waits for the folder.
        let mut told: Option<Instant> = None;
        loop {
            match wakes.recv_timeout(TICK.saturating_sub(ticked.elapsed())) {
                Ok(Wake::Signal) if told.is_none() && self.owned.is_none() && self.queue.waiting() > 0 => {
                    info!("stopping as soon as the other sensor has ended: alerts wait for its folder");
                    told = Some(Instant::now());
                }
                Ok(Wake::Signal) => return self.stop(wakes),
                Ok(Wake::Rules(active, done)) => {
                    // The compiler waits for the answer as long as it lives.
                    let _ = done.send(self.replace(&active));
                }
                Ok(Wake::Booted) if self.owned.is_some() => self.connect(),
                Ok(Wake::Booted) => self.take(),
                Ok(Wake::Taken(taken)) => {
                    let owned = taken.and_then(|Taken { lock, before }| {
                        Ok((Owned::open(lock, &self.place, &self.queue, &self.runtime)?, before))
                    });
                    match owned {
                        Ok((owned, before)) => self = self.own(owned, before),
                        Err(failed) => {
                            error!(error = %chain(&*failed), "cannot take over");
                            return Exit::System;
                        }
                    }
                    if told.is_some() {
                        return self.stop(wakes);
                    }
                    // The other may have kept another bundle after this one looked.
                    drop(self.compiler.reread());
                    self.connect();
                    info!("this sensor has the node");
                }
                Ok(Wake::HandOver(peer)) => return self.hand_over(peer, wakes),
                Ok(Wake::Alone) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    ticked = Instant::now();
                    self.sensor.tick();
                    self.status.look(&self.sensor);
                    self.tell();
                    if let Some(thread) = self.ended() {
                        error!(thread, "a thread has ended that should not; the sensor must be started anew");
                        return Exit::System;
                    }
                    if told.is_some_and(|told| told.elapsed() >= FOLDER) {
                        return self.stop(wakes);
                    }
                }
            }
        }
    }

    /// The thread that has panicked, if one has.
    fn ended(&self) -> Option<&'static str> {
        let threads = [
            ("events", !self.sensor.alive()),
            ("spool", self.owned.as_ref().is_some_and(|owned| owned.writer.is_finished())),
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
        let Self { sensor, status, queue, owned, compiler, runtime, .. } = self;
        info!("stopping; a second signal stops at once");
        compiler.close();
        if owned.is_some() {
            // A handover may be under way: what is not given away yet is judged here.
            sensor.teller().go_on();
        }
        let Stopping { pipeline, rest } = sensor.stop();
        let delivered = status.clone();
        let finished = std::thread::spawn(move || {
            let panicked = pipeline.join().is_err();
            let Some(Owned { writer, spool, lock, .. }) = owned else {
                runtime.shutdown_timeout(Duration::from_secs(1));
                return (panicked, false);
            };
            writer.stop();
            let all = async { tokio::time::timeout(DRAIN, delivered.link.all_delivered(&spool)).await.is_ok() };
            let sent = delivered.link.connected() && runtime.block_on(all);
            runtime.shutdown_timeout(Duration::from_secs(1));
            // Not before the link has ended: the next sensor has one, too.
            drop(lock);
            (panicked, sent)
        });
        let Some(finished) = attend(finished, wakes, || false) else {
            warn!("stopped at once; alerts in the spool are sent after the next start");
            return Exit::System;
        };
        let (panicked, sent) = finished.unwrap_or((true, false));
        let waiting = status.spooled();
        if !sent && waiting > 0 {
            info!(alerts = waiting, "alerts stay in the spool until the next start");
        }
        if status.spool.get().is_none() && queue.waiting() > 0 {
            warn!(alerts = queue.waiting(), "alerts are lost: another sensor has the folder that they belong into");
        }
        rest.tell();
        if panicked { Exit::System } else { Exit::Fine }
    }

    /// Gives the node to another sensor, which judges already, and waits for the end.
    fn hand_over(self, mut peer: Peer, wakes: &Receiver<Wake>) -> Exit {
        let Self { sensor, status, owned, compiler, runtime, wakes: waker, .. } = self;
        info!("handing over to another sensor; a second signal stops at once");
        status.stands(Standing::GaveUp);
        compiler.close();
        let Stopping { pipeline, rest } = sensor.stop();
        status.detached();
        let inside = runtime.handle().clone();
        let finished = std::thread::spawn(move || {
            let Some(Owned { lock, writer, link, .. }) = owned else { return pipeline.join().is_err() };
            // What is not acknowledged is sent again, by the other, under the same numbers.
            if let Some(link) = link {
                link.abort();
                let _ = inside.block_on(link);
            }
            let panicked = pipeline.join().is_err();
            writer.stop();
            drop(lock);
            panicked
        });
        let mut ended = false;
        let finished = attend(finished, wakes, || !std::mem::replace(&mut ended, true));
        let Some(finished) = finished else {
            warn!("stopped at once; the other sensor judges");
            return Exit::System;
        };
        let panicked = finished.unwrap_or(true);
        status.link.disconnected();
        rest.tell();
        if let Err(error) = runtime.block_on(peer.say(handover::Word::Done)) {
            warn!(reason = %chain(&error), "the other sensor does not know that it has everything");
        }
        info!("handed over to another sensor, which judges now; this one can be ended");
        runtime.spawn(async move {
            peer.ended().await;
            let _ = waker.send(Wake::Alone);
        });
        let fine = ended || idle(wakes);
        runtime.shutdown_timeout(Duration::from_secs(1));
        if fine && !panicked { Exit::Fine } else { Exit::System }
    }
}

/// Waits for a signal, or for the end of the sensor that took over; whether it was the first.
fn idle(wakes: &Receiver<Wake>) -> bool {
    loop {
        match wakes.recv() {
            Ok(Wake::Signal) => return true,
            Ok(Wake::Rules(_, done)) => refuse(&done),
            Ok(Wake::Booted | Wake::Taken(_) | Wake::HandOver(_)) => {}
            Ok(Wake::Alone) | Err(_) => {
                error!("the sensor that took over has ended: this one must be started anew");
                return false;
            }
        }
    }
}

/// Answers what comes until the work is done. At a signal, `goes_on` says whether to go on; nothing when it does not.
fn attend<T>(
    work: JoinHandle<T>,
    wakes: &Receiver<Wake>,
    mut goes_on: impl FnMut() -> bool,
) -> Option<std::thread::Result<T>> {
    while !work.is_finished() {
        match wakes.recv_timeout(Duration::from_millis(10)) {
            Ok(Wake::Signal) => {
                if !goes_on() {
                    return None;
                }
            }
            Ok(Wake::Rules(_, done)) => refuse(&done),
            Ok(Wake::Booted | Wake::Taken(_) | Wake::HandOver(_) | Wake::Alone) | Err(_) => {}
        }
    }
    Some(work.join())
}

/// The compiler waits for the answer as long as it lives.
fn refuse(done: &SyncSender<Result<(), String>>) {
    let _ = done.send(Err("the sensor is stopping".to_owned()));
}

/// Serves as soon as the address is free.
async fn serve_later(address: std::net::SocketAddr, asked: Arc<dyn health::Ask>) {
    loop {
        // Nothing tells that an address is free.
        tokio::time::sleep(TICK).await;
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let _ = health::serve(listener, asked).await;
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => {
                let error = health::Listen { address, source };
                return warn!(error = %chain(&error), "no health is served");
            }
        }
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
