//! How many events a second the sensor takes, and what it does when there are more.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    generate::{Call, Generators},
    sensor::Sensor,
    within,
};

/// Events a second of each of the two generators of which none may be lost.
const RATE: u32 = 300_000;
/// For so many seconds.
const SECONDS: u32 = 15;
/// How long they make as many as they can.
const FLOOD_SECONDS: u32 = 10;
/// Pace of the needles.
const NEEDLES: Duration = Duration::from_millis(20);
/// How long the sensor may take to judge what is left.
const REST: Duration = Duration::from_secs(10);
/// How much what is allocated may grow in a flood, from its second second on. Pages of the program that were given back after
/// the start and are needed again are no growth.
const GROWTH_KIB: f64 = 2048.0;

pub fn measure() -> bool {
    let paced = paced();
    opens();
    let flood = flood();
    paced && flood
}

/// A rule that must see each of the calls, and matches none.
fn every(folder: &Path, types: &str, more: &str) -> PathBuf {
    let path = folder.join("every.yaml");
    let rule = format!(
        "- rule: every call\n  desc: delivered, judged, never matched\n  condition: evt.type in ({types}) and proc.name = nobody\n  \
         output: '%evt.type'\n  priority: INFO\n{more}"
    );
    fs::write(&path, rule).expect("the rules are written");
    path
}

/// As many events a second as the sensor must take without losing any.
fn paced() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = every(folder.path(), "sched_get_priority_min", "");
    let address = free_address();
    let sensor = Sensor::start(&[&rules], &["--health-listen", &address.to_string()]);
    let before = sensor.cpu_seconds();
    let made = Generators::start(Call::Cheap, RATE, SECONDS).finish();
    let counts = settled(address, "sched_get_priority_min", made);
    let cpu = sensor.cpu_seconds() - before;
    println!(
        "two processes, {:.0} calls a second for {SECONDS} s: {made} made, {} sent, {} lost; {:.2} CPU seconds per million \
         events; {:.1} MiB resident",
        made as f64 / f64::from(SECONDS),
        counts.sent,
        counts.lost,
        cpu / made as f64 * 1e6,
        f64::from(sensor.resident_kib()) / 1024.0,
    );
    sensor.stop();
    within("lost events", counts.lost as f64, 0.0) & counts.exact(made)
}

/// As many opens as two processes can make, each of which must be judged.
fn opens() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = every(folder.path(), "open, openat", "");
    let sensor = Sensor::start(&[&rules], &[]);
    let before = sensor.cpu_seconds();
    let made = Generators::start(Call::Open, 0, FLOOD_SECONDS).finish();
    let summary = sensor.stop();
    println!(
        "two processes, as many opens as they can: {:.0} a second; {:.2} CPU seconds per million; {}",
        made as f64 / f64::from(FLOOD_SECONDS),
        (summary.cpu_seconds - before) / made as f64 * 1e6,
        summary.stopped
    );
}

/// More than the machine can take.
fn flood() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let needle = folder.path().join("needle-");
    let more = format!(
        "- rule: needle\n  desc: told\n  condition: evt.type in (open, openat) and fd.name startswith {}\n  output: '%fd.name'\n  \
         priority: WARNING\n",
        needle.display()
    );
    let rules = every(folder.path(), "sched_get_priority_min", &more);
    let address = free_address();
    let mut sensor = Sensor::spawn(&[&rules], &["--health-listen", &address.to_string()]);
    let alerts = BufReader::new(sensor.process.stdout.take().expect("its alerts"));
    let told = thread::spawn(move || {
        alerts.lines().map_while(Result::ok).filter(|line| line.contains("\"rule\":\"needle\"")).count()
    });
    sensor.wait_until_it_watches();
    let mut generators = Generators::start(Call::Cheap, 0, FLOOD_SECONDS);
    let began = Instant::now();
    let (mut needles, mut memory) = (0usize, 0);
    while generators.running() {
        // There is no such file; the attempt is enough.
        let _ = File::open(format!("{}{needles}", needle.display()));
        needles += 1;
        if began.elapsed() < Duration::from_secs(2) {
            memory = sensor.allocated_kib();
        }
        thread::sleep(NEEDLES);
    }
    let made = generators.finish();
    let counts = settled(address, "sched_get_priority_min", made);
    let after = sensor.allocated_kib();
    sensor.stop();
    let told = told.join().expect("its alerts");
    println!(
        "two processes, as many calls as they can: {:.0} a second for {FLOOD_SECONDS} s: {made} made = {} sent + {} lost; {told} of \
         {needles} needles told; allocated {memory} -> {after} KiB",
        made as f64 / f64::from(FLOOD_SECONDS),
        counts.sent,
        counts.lost,
    );
    counts.exact(made)
        & within("needles that were not told", needles.saturating_sub(told) as f64, 0.0)
        & within("allocated memory grown, in KiB", f64::from(after.saturating_sub(memory)), GROWTH_KIB)
}

/// What the kernel programs counted of one call.
struct Counts {
    sent: u64,
    lost: u64,
}

impl Counts {
    fn read(metrics: &str, event: &str) -> Self {
        let label = format!("event=\"{event}\"");
        let sum = |name: &str| {
            let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(&label));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
        };
        Self { sent: sum("gyrfalcon_sensor_kernel_sent_total"), lost: sum("gyrfalcon_sensor_kernel_losses_total") }
    }

    fn exact(&self, made: u64) -> bool {
        let exact = self.sent + self.lost == made;
        if !exact {
            println!("  BOUND MISSED: {made} calls were made, but {} were sent and {} lost", self.sent, self.lost);
        }
        exact
    }
}

/// The counts when all calls are among them and all that was sent is judged, or when that took too long.
fn settled(address: SocketAddr, event: &str, made: u64) -> Counts {
    let deadline = Instant::now() + REST;
    loop {
        let metrics = get(address);
        let counts = Counts::read(&metrics, event);
        let judged =
            metrics.lines().find_map(|line| line.strip_prefix("gyrfalcon_sensor_events_total ")?.parse::<u64>().ok());
        let done = counts.sent + counts.lost >= made && judged.unwrap_or(0) >= counts.sent;
        if done || Instant::now() > deadline {
            return counts;
        }
        // The pace of the questions: each costs the sensor time.
        thread::sleep(Duration::from_millis(50));
    }
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the sensor listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}
