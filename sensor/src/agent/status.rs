//! How the sensor does: taken together every few seconds by the thread that controls it, read by the operator, by
//! Prometheus and by the kubelet.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use event::loss::Loss;
use link::proto;

use super::{
    handover::Standing,
    link::LinkStatus,
    spool::{self, Spool},
};
use crate::{
    health::{
        Ask, Seen, memory,
        metrics::{Metric, Sample},
    },
    sensor::Sensor,
};

/// What others may ask.
pub struct Status {
    /// Alerts on disk; none while another sensor has them.
    pub spool: OnceLock<Arc<Spool>>,
    /// The link.
    pub link: Arc<LinkStatus>,
    /// The event loop runs.
    pub alive: AtomicBool,
    /// What was seen last.
    known: Mutex<Known>,
}

/// What is known about the running sensor.
#[derive(Clone, Default)]
struct Known {
    seen: Seen,
    /// Hash of the running bundle; none before the first one.
    bundle: Option<String>,
    standing: Standing,
}

impl Status {
    /// Of a sensor that has not started.
    pub fn new(link: Arc<LinkStatus>) -> Self {
        Self { spool: OnceLock::new(), link, alive: AtomicBool::new(true), known: Mutex::default() }
    }

    /// Looks at the running sensor.
    pub fn look(&self, sensor: &Sensor) {
        self.alive.store(sensor.alive(), Relaxed);
        self.known().seen.look(sensor);
    }

    /// Notes the bundle that runs.
    pub fn runs(&self, hash: &str) {
        self.known().bundle = Some(hash.to_owned());
    }

    /// Alerts on disk that wait for the operator.
    pub fn spooled(&self) -> u64 {
        self.spool.get().map_or(0, |spool| spool.waiting())
    }

    /// Hash of the bundle that runs; empty for none.
    pub fn bundle(&self) -> String {
        self.known().bundle.clone().unwrap_or_default()
    }

    /// Notes what the sensor is to its node.
    pub fn stands(&self, standing: Standing) {
        self.known().standing = standing;
    }

    /// Notes that nothing is attached any more.
    pub fn detached(&self) {
        self.known().seen.hooks.clear();
    }

    /// Every loss with its count. The kernel's, the event loop's and the spool's never share a name.
    fn losses(&self, known: &Known) -> Vec<(&'static str, u64)> {
        let mut losses = known.seen.losses();
        let spool = self.spool.get();
        losses
            .extend(spool::Loss::ALL.iter().map(|loss| (loss.label(), spool.map_or(0, |spool| spool.lost_by(*loss)))));
        losses
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ask for Status {
    fn alive(&self) -> bool {
        self.alive.load(Relaxed)
    }

    fn unready(&self) -> Option<&'static str> {
        let known = self.known();
        if let Some(reason) = known.standing.unready() {
            return Some(reason);
        }
        if known.seen.hooks.is_empty() {
            return Some("the hooks are not attached yet");
        }
        // One that waits for another's end is as ready as it can be: without a bundle in the cache, that one has none either.
        (known.bundle.is_none() && known.standing != Standing::Waiting)
            .then_some("no bundle is loaded: there is none in the cache, and none has come from the operator")
    }

    fn samples(&self, metric: Metric) -> Vec<Sample> {
        let known = self.known().clone();
        match metric {
            Metric::Losses => self.losses(&known).into_iter().map(|(cause, count)| Sample::of(cause, count)).collect(),
            Metric::SpoolAlerts => Sample::plain(self.spooled()),
            Metric::SpoolBytes => Sample::plain(self.spool.get().map_or(0, |spool| spool.bytes())),
            Metric::LinkConnected => Sample::plain(u64::from(self.link.connected())),
            Metric::BundleInfo => known.bundle.into_iter().map(|hash| Sample::of(hash, 1)).collect(),
            other => known.seen.samples(other),
        }
    }
}

/// Makes the reports for the operator.
pub struct Reporter {
    at: Instant,
    events: u64,
    per_second: f64,
}

impl Reporter {
    /// A reporter that has seen nothing yet.
    pub fn new() -> Self {
        Self { at: Instant::now(), events: 0, per_second: 0.0 }
    }

    /// A report of what was seen last.
    pub fn report(&mut self, status: &Status) -> proto::NodeReport {
        let known = status.known().clone();
        let events = known.seen.counters.as_ref().map_or(0, |counters| counters.events.load(Relaxed));
        let elapsed = self.at.elapsed().as_secs_f64();
        // A report that follows at once has nothing to divide.
        if elapsed >= 1.0 {
            self.per_second = (events - self.events) as f64 / elapsed;
            (self.at, self.events) = (Instant::now(), events);
        }
        let losses = status.losses(&known);
        let expired = [Loss::HoldExpired, Loss::HoldFull].map(Loss::label);
        let facts_expired = losses.iter().filter(|(name, _)| expired.contains(name)).map(|(_, count)| count).sum();
        let losses: HashMap<_, _> =
            losses.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect();
        proto::NodeReport {
            events_per_second: self.per_second,
            events,
            losses,
            spooled: status.spooled(),
            memory_bytes: memory(),
            hooks: known.seen.hooks,
            facts_expired,
        }
    }
}

/// Whether two reports differ in what the operator wants to know at once.
pub fn differs(one: &proto::NodeReport, other: &proto::NodeReport) -> bool {
    one.hooks != other.hooks || one.losses != other.losses
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;
    use crate::{agent::link::LinkStatus, health::serve};

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer
    }

    #[tokio::test]
    async fn a_sensor_that_has_not_started_is_alive_and_says_what_it_waits_for() {
        let status = Arc::new(Status::new(Arc::new(LinkStatus::default())));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let server = tokio::spawn(serve(listener, status.clone()));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("hooks"), "{ready}");
        status.stands(Standing::Preparing);
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("hand over"), "{ready}");
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("\ngyrfalcon_sensor_link_connected 0\n"), "{metrics}");
        assert!(metrics.contains("gyrfalcon_sensor_losses_total{cause=\"spool_full\"} 0\n"), "{metrics}");
        server.abort();
    }
}
