//! Rules are replaced while events pour in: no event is judged by no rules, none by two sets of them.

use std::{
    collections::HashMap,
    env, fs,
    io::Read,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::{
    child,
    harness::{self, Alert, Helper, LONG, Sensor},
    needs::{Need, trial},
};

const NEEDS: &[Need] = &[Need::Tracing];

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("reload: no event is lost or told twice while rules are replaced", NEEDS, replaced_under_load),
        trial("reload: files are followed; a broken edit leaves the rules running", NEEDS, files_are_followed),
        trial("reload: a single file is followed when it is replaced", NEEDS, file_is_followed),
        trial("reload: a mounted ConfigMap is followed", NEEDS, config_map_is_followed),
        trial("reload: alerts written beside the rules are no change of the rules", NEEDS, alerts_beside_rules),
        trial("reload: what the sensor does itself is not told", NEEDS, own_doing),
        trial("reload: without watching, files are read on SIGHUP only", NEEDS, sighup_only),
    ]
}

/// How many reloads: `GYRFALCON_TEST_RELOADS`, or a thousand.
fn reloads() -> u64 {
    env::var("GYRFALCON_TEST_RELOADS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

/// A manifest with one rule.
fn manifest(name: &str, version: &str, condition: &str) -> String {
    format!(
        "apiVersion: gyrfalcon.dev/v1alpha1
kind: ClusterFalcoRule
metadata:
  name: {name}
spec:
  rules: |
    - rule: {name}
      desc: A file of the test was opened.
      condition: {condition}
      output: \"{version} file=%fd.name parent=%proc.pname ppid=%proc.ppid line=%proc.cmdline\"
      priority: NOTICE
"
    )
}

/// Files of a folder, by the beginning of their names.
fn below(folder: &Path) -> String {
    format!("evt.type in (open, openat) and fd.name startswith {}/", folder.display())
}

/// The same files by other events and by both ends of their names, for which the kernel needs another filter.
fn ending(folder: &Path) -> String {
    format!("evt.type in (openat, openat2, unlink) and fd.name endswith .mark and fd.directory = {}", folder.display())
}

/// Puts a file in the place of another at once, as editors do.
fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    fs::write(&next, text).expect("writing into a temporary folder");
    fs::rename(&next, path).expect("renaming in a temporary folder");
}

/// Opens files with numbers for names, at a rate, until its input ends; then says how many.
pub fn play(folder: &str, rate: &str) {
    static ENDED: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        ENDED.store(true, Ordering::Relaxed);
    });
    let mut count = 0;
    child::at_rate(rate.parse().expect("a number"), |number| {
        // There is no such file; the attempt is what is looked for.
        let _ = fs::File::open(format!("{folder}/{number}.mark"));
        count = number + 1;
        !ENDED.load(Ordering::Relaxed)
    });
    println!("{count}");
}

const RATE: u32 = 1000;

fn replaced_under_load() {
    let folder = harness::folder();
    let markers = folder.path().join("markers");
    let rules = folder.path().join("rules");
    fs::create_dir(&rules).expect("a folder in a temporary folder");
    let file = rules.join("markers.yaml");
    replace(&file, &manifest("markers", "first", &below(&markers)));
    let sensor = Sensor::start(&[&rules], &["--no-watch"]);

    let rate = RATE.to_string();
    let markers_text = markers.display().to_string();
    let part = ["markers", markers_text.as_str(), &rate];
    let mut command = child::command_below(folder.path(), "gyr-parent", "gyr-markers", &part);
    let mut opener = Helper::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let parent = opener.pid().to_string();
    sensor.expect("the first file", |alert| alert.rule() == "markers");

    let reloads = reloads();
    for number in 0..reloads {
        if number == reloads / 2 {
            replace(&file, &manifest("markers", "broken", "fd.nmae = nothing"));
            sensor.signal(Signal::SIGHUP);
            sensor.expect_log("a refusal", |line| line.contains("ruleset kept"));
        }
        let (version, condition) = match number % 2 {
            0 => ("second", ending(&markers)),
            _ => ("first", below(&markers)),
        };
        replace(&file, &manifest("markers", version, &condition));
        sensor.signal(Signal::SIGHUP);
        // The set that it started with was the first generation.
        let generation = format!("{}", number + 2);
        sensor.expect_log("a replacement", |line| {
            line.contains("ruleset replaced") && harness::keys(line).get("generation") == Some(&generation)
        });
    }
    drop(opener.0.stdin.take());
    let count: u64 = opener.finish(LONG).trim().parse().expect("a number");
    sensor.fence();

    let alerts: Vec<Alert> = sensor.all().into_iter().filter(|alert| alert.rule() == "markers").collect();
    let mut seen: HashMap<String, u32> = HashMap::new();
    for alert in &alerts {
        *seen.entry(alert.field("fd.name").unwrap_or_default()).or_default() += 1;
        assert!(alert.has("proc.pname", "gyr-parent") && alert.has("proc.ppid", &parent), "a stranger: {alert:?}");
        let line = alert.field("proc.cmdline").unwrap_or_default();
        assert!(line.starts_with("gyr-markers --") && line.ends_with(&rate), "process state was not kept: {line}");
    }
    let of = |number: u64| seen.get(&format!("{}/{number}.mark", markers.display())).copied().unwrap_or_default();
    let wrong: Vec<_> = (0..count).map(|number| (number, of(number))).filter(|(_, times)| *times != 1).collect();
    let by = |version: &str| {
        alerts.iter().filter(|alert| alert.text("output").contains(&format!("{version} file="))).count()
    };
    let (first, second) = (by("first"), by("second"));
    eprintln!("{reloads} reloads during {count} opens: {first} alerts of one version, {second} of the other");
    let summary = sensor.stop();
    // While it changes filters, a kernel that has the programs as tracepoints of perf may skip calls, and counts them.
    let skipped = if harness::preempts_programs() { summary.skipped("sys_exit") } else { 0 };
    let missing = wrong.iter().filter(|(_, times)| *times == 0).count() as u64;
    eprintln!("{missing} opens were not told; {skipped} calls were skipped, and counted");
    assert!(
        missing == wrong.len() as u64 && missing <= skipped,
        "of {count} opens, {} were not told once: {:?}; log: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)],
        summary.log.iter().skip_while(|line| !line.contains("stopping")).collect::<Vec<_>>()
    );
    assert_eq!(alerts.len() as u64, count - missing);
    assert!(skipped <= count / 50, "{skipped} skipped calls during {count} opens are too many");
    assert!(first > 0 && second > 0, "both versions had their time");
    summary.is_clean_but(skipped);
}

