//! From alerts to Events: what an Event about an alert needs to know of its rule, its pod and its node.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ::rules::alert::Priority;
use api::{
    ResourceId,
    config::{EventsConfig, SensorConfigSpec},
    rule::RuleEvents as Wanted,
};
use kube::runtime::reflector::ObjectRef;
use link::proto;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    cluster::{Cluster, kinds::Kinds, pods::Pods},
    events::{
        Events,
        aggregate::Settings,
        budget::{Budgets, Rate},
        hit::{Hit, Node, Rule, RuleEvents, Subject},
        object::is_namespace,
        redact::Redactor,
        writer::Regarding,
    },
    metrics::{ByCause, Metrics},
    rules::judge::Judged,
    sensors::{auth::is_audit, intake::Announce},
};

/// Rules and nodes that are remembered; what comes from the network must not fill the memory.
const REMEMBERED: usize = 20_000;

impl Regarding for Pods {
    fn pod_uid(&self, namespace: &str, name: &str, runtime_uid: &str) -> Option<String> {
        self.api_uid(namespace, name, runtime_uid)
    }
}

/// Makes hits of alerts.
pub struct Announcer {
    /// None once it was stopped.
    events: Mutex<Option<Events>>,
    cluster: Cluster,
    judged: watch::Receiver<Option<Judged>>,
    book: Mutex<Book>,
    kinds: Kinds,
    /// Alerts of resources that are not known.
    unknown: AtomicU64,
}

/// What alerts name by a word.
#[derive(Default)]
struct Book {
    /// Hash of the bundle, and the configuration, that the rest is of.
    basis: (Arc<str>, SensorConfigSpec),
    resources: HashMap<Box<str>, (ResourceId, RuleEvents)>,
    rules: HashMap<(Box<str>, Box<str>), Arc<Rule>>,
    nodes: HashMap<Arc<str>, Arc<Node>>,
}

impl Announcer {
    /// Gives hits to `events`.
    pub fn new(events: Events, cluster: Cluster, judged: watch::Receiver<Option<Judged>>, kinds: Kinds) -> Self {
        Self {
            events: Mutex::new(Some(events)),
            cluster,
            judged,
            book: Mutex::default(),
            kinds,
            unknown: AtomicU64::new(0),
        }
    }

    fn events(&self) -> MutexGuard<'_, Option<Events>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is not written yet, for no longer than this. Alerts after it make no Events.
    pub async fn finish(&self, patience: Duration) {
        let events = self.events().take();
        if let Some(events) = events {
            events.stop(patience).await;
        }
    }

    /// Writes nothing while `held`; alerts are counted on.
    pub fn hold(&self, held: bool) {
        self.events().iter().for_each(|events| events.hold(held));
    }

    /// Rule resources whose alerts come too fast for Events, by uid.
    pub fn storms(&self) -> HashSet<Box<str>> {
        self.events().iter().flat_map(Events::storms).map(|storm| storm.rule.uid.clone()).collect()
    }

