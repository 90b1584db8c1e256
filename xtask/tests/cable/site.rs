//! A switch in the LAN, and replicas on the hosts, each with its own way to the arbiter.

use super::namespaces::{Host, LAN_ADDRESS, Lan};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;
use xtask::program;
use xtask::replica::{Configuration, Process, Replica, demo_guest, keys, wait_for};

/// Everything of one test. The processes end before the LAN is removed.
pub struct Site {
    _switch: Process,
    directory: PathBuf,
    program: PathBuf,
    guest: PathBuf,
    replicas: u32,
    /// The LAN.
    pub lan: Lan,
}

impl Site {
    /// Builds the guest if it is not there, and starts the switch. The calling thread moves into
    /// the LAN.
    pub fn open(lan: Lan) -> Result<Site> {
        let program = program::path()?;
        let guest = demo_guest(&program)?;
        let directory = xtask::bench::scratch("cable")?;
        fs::create_dir(directory.join("arbiter"))?;
        lan.enter()?;
        let listen = format!("tcp:{LAN_ADDRESS}:7500");
        let switch = Process::start(
            lan.on_lan(&program)
                .args([
                    "switch",
                    "--listen",
                    &listen,
                    "--forward",
                    "127.0.0.1:0=10.0.2.15:6379",
                ])
                .arg("--keys")
                .arg(keys(&directory)?)
                .arg("--status-file")
                .arg(directory.join("switch.json"))
                .stdout(Stdio::null()),
        )?;
        let site = Site {
            _switch: switch,
            directory,
            program,
            guest,
            replicas: 0,
            lan,
        };
        for host in [Host::A, Host::B] {
            site.set_arbiter(host, true)?;
        }
        wait_for("the switch", || Ok(site.switch_status()))?;
        Ok(site)
    }

    fn switch_status(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.directory.join("switch.json")).ok()?).ok()
    }

    /// The address that leads to Redis.
    pub fn redis_address(&self) -> Result<String> {
        let status = self.switch_status().context("no status of the switch")?;
        let host = status["forwards"][0]["host"].as_str();
        Ok(host.context("the switch has no forward")?.to_owned())
    }

    /// The host at whose port the switch has seen the guest last.
    pub fn guest_is_at(&self) -> Result<Option<Host>> {
        let status = self.switch_status().context("no status of the switch")?;
        let ports = status["ports"].as_array().context("no ports")?.clone();
        let with_guest = ports
            .iter()
            .find(|port| port["macs"].as_array().is_some_and(|macs| !macs.is_empty()));
        let peer = with_guest
            .and_then(|port| port["peer"].as_str())
            .unwrap_or_default();
        Ok([Host::A, Host::B]
            .into_iter()
            .find(|host| peer.contains(host.address())))
    }

    fn arbiter_path(&self, host: Host) -> PathBuf {
        self.directory.join(format!("arbiter-of-{}", host.name()))
    }

    /// Whether a host reaches the arbiter, which is on the far side of its cable.
    pub fn set_arbiter(&self, host: Host, reachable: bool) -> Result<()> {
        let path = self.arbiter_path(host);
        let target = if reachable {
            self.directory.join("arbiter")
        } else {
            "/nonexistent".into()
        };
        let new = path.with_extension("new");
        symlink(target, &new)?;
        fs::rename(new, path)?;
        Ok(())
    }

    /// Pulls a host's cable, or plugs it in: LAN and arbiter at once.
    pub fn set_cable(&self, host: Host, plugged: bool) -> Result<()> {
        self.set_arbiter(host, plugged)?;
        self.lan.set_cable(host, plugged)
    }

    /// Starts a primary (`peer` is `None`) or a backup on a host.
    pub fn start(&mut self, host: Host, peer: Option<Host>) -> Result<Replica> {
        self.replicas += 1;
        let state = self.directory.join(format!("replica-{}", self.replicas));
        let peer = peer.map(|peer| format!("{}:7400", peer.address()));
        let configuration = Configuration {
            program: &self.program,
            guest: &self.guest,
            memory: "256M",
            state: &state,
            switch: &format!("tcp:{LAN_ADDRESS}:7500"),
            listen: &format!("{}:7400", host.address()),
            peer: peer.as_deref(),
            peers: &[],
            arbiter: &self.arbiter_path(host),
            engine: None,
            disk: None,
            journal: None,
        };
        Replica::start(self.lan.on_host(host, &self.program), &configuration)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("kept for a look: {}", self.directory.display());
        } else {
            // What cannot be removed now, nobody can remove here.
            let _removed = fs::remove_dir_all(&self.directory);
        }
    }
}
