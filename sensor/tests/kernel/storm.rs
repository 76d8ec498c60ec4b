//! Two hundred thousand short lives: whoever ran what is told rightly, or it is counted as lost, and nobody is remembered
//! for ever.

use std::{
    collections::BTreeMap,
    env,
    ffi::CString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use libtest_mimic::Trial;

use crate::{
    child,
    harness::{self, Helper, Sensor},
    needs::{Need, trial},
};

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![trial("storm: every sampled exec names its parent, and every loss is counted", &[Need::Tracing], storm)]
}

/// How many programs are run: `GYRFALCON_TEST_EXECS`, or two hundred thousand; few in a guest.
fn execs() -> u64 {
    env::var("GYRFALCON_TEST_EXECS").ok().and_then(|text| text.parse().ok()).unwrap_or(if harness::in_guest() {
        4_000
    } else {
        200_000
    })
}

/// Programs are run by this many parents at a time, each with a name of its own.
const PARENTS: u64 = 4;

/// The rule looks for one in this many.
const SAMPLE: u64 = 100;

/// Longer than a storm takes on a slow machine.
const STORM: Duration = Duration::from_secs(300);

/// How long the sensor keeps ended processes, and some.
const GRACE: Duration = Duration::from_secs(6);

/// Runs a program again and again, with a number as its argument.
pub fn play(program: &str, first: &str, count: &str) {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let program = CString::new(program).expect("a path");
    for number in number(first)..number(first) + number(count) {
        let argument = CString::new(format!("{number:09}")).expect("digits");
        child::spawn(&program, &[&program, &argument]);
    }
}

fn storm() {
    let folder = harness::folder();
    let program = tiny_program(folder.path());
    let rule = format!(
        "- rule: sample\n  desc: One in {SAMPLE} programs of the storm.\n  condition: evt.type = execve and proc.exepath = {} \
         and proc.args endswith 00\n  output: number=%proc.args parent=%proc.pname ppid=%proc.ppid grandparent=%proc.aname[2]\n  \
         priority: NOTICE\n",
        program.display()
    );
    let rules = harness::write(folder.path(), "sample.yaml", &rule);
    let sensor = Sensor::start(&[&rules], &[]);

    let each = execs() / PARENTS;
    let began = Instant::now();
    let parents: Vec<_> = (0..PARENTS)
        .map(|index| {
            let name = format!("gyr-storm-{index}");
            let (program, first, count) = (program.display().to_string(), (index * each).to_string(), each.to_string());
            Helper::start(&mut child::command(folder.path(), &name, &["storm", &program, &first, &count]))
        })
        .collect();
    let pids: Vec<_> = parents.iter().map(|parent| parent.pid().to_string()).collect();
    parents.into_iter().for_each(|parent| drop(parent.finish(STORM)));
    let took = began.elapsed();
    sensor.fence();
    // Ended processes are kept for a while of the events' time, which goes on only while there are events.
    let forgotten = Instant::now() + GRACE;
    while Instant::now() < forgotten {
        sensor.fence();
    }
    let live = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let live = live.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count() as u64;
    let summary = sensor.stop();
    let (lost, events, processes) = (summary.count("lost"), summary.count("events"), summary.count("processes"));
    eprintln!(
        "{} execs in {took:.1?}: {} events judged, {lost} lost, {processes} processes remembered, {live} alive",
        each * PARENTS,
        events
    );

    summary.log.iter().filter(|line| line.contains("cause=")).for_each(|line| eprintln!("{line}"));
    assert_eq!(summary.code, Some(0));
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for alert in summary.alerts.iter().filter(|alert| alert.rule() == "sample") {
        let number: u64 = alert.field("proc.args").and_then(|text| text.parse().ok()).expect("a number");
        *seen.entry(number).or_default() += 1;
        let index = number / each;
        let want = [format!("gyr-storm-{index}"), pids[index as usize].clone(), harness::own_name()];
        let got = ["proc.pname", "proc.ppid", "proc.aname[2]"].map(|field| alert.field(field).unwrap_or_default());
        assert_eq!(got, want, "parents of {number}");
    }
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "told more than once: {twice:?}");
    let missing =
        (0..each * PARENTS).filter(|number| number % SAMPLE == 0 && !seen.contains_key(number)).count() as u64;
    assert!(missing <= lost, "{missing} samples are missing, but only {lost} losses were counted: {:#?}", summary.log);
    // A life is an exec and an exit: what was not judged must have been counted.
    assert!(events + lost >= 2 * each * PARENTS, "{events} events and {lost} losses are less than there was");
    // Others live and die on this machine, too.
    assert!(processes <= live + 2000, "{processes} processes are remembered, {live} are alive");
}

/// The smallest program: it ends well, at once.
pub fn tiny_program(folder: &Path) -> PathBuf {
    let path = folder.join("tiny");
    fs::write(&path, elf()).expect("writing into a temporary folder");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    path
}

/// A static executable of one page: `exit(0)`.
fn elf() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let (machine, code): (u16, &[u8]) = if cfg!(target_arch = "aarch64") {
        // mov x0, #0; mov x8, #93; svc #0
        (183, &[0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4])
    } else {
        // xor edi, edi; mov eax, 60; syscall
        (62, &[0x31, 0xff, 0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05])
    };
    let size = HEADERS + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    // ELF header: executable, machine, version, entry, program headers behind it, no sections.
    put(&2u16.to_le_bytes());
    put(&machine.to_le_bytes());
    put(&1u32.to_le_bytes());
    [BASE + HEADERS, 64, 0].iter().for_each(|word| put(&word.to_le_bytes()));
    put(&0u32.to_le_bytes());
    [64u16, 56, 1, 0, 0, 0].iter().for_each(|half| put(&half.to_le_bytes()));
    // The one segment: all of the file, readable and executable.
    [1u32, 5].iter().for_each(|word| put(&word.to_le_bytes()));
    [0, BASE, BASE, size, size, 0x1000].iter().for_each(|word: &u64| put(&word.to_le_bytes()));
    put(code);
    elf
}