    /// Brings the numbers of `/metrics` up to date.
    pub fn measure(&self, metrics: &Metrics) {
        let Some(counters) = self.events().as_ref().map(Events::counters) else { return };
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.events_represented.set(count(counters.totals.represented));
        metrics.events_unwanted.set(count(counters.totals.unwanted));
        metrics.events_unknown.set(count(self.unknown.load(Relaxed)));
        for (cause, suppressed) in counters.suppressed {
            let label = ByCause { cause: cause.name().to_owned() };
            metrics.events_suppressed.get_or_create(&label).inner().store(suppressed, Relaxed);
        }
        for (result, writes) in counters.writes {
            let label = ByCause { cause: result.name().to_owned() };
            metrics.events_written.get_or_create(&label).inner().store(writes, Relaxed);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new bundle or configuration. Resources that are gone stay known: their last alerts are on the way.
    fn refresh(&self, book: &mut Book) {
        let config = self.cluster.configuration();
        let judged = self.judged.borrow();
        let Some(judged) = judged.as_ref() else { return };
        if book.basis.0 == judged.offer.hash && book.basis.1 == config {
            return;
        }
        if book.resources.len() > REMEMBERED {
            book.resources.clear();
        }
        for unit in &judged.bundle.units {
            let events = rule_events(&config.events(), unit.spec.events.as_ref());
            book.resources.insert(unit.uid.as_str().into(), (unit.id(), events));
        }
        book.rules.clear();
        book.nodes.clear();
        book.basis = (Arc::clone(&judged.offer.hash), config);
    }
}

/// Source of alerts that a sensor makes about itself.
const INTERNAL: &str = "internal";

impl Announce for Announcer {
    fn announce(&self, node: &Arc<str>, alerts: Vec<proto::Alert>) {
        let mut book = self.book();
        self.refresh(&mut book);
        let node = match book.nodes.get(node) {
            Some(node) => Arc::clone(node),
            None => {
                let known = self.cluster.nodes.get(&ObjectRef::new(node));
                let uid = known.and_then(|known| known.metadata.uid.clone()).unwrap_or_default();
                let entry = Arc::new(Node { name: (&**node).into(), uid: uid.into() });
                book.nodes.insert(Arc::clone(node), Arc::clone(&entry));
                entry
            }
        };
        let count = alerts.len();
        let about_sensors = internal(&book.basis.1);
        let hits: Vec<_> =
            alerts.into_iter().filter_map(|alert| hit(&mut book, &self.kinds, &node, &about_sensors, alert)).collect();
        drop(book);
        self.unknown.fetch_add((count - hits.len()) as u64, Relaxed);
        if let Some(events) = &*self.events() {
            events.hits(hits);
        }
    }
}

/// What a sensor says about itself is told whatever its priority is: Falco gives it the lowest.
fn internal(config: &SensorConfigSpec) -> RuleEvents {
    RuleEvents { enabled: config.events().enabled(), minimum_priority: Priority::Debug, ..RuleEvents::default() }
}

fn hit(
    book: &mut Book,
    kinds: &Kinds,
    node: &Arc<Node>,
    about_sensors: &RuleEvents,
    alert: proto::Alert,
) -> Option<Hit> {
    let key = (alert.unit.into_boxed_str(), alert.rule.into_boxed_str());
    let rule = match book.rules.get(&key) {
        Some(rule) => Arc::clone(rule),
        None if key.0.is_empty() && alert.source == INTERNAL => Arc::new(Rule {
            kind: api::Kind::SensorNode,
            namespace: "".into(),
            resource: node.name.clone(),
            uid: "".into(),
            name: key.1,
            events: about_sensors.clone(),
        }),
        None => {
            // A sensor that names a resource that never was is not believed.
            let (id, events) = book.resources.get(&key.0)?;
            let rule = Arc::new(Rule {
                kind: id.kind,
                namespace: id.namespace.clone(),
                resource: id.name.clone(),
                uid: key.0.clone(),
                name: key.1.clone(),
                events: events.clone(),
            });
            if book.rules.len() >= REMEMBERED {
                book.rules.clear();
            }
            book.rules.insert(key, Arc::clone(&rule));
            rule
        }
    };
    let subject = match alert.pod.filter(|pod| !pod.name.is_empty()) {
        Some(pod) => Subject::Pod {
            namespace: pod.namespace.into(),
            name: pod.name.into(),
            uid: pod.uid.into(),
            container: pod.container.into(),
        },
        None if is_audit(&node.name) => of_request(kinds, &rule, alert.object),
        None => Subject::Node(Arc::clone(node)),
    };
    Some(Hit {
        rule,
        priority: Priority::parse(&alert.priority).unwrap_or(Priority::Debug),
        subject,
        node: Arc::clone(node),
        time_ns: alert.time_ns,
        output: alert.message.into(),
        tags: alert.tags.into_iter().map(Into::into).collect(),
        bundle: bundle::short_hash(&alert.bundle).into(),
    })
}

/// What an Event about a request is about: its object if that is there, else the namespace that it would be in, else the
/// rule: Events about nothing cannot be.
fn of_request(kinds: &Kinds, rule: &Arc<Rule>, object: Option<proto::Object>) -> Subject {
    let Some(object) = object else { return Subject::Rule(Arc::clone(rule)) };
    let in_namespace = || is_namespace(&object.namespace);
    if object.exists && (object.namespace.is_empty() || in_namespace()) {
        if object.group.is_empty() && object.resource == "pods" {
            let (namespace, name) = (object.namespace.into(), object.name.into());
            return Subject::Pod { namespace, name, uid: object.uid.into(), container: "".into() };
        }
        if let Some((version, kind)) = kinds.of(&object.group, &object.version, &object.resource) {
            return Subject::Object {
                api_version: version,
                kind,
                namespace: object.namespace.into(),
                name: object.name.into(),
                uid: object.uid.into(),
            };
        }
    }
    match in_namespace() {
        true => Subject::Namespace { name: object.namespace.into() },
        false => Subject::Rule(Arc::clone(rule)),
    }
}

/// What the configuration and a resource say about its Events.
fn rule_events(config: &EventsConfig, wanted: Option<&Wanted>) -> RuleEvents {
    let own: &[String] = wanted.map_or(&[], |wanted| &wanted.redact);
    let patterns = || config.redact.iter().chain(own).map(String::as_str);
    let redactor = Redactor::new(patterns()).unwrap_or_else(|error| {
        // One bad expression must not let secrets through that another one would catch.
        warn!(error = %link::chain(&error), "an expression of `redact` is left out");
        let good = patterns().filter(|pattern| Redactor::new([*pattern]).is_ok());
        Redactor::new(good).unwrap_or_else(|_| Redactor::standard())
    });
    let minimum = wanted.and_then(|wanted| wanted.minimum_priority).unwrap_or(config.minimum_priority());
    RuleEvents {
        enabled: config.enabled() && wanted.and_then(|wanted| wanted.enabled).unwrap_or(true),
        minimum_priority: bundle::priority(minimum),
        redactor,
    }
}

/// Budgets and places, as the configuration has them.
pub fn settings(config: &SensorConfigSpec) -> Settings {
    let events = config.events();
    let rate = |budget: api::config::Budget| Rate { per_second: budget.per_second, burst: budget.burst };
    Settings {
        budgets: Budgets {
            controller: rate(events.controller_budget()),
            namespace: rate(events.namespace_budget()),
            node: rate(events.node_budget()),
        },
        nodes_namespace: events.node_events_namespace().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sensor_says_about_itself_is_about_its_node() {
        let node = Arc::new(Node { name: "node-7".into(), uid: "uid-7".into() });
        let alert = proto::Alert {
            rule: "Falco internal: syscall event drop".to_owned(),
            priority: "Debug".to_owned(),
            source: INTERNAL.to_owned(),
            ..proto::Alert::default()
        };
        let about = internal(&SensorConfigSpec::default());
        let told = hit(&mut Book::default(), &Kinds::default(), &node, &about, alert.clone()).expect("a hit");
        assert!(matches!(&told.subject, Subject::Node(of) if *of == node), "{:?}", told.subject);
        assert!(told.rule.events.enabled && told.priority <= told.rule.events.minimum_priority);
        assert_eq!((told.rule.kind.name(), &*told.rule.resource), ("SensorNode", "node-7"));
        // Only so: an unknown resource, or another source, is not believed.
        let nobodys = proto::Alert { source: "syscall".to_owned(), ..alert.clone() };
        assert!(hit(&mut Book::default(), &Kinds::default(), &node, &about, nobodys).is_none());
        let unknown = proto::Alert { unit: "uid-of-nothing".to_owned(), ..alert };
        assert!(hit(&mut Book::default(), &Kinds::default(), &node, &about, unknown).is_none());
    }
}
