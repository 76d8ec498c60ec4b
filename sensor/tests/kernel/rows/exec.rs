//! `execve`, `execveat` and `ptrace`: who runs what, and who looks into whom.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt, process::CommandExt},
    },
    path::Path,
    process::{Command, Stdio},
};

use libc::{AT_FDCWD, EACCES, EFAULT, ENOENT, ESRCH, OPEN_TREE_CLONE, PTRACE_ATTACH, PTRACE_DETACH, PTRACE_TRACEME};
use serde_json::{Value, json};

use super::{Case, Script, case, merged};
use crate::child::{
    self,
    Arg::{Int, Nowhere, Text, Texts},
    before_exec, call, wait_for_stop,
};

pub const CASES: &[Case] = &[
    case("execve", "a program that was started is told as it is", execve_started),
    case("execve", "what a program reads from is told, as a shell at the other end of a connection", execve_connected),
    case("execve", "a thread that executes a program becomes its process", execve_from_thread),
    case("execve", "a failure is the caller's", execve_failed),
    case("execveat", "a failure has the path relative to its folder", execveat_failed),
    case("execveat", "a program that was started is an execve", execveat_started),
    case("execveat", "a program that is mounted nowhere has the path in its file system", execveat_detached),
    case("ptrace", "a process asks to be traced", ptrace_traceme),
    case("ptrace", "a process attaches to another", ptrace_attach),
    case("ptrace", "a process that does not exist cannot be attached to", ptrace_nobody),
];

/// What is told of a program that this process started: not its own name, but that of the file.
fn started(t: &Script, pid: u32) -> Value {
    let program = fs::canonicalize("/bin/true").expect("a program").display().to_string();
    let parent = fs::read_to_string(format!("/proc/{}/comm", std::os::unix::process::parent_id())).expect("our parent");
    json!({
        "evt.type": "execve", "evt.rawres": 0, "evt.failed": "false", "evt.arg.res": "0", "evt.arg.exe": "zero",
        "evt.arg.args": "one.two words.", "evt.arg.pid": t.mark(), "evt.arg.tid": t.mark(), "evt.arg.ptid": t.mark(),
        "evt.arg.comm": t.mark(), "evt.arg.uid": "root", "evt.arg.gid": "root",
        "evt.arg.trusted_exepath": program, "proc.exepath": program, "proc.exe": "zero", "proc.pid": pid,
        "proc.cmdline": format!("{} one two words", t.mark()), "proc.pname": t.mark(), "proc.ppid": std::process::id(),
        "proc.pexepath": fs::canonicalize("/proc/self/exe").expect("a program").display().to_string(),
        "proc.aname[2]": parent.trim_end(), "proc.stdout.type": "file",
    })
}

fn execve_started(t: &mut Script) {
    let path = t.path(t.mark());
    // The started program has the name of the file: the one that the rule looks for.
    t.aside(|| std::os::unix::fs::symlink("/bin/true", &path).expect("a link on the stage"));
    let mut command = Command::new(&path);
    command.arg0("zero").args(["one", "two words"]).stdout(Stdio::null());
    let mut child = command.spawn().expect("a program");
    child.wait().expect("our child");
    let fields = started(t, child.id());
    t.expect(merged(fields, json!({ "evt.arg.filename": path })));
}

fn execve_connected(t: &mut Script) {
    let path = t.path(t.mark());
    let mut command = Command::new(&path);
    let (_listener, client, server) = t.aside(|| {
        std::os::unix::fs::symlink("/bin/true", &path).expect("a link on the stage");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = listener.local_addr().expect("a bound socket");
        let stream = TcpStream::connect(server).expect("a listener");
        let client = stream.local_addr().expect("a connected socket");
        command.stdin(OwnedFd::from(stream));
        (listener, client, server)
    });
    command.arg0("zero").args(["one", "two words"]).stdout(Stdio::null());
    let mut child = command.spawn().expect("a program");
    child.wait().expect("our child");
    // The lower port is taken for the server's.
    let (first, second) = if client.port() > server.port() { (client, server) } else { (server, client) };
    let ends = json!({ "proc.stdin.type": "ipv4", "proc.stdin.name": format!("{first}->{second}") });
    t.expect(merged(started(t, child.id()), ends));
}

fn execve_from_thread(t: &mut Script) {
    let path = t.path(t.mark());
    t.aside(|| std::os::unix::fs::symlink("/bin/true", &path).expect("a link on the stage"));
    let own = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(own);
    command.args([child::PLAY, "exec-from-thread", &path]).stdout(Stdio::null());
    let mut child = command.spawn().expect("a program");
    assert!(child.wait().expect("our child").success());
    let fields = started(t, child.id());
    t.expect(fields);
}

