//! Alerts without an Event: how many, why, of which rules; and the Events that say so.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::events::v1::Event;

use crate::events::{
    hit::{Node, Now, Rule},
    object::{self, Announced},
};

/// Between the first suppressed alert and the announcement: others will follow.
const SOON: Duration = Duration::from_secs(10);
/// Between announcements about one node.
const PERIOD: Duration = Duration::from_secs(300);
/// A rule storms until it has been quiet for so long.
const CALM: Duration = Duration::from_secs(360);
/// Nodes with an announcement of their own; alerts of others count for all nodes.
const MAX_NODES: usize = 8192;
/// Rules that an announcement counts by name.
const MAX_RULES: usize = 64;
/// Storming rules that are remembered.
const MAX_STORMS: usize = 1024;

/// Why an alert has no Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Its node has used its budget up.
    NodeBudget,
    /// Its namespace has used its budget up.
    NamespaceBudget,
    /// The cluster has used its budget up, or the API server asked for a pause.
    ClusterBudget,
    /// Too many series wait to be written.
    Memory,
    /// The API server does not take the Event.
    Refused,
    /// This process stopped before the Event was written.
    Stopped,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 6] =
        [Self::NodeBudget, Self::NamespaceBudget, Self::ClusterBudget, Self::Memory, Self::Refused, Self::Stopped];

    /// The stable word for the cause, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeBudget => "node_budget",
            Self::NamespaceBudget => "namespace_budget",
            Self::ClusterBudget => "cluster_budget",
            Self::Memory => "memory",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        }
    }
}

/// A rule that fires faster than its alerts can be Events.
#[derive(Debug, Clone)]
pub struct Storm {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Alerts without an Event of their own since the storm began: suppressed, or counted together for a namespace.
    pub alerts: u64,
    /// When it began, nanoseconds since the Unix epoch.
    pub since_ns: u64,
    last: Duration,
}

/// Whom an announcement is about: a node by name, or all nodes.
pub(super) type Scope = Option<Box<str>>;

#[derive(Debug)]
struct Pending {
    node: Option<Arc<Node>>,
    total: u64,
    by_rule: BTreeMap<Box<str>, u64>,
    since_ns: u64,
    due: Duration,
    /// What is being written, until it is.
    sent: Option<(Event, u64)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Suppressed {
    by_cause: BTreeMap<Cause, u64>,
    announced: u64,
    pending: HashMap<Scope, Pending, ahash::RandomState>,
    due: BTreeSet<(Duration, Scope)>,
    storms: HashMap<(Box<str>, Box<str>), Storm, ahash::RandomState>,
}

impl Suppressed {
    /// Counts alerts of a rule on a node.
    pub fn add(&mut self, cause: Cause, rule: &Arc<Rule>, node: &Arc<Node>, alerts: u64, now: Now) {
        if alerts == 0 {
            return;
        }
        *self.by_cause.entry(cause).or_default() += alerts;
        self.storm(rule, alerts, now);
        let of_node = matches!(cause, Cause::NodeBudget)
            && (self.pending.len() < MAX_NODES || self.pending.contains_key(&Some(node.name.clone())));
        let scope = of_node.then(|| node.name.clone());
        let pending = self.pending.entry(scope.clone()).or_insert_with(|| {
            let due = now.since_start.saturating_add(SOON);
            self.due.insert((due, scope));
            let node = of_node.then(|| Arc::clone(node));
            Pending { node, total: 0, by_rule: BTreeMap::new(), since_ns: now.unix_ns, due, sent: None }
        });
        if pending.total == 0 {
            pending.since_ns = now.unix_ns;
        }
        pending.total += alerts;
        let known = pending.by_rule.len() < MAX_RULES || pending.by_rule.contains_key(&rule.name);
        let name = if known { &*rule.name } else { "(other rules)" };
        match pending.by_rule.get_mut(name) {
            Some(count) => *count += alerts,
            None => {
                pending.by_rule.insert(name.into(), alerts);
            }
        }
    }

