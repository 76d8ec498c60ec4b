//! Sends planned writes to the API server and judges its answers. One write at a time; what comes next is not its matter.
//!
//! Requests are made here rather than through `kube::Api`, because the `Retry-After` header of an answer matters, and
//! `Api` gives only its body.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    body::to_bytes,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use k8s_openapi::api::events::v1::Event;
use kube::{Client, client::Body, core::Status};
use serde_json::json;
use tracing::debug;

use super::{
    aggregate::{Action, Outcome, Write},
    object::{COUNT, WRITER},
};

/// An answer must come within this time. A leader that has not renewed its Lease for ten seconds sends nothing more, and
/// another one cannot take the Lease before fifteen: so a late write does not meet those of the next leader.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes. An Event is far smaller.
const MAX_ANSWER: usize = 256 << 10;
/// How long to wait after "too many requests" that does not say how long.
const THROTTLED: Duration = Duration::from_secs(1);
/// Name of the API server's book-keeping of who set which field.
const FIELD_MANAGER: &str = "gyrfalcon-operator";

/// What is known of pods.
pub trait Regarding: Send + Sync {
    /// The uid that the API server has for a pod, which for static pods is not the one that the container runtime
    /// knows. Nothing if the pod is not known: then the runtime's is used.
    fn pod_uid(&self, namespace: &str, name: &str, runtime_uid: &str) -> Option<String>;
}

/// What became of a request or write, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Result {
    /// An Event was created.
    Created,
    /// An Event was changed.
    Patched,
    /// An Event was there already and was taken over.
    Adopted,
    /// The Event to change was not there any more.
    Gone,
    /// The namespace was not there any more.
    NamespaceGone,
    /// The API server does not take the Event.
    Refused,
    /// The API server asked for fewer requests.
    Throttled,
    /// The API server failed.
    ServerError,
    /// The API server did not answer in time.
    Timeout,
    /// The API server could not be reached.
    Unreachable,
}

impl Result {
    /// Every result.
    pub const ALL: [Self; 10] = [
        Self::Created,
        Self::Patched,
        Self::Adopted,
        Self::Gone,
        Self::NamespaceGone,
        Self::Refused,
        Self::Throttled,
        Self::ServerError,
        Self::Timeout,
        Self::Unreachable,
    ];

