//! The serving side of sockets, and what is sent and received.

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
};

use libc::{AF_INET, AF_UNIX, EBADF, SOCK_CLOEXEC, SOCK_STREAM};
use serde_json::{Value, json};

use super::{Case, Script, case, merged};
use crate::child::{
    Arg::{Bytes, Int, Nowhere, Room as Into},
    Room, call,
};

pub const CASES: &[Case] = &[
    case("accept", "a connection has both ends, and ours is the server's", |t| accepts(t, "accept", &[])),
    case("accept4", "a connection has both ends and flags", |t| accepts(t, "accept4", &[SOCK_CLOEXEC])),
    case("accept", "a failure has no connection", accept_failed),
    case("bind", "an address is told, and is the socket's name", bind),
    case("listen", "a socket is named by its own end", listen),
    case("listen", "a Unix socket is named by its path", listen_unix),
    case("sendto", "a datagram has data and both ends; the name changes with the other end", sendto),
    case("sendto", "a stream has data", sendto_stream),
    case("sendmsg", "a datagram is put together from its buffers", sendmsg),
    case("sendmmsg", "the first message is told of", sendmmsg),
    case("recvfrom", "a datagram comes from its sender", recvfrom),
    case("recvfrom", "data are cut at the limit", recvfrom_long),
    case("recvmsg", "a datagram comes from its sender", recvmsg),
    case("recvmmsg", "the first message is told of", recvmmsg),
    case("dup2", "the kinds of all descriptors are told", kinds),
    case("socketpair", "both descriptors are told", socketpair),
];

/// `struct sockaddr_in`.
fn sockaddr(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(v4) = address else { panic!("version 4 here") };
    let family = u16::try_from(AF_INET).expect("small").to_ne_bytes();
    [&family[..], &v4.port().to_be_bytes(), &v4.ip().octets(), &[0; 8]].concat()
}

fn raw(socket: &impl AsRawFd) -> i64 {
    socket.as_raw_fd().into()
}

/// What is told of a connection of ours as the server.
fn served(client: SocketAddr, server: SocketAddr) -> Value {
    let tuple = format!("{client}->{server}");
    json!({
        "fd.name": tuple, "evt.arg.tuple": tuple, "fd.type": "ipv4", "fd.l4proto": "tcp", "fd.cip": "127.0.0.1",
        "fd.cport": client.port(), "fd.sip": "127.0.0.1", "fd.sport": server.port(),
    })
}

fn accepts(t: &mut Script, name: &str, flags: &[i32]) {
    let listener = t.aside(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let server = listener.local_addr().expect("a bound socket");
    let stream = t.aside(|| TcpStream::connect(server).expect("a listener"));
    let client = stream.local_addr().expect("a connected socket");
    let args = [Int(raw(&listener)), Int(0), Int(0), Int(flags.first().copied().unwrap_or(0).into())];
    let fd = call(name, &args);
    assert!(fd >= 0, "accept: {fd}");
    let mut fields = merged(served(client, server), json!({ "evt.rawres": fd, "fd.num": fd, "evt.arg.queuelen": "0" }));
    if let Some(flags) = flags.first() {
        fields["evt.arg.flags"] = format!("{flags:X}").into();
    }
    t.expect(fields);
}

fn accept_failed(t: &mut Script) {
    let result = call("accept", &[Int(99), Int(0), Int(0)]);
    t.expect_error(result, EBADF, "EBADF", json!({ "evt.arg.tuple": "NULL", "fd.num": -1, "fd.typechar": "4" }));
}

fn bind(t: &mut Script) {
    let fd = t.aside(|| call("socket", &[Int(AF_INET.into()), Int(SOCK_STREAM.into()), Int(0)]));
    let free = t.aside(|| TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port"));
    let address = sockaddr(free);
    let result = call("bind", &[Int(fd), Bytes(&address), Int(16)]);
    t.expect_done(result, json!({ "evt.arg.addr": free.to_string(), "fd.num": fd, "fd.name": free.to_string() }));
}

fn listen(t: &mut Script) {
    let listener = t.aside(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let address = listener.local_addr().expect("a bound socket");
    let result = call("listen", &[Int(raw(&listener)), Int(5)]);
    let fields = json!({
        "evt.arg.backlog": "5", "evt.arg.fd": format!("<4t>{address}"), "fd.name": address.to_string(),
        "fd.sip": "127.0.0.1", "fd.sport": address.port(), "fd.cip": null,
    });
    t.expect_done(result, fields);
}

fn listen_unix(t: &mut Script) {
    let path = t.path("socket");
    let listener = t.aside(|| std::os::unix::net::UnixListener::bind(&path).expect("a socket on the stage"));
    let result = call("listen", &[Int(raw(&listener)), Int(5)]);
    t.expect_done(result, json!({ "fd.name": path, "fd.type": "unix", "fd.typechar": "u" }));
}

fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("a bound socket");
    (socket, address)
}

fn sendto(t: &mut Script) {
    let (ours, here) = t.aside(udp);
    // Twice to each of two: only the first datagram to somebody else changes the name.
    for _ in 0..2 {
        let (_theirs, there) = t.aside(udp);
        let address = sockaddr(there);
        for name_changed in [true, false] {
            let args = [Int(raw(&ours)), Bytes(b"hello"), Int(5), Int(0), Bytes(&address), Int(16)];
            let result = call("sendto", &args);
            t.expect(json!({
                "evt.rawres": result, "evt.arg.res": "5", "evt.arg.data": "hello", "evt.arg.size": "5",
                "evt.arg.tuple": format!("{here}->{there}"), "fd.num": raw(&ours), "fd.l4proto": "udp",
                "fd.connected": "false", "fd.name_changed": name_changed.to_string(), "evt.buffer": "hello",
                "evt.buflen": 5, "fd.lport": here.port(), "fd.rport": there.port(),
            }));
        }
    }
}

fn sendto_stream(t: &mut Script) {
    let (listener, stream) = t.aside(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("a bound socket")).expect("a listener");
        (listener, stream)
    });
    let tuple = format!("{}->{}", stream.local_addr().expect("an end"), listener.local_addr().expect("an end"));
    let result = call("sendto", &[Int(raw(&stream)), Bytes(b"GET /"), Int(5), Int(0), Int(0), Int(0)]);
    t.expect(json!({
        "evt.rawres": result, "evt.arg.data": "GET /", "evt.arg.tuple": tuple, "fd.l4proto": "tcp",
        "fd.connected": "true", "fd.name_changed": "false",
    }));
}

