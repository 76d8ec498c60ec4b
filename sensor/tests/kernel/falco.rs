//! Falco's own rules, unmodified, and what must set them off: the activity that the conformance data describe for a
//! rule raises exactly its alert, exactly once, with the fields that the data list.
//!
//! Nothing of the data is repeated here but the names of rules: a case is read, played step by step by a process called
//! `event-generator` or run in a container, and compared.

mod cases;
mod steps;

use std::process::Stdio;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use self::cases::Case;
use crate::{
    child,
    container::Container,
    harness::{self, Alert, Helper, LONG, Sensor},
    host,
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

/// Puts the variable that marks a process of a case into every alert, and where it ran.
const APPENDED: &str = "mark=%proc.env[GYR_MARK] in=%container.id";

fn start() -> Sensor {
    let rules =
        folder("GYRFALCON_FALCO_RULES", "falco_rules.yaml").expect("a need of the case").join("falco_rules.yaml");
    Sensor::start(&[&rules], &["--append-output", APPENDED])
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
        let place = run(case, &mark);
        let alerts = marked(&sensor, &mark);
        match &alerts[..] {
            [alert] if alert.rule() == rule => {
                wrong.extend(case.expected.iter().filter(|(field, want)| !alert.has(field, want)).map(
                    |(field, want)| format!("{}: {field}: expected {want:?}, got {:?}", case.id, alert.field(field)),
                ));
                if !alert.has("container.id", &place) {
                    wrong.push(format!("{}: expected in {place}, got {:?}", case.id, alert.field("container.id")));
                }
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

/// The alerts about processes with a mark, once all have arrived.
fn marked(sensor: &Sensor, mark: &str) -> Vec<Alert> {
    sensor.fence();
    sensor.all().into_iter().filter(|alert| alert.has("proc.env[GYR_MARK]", mark)).collect()
}

/// Runs the activity of a case to its end, and says in which container that was.
fn run(case: &Case, mark: &str) -> String {
    let _resources = case.prepare();
    if !case.in_container {
        perform("event-generator", &case.steps, mark);
        return host::container_id();
    }
    let container = Container::new(&["nc", "ncat"]);
    container.run(&case.container_command(), &[format!("GYR_MARK={mark}")]);
    container.short_id().to_owned()
}

/// Has a process of this name take steps.
fn perform(name: &str, steps: &[Value], mark: &str) {
    let folder = harness::folder();
    let plan = harness::write(folder.path(), "case.json", &json!({ "steps": steps, "mark": mark }).to_string());
    let mut command = child::command(folder.path(), name, &["case", &plan.display().to_string()]);
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
    let read = |name: &str, path: &str, mark: &str| {
        let steps = [json!({ "op": "openat", "path": path, "flags": "O_RDONLY" }), json!({ "op": "close" })];
        perform(name, &steps, mark);
    };
    let [quiet, loud] = ["quiet", "loud"].map(|mark| format!("{mark}{}", std::process::id()));
    read("sshd", "/etc/shadow", &quiet);
    read("event-generator", "/etc/hostname", &quiet);
    read("event-generator", "/etc/passwd", &quiet);
    read("event-generator", "/etc/shadow", &loud);
    assert_eq!(marked(&sensor, &loud).len(), 1, "the one that may not is told");
    let alerts = marked(&sensor, &quiet);
    assert!(alerts.is_empty(), "benign reads raised {alerts:#?}");
    sensor.stop().is_clean();
}
