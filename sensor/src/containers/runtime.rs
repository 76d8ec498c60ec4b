//! One container runtime, whatever it speaks.

use super::{
    cri::{ContainerEventResponse, ContainerEventType, Cri, CriError, Found},
    docker::{self, Docker, DockerError},
    sockets::Socket,
};

/// A connection.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// containerd, CRI-O and others that the kubelet knows.
    Cri(Box<Cri>),
    /// Docker, or Podman in Docker's manner.
    Docker(Docker),
}

/// Why a runtime does not answer.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// One that speaks CRI.
    #[error(transparent)]
    Cri(#[from] CriError),
    /// One that speaks Docker's API.
    #[error(transparent)]
    Docker(#[from] DockerError),
}

impl RuntimeError {
    /// Whether the runtime has no such call and never will.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Cri(CriError::Call { source, .. }) if source.code() == tonic::Code::Unimplemented)
    }
}

/// What happens to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// It is there now.
    Appeared(Box<str>),
    /// It is gone for good.
    Gone(Box<str>),
    /// Nothing that matters.
    Other,
}

/// What happens from now on.
pub enum Events {
    /// As CRI tells.
    Cri(Box<tonic::Streaming<ContainerEventResponse>>),
    /// As Docker tells.
    Docker(docker::Events),
}

impl Events {
    /// The next thing that happens; `None` when nothing more will be told.
    pub async fn next(&mut self) -> Option<Happened> {
        match self {
            Self::Cri(events) => {
                let event = events.message().await.ok()??;
                let kind = event.container_event_type();
                let id = event.container_id.into_boxed_str();
                Some(match kind {
                    ContainerEventType::ContainerCreatedEvent | ContainerEventType::ContainerStartedEvent => {
                        Happened::Appeared(id)
                    }
                    ContainerEventType::ContainerDeletedEvent => Happened::Gone(id),
                    ContainerEventType::ContainerStoppedEvent => Happened::Other,
                })
            }
            Self::Docker(events) => events.next().await,
        }
    }
}

impl Runtime {
    /// Connects, and asks who is there.
    pub async fn connect(socket: &Socket) -> Result<Self, RuntimeError> {
        Ok(match socket.speaks_docker() {
            true => Self::Docker(Docker::connect(&socket.path).await?),
            false => Self::Cri(Box::new(Cri::connect(&socket.path).await?)),
        })
    }

    /// The runtime's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Cri(cri) => &cri.name,
            Self::Docker(docker) => docker.name(),
        }
    }

    /// Its version.
    pub fn version(&self) -> &str {
        match self {
            Self::Cri(cri) => &cri.version,
            Self::Docker(docker) => docker.version(),
        }
    }

    /// Whether several clients can follow its events.
    pub fn shares_events(&self) -> bool {
        match self {
            Self::Cri(cri) => cri.shares_events(),
            Self::Docker(_) => true,
        }
    }

    /// Ids of all containers that the runtime keeps.
    pub async fn list(&self) -> Result<Vec<String>, RuntimeError> {
        Ok(match self {
            Self::Cri(cri) => cri.list().await?,
            Self::Docker(docker) => docker.list().await?,
        })
    }

    /// What happens to containers from now on. It may take until the first event before this returns.
    pub async fn events(&self) -> Result<Events, RuntimeError> {
        Ok(match self {
            Self::Cri(cri) => Events::Cri(Box::new(cri.events().await?)),
            Self::Docker(docker) => Events::Docker(docker.events().await?),
        })
    }

    /// Everything about the container with this id.
    pub async fn find(&self, id: &str) -> Result<Found, RuntimeError> {
        Ok(match self {
            Self::Cri(cri) => cri.find(id).await?,
            Self::Docker(docker) => docker.find(id).await?,
        })
    }
}
