//! What another thread changes during the call: the text of the path, a link on the way, the file itself.
//!
//! A system call reads its path when it begins, the sensor reads it when the call ends; in between anybody who shares the
//! memory may have put another one there. Then the name in the alert is the other one. What the kernel opened is not a
//! matter of text: of thousands of tries, each that got the secret is told with its path, its device and its inode.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use libc::AT_FDCWD;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::Stage;
use crate::{
    child::{
        self,
        Arg::{self, Int, Text},
        call,
    },
    harness::{self, Helper, LONG, Sensor},
    needs::{Need, trial},
};

const NEEDS: &[Need] = &[Need::Tracing];

pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, race: &'static str| trial(name, NEEDS, move || run(race));
    vec![
        trial("evasion: a path that another thread changes is told by what the kernel opened", "text"),
        trial("evasion: a link that another thread changes is told by what the kernel opened", "link"),
        trial("evasion: a file that another thread moves is told by its inode", "move"),
    ]
}

/// Tries before the sensor is waited for: what they cause has room in its rings.
const BATCH: u32 = 500;
/// Batches that are made in any case.
const BATCHES: u32 = 12;

const RULES: &str = "
- macro: opens
  condition: (evt.type = openat and fd.num >= 0 and proc.name startswith ev-race)
- rule: by name
  desc: The text that is read when the call ends.
  condition: opens and fd.name = STAGE/secret
  output: '%fd.name %fd.realpath %fd.ino'
  priority: WARNING
- rule: by path
  desc: The path of the file that the kernel opened.
  condition: opens and fd.realpath = STAGE/secret
  output: '%fd.name %fd.realpath %fd.ino'
  priority: WARNING
- rule: by inode
  desc: The file that the kernel opened, whatever it is called by now.
  condition: opens and fd.ino = INODE and fd.dev.major = MAJOR and fd.dev.minor = MINOR
  output: '%fd.name %fd.realpath %fd.ino'
  priority: WARNING
";

fn run(race: &'static str) {
    let folder = harness::folder();
    Stage::lay(folder.path());
    // As long as the other, and different in one byte.
    harness::write(folder.path(), "secreT", "nothing\n");
    let stage = folder.path().display().to_string();
    let secret = fs::File::open(folder.path().join("secret")).expect("a file on the stage");
    let (dev, inode) = child::device_and_inode(super::number(&secret));
    let rules = RULES
        .replace("STAGE", &stage)
        .replace("INODE", &inode.to_string())
        .replace("MAJOR", &libc::major(dev.into()).to_string())
        .replace("MINOR", &libc::minor(dev.into()).to_string());
    let rules = harness::write(folder.path(), "rules.yaml", &rules);
    let sensor = Sensor::start(&[&rules], &["--rule-matching", "all"]);
    let told = |rule: &str, by: &dyn Fn(&harness::Alert) -> bool| {
        sensor.all().iter().filter(|alert| alert.rule() == rule && by(alert)).count() as u64
    };
    let name = format!("{stage}/secret");
    let named = |alert: &harness::Alert| alert.has("fd.name", &name);
    let deadline = Instant::now() + LONG;
    let (mut got, mut others) = (0, 0);
    let mut batches = 0;
    // Until somebody has won the race: a rule about names was evaded.
    let astray = loop {
        let mut command = child::command(folder.path(), "ev-race", &["race", race, &stage]);
        let said = Helper::start(command.stdout(Stdio::piped())).finish(LONG);
        let said: Value = serde_json::from_str(&said).expect("what became of the tries");
        got += said["secret"].as_u64().expect("a number");
        others += said["others"].as_u64().expect("a number");
        sensor.fence();
        batches += 1;
        let astray = match race {
            "text" => told("by path", &|alert| !named(alert)),
            "link" => told("by path", &|_| true),
            _ => told("by inode", &|alert| !alert.has("fd.realpath", &name)),
        };
        if batches >= BATCHES && (astray > 0 || harness::in_guest() || Instant::now() >= deadline) {
            break astray;
        }
    };
    let [by_name, by_path, by_inode] = ["by name", "by path", "by inode"].map(|rule| told(rule, &|_| true));
    eprintln!(
        "{race}: {} tries, {got} got the secret and {others} something else; told by name {by_name}, by path {by_path}, \
         by inode {by_inode}; {astray} led astray",
        batches * BATCH
    );
    assert!(got > 0 && others > 0, "both files were opened");
    assert_eq!(by_inode, got, "every open of the secret is told by its inode, and no other");
    match race {
        // A name that was the secret's when it was read may have been another's when it was used, and the other way round.
        "text" => assert_eq!(by_path, got, "every open of the secret is told by its path"),
        "link" => {
            assert_eq!((by_name, by_path), (0, got), "every open of the secret is told by its path, none by name")
        }
        // The path is that of the end of the call, the name that of its beginning.
        _ => assert_eq!(by_name, got + others, "every open by the name is told by it"),
    }
    assert!(astray > 0 || harness::in_guest(), "nobody won the race; the test has shown nothing");
    // What others open meanwhile is more than one ring takes; of the tries none was lost.
    assert_eq!(sensor.stop().code, Some(0));
}

/// Opens again and again, while a thread changes what stands behind the name.
pub fn play(race: &str, folder: &str) {
    let stage = Stage::at(folder);
    let (secret, harmless) = (stage.path("secret"), stage.path("secreT"));
    let room = child::Room::new(secret.as_bytes());
    let (link, other) = (stage.path("link"), stage.path("other-link"));
    if race == "link" {
        for (path, target) in [(&link, &secret), (&other, &harmless)] {
            let _ = fs::remove_file(path);
            symlink(target, path).expect("a link on the stage");
        }
    }
    let over = AtomicBool::new(false);
    let change = || {
        let mut turn = false;
        // The file has its name again in the end.
        while !over.load(Ordering::Relaxed) || turn {
            turn = !turn;
            match race {
                "text" => room.put(secret.len() - 1, if turn { b'T' } else { b't' }),
                "link" => exchange(&link, &other),
                _ => exchange(&secret, &harmless),
            }
        }
    };
    let (mut got, mut others) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(change);
        for _ in 0..BATCH {
            let path = if race == "link" { Text(&link) } else { Arg::Room(&room) };
            let fd = call("openat", &[Int(AT_FDCWD.into()), path, Int(libc::O_RDONLY.into()), Int(0)]);
            assert!(fd >= 0, "openat: {fd}");
            if stage.is_secret(fd) { got += 1 } else { others += 1 }
        }
        over.store(true, Ordering::Relaxed);
    });
    println!("{}", json!({ "secret": got, "others": others }));
}

fn exchange(one: &str, other: &str) {
    const RENAME_EXCHANGE: i64 = 2;
    assert!(Path::new(one).is_absolute());
    let cwd = Int(AT_FDCWD.into());
    assert_eq!(call("renameat2", &[cwd, Text(one), cwd, Text(other), Int(RENAME_EXCHANGE)]), 0, "renameat2");
}
