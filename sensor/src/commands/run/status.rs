//! How a standalone sensor does, for Prometheus and whoever watches over it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use sinks::SinkCounters;
use tokio::net::TcpListener;

use crate::{
    health::{
        self, Ask, Listen, Seen,
        metrics::{Metric, Sample},
    },
    sensor::{Failed, Sensor},
};

/// What others may ask.
#[derive(Default)]
pub struct Status {
    /// The event loop has ended.
    ended: AtomicBool,
    known: Mutex<(Seen, Vec<SinkCounters>)>,
}

impl Status {
    /// Looks at the running sensor.
    pub fn look(&self, sensor: &Sensor, sinks: Vec<SinkCounters>) {
        self.ended.store(!sensor.alive(), Relaxed);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.look(sensor);
        known.1 = sinks;
    }
}

impl Ask for Status {
    fn alive(&self) -> bool {
        !self.ended.load(Relaxed)
    }

    fn unready(&self) -> Option<&'static str> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.hooks.is_empty().then_some("the hooks are not attached yet")
    }

    fn samples(&self, metric: Metric) -> Vec<Sample> {
        let (seen, sinks) = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_sinks = |value: fn(&SinkCounters) -> u64| {
            sinks.iter().map(|sink| Sample::of(sink.id.to_string(), value(sink))).collect()
        };
        match metric {
            Metric::SinkQueue => of_sinks(|sink| sink.queued),
            Metric::SinkSent => of_sinks(|sink| sink.sent),
            Metric::SinkDropped => of_sinks(SinkCounters::dropped_total),
            other => seen.samples(other),
        }
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` on a thread of its own, as long as the program runs.
pub fn serve(address: SocketAddr, status: &Arc<Status>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(|source| Listen { address, source })?;
    let status: Arc<dyn Ask> = status.clone();
    thread::Builder::new()
        .name("health".to_owned())
        .spawn(move || runtime.block_on(health::serve(listener, status)))?;
    Ok(())
}
