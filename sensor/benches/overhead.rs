//! What the sensor costs the rest of the machine: the whole process, measured from outside.
//!
//! Every figure is compared with the same workload without a sensor in the same run, in turns, because the speed of a
//! machine drifts. The workload runs on the first CPU, the sensor where the scheduler puts it. Needs root.
//!
//! ```text
//! cargo xtask bench
//! GYRFALCON_FALCO_RULES=/path/to/falco-rules cargo xtask bench    # with Falco's stable rules instead of our own
//! ```

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{OFlag, open},
    sched::{CpuSet, sched_setaffinity},
    sys::{signal, stat::Mode},
    unistd::{Pid, geteuid},
};

/// Turns of the comparison.
const ROUNDS: usize = 5;
/// Batches of one turn; the fastest counts, as the others were disturbed.
const BATCHES: usize = 20;
/// Calls of one batch.
const CALLS: u32 = 20_000;
/// Programs of one batch: each is a fork, an exec and an exit.
const EXECS: u32 = 200;
/// Batches of them in one turn.
const EXEC_BATCHES: usize = 5;
/// Calls whose alerts are waited for.
const ALERTS: usize = 500;
/// Opens of the throughput measurement.
const OPENS: u32 = 1_000_000;

fn main() {
    if !geteuid().is_root() {
        return eprintln!("ignored: measuring a running sensor needs root");
    }
    let mut first = CpuSet::new();
    first.set(0).expect("a first CPU");
    sched_setaffinity(Pid::from_raw(0), &first).expect("pinned to the first CPU");

    let rules = rules();
    println!("rules: {}", rules.display());
    let mut runs = (Vec::new(), Vec::new());
    let mut memory = 0;
    for _ in 0..ROUNDS {
        runs.0.push(workload());
        let sensor = Sensor::start(&[&rules]);
        runs.1.push(workload());
        memory = sensor.resident_kib();
        sensor.stop();
    }
    row("getppid", &runs, |run| run.call);
    row("open + close of a file that no rule names", &runs, |run| run.open);
    row("write + read of one byte through a pipe", &runs, |run| run.pair);
    row("fork + exec of a program until its end", &runs, |run| run.exec);
    println!("resident memory: {:.1} MiB", f64::from(memory) / 1024.0);
    first_alert();
    latency();
    throughput();
}

/// Falco's stable rules where they are, else our own.
fn rules() -> PathBuf {
    let falco = env::var_os("GYRFALCON_FALCO_RULES").map(|folder| Path::new(&folder).join("falco_rules.yaml"));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/rules");
    falco.filter(|path| path.exists()).unwrap_or(own)
}

/// Nanoseconds.
struct Run {
    call: f64,
    open: f64,
    pair: f64,
    exec: f64,
}

fn workload() -> Run {
    let call = fastest(|| {
        // SAFETY: no memory involved. Called without a wrapper: every return to one is mispredicted after the kernel's
        // slow path, and that is not what is measured here.
        std::hint::black_box(unsafe { libc::getppid() });
    });
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    let pair = fastest(|| {
        nix::unistd::write(&writer, b"x").expect("room in the pipe");
        nix::unistd::read(&reader, &mut [0]).expect("a byte in the pipe");
    });
    Run { call, open: fastest(open_and_close), pair, exec: execs() }
}

/// Nanoseconds from the start of a program until its end was waited for, in the fastest batch.
fn execs() -> f64 {
    let batch = || {
        let start = Instant::now();
        for _ in 0..EXECS {
            let status = Command::new("/bin/true").env_clear().status();
            assert!(status.expect("a program that exists").success());
        }
        start.elapsed().as_nanos() as f64 / f64::from(EXECS)
    };
    (0..EXEC_BATCHES).map(|_| batch()).fold(f64::MAX, f64::min)
}

/// Nanoseconds of one call in the fastest batch.
fn fastest(work: impl Fn()) -> f64 {
    let batch = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            work();
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    (0..BATCHES).map(|_| batch()).fold(f64::MAX, f64::min)
}

fn open_and_close() {
    drop(open("/usr/bin/env", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).expect("a file that exists"));
}

