//! Kinds of descriptors and transport protocols, with Falco's letters and words.

use abi::record::OpenFd;

use super::address::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX};
use crate::decode::until_nul;

/// What a descriptor is. Falco: `scap_fd_type` with its letter and word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdKind {
    /// Anything opened by a path that is no directory.
    File,
    /// A directory.
    Directory,
    /// An IPv4 socket.
    Ipv4,
    /// An IPv6 socket.
    Ipv6,
    /// A Unix socket.
    Unix,
    /// A netlink socket.
    Netlink,
    /// A pipe or FIFO.
    Pipe,
    /// An eventfd.
    Event,
    /// A signalfd.
    Signal,
    /// An epoll instance.
    Epoll,
    /// An inotify instance.
    Inotify,
    /// A timerfd.
    Timer,
    /// A BPF object.
    Bpf,
    /// A userfaultfd.
    Userfault,
    /// An io_uring instance.
    IoUring,
    /// An anonymous file in memory.
    Memfd,
    /// A pidfd.
    Pid,
    /// Something else, or not known.
    Unknown,
}

impl FdKind {
    /// Falco's letter: `fd.typechar`.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::File => "f",
            Self::Directory => "d",
            Self::Ipv4 => "4",
            Self::Ipv6 => "6",
            Self::Unix => "u",
            Self::Netlink => "n",
            Self::Pipe => "p",
            Self::Event => "e",
            Self::Signal => "s",
            Self::Epoll => "l",
            Self::Inotify => "i",
            Self::Timer => "t",
            Self::Bpf => "b",
            Self::Userfault => "u",
            Self::IoUring => "r",
            Self::Memfd => "m",
            Self::Pid => "P",
            Self::Unknown => "o",
        }
    }

    /// Falco's word: `fd.type`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Unix => "unix",
            Self::Netlink => "netlink",
            Self::Pipe => "pipe",
            Self::Event => "event",
            Self::Signal => "signalfd",
            Self::Epoll => "eventpoll",
            Self::Inotify => "inotify",
            Self::Timer => "timerfd",
            Self::Bpf => "bpf",
            Self::Userfault => "userfaultfd",
            Self::IoUring => "io_uring",
            Self::Memfd => "memfd",
            Self::Pid => "pidfd",
            Self::Unknown => "<NA>",
        }
    }

    /// Falco's word for the family of a socket: `fd.sockfamily`.
    pub const fn family_word(self) -> Option<&'static str> {
        match self {
            Self::Ipv4 | Self::Ipv6 => Some("ip"),
            Self::Unix => Some("unix"),
            Self::File
            | Self::Directory
            | Self::Netlink
            | Self::Pipe
            | Self::Event
            | Self::Signal
            | Self::Epoll
            | Self::Inotify
            | Self::Timer
            | Self::Bpf
            | Self::Userfault
            | Self::IoUring
            | Self::Memfd
            | Self::Pid
            | Self::Unknown => None,
        }
    }

    /// What the address family of a socket says.
    pub(super) fn of_family(family: u16) -> Self {
        match family {
            AF_INET => Self::Ipv4,
            AF_INET6 => Self::Ipv6,
            AF_UNIX => Self::Unix,
            AF_NETLINK => Self::Netlink,
            _ => Self::Unknown,
        }
    }

    /// What a name such as `[eventpoll]` says.
    pub(super) fn of_pseudo(name: &[u8]) -> Self {
        match name {
            b"[eventfd]" => Self::Event,
            b"[signalfd]" => Self::Signal,
            b"[eventpoll]" => Self::Epoll,
            b"inotify" | b"[inotify]" => Self::Inotify,
            b"[timerfd]" => Self::Timer,
            b"[userfaultfd]" => Self::Userfault,
            b"[io_uring]" => Self::IoUring,
            b"[pidfd]" => Self::Pid,
            _ if name.starts_with(b"memfd:") => Self::Memfd,
            _ if name.starts_with(b"bpf") => Self::Bpf,
            _ => Self::Unknown,
        }
    }

    /// What an entry of the table of open descriptors says.
    pub(super) fn of_open_fd(open: &OpenFd) -> Self {
        const TYPE: u16 = 0o170_000;
        const SOCKET: u16 = 0o140_000;
        const PIPE: u16 = 0o010_000;
        match (open.mode & TYPE, until_nul(&open.name)) {
            (SOCKET, _) => Self::of_family(open.family),
            (PIPE, _) => Self::Pipe,
            (_, b"") => Self::of_mode(open.mode.into()),
            (_, name) => Self::of_pseudo(name),
        }
    }

    /// What the inode's mode says, of what is no socket.
    pub(super) fn of_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o010_000 => Self::Pipe,
            0 => Self::Unknown,
            _ => Self::File,
        }
    }
}

/// Transport protocol of a socket, as Falco tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// Raw IP.
    Raw,
    /// No internet socket, or another protocol.
    None,
}

impl Transport {
    pub(super) fn of(sock_type: u16, protocol: u16) -> Self {
        const ICMP: u16 = 1;
        const ICMP6: u16 = 58;
        match (sock_type & 0xf, protocol) {
            (_, ICMP | ICMP6) => Self::Icmp,
            (1, _) => Self::Tcp,
            (2, _) => Self::Udp,
            (3, _) => Self::Raw,
            _ => Self::None,
        }
    }

    /// Falco's word: `fd.l4proto`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Raw => "raw",
            Self::None => "<NA>",
        }
    }

    /// The letter that follows that of the kind where a descriptor is shown as `<4t>…`.
    pub(super) const fn letter(self) -> &'static str {
        match self {
            Self::Tcp => "t",
            Self::Udp => "u",
            Self::Icmp => "i",
            Self::Raw => "r",
            Self::None => "",
        }
    }
}
