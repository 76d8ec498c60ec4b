//! One case at least for every row of the table of system calls: what a process does, and what the sensor must say.
//!
//! The traced process itself says what it expects, for it alone knows the numbers of its descriptors, the inodes and the
//! pids: a [`Script`] makes system calls and notes, next to each, the event that it must become. The test compares the
//! notes with the alerts of a rule for this event and this process: the same number, the same order, the same fields.
//! Values are as Falco renders them.

mod exec;
mod files;
mod links;
mod network;
mod opens;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use abi::syscalls::SYSCALLS;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    child,
    harness::{self, Helper, LONG, Sensor},
    host,
    needs::{Need, trial},
};

/// A case of a row.
pub struct Case {
    /// The row, which is the event type.
    pub row: &'static str,
    /// What is the case, as a sentence.
    pub name: &'static str,
    /// What it needs.
    pub needs: &'static [Need],
    /// What the traced process does.
    pub script: fn(&mut Script),
}

/// A case that needs nothing special.
pub const fn case(row: &'static str, name: &'static str, script: fn(&mut Script)) -> Case {
    Case { row, name, needs: &[Need::Tracing], script }
}

fn cases() -> impl Iterator<Item = &'static Case> {
    [opens::CASES, files::CASES, links::CASES, network::CASES, exec::CASES].into_iter().flatten()
}

/// The trials: the cases that this architecture has calls for, and a look at whether any row lacks one.
pub fn trials() -> Vec<Trial> {
    let complete = trial("rows: every system call of the table has a case", &[], || {
        let lacking: Vec<_> =
            SYSCALLS.iter().map(|row| row.name).filter(|row| !cases().any(|case| case.row == *row)).collect();
        assert!(lacking.is_empty(), "rows without a case in sensor/tests/kernel/rows: {lacking:?}");
    });
    let here = cases().filter(|case| child::number(child::row(case.row)).is_some());
    let cases = here.map(|case| trial(format!("{}: {}", case.row, case.name), case.needs, move || check(case)));
    [complete].into_iter().chain(cases).collect()
}

/// Fields besides the row's parameters.
const FIELDS: &[&str] = &[
    "evt.type",
    "evt.rawres",
    "evt.res",
    "evt.failed",
    "fd.num",
    "fd.name",
    "fd.nameraw",
    "fd.realpath",
    "fd.type",
    "fd.typechar",
    "fd.l4proto",
    "fd.cip",
    "fd.cport",
    "fd.sip",
    "fd.sport",
    "proc.name",
    "proc.pid",
    "proc.exe",
    "proc.exepath",
    "proc.cmdline",
    "proc.pname",
    "proc.ppid",
    "proc.pexepath",
    "proc.aname[0]",
    "proc.aname[2]",
    "user.name",
    "user.uid",
    "container.id",
];

/// Parameters of an exec that say who was executed; the rest differs from run to run.
const EXEC_PARAMS: &[&str] =
    &["res", "exe", "args", "tid", "pid", "ptid", "comm", "pgid", "uid", "gid", "filename", "trusted_exepath"];

