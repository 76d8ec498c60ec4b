//! A connection to the operator: TCP, TLS by the operator's own CA, HTTP/2.
//!
//! CA and token are read anew for each connection, because Kubernetes replaces both files while the sensor runs. The
//! certificate is checked against the operator's DNS name, whatever address is dialled.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint, Uri},
};

use super::SessionError;

/// Where the operator is and how it is recognised.
#[derive(Debug, Clone)]
pub struct Address {
    /// `HOST:PORT` that is dialled.
    pub dial: String,
    /// DNS name in the operator's certificate.
    pub name: String,
    /// PEM file with the CA certificates that are trusted.
    pub ca: PathBuf,
    /// File with the token that says who this sensor is.
    pub token: PathBuf,
}

/// How long the operator may take to answer anything before the session.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often a silent connection is probed, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Dials; `at` is used in place of the address when the leader is known.
pub async fn dial(address: &Address, at: Option<std::net::SocketAddr>) -> Result<Channel, SessionError> {
    let config = Arc::new(tls(address)?);
    let name = ServerName::try_from(address.name.clone())
        .map_err(|_| SessionError::Name { name: address.name.clone() })?
        .to_owned();
    let target = at.map_or_else(|| address.dial.clone(), |at| at.to_string());
    let uri: Uri =
        format!("https://{}", address.name).parse().map_err(|_| SessionError::Name { name: address.name.clone() })?;
    let dialled = target.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (config, name, target) = (Arc::clone(&config), name.clone(), target.clone());
        async move {
            let tcp = TcpStream::connect(&target).await?;
            tcp.set_nodelay(true)?;
            let tls = TlsConnector::from(config).connect(name, tcp).await?;
            Ok::<_, io::Error>(TokioIo::new(tls))
        }
    });
    let endpoint = Endpoint::from(uri)
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    let connecting = endpoint.connect_with_connector(connector);
    match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(source)) => Err(SessionError::Connect { address: dialled, source }),
        Err(_) => Err(SessionError::Silent { step: "the connection" }),
    }
}

/// The `authorization` of this sensor.
pub fn authorization(address: &Address) -> Result<MetadataValue<Ascii>, SessionError> {
    let path = || address.token.clone();
    let token =
        std::fs::read_to_string(&address.token).map_err(|source| SessionError::Token { path: path(), source })?;
    let invalid = |_| SessionError::Token { path: path(), source: io::ErrorKind::InvalidData.into() };
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim()).parse().map_err(invalid)?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(address: &Address) -> Result<ClientConfig, SessionError> {
    let failed = |reason: String| SessionError::Ca { path: address.ca.clone(), reason };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&address.ca).map_err(|error| failed(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
