//! A guest's site on this host: a switch that leads to its service, an arbiter, and replicas.

use crate::bench;
use crate::program;
use crate::replica::{Configuration, Process, Replica, wait_for};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The address that the switch gives to its first guest.
const GUEST_ADDRESS: &str = "10.0.2.15";

/// A site. Its directory goes with it.
pub struct Site {
    switch: Process,
    switch_address: String,
    directory: PathBuf,
    arbiter: PathBuf,
    program: PathBuf,
    guest: PathBuf,
    memory: String,
    port: u16,
    replicas: u32,
    /// The address on this host that leads to the guest's service.
    pub service: String,
}

impl Site {
    /// For a built guest with so much memory, whose service listens on `port`. `name` is for the
    /// scratch directory.
    pub fn open(name: &str, guest: PathBuf, memory: &str, port: u16) -> Result<Site> {
        let directory = bench::scratch(name)?;
        let program = program::path()?;
        fs::create_dir(directory.join("arbiter"))?;
        let switch_address = format!("unix:{}", directory.join("switch").display());
        let forward = format!("127.0.0.1:0={GUEST_ADDRESS}:{port}");
        let (switch, service) = start_switch(&program, &directory, &switch_address, &forward)?;
        Ok(Site {
            switch,
            switch_address,
            arbiter: directory.join("arbiter"),
            directory,
            program,
            guest,
            memory: memory.to_owned(),
            port,
            replicas: 0,
            service,
        })
    }

    /// Kills the switch, and with it all connections, and starts another one at the same addresses.
    pub fn restart_switch(&mut self) -> Result<()> {
        self.switch.kill()?;
        let forward = format!("{}={GUEST_ADDRESS}:{}", self.service, self.port);
        let (program, address) = (&self.program, &self.switch_address);
        (self.switch, self.service) = start_switch(program, &self.directory, address, &forward)?;
        Ok(())
    }

    /// Starts the one replica of a machine with its journal there, or starts it again.
    pub fn start_with_journal(&mut self, journal: &Path) -> Result<Replica> {
        // The name of its host is among those that may have the machine.
        let state = self.directory.join("a");
        self.start_replica(&state, None, Some(journal))
    }

    /// Starts a replica, on a host of its own as far as it can tell; one without a peer is only
    /// joined.
    pub fn start(&mut self, peer: Option<&str>) -> Result<Replica> {
        let state = self.next_state();
        self.start_replica(&state, peer, None)
    }

    /// As [`Site::start`], of a host that listens there and has these peers.
    pub fn start_among(&mut self, listen: &str, peers: &[String]) -> Result<Replica> {
        let state = self.next_state();
        let configuration = Configuration {
            listen,
            peers,
            ..self.configuration(&state, None, None)
        };
        Replica::start(Command::new(&self.program), &configuration)
    }

    fn next_state(&mut self) -> PathBuf {
        self.replicas += 1;
        self.directory.join(format!("replica-{}", self.replicas))
    }

    /// Starts the replica of a host that has such a program, on the state that it has there. Each knows where
    /// the other listens.
    pub fn start_host(&self, host: &str, program: &Path, listen: [&str; 2]) -> Result<Replica> {
        let [own, peer] = listen;
        let state = self.directory.join(host);
        let configuration = Configuration {
            listen: own,
            program,
            ..self.configuration(&state, Some(peer), None)
        };
        Replica::start(Command::new(program), &configuration)
    }

    fn start_replica(
        &self,
        state: &Path,
        peer: Option<&str>,
        journal: Option<&Path>,
    ) -> Result<Replica> {
        let configuration = self.configuration(state, peer, journal);
        Replica::start(Command::new(&self.program), &configuration)
    }

    fn configuration<'a>(
        &'a self,
        state: &'a Path,
        peer: Option<&'a str>,
        journal: Option<&'a Path>,
    ) -> Configuration<'a> {
        Configuration {
            program: &self.program,
            guest: &self.guest,
            memory: &self.memory,
            state,
            switch: &self.switch_address,
            listen: "127.0.0.1:0",
            peer,
            peers: &[],
            arbiter: &self.arbiter,
            engine: None,
            disk: None,
            journal,
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("kept for a look: {}", self.directory.display());
        } else {
            // What cannot be removed now is in nobody's way.
            let _removed = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Starts a switch, and gives the address on this host that leads to the guest.
fn start_switch(
    program: &Path,
    directory: &Path,
    address: &str,
    to: &str,
) -> Result<(Process, String)> {
    let status = directory.join("switch.json");
    // That of a switch before it tells of another address.
    let _removed = fs::remove_file(&status);
    let switch = Process::start(
        Command::new(program)
            .args(["switch", "--listen", address, "--forward", to])
            .arg("--status-file")
            .arg(&status)
            .stdout(Stdio::null()),
    )?;
    let service = wait_for("the switch", || Ok(forward(&status)))?;
    Ok((switch, service))
}

/// Where the first forward of a switch's status begins, once there is one.
fn forward(status: &Path) -> Option<String> {
    let status: Value = serde_json::from_slice(&fs::read(status).ok()?).ok()?;
    status["forwards"][0]["host"].as_str().map(str::to_owned)
}

/// Addresses on this host at which nobody listened just now, for hosts that have to know each other's before they
/// start.
pub fn free_addresses(count: usize) -> Result<Vec<String>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(TcpListener::local_addr);
    let addresses = addresses.map(|address| Ok(address?.to_string()));
    addresses.collect()
}

/// Where a replica listens.
pub fn listen_address(replica: &Replica) -> Result<String> {
    let status = replica.status()?.context("the replica is silent")?;
    let listen = status["listen"].as_str();
    Ok(listen.context("the replica listens nowhere")?.to_owned())
}
