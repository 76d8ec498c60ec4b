//! The running sensor, whoever gives it rules and takes its alerts: driver, event loop, and the change of rules.
//!
//! Order matters: the hooks of exec, fork and exit are attached, and the loop reads their rings, before /proc is read, so
//! that no process falls between; the rules' system calls are traced before the loop judges by them and given up only
//! after.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use abi::control::want;
use event::state::{Host as HostFacts, Limits, State};
use recording::Frame;
use rules::load::Options;
use tracing::{info, warn};

use link::chain;

use crate::{
    active::Active,
    cli, containers,
    driver::{self, Counts, Driver, DriverError, Hooks, Host, Waker, boot_time_ns},
    drops::{Drops, Totals},
    footprint, lookup,
    names::Names,
    pipeline::{Counters, Input, Parts, Pipeline, Publish, Share, Tap},
    procfs::Reader,
    report,
    users::Accounts,
};

/// How long the start waits for the container runtimes to say what runs already.
const LISTS: Duration = Duration::from_secs(2);

/// How long rules wait for the addresses of the host names in them.
const LOOKUPS: Duration = Duration::from_secs(2);

/// How often lost events are logged, while events are lost.
const LOSSES: Duration = Duration::from_secs(5);

/// How often the sensor says how it does.
const SUMMARY: Duration = Duration::from_secs(60);

/// Why something could not be put into effect.
pub type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What a sensor is started with.
pub struct Setup {
    /// How the kernel calls the programs: chosen before the sensor was confined.
    pub hooks: Hooks,
    /// Sizes on the kernel's side.
    pub driver: driver::Options,
    /// What the rules are compiled with.
    pub options: Options,
    /// Where alerts go.
    pub publish: Box<dyn Publish>,
    /// Who else sees what the event loop takes in.
    pub tap: Option<Box<dyn Tap>>,
    /// Where facts about containers come from.
    pub containers: cli::Containers,
    /// When lost events are told.
    pub drops: cli::Drops,
    /// The host names in rules; `options` has it as their resolver.
    pub names: Arc<Names>,
    /// Which records are judged from the start.
    pub share: Share,
}

/// The running parts, seen from the thread that controls them.
pub struct Sensor {
    driver: Driver,
    active: Arc<Active>,
    /// Of the rules: 1 for those of the start.
    generation: u64,
    counters: Arc<Counters>,
    inputs: Sender<Input>,
    waker: Waker,
    pipeline: thread::JoinHandle<()>,
    accounts: Accounts,
    reader: Reader,
    names: Arc<Names>,
    boot_ns: u64,
    lost: u64,
    drops: Drops,
    /// When losses were last logged, and a summary.
    logged: (Instant, Instant),
    /// Events at the last summary.
    summarised: u64,
    reconciled: Reconciled,
}

/// When the process table was last brought into line with /proc.
struct Reconciled {
    /// Lost records of exec, fork and exit until then.
    lost: u64,
    at: Instant,
    /// Whether it is being done.
    busy: Arc<AtomicBool>,
}

