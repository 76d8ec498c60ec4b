//! The process that is measured.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::signal,
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// A running sensor.
pub struct Sensor {
    pub process: Child,
    log: BufReader<std::process::ChildStderr>,
}

/// What is known of a sensor that ended.
pub struct Summary {
    /// User and system, all threads.
    pub cpu_seconds: f64,
    /// Its last words.
    pub stopped: String,
}

impl Sensor {
    /// Starts one and waits until it watches; its alerts are thrown away.
    pub fn start(paths: &[&Path], options: &[&str]) -> Self {
        let mut sensor = Self::spawn(paths, options);
        // Alerts of what others do meanwhile must not fill a pipe.
        if let Some(mut alerts) = sensor.process.stdout.take() {
            std::thread::spawn(move || std::io::copy(&mut alerts, &mut std::io::sink()));
        }
        sensor.wait_until_it_watches();
        sensor
    }

    /// Starts one.
    pub fn spawn(paths: &[&Path], options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gyrfalcon"));
        command.args(["run", "--json", "--no-watch"]).args(options).args(paths);
        let mut process = command
            .env("NO_COLOR", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sensor starts");
        everywhere(&process);
        let log = BufReader::new(process.stderr.take().expect("its log"));
        Self { process, log }
    }

    /// Waits until it watches.
    pub fn wait_until_it_watches(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut line = String::new();
        while !line.contains("watching") {
            line.clear();
            assert!(self.log.read_line(&mut line).expect("its log") > 0, "the sensor ended before it was ready");
            assert!(Instant::now() < deadline, "the sensor is not ready in time");
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"))
    }

    /// CPU time so far: user and system, all threads.
    pub fn cpu_seconds(&self) -> f64 {
        let clock = clock_getcpuclockid(self.pid()).expect("a running process");
        Duration::from(clock_gettime(clock).expect("a clock")).as_secs_f64()
    }

    /// Resident memory.
    pub fn resident_kib(&self) -> u32 {
        self.memory_kib("VmRSS:")
    }

    /// Of it, what the sensor has allocated: without pages of files and of the rings.
    pub fn allocated_kib(&self) -> u32 {
        self.memory_kib("RssAnon:")
    }

    fn memory_kib(&self, key: &str) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }

    /// Has it judge what there is, and end.
    pub fn stop(mut self) -> Summary {
        // What is in the rings is judged before the CPU time is read.
        let mut cpu_seconds = self.cpu_seconds();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.cpu_seconds();
            // Without events it wakes up once a second.
            if now - cpu_seconds < 0.001 {
                break;
            }
            cpu_seconds = now;
        }
        signal::kill(self.pid(), signal::Signal::SIGINT).expect("the sensor is told to stop");
        let rest = self.log.by_ref().lines().map_while(Result::ok);
        let stopped = rest.filter_map(|line| line.split_once("stopped ").map(|(_, keys)| keys.to_owned())).last();
        self.process.wait().expect("the sensor ends");
        Summary { cpu_seconds, stopped: stopped.unwrap_or_default() }
    }
}

/// Lets a child run on every CPU, although its parent is pinned.
fn everywhere(process: &Child) {
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        all.set(cpu).expect("a CPU below the count");
    }
    let pid = Pid::from_raw(i32::try_from(process.id()).expect("a pid"));
    sched_setaffinity(pid, &all).expect("the sensor may run anywhere");
}
