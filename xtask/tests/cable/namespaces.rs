//! Three hosts and a LAN as network namespaces of this machine, removed when dropped.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

/// A host on the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// 10.77.0.2
    A,
    /// 10.77.0.3
    B,
    /// 10.77.0.4
    C,
}

impl Host {
    /// All of them.
    pub const ALL: [Host; 3] = [Host::A, Host::B, Host::C];

    /// Short and lower-case, for names.
    pub fn name(self) -> &'static str {
        match self {
            Host::A => "a",
            Host::B => "b",
            Host::C => "c",
        }
    }

    /// The bridge's port that its cable leads to.
    fn port(self) -> &'static str {
        match self {
            Host::A => "port-a",
            Host::B => "port-b",
            Host::C => "port-c",
        }
    }

    /// Its address on the LAN.
    pub fn address(self) -> &'static str {
        match self {
            Host::A => "10.77.0.2",
            Host::B => "10.77.0.3",
            Host::C => "10.77.0.4",
        }
    }
}

/// The LAN's own address, where the switch listens.
pub const LAN_ADDRESS: &str = "10.77.0.1";

/// A bridge in one namespace, and hosts with a cable to it in others of their own.
pub struct Lan {
    prefix: String,
}

impl Lan {
    /// Makes it; `None` where this is not possible, after saying why.
    pub fn lay() -> Result<Option<Lan>> {
        let lan = Lan {
            prefix: format!("understudy-{}", std::process::id()),
        };
        if let Err(error) = lan.ip(&["netns", "add", &lan.namespace("lan")]) {
            println!("skipped: network namespaces need root and iproute2: {error}");
            return Ok(None);
        }
        lan.connect()?;
        Ok(Some(lan))
    }

    fn connect(&self) -> Result<()> {
        let lan = self.namespace("lan");
        self.ip(&["-n", &lan, "link", "set", "lo", "up"])?;
        self.ip(&["-n", &lan, "link", "add", "bridge", "type", "bridge"])?;
        let address = format!("{LAN_ADDRESS}/24");
        self.ip(&["-n", &lan, "address", "add", &address, "dev", "bridge"])?;
        self.ip(&["-n", &lan, "link", "set", "bridge", "up"])?;
        for host in Host::ALL {
            let (namespace, port) = (self.namespace(host.name()), host.port());
            self.ip(&["netns", "add", &namespace])?;
            self.ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            self.ip(&[
                "-n", &lan, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns",
                &namespace,
            ])?;
            self.ip(&["-n", &lan, "link", "set", port, "master", "bridge", "up"])?;
            let address = format!("{}/24", host.address());
            self.ip(&["-n", &namespace, "address", "add", &address, "dev", "eth0"])?;
            self.ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("ip")
            .args(arguments)
            .output()
            .context("ip does not start")?;
        if !output.status.success() {
            bail!(
                "ip {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Pulls a host's cable out of the LAN, or plugs it in. The host's own interface stays as it is.
    pub fn set_cable(&self, host: Host, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        self.ip(&[
            "-n",
            &self.namespace("lan"),
            "link",
            "set",
            host.port(),
            state,
        ])
    }

    /// Drops everything that `from` sends to `to`, or stops doing so; the other way stays open.
    pub fn set_one_way(&self, from: Host, to: Host, open: bool) -> Result<()> {
        let verb = if open { "del" } else { "add" };
        let target = format!("{}/32", to.address());
        self.ip(&[
            "-n",
            &self.namespace(from.name()),
            "route",
            verb,
            "blackhole",
            &target,
        ])
    }

    /// A command on a host.
    pub fn on_host(&self, host: Host, program: &Path) -> Command {
        self.within(host.name(), program)
    }

    /// A command in the LAN.
    pub fn on_lan(&self, program: &Path) -> Command {
        self.within("lan", program)
    }

    fn within(&self, name: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace(name)])
            .arg(program);
        command
    }

    /// Moves the calling thread into the LAN: its sockets are a client's there.
    pub fn enter(&self) -> Result<()> {
        self.enter_namespace("lan")
    }

    /// Moves the calling thread to a host.
    pub fn enter_host(&self, host: Host) -> Result<()> {
        self.enter_namespace(host.name())
    }

    fn enter_namespace(&self, name: &str) -> Result<()> {
        let file = File::open(Path::new("/run/netns").join(self.namespace(name)))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter the namespace {name}"))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in ["a", "b", "c", "lan"] {
            // One that was never made needs no removal.
            let _removed = Command::new("ip")
                .args(["netns", "del", &self.namespace(name)])
                .output();
        }
    }
}
