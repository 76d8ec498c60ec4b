//! Hands the certificate of the moment to every new connection.

use std::{fmt, io, sync::Arc, sync::RwLock};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

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
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(material.leaf.certificate.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(material.leaf.key.as_bytes()).map_err(CertificateError::Pem)?;
        let key = CertifiedKey::from_der(chain.map_err(CertificateError::Pem)?, key, &ring::default_provider())
            .map_err(CertificateError::Key)?;
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Arc::new(key));
        Ok(())
    }

    /// Whether there is one.
    pub fn ready(&self) -> bool {
        self.current().is_some()
    }

    fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
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

/// Accepts TLS connections, each shaken hands with on a task of its own, so that a slow client holds up nobody.
///
/// At most `most` connections shake hands at one time, and each has ten seconds for it.
pub fn accept(
    listener: tokio::net::TcpListener,
    config: Arc<ServerConfig>,
    most: usize,
) -> tokio_stream::wrappers::ReceiverStream<io::Result<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>> {
    let (sender, streams) = tokio::sync::mpsc::channel(64);
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let shaking = Arc::new(tokio::sync::Semaphore::new(most));
    tokio::spawn(async move {
        loop {
            let permit = tokio::select! {
                permit = Arc::clone(&shaking).acquire_owned() => permit,
                () = sender.closed() => return,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: let some close.
                    tracing::warn!(error = %link::chain(&error), "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Small messages should not wait for more; a failure costs only time.
            let _ = stream.set_nodelay(true);
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                let shaken = tokio::time::timeout(std::time::Duration::from_secs(10), acceptor.accept(stream)).await;
                drop(permit);
                match shaken {
                    // The listener is gone: so is the program, soon.
                    Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
                    Ok(Err(error)) => tracing::debug!(error = %link::chain(&error), "no TLS with a client"),
                    Err(_) => tracing::debug!("a client took too long to shake hands"),
                }
            });
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(streams)
}