/// Opens a file of this name below a folder, which need not exist.
fn open(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    let _ = fs::File::open(&path);
    path.display().to_string()
}

/// A folder of rules, and the folders that its rules look at.
struct Scene {
    _folder: tempfile::TempDir,
    rules: PathBuf,
    one: PathBuf,
    two: PathBuf,
}

fn scene() -> Scene {
    let folder = harness::folder();
    let rules = folder.path().join("rules");
    fs::create_dir(&rules).expect("a folder in a temporary folder");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    replace(&rules.join("one.yaml"), &manifest("one", "first", &below(&one)));
    Scene { _folder: folder, rules, one, two }
}

/// How often a file was told of, by which rules and versions.
fn told(sensor: &Sensor, path: &str) -> Vec<String> {
    sensor.fence();
    let alerts = sensor.all().into_iter().filter(|alert| alert.has("fd.name", path));
    let version = |alert: &Alert| {
        alert.text("output").split(" file=").next().and_then(|text| text.split(' ').next_back()).map(str::to_owned)
    };
    alerts.map(|alert| format!("{} {}", alert.rule(), version(&alert).unwrap_or_default())).collect()
}

fn generation(sensor: &Sensor, number: u32) {
    let number = number.to_string();
    sensor.expect_log("a replacement", |line| {
        line.contains("ruleset replaced") && harness::keys(line).get("generation") == Some(&number)
    });
}

fn files_are_followed() {
    let Scene { _folder, rules, one, two } = scene();
    let sensor = Sensor::start(&[&rules], &[]);
    assert_eq!(told(&sensor, &open(&one, "a")), ["one first"]);

    replace(&rules.join("one.yaml"), &manifest("one", "second", &below(&one)));
    generation(&sensor, 2);
    assert_eq!(told(&sensor, &open(&one, "b")), ["one second"]);

    replace(&rules.join("one.yaml"), &manifest("one", "third", &below(&one)).replace("evt.type in", "evt.tpye in"));
    sensor.expect_log("a refusal", |line| line.contains("ruleset kept"));
    let place = sensor.expect_log("the place", |line| line.contains("one.yaml:9:18"));
    assert!(place.contains("condition: evt.tpye in"), "the line itself is shown: {place}");
    sensor.expect_log("a caret and a remedy", |line| line.contains("^^^^^^^^ did you mean `evt.type`?"));
    assert_eq!(told(&sensor, &open(&one, "c")), ["one second"]);

    replace(&rules.join("one.yaml"), &manifest("one", "fourth", &below(&one)));
    generation(&sensor, 3);
    assert_eq!(told(&sensor, &open(&one, "d")), ["one fourth"]);

    assert_eq!(told(&sensor, &open(&two, "e")), Vec::<String>::new());
    replace(&rules.join("two.yaml"), &manifest("two", "first", &below(&two)));
    generation(&sensor, 4);
    assert_eq!(told(&sensor, &open(&two, "f")), ["two first"]);

    fs::remove_file(rules.join("two.yaml")).expect("removing in a temporary folder");
    generation(&sensor, 5);
    assert_eq!(told(&sensor, &open(&two, "g")), Vec::<String>::new());
    assert_eq!(told(&sensor, &open(&one, "h")), ["one fourth"]);
    sensor.stop().is_clean();
}

