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
    println!("resident memory: {:.1} MiB", f64::from(memory) / 1024.0);
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
}

fn workload() -> Run {
    let call = fastest(|| {
        // SAFETY: no memory involved. Called without a wrapper: every return to one is mispredicted after the kernel's
        // slow path, and that is not what is measured here.
        std::hint::black_box(unsafe { libc::getppid() });
    });
    Run { call, open: fastest(open_and_close) }
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_gyrfalcon"));
        command.args(["run", "--json", "--no-watch"]).args(paths);
        let mut process = command
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sensor starts");
        everywhere(&process);
        let mut log = BufReader::new(process.stderr.take().expect("its log"));
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut line = String::new();
        while !line.contains("watching") {
            line.clear();
            assert!(log.read_line(&mut line).expect("its log") > 0, "the sensor ended before it was ready");
            assert!(Instant::now() < deadline, "the sensor is not ready in time");
        }
        Self { process, log }
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