impl Sensor {
    /// Attaches, reads what is there, and judges by these rules.
    pub fn start(setup: Setup, active: Arc<Active>) -> Result<Self, Failed> {
        let Setup { hooks, driver, options, publish, tap, containers, drops, names, share } = setup;
        let host = Host::probe()?;
        for feature in &host.offsets.without {
            warn!(feature, "this kernel does not allow a feature");
        }
        let way = hooks.name();
        let (mut driver, consumer) = Driver::load(&host, hooks, driver::object(), driver)?;

        let reader = Reader::new(host.cgroups, &containers.host_root);
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
        if let Some(tap) = &tap {
            tap.see(Frame::Clock(boot_ns));
            tap.see(Frame::Users(Box::new(users.clone())));
        }
        state.users = users;
        reader.read_env(active.wants() & want::ENV != 0);
        let (inputs, taken) = mpsc::channel();
        let waker = consumer.waker();
        let questions = lookup::start(reader.clone(), inputs.clone(), waker.clone())?;
        let runtimes = {
            let (inputs, waker) = (inputs.clone(), waker.clone());
            let sockets = containers::sockets::sockets(&containers.cri, &containers.host_root);
            containers::start(sockets, move |told| {
                let heard = inputs.send(Input::Container(told)).is_ok();
                waker.wake();
                heard
            })?
        };
        names.want(active.ruleset.host_names());
        names.start()?;
        let counters = Arc::new(Counters::default());
        driver.want(active.wants())?;
        let pipeline = Pipeline::start(Parts {
            consumer,
            inputs: taken,
            questions,
            asker: runtimes.asker.clone(),
            publish,
            tap,
            counters: Arc::clone(&counters),
            state,
            active: Arc::new(Active::none(&options)?),
            share,
        })?;
        let mut sensor = Self {
            driver,
            active,
            generation: 1,
            counters,
            inputs,
            waker,
            pipeline,
            accounts,
            reader,
            names,
            boot_ns,
            lost: 0,
            drops: Drops::new(drops, (&*options.hostname).into(), Instant::now()),
            logged: (Instant::now(), Instant::now()),
            summarised: 0,
            reconciled: Reconciled { lost: 0, at: Instant::now(), busy: Arc::default() },
        };
        for seed in sensor.reader.all() {
            sensor.tell(Input::Process(Box::new(seed)));
        }
        runtimes.wait_for_list(LISTS);
        sensor.names.wait(LOOKUPS);
        sensor.tell(Input::Scanned);
        sensor.judge_by(&Arc::clone(&sensor.active))?;
        sensor.driver.filter(&sensor.active.filters())?;
        sensor.driver.trace(sensor.active.rows())?;
        sensor.driver.settle();
        footprint::give_back();
        report::rules(&sensor.active);
        report::bounds(&sensor.driver, Limits::default());
        info!(generation = 1, "ruleset active");
        info!(
            rules = sensor.active.ruleset.rules().len(),
            syscalls = sensor.active.rows().len(),
            ring_memory_mib = sensor.driver.memory() >> 20,
            kernel = host.release,
            driver = way,
            "watching"
        );
        Ok(sensor)
    }

    /// Puts new rules into effect, or leaves the running ones as they are. `between` is what must succeed with the rules;
    /// it runs when the kernel delivers what they need, before the loop judges by them.
    pub fn replace(&mut self, active: Arc<Active>, between: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
        match self.put(&active, between) {
            Ok(()) => {
                self.active = active;
                self.generation += 1;
                report::rules(&self.active);
                info!(generation = self.generation, "ruleset replaced");
                Ok(())
            }
            Err(failed) => {
                let active = Arc::clone(&self.active);
                self.reader.read_env(active.wants() & want::ENV != 0);
                self.tune(&active);
                Err(failed)
            }
        }
    }

    /// Everything that can fail comes before the loop judges by the new rules.
    fn put(&mut self, active: &Arc<Active>, between: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
        // Until the new rules judge, the kernel must pass what either set needs.
        self.driver.clear_filters()?;
        self.driver.want(self.active.wants() | active.wants())?;
        self.driver.trace(self.active.rows().union(active.rows()))?;
        self.names.want(self.active.ruleset.host_names().chain(active.ruleset.host_names()));
        self.names.wait(LOOKUPS);
        between()?;
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
        let tuned = tuned.and(self.driver.want(active.wants()));
        if let Err(error) = tuned {
            warn!(error = %chain(&error), "more is collected than the rules need");
        }
        self.names.want(active.ruleset.host_names());
        self.driver.settle();
    }

    fn tell(&self, input: Input) {
        // The loop ends only after `Input::Stop`, which is the last thing that it is told.
        let _ = self.inputs.send(input);
        self.waker.wake();
    }

    /// For others who have something to tell the event loop.
    pub fn teller(&self) -> Teller {
        Teller { inputs: self.inputs.clone(), waker: self.waker.clone() }
    }

    /// Whether the event loop runs.
    pub fn alive(&self) -> bool {
        !self.pipeline.is_finished()
    }

