//! Requests over HTTP, for all sinks that send them.
//!
//! The client is asynchronous, the sinks are not: each has a runtime of its own on its own thread, which runs only
//! while a request does. TLS is rustls with ring, chosen here and not process-wide, so that a host without
//! certificate authorities can still call plain HTTP, and one sink's authorities are nobody else's.

use std::{
    error::Error,
    fmt, fs, io,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use api::{condition::Reason, sink::Method};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT},
    redirect,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem, pem::PemObject},
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Loss,
    guard::{self, Forbidden, Guarded},
    sink::Again,
};

/// An answer's body is read up to here, so that the connection can be used again.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// And for so long.
const MAX_BODY_TIME: Duration = Duration::from_millis(500);
/// Shorter than what servers commonly use: better a new connection than one that is being closed at the other end.
const IDLE: Duration = Duration::from_secs(10);

/// Whom to trust besides nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Those that the system trusts.
    System,
    /// Those in a file.
    File(PathBuf),
    /// These, as PEM, from an object that a field of the spec names.
    Pem {
        /// The certificates.
        text: String,
        /// The field.
        field: &'static str,
    },
}

/// Where to send, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to send.
    pub url: Url,
    /// The address itself is a secret.
    pub secret_url: bool,
    /// POST or PUT.
    pub method: Method,
    /// All headers.
    pub headers: HeaderMap,
    /// Whom to trust.
    pub authorities: Authorities,
    /// Addresses of the host and of its cloud are refused: see [`crate::guard`].
    pub guarded: bool,
}

impl Endpoint {
    /// A POST of JSON.
    pub fn new(url: Url, secret_url: bool) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("gyrfalcon/", env!("CARGO_PKG_VERSION"))));
        let authorities = Authorities::System;
        Self { url, secret_url, method: Method::Post, headers, authorities, guarded: false }
    }

    /// The address for messages: what comes after `?` is nobody's business, nor is a path that is a secret.
    pub(crate) fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Only addresses without a host refuse that.
        let _ = (url.set_username(""), url.set_password(None));
        if self.secret_url {
            url.set_path("/…");
            return url.to_string().replace("%E2%80%A6", "…");
        }
        url.into()
    }
}

/// Why an alert was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
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
    /// What should be authorities has none that can be used.
    #[error("no usable certificate in {place}")]
    NoCa {
        /// The file, or the field that names an object.
        place: String,
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
    /// An address where sinks of namespaces may not send.
    #[error("{url}: {source}, where a namespace's sink may not send")]
    Forbidden {
        /// Where to send.
        url: String,
        /// The address.
        source: Forbidden,
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

impl HttpError {
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
            | Self::Forbidden { .. }
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
            Self::CaFile { .. } | Self::NoCa { .. } => "put PEM certificates there",
            Self::NoSystemCa { .. } => "install the package ca-certificates, or set caFile or caRef",
            Self::Forbidden { .. } => {
                "send to a Service or an outside address, use a ClusterAlertSink, or run the operator with \
                 --allow-local-sinks"
            }
            Self::Connect { .. } => "check the address, and that the receiver runs and can be reached from here",
            Self::Untrusted { .. } => "check the receiver's certificate, or set caFile or caRef to its authority",
            Self::Timeout { .. } => "see what holds up the receiver, or raise spec.timeout",
            Self::Broken { .. } => "see why the receiver closed the connection",
            Self::Status { status, .. } => status_remedy(*status),
        }
    }

    /// The stable word for it.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Runtime { .. }
            | Self::CaFile { .. }
            | Self::NoCa { .. }
            | Self::NoSystemCa { .. }
            | Self::Client { .. }
            | Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. } => Reason::Unreachable,
            Self::Forbidden { .. } => Reason::Refused,
            Self::Status { status, .. } => match *status {
                StatusCode::TOO_MANY_REQUESTS => Reason::RateLimited,
                status if wants_credentials(status) => Reason::AuthFailed,
                status if worth_another_attempt(status) => Reason::Unreachable,
                _ => Reason::Refused,
            },
        }
    }

    /// Status of the answer, where there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(status.as_u16()),
            Self::Runtime { .. }
            | Self::CaFile { .. }
            | Self::NoCa { .. }
            | Self::NoSystemCa { .. }
            | Self::Client { .. }
            | Self::Forbidden { .. }
            | Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::Timeout { .. }
            | Self::Broken { .. } => None,
        }
    }
}

/// Who sends must be someone else, which a new Secret can bring about.
fn wants_credentials(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED)
}

/// Whether an answer is about the destination, and not about this one alert: somebody will see to it.
fn worth_another_attempt(status: StatusCode) -> bool {
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => true,
        // An address that is wrong, or not served yet.
        StatusCode::NOT_FOUND | StatusCode::GONE => true,
        _ if wants_credentials(status) => true,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => false,
        _ => status.is_server_error(),
    }
}

fn status_remedy(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            "check the credentials: the Secret that the sink names, or add spec.webhook.auth"
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => "check the path of the address",
        StatusCode::METHOD_NOT_ALLOWED => "check spec.webhook.method",
        StatusCode::TOO_MANY_REQUESTS => "send fewer alerts: see spec.match and spec.rateLimit",
        _ if status.is_redirection() => "redirects are not followed; send to the final address",
        _ if status.is_server_error() => "see the receiver's log",
        _ => "see what the receiver expects",
    }
}

impl fmt::Debug for Endpoint {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.shown()).field("method", &self.method).finish_non_exhaustive()
    }
}

/// Sends to one endpoint.
pub(crate) struct Sender {
    endpoint: Endpoint,
    timeout: Duration,
    ready: Option<Ready>,
}

