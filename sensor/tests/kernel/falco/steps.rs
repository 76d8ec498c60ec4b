//! The steps of a case, played by a traced process. A step that is not known here is a failure, not a silent nothing.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    child::{
        Arg::{Bytes, Int, Text},
        before_exec, call, own, wait_for_stop,
    },
    harness::wait_for,
    needs::which,
};

const AT_FDCWD: i64 = libc::AT_FDCWD as i64;

/// Takes one step after the other.
pub fn play(steps: &[Value], mark: &str) {
    let mut player = Player { descriptors: Vec::new(), child: None, folders: Vec::new() };
    // A process that later steps are about goes on; others are waited for.
    let goes_on = |rest: &[Value]| rest.iter().any(|step| step["op"] == "ptrace" || step["op"] == "kill");
    for (n, step) in steps.iter().enumerate() {
        player.take(step, mark, goes_on(&steps[n + 1..]));
    }
    for folder in player.folders {
        let _ = fs::remove_dir_all(folder);
    }
}

struct Player {
    descriptors: Vec<OwnedFd>,
    child: Option<Child>,
    folders: Vec<String>,
}

impl Player {
    fn take(&mut self, step: &Value, mark: &str, goes_on: bool) {
        // What the data has in names where each run puts a word of its own: four times the letter, as in mktemp(1).
        let place = "X".repeat(4);
        let text = |value: &Value| value.as_str().unwrap_or_default().replace("$TMP", "/tmp").replace(&place, mark);
        let at = |key: &str| text(&step[key]);
        let mode = step["mode"].as_i64().unwrap_or(0o644);
        let op = at("op");
        let result = match op.as_str() {
            "mkdir" => {
                self.folders.push(at("path"));
                call("mkdir", &[Text(&at("path")), Int(step["mode"].as_i64().unwrap_or(0o755))])
            }
            "open" => self.opened(call("open", &[Text(&at("path")), Int(flags(step)), Int(mode)])),
            "openat" => self.opened(call("openat", &[Int(AT_FDCWD), Text(&at("path")), Int(flags(step)), Int(mode)])),
            "openat2" => {
                let flags = flags(step);
                let mode = if flags & i64::from(libc::O_CREAT) == 0 { 0 } else { mode };
                let how: Vec<u8> = [flags, mode, 0].into_iter().flat_map(i64::to_ne_bytes).collect();
                self.opened(call("openat2", &[Int(AT_FDCWD), Text(&at("path")), Bytes(&how), Int(24)]))
            }
            "close" => {
                drop(self.descriptors.pop().expect("an open descriptor"));
                0
            }
            "write_file" => {
                let mut options = fs::OpenOptions::new();
                options.create(true).truncate(true).write(true).mode(u32::try_from(mode).expect("a mode"));
                let file = options.open(at("path"));
                file.and_then(|mut file| std::io::Write::write_all(&mut file, at("data").as_bytes())).expect("a file");
                0
            }
            "unlink" => call("unlink", &[Text(&at("path"))]),
            "link" => call("link", &[Text(&at("oldPath")), Text(&at("newPath"))]),
            "linkat" => {
                let (old, new) = (at("oldPath"), at("newPath"));
                call("linkat", &[Int(AT_FDCWD), Text(&old), Int(AT_FDCWD), Text(&new), Int(0)])
            }
            "symlink" => call("symlink", &[Text(&at("target")), Text(&at("linkPath"))]),
            "symlinkat" => call("symlinkat", &[Text(&at("target")), Int(AT_FDCWD), Text(&at("linkPath"))]),
            "spawn" => {
                let words: Vec<String> = step["argv"].as_array().into_iter().flatten().map(text).collect();
                let child = spawn(&words, &step["child_pre_exec"]);
                self.started(child, goes_on, step["timeout_s"].as_u64().unwrap_or(5))
            }
            "ptrace" => self.ptrace(&at("request")),
            "kill" => {
                let mut child = self.child.take().expect("a process");
                child.kill().and_then(|()| child.wait()).expect("our child");
                0
            }
            other => panic!("nobody knows the step {other}"),
        };
        assert!(result >= 0, "{op} failed: {result}");
    }

    fn opened(&mut self, fd: i64) -> i64 {
        if fd >= 0 {
            self.descriptors.push(own(fd));
        }
        fd
    }

    fn started(&mut self, mut child: Child, goes_on: bool, timeout_s: u64) -> i64 {
        if goes_on {
            self.child = Some(child);
        } else if wait_for(&mut child, Duration::from_secs(timeout_s)).is_none() {
            child.kill().and_then(|()| child.wait()).expect("our child");
        }
        0
    }

    fn ptrace(&self, request: &str) -> i64 {
        let pid = i64::from(self.child.as_ref().expect("a process").id());
        let attaches = request == "PTRACE_ATTACH";
        let request = match request {
            "PTRACE_ATTACH" => libc::PTRACE_ATTACH,
            "PTRACE_DETACH" => libc::PTRACE_DETACH,
            other => panic!("nobody knows the request {other}"),
        };
        let result = call("ptrace", &[Int(request.into()), Int(pid), Int(0), Int(0)]);
        if attaches && result == 0 {
            wait_for_stop(pid);
        }
        result
    }
}

fn spawn(words: &[String], before: &Value) -> Child {
    let (program, args) = words.split_first().expect("a command");
    // The path is looked up here: tries that fail would be events, too.
    let path = if program.contains('/') { Path::new(program).to_owned() } else { which(program).expect("a program") };
    let mut command = Command::new(path);
    std::os::unix::process::CommandExt::arg0(&mut command, program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    for step in before.as_array().into_iter().flatten() {
        assert_eq!(step["request"], "PTRACE_TRACEME", "nobody knows {step}");
        before_exec(&mut command, || {
            call("ptrace", &[Int(libc::PTRACE_TRACEME.into()), Int(0), Int(0), Int(0)]);
        });
    }
    command.spawn().expect("a process")
}

/// Open flags by name.
fn flags(step: &Value) -> i64 {
    let names = step["flags"].as_str().unwrap_or("O_RDONLY").split('|');
    names
        .map(|name| match name {
            "O_RDONLY" => libc::O_RDONLY,
            "O_WRONLY" => libc::O_WRONLY,
            "O_RDWR" => libc::O_RDWR,
            "O_CREAT" => libc::O_CREAT,
            "O_TRUNC" => libc::O_TRUNC,
            "O_APPEND" => libc::O_APPEND,
            other => panic!("nobody knows the flag {other}"),
        })
        .fold(0, |all, flag| all | i64::from(flag))
}
