//! **The event loop**: the one thread on which records become events and events become alerts.
//!
//! It never waits for anything but records: no network, no disk, no lock that another thread holds for long. What must be
//! looked up is asked of the [`crate::lookup`] thread; alerts are put into the sinks' queues. Everything that can change
//! what it does arrives as an [`Input`].

mod core;
mod share;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TryRecvError},
    },
    thread,
    time::Duration,
};

use event::{
    containers::{ClusterChange, Container, ContainerFacts},
    loss::{Loss, Losses},
    state::{Seed, State},
    users::Users,
};
use recording::Frame;
use rules::alert::Alert;
use sinks::Fanout;
use tokio::sync::oneshot;

use self::core::Core;
pub use self::share::Share;
use crate::{
    active::Active,
    containers::{Asker, Told},
    driver::{Consumer, RIPE_NS, boot_time_ns, run_soon},
    lookup::Question,
};

/// Takes the alerts of the event loop, on its thread: it must not wait.
pub trait Publish: Send {
    /// Takes one alert.
    fn publish(&self, alert: Arc<Alert>, origin: &Origin<'_>);
}

/// Which rule made an alert, and where it happened.
pub struct Origin<'a> {
    /// The rules that the event was judged by.
    pub active: &'a Arc<Active>,
    /// Which of them, by [`rules::ruleset::RuleRef::index`]; none for what the sensor says about itself.
    pub rule: Option<usize>,
    /// The container; none on the host, and when nobody has said what the cgroup is.
    pub container: Option<&'a Container>,
    /// What the runtime says about the container, its pod included.
    pub facts: Option<&'a ContainerFacts>,
    /// Uid of the pod, as the cluster has it where it has told: of a static pod, the runtime knows only a hash.
    pub pod_uid: &'a str,
}

/// Sees what the event loop takes in, in the order in which it takes effect, on the loop's thread: it must not wait.
pub trait Tap: Send {
    /// One thing that happened.
    fn see(&self, frame: Frame<'_>);
}

impl Publish for Fanout {
    fn publish(&self, alert: Arc<Alert>, _: &Origin<'_>) {
        Fanout::publish(self, alert);
    }
}

/// Everything that can change what the loop does.
pub enum Input {
    /// From the next event on, judge by these rules; then answer.
    Rules(Arc<Active>, SyncSender<()>),
    /// The start-up scan is over: what had no history until now is not a loss.
    Scanned,
    /// Facts about a process.
    Process(Box<Seed>),
    /// Everything that /proc showed at this boot-clock time: records were lost.
    Living(Vec<Seed>, u64),
    /// What a cgroup's path is, if it could be found: the answer to a question.
    Cgroup(u64, Option<Vec<u8>>),
    /// What a container runtime says.
    Container(Told),
    /// Tell what the cluster has said about pods and namespaces.
    KnownOfCluster(oneshot::Sender<ClusterChange>),
    /// Names of users and groups.
    Users(Box<Users>),
    /// Names of users and groups in the container that a cgroup is of.
    ContainerUsers(u64, Box<Users>),
    /// What the cluster says about pods and namespaces; dropping the other part tells who sent it that there is room for more.
    Cluster(Box<ClusterChange>, oneshot::Sender<()>),
    /// Unix time of the zero of the boot clock, in nanoseconds: the wall clock was set.
    Clock(u64),
    /// What the sensor has to say about itself.
    Alert(Box<Alert>),
    /// Put aside what happens from now on; the answer is the time.
    Pause(oneshot::Sender<u64>),
    /// The pause is over.
    GoOn,
    /// The same, and judge what happened at this boot-clock time or later.
    JudgeFrom(u64),
    /// Another sensor: what this process does is not collected, as what the sensor itself does is not.
    Fellow(Option<u32>),
    /// Nothing is attached any more: deliver what is in the rings, then end.
    Stop,
}

/// What the loop counts, readable at any time.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records that became events and were judged.
    pub events: AtomicU64,
    /// Alerts published.
    pub alerts: AtomicU64,
    /// Processes in the table.
    pub processes: AtomicU64,
    /// Losses, in the order of [`Loss::ALL`].
    losses: [AtomicU64; Loss::ALL.len()],
    /// Cgroups in the table.
    pub cgroups: AtomicU64,
    /// Containers with facts.
    pub containers: AtomicU64,
    /// Records that wait for facts.
    pub held_records: AtomicU64,
    /// Bytes of them.
    pub held_bytes: AtomicU64,
    /// Questions that wait for room.
    pub questions: AtomicU64,
    /// Look-ups that could not be asked because too many were waiting.
    pub unasked: AtomicU64,
}

impl Counters {
    /// Losses with their counts.
    pub fn losses(&self) -> impl Iterator<Item = (Loss, u64)> + '_ {
        Loss::ALL.iter().zip(&self.losses).map(|(loss, count)| (*loss, count.load(Relaxed)))
    }

    /// Records that came from the kernel, but were of no use: events that rules did not see.
    pub fn refused(&self) -> u64 {
        self.losses().filter(|(loss, _)| loss.is_event()).map(|(_, count)| count).sum()
    }

    fn store(&self, losses: &Losses) {
        for ((_, count), shown) in losses.iter().zip(&self.losses) {
            shown.store(count, Relaxed);
        }
    }
}

