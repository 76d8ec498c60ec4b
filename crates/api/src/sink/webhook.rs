//! Alerts as HTTP requests: the address, the headers, who we are and whom we trust.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret::{CaRef, SecretKeyRef};

/// Send each alert as an HTTP request. The answer's body is ignored; redirects are not followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.url) != has(self.urlRef)", "exactly one of url and urlRef"),
    validation = ("!has(self.caFile) || !has(self.url) || self.url.startsWith('https:')", "caFile: needs a url with https"),
    validation = ("!has(self.caRef) || !has(self.url) || self.url.startsWith('https:')", "caRef: needs a url with https"),
    validation = ("!(has(self.caFile) && has(self.caRef))", "caFile and caRef: at most one of them"),
)]
pub struct WebhookSink {
    /// Where to send, `http://` or `https://`. No user name or password: the resource can be read by many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/?#\s]+([/?#]\S*)?$"))]
    #[x_kube(validation = ("!self.matches('^https?://[^/?#]*@')", "url: a user name or password does not belong in a resource"))]
    pub url: Option<String>,

    /// Key of a Secret with the address to send to, where the address itself is a secret. Instead of `url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_ref: Option<SecretKeyRef>,

    /// `POST` or `PUT`. Default: `POST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,

    /// Further headers of each request. `Content-Type: application/json` and `User-Agent` are there already, and can
    /// be replaced. Headers that carry credentials are refused: the resource can be read by many; `auth` is for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = ("self.all(h, !(h.name.lowerAscii() in ['authorization', 'proxy-authorization', 'cookie']))", "headers: credentials do not belong in a resource"))]
    pub headers: Vec<Header>,

    /// How the receiver knows us. Default: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<WebhookAuth>,

    /// File with certificates (PEM) of the authorities to trust, instead of those that the system trusts. It is on the
    /// host of a sensor without a cluster; in a cluster it would be a file of the operator, and `caRef` is the better
    /// choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 4096), regex(pattern = r"^/([^/\x00]+/)*[^/\x00]+$"))]
    pub ca_file: Option<String>,

    /// Certificates (PEM) of the authorities to trust, instead of those that the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,
}

impl WebhookSink {
    /// The keys of Secrets that it needs, with the field that names each, from `spec` on.
    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretKeyRef)> {
        let mut secrets = Vec::new();
        secrets.extend(self.url_ref.as_ref().map(|key| ("spec.webhook.urlRef", key)));
        if let Some(auth) = &self.auth {
            secrets.extend(auth.bearer_ref.as_ref().map(|key| ("spec.webhook.auth.bearerRef", key)));
            if let Some(basic) = &auth.basic {
                secrets.push(("spec.webhook.auth.basic.usernameRef", &basic.username_ref));
                secrets.push(("spec.webhook.auth.basic.passwordRef", &basic.password_ref));
            }
            secrets.extend(auth.header_ref.as_ref().map(|header| ("spec.webhook.auth.headerRef.ref", &header.key)));
        }
        let ca = self.ca_ref.as_ref().and_then(|ca| ca.secret.as_ref());
        secrets.extend(ca.map(|key| ("spec.webhook.caRef.secret", key)));
        secrets
    }
}

/// How the receiver of a webhook knows us: exactly one of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("[has(self.bearerRef), has(self.basic), has(self.headerRef)].filter(x, x).size() == 1", "exactly one of bearerRef, basic and headerRef"),
)]
pub struct WebhookAuth {
    /// Key of a Secret with a token, sent as `Authorization: Bearer TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_ref: Option<SecretKeyRef>,
    /// A user name and a password, sent as `Authorization: Basic …`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// A header whose value is a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_ref: Option<HeaderAuth>,
}

/// A user name and a password.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// Key of a Secret with the user name.
    pub username_ref: SecretKeyRef,
    /// Key of a Secret with the password.
    pub password_ref: SecretKeyRef,
}

/// A header whose value is a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub struct HeaderAuth {
    /// Name of the header, for example `X-Api-Key`.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$"))]
    pub name: String,
    /// Key of a Secret with its value.
    #[serde(rename = "ref")]
    pub key: SecretKeyRef,
}

/// Method of an HTTP request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// POST.
    Post,
    /// PUT.
    Put,
}

/// A header of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Name of the header.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 1024), regex(pattern = r"^[\t\x20-\x7e]*$"))]
    pub value: String,
}
