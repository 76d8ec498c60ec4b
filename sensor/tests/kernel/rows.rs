//! One case at least for every row of the table of system calls: what a process does, and what the sensor must say.
//!
//! The traced process itself says what it expects, for it alone knows the numbers of its descriptors, the inodes and the
//! pids: a [`Script`] makes system calls and notes, next to each, the event that it must become. The test compares the
//! notes with the alerts of a rule for this event and this process: the same number, the same order, the same fields.
//! Values are as Falco renders them.

mod buffers;
mod calls;
mod exec;
mod files;
mod links;
mod network;
mod opens;
mod processes;
mod sockets;

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
    child::{self, Arg},
    harness::{self, Alert, Helper, LONG, Sensor},
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
    pub play: Play,
}

impl Case {
    /// Fields of other descriptors that its rule asks for.
    fn descriptors(&self) -> &'static [&'static str] {
        match self.play {
            Play::Script(_) => DESCRIPTORS,
            Play::Call { .. } => &[],
        }
    }
}

/// What the traced process does and expects.
#[derive(Clone, Copy)]
pub enum Play {
    /// Anything.
    Script(fn(&mut Script)),
    /// One call.
    Call {
        /// Its arguments.
        args: &'static [Arg<'static>],
        /// Its result.
        result: Want,
        /// Fields as a JSON object; `$STAGE` is the working directory, `$RET` the result.
        fields: &'static str,
    },
}

/// A result.
#[derive(Clone, Copy)]
pub enum Want {
    /// This one; errors are below zero.
    Is(i64),
    /// A new descriptor.
    Descriptor,
    /// Some error: which one depends on the kernel's configuration.
    Error,
    /// Whatever it is.
    Any,
}

/// A case that needs nothing special.
pub const fn case(row: &'static str, name: &'static str, script: fn(&mut Script)) -> Case {
    Case { row, name, needs: &[Need::Tracing], play: Play::Script(script) }
}

const MODULES: [(&str, &[Case]); 9] = [
    ("opens", opens::CASES),
    ("files", files::CASES),
    ("links", links::CASES),
    ("network", network::CASES),
    ("sockets", sockets::CASES),
    ("buffers", buffers::CASES),
    ("exec", exec::CASES),
    ("processes", processes::CASES),
    ("single calls", calls::CASES),
];

fn cases() -> impl Iterator<Item = &'static Case> {
    MODULES.into_iter().flat_map(|(_, cases)| cases)
}

fn is_here(case: &Case) -> bool {
    child::number(case.row).is_some() || case.needs.contains(&Need::Calls32)
}

