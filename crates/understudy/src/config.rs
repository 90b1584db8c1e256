//! `vm.toml`: what a machine is made of, and how its pair, network and arbiter are reached.
//!
//! The same file, or nearly the same, is on both hosts. Paths in it are relative to its directory.

mod addresses;
mod arbiter;
mod arbiters;
mod compression;
mod journal;
mod replication;
mod shared_disks;
mod units;

pub use addresses::HostAddresses;
pub use arbiter::ArbiterSection;
pub use arbiters::{environment, open_by_address};
pub use compression::CompressionName;
pub use journal::{JournalSection, OutputsWaitFor};
pub use replication::{ReplicationName, default_checkpoint_interval};
pub use units::{Age, ByteSize, MacAddress, MemberName, Milliseconds};

use crate::architecture::Architecture;
use crate::engine::EngineName;
use ::arbiter::Settings;
use ::replication::succession::{Durability, MAX_MEMBERS};
use machine::config::{PanicPolicy, Transport};
use network::SwitchAddress;
use replica::config::{
    Attachment, DiskFile, DiskFormat, Fencing, NetworkEnd, PairOptions, RemoteSwitch,
};
use replica::{PeerAddresses, ReplicaConfig};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What is wrong with a configuration. The text names the file, and the line and key where it can.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{}, {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column, key and what is wrong with it.
        message: String,
    },
    /// A value that cannot be.
    #[error("{}{}: {key}: {message}", path.display(), line.map_or(String::new(), |line| format!(", line {line}")))]
    Value {
        /// The file.
        path: PathBuf,
        /// Where the key, or its section, stands.
        line: Option<usize>,
        /// The key, as in `pair.listen`.
        key: &'static str,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// The machine's name, the same on both hosts: the arbiter's keys and the handshake carry it.
    pub name: String,
    /// `riscv64` or `x86-64`; the same on both hosts.
    #[serde(default)]
    pub arch: Architecture,
    /// Bytes of RAM, as in `512M`; a multiple of 4096, 1 MiB at least.
    pub memory: ByteSize,
    /// Harts (of `x86-64`: CPUs), 1 to 8.
    #[serde(default = "one")]
    pub harts: u32,
    /// Firmware image. Of a RISC-V machine: OpenSBI's `fw_dynamic.bin`; absent: the kernel starts in M-mode. Of an
    /// x86-64 machine, instead of kernel, initrd and command line: EDK2's `CLOUDHV.fd`, which boots a disk that has
    /// a boot loader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<PathBuf>,
    /// Kernel: a RISC-V boot image or an ELF file, or a bzImage for x86-64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[serde(default)]
    pub command_line: String,
    /// A virtio console besides the UART.
    #[serde(default)]
    pub virtio_console: bool,
    /// A virtio entropy device.
    #[serde(default = "yes")]
    pub entropy: bool,
    /// How the virtio devices are reached: `mmio` or `pci`; when absent, what suits the architecture. The same on
    /// both hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// The bit-manipulation extensions Zba, Zbb and Zbs.
    #[serde(default = "yes")]
    pub bit_manipulation: bool,
    /// Other extensions that the harts do not have, by their names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without_extensions: BTreeSet<String>,
    /// What becomes of the machine when the guest's kernel panics; decided at power-on.
    #[serde(default)]
    pub on_panic: PanicPolicy,
    /// When a flush of the guest is complete while it has a backup; the same on both hosts.
    #[serde(default)]
    pub disk_durability: DiskDurability,
    /// How long the guest may take to power off when its host's replica is asked to end and nobody could
    /// take over.
    #[serde(default = "default_power_off_wait")]
    pub power_off_wait: Milliseconds,
    /// Sockets, events and evidence of this host's replica; made when absent.
    pub state_directory: PathBuf,
    /// What executes the guest on this host; the other one may have another.
    #[serde(default)]
    pub engine: EngineName,
    /// Disks, `vda` first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskSection>,
    /// The network device; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSection>,
    /// The pair; needed by `replica`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<PairSection>,
    /// The journal of this host, if it keeps one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalSection>,
    /// The arbiter to which the machine is to move, or has moved from the one of `arbiter`: what it takes to
    /// reach it, where its address alone does not do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_arbiter: Option<ArbiterSection>,
    /// The arbiter; needed by `replica`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arbiter: Option<ArbiterSection>,
}

