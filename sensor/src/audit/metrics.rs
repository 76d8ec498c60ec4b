//! What the receiver counts, and `/healthz`, `/readyz`, `/metrics` about it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::net::TcpListener;

/// Why an event, or a request with events, was not judged, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// A request was larger than `--max-body-mib`: nothing of it was read.
    BodyTooLarge,
    /// A request was no JSON, or no events: answered with 400.
    BodyMalformed,
    /// An event was larger than `--max-event-kib`.
    EventTooLarge,
    /// An event was no JSON.
    EventMalformed,
    /// A document was something else than an audit event.
    NotAnEvent,
    /// Parts of an event were nested too deep or too many, and were left out; the rest was judged.
    EventCut,
    /// The file was cut or replaced before its end was read: what was missed is not known.
    FileTruncated,
}

impl Loss {
    /// Every loss.
    pub const ALL: [Self; 7] = [
        Self::BodyTooLarge,
        Self::BodyMalformed,
        Self::EventTooLarge,
        Self::EventMalformed,
        Self::NotAnEvent,
        Self::EventCut,
        Self::FileTruncated,
    ];

    /// The label `cause`.
    pub fn label(self) -> &'static str {
        match self {
            Self::BodyTooLarge => "body_too_large",
            Self::BodyMalformed => "body_malformed",
            Self::EventTooLarge => "event_too_large",
            Self::EventMalformed => "event_malformed",
            Self::NotAnEvent => "not_an_event",
            Self::EventCut => "event_cut",
            Self::FileTruncated => "file_truncated",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByCause {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByRule {
    rule: String,
}

/// What is counted, since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events that were judged.
    pub events: Counter,
    /// Alerts that rules made.
    pub alerts: Counter,
    /// Bytes of events that were judged.
    pub bytes: Counter,
    /// Requests whose events were all taken.
    pub requests: Counter,
    /// Requests that were told to come again: nothing is lost by that as long as the API server keeps them.
    pub refused: Counter,
    losses: Family<ByCause, Counter>,
    /// Events that a rule could not judge, by rule.
    pub(super) blind: Family<ByRule, Counter>,
    /// Bytes that wait to be judged.
    pub queued: Gauge<i64, AtomicI64>,
    /// Rules that run.
    pub rules: Gauge<i64, AtomicI64>,
    /// Unix time in nanoseconds of the last event.
    pub last_ns: AtomicU64,
    /// Rules are there and the port is open.
    pub ready: AtomicBool,
    /// The thread that judges runs.
    pub alive: AtomicBool,
}

impl Counters {
    /// Counts a loss.
    pub fn lose(&self, loss: Loss) {
        self.losses.get_or_create(&ByCause { cause: loss.label() }).inc();
    }

    /// Losses so far.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Loss::ALL.into_iter().map(|loss| {
            let count = self.losses.get(&ByCause { cause: loss.label() }).map_or(0, |counter| counter.get());
            (loss.label(), count)
        })
    }

    /// Counts an event that a rule could not judge; how many that makes.
    pub fn blind(&self, rule: &str) -> u64 {
        self.blind.get_or_create(&ByRule { rule: rule.to_owned() }).inc() + 1
    }

    fn registry(&self) -> Registry {
        for loss in Loss::ALL {
            drop(self.losses.get_or_create(&ByCause { cause: loss.label() }));
        }
        let mut registry = Registry::with_prefix("gyrfalcon_audit");
        registry.register("events", "Events that were judged", self.events.clone());
        registry.register("alerts", "Alerts that rules made", self.alerts.clone());
        registry.register("bytes", "Bytes of the events that were judged", self.bytes.clone());
        registry.register("requests", "Requests whose events were all taken", self.requests.clone());
        registry.register("refused", "Requests that were told to come again later", self.refused.clone());
        registry.register("losses", "Events and requests that were not judged, or not all of it", self.losses.clone());
        registry.register("blind", "Events that a rule could not judge at the level they came at", self.blind.clone());
        registry.register("queued_bytes", "Bytes of events that wait to be judged", self.queued.clone());
        registry.register("rules", "Rules that run", self.rules.clone());
        registry
    }
}

struct Page {
    counters: Arc<Counters>,
    registry: Registry,
}

/// Serves until the program ends.
pub async fn serve(listener: TcpListener, counters: Arc<Counters>) -> std::io::Result<()> {
    let registry = counters.registry();
    let router = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Page { counters, registry }));
    axum::serve(listener, router).await
}

async fn healthy(State(page): State<Arc<Page>>) -> (StatusCode, &'static str) {
    match page.counters.alive.load(Relaxed) {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "the thread that judges has ended\n"),
    }
}

async fn ready(State(page): State<Arc<Page>>) -> (StatusCode, &'static str) {
    match page.counters.ready.load(Relaxed) {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no rules are loaded yet\n"),
    }
}

async fn metrics(State(page): State<Arc<Page>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &page.registry) {
        Ok(()) => {
            let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
