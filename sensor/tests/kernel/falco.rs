//! Falco's own rules, unmodified, and what must set them off: every case of the conformance data raises its rule, and no
//! other, with the fields that the data list; under `--rule-matching all` and `first`, with all rulesets loaded together.
//!
//! Nothing of the data is repeated here: a case is read, played by a chain of processes on the host or in a container, and
//! compared. Any file of that form can be named by `GYRFALCON_CONFORMANCE`. What cannot be played here says why.

mod cases;
mod chain;
mod crowd;
mod room;
mod runtime;
mod steps;
mod traps;
mod triggers;

use std::{collections::BTreeSet, path::PathBuf};

use libtest_mimic::Trial;
use serde_json::{Value, json};

pub use self::chain::{PLAN, play, stand_in};
use self::{
    cases::Case,
    room::Room,
    runtime::{Known, Runtime},
};
use crate::{
    harness::{self, Alert, Helper, LONG, Sensor},
    host,
    needs::{Need, folder, trial},
};

const NEEDS: &[Need] = &[Need::Tracing, Need::OfficialRules, Need::Conformance, Need::Program("runc")];
const HOST: &[Need] = &[Need::Tracing, Need::OfficialRules];

/// Falco's rulesets of system calls, those that are less than stable included.
const RULESETS: [&str; 3] = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];

/// The trials: the whole file twice, and what must stay silent.
pub fn trials() -> Vec<Trial> {
    let all = trial("official rules: every case raises its rule, matched by all rules", NEEDS, || fires("all"));
    let first =
        trial("official rules: every case raises its rule, matched by the first rule", NEEDS, || fires("first"));
    let silence = trial("official rules: programs that may read passwords raise nothing", HOST, stays_silent);
    let others = triggers::trials().into_iter().chain(traps::trials()).chain(crowd::trials());
    [all, first, silence].into_iter().chain(others).collect()
}

/// Puts the variable that marks a process of a case into every alert, and where it ran.
const APPENDED: &str = "mark=%proc.env[GYR_MARK] in=%container.id vpid=%proc.vpid";

fn start(matching: &str, enable: &BTreeSet<String>, more: &[&str]) -> Sensor {
    let rules = folder("GYRFALCON_FALCO_RULES", "falco_rules.yaml").expect("a need of the case");
    let files: Vec<PathBuf> = RULESETS.iter().map(|file| rules.join(file)).filter(|file| file.is_file()).collect();
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let mut options = vec!["--append-output", APPENDED, "--rule-matching", matching];
    for rule in enable {
        options.extend(["--enable", rule]);
    }
    options.extend(more);
    Sensor::start(&files, &options)
}

fn fires(matching: &str) {
    let file =
        folder("GYRFALCON_CONFORMANCE", "evtgen_cases.json").expect("a need of the case").join("evtgen_cases.json");
    let (cases, left_out) = cases::read(&file);
    left_out.iter().for_each(|reason| eprintln!("left out: {reason}"));
    assert!(!cases.is_empty(), "no case can be played");
    let disabled = cases.iter().filter(|case| case.disabled).map(|case| case.rule.clone()).collect();
    // runc alone says of no container that it is privileged: this runtime does, of those whose cases are about it.
    let (folder, privileged) = (harness::folder(), Known::none());
    let runtime = Runtime::start(folder.path(), privileged.clone());
    let sensor = start(matching, &disabled, &["--cri", &runtime.address()]);
    let room = Room::new();
    let mark = |number: usize| format!("gyr{}{matching}-{number}", std::process::id());
    // Those that sleep do it at the same time; the others share files and take turns.
    let (slow, quick): (Vec<_>, Vec<_>) = cases.iter().enumerate().partition(|(_, case)| case.sleeps());
    let places: Vec<(usize, Result<String, String>)> = std::thread::scope(|scope| {
        let play = |(number, case): (usize, &Case)| (number, run(case, &mark(number), &room, &privileged));
        let slow: Vec<_> = slow.into_iter().map(|case| scope.spawn(move || play(case))).collect();
        let quick: Vec<_> = quick.into_iter().map(play).collect();
        quick.into_iter().chain(slow.into_iter().map(|thread| thread.join().expect("a case"))).collect()
    });
    sensor.fence();
    let alerts = sensor.all();
    let mut wrong = Vec::new();
    for (number, place) in &places {
        let case = &cases[*number];
        let mark = mark(*number);
        let marked: Vec<_> = alerts.iter().filter(|alert| alert.has("proc.env[GYR_MARK]", &mark)).collect();
        match place {
            Ok(place) => wrong.extend(judge(case, place, &marked, &disabled)),
            Err(failed) => wrong.push(format!("{}: {failed}", case.id)),
        }
    }
    eprintln!("{} cases, rule matching {matching}: {} complaints", cases.len(), wrong.len());
    assert!(wrong.is_empty(), "{} cases, {} complaints:\n{}", cases.len(), wrong.len(), wrong.join("\n"));
    // What others do meanwhile may be too much for all rules at once; that a case was lost would have been said above.
    assert_eq!(sensor.stop().code, Some(0));
}

