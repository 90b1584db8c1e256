//! A real Debian guest behind the switch's gateway, in a network that the user chose: what no stack
//! but Linux's own can show.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xtask::engines::console::Console;
use xtask::engines::image;
use xtask::program;
use xtask::single::Running;

/// Whatever is waited for is there long before, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A switch whose guests are in 172.29.5.0/24, with one UDP forward; that forward's address.
fn switch(directory: &Path) -> Result<(Running, String)> {
    let status = directory.join("switch.json");
    let switch = Command::new(program::path()?)
        .arg("switch")
        .arg(format!("--listen=unix:{}/switch.sock", directory.display()))
        .args(["--subnet=172.29.5.0/24", "--forward=udp:127.0.0.1:0=9"])
        .arg("--status-file")
        .arg(&status)
        .stdout(Stdio::null())
        .spawn()?;
    let switch = Running(switch);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status: Option<Value> = fs::read(&status)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(status) = status {
            let forward = &status["forwards"][0];
            ensure!(forward["protocol"] == "udp", "{forward}");
            ensure!(forward["guest"] == "172.29.5.15:9", "{forward}");
            let host = forward["host"].as_str().context("no address")?;
            return Ok((switch, host.to_owned()));
        }
        ensure!(Instant::now() < deadline, "the switch writes no status");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn linux_in_a_network_of_the_users_choice_pings_and_gets_long_datagrams_through_a_forward()
-> Result<()> {
    let directory = xtask::bench::scratch("network")?;
    let guest = directory.join("guest");
    // busybox's own nc knows no UDP.
    image::build(&guest, &["--package=socat".to_owned()])?;
    let (_switch, forward) = switch(&directory)?;
    let arguments = [
        "run".to_owned(),
        "--memory=256M".to_owned(),
        format!("--guest={}", guest.display()),
        format!("--network=unix:{}/switch.sock", directory.display()),
    ];
    let mut console = Console::start(&arguments, &directory.join("messages"))?;
    console.expect("understudy: guest ready (172.29.5.15/24)")?;
    console.send("cat /etc/resolv.conf\n")?;
    console.expect("nameserver 172.29.5.3")?;
    // Longer than a frame: in fragments there and back.
    console.send("ping -c 2 -s 4000 172.29.5.2\n")?;
    console.expect("2 packets received")?;
    console.send("socat -b 65536 UDP-LISTEN:9 PIPE & echo the server $((20 + 22))\n")?;
    console.expect("the server 42")?;

    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.connect(&forward)?;
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    let sent: Vec<u8> = (0..3000_u32).map(|i| (i * 7) as u8).collect();
    let mut buffer = vec![0; 70_000];
    let deadline = Instant::now() + PATIENCE;
    // As with any datagram, nothing says when the server is there: the client asks again.
    let length = loop {
        client.send(&sent)?;
        match client.recv(&mut buffer) {
            Ok(length) => break length,
            Err(error) => ensure!(Instant::now() < deadline, "no answer: {error}"),
        }
    };
    ensure!(buffer[..length] == sent, "{length} octets came back");
    drop(console);
    fs::remove_dir_all(&directory)?;
    Ok(())
}