    /// The stable word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Patched => "patched",
            Self::Adopted => "adopted",
            Self::Gone => "gone",
            Self::NamespaceGone => "namespace_gone",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::ServerError => "server_error",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Numbers of results.
#[derive(Debug, Default)]
pub struct Results([AtomicU64; Result::ALL.len()]);

impl Results {
    fn add(&self, result: Result) {
        if let Some(count) = self.0.get(result as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often there was this result.
    pub fn count(&self, result: Result) -> u64 {
        self.0.get(result as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// Sends writes.
pub struct Writer {
    client: Client,
    pods: Arc<dyn Regarding>,
    results: Arc<Results>,
}

/// What the API server answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Writer {
    /// Sends through a client.
    pub fn new(client: Client, pods: Arc<dyn Regarding>, results: Arc<Results>) -> Self {
        Self { client, pods, results }
    }

    /// Sends one write.
    pub async fn write(&self, mut write: Write) -> Outcome {
        if let Action::Create(event) = &mut write.action {
            self.set_uid(event);
        }
        let (result, outcome) = match &write.action {
            Action::Create(event) => self.create(&write, event).await,
            Action::Patch(patch) => self.patch(&write, patch).await,
        };
        self.results.add(result);
        debug!(result = result.name(), namespace = write.namespace, name = write.name, "wrote an Event");
        outcome
    }

    fn set_uid(&self, event: &mut Event) {
        let Some(regarding) = event.regarding.as_mut().filter(|of| of.kind.as_deref() == Some("Pod")) else { return };
        let known = (regarding.namespace.as_deref(), regarding.name.as_deref(), regarding.uid.as_deref());
        if let (Some(namespace), Some(name), uid) = known
            && let Some(uid) = self.pods.pod_uid(namespace, name, uid.unwrap_or_default())
        {
            regarding.uid = Some(uid);
        }
    }

    async fn create(&self, write: &Write, event: &Event) -> (Result, Outcome) {
        let body = match serde_json::to_vec(event) {
            Ok(body) => body,
            Err(_) => return (Result::Refused, Outcome::Refused),
        };
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", write.namespace);
        let answer = match self.send(Method::POST, &path, "application/json", body).await {
            Ok(answer) => answer,
            Err(result) => return (result, Outcome::Failed { throttled: None }),
        };
        match answer.status {
            status if status.is_success() => (Result::Created, Outcome::Written),
            StatusCode::CONFLICT => self.adopt(write, event).await,
            StatusCode::NOT_FOUND => (Result::NamespaceGone, Outcome::NamespaceGone),
            StatusCode::FORBIDDEN if answer.is_namespace_ending() => (Result::NamespaceGone, Outcome::NamespaceGone),
            _ => answer.failure(),
        }
    }

    /// There is an Event of this name. If it is from this very series, then an earlier attempt succeeded and only its
    /// answer was lost; else it is that of an earlier series, whose count goes on.
    async fn adopt(&self, write: &Write, event: &Event) -> (Result, Outcome) {
        let answer = match self.send(Method::GET, &event_path(write), "application/json", Vec::new()).await {
            Ok(answer) => answer,
            Err(result) => return (result, Outcome::Failed { throttled: None }),
        };
        match answer.status {
            status if status.is_success() => {}
            // It has just expired: creating it will succeed now.
            StatusCode::NOT_FOUND => return (Result::Gone, Outcome::Failed { throttled: None }),
            _ => return answer.failure(),
        }
        let Ok(there) = serde_json::from_slice::<Event>(&answer.body) else {
            return (Result::ServerError, Outcome::Failed { throttled: None });
        };
        if there.reporting_controller != event.reporting_controller {
            return (Result::Refused, Outcome::Refused);
        }
        let annotation = |of: &Event, key: &str| of.metadata.annotations.as_ref()?.get(key).cloned();
        let writer = annotation(event, WRITER);
        let total = count(event);
        let own = annotation(&there, WRITER) == writer;
        let base = if own { write.base } else { count(&there) };
        if own && count(&there) == total {
            return (Result::Created, Outcome::Written);
        }
        let total = total.saturating_sub(write.base).saturating_add(base);
        let last = event.series.as_ref().map(|series| &series.last_observed_time).or(event.event_time.as_ref());
        let patch = json!({
            "metadata": { "annotations": { COUNT: total.to_string(), WRITER: writer } },
            "series": { "count": i32::try_from(total).unwrap_or(i32::MAX).max(2), "lastObservedTime": last },
        });
        match self.patch(write, &patch).await {
            (Result::Patched, _) => (Result::Adopted, Outcome::Adopted { base }),
            (Result::Gone, _) => (Result::Gone, Outcome::Failed { throttled: None }),
            other => other,
        }
    }

    async fn patch(&self, write: &Write, patch: &serde_json::Value) -> (Result, Outcome) {
        let body = patch.to_string().into_bytes();
        let answer = match self.send(Method::PATCH, &event_path(write), "application/merge-patch+json", body).await {
            Ok(answer) => answer,
            Err(result) => return (result, Outcome::Failed { throttled: None }),
        };
        match answer.status {
            status if status.is_success() => (Result::Patched, Outcome::Written),
            StatusCode::NOT_FOUND => (Result::Gone, Outcome::Gone),
            StatusCode::CONFLICT => (Result::ServerError, Outcome::Failed { throttled: None }),
            _ => answer.failure(),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: Vec<u8>,
    ) -> std::result::Result<Answer, Result> {
        let path = match method {
            Method::GET => path.to_owned(),
            _ => format!("{path}?fieldManager={FIELD_MANAGER}"),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, content)
            .header(header::ACCEPT, "application/json")
            .body(Body::from(body))
            .map_err(|_| Result::Refused)?;
        let exchange = async {
            let answer = self.client.send(request).await.map_err(|error| {
                debug!(%error, "the API server cannot be reached");
                Result::Unreachable
            })?;
            let (parts, body) = answer.into_parts();
            let body = to_bytes(axum::body::Body::new(body), MAX_ANSWER).await.map_err(|_| Result::Unreachable)?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_vec() })
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err(Result::Timeout))
    }
}

fn event_path(write: &Write) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{}/events/{}", write.namespace, write.name)
}

/// How many alerts an Event stands for.
fn count(event: &Event) -> u64 {
    let exact = event.metadata.annotations.as_ref().and_then(|all| all.get(COUNT)).and_then(|count| count.parse().ok());
    let series = || event.series.as_ref().and_then(|series| u64::try_from(series.count).ok());
    exact.or_else(series).unwrap_or(1)
}

impl Answer {
    /// What an answer that is no success means.
    fn failure(&self) -> (Result, Outcome) {
        let asked = self.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let asked = asked.map(Duration::from_secs);
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => {
                (Result::Throttled, Outcome::Failed { throttled: Some(asked.unwrap_or(THROTTLED)) })
            }
            // The token may be renewed.
            StatusCode::UNAUTHORIZED | StatusCode::REQUEST_TIMEOUT => {
                (Result::ServerError, Outcome::Failed { throttled: asked })
            }
            status if status.is_server_error() => (Result::ServerError, Outcome::Failed { throttled: asked }),
            _ => (Result::Refused, Outcome::Refused),
        }
    }

    /// Whether the namespace is being deleted.
    fn is_namespace_ending(&self) -> bool {
        let Ok(status) = serde_json::from_slice::<Status>(&self.body) else { return false };
        status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "NamespaceTerminating")
    }
}
