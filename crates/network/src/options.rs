//! What the user asks of a switch.

use crate::address::SwitchAddress;
use crate::subnet::Subnet;
use keys::Keys;
use smoltcp::wire::EthernetAddress;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;

/// A switch and its gateway.
#[derive(Clone, Debug)]
pub struct SwitchOptions {
    /// Where replicas (and QEMU guests) connect.
    pub listen: Vec<SwitchAddress>,
    /// Who this host is, and whom it lets in, at TCP addresses; needed for those.
    pub keys: Option<Keys>,
    /// Host ports that lead to the guest.
    pub forwards: Vec<Forward>,
    /// Whether the switch has a gateway. Without, it only connects its ports.
    pub gateway: bool,
    /// The guests' network; the gateway is its second address.
    pub subnet: Subnet,
    /// Whether the gateway's address leads to the host's own loopback services.
    pub host_loopback: bool,
    /// TCP connections at the same time, those to guests and those from guests apart.
    pub connections: ConnectionLimits,
    /// Where DNS requests go; the host's own resolver when `None`.
    pub resolver: Option<SocketAddr>,
    /// Addresses that the user has fixed.
    pub static_leases: Vec<StaticLease>,
    /// Where the status is written as JSON.
    pub status_file: Option<PathBuf>,
    /// Where all frames are written in the format of pcap.
    pub pcap: Option<PathBuf>,
}

impl Default for SwitchOptions {
    fn default() -> SwitchOptions {
        SwitchOptions {
            listen: Vec::new(),
            keys: None,
            forwards: Vec::new(),
            gateway: true,
            subnet: Subnet::default(),
            host_loopback: false,
            connections: ConnectionLimits::default(),
            resolver: None,
            static_leases: Vec::new(),
            status_file: None,
            pcap: None,
        }
    }
}

/// How many TCP connections the gateway carries at the same time. Neither direction can take the
/// other's places; each connection has half a megabyte of buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Through forwards, to guests.
    pub inwards: usize,
    /// Opened by guests.
    pub outwards: usize,
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits {
            inwards: 1024,
            outwards: 1024,
        }
    }
}

/// What a forward carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// A port of the host that leads to a port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the host listens; port 0 is any free one.
    pub host: SocketAddr,
    /// The guest's address; the first guest's when `None`.
    pub guest_address: Option<Ipv4Addr>,
    /// Where the guest listens.
    pub guest_port: u16,
}

/// A forward that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a forward: write HOST=GUEST as in 127.0.0.1:6379=10.0.2.15:6379, or just the \
     ports as in 6379:6379 (host, then guest); with udp: in front for UDP"
)]
pub struct ForwardError(String);

impl FromStr for Forward {
    type Err = ForwardError;

    /// `127.0.0.1:6379=10.0.2.15:6379`, `6379=6379`, `6379:6379`, or one of them after `tcp:` or
    /// `udp:`. A host without an address is 127.0.0.1, a guest without one the first.
    fn from_str(text: &str) -> Result<Forward, ForwardError> {
        let wrong = || ForwardError(text.to_owned());
        let (protocol, ends) = match text.split_once(':') {
            Some(("tcp", ends)) => (Protocol::Tcp, ends),
            Some(("udp", ends)) => (Protocol::Udp, ends),
            _ => (Protocol::Tcp, text),
        };
        let separator = if ends.contains('=') { '=' } else { ':' };
        let (host, guest) = ends.split_once(separator).ok_or_else(wrong)?;
        let host = match host.parse::<u16>() {
            Ok(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            Err(_) => host.parse().map_err(|_| wrong())?,
        };
        let (guest_address, guest_port) = match guest.parse::<u16>() {
            Ok(port) => (None, port),
            Err(_) => {
                let guest: SocketAddrV4 = guest.parse().map_err(|_| wrong())?;
                (Some(*guest.ip()), guest.port())
            }
        };
        if guest_port == 0 {
            return Err(wrong());
        }
        Ok(Forward {
            protocol,
            host,
            guest_address,
            guest_port,
        })
    }
}

impl Forward {
    /// Where it leads if this is the guests' network.
    pub(crate) fn guest(&self, subnet: Subnet) -> SocketAddrV4 {
        let address = self.guest_address.unwrap_or_else(|| subnet.first_guest());
        SocketAddrV4::new(address, self.guest_port)
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol == Protocol::Udp {
            f.write_str("udp:")?;
        }
        write!(f, "{}=", self.host)?;
        if let Some(address) = self.guest_address {
            write!(f, "{address}:")?;
        }
        write!(f, "{}", self.guest_port)
    }
}

/// A guest's address that DHCP always gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticLease {
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// The address it gets, in the guests' network.
    pub address: Ipv4Addr,
}

