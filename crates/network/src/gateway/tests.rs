//! The gateway against frames that are made by hand, at times that are chosen.

use super::*;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetRepr, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr, UdpRepr,
};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const GUEST: Ipv4Addr = addresses::FIRST_GUEST;

fn gateway(now: Instant) -> Gateway {
    let options = SwitchOptions {
        forwards: vec!["0:7".parse().unwrap()],
        // Nothing listens here: what a fuzzed datagram carries goes nowhere.
        resolver: Some("127.0.0.1:9".parse().unwrap()),
        host_loopback: false,
        ..SwitchOptions::default()
    };
    Gateway::open(&options, now).unwrap()
}

/// Takes the gateway's frames.
fn sent(gateway: &mut Gateway) -> Vec<Vec<u8>> {
    let frames = gateway.outgoing().frames().map(<[u8]>::to_vec).collect();
    gateway.outgoing().clear();
    frames
}

fn arp(operation: ArpOperation, target: Ipv4Addr) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: MAC,
        source_protocol_addr: GUEST,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let ethernet = EthernetRepr {
        src_addr: MAC,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + arp.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// A packet from the guest whose payload `fill` writes.
fn packet(
    next_header: IpProtocol,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload_len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let ethernet = EthernetRepr {
        src_addr: MAC,
        dst_addr: addresses::GATEWAY_MAC,
        ethertype: EthernetProtocol::Ipv4,
    };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header,
        payload_len,
        hop_limit: 64,
    };
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    fill(packet.payload_mut());
    bytes
}

fn segment(repr: &TcpRepr<'_>, destination: Ipv4Addr) -> Vec<u8> {
    packet(
        IpProtocol::Tcp,
        GUEST,
        destination,
        repr.buffer_len(),
        |payload| {
            let mut tcp = TcpPacket::new_unchecked(payload);
            let checksums = ChecksumCapabilities::default();
            repr.emit(&mut tcp, &GUEST.into(), &destination.into(), &checksums);
        },
    )
}

fn datagram(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let repr = UdpRepr {
        src_port: ports.0,
        dst_port: ports.1,
    };
    let length = repr.header_len() + data.len();
    packet(IpProtocol::Udp, source, destination, length, |payload| {
        repr.emit(
            &mut UdpPacket::new_unchecked(payload),
            &source.into(),
            &destination.into(),
            data.len(),
            |payload| payload.copy_from_slice(data),
            &ChecksumCapabilities::default(),
        );
    })
}

/// A DHCPDISCOVER (RFC 2131, figure 1).
fn discover() -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(&MAC.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([
        53, 1, 1, 61, 7, 1, 2, 3, 4, 5, 6, 7, 50, 4, 10, 0, 2, 20, 55, 2, 1, 3, 255,
    ]);
    datagram(
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        (68, 67),
        &message,
    )
}

fn tcp_repr(control: TcpControl, from: u16, to: u16) -> TcpRepr<'static> {
    TcpRepr {
        src_port: from,
        dst_port: to,
        control,
        seq_number: TcpSeqNumber(1000),
        ack_number: None,
        window_len: 60_000,
        window_scale: None,
        max_seg_size: Some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None::<TcpTimestampRepr>,
        payload: &[],
    }
}

/// The segment in a frame from the gateway: flags, sequence number, source port, payload.
fn parse_segment(bytes: &[u8]) -> (TcpControl, TcpSeqNumber, u16, Vec<u8>) {
    let ip = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    let checksums = ChecksumCapabilities::default();
    let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    let repr = TcpRepr::parse(&tcp, &source, &destination, &checksums).unwrap();
    (
        repr.control,
        repr.seq_number,
        repr.src_port,
        repr.payload.to_vec(),
    )
}

