//! Decides which Events are created and changed, and when. Pure: no clock, no client.
//!
//! Alerts that share rule, priority and subject are a series, and a series is one Event: created at its first alert,
//! changed at ever longer intervals while it lasts, and once more when it ends. Whatever would need more writes than the
//! budgets allow is counted together or counted as suppressed, and said so in an Event. At any time
//! `injected = represented + suppressed + unwanted`.
//!
//! The writer pulls: [`Aggregator::next`] gives what is to be written now, [`Aggregator::done`] takes how that went. What
//! waits is not a queue of writes but the series themselves, so a change that waits merges with the next one.

mod series;
mod spread;
mod suppressed;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::events::v1::Event;
use rules::alert::Priority;

pub use self::suppressed::{Cause, Storm};
use self::{
    series::{QUIET, Series, Stage},
    spread::Spread,
    suppressed::{Scope, Suppressed},
};
use super::{
    budget::{Budget, Budgets, Class, Empty},
    hit::{Hit, Node, Now, Subject},
    object::{self, SeriesId, Shown},
};

/// Series of one node. The quietest ends when there would be more.
const MAX_SERIES_OF_NODE: usize = 4096;
/// From this size in memory on, in bytes, the quietest series ends when another begins.
const SOFT_BYTES: usize = 24 << 20;
/// From this size in memory on, in bytes, no series begins.
const HARD_BYTES: usize = 40 << 20;
/// A series that the API server refuses is tried again after so long.
const REFUSED: Duration = Duration::from_secs(600);
/// Attempts that may fail while those of other series succeed.
const MAX_FAILURES: u32 = 12;
/// First and longest pause after the API server failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Longest pause that the API server may ask for.
const MAX_ASKED: Duration = Duration::from_secs(300);
/// Changes that are looked at for one whose namespace has budget left.
const LOOK_AHEAD: usize = 16;
/// Between looks at whether a budget has room again.
const TURN: Duration = Duration::from_millis(100);

/// What the resources say about Events in general.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How many are written.
    pub budgets: Budgets,
    /// Namespace of Events about what is in none: `default` or `kube-system`.
    pub nodes_namespace: Box<str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { budgets: Budgets::default(), nodes_namespace: "default".into() }
    }
}

/// Who writes.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Namespace of the operator.
    pub namespace: Box<str>,
    /// A word that no other process has had, nor this one before: tells own Events from those of predecessors.
    pub instance: Box<str>,
}

/// What a write belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WriteId(Target);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Target {
    Series(SeriesId),
    Announcement(Scope),
}

/// What is to be sent.
#[derive(Debug, Clone)]
pub enum Action {
    /// A new Event. If it exists, the predecessor's count is to be added, or nothing if it is our own.
    Create(Box<Event>),
    /// A JSON merge patch of `series` and annotations.
    Patch(serde_json::Value),
}

/// A planned write.
#[derive(Debug, Clone)]
pub struct Write {
    /// What it belongs to; for [`Aggregator::done`].
    pub id: WriteId,
    /// Namespace of the Event.
    pub namespace: String,
    /// Name of the Event.
    pub name: String,
    /// Of the alerts that the Event counts afterwards, how many predecessors had counted.
    pub base: u64,
    /// What is to be sent.
    pub action: Action,
}

/// How a write went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The API server has it.
    Written,
    /// There was an Event of a predecessor; its count and ours are in it now.
    Adopted {
        /// The count of the predecessor.
        base: u64,
    },
    /// The Event to change is no longer there.
    Gone,
    /// The namespace does not exist any more, or ends.
    NamespaceGone,
    /// The API server does not take it, now or later.
    Refused,
    /// It may succeed later.
    Failed {
        /// The API server asked for fewer requests, not before this time has passed.
        throttled: Option<Duration>,
    },
}

/// Numbers of alerts. All but `series` and `bytes` only grow, but that alerts may turn from represented to suppressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Alerts that came in.
    pub injected: u64,
    /// Alerts that nobody wants Events about.
    pub unwanted: u64,
    /// Alerts that an Event counts, or will with its next change.
    pub represented: u64,
    /// Of the represented, those that an Event counts together with others of their rule in a namespace.
    pub collapsed: u64,
    /// Alerts that no Event counts.
    pub suppressed: u64,
    /// Of the suppressed, those that an announcement counts.
    pub announced: u64,
    /// Series in memory.
    pub series: usize,
    /// Size of the series in memory, in bytes, about.
    pub bytes: usize,
}

