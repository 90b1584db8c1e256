//! The switch and its gateway, over real sockets.

mod guest;
mod running_switch;

use guest::{ADDRESS, GATEWAY, Guest, MAC, PATIENCE, announcement};
use keys::{Keys, LetIn, Purpose, Site, Validity};
use network::{Switch, SwitchAddress, SwitchOptions, SwitchPort, SwitchStatus};
use running_switch::RunningSwitch;
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::wire::Ipv4Address;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// The hosts of a site.
struct Hosts(tempfile::TempDir);

impl Hosts {
    fn new() -> Hosts {
        let directory = tempfile::tempdir().unwrap();
        Site::init(directory.path()).unwrap();
        Hosts(directory)
    }

    /// The keys of one of them.
    fn keys(&self, host: &str) -> Keys {
        let site = Site::open(self.0.path()).unwrap();
        let directory = site
            .issue(&host.parse().unwrap(), Validity::days(9))
            .unwrap();
        Keys::open(&directory, Purpose::Switch, LetIn::Site).unwrap()
    }
}

/// The next frame on a port.
fn receive(port: &mut SwitchPort) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(frame) = port.receive().unwrap() {
            return frame;
        }
        assert!(Instant::now() < deadline, "no frame");
        wait_readable(port);
    }
}

fn wait_readable(port: &SwitchPort) {
    let mut set = [rustix::event::PollFd::from_borrowed_fd(
        port.fd(),
        rustix::event::PollFlags::IN,
    )];
    let timeout = rustix::event::Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut set, Some(&timeout)).unwrap();
}

fn frame(to: [u8; 6], from: [u8; 6], payload: u8) -> Vec<u8> {
    let mut frame = vec![payload; 100];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame
}

/// Bytes that show where they come from.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

#[test]
fn two_ports_exchange_frames_and_garbage_closes_only_its_own_port() {
    let hosts = Hosts::new();
    let switch = RunningSwitch::start(&[], |options| {
        options.gateway = false;
        options.listen.push("tcp:127.0.0.1:0".parse().unwrap());
        options.keys = Some(hosts.keys("switch"));
    });
    let tcp: SwitchAddress = switch.status.listen[1].parse().unwrap();
    let keys = hosts.keys("hosta");
    let mut first = SwitchPort::connect(&switch.address, None).unwrap();
    let mut second = SwitchPort::connect(&tcp, Some(&keys)).unwrap();
    let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    // The port that connected last speaks first: then the other one is connected, too.
    second.send(&frame([0xff; 6], b, 1)).unwrap();
    assert_eq!(receive(&mut first), frame([0xff; 6], b, 1));
    first.send(&frame(b, a, 2)).unwrap();
    assert_eq!(receive(&mut second), frame(b, a, 2));

    let SwitchAddress::Unix(path) = &switch.address else {
        panic!("{}", switch.address)
    };
    let mut garbage = UnixStream::connect(path).unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(garbage.read(&mut [0; 1]), Ok(0) | Err(_)));

    first.send(&frame(b, a, 3)).unwrap();
    assert_eq!(receive(&mut second), frame(b, a, 3));
}

#[test]
fn whoever_connected_on_this_host_first_hears_what_a_member_of_elsewhere_says_after_it() {
    let hosts = Hosts::new();
    let keys = hosts.keys("hosta");
    let broadcast = frame([0xff; 6], [2, 0, 0, 0, 0, 2], 1);
    let listen_also = |options: &mut SwitchOptions| {
        options.gateway = false;
        options.listen.push("tcp:127.0.0.1:0".parse().unwrap());
        options.keys = Some(hosts.keys("switch"));
    };
    // The thread at the door lets members in while the event loop has no time: both come at once for it.
    let (_switch, (mut first, _second)) = RunningSwitch::start_late(&[], listen_also, |status| {
        let [unix, tcp] = [0, 1].map(|index| status.listen[index].parse().unwrap());
        let first = SwitchPort::connect(&unix, None).unwrap();
        let mut second = SwitchPort::connect(&tcp, Some(&keys)).unwrap();
        second.send(&broadcast).unwrap();
        (first, second)
    });
    assert_eq!(receive(&mut first), broadcast);
}

