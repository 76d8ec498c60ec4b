//! io_uring: what it opens, connects and creates is no system call. It is told as if it were: by the
//! kernel's functions that do it, or when it is completed. Before Linux 5.19 it is told that there is a ring.

use std::{
    ffi::CString,
    fs,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd,
};

use io_uring::{IoUring, opcode, squeue, types};
use serde_json::{Value, json};

use super::{Group, Stage, Way, way};
use crate::{
    child::{Arg::Int, call, own},
    harness::{Rings, rings},
    needs::Need,
};

pub const GROUP: Group = Group {
    name: "rings",
    says: "evasion: what io_uring opens, connects and creates is told, or at least the ring",
    needs: &[Need::Tracing],
    ways: WAYS,
    rules: "
- rule: secret opened
  desc: The secret was opened, by whatever name.
  condition: >-
    evt.type in (open, openat, openat2) and fd.num >= 0
    and (fd.name glob STAGES/*/secret or fd.realpath glob STAGES/*/secret)
  output: '%evt.type %fd.num %fd.name %fd.realpath %proc.pid %proc.ppid'
  priority: WARNING
- rule: connected
  desc: A traced process connected.
  condition: evt.type = connect and proc.name startswith ev-ring
  output: '%evt.type %fd.rport %fd.rip %fd.type %proc.name %proc.pid %proc.ppid'
  priority: WARNING
- rule: socket made
  desc: A traced process made a packet socket.
  condition: evt.type = socket and evt.arg.domain = AF_PACKET and proc.name startswith ev-ring
  output: '%evt.type %evt.arg.domain %evt.arg.type %fd.num %proc.pid %proc.ppid'
  priority: WARNING
- rule: ring set up
  desc: A traced process set up an io_uring.
  condition: evt.type = io_uring_setup and fd.num >= 0 and proc.name startswith ev-ring
  output: '%evt.type %evt.arg.entries %fd.num %proc.name %proc.pid %proc.ppid'
  priority: NOTICE
",
};

const WAYS: &[Way] = &[
    way("an open", open),
    way("an open with openat2, through a symbolic link", open_extended),
    way("an open that a thread of the kernel does", open_by_worker),
    way("an open by a ring that the kernel polls", open_polled),
    way("an open into the ring's own table", open_direct),
    way("an open that fails", open_nothing),
    way("an open and a system call", open_and_call),
    way("a connect", connect),
    way("a packet socket", packet_socket),
];

fn ring() -> (IoUring, Value) {
    told(IoUring::new(4).expect("a ring"))
}

fn told(ring: IoUring) -> (IoUring, Value) {
    let told = json!({
        "rule": "ring set up", "evt.type": "io_uring_setup", "evt.arg.entries": "4", "fd.num": ring.as_raw_fd().to_string(),
    });
    (ring, told)
}

/// What is told where it is seen.
fn if_seen(alert: Value) -> Option<Value> {
    (rings() != Rings::Unseen).then_some(alert)
}

/// Has one thing done, and gives its result.
fn done(ring: &mut IoUring, entry: &squeue::Entry) -> i32 {
    crate::child::submit(ring, entry);
    ring.completion().next().expect("an answer").result()
}

fn opened(t: &Stage, kind: &str, fd: i32) -> Option<Value> {
    let secret = t.path("secret");
    if_seen(
        json!({ "rule": "secret opened", "evt.type": kind, "fd.num": fd.to_string(), "fd.name": secret, "fd.realpath": secret,
        }),
    )
}

/// Opens the secret by an entry that may be changed before.
fn open_as(
    t: &Stage,
    (mut ring, told): (IoUring, Value),
    change: impl Fn(squeue::Entry) -> squeue::Entry,
) -> Vec<Value> {
    let path = CString::new(t.path("secret")).expect("paths have no NUL");
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
    let fd = done(&mut ring, &change(entry));
    assert!(fd >= 0 && t.is_secret(fd.into()), "openat by a ring: {fd}");
    [told].into_iter().chain(opened(t, "openat", fd)).collect()
}

fn open(t: &Stage) -> Vec<Value> {
    open_as(t, ring(), |entry| entry)
}

