//! `/healthz`, `/readyz` and `/metrics`, over plain HTTP for the kubelet and Prometheus.

pub mod metrics;
mod seen;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use self::metrics::{Metric, Sample};
pub use self::seen::{Seen, memory};

/// Who is asked.
pub trait Ask: Send + Sync + 'static {
    /// Whether the event loop runs.
    fn alive(&self) -> bool;

    /// Why the sensor is not ready, if it is not.
    fn unready(&self) -> Option<&'static str>;

    /// The values of a metric; none where it has none.
    fn samples(&self, metric: Metric) -> Vec<Sample>;
}

/// The address is of no use.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; see --health-listen")]
pub struct Listen {
    /// The address.
    pub address: std::net::SocketAddr,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Serves until the program ends.
pub async fn serve(listener: TcpListener, status: Arc<dyn Ask>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(status);
    axum::serve(listener, router).await
}

async fn healthy(State(status): State<Arc<dyn Ask>>) -> (StatusCode, &'static str) {
    if status.alive() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, "the event loop has ended\n")
    }
}

async fn ready(State(status): State<Arc<dyn Ask>>) -> (StatusCode, String) {
    match status.unready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(status): State<Arc<dyn Ask>>) -> Response {
    match metrics::text(|metric| status.samples(metric)) {
        Ok(text) => {
            let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
