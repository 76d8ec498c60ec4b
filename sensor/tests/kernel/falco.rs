//! Falco's own rules, unmodified, and what must set them off: the activity that the conformance data describe for a
//! rule raises exactly its alert, exactly once, with the fields that the data list.
//!
//! Nothing of the data is repeated here but the names of rules: a case is read, played step by step by a process called
//! `event-generator` or run in a container, and compared.

mod cases;
mod steps;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use libtest_mimic::Trial;
use serde_json::Value;

use self::cases::Case;
use crate::{
    child,
    container::Container,
    harness::{self, Helper, LONG, Sensor},
    needs::{Need, folder, trial},
};

/// Rules of the stable ruleset that events of today's table can set off.
const RULES: [&str; 9] = [
    "Read sensitive file untrusted",
    "Clear Log Activities",
    "Create Symlink Over Sensitive Files",
    "Create Hardlink Over Sensitive Files",
    "PTRACE anti-debug attempt",
    "PTRACE attached to process",
    "Execution from /dev/shm",
    "Directory traversal monitored file read",
    "Netcat Remote Code Execution in Container",
];

const HOST: &[Need] = &[Need::Tracing, Need::OfficialRules, Need::Conformance];
const CONTAINER: &[Need] =
    &[Need::Tracing, Need::OfficialRules, Need::Conformance, Need::Program("runc"), Need::Program("busybox")];

/// A trial for each rule, and one for what must stay silent.
pub fn trials() -> Vec<Trial> {
    let rules = RULES.into_iter().map(|rule| {
        let needs = if rule.ends_with("in Container") { CONTAINER } else { HOST };
        trial(format!("official rules: {rule}"), needs, move || fires(rule))
    });
    let silence = trial("official rules: programs that may read passwords raise nothing", HOST, stays_silent);
    rules.chain([silence]).collect()
}

/// Puts the variable that marks a process of a case into every alert.
const MARK: &str = "mark=%proc.env[GYR_MARK]";

fn start() -> Sensor {
    let rules =
        folder("GYRFALCON_FALCO_RULES", "falco_rules.yaml").expect("a need of the case").join("falco_rules.yaml");
    Sensor::start(&[&rules], &["--append-output", MARK])
}

fn fires(rule: &str) {
    let file =
        folder("GYRFALCON_CONFORMANCE", "evtgen_cases.json").expect("a need of the case").join("evtgen_cases.json");
    let (cases, left_out) = cases::of_rule(&file, rule);
    left_out.iter().for_each(|reason| eprintln!("left out: {reason}"));
    assert!(!cases.is_empty(), "no case for {rule}");
    let sensor = start();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let mark = format!("gyr{}-{number}", std::process::id());
        run(case, &mark);
        sensor.fence();
        let alerts: Vec<_> = sensor.all().into_iter().filter(|alert| alert.has("proc.env[GYR_MARK]", &mark)).collect();
        match &alerts[..] {
            [alert] if alert.rule() == rule => {
                wrong.extend(case.expected.iter().filter(|(field, want)| !alert.has(field, want)).map(
                    |(field, want)| format!("{}: {field}: expected {want:?}, got {:?}", case.id, alert.field(field)),
                ));
                let said = [("priority", alert.text("priority")), ("source", alert.text("source"))];
                wrong.extend(said.into_iter().filter_map(|(key, got)| {
                    let want = case.said.get(key)?;
                    (!got.eq_ignore_ascii_case(want)).then(|| format!("{}: {key}: expected {want}, got {got}", case.id))
                }));
            }
            other => {
                let rules: Vec<_> = other.iter().map(|alert| (alert.rule(), alert.text("output"))).collect();
                wrong.push(format!("{}: expected one alert of {rule}, got {rules:#?}", case.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases, {} complaints:\n{}", cases.len(), wrong.len(), wrong.join("\n"));
    sensor.stop().is_clean();
}

/// Runs the activity of a case to its end.
fn run(case: &Case, mark: &str) {
    let _resources = case.prepare();
    if case.in_container {
        let command = case.container_command();
        let container = Container::new(&["nc", "ncat"]);
        container.run(&command, &[format!("GYR_MARK={mark}")]);
        return;
    }
    let folder = harness::folder();
    let json = serde_json::json!({ "steps": case.steps, "mark": mark }).to_string();
    let plan = harness::write(folder.path(), "case.json", &json);
    let plan = plan.display().to_string();
    let mut command = child::command(folder.path(), "event-generator", &["case", &plan]);
    Helper::start(command.env("GYR_MARK", mark).stdout(Stdio::piped())).finish(LONG);
}

/// Plays the steps of a case.
pub fn play(plan: &str) {
    let text = std::fs::read_to_string(plan).expect("a plan");
    let plan: Value = serde_json::from_str(&text).expect("JSON");
    steps::play(plan["steps"].as_array().expect("a list"), plan["mark"].as_str().expect("a text"));
}

fn stays_silent() {
    let sensor = start();
    let open = |path: &str| {
        serde_json::json!([{ "op": "openat", "path": path, "flags": "O_RDONLY" }, { "op": "close" }]).to_string()
    };
    let play = |name: &str, path: &str, mark: &str| {
        let folder = harness::folder();
        let plan =
            harness::write(folder.path(), "case.json", &format!("{{\"steps\": {}, \"mark\": \"\"}}", open(path)));
        let plan: PathBuf = plan;
        let part = ["case", &plan.display().to_string()];
        let mut command = child::command(folder.path(), name, &part);
        Helper::start(command.env("GYR_MARK", mark).stdout(Stdio::piped())).finish(LONG);
    };
    let shadow = "/etc/shadow";
    let quiet = format!("quiet{}", std::process::id());
    let loud = format!("loud{}", std::process::id());
    play("sshd", shadow, &quiet);
    play("event-generator", "/etc/hostname", &quiet);
    play("event-generator", "/etc/passwd", &quiet);
    assert!(Path::new(shadow).exists(), "this host keeps no passwords");
    play("event-generator", shadow, &loud);
    sensor.expect("the one that may not", |alert| alert.has("proc.env[GYR_MARK]", &loud));
    sensor.fence();
    let alerts: Vec<_> = sensor.all().into_iter().filter(|alert| alert.has("proc.env[GYR_MARK]", &quiet)).collect();
    assert!(alerts.is_empty(), "benign reads raised {alerts:#?}");
    sensor.stop().is_clean();
}
