//! Answers the API server's question whether a resource is sound, before it is stored.
//!
//! A convenience: `kubectl apply` shows the mistake at once, with its place. What counts is the status; when the
//! webhook is away, resources are stored without it. So it answers in time or lets pass, and never looks at more than
//! two resources at once.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    routing::post,
};
use kube::core::{
    DynamicObject,
    admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
};
use tokio::sync::Semaphore;
use tracing::debug;

/// Largest question: two versions of an object, and the API server stores none above 3 MiB.
const BODY_BYTES: usize = 8 << 20;
/// The API server waits three seconds; then nobody reads the answer.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Resources that are judged at once.
const AT_ONCE: usize = 2;

/// What there is to say about a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opinion {
    /// Mistakes, each with its place and remedy, as `kubectl` shows them. With any, the resource is refused.
    pub errors: Vec<String>,
    /// What is probably not meant; shown as warnings.
    pub warnings: Vec<String>,
}

/// Judges resources.
pub trait Judge: Send + Sync + 'static {
    /// What there is to say about this object, which is to be created or to replace the one of its name. May take long.
    fn opinion(&self, object: &DynamicObject) -> Opinion;
}

#[derive(Clone)]
struct Served {
    judge: Arc<dyn Judge>,
    places: Arc<Semaphore>,
}

/// The routes of the webhook.
pub fn router(judge: Arc<dyn Judge>) -> Router {
    Router::new()
        .route("/validate", post(validate))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(Served { judge, places: Arc::new(Semaphore::new(AT_ONCE)) })
}

async fn validate(
    State(served): State<Served>,
    Json(review): Json<AdmissionReview<DynamicObject>>,
) -> Json<AdmissionReview<DynamicObject>> {
    let request: AdmissionRequest<DynamicObject> = match review.try_into() {
        Ok(request) => request,
        Err(error) => return Json(AdmissionResponse::invalid(error).into_review()),
    };
    let mut response = AdmissionResponse::from(&request);
    if !matches!(request.operation, Operation::Create | Operation::Update) {
        return Json(response.into_review());
    }
    let Some(mut object) = request.object else { return Json(response.into_review()) };
    // On creation the namespace may stand only in the request.
    if object.metadata.namespace.is_none() {
        object.metadata.namespace = request.namespace;
    }
    let Ok(place) = Arc::clone(&served.places).acquire_owned().await else { return Json(response.into_review()) };
    let judge = Arc::clone(&served.judge);
    let judged = tokio::task::spawn_blocking(move || {
        let opinion = judge.opinion(&object);
        drop(place);
        opinion
    });
    match tokio::time::timeout(PATIENCE, judged).await {
        Ok(Ok(opinion)) => {
            if !opinion.errors.is_empty() {
                response = response.deny(opinion.errors.join("\n"));
            }
            response.warnings = Some(opinion.warnings).filter(|warnings| !warnings.is_empty());
        }
        Ok(Err(_)) | Err(_) => {
            debug!("a resource could not be judged in time and was let pass");
            response.warnings =
                Some(vec!["not checked: the operator was busy; see the status of the resource".to_owned()]);
        }
    }
    Json(response.into_review())
}