#[test]
fn a_guest_gets_its_address_by_dhcp() {
    let switch = RunningSwitch::start(&[], |_| {});
    let mut guest = Guest::connect(&switch.address);
    let handle = guest.sockets.add(dhcpv4::Socket::new());
    let mut configuration = None;
    guest.run_until("a lease", |guest| {
        let socket = guest.sockets.get_mut::<dhcpv4::Socket<'_>>(handle);
        if let Some(dhcpv4::Event::Configured(given)) = socket.poll() {
            let servers = given.dns_servers.to_vec();
            configuration = Some((given.address, given.router, servers));
        }
        configuration.is_some()
    });
    let (address, router, servers) = configuration.unwrap();
    assert_eq!(address.to_string(), "10.0.2.15/24");
    assert_eq!(router, Some(GATEWAY));
    assert_eq!(servers, [Ipv4Address::new(10, 0, 2, 3)]);
}

/// Asks a UDP server of the host through `destination` and returns the answer.
fn ask(destination: impl Fn(SocketAddr) -> (Ipv4Address, u16)) -> Vec<u8> {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = server.local_addr().unwrap();
    let switch = RunningSwitch::start(&[], |options| {
        options.resolver = Some(address);
        options.host_loopback = true;
    });
    let answerer = thread::spawn(move || {
        let mut buffer = [0; 2000];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        let answer: Vec<u8> = buffer[..length].iter().rev().copied().collect();
        server.send_to(&answer, from).unwrap();
    });
    let mut guest = Guest::with_address(&switch.address);
    let handle = guest.udp_socket(4000);
    guest
        .udp(handle)
        .send_slice(b"who is there?", destination(address))
        .unwrap();
    let mut answer = Vec::new();
    guest.run_until("an answer", |guest| {
        let expected = destination(address);
        if let Ok((bytes, from)) = guest.udp(handle).recv() {
            assert_eq!(
                (from.endpoint.addr, from.endpoint.port),
                (expected.0.into(), expected.1)
            );
            answer = bytes.to_vec();
        }
        !answer.is_empty()
    });
    answerer.join().unwrap();
    answer
}

#[test]
fn dns_requests_are_relayed_to_the_resolver() {
    assert_eq!(
        ask(|_| (Ipv4Address::new(10, 0, 2, 3), 53)),
        b"?ereht si ohw"
    );
}

#[test]
fn udp_reaches_a_server_of_the_host() {
    assert_eq!(ask(|server| (GATEWAY, server.port())), b"?ereht si ohw");
}

/// A server that sends back all it gets, reversed, once its client has finished.
fn reversing_server() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        bytes.reverse();
        client.write_all(&bytes).unwrap();
    });
    (address, thread)
}

#[test]
fn a_guest_connects_out_and_half_closes_are_passed_on() {
    let switch = RunningSwitch::start(&[], |options| options.host_loopback = true);
    let (server, thread) = reversing_server();
    let mut guest = Guest::with_address(&switch.address);
    let handle = guest.open((GATEWAY, server.port()));
    let mut sent = pattern(3_000_000);
    let mut offset = 0;
    let mut received = Vec::new();
    guest.run_until("all bytes and the end", |guest| {
        let socket = guest.tcp(handle);
        if socket.can_send() && offset < sent.len() {
            offset += socket.send_slice(&sent[offset..]).unwrap();
            if offset == sent.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        offset == sent.len() && !socket.may_recv() && socket.state() != tcp::State::SynSent
    });
    thread.join().unwrap();
    sent.reverse();
    assert!(
        received == sent,
        "{} of {} bytes, or others",
        received.len(),
        sent.len()
    );
}

#[test]
fn a_connection_that_the_host_refuses_is_reset() {
    let switch = RunningSwitch::start(&[], |options| options.host_loopback = true);
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut guest = Guest::with_address(&switch.address);
    let handle = guest.open((GATEWAY, unused.port()));
    guest.run_until("a reset", |guest| {
        guest.tcp(handle).state() == tcp::State::Closed
    });
}

#[test]
fn the_hosts_loopback_is_closed_to_guests_unless_it_is_opened() {
    let switch = RunningSwitch::start(&[], |_| {});
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut guest = Guest::with_address(&switch.address);
    let handle = guest.open((GATEWAY, server.local_addr().unwrap().port()));
    guest.run_until("a reset", |guest| {
        guest.tcp(handle).state() == tcp::State::Closed
    });
    server.set_nonblocking(true).unwrap();
    assert_eq!(
        server.accept().unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
}

/// Sends back what `handle` receives; closes after the other side did.
fn echo(guest: &mut Guest, handle: smoltcp::iface::SocketHandle) {
    let socket = guest.tcp(handle);
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let bytes = socket
            .recv(|bytes| {
                let length = bytes.len().min(room);
                (length, bytes[..length].to_vec())
            })
            .unwrap();
        if bytes.is_empty() {
            break;
        }
        assert_eq!(socket.send_slice(&bytes).unwrap(), bytes.len());
    }
    if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
        socket.close();
    }
}

