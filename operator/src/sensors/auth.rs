//! Who is calling: a sensor shows its service-account token, the API server says whose it is and where its pod runs.
//!
//! The token must be for our audience and of the sensors' service account; the node is taken from the token (or, on
//! clusters before 1.32, from the pod that it is bound to), never from what the sensor says of itself. A receiver of the
//! audit log has a service account of its own and speaks for no node: it is known by the name of its pod.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{Api, Client, api::PostParams};
use link::proto::{Hello, Role};
use tonic::{Status, metadata::MetadataMap};

use crate::cluster::pods::Pods;

/// Key of the node's name among the extra values of a token's user:
/// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Key of the pod's name.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// Key of the pod's uid.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Checks tokens.
#[derive(Clone)]
pub struct Gate {
    reviews: Api<TokenReview>,
    pods: Pods,
    audience: String,
    sensors: String,
    receivers: String,
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The sensor of this node.
    Node(String),
    /// The receiver of the audit log in this pod.
    Audit(String),
}

impl Caller {
    /// What it is called among all of them. No node has a colon in its name.
    pub fn key(&self) -> String {
        match self {
            Self::Node(node) => node.clone(),
            Self::Audit(pod) => audit_key(pod),
        }
    }

    /// What it should say of itself: its name, and what it is.
    pub fn claims(&self) -> (&str, Role) {
        match self {
            Self::Node(node) => (node, Role::Node),
            Self::Audit(pod) => (pod, Role::Audit),
        }
    }
}

const AUDIT: &str = "audit:";

/// What the receiver in a pod is called among all sensors.
pub fn audit_key(pod: &str) -> String {
    format!("{AUDIT}{pod}")
}

/// Whether this is the name of a receiver of the audit log.
pub fn is_audit(key: &str) -> bool {
    key.starts_with(AUDIT)
}

/// Why a sensor is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no token.
    #[error("no bearer token in the authorization metadata")]
    NoToken,
    /// The API server does not know the token.
    #[error("the token is not valid for audience {audience}: {reason}")]
    Invalid {
        /// What the token has to be for.
        audience: String,
        /// What the API server says.
        reason: String,
    },
    /// It is someone else's.
    #[error("the token is of {user}, not of {wanted}; see --sensor-service-account and --audit-service-account")]
    Stranger {
        /// Whose it is.
        user: String,
        /// Whose it has to be.
        wanted: String,
    },
    /// It is not bound to a pod that runs on a node.
    #[error("the token is not bound to a pod on a node; mount it with a projected volume")]
    Unbound,
    /// The sensor says that it is on another node.
    #[error("the token is of a pod on node {actual}, the sensor says it is on {claimed}")]
    OtherNode {
        /// Where the pod runs.
        actual: String,
        /// Where the sensor says it runs.
        claimed: String,
    },
    /// A receiver says that it is a sensor, or the other way round.
    #[error("the token is of {actual}, the sensor says it is {claimed}")]
    OtherRole {
        /// What its service account is for.
        actual: &'static str,
        /// What it says it is.
        claimed: &'static str,
    },
    /// The API server did not answer.
    #[error("the API server cannot review tokens now")]
    Unavailable(#[source] Box<kube::Error>),
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        let text = link::chain(refusal).to_string();
        match refusal {
            Refusal::NoToken | Refusal::Invalid { .. } => Self::unauthenticated(text),
            Refusal::Stranger { .. } | Refusal::Unbound | Refusal::OtherNode { .. } | Refusal::OtherRole { .. } => {
                Self::permission_denied(text)
            }
            Refusal::Unavailable(_) => Self::unavailable(text),
        }
    }
}

impl Gate {
    /// Lets in the service accounts of sensors and of receivers of the audit log (namespace and name), with tokens for
    /// `audience`.
    pub fn new(
        client: &Client,
        pods: Pods,
        audience: &str,
        sensors: &(String, String),
        receivers: &(String, String),
    ) -> Self {
        let user = |(namespace, name): &(String, String)| format!("system:serviceaccount:{namespace}:{name}");
        Self {
            reviews: Api::all(client.clone()),
            pods,
            audience: audience.to_owned(),
            sensors: user(sensors),
            receivers: user(receivers),
        }
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// When it must not be let in.
    pub async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Refusal> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        let token = token.filter(|token| !token.is_empty()).ok_or(Refusal::NoToken)?;
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: token.to_owned() },
            ..TokenReview::default()
        };
        let answer = self.reviews.create(&PostParams::default(), &review).await;
        let status = answer.map_err(|error| Refusal::Unavailable(Box::new(error)))?.status.unwrap_or_default();
        let ours = status.audiences.iter().flatten().any(|audience| *audience == self.audience);
        if status.authenticated != Some(true) || !ours {
            let reason = status.error.unwrap_or_else(|| "not authenticated".to_owned());
            return Err(Refusal::Invalid { audience: self.audience.clone(), reason });
        }
        let user = status.user.unwrap_or_default();
        if user.username.as_deref() == Some(&self.receivers) {
            return extra(&user, POD_NAME).map(|pod| Caller::Audit(pod.to_owned())).ok_or(Refusal::Unbound);
        }
        if user.username.as_deref() != Some(&self.sensors) {
            let user = user.username.unwrap_or_default();
            return Err(Refusal::Stranger { user, wanted: self.sensors.clone() });
        }
        let bound = extra(&user, NODE_NAME).map(str::to_owned);
        let by_pod = || extra(&user, POD_UID).and_then(|uid| self.pods.node_of(uid)).map(String::from);
        bound.or_else(by_pod).map(Caller::Node).ok_or(Refusal::Unbound)
    }
}

fn extra<'a>(user: &'a UserInfo, key: &str) -> Option<&'a str> {
    user.extra.as_ref()?.get(key)?.first().map(String::as_str)
}

/// The pod of a receiver of the audit log, by its name among all sensors.
pub fn audit_pod(key: &str) -> Option<&str> {
    key.strip_prefix(AUDIT)
}

/// Checks what the sensor says of itself against its token.
///
/// # Errors
/// When they differ.
pub fn same(caller: &Caller, hello: &Hello) -> Result<(), Refusal> {
    let (name, role) = caller.claims();
    if hello.role() != role {
        return Err(Refusal::OtherRole { actual: role.as_str_name(), claimed: hello.role().as_str_name() });
    }
    match name == hello.node {
        true => Ok(()),
        false => Err(Refusal::OtherNode { actual: name.to_owned(), claimed: hello.node.clone() }),
    }
}
