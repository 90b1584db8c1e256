//! Starts the demonstration's processes, and a new backup whenever a replica has died.

use super::DemoOptions;
use super::child::Supervised;
use super::ending;
use super::keyboard::{Deed, Keyboard};
use super::layout::Layout;
use super::probe::Probe;
use super::screen::View;
use crate::config::{
    ArbiterSection, ByteSize, CompressionName, DiskDurability, LagPolicy, MacAddress, MemberName,
    Milliseconds, NetworkSection, PairSection, ReplicationName, VmConfig,
};
use crate::engine::EngineName;
use crate::exit::Failure;
use crate::status::{self, SWITCH_STATUS, Status};
use anyhow::{Context, anyhow, bail};
use guest_image::GuestImage;
use keys::{Site, Validity};
use machine::config::PanicPolicy;
use replica::control;
use replica::events::EventLog;
use replica::host_time::monotonic_ns;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a process may take to be there.
const START_TIMEOUT_NS: u64 = 20_000_000_000;
/// How long the processes may take to end.
const STOP_TIMEOUT_NS: u64 = 3_000_000_000;
/// Between two looks at something that is about to be there.
const POLL: Duration = Duration::from_millis(10);
/// What the two hosts that this one plays are called in their certificates. A replica that takes the place
/// of one that died has its name.
const HOSTS: [&str; 2] = ["hosta", "hostb"];
/// The certificate holds for so many days: longer than anybody looks.
const KEY_DAYS: u32 = 3_650;
/// A backup that ended is started anew no sooner than this after the one before.
const RESTART_INTERVAL_NS: u64 = 1_000_000_000;

struct Replica {
    number: u32,
    host: MemberName,
    directory: PathBuf,
    process: Supervised,
}

/// The demonstration's processes.
pub struct Supervisor {
    // Fields are dropped in this order: replicas before their network, the directory last.
    replicas: Vec<Replica>,
    switch: Supervised,
    probe: Probe,
    address: SocketAddr,
    events: EventLog,
    image: GuestImage,
    site: Site,
    hosts: [MemberName; 2],
    memory: u64,
    engine: EngineName,
    replication: ReplicationName,
    checkpoint_interval: Milliseconds,
    next_number: u32,
    started_at_ns: u64,
    ready_at_ns: Option<u64>,
    keyboard: Keyboard,
    replica_started_at_ns: u64,
    layout: Layout,
}

impl Supervisor {
    /// Starts the switch, the primary and the backup.
    pub fn start(
        layout: Layout,
        image: GuestImage,
        options: &DemoOptions,
    ) -> Result<Supervisor, Failure> {
        let started_at_ns = monotonic_ns();
        let events = EventLog::open(layout.root())?;
        let [one, other] = HOSTS.map(str::parse::<MemberName>);
        let hosts = [one.map_err(Failure::usage)?, other.map_err(Failure::usage)?];
        let names = hosts.clone().map(|host| host.0);
        let site = Site::init(&layout.site())
            .and_then(|site| {
                site.issue_all(&names, Validity::days(KEY_DAYS))?;
                Ok(site)
            })
            .context("cannot make keys for this demonstration")?;
        let (switch, address) = start_switch(&layout, options.port)?;
        let probe = Probe::start(address)?;
        let mut supervisor = Supervisor {
            replicas: Vec::new(),
            switch,
            probe,
            address,
            events,
            image,
            site,
            hosts,
            memory: options.memory,
            engine: options.engine,
            replication: options.replication,
            checkpoint_interval: options.checkpoint_interval,
            next_number: 1,
            started_at_ns,
            ready_at_ns: None,
            keyboard: Keyboard::default(),
            replica_started_at_ns: 0,
            layout,
        };
        supervisor.start_replica(None)?;
        let listen = supervisor.await_listening()?;
        supervisor.start_replica(Some(listen))?;
        Ok(supervisor)
    }

    /// Looks after the processes: whoever died is replaced.
    pub fn look_after(&mut self) -> Result<(), Failure> {
        if self.ready_at_ns.is_none() && self.probe.has_answered() {
            self.ready_at_ns = Some(monotonic_ns());
        }
        if let Some(status) = self.switch.ended()? {
            return Err(
                anyhow!("the switch ended ({status}): {}", self.switch.last_words()).into(),
            );
        }
        let mut ended = None;
        let mut index = 0;
        while index < self.replicas.len() {
            match self.replicas[index].process.ended()? {
                None => index += 1,
                Some(status) => {
                    let replica = self.replicas.remove(index);
                    ended = Some((status, replica.process.last_words()));
                    let detail = format!("process {} ended: {status}", replica.process.pid());
                    self.events.add("ended", 0, 0, detail);
                }
            }
        }
        match (self.replicas.len(), ended) {
            (0, Some((status, words))) => {
                Err(anyhow!(ending::describe(status, &words, self.layout.root())).into())
            }
            (1, _) => self.start_new_backup(),
            _ => Ok(()),
        }
    }