fn sighup_only() {
    let Scene { _folder, rules, one, .. } = scene();
    let sensor = Sensor::start(&[&rules], &["--no-watch"]);
    replace(&rules.join("one.yaml"), &manifest("one", "second", &below(&one)));
    let descriptors = fs::read_dir(format!("/proc/{}/fd", sensor.pid())).expect("it is our child").flatten();
    let watches =
        descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|to| to.ends_with("anon_inode:inotify"));
    assert!(!watches, "it holds an inotify instance");
    assert_eq!(told(&sensor, &open(&one, "a")), ["one first"]);
    sensor.signal(Signal::SIGHUP);
    generation(&sensor, 2);
    assert_eq!(told(&sensor, &open(&one, "b")), ["one second"]);
    sensor.stop().is_clean();
}

fn file_is_followed() {
    let Scene { _folder, rules, one, .. } = scene();
    let file = rules.join("one.yaml");
    let sensor = Sensor::start(&[&file], &[]);
    assert_eq!(told(&sensor, &open(&one, "a")), ["one first"]);
    replace(&file, &manifest("one", "second", &below(&one)));
    generation(&sensor, 2);
    assert_eq!(told(&sensor, &open(&one, "b")), ["one second"]);
    // Written in place, as some editors do.
    fs::write(&file, manifest("one", "third", &below(&one))).expect("writing into a temporary folder");
    generation(&sensor, 3);
    assert_eq!(told(&sensor, &open(&one, "c")), ["one third"]);
    sensor.stop().is_clean();
}

/// A kubelet writes a new folder and swaps the link `..data`, through which all files are links.
fn config_map_is_followed() {
    let folder = harness::folder();
    let (rules, one) = (folder.path().join("rules"), folder.path().join("one"));
    let publish = |version: &str| {
        let data = rules.join(format!("..{version}"));
        fs::create_dir_all(&data).expect("a folder in a temporary folder");
        fs::write(data.join("one.yaml"), manifest("one", version, &below(&one))).expect("a file in a temporary folder");
        symlink(data.file_name().expect("a name"), rules.join("..data_tmp")).expect("a link in a temporary folder");
        fs::rename(rules.join("..data_tmp"), rules.join("..data")).expect("renaming in a temporary folder");
    };
    publish("first");
    symlink("..data/one.yaml", rules.join("one.yaml")).expect("a link in a temporary folder");
    let sensor = Sensor::start(&[&rules], &[]);
    assert_eq!(told(&sensor, &open(&one, "a")), ["one first"]);
    publish("second");
    generation(&sensor, 2);
    assert_eq!(told(&sensor, &open(&one, "b")), ["one second"]);
    sensor.stop().is_clean();
}

fn alerts_beside_rules() {
    let Scene { _folder: folder, rules, one, .. } = scene();
    let file = rules.join("alerts.jsonl");
    let sink = format!(
        "apiVersion: gyrfalcon.dev/v1alpha1\nkind: ClusterAlertSink\nmetadata:\n  name: beside\nspec:\n  file:\n    path: {}\n",
        file.display()
    );
    harness::write(&rules, "sink.yaml", &sink);
    let sensor = Sensor::start(&[&rules], &[]);
    // An alert every ten milliseconds: the folder is never left alone.
    let text = one.display().to_string();
    let mut command = child::command(folder.path(), "gyr-markers", &["markers", &text, "100"]);
    let _opener = Helper::start(command.stdin(Stdio::piped()).stdout(Stdio::null()));
    sensor.expect("an alert", |alert| alert.rule() == "one");
    replace(&rules.join("one.yaml"), &manifest("one", "second", &below(&one)));
    generation(&sensor, 2);
    sensor.expect("an alert of the new rules", |alert| alert.text("output").contains("second file="));
    let summary = sensor.stop();
    summary.is_clean();
    let reloads = summary.log.iter().filter(|line| line.contains("ruleset replaced")).count();
    assert_eq!(reloads, 1, "{:#?}", summary.log);
    assert!(fs::read_to_string(&file).is_ok_and(|text| text.lines().count() > 1), "the sink writes");
}

fn own_doing() {
    let Scene { _folder, rules, .. } = scene();
    // A rule about the files that the sensor reads when it reloads.
    replace(&rules.join("one.yaml"), &manifest("one", "first", &below(&rules)));
    let sensor = Sensor::start(&[&rules], &["--no-watch"]);
    assert_eq!(told(&sensor, &open(&rules, "a")), ["one first"]);
    sensor.signal(Signal::SIGHUP);
    generation(&sensor, 2);
    assert_eq!(told(&sensor, &open(&rules, "b")), ["one first"]);
    let own = sensor.all().into_iter().filter(|alert| !alert.has("proc.pname", &parent_name()));
    let own: Vec<_> = own.collect();
    assert!(own.is_empty(), "{own:#?}");
    sensor.stop().is_clean();
}

/// Name of the process that started this one: alerts about the tests' own opens have it as the parent's.
fn parent_name() -> String {
    let parent = std::os::unix::process::parent_id();
    fs::read_to_string(format!("/proc/{parent}/comm")).expect("our parent").trim_end().to_owned()
}
