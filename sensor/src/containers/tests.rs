//! A runtime that the tests play, over a real socket: lists, events, slow and missing answers, restarts.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use event::{
    containers::ContainerFacts,
    containers::{Container, of_path},
};
use futures::Stream;
use tokio::{net::UnixListener, sync::broadcast};
use tokio_stream::{
    StreamExt,
    wrappers::{BroadcastStream, UnixListenerStream},
};
use tonic::{Request, Response, Status};

use super::{
    Asker, Runtimes, Told,
    cri::{
        self, ContainerEventResponse, ContainerEventType, ContainerMetadata, ContainerStatus, ContainerStatusRequest,
        ContainerStatusResponse, GetEventsRequest, ImageSpec, ListContainersRequest, ListContainersResponse,
        ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata, PodSandboxStatus,
        PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest, VersionResponse,
        runtime_service_server::{RuntimeService, RuntimeServiceServer},
    },
    sockets::Socket,
};

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(20);

/// What the played runtime knows.
#[derive(Clone)]
struct Play(Arc<Known>);

struct Known {
    version: &'static str,
    /// Containers with the name of their pod.
    containers: Mutex<HashMap<String, String>>,
    sandboxes: Mutex<HashMap<String, String>>,
    /// Questions about containers are not answered.
    mute: AtomicBool,
    /// Lists of sandboxes are not handed over: they are as old as their question when they are.
    held: tokio::sync::watch::Sender<bool>,
    asked: Mutex<Vec<String>>,
    events: broadcast::Sender<ContainerEventResponse>,
}

impl Play {
    fn new(version: &'static str) -> Self {
        Self(Arc::new(Known {
            version,
            containers: Mutex::default(),
            sandboxes: Mutex::default(),
            mute: AtomicBool::new(false),
            held: tokio::sync::watch::channel(false).0,
            asked: Mutex::default(),
            events: broadcast::channel(16).0,
        }))
    }

    fn add(&self, id: &str, pod: &str) {
        self.0.containers.lock().expect("no panic").insert(id.to_owned(), pod.to_owned());
        self.0.sandboxes.lock().expect("no panic").insert(format!("sandbox-{pod}"), pod.to_owned());
    }

    fn remove(&self, id: &str) {
        self.0.containers.lock().expect("no panic").remove(id);
    }

    /// Waits until the sensor has asked this.
    #[track_caller]
    fn is_asked(&self, what: &str) {
        let until = std::time::Instant::now() + LONG;
        while !self.0.asked.lock().expect("no panic").iter().any(|asked| asked == what) {
            assert!(std::time::Instant::now() < until, "{what} is never asked for");
            std::thread::yield_now();
        }
    }

    fn event(&self, id: &str, kind: ContainerEventType) {
        let event = ContainerEventResponse { container_id: id.to_owned(), container_event_type: kind.into() };
        // Nobody listens yet: the list tells.
        let _ = self.0.events.send(event);
    }

    /// Serves at a socket until the answer is dropped.
    fn serve(&self, socket: &Path) -> Server {
        let play = self.clone();
        let path = socket.to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = UnixListener::bind(path).expect("a socket");
                ready.send(()).expect("somebody waits");
                let server = tonic::transport::Server::builder().add_service(RuntimeServiceServer::new(play));
                let served = server.serve_with_incoming(UnixListenerStream::new(listener));
                // Connections end at once, as when a runtime is killed.
                tokio::select! { _ = served => {}, _ = stopped => {} }
            });
        });
        started.recv_timeout(LONG).expect("the server starts");
        Server { stop: Some(stop), thread: Some(thread), socket: socket.to_owned() }
    }
}

struct Server {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    socket: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[tonic::async_trait]
impl RuntimeService for Play {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        let version = self.0.version.to_owned();
        Ok(Response::new(VersionResponse { runtime_name: "containerd".to_owned(), runtime_version: version }))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        let id = request.into_inner().pod_sandbox_id;
        let sandboxes = self.0.sandboxes.lock().expect("no panic");
        let pod = sandboxes.get(&id).ok_or_else(|| Status::not_found("no such sandbox"))?;
        let metadata = PodSandboxMetadata { name: pod.clone(), uid: format!("uid-{pod}"), namespace: "shop".into() };
        let status = PodSandboxStatus { id, metadata: Some(metadata), ..PodSandboxStatus::default() };
        Ok(Response::new(PodSandboxStatusResponse { status: Some(status), info: HashMap::new() }))
    }

