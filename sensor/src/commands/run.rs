//! `gyrfalcon run`: a sensor on its own.
//!
//! A mistake in the files at the start ends the program; later it leaves the last good rules running.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use api::{
    ResourceId,
    resource::Kind,
    sink::{AlertSinkSpec, FileSink, Format, StdoutSink},
};
use rules::load::Options;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use sinks::{Secrets, SinkConfig, Sinks, config::Target};
use tracing::{error, info, warn};

use link::chain;

use crate::{
    active::Active,
    cli,
    commands::{compile_options, print_messages},
    exit::Exit,
    input::{self, Content},
    rules::{Compiled, Specs, compile},
    sensor::{Failed, Sensor, Setup, Stopping},
    signals, watch,
};

/// How long sinks may take to send what they have when the sensor stops, or when they are removed.
const DRAIN: Duration = Duration::from_secs(5);

/// How often what the kernel does not announce is looked at: losses, /etc/passwd, the wall clock.
const TICK: Duration = Duration::from_secs(5);

/// What wakes the control thread.
enum Wake {
    Signal(i32),
    Files,
}

/// Runs until a signal ends it.
pub fn run(args: &cli::Run) -> Exit {
    let options = compile_options(&args.compile, hostname(args));
    let (sender, wakes) = mpsc::channel();
    if let Err(error) = signals::send(&[SIGINT, SIGTERM, SIGHUP], sender.clone(), Wake::Signal) {
        error!(error = %error, "cannot receive signals");
        return Exit::System;
    }
    // Before the files are read, so that no change falls between. What does not exist is reported by reading it.
    let watched = !args.no_watch && args.paths.iter().all(|path| path.exists());
    let _watch = watched.then(|| watch::watch(&args.paths, &sender, || Wake::Files));
    let compiled = match load(args, &options) {
        Ok(compiled) => compiled,
        Err(exit) => return exit,
    };
    let Some(active) = compiled.active.map(Arc::new) else { return Exit::Input };
    match Standalone::start(args, options, active, compiled.specs, compiled.sinks) {
        Ok(sensor) => sensor.control(args, &wakes),
        Err(failed) => {
            error!(error = %chain(&*failed), "cannot start");
            Exit::System
        }
    }
}

fn hostname(args: &cli::Run) -> String {
    args.hostname.clone().unwrap_or_else(|| {
        nix::unistd::gethostname().map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
    })
}

/// Reads and compiles at the start: every mistake is printed, and any error ends it.
fn load(args: &cli::Run, options: &Options) -> Result<Compiled, Exit> {
    let (files, errors) = input::read(&args.paths);
    let compiled = compile(&files, &errors, &Specs::new(), options.clone(), crate::log::colour());
    print_messages(&compiled.messages);
    let Some(active) = &compiled.active else {
        error!("nothing was started: the files above have errors");
        return Err(Exit::Input);
    };
    if active.ruleset.rules().len() == 0 {
        let hint = match files.iter().any(|file| matches!(file.content, Content::Manifests { .. })) {
            true => "there are manifests, but no FalcoRule or ClusterFalcoRule with enabled rules among them",
            false => "the files hold no enabled rules",
        };
        let paths: Vec<_> = args.paths.iter().map(|path| path.display().to_string()).collect();
        error!(paths = paths.join(" "), hint, "no rules found");
        return Err(Exit::Input);
    }
    if compiled.namespaced > 0 {
        info!(
            resources = compiled.namespaced,
            "namespaces do not exist on a host: FalcoRule resources see all of it here"
        );
    }
    Ok(compiled)
}

/// The sensor with what only a standalone one has.
struct Standalone {
    sensor: Sensor,
    /// What the running rules were made of, for resources that are suspended later.
    specs: Specs,
    sinks: Sinks,
    options: Options,
}

impl Standalone {
    fn start(
        args: &cli::Run,
        options: Options,
        active: Arc<Active>,
        specs: Specs,
        configs: Vec<SinkConfig>,
    ) -> Result<Self, Failed> {
        let sinks = Sinks::start(console(args, configs)?)?;
        let publish = Box::new(sinks.fanout());
        let setup = Setup {
            ring_bytes: args.ring_mib << 20,
            options: options.clone(),
            publish,
            containers: args.containers.clone(),
        };
        Ok(Self { sensor: Sensor::start(setup, active)?, specs, sinks, options })
    }

