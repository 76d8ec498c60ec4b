//! All sinks of a sensor: hands each alert to those that want it, and replaces them when their resources change.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use api::ResourceId;
use arc_swap::ArcSwap;
use rules::alert::Alert;
use tracing::warn;

use crate::{
    Loss, SinkCounters, SinkType,
    config::{SinkConfig, Target},
    queue::Queue,
    route::Route,
    tally::Tally,
    worker,
};

/// Hands out alerts. Cheap to clone; every clone sees the sinks of the moment.
#[derive(Debug, Clone, Default)]
pub struct Fanout(Arc<ArcSwap<Vec<Lane>>>);

/// The way into one sink.
#[derive(Debug, Clone)]
struct Lane {
    route: Route,
    queue: Arc<Queue>,
    tally: Arc<Tally>,
}

impl Fanout {
    /// Queues an alert for each sink that wants it. Never waits for a sink: no network, no disk, and the only locks are
    /// held for a few instructions. What finds no place is counted.
    pub fn publish(&self, alert: Arc<Alert>) {
        for lane in self.0.load().iter() {
            if !lane.route.admits(&alert) {
                lane.tally.filtered();
            } else if let Err(alert) = lane.queue.push(Arc::clone(&alert)) {
                self.publish_to_successor(lane, alert);
            }
        }
    }

    /// Whether some sink has so much to send that more would soon be dropped: for those who can wait.
    pub fn is_crowded(&self) -> bool {
        self.0.load().iter().any(|lane| lane.queue.is_crowded())
    }

    /// The sink was replaced since the list was read: its successor takes the alert.
    fn publish_to_successor(&self, lane: &Lane, alert: Arc<Alert>) {
        let lanes = self.0.load();
        let successor = lanes.iter().find(|other| Arc::ptr_eq(&other.tally, &lane.tally));
        let refused = match successor {
            Some(successor) if !successor.route.admits(&alert) => return lane.tally.filtered(),
            Some(successor) => successor.queue.push(alert).is_err(),
            None => true,
        };
        if refused {
            lane.tally.dropped(Loss::Stopped, 1);
        }
    }
}

/// Why sinks cannot be started. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Two configurations of one resource.
    #[error("{id} is given twice")]
    Duplicate {
        /// The resource.
        id: ResourceId,
    },
    /// Two sinks would write to one file, each rotating it under the other's feet.
    #[error("{first} and {second} both write to {}; give each a file of its own", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
        /// A resource.
        first: Box<ResourceId>,
        /// Another one.
        second: Box<ResourceId>,
    },
    /// The system has no thread for us.
    #[error("cannot start the thread of {id}")]
    Thread {
        /// The resource.
        id: ResourceId,
        /// The system's reason.
        source: io::Error,
    },
}

/// What a sink had not delivered when it was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The resource.
    pub id: ResourceId,
    /// How many alerts, each counted as [`Loss::Stopped`].
    pub alerts: u64,
}

/// The sinks, seen from whoever starts, changes and stops them.
#[derive(Debug, Default)]
pub struct Sinks {
    fanout: Fanout,
    active: Vec<Running>,
    /// Removed or replaced, not done yet.
    retired: Vec<Running>,
}

#[derive(Debug, Clone)]
struct Running {
    config: Arc<SinkConfig>,
    queue: Arc<Queue>,
    tally: Arc<Tally>,
}

impl Sinks {
    /// Starts the sinks that are not suspended.
    pub fn start(configs: Vec<SinkConfig>) -> Result<Self, StartError> {
        let mut sinks = Self::default();
        sinks.reconfigure(configs, Duration::ZERO)?;
        Ok(sinks)
    }

    /// The handle for whoever publishes. It stays valid when the sinks change.
    pub fn fanout(&self) -> Fanout {
        self.fanout.clone()
    }

    /// Queues an alert for each sink that wants it: see [`Fanout::publish`].
    pub fn publish(&self, alert: Arc<Alert>) {
        self.fanout.publish(alert);
    }

