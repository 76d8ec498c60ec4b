//! How soon an alert is told.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

use crate::{rules, sensor::Sensor};

/// Calls whose alerts are waited for.
const ALERTS: usize = 500;

pub fn measure() -> bool {
    first_alert();
    latency();
    true
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
    let mut sensor = Sensor::spawn(&[&own, &all], &[]);
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
    let mut sensor = Sensor::spawn(&[&own, &all], &[]);
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