    /// Answers signals and changes until it is told to stop.
    fn control(mut self, args: &cli::Run, wakes: &Receiver<Wake>) -> Exit {
        loop {
            match wakes.recv_timeout(TICK) {
                Ok(Wake::Signal(SIGHUP)) => {
                    self.sinks.reopen();
                    self.reload(args);
                }
                Ok(Wake::Signal(_)) => return self.stop(wakes),
                Ok(Wake::Files) => {
                    if let Some(signal) = settle(wakes) {
                        if signal != SIGHUP {
                            return self.stop(wakes);
                        }
                        self.sinks.reopen();
                    }
                    self.reload(args);
                }
                Err(_) => self.sensor.tick(),
            }
        }
    }

    /// Compiles the files anew and, if they are sound, replaces rules and sinks.
    fn reload(&mut self, args: &cli::Run) {
        let (files, errors) = input::read(&args.paths);
        let compiled = compile(&files, &errors, &self.specs, self.options.clone(), crate::log::colour());
        print_messages(&compiled.messages);
        let generation = self.sensor.generation();
        let Some(active) = compiled.active.map(Arc::new) else {
            return error!(generation, "ruleset kept: the files have errors");
        };
        let sinks = &mut self.sinks;
        let reconfigure = || Ok(sinks.reconfigure(console(args, compiled.sinks)?, DRAIN)?);
        match self.sensor.replace(active, reconfigure) {
            Ok(()) => self.specs = compiled.specs,
            Err(failed) => {
                error!(error = %chain(&*failed), generation, "ruleset kept: the new one cannot be put into effect");
            }
        }
    }

    /// Detaches, judges what is in the rings, lets the sinks send what they have.
    fn stop(self, wakes: &Receiver<Wake>) -> Exit {
        let Self { sensor, sinks, .. } = self;
        let Stopping { pipeline, rest } = sensor.stop();
        let finished = thread::spawn(move || {
            let panicked = pipeline.join().is_err();
            (sinks.stop(Instant::now() + DRAIN), panicked)
        });
        while !finished.is_finished() {
            if let Ok(Wake::Signal(SIGINT | SIGTERM)) = wakes.recv_timeout(Duration::from_millis(10)) {
                warn!("stopped at once: alerts that sinks had not sent are lost");
                return Exit::System;
            }
        }
        let (left, panicked) = finished.join().unwrap_or_default();
        for left in left {
            warn!(sink = %left.id, alerts = left.alerts, "alerts were not delivered before the deadline");
        }
        rest.tell();
        if panicked { Exit::System } else { Exit::Fine }
    }
}

/// Waits until the files have been left alone, within bounds; a signal meanwhile is returned.
fn settle(wakes: &Receiver<Wake>) -> Option<i32> {
    let latest = Instant::now() + watch::PATIENCE;
    while Instant::now() < latest {
        match wakes.recv_timeout(watch::QUIET) {
            Ok(Wake::Files) => {}
            Ok(Wake::Signal(signal)) => return Some(signal),
            Err(_) => return None,
        }
    }
    None
}

/// The sinks of the manifests and those of the command line: `--output`, or the terminal unless a manifest has it.
fn console(args: &cli::Run, mut configs: Vec<SinkConfig>) -> Result<Vec<SinkConfig>, Failed> {
    let format = if args.json { Format::Json } else { Format::Text };
    let mut terminal = args.output.is_none();
    for config in &mut configs {
        if let Target::Stdout(stdout) = &mut config.target
            && !config.suspended
        {
            terminal = false;
            if args.json {
                stdout.format = Format::Json;
            }
        }
    }
    if let Some(path) = &args.output {
        let file = FileSink { path: absolute(path)?, format: Some(format), ..FileSink::default() };
        configs.push(command_line(AlertSinkSpec { file: Some(file), ..AlertSinkSpec::default() })?);
    }
    if terminal {
        let stdout = StdoutSink { format: Some(format) };
        configs.push(command_line(AlertSinkSpec { stdout: Some(stdout), ..AlertSinkSpec::default() })?);
    }
    Ok(configs)
}

fn command_line(spec: AlertSinkSpec) -> Result<SinkConfig, Failed> {
    let id = ResourceId { kind: Kind::ClusterAlertSink, namespace: "".into(), name: "command-line".into() };
    Ok(SinkConfig::new(id, &spec, &Secrets::default())?)
}

fn absolute(path: &PathBuf) -> Result<String, Failed> {
    Ok(std::path::absolute(path)?.display().to_string())
}
