//! Files and standard output, with the queue and the retries in front of them.

mod common;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use common::{LONG, alert, config, losses, start, wait_for};
use gyrfalcon_sinks::{Loss, Sinks, StartError};

fn rules(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let rule =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["rule"].as_str().map(Into::into);
    text.lines().filter_map(rule).collect()
}

#[test]
fn a_renamed_file_is_followed_by_a_new_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, old) = (folder.path().join("alerts"), folder.path().join("alerts.old"));
    let mut sinks = start(vec![config("file", &format!("file: {{path: {}}}", path.display()))]);
    sinks.publish(alert("a"));
    wait_for(&mut sinks, "file", |counters| counters.sent == 1);
    fs::rename(&path, &old).expect("renamed");
    sinks.reopen();
    sinks.publish(alert("b"));
    wait_for(&mut sinks, "file", |counters| counters.sent == 2);
    assert_eq!((rules(&old), rules(&path)), (vec!["a".into()], vec!["b".into()]));
}

#[test]
fn a_full_disk_is_counted_and_recovered_from() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, disk) = (folder.path().join("alerts"), folder.path().join("disk"));
    symlink("/dev/full", &path).expect("linked");
    let retry = "retry: {initialBackoff: 1ms, maxBackoff: 1ms, maxAttempts: 2}";
    let mut sinks = start(vec![config("file", &format!("file: {{path: {}}}, {retry}", path.display()))]);
    sinks.publish(alert("a"));
    sinks.publish(alert("b"));
    let counters = wait_for(&mut sinks, "file", |counters| counters.dropped_total() == 2);
    assert_eq!((losses(&counters), counters.retried), (vec![(Loss::WriteFailed, 2)], 2));
    let failure = counters.failure.expect("failing");
    assert!(failure.contains("alerts") && failure.contains("make room"), "{failure}");
    // The way out of a full disk, as far as the sink can see: writing works again.
    symlink(&disk, folder.path().join("new"))
        .and_then(|()| fs::rename(folder.path().join("new"), &path))
        .expect("linked");
    sinks.publish(alert("c"));
    let counters = wait_for(&mut sinks, "file", |counters| counters.sent == 1);
    assert_eq!((counters.failure, rules(&disk)), (None, vec!["c".into()]));
}

#[test]
fn two_sinks_do_not_share_a_file() {
    let spec = "file: {path: /tmp/alerts}";
    let refused = Sinks::start(vec![config("a", spec), config("b", spec)]);
    assert!(matches!(refused, Err(StartError::SameFile { .. })));
}

#[test]
fn a_file_passes_from_one_sink_to_another_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spec = format!("file: {{path: {}}}", folder.path().join("alerts").display());
    let mut sinks = start(vec![config("a", &spec)]);
    (0..100).for_each(|_| sinks.publish(alert("a")));
    sinks.reconfigure(vec![config("b", &spec)], LONG).expect("changed");
    (0..100).for_each(|_| sinks.publish(alert("b")));
    assert_eq!(sinks.stop(Instant::now() + LONG), []);
    let rules = rules(&folder.path().join("alerts"));
    assert_eq!(rules.concat(), "a".repeat(100) + &"b".repeat(100));
}

/// Runs one of the ignored tests below, with its standard output in our hands.
fn child(test: &str) -> Child {
    Command::new(env::current_exe().expect("this test"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

#[test]
#[ignore = "run by alerts_are_lines_on_standard_output"]
fn child_prints() {
    let sinks = start(vec![
        config("text", "stdout: {}, match: {rules: ['text *']}"),
        config("json", "stdout: {format: json}, match: {rules: ['json *']}"),
    ]);
    for number in 0..50 {
        sinks.publish(alert(&format!("text {number}")));
        sinks.publish(alert(&format!("json {number}")));
    }
    sinks.stop(Instant::now() + LONG);
}

#[test]
fn alerts_are_lines_on_standard_output() {
    let output = child("child_prints").wait_with_output().expect("ended");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (mut texts, mut jsons) = (0, 0);
    for line in text.lines() {
        if let Some((_, number)) = line.split_once(": Notice text ") {
            assert_eq!(number, format!("{texts} happened"));
            texts += 1;
        } else if line.starts_with('{') {
            let json: serde_json::Value = serde_json::from_str(line).expect("a whole line");
            assert_eq!(json["rule"], format!("json {jsons}"));
            jsons += 1;
        }
    }
    assert_eq!((texts, jsons), (50, 50), "{text}");
}

#[test]
#[ignore = "run by a_reader_that_goes_away_is_counted"]
fn child_outlives_its_reader() {
    let mut sinks = start(vec![config("out", "stdout: {}")]);
    let deadline = Instant::now() + LONG;
    while common::counters(&mut sinks, "out").dropped(Loss::Closed) == 0 {
        if Instant::now() > deadline {
            std::process::exit(1);
        }
        sinks.publish(alert("a"));
        wait_for(&mut sinks, "out", |counters| counters.queued == 0);
    }
    // The test harness would stumble over its own lost output.
    std::process::exit(42);
}

#[test]
fn a_reader_that_goes_away_is_counted() {
    let mut child = child("child_outlives_its_reader");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.any(|line| line.expect("a line").contains("Notice a happened")));
    drop(lines);
    assert_eq!(child.wait().expect("ended").code(), Some(42));
}