/// A forwarded connection that the guest has accepted; its client, and the gateway's port.
fn open_forwarded(gateway: &mut Gateway, now: Instant) -> (TcpStream, u16) {
    let host: SocketAddr = gateway.forwards()[0].host.parse().unwrap();
    let client = TcpStream::connect(host).unwrap();
    gateway.receive(&arp(ArpOperation::Request, addresses::GATEWAY), now);
    let both = Readiness {
        readable: true,
        writable: true,
    };
    gateway.ready(GatewayToken::Forward(0), both, now);
    gateway.service(now);
    let syn = sent(gateway).pop().unwrap();
    let (control, sequence, port, _) = parse_segment(&syn);
    assert_eq!(control, TcpControl::Syn);
    let mut answer = tcp_repr(TcpControl::Syn, 7, port);
    answer.ack_number = Some(sequence + 1);
    gateway.receive(&segment(&answer, addresses::GATEWAY), now);
    gateway.service(now);
    sent(gateway);
    (client, port)
}

/// Lets a client's request arrive in the gateway, and returns the segments that leave it.
fn request(gateway: &mut Gateway, client: &mut TcpStream, now: Instant) -> Vec<Vec<u8>> {
    client.write_all(b"INCR counter\r\n").unwrap();
    let both = Readiness {
        readable: true,
        writable: true,
    };
    // Over loopback the bytes are there, but the standard library does not promise when.
    for _ in 0..10_000 {
        gateway.ready(GatewayToken::Connection(0), both, now);
        gateway.service(now);
        let frames = sent(gateway);
        if !frames.is_empty() {
            return frames;
        }
        std::thread::yield_now();
    }
    panic!("the request never came");
}

#[test]
fn a_lost_request_is_repeated_at_once_when_the_guest_moves() {
    let now = Instant::now();
    let mut gateway = gateway(now);
    let (mut client, _) = open_forwarded(&mut gateway, now);
    let lost = request(&mut gateway, &mut client, now);
    assert_eq!(parse_segment(&lost[0]).3, b"INCR counter\r\n");
    // Long enough for the gateway to have forgotten the guest's MAC address.
    let later = now + Duration::from_secs(100);
    let gap = later - Duration::from_millis(1);
    gateway.service(gap);
    sent(&mut gateway);
    gateway.service(later);
    assert!(sent(&mut gateway).is_empty());
    gateway.guest_appeared(MAC, later);
    gateway.service(later);
    let repeated = sent(&mut gateway);
    assert_eq!(repeated.len(), 1);
    let (first, second) = (parse_segment(&lost[0]), parse_segment(&repeated[0]));
    assert_eq!((first.1, first.3), (second.1, second.3));
    assert_eq!(
        EthernetFrame::new_unchecked(&repeated[0][..]).dst_addr(),
        MAC
    );
}

#[test]
fn moves_in_quick_succession_are_repeated_after_a_short_while() {
    let now = Instant::now();
    let mut gateway = gateway(now);
    let (mut client, _) = open_forwarded(&mut gateway, now);
    request(&mut gateway, &mut client, now);
    gateway.guest_appeared(MAC, now);
    gateway.service(now);
    assert_eq!(sent(&mut gateway).len(), 1);
    gateway.guest_appeared(MAC, now);
    gateway.service(now);
    assert!(sent(&mut gateway).is_empty());
    assert!(gateway.delay(now).unwrap() <= REPEAT_INTERVAL);
    gateway.service(now + REPEAT_INTERVAL);
    assert_eq!(sent(&mut gateway).len(), 1);
}

#[test]
fn without_an_announcement_a_lost_request_is_repeated_after_200_ms() {
    let now = Instant::now();
    let mut gateway = gateway(now);
    let (mut client, _) = open_forwarded(&mut gateway, now);
    request(&mut gateway, &mut client, now);
    assert_eq!(gateway.delay(now), Some(Duration::from_millis(200)));
    gateway.service(now + Duration::from_millis(199));
    assert!(sent(&mut gateway).is_empty());
    gateway.service(now + Duration::from_millis(200));
    assert_eq!(sent(&mut gateway).len(), 1);
}

#[test]
fn arp_is_answered_for_the_gateways_own_addresses_only() {
    let now = Instant::now();
    let mut gateway = gateway(now);
    let mut answers = |target: [u8; 4]| {
        gateway.receive(&arp(ArpOperation::Request, target.into()), now);
        gateway.service(now);
        sent(&mut gateway).len()
    };
    assert_eq!(answers([10, 0, 2, 2]), 1);
    assert_eq!(answers([10, 0, 2, 3]), 1);
    // RFC 5227, 2.1.1: else a guest that probes its address would believe that it is taken.
    assert_eq!(answers([10, 0, 2, 15]), 0);
    assert_eq!(answers([10, 0, 2, 16]), 0);
    assert_eq!(answers([192, 0, 2, 1]), 0);
}