/// The trials: the cases that this architecture has calls for, those of a module together under one sensor, and a look at
/// whether any row lacks one.
pub fn trials() -> Vec<Trial> {
    let complete = trial("rows: every system call of the table has a case", &[], || {
        let lacking: Vec<_> =
            SYSCALLS.iter().map(|row| row.name).filter(|row| !cases().any(|case| case.row == *row)).collect();
        assert!(lacking.is_empty(), "rows without a case in sensor/tests/kernel/rows: {lacking:?}");
    });
    let plain = |case: &&'static Case| case.needs == [Need::Tracing];
    let together = MODULES.into_iter().map(move |(module, cases)| {
        trial(format!("rows: {module}"), &[Need::Tracing], move || {
            check(&cases.iter().filter(plain).filter(|case| is_here(case)).collect::<Vec<_>>());
        })
    });
    let others = cases().filter(move |case| !plain(case) && is_here(case));
    let others = others.map(|case| trial(format!("{}: {}", case.row, case.name), case.needs, move || check(&[case])));
    [complete].into_iter().chain(together).chain(others).collect()
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
    "fd.connected",
    "fd.name_changed",
    "fd.lport",
    "fd.rport",
    "evt.buffer",
    "evt.buflen",
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

/// Fields of descriptors that the event is not about. They make records long: single calls, which see most of what the
/// machine does, go without.
const DESCRIPTORS: &[&str] = &["proc.stdin.type", "proc.stdin.name", "proc.stdout.type", "fd.types", "fd.types[0]"];

/// Parameters of an exec that say who was executed; the rest differs from run to run.
const EXEC_PARAMS: &[&str] =
    &["res", "exe", "args", "tid", "pid", "ptid", "comm", "pgid", "uid", "gid", "filename", "trusted_exepath"];

/// A case as it is played.
struct Run {
    case: &'static Case,
    mark: String,
    parent: u32,
    notes: Value,
}

fn check(cases: &[&'static Case]) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let first = COUNT.fetch_add(u32::try_from(cases.len()).expect("few"), Ordering::Relaxed);
    let marks: Vec<_> =
        (first..).take(cases.len()).map(|number| format!("gyr-{}-{number}", std::process::id())).collect();
    let parent = format!("gyp-{}-{first}", std::process::id());

    let folder = harness::folder();
    let text: String = cases.iter().zip(&marks).map(|(case, mark)| rule(case, mark)).collect();
    let rules = harness::write(folder.path(), "row.yaml", &text);
    let sensor = Sensor::start(&[&rules], &[]);
    let runs: Vec<Run> = cases.iter().zip(&marks).map(|(case, mark)| run(case, mark, &parent, folder.path())).collect();
    sensor.fence();
    let alerts = sensor.all();
    let wrong: Vec<String> = runs.iter().flat_map(|run| compare(run, &parent, &alerts)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sensor.stop().is_clean();
}

/// Has a case played by a process of its own, on a stage of its own.
fn run(case: &'static Case, mark: &str, parent: &str, folder: &Path) -> Run {
    let stage = stage(&folder.join(mark));
    let mut command = child::command_below(folder, parent, "traced", &["row", case.row, case.name, mark]);
    let process = Helper::start(command.current_dir(&stage).stdout(Stdio::piped()));
    let parent = process.pid();
    let notes = serde_json::from_str(&process.finish(LONG)).expect("notes of the traced process");
    Run { case, mark: mark.to_owned(), parent, notes }
}

/// What is wrong with the alerts of a case.
fn compare(run: &Run, parent: &str, alerts: &[Alert]) -> Vec<String> {
    let Run { case, mark, .. } = run;
    let title = format!("{}: {}", case.row, case.name);
    let alerts: Vec<_> = alerts.iter().filter(|alert| alert.rule() == mark).collect();
    let notes = run.notes.as_array().expect("a list of notes");
    if alerts.len() != notes.len() {
        return vec![format!("{title}: events {alerts:#?}\nexpected: {notes:#?}")];
    }
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).expect("this program has a path");
    let program = program.to_string_lossy().into_owned();
    let cmdline = format!("{mark} --traced-process row {} {} {mark}", case.row, case.name);
    let common = json!({
        "evt.type": case.row, "proc.name": mark, "proc.exe": "traced", "proc.exepath": program, "proc.cmdline": cmdline,
        "proc.pname": parent, "proc.ppid": run.parent, "proc.pexepath": program, "proc.aname[0]": mark,
        "proc.aname[2]": harness::own_name(), "user.name": "root", "user.uid": 0, "container.id": host::container_id(),
    });
    let mut wrong = Vec::new();
    let mut left = alerts;
    for note in notes {
        // Of two processes, either may be the first: then the result tells them apart.
        let result = note["evt.rawres"].to_string();
        let found = left.iter().position(|alert| alert.has("evt.rawres", &result)).unwrap_or(0);
        let alert = left.remove(found);
        let before = wrong.len();
        let mut expected = common.as_object().expect("an object").clone();
        if !case.descriptors().is_empty() {
            expected.insert("proc.stdin.type".into(), "file".into());
            expected.insert("proc.stdin.name".into(), "/dev/null".into());
            expected.insert("proc.stdout.type".into(), "pipe".into());
        }
        expected.extend(note.as_object().expect("an object").clone());
        for (field, value) in expected {
            let want = match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => Some(other.to_string()),
            };
            let got = alert.field(&field);
            if got != want {
                wrong.push(format!("{title}: {field}: expected {want:?}, got {got:?}"));
            }
        }
        if wrong.len() > before {
            wrong.push(format!("{alert:#?}"));
        }
    }
    wrong
}

/// The rule for the events of a row that a process of this name makes. A successful exec by `execveat` is an `execve`.
fn rule(case: &Case, mark: &str) -> String {
    let types = if case.row == "execveat" { "execve, execveat" } else { case.row };
    let params = if case.row.starts_with("execve") { EXEC_PARAMS } else { child::params(case.row) };
    let fields = FIELDS.iter().chain(case.descriptors()).map(|field| format!("%{field}"));
    let output: Vec<_> = fields.chain(params.iter().map(|param| format!("%evt.arg.{param}"))).collect();
    format!(
        "- rule: {mark}\n  desc: What a traced process does.\n  condition: evt.type in ({types}) and proc.name = {mark}\n  \
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
    match case.play {
        Play::Script(play) => play(&mut script),
        Play::Call { args, result, fields } => script.single(row, args, result, fields),
    }
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

    /// Makes one call and notes what must be told of it.
    fn single(&mut self, row: &str, args: &[Arg<'_>], want: Want, fields: &str) {
        let result = child::call(row, args);
        let text =
            fields.replace("$STAGE", &self.path("")[..self.path("").len() - 1]).replace("$RET", &result.to_string());
        let fields: Value = serde_json::from_str(&text).expect("JSON");
        match want {
            Want::Is(wanted) => assert_eq!(result, wanted, "result of {row}"),
            Want::Descriptor => assert!(result >= 0, "{row} failed: {result}"),
            Want::Error => assert!(result < 0, "{row} did not fail"),
            Want::Any => {}
        }
        let name = match i32::try_from(-result) {
            Ok(errno @ 1..4096) => format!("{:?}", nix::errno::Errno::from_raw(errno)),
            _ => "SUCCESS".to_owned(),
        };
        let mut note = json!({ "evt.rawres": result, "evt.failed": (result < 0).to_string() });
        if !matches!(want, Want::Any) {
            note["evt.res"] = name.into();
        }
        self.expect(merged(note, fields));
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
