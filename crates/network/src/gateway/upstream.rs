//! Where on the host's side a guest's destination leads.

use crate::subnet::Subnet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

/// The port of DNS.
const DNS_PORT: u16 = 53;
const RESOLVER_CONFIGURATION: &str = "/etc/resolv.conf";

/// The translation of destinations.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) subnet: Subnet,
    /// Whether the gateway's address is the host's loopback.
    pub(crate) host_loopback: bool,
    /// Where DNS requests go, instead of the host's resolver.
    pub(crate) resolver: Option<SocketAddr>,
}

impl Upstream {
    /// Where a connection or datagram to `destination` goes. `None`: nowhere.
    pub(crate) fn translate(&self, destination: SocketAddrV4) -> Option<SocketAddr> {
        let address = *destination.ip();
        if address == self.subnet.dns() && destination.port() == DNS_PORT {
            return self.resolver.or_else(host_resolver);
        }
        if address == self.subnet.gateway() && self.host_loopback {
            return Some(SocketAddr::new(
                Ipv4Addr::LOCALHOST.into(),
                destination.port(),
            ));
        }
        self.subnet
            .is_world(address)
            .then_some(SocketAddr::V4(destination))
    }
}

/// The host's resolver, read anew each time: it changes with the host's network.
fn host_resolver() -> Option<SocketAddr> {
    first_name_server(&fs::read_to_string(RESOLVER_CONFIGURATION).ok()?)
}

/// The first `nameserver` of a resolv.conf(5).
fn first_name_server(configuration: &str) -> Option<SocketAddr> {
    let address = configuration.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next()?.parse::<IpAddr>().ok())
            .flatten()
    })?;
    Some(SocketAddr::new(address, DNS_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_server_that_can_be_read_is_taken() {
        let text = "# comment\nsearch example.org\nnameserver fe80::1%eth0\nnameserver 9.9.9.9\n";
        assert_eq!(first_name_server(text), Some("9.9.9.9:53".parse().unwrap()));
        assert_eq!(first_name_server("options edns0\n"), None);
    }

    #[test]
    fn the_hosts_loopback_is_reached_only_through_the_gateway_and_only_if_allowed() {
        let translate = |host_loopback, text: &str| {
            let resolver = Some("127.0.0.1:5353".parse().unwrap());
            let upstream = Upstream {
                subnet: Subnet::default(),
                host_loopback,
                resolver,
            };
            upstream
                .translate(text.parse().unwrap())
                .map(|address| address.to_string())
        };
        assert_eq!(translate(true, "10.0.2.2:80").unwrap(), "127.0.0.1:80");
        assert_eq!(translate(false, "10.0.2.2:80"), None);
        assert_eq!(translate(true, "127.0.0.1:80"), None);
        assert_eq!(translate(true, "10.0.2.3:53").unwrap(), "127.0.0.1:5353");
        assert_eq!(translate(true, "10.0.2.3:80"), None);
        assert_eq!(translate(true, "192.0.2.1:80").unwrap(), "192.0.2.1:80");
        assert_eq!(translate(true, "255.255.255.255:80"), None);
    }
}
