//! `/healthz`, `/readyz` and `/metrics`, over plain HTTP for the kubelet and Prometheus.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch};

use crate::{leader::Leadership, tls::Certificates};

/// What readiness depends on.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// Everything has been listed once.
    pub synced: Arc<AtomicBool>,
    /// There is a certificate to show.
    pub certificates: Certificates,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
}

#[derive(Clone)]
struct Served {
    readiness: Readiness,
    registry: Arc<Registry>,
}

/// Serves until the program ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, readiness: Readiness, registry: Registry) -> std::io::Result<()> {
    let served = Served { readiness, registry: Arc::new(registry) };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(served);
    axum::serve(listener, router).await
}

async fn ready(State(served): State<Served>) -> (StatusCode, &'static str) {
    if !served.readiness.synced.load(Relaxed) {
        let text = "the API server has not told everything yet: which sinks, secrets and rules there are is not known; \
                    alerts stay in the outbox and with the sensors until it has\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    if !served.readiness.certificates.ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "there are no certificates yet\n");
    }
    if *served.readiness.leadership.borrow() == Leadership::Unsure {
        let text = "the API server does not answer: alerts of connected sensors go on to their sinks; statuses, Events, new \
                    rules and new sessions wait until it does\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    (StatusCode::OK, "ok\n")
}

async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &served.registry) {
        Ok(()) => {
            let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
