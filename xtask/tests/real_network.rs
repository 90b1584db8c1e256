//! Real Debian guests behind the switch's gateway, in a network that the user chose: what no stack but
//! Linux's own can show, and a service of a package whose user its script would make.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xtask::engines::console::Console;
use xtask::engines::image;
use xtask::program;
use xtask::single::Running;

/// Whatever is waited for is there long before, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A switch whose guests are in 172.29.5.0/24, with one forward; that forward's address.
fn switch(directory: &Path, protocol: &str, port: u16) -> Result<(Running, String)> {
    let status = directory.join("switch.json");
    let switch = Command::new(program::path()?)
        .arg("switch")
        .arg(format!("--listen=unix:{}/switch.sock", directory.display()))
        .arg("--subnet=172.29.5.0/24")
        .arg(format!("--forward={protocol}:127.0.0.1:0={port}"))
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
            ensure!(forward["protocol"] == protocol, "{forward}");
            let guest = format!("172.29.5.15:{port}");
            ensure!(forward["guest"] == guest, "{forward}");
            let host = forward["host"].as_str().context("no address")?;
            return Ok((switch, host.to_owned()));
        }
        ensure!(Instant::now() < deadline, "the switch writes no status");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts the guest of this directory on the switch there.
fn start(directory: &Path) -> Result<Console> {
    let arguments = [
        "run".to_owned(),
        "--memory=256M".to_owned(),
        format!("--guest={}", directory.join("guest").display()),
        format!("--network=unix:{}/switch.sock", directory.display()),
    ];
    Console::start(&arguments, &directory.join("messages"))
}

#[test]
fn linux_in_a_network_of_the_users_choice_pings_and_gets_long_datagrams_through_a_forward()
-> Result<()> {
    let directory = xtask::bench::scratch("network")?;
    let guest = directory.join("guest");
    // busybox's own nc knows no UDP.
    image::build(&guest, &["--package=socat".to_owned()])?;
    let (_switch, forward) = switch(&directory, "udp", 9)?;
    let mut console = start(&directory)?;
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

/// `www-data`, as which nginx works, is a user that base-passwd's script makes.
#[test]
fn nginx_of_a_package_guest_serves_a_page_and_the_ready_line_says_what_runs() -> Result<()> {
    let directory = xtask::bench::scratch("nginx")?;
    let site = directory.join("site.conf");
    fs::write(&site, "server { listen 80; root /usr/share/nginx/html; }\n")?;
    let arguments = [
        "--package=nginx".to_owned(),
        format!(
            "--add-file={}:/etc/nginx/conf.d/site.conf:644",
            site.display()
        ),
        "--service=nginx:80=exec nginx -g 'daemon off;'".to_owned(),
        "--service=broken:81=echo it cannot; exit 7".to_owned(),
        "--service=idle=exec sleep 1000000".to_owned(),
    ];
    image::build(&directory.join("guest"), &arguments)?;
    let (_switch, forward) = switch(&directory, "tcp", 80)?;
    let mut console = start(&directory)?;
    console.expect("understudy: broken has ended with status 7; its log ends:")?;
    console.expect(
        "understudy: guest ready (172.29.5.15/24): nginx listens on port 80, broken has ended with \
         status 7, idle runs",
    )?;
    let mut client = TcpStream::connect(&forward)?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(b"GET / HTTP/1.0\r\nHost: guest\r\n\r\n")?;
    let mut page = String::new();
    client.read_to_string(&mut page)?;
    ensure!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    ensure!(page.contains("Welcome to nginx"), "{page}");
    console.send("ps | grep 'nginx: worker'\n")?;
    console.expect("www-data nginx: worker process")?;
    drop(console);
    fs::remove_dir_all(&directory)?;
    Ok(())
}
