//! Calls that write to memory: what they read, and the numbers that they return there.

use std::fs::File;

use serde_json::json;

use super::{Case, Script, case};
use crate::child::{
    Arg::{Bytes, Int, Room as Into, Text},
    Room, call,
};

pub const CASES: &[Case] = &[
    case("read", "data are those of the file", read),
    case("readv", "data are put together from the buffers", readv),
    case("preadv", "data are put together from the buffers", preadv),
    case("writev", "data are put together from the buffers", writev),
    case("pwritev", "data are put together from the buffers", pwritev),
    case("process_vm_readv", "data are what was read", process_vm_readv),
    case("process_vm_writev", "data are what was written", process_vm_writev),
    case("pipe", "both descriptors are told", |t| pipe(t, "pipe")),
    case("pipe2", "both descriptors are told", |t| pipe(t, "pipe2")),
    case("getcwd", "the path is told", getcwd),
    case("getresuid", "three users are named", getresuid),
    case("getresgid", "three groups are named", getresgid),
    case("open_by_handle_at", "the file has the kernel's path", open_by_handle_at),
    case("fchdir", "the folder is named", fchdir),
    case("mmap", "the file that is mapped is named", mmap),
];

fn vector(first: (&Room, i64), second: (&Room, i64)) -> Vec<u8> {
    let words = [first.0.address(), first.1, second.0.address(), second.1];
    words.into_iter().flat_map(i64::to_ne_bytes).collect()
}

fn read(t: &mut Script) {
    let (fd, room) = (t.open_aside("file"), Room::new(&[]));
    let result = call("read", &[Int(fd), Into(&room), Int(100)]);
    let file = t.path("file");
    t.expect(json!({
        "evt.rawres": result, "evt.arg.res": "8", "evt.arg.data": "content.", "evt.arg.size": "100",
        "evt.arg.fd": format!("<f>{file}"), "fd.name": file, "fd.type": "file", "evt.buflen": 8,
    }));
}

fn readv(t: &mut Script) {
    let (fd, one, two) = (t.open_aside("file"), Room::new(&[]), Room::new(&[]));
    let result = call("readv", &[Int(fd), Bytes(&vector((&one, 3), (&two, 100))), Int(2)]);
    t.expect(
        json!({ "evt.rawres": result, "evt.arg.data": "content.", "evt.arg.size": "103", "fd.name": t.path("file") }),
    );
}

fn preadv(t: &mut Script) {
    let (fd, one, two) = (t.open_aside("file"), Room::new(&[]), Room::new(&[]));
    let result = call("preadv", &[Int(fd), Bytes(&vector((&one, 2), (&two, 100))), Int(2), Int(3), Int(0)]);
    t.expect(json!({ "evt.rawres": result, "evt.arg.data": "tent.", "evt.arg.pos": "3" }));
}

fn writable(t: &Script) -> i64 {
    let path = t.path("new");
    let file = t.aside(|| File::create(path).expect("a file on the stage"));
    std::os::fd::IntoRawFd::into_raw_fd(file).into()
}

fn writev(t: &mut Script) {
    let (fd, one, two) = (writable(t), Room::new(b"hel"), Room::new(b"lo"));
    let result = call("writev", &[Int(fd), Bytes(&vector((&one, 3), (&two, 2))), Int(2)]);
    t.expect(json!({ "evt.rawres": result, "evt.arg.data": "hello", "evt.arg.size": "5", "fd.name": t.path("new") }));
}

fn pwritev(t: &mut Script) {
    let (fd, one, two) = (writable(t), Room::new(b"hel"), Room::new(b"lo"));
    let result = call("pwritev", &[Int(fd), Bytes(&vector((&one, 3), (&two, 2))), Int(2), Int(7), Int(0)]);
    t.expect(json!({ "evt.rawres": result, "evt.arg.data": "hello", "evt.arg.size": "5", "evt.arg.pos": "7" }));
}

fn process_vm(t: &mut Script, name: &str) {
    let (ours, theirs) = (Room::new(b"hello"), Room::new(b"hello"));
    let (local, remote) = (vector((&ours, 3), (&ours, 0)), vector((&theirs, 3), (&theirs, 0)));
    let args = [Int(std::process::id().into()), Bytes(&local), Int(1), Bytes(&remote), Int(1), Int(0)];
    let result = call(name, &args);
    t.expect(json!({ "evt.rawres": result, "evt.arg.res": "3", "evt.arg.pid": t.mark(), "evt.arg.data": "hel" }));
}