fn row(name: &str, (without, with): &(Vec<Run>, Vec<Run>), figure: fn(&Run) -> f64) {
    let median = |runs: &[Run]| {
        let mut values: Vec<f64> = runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (without, with) = (median(without), median(with));
    println!("{name}: {without:.0} ns without, {with:.0} ns with: +{:.0} ns, x{:.2}", with - without, with / without);
}

/// A rule whose alerts are one line for each open below a folder.
fn marked(folder: &Path) -> PathBuf {
    let rules = folder.join("marked.yaml");
    let rule = format!(
        "- rule: marked\n  desc: told at once\n  condition: evt.type in (open, openat) and fd.name startswith {}/mark\n  \
         output: '%fd.name'\n  priority: WARNING\n",
        folder.display()
    );
    fs::write(&rules, rule).expect("the rules are written");
    rules
}

fn mark(folder: &Path, number: usize) {
    // There is no such file; the attempt is enough.
    let _ = open(&folder.join(format!("mark{number:06}")), OFlag::O_RDONLY, Mode::empty());
}

/// From the exec of the sensor to its first alert, while what it looks for happens all the time; with all rules.
fn first_alert() {
    let folder = tempfile::tempdir().expect("a folder");
    let (own, all) = (marked(folder.path()), rules());
    let began = Instant::now();
    let mut sensor = Sensor::spawn(&[&own, &all]);
    let stdout = BufReader::new(sensor.process.stdout.take().expect("its alerts"));
    let took = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let first = stdout.lines().map_while(Result::ok).find(|line| line.contains("marked"));
            assert!(first.is_some(), "the sensor ended without an alert");
            began.elapsed()
        });
        let mut number = 0;
        while !reader.is_finished() {
            mark(folder.path(), number);
            number += 1;
            // The pace of what happens; it bounds the error of the figure.
            std::thread::sleep(Duration::from_millis(1));
        }
        reader.join().expect("an alert")
    });
    println!("first alert: {:.0} ms after the exec of the sensor", took.as_secs_f64() * 1e3);
    // Nobody reads its alerts any more.
    sensor.process.kill().expect("the sensor runs");
    sensor.process.wait().expect("the sensor ends");
}

/// From a call to the line of its alert, one at a time, with all rules.
fn latency() {
    let folder = tempfile::tempdir().expect("a folder");
    let (own, all) = (marked(folder.path()), rules());
    let mut sensor = Sensor::spawn(&[&own, &all]);
    let mut alerts = BufReader::new(sensor.process.stdout.take().expect("its alerts")).lines();
    sensor.wait_until_it_watches();
    let mut took: Vec<f64> = (0..ALERTS)
        .map(|number| {
            let began = Instant::now();
            mark(folder.path(), number);
            let name = format!("mark{number:06}");
            let told = alerts.by_ref().map_while(Result::ok).find(|line| line.contains(&name));
            assert!(told.is_some(), "the sensor ended without an alert");
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!("from a call to its alert: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
    sensor.process.kill().expect("the sensor runs");
    sensor.process.wait().expect("the sensor ends");
}

/// CPU time per event when every open must be delivered and judged.
fn throughput() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("all.yaml");
    let rule = "- rule: every open\n  desc: delivered, judged, never matched\n  condition: evt.type in (open, openat) and fd.name contains no-such-name\n  output: '%fd.name'\n  priority: INFO\n";
    fs::write(&rules, rule).expect("the rules are written");
    let sensor = Sensor::start(&[&rules]);
    let before = sensor.cpu_seconds();
    let start = Instant::now();
    (0..OPENS).for_each(|_| open_and_close());
    let rate = f64::from(OPENS) / start.elapsed().as_secs_f64();
    let summary = sensor.stop();
    let after = summary.cpu_seconds;
    println!(
        "{OPENS} opens, all delivered, at {rate:.0} a second: {:.2} CPU seconds per million events; {}",
        (after - before) / f64::from(OPENS) * 1e6,
        summary.stopped
    );
}

/// A running sensor.
struct Sensor {
    process: Child,
    log: BufReader<std::process::ChildStderr>,
}

struct Summary {
    cpu_seconds: f64,
    stopped: String,
}

impl Sensor {
    fn start(paths: &[&Path]) -> Self {
        let mut sensor = Self::spawn(paths);
        // Alerts of what others do meanwhile must not fill a pipe.
        if let Some(mut alerts) = sensor.process.stdout.take() {
            std::thread::spawn(move || std::io::copy(&mut alerts, &mut std::io::sink()));
        }
        sensor.wait_until_it_watches();
        sensor
    }

    fn spawn(paths: &[&Path]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gyrfalcon"));
        command.args(["run", "--json", "--no-watch"]).args(paths);
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

    fn wait_until_it_watches(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut line = String::new();
        while !line.contains("watching") {
            line.clear();
            assert!(self.log.read_line(&mut line).expect("its log") > 0, "the sensor ended before it was ready");
            assert!(Instant::now() < deadline, "the sensor is not ready in time");
        }
    }

    fn stat(&self) -> String {
        fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("a running process")
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = self.stat();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }

    fn resident_kib(&self) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }

    fn stop(mut self) -> Summary {
        // What is in the rings is judged before the CPU time is read.
        let mut cpu_seconds = self.cpu_seconds();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.cpu_seconds();
            if now == cpu_seconds {
                break;
            }
            cpu_seconds = now;
        }
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"));
        signal::kill(pid, signal::Signal::SIGINT).expect("the sensor is told to stop");
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
