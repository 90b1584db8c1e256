//! What the user asks of a switch.

use crate::address::SwitchAddress;
use crate::gateway::addresses;
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
    /// Host ports that lead to the guest.
    pub forwards: Vec<Forward>,
    /// Whether the switch has a gateway. Without, it only connects its ports.
    pub gateway: bool,
    /// Whether 10.0.2.2 leads to the host's own loopback services.
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
            forwards: Vec::new(),
            gateway: true,
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

/// A TCP port of the host that leads to a TCP port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where the host listens; port 0 is any free one.
    pub host: SocketAddr,
    /// Where the guest listens.
    pub guest: SocketAddrV4,
}

/// A forward that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a forward: write HOST=GUEST as in 127.0.0.1:6379=10.0.2.15:6379, or just the \
     ports as in 6379:6379 (host, then guest; the guest is in 10.0.2.0/24)"
)]
pub struct ForwardError(String);

impl FromStr for Forward {
    type Err = ForwardError;

    /// `127.0.0.1:6379=10.0.2.15:6379`, `6379=6379`, or `6379:6379`. A host without an address is
    /// 127.0.0.1, a guest without one 10.0.2.15.
    fn from_str(text: &str) -> Result<Forward, ForwardError> {
        let wrong = || ForwardError(text.to_owned());
        let separator = if text.contains('=') { '=' } else { ':' };
        let (host, guest) = text.split_once(separator).ok_or_else(wrong)?;
        let host = match host.parse::<u16>() {
            Ok(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            Err(_) => host.parse().map_err(|_| wrong())?,
        };
        let guest = match guest.parse::<u16>() {
            Ok(port) => SocketAddrV4::new(addresses::FIRST_GUEST, port),
            Err(_) => guest.parse().map_err(|_| wrong())?,
        };
        if guest.port() == 0 || !addresses::is_guest(*guest.ip()) {
            return Err(wrong());
        }
        Ok(Forward { host, guest })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.host, self.guest)
    }
}

/// A guest's address that DHCP always gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticLease {
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// The address it gets, in 10.0.2.0/24.
    pub address: Ipv4Addr,
}

/// A static lease that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a lease: write MAC=ADDRESS as in 52:54:00:12:34:56=10.0.2.20, with an address in \
     10.0.2.0/24 that is not the gateway's"
)]
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
            let valid = parts.next().is_none()
                && EthernetAddress(octets).is_unicast()
                && addresses::is_guest(address);
            valid.then_some(StaticLease {
                mac: octets,
                address,
            })
        });
        parsed.ok_or_else(|| StaticLeaseError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(text: &str) -> String {
        text.parse::<Forward>().unwrap().to_string()
    }

    #[test]
    fn forwards_are_written_with_or_without_addresses() {
        let whole = "127.0.0.1:6379=10.0.2.15:6379";
        assert_eq!(forward(whole), whole);
        assert_eq!(forward("6379:6379"), whole);
        assert_eq!(forward("6379=6379"), whole);
        assert_eq!(forward("0.0.0.0:0=10.0.2.16:22"), "0.0.0.0:0=10.0.2.16:22");
        assert_eq!(forward("[::1]:80=8080"), "[::1]:80=10.0.2.15:8080");
    }

    #[test]
    fn forwards_that_lead_nowhere_are_refused_by_name() {
        let wrong = [
            "",
            "6379",
            "a=b",
            "1:0",
            "70000:1",
            "1=10.0.2.2:1",
            "1=10.0.3.15:1",
            "1=10.0.2.255:1",
        ];
        for text in wrong {
            let error = text.parse::<Forward>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn static_leases_stay_inside_the_guest_network() {
        let lease: StaticLease = "52:54:00:12:34:56=10.0.2.20".parse().unwrap();
        assert_eq!(lease.mac, [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(lease.address, Ipv4Addr::new(10, 0, 2, 20));
        for text in [
            "52:54:00:12:34:56=10.0.2.2",
            "52:54:00:12:34=10.0.2.20",
            "53:54:00:12:34:56=10.0.2.20",
            "52:54:00:12:34:56=192.168.0.1",
        ] {
            assert!(text.parse::<StaticLease>().is_err(), "{text}");
        }
    }
}
