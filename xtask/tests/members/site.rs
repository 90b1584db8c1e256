//! Three replicas on hosts of their own, with a switch and etcd on the LAN between them.

use super::namespaces::{Host, LAN_ADDRESS, Lan};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use xtask::program;
use xtask::replica::{Configuration, Process, Replica, demo_guest, keys, wait_for};

/// Everything of one test. The processes end before the LAN is removed.
pub struct Site {
    replicas: [Option<Replica>; 3],
    _switch: Process,
    _etcd: Process,
    directory: PathBuf,
    program: PathBuf,
    guest: PathBuf,
    lan: Lan,
}

impl Site {
    /// Builds the guest if it is not there, and starts switch and etcd. The calling thread moves into the
    /// LAN. `None`, loudly, where etcd is not installed.
    pub fn open(lan: Lan) -> Result<Option<Site>> {
        if Command::new("etcd").arg("--version").output().is_err() {
            ensure!(
                std::env::var_os("CI").is_none(),
                "etcd is not installed, and this is CI: `.ci/run` installs it"
            );
            println!("*** NOT TESTED: etcd (Debian's etcd-server) is not installed");
            return Ok(None);
        }
        let program = program::path()?;
        let guest = demo_guest(&program)?;
        let directory = xtask::bench::scratch("members")?;
        lan.enter()?;
        let site = Site {
            replicas: [None, None, None],
            _switch: start_switch(&lan, &program, &directory)?,
            _etcd: start_etcd(&lan, &directory)?,
            directory,
            program,
            guest,
            lan,
        };
        wait_for("the switch", || Ok(site.switch_status()))?;
        Ok(Some(site))
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

    /// Starts the replica of a host, on the state that it has there.
    pub fn start(&mut self, host: Host) -> Result<()> {
        let address = |host: Host| format!("{}:7400", host.address());
        let others = Host::ALL.into_iter().filter(|other| *other != host);
        let peers: Vec<String> = others.map(address).collect();
        let arbiter = format!("etcd://{LAN_ADDRESS}:2379/understudy");
        let configuration = Configuration {
            program: &self.program,
            guest: &self.guest,
            memory: "256M",
            state: &self.directory.join(host.name()),
            switch: &format!("tcp:{LAN_ADDRESS}:7500"),
            listen: &address(host),
            peer: None,
            peers: &peers,
            arbiter: Path::new(&arbiter),
            engine: None,
            disk: None,
            journal: None,
        };
        let command = self.lan.on_host(host, &self.program);
        self.replicas[host as usize] = Some(Replica::start(command, &configuration)?);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self, host: Host) -> Result<()> {
        let replica = self.replicas[host as usize].take();
        replica.context("nothing runs there")?.process.kill()
    }

    /// The replica of a host that runs.
    pub fn replica(&self, host: Host) -> Result<&Replica> {
        let replica = self.replicas[host as usize].as_ref();
        replica.context("nothing runs there")
    }

    /// Hosts whose replica runs.
    fn running(&self) -> impl Iterator<Item = (Host, &Replica)> {
        let replicas = Host::ALL.into_iter().zip(&self.replicas);
        replicas.filter_map(|(host, replica)| Some((host, replica.as_ref()?)))
    }

    /// The primary, once so many backups can take over.
    pub fn protected_by(&self, backups: usize) -> Result<Host> {
        wait_for(&format!("{backups} backups"), || {
            for (host, replica) in self.running() {
                let status = replica.status()?;
                let status = status.filter(|status| status["role"] == "primary");
                if status.is_some_and(|status| protecting(&status) == backups) {
                    return Ok(Some(host));
                }
            }
            Ok(None)
        })
    }
}

fn protecting(status: &Value) -> usize {
    let followers = status["followers"].as_array();
    let followers = followers.map(|followers| followers.iter());
    let protecting = followers.map(|all| all.filter(|one| one["protects"] == true).count());
    protecting.unwrap_or(0)
}

fn start_switch(lan: &Lan, program: &Path, directory: &Path) -> Result<Process> {
    let listen = format!("tcp:{LAN_ADDRESS}:7500");
    let forward = "127.0.0.1:0=10.0.2.15:6379";
    Process::start(
        lan.on_lan(program)
            .args(["switch", "--listen", &listen, "--forward", forward])
            .arg("--keys")
            .arg(keys(directory)?)
            .arg("--status-file")
            .arg(directory.join("switch.json"))
            .stdout(Stdio::null()),
    )
}

fn start_etcd(lan: &Lan, directory: &Path) -> Result<Process> {
    let (client, peer) = (
        format!("http://{LAN_ADDRESS}:2379"),
        format!("http://{LAN_ADDRESS}:2380"),
    );
    Process::start(
        lan.on_lan(Path::new("etcd"))
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .args(["--name", "one", "--initial-cluster", &format!("one={peer}")])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .arg("--data-dir")
            .arg(directory.join("etcd"))
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
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
