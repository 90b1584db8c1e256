//! A machine without a pair: `understudy run` on a switch of its own.

use crate::program;
use crate::redis::Connection;
use anyhow::{Result, bail};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A child process, killed when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A machine alone that serves Redis. Ended when dropped.
pub struct Single {
    _run: Running,
    _switch: Running,
    /// Host address that leads to Redis.
    pub address: String,
    /// From the start of the processes until Redis answered, in seconds.
    pub ready_after: f64,
}

impl Single {
    /// Starts a switch and a machine, and waits until Redis answers.
    pub fn start(directory: &Path, guest: &Path) -> Result<Single> {
        let program = program::path()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let socket = format!("unix:{}", directory.join("switch.sock").display());
        let start = Instant::now();
        let switch = Running(
            quiet(Command::new(&program).args(["switch", "--listen", &socket, "--forward"]))
                .arg(format!("{address}=10.0.2.15:6379"))
                .spawn()?,
        );
        while !directory.join("switch.sock").exists() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut run = Running(
            quiet(Command::new(&program).args(["run", "--memory", "256M", "--guest"]))
                .arg(guest)
                .args(["--network", &socket])
                .spawn()?,
        );
        let ready_after = wait_for_redis(&address, start, &mut run)?;
        Ok(Single {
            _run: run,
            _switch: switch,
            address,
            ready_after,
        })
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stdin(Stdio::null())
}

/// A TCP port that nobody uses now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Seconds since `start` when Redis at `address` answers.
pub fn wait_for_redis(address: &str, start: Instant, child: &mut Running) -> Result<f64> {
    loop {
        let patience = Duration::from_millis(500);
        let answered = Connection::open(address, patience)
            .and_then(|mut connection| connection.call(&["PING"]))
            .is_ok();
        if answered {
            return Ok(start.elapsed().as_secs_f64());
        }
        if let Some(status) = child.0.try_wait()? {
            bail!("it ended before Redis answered: {status}");
        }
        if start.elapsed() > Duration::from_secs(120) {
            bail!("Redis does not answer within two minutes");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
