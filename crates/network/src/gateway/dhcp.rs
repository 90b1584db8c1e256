//! The DHCP server (RFC 2131): an address for each MAC address, always the same, for as long as the
//! switch lives.

use crate::subnet::Subnet;
use smoltcp::wire::{DhcpMessageType, DhcpRepr, EthernetAddress};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// One day; a guest renews after half of it.
const LEASE_SECONDS: u32 = 86_400;

/// The leases.
#[derive(Debug)]
pub(crate) struct DhcpServer {
    subnet: Subnet,
    leases: BTreeMap<EthernetAddress, Ipv4Addr>,
}

impl DhcpServer {
    /// With addresses that the user has fixed.
    pub(crate) fn new(
        subnet: Subnet,
        fixed: impl IntoIterator<Item = (EthernetAddress, Ipv4Addr)>,
    ) -> DhcpServer {
        DhcpServer {
            subnet,
            leases: fixed.into_iter().collect(),
        }
    }

    /// The answer to a client's message, if it gets one.
    pub(crate) fn answer(&mut self, request: &DhcpRepr<'_>) -> Option<DhcpRepr<'static>> {
        let client = request.client_hardware_address;
        if !client.is_unicast() {
            return None;
        }
        let (message_type, address) = match request.message_type {
            DhcpMessageType::Discover => (
                DhcpMessageType::Offer,
                self.lease(client, request.requested_ip)?,
            ),
            // RFC 2131, 4.3.2: selecting, rebooting, renewing and rebinding clients.
            DhcpMessageType::Request => {
                if request
                    .server_identifier
                    .is_some_and(|server| server != self.subnet.gateway())
                {
                    return None;
                }
                let wanted = request.requested_ip.unwrap_or(request.client_ip);
                if self.lease(client, Some(wanted)) == Some(wanted) {
                    (DhcpMessageType::Ack, wanted)
                } else {
                    (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED)
                }
            }
            // RFC 2131, 4.3.5: the client has an address and wants the rest.
            DhcpMessageType::Inform => (DhcpMessageType::Ack, Ipv4Addr::UNSPECIFIED),
            _ => return None,
        };
        Some(reply(self.subnet, request, message_type, address))
    }

    /// The client's address: what it has, else what it wants if that is free, else the first free.
    fn lease(&mut self, client: EthernetAddress, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        if let Some(address) = self.leases.get(&client) {
            return Some(*address);
        }
        let pool = self.subnet.first_guest()..=self.subnet.last_guest();
        let free = |address: &Ipv4Addr| self.leases.values().all(|leased| leased != address);
        let wanted = wanted.filter(|wanted| pool.contains(wanted) && free(wanted));
        let address = wanted.or_else(|| {
            (u32::from(*pool.start())..=u32::from(*pool.end()))
                .map(Ipv4Addr::from)
                .find(free)
        })?;
        self.leases.insert(client, address);
        Some(address)
    }

    /// All leases, in the order of their MAC addresses.
    pub(crate) fn leases(&self) -> impl Iterator<Item = (EthernetAddress, Ipv4Addr)> {
        self.leases.iter().map(|(mac, address)| (*mac, *address))
    }
}

fn reply(
    subnet: Subnet,
    request: &DhcpRepr<'_>,
    message_type: DhcpMessageType,
    address: Ipv4Addr,
) -> DhcpRepr<'static> {
    let refused = message_type == DhcpMessageType::Nak;
    let leased = !refused && !address.is_unspecified();
    DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: if refused {
            Ipv4Addr::UNSPECIFIED
        } else {
            request.client_ip
        },
        your_ip: address,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: (!refused).then_some(subnet.gateway()),
        subnet_mask: (!refused).then_some(subnet.netmask()),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(subnet.gateway()),
        parameter_request_list: None,
        dns_servers: (!refused).then(|| [subnet.dns()].into_iter().collect()),
        max_size: None,
        lease_duration: leased.then_some(LEASE_SECONDS),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    fn server<const N: usize>(fixed: [(EthernetAddress, Ipv4Addr); N]) -> DhcpServer {
        DhcpServer::new(Subnet::default(), fixed)
    }