/// When a flush of the guest is complete while it has a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskDurability {
    /// When the primary's disk has it.
    #[default]
    Primary,
    /// When both disks have it.
    Both,
}

impl DiskDurability {
    fn in_replication(self) -> Durability {
        match self {
            DiskDurability::Primary => Durability::Primary,
            DiskDurability::Both => Durability::Both,
        }
    }
}

/// What becomes of a backup for which the primary is slowed for long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LagPolicy {
    /// The primary waits for it.
    #[default]
    Slow,
    /// It is let go while another protects the machine, and joins again later.
    Drop,
    /// It is let go, the only one, too.
    DropAny,
}

impl LagPolicy {
    fn in_replication(self) -> ::replication::lag::LagPolicy {
        use ::replication::lag::LagPolicy as Policy;
        match self {
            LagPolicy::Slow => Policy::Slow,
            LagPolicy::Drop => Policy::Drop,
            LagPolicy::DropAny => Policy::DropAny,
        }
    }
}

/// One disk. Each host has its own copy, which is overwritten when it joins, unless all share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSection {
    /// An image of a multiple of 512 bytes.
    pub path: PathBuf,
    /// The guest may not write.
    #[serde(default)]
    pub read_only: bool,
    /// What the image is; when absent, `qcow2` if its name ends in `.qcow2`, and `raw` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
    /// The files that a qcow2 image lies over, the one right under it first: no others are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backing: Vec<PathBuf>,
    /// What is in it may go though no marker says that it is a copy of this machine's disk.
    #[serde(default)]
    pub overwrite: bool,
    /// It is one disk, which all hosts reach.
    #[serde(default)]
    pub shared: bool,
    /// What keeps a host that has lost the machine from writing to a shared disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing: Option<Fencing>,
}

impl DiskSection {
    fn named_backing(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.backing.iter().map(|path| ("disks.backing", &**path))
    }

    /// As a replica takes it.
    pub fn file(&self) -> DiskFile {
        DiskFile {
            path: self.path.clone(),
            read_only: self.read_only,
            format: self.format,
            backing: self.backing.clone(),
            may_be_overwritten: self.overwrite,
            is_shared: self.shared,
            fencing: self.fencing,
        }
    }
}

/// How the network device is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSection {
    /// An `understudy switch`: `unix:/path` or `tcp:127.0.0.1:7500`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<String>,
    /// The host of a switch at `tcp:`, by the name in its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch_host: Option<MemberName>,
    /// The directory of this host's keys, for a switch at `tcp:`; those of the pair when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<PathBuf>,
    /// A TAP device, to be put on a bridge (root).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// The guest's address, the same on both hosts.
    #[serde(default)]
    pub mac: MacAddress,
}

/// The pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairSection {
    /// Where this host listens for the other one, as in `0.0.0.0:7400`.
    pub listen: String,
    /// The name in this host's certificate; it may be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The directory of this host's keys, as `understudy keys issue` made it.
    pub keys: PathBuf,
    /// The hosts that the machine may be on, this one among them, by the names in their certificates:
    /// nobody else is let in.
    pub members: BTreeSet<MemberName>,
    /// Where the other host listens: an address, or a list of all of its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<HostAddresses>,
    /// Where all other hosts listen, if there are several: each by an address, or a list of all of its addresses. As
    /// many backups protect the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<HostAddresses>,
    /// Where hosts listen that take a backup's place when one is lacking. They are no backups before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spares: Vec<HostAddresses>,
    /// This host is such a spare. Its `peers` are all hosts that are none.
    #[serde(default)]
    pub spare: bool,
    /// How long a backup has to be lacking before a spare takes its place.
    #[serde(default = "default_spare_after")]
    pub spare_after: Milliseconds,
    /// Time between two heartbeats.
    #[serde(default = "default_heartbeat")]
    pub heartbeat: Milliseconds,
    /// Silence after which the peer is suspected.
    #[serde(default = "default_suspect_after")]
    pub suspect_after: Milliseconds,
    /// The primary slows down when the backup is further behind than this.
    #[serde(default = "default_lag_target")]
    pub lag_target: Milliseconds,
    /// What becomes of a backup that would be further behind than the limit if the primary did not slow
    /// down for it.
    #[serde(default)]
    pub lag_policy: LagPolicy,
    /// That limit.
    #[serde(default = "default_lag_limit")]
    pub lag_limit: Milliseconds,
    /// Time between two digest records.
    #[serde(default = "default_digest_interval")]
    pub digest_interval: Milliseconds,
    /// How backups are kept alike; the same on all hosts.
    #[serde(default)]
    pub replication: ReplicationName,
    /// With `state-transfer`: time between two checkpoints.
    #[serde(default = "replication::default_checkpoint_interval")]
    pub checkpoint_interval: Milliseconds,
    /// When this host packs what it sends to the others.
    #[serde(default)]
    pub compression: CompressionName,
}

