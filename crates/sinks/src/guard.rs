//! Where the sinks of namespaces may not send: to the host of the sender, and to the cloud that it runs in.
//!
//! Whoever may create an AlertSink in a namespace chooses an address that somebody else connects to, from a place they
//! cannot reach themselves. So addresses are looked at after their names were looked up, and the connection goes to the
//! address that was looked at, not to a second answer of the name server.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// An address to which a namespace's sink may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {what}")]
pub struct Forbidden {
    /// The address.
    pub address: IpAddr,
    /// What kind of address it is.
    pub what: &'static str,
}

/// Looks at an address.
pub fn check(address: IpAddr) -> Result<(), Forbidden> {
    let what = match address {
        IpAddr::V4(v4) => check_v4(v4),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => check_v4(v4),
            None => check_v6(v6),
        },
    };
    what.map_or(Ok(()), |what| Err(Forbidden { address, what }))
}

const METADATA: &str = "a cloud's metadata service";

fn check_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [169, 254, 169, 254] | [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192] => Some(METADATA),
        [0, ..] => Some("no address of a host"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_link_local() => Some("a link-local address"),
        _ if address.is_multicast() || address.is_broadcast() => Some("a multicast address"),
        _ => None,
    }
}

fn check_v6(address: Ipv6Addr) -> Option<&'static str> {
    match address {
        _ if address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Some(METADATA),
        _ if address.is_unspecified() => Some("no address of a host"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_unicast_link_local() => Some("a link-local address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped, translated (RFC 6052) or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            v4(high, low)
        }
        // `::` and `::1` are what they are.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => None,
    }
}

/// Looks up names, and refuses them when any of their addresses is forbidden.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guarded;

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            found.iter().try_for_each(|address| check(address.ip()))?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

impl Guarded {
    pub fn new() -> Arc<Self> {
        Arc::new(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_clouds_are_out_of_reach_however_they_are_written() {
        for (address, allowed) in [
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("169.254.1.1", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("ff02::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::7f00:1", false),
            ("2002:a9fe:a9fe::1", false),
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("8.8.8.8", true),
            ("fd00::1", true),
            ("2001:db8::1", true),
            ("::ffff:10.0.0.1", true),
        ] {
            let parsed = address.parse().expect("an address");
            assert_eq!(check(parsed).is_ok(), allowed, "{address}");
        }
    }
}
