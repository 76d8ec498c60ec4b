//! More events than the machine can take: what is lost is counted to the last one, memory stays, what rules of high
//! priority look for is still told, and who is whose child is still known.

use std::{
    ffi::CString,
    fs::File,
    net::SocketAddr,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;

use crate::{
    child,
    harness::{self, Helper, LONG, Sensor},
    health::{free_address, get, value},
    needs::{Need, trial},
    storm,
};

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![trial(
        "flood: losses are counted exactly, memory stays, and needles are told",
        &[Need::Tracing],
        losses_are_exact,
    )]
}

/// Calls of each of the two generators.
fn calls() -> u64 {
    if harness::in_guest() { 20_000 } else { 500_000 }
}

/// Longer than they take on a slow machine.
const FLOOD: Duration = Duration::from_secs(300);

/// How much more memory may be in use after a second flood than after the first, which filled rings and tables once.
const GROWTH: u64 = 6 << 20;

/// Makes a call that fails, again and again: nothing but the event comes of it. `creat`, because nobody else makes it.
pub fn play(path: &str, count: &str) {
    let path = CString::new(path).expect("a path");
    for _ in 0..count.parse::<u64>().expect("a number") {
        // SAFETY: the call reads a C string, which lives until it returns; its folder does not exist.
        unsafe { libc::syscall(libc::SYS_creat, path.as_ptr(), 0o600) };
    }
}

/// Of the flood's call: records sent, and events lost.
fn counted(address: SocketAddr) -> (u64, u64, String) {
    let metrics = get(address, "/metrics");
    let sent = value(&metrics, "gyrfalcon_sensor_kernel_sent_total{event=\"creat\"}").unwrap_or(0);
    let losses = metrics
        .lines()
        .filter(|line| line.starts_with("gyrfalcon_sensor_kernel_losses_total") && line.contains("event=\"creat\""));
    let lost = losses.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
    (sent, lost, metrics)
}

/// Runs the generators to their end. Meanwhile, in each fiftieth of a second, opens a file for each of two rules, and runs a
/// program.
fn flood(folder: &Path, program: &Path, from: u32) -> u32 {
    let path = folder.join("no-such-folder/file").display().to_string();
    let mut generators: Vec<_> = (0..2)
        .map(|index| {
            let name = format!("gyr-flood-{index}");
            Helper::start(&mut child::command(folder, &name, &["flood", &path, &calls().to_string()]))
        })
        .collect();
    let mut number = from;
    let began = Instant::now();
    while generators.iter_mut().any(|generator| matches!(generator.0.try_wait(), Ok(None))) {
        assert!(began.elapsed() < FLOOD, "the generators do not end");
        for kind in ["needle", "notice"] {
            // There is no such file; the attempt is enough.
            let _ = File::open(folder.join(format!("{kind}-{number}.")));
        }
        let status = Command::new(program).arg(number.to_string()).status();
        assert!(status.expect("a program of ours").success());
        number += 1;
        // The pace of the needles, not a wait for anything.
        thread::sleep(Duration::from_millis(20));
    }
    generators.into_iter().for_each(|generator| drop(generator.finish(LONG)));
    eprintln!("{} calls in {:.1?}", 2 * calls(), began.elapsed());
    number
}

fn losses_are_exact() {
    let folder = harness::folder();
    let place = folder.path().display();
    let rule = |name: &str, condition: &str, priority: &str| {
        format!(
            "- rule: {name}\n  desc: For the case.\n  condition: {condition}\n  output: told %fd.name\n  priority: {priority}\n"
        )
    };
    let program = storm::tiny_program(folder.path());
    let life = format!("evt.type = execve and proc.exepath = {}", program.display());
    let lives = rule("life", &life, "NOTICE").replace("told %fd.name", "told %proc.args %proc.pname %proc.ppid");
    let rules = [
        lives,
        rule("flood", &format!("evt.type = creat and fd.name contains {place} and proc.name = nobody"), "INFO"),
        rule("needle", &format!("evt.type in (open, openat) and fd.name startswith {place}/needle-"), "WARNING"),
        rule("notice", &format!("evt.type in (open, openat) and fd.name startswith {place}/notice-"), "NOTICE"),
    ];
    let rules = harness::write(folder.path(), "rules.yaml", &rules.concat());
    let address = free_address();
    let sensor = Sensor::start(&[&rules], &["--health-listen", &address.to_string(), "--ring-mib", "1"]);

    let needles = flood(folder.path(), &program, 0);
    sensor.fence();
    let settled = |generated: u64| {
        let deadline = Instant::now() + LONG;
        loop {
            let (sent, lost, metrics) = counted(address);
            if sent + lost == generated {
                return (sent, lost, metrics);
            }
            assert!(sent + lost < generated, "{sent} sent and {lost} lost are more than {generated}");
            assert!(Instant::now() < deadline, "{sent} sent and {lost} lost are less than {generated}");
        }
    };
    let memory = |metrics: &str| value(metrics, "gyrfalcon_sensor_memory_bytes").expect("a metric");
    let (_, _, metrics) = settled(2 * calls());
    let before = memory(&metrics);
    let needles = flood(folder.path(), &program, needles);
    sensor.fence();
    let (sent, lost, metrics) = settled(4 * calls());
    let after = memory(&metrics);
    eprintln!("{} generated = {sent} sent + {lost} lost; memory {before} -> {after}", 4 * calls());
    assert!(after <= before + GROWTH, "memory grew from {before} to {after}");
    // What was sent was judged.
    let judged = value(&metrics, "gyrfalcon_sensor_events_total").expect("a metric");
    assert!(judged >= sent, "{judged} events were judged, {sent} were sent of the flood alone");
    let alerts = sensor.all();
    for kind in ["needle", "notice"] {
        let told = alerts.iter().filter(|alert| alert.rule() == kind).count();
        assert_eq!(told, needles as usize, "alerts of rule {kind}");
    }
    let parent = [harness::own_name(), std::process::id().to_string()];
    let lives: Vec<_> = alerts.iter().filter(|alert| alert.rule() == "life").collect();
    assert_eq!(lives.len(), needles as usize, "programs that were told");
    for (number, alert) in lives.iter().enumerate() {
        assert_eq!(alert.field("proc.args"), Some(number.to_string()), "programs are told in order");
        let got = ["proc.pname", "proc.ppid"].map(|field| alert.field(field).unwrap_or_default());
        assert_eq!(got, parent, "parent of program {number}");
    }
    let state = ["exec", "fork", "exit"].map(|event| format!("event=\"{event}\""));
    let losses = metrics.lines().filter(|line| line.starts_with("gyrfalcon_sensor_kernel_losses_total"));
    let losses: Vec<_> =
        losses.filter(|line| !line.ends_with(" 0") && state.iter().any(|event| line.contains(event))).collect();
    assert!(losses.is_empty(), "records of processes were lost: {losses:?}");
    // What `--drops-threshold` says when nobody says it.
    if lost as f64 > 0.1 * (4 * calls()) as f64 {
        let told = sensor.expect("that events were lost", |alert| {
            alert.rule() == "Falco internal: syscall event drop" && !alert.has("n_drops", "0")
        });
        assert_eq!((told.text("priority"), told.text("source")), ("Debug", "internal"));
    }
    let summary = sensor.stop();
    assert_eq!(summary.code, Some(0));
}
