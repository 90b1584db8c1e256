//! What a replica says first on its port: which MAC address it serves.
//!
//! It is an Ethernet frame, the first on the connection, so that QEMU's `-netdev stream` and a
//! switch that knows nothing of it stay compatible: its source is a group address, from which no
//! switch learns or forwards (IEEE 802.3, 3.2.3).

use smoltcp::wire::EthernetAddress;

/// Local Experimental EtherType 1 (IEEE 802, 9.2.3).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const TEXT: &[u8] = b"understudy port 1";
const LENGTH: usize = 60;
const MAC_AT: usize = 14 + TEXT.len();

/// The greeting of a port that serves `mac`.
pub(crate) fn frame(mac: [u8; 6]) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame.extend(ETHERTYPE);
    frame.extend(TEXT);
    frame.extend(mac);
    frame.resize(LENGTH, 0);
    frame
}

/// The address that a port serves, if this first frame of its is a greeting.
pub(crate) fn parse(first: &[u8]) -> Option<EthernetAddress> {
    let octets = *first.get(MAC_AT..)?.first_chunk::<6>()?;
    let mac = EthernetAddress(octets);
    (mac.is_unicast() && first == frame(octets)).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_names_its_address_and_no_other_frame_is_one() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        let greeting = frame(mac);
        assert_eq!(parse(&greeting), Some(EthernetAddress(mac)));
        assert_eq!(parse(&frame([0xff; 6])), None);
        for index in 0..MAC_AT {
            let mut other = greeting.clone();
            other[index] ^= 1;
            assert_eq!(parse(&other), None);
        }
        assert_eq!(parse(&greeting[..LENGTH - 1]), None);
    }
}