/// Everything that is known of current series.
#[derive(Debug)]
pub struct Aggregator {
    settings: Settings,
    identity: Identity,
    budget: Budget,
    series: HashMap<SeriesId, Series, ahash::RandomState>,
    /// Series that count against the bound of each node.
    of_node: HashMap<Box<str>, usize, ahash::RandomState>,
    urgent: VecDeque<SeriesId>,
    routine: VecDeque<SeriesId>,
    overdue: VecDeque<SeriesId>,
    timers: BinaryHeap<Reverse<(Duration, u64, SeriesId)>>,
    spread: Spread,
    suppressed: Suppressed,
    totals: Totals,
    /// Nothing is sent before.
    gate: Duration,
    /// Failures in a row.
    failures: u32,
    /// The last answer was a failure.
    failing: bool,
    successes: u64,
    serial: u64,
    stopping: bool,
}

impl Aggregator {
    /// Knows of nothing yet.
    pub fn new(settings: Settings, identity: Identity, now: Now) -> Self {
        Self {
            budget: Budget::new(settings.budgets, now.since_start),
            settings,
            identity,
            series: HashMap::default(),
            of_node: HashMap::default(),
            urgent: VecDeque::new(),
            routine: VecDeque::new(),
            overdue: VecDeque::new(),
            timers: BinaryHeap::new(),
            spread: Spread::default(),
            suppressed: Suppressed::default(),
            totals: Totals::default(),
            gate: Duration::ZERO,
            failures: 0,
            failing: false,
            successes: 0,
            serial: 0,
            stopping: false,
        }
    }

    /// Other settings from now on. Events that exist stay where they are.
    pub fn set(&mut self, settings: Settings) {
        self.budget.set(settings.budgets);
        self.settings = settings;
    }

    /// Takes in an alert.
    pub fn hit(&mut self, mut hit: Hit, now: Now) {
        self.totals.injected += 1;
        let events = &hit.rule.events;
        if !events.enabled || hit.priority > events.minimum_priority {
            self.totals.unwanted += 1;
            return;
        }
        // A namespace that cannot exist has no Events; the node has.
        if hit.subject.namespace().is_some_and(|namespace| !object::is_namespace(namespace)) {
            hit.subject = hit.fallback();
        }
        let id = SeriesId::new(&hit.rule, hit.priority, &hit.subject);
        let Some(hit) = self.absorb(id, hit, now) else { return };
        let rule = (&*hit.rule.uid, &*hit.rule.name);
        if self.spread.is_too_wide(rule, &hit.node.name, id, now.since_start) {
            self.collapse(hit, now);
        } else {
            // What the audit log tells has the budgets of namespaces and of the cluster.
            let of_node = hit.node.is_one();
            self.begin(id, hit, of_node, now);
        }
    }

    /// Counts a hit in its series. Gives it back if there is none.
    fn absorb(&mut self, id: SeriesId, hit: Hit, now: Now) -> Option<Hit> {
        let Some(series) = self.series.get_mut(&id) else { return Some(hit) };
        if series.stage == Stage::Refused {
            self.suppressed.add(Cause::Refused, &hit.rule, &hit.node, 1, now);
            return None;
        }
        self.totals.bytes = self.totals.bytes.saturating_add_signed(series.absorb(hit, now));
        self.totals.represented += 1;
        None
    }

    /// Counts a hit together with all of its rule in its namespace.
    fn collapse(&mut self, mut hit: Hit, now: Now) {
        hit.subject = match (hit.rule.namespace.is_empty(), hit.subject.namespace()) {
            (true, Some(namespace)) => Subject::Namespace { name: namespace.into() },
            (false, _) | (true, None) => Subject::Rule(Arc::clone(&hit.rule)),
        };
        self.suppressed.storm(&hit.rule, 1, now);
        self.totals.collapsed += 1;
        let id = SeriesId::new(&hit.rule, hit.priority, &hit.subject);
        let before = self.totals.represented;
        if let Some(hit) = self.absorb(id, hit, now) {
            self.begin(id, hit, false, now);
        }
        self.totals.collapsed -= u64::from(self.totals.represented == before);
    }

