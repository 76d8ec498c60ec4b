//! Other names for a file, and other places to start from.

use std::{fs, os::unix::fs::symlink, path::Path};

use libc::{AT_FDCWD, O_PATH, O_RDONLY};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};

use super::{Group, Stage, Way, number, way};
use crate::{
    child::{
        Arg::{self, Bytes, Int, Text},
        Room, call, own,
    },
    needs::Need,
};

pub const GROUP: Group = Group {
    name: "paths",
    says: "evasion: another name or another place does not hide which file was opened",
    needs: &[Need::Tracing],
    ways: WAYS,
    rules: "
- macro: opens
  condition: (evt.type in (open, openat, openat2, open_by_handle_at) and fd.num >= 0)
- rule: secret opened
  desc: The secret was opened, by whatever name.
  condition: opens and (fd.name glob STAGES/*/secret or fd.realpath glob STAGES/*/secret) and not fd.realpath endswith /far/secret
  output: >-
    %evt.type %evt.rawres %fd.num %fd.nameraw %fd.name %fd.realpath %fd.ino %fd.dev %proc.pid %proc.ppid
  priority: WARNING
- rule: harmless by its name
  desc: What was opened is not what the name says.
  condition: opens and fd.name glob STAGES/*/secret and fd.realpath endswith /far/secret
  output: '%fd.name %fd.realpath %proc.pid %proc.ppid'
  priority: NOTICE
- rule: another name was given
  desc: From now on the kernel itself knows the file by another path.
  condition: >-
    (evt.type = mount and evt.rawres = 0 and evt.arg.flags contains BIND and evt.arg.dev startswith STAGES)
    or (evt.type in (link, linkat) and evt.rawres = 0 and evt.arg.oldpath glob STAGES/*/secret)
  output: '%evt.type %evt.arg.dev %evt.arg.dir %evt.arg.oldpath %evt.arg.newpath %proc.pid %proc.ppid'
  priority: WARNING
- rule: opened by the other name
  desc: The kernel has no other path for it; device and inode are those of the secret.
  condition: opens and fd.name endswith /alias
  output: '%evt.type %fd.name %fd.realpath %fd.ino %fd.dev %proc.pid %proc.ppid'
  priority: NOTICE
",
};

const WAYS: &[Way] = &[
    way("a symbolic link", symbolic_link),
    way("a chain of links", chain_of_links),
    way("a link to a folder above", link_to_folder),
    way("a traversal", traversal),
    way("a traversal past a link, where the text leads elsewhere", traversal_past_link),
    way("a relative path", relative_path),
    way("a relative path from a descriptor", from_descriptor),
    way("openat2 with its root at a folder", in_root),
    way("openat2 with its root at a folder, and a way out that is none", in_root_upwards),
    way("openat2 beneath a folder", beneath),
    way("a root of its own", own_root),
    way("the root of /proc/self", proc_root),
    way("the root of another process", root_of_another),
    way("the working directory of another process", cwd_of_another),
    way("a descriptor for its path alone, opened again", opened_again),
    way("a handle", by_handle),
    way("a hard link", hard_link),
    way("a bind mount in a mount namespace of its own", bind_mount),
];

const CWD: Arg<'_> = Int(AT_FDCWD as i64);
const READ: Arg<'_> = Int(O_RDONLY as i64);

fn openat(path: &str) -> i64 {
    call("openat", &[CWD, Text(path), READ, Int(0)])
}

/// Opens by an absolute path, and has the name told as the path.
fn by(t: &Stage, path: &str) -> Vec<Value> {
    vec![t.got("openat", openat(path), path, path)]
}

fn symbolic_link(t: &Stage) -> Vec<Value> {
    symlink(t.path("secret"), t.path("link")).expect("a link on the stage");
    by(t, &t.path("link"))
}

fn chain_of_links(t: &Stage) -> Vec<Value> {
    symlink(t.path("secret"), t.path("first")).expect("a link on the stage");
    symlink("../first", t.path("dir/second")).expect("a link on the stage");
    by(t, &t.path("dir/second"))
}

fn link_to_folder(t: &Stage) -> Vec<Value> {
    symlink("..", t.path("dir/up")).expect("a link on the stage");
    let mut all = by(t, &t.path("dir/up/secret"));
    // The same rule for text alone would have been led past it.
    all.extend(by(t, &t.path("dir/up/dir/up/secret")));
    all
}

