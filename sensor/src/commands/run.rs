//! `gyrfalcon run`: a sensor on its own.
//!
//! A mistake in the files at the start ends the program; later it leaves the last good rules running.

mod status;

use std::{
    path::{Path, PathBuf},
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
    commands::{compile_options, hostname, print_messages},
    confine::{Writable, confine},
    driver::Hooks,
    exit::Exit,
    input::{self, Content, File, InputError},
    names::Names,
    rules::{Compiled, Specs, compile},
    sensor::{Failed, Sensor, Setup, Stopping},
    signals, watch,
};

use self::status::Status;

/// How long sinks may take to send what they have when the sensor stops, or when they are removed.
const DRAIN: Duration = Duration::from_secs(5);

/// How often what the kernel does not announce is looked at: losses, /etc/passwd, the wall clock.
const TICK: Duration = Duration::from_secs(1);

/// What wakes the control thread.
enum Wake {
    Signal(i32),
    Files,
}

/// Runs until a signal ends it.
pub fn run(args: &cli::Run) -> Exit {
    let names = Arc::new(Names::default());
    let options = Options {
        resolver: Some(names.clone()),
        ..compile_options(&args.local.compile, hostname(args.hostname.as_deref()))
    };
    let (files, errors) = input::read(&args.paths);
    let compiled = match load(args, &files, &errors, &options) {
        Ok(compiled) => compiled,
        Err(exit) => return exit,
    };
    let Some(active) = compiled.active.map(Arc::new) else { return Exit::Input };
    let sinks = match console(args.local.json, args.local.output.as_deref(), compiled.sinks) {
        Ok(sinks) => sinks,
        Err(failed) => {
            error!(error = %chain(&*failed), "cannot start");
            return Exit::System;
        }
    };
    // A folder that cannot be made is of no use to a sink either, which will say so.
    args.writable.iter().for_each(|folder| drop(std::fs::create_dir_all(folder)));
    let hooks = Hooks::choose();
    // Before there is any other thread.
    let written = sinks.iter().filter_map(written).map(Path::to_owned);
    let writable = confine(&written.chain(args.writable.iter().cloned()).collect::<Vec<_>>());
    let (sender, wakes) = mpsc::channel();
    if let Err(error) = signals::send(&[SIGINT, SIGTERM, SIGHUP], sender.clone(), Wake::Signal) {
        error!(error = %error, "cannot receive signals");
        return Exit::System;
    }
    let _watch = (!args.local.no_watch).then(|| watch::watch(&args.paths, &sender, || Wake::Files));
    // What changed before the watch began.
    if !args.local.no_watch && input::read(&args.paths).0 != files {
        let _ = sender.send(Wake::Files);
    }
    drop(files);
    match Standalone::start(args, hooks, (options, names), active, compiled.specs, sinks, writable) {
        Ok(sensor) => sensor.control(args, &wakes),
        Err(failed) => {
            error!(error = %chain(&*failed), "cannot start");
            Exit::System
        }
    }
}

/// Reads and compiles at the start: every mistake is printed, and any error ends it.
fn load(args: &cli::Run, files: &[File], errors: &[InputError], options: &Options) -> Result<Compiled, Exit> {
    let compiled = compile(files, errors, &Specs::new(), options.clone(), crate::log::colour());
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
            "FalcoRule resources see the pods of their namespace only; what is to see this host is a ClusterFalcoRule"
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
    writable: Writable,
    status: Arc<Status>,
}