    /// Notes that a rule fires too fast.
    pub fn storm(&mut self, rule: &Arc<Rule>, alerts: u64, now: Now) {
        let key = (rule.uid.clone(), rule.name.clone());
        if !self.storms.contains_key(&key) && self.storms.len() >= MAX_STORMS {
            self.storms.retain(|_, storm| now.since_start < storm.last.saturating_add(CALM));
            if self.storms.len() >= MAX_STORMS {
                return;
            }
        }
        let new = || Storm { rule: Arc::clone(rule), alerts: 0, since_ns: now.unix_ns, last: now.since_start };
        let storm = self.storms.entry(key).or_insert_with(new);
        if now.since_start >= storm.last.saturating_add(CALM) {
            *storm = new();
        }
        storm.alerts += alerts;
        storm.last = now.since_start;
    }

    /// The rules that fire too fast at this time, in order of resource and rule.
    pub fn storms(&self, now: Now) -> Vec<Storm> {
        let active = |storm: &&Storm| now.since_start < storm.last.saturating_add(CALM);
        let mut storms: Vec<Storm> = self.storms.values().filter(active).cloned().collect();
        storms.sort_by(|a, b| (&a.rule.uid, &a.rule.name).cmp(&(&b.rule.uid, &b.rule.name)));
        storms
    }

    /// Alerts without an Event, by cause.
    pub fn by_cause(&self, cause: Cause) -> u64 {
        self.by_cause.get(&cause).copied().unwrap_or(0)
    }

    /// All alerts without an Event.
    pub fn total(&self) -> u64 {
        self.by_cause.values().sum()
    }

    /// How many of them were announced.
    pub fn announced(&self) -> u64 {
        self.announced
    }

    /// Whether alerts wait to be announced.
    pub fn is_unannounced(&self) -> bool {
        self.pending.values().any(|pending| pending.total > 0 || pending.sent.is_some())
    }

    /// When the next announcement is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Makes every announcement due.
    pub fn hurry(&mut self) {
        self.due = self.due.iter().map(|(_, scope)| (Duration::ZERO, scope.clone())).collect();
        self.pending.values_mut().for_each(|pending| pending.due = Duration::ZERO);
    }

    /// Takes the announcement that is due. It is off the list until [`Suppressed::sent`] or [`Suppressed::failed`].
    pub fn take_due(&mut self, operator: &str, nodes: &str, writer: String, now: Now) -> Option<(Scope, Event)> {
        loop {
            if self.next_due()? > now.since_start {
                return None;
            }
            let (_, scope) = self.due.pop_first()?;
            let Some(pending) = self.pending.get_mut(&scope) else { continue };
            if let Some((event, _)) = &pending.sent {
                return Some((scope, event.clone()));
            }
            if pending.total == 0 {
                self.pending.remove(&scope);
                continue;
            }
            let mut rules: Vec<(Box<str>, u64)> = std::mem::take(&mut pending.by_rule).into_iter().collect();
            rules.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let total = std::mem::take(&mut pending.total);
            let announced = Announced {
                node: pending.node.as_ref(),
                operator,
                total,
                rules: &rules,
                since_ns: pending.since_ns,
                now_ns: now.unix_ns,
                writer: &writer,
            };
            let event = object::announcement(&announced, nodes);
            pending.sent = Some((event.clone(), total));
            return Some((scope, event));
        }
    }

    /// An announcement was written, or is given up; in any case its alerts stay counted.
    pub fn sent(&mut self, scope: &Scope, written: bool, now: Now) {
        let Some(pending) = self.pending.get_mut(scope) else { return };
        if let Some((_, total)) = pending.sent.take()
            && written
        {
            self.announced += total;
        }
        pending.due = now.since_start.saturating_add(PERIOD);
        self.due.insert((pending.due, scope.clone()));
    }

    /// An announcement could not be written now: it comes again as it is.
    pub fn failed(&mut self, scope: &Scope, now: Now) {
        if self.pending.contains_key(scope) {
            self.due.insert((now.since_start, scope.clone()));
        }
    }
}
