//! Alerts as HTTP requests.
//!
//! The client is asynchronous, the sink is not: each webhook has a runtime of its own on its own thread, which runs only
//! while a request does. TLS is rustls with ring, chosen here and not process-wide, so that a host without
//! certificate authorities can still call plain HTTP, and one webhook's `caFile` is nobody else's.

use std::{
    error::Error,
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use api::sink::{Method, WebhookSink};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
    redirect,
};
use rules::alert::Alert;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem, pem::PemObject},
};
use tokio::runtime::{Builder, Runtime};

use crate::{Loss, SendError, Sink, sink::Again};

pub(crate) const DOC: &str = "Each alert is one HTTP request with Falco's JSON as its body. Statuses 2xx mean delivered. \
    408, 425, 429, 5xx except 501 and 505, and no answer at all are retried; `Retry-After` is honoured up to \
    `retry.maxBackoff`. Every other status, redirects included, refuses the alert for good. The body of the answer is \
    ignored. Proxies are taken from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Authorities are those that the system \
    trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), or those of `caFile`.";

/// An answer's body is read up to here, so that the connection can be used again.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// And for so long.
const MAX_BODY_TIME: Duration = Duration::from_millis(500);
/// Shorter than what servers commonly use: better a new connection than one that is being closed at the other end.
const IDLE: Duration = Duration::from_secs(10);

/// A receiver of HTTP requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Where to send.
    pub url: Url,
    /// POST or PUT.
    pub method: Method,
    /// All headers.
    pub headers: HeaderMap,
    /// Authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// Why a webhook cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookConfigError {
    /// No address.
    #[error("url: missing")]
    NoUrl,
    /// Not an address.
    #[error("url: {reason}")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// Not a header.
    #[error("headers: `{name}` or its value cannot be sent")]
    Header {
        /// Name of the header.
        name: String,
    },
}

impl WebhookConfig {
    /// The configuration that a spec describes, with its defaults.
    pub fn new(spec: &WebhookSink) -> Result<Self, WebhookConfigError> {
        let url = spec.url.as_deref().ok_or(WebhookConfigError::NoUrl)?;
        let url = Url::parse(url).map_err(|error| WebhookConfigError::Url { reason: error.to_string() })?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("gyrfalcon/", env!("CARGO_PKG_VERSION"))));
        for header in &spec.headers {
            let wrong = || WebhookConfigError::Header { name: header.name.clone() };
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| wrong())?;
            headers.insert(name, HeaderValue::from_str(&header.value).map_err(|_| wrong())?);
        }
        let method = spec.method.unwrap_or(Method::Post);
        Ok(Self { url, method, headers, ca_file: spec.ca_file.as_ref().map(PathBuf::from) })
    }

    /// The address for messages: what comes after `?` is nobody's business.
    fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }
}

