//! Talks to one container runtime over its socket.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use event::containers::ContainerFacts;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::facts::{Answers, facts, needs_image};

#[allow(missing_docs, clippy::enum_variant_names, clippy::wildcard_imports, reason = "generated from proto/cri.proto")]
mod generated {
    tonic::include_proto!("runtime.v1");
}
pub use generated::*;
use generated::{image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);

/// Longest answer in bytes, as the kubelet has it: lists of many containers are long.
const ANSWER_MAX: usize = 16 << 20;

/// Why a runtime doesn't answer.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// Nobody listens at the socket.
    #[error("cannot connect to the container runtime at {}: is it running, and may this process open its socket?", socket.display())]
    Connect {
        /// Path of the socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: tonic::transport::Error,
    },
    /// A call failed.
    #[error("the container runtime at {} does not answer {call}", socket.display())]
    Call {
        /// Path of the socket.
        socket: PathBuf,
        /// Name of the call.
        call: &'static str,
        /// The cause.
        #[source]
        source: Box<Status>,
    },
}

/// What a runtime says about an id.
#[derive(Debug)]
pub enum Found {
    /// These facts.
    Facts(Box<ContainerFacts>),
    /// It has no such container.
    Nothing,
}

/// A connection to a runtime.
#[derive(Debug, Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    socket: PathBuf,
    /// The runtime's name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Cri {
    /// Connects, and asks who is there.
    pub async fn connect(socket: &Path) -> Result<Self, CriError> {
        let path = socket.to_owned();
        let failed = |source| CriError::Connect { socket: socket.to_owned(), source };
        // The address is never looked up: the connector knows the socket.
        let channel = Endpoint::from_static("http://cri.invalid")
            .connect_timeout(CALL)
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .map_err(failed)?;
        let runtime = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_MAX);
        let images = ImageServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX);
        let mut cri = Self { runtime, images, socket: socket.to_owned(), name: String::new(), version: String::new() };
        let version = cri.call("Version", cri.runtime.clone().version(VersionRequest {})).await?;
        cri.name = version.runtime_name;
        cri.version = version.runtime_version;
        Ok(cri)
    }

    /// One call with its limit. The limit is not the channel's: a stream of events may be silent for long.
    async fn call<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CriError> {
        let answer = tokio::time::timeout(CALL, answer).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        answer.map(Response::into_inner).map_err(|status| self.failed(call, status))
    }

    /// As [`Cri::call`]; `None` when the runtime has nothing by that id.
    async fn known<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Option<T>, CriError> {
        match self.call(call, answer).await {
            Ok(answer) => Ok(Some(answer)),
            Err(CriError::Call { source, .. }) if source.code() == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn failed(&self, call: &'static str, source: Status) -> CriError {
        CriError::Call { socket: self.socket.clone(), call, source: Box::new(source) }
    }

    /// Whether several clients can follow its events. containerd before 2.0 hands each event to only one of them, which
    /// would take it from the kubelet (containerd issue 7318).
    pub fn shares_events(&self) -> bool {
        let major = self.version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
        self.name != "containerd" || major.is_some_and(|major| major >= 2)
    }

    /// Ids of all containers and sandboxes that the runtime keeps.
    pub async fn list(&self) -> Result<Vec<String>, CriError> {
        let (mut containers, mut sandboxes) = (self.runtime.clone(), self.runtime.clone());
        let (containers, sandboxes) = tokio::join!(
            self.call("ListContainers", containers.list_containers(ListContainersRequest {})),
            self.call("ListPodSandbox", sandboxes.list_pod_sandbox(ListPodSandboxRequest {})),
        );
        let containers = containers?.containers.into_iter().map(|container| container.id);
        Ok(containers.chain(sandboxes?.items.into_iter().map(|sandbox| sandbox.id)).collect())
    }

    /// What happens to containers from now on. It may take until the first event before this returns.
    pub async fn events(&self) -> Result<Streaming<ContainerEventResponse>, CriError> {
        let answer = self.runtime.clone().get_container_events(GetEventsRequest {}).await;
        answer.map(Response::into_inner).map_err(|status| self.failed("GetContainerEvents", status))
    }

    /// Everything about the container, or the sandbox, with this id.
    pub async fn find(&self, id: &str) -> Result<Found, CriError> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let mut runtime = self.runtime.clone();
        let answers = match self.known("ContainerStatus", runtime.container_status(request)).await? {
            Some(answer) => self.of_container(id, answer).await?,
            None => self.of_sandbox(id, Answers::default()).await?,
        };
        Ok(facts(&answers).map_or(Found::Nothing, |facts| Found::Facts(Box::new(facts))))
    }

    async fn of_container(&self, id: &str, answer: ContainerStatusResponse) -> Result<Answers, CriError> {
        let container_info = info(&answer.info);
        let sandbox = self.sandbox_id(id, container_info.as_ref()).await?;
        let image = match &answer.status {
            Some(container) if needs_image(container) => self.image(container).await,
            Some(_) | None => None,
        };
        let answers = Answers {
            runtime: self.name.clone(),
            container: answer.status,
            container_info,
            image,
            ..Answers::default()
        };
        match sandbox {
            Some(sandbox) => self.of_sandbox(&sandbox, answers).await,
            None => Ok(answers),
        }
    }

    async fn of_sandbox(&self, id: &str, answers: Answers) -> Result<Answers, CriError> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let mut runtime = self.runtime.clone();
        let answer = self.known("PodSandboxStatus", runtime.pod_sandbox_status(request)).await?;
        let (sandbox, sandbox_info) = answer.map_or((None, None), |answer| (answer.status, info(&answer.info)));
        Ok(Answers { runtime: self.name.clone(), sandbox, sandbox_info, ..answers })
    }

    /// The sandbox of a container: both known runtimes add it to the status; the list says it for all.
    async fn sandbox_id(&self, id: &str, info: Option<&serde_json::Value>) -> Result<Option<String>, CriError> {
        if let Some(sandbox) = info.and_then(|info| info.get("sandboxID")?.as_str()) {
            return Ok(Some(sandbox.to_owned()));
        }
        let mut runtime = self.runtime.clone();
        let list = self.call("ListContainers", runtime.list_containers(ListContainersRequest {})).await?;
        Ok(list.containers.into_iter().find(|container| container.id == id).map(|container| container.pod_sandbox_id))
    }

    /// The image of a container. Without it only names are missing.
    async fn image(&self, container: &ContainerStatus) -> Option<Image> {
        let name = match container.image.as_ref() {
            Some(spec) if !spec.image.is_empty() => spec.image.clone(),
            Some(_) | None => container.image_ref.clone(),
        };
        let spec = ImageSpec { image: name, user_specified_image: String::new() };
        let mut images = self.images.clone();
        let answer = self.call("ImageStatus", images.image_status(ImageStatusRequest { image: Some(spec) })).await;
        answer.ok()?.image
    }
}

/// What a runtime adds in its own form: both known ones put one JSON object under `info`.
fn info(map: &std::collections::HashMap<String, String>) -> Option<serde_json::Value> {
    serde_json::from_str(map.get("info")?).ok()
}