#[test]
fn a_forwarded_connection_carries_all_bytes_both_ways() {
    let switch = RunningSwitch::start(&[7], |_| {});
    let mut guest = Guest::with_address(&switch.address);
    let handle = guest.listen(7);
    let mut client = TcpStream::connect(switch.forward(0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent = pattern(5_000_000);
    let reader = {
        let mut client = client.try_clone().unwrap();
        thread::spawn(move || {
            let mut received = Vec::new();
            client.read_to_end(&mut received).unwrap();
            received
        })
    };
    let writer = {
        let sent = sent.clone();
        thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            client
        })
    };
    guest.run_until("the client has all", |guest| {
        echo(guest, handle);
        reader.is_finished()
    });
    drop(writer.join().unwrap());
    let received = reader.join().unwrap();
    assert!(
        received == sent,
        "{} of {} bytes, or others",
        received.len(),
        sent.len()
    );
}

#[test]
fn a_client_is_reset_when_the_guest_refuses_it() {
    let switch = RunningSwitch::start(&[7], |_| {});
    let mut guest = Guest::with_address(&switch.address);
    let mut client = TcpStream::connect(switch.forward(0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let reader = thread::spawn(move || client.read(&mut [0; 1]).unwrap_err().kind());
    guest.run_until("the client knows", |_| reader.is_finished());
    assert_eq!(reader.join().unwrap(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_guest_is_reset_when_its_client_breaks_off() {
    let switch = RunningSwitch::start(&[7], |_| {});
    let mut guest = Guest::with_address(&switch.address);
    let handle = guest.listen(7);
    let client = TcpStream::connect(switch.forward(0)).unwrap();
    guest.run_until("a connection", |guest| guest.tcp(handle).may_send());
    rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    guest.run_until("a reset", |guest| {
        guest.tcp(handle).state() == tcp::State::Closed
    });
}

/// What happens to the old port when the guest moves.
#[derive(Clone, Copy, PartialEq)]
enum OldPrimary {
    Killed,
    Frozen,
}

/// One connection; requests and answers while the guest moves from port to port ten times. At each
/// move the old port has taken frames that the guest never sees.
fn connection_survives_moves(old_primary: OldPrimary) {
    const REQUEST_LENGTH: usize = 20_000;
    let switch = RunningSwitch::start(&[7], |_| {});
    let mut guest = Guest::with_address(&switch.address);
    let handle = guest.listen(7);
    let mut client = TcpStream::connect(switch.forward(0)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    guest.run_until("a connection", |guest| guest.tcp(handle).may_send());
    let mut frozen = Vec::new();
    for round in 0..10 {
        // The backup is connected all the time, and silent.
        let backup = SwitchPort::connect(&switch.address, None)
            .unwrap()
            .serving(MAC);
        let request = pattern(REQUEST_LENGTH + round);
        client.write_all(&request).unwrap();
        // The old primary takes a frame of the request, and nobody learns of it.
        assert!(!receive(&mut guest.port).is_empty());
        if old_primary == OldPrimary::Killed {
            guest.port = SwitchPort::connect(&switch.address, None)
                .unwrap()
                .serving(MAC);
        }
        let old = guest.move_to(backup);
        if old_primary == OldPrimary::Frozen {
            frozen.push(old);
        }
        let mut answerer = client.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut answer = vec![0; REQUEST_LENGTH + round];
            answerer.read_exact(&mut answer).unwrap();
            answer
        });
        guest.run_until("an answer", |guest| {
            echo(guest, handle);
            reader.is_finished()
        });
        assert!(reader.join().unwrap() == request, "round {round}");
    }
}

#[test]
fn an_open_connection_survives_the_death_of_ten_primaries() {
    connection_survives_moves(OldPrimary::Killed);
}

#[test]
fn an_open_connection_survives_ten_frozen_primaries() {
    connection_survives_moves(OldPrimary::Frozen);
}

#[test]
fn frames_for_a_dead_primary_reach_the_new_one() {
    let switch = RunningSwitch::start(&[], |options| options.gateway = false);
    let port = || {
        SwitchPort::connect(&switch.address, None)
            .unwrap()
            .serving(MAC)
    };
    let (mut primary, mut backup) = (port(), port());
    backup.flush().unwrap();
    let mut client = SwitchPort::connect(&switch.address, None).unwrap();
    let client_mac = [2, 0, 0, 0, 0, 9];
    // The port that connected last speaks first: then the others are connected, too.
    client.send(&frame([0xff; 6], client_mac, 0)).unwrap();
    assert_eq!(receive(&mut primary), frame([0xff; 6], client_mac, 0));
    assert_eq!(receive(&mut backup), frame([0xff; 6], client_mac, 0));
    primary.send(&announcement()).unwrap();
    assert_eq!(receive(&mut client), announcement());
    assert_eq!(receive(&mut backup), announcement());
    drop(primary);
    // The end of the primary's port is seen not later than what comes after it, since ports are
    // served in the order of their numbers.
    client.send(&frame(MAC, client_mac, 1)).unwrap();
    client.send(&frame([0xff; 6], client_mac, 2)).unwrap();
    // The broadcast comes, the frame for the guest does not: the guest is nowhere.
    assert_eq!(receive(&mut backup), frame([0xff; 6], client_mac, 2));
    backup.send(&announcement()).unwrap();
    assert_eq!(receive(&mut backup), frame(MAC, client_mac, 1));
}

#[test]
fn the_status_file_names_the_real_port_of_a_forward() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("status.json");
    let switch = RunningSwitch::start(&[6379], |options| options.status_file = Some(path.clone()));
    let status: SwitchStatus = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(status.forwards, switch.status.forwards);
    assert_ne!(switch.forward(0).port(), 0);
    assert_eq!(status.forwards[0].guest, format!("{ADDRESS}:6379"));
    drop(switch);
    assert!(!path.exists());
}

/// The switch as its status file tells it, once `done` says so.
fn await_status(path: &std::path::Path, done: impl Fn(&SwitchStatus) -> bool) -> SwitchStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read(path).unwrap_or_default();
        if let Ok(status) = serde_json::from_slice::<SwitchStatus>(&text)
            && done(&status)
        {
            return status;
        }
        assert!(Instant::now() < deadline, "the status never told it");
        thread::yield_now();
    }
}

#[test]
fn a_status_file_or_capture_that_cannot_be_written_does_not_end_the_switch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("status.json");
    let staged = directory.path().join("status.json.new");
    let (reader, capture) = io::pipe().unwrap();
    let switch = RunningSwitch::start(&[], |options| {
        options.gateway = false;
        options.status_file = Some(path.clone());
        options.pcap = Some(format!("/proc/self/fd/{}", capture.as_raw_fd()).into());
    });
    drop(reader);
    // Nothing can be put in the place of a directory, as nothing can on a full disk.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let mut first = SwitchPort::connect(&switch.address, None).unwrap();
    let mut second = SwitchPort::connect(&switch.address, None).unwrap();
    let a = [2, 0, 0, 0, 0, 1];
    for number in 0..3 {
        second.send(&frame([0xff; 6], a, number)).unwrap();
        assert_eq!(receive(&mut first), frame([0xff; 6], a, number));
    }
    let deadline = Instant::now() + PATIENCE;
    while !staged.exists() {
        assert!(
            Instant::now() < deadline,
            "the status was never written anew"
        );
        thread::yield_now();
    }
    // A later turn than the attempt's.
    second.send(&frame([0xff; 6], a, 9)).unwrap();
    assert_eq!(receive(&mut first), frame([0xff; 6], a, 9));
    std::fs::remove_dir(&path).unwrap();
    await_status(&path, |status| {
        let told = |name| status.events.iter().any(|event| event.event == name);
        told("status_unwritten") && told("capture_ended")
    });
}

