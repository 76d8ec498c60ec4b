//! CPU time of the sensor for each event.

use std::{fs, time::Instant};

use crate::{open_and_close, sensor::Sensor, within};

/// Opens of the measurement.
const OPENS: u32 = 1_000_000;

/// CPU seconds that a million events may cost: half of what a million of the kernel's events cost Falco.
const CPU_SECONDS: f64 = 0.375;

/// One process opens a file as fast as it can; every open must be delivered and judged.
pub fn measure() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("all.yaml");
    let rule = "- rule: every open\n  desc: delivered, judged, never matched\n  condition: evt.type in (open, openat) and fd.name contains no-such-name\n  output: '%fd.name'\n  priority: INFO\n";
    fs::write(&rules, rule).expect("the rules are written");
    let sensor = Sensor::start(&[&rules], &[]);
    let before = sensor.cpu_seconds();
    let start = Instant::now();
    (0..OPENS).for_each(|_| open_and_close());
    let rate = f64::from(OPENS) / start.elapsed().as_secs_f64();
    let summary = sensor.stop();
    let cpu = (summary.cpu_seconds - before) / f64::from(OPENS) * 1e6;
    println!(
        "{OPENS} opens, all delivered, at {rate:.0} a second: {cpu:.2} CPU seconds per million events; {}",
        summary.stopped
    );
    within("CPU seconds per million events", cpu, CPU_SECONDS)
}
