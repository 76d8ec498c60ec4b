//! A container runtime that the tests play: it says the same of every container that it knows.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use futures::Stream;
use serde_json::json;
use tokio::{net::UnixListener, sync::oneshot};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use self::cri::{
    ContainerEventResponse, ContainerMetadata, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    GetEventsRequest, ImageSpec, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest,
    ListPodSandboxResponse, Mount, PodSandboxMetadata, PodSandboxStatus, PodSandboxStatusRequest,
    PodSandboxStatusResponse, VersionRequest, VersionResponse,
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};
use crate::harness::LONG;

#[allow(missing_docs, clippy::all, clippy::pedantic, dead_code, reason = "generated from proto/cri.proto")]
mod cri {
    tonic::include_proto!("runtime.v1");
}

/// The image of every container.
pub const IMAGE: &str = "registry.example/shop/web";
/// The namespace of its pod.
pub const NAMESPACE: &str = "shop";

/// Which containers the runtime knows.
#[derive(Clone)]
pub enum Known {
    /// Every one that it is asked for.
    All,
    /// Those with these full ids.
    Some(Arc<Mutex<HashSet<String>>>),
}

impl Known {
    /// None, until they are added.
    pub fn none() -> Self {
        Self::Some(Arc::default())
    }

    /// Adds a container.
    pub fn add(&self, id: &str) {
        if let Self::Some(ids) = self {
            ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        }
    }

    fn has(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(ids) => ids.lock().unwrap_or_else(PoisonError::into_inner).contains(id),
        }
    }
}

/// A runtime that is served until it is dropped.
pub struct Runtime {
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Runtime {
    /// Listens in a folder.
    pub fn start(folder: &Path, known: Known) -> Self {
        let socket = folder.join("containerd.sock");
        let path = socket.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = UnixListener::bind(path).expect("a socket");
                ready.send(()).expect("somebody waits");
                let server = tonic::transport::Server::builder().add_service(RuntimeServiceServer::new(Play(known)));
                let served = server.serve_with_incoming(UnixListenerStream::new(listener));
                tokio::select! { _ = served => {}, _ = stopped => {} }
            });
        });
        started.recv_timeout(LONG).expect("the server starts");
        Self { socket, stop: Some(stop), thread: Some(thread) }
    }

    /// For `--cri`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Play(Known);

#[tonic::async_trait]
impl RuntimeService for Play {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            runtime_name: "containerd".to_owned(),
            runtime_version: "2.1.0".to_owned(),
        }))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        let id = request.into_inner().pod_sandbox_id;
        if id != "sandbox" {
            return Err(Status::not_found("no such sandbox"));
        }
        let metadata = PodSandboxMetadata { name: "web-1".into(), uid: "uid-1".into(), namespace: NAMESPACE.into() };
        let status = PodSandboxStatus { id, metadata: Some(metadata), ..PodSandboxStatus::default() };
        Ok(Response::new(PodSandboxStatusResponse { status: Some(status), info: HashMap::new() }))
    }

    async fn list_pod_sandbox(
        &self,
        _: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        Ok(Response::new(ListPodSandboxResponse { items: Vec::new() }))
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        Ok(Response::new(ListContainersResponse { containers: Vec::new() }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        let id = request.into_inner().container_id;
        if !self.0.has(&id) {
            return Err(Status::not_found("no such container"));
        }
        let mount = Mount { container_path: "/etc".into(), host_path: "/etc".into(), readonly: true, propagation: 0 };
        let status = ContainerStatus {
            id,
            metadata: Some(ContainerMetadata { name: "web".into() }),
            image: Some(ImageSpec { image: format!("{IMAGE}:1.4"), ..ImageSpec::default() }),
            mounts: vec![mount],
            ..ContainerStatus::default()
        };
        let security = json!({ "privileged": true });
        let info = json!({ "sandboxID": "sandbox", "config": { "linux": { "security_context": security } } });
        let info = HashMap::from([("info".to_owned(), info.to_string())]);
        Ok(Response::new(ContainerStatusResponse { status: Some(status), info }))
    }

    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        Ok(Response::new(Box::pin(futures::stream::pending())))
    }
}
