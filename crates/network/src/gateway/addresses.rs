//! The guest network's plan.

use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
use std::net::Ipv4Addr;

/// The gateway; to guests also the host's loopback, if the user lets it.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The DNS relay.
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The first guest's.
pub(crate) const FIRST_GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The last that DHCP gives.
pub(crate) const LAST_GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 254);
/// 10.0.2.0/24.
pub(crate) const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The gateway with its network.
pub(crate) const NETWORK: Ipv4Cidr = Ipv4Cidr::new(GATEWAY, 24);
/// The gateway's MAC address: locally administered, with its IP address at the end.
pub(crate) const GATEWAY_MAC: EthernetAddress =
    EthernetAddress([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);

/// An address of the gateway itself.
pub(crate) fn is_own(address: Ipv4Addr) -> bool {
    address == GATEWAY || address == DNS
}

/// An address that a guest may have.
pub(crate) fn is_guest(address: Ipv4Addr) -> bool {
    let last = address.octets()[3];
    NETWORK.contains_addr(&address) && !is_own(address) && last != 0 && last != 255
}

/// An address that a guest may talk to through the gateway: a unicast address of another network.
/// Loopback is not reachable from outside (RFC 1122, 3.2.1.3).
pub(crate) fn is_world(address: Ipv4Addr) -> bool {
    !(NETWORK.contains_addr(&address)
        || address.is_loopback()
        || address.is_multicast()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_both_a_guests_and_the_worlds() {
        let guest = [[10, 0, 2, 1], [10, 0, 2, 15], [10, 0, 2, 254]];
        let world = [
            [10, 0, 3, 1],
            [1, 1, 1, 1],
            [192, 168, 1, 1],
            [169, 254, 1, 1],
        ];
        let neither = [
            [10, 0, 2, 0],
            [10, 0, 2, 2],
            [10, 0, 2, 3],
            [10, 0, 2, 255],
            [127, 0, 0, 1],
            [0, 0, 0, 0],
            [224, 0, 0, 1],
            [255, 255, 255, 255],
            [240, 0, 0, 1],
        ];
        let kinds = |address: [u8; 4]| (is_guest(address.into()), is_world(address.into()));
        assert!(
            guest
                .into_iter()
                .all(|address| kinds(address) == (true, false))
        );
        assert!(
            world
                .into_iter()
                .all(|address| kinds(address) == (false, true))
        );
        assert!(
            neither
                .into_iter()
                .all(|address| kinds(address) == (false, false))
        );
    }
}