/// Why an alert was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The thread's runtime cannot be started.
    #[error("cannot start the client")]
    Runtime {
        /// The system's reason.
        source: io::Error,
    },
    /// The file of authorities cannot be read.
    #[error("cannot read the authorities in {}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file of authorities has none that can be used.
    #[error("no usable certificate in {}", path.display())]
    NoCa {
        /// The file.
        path: PathBuf,
    },
    /// The system trusts nobody.
    #[error("this host has no certificate authorities, needed for {url}")]
    NoSystemCa {
        /// Where to send.
        url: String,
    },
    /// The client cannot be made.
    #[error("cannot set up the client")]
    Client {
        /// The library's reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No connection.
    #[error("cannot connect to {url}")]
    Connect {
        /// Where to send.
        url: String,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// A connection, but not to who it should be.
    #[error("{url} has no certificate that can be trusted")]
    Untrusted {
        /// Where to send.
        url: String,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// No answer in time.
    #[error("{url} did not answer within {}ms", timeout.as_millis())]
    Timeout {
        /// Where to send.
        url: String,
        /// The time it had.
        timeout: Duration,
    },
    /// The connection broke.
    #[error("no answer from {url}")]
    Broken {
        /// Where to send.
        url: String,
        /// The library's reason.
        source: reqwest::Error,
    },
    /// An answer that is no success.
    #[error("{url} answered {status}")]
    Status {
        /// Where to send.
        url: String,
        /// The answer.
        status: StatusCode,
        /// How long to wait before the next attempt, if the answer said so.
        retry_after: Option<Duration>,
    },
}

impl WebhookError {
    /// Whether another attempt makes sense.
    pub fn again(&self) -> Again {
        match self {
            Self::Status { status, retry_after, .. } if worth_another_attempt(*status) => {
                retry_after.map_or(Again::Later, Again::After)
            }
            Self::Status { .. } => Again::Never(Loss::Refused),
            Self::Runtime { .. }
            | Self::CaFile { .. }
            | Self::NoCa { .. }
            | Self::NoSystemCa { .. }
            | Self::Client { .. }
            | Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. } => Again::Later,
        }
    }

    /// What the user can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Runtime { .. } | Self::Client { .. } => "see the reason",
            Self::CaFile { .. } | Self::NoCa { .. } => "put PEM certificates into the file of spec.webhook.caFile",
            Self::NoSystemCa { .. } => "install the package ca-certificates, or set spec.webhook.caFile",
            Self::Connect { .. } => "check spec.webhook.url, and that the receiver runs and this node can reach it",
            Self::Untrusted { .. } => "check the receiver's certificate, or set spec.webhook.caFile to its authority",
            Self::Timeout { .. } => "see what holds up the receiver, or raise spec.timeout",
            Self::Broken { .. } => "see why the receiver closed the connection",
            Self::Status { status, .. } => status_remedy(*status),
        }
    }
}

fn worth_another_attempt(status: StatusCode) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        _ => status.is_server_error(),
    }
}

fn status_remedy(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            "the receiver wants credentials; send to one that does not, or through a proxy that adds them"
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => "check the path of spec.webhook.url",
        StatusCode::METHOD_NOT_ALLOWED => "check spec.webhook.method",
        StatusCode::TOO_MANY_REQUESTS => "send fewer alerts: see spec.match",
        _ if status.is_redirection() => "redirects are not followed; put the final address into spec.webhook.url",
        _ if status.is_server_error() => "see the receiver's log",
        _ => "see what the receiver expects; alerts are JSON objects in the form of Falco",
    }
}

/// An HTTP receiver.
pub(crate) struct Webhook {
    config: WebhookConfig,
    timeout: Duration,
    ready: Option<Ready>,
}

struct Ready {
    // Dropped before the runtime that drives its connections.
    client: Client,
    runtime: Runtime,
}

impl Webhook {
    pub fn new(config: WebhookConfig, timeout: Duration) -> Self {
        Self { config, timeout, ready: None }
    }

    fn make_ready(config: &WebhookConfig, timeout: Duration) -> Result<Ready, WebhookError> {
        // Looking up a name blocks a thread; one that hangs must not keep the next look-up from being tried.
        let runtime = Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(4).build();
        let client = Client::builder()
            .tls_backend_preconfigured(tls(config)?)
            .redirect(redirect::Policy::none())
            .default_headers(config.headers.clone())
            .timeout(timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build();
        Ok(Ready {
            client: client.map_err(|source| WebhookError::Client { source: source.into() })?,
            runtime: runtime.map_err(|source| WebhookError::Runtime { source })?,
        })
    }
}

impl Sink for Webhook {
    fn prepare(&mut self) -> Result<(), SendError> {
        if self.ready.is_none() {
            self.ready = Some(Self::make_ready(&self.config, self.timeout)?);
        }
        Ok(())
    }