fn execve_failed(t: &mut Script) {
    let missing = t.path("missing");
    let result = call("execve", &[Text(&missing), Texts(&["zero", "one"]), Texts(&["A=1"])]);
    // The caller stays who it was; the arguments are those that were meant.
    let fields = json!({
        "evt.arg.res": "ENOENT", "evt.arg.exe": "zero", "evt.arg.args": "one.", "evt.arg.filename": missing,
        "evt.arg.comm": t.mark(), "proc.pid": std::process::id(),
    });
    t.expect_error(result, ENOENT, "ENOENT", fields);
    let file = t.path("file");
    let result = call("execve", &[Text(&file), Texts(&["zero"]), Texts(&[])]);
    t.expect_error(result, EACCES, "EACCES", json!({ "evt.arg.exe": "zero", "evt.arg.filename": file }));
    let result = call("execve", &[Nowhere, Texts(&["zero"]), Texts(&[])]);
    t.expect_error(result, EFAULT, "EFAULT", json!({ "evt.arg.exe": "zero" }));
}

fn execveat_failed(t: &mut Script) {
    let dirfd = t.open_aside("dir");
    let result = call("execveat", &[Int(dirfd), Text("missing"), Texts(&["zero", "one"]), Texts(&[]), Int(0)]);
    let fields = json!({ "evt.type": "execveat", "evt.arg.exe": "zero", "evt.arg.args": "one." });
    t.expect_error(result, ENOENT, "ENOENT", fields);
}

fn execveat_started(t: &mut Script) {
    let path = t.path(t.mark());
    t.aside(|| std::os::unix::fs::symlink("/bin/true", &path).expect("a link on the stage"));
    let mut command = Command::new("/bin/false");
    let there = path.clone();
    before_exec(&mut command, move || {
        call(
            "execveat",
            &[Int(AT_FDCWD.into()), Text(&there), Texts(&["zero", "one", "two words"]), Texts(&[]), Int(0)],
        );
    });
    let mut child = command.stdout(Stdio::null()).spawn().expect("a program");
    assert!(child.wait().expect("our child").success(), "execveat failed");
    let fields = started(t, child.id());
    t.expect(fields);
}

fn execveat_detached(t: &mut Script) {
    let program = t.path(t.mark());
    t.aside(|| fs::copy("/bin/true", &program).expect("a program on the stage"));
    let folder = t.path("");
    let tree = t.aside(|| call("open_tree", &[Int(AT_FDCWD.into()), Text(&folder), Int(OPEN_TREE_CLONE.into())]));
    assert!(tree >= 0, "open_tree: {tree}");
    let name = t.mark().to_owned();
    let mut command = Command::new("/bin/false");
    before_exec(&mut command, move || {
        call("execveat", &[Int(tree), Text(&name), Texts(&["zero", "one", "two words"]), Texts(&[]), Int(0)]);
    });
    let mut child = command.stdout(Stdio::null()).spawn().expect("a program");
    assert!(child.wait().expect("our child").success(), "execveat failed");
    let path = path_in_file_system(Path::new(&program));
    let fields = json!({ "proc.exepath": path, "evt.arg.trusted_exepath": path });
    t.expect(merged(started(t, child.id()), fields));
}

/// A path without what its file system is mounted at.
fn path_in_file_system(path: &Path) -> String {
    let device = |path: &Path| fs::metadata(path).expect("a path that exists").dev();
    let whole = device(path);
    let top = path.ancestors().take_while(|folder| device(folder) == whole).last().expect("at least itself");
    format!("/{}", path.strip_prefix(top).expect("an ancestor").display())
}

fn ptrace_traceme(t: &mut Script) {
    let result = call("ptrace", &[Int(PTRACE_TRACEME.into()), Int(0), Int(0), Int(0)]);
    t.expect_done(result, json!({ "evt.arg.request": "PTRACE_TRACEME", "evt.arg.pid": "0", "fd.name": null }));
}

fn ptrace_attach(t: &mut Script) {
    let mut child = t.aside(|| {
        let mut child =
            Command::new("/bin/cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
        // What it returns it has read, so its exec is over: `spawn` returns a moment before that.
        child.stdin.as_ref().expect("piped").write_all(b"x").expect("a reader");
        child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("a writer");
        child
    });
    let pid = i64::from(child.id());
    let result = call("ptrace", &[Int(PTRACE_ATTACH.into()), Int(pid), Int(0), Int(0)]);
    t.expect_done(result, json!({ "evt.arg.request": "PTRACE_ATTACH", "evt.arg.pid": "cat" }));
    wait_for_stop(pid);
    let result = call("ptrace", &[Int(PTRACE_DETACH.into()), Int(pid), Int(0), Int(0)]);
    t.expect_done(result, json!({ "evt.arg.request": "PTRACE_DETACH", "evt.arg.pid": "cat" }));
    child.kill().and_then(|()| child.wait()).expect("our child");
}

fn ptrace_nobody(t: &mut Script) {
    // Beyond the largest pid that there can be.
    let result = call("ptrace", &[Int(PTRACE_ATTACH.into()), Int(5_000_000), Int(0), Int(0)]);
    let fields = json!({ "evt.arg.res": "ESRCH", "evt.arg.request": "PTRACE_ATTACH", "evt.arg.pid": "5000000" });
    t.expect_error(result, ESRCH, "ESRCH", fields);
}