fn traversal(t: &Stage) -> Vec<Value> {
    let raw = t.path("dir/../dir/inner/../.././secret");
    vec![t.got("openat", openat(&raw), &raw, &t.path("secret"))]
}

fn traversal_past_link(t: &Stage) -> Vec<Value> {
    // `detour/..` is where the link leads, and not where it lies.
    symlink(t.path("far/away"), t.path("detour")).expect("a link on the stage");
    symlink(t.path("dir"), t.path("far/back")).expect("a link on the stage");
    let past = format!("{}/../secret", t.path("detour"));
    let harmless = own(openat(&past));
    drop(harmless);
    let raw = t.path("far/back/../secret");
    let told =
        json!({ "rule": "harmless by its name", "fd.name": t.path("secret"), "fd.realpath": t.path("far/secret") });
    vec![told, t.got("openat", openat(&raw), &raw, &t.path("far/secret"))]
}

fn relative_path(t: &Stage) -> Vec<Value> {
    std::env::set_current_dir(t.path("dir/inner")).expect("a folder on the stage");
    let fd = call("open", &[Text("../../secret"), READ, Int(0)]);
    vec![t.got("open", fd, "../../secret", &t.path("secret"))]
}

fn from_descriptor(t: &Stage) -> Vec<Value> {
    let folder = fs::File::open(t.path("dir/inner")).expect("a folder on the stage");
    let fd = call("openat", &[Int(number(&folder)), Text("../../secret"), READ, Int(0)]);
    vec![t.got("openat", fd, "../../secret", &t.path("secret"))]
}

/// `openat2` with `RESOLVE_*`.
fn openat2(folder: &fs::File, path: &str, resolve: u64) -> i64 {
    let how: Vec<u8> = [0, 0, resolve].into_iter().flat_map(u64::to_ne_bytes).collect();
    call("openat2", &[Int(number(folder)), Text(path), Bytes(&how), Int(24)])
}

const RESOLVE_BENEATH: u64 = 0x08;
const RESOLVE_IN_ROOT: u64 = 0x10;

fn in_root(t: &Stage) -> Vec<Value> {
    let folder = fs::File::open(t.path("")).expect("the stage");
    // An absolute path is taken as it is, though here it begins at the descriptor; the kernel's path tells.
    vec![t.got("openat2", openat2(&folder, "/secret", RESOLVE_IN_ROOT), "/secret", "/secret")]
}

fn in_root_upwards(t: &Stage) -> Vec<Value> {
    let folder = fs::File::open(t.path("")).expect("the stage");
    let raw = "../../../secret";
    let name = Path::new(&t.path("")).ancestors().nth(3).expect("three folders above").join("secret");
    vec![t.got("openat2", openat2(&folder, raw, RESOLVE_IN_ROOT), raw, &name.display().to_string())]
}

fn beneath(t: &Stage) -> Vec<Value> {
    let folder = fs::File::open(t.path("")).expect("the stage");
    vec![t.got("openat2", openat2(&folder, "dir/../secret", RESOLVE_BENEATH), "dir/../secret", &t.path("secret"))]
}

fn own_root(t: &Stage) -> Vec<Value> {
    nix::unistd::chroot(Path::new(&t.path(""))).expect("root's right");
    let absolute = t.got("openat", openat("/secret"), "/secret", "/secret");
    std::env::set_current_dir("/dir").expect("a folder on the stage");
    let relative = t.got("openat", openat("../secret"), "../secret", "/secret");
    vec![absolute, relative]
}

fn proc_root(t: &Stage) -> Vec<Value> {
    by(t, &format!("/proc/self/root{}", t.path("secret")))
}

fn root_of_another(t: &Stage) -> Vec<Value> {
    let (child, pipe) = waiting(|| nix::unistd::chroot(Path::new(&t.path(""))).expect("root's right"));
    let told = by(t, &format!("/proc/{child}/root/secret"));
    drop(pipe);
    nix::sys::wait::waitpid(child, None).expect("our child");
    told
}

