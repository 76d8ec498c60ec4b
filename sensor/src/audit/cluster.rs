//! The receiver of a cluster: rules come from the operator, alerts go to it, as with a node's agent.
//!
//! It uses the agent's spool, link and compiler; in place of driver and event loop there are the webhook and the judge.

use std::{
    fs,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ::link::{chain, proto};
use event::{
    audit::{AuditEvent, json::Node},
    fields::EventSource,
};
use rules::{alert::Alert, load::Options};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::{runtime::Runtime, sync::watch};
use tracing::{error, info, warn};

use super::{
    judge::{self, Publish},
    metrics::{self, Counters},
    queue::{Queue, Work},
    server::{self, Intake},
};
use crate::{
    active::Active,
    agent::{
        bundle,
        cache::Cache,
        compiler::{self, Compiler},
        facts,
        link::{self, Acks, LinkStatus, Receive, Verified},
        spool::{self, Hit, Limits, Spool, Writer},
        status,
    },
    cli,
    confine::confine,
    exit::Exit,
    sensor::Failed,
    signals,
};

const TICK: Duration = Duration::from_secs(5);
const REPORT: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(5);

enum Wake {
    Signal,
    Rules(Arc<Active>, SyncSender<Result<(), String>>),
    Booted,
    Closed(String),
}

/// Runs until a signal ends it.
pub fn run(args: &cli::AuditRun) -> Exit {
    // Before there is any other thread. That the folder cannot be made is said where it is locked.
    let _ = fs::create_dir_all(&args.link.state_dir);
    confine(std::slice::from_ref(&args.link.state_dir));
    let (sender, wakes) = mpsc::channel();
    if let Err(error) = signals::send(&[SIGINT, SIGTERM], sender.clone(), |_| Wake::Signal) {
        error!(error = %error, "cannot receive signals");
        return Exit::System;
    }
    match Cluster::start(args, sender) {
        Ok(receiver) => receiver.control(args, &wakes),
        Err(failed) => {
            error!(error = %chain(&*failed), "cannot start");
            Exit::System
        }
    }
}

struct Cluster {
    counters: Arc<Counters>,
    queue: Queue,
    judge: JoinHandle<()>,
    alerts: Arc<spool::Queue>,
    spool: Arc<Spool>,
    writer: Writer,
    compiler: Arc<Compiler>,
    link_status: Arc<LinkStatus>,
    runtime: Runtime,
    link: Option<link::Parts>,
    report: watch::Sender<proto::NodeReport>,
    reported: (Instant, u64),
    wakes: Sender<Wake>,
    _lock: fs::File,
}

/// Puts alerts into the spool's queue, with the object that they are about.
struct Deliver(Arc<spool::Queue>);

impl Publish for Deliver {
    fn publish(&self, alert: Arc<Alert>, active: &Arc<Active>, rule: usize, event: &AuditEvent<'_>) {
        self.0.push(Hit { alert, active: Arc::clone(active), rule: Some(rule), pod: None, object: object(event) });
    }
}

/// What the request was about; none for requests that are about no resource.
fn object(event: &AuditEvent<'_>) -> Option<proto::Object> {
    let target = event.target();
    if target.resource.is_empty() {
        return None;
    }
    let text = |path: &[&str]| event.root.at(path).and_then(Node::text).unwrap_or_default().to_owned();
    let uid = match text(&["responseObject", "metadata", "uid"]) {
        uid if target.subresource.is_empty() && !uid.is_empty() => uid,
        _ => target.uid.to_owned(),
    };
    let code = match event.root.at(&["responseStatus", "code"]) {
        Some(Node::Uint(code)) => code,
        _ => 0,
    };
    let verb = text(&["verb"]);
    let exists = (100..300).contains(&code) && !verb.starts_with("delete") && !target.name.is_empty();
    Some(proto::Object {
        group: target.group.to_owned(),
        version: target.version.to_owned(),
        resource: target.resource.to_owned(),
        namespace: target.namespace.to_owned(),
        name: target.name.to_owned(),
        uid,
        exists,
    })
}

/// Where the link puts what the operator sends.
struct Inbox {
    compiler: Arc<Compiler>,
    queue: Queue,
}

impl Receive for Inbox {
    fn bundle(&self, bundle: Verified) {
        self.compiler.bundle(bundle);
    }

    fn node_facts(&self, facts: proto::NodeFacts) {
        self.compiler.facts(facts);
    }

    fn pod_facts(&self, facts: proto::PodFacts) -> tokio::sync::oneshot::Receiver<()> {
        self.queue.give(Work::Cluster(Box::new(facts::cluster_change(facts))));
        // There is nothing to wait for.
        tokio::sync::oneshot::channel().1
    }
}

impl Cluster {
    fn start(args: &cli::AuditRun, wakes: Sender<Wake>) -> Result<Self, Failed> {
        let name = args.hostname();
        let state_dir = &args.link.state_dir;
        let lock = crate::agent::owned::lock(state_dir)?;
        let (spool, alerts, writer) = spool::start(&state_dir.join("spool"), Limits::mib(args.link.spool_mib))?;
        let counters = Arc::new(Counters::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(4)
            .thread_name("operator-link")
            .enable_all()
            .build()?;
        let options =
            Options { hostname: name.as_str().into(), sources: vec![EventSource::K8sAudit], ..Options::default() };
        let (queue, work) = Queue::new(super::queue_bytes(args), Arc::clone(&counters));
        let judge = judge::start(judge::Parts {
            work,
            publish: Box::new(Deliver(Arc::clone(&alerts))),
            counters: Arc::clone(&counters),
            surroundings: super::surroundings(&name),
            limits: super::limits(args),
            active: Arc::new(Active::none(&options)?),
        })?;
        if let Some(address) = args.health_listen {
            let listener = runtime.block_on(server::bind(address, "--health-listen"))?;
            runtime.spawn(metrics::serve(listener, Arc::clone(&counters)));
        }
        let acks = watch::Sender::new(Acks::default());
        let compiler = Arc::new(Compiler::default());
        let booted = wakes.clone();
        compiler::start(
            Arc::clone(&compiler),
            compiler::Parts {
                compile: Box::new(move |bundle, _| bundle::compile_for_audit(bundle, &options)),
                effect: effect(wakes.clone()),
                cache: Cache::open(state_dir)?,
                acks: acks.clone(),
                booted: Box::new(move || {
                    let _ = booted.send(Wake::Booted);
                }),
            },
        )?;
        let report = watch::Sender::new(proto::NodeReport::default());
        let link_status = Arc::new(LinkStatus::default());
        let (dial, operator_name) = args.link.operator();
        let link = link::Parts {
            address: link::Address {
                dial,
                name: operator_name,
                ca: args.link.ca.clone(),
                token: args.link.token.clone(),
            },
            hello: proto::Hello {
                node: name,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                architecture: std::env::consts::ARCH.to_owned(),
                driver: "audit-webhook".to_owned(),
                role: proto::Role::Audit.into(),
                ..proto::Hello::default()
            },
            spool: Arc::clone(&spool),
            queue: Arc::clone(&alerts),
            acks,
            report: report.subscribe(),
            receive: Arc::new(Inbox { compiler: Arc::clone(&compiler), queue: queue.clone() }),
            status: Arc::clone(&link_status),
        };
        Ok(Self {
            counters,
            queue,
            judge,
            alerts,
            spool,
            writer,
            compiler,
            link_status,
            runtime,
            link: Some(link),
            report,
            reported: (Instant::now(), 0),
            wakes,
            _lock: lock,
        })
    }

    fn control(mut self, args: &cli::AuditRun, wakes: &Receiver<Wake>) -> Exit {
        loop {
            match wakes.recv_timeout(TICK) {
                Ok(Wake::Signal) => return self.stop(),
                Ok(Wake::Rules(active, done)) => {
                    // The compiler waits for the answer as long as it lives.
                    let _ = done.send(self.replace(&active, args));
                }
                Ok(Wake::Booted) => {
                    if let Some(parts) = self.link.take() {
                        self.runtime.spawn(link::run(parts));
                    }
                }
                Ok(Wake::Closed(why)) => {
                    error!(why, "the webhook is not served any more");
                    return Exit::System;
                }
                Err(_) => {
                    self.tell();
                    if self.judge.is_finished() || self.writer.is_finished() {
                        error!("a thread has ended that should not; the receiver must be started anew");
                        return Exit::System;
                    }
                }
            }
        }
    }

    /// Puts rules into effect. The port is opened with the first ones: before them, the API server keeps its events.
    fn replace(&mut self, active: &Arc<Active>, args: &cli::AuditRun) -> Result<(), String> {
        self.alerts.runs(Arc::clone(active));
        if !self.queue.rules(Arc::clone(active)) {
            return Err("the receiver is stopping".to_owned());
        }
        if !self.counters.ready.load(Relaxed) {
            let (listener, files) =
                self.runtime.block_on(super::listen(args)).map_err(|failed| chain(&*failed).to_string())?;
            let max_body = (args.max_body_mib as usize) << 20;
            let intake = Intake { queue: self.queue.clone(), counters: Arc::clone(&self.counters), max_body };
            let wakes = self.wakes.clone();
            self.runtime.spawn(async move {
                let why = match server::serve(listener, files, intake).await {
                    Ok(()) => "it stopped by itself".to_owned(),
                    Err(error) => chain(&error).to_string(),
                };
                let _ = wakes.send(Wake::Closed(why));
            });
            self.counters.ready.store(true, Relaxed);
            super::announce(args, active.ruleset.rules().len());
        }
        self.tell();
        Ok(())
    }

    fn tell(&mut self) {
        let (at, before) = self.reported;
        let events = self.counters.events.get();
        let losses = self.counters.losses().map(|(name, count)| (name.to_owned(), count));
        let spool = self.spool.losses().map(|(loss, count)| (loss.label().to_owned(), count));
        let report = proto::NodeReport {
            events_per_second: (events - before) as f64 / at.elapsed().as_secs_f64().max(1.0),
            events,
            losses: losses.chain(spool).filter(|(_, count)| *count > 0).collect(),
            spooled: self.spool.waiting(),
            memory_bytes: crate::health::memory(),
            hooks: vec!["audit-webhook".to_owned()],
            facts_expired: 0,
        };
        if at.elapsed() >= REPORT || status::differs(&report, &self.report.borrow()) {
            self.reported = (Instant::now(), events);
            self.report.send_replace(report);
        }
    }

    /// Takes nothing more in, judges what is there, makes all alerts durable, and sends what can be sent.
    fn stop(self) -> Exit {
        info!("stopping");
        self.compiler.close();
        self.queue.give(Work::Stop);
        let panicked = self.judge.join().is_err();
        self.writer.stop();
        let all = async { tokio::time::timeout(DRAIN, self.link_status.all_delivered(&self.spool)).await.is_ok() };
        let sent = self.link_status.connected() && self.runtime.block_on(all);
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        if !sent && self.spool.waiting() > 0 {
            warn!(alerts = self.spool.waiting(), "alerts stay in the spool until the next start");
        }
        info!(events = self.counters.events.get(), alerts = self.counters.alerts.get(), "stopped");
        if panicked { Exit::System } else { Exit::Fine }
    }
}

/// Hands rules to the control thread and waits for what becomes of them.
fn effect(wakes: Sender<Wake>) -> compiler::Effect {
    Box::new(move |active| {
        let ended = || "the receiver is stopping".to_owned();
        let (done, answer) = mpsc::sync_channel(1);
        wakes.send(Wake::Rules(active, done)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    })
}