#[test]
fn a_dhcp_client_without_the_broadcast_flag_is_answered_at_its_mac_address() {
    let now = Instant::now();
    let mut gateway = gateway(now);
    gateway.receive(&discover(), now);
    let frames = sent(&mut gateway);
    assert_eq!(frames.len(), 1);
    assert_eq!(EthernetFrame::new_unchecked(&frames[0][..]).dst_addr(), MAC);
    let ip = Ipv4Packet::new_checked(&frames[0][14..]).unwrap();
    assert_eq!(ip.dst_addr(), Ipv4Addr::new(10, 0, 2, 20));
    assert_eq!(gateway.status().leases[0].address, "10.0.2.20");
}

#[test]
fn segments_of_unknown_connections_are_reset() {
    let now = Instant::now();
    let mut gateway = gateway(now);
    gateway.receive(&arp(ArpOperation::Request, addresses::GATEWAY), now);
    sent(&mut gateway);
    let mut stray = tcp_repr(TcpControl::None, 7, 40_000);
    stray.ack_number = Some(TcpSeqNumber(5));
    for destination in [addresses::GATEWAY, Ipv4Addr::new(192, 0, 2, 1)] {
        gateway.receive(&segment(&stray, destination), now);
        let frames = sent(&mut gateway);
        assert_eq!(parse_segment(&frames[0]).0, TcpControl::Rst);
    }
    // Neither loopback nor a group is reachable: no answer at all.
    for destination in [[127, 0, 0, 1], [224, 0, 0, 1], [10, 0, 2, 255]] {
        gateway.receive(&segment(&stray, destination.into()), now);
        assert!(sent(&mut gateway).is_empty());
    }
}

/// What a segment acknowledges.
fn acknowledged(bytes: &[u8]) -> TcpSeqNumber {
    let ip = Ipv4Packet::new_unchecked(&bytes[14..]);
    TcpPacket::new_unchecked(ip.payload()).ack_number()
}

/// A gateway whose guest reaches the host's loopback.
fn gateway_with_loopback(now: Instant) -> Gateway {
    let options = SwitchOptions {
        host_loopback: true,
        ..SwitchOptions::default()
    };
    let mut gateway = Gateway::open(&options, now).unwrap();
    gateway.receive(&arp(ArpOperation::Request, addresses::GATEWAY), now);
    sent(&mut gateway);
    gateway
}

/// Lets the host's connection for the guest's port 5000 be answered; returns what the guest gets.
fn answer_pending(gateway: &mut Gateway, port: u16, now: Instant) -> Vec<Vec<u8>> {
    let key = FlowKey {
        guest: SocketAddrV4::new(GUEST, 5000),
        peer: SocketAddrV4::new(addresses::GATEWAY, port),
    };
    let both = Readiness {
        readable: true,
        writable: true,
    };
    gateway.ready(GatewayToken::Pending(key), both, now);
    gateway.service(now);
    sent(gateway)
}

#[test]
fn a_reset_and_a_new_connection_from_the_same_port_in_one_turn_work_300_of_300_times() {
    let now = Instant::now();
    let mut gateway = gateway_with_loopback(now);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut sequence = 1000;
    for round in 0..300 {
        let mut syn = tcp_repr(TcpControl::Syn, 5000, port);
        syn.seq_number = TcpSeqNumber(sequence);
        gateway.receive(&segment(&syn, addresses::GATEWAY), now);
        let answer = answer_pending(&mut gateway, port, now);
        let (control, theirs, ..) = parse_segment(&answer[0]);
        assert_eq!(control, TcpControl::Syn, "round {round}");
        server.accept().unwrap();
        assert_eq!(
            acknowledged(&answer[0]),
            TcpSeqNumber(sequence + 1),
            "round {round}"
        );
        // Every third is reset before it is open.
        if round % 3 != 0 {
            let mut ack = tcp_repr(TcpControl::None, 5000, port);
            ack.seq_number = TcpSeqNumber(sequence + 1);
            ack.ack_number = Some(theirs + 1);
            gateway.receive(&segment(&ack, addresses::GATEWAY), now);
            gateway.service(now);
            sent(&mut gateway);
        }
        let mut reset = tcp_repr(TcpControl::Rst, 5000, port);
        reset.seq_number = TcpSeqNumber(sequence + 1);
        gateway.receive(&segment(&reset, addresses::GATEWAY), now);
        sequence += 100_000;
    }
}

