//! Where other hosts of the machine listen that have called this one.
//!
//! Each says its port in its greeting; the address is that of its connection, which is right also for a host
//! that listens at all of its own. One behind a translation of addresses may not answer there: then nothing
//! comes of calling it. Whoever does answer has to prove who it is, so a port that is told wrongly leads to
//! nobody else.

use crate::peer_addresses::PeerAddresses;
use replication::succession::{Host, MAX_MEMBERS};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Of so many hosts it is remembered: those of the largest machine, and as many spares.
const LIMIT: usize = 2 * (MAX_MEMBERS + 1);

/// Where they were last seen to listen, by their names.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    addresses: BTreeMap<String, SocketAddr>,
}

impl Neighbours {
    /// A host called from there, and says at which port it listens; 0: at none.
    pub fn called(&mut self, host: &Host, from: SocketAddr, port: u16) {
        let name = host.node();
        let has_room = self.addresses.len() < LIMIT || self.addresses.contains_key(name);
        if port == 0 || !has_room {
            return;
        }
        self.addresses.insert(name.to_owned(), at(from, port));
        assert!(self.addresses.len() <= LIMIT, "hosts that are remembered");
    }

    /// Those that are not among `configured` already.
    pub fn beside<'a>(
        &'a self,
        configured: &'a [PeerAddresses],
    ) -> impl Iterator<Item = String> + 'a {
        let addresses = self.addresses.values().map(SocketAddr::to_string);
        addresses.filter(|address| !configured.iter().any(|peer| peer.contains(address)))
    }
}

/// The same host, at that port.
fn at(mut from: SocketAddr, port: u16) -> SocketAddr {
    from.set_port(port);
    match from.ip().to_canonical() {
        // Of a host that listens at the addresses of both families.
        IpAddr::V4(address) => SocketAddr::from((address, port)),
        IpAddr::V6(_) => from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::succession::HostId;

    fn host(id: u128, node: &str) -> Host {
        Host::new(HostId(id), node)
    }

    fn known(neighbours: &Neighbours) -> Vec<String> {
        neighbours.beside(&[]).collect()
    }

    #[test]
    fn a_host_is_called_at_the_port_that_it_told_and_the_address_that_it_came_from() {
        let mut neighbours = Neighbours::default();
        let from = |text: &str| text.parse::<SocketAddr>().unwrap();
        neighbours.called(&host(1, "a"), from("192.0.2.7:51234"), 7400);
        assert_eq!(known(&neighbours), ["192.0.2.7:7400"]);
        // It was set up anew, and started elsewhere.
        neighbours.called(&host(2, "a"), from("[::ffff:192.0.2.8]:51235"), 7401);
        assert_eq!(known(&neighbours), ["192.0.2.8:7401"]);
        neighbours.called(&host(2, "a"), from("192.0.2.9:51236"), 0);
        assert_eq!(known(&neighbours), ["192.0.2.8:7401"], "it listens nowhere");
        neighbours.called(&host(3, "b"), from("[fe80::1%3]:51237"), 7400);
        // By the other of its cards.
        let configured = vec!["198.51.100.8:7401".to_owned(), "192.0.2.8:7401".to_owned()];
        let configured = [PeerAddresses::new(configured).unwrap()];
        let others: Vec<String> = neighbours.beside(&configured).collect();
        assert_eq!(others, ["[fe80::1%3]:7400"]);
        assert_eq!(from(&others[0]), from("[fe80::1%3]:7400"));
    }

    #[test]
    fn no_more_hosts_are_remembered_than_a_machine_has() {
        let mut neighbours = Neighbours::default();
        let from = SocketAddr::from(([192, 0, 2, 7], 51234));
        for number in 0..100 {
            let stranger = host(number, &format!("host{number}"));
            neighbours.called(&stranger, from, 7400 + number as u16);
        }
        assert_eq!(known(&neighbours).len(), LIMIT);
        // Those that are known may still move.
        neighbours.called(&host(1, "host1"), from, 9);
        assert!(known(&neighbours).contains(&"192.0.2.7:9".to_owned()));
    }
}