/// `struct user_msghdr` with two buffers; the memory that it points to must outlive it.
fn message(name: &Room, name_len: i64, buffers: &Room) -> Vec<u8> {
    let words = [name.address(), name_len, buffers.address(), 2, 0, 0, 0];
    words.into_iter().flat_map(i64::to_ne_bytes).collect()
}

/// Two `struct iovec`.
fn vector(first: (&Room, i64), second: (&Room, i64)) -> Room {
    let words = [first.0.address(), first.1, second.0.address(), second.1];
    Room::new(&words.into_iter().flat_map(i64::to_ne_bytes).collect::<Vec<_>>())
}

fn sendmsg(t: &mut Script) {
    let ((ours, here), (_theirs, there)) = t.aside(|| (udp(), udp()));
    let (one, two, name) = (Room::new(b"hel"), Room::new(b"lo"), Room::new(&sockaddr(there)));
    let buffers = vector((&one, 3), (&two, 2));
    let result = call("sendmsg", &[Int(raw(&ours)), Bytes(&message(&name, 16, &buffers)), Int(0)]);
    t.expect(json!({
        "evt.rawres": result, "evt.arg.res": "5", "evt.arg.data": "hello", "evt.arg.size": "5",
        "evt.arg.tuple": format!("{here}->{there}"), "fd.l4proto": "udp", "fd.name_changed": "true",
    }));
}

fn sendmmsg(t: &mut Script) {
    let ((ours, here), (_theirs, there)) = t.aside(|| (udp(), udp()));
    let (one, two, name) = (Room::new(b"hel"), Room::new(b"lo"), Room::new(&sockaddr(there)));
    let buffers = vector((&one, 3), (&two, 2));
    // `struct mmsghdr` has the length that was sent behind the message.
    let messages = Room::new(&[message(&name, 16, &buffers), vec![0; 8]].concat());
    let result = call("sendmmsg", &[Int(raw(&ours)), Into(&messages), Int(1), Int(0)]);
    t.expect(json!({
        "evt.rawres": result, "evt.arg.res": "1", "evt.arg.data": "hello", "evt.arg.size": "5",
        "evt.arg.tuple": format!("{here}->{there}"),
    }));
}

/// A datagram that waits for us.
fn received(t: &Script, data: &[u8]) -> (UdpSocket, String) {
    t.aside(|| {
        let ((ours, here), (theirs, there)) = (udp(), udp());
        theirs.send_to(data, here).expect("a port of ours");
        (ours, format!("{there}->{here}"))
    })
}