/// What is wrong with the alerts of a case. Rules that another case has switched on may say more than their own cases ask
/// for, and rules about the start of a container say so of every container.
fn judge(case: &Case, place: &str, alerts: &[&Alert], disabled: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let ours: Vec<_> = alerts.iter().filter(|alert| alert.rule() == case.rule).collect();
    let is_start =
        |alert: &Alert| case.container.is_some() && (alert.has("proc.vpid", "1") || alert.rule().contains("Container"));
    let others = alerts.iter().filter(|alert| alert.rule() != case.rule && !disabled.contains(alert.rule()));
    let others: BTreeSet<_> = others
        .filter(|alert| !is_start(alert) && !case.also.iter().any(|rule| *rule == alert.rule()))
        .map(|alert| alert.rule())
        .collect();
    if ours.is_empty() || ours.len() > case.most {
        wrong.push(format!("{}: {} alerts of {}, others: {others:?}", case.id, ours.len(), case.rule));
    }
    if !others.is_empty() {
        wrong.push(format!("{}: besides {} also {others:?}", case.id, case.rule));
    }
    let Some(alert) = ours.first() else { return wrong };
    // The names of a container's users are read while it runs, and nothing waits for them.
    let is_late = |field: &str| field == "user.name" && case.container.is_some() && alert.has(field, "<NA>");
    wrong.extend(
        case.expected
            .iter()
            .filter(|(field, want)| !alert.has(field, want) && !is_late(field))
            .map(|(field, want)| format!("{}: {field}: expected {want:?}, got {:?}", case.id, alert.field(field))),
    );
    if !alert.has("container.id", place) {
        wrong.push(format!("{}: expected in {place}, got {:?}", case.id, alert.field("container.id")));
    }
    for (key, got) in [("priority", alert.text("priority")), ("source", alert.text("source"))] {
        if let Some(want) = case.said.get(key)
            && !got.eq_ignore_ascii_case(want)
        {
            wrong.push(format!("{}: {key}: expected {want}, got {got}", case.id));
        }
    }
    wrong
}

/// Runs the activity of a case to its end, and says in which container that was.
fn run(case: &Case, mark: &str, room: &Room, known: &Known) -> Result<String, String> {
    let _resources = case.prepare();
    match case.container {
        None => room.on_host(case, mark).map(|()| host::container_id()),
        Some(privileged) => room.in_container(case, mark, privileged, |id| {
            if case.is_about_privileges() {
                known.add(id);
            }
        }),
    }
}

fn stays_silent() {
    let sensor = start("first", &BTreeSet::new(), &[]);
    let room = Room::new();
    let read = |name: &str, path: &str, mark: &str| {
        let steps = json!([{ "op": "openat", "path": path, "flags": "O_RDONLY" }, { "op": "close" }]);
        let chain = json!([{ "name": name }]);
        room.perform(&chain, &steps, mark).expect("a reading process");
    };
    let [quiet, loud] = ["quiet", "loud"].map(|mark| format!("{mark}{}", std::process::id()));
    read("sshd", "/etc/shadow", &quiet);
    read("event-generator", "/etc/hostname", &quiet);
    read("event-generator", "/etc/passwd", &quiet);
    read("event-generator", "/etc/shadow", &loud);
    sensor.fence();
    let marked = |mark: &str| sensor.all().into_iter().filter(|alert| alert.has("proc.env[GYR_MARK]", mark)).count();
    assert_eq!((marked(&loud), marked(&quiet)), (1, 0), "the one that may not is told; {:#?}", sensor.all());
    sensor.stop().is_clean();
}

/// The plan of a case, for the processes that play it.
fn plan(case: &Case, mark: &str) -> Value {
    json!({ "chain": case.chain, "steps": case.steps, "before": case.before, "resources": case.resources, "mark": mark })
}

/// Waits for the first process of a chain, which is killed when it does not end.
fn wait(mut process: Helper) -> Result<(), String> {
    match harness::wait_for(&mut process.0, LONG) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("its processes failed: {status}")),
        None => Err("its processes did not end".to_owned()),
    }
}

/// So that the folder of a case can be entered by whoever its processes become.
fn open_to_all(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("a folder of ours");
}
