//! `/healthz`, `/readyz` and `/metrics`, over plain HTTP for the kubelet and Prometheus.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use super::{metrics, status::Status};

/// Serves until the program ends.
pub async fn serve(listener: TcpListener, status: Arc<Status>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(status);
    axum::serve(listener, router).await
}

async fn healthy(State(status): State<Arc<Status>>) -> (StatusCode, &'static str) {
    if status.alive.load(Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, "the event loop has ended\n")
    }
}

async fn ready(State(status): State<Arc<Status>>) -> (StatusCode, String) {
    match status.unready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> Response {
    match metrics::text(|metric| status.samples(metric)) {
        Ok(text) => {
            let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::agent::{
        link::LinkStatus,
        spool::{self, Limits},
    };

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
        let folder = tempfile::tempdir().expect("a folder");
        let (spool, _, writer) = spool::start(folder.path(), Limits::mib(1)).expect("a spool");
        let status = Arc::new(Status::new(spool, Arc::new(LinkStatus::default())));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket");
        let server = tokio::spawn(serve(listener, status));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let ready = get(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("hooks"), "{ready}");
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("\ngyrfalcon_sensor_link_connected 0\n"), "{metrics}");
        assert!(metrics.contains("gyrfalcon_sensor_losses_total{cause=\"spool_full\"} 0\n"), "{metrics}");
        server.abort();
        writer.stop();
    }
}
