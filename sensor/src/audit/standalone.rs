//! The receiver on its own: rules and sinks from files, as `gyrfalcon run` has them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use event::audit::AuditEvent;
use rules::{alert::Alert, load::Options};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use sinks::{Fanout, Sinks};
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

use link::chain;

use super::{
    file::{Mode, Reader},
    judge::{self, Publish},
    metrics::{self, Counters},
    queue::{Queue, Work},
    server::{self, Intake},
};
use crate::{
    active::Active,
    cli,
    commands::{print_messages, run::console},
    exit::Exit,
    input,
    rules::{Specs, compile},
    sensor::Failed,
    signals, watch,
};

/// How long sinks may take to send what they have at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// How long they may take when a whole file was read: nobody waits for anything else.
const DRAIN_FILE: Duration = Duration::from_secs(60);

/// How often losses are looked at.
const TICK: Duration = Duration::from_secs(5);

enum Wake {
    Signal(i32),
    Files,
    /// The file was read to its end, or cannot be read.
    Ended(std::io::Result<()>),
    /// The webhook's end has ended, which it must not.
    Closed(String),
}

/// Runs until a signal, or the end of the file.
pub fn run(args: &cli::AuditRun) -> Exit {
    let hostname = args.hostname();
    let options = super::options(&args.local.compile, hostname.clone());
    let (sender, wakes) = mpsc::channel();
    if let Err(error) = signals::send(&[SIGINT, SIGTERM, SIGHUP], sender.clone(), Wake::Signal) {
        error!(error = %error, "cannot receive signals");
        return Exit::System;
    }
    let watched = !args.local.no_watch && args.paths.iter().all(|path| path.exists());
    let _watch = watched.then(|| watch::watch(&args.paths, &sender, || Wake::Files));
    let (files, errors) = input::read(&args.paths);
    let compiled = compile(&files, &errors, &Specs::new(), options.clone(), crate::log::colour());
    print_messages(&compiled.messages);
    let Some(active) = compiled.active.map(Arc::new) else {
        error!("nothing was started: the files above have errors");
        return Exit::Input;
    };
    if active.ruleset.rules().len() == 0 {
        let paths: Vec<_> = args.paths.iter().map(|path| path.display().to_string()).collect();
        error!(paths = paths.join(" "), "no rules found: the files hold no enabled rules with `source: k8s_audit`");
        return Exit::Input;
    }
    let started = Receiving::start(args, &hostname, options, active, compiled.specs, compiled.sinks, sender);
    match started {
        Ok(receiving) => receiving.control(args, &wakes),
        Err(failed) => {
            error!(error = %chain(&*failed), "cannot start");
            Exit::System
        }
    }
}

struct Receiving {
    options: Options,
    specs: Specs,
    sinks: Sinks,
    counters: Arc<Counters>,
    queue: Queue,
    judge: JoinHandle<()>,
    runtime: Runtime,
    reader: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    lost: u64,
}

struct ToSinks(Fanout);

impl Publish for ToSinks {
    fn publish(&self, alert: Arc<Alert>, _: &Arc<Active>, _: usize, _: &AuditEvent<'_>) {
        self.0.publish(alert);
    }
}

