//! Addresses of sockets: ends of connections, and what programs pass to calls.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::record::FdFacts;

use crate::{decode::until_nul, text::text, value::Arena};

pub(super) const AF_UNIX: u16 = 1;
pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;
pub(super) const AF_NETLINK: u16 = 16;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Address; IPv4 addresses mapped into IPv6 are folded to IPv4, as Falco does.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    pub(super) fn new(family: u16, address: [u8; 16], port: u16) -> Option<Self> {
        let [a, b, c, d, ..] = address;
        let ip = match family {
            AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            AF_INET6 => IpAddr::V6(Ipv6Addr::from(address)).to_canonical(),
            _ => return None,
        };
        Some(Self { ip, port })
    }

    pub(super) fn is_set(&self) -> bool {
        self.port != 0 || !self.ip.is_unspecified()
    }
}

/// Both ends of an internet socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Our end.
    pub local: Endpoint,
    /// The other end; `None` for a socket that only listens or is bound.
    pub remote: Option<Endpoint>,
    /// Whether ours is the end that was connected to.
    pub is_server: bool,
}

impl Connection {
    /// Both ends by what the kernel says of the socket; `given` is asked for the other end where the kernel knows none. Who began is
    /// not said: the lower port is taken for the server's, for the ports that clients are given lie above those of
    /// services.
    pub(super) fn of(facts: &FdFacts, given: impl FnOnce() -> Option<Endpoint>) -> Option<Self> {
        let local = Endpoint::new(facts.family, facts.local_addr, facts.local_port)?;
        let remote = Endpoint::new(facts.family, facts.remote_addr, facts.remote_port).filter(Endpoint::is_set);
        let remote = remote.or_else(given);
        if remote.is_none() && !local.is_set() {
            return None;
        }
        Some(Self { local, remote, is_server: remote.is_none_or(|remote| local.port < remote.port) })
    }

    /// The end that began the connection; `None` while there is only one.
    pub fn client(&self) -> Option<Endpoint> {
        let remote = self.remote?;
        Some(if self.is_server { remote } else { self.local })
    }

    /// The end that was connected to.
    pub fn server(&self) -> Endpoint {
        match self.remote {
            Some(remote) if !self.is_server => remote,
            _ => self.local,
        }
    }

    pub(super) fn name<'a>(&self, arena: &'a Arena) -> &'a [u8] {
        let server = self.server();
        match self.client() {
            Some(client) => text!(arena, "{}:{}->{}:{}", client.ip, client.port, server.ip, server.port),
            None => text!(arena, "{}:{}", server.ip, server.port),
        }
    }
}

/// A `struct sockaddr` as a program passed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketAddress<'a> {
    Internet(Endpoint),
    /// A path, or an abstract name behind `@`-less NUL, which is dropped as C strings end there.
    Unix(&'a [u8]),
    Other(u16),
}

impl<'a> SocketAddress<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (family, rest) = bytes.split_first_chunk::<2>()?;
        let family = u16::from_le_bytes(*family);
        Some(match family {
            AF_INET => {
                let (port, rest) = rest.split_first_chunk::<2>()?;
                let address = rest.first_chunk::<4>()?;
                Self::Internet(Endpoint { ip: IpAddr::V4(Ipv4Addr::from(*address)), port: u16::from_be_bytes(*port) })
            }
            AF_INET6 => {
                let (port, rest) = rest.split_first_chunk::<2>()?;
                let address = rest.get(4..)?.first_chunk::<16>()?;
                let ip = IpAddr::V6(Ipv6Addr::from(*address)).to_canonical();
                Self::Internet(Endpoint { ip, port: u16::from_be_bytes(*port) })
            }
            AF_UNIX => Self::Unix(until_nul(rest)),
            _ => Self::Other(family),
        })
    }

    pub(super) fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::Internet(endpoint) => Some(endpoint),
            Self::Unix(_) | Self::Other(_) => None,
        }
    }

    pub(super) fn unix(self) -> Option<&'a [u8]> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Internet(_) | Self::Other(_) => None,
        }
    }
}