    /// Begins a series if the budgets allow it.
    fn begin(&mut self, id: SeriesId, hit: Hit, of_node: bool, now: Now) {
        let class = if hit.priority <= Priority::Critical { Class::Urgent } else { Class::Routine };
        let node = of_node.then_some(&*hit.node.name);
        let cause = if self.stopping {
            Some(Cause::Stopped)
        } else if self.totals.bytes >= HARD_BYTES {
            Some(Cause::Memory)
        } else {
            match self.budget.create(class, node, hit.subject.namespace(), now.since_start) {
                Ok(()) => None,
                Err(Empty::Node) => Some(Cause::NodeBudget),
                Err(Empty::Namespace) => Some(Cause::NamespaceBudget),
                Err(Empty::Controller) => Some(Cause::ClusterBudget),
            }
        };
        if let Some(cause) = cause {
            self.suppressed.add(cause, &hit.rule, &hit.node, 1, now);
            return;
        }
        if of_node {
            let count = self.of_node.entry(hit.node.name.clone()).or_default();
            *count += 1;
            if *count > MAX_SERIES_OF_NODE {
                let node = hit.node.name.clone();
                self.end_quietest(|series| series.hit.node.name == node);
            }
        }
        let writer = self.writer();
        let series = Series::new(hit, of_node, writer, now);
        self.totals.bytes += series.size();
        self.totals.represented += 1;
        self.series.insert(id, series);
        self.queue(class).push_back(id);
        if self.totals.bytes > SOFT_BYTES {
            self.end_quietest(|_| true);
        }
    }

    fn queue(&mut self, class: Class) -> &mut VecDeque<SeriesId> {
        match class {
            Class::Urgent => &mut self.urgent,
            Class::Routine | Class::Renewal => &mut self.routine,
        }
    }

    fn writer(&mut self) -> String {
        self.serial += 1;
        format!("{}.{}", self.identity.instance, self.serial)
    }

    /// Ends the series of those that has been quiet for the longest time. Seldom, so looking at all is cheap enough:
    /// series begin no faster than the budget.
    fn end_quietest(&mut self, of: impl Fn(&Series) -> bool) {
        let open = self.series.iter().filter(|(_, series)| !series.closing && of(series));
        if let Some(id) = open.min_by_key(|(_, series)| series.last).map(|(id, _)| *id) {
            self.end(id);
        }
    }