fn recvfrom(t: &mut Script) {
    let (ours, tuple) = received(t, b"hello");
    let (room, from, len) = (Room::new(&[]), Room::new(&[]), Room::new(&16u32.to_ne_bytes()));
    let args = [Int(raw(&ours)), Into(&room), Int(100), Int(0), Into(&from), Into(&len)];
    let result = call("recvfrom", &args);
    t.expect(json!({
        "evt.rawres": result, "evt.arg.res": "5", "evt.arg.data": "hello", "evt.arg.size": "100", "evt.arg.tuple": tuple,
        "fd.num": raw(&ours), "fd.l4proto": "udp", "fd.connected": "false", "fd.name_changed": "true",
    }));
}

fn recvfrom_long(t: &mut Script) {
    let (ours, _) = received(t, &[b'x'; 500]);
    let room = Room::new(&[]);
    let result = call("recvfrom", &[Int(raw(&ours)), Into(&room), Int(1000), Int(0), Int(0), Int(0)]);
    t.expect(json!({ "evt.rawres": result, "evt.arg.res": "500", "evt.arg.data": "x".repeat(80), "evt.buflen": 500 }));
}

fn recvmsg(t: &mut Script) {
    let (ours, tuple) = received(t, b"hello");
    let (one, two, from) = (Room::new(&[]), Room::new(&[]), Room::new(&[]));
    let buffers = vector((&one, 3), (&two, 100));
    let message = Room::new(&message(&from, 16, &buffers));
    let result = call("recvmsg", &[Int(raw(&ours)), Into(&message), Int(0)]);
    t.expect(json!({
        "evt.rawres": result, "evt.arg.res": "5", "evt.arg.data": "hello", "evt.arg.size": "103", "evt.arg.tuple": tuple,
        "fd.l4proto": "udp", "fd.name_changed": "true",
    }));
}

fn recvmmsg(t: &mut Script) {
    let (ours, tuple) = received(t, b"hello");
    let (one, two, from) = (Room::new(&[]), Room::new(&[]), Room::new(&[]));
    let buffers = vector((&one, 5), (&two, 0));
    let messages = Room::new(&[message(&from, 16, &buffers), vec![0; 8]].concat());
    let result = call("recvmmsg", &[Int(raw(&ours)), Into(&messages), Int(1), Int(0), Int(0)]);
    t.expect(json!({ "evt.rawres": result, "evt.arg.res": "1", "evt.arg.data": "hello", "evt.arg.tuple": tuple }));
}

fn socketpair(t: &mut Script) {
    let pair = Room::new(&[]);
    let result = call("socketpair", &[Int(AF_UNIX.into()), Int(SOCK_STREAM.into()), Int(0), Into(&pair)]);
    let fields = json!({
        "evt.arg.fd1": pair.int(0).to_string(), "evt.arg.fd2": pair.int(1).to_string(), "evt.arg.domain": "AF_LOCAL|AF_UNIX",
        "evt.arg.type": "1",
    });
    t.expect_done(result, fields);
    let result = call("socketpair", &[Int(AF_INET.into()), Int(SOCK_STREAM.into()), Int(0), Nowhere]);
    assert!(result < 0);
    t.expect(json!({ "evt.rawres": result, "evt.arg.domain": "AF_INET" }));
}

/// Standard input is a file, output a pipe; errors go to a socket that this call makes of them.
fn kinds(t: &mut Script) {
    let fd = t.aside(|| {
        // What the tests themselves were started with may have come along.
        assert_eq!(call("close_range", &[Int(3), Int(u32::MAX.into()), Int(0)]), 0);
        call("socket", &[Int(AF_INET.into()), Int(SOCK_STREAM.into()), Int(0)])
    });
    let result = call("dup2", &[Int(fd), Int(2)]);
    t.expect(json!({
        "evt.rawres": result, "fd.num": 2, "fd.type": "ipv4", "fd.types": r#"["ipv4","pipe","file"]"#,
        "fd.types[0]": r#"["file"]"#,
    }));
    // One has a number that is looked at in a second turn.
    let fd = t.aside(|| {
        let event = call("eventfd2", &[Int(0), Int(0)]);
        assert_eq!(call("dup2", &[Int(event), Int(100)]), 100);
        assert_eq!(call("close", &[Int(event)]), 0);
        call("epoll_create1", &[Int(0)])
    });
    let result = call("dup2", &[Int(fd), Int(2)]);
    t.expect(json!({
        "evt.rawres": result, "fd.type": "eventpoll", "fd.types": r#"["event","eventpoll","ipv4","pipe","file"]"#,
    }));
}
