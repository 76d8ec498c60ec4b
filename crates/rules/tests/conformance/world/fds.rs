//! Descriptors of the processes of a case, which the kernel would know: what each is, and how a record says so.

use std::{collections::BTreeMap, net::IpAddr};

use abi::record::{FdFacts, OpenFd, fd_flag, tag};
use event::{decode::Status, testing::Encoder};

const AF_INET: u16 = 2;

/// One end of a connection.
pub type End = (IpAddr, u16);

/// What a descriptor stands for.
#[derive(Debug, Clone)]
pub enum Open {
    /// A file or directory.
    File { path: Vec<u8>, mode: u32, ino: u64, dev: u32 },
    /// A pipe.
    Pipe { ino: u64 },
    /// Something with a name in brackets, or a file in memory.
    Pseudo(String),
    /// A pidfd of a process.
    Pid(i64),
    /// A socket.
    Socket { family: u16, sock_type: u16, protocol: u16, local: Option<End>, remote: Option<End> },
}

impl Open {
    /// A file as an open makes it.
    pub fn file(path: Vec<u8>, is_directory: bool, ino: u64, dev: u32) -> Self {
        Self::File { path, mode: if is_directory { 0o040_755 } else { 0o100_644 }, ino, dev }
    }

    /// Adds to a record what the kernel programs would say about the descriptor of the event.
    pub fn describe(&self, record: Encoder) -> Encoder {
        self.with_path(record.fd(self.facts()), tag::REALPATH)
    }

    /// Adds the same about descriptor 0, 1 or 2.
    pub fn describe_standard(&self, record: Encoder, fd: u8) -> Encoder {
        self.with_path(record.standard_fd(fd, self.facts()), tag::STANDARD_PATH + fd)
    }

    /// What stands in the list of open descriptors.
    pub fn listed(&self, fd: u32) -> OpenFd {
        let facts = self.facts();
        let mut open = OpenFd { fd, mode: facts.mode as u16, family: facts.family, name: [0; 16] };
        if let Some(pseudo) = self.pseudo().filter(|_| !matches!(self, Self::Pipe { .. })) {
            for (to, from) in open.name.iter_mut().zip(pseudo.bytes()) {
                *to = from;
            }
        }
        // An IPv6 socket with a mapped address counts as one of IPv4.
        if let Self::Socket { local: Some((ip, _)), .. } = self
            && ip.to_canonical().is_ipv4()
        {
            open.family = AF_INET;
        }
        open
    }

    /// The name of what has no path.
    fn pseudo(&self) -> Option<String> {
        match self {
            Self::File { .. } | Self::Socket { .. } => None,
            Self::Pipe { ino } => Some(format!("pipe:[{ino}]")),
            Self::Pseudo(name) => Some(name.clone()),
            Self::Pid(_) => Some("[pidfd]".to_owned()),
        }
    }

    fn with_path(&self, record: Encoder, tag: u8) -> Encoder {
        match (self, self.pseudo()) {
            (Self::File { path, .. }, _) => components(record, tag, path),
            (_, Some(name)) => record.pseudo(tag, &name),
            (_, None) => record,
        }
    }

    fn facts(&self) -> FdFacts {
        let facts = FdFacts {
            ino: 0,
            dev: 0,
            mode: 0,
            family: 0,
            sock_type: 0,
            protocol: 0,
            local_port: 0,
            remote_port: 0,
            reserved: 0,
            flags: 0,
            local_addr: [0; 16],
            remote_addr: [0; 16],
        };
        match self {
            Self::File { mode, ino, dev, .. } => FdFacts { ino: *ino, dev: kernels_device(*dev), mode: *mode, ..facts },
            Self::Pipe { ino } => FdFacts { ino: *ino, mode: 0o010_600, ..facts },
            Self::Pseudo(_) | Self::Pid(_) => FdFacts { mode: 0o600, ..facts },
            Self::Socket { family, sock_type, protocol, local, remote } => {
                let (local_addr, local_port) = end(*local);
                let (remote_addr, remote_port) = end(*remote);
                FdFacts {
                    mode: 0o140_777,
                    family: *family,
                    sock_type: *sock_type,
                    protocol: *protocol,
                    flags: fd_flag::SOCKET,
                    local_addr,
                    local_port,
                    remote_addr,
                    remote_port,
                    ..facts
                }
            }
        }
    }
}

/// The kernel's own form of a device in the form of `stat`.
fn kernels_device(dev: u32) -> u32 {
    let (major, minor) = (dev >> 8 & 0xfff, dev & 0xff | dev >> 12 & 0xf_ff00);
    major << 20 | minor
}

/// A path as components; longer names than a file system permits are cut into several.
pub fn components(record: Encoder, tag: u8, path: &[u8]) -> Encoder {
    let mut bytes = Vec::new();
    for name in path.rsplit(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let name = name.get(..255).unwrap_or(name);
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(name);
    }
    record.block(tag, Status::Ok, bytes)
}

fn end(end: Option<End>) -> ([u8; 16], u16) {
    match end {
        None => ([0; 16], 0),
        Some((IpAddr::V6(ip), port)) => (ip.octets(), port),
        Some((IpAddr::V4(ip), port)) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            (bytes, port)
        }
    }
}

/// `struct sockaddr` of an address.
pub fn sockaddr((ip, port): End) -> Vec<u8> {
    let mut bytes = match ip {
        IpAddr::V4(_) => vec![2, 0],
        IpAddr::V6(_) => vec![10, 0],
    };
    bytes.extend(port.to_be_bytes());
    match ip {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => {
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
        }
    }
    bytes
}

/// What calls that make descriptors of a fixed kind make.
pub fn pseudo_of(event: &str) -> Option<&'static str> {
    Some(match event {
        "eventfd" | "eventfd2" => "[eventfd]",
        "signalfd" | "signalfd4" => "[signalfd]",
        "timerfd_create" => "[timerfd]",
        "inotify_init" | "inotify_init1" => "inotify",
        "epoll_create" | "epoll_create1" => "[eventpoll]",
        "userfaultfd" => "[userfaultfd]",
        "io_uring_setup" => "[io_uring]",
        "bpf" => "bpf-map",
        _ => return None,
    })
}

/// Descriptors of one process.
pub type Table = BTreeMap<i64, Open>;