    /// Starts a backup for the replica that is left, when that is live and listens.
    fn start_new_backup(&mut self) -> Result<(), Failure> {
        if monotonic_ns() - self.replica_started_at_ns < RESTART_INTERVAL_NS {
            return Ok(());
        }
        let left = &self.replicas[0].directory;
        let Ok(survivor) = control::status(left) else {
            return Ok(());
        };
        match survivor.listen {
            Some(listen) if survivor.role == "primary" => Ok(self.start_replica(Some(listen))?),
            _ => Ok(()),
        }
    }

    fn start_replica(&mut self, peer: Option<String>) -> anyhow::Result<()> {
        let number = self.next_number;
        self.next_number += 1;
        self.replica_started_at_ns = monotonic_ns();
        let directory = self.layout.replica(number);
        std::fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let taken = |host: &&MemberName| self.replicas.iter().any(|other| other.host == **host);
        let free = self.hosts.iter().find(|host| !taken(host));
        let host = free.context("both hosts have a replica")?.clone();
        let config = self.configuration(&host, &directory, peer);
        let path = directory.join("vm.toml");
        std::fs::write(&path, toml::to_string(&config)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let arguments = vec!["replica".into(), "--config".into(), path.into_os_string()];
        let process = Supervised::start(arguments, &directory.join("log.txt"))
            .with_context(|| format!("cannot start replica {number}"))?;
        self.replicas.push(Replica {
            number,
            host,
            directory,
            process,
        });
        Ok(())
    }

    fn configuration(&self, host: &MemberName, directory: &Path, peer: Option<String>) -> VmConfig {
        VmConfig {
            name: "demo".into(),
            arch: self.image.architecture.into(),
            memory: ByteSize(self.memory),
            harts: 1,
            firmware: self.image.firmware.clone(),
            kernel: Some(self.image.kernel.clone()),
            initrd: Some(self.image.initrd.clone()),
            command_line: self.image.command_line.clone(),
            virtio_console: false,
            entropy: true,
            transport: None,
            bit_manipulation: true,
            without_extensions: BTreeSet::new(),
            on_panic: PanicPolicy::Report,
            disk_durability: DiskDurability::Primary,
            // Who quits the demonstration does not want to wait for its guest.
            power_off_wait: Milliseconds(1),
            state_directory: directory.into(),
            engine: self.engine,
            disks: Vec::new(),
            network: Some(NetworkSection {
                switch: Some(format!("unix:{}", switch_socket(&self.layout).display())),
                switch_host: None,
                keys: None,
                tap: None,
                mac: MacAddress::default(),
            }),
            pair: Some(PairSection {
                peers: Vec::new(),
                host: None,
                keys: self.site.host_directory(&host.0),
                members: BTreeSet::from(self.hosts.clone()),
                listen: "127.0.0.1:0".into(),
                peer: peer.map(Into::into),
                heartbeat: Milliseconds(60),
                // A kill ends the connection and is noticed at once; a host that is busy with other
                // things as well must not look like a dead one.
                suspect_after: Milliseconds(500),
                lag_target: Milliseconds(100),
                spares: Vec::new(),
                spare: false,
                spare_after: Milliseconds(10_000),
                lag_policy: LagPolicy::Slow,
                lag_limit: Milliseconds(5000),
                digest_interval: Milliseconds(1000),
                replication: self.replication,
                checkpoint_interval: self.checkpoint_interval,
                compression: CompressionName::Auto,
            }),
            journal: None,
            next_arbiter: None,
            arbiter: Some(ArbiterSection {
                directory: Some(self.layout.arbiter()),
                ..ArbiterSection::default()
            }),
        }
    }

    /// Waits until the primary listens for a backup, and says where.
    fn await_listening(&mut self) -> anyhow::Result<String> {
        let deadline = monotonic_ns() + START_TIMEOUT_NS;
        loop {
            let primary = &mut self.replicas[0];
            if let Some(status) = primary.process.ended()? {
                bail!(
                    "the primary ended ({status}): {}",
                    primary.process.last_words()
                );
            }
            if let Ok(status) = control::status(&primary.directory)
                && status.role == "primary"
                && let Some(listen) = status.listen
            {
                return Ok(listen);
            }
            if monotonic_ns() > deadline {
                bail!(
                    "replica {} does not answer: {}",
                    primary.number,
                    primary.process.last_words()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Does what a key is for; `Break`: it is for the end.
    pub fn pressed(&mut self, key: u8) -> ControlFlow<()> {
        let mut keyboard = std::mem::take(&mut self.keyboard);
        let deed = keyboard.pressed(key, || self.is_protected());
        self.keyboard = keyboard;
        match deed {
            Deed::Kill(role) => self.kill(role),
            Deed::End => return ControlFlow::Break(()),
            Deed::None => {}
        }
        ControlFlow::Continue(())
    }

    /// Whether the primary may die now, as it says itself.
    fn is_protected(&self) -> bool {
        self.replicas.iter().any(|replica| {
            control::status(&replica.directory)
                .is_ok_and(|status| status.role == "primary" && status.protected)
        })
    }

    fn kill(&mut self, role: &str) {
        let found = self.replicas.iter_mut().find(|replica| {
            control::status(&replica.directory).is_ok_and(|status| status.role == role)
        });
        if let Some(replica) = found {
            let detail = format!("the {role}, process {}", replica.process.pid());
            self.events.add("killed", 0, 0, detail);
            replica.process.kill();
        }
    }

    /// The line for scripts, once the service has answered.
    pub fn ready_line(&self) -> Option<String> {
        let ready_at_ns = self.ready_at_ns?;
        let seconds = (ready_at_ns - self.started_at_ns) as f64 / 1e9;
        Some(format!(
            "ready: Redis answers at {} after {seconds:.1} s",
            self.address
        ))
    }

    /// What the screen shows.
    pub fn view(&self) -> View {
        let status: Status = status::collect(self.layout.root());
        View {
            status,
            address: Some(self.address),
            ready: self.ready_at_ns.is_some(),
            uptime_seconds: (monotonic_ns() - self.started_at_ns) / 1_000_000_000,
            directory: self.layout.root().display().to_string(),
            asks: self.keyboard.asks(),
        }
    }

    /// Ends all processes, the replicas first.
    pub fn stop(&mut self) {
        let deadline = monotonic_ns() + STOP_TIMEOUT_NS;
        while monotonic_ns() < deadline {
            self.replicas
                .retain_mut(|replica| matches!(replica.process.ended(), Ok(None)));
            if self.replicas.is_empty() {
                break;
            }
            // Again and again: a backup whose primary has just ended goes live first.
            for replica in &self.replicas {
                replica.process.terminate();
            }
            std::thread::sleep(POLL);
        }
        // Dropping kills whoever did not end.
        self.replicas.clear();
        self.switch.terminate();
        while monotonic_ns() < deadline && matches!(self.switch.ended(), Ok(None)) {
            std::thread::sleep(POLL);
        }
    }
}

fn switch_socket(layout: &Layout) -> PathBuf {
    layout.switch().join("switch.sock")
}

/// Starts the switch, and waits until it tells the forward's real port.
fn start_switch(layout: &Layout, port: u16) -> anyhow::Result<(Supervised, SocketAddr)> {
    let mut listen = OsString::from("unix:");
    listen.push(switch_socket(layout));
    let status_file = layout.switch().join(SWITCH_STATUS);
    let arguments = vec![
        "switch".into(),
        "--listen".into(),
        listen,
        "--forward".into(),
        format!("127.0.0.1:{port}=10.0.2.15:6379").into(),
        "--status-file".into(),
        status_file.into_os_string(),
    ];
    let mut switch = Supervised::start(arguments, &layout.switch().join("log.txt"))
        .context("cannot start the switch")?;
    let deadline = monotonic_ns() + START_TIMEOUT_NS;
    loop {
        if let Some(forward) = status::collect(layout.root()).forwards.first()
            && let Ok(address) = forward.host.parse::<SocketAddr>()
            && address.port() != 0
        {
            return Ok((switch, address));
        }
        if let Some(status) = switch.ended()? {
            bail!("the switch ended ({status}): {}", switch.last_words());
        }
        if monotonic_ns() > deadline {
            bail!(
                "the switch does not say where it listens: {}",
                switch.last_words()
            );
        }
        std::thread::sleep(POLL);
    }
}
