//! The HTTPS end of the API server's audit webhook.
//!
//! Only clients with a certificate of the given authority get as far as HTTP. A request is answered with 200 when all of its
//! events are in the queue, and with 429 and `Retry-After` when there is no room for them: the API server then sends them
//! again, and keeps them meanwhile.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use link::chain;

use super::{
    body,
    metrics::{Counters, Loss},
    queue::{Batch, Queue, Work},
};

/// How long a client has for the TLS handshake, and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client has for a body.
const BODY: Duration = Duration::from_secs(30);
/// Connections at once: each API server has a few.
const CONNECTIONS: usize = 200;
/// How often the files with certificates are looked at.
const FILES: Duration = Duration::from_secs(10);
/// When a client that was turned away should come again, in seconds.
const RETRY_AFTER: &str = "1";

/// Files of the TLS end.
#[derive(Debug, Clone)]
pub struct Files {
    /// Certificate that is shown, and those that signed it; PEM.
    pub certificate: PathBuf,
    /// Its key; PEM.
    pub key: PathBuf,
    /// Authorities of clients; PEM.
    pub client_ca: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is of no use.
    #[error("cannot use {}: {reason}; `gyrfalcon audit certificates` makes a set that fits", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate and its key do not fit, or clients cannot be checked.
    #[error("cannot serve with these certificates")]
    Config(#[source] rustls::Error),
}

impl Files {
    /// Whether they are of use.
    ///
    /// # Errors
    /// When they are not.
    pub fn check(&self) -> Result<(), TlsError> {
        self.config().map(drop)
    }

    fn config(&self) -> Result<ServerConfig, TlsError> {
        let failed = |path: &Path, reason: String| TlsError::File { path: path.to_owned(), reason };
        let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, TlsError> {
            let read = CertificateDer::pem_file_iter(path).map_err(|error| failed(path, error.to_string()))?;
            let read: Result<Vec<_>, _> = read.collect();
            let read = read.map_err(|error| failed(path, error.to_string()))?;
            if read.is_empty() { Err(failed(path, "there is no certificate in it".to_owned())) } else { Ok(read) }
        };
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| failed(&self.key, error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.client_ca)? {
            roots.add(authority).map_err(|error| failed(&self.client_ca, error.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| failed(&self.client_ca, error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Config)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(TlsError::Config)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn changed(&self) -> Vec<Option<SystemTime>> {
        let files = [&self.certificate, &self.key, &self.client_ca];
        files.into_iter().map(|file| std::fs::metadata(file).and_then(|data| data.modified()).ok()).collect()
    }
}

/// What requests are answered with.
#[derive(Clone)]
pub struct Intake {
    /// Where events go.
    pub queue: Queue,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Largest body in bytes.
    pub max_body: usize,
}

/// Serves until the task is dropped. Changed certificates are taken up for new connections.
///
/// # Errors
/// When the certificates are of no use at the start.
pub async fn serve(listener: TcpListener, files: Files, intake: Intake) -> Result<(), TlsError> {
    let current = Arc::new(RwLock::new(Arc::new(files.config()?)));
    tokio::spawn(follow(files, Arc::clone(&current)));
    let router = Router::new().route("/", post(take)).route("/k8s-audit", post(take)).with_state(intake);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(BODY).keep_alive_timeout(BODY);
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(error = %chain(&error), "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner)));
        let (builder, router) = (builder.clone(), router.clone());
        tokio::spawn(async move {
            let _place = place;
            let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return warn!(%client, error = %chain(&error), "client refused"),
                Err(_) => return debug!(%client, "a client took too long to shake hands"),
            };
            let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
            if let Err(error) = served {
                debug!(%client, error = &*error, "a connection broke");
            }
        });
    }
}

/// Takes up certificates that were renewed.
async fn follow(files: Files, current: Arc<RwLock<Arc<ServerConfig>>>) {
    let mut seen = files.changed();
    loop {
        tokio::time::sleep(FILES).await;
        let now = files.changed();
        if now == seen {
            continue;
        }
        seen = now;
        match files.config() {
            Ok(config) => {
                *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                info!("new certificates are in use");
            }
            Err(error) => warn!(error = %chain(&error), "new certificates are of no use: those before go on"),
        }
    }
}

/// One request.
async fn take(State(intake): State<Intake>, headers: HeaderMap, body: Body) -> Response {
    let content = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content.contains("application/json") {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "events come as application/json\n").into_response();
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    // Without a length it may be anything up to the limit.
    let expected = length.unwrap_or(intake.max_body);
    if expected > intake.max_body {
        return too_large(&intake, expected);
    }
    let Some(room) = intake.queue.room(expected) else {
        intake.counters.refused.inc();
        // A connection whose request is not read to its end is closed, and a client of HTTP/1.1 that still sends may see no more
        // than that: not that it should come again, nor when.
        drop(timeout(BODY, discard(body)).await);
        let text = "the queue is full: send these events again\n";
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, RETRY_AFTER)], text).into_response();
    };
    let text = match timeout(BODY, read(body, expected)).await {
        Ok(Ok(Some(text))) => text,
        Ok(Ok(None)) => return too_large(&intake, expected),
        Ok(Err(error)) => return (StatusCode::BAD_REQUEST, format!("the body broke off: {error}\n")).into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body took too long\n").into_response(),
    };
    let events = match body::events(&text) {
        Ok(events) => events,
        Err(error) => {
            intake.counters.lose(Loss::BodyMalformed);
            warn!(error = %chain(&error), bytes = text.len(), "a request holds no audit events");
            return (StatusCode::BAD_REQUEST, format!("no audit events: {error}\n")).into_response();
        }
    };
    let batch = Batch { text, events, received_ns: now_ns(), room };
    if !intake.queue.give(Work::Batch(batch)) {
        let text = "the receiver is ending: send these events again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER)], text).into_response();
    }
    intake.counters.requests.inc();
    (StatusCode::OK, "").into_response()
}

fn too_large(intake: &Intake, bytes: usize) -> Response {
    intake.counters.lose(Loss::BodyTooLarge);
    let limit = intake.max_body;
    warn!(
        bytes,
        limit,
        "a request is too large: its events are lost; see --max-body-mib, or --audit-webhook-batch-max-size of the API server"
    );
    let text = format!("{bytes} bytes are more than the {limit} of --max-body-mib; send smaller batches\n");
    (StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
}

/// Reads a body that nobody wants, as far as it comes.
async fn discard(body: Body) {
    let mut chunks = body.into_data_stream();
    while let Some(Ok(_)) = chunks.next().await {}
}

/// Reads a body; `None` when it is longer than it may be.
async fn read(body: Body, most: usize) -> Result<Option<Vec<u8>>, axum::Error> {
    let mut text = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if text.len() + chunk.len() > most {
            return Ok(None);
        }
        text.extend_from_slice(&chunk);
    }
    Ok(Some(text))
}

/// Unix time in nanoseconds.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Opens the port.
pub async fn bind(address: std::net::SocketAddr, flag: &'static str) -> Result<TcpListener, Listen> {
    TcpListener::bind(address).await.map_err(|source| Listen { address, flag, source })
}

/// The address is of no use.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; see {flag}")]
pub struct Listen {
    address: std::net::SocketAddr,
    flag: &'static str,
    #[source]
    source: io::Error,
}
