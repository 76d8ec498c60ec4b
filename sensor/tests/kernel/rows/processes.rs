//! New processes, which are an event in the parent and one in the child; names and rights; and the calls that only
//! 32-bit programs make.

use std::fs;

use serde_json::json;

use super::{Case, Play, Script, case};
use crate::{
    child::{
        self,
        Arg::{Int, Nowhere},
        call, call32, number32,
    },
    needs::Need,
};

const fn case32(row: &'static str, name: &'static str, script: fn(&mut Script)) -> Case {
    Case { row, name, needs: &[Need::Tracing, Need::Calls32], play: Play::Script(script) }
}

pub const CASES: &[Case] = &[
    case("fork", "parent and child are told", |t| born(t, "fork", &[], "0")),
    case("vfork", "parent and child are told", |t| born(t, "vfork", &[], "0")),
    case("clone", "parent and child are told with flags", |t| {
        born(t, "clone", &[(libc::CLONE_FILES | libc::SIGCHLD).into(), 0, 0, 0, 0], "CLONE_FILES");
    }),
    case("clone3", "parent and child are told with flags", clone3),
    case("capset", "capabilities are those that the thread has", capset),
    case("prctl", "a name is a text, anything else a number", prctl),
    case32("stat64", "the path is told", |t| one32(t, "stat64", "file", json!({ "evt.arg.path": t.path("file") }))),
    case32("lstat64", "the path is told", |t| one32(t, "lstat64", "link", json!({ "evt.arg.path": t.path("link") }))),
    case32("umount", "the path is told", |t| {
        one32(t, "umount", "missing", json!({ "evt.arg.name": t.path("missing") }))
    }),
    case32("fstat64", "is seen", |t| numbers32(t, "fstat64", [99, 8, 0], json!({ "evt.res": "EBADF" }))),
    case32("llseek", "the offset is two words", |t| {
        numbers32(t, "llseek", [99, 1, 2], json!({ "evt.res": "EBADF", "evt.arg.offset": "4294967298" }));
    }),
    case32("mmap2", "the length is told", |t| numbers32(t, "mmap2", [0, 0, 5], json!({ "evt.arg.length": "0" }))),
    case32("setuid", "the call of 16 bits is seen as well", setuid16),
    case32("connect", "socketcall is taken apart", socketcall),
    case32("accept", "socketcall is taken apart", socketcall_accept),
    case32("personality", "a call without a row has its arguments", |t| {
        numbers32(t, "personality", [0xffff_ffff, 7, 0], json!({ "evt.arg.arg0": "FFFFFFFF", "evt.arg.arg1": "7" }));
    }),
];

/// Makes a process, which ends at once, and notes both events: which of them is the first is the scheduler's choice, so
/// the child waits for its parent's.
fn born(t: &mut Script, name: &str, args: &[i64], flags: &str) {
    let parent = std::process::id();
    let ours = json!({ "evt.arg.flags": flags, "evt.arg.exe": "traced", "evt.arg.comm": t.mark(), "evt.arg.uid": "0" });
    let child = child::born(name, args);
    let (mark, grandparent) = (t.mark().to_owned(), child::parent_name());
    let mut told = [
        super::merged(
            ours.clone(),
            json!({ "evt.rawres": child, "evt.arg.pid": mark, "evt.arg.tid": mark, "proc.pid": parent }),
        ),
        super::merged(
            ours,
            json!({
                "evt.rawres": 0, "evt.arg.res": "0", "proc.pid": child, "proc.ppid": parent, "proc.pname": mark,
                "proc.aname[2]": grandparent,
            }),
        ),
    ];
    if name == "vfork" {
        // The parent goes on when its child has ended.
        told.reverse();
    }
    for note in told {
        t.expect(note);
    }
}

fn clone3(t: &mut Script) {
    // `struct clone_args`: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls.
    let words = [i64::from(libc::CLONE_FILES), 0, 0, 0, libc::SIGCHLD.into(), 0, 0, 0];
    let bytes: Vec<u8> = words.into_iter().flat_map(i64::to_ne_bytes).collect();
    let address = child::address(bytes.as_ptr());
    born(t, "clone3", &[address, 64], "CLONE_FILES");
}

fn capset(t: &mut Script) {
    let status = t.aside(|| fs::read_to_string("/proc/self/status").expect("/proc is mounted"));
    let set = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line of capabilities");
        line.trim().trim_start_matches('0').to_ascii_uppercase()
    };
    let result = call("capset", &[Nowhere, Nowhere]);
    assert!(result < 0);
    t.expect(json!({
        "evt.rawres": result, "evt.arg.cap_permitted": set("CapPrm:"), "evt.arg.cap_effective": set("CapEff:"),
    }));
}

fn prctl(t: &mut Script) {
    let name = t.mark().to_owned();
    // The tests rename the process by this call, too.
    t.expect(json!({ "evt.arg.option": "PR_SET_NAME", "evt.arg.arg2_str": name, "evt.arg.arg2_int": "0" }));
    let result = call("prctl", &[Int(libc::PR_SET_KEEPCAPS.into()), Int(7)]);
    let fields = json!({ "evt.arg.option": "PR_SET_KEEPCAPS", "evt.arg.arg2_str": "<NA>", "evt.arg.arg2_int": "7" });
    t.expect_error(result, libc::EINVAL, "EINVAL", fields);
}

/// A 32-bit call with a path.
fn one32(t: &mut Script, name: &str, path: &str, fields: serde_json::Value) {
    let path = t.path(path);
    let result = child::call32_with_text(name, &path, 8, 0);
    assert!(result < 0, "nothing can be written to the first page");
    t.expect(super::merged(json!({ "evt.rawres": result }), fields));
}

/// A 32-bit call with numbers.
fn numbers32(t: &mut Script, name: &str, args: [u32; 3], fields: serde_json::Value) {
    let result = call32(number32(name), args).expect("a gate for 32-bit calls");
    t.expect(super::merged(json!({ "evt.rawres": result }), fields));
}

fn setuid16(t: &mut Script) {
    const NR32_SETUID16: i32 = 23;
    let result = call32(NR32_SETUID16, [0; 3]).expect("a gate for 32-bit calls");
    t.expect_done(result, json!({ "evt.arg.uid": "root" }));
}

const NR32_SOCKETCALL: i32 = 102;

fn socketcall(t: &mut Script) {
    const SYS_CONNECT: u32 = 3;
    let result = child::with_low_memory(|place| {
        // `struct sockaddr_in` of 127.0.0.1:9 behind the three arguments: descriptor, address, length.
        let address = [2u8, 0, 0, 9, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let args = [99u32, place + 12, 16].into_iter().flat_map(u32::to_ne_bytes);
        (args.chain(address).collect(), NR32_SOCKETCALL, [SYS_CONNECT, place, 0])
    });
    t.expect(json!({ "evt.rawres": result, "evt.res": "EBADF", "evt.arg.addr": "127.0.0.1:9", "fd.num": 99 }));
}

fn socketcall_accept(t: &mut Script) {
    const SYS_ACCEPT: u32 = 5;
    let result = child::with_low_memory(|place| {
        let args = [99u32, 0, 0].into_iter().flat_map(u32::to_ne_bytes);
        (args.collect(), NR32_SOCKETCALL, [SYS_ACCEPT, place, 0])
    });
    t.expect(json!({ "evt.rawres": result, "evt.res": "EBADF", "fd.num": -1 }));
}
