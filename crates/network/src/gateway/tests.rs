//! The gateway against frames that are made by hand, at times that are chosen.

use super::*;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetRepr, Icmpv4Message, Icmpv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, TcpTimestampRepr, UdpRepr,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Nobody's (RFC 5737).
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const BOTH: Readiness = Readiness {
    readable: true,
    writable: true,
};

fn gateway(now: Instant) -> Gateway {
    let options = SwitchOptions {
        forwards: vec!["0:7".parse().unwrap(), "udp:0:7".parse().unwrap()],
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
        dst_addr: Subnet::default().gateway_mac(),
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
    gateway.receive(&arp(ArpOperation::Request, GATEWAY), now);
    gateway.ready(GatewayToken::Forward(0), BOTH, now);
    gateway.service(now);
    let syn = sent(gateway).pop().unwrap();
    let (control, sequence, port, _) = parse_segment(&syn);
    assert_eq!(control, TcpControl::Syn);
    let mut answer = tcp_repr(TcpControl::Syn, 7, port);
    answer.ack_number = Some(sequence + 1);
    gateway.receive(&segment(&answer, GATEWAY), now);
    gateway.service(now);
    sent(gateway);
    (client, port)
}

/// Lets a client's request arrive in the gateway, and returns the segments that leave it.
fn request(gateway: &mut Gateway, client: &mut TcpStream, now: Instant) -> Vec<Vec<u8>> {
    client.write_all(b"INCR counter\r\n").unwrap();
    // Over loopback the bytes are there, but the standard library does not promise when.
    for _ in 0..10_000 {
        gateway.ready(GatewayToken::Connection(0), BOTH, now);
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

/// What the gateway sends to a guest in the seconds up to `until`, with its questions for the guest's
/// MAC address answered; `answers` acknowledges what is sent on the connection to `port`.
fn over_a_long_time(
    gateway: &mut Gateway,
    (from, until): (Instant, Instant),
    answers: Option<u16>,
) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    let mut now = from;
    while now < until {
        now += Duration::from_secs(1);
        gateway.service(now);
        for frame in sent(gateway) {
            let ethernet = EthernetFrame::new_unchecked(&frame[..]);
            if ethernet.ethertype() == EthernetProtocol::Arp {
                gateway.receive(&arp(ArpOperation::Reply, GATEWAY), now);
                continue;
            }
            if let Some(port) = answers {
                let (_, sequence, _, data) = parse_segment(&frame);
                let mut answer = tcp_repr(TcpControl::None, 7, port);
                answer.seq_number = TcpSeqNumber(1001);
                // A question is the octet before the next one, again (RFC 9293, 3.8.4).
                answer.ack_number = Some(sequence + 1 + data.len().saturating_sub(1));
                gateway.receive(&segment(&answer, GATEWAY), now);
            }
            segments.push(frame);
        }
    }
    segments
}

#[test]
fn rfc_9293_a_silent_guest_is_asked_after_two_minutes_and_its_connection_ends_after_the_user_timeout()
 {
    let start = Instant::now();
    let mut gateway = gateway(start);
    let (mut client, _) = open_forwarded(&mut gateway, start);
    let at = |seconds| start + Duration::from_secs(seconds);
    let before = over_a_long_time(&mut gateway, (start, at(118)), None);
    assert!(
        before.is_empty(),
        "asked after less than two minutes: {before:?}"
    );
    let asked = over_a_long_time(&mut gateway, (at(118), at(124)), None);
    assert!(!asked.is_empty(), "not asked after two minutes");
    assert_eq!(gateway.status().tcp_connections, 1);
    over_a_long_time(&mut gateway, (at(124), at(1_100)), None);
    assert_eq!(
        gateway.status().tcp_connections,
        0,
        "its place is not given back"
    );
    let ended = client.read(&mut [0; 1]);
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
}

#[test]
fn rfc_9293_an_idle_guest_that_answers_keeps_its_connection() {
    let start = Instant::now();
    let mut gateway = gateway(start);
    let (mut client, port) = open_forwarded(&mut gateway, start);
    let hour = start + Duration::from_secs(3_600);
    let asked = over_a_long_time(&mut gateway, (start, hour), Some(port));
    assert!(asked.len() >= 25, "asked {} times in an hour", asked.len());
    assert_eq!(gateway.status().tcp_connections, 1);
    let frames = request(&mut gateway, &mut client, hour);
    assert!(!frames.is_empty());
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
    gateway.receive(&arp(ArpOperation::Request, GATEWAY), now);
    sent(&mut gateway);
    let mut stray = tcp_repr(TcpControl::None, 7, 40_000);
    stray.ack_number = Some(TcpSeqNumber(1005));
    for destination in [GATEWAY, Ipv4Addr::new(192, 0, 2, 1)] {
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

/// What the guest answers on a forwarded connection, with everything acknowledged that it got.
fn answer(sequence: i32, got: &[u8], port: u16, payload: &'static [u8]) -> Vec<u8> {
    let (_, theirs, _, data) = parse_segment(got);
    let mut answer = tcp_repr(TcpControl::None, 7, port);
    answer.seq_number = TcpSeqNumber(sequence);
    answer.ack_number = Some(theirs + data.len());
    answer.payload = payload;
    segment(&answer, GATEWAY)
}

#[test]
fn rfc_1122_4_2_3_2_an_acknowledgement_goes_with_the_next_request_or_alone_after_1_ms() {
    const FULL: &[u8] = &[0; 1460];
    let now = Instant::now();
    let mut gateway = gateway(now);
    let (mut client, port) = open_forwarded(&mut gateway, now);
    let first = request(&mut gateway, &mut client, now);
    gateway.receive(&answer(1001, &first[0], port, b":1\r\n"), now);
    gateway.service(now);
    assert!(sent(&mut gateway).is_empty(), "it did not wait");
    let second = request(&mut gateway, &mut client, now);
    assert_eq!(second.len(), 1);
    assert_eq!(acknowledged(&second[0]), TcpSeqNumber(1005));
    assert_eq!(parse_segment(&second[0]).3, b"INCR counter\r\n");

    // Nothing to go with: alone, when it is due.
    gateway.receive(&answer(1005, &second[0], port, b":2\r\n"), now);
    gateway.service(now);
    assert!(sent(&mut gateway).is_empty(), "it did not wait");
    assert_eq!(gateway.delay(now), Some(Duration::from_millis(1)));
    let due = now + Duration::from_millis(1);
    gateway.service(due);
    let alone = sent(&mut gateway);
    assert_eq!(alone.len(), 1);
    assert_eq!(acknowledged(&alone[0]), TcpSeqNumber(1009));
    assert_eq!(parse_segment(&alone[0]).3, b"");

    // A second full segment waits for nothing.
    gateway.receive(&answer(1009, &second[0], port, FULL), due);
    gateway.receive(&answer(1009 + 1460, &second[0], port, FULL), due);
    gateway.service(due);
    let both = sent(&mut gateway);
    assert_eq!(
        acknowledged(both.last().unwrap()),
        TcpSeqNumber(1009 + 2920)
    );
}

/// A gateway whose guest reaches the host's loopback.
fn gateway_with_loopback(now: Instant) -> Gateway {
    let options = SwitchOptions {
        host_loopback: true,
        ..SwitchOptions::default()
    };
    let mut gateway = Gateway::open(&options, now).unwrap();
    gateway.receive(&arp(ArpOperation::Request, GATEWAY), now);
    sent(&mut gateway);
    gateway
}

/// Lets the host's connection for the guest's port 5000 be answered; returns what the guest gets.
fn answer_pending(gateway: &mut Gateway, port: u16, now: Instant) -> Vec<Vec<u8>> {
    let key = FlowKey {
        guest: SocketAddrV4::new(GUEST, 5000),
        peer: SocketAddrV4::new(GATEWAY, port),
    };
    gateway.ready(GatewayToken::Pending(key), BOTH, now);
    gateway.service(now);
    sent(gateway)
}

/// The connection that the gateway made to this server of the host: a test in which it made none ends.
fn accepted(server: &TcpListener) -> TcpStream {
    let mut set = PollSet::new();
    set.add(server.as_fd(), (), true, false);
    let ready = set.wait(Some(Duration::from_secs(60))).unwrap();
    assert!(!ready.is_empty(), "nobody connects to the host's server");
    server.accept().unwrap().0
}

#[test]
fn a_reset_and_a_new_connection_from_the_same_port_in_one_turn_work_300_of_300_times() {
    let now = Instant::now();
    let mut gateway = gateway_with_loopback(now);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut sequence = 1000;
    for round in 0..300 {
        let mut syn = tcp_repr(TcpControl::Syn, 5000, port);
        syn.seq_number = TcpSeqNumber(sequence);
        gateway.receive(&segment(&syn, GATEWAY), now);
        let answer = answer_pending(&mut gateway, port, now);
        let (control, theirs, ..) = parse_segment(&answer[0]);
        assert_eq!(control, TcpControl::Syn, "round {round}");
        accepted(&server);
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
            gateway.receive(&segment(&ack, GATEWAY), now);
            gateway.service(now);
            sent(&mut gateway);
        }
        let mut reset = tcp_repr(TcpControl::Rst, 5000, port);
        reset.seq_number = TcpSeqNumber(sequence + 1);
        gateway.receive(&segment(&reset, GATEWAY), now);
        sequence += 100_000;
    }
}

#[test]
fn an_attempt_that_is_begun_anew_before_the_host_answers_is_answered_with_its_own_number() {
    let now = Instant::now();
    let mut gateway = gateway_with_loopback(now);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    for sequence in [1000, 2000] {
        let mut syn = tcp_repr(TcpControl::Syn, 5000, port);
        syn.seq_number = TcpSeqNumber(sequence);
        gateway.receive(&segment(&syn, GATEWAY), now);
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
    gateway.ready(GatewayToken::Forward(0), BOTH, now);
    gateway.service(now);
    let error = std::io::Read::read(&mut second, &mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The guest's own place is free, and its second connection is reset at once.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let syn = |from| segment(&tcp_repr(TcpControl::Syn, from, port), GATEWAY);
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
fn answers_udp(gateway: &mut Gateway, peer: SocketAddrV4, now: Instant) -> Vec<Vec<u8>> {
    let key = FlowKey {
        guest: SocketAddrV4::new(GUEST, 4000),
        peer,
    };
    // Over loopback it is there, but nothing promises when.
    for _ in 0..1_000_000 {
        gateway.ready(GatewayToken::Udp(key), BOTH, now);
        let frames = sent(gateway);
        if !frames.is_empty() {
            return frames;
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
        let question = datagram(GUEST, GATEWAY, (4000, port), b"who is there?");
        gateway.receive(&question, now);
        let error = if open {
            answers_udp(&mut gateway, SocketAddrV4::new(GATEWAY, port), now).remove(0)
        } else {
            sent(&mut gateway).pop().unwrap()
        };
        let ip = Ipv4Packet::new_checked(&error[14..]).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY, GUEST));
        // Type 3, code 3; then the header and eight octets of the datagram.
        assert_eq!(ip.payload()[..2], [3, 3]);
        assert_eq!(ip.payload()[28..36], question[34..42]);
    }
}

/// The fragments of a frame that is too long for a cable, from the guest.
fn fragments(frame: &[u8]) -> Vec<Vec<u8>> {
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let pieces = ip.payload().chunks(1480);
    let count = pieces.len();
    let fragment = |(index, piece): (usize, &[u8])| {
        let mut frame = frame[..34].to_vec();
        frame.extend_from_slice(piece);
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        packet.set_total_len(20 + piece.len() as u16);
        packet.set_ident(77);
        packet.set_dont_frag(false);
        packet.set_more_frags(index + 1 < count);
        packet.set_frag_offset(1480 * index as u16);
        packet.fill_checksum();
        frame
    };
    pieces.enumerate().map(fragment).collect()
}

/// The payload of the packet whose fragments these frames are.
fn reassembled(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for frame in frames {
        assert!(frame.len() <= 1514, "{}", frame.len());
        let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(usize::from(ip.frag_offset()), payload.len());
        payload.extend_from_slice(ip.payload());
    }
    payload
}

#[test]
fn rfc_791_the_longest_datagrams_pass_both_ways_in_fragments() {
    let now = Instant::now();
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut gateway = gateway_with_loopback(now);
    // What a header of IP and one of UDP leave of 65,535 octets.
    let long: Vec<u8> = (0..65_507u32).map(|i| (i * 31) as u8).collect();
    let question = datagram(GUEST, GATEWAY, (4000, port), &long);
    for fragment in fragments(&question).iter().rev() {
        gateway.receive(fragment, now);
    }
    let mut buffer = vec![0; 70_000];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert!(buffer[..length] == long[..]);
    buffer[..length].reverse();
    server.send_to(&buffer[..length], from).unwrap();
    let frames = answers_udp(&mut gateway, SocketAddrV4::new(GATEWAY, port), now);
    let answer = reassembled(&frames);
    let udp = UdpPacket::new_checked(&answer[..]).unwrap();
    assert!(udp.verify_checksum(&GATEWAY.into(), &GUEST.into()));
    assert!(udp.payload() == &buffer[..length]);
}

#[test]
fn rfc_6891_a_long_answer_of_dns_comes_whole() {
    let now = Instant::now();
    let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = SwitchOptions {
        resolver: Some(server.local_addr().unwrap()),
        ..SwitchOptions::default()
    };
    let mut gateway = Gateway::open(&options, now).unwrap();
    gateway.receive(&datagram(GUEST, DNS, (4000, 53), b"which?"), now);
    let mut question = [0; 100];
    let (_, from) = server.recv_from(&mut question).unwrap();
    let answer = vec![0x5a; 4096];
    server.send_to(&answer, from).unwrap();
    let frames = answers_udp(&mut gateway, SocketAddrV4::new(DNS, 53), now);
    let datagram = reassembled(&frames);
    assert_eq!(
        UdpPacket::new_checked(&datagram[..]).unwrap().payload(),
        answer
    );
}

/// An echo request from the guest.
fn echo_request(destination: Ipv4Addr, data: &[u8]) -> Vec<u8> {
    packet(
        IpProtocol::Icmp,
        GUEST,
        destination,
        8 + data.len(),
        |payload| {
            payload[0] = 8;
            payload[4..8].copy_from_slice(&[0x12, 0x34, 0, 1]);
            payload[8..].copy_from_slice(data);
            Icmpv4Packet::new_unchecked(payload).fill_checksum();
        },
    )
}

#[test]
fn rfc_792_the_gateway_answers_pings_of_any_length_to_its_own_addresses() {
    let now = Instant::now();
    let mut gateway = gateway(now);
    for (address, length) in [(GATEWAY, 56), (DNS, 0), (GATEWAY, 5000), (GATEWAY, 65_507)] {
        let data: Vec<u8> = (0..length as u32).map(|i| i as u8).collect();
        for fragment in fragments(&echo_request(address, &data)) {
            gateway.receive(&fragment, now);
        }
        let answer = reassembled(&sent(&mut gateway));
        let echo = Icmpv4Packet::new_checked(&answer[..]).unwrap();
        assert!(echo.verify_checksum(), "{length}");
        assert_eq!(echo.msg_type(), Icmpv4Message::EchoReply);
        assert_eq!((echo.echo_ident(), echo.echo_seq_no()), (0x1234, 1));
        assert!(echo.data() == &data[..], "{length}");
    }
}

#[test]
fn where_the_host_has_no_icmp_sockets_the_guest_is_told_and_the_operator_once() {
    let now = Instant::now();
    let forbidden = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::empty(),
        Some(rustix::net::ipproto::ICMP),
    );
    if forbidden.is_ok() {
        // Pings to the world are tried in a namespace of its own (`network_tap`).
        eprintln!("skipped: this host gives everybody ICMP sockets");
        return;
    }
    let mut gateway = gateway(now);
    for _ in 0..3 {
        gateway.receive(&echo_request(WORLD, b"hello"), now);
        let frames = sent(&mut gateway);
        let ip = Ipv4Packet::new_checked(&frames[0][14..]).unwrap();
        // Type 3, code 13 (RFC 1812, 5.2.7.1): communication administratively prohibited.
        assert_eq!(ip.payload()[..2], [3, 13]);
    }
    let warnings = gateway.warnings();
    assert_eq!(warnings[0].0, "ping_unavailable");
    assert!(
        warnings[0].1.contains("ping_group_range"),
        "{}",
        warnings[0].1
    );
    assert!(gateway.warnings().is_empty());
}

/// What the gateway sends for the client's datagrams, once there is something.
fn forwarded(gateway: &mut Gateway, now: Instant) -> Vec<Vec<u8>> {
    // Over loopback it is there, but nothing promises when.
    for _ in 0..1_000_000 {
        gateway.ready(GatewayToken::UdpForward(0), BOTH, now);
        let frames = sent(gateway);
        if !frames.is_empty() {
            return frames;
        }
        std::thread::yield_now();
    }
    panic!("nothing ever came");
}

#[test]
fn rfc_826_a_clients_first_datagram_waits_until_the_guest_has_said_where_it_is() {
    let now = Instant::now();
    let mut gateway = gateway(now);
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(gateway.forwards()[1].host.as_str()).unwrap();
    let long: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    client.send(&long).unwrap();
    let question = forwarded(&mut gateway, now);
    assert_eq!(question.len(), 1);
    let ethernet = EthernetFrame::new_checked(&question[0][..]).unwrap();
    assert_eq!(ethernet.ethertype(), EthernetProtocol::Arp);
    gateway.receive(&arp(ArpOperation::Reply, GATEWAY), now);
    let frames = sent(&mut gateway);
    assert_eq!(EthernetFrame::new_unchecked(&frames[0][..]).dst_addr(), MAC);
    let arrived = reassembled(&frames);
    let udp = UdpPacket::new_checked(&arrived[..]).unwrap();
    assert!(udp.dst_port() == 7 && udp.payload() == long);
    // The answer finds back, from the port to which the client had written.
    let answer = datagram(GUEST, GATEWAY, (7, udp.src_port()), b"answer");
    gateway.receive(&answer, now);
    let mut buffer = [0; 100];
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..length], *b"answer");
    // A second client is another flow, and the first one goes on with its own.
    let second = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    second.connect(gateway.forwards()[1].host.as_str()).unwrap();
    second.send(b"I").unwrap();
    let frames = forwarded(&mut gateway, now);
    let ip = Ipv4Packet::new_checked(&frames[0][14..]).unwrap();
    assert_ne!(
        UdpPacket::new_unchecked(ip.payload()).src_port(),
        udp.src_port()
    );
    assert_eq!(gateway.status().udp_flows, 2);
    assert_eq!(gateway.forwards()[1].accepted, 2);
    gateway.service(now + Duration::from_secs(120));
    assert_eq!(gateway.status().udp_flows, 0);
}

#[test]
fn forwards_and_leases_outside_the_guests_network_are_refused_with_its_name() {
    let refused = |change: &dyn Fn(&mut SwitchOptions)| {
        let mut options = SwitchOptions {
            subnet: "172.20.0.0/16".parse().unwrap(),
            ..SwitchOptions::default()
        };
        change(&mut options);
        let gateway = Gateway::open(&options, Instant::now());
        gateway.err().unwrap().to_string()
    };
    for guest in ["10.0.2.15", "172.20.0.2", "172.20.0.3", "172.20.255.255"] {
        let forward = format!("0={guest}:1");
        let error = refused(&|options| options.forwards = vec![forward.parse().unwrap()]);
        assert!(
            error.contains(guest) && error.contains("172.20.0.0/16"),
            "{error}"
        );
        let lease = format!("52:54:00:12:34:56={guest}");
        let error = refused(&|options| options.static_leases = vec![lease.parse().unwrap()]);
        assert!(
            error.contains(guest) && error.contains("172.20.0.0/16"),
            "{error}"
        );
    }
}

/// Frames that a gateway looks into, to be damaged.
fn seeds() -> Vec<Vec<u8>> {
    let mut with_options = tcp_repr(TcpControl::None, 7, 32_768);
    with_options.ack_number = Some(TcpSeqNumber(1));
    with_options.sack_permitted = true;
    with_options.window_scale = Some(7);
    with_options.payload = b"payload";
    vec![
        arp(ArpOperation::Request, GATEWAY),
        segment(&tcp_repr(TcpControl::Syn, 5000, 80), GATEWAY),
        segment(
            &tcp_repr(TcpControl::Syn, 5000, 80),
            Ipv4Addr::new(127, 0, 0, 1),
        ),
        segment(&tcp_repr(TcpControl::Rst, 7, 32_768), GATEWAY),
        segment(&tcp_repr(TcpControl::Fin, 7, 32_768), GATEWAY),
        segment(&with_options, GATEWAY),
        discover(),
        datagram(GUEST, DNS, (5353, 53), b"no question"),
        echo_request(GATEWAY, b"ping"),
        fragments(&datagram(GUEST, GATEWAY, (4000, 9), &[1; 3000])).remove(0),
        fragments(&datagram(GUEST, GATEWAY, (4000, 9), &[1; 3000])).remove(2),
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
            (0usize..11, prop::collection::vec((12usize..320, any::<u8>()), 0..6), any::<bool>()),
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