#[test]
fn an_attempt_that_is_begun_anew_before_the_host_answers_is_answered_with_its_own_number() {
    let now = Instant::now();
    let mut gateway = gateway_with_loopback(now);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    for sequence in [1000, 2000] {
        let mut syn = tcp_repr(TcpControl::Syn, 5000, port);
        syn.seq_number = TcpSeqNumber(sequence);
        gateway.receive(&segment(&syn, addresses::GATEWAY), now);
    }
    let answer = answer_pending(&mut gateway, port, now);
    assert_eq!(acknowledged(&answer[0]), TcpSeqNumber(2001));
}

#[test]
fn a_connection_over_the_limit_is_reset_at_once_and_the_directions_do_not_share_places() {
    let now = Instant::now();
    let options = SwitchOptions {
        forwards: vec!["0:7".parse().unwrap()],
        host_loopback: true,
        connections: ConnectionLimits {
            inwards: 1,
            outwards: 1,
        },
        ..SwitchOptions::default()
    };
    let mut gateway = Gateway::open(&options, now).unwrap();
    let (_client, _) = open_forwarded(&mut gateway, now);
    let mut second = TcpStream::connect(gateway.forwards()[0].host.as_str()).unwrap();
    let both = Readiness {
        readable: true,
        writable: true,
    };
    gateway.ready(GatewayToken::Forward(0), both, now);
    gateway.service(now);
    let error = std::io::Read::read(&mut second, &mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The guest's own place is free, and its second connection is reset at once.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let syn = |from| segment(&tcp_repr(TcpControl::Syn, from, port), addresses::GATEWAY);
    gateway.receive(&syn(5000), now);
    let answer = answer_pending(&mut gateway, port, now);
    assert_eq!(parse_segment(&answer[0]).0, TcpControl::Syn);
    gateway.receive(&syn(5001), now);
    gateway.service(now);
    let answer = sent(&mut gateway);
    assert_eq!(parse_segment(&answer[0]).0, TcpControl::Rst);
    let status = gateway.status();
    assert_eq!((status.tcp_inwards, status.tcp_outwards), (1, 1));
    assert_eq!(
        (status.tcp_inwards_refused, status.tcp_outwards_refused),
        (1, 1)
    );
    assert_eq!(gateway.warnings().len(), 2);
    assert!(gateway.warnings().is_empty());
}

/// What the gateway sends for the UDP flow from the guest's port 4000, once there is something.
fn answer_udp(gateway: &mut Gateway, peer: SocketAddrV4, now: Instant) -> Vec<u8> {
    let key = FlowKey {
        guest: SocketAddrV4::new(GUEST, 4000),
        peer,
    };
    let both = Readiness {
        readable: true,
        writable: true,
    };
    // Over loopback it is there, but nothing promises when.
    for _ in 0..1_000_000 {
        gateway.ready(GatewayToken::Udp(key), both, now);
        if let Some(frame) = sent(gateway).pop() {
            return frame;
        }
        std::thread::yield_now();
    }
    panic!("nothing ever came");
}

#[test]
fn rfc_792_a_refused_udp_port_and_a_closed_loopback_are_port_unreachable() {
    let now = Instant::now();
    let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    for open in [true, false] {
        let mut gateway = if open {
            gateway_with_loopback(now)
        } else {
            gateway(now)
        };
        let question = datagram(GUEST, addresses::GATEWAY, (4000, port), b"who is there?");
        gateway.receive(&question, now);
        let error = if open {
            answer_udp(
                &mut gateway,
                SocketAddrV4::new(addresses::GATEWAY, port),
                now,
            )
        } else {
            sent(&mut gateway).pop().unwrap()
        };
        let ip = Ipv4Packet::new_checked(&error[14..]).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr()), (addresses::GATEWAY, GUEST));
        // Type 3, code 3; then the header and eight octets of the datagram.
        assert_eq!(ip.payload()[..2], [3, 3]);
        assert_eq!(ip.payload()[28..36], question[34..42]);
    }
}

