//! Two hosts with two cables each, in network namespaces (root): one is pulled under load, then the other.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use support::device_programs::counting_to_disk;
use support::history::{await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, wait_for};

/// Two hosts, each with a cable to each of two switches, which are bridges in a namespace of their own.
struct Cables {
    prefix: String,
}

const HOSTS: [&str; 2] = ["a", "b"];

impl Cables {
    /// `None` where this is not possible, after saying why.
    fn lay() -> Option<Cables> {
        let prefix = format!("understudy-links-{}", std::process::id());
        let cables = Cables { prefix };
        if let Err(error) = cables.try_ip(&["netns", "add", &cables.namespace("lan")]) {
            println!("skipped: network namespaces need root and iproute2: {error}");
            return None;
        }
        let lan = cables.namespace("lan");
        for host in HOSTS {
            cables.ip(&["netns", "add", &cables.namespace(host)]);
            cables.ip(&["-n", &cables.namespace(host), "link", "set", "lo", "up"]);
        }
        for network in 1..=2 {
            let bridge = format!("bridge{network}");
            cables.ip(&["-n", &lan, "link", "add", &bridge, "type", "bridge"]);
            cables.ip(&["-n", &lan, "link", "set", &bridge, "up"]);
            for (host, number) in HOSTS.into_iter().zip(1..) {
                let (own, port, card) = (
                    cables.namespace(host),
                    port(host, network),
                    format!("eth{network}"),
                );
                cables.ip(&[
                    "-n", &lan, "link", "add", &port, "type", "veth", "peer", "name", &card,
                    "netns", &own,
                ]);
                cables.ip(&["-n", &lan, "link", "set", &port, "master", &bridge, "up"]);
                let address = format!("10.{network}.0.{number}/24");
                cables.ip(&["-n", &own, "address", "add", &address, "dev", &card]);
                cables.ip(&["-n", &own, "link", "set", &card, "up"]);
            }
        }
        Some(cables)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn try_ip(&self, arguments: &[&str]) -> Result<(), String> {
        let output = Command::new("ip").args(arguments).output();
        let output = output.map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    fn ip(&self, arguments: &[&str]) {
        self.try_ip(arguments)
            .unwrap_or_else(|error| panic!("ip {}: {error}", arguments.join(" ")));
    }

    /// Pulls the cable of host b out of a switch, or plugs it in. The host's own card stays as it is.
    fn set(&self, network: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        let (lan, port) = (self.namespace("lan"), port("b", network));
        self.ip(&["-n", &lan, "link", "set", &port, state]);
    }

    fn start(&self, host: &str, files: &ReplicaFiles) -> Process {
        let child = Command::new("ip")
            .args(["netns", "exec", &self.namespace(host)])
            .args([
                env!("CARGO_BIN_EXE_understudy"),
                "replica",
                "--config",
                files.config(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Process { child }
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        for name in ["a", "b", "lan"] {
            // One that was never made needs no removal.
            let _removed = self.try_ip(&["netns", "del", &self.namespace(name)]);
        }
    }
}

fn port(host: &str, network: usize) -> String {
    format!("port-{host}-{network}")
}

/// The files of a host with two addresses, whose peer has two.
fn host(directory: &PairDirectory, number: usize) -> ReplicaFiles {
    let name = HOSTS[number];
    fs::write(directory.path().join(format!("{name}.img")), [0; 1 << 20]).unwrap();
    let disk = format!("[[disks]]\npath = \"{name}.img\"\n");
    let files = directory.replica(name, Some("PEER"), &disk);
    let text = fs::read_to_string(&files.config).unwrap();
    let peer = 2 - number;
    let peer = format!("[\"10.1.0.{peer}:7400\", \"10.2.0.{peer}:7400\"]");
    let text = text.replace("\"PEER\"", &peer);
    let text = text.replace("127.0.0.1:0", "0.0.0.0:7400");
    fs::write(&files.config, text).unwrap();
    files
}

/// The links to its primary, as the backup tells them.
fn links(backup: &ReplicaFiles) -> Option<Vec<Value>> {
    backup.status()?["primary"]["links"].as_array().cloned()
}

/// The network of the link in use, once both are up.
fn await_both(backup: &ReplicaFiles) -> usize {
    wait_for("both links to be up", || {
        let links = links(backup)?;
        let are_up = links.len() == 2 && links.iter().all(|link| link["up"] == true);
        let used = links.iter().find(|link| link["in_use"] == true)?;
        let address = used["address"].as_str()?;
        let network = if address.starts_with("10.1.") { 1 } else { 2 };
        are_up.then_some(network)
    })
}

fn count(host: &ReplicaFiles, event: &str) -> usize {
    let events = fs::read_to_string(host.state.join("events.jsonl")).unwrap();
    events.matches(&format!("\"event\":\"{event}\"")).count()
}

#[test]
fn one_of_two_cables_is_pulled_and_nobody_is_suspected_and_no_key_is_asked_for() {
    let Some(cables) = Cables::lay() else {
        return;
    };
    let mut directory = PairDirectory::new(&counting_to_disk(u16::MAX));
    // Not of the machine that runs other tests besides.
    directory.pair_keys = "suspect_after = \"1s\"\n";
    let [a, b] = [0, 1].map(|number| host(&directory, number));
    let mut primary = cables.start("a", &a);
    a.await_state("alone");
    // The first address of its peer is dead when it joins.
    cables.set(1, false);
    let _backup = cables.start("b", &b);
    let before = a.await_state("protected");
    cables.set(1, true);
    await_lines(&a, 20);
    let keys = count(&a, "claimed") + count(&b, "claimed");
    for pulled in 1..=2 {
        let used = await_both(&b);
        cables.set(used, false);
        wait_for("the other link to be used", || {
            let links = links(&b)?;
            let other = format!("10.{}.0.1:7400", 3 - used);
            links
                .iter()
                .any(|link| link["address"] == *other && link["in_use"] == true)
                .then_some(())
        });
        // Outputs wait for acknowledgements, and leave.
        await_lines(&a, numbers(&a.console()).len() + 50);
        wait_for("the primary to tell of it", || {
            (count(&a, "link_down") >= pulled).then_some(())
        });
        cables.set(used, true);
    }
    await_both(&b);
    let after = a.await_state("protected");
    assert_eq!(after["generation"], before["generation"]);
    let told = &after["followers"][0]["links"];
    assert_eq!(told.as_array().map(Vec::len), Some(2), "{after}");
    for (host, name) in [(&a, "a"), (&b, "b")] {
        assert!(!host.has_event("suspected"), "{name}");
        assert!(
            host.has_event("link_down") && host.has_event("link_up"),
            "{name}"
        );
    }
    assert_eq!(count(&a, "claimed") + count(&b, "claimed"), keys);
    // A process that dies is noticed at once, by whichever link.
    primary.signal(Signal::KILL);
    primary.child.wait().unwrap();
    wait_for("the backup to be live", || {
        b.status().filter(|status| status["role"] == "primary")
    });
}
