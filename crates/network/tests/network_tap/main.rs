//! The TAP attachment, and the gateway with Linux's own TCP as the guest's, in a network namespace
//! of their own. Making one needs privileges: without them the tests say so and end.

#[path = "../network/guest.rs"]
#[allow(
    dead_code,
    reason = "shared with the other tests, which use more of it"
)]
mod guest;
#[path = "../network/running_switch.rs"]
mod running_switch;

use guest::{ADDRESS, GATEWAY, Guest, MAC, PATIENCE, announcement};
use network::{NetworkAttachment, SwitchAddress, Tap};
use running_switch::RunningSwitch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Ipv4Address};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "UNDERSTUDY_TEST_NAMESPACE";

/// Runs `body` of the test `name` in a namespace of its own.
fn in_own_namespace(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let possible = Command::new("unshare")
        .args(["-n", "ip", "link", "set", "lo", "up"])
        .output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no network namespace can be made here (root, unshare and ip needed)");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg("-n")
        .arg(program)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed inside its namespace");
}

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn wait_readable(attachments: &[&NetworkAttachment]) {
    if attachments.iter().any(|attachment| attachment.has_frame()) {
        return;
    }
    let mut set: Vec<PollFd<'_>> = attachments
        .iter()
        .map(|attachment| {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, attachment.wants_write());
            PollFd::from_borrowed_fd(attachment.fd(), flags)
        })
        .collect();
    poll(
        &mut set,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        }),
    )
    .unwrap();
}

#[test]
fn a_tap_device_carries_frames_to_and_from_the_host() {
    in_own_namespace("a_tap_device_carries_frames_to_and_from_the_host", || {
        let mut tap = NetworkAttachment::tap("us0").unwrap();
        let mut question = vec![0xff; 6];
        question.extend(MAC);
        question.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        question.extend(MAC);
        question.extend([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 1]);
        // The device is down: the frame is dropped, as on a cable.
        tap.send(&question).unwrap();
        ip("addr add 10.0.2.1/24 dev us0");
        ip("link set us0 up");
        let error = Tap::open("us0").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(error.to_string().contains("\"us0\""), "{error}");
        tap.send(&question).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match tap.receive().unwrap() {
                Some(frame) if frame[12..14] == [8, 6] && frame[21] == 2 => {
                    assert_eq!(frame[..6], MAC);
                    assert_eq!(frame[28..32], [10, 0, 2, 1]);
                    break;
                }
                Some(_) => {}
                None => wait_readable(&[&tap]),
            }
            assert!(Instant::now() < deadline, "the host never answered");
        }
    });
}

/// What a replica does between the switch and a Linux that is the guest, until `end`: carries
/// frames. For each message in `kills` it loses the next frame for the guest and its port, goes live
/// on another port after a while, and confirms.
fn replica(
    address: &SwitchAddress,
    mut tap: NetworkAttachment,
    kills: &Receiver<Duration>,
    killed: &Sender<()>,
) {
    let connect = || NetworkAttachment::switch(&address.to_string(), None, None).unwrap();
    let mut port = connect();
    let mut takeover = None;
    loop {
        match kills.try_recv() {
            Ok(pause) => takeover = Some(pause),
            Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            Err(std::sync::mpsc::TryRecvError::Empty) => {}
        }
        wait_readable(&[&port, &tap]);
        while let Some(frame) = tap.receive().unwrap() {
            port.send(&frame).unwrap();
        }
        while let Some(frame) = port.receive().unwrap() {
            let Some(pause) = takeover.take() else {
                tap.send(&frame).unwrap();
                continue;
            };
            drop(std::mem::replace(&mut port, connect()));
            thread::sleep(pause);
            port.send(&announcement()).unwrap();
            killed.send(()).unwrap();
        }
        port.flush().unwrap();
    }
}

#[test]
fn an_open_connection_of_linux_survives_twenty_failovers() {
    in_own_namespace(
        "an_open_connection_of_linux_survives_twenty_failovers",
        || {
            let switch = RunningSwitch::start(&[7], |_| {});
            let tap = NetworkAttachment::tap("us0").unwrap();
            let [a, b, c, d, e, f] = MAC;
            ip(&format!(
                "link set us0 address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} up"
            ));
            ip(&format!("addr add {ADDRESS}/24 dev us0"));
            ip("link set lo up");
            let listener = TcpListener::bind((ADDRESS, 7)).unwrap();
            let server = thread::spawn(move || {
                let (mut client, _) = listener.accept().unwrap();
                client.set_nodelay(true).unwrap();
                let mut buffer = [0; 4096];
                loop {
                    match client.read(&mut buffer).unwrap() {
                        0 => return,
                        length => client.write_all(&buffer[..length]).unwrap(),
                    }
                }
            });
            let (kill, kills) = channel();
            let (confirm, killed) = channel();
            let address = switch.address.clone();
            let replica = thread::spawn(move || replica(&address, tap, &kills, &confirm));

            let mut client = TcpStream::connect(switch.forward(0)).unwrap();
            client.set_nodelay(true).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let takeover = Duration::from_millis(100);
            let mut longest = Duration::ZERO;
            for number in 0..2000_u32 {
                if number % 100 == 50 {
                    kill.send(takeover).unwrap();
                }
                let asked = Instant::now();
                client.write_all(&number.to_be_bytes()).unwrap();
                let mut answer = [0; 4];
                client.read_exact(&mut answer).unwrap();
                assert_eq!(u32::from_be_bytes(answer), number);
                longest = longest.max(asked.elapsed());
            }
            assert_eq!(killed.try_iter().count(), 20);
            println!("longest wait with a takeover of {takeover:?}: {longest:?}");
            drop(client);
            server.join().unwrap();
            drop(kill);
            replica.join().unwrap();
        },
    );
}

