//! Between an operator and the API server: passes everything on, or refuses it as an API server does that has too much
//! to do.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Result;
use axum::{
    Json, Router,
    extract::State,
    http::{Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use kube::{Client, client::Body};
use serde_json::json;

/// Largest request.
const BODY_BYTES: usize = 8 << 20;

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refuse {
    /// Nothing.
    Nothing,
    /// What changes something, but for the Lease.
    Writes,
    /// Everything.
    Everything,
}

/// The way to the API server that can be made narrow.
pub struct Throttle {
    /// For an operator that is to go this way.
    pub kubeconfig: PathBuf,
    gate: Gate,
}

#[derive(Clone)]
struct Gate {
    client: Client,
    refuse: Arc<AtomicU8>,
    refused: Arc<AtomicU64>,
}

impl Throttle {
    /// Lets everything pass. What passes is done in the name of this client.
    pub async fn start(client: Client, folder: &Path) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let kubeconfig = folder.join("throttle.kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": format!("http://{}", listener.local_addr()?)}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
            "users": [{"name": "here", "user": {}}],
        });
        std::fs::write(&kubeconfig, config.to_string())?;
        let gate = Gate { client, refuse: Arc::default(), refused: Arc::default() };
        let router = Router::new().fallback(pass).with_state(gate.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { kubeconfig, gate })
    }

    /// From now on.
    pub fn set(&self, refuse: Refuse) {
        self.gate.refuse.store(refuse as u8, Relaxed);
    }

    /// How many requests were refused.
    pub fn refused(&self) -> u64 {
        self.gate.refused.load(Relaxed)
    }
}

async fn pass(State(gate): State<Gate>, mut request: Request<axum::body::Body>) -> Response {
    let refuse = gate.refuse.load(Relaxed);
    let reads = request.method() == Method::GET || request.uri().path().contains("/leases/");
    if refuse == Refuse::Everything as u8 || (refuse == Refuse::Writes as u8 && !reads) {
        gate.refused.fetch_add(1, Relaxed);
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests", "code": 429,
            "message": "too many requests, please try again later",
        });
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], Json(status)).into_response();
    }
    for name in [header::HOST, header::AUTHORIZATION, header::CONNECTION] {
        request.headers_mut().remove(name);
    }
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    match gate.client.send(Request::from_parts(head, Body::from(body.to_vec()))).await {
        Ok(answer) => answer.map(axum::body::Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