struct Ready {
    // Dropped before the runtime that drives its connections.
    client: Client,
    runtime: Runtime,
}

impl Sender {
    pub fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        Self { endpoint, timeout, ready: None }
    }

    /// Makes the client, so that a mistake shows before there is something to send.
    pub fn prepare(&mut self) -> Result<(), HttpError> {
        if self.ready.is_none() {
            self.ready = Some(make_ready(&self.endpoint, self.timeout)?);
        }
        Ok(())
    }

    /// Sends one request.
    pub fn send(&mut self, body: Vec<u8>) -> Result<(), HttpError> {
        let ready = match &self.ready {
            Some(ready) => ready,
            None => self.ready.insert(make_ready(&self.endpoint, self.timeout)?),
        };
        let delivered = ready.runtime.block_on(deliver(&ready.client, &self.endpoint, body));
        delivered.map_err(|error| error.with_timeout(self.timeout))
    }
}

fn make_ready(endpoint: &Endpoint, timeout: Duration) -> Result<Ready, HttpError> {
    // Looking up a name blocks a thread; one that hangs must not keep the next look-up from being tried.
    let runtime = Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(4).build();
    let mut client = Client::builder()
        .tls_backend_preconfigured(tls(endpoint)?)
        .redirect(redirect::Policy::none())
        .default_headers(endpoint.headers.clone())
        .timeout(timeout)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(1);
    if endpoint.guarded {
        // A proxy would look up the name itself, and nobody the address.
        client = client.no_proxy().dns_resolver(Guarded::new());
    }
    Ok(Ready {
        client: client.build().map_err(|source| HttpError::Client { source: source.into() })?,
        runtime: runtime.map_err(|source| HttpError::Runtime { source })?,
    })
}

impl HttpError {
    fn with_timeout(mut self, limit: Duration) -> Self {
        if let Self::Timeout { timeout, .. } = &mut self {
            *timeout = limit;
        }
        self
    }
}

async fn deliver(client: &Client, endpoint: &Endpoint, body: Vec<u8>) -> Result<(), HttpError> {
    if endpoint.guarded
        && let Some(address) = literal(&endpoint.url)
    {
        guard::check(address).map_err(|source| HttpError::Forbidden { url: endpoint.shown(), source })?;
    }
    let method = match endpoint.method {
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
    };
    let response = client.request(method, endpoint.url.clone()).body(body).send().await;
    let response = response.map_err(|error| failure(endpoint.shown(), error))?;
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| wait_asked(value, SystemTime::now()));
    // How the body ends does not matter: the status has decided.
    let _ = tokio::time::timeout(MAX_BODY_TIME, skip_body(response)).await;
    match status.is_success() {
        true => Ok(()),
        false => Err(HttpError::Status { url: endpoint.shown(), status, retry_after }),
    }
}

/// The address of a host without a name, which nobody looks up.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
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

fn failure(url: String, error: reqwest::Error) -> HttpError {
    let source = error.without_url();
    if source.is_timeout() {
        // Filled in by the caller, who knows how long that was.
        return HttpError::Timeout { url, timeout: Duration::ZERO };
    }
    if let Some(source) = causes(&source).find_map(|cause| cause.downcast_ref::<Forbidden>()) {
        return HttpError::Forbidden { url, source: *source };
    }
    if causes(&source).any(|cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))) {
        return HttpError::Untrusted { url, source };
    }
    match source.is_connect() {
        true => HttpError::Connect { url, source },
        false => HttpError::Broken { url, source },
    }
}

/// An error and everything that caused it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // An error inside of an io::Error is not its source; its source is the source of that.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
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

fn tls(endpoint: &Endpoint) -> Result<ClientConfig, HttpError> {
    let mut roots = RootCertStore::empty();
    match &endpoint.authorities {
        Authorities::File(path) => {
            let failed = |source| HttpError::CaFile { path: path.clone(), source };
            let text = fs::read(path).map_err(|error| failed(pem::Error::Io(error)))?;
            for certificate in CertificateDer::pem_slice_iter(&text) {
                roots.add_parsable_certificates([certificate.map_err(failed)?]);
            }
            if roots.is_empty() {
                return Err(HttpError::NoCa { place: path.display().to_string() });
            }
        }
        Authorities::Pem { text, field } => {
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok));
            if roots.is_empty() {
                return Err(HttpError::NoCa { place: (*field).to_owned() });
            }
        }
        Authorities::System if endpoint.url.scheme() == "https" => {
            // Some of the system's certificates may be unusable; those that are must be enough.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(HttpError::NoSystemCa { url: endpoint.shown() });
            }
        }
        Authorities::System => {}
    }
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| HttpError::Client { source: source.into() })?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::new(Url::parse(url).expect("an address"), false)
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
            (404, true),
            (401, true),
            (403, true),
            (422, false),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(worth_another_attempt(status), want, "{status}");
        }
    }

    #[test]
    fn messages_do_not_show_what_may_be_secret() {
        assert_eq!(endpoint("https://host/path?token=x#y").shown(), "https://host/path");
        assert_eq!(Endpoint { secret_url: true, ..endpoint("https://host/T0/B0/x") }.shown(), "https://host/…");
    }

    #[test]
    fn the_system_or_a_file_says_whom_to_trust() {
        // `http` needs nobody.
        assert!(tls(&endpoint("http://host/")).is_ok());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ca.pem");
        let config = Endpoint { authorities: Authorities::File(path.clone()), ..endpoint("https://host/") };
        assert!(matches!(tls(&config), Err(HttpError::CaFile { .. })));
        fs::write(&path, "no certificate here").expect("written");
        assert!(matches!(tls(&config), Err(HttpError::NoCa { .. })));
    }
}
