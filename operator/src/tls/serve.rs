//! Hands the certificate of the moment to every new connection.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    BoxError,
    body::HttpBody as Body,
    http::{Request, Response},
};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tracing::{debug, warn};

use super::rotation::Material;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The text isn't PEM.
    #[error("the certificate or its key cannot be read")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// The key doesn't fit.
    #[error("the certificate cannot be used")]
    Key(#[source] rustls::Error),
}

/// The certificate that listeners show. It can be replaced at any time; connections that are open keep theirs.
#[derive(Clone, Default)]
pub struct Certificates(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// From now on, show this one.
    ///
    /// # Errors
    /// When it cannot be used; then the one before stays.
    pub fn set(&self, material: &Material) -> Result<(), CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(material.leaf.certificate.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(material.leaf.key.as_bytes()).map_err(CertificateError::Pem)?;
        let key = CertifiedKey::from_der(chain.map_err(CertificateError::Pem)?, key, &ring::default_provider())
            .map_err(CertificateError::Key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(key));
        Ok(())
    }

    /// Whether there is one.
    pub fn ready(&self) -> bool {
        self.current().is_some()
    }

    fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Configuration of a TLS listener that speaks these protocols.
    ///
    /// # Errors
    /// When the cryptography lacks what TLS needs, which it doesn't.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// How long a client has for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often an idle HTTP/2 connection is asked whether it is still there, and how long it has to answer.
const PING: Duration = Duration::from_secs(15);

/// What a client may send ahead in one stream, in bytes: a thousand sensors that all do cost 32 MiB, and as much again for the
/// book-keeping of small frames. At a round trip of 10 ms it is 3 MiB/s, some thousand alerts.
const STREAM_BYTES: u32 = 32 << 10;
/// What is written ahead for a client that reads slowly, in bytes, beyond the message in hand.
const SEND_BYTES: usize = 64 << 10;

/// Serves HTTP over TLS until the listener's task is dropped: every connection on a task of its own, so that a slow or
/// silent client holds up nobody. There are never more than `most` connections; others wait to be accepted.
pub async fn http<S, B>(listener: TcpListener, config: Arc<ServerConfig>, most: usize, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(config);
    let places = Arc::new(Semaphore::new(most));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .initial_stream_window_size(STREAM_BYTES)
        .initial_connection_window_size(2 * STREAM_BYTES)
        .max_send_buf_size(SEND_BYTES);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: let some connections end.
                warn!(error = %link::chain(&error), "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Small messages should not wait for more; a failure costs only time.
        let _ = stream.set_nodelay(true);
        let (acceptor, builder, service) = (acceptor.clone(), builder.clone(), service.clone());
        tokio::spawn(async move {
            let _place = place;
            let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return debug!(error = %link::chain(&error), "no TLS with a client"),
                Err(_) => return debug!("a client took too long to shake hands"),
            };
            let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
            if let Err(error) = served {
                debug!(error = &*error, "a connection broke");
            }
        });
    }
}
