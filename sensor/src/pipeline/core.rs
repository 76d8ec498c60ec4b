//! What the loop does with a record: holds it back while it is not known what container it is of, else takes it into the
//! state and has the rules judge it.
//!
//! Records of one container are judged in the order in which they came. A record is held before it changes the state, so
//! that those behind it find the state that it would have left.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc::SyncSender},
    time::Instant,
};

use event::{
    containers::{Container, Membership},
    decode::{Kind, Record},
    event::Event,
    loss::{Loss, Losses},
    state::{Seed, State},
    users::Users,
    value::Arena,
};
use recording::Frame;
use rules::{
    alert::Alert,
    ruleset::{Evaluation, RuleRef},
};

use super::{Counters, Origin, Publish, Share, Tap, share::Aside};
use crate::{
    active::Active,
    containers::{Asker, Told},
    hold::{Hold, Key},
    lookup::Question,
};

const SECOND_NS: u64 = 1_000_000_000;

/// How long the answer that no runtime knows a container is remembered.
const UNKNOWN_NS: u64 = 60 * SECOND_NS;

/// How long nothing is held for a container whose facts did not come in time.
const LATE_NS: u64 = 30 * SECOND_NS;

/// How long facts outlive their container: events of its end may still come, also those that are held back.
const GONE_NS: u64 = 10 * SECOND_NS;

/// Most containers and cgroups that are remembered to have no facts.
const SETTLED: usize = 4096;

/// Most questions that wait for room.
const UNASKED: usize = 4096;

/// Of this many events, one is measured: reading the clock for each rule costs as much as judging by it.
const SAMPLE: u64 = 1024;

/// Why nothing is held, though there are no facts.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// There are none to be had.
    Unknown,
    /// They were waited for in vain: each event that is judged without them counts as this.
    Late(Loss),
}

/// State, rules, and what waits.
pub struct Core {
    questions: SyncSender<Question>,
    asker: Asker,
    publish: Box<dyn Publish>,
    /// Who else sees what is taken in.
    pub tap: Option<Box<dyn Tap>>,
    counters: Arc<Counters>,
    /// Processes, containers, users.
    pub state: State,
    /// What to judge by.
    pub active: Arc<Active>,
    /// Which records are judged; the others are state only.
    pub share: Share,
    /// Records of after a pause.
    aside: Aside,
    scratch: Scratch,
    /// Events that were judged and are not among the counters yet.
    judged: u64,
    /// Questions that found no room.
    unasked: VecDeque<Question>,
    /// Containers whose question found no room.
    unasked_containers: Vec<Arc<Container>>,
    hold: Hold,
    /// Until when nothing is held for what has no facts.
    settled: HashMap<Key, (u64, Why)>,
    /// Containers that are gone, and when their facts go, oldest first.
    gone: VecDeque<(u64, Box<str>)>,
    /// Whether anybody can say what containers are.
    available: bool,
    /// Whether the start-up scan is over: nothing is judged before.
    scanned: bool,
}

/// Memory that events share, one after the other.
#[derive(Default)]
struct Scratch {
    arena: Arena,
    evaluation: Evaluation,
    number: u64,
}

/// What becomes of a record.
enum Standing {
    /// It is judged; the loss that it counts as.
    Flows(Option<Loss>),
    /// It waits for facts about a container.
    ForFacts(Arc<Container>),
    /// It waits for the path of its cgroup.
    ForCgroup,
}

impl Core {
    /// A core that has seen nothing.
    pub fn new(
        questions: SyncSender<Question>,
        asker: Asker,
        publish: Box<dyn Publish>,
        counters: Arc<Counters>,
        state: State,
        active: Arc<Active>,
    ) -> Self {
        Self {
            questions,
            asker,
            publish,
            tap: None,
            counters,
            state,
            active,
            share: Share::ALL,
            aside: Aside::default(),
            scratch: Scratch::default(),
            judged: 0,
            unasked: VecDeque::new(),
            unasked_containers: Vec::new(),
            hold: Hold::default(),
            settled: HashMap::new(),
            gone: VecDeque::new(),
            available: false,
            scanned: false,
        }
    }

    /// The start-up scan is over: what had no history until now is not a loss.
    pub fn scanned(&mut self) {
        self.state.losses = Losses::default();
        self.scanned = true;
        self.tell_tap(|| Frame::Begin);
    }

