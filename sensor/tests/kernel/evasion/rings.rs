//! io_uring: what it opens and connects is no system call of its own. What is told is that there is a ring.

use std::{
    ffi::CString,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd,
};

use io_uring::{IoUring, opcode, squeue, types};
use serde_json::{Value, json};

use super::{Group, Stage, Way, way};
use crate::{
    child::{Arg::Int, call, own},
    needs::Need,
};

pub const GROUP: Group = Group {
    name: "rings",
    says: "evasion: of what io_uring opens and connects, the ring is told",
    needs: &[Need::Tracing],
    ways: WAYS,
    rules: "
- rule: secret opened
  desc: The secret was opened, by whatever name.
  condition: >-
    evt.type in (open, openat, openat2) and fd.num >= 0
    and (fd.name glob STAGES/*/secret or fd.realpath glob STAGES/*/secret)
  output: '%evt.type %fd.name %fd.realpath %proc.pid %proc.ppid'
  priority: WARNING
- rule: connected
  desc: A traced process connected.
  condition: evt.type = connect and proc.name startswith ev-ring
  output: '%evt.type %fd.rport %proc.pid %proc.ppid'
  priority: WARNING
- rule: ring set up
  desc: A traced process set up an io_uring.
  condition: evt.type = io_uring_setup and fd.num >= 0 and proc.name startswith ev-ring
  output: '%evt.type %evt.arg.entries %fd.num %proc.name %proc.pid %proc.ppid'
  priority: NOTICE
",
};

const WAYS: &[Way] =
    &[way("an open", open), way("an open and a system call", open_and_call), way("a connect", connect)];

fn ring() -> (IoUring, Value) {
    let ring = IoUring::new(4).expect("a ring");
    let told = json!({
        "rule": "ring set up", "evt.type": "io_uring_setup", "evt.arg.entries": "4", "fd.num": ring.as_raw_fd().to_string(),
    });
    (ring, told)
}

/// Has one thing done, and gives its result.
fn done(ring: &mut IoUring, entry: &squeue::Entry) -> i32 {
    crate::child::submit(ring, entry);
    ring.completion().next().expect("an answer").result()
}

fn open_by_ring(t: &Stage, ring: &mut IoUring) {
    let path = CString::new(t.path("secret")).expect("paths have no NUL");
    let fd = done(ring, &opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr()).build());
    assert!(fd >= 0 && t.is_secret(fd.into()), "openat by a ring: {fd}");
}

fn open(t: &Stage) -> Vec<Value> {
    let (mut ring, told) = ring();
    open_by_ring(t, &mut ring);
    vec![told]
}

fn open_and_call(t: &Stage) -> Vec<Value> {
    let (mut ring, told) = ring();
    open_by_ring(t, &mut ring);
    let secret = t.path("secret");
    drop(std::fs::File::open(&secret).expect("a secret"));
    vec![told, json!({ "rule": "secret opened", "fd.name": secret, "fd.realpath": secret })]
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
    vec![told]
}