    /// Reads /proc when records of exec, fork or exit were lost: on a thread of its own, one at a time, and not too often.
    fn reconcile(&mut self, counts: &Counts) {
        let state = ["exec", "fork", "exit"];
        let of_state = counts.events.iter().filter(|(name, _)| state.contains(name));
        let lost: u64 = of_state.map(|(_, counts)| counts.lost()).sum();
        let teller = self.teller();
        let Reconciled { lost: before, at, busy } = &mut self.reconciled;
        if lost == *before || at.elapsed() < LOSSES || busy.swap(true, Relaxed) {
            return;
        }
        (*before, *at) = (lost, Instant::now());
        let (reader, busy) = (self.reader.clone(), Arc::clone(busy));
        let spawned = thread::Builder::new().name("reconcile".to_owned()).spawn({
            let busy = Arc::clone(&busy);
            move || {
                let seen = boot_time_ns();
                teller.tell(Input::Living(reader.all(), seen));
                busy.store(false, Relaxed);
            }
        });
        match spawned {
            Ok(_) => info!(lost, "records of processes were lost: reading /proc"),
            Err(error) => {
                busy.store(false, Relaxed);
                warn!(error = %error, "cannot start a thread that reads /proc");
            }
        }
    }

    /// How often losses were told.
    pub fn drop_alerts(&self) -> u64 {
        self.drops.told()
    }

    /// Looks at what the kernel does not announce: losses, /etc/passwd, the wall clock. To be called every second.
    pub fn tick(&mut self) {
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
        let counts = match self.driver.counts() {
            Ok(counts) => counts,
            Err(error) => return warn!(error = %chain(&error), "cannot read the kernel's counters"),
        };
        let refused = self.counters.refused();
        if let Some(told) = self.drops.look(Totals::new(&counts, refused), Instant::now(), unix_ns()) {
            if let Some(message) = told.log {
                warn!("{message}");
            }
            if let Some(alert) = told.alert {
                self.tell(Input::Alert(Box::new(alert)));
            }
        }
        let lost = counts.lost() + refused;
        if lost > self.lost && self.logged.0.elapsed() >= LOSSES {
            warn!(lost = lost - self.lost, total = lost, "events were lost since the last look");
            report::losses(&counts, &self.counters);
            self.lost = lost;
            self.logged.0 = Instant::now();
        }
        self.reconcile(&counts);
        let elapsed = self.logged.1.elapsed();
        if elapsed >= SUMMARY {
            let events = report::summary(&self.driver, &counts, &self.counters, self.summarised, elapsed);
            self.summarised = events;
            self.logged.1 = Instant::now();
        }
    }

    /// The driver: what is attached, and what the kernel counted.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// What the loop counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The rules that the loop judges by.
    pub fn active(&self) -> &Arc<Active> {
        &self.active
    }

    /// Of the rules: 1 for those of the start, one more with each replacement.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Detaches, and has the loop judge what is in the rings and end.
    pub fn stop(self) -> Stopping {
        let Self { mut driver, active, counters, inputs, waker, pipeline, .. } = self;
        let detached = driver.detach();
        let _ = inputs.send(Input::Stop);
        waker.wake();
        Stopping { pipeline, rest: Rest { driver, active, counters, detached } }
    }
}

/// Tells the event loop what it should know.
#[derive(Clone)]
pub struct Teller {
    inputs: Sender<Input>,
    waker: Waker,
}

impl Teller {
    /// Tells it; nobody listens any more when the sensor is ending.
    pub fn tell(&self, input: Input) {
        let _ = self.inputs.send(input);
        self.waker.wake();
    }
}

/// A sensor whose event loop is ending.
pub struct Stopping {
    /// The event loop. Alerts may come until it has ended.
    pub pipeline: thread::JoinHandle<()>,
    /// What there is to tell afterwards.
    pub rest: Rest,
}

/// What is left of a sensor.
pub struct Rest {
    driver: Driver,
    active: Arc<Active>,
    counters: Arc<Counters>,
    detached: Result<(), DriverError>,
}

impl Rest {
    /// What was lost of events, by cause.
    pub fn losses(&self) -> Vec<(String, u64)> {
        report::lost_events(&self.driver, &self.counters)
    }

    /// The last words.
    pub fn tell(self) {
        if let Err(error) = self.detached {
            warn!(error = %chain(&error), "cannot detach");
        }
        report::hits(&self.active);
        match self.driver.counts() {
            Ok(counts) => {
                report::losses(&counts, &self.counters);
                report::stopped(&counts, &self.counters);
            }
            Err(error) => warn!(error = %chain(&error), "cannot read the kernel's counters"),
        }
    }
}

/// Unix time of the zero of the boot clock, in nanoseconds.
pub fn boot_offset() -> u64 {
    unix_ns().saturating_sub(boot_time_ns())
}

fn unix_ns() -> u64 {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX)
}