    /// Takes a record from the rings of a CPU.
    pub fn take(&mut self, bytes: &[u8], cpu: u16, now: u64) {
        let record = match Record::decode(bytes) {
            Ok(record) => record.on_cpu(cpu),
            Err(error) => return self.state.losses.add(Loss::from(&error)),
        };
        if self.share.is_later(record.header.time) {
            return self.aside.push(bytes, cpu);
        }
        if !self.scanned || !self.available && self.hold.is_empty() {
            return self.process(&record, None);
        }
        match self.standing(&record, now) {
            Standing::Flows(loss) => self.process(&record, loss),
            Standing::ForFacts(container) => {
                if self.hold.push(facts_of(&container), bytes, cpu, now) {
                    self.ask_about(container);
                }
                self.make_room(now);
            }
            Standing::ForCgroup => {
                let cgroup = record.header.cgroup;
                if self.hold.push(Key::Cgroup(cgroup), bytes, cpu, now) {
                    self.ask(Question { pid: record.header.tgid, process: true, cgroup: Some(cgroup), users: None });
                }
                self.make_room(now);
            }
        }
    }

    /// The time of the last record that can be taken: one that rests no more, if there is room for what is put aside.
    pub fn until(&self, ripe: u64) -> u64 {
        if self.aside.is_full() { ripe.min(self.share.last_ns()) } else { ripe }
    }

    /// A pause is over: takes what was put aside.
    pub fn go_on(&mut self, now: u64) {
        for (bytes, cpu) in std::mem::take(&mut self.aside) {
            self.take(&bytes, cpu, now);
        }
    }

    /// Whether a record is to be held.
    fn standing(&mut self, record: &Record<'_>, now: u64) -> Standing {
        let cgroup = record.header.cgroup;
        // What a cgroup is never changes: this much may be known before the record is judged.
        self.state.learn_from(record);
        let membership = self.state.membership(record, self.state.process(record)).clone();
        if membership != Membership::Unknown {
            self.resolve(cgroup, now);
        }
        match membership {
            Membership::Host => Standing::Flows(None),
            Membership::Unknown if cgroup == 0 => Standing::Flows(None),
            Membership::Unknown => {
                let key = Key::Cgroup(cgroup);
                match self.settled(&key, now) {
                    Some(why) => Standing::Flows(why.loss()),
                    // Those behind a record that waits must wait, too.
                    None if self.available || self.hold.waits(&key) => Standing::ForCgroup,
                    None => Standing::Flows(None),
                }
            }
            Membership::Container(container) => {
                if self.state.facts_of(&container).is_some() {
                    return Standing::Flows(None);
                }
                let key = facts_of(&container);
                match self.settled(&key, now) {
                    Some(why) => Standing::Flows(why.loss()),
                    None if self.available || self.hold.waits(&key) => Standing::ForFacts(container),
                    None => Standing::Flows(None),
                }
            }
        }
    }

    fn settled(&mut self, key: &Key, now: u64) -> Option<Why> {
        let (until, why) = *self.settled.get(key)?;
        if until > now {
            return Some(why);
        }
        self.settled.remove(key);
        None
    }

    fn settle(&mut self, key: Key, why: Why, now: u64) {
        let for_ns = match why {
            Why::Unknown => UNKNOWN_NS,
            Why::Late(_) => LATE_NS,
        };
        if self.settled.len() >= SETTLED {
            self.settled.retain(|_, (until, _)| *until > now);
        }
        if self.settled.len() >= SETTLED {
            // They are asked for again.
            self.settled.clear();
        }
        self.settled.insert(key, (now.saturating_add(for_ns), why));
    }

    fn tell_tap(&self, frame: impl FnOnce() -> Frame<'static>) {
        if let Some(tap) = &self.tap {
            tap.see(frame());
        }
    }

    /// Takes the names of users and groups.
    pub fn users(&mut self, users: Box<Users>) {
        self.tell_tap(|| Frame::Users(users.clone()));
        self.state.users = *users;
    }

    /// The wall clock was set.
    pub fn clock(&mut self, boot_ns: u64) {
        self.tell_tap(|| Frame::Clock(boot_ns));
        self.state.host.boot_ns = boot_ns;
    }

    /// Says what a process is.
    pub fn seed(&mut self, seed: &Seed) {
        self.state.seed(seed);
        self.tell_tap(|| Frame::Process(Box::new(seed.clone())));
        if seed.cgroup != 0 {
            self.resolve(seed.cgroup, crate::driver::boot_time_ns());
        }
    }