fn open_by_worker(t: &Stage) -> Vec<Value> {
    open_as(t, ring(), |entry| entry.flags(squeue::Flags::ASYNC))
}

fn open_polled(t: &Stage) -> Vec<Value> {
    open_as(t, told(IoUring::builder().setup_sqpoll(1000).build(4).expect("a ring that is polled")), |entry| entry)
}

fn open_extended(t: &Stage) -> Vec<Value> {
    let (mut ring, told) = ring();
    let link = t.path("a link");
    std::os::unix::fs::symlink(t.path("secret"), &link).expect("a link");
    let path = CString::new(link).expect("paths have no NUL");
    let how = types::OpenHow::new();
    let entry = opcode::OpenAt2::new(types::Fd(libc::AT_FDCWD), path.as_ptr(), &raw const how).build();
    let fd = done(&mut ring, &entry);
    assert!(fd >= 0 && t.is_secret(fd.into()), "openat2 by a ring: {fd}");
    [told].into_iter().chain(opened(t, "openat2", fd)).collect()
}

fn open_direct(t: &Stage) -> Vec<Value> {
    let (mut ring, told) = ring();
    // A kernel that cannot: Linux 5.19 brought it.
    let Ok(()) = ring.submitter().register_files_sparse(4) else { return vec![told] };
    let path = CString::new(t.path("secret")).expect("paths have no NUL");
    let slot = types::DestinationSlot::try_from_slot_target(2).expect("a slot");
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).file_index(Some(slot)).build();
    assert_eq!(done(&mut ring, &entry), 0, "openat into a slot");
    let mut byte = [0u8; 1];
    let read = opcode::Read::new(types::Fixed(2), byte.as_mut_ptr(), 1).build();
    assert_eq!(done(&mut ring, &read), 1, "the slot can be read");
    // There is no descriptor that would lead to the file.
    let told_too = opened(t, "openat", 0).filter(|_| rings() == Rings::Functions);
    [told].into_iter().chain(told_too).collect()
}

fn open_nothing(t: &Stage) -> Vec<Value> {
    let (mut ring, told) = ring();
    let path = CString::new(t.path("no secret")).expect("paths have no NUL");
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build();
    assert_eq!(done(&mut ring, &entry), -libc::ENOENT, "there is nothing to open");
    vec![told]
}

fn open_and_call(t: &Stage) -> Vec<Value> {
    let mut told = open(t);
    let secret = t.path("secret");
    drop(fs::File::open(&secret).expect("a secret"));
    told.push(json!({ "rule": "secret opened", "fd.name": secret, "fd.realpath": secret }));
    told
}

fn connect(_: &Stage) -> Vec<Value> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let SocketAddr::V4(place) = listener.local_addr().expect("bound") else { panic!("it is IPv4") };
    let family = u16::try_from(libc::AF_INET).expect("small").to_ne_bytes();
    let address = [&family[..], &place.port().to_be_bytes(), &place.ip().octets(), &[0; 8]].concat();
    let socket = own(call("socket", &[Int(libc::AF_INET.into()), Int(libc::SOCK_STREAM.into()), Int(0)]));
    let (mut ring, told) = ring();
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), 16).build();
    assert_eq!(done(&mut ring, &entry), 0, "connect by a ring");
    drop(listener.accept().expect("a client of ours"));
    let connected = json!({
        "rule": "connected", "evt.type": "connect", "fd.rport": place.port().to_string(), "fd.rip": "127.0.0.1", "fd.type": "ipv4",
    });
    [told].into_iter().chain(if_seen(connected)).collect()
}

fn packet_socket(_: &Stage) -> Vec<Value> {
    let (mut ring, told) = ring();
    let entry = opcode::Socket::new(libc::AF_PACKET, libc::SOCK_RAW, 0).build();
    // Before Linux 5.19 there is no such operation.
    let fd = done(&mut ring, &entry);
    let made =
        json!({ "rule": "socket made", "evt.type": "socket", "evt.arg.domain": "AF_PACKET", "fd.num": fd.to_string() });
    [told].into_iter().chain((fd >= 0).then(|| own(fd.into())).and_then(|_| if_seen(made))).collect()
}