#[test]
fn rfc_2181_9_a_long_answer_of_dns_comes_cut_with_tc() {
    let now = Instant::now();
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = SwitchOptions {
        resolver: Some(server.local_addr().unwrap()),
        ..SwitchOptions::default()
    };
    let mut gateway = Gateway::open(&options, now).unwrap();
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend(b"\x07example\x00\x00\x10\x00\x01");
    gateway.receive(&datagram(GUEST, addresses::DNS, (4000, 53), &question), now);
    let mut answer = [0; 2000];
    let (length, from) = server.recv_from(&mut answer).unwrap();
    assert_eq!(answer[..length], question[..]);
    answer[2] = 0x81;
    server.send_to(&answer, from).unwrap();
    let frame = answer_udp(&mut gateway, SocketAddrV4::new(addresses::DNS, 53), now);
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert_eq!(udp.payload().len(), question.len());
    assert_eq!(udp.payload()[2], 0x83);
}

/// Frames that a gateway looks into, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    let mut with_options = tcp_repr(TcpControl::None, 7, 32_768);
    with_options.ack_number = Some(TcpSeqNumber(1));
    with_options.sack_permitted = true;
    with_options.window_scale = Some(7);
    with_options.payload = b"payload";
    vec![
        arp(ArpOperation::Request, addresses::GATEWAY),
        segment(&tcp_repr(TcpControl::Syn, 5000, 80), addresses::GATEWAY),
        segment(
            &tcp_repr(TcpControl::Syn, 5000, 80),
            Ipv4Addr::new(127, 0, 0, 1),
        ),
        segment(&tcp_repr(TcpControl::Rst, 7, 32_768), addresses::GATEWAY),
        segment(&tcp_repr(TcpControl::Fin, 7, 32_768), addresses::GATEWAY),
        segment(&with_options, addresses::GATEWAY),
        discover(),
        datagram(GUEST, addresses::DNS, (5353, 53), b"no question"),
        packet(IpProtocol::Icmp, GUEST, addresses::GATEWAY, 12, |payload| {
            payload[0] = 8
        }),
    ]
}

/// Repairs the checksums, so that damage gets past them.
fn repair(bytes: &mut [u8]) {
    let Ok(mut frame) = EthernetFrame::new_checked(bytes) else {
        return;
    };
    let Ok(mut ip) = Ipv4Packet::new_checked(frame.payload_mut()) else {
        return;
    };
    ip.fill_checksum();
    let (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    match ip.next_header() {
        IpProtocol::Tcp => {
            if let Ok(mut tcp) = TcpPacket::new_checked(ip.payload_mut()) {
                tcp.fill_checksum(&source, &destination);
            }
        }
        IpProtocol::Udp => {
            if let Ok(mut udp) = UdpPacket::new_checked(ip.payload_mut()) {
                udp.fill_checksum(&source, &destination);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_frame_brings_the_gateway_down(
        damages in prop::collection::vec(
            (0usize..9, prop::collection::vec((12usize..320, any::<u8>()), 0..6), any::<bool>()),
            1..40,
        ),
    ) {
        let now = Instant::now();
        let mut gateway = gateway(now);
        let (_client, port) = open_forwarded(&mut gateway, now);
        prop_assert!(port >= 32_768);
        let seeds = seeds();
        for (step, (seed, damage, repaired)) in damages.into_iter().enumerate() {
            let mut frame = seeds[seed].clone();
            for (place, byte) in damage {
                // Addresses stay inside the machine: nothing is sent to the world.
                let index = place % frame.len();
                if !(26..34).contains(&index) {
                    frame[index] = byte;
                }
            }
            if repaired {
                repair(&mut frame);
            }
            let now = now + Duration::from_millis(50 * step as u64);
            gateway.receive(&frame, now);
            gateway.service(now);
            gateway.delay(now);
            gateway.outgoing().clear();
        }
    }
}
