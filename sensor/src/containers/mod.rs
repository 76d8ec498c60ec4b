//! Facts about containers and pods, from the container runtimes of this host: over CRI, or Docker's API.
//!
//! On a thread of its own, which may wait: it lists what there is, follows what happens, and answers the event loop, which
//! sees a container first by its cgroup. What it learns it tells; the loop never waits for it.

pub mod cri;
mod docker;
pub mod facts;
mod hub;
mod runtime;
pub mod sockets;
#[cfg(test)]
mod tests;

use std::{io, path::Path, sync::mpsc as std_mpsc, thread, time::Duration};

use event::containers::{Container, ContainerFacts};
use tokio::sync::mpsc;

use self::sockets::Socket;

/// What the event loop is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// Somebody can say what containers are, or nobody can any more.
    Available(bool),
    /// What a container is.
    Facts(Box<str>, Box<ContainerFacts>),
    /// No runtime knows this container.
    Unknown(Box<str>),
    /// This container is gone for good.
    Gone(Box<str>),
}

/// A container that the event loop wants to know about.
#[derive(Debug)]
struct Ask {
    id: Box<str>,
    /// The runtime will know it in a moment, even if it does not yet.
    in_pod: bool,
}

/// Most questions under way.
const QUEUE: usize = 1024;

/// Asks about containers; never waits.
#[derive(Debug, Clone)]
pub struct Asker(mpsc::Sender<Ask>);

impl Asker {
    /// Asks what a container is; the answer is told. `false` when too many questions are under way: ask again later.
    pub fn ask(&self, container: &Container) -> bool {
        self.0.try_send(Ask { id: container.full_id().into(), in_pod: container.in_pod() }).is_ok()
    }
}

#[cfg(test)]
impl Asker {
    /// One whose questions the test sees: id, and whether it is of a pod.
    pub fn heard() -> (Self, impl FnMut() -> Option<(Box<str>, bool)>) {
        let (questions, mut asked) = mpsc::channel(QUEUE);
        (Self(questions), move || asked.try_recv().ok().map(|ask: Ask| (ask.id, ask.in_pod)))
    }
}

/// The running thread.
pub struct Runtimes {
    /// For the event loop.
    pub asker: Asker,
    listed: std_mpsc::Receiver<()>,
}

impl Runtimes {
    /// Waits until what there is has been told, so that the events of what runs already need not be held; at most this
    /// long.
    pub fn wait_for_list(&self, at_most: Duration) {
        // Later is fine, too: then the first events are held.
        let _ = self.listed.recv_timeout(at_most);
    }
}

/// Asks who listens at a socket: name and version. Waits for the answer, within bounds.
pub fn probe(socket: &Path) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = sockets::Socket { path: socket.to_owned(), named: true };
    // Connections have tasks of their own, on this thread.
    let found = tokio::task::LocalSet::new().block_on(&runtime, runtime::Runtime::connect(&socket))?;
    Ok(format!("{} {}", found.name(), found.version()))
}

/// Starts the thread; it ends when nobody can ask any more, or `tell` answers `false`.
pub fn start(sockets: Vec<Socket>, tell: impl Fn(Told) -> bool + Send + 'static) -> io::Result<Runtimes> {
    let (questions, asked) = mpsc::channel(QUEUE);
    let (done, listed) = std_mpsc::sync_channel(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tell: Box<dyn Fn(Told) -> bool + Send> = Box::new(tell);
    thread::Builder::new()
        .name("containers".to_owned())
        .spawn(move || tokio::task::LocalSet::new().block_on(&runtime, hub::serve(sockets, asked, tell, done)))?;
    Ok(Runtimes { asker: Asker(questions), listed })
}