    /// Ends a series: now if all is written, else as soon as it is.
    fn end(&mut self, id: SeriesId) {
        let Some(series) = self.series.get_mut(&id) else { return };
        if !series.closing {
            series.closing = true;
            if series.counted {
                uncount(&mut self.of_node, &series.hit.node);
            }
        }
        match series.stage {
            Stage::New | Stage::Due => {}
            Stage::Idle if series.is_dirty() => {
                series.stage = Stage::Due;
                self.overdue.push_back(id);
            }
            Stage::Idle | Stage::Refused => {
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: SeriesId) -> Option<Series> {
        let series = self.series.remove(&id)?;
        if series.counted && !series.closing {
            uncount(&mut self.of_node, &series.hit.node);
        }
        self.totals.bytes = self.totals.bytes.saturating_sub(series.size());
        Some(series)
    }

    /// Sets the timer of a series; an earlier one is void.
    fn set_timer(&mut self, id: SeriesId, at: Duration) {
        self.serial += 1;
        if let Some(series) = self.series.get_mut(&id) {
            series.timer = self.serial;
            self.timers.push(Reverse((at, self.serial, id)));
        }
    }

    /// What the timers that have run out decide.
    fn expire(&mut self, now: Duration) {
        while let Some(&Reverse((at, timer, id))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(series) = self.series.get_mut(&id).filter(|series| series.timer == timer) else { continue };
            match series.stage {
                Stage::New | Stage::Due => continue,
                Stage::Refused => {
                    self.end(id);
                    continue;
                }
                Stage::Idle => {}
            }
            if now >= series.last.saturating_add(QUIET) {
                self.end(id);
                continue;
            }
            let beat = now >= series.next_beat();
            series.pass_beats(now);
            if beat && series.is_dirty() {
                series.stage = Stage::Due;
                self.overdue.push_back(id);
            } else {
                let deadline = series.deadline();
                self.set_timer(id, deadline);
            }
        }
    }

    /// The next write, if there is one that may be sent now.
    pub fn next(&mut self, now: Now) -> Option<Write> {
        if now.since_start < self.gate {
            return None;
        }
        self.expire(now.since_start);
        if let Some(id) = self.urgent.pop_front() {
            return self.plan(id);
        }
        if self.suppressed.next_due().is_some_and(|due| due <= now.since_start)
            && self.budget.renew(None, now.since_start)
        {
            let writer = self.writer();
            let nodes = &self.settings.nodes_namespace;
            if let Some((scope, event)) = self.suppressed.take_due(&self.identity.namespace, nodes, writer, now) {
                return Some(Write {
                    id: WriteId(Target::Announcement(scope)),
                    namespace: event.metadata.namespace.clone().unwrap_or_default(),
                    name: event.metadata.name.clone().unwrap_or_default(),
                    base: 0,
                    action: Action::Create(Box::new(event)),
                });
            }
        }
        for _ in 0..LOOK_AHEAD.min(self.overdue.len()) {
            let Some(id) = self.overdue.pop_front() else { break };
            let namespace = self.series.get(&id).and_then(|series| series.hit.subject.namespace());
            if self.budget.renew(namespace, now.since_start) {
                return self.plan(id);
            }
            self.overdue.push_back(id);
        }
        let id = self.routine.pop_front()?;
        self.plan(id)
    }

    /// The write that brings the API server up to date with a series.
    fn plan(&mut self, id: SeriesId) -> Option<Write> {
        let nodes = &self.settings.nodes_namespace;
        let series = self.series.get_mut(&id)?;
        series.in_flight = Some(series.count);
        let shown = Shown {
            id,
            hit: &series.hit,
            output: &series.output,
            count: series.count.saturating_add(series.base),
            last_ns: series.last_ns,
            writer: &series.writer,
        };
        let action = match series.stage {
            Stage::New => Action::Create(Box::new(object::alert(&shown, nodes))),
            Stage::Idle | Stage::Due | Stage::Refused => Action::Patch(object::renewal(&shown)),
        };
        Some(Write {
            id: WriteId(Target::Series(id)),
            namespace: object::namespace(&series.hit.subject, nodes).to_owned(),
            name: object::series_name(id, &series.hit.subject, series.hit.time_ns),
            base: series.base,
            action,
        })
    }

    /// Takes how a write went.
    pub fn done(&mut self, id: WriteId, outcome: Outcome, now: Now) {
        self.failing = matches!(outcome, Outcome::Failed { .. });
        match &outcome {
            Outcome::Failed { throttled } => self.hold_back(*throttled, now.since_start),
            Outcome::Written | Outcome::Adopted { .. } => {
                self.failures = 0;
                self.successes += 1;
            }
            Outcome::Gone | Outcome::NamespaceGone | Outcome::Refused => self.failures = 0,
        }
        match id.0 {
            Target::Announcement(scope) => match outcome {
                Outcome::Failed { .. } if !self.stopping => self.suppressed.failed(&scope, now),
                Outcome::Written | Outcome::Adopted { .. } => self.suppressed.sent(&scope, true, now),
                Outcome::Failed { .. } | Outcome::Gone | Outcome::NamespaceGone | Outcome::Refused => {
                    self.suppressed.sent(&scope, false, now);
                }
            },
            Target::Series(id) => self.series_done(id, outcome, now),
        }
    }

    fn series_done(&mut self, id: SeriesId, outcome: Outcome, now: Now) {
        let Some(series) = self.series.get_mut(&id) else { return };
        let sent = series.in_flight.take().unwrap_or(0);
        match outcome {
            Outcome::Written | Outcome::Adopted { .. } => {
                if let Outcome::Adopted { base } = outcome {
                    // Reading and changing it were two more requests.
                    self.budget.charge(2);
                    series.base = base;
                }
                series.written = series.written.max(sent);
                series.stage = Stage::Idle;
                series.failures = 0;
                series.pass_beats(now.since_start);
                if series.closing {
                    self.end(id);
                } else {
                    let deadline = series.deadline();
                    self.set_timer(id, deadline);
                }
            }
            Outcome::Gone => {
                self.budget.charge(1);
                series.written = 0;
                series.stage = Stage::New;
                self.urgent.push_back(id);
            }
            Outcome::NamespaceGone => self.move_to_node(id, now),
            Outcome::Refused => self.refuse(id, Cause::Refused, now),
            Outcome::Failed { .. } => {
                if series.successes_seen != self.successes {
                    series.successes_seen = self.successes;
                    series.failures += 1;
                }
                if series.failures >= MAX_FAILURES {
                    return self.refuse(id, Cause::Refused, now);
                }
                match series.stage {
                    Stage::New if series.hit.priority <= Priority::Critical => self.urgent.push_back(id),
                    Stage::New => self.routine.push_back(id),
                    Stage::Idle | Stage::Due | Stage::Refused => {
                        series.stage = Stage::Due;
                        self.overdue.push_back(id);
                    }
                }
            }
        }
    }

    /// Waits after a failure: as long as asked, else longer each time. Failures of requests that were sent before the
    /// wait began say nothing new.
    fn hold_back(&mut self, throttled: Option<Duration>, now: Duration) {
        if let Some(asked) = throttled {
            self.gate = self.gate.max(now.saturating_add(asked.min(MAX_ASKED)));
            self.budget.pause(self.gate);
        }
        if now >= self.gate {
            let pause = PAUSE.0.saturating_mul(1 << self.failures.min(10)).min(PAUSE.1);
            self.failures += 1;
            self.gate = now.saturating_add(pause);
        }
    }

    /// Gives a series up: what the API server does not know of is suppressed, and what follows for a while.
    fn refuse(&mut self, id: SeriesId, cause: Cause, now: Now) {
        let Some(series) = self.series.get_mut(&id) else { return };
        let lost = series.count - series.written;
        series.count = series.written;
        series.stage = Stage::Refused;
        let (rule, node) = (Arc::clone(&series.hit.rule), Arc::clone(&series.hit.node));
        self.totals.represented -= lost;
        self.suppressed.add(cause, &rule, &node, lost, now);
        match series.closing {
            true => self.end(id),
            false => self.set_timer(id, now.since_start.saturating_add(REFUSED)),
        }
    }

    /// A namespace that ends takes no Events: what happened in it is told of its node. Its own Events go with it.
    fn move_to_node(&mut self, id: SeriesId, now: Now) {
        let Some(series) = self.series.get(&id) else { return };
        let subject = series.hit.fallback();
        let to = SeriesId::new(&series.hit.rule, series.hit.priority, &subject);
        if to == id || series.stage != Stage::New {
            return self.refuse(id, Cause::Refused, now);
        }
        if self.series.get(&to).is_some_and(|there| there.stage == Stage::Refused) {
            return self.refuse(id, Cause::Refused, now);
        }
        let Some(mut moved) = self.remove(id) else { return };
        if let Some(there) = self.series.get_mut(&to) {
            there.count = there.count.saturating_add(moved.count);
            there.last = there.last.max(moved.last);
            there.last_ns = there.last_ns.max(moved.last_ns);
            return;
        }
        moved.hit.subject = subject;
        if moved.counted && !moved.closing {
            *self.of_node.entry(moved.hit.node.name.clone()).or_default() += 1;
        }
        self.totals.bytes += moved.size();
        self.urgent.push_back(to);
        self.series.insert(to, moved);
    }

    /// Whether the API server failed the last time: then one write at a time is enough to see whether it still does.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// When [`Aggregator::next`] may have something new to give, without another alert or a write that is done.
    pub fn wake_at(&self, now: Now) -> Option<Duration> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let announcement = self.suppressed.next_due();
        let queued = !(self.urgent.is_empty() && self.routine.is_empty() && self.overdue.is_empty());
        let queued = queued.then_some(now.since_start);
        let earliest = [timer, announcement, queued].into_iter().flatten().min()?;
        // What is due and was not given waits for the budget.
        Some(earliest.max(self.gate).max(now.since_start.saturating_add(TURN)))
    }

    /// Ends every series, and makes announcements due. From now on no series begins.
    pub fn stop(&mut self) {
        self.stopping = true;
        let ids: Vec<SeriesId> = self.series.keys().copied().collect();
        ids.into_iter().for_each(|id| self.end(id));
        self.suppressed.hurry();
    }

    /// Whether all is written and announced.
    pub fn is_idle(&self) -> bool {
        self.series.is_empty() && !self.suppressed.is_unannounced()
    }

    /// Gives up what is not written yet. For the end, when time is up.
    pub fn abandon(&mut self, now: Now) {
        let ids: Vec<SeriesId> = self.series.keys().copied().collect();
        ids.into_iter().for_each(|id| self.refuse(id, Cause::Stopped, now));
    }

    /// The rules that fire faster than their alerts can be Events.
    pub fn storms(&self, now: Now) -> Vec<Storm> {
        self.suppressed.storms(now)
    }

    /// Numbers of alerts.
    pub fn totals(&self) -> Totals {
        Totals {
            suppressed: self.suppressed.total(),
            announced: self.suppressed.announced(),
            series: self.series.len(),
            ..self.totals
        }
    }

    /// Alerts that no Event counts, by cause.
    pub fn suppressed(&self, cause: Cause) -> u64 {
        self.suppressed.by_cause(cause)
    }
}

fn uncount(of_node: &mut HashMap<Box<str>, usize, ahash::RandomState>, node: &Node) {
    if let Some(count) = of_node.get_mut(&node.name) {
        *count -= 1;
        if *count == 0 {
            of_node.remove(&node.name);
        }
    }
}

#[cfg(test)]
mod tests;