fn process_vm_readv(t: &mut Script) {
    process_vm(t, "process_vm_readv");
}

fn process_vm_writev(t: &mut Script) {
    process_vm(t, "process_vm_writev");
}

fn pipe(t: &mut Script, name: &str) {
    let pair = Room::new(&[]);
    let result = call(name, &[Into(&pair), Int(0)]);
    let (read, write) = (pair.int(0), pair.int(1));
    let link = t.aside(|| std::fs::read_link(format!("/proc/self/fd/{read}")).expect("an open descriptor"));
    let ino = link.display().to_string().trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let fields = json!({ "evt.arg.fd1": read.to_string(), "evt.arg.fd2": write.to_string(), "evt.arg.ino": ino });
    t.expect_done(result, fields);
}

fn getcwd(t: &mut Script) {
    let room = Room::new(&[]);
    let result = call("getcwd", &[Into(&room), Int(4096)]);
    let path = t.path("").trim_end_matches('/').to_owned();
    t.expect(json!({ "evt.rawres": result, "evt.arg.path": path }));
}

fn getresuid(t: &mut Script) {
    let rooms = [Room::new(&[]), Room::new(&[]), Room::new(&[])];
    let result = call("getresuid", &[Into(&rooms[0]), Into(&rooms[1]), Into(&rooms[2])]);
    t.expect_done(result, json!({ "evt.arg.ruid": "root", "evt.arg.euid": "root", "evt.arg.suid": "root" }));
}

fn getresgid(t: &mut Script) {
    let rooms = [Room::new(&[]), Room::new(&[]), Room::new(&[])];
    let result = call("getresgid", &[Into(&rooms[0]), Into(&rooms[1]), Into(&rooms[2])]);
    t.expect_done(result, json!({ "evt.arg.rgid": "root", "evt.arg.egid": "root", "evt.arg.sgid": "root" }));
}

fn open_by_handle_at(t: &mut Script) {
    // A handle asks for 128 bytes at first (include/linux/exportfs.h, MAX_HANDLE_SZ).
    let (handle, mount) = (Room::new(&128u32.to_ne_bytes()), Room::new(&[]));
    let path = t.path("file");
    let args = [Int(libc::AT_FDCWD.into()), Text(&path), Into(&handle), Into(&mount), Int(0)];
    let folder = t.open_aside("dir");
    if t.aside(|| call("name_to_handle_at", &args)) != 0 {
        // This file system has no handles.
        let result = call("open_by_handle_at", &[Int(folder), Into(&handle), Int(0)]);
        assert!(result < 0);
        t.expect(json!({ "evt.rawres": result, "evt.arg.path": "<NA>" }));
        return;
    }
    let fd = call("open_by_handle_at", &[Int(folder), Into(&handle), Int(libc::O_RDONLY.into())]);
    if fd < 0 {
        t.expect(json!({ "evt.rawres": fd, "evt.arg.path": "<NA>" }));
        return;
    }
    let (_, ino) = t.aside(|| crate::child::device_and_inode(fd));
    t.expect(json!({
        "evt.rawres": fd, "evt.arg.path": path, "fd.name": path, "fd.realpath": path, "fd.num": fd,
        "evt.arg.ino": ino.to_string(),
    }));
}

fn fchdir(t: &mut Script) {
    let fd = t.open_aside("dir");
    let path = t.path("dir");
    let result = call("fchdir", &[Int(fd)]);
    t.expect_done(result, json!({ "evt.arg.fd": format!("<d>{path}"), "fd.name": path, "fd.type": "directory" }));
}

fn mmap(t: &mut Script) {
    let fd = t.open_aside("file");
    let result = call("mmap", &[Int(0), Int(4096), Int(1), Int(2), Int(fd), Int(0)]);
    assert!(result > 0, "mmap: {result}");
    t.expect(json!({
        "evt.rawres": result, "evt.arg.prot": "PROT_READ", "evt.arg.flags": "MAP_PRIVATE", "fd.num": fd,
        "fd.name": t.path("file"),
    }));
}
