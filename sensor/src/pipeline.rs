//! **The event loop**: the one thread on which records become events and events become alerts.
//!
//! It never waits for anything but records: no network, no disk, no lock that another thread holds for long. What must be
//! looked up is asked of the [`crate::lookup`] thread; alerts are put into the sinks' queues. Everything that can change
//! what it does arrives as an [`Input`].

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TryRecvError},
    },
    thread,
    time::Duration,
};

use event::{
    containers::{ClusterChange, Container, ContainerFacts, Membership},
    decode::{Kind, Record},
    event::Event,
    loss::{Loss, Losses},
    state::{Seed, State},
    users::Users,
    value::Arena,
};
use rules::{alert::Alert, ruleset::Evaluation};
use sinks::Fanout;

use crate::{
    active::Active,
    driver::{Consumer, RIPE_NS, boot_time_ns},
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
    /// Which of them, by [`rules::ruleset::RuleRef::index`].
    pub rule: usize,
    /// The container; none on the host, and when nobody has said what the cgroup is.
    pub container: Option<&'a Container>,
    /// What the runtime says about the container, its pod included.
    pub facts: Option<&'a ContainerFacts>,
    /// Uid of the pod, as the cluster has it where it has told: of a static pod, the runtime knows only a hash.
    pub pod_uid: &'a str,
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
    /// Names of users and groups.
    Users(Box<Users>),
    /// What the cluster says about pods and namespaces.
    Cluster(Box<ClusterChange>),
    /// Unix time of the zero of the boot clock, in nanoseconds: the wall clock was set.
    Clock(u64),
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
    /// Look-ups that could not be asked because too many were waiting.
    pub unasked: AtomicU64,
}

impl Counters {
    /// Losses with their counts.
    pub fn losses(&self) -> impl Iterator<Item = (Loss, u64)> + '_ {
        Loss::ALL.iter().zip(&self.losses).map(|(loss, count)| (*loss, count.load(Relaxed)))
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
    questions: SyncSender<Question>,
    publish: Box<dyn Publish>,
    counters: Arc<Counters>,
    state: State,
    active: Arc<Active>,
    scratch: Scratch,
    /// Questions that found no room.
    unasked: VecDeque<Question>,
}

/// Memory that events share, one after the other.
#[derive(Default)]
struct Scratch {
    arena: Arena,
    evaluation: Evaluation,
    number: u64,
}

/// What the loop is given to start with.
pub struct Parts {
    /// The rings.
    pub consumer: Consumer,
    /// Where inputs arrive.
    pub inputs: Receiver<Input>,
    /// Where look-ups are asked.
    pub questions: SyncSender<Question>,
    /// Where alerts go.
    pub publish: Box<dyn Publish>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Process state, before the start-up scan.
    pub state: State,
    /// What to judge by until the scan is over: no rules.
    pub active: Arc<Active>,
}

impl Pipeline {
    /// Starts the loop on a thread of its own; it ends after [`Input::Stop`].
    pub fn start(parts: Parts) -> std::io::Result<thread::JoinHandle<()>> {
        let Parts { consumer, inputs, questions, publish, counters, state, active } = parts;
        let mut pipeline = Self {
            consumer,
            inputs,
            questions,
            publish,
            counters,
            state,
            active,
            scratch: Scratch::default(),
            unasked: VecDeque::new(),
        };
        thread::Builder::new().name("events".to_owned()).spawn(move || pipeline.run())
    }

    fn run(&mut self) {
        while !self.take_inputs() {
            let ripe = boot_time_ns().saturating_sub(RIPE_NS);
            if self.deliver(ripe) == 0 {
                self.publish_counters();
                self.consumer.wait(SLEEP);
            }
        }
        while self.deliver(u64::MAX) > 0 {}
        self.publish_counters();
    }

    /// Takes what has arrived; whether to stop.
    fn take_inputs(&mut self) -> bool {
        loop {
            match self.inputs.try_recv() {
                Ok(Input::Rules(active, done)) => {
                    self.active = active;
                    // Nobody waits any more when the sensor is ending.
                    let _ = done.send(());
                }
                Ok(Input::Scanned) => self.state.losses = Losses::default(),
                Ok(Input::Process(seed)) => self.state.seed(&seed),
                Ok(Input::Cluster(change)) => self.state.change_cluster(*change),
                Ok(Input::Users(users)) => self.state.users = *users,
                Ok(Input::Clock(boot_ns)) => self.state.host.boot_ns = boot_ns,
                Ok(Input::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    /// Delivers a batch of records that are older than `until`.
    fn deliver(&mut self, until: u64) -> usize {
        let Self { consumer, state, active, scratch, publish, counters, questions, unasked, .. } = self;
        let mut judged = 0;
        let delivered = consumer.drain(until, BATCH, |bytes| {
            let record = match Record::decode(bytes) {
                Ok(record) => record,
                Err(error) => return state.losses.add(Loss::from(&error)),
            };
            let wanted = state.apply(&record);
            if wanted.process || wanted.cgroup {
                ask(counters, questions, unasked, Question { pid: record.header.tgid });
            }
            judged += u64::from(judge(state, active, scratch, &**publish, counters, &record));
        });
        counters.events.fetch_add(judged, Relaxed);
        while let Some(question) = unasked.pop_front() {
            if questions.try_send(question).is_err() {
                unasked.push_front(question);
                break;
            }
        }
        delivered
    }

    fn publish_counters(&self) {
        self.counters.store(&self.state.losses);
        self.counters.processes.store(self.state.processes() as u64, Relaxed);
    }
}

/// Most questions that wait for room.
const UNASKED: usize = 4096;

fn ask(counters: &Counters, questions: &SyncSender<Question>, unasked: &mut VecDeque<Question>, question: Question) {
    if unasked.is_empty() && questions.try_send(question).is_ok() {
        return;
    }
    if unasked.len() < UNASKED {
        unasked.push_back(question);
    } else {
        counters.unasked.fetch_add(1, Relaxed);
    }
}

/// Judges one event by all rules that can see it; `false` for records that are state only.
fn judge(
    state: &State,
    active: &Arc<Active>,
    scratch: &mut Scratch,
    publish: &dyn Publish,
    counters: &Counters,
    record: &Record<'_>,
) -> bool {
    if record.kind == Kind::Fork {
        return false;
    }
    scratch.number += 1;
    {
        let Some(event) = Event::new(record, state, &scratch.arena, scratch.number) else { return false };
        active.ruleset.matches(&event, &mut scratch.evaluation, |rule| {
            if active.count(rule.index(), &event) {
                let membership = event.membership();
                let container = match membership {
                    Membership::Container(container) => Some(&**container),
                    Membership::Host | Membership::Unknown => None,
                };
                let facts = state.container_facts(membership);
                let pod = facts.and_then(|facts| facts.pod.as_ref());
                let pod_uid = pod.map_or("", |pod| state.pod(pod).map_or(&pod.uid, |known| &known.uid));
                let origin = Origin { active, rule: rule.index(), container, facts, pod_uid };
                publish.publish(Arc::new(active.ruleset.alert(rule, &event)), &origin);
                counters.alerts.fetch_add(1, Relaxed);
            }
        });
    }
    scratch.arena.reset();
    true
}
