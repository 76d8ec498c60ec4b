//! `socket` and `connect`: both ends, also while a connection is being made.

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsRawFd, unix::net::UnixListener},
};

use libc::{
    AF_INET, AF_INET6, AF_PACKET, AF_UNIX, EAFNOSUPPORT, ECONNREFUSED, EINPROGRESS, ENOENT, SOCK_CLOEXEC, SOCK_DGRAM,
    SOCK_NONBLOCK, SOCK_RAW, SOCK_STREAM,
};
use serde_json::{Value, json};

use super::{Case, Script, case, merged};
use crate::child::{
    Arg::{Bytes, Int},
    adopt_copy, call,
};

pub const CASES: &[Case] = &[
    case("socket", "domain, type and flags are told apart", socket_inet),
    case("socket", "a packet socket is named by its domain", socket_packet),
    case("socket", "a domain that does not exist is an error", socket_unknown),
    case("connect", "a connection has both ends", connect_inet),
    case("connect", "a connection of version 6 has both ends", connect_inet6),
    case("connect", "a connection that is being made has both ends", connect_in_progress),
    case("connect", "a refused connection is an error", connect_refused),
    case("connect", "a datagram socket that is connected has both ends", connect_udp),
    case("connect", "a Unix socket is named by its path", connect_unix),
    case("dup2", "a connection that becomes standard input keeps both ends", dup2_connection),
];

fn socket(domain: i32, kind: i32) -> i64 {
    let fd = call("socket", &[Int(domain.into()), Int(kind.into()), Int(0)]);
    assert!(fd >= 0, "socket: {fd}");
    fd
}

fn socket_inet(t: &mut Script) {
    let fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC);
    t.expect(json!({
        "evt.rawres": fd, "evt.arg.fd": "<4t>", "evt.arg.domain": "AF_INET", "evt.arg.type": "1", "evt.arg.proto": "0",
        "evt.arg.flags": "O_CLOEXEC", "fd.num": fd, "fd.type": "ipv4", "fd.l4proto": "tcp",
    }));
    let fd = socket(AF_INET6, SOCK_DGRAM);
    t.expect(json!({ "evt.arg.fd": "<6u>", "evt.arg.domain": "AF_INET6", "evt.arg.type": "2", "fd.num": fd, "fd.l4proto": "udp" }));
}

fn socket_packet(t: &mut Script) {
    let fd = socket(AF_PACKET, SOCK_RAW);
    t.expect(json!({ "evt.rawres": fd, "evt.arg.domain": "AF_PACKET", "evt.arg.type": "3" }));
}

fn socket_unknown(t: &mut Script) {
    let result = call("socket", &[Int(99), Int(SOCK_STREAM.into()), Int(0)]);
    let fields = json!({ "evt.arg.fd": "EAFNOSUPPORT", "evt.arg.domain": "99", "fd.num": -1 });
    t.expect_error(result, EAFNOSUPPORT, "EAFNOSUPPORT", fields);
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let family = |family: i32| u16::try_from(family).expect("small").to_ne_bytes();
    match address {
        SocketAddr::V4(v4) => [&family(AF_INET)[..], &v4.port().to_be_bytes(), &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => {
            [&family(AF_INET6)[..], &v6.port().to_be_bytes(), &[0; 4], &v6.ip().octets(), &[0; 4]].concat()
        }
    }
}

fn connect(fd: i64, address: &[u8]) -> i64 {
    call("connect", &[Int(fd), Bytes(address), Int(address.len().try_into().expect("small"))])
}

/// The end that the kernel gave to a connected descriptor.
fn local_end(t: &Script, fd: i64) -> SocketAddr {
    // The address of a socket of any kind is asked for in the same way.
    t.aside(|| TcpStream::from(adopt_copy(fd)).local_addr().expect("a connected socket"))
}

/// What is told of an internet connection.
fn connected(fd: i64, kind: &str, typechar: &str, local: SocketAddr, remote: SocketAddr) -> Value {
    let tuple = format!("{}:{}->{}:{}", local.ip(), local.port(), remote.ip(), remote.port());
    json!({
        "evt.arg.tuple": tuple, "evt.arg.fd": format!("<{typechar}>{tuple}"), "fd.num": fd, "fd.name": tuple, "fd.type": kind,
        "evt.arg.addr": format!("{}:{}", remote.ip(), remote.port()), "fd.cip": local.ip().to_string(),
        "fd.cport": local.port(), "fd.sip": remote.ip().to_string(), "fd.sport": remote.port(),
    })
}

fn connect_inet(t: &mut Script) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = listener.local_addr().expect("a bound socket");
    let fd = socket(AF_INET, SOCK_STREAM);
    let result = connect(fd, &sockaddr(there));
    let here = local_end(t, fd);
    t.expect_done(result, merged(connected(fd, "ipv4", "4t", here, there), json!({ "fd.l4proto": "tcp" })));
}