/// A static lease that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a lease: write MAC=ADDRESS as in 52:54:00:12:34:56=10.0.2.20")]
pub struct StaticLeaseError(String);

impl FromStr for StaticLease {
    type Err = StaticLeaseError;

    fn from_str(text: &str) -> Result<StaticLease, StaticLeaseError> {
        let parsed = text.split_once('=').and_then(|(mac, address)| {
            let mut octets = [0; 6];
            let mut parts = mac.split(':');
            for octet in &mut octets {
                let part = parts.next().filter(|part| part.len() == 2)?;
                *octet = u8::from_str_radix(part, 16).ok()?;
            }
            let address: Ipv4Addr = address.parse().ok()?;
            let valid = parts.next().is_none() && EthernetAddress(octets).is_unicast();
            valid.then_some(StaticLease {
                mac: octets,
                address,
            })
        });
        parsed.ok_or_else(|| StaticLeaseError(text.to_owned()))
    }
}

impl fmt::Display for StaticLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", EthernetAddress(self.mac), self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(text: &str) -> String {
        text.parse::<Forward>().unwrap().to_string()
    }

    #[test]
    fn forwards_are_written_with_or_without_addresses_and_protocol() {
        let whole = "127.0.0.1:6379=10.0.2.15:6379";
        for (text, read) in [
            (whole, whole),
            ("tcp:127.0.0.1:6379=10.0.2.15:6379", whole),
            ("6379:6379", "127.0.0.1:6379=6379"),
            ("6379=6379", "127.0.0.1:6379=6379"),
            ("tcp:6379:6379", "127.0.0.1:6379=6379"),
            ("udp:53:53", "udp:127.0.0.1:53=53"),
            ("udp:[::1]:53=10.0.2.16:53", "udp:[::1]:53=10.0.2.16:53"),
            ("0.0.0.0:0=10.0.2.16:22", "0.0.0.0:0=10.0.2.16:22"),
            ("[::1]:80=8080", "[::1]:80=8080"),
        ] {
            assert_eq!(forward(text), read);
            assert_eq!(forward(read), read);
        }
        let first: Forward = "80:80".parse().unwrap();
        let subnet: Subnet = "172.20.0.0/16".parse().unwrap();
        assert_eq!(first.guest(subnet).to_string(), "172.20.0.15:80");
    }

    #[test]
    fn forwards_that_lead_nowhere_are_refused_by_name() {
        for text in [
            "",
            "6379",
            "a=b",
            "1:0",
            "70000:1",
            "udp:1",
            "sctp:1:1",
            "1=10.0.2:1",
        ] {
            let error = text.parse::<Forward>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn static_leases_are_a_guests_hardware_and_an_address() {
        let text = "52:54:00:12:34:56=10.0.2.20";
        let lease: StaticLease = text.parse().unwrap();
        assert_eq!(lease.mac, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(lease.address, Ipv4Addr::new(10, 0, 2, 20));
        assert_eq!(lease.to_string().to_lowercase().replace('-', ":"), text);
        for text in [
            "52:54:00:12:34=10.0.2.20",
            "53:54:00:12:34:56=10.0.2.20",
            "52:54:00:12:34:56=10.0.2",
        ] {
            assert!(text.parse::<StaticLease>().is_err(), "{text}");
        }
    }
}
