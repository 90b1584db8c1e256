//! What a replica has to know, as the program reads it from its configuration.

use crate::packing::Compression;
use crate::vcpu::CheckpointOptions;
use arbiter::S3Settings;
use keys::HostName;
use machine::engine::Engine;
use replication::config::{JournalRole, Replication};
use replication::configuration::Build;
use replication::lag::LagPolicy;
use replication::succession::Durability;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One replica of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// The machine's name, the same on both hosts: the arbiter's keys and the handshake carry it.
    pub name: String,
    /// What this program was built from, as other hosts and people are told.
    pub build: Build,
    /// Sockets, events and evidence; made when absent.
    pub state_directory: PathBuf,
    /// Bytes of RAM: a snapshot that is much larger is none of this machine's.
    pub memory_bytes: u64,
    /// What executes the guest, as the status tells it while there is no machine yet.
    pub engine: Engine,
    /// Disks, the first one first.
    pub disks: Vec<DiskFile>,
    /// The network device's other end.
    pub network: Option<NetworkEnd>,
    /// When a flush of the guest is complete while there is a backup; the same on both hosts.
    pub disk_durability: Durability,
    /// How long a guest may take to power off when its host's replica is asked to end and nobody could
    /// take over; zero: it is not asked.
    pub power_off_wait: Duration,
    /// How the pair meets.
    pub pair: PairOptions,
    /// Where this host keeps a journal while it is the primary.
    pub journal: Option<JournalOptions>,
}

impl ReplicaConfig {
    /// Whether what the guest writes goes to layers beside its images while a journal is kept.
    pub fn has_layers(&self) -> bool {
        let journal = self.journal.as_ref();
        journal.is_some_and(|journal| journal.role == JournalRole::Member)
            && self.disks.iter().any(|disk| !disk.read_only)
    }

    /// Whether the machine has a disk that all its hosts reach.
    pub fn has_shared_disks(&self) -> bool {
        self.disks.iter().any(|disk| disk.is_shared)
    }

    /// Whether the journal holds what disks read: of one that nobody looks into nobody needs it.
    pub fn keeps_reads(&self) -> bool {
        let journal = self.journal.as_ref();
        journal.is_some_and(|journal| {
            journal.role == JournalRole::History || journal.keep.keeps_anything()
        })
    }
}

/// A host's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// Where it is.
    pub place: JournalPlace,
    /// Whether outputs wait until it has them.
    pub role: JournalRole,
    /// It has failed when something is not durable after so long.
    pub timeout: Duration,
    /// Another snapshot is taken when going on from it would take longer.
    pub recover_within: Duration,
    /// What is kept of what is older than its newest snapshot.
    pub keep: Retention,
}

/// Where journals are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalPlace {
    /// A directory of this host; made when absent.
    Directory(PathBuf),
    /// A bucket, which all hosts of the machine may share.
    Bucket(Box<JournalBucket>),
}

impl JournalPlace {
    /// For people.
    pub fn path(&self) -> PathBuf {
        match self {
            JournalPlace::Directory(path) => path.clone(),
            JournalPlace::Bucket(bucket) => bucket.settings.address.to_string().into(),
        }
    }
}

/// A bucket in which journals are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalBucket {
    /// Which, and how it is reached.
    pub settings: S3Settings,
    /// What is asked of it has failed when there is no answer after so long.
    pub patience: Duration,
}

/// What is kept of what no machine needs to go on: what is within both limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many bytes at most.
    pub bytes: u64,
    /// What happened so long ago, at least.
    pub age: Duration,
}

impl Retention {
    /// Nothing.
    pub const NOTHING: Retention = Retention {
        bytes: 0,
        age: Duration::ZERO,
    };

    /// Whether anything is kept.
    pub fn keeps_anything(&self) -> bool {
        self.bytes > 0 && !self.age.is_zero()
    }
}

/// How a disk's bytes are in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// One after the other.
    Raw,
    /// In a qcow2 image.
    Qcow2,
}

