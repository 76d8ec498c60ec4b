//! Ways past a rule about a file or a program: what a rule is told of each, field by field.
//!
//! A rule that compares names can be evaded with another name. So each way here gets at the same secret file, or runs the
//! same program, and shows what stays the same: `fd.realpath` and `proc.exepath`, the kernel's own paths, where a name
//! leads astray; device and inode where the kernel itself has another path. The traced process says what must be told, for
//! it alone knows the numbers of its descriptors.

mod paths;
mod programs;
mod races;
mod rings;

use std::{
    fs,
    io::Write,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    child::{self, own},
    harness::{self, Alert, Helper, LONG, Sensor},
    needs::{Need, trial},
};

/// One way.
pub struct Way {
    /// What it is.
    pub name: &'static str,
    /// Does it, and says what must be told of it, in order.
    pub play: fn(&Stage) -> Vec<Value>,
}

const fn way(name: &'static str, play: fn(&Stage) -> Vec<Value>) -> Way {
    Way { name, play }
}

/// Ways that are judged together, by the same rules.
struct Group {
    name: &'static str,
    /// A sentence.
    says: &'static str,
    needs: &'static [Need],
    ways: &'static [Way],
    /// The rules, of which `SECRET` is the file and `STAGE` its folder.
    rules: &'static str,
}

const GROUPS: &[Group] = &[paths::GROUP, programs::GROUP, rings::GROUP];

/// The trials.
pub fn trials() -> Vec<Trial> {
    let groups = GROUPS.iter().map(|group| trial(group.says, group.needs, move || check(group)));
    groups.chain(races::trials()).collect()
}

/// What lies in the folder of a way.
pub struct Stage {
    folder: PathBuf,
    /// Device and inode of the secret.
    secret: (u64, u64),
}

impl Stage {
    /// Lays it out: a secret, something harmless, and folders and links to come from.
    fn lay(folder: &Path) {
        for name in ["dir/inner", "far/away"] {
            fs::create_dir_all(folder.join(name)).expect("a folder in a temporary folder");
        }
        harness::write(folder, "secret", "the secret\n");
        harness::write(folder, "harmless", "nothing\n");
        harness::write(folder, "far/secret", "nothing\n");
    }

    /// As the traced process finds it.
    fn at(folder: &str) -> Self {
        let secret = fs::metadata(Path::new(folder).join("secret")).expect("a secret");
        Self { folder: folder.into(), secret: (secret.dev(), secret.ino()) }
    }

    /// The absolute path of something on the stage.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Whether a descriptor is the secret.
    pub fn is_secret(&self, fd: i64) -> bool {
        let file = fs::File::from(own(fd));
        let found = file.metadata().expect("an open file");
        (found.dev(), found.ino()) == self.secret
    }

    /// What is told of an open that got the secret by this name.
    #[track_caller]
    pub fn got(&self, kind: &str, fd: i64, raw: &str, name: &str) -> Value {
        assert!(fd >= 0, "{kind} of {raw}: {fd}");
        let number = fd.to_string();
        assert!(self.is_secret(fd), "{kind} of {raw} opened something else");
        json!({
            "rule": "secret opened", "evt.type": kind, "evt.rawres": number, "fd.num": number, "fd.nameraw": raw,
            "fd.name": name, "fd.realpath": self.path("secret"), "fd.ino": self.secret.1.to_string(),
        })
    }
}

/// The name of a traced process.
fn mark(group: &Group, number: usize) -> String {
    // A name has fifteen bytes at most.
    format!("ev-{}-{number}", &group.name[..4])
}

fn check(group: &'static Group) {
    let folder = harness::folder();
    let stages: Vec<PathBuf> = (0..group.ways.len()).map(|number| folder.path().join(number.to_string())).collect();
    stages.iter().for_each(|stage| Stage::lay(stage));
    let rules = group.rules.replace("STAGES", &folder.path().display().to_string());
    let rules = harness::write(folder.path(), "rules.yaml", &rules);
    let sensor = Sensor::start(&[&rules], &["--rule-matching", "all"]);
    let mut runs = Vec::new();
    for (number, (way, stage)) in group.ways.iter().zip(&stages).enumerate() {
        let text = stage.display().to_string();
        let name = mark(group, number);
        let mut command = child::command(stage, &name, &["evade", group.name, way.name, &text]);
        let process = Helper::start(command.current_dir(stage).stdout(Stdio::piped()));
        let pid = process.pid();
        let said: Vec<Value> = serde_json::from_str(&process.finish(LONG)).expect("what must be told");
        runs.push((way, pid, said));
    }
    sensor.fence();
    let alerts = sensor.all();
    let wrong: Vec<String> = runs.iter().flat_map(|(way, pid, want)| compare(way, *pid, want, &alerts)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sensor.stop().is_clean();
}

/// What is wrong with the alerts of a way: those of its process, and of the one that it started.
fn compare(way: &Way, pid: u32, want: &[Value], alerts: &[Alert]) -> Vec<String> {
    let pid = pid.to_string();
    let ours: Vec<&Alert> =
        alerts.iter().filter(|alert| alert.has("proc.pid", &pid) || alert.has("proc.ppid", &pid)).collect();
    if ours.len() != want.len() {
        return vec![format!("{}: alerts {ours:#?}\nwanted {want:#?}", way.name)];
    }
    let mut wrong = Vec::new();
    for (alert, want) in ours.iter().zip(want) {
        for (field, value) in want.as_object().expect("fields") {
            let got = if field == "rule" { Some(alert.rule().to_owned()) } else { alert.field(field) };
            let value = value.as_str().map(str::to_owned);
            if got != value {
                wrong.push(format!("{}: {field}: expected {value:?}, got {got:?}", way.name));
            }
        }
    }
    wrong
}

/// Plays a way.
pub fn play(group: &str, name: &str, folder: &str) {
    let group = GROUPS.iter().find(|one| one.name == group).expect("a group of this name");
    let way = group.ways.iter().find(|one| one.name == name).expect("a way of this name");
    // What is printed goes out at the end, whatever has become of the working directory and the root.
    let said = Value::from((way.play)(&Stage::at(folder)));
    writeln!(std::io::stdout(), "{said}").expect("somebody who reads");
}

/// Plays the part of a race.
pub use races::play as play_race;

/// A descriptor that stays open as long as its owner does.
fn number(file: &impl AsRawFd) -> i64 {
    file.as_raw_fd().into()
}