/// How many records are delivered before inputs are looked at again.
const BATCH: usize = 1024;

/// Longest sleep: how late a summary of the state may be.
const SLEEP: Duration = Duration::from_secs(1);

/// The loop and all that it owns.
pub struct Pipeline {
    consumer: Consumer,
    inputs: Receiver<Input>,
    core: Core,
}

/// What the loop is given to start with.
pub struct Parts {
    /// The rings.
    pub consumer: Consumer,
    /// Where inputs arrive.
    pub inputs: Receiver<Input>,
    /// Where look-ups are asked.
    pub questions: SyncSender<Question>,
    /// Where containers are asked about.
    pub asker: Asker,
    /// Where alerts go.
    pub publish: Box<dyn Publish>,
    /// Who else sees what is taken in.
    pub tap: Option<Box<dyn Tap>>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Process state, before the start-up scan.
    pub state: State,
    /// What to judge by until the scan is over: no rules.
    pub active: Arc<Active>,
    /// Which records to judge.
    pub share: Share,
}

impl Pipeline {
    /// Starts the loop on a thread of its own; it ends after [`Input::Stop`].
    pub fn start(parts: Parts) -> std::io::Result<thread::JoinHandle<()>> {
        let Parts { consumer, inputs, questions, asker, publish, tap, counters, state, active, share } = parts;
        let mut core = Core::new(questions, asker, publish, counters, state, active);
        core.tap = tap;
        core.share = share;
        let mut pipeline = Self { consumer, inputs, core };
        thread::Builder::new().name("events".to_owned()).spawn(move || {
            run_soon();
            pipeline.run();
        })
    }

    fn run(&mut self) {
        while !self.take_inputs() {
            let now = boot_time_ns();
            let delivered = self.deliver(self.core.until(now.saturating_sub(RIPE_NS)), now);
            self.core.publish_counters();
            if delivered == 0 {
                self.wait(now);
            }
        }
        self.deliver_rest();
        // What waits for facts still gets its time.
        while self.core.waits() && !self.take_inputs() {
            let now = boot_time_ns();
            self.core.tick(now);
            self.wait(now);
        }
        self.core.give_up();
        self.core.publish_counters();
    }

    /// Delivers what is in the rings and is to be delivered. What another sensor judges is left there, and what was put aside of
    /// it.
    fn deliver_rest(&mut self) {
        loop {
            let (now, share) = (boot_time_ns(), self.core.share);
            if self.deliver(share.last_ns(), now) == 0 {
                if !share.unripe(now, RIPE_NS) {
                    return;
                }
                // Nothing announces that a record will not become visible any more.
                thread::sleep(Duration::from_nanos(RIPE_NS / 4));
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self, now: u64) {
        let deadline = self.core.deadline_ns().map(|ns| Duration::from_nanos(ns.saturating_sub(now)));
        self.consumer.wait(deadline.map_or(SLEEP, |left| left.min(SLEEP)));
    }

    /// Takes what has arrived; whether to stop.
    fn take_inputs(&mut self) -> bool {
        let core = &mut self.core;
        loop {
            match self.inputs.try_recv() {
                Ok(Input::Rules(active, done)) => {
                    core.active = active;
                    // Nobody waits any more when the sensor is ending.
                    let _ = done.send(());
                }
                Ok(Input::Scanned) => core.scanned(),
                Ok(Input::Process(seed)) => core.seed(&seed),
                Ok(Input::Living(seeds, seen)) => core.reconcile(&seeds, seen),
                Ok(Input::Cgroup(cgroup, path)) => core.cgroup(cgroup, path.as_deref(), boot_time_ns()),
                Ok(Input::Container(told)) => core.told(told, boot_time_ns()),
                Ok(Input::Cluster(change, _taken)) => core.state.change_cluster(*change),
                Ok(Input::KnownOfCluster(asked)) => {
                    // Nobody waits any more when the sensor is ending.
                    let _ = asked.send(core.state.cluster());
                }
                Ok(Input::Users(users)) => core.users(users),
                Ok(Input::ContainerUsers(cgroup, users)) => core.state.set_container_users(cgroup, *users),
                Ok(Input::Alert(alert)) => core.say(*alert),
                Ok(Input::Clock(boot_ns)) => core.clock(boot_ns),
                Ok(Input::Pause(done)) => {
                    // Later than all that was delivered: records rest for longer than this takes.
                    let now = boot_time_ns();
                    core.share.pause(now);
                    if done.send(now).is_err() {
                        core.share.go_on();
                    }
                }
                Ok(Input::GoOn) => {
                    core.share.go_on();
                    core.go_on(boot_time_ns());
                }
                Ok(Input::JudgeFrom(from_ns)) => {
                    core.share.judge_from(from_ns);
                    core.go_on(boot_time_ns());
                }
                Ok(Input::Fellow(process)) => self.consumer.leave_out(process),
                Ok(Input::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    /// Delivers a batch of records that are older than `until`.
    fn deliver(&mut self, until: u64, now: u64) -> usize {
        let Self { consumer, core, .. } = self;
        let delivered = consumer.drain(until, BATCH, |bytes, cpu| core.take(bytes, cpu, now));
        core.tick(now);
        delivered
    }
}