/// A backup may be behind by so many times the target at least before it is let go: the primary halts
/// there until it has come nearer.
const LEAST_LAG_LIMIT: u64 = 4;

/// A configuration is no longer; a device or a pipe without an end is not read for ever.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = File::open(path)?
        .take(FILE_LIMIT_BYTES + 1)
        .read_to_string(&mut text)?;
    if length as u64 > FILE_LIMIT_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it has more than 1 MiB",
        ));
    }
    Ok(text)
}

/// Whether this can be the address of a socket. Whether the host's name is known is another matter,
/// and may change.
fn is_host_and_port(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn default_power_off_wait() -> Milliseconds {
    Milliseconds(60_000)
}

fn default_heartbeat() -> Milliseconds {
    Milliseconds(60)
}

fn default_suspect_after() -> Milliseconds {
    Milliseconds(240)
}

fn default_lag_target() -> Milliseconds {
    Milliseconds(100)
}

fn default_spare_after() -> Milliseconds {
    Milliseconds(10_000)
}

fn default_lag_limit() -> Milliseconds {
    Milliseconds(5000)
}

fn default_digest_interval() -> Milliseconds {
    Milliseconds(1000)
}

impl NetworkSection {
    /// Whether its switch is another host's.
    pub fn is_remote(&self) -> bool {
        let address = self.switch.as_deref();
        address.is_some_and(|address| address.starts_with("tcp:"))
    }

    /// As a replica takes it. Of a checked configuration: it names a switch or a TAP device.
    pub fn network_end(&self) -> NetworkEnd {
        let attachment = match (&self.switch, &self.tap) {
            (Some(address), None) => match (&self.switch_host, &self.keys) {
                (Some(host), Some(keys)) => Attachment::RemoteSwitch(RemoteSwitch {
                    address: address.clone(),
                    keys: keys.clone(),
                    host: host.0.clone(),
                }),
                _ => Attachment::Switch(address.clone()),
            },
            (None, Some(name)) => Attachment::Tap(name.clone()),
            (None, None) | (Some(_), Some(_)) => unreachable!("the configuration was checked"),
        };
        NetworkEnd {
            attachment,
            mac: self.mac.0,
        }
    }
}

impl VmConfig {
    /// Reads and checks a file; its relative paths are resolved against its directory.
    pub fn load(path: &Path) -> Result<VmConfig, ConfigError> {
        let text = read_bounded(path).map_err(|source| ConfigError::Unreadable {
            path: path.into(),
            source,
        })?;
        let mut config: VmConfig = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.into(),
            message: locate(&text, &error),
        })?;
        config.check(path).map_err(|error| error.located(&text))?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        Ok(config)
    }

    /// Checks what TOML cannot say.
    pub fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key, message: String| {
            Err(ConfigError::Value {
                path: path.into(),
                line: None,
                key,
                message,
            })
        };
        let name_is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // The arbiter's keys begin with it, and no store has keys that begin with a dot.
        if !(1..=64).contains(&self.name.len())
            || !self.name.chars().all(name_is_plain)
            || self.name.starts_with('.')
        {
            return wrong(
                "name",
                format!(
                    "{:?} is not 1 to 64 letters, digits, '-', '_' or '.', beginning with no '.'",
                    self.name
                ),
            );
        }
        if self.memory.0 < 1 << 20 || !self.memory.0.is_multiple_of(4096) {
            return wrong(
                "memory",
                format!(
                    "{} bytes is not a multiple of 4096 from 1M on",
                    self.memory.0
                ),
            );
        }
        if !(1..=8).contains(&self.harts) {
            return wrong("harts", format!("{} is not within 1 to 8", self.harts));
        }
        if self.firmware.is_none() && self.kernel.is_none() {
            return wrong("kernel", "neither a kernel nor a firmware is given".into());
        }
        let empty = |path: &Path| path.as_os_str().is_empty();
        // A machine alone (`run`) keeps no state.
        let state = self.pair.as_ref().map(|_| &*self.state_directory);
        let images = [
            ("firmware", self.firmware.as_deref()),
            ("kernel", self.kernel.as_deref()),
            ("initrd", self.initrd.as_deref()),
            ("state_directory", state),
            ("pair.keys", self.pair.as_ref().map(|pair| &*pair.keys)),
        ];
        let arbiter = self.arbiter.iter().chain(&self.next_arbiter);
        let named = images
            .into_iter()
            .filter_map(|(key, path)| Some((key, path?)))
            .chain(self.disks.iter().map(|disk| ("disks.path", &*disk.path)))
            .chain(self.disks.iter().flat_map(DiskSection::named_backing))
            .chain(self.journal.iter().flat_map(JournalSection::paths))
            .chain(arbiter.flat_map(ArbiterSection::paths));
        for (key, path) in named {
            if empty(path) {
                return wrong(key, "an empty path: name a file or directory".into());
            }
        }
        let is_raw = |disk: &&DiskSection| disk.file().format() == DiskFormat::Raw;
        let over = self.disks.iter().find(|disk| !disk.backing.is_empty());
        if let Some(disk) = over.filter(is_raw) {
            let path = disk.path.display();
            let message = format!(
                "{path} is raw and lies over nothing; a qcow2 image has format = \"qcow2\" or a name that \
                 ends in .qcow2"
            );
            return wrong("disks.backing", message);
        }
        let known = self.arch.extensions();
        let unknown = self.without_extensions.iter();
        if let Some(name) = unknown.into_iter().find(|name| !known.contains(&&***name)) {
            let message = match known {
                [] => format!("{name:?}: a machine of this architecture has none to leave out"),
                _ => format!(
                    "there is no {name:?} to leave out, but {}",
                    known.join(", ")
                ),
            };
            return wrong("without_extensions", message);
        }
        if let Some((key, message)) = self.wrong_beside_firmware() {
            return wrong(key, message.into());
        }
        if let Some(network) = &self.network
            && network.switch.is_some() == network.tap.is_some()
        {
            return wrong("network", "give either `switch` or `tap`".into());
        }
        if let Some(NetworkSection {
            switch: Some(address),
            ..
        }) = &self.network
            && let Err(error) = address.parse::<SwitchAddress>()
        {
            return wrong("network.switch", error.to_string());
        }
        if let Some(network) = &self.network
            && network.is_remote()
        {
            if network.switch_host.is_none() {
                let message =
                    "a switch at tcp: is on another host: name it, as its certificate does";
                return wrong("network.switch_host", message.into());
            }
            if network.keys.is_none() && self.pair.is_none() {
                let message = "a switch at tcp: takes nobody without keys: name this host's";
                return wrong("network.keys", message.into());
            }
        }
        if let Some(pair) = &self.pair {
            let listen = std::iter::once(("pair.listen", &*pair.listen));
            for (key, address) in listen.chain(pair.others()) {
                if !is_host_and_port(address) {
                    return wrong(
                        key,
                        format!("{address:?} is not an address such as 192.0.2.7:7400"),
                    );
                }
            }
        }
        if let Some(pair) = &self.pair
            && pair.members.is_empty()
        {
            let message = "no host: name those that the machine may be on, this one among them";
            return wrong("pair.members", message.into());
        }
        if let Some(pair) = &self.pair
            && let Some((key, message)) = wrong_peers(pair)
        {
            return wrong(key, message);
        }
        if let Some(pair) = &self.pair
            && pair.suspect_after.0 < 2 * pair.heartbeat.0
        {
            return wrong(
                "pair.suspect_after",
                format!(
                    "{} ms is less than two heartbeats of {} ms",
                    pair.suspect_after.0, pair.heartbeat.0
                ),
            );
        }
        if let Some(message) = self.wrong_journal_place() {
            return wrong("journal.directory", message);
        }
        if let Some(journal) = &self.journal
            && let Err((key, message)) = journal.check()
        {
            return wrong(key, message);
        }
        if let Err((key, message)) = replication::check(self) {
            return wrong(key, message);
        }
        if let Err((key, message)) = shared_disks::check(self) {
            return wrong(key, message);
        }
        if let Some(pair) = &self.pair
            && pair.lag_policy != LagPolicy::Slow
            && pair.lag_limit.0 < LEAST_LAG_LIMIT * pair.lag_target.0
        {
            return wrong(
                "pair.lag_limit",
                format!(
                    "{} ms is less than {LEAST_LAG_LIMIT} times the lag_target of {} ms, which a \
                     busy backup reaches now and then",
                    pair.lag_limit.0, pair.lag_target.0
                ),
            );
        }
        if let Some(arbiter) = &self.arbiter
            && let Err((key, message)) = arbiter.check()
        {
            return wrong(key, message);
        }
        if let Some(next) = &self.next_arbiter
            && let Err((key, message)) = next.check()
        {
            return wrong("next_arbiter", format!("{key}: {message}"));
        }
        Ok(())
    }

    fn resolve(&mut self, directory: &Path) {
        let resolve = |path: &mut PathBuf| {
            if path.is_relative() {
                *path = directory.join(&*path);
            }
        };
        resolve(&mut self.state_directory);
        for path in [&mut self.firmware, &mut self.kernel, &mut self.initrd]
            .into_iter()
            .flatten()
        {
            resolve(path);
        }
        for disk in &mut self.disks {
            resolve(&mut disk.path);
            disk.backing.iter_mut().for_each(resolve);
        }
        if let Some(pair) = &mut self.pair {
            resolve(&mut pair.keys);
        }
        if let Some(network) = &mut self.network {
            if let Some(keys) = &mut network.keys {
                resolve(keys);
            } else if network.is_remote() {
                network.keys = self.pair.as_ref().map(|pair| pair.keys.clone());
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.resolve(resolve);
        }
        for arbiter in [&mut self.arbiter, &mut self.next_arbiter]
            .into_iter()
            .flatten()
        {
            arbiter.resolve(resolve);
        }
    }

    /// What a replica has to know of it, and how its arbiter is reached, or an error that says what is
    /// missing in the file at `path`.
    pub fn replica(&self, path: &Path) -> Result<(ReplicaConfig, Settings), ConfigError> {
        let pair = self.pair.as_ref().ok_or_else(|| missing(path, "pair"))?;
        let arbiter = self.arbiter.as_ref();
        let arbiter = arbiter.ok_or_else(|| missing(path, "arbiter"))?;
        let wrong = |(key, message): arbiter::Wrong| ConfigError::Value {
            path: path.into(),
            line: None,
            key,
            message,
        };
        let arbiter = arbiter.settings(&arbiters::environment);
        let arbiter = arbiter.map_err(wrong)?;
        let journal = self.journal.as_ref();
        let journal = journal.map(|journal| journal.options(&arbiters::environment));
        let journal = journal.transpose().map_err(wrong)?;
        let replica = ReplicaConfig {
            name: self.name.clone(),
            build: crate::build::build(),
            state_directory: self.state_directory.clone(),
            memory_bytes: self.memory.0,
            engine: self.engine.0,
            disks: self.disk_files(),
            network: self.network.as_ref().map(NetworkSection::network_end),
            disk_durability: self.disk_durability.in_replication(),
            power_off_wait: self.power_off_wait.duration(),
            journal,
            pair: PairOptions {
                host: pair.host.clone(),
                keys: pair.keys.clone(),
                members: pair.members.iter().map(|name| name.0.clone()).collect(),
                listen: pair.listen.clone(),
                heartbeat: pair.heartbeat.duration(),
                suspect_after: pair.suspect_after.duration(),
                lag_target: pair.lag_target.duration(),
                backups: pair.backups(),
                is_spare: pair.spare,
                spare_after: pair.spare_after.duration(),
                lag_policy: pair.lag_policy.in_replication(),
                lag_limit: pair.lag_limit.duration(),
                digest_interval: pair.digest_interval.duration(),
                checkpoints: replication::checkpoints(pair.replication, pair.checkpoint_interval),
                compression: pair.compression.in_replica(),
            },
        };
        Ok((replica, arbiter))
    }

    /// What a journal's directory is in the way of: files of a journal go with it, whole, and so does what lies among them.
    fn wrong_journal_place(&self) -> Option<String> {
        let journal = self.journal.as_ref()?.directory.as_ref()?;
        let arbiters = [
            ("the arbiter's directory", &self.arbiter),
            (
                "the directory of the arbiter that follows",
                &self.next_arbiter,
            ),
        ];
        let arbiters = arbiters.into_iter().filter_map(|(what, arbiter)| {
            let directory = arbiter.as_ref()?.directory.as_deref()?;
            Some((what, directory))
        });
        let taken = [("the state directory", &*self.state_directory)];
        let (what, path, how) = taken.into_iter().chain(arbiters).find_map(|(what, path)| {
            let how = how_places_meet(journal, path)?;
            Some((what, path, how))
        })?;
        Some(format!(
            "it {how} {what}, {}: give the journal a directory of its own, beside that",
            path.display()
        ))
    }

    /// Firmware of an x86-64 machine loads all else from a disk, which it finds on the PCI bus.
    fn wrong_beside_firmware(&self) -> Option<(&'static str, &'static str)> {
        if self.arch != Architecture::X86_64 || self.firmware.is_none() {
            return None;
        }
        let beside = [
            ("kernel", self.kernel.is_some()),
            ("initrd", self.initrd.is_some()),
            ("command_line", !self.command_line.is_empty()),
        ];
        if let Some((key, _)) = beside.into_iter().find(|(_, is_given)| *is_given) {
            let message = "the firmware of an x86-64 machine loads kernel, initrd and command line from a disk: give \
                 either a firmware or these";
            return Some((key, message));
        }
        let message =
            "the firmware of an x86-64 machine finds its disk on the PCI bus only: leave this out";
        (self.transport() == Transport::Mmio).then_some(("transport", message))
    }

    /// How the virtio devices are reached.
    pub fn transport(&self) -> Transport {
        self.transport.unwrap_or(self.arch.usual_transport())
    }

    /// The same, as it is written in the file.
    pub fn transport_name(&self) -> &'static str {
        match self.transport() {
            Transport::Mmio => "mmio",
            Transport::Pci => "pci",
        }
    }

    /// The disks as a replica takes them.
    pub fn disk_files(&self) -> Vec<DiskFile> {
        self.disks.iter().map(DiskSection::file).collect()
    }

    /// Where other replicas may be found.
    pub fn peers(&self) -> Vec<PeerAddresses> {
        let pair = self.pair.iter();
        pair.flat_map(|pair| pair.peer.iter().chain(&pair.peers).chain(&pair.spares))
            .map(|peer| peer.0.clone())
            .collect()
    }
}