#[test]
fn idle_strangers_do_not_keep_a_replica_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("status.json");
    let hosts = Hosts::new();
    let keys = hosts.keys("hosta");
    let switch = RunningSwitch::start(&[], |options| {
        options.gateway = false;
        options.listen.push("tcp:127.0.0.1:0".parse().unwrap());
        options.keys = Some(hosts.keys("switch"));
        options.status_file = Some(path.clone());
    });
    let tcp: SwitchAddress = switch.status.listen[1].parse().unwrap();
    let SwitchAddress::Tcp(socket) = tcp else {
        panic!("{tcp}")
    };
    let mut primary = SwitchPort::connect(&tcp, Some(&keys)).unwrap().serving(MAC);
    primary.flush().unwrap();
    await_status(&path, |status| {
        status.ports.iter().any(|port| port.serves.is_some())
    });
    let SwitchAddress::Unix(unix) = &switch.address else {
        panic!("{}", switch.address)
    };
    let strangers: Vec<_> = (0..300)
        .map(|_| {
            let local = UnixStream::connect(unix).unwrap();
            (TcpStream::connect(socket).unwrap(), local)
        })
        .collect();
    let mut backup = SwitchPort::connect(&tcp, Some(&keys)).unwrap().serving(MAC);
    backup.send(&announcement()).unwrap();
    // The guest is known to be behind the backup, and the primary was not put out either.
    assert_eq!(receive(&mut primary), announcement());
    let status = await_status(&path, |status| {
        status
            .ports
            .iter()
            .filter(|port| port.serves.is_some())
            .count()
            == 2
    });
    for told in ["port_reaped", "turned_away"] {
        let mut events = status.events.iter();
        assert!(events.any(|event| event.event == told), "{told}");
    }
    drop(strangers);
}