/// What keeps whoever lost the machine from writing to a disk that all its hosts reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fencing {
    /// The file's lock: as long as somebody has it nobody else goes live, and whoever does not have it any more cannot
    /// write. Without this word that is believed of file systems of one host only.
    Lock,
    /// Something outside of this program. Nobody goes live before somebody says that it is done.
    Outside,
}

/// One disk's file or block device on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// An image of a multiple of 512 bytes.
    pub path: PathBuf,
    /// The guest may not write.
    pub read_only: bool,
    /// What the configuration says that it is, if it says it.
    pub format: Option<DiskFormat>,
    /// What a qcow2 image lies over: the file right under it first. No other is ever read.
    pub backing: Vec<PathBuf>,
    /// What is in it may be overwritten by the primary's though no marker says that it is a copy of that.
    pub may_be_overwritten: bool,
    /// All hosts of the machine reach it: there are no copies of it.
    pub is_shared: bool,
    /// What fences it, where the configuration says so.
    pub fencing: Option<Fencing>,
}

impl DiskFile {
    /// An image that lies over nothing, of which only the name says what it is.
    pub fn new(path: &Path, read_only: bool) -> DiskFile {
        DiskFile {
            path: path.into(),
            read_only,
            format: None,
            backing: Vec::new(),
            may_be_overwritten: false,
            is_shared: false,
            fencing: None,
        }
    }

    /// What it is: never what its content says, which the guest of a raw image writes.
    pub fn format(&self) -> DiskFormat {
        let named = self.path.extension().is_some_and(|name| name == "qcow2");
        self.format.unwrap_or(match named {
            true => DiskFormat::Qcow2,
            false => DiskFormat::Raw,
        })
    }
}

/// Where the guest's frames go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEnd {
    /// The switch or device.
    pub attachment: Attachment,
    /// The guest's Ethernet address, the same on both hosts.
    pub mac: [u8; 6],
}

/// A switch of another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSwitch {
    /// Where it is, as in `tcp:192.0.2.9:7500`.
    pub address: String,
    /// The directory of this host's keys.
    pub keys: PathBuf,
    /// The host that it has to be, by the name in its certificate.
    pub host: HostName,
}

/// What the network device is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// A switch of this host, at an address such as `unix:/path`.
    Switch(String),
    /// A switch of another host.
    RemoteSwitch(RemoteSwitch),
    /// A TAP device of this host, by name.
    Tap(String),
}

impl Attachment {
    /// Where it is: the switch's address, or the device's name.
    pub fn place(&self) -> &str {
        match self {
            Attachment::Switch(address) | Attachment::Tap(address) => address,
            Attachment::RemoteSwitch(switch) => &switch.address,
        }
    }
}

/// How the pair meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairOptions {
    /// What this host is called, if that is said: the name in its certificate.
    pub host: Option<String>,
    /// The directory of this host's keys.
    pub keys: PathBuf,
    /// The hosts that this machine may be on, this one among them: nobody else is let in.
    pub members: BTreeSet<HostName>,
    /// How many backups are wanted.
    pub backups: usize,
    /// This host joins only where one is lacking, and powers nothing on.
    pub is_spare: bool,
    /// How long one has to be lacking before a spare is taken.
    pub spare_after: Duration,
    /// Where this host listens for the other one, as in `0.0.0.0:7400`.
    pub listen: String,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Silence after which the peer is suspected.
    pub suspect_after: Duration,
    /// The primary slows down when the backup is further behind than this.
    pub lag_target: Duration,
    /// What becomes of a backup for which it would be slowed for longer than the limit.
    pub lag_policy: LagPolicy,
    /// How far a backup may be behind, had the primary not been slowed for it.
    pub lag_limit: Duration,
    /// Time between two digest records.
    pub digest_interval: Duration,
    /// Backups are brought along by checkpoints, and these are made so; otherwise by what the machine was made
    /// to do.
    pub checkpoints: Option<CheckpointOptions>,
    /// When this host packs what it sends to the others.
    pub compression: Compression,
}

impl PairOptions {
    /// What the log says of the machine; the same on both hosts.
    pub fn replication(&self) -> Replication {
        match self.checkpoints {
            None => Replication::Log,
            Some(_) => Replication::StateTransfer,
        }
    }
}