    async fn list_pod_sandbox(
        &self,
        _: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        self.0.asked.lock().expect("no panic").push("sandboxes".to_owned());
        let sandboxes = self.0.sandboxes.lock().expect("no panic").clone();
        let _ = self.0.held.subscribe().wait_for(|held| !held).await;
        let items = sandboxes.into_keys().map(|id| PodSandbox { id }).collect();
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        self.0.asked.lock().expect("no panic").push("containers".to_owned());
        let containers = self.0.containers.lock().expect("no panic");
        let containers = containers
            .iter()
            .map(|(id, pod)| cri::Container { id: id.clone(), pod_sandbox_id: format!("sandbox-{pod}") })
            .collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        let id = request.into_inner().container_id;
        self.0.asked.lock().expect("no panic").push(id.clone());
        if self.0.mute.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if !self.0.containers.lock().expect("no panic").contains_key(&id) {
            return Err(Status::not_found("no such container"));
        }
        let status = ContainerStatus {
            id,
            metadata: Some(ContainerMetadata { name: "web".into() }),
            image: Some(ImageSpec { image: "docker.io/library/nginx:1".into(), ..ImageSpec::default() }),
            ..ContainerStatus::default()
        };
        Ok(Response::new(ContainerStatusResponse { status: Some(status), info: HashMap::new() }))
    }

    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        self.0.asked.lock().expect("no panic").push("events".to_owned());
        let events = BroadcastStream::new(self.0.events.subscribe());
        Ok(Response::new(Box::pin(events.map(|event| event.map_err(|_| Status::data_loss("too slow"))))))
    }
}

/// The client, and what it told.
struct Listener {
    runtimes: Runtimes,
    told: mpsc::Receiver<Told>,
}

impl Listener {
    fn at(socket: &Path) -> Self {
        let (send, told) = mpsc::channel();
        let sockets = vec![Socket { path: socket.to_owned(), named: true }];
        let runtimes = super::start(sockets, move |told| send.send(told).is_ok()).expect("a thread");
        Self { runtimes, told }
    }

    fn asker(&self) -> &Asker {
        &self.runtimes.asker
    }

    /// What was told first that this wants.
    #[track_caller]
    fn wait<T>(&self, mut want: impl FnMut(&Told) -> Option<T>) -> T {
        let until = std::time::Instant::now() + LONG;
        while let Some(left) = until.checked_duration_since(std::time::Instant::now()) {
            match self.told.recv_timeout(left) {
                Ok(told) => {
                    if let Some(found) = want(&told) {
                        return found;
                    }
                }
                Err(error) => panic!("not told in time: {error}"),
            }
        }
        panic!("not told in time")
    }

    #[track_caller]
    fn facts(&self, id: &str) -> ContainerFacts {
        self.wait(|told| match told {
            Told::Facts(of, facts) if **of == *id => Some((**facts).clone()),
            _ => None,
        })
    }
}

fn id(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

fn container(id: &str, parent: &str) -> Container {
    of_path([id.as_bytes(), parent.as_bytes()].into_iter()).expect("a container")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn what_runs_at_the_start_is_told_with_its_pod() {
    let (folder, play) = (folder(), Play::new("2.1.0"));
    let socket = folder.path().join("cri.sock");
    play.add(&id(1), "web-1");
    let _server = play.serve(&socket);
    let listener = Listener::at(&socket);
    listener.runtimes.wait_for_list(LONG);
    let told: Vec<_> = listener.told.try_iter().collect();
    assert_eq!(told.first(), Some(&Told::Available(true)));
    let facts = told.iter().find_map(|told| match told {
        Told::Facts(of, facts) if **of == *id(1) => Some(facts),
        _ => None,
    });
    let facts = facts.expect("told before the list is over");
    assert_eq!((&*facts.name, &*facts.repository, &*facts.tag), ("web", "docker.io/library/nginx", "1"));
    let pod = facts.pod.as_ref().expect("a pod");
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid), ("shop", "web-1", "uid-web-1"));
    let sandbox =
        told.iter().any(|told| matches!(told, Told::Facts(of, facts) if **of == *"sandbox-web-1" && facts.sandbox));
    assert!(sandbox, "{told:?}");
}

#[test]
fn questions_and_events_tell_of_what_is_new_and_gone() {
    let (folder, play) = (folder(), Play::new("2.1.0"));
    let socket = folder.path().join("cri.sock");
    let _server = play.serve(&socket);
    let listener = Listener::at(&socket);
    listener.runtimes.wait_for_list(LONG);
    play.add(&id(1), "asked");
    assert!(listener.asker().ask(&container(&id(1), "podx")));
    assert_eq!(listener.facts(&id(1)).pod.map(|pod| pod.name), Some("asked".into()));

    // The stream is open once the server has seen the call.
    play.is_asked("events");
    play.add(&id(2), "followed");
    play.event(&id(2), ContainerEventType::ContainerCreatedEvent);
    assert_eq!(listener.facts(&id(2)).pod.map(|pod| pod.name), Some("followed".into()));
    play.remove(&id(2));
    play.event(&id(2), ContainerEventType::ContainerDeletedEvent);
    listener.wait(|told| (*told == Told::Gone(id(2).into())).then_some(()));
}

