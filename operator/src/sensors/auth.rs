//! Who is calling: a sensor shows its service-account token, the API server says whose it is and where its pod runs.
//!
//! The token must be for our audience and of the sensors' service account; the node is taken from the token (or, on
//! clusters before 1.32, from the pod that it is bound to), never from what the sensor says of itself.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{Api, Client, api::PostParams};
use tonic::{Status, metadata::MetadataMap};

use crate::cluster::pods::Pods;

/// Key of the node's name among the extra values of a token's user:
/// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Key of the pod's uid.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Checks tokens.
#[derive(Clone)]
pub struct Gate {
    reviews: Api<TokenReview>,
    pods: Pods,
    audience: String,
    user: String,
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
    #[error("the token is of {user}, not of {wanted}; see --sensor-service-account")]
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
    /// The API server did not answer.
    #[error("the API server cannot review tokens now")]
    Unavailable(#[source] Box<kube::Error>),
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        let text = link::chain(refusal).to_string();
        match refusal {
            Refusal::NoToken | Refusal::Invalid { .. } => Self::unauthenticated(text),
            Refusal::Stranger { .. } | Refusal::Unbound | Refusal::OtherNode { .. } => Self::permission_denied(text),
            Refusal::Unavailable(_) => Self::unavailable(text),
        }
    }
}

impl Gate {
    /// Lets in the service account `namespace`:`name`, with tokens for `audience`.
    pub fn new(client: &Client, pods: Pods, audience: &str, namespace: &str, name: &str) -> Self {
        Self {
            reviews: Api::all(client.clone()),
            pods,
            audience: audience.to_owned(),
            user: format!("system:serviceaccount:{namespace}:{name}"),
        }
    }

    /// The node whose sensor shows this token.
    ///
    /// # Errors
    /// When it must not be let in.
    pub async fn node(&self, metadata: &MetadataMap) -> Result<String, Refusal> {
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or(Refusal::NoToken)?;
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
        if user.username.as_deref() != Some(&self.user) {
            let user = user.username.unwrap_or_default();
            return Err(Refusal::Stranger { user, wanted: self.user.clone() });
        }
        let bound = extra(&user, NODE_NAME).map(str::to_owned);
        let by_pod = || extra(&user, POD_UID).and_then(|uid| self.pods.node_of(uid)).map(String::from);
        bound.or_else(by_pod).ok_or(Refusal::Unbound)
    }
}

fn extra<'a>(user: &'a UserInfo, key: &str) -> Option<&'a str> {
    user.extra.as_ref()?.get(key)?.first().map(String::as_str)
}

/// Checks what the sensor says of itself against its token.
///
/// # Errors
/// When they differ.
pub fn same_node(actual: &str, claimed: &str) -> Result<(), Refusal> {
    match actual == claimed {
        true => Ok(()),
        false => Err(Refusal::OtherNode { actual: actual.to_owned(), claimed: claimed.to_owned() }),
    }
}