fn check(case: &'static Case) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mark = format!("gyr-{}-{number}", std::process::id());
    let parent = format!("gyp-{}-{number}", std::process::id());

    let folder = harness::folder();
    let stage = stage(folder.path());
    let rules = harness::write(folder.path(), "row.yaml", &rule(case.row, &mark));
    let sensor = Sensor::start(&[&rules], &[]);
    let part = ["row", case.row, case.name, &mark];
    let mut command = child::command_below(folder.path(), &parent, "traced", &part);
    let process = Helper::start(command.current_dir(&stage).stdout(Stdio::piped()));
    let parent_pid = process.pid();
    let notes: Value = serde_json::from_str(&process.finish(LONG)).expect("notes of the traced process");
    sensor.fence();
    let alerts: Vec<_> = sensor.all().into_iter().filter(|alert| alert.rule() == case.row).collect();
    let notes = notes.as_array().expect("a list of notes");
    assert_eq!(alerts.len(), notes.len(), "events of {}: {alerts:#?}\nexpected: {notes:#?}", case.row);

    let program = std::env::current_exe().and_then(|path| path.canonicalize()).expect("this program has a path");
    let program = program.to_string_lossy().into_owned();
    let cmdline = format!("{mark} --traced-process {}", part.join(" "));
    let common = json!({
        "evt.type": case.row, "proc.name": mark, "proc.exe": "traced", "proc.exepath": program, "proc.cmdline": cmdline,
        "proc.pname": parent, "proc.ppid": parent_pid, "proc.pexepath": program, "proc.aname[0]": mark,
        "proc.aname[2]": harness::own_name(), "user.name": "root", "user.uid": 0, "container.id": host::container_id(),
    });
    let mut wrong = Vec::new();
    for (alert, note) in alerts.iter().zip(notes) {
        let mut expected = common.as_object().expect("an object").clone();
        expected.extend(note.as_object().expect("an object").clone());
        for (field, value) in expected {
            let want = match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => Some(other.to_string()),
            };
            let got = alert.field(&field);
            if got != want {
                wrong.push(format!("{field}: expected {want:?}, got {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\nalerts: {alerts:#?}", wrong.join("\n"));
    sensor.stop().is_clean();
}

/// The rule for the events of a row that a process of this name makes. A successful exec by `execveat` is an `execve`.
fn rule(row: &str, mark: &str) -> String {
    let types = if row == "execveat" { "execve, execveat" } else { row };
    let params = if row.starts_with("execve") { EXEC_PARAMS } else { child::row(row).params };
    let fields = FIELDS.iter().map(|field| format!("%{field}"));
    let output: Vec<_> = fields.chain(params.iter().map(|param| format!("%evt.arg.{param}"))).collect();
    format!(
        "- rule: {row}\n  desc: What a traced process does.\n  condition: evt.type in ({types}) and proc.name = {mark}\n  \
         output: seen %evt.type {}\n  priority: NOTICE\n",
        output.join(" ")
    )
}

/// The folder in which a script begins: files, folders and links to work with.
fn stage(folder: &Path) -> PathBuf {
    let stage = folder.join("stage");
    fs::create_dir_all(stage.join("dir/empty")).expect("a folder in a temporary folder");
    harness::write(&stage, "file", "content\n");
    harness::write(&stage, "dir/inner", "content\n");
    std::os::unix::fs::symlink("file", stage.join("link")).expect("a link in a temporary folder");
    std::os::unix::fs::symlink("/bin/true", stage.join("true")).expect("a link in a temporary folder");
    stage
}

/// Plays the traced process of a case.
pub fn play(row: &str, name: &str, mark: &str) {
    let case = cases().find(|case| case.row == row && case.name == name).expect("a case of this name");
    let stage = std::env::current_dir().expect("a working directory");
    let mut script = Script { stage, mark: mark.to_owned(), notes: Vec::new() };
    child::rename(mark);
    (case.script)(&mut script);
    child::rename("done");
    println!("{}", Value::from(script.notes));
}

/// What a traced process does and expects.
pub struct Script {
    stage: PathBuf,
    mark: String,
    notes: Vec<Value>,
}

impl Script {
    /// The absolute path of something on the stage.
    pub fn path(&self, name: &str) -> String {
        self.stage.join(name).display().to_string()
    }

    /// The name of the traced process.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Does something that the rule must not see.
    pub fn aside<R>(&self, act: impl FnOnce() -> R) -> R {
        child::rename("aside");
        let result = act();
        child::rename(&self.mark);
        result
    }

    /// A descriptor of a folder on the stage, opened aside.
    pub fn open_aside(&self, name: &str) -> i64 {
        let file = self.aside(|| fs::File::open(self.path(name)).expect("something on the stage"));
        i64::from(std::os::fd::IntoRawFd::into_raw_fd(file))
    }

    /// Notes an event that must have been seen, by its fields.
    pub fn expect(&mut self, fields: Value) {
        self.notes.push(fields);
    }

    /// As [`Script::expect`], with what is told of every successful call without a result of its own.
    pub fn expect_done(&mut self, result: i64, fields: Value) {
        assert_eq!(result, 0, "the call failed; it should not have");
        let done = json!({ "evt.rawres": 0, "evt.res": "SUCCESS", "evt.failed": "false", "evt.arg.res": "0" });
        self.notes.push(merged(done, fields));
    }

    /// As [`Script::expect`], with what is told of every call that fails with this error.
    pub fn expect_error(&mut self, result: i64, errno: i32, name: &str, fields: Value) {
        assert_eq!(result, -i64::from(errno), "the call should have failed with {name}");
        self.notes.push(merged(json!({ "evt.rawres": result, "evt.res": name, "evt.failed": "true" }), fields));
    }
}

/// Both objects as one.
pub fn merged(mut one: Value, other: Value) -> Value {
    let (Some(fields), Value::Object(more)) = (one.as_object_mut(), other) else { panic!("fields are an object") };
    fields.extend(more);
    one
}
