//! `gyrfalcon run`: a sensor on its own.
//!
//! Order matters: the hooks of exec, fork and exit are attached, and the loop reads their rings, before /proc is read, so
//! that no process falls between; the rules' system calls are traced before the loop judges by them and given up only
//! after. A mistake in the files at the start ends the program; later it leaves the last good rules running.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use abi::control::want;
use api::{
    ResourceId,
    resource::Kind,
    sink::{AlertSinkSpec, FileSink, Format, StdoutSink},
};
use event::state::{Host as HostFacts, Limits, State};
use rules::load::Options;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use sinks::{SinkConfig, Sinks, config::Target};
use tracing::{error, info, warn};

use crate::{
    chain::chain,
    cli,
    commands::{compile_options, print_messages},
    driver::{self, Driver, Host, Waker, boot_time_ns},
    exit::Exit,
    input::{self, Content},
    lookup,
    pipeline::{Counters, Input, Parts, Pipeline},
    procfs::Reader,
    report,
    rules::{Active, Compiled, Specs, compile},
    users::Accounts,
    watch,
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
    if let Err(error) = signals(sender.clone()) {
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
    match Sensor::start(args, options, active, compiled.specs, compiled.sinks) {
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

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The running parts, seen from the thread that controls them.
struct Sensor {
    driver: Driver,
    active: Arc<Active>,
    /// What the running rules were made of, for resources that are suspended later.
    specs: Specs,
    generation: u64,
    sinks: Sinks,
    counters: Arc<Counters>,
    inputs: Sender<Input>,
    waker: Waker,
    pipeline: thread::JoinHandle<()>,
    accounts: Accounts,
    reader: Reader,
    options: Options,
    boot_ns: u64,
    lost: u64,
}

impl Sensor {
    fn start(
        args: &cli::Run,
        options: Options,
        active: Arc<Active>,
        specs: Specs,
        configs: Vec<SinkConfig>,
    ) -> Result<Self, Failed> {
        let host = Host::probe()?;
        for feature in &host.offsets.without {
            warn!(feature, "this kernel does not allow a feature");
        }
        let rings = driver::Options { ring_bytes: args.ring_mib << 20, ..driver::Options::default() };
        let (driver, consumer) = Driver::load(&host, driver::object(), rings)?;
        let sinks = Sinks::start(console(args, configs)?)?;

        let reader = Reader::new(host.cgroups);
        let (accounts, users) = Accounts::read();
        let boot_ns = boot_offset();
        let mut state = State::new(
            Limits::default(),
            HostFacts {
                hostname: options.hostname.to_string().into(),
                boot_ns,
                utc_offset_s: crate::clock::utc_offset_s(),
            },
        );
        state.users = users;
        reader.read_env(active.wants() & want::ENV != 0);
        let (inputs, taken) = mpsc::channel();
        let waker = consumer.waker();
        let questions = lookup::start(reader.clone(), inputs.clone(), waker.clone())?;
        let counters = Arc::new(Counters::default());
        driver.want(active.wants());
        let pipeline = Pipeline::start(Parts {
            consumer,
            inputs: taken,
            questions,
            publish: Box::new(sinks.fanout()),
            counters: Arc::clone(&counters),
            state,
            active: Arc::new(Active::none(&options)?),
        })?;
        let mut sensor = Self {
            driver,
            active,
            specs,
            generation: 1,
            sinks,
            counters,
            inputs,
            waker,
            pipeline,
            accounts,
            reader,
            options,
            boot_ns,
            lost: 0,
        };
        for seed in sensor.reader.all() {
            sensor.tell(Input::Process(Box::new(seed)));
        }
        sensor.tell(Input::Scanned);
        sensor.judge_by(&Arc::clone(&sensor.active))?;
        sensor.driver.filter(&sensor.active.filters())?;
        sensor.driver.trace(sensor.active.rows())?;
        sensor.driver.settle();
        report::rules(&sensor.active);
        info!(generation = 1, "ruleset active");
        info!(
            rules = sensor.active.ruleset.rules().len(),
            syscalls = sensor.active.rows().iter().count(),
            ring_memory_mib = sensor.driver.memory() >> 20,
            kernel = host.release,
            "watching"
        );
        Ok(sensor)
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
                Err(_) => self.tick(),
            }
        }
    }

    /// Compiles the files anew and, if they are sound, replaces rules and sinks.
    fn reload(&mut self, args: &cli::Run) {
        let (files, errors) = input::read(&args.paths);
        let compiled = compile(&files, &errors, &self.specs, self.options.clone(), crate::log::colour());
        print_messages(&compiled.messages);
        let Some(active) = compiled.active.map(Arc::new) else {
            return error!(generation = self.generation, "ruleset kept: the files have errors");
        };
        match self.replace(args, &active, compiled.sinks) {
            Ok(()) => {
                self.active = active;
                self.specs = compiled.specs;
                self.generation += 1;
                report::rules(&self.active);
                info!(generation = self.generation, "ruleset replaced");
            }
            Err(failed) => {
                error!(error = %chain(&*failed), generation = self.generation, "ruleset kept: the new one cannot be put into effect");
                self.fall_back();
            }
        }
    }

    /// Puts new rules and sinks into effect. Everything that can fail comes before the loop judges by the new rules.
    fn replace(&mut self, args: &cli::Run, active: &Arc<Active>, sinks: Vec<SinkConfig>) -> Result<(), Failed> {
        // Until the new rules judge, the kernel must pass what either set needs.
        self.driver.clear_filters()?;
        self.driver.want(self.active.wants() | active.wants());
        self.driver.trace(self.active.rows().union(active.rows()))?;
        self.sinks.reconfigure(console(args, sinks)?, DRAIN)?;
        let env = active.wants() & want::ENV != 0;
        self.reader.read_env(env);
        if env && self.active.wants() & want::ENV == 0 {
            // Environments were not collected before: ask /proc for those of the living.
            for seed in self.reader.all() {
                self.tell(Input::Process(Box::new(seed)));
            }
        }
        self.judge_by(active)?;
        self.tune(active);
        Ok(())
    }

    /// Has the loop judge by these rules from the next event on.
    fn judge_by(&self, active: &Arc<Active>) -> Result<(), Failed> {
        let (done, swapped) = mpsc::sync_channel(1);
        self.tell(Input::Rules(Arc::clone(active), done));
        swapped.recv().map_err(|_| "the event loop has ended")?;
        Ok(())
    }

    /// Stops collecting what these rules do not need. A failure costs time, not events.
    fn tune(&mut self, active: &Active) {
        let tuned = self.driver.trace(active.rows()).and_then(|()| self.driver.filter(&active.filters()));
        if let Err(error) = tuned {
            warn!(error = %chain(&error), "more is collected than the rules need");
        }
        self.driver.want(active.wants());
        self.driver.settle();
    }

    /// Goes on with the rules that the loop judges by.
    fn fall_back(&mut self) {
        let active = Arc::clone(&self.active);
        self.reader.read_env(active.wants() & want::ENV != 0);
        self.tune(&active);
    }

    fn tell(&self, input: Input) {
        // The loop ends only after `Input::Stop`, which is the last thing that it is told.
        let _ = self.inputs.send(input);
        self.waker.wake();
    }

    fn tick(&mut self) {
        if self.accounts.stale() {
            let (accounts, users) = Accounts::read();
            self.accounts = accounts;
            self.tell(Input::Users(Box::new(users)));
        }
        let boot_ns = boot_offset();
        if boot_ns.abs_diff(self.boot_ns) > 1_000_000 {
            self.boot_ns = boot_ns;
            self.tell(Input::Clock(boot_ns));
        }
        let lost = report::lost(&self.driver, &self.counters);
        if lost > self.lost {
            warn!(lost = lost - self.lost, total = lost, "events were lost since the last look");
            report::losses(&self.driver, &self.counters);
            self.lost = lost;
        }
    }

    /// Detaches, judges what is in the rings, lets the sinks send what they have.
    fn stop(self, wakes: &Receiver<Wake>) -> Exit {
        let Self { mut driver, active, sinks, counters, inputs, waker, pipeline, .. } = self;
        info!("stopping; a second signal stops at once");
        let detached = driver.detach();
        let _ = inputs.send(Input::Stop);
        waker.wake();
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
        if let Err(error) = detached {
            warn!(error = %chain(&error), "cannot detach");
        }
        report::hits(&active);
        report::losses(&driver, &counters);
        report::stopped(&driver, &counters);
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

fn signals(sender: Sender<Wake>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in &mut signals {
            if sender.send(Wake::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Unix time of the zero of the boot clock, in nanoseconds.
fn boot_offset() -> u64 {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX).saturating_sub(boot_time_ns())
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
    Ok(SinkConfig::new(id, &spec)?)
}

fn absolute(path: &PathBuf) -> Result<String, Failed> {
    Ok(std::path::absolute(path)?.display().to_string())
}