fn cwd_of_another(t: &Stage) -> Vec<Value> {
    let (child, pipe) = waiting(|| std::env::set_current_dir(t.path("dir")).expect("a folder on the stage"));
    // Through the link of /proc, then upwards: the text says something else.
    let raw = format!("/proc/{child}/cwd/../secret");
    let told = vec![t.got("openat", openat(&raw), &raw, &format!("/proc/{child}/secret"))];
    drop(pipe);
    nix::sys::wait::waitpid(child, None).expect("our child");
    told
}

fn opened_again(t: &Stage) -> Vec<Value> {
    let path = t.path("secret");
    let first = call("openat", &[CWD, Text(&path), Int(O_PATH.into()), Int(0)]);
    let again = format!("/proc/self/fd/{first}");
    let second = openat(&again);
    // Both are told: the second by the name of a descriptor.
    let told = t.got("openat", second, &again, &again);
    vec![t.got("openat", first, &path, &path), told]
}

fn by_handle(t: &Stage) -> Vec<Value> {
    const MAX_HANDLE: u32 = 128;
    let path = t.path("secret");
    let mut handle = [0; 8 + MAX_HANDLE as usize];
    handle[..4].copy_from_slice(&MAX_HANDLE.to_ne_bytes());
    let (room, mount) = (Room::new(&handle), Room::new(&[0; 4]));
    let named = call("name_to_handle_at", &[CWD, Text(&path), Arg::Room(&room), Arg::Room(&mount), Int(0)]);
    assert_eq!(named, 0, "no handle of {path}");
    let folder = fs::File::open(t.path("dir")).expect("a folder on the stage");
    let fd = call("open_by_handle_at", &[Int(number(&folder)), Arg::Room(&room), READ]);
    let mut told = t.got("open_by_handle_at", fd, &path, &path);
    // There is no name that was passed: the kernel's path stands for it.
    told.as_object_mut().expect("fields").remove("fd.nameraw");
    vec![told]
}

/// Of an open by another name, for which the kernel has no other path.
fn by_alias(t: &Stage, alias: &str) -> Value {
    let mut told = t.got("openat", openat(alias), alias, alias);
    told["rule"] = "opened by the other name".into();
    told["fd.realpath"] = alias.into();
    told["fd.nameraw"] = Value::Null;
    told.as_object_mut().expect("fields").retain(|field, _| field == "rule" || field.starts_with("fd."));
    told.as_object_mut().expect("fields").retain(|field, _| field != "fd.num" && field != "fd.nameraw");
    told
}

fn hard_link(t: &Stage) -> Vec<Value> {
    let (secret, alias) = (t.path("secret"), t.path("dir/alias"));
    let result = call("linkat", &[CWD, Text(&secret), CWD, Text(&alias), Int(0)]);
    assert_eq!(result, 0, "linkat");
    let linked = json!({
        "rule": "another name was given", "evt.type": "linkat", "evt.arg.oldpath": secret, "evt.arg.newpath": alias,
    });
    vec![linked, by_alias(t, &alias)]
}

fn bind_mount(t: &Stage) -> Vec<Value> {
    unshare(CloneFlags::CLONE_NEWNS).expect("root's right");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of our own");
    let (secret, alias) = (t.path("secret"), t.path("dir/alias"));
    fs::write(&alias, "").expect("a file on the stage");
    mount(Some(secret.as_str()), alias.as_str(), none, MsFlags::MS_BIND, none).expect("root's right");
    let mounted = json!({
        "rule": "another name was given", "evt.type": "mount", "evt.arg.dev": secret, "evt.arg.dir": alias,
    });
    let made = json!({ "rule": "opened by the other name", "fd.name": alias, "fd.realpath": alias });
    vec![made, mounted, by_alias(t, &alias)]
}

/// A child that does something to itself, says so, and lives until the pipe to it is closed.
fn waiting(act: impl FnOnce()) -> (nix::unistd::Pid, std::io::PipeWriter) {
    use std::io::{Read, Write};
    let (mut ready, mut said) = std::io::pipe().expect("a pipe");
    let (mut until, end) = std::io::pipe().expect("a pipe");
    match crate::child::fork() {
        None => {
            drop(end);
            act();
            said.write_all(b"x").expect("a parent that reads");
            let _ = until.read(&mut [0]);
            std::process::exit(0);
        }
        Some(child) => {
            ready.read_exact(&mut [0]).expect("a child that does as it is told");
            (child, end)
        }
    }
}
