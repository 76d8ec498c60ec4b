//! Many networks: which of them is an address in?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Networks with numbers.
#[derive(Default)]
pub(super) struct Nets {
    v4: PrefixMap<Ipv4Net, u32>,
    v6: PrefixMap<Ipv6Net, u32>,
    equal: HashMap<IpNet, u32, ahash::RandomState>,
}

impl Nets {
    pub(super) fn new(nets: impl IntoIterator<Item = (IpNet, u32)>) -> Self {
        let mut all = Self::default();
        for (net, id) in nets {
            match net {
                IpNet::V4(net) => all.v4.insert(net, id),
                IpNet::V6(net) => all.v6.insert(net, id),
            };
            all.equal.insert(net, id);
        }
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.equal.is_empty()
    }

    /// Calls `found` for each network that the address is in.
    pub(super) fn visit(&self, ip: IpAddr, mut found: impl FnMut(u32)) {
        match ip {
            IpAddr::V4(ip) => self.v4.cover(&host4(ip)).for_each(|(_, id)| found(*id)),
            IpAddr::V6(ip) => self.v6.cover(&host6(ip)).for_each(|(_, id)| found(*id)),
        }
    }

    /// The number of exactly this network.
    pub(super) fn equal(&self, net: &IpNet) -> Option<u32> {
        self.equal.get(net).copied()
    }

    /// Whether the address is in any of them.
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.get_spm(&host4(ip)).is_some(),
            IpAddr::V6(ip) => self.v6.get_spm(&host6(ip)).is_some(),
        }
    }
}

fn host4(ip: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(ip)
}

fn host6(ip: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::from(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_around_an_address_is_found() {
        let nets = ["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "192.168.0.0/16", "fd00::/8"];
        let nets = Nets::new(nets.iter().zip(0..).map(|(net, id)| (net.parse().expect("a network"), id)));
        let found = |ip: &str| {
            let mut found = Vec::new();
            nets.visit(ip.parse().expect("an address"), |id| found.push(id));
            found.sort_unstable();
            found
        };
        assert_eq!(found("10.1.2.3"), [0, 1, 2]);
        assert_eq!(found("10.2.2.3"), [0, 2]);
        assert_eq!(found("fd00::1"), [4]);
        assert!(found("2001:db8::1").is_empty());
        assert!(nets.contains("10.1.2.3".parse().expect("an address")));
        assert!(!nets.contains("2001:db8::1".parse().expect("an address")));
        assert_eq!(nets.equal(&"10.0.0.0/8".parse().expect("a network")), Some(0));
        assert_eq!(nets.equal(&"10.0.0.0/9".parse().expect("a network")), None);
    }
}