#[test]
fn containers_of_others_are_unknown_at_once_and_those_of_pods_are_waited_for() {
    let (folder, play) = (folder(), Play::new("2.1.0"));
    let socket = folder.path().join("cri.sock");
    let _server = play.serve(&socket);
    let listener = Listener::at(&socket);
    listener.runtimes.wait_for_list(LONG);
    listener.asker().ask(&container(&id(1), "docker"));
    listener.wait(|told| (*told == Told::Unknown(id(1).into())).then_some(()));
    assert_eq!(play.0.asked.lock().expect("no panic").iter().filter(|asked| **asked == id(1)).count(), 1);

    // As a sandbox, which the runtime knows only after it has started.
    listener.asker().ask(&container(&id(2), "kubepods"));
    play.is_asked(&id(2));
    play.0.sandboxes.lock().expect("no panic").insert(id(2), "late".to_owned());
    let facts = listener.facts(&id(2));
    assert!(facts.sandbox);
    assert_eq!(&*facts.name, "late");
}

#[test]
fn a_runtime_that_does_not_answer_says_nothing() {
    let (folder, play) = (folder(), Play::new("2.1.0"));
    let socket = folder.path().join("cri.sock");
    let _server = play.serve(&socket);
    let listener = Listener::at(&socket);
    listener.runtimes.wait_for_list(LONG);
    play.0.mute.store(true, SeqCst);
    play.add(&id(1), "slow");
    listener.asker().ask(&container(&id(1), "kubepods"));
    play.is_asked(&id(1));
    // The event loop has a deadline of its own; this is only told when it is true.
    play.0.mute.store(false, SeqCst);
    assert_eq!(listener.facts(&id(1)).pod.map(|pod| pod.name), Some("slow".into()));
}

#[test]
fn what_is_found_while_a_list_is_under_way_is_not_gone() {
    let (folder, play) = (folder(), Play::new("2.1.0"));
    let socket = folder.path().join("cri.sock");
    let _server = play.serve(&socket);
    let listener = Listener::at(&socket);
    listener.runtimes.wait_for_list(LONG);
    // A question without an answer has the connection looked at, by another list.
    play.0.asked.lock().expect("no panic").clear();
    play.0.held.send_replace(true);
    play.0.mute.store(true, SeqCst);
    play.add(&id(1), "listed");
    listener.asker().ask(&container(&id(1), "docker"));
    play.is_asked("containers");
    play.is_asked("sandboxes");
    play.0.mute.store(false, SeqCst);
    play.add(&id(2), "found");
    listener.asker().ask(&container(&id(2), "docker"));
    listener.facts(&id(2));
    play.0.held.send_replace(false);
    listener.wait(|told| {
        assert_ne!(*told, Told::Gone(id(2).into()), "it runs");
        matches!(told, Told::Facts(of, _) if **of == *"sandbox-listed").then_some(())
    });
}

#[test]
fn a_restarted_runtime_is_found_again() {
    let (folder, play) = (folder(), Play::new("2.1.0"));
    let socket = folder.path().join("cri.sock");
    play.add(&id(1), "before");
    let server = play.serve(&socket);
    let listener = Listener::at(&socket);
    listener.facts(&id(1));
    drop(server);
    // Asking notices.
    listener.asker().ask(&container(&id(9), "docker"));
    listener.wait(|told| (*told == Told::Available(false)).then_some(()));
    play.remove(&id(1));
    play.add(&id(2), "after");
    let _server = play.serve(&socket);
    listener.wait(|told| (*told == Told::Available(true)).then_some(()));
    let (mut gone, mut new) = (false, false);
    listener.wait(|told| {
        gone |= *told == Told::Gone(id(1).into());
        new |= matches!(told, Told::Facts(of, _) if **of == *id(2));
        (gone && new).then_some(())
    });
}

#[test]
fn events_are_not_taken_from_the_kubelet() {
    let (folder, play) = (folder(), Play::new("v1.7.20"));
    let socket = folder.path().join("cri.sock");
    let _server = play.serve(&socket);
    let listener = Listener::at(&socket);
    listener.runtimes.wait_for_list(LONG);
    listener.asker().ask(&container(&id(1), "docker"));
    listener.wait(|told| (*told == Told::Unknown(id(1).into())).then_some(()));
    assert!(!play.0.asked.lock().expect("no panic").iter().any(|call| call == "events"));
}
