//! Follows every runtime and answers questions about containers.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::mpsc as std_mpsc,
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream};
use tokio::{
    sync::{Notify, mpsc},
    task::spawn_local,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Ask, Told,
    cri::Found,
    runtime::{Happened, Runtime, RuntimeError},
    sockets::Socket,
};
use crate::hold::PATIENCE;
use link::chain;

/// How often everything is listed, in case an event was missed.
const RELIST: Duration = Duration::from_secs(60);

/// The same where nobody tells of events.
const RELIST_BLIND: Duration = Duration::from_secs(15);

/// Between attempts to connect: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How often a well-known socket that does not exist is looked for: a runtime may start after the sensor.
const LOOK: Duration = Duration::from_secs(5);

/// Between two attempts to find such a container: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// Calls under way for a list.
const CALLS: usize = 8;

/// What the tasks of the thread share.
struct Hub {
    tell: Box<dyn Fn(Told) -> bool + Send>,
    /// By socket: the connection that stands.
    runtimes: RefCell<Vec<Option<Runtime>>>,
    /// Containers that were told, with the socket that knows them.
    known: RefCell<HashMap<Box<str>, usize>>,
    /// Questions under way.
    asked: RefCell<HashSet<Box<str>>>,
    /// By socket: the connection is in doubt.
    doubt: Vec<Notify>,
    /// Signalled when nobody listens to what is told.
    over: Notify,
}

/// Serves until the questions end, or nobody listens.
pub async fn serve(
    sockets: Vec<Socket>,
    mut questions: mpsc::Receiver<Ask>,
    tell: Box<dyn Fn(Told) -> bool + Send>,
    done: std_mpsc::SyncSender<()>,
) {
    let hub = Rc::new(Hub {
        tell,
        runtimes: RefCell::new(vec![None; sockets.len()]),
        known: RefCell::default(),
        asked: RefCell::default(),
        doubt: sockets.iter().map(|_| Notify::new()).collect(),
        over: Notify::new(),
    });
    if !sockets.iter().any(|socket| socket.named || socket.path.exists()) {
        info!("no container runtime found: containers are known by their ids only");
    }
    // Ends when every runtime has been listed once, or could not be.
    let (listed, mut all_listed) = mpsc::channel::<()>(1);
    for (index, socket) in sockets.into_iter().enumerate() {
        spawn_local(Rc::clone(&hub).follow(index, socket, Some(listed.clone())));
    }
    drop(listed);
    spawn_local(async move {
        let _ = all_listed.recv().await;
        // Nobody need be waiting.
        let _ = done.try_send(());
    });
    loop {
        let ask = tokio::select! {
            ask = questions.recv() => ask,
            () = hub.over.notified() => None,
        };
        let Some(ask) = ask else { return };
        if hub.asked.borrow_mut().insert(ask.id.clone()) {
            spawn_local(Rc::clone(&hub).answer(ask));
        }
    }
}

impl Hub {
    fn say(&self, told: Told) {
        if !(self.tell)(told) {
            self.over.notify_one();
        }
    }

    /// Notes that a connection stands or is gone.
    fn connect(&self, index: usize, runtime: Option<Runtime>) {
        let (before, after) = {
            let mut runtimes = self.runtimes.borrow_mut();
            let before = runtimes.iter().any(Option::is_some);
            if let Some(slot) = runtimes.get_mut(index) {
                *slot = runtime;
            }
            (before, runtimes.iter().any(Option::is_some))
        };
        if before != after {
            self.say(Told::Available(after));
        }
    }