#[test]
fn a_stranger_cannot_take_a_guests_address_by_a_frame() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("status.json");
    let switch = RunningSwitch::start(&[], |options| {
        options.gateway = false;
        options.status_file = Some(path.clone());
    });
    let mut primary = SwitchPort::connect(&switch.address, None)
        .unwrap()
        .serving(MAC);
    let mut backup = SwitchPort::connect(&switch.address, None)
        .unwrap()
        .serving(MAC);
    let mut stranger = SwitchPort::connect(&switch.address, None).unwrap();
    backup.flush().unwrap();
    let own = [2, 0, 0, 0, 0, 9];
    // The port that connected last speaks first: then the others are connected, too.
    stranger.send(&frame([0xff; 6], own, 0)).unwrap();
    assert_eq!(receive(&mut primary), frame([0xff; 6], own, 0));
    assert_eq!(receive(&mut backup), frame([0xff; 6], own, 0));
    primary.send(&announcement()).unwrap();
    assert_eq!(receive(&mut stranger), announcement());
    assert_eq!(receive(&mut backup), announcement());
    stranger.send(&announcement()).unwrap();
    stranger.send(&frame(MAC, own, 1)).unwrap();
    assert_eq!(receive(&mut primary), frame(MAC, own, 1));
    let status = await_status(&path, |status| status.foreign_frames == 1);
    assert_eq!(
        (status.moves, status.events[0].event.as_str()),
        (0, "foreign_address")
    );
    // At a failover the address moves at once, from a port that is still there.
    backup.send(&announcement()).unwrap();
    assert_eq!(receive(&mut primary), announcement());
    stranger.send(&frame(MAC, own, 2)).unwrap();
    assert_eq!(receive(&mut backup), frame(MAC, own, 2));
}

#[test]
fn addresses_in_use_are_one_clear_error() {
    let switch = RunningSwitch::start(&[], |_| {});
    let taken = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let listener = TcpListener::bind(taken).unwrap();
    let options = |change: &dyn Fn(&mut SwitchOptions)| {
        let mut options = SwitchOptions {
            listen: vec!["tcp:127.0.0.1:0".parse().unwrap()],
            keys: Some(Hosts::new().keys("switch")),
            ..SwitchOptions::default()
        };
        change(&mut options);
        Switch::open(&options).err().unwrap().to_string()
    };
    let error = options(&|options| options.listen = vec![switch.address.clone()]);
    assert!(
        error.contains(&format!("cannot listen on {}", switch.address)),
        "{error}"
    );
    assert!(error.contains("another switch"), "{error}");
    let error = options(&|options| options.forwards = vec![format!("{taken}=7").parse().unwrap()]);
    assert!(
        error.contains(&format!("cannot listen on {taken} for a forward")),
        "{error}"
    );
    let error = options(&|options| options.status_file = Some("/nonexistent/status".into()));
    assert!(
        error.contains("cannot write the status file /nonexistent/status"),
        "{error}"
    );
    let error = options(&|options| options.pcap = Some("/nonexistent/pcap".into()));
    assert!(
        error.contains("cannot write the capture /nonexistent/pcap"),
        "{error}"
    );
    assert!(options(&|options| options.listen.clear()).contains("--listen"));
    drop(listener);
}
