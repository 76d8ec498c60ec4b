//! Programs that hide what they are: without a path, without a file, under another name.

use std::{
    fs,
    io::Write,
    os::{fd::IntoRawFd, unix::fs::PermissionsExt, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{Group, Stage, Way, number, way};
use crate::{
    child::{
        Arg::{Int, Text, Texts},
        before_exec, call, own, rename,
    },
    needs::{Need, which},
    storm::tiny_program,
};

pub const GROUP: Group = Group {
    name: "programs",
    says: "evasion: a program is told by the file that the kernel runs",
    needs: &[Need::Tracing],
    ways: WAYS,
    rules: "
- rule: program started
  desc: A traced process started a program.
  condition: evt.type in (execve, execveat) and not evt.failed = true and proc.pname startswith ev-prog
  output: >-
    %evt.type %proc.name %proc.exe %proc.exepath %proc.is_exe_from_memfd %evt.arg.filename %proc.cmdline %proc.pid
    %proc.ppid
  priority: NOTICE
- rule: secret opened
  desc: The secret was opened, by whatever program.
  condition: evt.type in (open, openat) and fd.num >= 0 and fd.name glob STAGES/*/secret
  output: '%evt.type %proc.name %proc.exe %proc.exepath %proc.pid %proc.ppid'
  priority: NOTICE
",
};

const WAYS: &[Way] = &[
    way("execveat of a descriptor and no path", without_path),
    way("execveat of a program in memory", in_memory),
    way("a program in memory, by the path of its descriptor", in_memory_by_path),
    way("a program that is deleted before it starts", deleted_before),
    way("a program that is deleted while it runs", deleted_while_running),
    way("a symbolic link", by_link),
    way("a hard link", by_hard_link),
    way("a root of its own", in_own_root),
    way("another name in its arguments", another_argument),
    way("another name that it gives itself", another_name),
    way("a script", script),
    way("a script by way of env", script_by_env),
];

const EMPTY_PATH: i64 = libc::AT_EMPTY_PATH as i64;

/// A program on the stage that does nothing.
fn tool(t: &Stage) -> String {
    tiny_program(Path::new(&t.path(""))).display().to_string()
}

/// Starts what is behind a descriptor.
fn start(fd: i64, argument: &'static str) {
    let mut command = Command::new("/nowhere");
    before_exec(&mut command, move || {
        call("execveat", &[Int(fd), Text(""), Texts(&[argument]), Texts(&[]), Int(EMPTY_PATH)]);
    });
    run(command);
}

fn run(mut command: Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{:?}: {status:?}", command.get_program());
}

fn without_path(t: &Stage) -> Vec<Value> {
    let path = tool(t);
    let file = fs::File::open(&path).expect("a program on the stage");
    start(number(&file), "sshd");
    vec![json!({
        "rule": "program started", "evt.type": "execve", "proc.exepath": path, "proc.exe": "sshd",
        "evt.arg.filename": format!("/dev/fd/{}", number(&file)), "proc.is_exe_from_memfd": "false",
    })]
}

/// A descriptor of a program that lies in memory.
fn memory(t: &Stage, name: &str) -> i64 {
    let fd = call("memfd_create", &[Text(name), Int(0)]);
    let mut file = fs::File::from(own(fd));
    file.write_all(&fs::read(tool(t)).expect("a program on the stage")).expect("room in memory");
    file.into_raw_fd().into()
}

fn in_memory(t: &Stage) -> Vec<Value> {
    start(memory(t, "kworker"), "kworker");
    vec![json!({
        "rule": "program started", "evt.type": "execve", "proc.exepath": "memfd:kworker", "proc.exe": "kworker",
        "proc.is_exe_from_memfd": "true",
    })]
}

fn in_memory_by_path(t: &Stage) -> Vec<Value> {
    let path = format!("/proc/self/fd/{}", memory(t, "x"));
    run(Command::new(&path));
    vec![json!({
        "rule": "program started", "evt.type": "execve", "proc.exepath": "memfd:x", "proc.exe": path,
        "evt.arg.filename": path, "proc.is_exe_from_memfd": "true",
    })]
}

fn deleted_before(t: &Stage) -> Vec<Value> {
    let path = tool(t);
    let file = fs::File::open(&path).expect("a program on the stage");
    fs::remove_file(&path).expect("a program on the stage");
    start(number(&file), "gone");
    // The path that it had: there is no mark that nothing is there any more.
    vec![
        json!({ "rule": "program started", "proc.exepath": path, "proc.exe": "gone", "proc.is_exe_from_memfd": "false" }),
    ]
}

fn deleted_while_running(t: &Stage) -> Vec<Value> {
    let path = t.path("reader");
    fs::copy(which("cat").expect("cat is everywhere"), &path).expect("a program on the stage");
    let mut command = Command::new(&path);
    let mut process = command.args(["-", &t.path("secret")]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let process = process.as_mut().expect("a program on the stage");
    fs::remove_file(&path).expect("a program on the stage");
    // Only now it comes to the secret.
    drop(process.stdin.take());
    assert!(process.wait().expect("our child").success());
    vec![
        json!({ "rule": "program started", "proc.exepath": path, "proc.name": "reader" }),
        json!({ "rule": "secret opened", "proc.exepath": path, "proc.name": "reader", "proc.exe": path }),
    ]
}

fn by_link(t: &Stage) -> Vec<Value> {
    let (path, link) = (tool(t), t.path("sshd"));
    std::os::unix::fs::symlink(&path, &link).expect("a link on the stage");
    run(Command::new(&link));
    vec![json!({
        "rule": "program started", "proc.exepath": path, "proc.name": "sshd", "proc.exe": link, "evt.arg.filename": link,
    })]
}

fn by_hard_link(t: &Stage) -> Vec<Value> {
    let link = t.path("sshd");
    fs::hard_link(tool(t), &link).expect("a link on the stage");
    run(Command::new(&link));
    // To the kernel it is the program's path as well as the first.
    vec![json!({ "rule": "program started", "proc.exepath": link, "proc.name": "sshd", "proc.exe": link })]
}

fn in_own_root(t: &Stage) -> Vec<Value> {
    let path = tool(t);
    let root = t.path("");
    let mut command = Command::new("/tiny");
    before_exec(&mut command, move || nix::unistd::chroot(Path::new(&root)).expect("root's right"));
    run(command);
    vec![json!({
        "rule": "program started", "proc.exepath": path, "proc.name": "tiny", "proc.exe": "/tiny", "evt.arg.filename": "/tiny",
    })]
}

fn another_argument(t: &Stage) -> Vec<Value> {
    let path = tool(t);
    let mut command = Command::new(&path);
    command.arg0("[kworker/0:1]");
    run(command);
    vec![json!({
        "rule": "program started", "proc.exepath": path, "proc.name": "tiny", "proc.exe": "[kworker/0:1]",
        "proc.cmdline": "tiny",
    })]
}

fn another_name(t: &Stage) -> Vec<Value> {
    rename("sshd");
    let _secret = fs::File::open(t.path("secret")).expect("a secret");
    let program = fs::canonicalize("/proc/self/exe").expect("a program").display().to_string();
    vec![json!({ "rule": "secret opened", "proc.name": "sshd", "proc.exepath": program })]
}

/// Writes a script and runs it; its path, and that of the shell.
fn run_script(t: &Stage, first: &str) -> (String, String) {
    let path = t.path("script");
    fs::write(&path, format!("#!{first}\nexit 0\n")).expect("a file on the stage");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    run(Command::new(&path));
    (path, fs::canonicalize("/bin/sh").expect("a shell").display().to_string())
}

fn script(t: &Stage) -> Vec<Value> {
    let (path, shell) = run_script(t, "/bin/sh");
    // The name is the script's, the path its interpreter's.
    vec![json!({
        "rule": "program started", "proc.name": "script", "proc.exe": "/bin/sh", "proc.exepath": shell,
        "evt.arg.filename": path, "proc.cmdline": format!("script {path}"),
    })]
}

fn script_by_env(t: &Stage) -> Vec<Value> {
    let (path, shell) = run_script(t, "/usr/bin/env sh");
    let env = fs::canonicalize("/usr/bin/env").expect("env").display().to_string();
    vec![
        json!({
            "rule": "program started", "proc.name": "script", "proc.exe": "/usr/bin/env", "proc.exepath": env,
            "evt.arg.filename": path, "proc.cmdline": format!("script sh {path}"),
        }),
        json!({
            "rule": "program started", "proc.name": "sh", "proc.exe": "sh", "proc.exepath": shell,
            "proc.cmdline": format!("sh {path}"),
        }),
    ]
}