    /// Keeps one runtime's containers known, for ever.
    async fn follow(self: Rc<Self>, index: usize, socket: Socket, mut listed: Option<mpsc::Sender<()>>) {
        let mut pause = BACKOFF.0;
        let mut silent = false;
        loop {
            if !socket.named && !socket.path.exists() {
                listed = None;
                sleep(LOOK).await;
                continue;
            }
            let failed = match Runtime::connect(&socket).await {
                Ok(runtime) => {
                    info!(socket = %socket.path.display(), runtime = runtime.name(), version = runtime.version(), "container runtime found");
                    (pause, silent) = (BACKOFF.0, false);
                    self.connect(index, Some(runtime.clone()));
                    let failed = self.keep(index, &runtime, &mut listed).await;
                    self.connect(index, None);
                    failed
                }
                Err(error) => error,
            };
            listed = None;
            if !silent {
                warn!(error = %chain(&failed), "facts about containers are missing until the runtime answers again");
                silent = true;
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Lists and follows until a list fails.
    async fn keep(
        self: &Rc<Self>,
        index: usize,
        runtime: &Runtime,
        listed: &mut Option<mpsc::Sender<()>>,
    ) -> RuntimeError {
        let events =
            runtime.shares_events().then(|| spawn_local(Rc::clone(self).follow_events(index, runtime.clone())));
        let failed = loop {
            if let Err(error) = self.list(index, runtime).await {
                break error;
            }
            *listed = None;
            let blind = events.as_ref().is_none_or(|task| task.is_finished());
            let pause = if blind { RELIST_BLIND } else { RELIST };
            // Whoever doubts the connection makes the next list come at once.
            let _ = timeout(pause, self.doubt[index].notified()).await;
        };
        if let Some(events) = events {
            events.abort();
        }
        failed
    }

    /// Tells what is new and what is gone.
    async fn list(self: &Rc<Self>, index: usize, runtime: &Runtime) -> Result<(), RuntimeError> {
        // One that is found while the list is under way need not be in it.
        let before: Vec<_> = {
            let known = self.known.borrow();
            known.iter().filter(|(_, at)| **at == index).map(|(id, _)| id.clone()).collect()
        };
        let ids: HashSet<Box<str>> = runtime.list().await?.into_iter().map(String::into_boxed_str).collect();
        for id in before.iter().filter(|id| !ids.contains(*id)) {
            self.gone(id);
        }
        let new: Vec<_> = ids.into_iter().filter(|id| !self.known.borrow().contains_key(id)).collect();
        stream::iter(new).for_each_concurrent(CALLS, |id| self.find(index, runtime, id)).await;
        Ok(())
    }

    fn gone(&self, id: &str) {
        if self.known.borrow_mut().remove(id).is_some() {
            self.say(Told::Gone(id.into()));
        }
    }

    fn found(&self, index: usize, id: Box<str>, facts: Box<event::containers::ContainerFacts>) {
        self.known.borrow_mut().insert(id.clone(), index);
        self.say(Told::Facts(id, facts));
    }

    /// Tells one container's facts, if the runtime has any.
    async fn find(&self, index: usize, runtime: &Runtime, id: Box<str>) {
        match runtime.find(&id).await {
            Ok(Found::Facts(facts)) => self.found(index, id, facts),
            Ok(Found::Nothing) => {}
            Err(error) => {
                debug!(error = %chain(&error), "cannot look at a container");
                self.doubt(index);
            }
        }
    }

    /// Has the connection looked at.
    fn doubt(&self, index: usize) {
        if let Some(doubt) = self.doubt.get(index) {
            doubt.notify_one();
        }
    }

    /// Follows what the runtime tells; ends when it never will.
    async fn follow_events(self: Rc<Self>, index: usize, runtime: Runtime) {
        let mut pause = BACKOFF.0;
        loop {
            match runtime.events().await {
                Ok(mut events) => {
                    while let Some(happened) = events.next().await {
                        pause = BACKOFF.0;
                        match happened {
                            Happened::Appeared(id) if !self.known.borrow().contains_key(&id) => {
                                let (hub, runtime) = (Rc::clone(&self), runtime.clone());
                                spawn_local(async move { hub.find(index, &runtime, id).await });
                            }
                            Happened::Gone(id) => self.gone(&id),
                            Happened::Appeared(_) | Happened::Other => {}
                        }
                    }
                }
                Err(error) if error.is_unimplemented() => return,
                Err(error) => debug!(error = %chain(&error), "cannot follow events"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Answers one question of the event loop. A container of a pod that no runtime knows yet is asked for as long as its
    /// records wait: a sandbox is known only after it has started.
    async fn answer(self: Rc<Self>, ask: Ask) {
        let until = Instant::now() + PATIENCE;
        let mut pause = RETRY.0;
        loop {
            let all: Vec<_> = {
                let runtimes = self.runtimes.borrow();
                runtimes.iter().enumerate().filter_map(|(index, runtime)| Some((index, runtime.clone()?))).collect()
            };
            let id = &*ask.id;
            let mut answers =
                join_all(all.iter().map(|(index, runtime)| async move { (*index, runtime.find(id).await) })).await;
            let nothing = |answer: &Result<Found, RuntimeError>| matches!(answer, Ok(Found::Nothing));
            let unknown = !answers.is_empty() && answers.iter().all(|(_, answer)| nothing(answer));
            for (index, _) in answers.iter().filter(|(_, answer)| answer.is_err()) {
                self.doubt(*index);
            }
            let facts = answers.iter().position(|(_, answer)| matches!(answer, Ok(Found::Facts(_))));
            if let Some((index, Ok(Found::Facts(facts)))) = facts.map(|at| answers.swap_remove(at)) {
                self.found(index, ask.id.clone(), facts);
                break;
            }
            let late = Instant::now() >= until;
            if unknown && (late || !ask.in_pod) {
                self.say(Told::Unknown(ask.id.clone()));
            }
            if late || unknown && !ask.in_pod {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
        self.asked.borrow_mut().remove(&ask.id);
    }
}