    /// Brings the table into line with /proc.
    pub fn reconcile(&mut self, seeds: &[Seed], seen: u64) {
        for seed in seeds {
            self.state.correct(seed, seen);
        }
        let mut living: Vec<_> = seeds.iter().map(|seed| (seed.tgid, seed.start)).collect();
        living.sort_unstable_by_key(|(tgid, _)| *tgid);
        self.state.bury(&living, seen);
    }

    /// Says what a cgroup's path is.
    pub fn cgroup(&mut self, cgroup: u64, path: Option<&[u8]>, now: u64) {
        if let Some(path) = path {
            self.state.learn_cgroup(cgroup, path);
            self.tell_tap(|| Frame::Cgroup(cgroup, path.to_vec()));
        }
        let key = Key::Cgroup(cgroup);
        if *self.state.cgroup(cgroup) == Membership::Unknown && self.hold.waits(&key) {
            // Nobody will know: the group is gone.
            self.settle(key.clone(), Why::Unknown, now);
            return self.release(&key, None);
        }
        self.resolve(cgroup, now);
    }

    /// Records that waited for their cgroup go on, or wait for facts.
    fn resolve(&mut self, cgroup: u64, now: u64) {
        let from = Key::Cgroup(cgroup);
        if !self.hold.waits(&from) {
            return;
        }
        match self.state.cgroup(cgroup).clone() {
            Membership::Unknown => {}
            Membership::Host => self.release(&from, None),
            Membership::Container(container) => {
                let key = facts_of(&container);
                if self.state.facts_of(&container).is_some() {
                    self.release(&from, None);
                } else if let Some(why) = self.settled(&key, now) {
                    self.release(&from, why.loss());
                } else if self.hold.turn(&from, key) {
                    self.ask_about(container);
                }
            }
        }
    }

    /// Takes what a runtime says.
    pub fn told(&mut self, told: Told, now: u64) {
        match told {
            Told::Available(available) => self.available = available,
            Told::Facts(id, facts) => {
                self.gone.retain(|(_, gone)| *gone != id);
                let key = Key::Container(id);
                let Key::Container(id) = &key else { return };
                self.tell_tap(|| Frame::Container(id.clone(), facts.clone()));
                if self.state.set_container(id, *facts) {
                    self.settled.remove(&key);
                } else {
                    self.settle(key.clone(), Why::Unknown, now);
                }
                self.release(&key, None);
            }
            Told::Unknown(id) => {
                let key = Key::Container(id);
                self.settle(key.clone(), Why::Unknown, now);
                self.release(&key, None);
            }
            Told::Gone(id) => self.gone.push_back((now.saturating_add(GONE_NS), id)),
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: u64) {
        while let Some(key) = self.hold.expired(now) {
            self.settle(key.clone(), Why::Late(Loss::HoldExpired), now);
            self.release(&key, Some(Loss::HoldExpired));
        }
        while let Some((_, id)) = self.gone.pop_front_if(|(until, _)| *until <= now) {
            self.state.forget_container(&id);
            self.tell_tap(|| Frame::Gone(id));
        }
        while let Some(question) = self.unasked.pop_front() {
            if self.questions.try_send(question).is_err() {
                self.unasked.push_front(question);
                break;
            }
        }
        self.counters.events.fetch_add(std::mem::take(&mut self.judged), Relaxed);
        let asker = &self.asker;
        self.unasked_containers.retain(|container| !asker.ask(container));
    }

    /// Releases what has waited longest until the bounds hold.
    fn make_room(&mut self, now: u64) {
        while let Some(key) = self.hold.surplus() {
            self.settle(key.clone(), Why::Late(Loss::HoldFull), now);
            self.release(&key, Some(Loss::HoldFull));
        }
    }

    /// Whether anything waits.
    pub fn waits(&self) -> bool {
        !self.hold.is_empty()
    }

    /// When something has waited too long.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.hold.deadline_ns()
    }

    /// Judges all that waits.
    pub fn give_up(&mut self) {
        while let Some(key) = self.hold.any() {
            self.release(&key, Some(Loss::HoldExpired));
        }
    }

    /// Judges what waited for this, oldest first.
    fn release(&mut self, key: &Key, loss: Option<Loss>) {
        for held in self.hold.take(key) {
            // It was decoded before.
            if let Ok(record) = Record::decode(&held.bytes) {
                self.process(&record.on_cpu(held.cpu), loss);
            }
        }
    }