impl Receiving {
    fn start(
        args: &cli::AuditRun,
        hostname: &str,
        options: Options,
        active: Arc<Active>,
        specs: Specs,
        configs: Vec<sinks::SinkConfig>,
        wakes: mpsc::Sender<Wake>,
    ) -> Result<Self, Failed> {
        let sinks = Sinks::start(console(args.local.json, args.local.output.as_deref(), configs)?)?;
        let counters = Arc::new(Counters::default());
        let (queue, work) = Queue::new(super::queue_bytes(args), Arc::clone(&counters));
        let rules = active.ruleset.rules().len();
        let judge = judge::start(judge::Parts {
            work,
            publish: Box::new(ToSinks(sinks.fanout())),
            counters: Arc::clone(&counters),
            surroundings: super::surroundings(hostname),
            limits: super::limits(args),
            active,
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("webhook")
            .enable_all()
            .build()?;
        if let Some(address) = args.health_listen {
            let listener = runtime.block_on(server::bind(address, "--health-listen"))?;
            runtime.spawn(metrics::serve(listener, Arc::clone(&counters)));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = None;
        match &args.file {
            Some(path) => {
                let mode = match (args.follow, args.from_start) {
                    (false, _) => Mode::Once,
                    (true, false) => Mode::Follow,
                    (true, true) => Mode::FollowFromStart,
                };
                let fanout = sinks.fanout();
                let reading = Reader::new(
                    path,
                    queue.clone(),
                    Arc::clone(&counters),
                    runtime.handle().clone(),
                    Arc::clone(&stop),
                    super::limits(args).bytes,
                )
                // A file does not run away: its alerts wait for the sinks.
                .patient(move || fanout.is_crowded());
                reader = Some(thread::Builder::new().name("file".to_owned()).spawn(move || {
                    let _ = wakes.send(Wake::Ended(reading.run(mode)));
                })?);
            }
            None => {
                let (listener, files) = runtime.block_on(super::listen(args))?;
                let max_body = (args.max_body_mib as usize) << 20;
                let intake = Intake { queue: queue.clone(), counters: Arc::clone(&counters), max_body };
                runtime.spawn(async move {
                    let why = match server::serve(listener, files, intake).await {
                        Ok(()) => "it stopped by itself".to_owned(),
                        Err(error) => chain(&error).to_string(),
                    };
                    let _ = wakes.send(Wake::Closed(why));
                });
                super::announce(args, rules);
            }
        }
        counters.ready.store(true, Relaxed);
        Ok(Self { options, specs, sinks, counters, queue, judge, runtime, reader, stop, lost: 0 })
    }

    fn control(mut self, args: &cli::AuditRun, wakes: &Receiver<Wake>) -> Exit {
        loop {
            match wakes.recv_timeout(TICK) {
                Ok(Wake::Signal(SIGHUP)) => {
                    self.sinks.reopen();
                    self.reload(args);
                }
                Ok(Wake::Signal(_)) => return self.finish(DRAIN, Exit::Fine),
                Ok(Wake::Files) => {
                    thread::sleep(watch::QUIET);
                    self.reload(args);
                }
                Ok(Wake::Ended(Ok(()))) => return self.finish(DRAIN_FILE, Exit::Fine),
                Ok(Wake::Ended(Err(error))) => {
                    error!(error = %chain(&error), "cannot read the audit log; see --file");
                    return self.finish(DRAIN, Exit::System);
                }
                Ok(Wake::Closed(why)) => {
                    error!(why, "the webhook is not served any more");
                    return self.finish(DRAIN, Exit::System);
                }
                Err(_) => {
                    self.look();
                    if self.judge.is_finished() {
                        error!("the thread that judges has ended; the receiver must be started anew");
                        return Exit::System;
                    }
                }
            }
        }
    }

    /// Says what was lost since the last look.
    fn look(&mut self) {
        let lost: u64 = self.counters.losses().map(|(_, count)| count).sum();
        if lost > self.lost {
            for (cause, count) in self.counters.losses().filter(|(_, count)| *count > 0) {
                warn!(cause, count, "events were not judged, or not all of them");
            }
            self.lost = lost;
        }
    }

    fn reload(&mut self, args: &cli::AuditRun) {
        let (files, errors) = input::read(&args.paths);
        let compiled = compile(&files, &errors, &self.specs, self.options.clone(), crate::log::colour());
        print_messages(&compiled.messages);
        let Some(active) = compiled.active.map(Arc::new) else {
            return error!("ruleset kept: the files have errors");
        };
        let sinks = console(args.local.json, args.local.output.as_deref(), compiled.sinks)
            .and_then(|configs| Ok(self.sinks.reconfigure(configs, DRAIN)?));
        if let Err(failed) = sinks {
            return error!(error = %chain(&*failed), "ruleset kept: the new one cannot be put into effect");
        }
        let rules = active.ruleset.rules().len();
        if self.queue.rules(active) {
            self.specs = compiled.specs;
            info!(rules, "ruleset replaced");
        }
    }

    /// Takes nothing more in, judges what is there, and lets the sinks send.
    fn finish(mut self, drain: Duration, exit: Exit) -> Exit {
        self.stop.store(true, Relaxed);
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        let panicked = self.reader.take().is_some_and(|reader| reader.join().is_err());
        self.queue.give(Work::Stop);
        let panicked = self.judge.join().is_err() || panicked;
        for left in self.sinks.stop(Instant::now() + drain) {
            warn!(sink = %left.id, alerts = left.alerts, "alerts were not delivered before the deadline");
        }
        for (cause, count) in self.counters.losses().filter(|(_, count)| *count > 0) {
            warn!(cause, count, "events were not judged, or not all of them");
        }
        info!(
            events = self.counters.events.get(),
            bytes = self.counters.bytes.get(),
            alerts = self.counters.alerts.get(),
            "stopped"
        );
        if panicked { Exit::System } else { exit }
    }
}