fn connect_inet6(t: &mut Script) {
    let listener = TcpListener::bind("[::1]:0").expect("a port of version 6");
    let there = listener.local_addr().expect("a bound socket");
    let fd = socket(AF_INET6, SOCK_STREAM);
    let result = connect(fd, &sockaddr(there));
    let here = local_end(t, fd);
    t.expect_done(result, connected(fd, "ipv6", "6t", here, there));
}

fn connect_in_progress(t: &mut Script) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = listener.local_addr().expect("a bound socket");
    let fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
    let result = connect(fd, &sockaddr(there));
    let here = local_end(t, fd);
    t.expect_error(result, EINPROGRESS, "EINPROGRESS", connected(fd, "ipv4", "4t", here, there));
}

fn connect_refused(t: &mut Script) {
    // A port that was just given back: nobody listens there.
    let there =
        t.aside(|| TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port"));
    let fd = socket(AF_INET, SOCK_STREAM);
    let result = connect(fd, &sockaddr(there));
    let fields = json!({
        "evt.arg.res": "ECONNREFUSED", "evt.arg.tuple": "NULL", "evt.arg.addr": format!("127.0.0.1:{}", there.port()),
        "fd.num": fd, "fd.type": "ipv4",
    });
    t.expect_error(result, ECONNREFUSED, "ECONNREFUSED", fields);
}

fn connect_udp(t: &mut Script) {
    let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let there = receiver.local_addr().expect("a bound socket");
    let fd = socket(AF_INET, SOCK_DGRAM);
    let result = connect(fd, &sockaddr(there));
    let here = local_end(t, fd);
    t.expect_done(result, merged(connected(fd, "ipv4", "4u", here, there), json!({ "fd.l4proto": "udp" })));
}

fn connect_unix(t: &mut Script) {
    let path = t.path("socket");
    let _listener = t.aside(|| UnixListener::bind(&path).expect("a socket on the stage"));
    let address =
        |path: &str| [&u16::try_from(AF_UNIX).expect("small").to_ne_bytes()[..], path.as_bytes(), &[0]].concat();
    let fd = socket(AF_UNIX, SOCK_STREAM);
    let result = connect(fd, &address(&path));
    let fields = json!({ "evt.arg.addr": path, "fd.num": fd, "fd.name": path, "fd.type": "unix", "fd.typechar": "u" });
    t.expect_done(result, fields);
    let missing = t.path("missing");
    let result = connect(fd, &address(&missing));
    t.expect_error(result, ENOENT, "ENOENT", json!({ "evt.arg.addr": missing, "fd.num": fd }));
}

fn dup2_connection(t: &mut Script) {
    // A port of services: the kernel does not say who began, the lower port is taken for the server's.
    let listener = (600..1024).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).expect("a free port");
    let there = listener.local_addr().expect("a bound socket");
    let stream = TcpStream::connect(there).expect("a listener");
    let here = stream.local_addr().expect("a connected socket");
    assert_eq!(call("dup2", &[Int(stream.as_raw_fd().into()), Int(0)]), 0);
    let tuple = format!("{here}->{there}");
    let shown = format!("<4t>{tuple}");
    t.expect(json!({
        "evt.rawres": 0, "evt.arg.res": shown, "evt.arg.oldfd": shown, "evt.arg.newfd": shown, "fd.num": 0, "fd.name": tuple,
        "fd.type": "ipv4", "fd.l4proto": "tcp", "fd.cip": here.ip().to_string(), "fd.cport": here.port(),
        "fd.sip": there.ip().to_string(), "fd.sport": there.port(), "proc.stdin.type": "ipv4", "proc.stdin.name": tuple,
        "fd.types[0]": r#"["ipv4"]"#,
    }));
}