/// How one directory lies to another, if one is the other or has it in it, as far as they are there.
fn how_places_meet(one: &Path, other: &Path) -> Option<&'static str> {
    let (one, other) = (real_place(one), real_place(other));
    if one == other {
        Some("is")
    } else if one.starts_with(&other) {
        Some("lies in")
    } else if other.starts_with(&one) {
        Some("has in it")
    } else {
        None
    }
}

/// Where a path leads, as far as it is there: what is to be made is made in what is.
fn real_place(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| {
        let real = above.canonicalize().ok()?;
        Some(real.join(path.strip_prefix(above).ok()?))
    });
    there.unwrap_or_else(|| path.into())
}

/// What is wrong with where the other hosts listen.
fn wrong_peers(pair: &PairSection) -> Option<(&'static str, String)> {
    if pair.peer.is_some() && !pair.peers.is_empty() {
        let message = "give either `peer`, the one other host, or `peers`, all of them";
        return Some(("pair.peers", message.into()));
    }
    if pair.backups() > MAX_MEMBERS {
        let message = format!("at most {MAX_MEMBERS} hosts can protect a machine");
        return Some(("pair.peers", message));
    }
    if pair.spares.len() > MAX_SPARES {
        let message = format!("at most {MAX_SPARES} hosts can wait to be needed");
        return Some(("pair.spares", message));
    }
    let own = |(_, address): &(&str, &str)| *address == pair.listen;
    if let Some((key, address)) = pair.others().find(own) {
        let message = format!(
            "{address:?} is where this host itself listens (`pair.listen`): name the other host"
        );
        return Some((key, message));
    }
    let nowhere = |(_, address): &(&str, &str)| address.ends_with(":0");
    if let Some((key, address)) = pair.others().find(nowhere) {
        let message = format!("{address:?} has no port: say at which the other host listens");
        return Some((key, message));
    }
    // The one other host is no spare, but files that say so were read before.
    let of_one = |key: &str| key == "pair.peer" && pair.peer.iter().all(|peer| peer.0.is_one());
    let all = pair.others().filter(|(key, _)| !of_one(key));
    let all: Vec<(&str, &str)> = all.collect();
    let is_there_before = |index: usize, address: &str| {
        let mut before = all[..index].iter();
        before.any(|(_, other)| *other == address)
    };
    let mut all_others = all.iter().enumerate();
    let (_, (key, address)) =
        all_others.find(|(index, (_, address))| is_there_before(*index, address))?;
    Some((key, format!("{address:?} is there twice")))
}