    /// Takes a record into the state and judges it.
    fn process(&mut self, record: &Record<'_>, loss: Option<Loss>) {
        if let Some(tap) = &self.tap {
            tap.see(Frame::Record(record.cpu.unwrap_or_default(), record.bytes()));
        }
        let wanted = self.state.apply(record);
        if wanted.process || wanted.cgroup || wanted.users {
            let cgroup = wanted.cgroup.then_some(record.header.cgroup);
            let users = wanted.users.then_some(record.header.cgroup);
            // What a cgroup is may be told by the process as well.
            let process = wanted.process || wanted.cgroup;
            self.ask(Question { pid: record.header.tgid, process, cgroup, users });
        }
        if self.share.judges(record.header.time) && self.judge(record) {
            self.judged += 1;
            if let Some(loss) = loss {
                self.state.losses.add(loss);
            }
        }
    }

    /// Has all rules judge that can see the event; `false` for records that are state only.
    fn judge(&mut self, record: &Record<'_>) -> bool {
        let Self { state, active, scratch, publish, counters, .. } = self;
        if record.kind == Kind::Fork {
            return false;
        }
        scratch.number += 1;
        {
            let Some(event) = Event::new(record, state, &scratch.arena, scratch.number) else { return false };
            let on_match = |rule: RuleRef<'_>| {
                if active.count(rule.index(), &event) {
                    let membership = event.membership();
                    let container = match membership {
                        Membership::Container(container) => Some(&**container),
                        Membership::Host | Membership::Unknown => None,
                    };
                    let facts = state.container_facts(membership);
                    let pod = facts.and_then(|facts| facts.pod.as_ref());
                    let pod_uid = pod.map_or("", |pod| state.pod(pod).map_or(&pod.uid, |known| &known.uid));
                    let origin = Origin { active, rule: Some(rule.index()), container, facts, pod_uid };
                    publish.publish(Arc::new(active.ruleset.alert(rule, &event)), &origin);
                    counters.alerts.fetch_add(1, Relaxed);
                }
            };
            if scratch.number % SAMPLE == 0 {
                let mut last = Instant::now();
                active.ruleset.matches_watched(&event, &mut scratch.evaluation, on_match, |rule| {
                    let now = Instant::now();
                    let took = now.duration_since(std::mem::replace(&mut last, now));
                    active.sample(rule, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                });
            } else {
                active.ruleset.matches(&event, &mut scratch.evaluation, on_match);
            }
        }
        scratch.arena.reset();
        true
    }

    fn ask(&mut self, question: Question) {
        if self.unasked.is_empty() && self.questions.try_send(question).is_ok() {
            return;
        }
        if self.unasked.len() < UNASKED {
            self.unasked.push_back(question);
        } else {
            self.counters.unasked.fetch_add(1, Relaxed);
        }
    }

    fn ask_about(&mut self, container: Arc<Container>) {
        if !self.asker.ask(&container) && self.unasked_containers.len() < UNASKED {
            self.unasked_containers.push(container);
        }
    }

    /// Publishes what the sensor has to say about itself.
    pub fn say(&self, alert: Alert) {
        let origin = Origin { active: &self.active, rule: None, container: None, facts: None, pod_uid: "" };
        self.publish.publish(Arc::new(alert), &origin);
        self.counters.alerts.fetch_add(1, Relaxed);
    }

    /// Shows the counts to others.
    pub fn publish_counters(&mut self) {
        let counters = &self.counters;
        counters.cgroups.store(self.state.cgroups() as u64, Relaxed);
        counters.containers.store(self.state.containers() as u64, Relaxed);
        counters.held_records.store(self.hold.records() as u64, Relaxed);
        counters.held_bytes.store(self.hold.bytes() as u64, Relaxed);
        counters.questions.store((self.unasked.len() + self.unasked_containers.len()) as u64, Relaxed);
        self.counters.events.fetch_add(std::mem::take(&mut self.judged), Relaxed);
        self.counters.store(&self.state.losses);
        self.counters.processes.store(self.state.processes() as u64, Relaxed);
    }
}

impl Why {
    fn loss(self) -> Option<Loss> {
        match self {
            Self::Unknown => None,
            Self::Late(loss) => Some(loss),
        }
    }
}

fn facts_of(container: &Container) -> Key {
    Key::Container(container.full_id().into())
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
