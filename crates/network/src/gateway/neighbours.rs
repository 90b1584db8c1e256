//! Who has which address in the guests' network (RFC 826), as far as the gateway sends packets itself:
//! the stack knows on its own for TCP.

use smoltcp::wire::EthernetAddress;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Guests whose addresses are remembered; beyond, the one that was silent for longest is forgotten.
const MAX_NEIGHBOURS: usize = 256;
/// What was not confirmed for this time is used, and asked about.
const FRESH: Duration = Duration::from_secs(60);
/// Between two questions about the same address.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Neighbour {
    address: Ipv4Addr,
    heard: Instant,
}

/// The guests that were heard of.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    known: BTreeMap<EthernetAddress, Neighbour>,
    asked: BTreeMap<Ipv4Addr, Instant>,
}

impl Neighbours {
    /// A guest said where it is.
    pub(crate) fn learn(&mut self, mac: EthernetAddress, address: Ipv4Addr, now: Instant) {
        if self.known.len() >= MAX_NEIGHBOURS && !self.known.contains_key(&mac) {
            let silent = self.known.iter().min_by_key(|(_, known)| known.heard);
            if let Some(silent) = silent.map(|(mac, _)| *mac) {
                self.known.remove(&silent);
            }
        }
        self.asked.remove(&address);
        let heard = now;
        self.known.insert(mac, Neighbour { address, heard });
    }

    /// The address of the guest with this MAC address.
    pub(crate) fn address(&self, mac: EthernetAddress) -> Option<Ipv4Addr> {
        self.known.get(&mac).map(|known| known.address)
    }

    /// Where packets for `address` go, and whether its guest should be asked (now: it counts as
    /// asked).
    pub(crate) fn find(
        &mut self,
        address: Ipv4Addr,
        now: Instant,
    ) -> (Option<EthernetAddress>, bool) {
        let here = self
            .known
            .iter()
            .filter(|(_, known)| known.address == address);
        let newest = here.max_by_key(|(_, known)| known.heard);
        let fresh =
            newest.is_some_and(|(_, known)| now.saturating_duration_since(known.heard) < FRESH);
        let mac = newest.map(|(mac, _)| *mac);
        self.asked
            .retain(|_, asked| now.saturating_duration_since(*asked) < ASK_INTERVAL);
        let ask = !fresh && !self.asked.contains_key(&address);
        if ask {
            self.asked.insert(address, now);
        }
        (mac, ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

    fn mac(number: u16) -> EthernetAddress {
        let [high, low] = number.to_be_bytes();
        EthernetAddress([2, 0, 0, 0, high, low])
    }

    #[test]
    fn rfc_1122_2_3_2_1_what_is_old_is_asked_about_and_not_more_than_once_a_second() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.find(GUEST, now), (None, true));
        assert_eq!(neighbours.find(GUEST, now), (None, false));
        assert_eq!(neighbours.find(GUEST, now + ASK_INTERVAL), (None, true));
        neighbours.learn(mac(1), GUEST, now);
        assert_eq!(neighbours.find(GUEST, now), (Some(mac(1)), false));
        let later = now + FRESH;
        assert_eq!(neighbours.find(GUEST, later), (Some(mac(1)), true));
        assert_eq!(neighbours.find(GUEST, later), (Some(mac(1)), false));
        // Another machine has taken the address over.
        neighbours.learn(mac(2), GUEST, later);
        assert_eq!(neighbours.find(GUEST, later), (Some(mac(2)), false));
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_without_bound_and_the_newest_is_known() {
        let now = Instant::now();
        let mut neighbours = Neighbours::default();
        for number in 0..1000 {
            let heard = now + Duration::from_millis(u64::from(number));
            neighbours.learn(mac(number), GUEST, heard);
        }
        assert_eq!(neighbours.known.len(), MAX_NEIGHBOURS);
        assert_eq!(neighbours.address(mac(999)), Some(GUEST));
    }
}
