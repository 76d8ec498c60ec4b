//! What a live sensor recorded is judged elsewhere as if it happened there.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use libtest_mimic::Trial;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    harness::{self, GYRFALCON, Helper, LONG},
    needs::{Need, trial},
};

const RULES: &str = "
- rule: Shadow read
  desc: Somebody reads password hashes.
  condition: evt.type in (open, openat) and fd.name = /etc/shadow and proc.env[GYR_MARK] exists
  output: mark=%proc.env[GYR_MARK] cmd=%proc.cmdline parent=%proc.pname cwd=%proc.cwd user=%user.name
  priority: WARNING
";

/// The trials.
pub fn trials() -> Vec<Trial> {
    vec![trial("record: what happened is replayed with arguments, parents, environment", &[Need::Tracing], replays)]
}

fn replays() {
    let folder = harness::folder();
    let (rules, file) = (harness::write(folder.path(), "rules.yaml", RULES), folder.path().join("day.gyr"));
    let mut recorder = Command::new(GYRFALCON)
        .arg("record")
        .arg(&file)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built with this test");
    let mut said = BufReader::new(recorder.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("recording; a signal ends it")), "it ended");
    let mark = format!("gyr{}", std::process::id());
    let mut cat = Command::new("/bin/cat");
    Helper::start(cat.arg("/etc/shadow").env("GYR_MARK", &mark).stdout(Stdio::null())).finish(LONG);
    kill(Pid::from_raw(recorder.id() as i32), Signal::SIGINT).expect("our own child");
    let rest: Vec<_> = said.collect();
    assert_eq!(recorder.wait().expect("our own child").code(), Some(0), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("recorded")), "{rest:?}");

    let replay = Command::new(GYRFALCON).arg("replay").args([&file, &rules]).output().expect("the same program");
    let (stdout, stderr) = (String::from_utf8_lossy(&replay.stdout), String::from_utf8_lossy(&replay.stderr));
    assert_eq!(replay.status.code(), Some(0), "{stderr}");
    let own = stdout.lines().find(|line| line.contains(&mark)).unwrap_or_else(|| panic!("{stdout}{stderr}"));
    let here = std::env::current_dir().expect("a folder");
    assert!(own.contains("cmd=cat /etc/shadow "), "{own}");
    assert!(own.contains(&format!("parent={} cwd={}/ user=root", harness::own_name(), here.display())), "{own}");
}