impl Standalone {
    fn start(
        args: &cli::Run,
        hooks: Hooks,
        (options, names): (Options, Arc<Names>),
        active: Arc<Active>,
        specs: Specs,
        configs: Vec<SinkConfig>,
        writable: Writable,
    ) -> Result<Self, Failed> {
        let status = Arc::new(Status::default());
        if let Some(address) = args.health_listen {
            status::serve(address, &status)?;
        }
        let sinks = Sinks::start(configs)?;
        let publish = Box::new(sinks.fanout());
        let setup = Setup {
            hooks,
            driver: crate::driver::Options {
                ring_bytes: args.ring_mib << 20,
                data_bytes: args.snaplen,
                ..crate::driver::Options::default()
            },
            options: options.clone(),
            publish,
            tap: None,
            containers: args.containers.clone(),
            drops: args.drops.clone(),
            names,
            share: crate::pipeline::Share::ALL,
        };
        let mut standalone = Self { sensor: Sensor::start(setup, active)?, specs, sinks, options, writable, status };
        standalone.look();
        Ok(standalone)
    }

    /// Answers signals and changes until it is told to stop.
    fn control(mut self, args: &cli::Run, wakes: &Receiver<Wake>) -> Exit {
        let mut ticked = Instant::now();
        loop {
            match wakes.recv_timeout(TICK.saturating_sub(ticked.elapsed())) {
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
                Err(_) => {
                    ticked = Instant::now();
                    self.sensor.tick();
                    self.look();
                }
            }
        }
    }

    /// Shows others how the sensor does.
    fn look(&mut self) {
        self.status.look(&self.sensor, self.sinks.counters());
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
        let (sinks, writable) = (&mut self.sinks, &self.writable);
        let reconfigure = || {
            let configs = console(args.local.json, args.local.output.as_deref(), compiled.sinks)?;
            configs.iter().try_for_each(|config| reachable(config, writable))?;
            Ok(sinks.reconfigure(configs, DRAIN)?)
        };
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
        info!("stopping; a second signal stops at once");
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
pub fn console(json: bool, output: Option<&Path>, mut configs: Vec<SinkConfig>) -> Result<Vec<SinkConfig>, Failed> {
    let format = if json { Format::Json } else { Format::Text };
    let mut terminal = output.is_none();
    for config in &mut configs {
        if let Target::Stdout(stdout) = &mut config.target
            && !config.suspended
        {
            terminal = false;
            if json {
                stdout.format = Format::Json;
            }
        }
    }
    if let Some(path) = output {
        let file = FileSink { path: absolute(path)?, format: Some(format), ..FileSink::default() };
        configs.push(command_line(AlertSinkSpec { file: Some(file), ..AlertSinkSpec::default() })?);
    }
    if terminal {
        let stdout = StdoutSink { format: Some(format) };
        configs.push(command_line(AlertSinkSpec { stdout: Some(stdout), ..AlertSinkSpec::default() })?);
    }
    Ok(configs)
}

/// The file that a sink writes, if it writes one.
fn written(config: &SinkConfig) -> Option<&Path> {
    match &config.target {
        Target::File(file) => Some(&file.path),
        _ => None,
    }
}

/// Refuses a sink whose file lies where the running sensor cannot write any more.
fn reachable(config: &SinkConfig, writable: &Writable) -> Result<(), Failed> {
    match written(config) {
        Some(path) if !writable.allows(path) => {
            Err(Unreachable { sink: config.id.to_string(), path: path.to_owned(), folders: writable.shown() }.into())
        }
        Some(_) | None => Ok(()),
    }
}

/// A sink wants to write where the sensor gave up writing when it started.
#[derive(Debug, thiserror::Error)]
#[error(
    "sink {sink} writes {}, and this sensor writes only below {folders}; start it again, or name the folder with --writable",
    path.display()
)]
struct Unreachable {
    sink: String,
    path: PathBuf,
    folders: String,
}

fn command_line(spec: AlertSinkSpec) -> Result<SinkConfig, Failed> {
    let id = ResourceId { kind: Kind::ClusterAlertSink, namespace: "".into(), name: "command-line".into() };
    Ok(SinkConfig::new(id, &spec, &Secrets::default())?)
}

fn absolute(path: &Path) -> Result<String, Failed> {
    Ok(std::path::absolute(path)?.display().to_string())
}