    /// Makes the running sinks those of the configurations: all of them or, on an error, none.
    ///
    /// An unchanged sink keeps its queue. A changed one sends what it has by its old configuration, for `drain` at
    /// most, before the new one begins; its counters go on. A removed or suspended one has the same time. This returns
    /// at once.
    pub fn reconfigure(&mut self, configs: Vec<SinkConfig>, drain: Duration) -> Result<(), StartError> {
        check(&configs)?;
        self.reap();
        let deadline = Instant::now() + drain;
        let mut active = Vec::new();
        let mut started: Vec<Arc<Queue>> = Vec::new();
        for config in configs.into_iter().filter(|config| !config.suspended) {
            let same_sink = |running: &&Running| running.config.id == config.id;
            let before = self.active.iter().find(same_sink);
            if let Some(before) = before.filter(|before| *before.config == config) {
                active.push(before.clone());
                continue;
            }
            let tally = before.or_else(|| self.retired.iter().rev().find(same_sink));
            let tally = tally.map(|running| Arc::clone(&running.tally)).unwrap_or_default();
            let queue = Arc::new(Queue::new(config.queue, Arc::clone(&tally)));
            let in_the_way = |running: &&Running| running.config.id == config.id || same_file(&running.config, &config);
            let predecessors = self.retired.iter().chain(&self.active).filter(in_the_way);
            let predecessors = predecessors.map(|running| Arc::clone(&running.queue)).collect();
            let thread = worker::spawn(&config, Arc::clone(&queue), Arc::clone(&tally), predecessors, deadline);
            if let Err(source) = thread {
                started.iter().for_each(|queue| queue.close(Instant::now()));
                return Err(StartError::Thread { id: config.id, source });
            }
            started.push(Arc::clone(&queue));
            active.push(Running { config: Arc::new(config), queue, tally });
        }
        self.replace(active, deadline);
        Ok(())
    }

    /// What became of the alerts, for every sink that runs or still drains.
    pub fn counters(&mut self) -> Vec<SinkCounters> {
        self.reap();
        let mut sinks: BTreeMap<&ResourceId, (SinkType, &Tally, u64)> = BTreeMap::new();
        for running in self.retired.iter().chain(&self.active) {
            let kind = running.config.kind();
            let sink = sinks.entry(&running.config.id).or_insert((kind, &running.tally, 0));
            *sink = (kind, &running.tally, sink.2 + running.queue.queued());
        }
        sinks.into_iter().map(|(id, (kind, tally, queued))| tally.read(id, kind, queued)).collect()
    }

    /// Asks all sinks to open their files anew, as SIGHUP does.
    pub fn reopen(&self) {
        self.active.iter().for_each(|running| running.queue.request_reopen());
    }

    /// Lets no more alerts in, sends what waits until the deadline, and tells what was left then.
    pub fn stop(mut self, deadline: Instant) -> Vec<Leftover> {
        self.replace(Vec::new(), deadline);
        let mut left: HashMap<&ResourceId, u64> = HashMap::new();
        for running in &self.retired {
            *left.entry(&running.config.id).or_default() += running.queue.stop(deadline);
        }
        let mut left: Vec<Leftover> = left
            .into_iter()
            .filter(|(_, alerts)| *alerts > 0)
            .map(|(id, alerts)| Leftover { id: id.clone(), alerts })
            .collect();
        left.sort_by(|a, b| a.id.cmp(&b.id));
        left
    }

    /// Publishes to these sinks from now on, and lets all others drain.
    fn replace(&mut self, active: Vec<Running>, deadline: Instant) {
        let lane = |running: &Running| Lane {
            route: running.config.route.clone(),
            queue: Arc::clone(&running.queue),
            tally: Arc::clone(&running.tally),
        };
        self.fanout.0.store(Arc::new(active.iter().map(lane).collect()));
        for running in std::mem::replace(&mut self.active, active) {
            if !self.active.iter().any(|kept| Arc::ptr_eq(&kept.queue, &running.queue)) {
                running.queue.close(deadline);
                self.retired.push(running);
            }
        }
    }

    /// Forgets sinks that are done draining.
    fn reap(&mut self) {
        self.retired.retain(|running| {
            let Some(alerts) = running.queue.reap() else { return true };
            if alerts > 0 {
                warn!(sink = %running.config.id, alerts, "sink was stopped before it had delivered everything");
            }
            false
        });
    }
}

impl Drop for Sinks {
    /// Ends the threads without waiting for them.
    fn drop(&mut self) {
        self.replace(Vec::new(), Instant::now());
    }
}

fn same_file(a: &SinkConfig, b: &SinkConfig) -> bool {
    matches!((&a.target, &b.target), (Target::File(a), Target::File(b)) if a.path == b.path)
}

/// What no single configuration can see.
fn check(configs: &[SinkConfig]) -> Result<(), StartError> {
    let mut ids = HashMap::new();
    let mut files: HashMap<&PathBuf, &ResourceId> = HashMap::new();
    for config in configs {
        if ids.insert(&config.id, ()).is_some() {
            return Err(StartError::Duplicate { id: config.id.clone() });
        }
        if let (Target::File(file), false) = (&config.target, config.suspended)
            && let Some(first) = files.insert(&file.path, &config.id)
        {
            let (first, second) = (Box::new(first.clone()), Box::new(config.id.clone()));
            return Err(StartError::SameFile { path: file.path.clone(), first, second });
        }
    }
    Ok(())
}