impl PairSection {
    /// Every address of every other host, with its key.
    fn others(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let of = |key: &'static str| move |peer| (key, peer);
        let peer = self.peer.iter().map(of("pair.peer"));
        let peers = self.peers.iter().map(of("pair.peers"));
        let spares = self.spares.iter().map(of("pair.spares"));
        let hosts = peer.chain(peers).chain(spares);
        hosts.flat_map(|(key, host): (&'static str, &HostAddresses)| {
            host.0.iter().map(move |address| (key, address))
        })
    }

    /// How many backups are wanted: all hosts but one, spares apart.
    fn backups(&self) -> usize {
        let others = self.peer.iter().chain(&self.peers).count();
        let backups = if self.spare {
            others.saturating_sub(1)
        } else {
            others
        };
        backups.max(1)
    }
}

/// So many spares of one machine.
const MAX_SPARES: usize = 16;

fn missing(path: &Path, key: &'static str) -> ConfigError {
    ConfigError::Value {
        path: path.into(),
        line: None,
        key,
        message: format!("a pair needs the section [{key}]"),
    }
}

impl ConfigError {
    /// With the line of the file's `text` at which its key stands, or the section of a key that is
    /// not there.
    fn located(mut self, text: &str) -> ConfigError {
        if let ConfigError::Value { line, key, .. } = &mut self {
            let section = key.rsplit_once('.').map(|(section, _)| section);
            *line = line_of(text, key).or_else(|| line_of(text, section?));
        }
        self
    }
}

/// The number of the line at which a key as `pair.listen`, or a section, begins.
fn line_of(text: &str, wanted: &str) -> Option<usize> {
    let mut section = String::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        let key = if let Some(header) = line.strip_prefix('[') {
            let name = header.trim_start_matches('[').split(']').next()?;
            section = format!("{}.", name.trim());
            name.trim().to_owned()
        } else {
            let (key, _) = line.split_once('=').unwrap_or_default();
            format!("{section}{}", key.trim())
        };
        if key == wanted {
            return Some(number);
        }
    }
    None
}

/// One line for an error of the TOML reader: `line 3, column 5: memory: …`.
fn locate(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    let Some(span) = error.span() else {
        return message;
    };
    let before = &text[..span.start.min(text.len())];
    let line_number = before.matches('\n').count() + 1;
    let line = text.lines().nth(line_number - 1).unwrap_or_default();
    match line.split_once('=') {
        Some((key, _)) if !message.contains(key.trim()) => {
            format!("line {line_number}, {}: {message}", key.trim())
        }
        _ => format!("line {line_number}: {message}"),
    }
}

#[cfg(test)]
mod tests;
