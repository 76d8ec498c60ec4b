//! From the first alert to the last word: how soon a sensor tells, and how it ends.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::{
    child,
    harness::{self, Helper, LONG, Sensor, Summary},
    host,
    needs::{Need, trial},
};

const NEEDS: &[Need] = &[Need::Tracing];

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("run: a read of passwords is told at once, with who did it", NEEDS, tells_at_once),
        trial("run: an alert has Falco's keys", NEEDS, has_falcos_keys),
        trial("run: processes that were there before are known", NEEDS, knows_who_was_there),
        trial("run: SIGINT ends it in time though a sink hangs", NEEDS, || ends_in_time(Signal::SIGINT)),
        trial("run: SIGTERM ends it in time though a sink hangs", NEEDS, || ends_in_time(Signal::SIGTERM)),
        trial("run: a second signal ends it at once", NEEDS, second_signal),
        trial("run: it obeys signals as soon as it says that it watches", NEEDS, obeys_from_the_start),
        trial("run: nothing is lost when it stops right after the last event", NEEDS, stops_with_all_alerts),
    ]
}

/// The repository's rules and samples; the samples' log goes to the case's own folder.
fn shipped(folder: &Path) -> [PathBuf; 2] {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let samples = folder.join("samples");
    fs::create_dir(&samples).expect("a folder in a temporary folder");
    for entry in fs::read_dir(config.join("samples")).expect("the repository has samples").flatten() {
        let text = fs::read_to_string(entry.path()).expect("a sample");
        let text = text.replace("/var/log/gyrfalcon", &folder.display().to_string());
        harness::write(&samples, &entry.file_name().to_string_lossy(), &text);
    }
    [config.join("rules"), samples]
}

fn tells_at_once() {
    let folder = harness::folder();
    let [rules, samples] = shipped(folder.path());
    let sensor = Sensor::start(&[&rules, &samples], &["--append-output", "mark=%proc.env[GYR_MARK] ppid=%proc.ppid"]);
    let mark = format!("gyr{}", std::process::id());
    let began = Instant::now();
    let mut cat = Command::new("/bin/cat");
    Helper::start(cat.arg("/etc/shadow").env("GYR_MARK", &mark).stdout(Stdio::null())).finish(LONG);
    let alert = sensor.expect("cat /etc/shadow", |alert| alert.has("proc.env[GYR_MARK]", &mark));
    let took = alert.at - began;
    eprintln!("from the start of cat to its alert: {} ms", took.as_millis());
    let cat = fs::canonicalize("/bin/cat").expect("a program").display().to_string();
    assert_eq!(alert.rule(), "Password hashes read by an unexpected program");
    let fields = [
        ("fd.name", "/etc/shadow"),
        ("proc.exepath", &cat),
        ("proc.cmdline", "cat /etc/shadow"),
        ("proc.pname", &harness::own_name()),
        ("proc.ppid", &std::process::id().to_string()),
        ("user.name", "root"),
    ];
    for (field, want) in fields {
        assert_eq!(alert.field(field).as_deref(), Some(want), "{field}");
    }
    // The promise is 100 ms; a machine that does much else is given more.
    assert!(took < Duration::from_secs(1) || harness::in_guest(), "the alert took {took:?}");
    let summary = sensor.stop();
    summary.is_clean();
    let log = fs::read_to_string(folder.path().join("alerts.jsonl")).expect("the sample's sink writes a file");
    assert!(log.lines().any(|line| line.contains(&mark)), "the alert is not in the file: {log}");
}

/// A rule for one program's runs, and sinks beside it.
fn rule_for(folder: &Path, program: &str) -> PathBuf {
    let rule = format!(
        "- rule: a program ran\n  desc: A program of the case was started.\n  condition: evt.type = execve and proc.exepath = \
         {program}\n  output: ran %proc.cmdline pid=%proc.pid\n  priority: NOTICE\n  tags: [test]\n"
    );
    harness::write(folder, "rule.yaml", &rule)
}

/// A copy of `true` that nobody else runs.
fn own_program(folder: &Path) -> String {
    let program = folder.join("program");
    fs::copy("/bin/true", &program).expect("a copy in a temporary folder");
    program.display().to_string()
}

fn has_falcos_keys() {
    let folder = harness::folder();
    let program = own_program(folder.path());
    let rules = rule_for(folder.path(), &program);
    let sensor = Sensor::start(&[&rules], &["--hostname", "node-7"]);
    let pid = harness::run(&program, &["one"]);
    let alert = sensor.expect("the program", |alert| alert.rule() == "a program ran");
    assert_eq!(alert.keys(), ["hostname", "output", "output_fields", "priority", "rule", "source", "tags", "time"]);
    let texts = ["hostname", "priority", "source"].map(|key| alert.text(key));
    assert_eq!(texts, ["node-7", "Notice", "syscall"]);
    let output = alert.text("output");
    assert!(output.contains(&format!(": Notice ran program one pid={pid}")), "{output}");
    assert!(alert.text("time").ends_with('Z'), "{}", alert.text("time"));
    sensor.stop().is_clean();
}

