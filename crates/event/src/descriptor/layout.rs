//! Where a type of event has what its descriptor is told from, found once for each type.

use std::sync::LazyLock;

use crate::{
    catalogue::{EventInfo, EventType},
    params::ParamType,
};

/// The calls whose descriptor is told from their arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Open,
    Socket,
    Connect,
    Accept,
    /// `bind`, `listen`: a socket that others connect to.
    Serve,
    /// A send or receive, which may name the other end of a datagram.
    Datagram,
    Other,
}

/// Indices of parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub call: Call,
    /// The descriptor that is passed.
    pub fd: Option<usize>,
    /// The first path.
    pub path: Option<usize>,
    /// The flags of an open; those of creat are none.
    pub open_flags: Option<usize>,
    pub dev: Option<usize>,
    pub ino: Option<usize>,
}

impl Layout {
    /// The layout of a type.
    pub fn of(ty: EventType) -> &'static Self {
        static ALL: LazyLock<Box<[Layout]>> =
            LazyLock::new(|| EventType::all().map(|ty| Layout::new(ty.info())).collect());
        &ALL[ty.index()]
    }

    fn new(info: &EventInfo) -> Self {
        let named = |name| info.params.iter().position(|param| param.name == name);
        let is_path = |ty| matches!(ty, ParamType::Path | ParamType::RelPath { .. });
        let call = match info.name {
            "open" | "openat" | "openat2" | "creat" => Call::Open,
            "socket" => Call::Socket,
            "connect" => Call::Connect,
            "accept" | "accept4" => Call::Accept,
            "bind" | "listen" => Call::Serve,
            "sendto" | "sendmsg" | "sendmmsg" | "recvfrom" | "recvmsg" | "recvmmsg" => Call::Datagram,
            _ => Call::Other,
        };
        Self {
            call,
            fd: info.params.iter().position(|param| param.ty == ParamType::Fd),
            path: info.params.iter().position(|param| is_path(param.ty)),
            open_flags: match info.name {
                "open" | "openat" | "openat2" | "open_by_handle_at" => named("flags"),
                _ => None,
            },
            dev: named("dev"),
            ino: named("ino"),
        }
    }
}