#[test]
fn rfc_792_a_guest_pings_the_world_where_the_host_lets_the_switch_do_so() {
    in_own_namespace(
        "rfc_792_a_guest_pings_the_world_where_the_host_lets_the_switch_do_so",
        || {
            const WORLD: Ipv4Address = Ipv4Address::new(192, 0, 2, 7);
            const IDENTIFIER: u16 = 0x4242;
            ip("link set lo up");
            ip("addr add 192.0.2.7/32 dev lo");
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
            let switch = RunningSwitch::start(&[], |_| {});
            let mut guest = Guest::with_address(&switch.address);
            let buffer =
                || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 8 << 10]);
            let mut socket = icmp::Socket::new(buffer(), buffer());
            socket.bind(icmp::Endpoint::Ident(IDENTIFIER)).unwrap();
            let handle = guest.sockets.add(socket);
            let data: Vec<u8> = (0..1400_u32).map(|i| i as u8).collect();
            for seq_no in 0..3 {
                let request = Icmpv4Repr::EchoRequest {
                    ident: IDENTIFIER,
                    seq_no,
                    data: &data,
                };
                let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(handle);
                let room = socket.send(request.buffer_len(), WORLD.into()).unwrap();
                request.emit(
                    &mut Icmpv4Packet::new_unchecked(room),
                    &ChecksumCapabilities::default(),
                );
                guest.run_until("an answer to a ping", |guest| {
                    let socket = guest.sockets.get_mut::<icmp::Socket<'_>>(handle);
                    let Ok((bytes, from)) = socket.recv() else {
                        return false;
                    };
                    assert_eq!(from, WORLD.into());
                    let reply = Icmpv4Repr::EchoReply {
                        ident: IDENTIFIER,
                        seq_no,
                        data: &data,
                    };
                    let packet = Icmpv4Packet::new_checked(bytes).unwrap();
                    let checksums = ChecksumCapabilities::default();
                    assert_eq!(Icmpv4Repr::parse(&packet, &checksums).unwrap(), reply);
                    true
                });
            }
        },
    );
}

#[test]
fn rfc_791_linux_and_the_gateway_understand_each_others_fragments() {
    in_own_namespace(
        "rfc_791_linux_and_the_gateway_understand_each_others_fragments",
        || {
            ip("link set lo up");
            let switch = RunningSwitch::start(&[], |options| {
                options.host_loopback = true;
                options.forwards = vec!["udp:0:9".parse().unwrap()];
            });
            let tap = NetworkAttachment::tap("us0").unwrap();
            let [a, b, c, d, e, f] = MAC;
            ip(&format!(
                "link set us0 address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} up"
            ));
            ip(&format!("addr add {ADDRESS}/24 dev us0"));
            let (stop, stopped) = channel();
            let (confirm, _killed) = channel();
            let address = switch.address.clone();
            let replica = thread::spawn(move || replica(&address, tap, &stopped, &confirm));

            let socket = |address: (Ipv4Address, u16)| {
                let socket = UdpSocket::bind(address).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            };
            let longest: Vec<u8> = (0..65_507_u32).map(|i| (i * 13) as u8).collect();
            let mut buffer = vec![0; 70_000];
            let mut exchange = |from: &UdpSocket, to: &UdpSocket| {
                from.send(&longest).unwrap();
                let (length, sender) = to.recv_from(&mut buffer).unwrap();
                assert!(buffer[..length] == longest[..]);
                to.send_to(&buffer[..length], sender).unwrap();
                let length = from.recv(&mut buffer).unwrap();
                assert!(buffer[..length] == longest[..]);
            };
            // From the guest, whose kernel is Linux, to a server of the host.
            let server = socket((Ipv4Address::LOCALHOST, 0));
            let guest = socket((ADDRESS, 0));
            guest
                .connect((GATEWAY, server.local_addr().unwrap().port()))
                .unwrap();
            exchange(&guest, &server);
            // From a client of the host to a server of the guest.
            let server = socket((ADDRESS, 9));
            let client = socket((Ipv4Address::LOCALHOST, 0));
            client.connect(switch.forward(0)).unwrap();
            exchange(&client, &server);
            drop(stop);
            replica.join().unwrap();
        },
    );
}