fn knows_who_was_there() {
    let folder = harness::folder();
    let markers = folder.path().join("markers").display().to_string();
    let part = ["markers", markers.as_str(), "100"];
    let mut command = child::command_below(folder.path(), "gyr-parent", "gyr-before", &part);
    command.env("GYR_MARK", "from before").current_dir("/");
    let opener = Helper::start(command.stdin(Stdio::piped()).stdout(Stdio::null()));
    let rule = format!(
        "- rule: a file was opened\n  desc: By a process older than the sensor.\n  condition: evt.type = openat and fd.name \
         startswith {markers}/\n  output: opened %proc.exepath %proc.cmdline %proc.exe %proc.cwd %proc.pname %proc.ppid \
         %proc.pcmdline %proc.pexepath %proc.aname[2] %proc.env[GYR_MARK] %user.name %container.id\n  priority: NOTICE\n"
    );
    let rules = harness::write(folder.path(), "rule.yaml", &rule);
    let sensor = Sensor::start(&[&rules], &[]);
    let alert = sensor.expect("a file", |alert| alert.rule() == "a file was opened");
    let program = env::current_exe().and_then(|path| path.canonicalize()).expect("this program has a path");
    let program = program.display().to_string();
    let link = folder.path().join("gyr-before").display().to_string();
    let line = format!("{} {}", child::PLAY, part.join(" "));
    let fields = [
        ("proc.exepath", program.clone()),
        ("proc.cmdline", format!("gyr-before {line}")),
        ("proc.exe", "gyr-before".to_owned()),
        ("proc.cwd", "/".to_owned()),
        ("proc.pname", "gyr-parent".to_owned()),
        ("proc.ppid", opener.pid().to_string()),
        ("proc.pcmdline", format!("gyr-parent {} parent {link} {}", child::PLAY, part.join(" "))),
        ("proc.pexepath", program),
        ("proc.aname[2]", harness::own_name()),
        ("proc.env[GYR_MARK]", "from before".to_owned()),
        ("user.name", "root".to_owned()),
        ("container.id", host::container_id()),
    ];
    for (field, want) in fields {
        assert_eq!(alert.field(field).as_deref(), Some(want.as_str()), "{field}");
    }
    sensor.stop().is_clean();
}

/// A sensor with a sink that is never answered, and alerts under way to it. The listener is to be kept.
fn with_hanging_sink(folder: &Path) -> (Sensor, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    let program = own_program(folder);
    let rules = rule_for(folder, &program);
    let sink = format!(
        "apiVersion: gyrfalcon.dev/v1alpha1\nkind: ClusterAlertSink\nmetadata:\n  name: hangs\nspec:\n  webhook:\n    \
         url: http://{address}/\n"
    );
    let sink = harness::write(folder, "sink.yaml", &sink);
    let sensor = Sensor::start(&[&rules, &sink], &[]);
    for _ in 0..20 {
        harness::run(&program, &[]);
    }
    sensor.fence();
    // The sensor's own alert about drops may be there as well.
    let told = sensor.all().iter().filter(|alert| alert.rule() == "a program ran").count();
    assert_eq!(told, 20, "a hanging sink must not hold up another");
    (sensor, listener)
}

/// How long sinks are given at the end, and some.
const DEADLINE: Duration = Duration::from_secs(8);

fn ends_in_time(signal: Signal) {
    let folder = harness::folder();
    let (sensor, _listener) = with_hanging_sink(folder.path());
    let summary = sensor.stop_with(signal);
    assert!(summary.took < DEADLINE || harness::in_guest(), "it took {:?}", summary.took);
    summary.is_clean();
    assert!(summary.count("events") >= 20, "{:?}", summary.log);
    assert!(summary.count("alerts") >= 20, "{:?}", summary.log);
    assert!(summary.count("processes") > 0, "{:?}", summary.log);
    let told = summary.log.iter().any(|line| line.contains("not delivered") && line.contains("hangs"));
    assert!(told, "alerts that a sink did not get are told: {:#?}", summary.log);
}

fn second_signal() {
    let folder = harness::folder();
    let (sensor, _listener) = with_hanging_sink(folder.path());
    sensor.signal(Signal::SIGINT);
    sensor.expect_log("that it stops", |line| line.contains("stopping"));
    let summary: Summary = sensor.stop_with(Signal::SIGINT);
    assert!(summary.took < Duration::from_secs(2) || harness::in_guest(), "it took {:?}", summary.took);
    assert_ne!(summary.code, Some(0), "alerts were given up");
}

fn obeys_from_the_start() {
    let folder = harness::folder();
    let rules = rule_for(folder.path(), "/nothing");
    for _ in 0..5 {
        let sensor = Sensor::start(&[&rules], &["--no-watch"]);
        sensor.signal(Signal::SIGHUP);
        sensor.expect_log("a replacement", |line| line.contains("ruleset replaced"));
        sensor.stop().is_clean();
        Sensor::start(&[&rules], &[]).stop_with(Signal::SIGTERM).is_clean();
    }
}

fn stops_with_all_alerts() {
    let folder = harness::folder();
    let program = own_program(folder.path());
    let rules = rule_for(folder.path(), &program);
    let sensor = Sensor::start(&[&rules], &[]);
    for _ in 0..50 {
        harness::run(&program, &[]);
    }
    // No fence: what is still in the rings must come out.
    let summary = sensor.stop();
    summary.is_clean();
    assert_eq!(summary.alerts.len(), 50);
}
