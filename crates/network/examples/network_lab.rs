//! Measures the switch and its gateway.
//!
//! - `network_lab bench`: a smoltcp guest behind a switch, requests and bulk data over forwards.
//! - `network_lab switch ADDRESS FORWARD...`: just a switch.
//! - `network_lab bridge ADDRESS TAP`: joins a TAP device and a switch, so that a Linux network
//!   namespace is the guest.

#[path = "../tests/network/guest.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod guest;
#[path = "../tests/network/running_switch.rs"]
mod running_switch;

use guest::Guest;
use network::{NetworkAttachment, SwitchOptions, run};
use running_switch::RunningSwitch;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const REQUEST_LENGTH: usize = 30;
const CONNECTIONS: usize = 20;
const TIME: Duration = Duration::from_secs(3);
const ECHO_PORT: u16 = 7;
const SINK_PORT: u16 = 9;
const SOURCE_PORT: u16 = 19;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bench"] => bench(),
        ["switch", address, ref forwards @ ..] => {
            let mut options = SwitchOptions {
                listen: vec![address.parse()?],
                host_loopback: true,
                ..SwitchOptions::default()
            };
            for forward in forwards {
                options.forwards.push(forward.parse()?);
            }
            let (_stop, stopped) = UnixStream::pair()?;
            run(&options, stopped.as_fd(), |status| println!("{status:?}"))?;
        }
        ["bridge", address, tap] => {
            bridge(
                NetworkAttachment::switch(address, None, None)?,
                NetworkAttachment::tap(tap)?,
            )?;
        }
        _ => {
            return Err(
                "usage: network_lab bench | switch ADDRESS FORWARD... | bridge ADDRESS TAP".into(),
            );
        }
    }
    Ok(())
}

fn bridge(mut a: NetworkAttachment, mut b: NetworkAttachment) -> std::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let interest = |side: &NetworkAttachment| {
            if side.wants_write() {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            }
        };
        if !a.has_frame() && !b.has_frame() {
            poll(
                &mut [
                    PollFd::from_borrowed_fd(a.fd(), interest(&a)),
                    PollFd::from_borrowed_fd(b.fd(), interest(&b)),
                ],
                None,
            )?;
        }
        while let Some(frame) = a.receive()? {
            b.send(&frame)?;
        }
        while let Some(frame) = b.receive()? {
            a.send(&frame)?;
        }
        a.flush()?;
        b.flush()?;
    }
}

fn bench() {
    let switch = RunningSwitch::start(&[ECHO_PORT, SINK_PORT, SOURCE_PORT], |_| {});
    let stop = Arc::new(AtomicBool::new(false));
    let server = {
        let (address, stop) = (switch.address.clone(), stop.clone());
        thread::spawn(move || serve(&mut Guest::with_address(&address), &stop))
    };
    for (name, connections, pipeline) in [
        ("1 connection", 1, 1),
        ("20 connections", CONNECTIONS, 1),
        ("20 connections, 16 in flight", CONNECTIONS, 16),
    ] {
        let (rate, mut waits) = requests(switch.forward(0), connections, pipeline);
        waits.sort();
        let p = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
        println!(
            "{name}: {rate:.0} requests/s, p50 {:?}, p99 {:?}",
            p(0.5),
            p(0.99)
        );
    }
    println!("to the guest: {:.0} MB/s", bulk_to(switch.forward(1)));
    println!("from the guest: {:.0} MB/s", bulk_from(switch.forward(2)));
    stop.store(true, Ordering::Relaxed);
    server.join().expect("the guest ends in order");
}

/// The guest: echo, sink and source, enough listening sockets for each.
fn serve(guest: &mut Guest, stop: &AtomicBool) {
    let ports = [ECHO_PORT, SINK_PORT, SOURCE_PORT];
    let mut sockets: Vec<(u16, SocketHandle)> = Vec::new();
    for port in ports {
        for _ in 0..3 * CONNECTIONS {
            sockets.push((port, guest.listen(port)));
        }
    }
    let block = vec![0x55; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        guest.poll();
        for (port, handle) in &sockets {
            let socket = guest.tcp(*handle);
            match *port {
                ECHO_PORT => echo(socket),
                SINK_PORT => while socket.can_recv() && socket.recv(|b| (b.len(), ())).is_ok() {},
                _ => while socket.can_send() && socket.send_slice(&block).is_ok() {},
            }
            if socket.state() == tcp::State::CloseWait {
                socket.close();
            } else if socket.state() == tcp::State::Closed {
                socket.listen(*port).expect("a closed socket may listen");
            }
        }
        guest.poll();
        guest.wait();
    }
}

fn echo(socket: &mut tcp::Socket<'_>) {
    let mut buffer = [0; 16 << 10];
    while socket.can_recv() {
        let room = (socket.send_capacity() - socket.send_queue()).min(buffer.len());
        match socket.recv_slice(&mut buffer[..room]) {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                socket.send_slice(&buffer[..length]).expect("there is room");
            }
        }
    }
}

/// Requests a second over all connections, and how long each batch took.
fn requests(server: SocketAddr, connections: usize, pipeline: usize) -> (f64, Vec<Duration>) {
    let mut clients: Vec<TcpStream> = (0..connections)
        .map(|_| TcpStream::connect(server).expect("the switch listens"))
        .collect();
    for client in &clients {
        client.set_nodelay(true).expect("a TCP socket");
    }
    let request = vec![b'x'; REQUEST_LENGTH * pipeline];
    let mut answer = vec![0; request.len()];
    let mut waits = Vec::new();
    let start = Instant::now();
    while start.elapsed() < TIME {
        let sent = Instant::now();
        for client in &mut clients {
            client.write_all(&request).expect("the connection is open");
        }
        for client in &mut clients {
            client
                .read_exact(&mut answer)
                .expect("the connection is open");
        }
        waits.push(sent.elapsed());
    }
    let count = waits.len() * connections * pipeline;
    (count as f64 / start.elapsed().as_secs_f64(), waits)
}

fn bulk_to(server: SocketAddr) -> f64 {
    let mut client = TcpStream::connect(server).expect("the switch listens");
    let block = vec![0xaa; 256 << 10];
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        sent += client.write(&block).expect("the connection is open");
    }
    sent as f64 / 1e6 / start.elapsed().as_secs_f64()
}

fn bulk_from(server: SocketAddr) -> f64 {
    let mut client = TcpStream::connect(server).expect("the switch listens");
    let mut block = vec![0; 256 << 10];
    let (start, mut received) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        received += client.read(&mut block).expect("the connection is open");
    }
    received as f64 / 1e6 / start.elapsed().as_secs_f64()
}
