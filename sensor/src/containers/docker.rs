//! Talks to Docker, or to Podman in Docker's manner, over its socket (Docker Engine API 1.24 and later; Podman serves
//! the same at its own socket). A connection for each question: they are few, and a socket of this host costs little.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use event::containers::{ContainerFacts, Mount};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HOST,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixStream, task::spawn_local, time::timeout};

use super::{
    cri::Found,
    facts::{ITEMS_MAX, bare_id, parse_image},
    runtime::Happened,
};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);

/// Longest answer in bytes.
const ANSWER_MAX: usize = 16 << 20;

/// Longest line of a stream of events: the labels of a container are in each.
const EVENT_MAX: usize = 1 << 20;

/// Why Docker doesn't answer.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// Nobody listens at the socket.
    #[error("cannot connect to the container runtime at {}: is it running, and may this process open its socket?", socket.display())]
    Connect {
        /// Path of the socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A call failed.
    #[error("the container runtime at {} does not answer {call}", socket.display())]
    Call {
        /// Path of the socket.
        socket: PathBuf,
        /// The path that was asked for.
        call: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Who is there.
#[derive(Debug)]
struct Who {
    socket: PathBuf,
    name: &'static str,
    version: String,
}

/// A runtime that speaks Docker's API.
#[derive(Debug, Clone)]
pub struct Docker(Arc<Who>);

impl Docker {
    /// Connects, and asks who is there.
    pub async fn connect(socket: &Path) -> Result<Self, DockerError> {
        let unknown = Self(Arc::new(Who { socket: socket.to_owned(), name: "docker", version: String::new() }));
        let said = unknown.get("/version").await?.unwrap_or_default();
        // Podman names itself among the components.
        let components = said.get("Components").and_then(Value::as_array);
        let podman = components.into_iter().flatten().any(|one| text(one, "/Name").starts_with("Podman"));
        let name = if podman { "podman" } else { "docker" };
        Ok(Self(Arc::new(Who { socket: socket.to_owned(), name, version: text(&said, "/Version").to_owned() })))
    }

    /// Falco's word for it.
    pub fn name(&self) -> &str {
        self.0.name
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Ids of all containers, stopped ones included: they may be started again.
    pub async fn list(&self) -> Result<Vec<String>, DockerError> {
        let list = self.get("/containers/json?all=true").await?.unwrap_or_default();
        let all = list.as_array().into_iter().flatten();
        Ok(all.filter_map(|one| Some(one.get("Id")?.as_str()?.to_owned())).collect())
    }

    /// Everything about the container with this id.
    pub async fn find(&self, id: &str) -> Result<Found, DockerError> {
        // What is no id is no part of a path either.
        if !is_id(id) {
            return Ok(Found::Nothing);
        }
        let Some(container) = self.get(&format!("/containers/{id}/json")).await? else { return Ok(Found::Nothing) };
        let image = bare_id(text(&container, "/Image"));
        // Without it only the digest is missing.
        let image = if is_id(image) { self.get(&format!("/images/{image}/json")).await.ok().flatten() } else { None };
        Ok(Found::Facts(Box::new(facts(self.0.name, &container, image.as_ref()))))
    }

    /// What happens to containers from now on.
    pub async fn events(&self) -> Result<Events, DockerError> {
        // {"type":["container"]}
        let call = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D";
        let body = timeout(CALL, self.ask(call)).await;
        let late = |_| self.failed(call, io::Error::from(io::ErrorKind::TimedOut).into());
        let (_, body) = body.map_err(late)??;
        Ok(Events { body, line: Vec::new() })
    }

    /// Asks for JSON; `None` when there is nothing by that name.
    async fn get(&self, call: &str) -> Result<Option<Value>, DockerError> {
        let answer = async {
            let (status, body) = self.ask(call).await?;
            if status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| self.failed(call, error))?;
            if !status.is_success() {
                return Err(self.failed(call, format!("it says {status}").into()));
            }
            serde_json::from_slice(&body.to_bytes()).map(Some).map_err(|error| self.failed(call, error.into()))
        };
        let late = |_| Err(self.failed(call, io::Error::from(io::ErrorKind::TimedOut).into()));
        timeout(CALL, answer).await.unwrap_or_else(late)
    }

    async fn ask(&self, call: &str) -> Result<(StatusCode, Incoming), DockerError> {
        let connect = |source| DockerError::Connect { socket: self.0.socket.clone(), source };
        let stream = UnixStream::connect(&self.0.socket).await.map_err(connect)?;
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| self.failed(call, error);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.into()))?;
        // It ends with the answer; what goes wrong is seen by who waits for it.
        spawn_local(async move { drop(connection.await) });
        let request = Request::get(call).header(HOST, "docker").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| failed(error.into()))?;
        let answer = sender.send_request(request).await.map_err(|error| failed(error.into()))?;
        Ok((answer.status(), answer.into_body()))
    }

    fn failed(&self, call: &str, source: Box<dyn std::error::Error + Send + Sync>) -> DockerError {
        DockerError::Call { socket: self.0.socket.clone(), call: call.to_owned(), source }
    }
}

fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A stream of events, one JSON object a line.
pub struct Events {
    body: Incoming,
    line: Vec<u8>,
}

impl Events {
    /// The next thing that happens; `None` when the stream has ended, or says too much at once.
    pub async fn next(&mut self) -> Option<Happened> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let rest = self.line.split_off(end + 1);
                let line = std::mem::replace(&mut self.line, rest);
                return Some(happened(&line));
            }
            if self.line.len() > EVENT_MAX {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.line.extend_from_slice(data);
            }
        }
    }
}

fn happened(line: &[u8]) -> Happened {
    let Ok(event) = serde_json::from_slice::<Value>(line) else { return Happened::Other };
    let id: Box<str> =
        [text(&event, "/Actor/ID"), text(&event, "/id")].into_iter().find(|id| is_id(id)).unwrap_or("").into();
    if id.is_empty() {
        return Happened::Other;
    }
    // Podman says `remove` where Docker says `destroy`.
    match [text(&event, "/Action"), text(&event, "/status")].into_iter().find(|word| !word.is_empty()) {
        Some("create" | "start") => Happened::Appeared(id),
        Some("destroy" | "remove") => Happened::Gone(id),
        Some(_) | None => Happened::Other,
    }
}

/// A text in an answer; empty when it is not there.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Puts the facts together: of a container as `inspect` shows it, and its image likewise.
fn facts(runtime: &str, container: &Value, image: Option<&Value>) -> ContainerFacts {
    let first = |pointer: &str| {
        let list = image.and_then(|image| image.pointer(pointer)?.as_array()?.first()?.as_str());
        list.unwrap_or_default()
    };
    let asked = text(container, "/Config/Image");
    // An image that was asked for by its id goes by the name that it has.
    let named = parse_image(asked);
    let name = if named.repository.is_empty() { first("/RepoTags") } else { asked };
    let named = parse_image(name);
    let digest = first("/RepoDigests").split_once('@').map_or(named.digest, |(_, digest)| digest);
    let host = |pointer: &str| Some(text(container, pointer) == "host");
    let networks = container.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let addresses = networks.into_iter().flat_map(|networks| networks.values()).map(|one| text(one, "/IPAddress"));
    let ip = [text(container, "/NetworkSettings/IPAddress")].into_iter().chain(addresses).find(|ip| !ip.is_empty());
    let mut labels: Vec<(Box<str>, Box<str>)> = container
        .pointer("/Config/Labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str().into(), value.as_str().unwrap_or_default().into()))
        .collect();
    labels.sort_unstable();
    labels.truncate(ITEMS_MAX);
    let mounts = container.get("Mounts").and_then(Value::as_array).into_iter().flatten();
    ContainerFacts {
        name: text(container, "/Name").trim_start_matches('/').into(),
        runtime: runtime.into(),
        image: name.into(),
        image_id: bare_id(text(container, "/Image")).into(),
        repository: named.repository.into(),
        tag: named.tag.into(),
        digest: digest.into(),
        privileged: container.pointer("/HostConfig/Privileged").and_then(Value::as_bool),
        host_pid: host("/HostConfig/PidMode"),
        host_network: host("/HostConfig/NetworkMode"),
        host_ipc: host("/HostConfig/IpcMode"),
        mounts: mounts.take(ITEMS_MAX).map(mount).collect(),
        labels,
        ip: ip.unwrap_or_default().into(),
        ..ContainerFacts::default()
    }
}

fn mount(mount: &Value) -> Mount {
    Mount {
        source: text(mount, "/Source").into(),
        dest: text(mount, "/Destination").into(),
        mode: text(mount, "/Mode").into(),
        writable: mount.get("RW").and_then(Value::as_bool).unwrap_or(false),
        propagation: text(mount, "/Propagation").into(),
    }
}

#[cfg(test)]
#[path = "docker_tests.rs"]
mod tests;