    fn send(&mut self, alert: &Alert) -> Result<(), SendError> {
        let ready = match &self.ready {
            Some(ready) => ready,
            None => self.ready.insert(Self::make_ready(&self.config, self.timeout)?),
        };
        // A map with text keys and JSON values always has a JSON form.
        let body = serde_json::to_vec(alert).unwrap_or_default();
        let delivered = ready.runtime.block_on(deliver(&ready.client, &self.config, body));
        delivered.map_err(|error| error.with_timeout(self.timeout).into())
    }

    fn reopen(&mut self) {}
}

impl WebhookError {
    fn with_timeout(mut self, limit: Duration) -> Self {
        if let Self::Timeout { timeout, .. } = &mut self {
            *timeout = limit;
        }
        self
    }
}

async fn deliver(client: &Client, config: &WebhookConfig, body: Vec<u8>) -> Result<(), WebhookError> {
    let method = match config.method {
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
    };
    let response = client.request(method, config.url.clone()).body(body).send().await;
    let response = response.map_err(|error| failure(config.shown(), error))?;
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| wait_asked(value, SystemTime::now()));
    // How the body ends does not matter: the status has decided.
    let _ = tokio::time::timeout(MAX_BODY_TIME, skip_body(response)).await;
    match status.is_success() {
        true => Ok(()),
        false => Err(WebhookError::Status { url: config.shown(), status, retry_after }),
    }
}

async fn skip_body(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_BODY_BYTES {
            return;
        }
    }
}

fn failure(url: String, error: reqwest::Error) -> WebhookError {
    let source = error.without_url();
    if source.is_timeout() {
        // Filled in by the caller, who knows how long that was.
        return WebhookError::Timeout { url, timeout: Duration::ZERO };
    }
    if distrusted(&source) {
        return WebhookError::Untrusted { url, source };
    }
    match source.is_connect() {
        true => WebhookError::Connect { url, source },
        false => WebhookError::Broken { url, source },
    }
}

/// Whether the cause of an error is the certificate at the other end.
fn distrusted(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // An error inside of an io::Error is not its source; its source is the source of that.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// The wait that `Retry-After` asks for, in seconds or as a date.
fn wait_asked(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn tls(config: &WebhookConfig) -> Result<ClientConfig, WebhookError> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            let failed = |source| WebhookError::CaFile { path: path.clone(), source };
            let text = fs::read(path).map_err(|error| failed(pem::Error::Io(error)))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                roots.add_parsable_certificates([certificate.map_err(failed)?]);
            }
            if roots.is_empty() {
                return Err(WebhookError::NoCa { path: path.clone() });
            }
        }
        None if config.url.scheme() == "https" => {
            // Some of the system's certificates may be unusable; those that are must be enough.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(WebhookError::NoSystemCa { url: config.shown() });
            }
        }
        None => {}
    }
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| WebhookError::Client { source: source.into() })?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> WebhookConfig {
        let spec = WebhookSink { url: Some(url.into()), ..WebhookSink::default() };
        WebhookConfig::new(&spec).expect("a webhook")
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let wait = |text: &str| wait_asked(&HeaderValue::from_str(text).expect("a value"), now);
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-1"), None);
    }

    #[test]
    fn statuses_that_pass_by_themselves_are_worth_another_attempt() {
        for (status, want) in [
            (408, true),
            (425, true),
            (429, true),
            (500, true),
            (503, true),
            (501, false),
            (301, false),
            (400, false),
            (404, false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(worth_another_attempt(status), want, "{status}");
        }
    }

    #[test]
    fn messages_do_not_show_what_may_be_secret() {
        assert_eq!(config("https://host/path?token=x#y").shown(), "https://host/path");
    }

    #[test]
    fn the_system_or_a_file_says_whom_to_trust() {
        // `http` needs nobody.
        assert!(tls(&config("http://host/")).is_ok());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ca.pem");
        let config = WebhookConfig { ca_file: Some(path.clone()), ..config("https://host/") };
        assert!(matches!(tls(&config), Err(WebhookError::CaFile { .. })));
        fs::write(&path, "no certificate here").expect("written");
        assert!(matches!(tls(&config), Err(WebhookError::NoCa { .. })));
    }
}
