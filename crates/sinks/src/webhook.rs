//! Alerts as HTTP requests.

use std::path::PathBuf;

use api::{
    condition::Reason,
    sink::{Method, WebhookAuth, WebhookSink},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderName, HeaderValue},
};
use rules::alert::Alert;

use crate::{
    SendError, Sink,
    http::{Authorities, Endpoint, Sender},
    secrets::{Missing, Secret, Secrets},
};

pub(crate) const DOC: &str = "Each alert is one HTTP request with Falco's JSON as its body. Statuses 2xx mean delivered. \
    401, 403, 404, 407, 408, 410, 425, 429, 5xx except 501 and 505, and no answer at all are about the receiver, and are \
    retried; `Retry-After` is honoured up to `retry.maxBackoff`. Every other status, redirects included, refuses the \
    alert for good. The body of the answer is ignored. Proxies are taken from `HTTP_PROXY`, `HTTPS_PROXY` and \
    `NO_PROXY`, except by the AlertSinks of a cluster. Authorities are those that the system trusts (`SSL_CERT_FILE` and \
    `SSL_CERT_DIR` are honoured), or those of `caFile` or `caRef`.";

/// Why a webhook cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookConfigError {
    /// No address.
    #[error("url: missing")]
    NoUrl,
    /// Not an address.
    #[error("{field}: {reason}")]
    Url {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Not a header.
    #[error("headers: `{name}` or its value cannot be sent")]
    Header {
        /// Name of the header.
        name: String,
    },
    /// A Secret whose value is no header.
    #[error("{field}: the value cannot be sent in a header; look for line ends and characters that are not ASCII")]
    Credential {
        /// The field that names the Secret.
        field: &'static str,
    },
    /// A Secret or ConfigMap is missing.
    #[error(transparent)]
    Missing(#[from] Missing),
}

impl WebhookConfigError {
    /// The stable word for it, for conditions.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoUrl | Self::Url { .. } | Self::Header { .. } | Self::Credential { .. } => Reason::InvalidSpec,
            Self::Missing(_) => Reason::SecretNotFound,
        }
    }
}

/// The endpoint that a spec describes, with its defaults.
pub(crate) fn endpoint(spec: &WebhookSink, secrets: &Secrets) -> Result<Endpoint, WebhookConfigError> {
    let mut endpoint = match (&spec.url, &spec.url_ref) {
        (Some(url), _) => Endpoint::new(parse("url", url)?, false),
        (None, Some(key)) => secret_endpoint("spec.webhook.urlRef", secrets.secret("spec.webhook.urlRef", key)?)?,
        (None, None) => return Err(WebhookConfigError::NoUrl),
    };
    for header in &spec.headers {
        let wrong = || WebhookConfigError::Header { name: header.name.clone() };
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| wrong())?;
        endpoint.headers.insert(name, HeaderValue::from_str(&header.value).map_err(|_| wrong())?);
    }
    if let Some(auth) = &spec.auth {
        let (name, value) = credential(auth, secrets)?;
        endpoint.headers.insert(name, value);
    }
    endpoint.method = spec.method.unwrap_or(Method::Post);
    endpoint.authorities = authorities(spec, secrets)?;
    Ok(endpoint)
}

/// The endpoint whose address is the value of a Secret.
pub(crate) fn secret_endpoint(field: &'static str, url: &Secret) -> Result<Endpoint, WebhookConfigError> {
    let url = parse(field, url.reveal())?;
    Ok(Endpoint::new(url, true))
}

fn parse(field: &'static str, text: &str) -> Result<Url, WebhookConfigError> {
    let wrong = |reason: &str| WebhookConfigError::Url { field, reason: reason.to_owned() };
    // The library's error does not repeat the address.
    let url = Url::parse(text.trim()).map_err(|error| wrong(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(wrong("not an address that begins with http:// or https://")),
    }
}

fn credential(auth: &WebhookAuth, secrets: &Secrets) -> Result<(HeaderName, HeaderValue), WebhookConfigError> {
    let secret = |name: HeaderName, field: &'static str, value: &str| {
        let mut value = HeaderValue::from_str(value).map_err(|_| WebhookConfigError::Credential { field })?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    if let Some(header) = &auth.header_ref {
        let field = "spec.webhook.auth.headerRef.ref";
        let wrong = |_| WebhookConfigError::Header { name: header.name.clone() };
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(wrong)?;
        return secret(name, field, secrets.secret(field, &header.key)?.reveal());
    }
    if let Some(basic) = &auth.basic {
        let user = secrets.secret("spec.webhook.auth.basic.usernameRef", &basic.username_ref)?;
        let password = secrets.secret("spec.webhook.auth.basic.passwordRef", &basic.password_ref)?;
        let both = BASE64_STANDARD.encode(format!("{}:{}", user.reveal(), password.reveal()));
        return secret(AUTHORIZATION, "spec.webhook.auth.basic", &format!("Basic {both}"));
    }
    let field = "spec.webhook.auth.bearerRef";
    let key = auth.bearer_ref.as_ref().ok_or(WebhookConfigError::Credential { field })?;
    secret(AUTHORIZATION, field, &format!("Bearer {}", secrets.secret(field, key)?.reveal()))
}

fn authorities(spec: &WebhookSink, secrets: &Secrets) -> Result<Authorities, WebhookConfigError> {
    if let Some(path) = &spec.ca_file {
        return Ok(Authorities::File(PathBuf::from(path)));
    }
    let Some(ca) = &spec.ca_ref else { return Ok(Authorities::System) };
    if let Some(key) = &ca.secret {
        let field = "spec.webhook.caRef.secret";
        return Ok(Authorities::Pem { text: secrets.secret(field, key)?.reveal().to_owned(), field });
    }
    let Some(key) = &ca.config_map else { return Ok(Authorities::System) };
    let field = "spec.webhook.caRef.configMap";
    Ok(Authorities::Pem { text: secrets.config_map(field, key)?.to_owned(), field })
}

/// An HTTP receiver.
pub(crate) struct Webhook(Sender);

impl Webhook {
    pub fn new(sender: Sender) -> Self {
        Self(sender)
    }
}

impl Sink for Webhook {
    fn prepare(&mut self) -> Result<(), SendError> {
        Ok(self.0.prepare()?)
    }

    fn send(&mut self, alert: &Alert) -> Result<(), SendError> {
        // A map with text keys and JSON values always has a JSON form.
        let body = serde_json::to_vec(alert).unwrap_or_default();
        Ok(self.0.send(body)?)
    }

    fn reopen(&mut self) {}
}
