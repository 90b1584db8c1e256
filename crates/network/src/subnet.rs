//! The guests' network and the plan of its addresses.

use smoltcp::wire::{EthernetAddress, Ipv4Cidr};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// What the plan has at which place of the network.
const GATEWAY: u32 = 2;
const DNS: u32 = 3;
const FIRST_GUEST: u32 = 15;
/// Larger networks than 10.0.0.0/8 are nobody's own.
const MIN_PREFIX_LENGTH: u8 = 8;
/// The smallest network that has a place for the first guest and one more.
const MAX_PREFIX_LENGTH: u8 = 27;

/// The guests' network, as in `10.0.2.0/24`: the gateway is its second address, the DNS relay the
/// third, guests have the fifteenth and those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    network: u32,
    prefix_length: u8,
}

/// A network that cannot be understood, or cannot be the guests'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} cannot be the guests' network: {reason}; write it as in 10.0.2.0/24, with a prefix of \
     {MIN_PREFIX_LENGTH} to {MAX_PREFIX_LENGTH}"
)]
pub struct SubnetError {
    text: String,
    reason: &'static str,
}

impl Default for Subnet {
    /// 10.0.2.0/24.
    fn default() -> Subnet {
        Subnet {
            network: u32::from(Ipv4Addr::new(10, 0, 2, 0)),
            prefix_length: 24,
        }
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Subnet, SubnetError> {
        let wrong = |reason| SubnetError {
            text: text.to_owned(),
            reason,
        };
        let unreadable = || wrong("it is not ADDRESS/PREFIX");
        let (address, prefix) = text.split_once('/').ok_or_else(unreadable)?;
        let address: Ipv4Addr = address.parse().map_err(|_| unreadable())?;
        let prefix_length: u8 = prefix.parse().map_err(|_| unreadable())?;
        if !(MIN_PREFIX_LENGTH..=MAX_PREFIX_LENGTH).contains(&prefix_length) {
            return Err(wrong("the prefix is too short or too long"));
        }
        let subnet = Subnet {
            network: u32::from(address),
            prefix_length,
        };
        if subnet.network & subnet.host_mask() != 0 {
            return Err(wrong("the address has bits outside the prefix"));
        }
        if is_reserved(address) {
            return Err(wrong("no host can have an address of it"));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix_length)
    }
}

impl Subnet {
    /// The bits of an address that tell one host from another.
    fn host_mask(self) -> u32 {
        u32::MAX >> self.prefix_length
    }

    fn place(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network | number)
    }

    /// The gateway; to guests also the host's loopback, if the user lets it.
    pub fn gateway(self) -> Ipv4Addr {
        self.place(GATEWAY)
    }

    /// The DNS relay.
    pub fn dns(self) -> Ipv4Addr {
        self.place(DNS)
    }

    /// The first guest's.
    pub fn first_guest(self) -> Ipv4Addr {
        self.place(FIRST_GUEST)
    }

    /// The last that DHCP gives.
    pub(crate) fn last_guest(self) -> Ipv4Addr {
        self.place(self.host_mask() - 1)
    }

    pub(crate) fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(!self.host_mask())
    }

    /// The gateway with its network.
    pub(crate) fn gateway_cidr(self) -> Ipv4Cidr {
        Ipv4Cidr::new(self.gateway(), self.prefix_length)
    }

    /// The gateway's MAC address: locally administered, with its IP address at the end.
    pub(crate) fn gateway_mac(self) -> EthernetAddress {
        let [a, b, c, d] = self.gateway().octets();
        EthernetAddress([0x52, 0x55, a, b, c, d])
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & !self.host_mask() == self.network
    }

    /// An address of the gateway itself.
    pub(crate) fn is_own(self, address: Ipv4Addr) -> bool {
        address == self.gateway() || address == self.dns()
    }

    /// An address that a guest may have.
    pub(crate) fn is_guest(self, address: Ipv4Addr) -> bool {
        let host = u32::from(address) & self.host_mask();
        self.contains(address) && !self.is_own(address) && host != 0 && host != self.host_mask()
    }

    /// An address that a guest may talk to through the gateway: a unicast address of another
    /// network. Loopback is not reachable from outside (RFC 1122, 3.2.1.3).
    pub(crate) fn is_world(self, address: Ipv4Addr) -> bool {
        !self.contains(address) && !is_reserved(address)
    }
}

/// No host outside has such an address.
fn is_reserved(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_multicast()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240
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
        let subnet = Subnet::default();
        let kinds = |address: [u8; 4]| {
            let address = address.into();
            (subnet.is_guest(address), subnet.is_world(address))
        };
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

    #[test]
    fn any_network_has_the_same_plan() {
        let subnet: Subnet = "192.168.7.32/27".parse().unwrap();
        assert_eq!(subnet.to_string(), "192.168.7.32/27");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(192, 168, 7, 34));
        assert_eq!(subnet.dns(), Ipv4Addr::new(192, 168, 7, 35));
        assert_eq!(subnet.first_guest(), Ipv4Addr::new(192, 168, 7, 47));
        assert_eq!(subnet.last_guest(), Ipv4Addr::new(192, 168, 7, 62));
        assert_eq!(subnet.netmask(), Ipv4Addr::new(255, 255, 255, 224));
        let broadcast = Ipv4Addr::new(192, 168, 7, 63);
        assert!(!subnet.is_guest(broadcast) && !subnet.is_world(broadcast));
        assert!(subnet.is_world(Ipv4Addr::new(192, 168, 7, 64)));
        assert!(subnet.is_world(Ipv4Addr::new(10, 0, 2, 15)));
    }

    #[test]
    fn networks_that_cannot_be_the_guests_are_refused_with_the_reason() {
        for (text, reason) in [
            ("10.0.2.0", "not ADDRESS/PREFIX"),
            ("10.0.2/24", "not ADDRESS/PREFIX"),
            ("10.0.2.0/28", "too short or too long"),
            ("0.0.0.0/0", "too short or too long"),
            ("10.0.2.1/24", "bits outside the prefix"),
            ("127.0.0.0/8", "no host"),
            ("224.0.0.0/8", "no host"),
        ] {
            let error = text.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
    }
}