    fn message(message_type: DhcpMessageType, client: EthernetAddress) -> DhcpRepr<'static> {
        DhcpRepr {
            message_type,
            client_hardware_address: client,
            server_identifier: None,
            ..reply_template()
        }
    }

    fn reply_template() -> DhcpRepr<'static> {
        DhcpRepr {
            message_type: DhcpMessageType::Discover,
            transaction_id: 0x1234,
            secs: 0,
            client_hardware_address: CLIENT,
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: None,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        }
    }

    #[test]
    fn rfc_2131_3_1_an_offer_is_acknowledged_when_it_is_requested() {
        let mut server = server([]);
        let offer = server
            .answer(&message(DhcpMessageType::Discover, CLIENT))
            .unwrap();
        assert_eq!(offer.message_type, DhcpMessageType::Offer);
        assert_eq!(offer.your_ip, Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(offer.transaction_id, 0x1234);
        let mut request = message(DhcpMessageType::Request, CLIENT);
        request.requested_ip = Some(offer.your_ip);
        request.server_identifier = Some(Subnet::default().gateway());
        let ack = server.answer(&request).unwrap();
        assert_eq!(ack.message_type, DhcpMessageType::Ack);
        assert_eq!(ack.your_ip, offer.your_ip);
        assert_eq!(ack.router, Some(Subnet::default().gateway()));
        assert_eq!(ack.lease_duration, Some(LEASE_SECONDS));
    }

    #[test]
    fn rfc_2131_4_3_2_a_wrong_address_is_refused_and_another_servers_request_ignored() {
        let mut server = server([]);
        server
            .answer(&message(DhcpMessageType::Discover, CLIENT))
            .unwrap();
        let mut request = message(DhcpMessageType::Request, CLIENT);
        request.requested_ip = Some(Ipv4Addr::new(10, 0, 2, 99));
        assert_eq!(
            server.answer(&request).unwrap().message_type,
            DhcpMessageType::Nak
        );
        request.server_identifier = Some(Ipv4Addr::new(10, 0, 2, 7));
        assert!(server.answer(&request).is_none());
    }

    #[test]
    fn a_guest_keeps_its_address_when_the_switch_was_started_again() {
        let mut server = server([]);
        let mut request = message(DhcpMessageType::Request, CLIENT);
        request.requested_ip = Some(Ipv4Addr::new(10, 0, 2, 20));
        assert_eq!(
            server.answer(&request).unwrap().message_type,
            DhcpMessageType::Ack
        );
        let other = EthernetAddress([2, 0, 0, 0, 0, 1]);
        let mut request = message(DhcpMessageType::Discover, other);
        request.requested_ip = Some(Ipv4Addr::new(10, 0, 2, 20));
        assert_eq!(
            server.answer(&request).unwrap().your_ip,
            Subnet::default().first_guest()
        );
    }

    #[test]
    fn fixed_addresses_are_given_to_nobody_else_and_the_pool_ends() {
        let mut server = server([(CLIENT, Subnet::default().first_guest())]);
        for number in 0..300u16 {
            let [high, low] = number.to_be_bytes();
            let other = EthernetAddress([2, 0, 0, 0, high, low]);
            match server.answer(&message(DhcpMessageType::Discover, other)) {
                Some(offer) => assert_ne!(offer.your_ip, Subnet::default().first_guest()),
                None => assert!(number >= 239, "{number}"),
            }
        }
        let offer = server
            .answer(&message(DhcpMessageType::Discover, CLIENT))
            .unwrap();
        assert_eq!(offer.your_ip, Subnet::default().first_guest());
    }

    #[test]
    fn answers_follow_the_guests_network() {
        let subnet: Subnet = "192.168.77.64/26".parse().unwrap();
        let mut server = DhcpServer::new(subnet, []);
        let mut request = message(DhcpMessageType::Discover, CLIENT);
        // What it had in another network.
        request.requested_ip = Some(Subnet::default().first_guest());
        let offer = server.answer(&request).unwrap();
        assert_eq!(offer.your_ip, Ipv4Addr::new(192, 168, 77, 79));
        assert_eq!(offer.router, Some(Ipv4Addr::new(192, 168, 77, 66)));
        assert_eq!(offer.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 192)));
        let servers: Vec<_> = offer.dns_servers.into_iter().flatten().collect();
        assert_eq!(servers, [Ipv4Addr::new(192, 168, 77, 67)]);
    }
}
