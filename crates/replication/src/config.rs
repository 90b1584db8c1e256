//! What both roles need to know.

use crate::cursor::BatchConfig;
use crate::failure_detector::DetectorConfig;
use crate::lag::LagConfig;
use crate::message::{Greeting, PROTOCOL_VERSION};
use crate::mutation::Mutations;
use crate::succession::{BeaconName, ClaimPacing, Durability, HostId, Writer};
use std::time::Duration;

/// A primary's journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JournalRole {
    /// There is none.
    #[default]
    None,
    /// It keeps the history, and nothing waits for it: a machine does not go on from it.
    History,
    /// Outputs wait until it is durable: the machine goes on from it when all else is lost.
    Member,
}

/// What the log says of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// What it was made to do: a backup does the same.
    #[default]
    Log,
    /// What became of it, tens of times a second: a backup executes nothing.
    StateTransfer,
}

/// Configuration of a replica, primary or backup. Both sides should have the same times.
#[derive(Clone, Debug)]
pub struct PairConfig {
    /// What this process says about itself. `run` must be new for each start of a process.
    pub greeting: Greeting,
    /// What the log says of the machine; the same on both sides, by the greeting's configuration.
    pub replication: Replication,
    /// The newest protocol that it speaks; lower in the simulator, for a host of an older program.
    pub protocol: u32,
    /// Bytes of memory that a host needs for the machine; 0: nobody is refused for what it lacks.
    pub machine_memory: u64,
    /// When a peer is suspected.
    pub detector: DetectorConfig,
    /// When records are sent.
    pub batch: BatchConfig,
    /// How often this replica's program makes a digest record as a primary, even if the guest
    /// idles. Begin tells it to the backup, whose own may be another.
    pub digest_interval: Duration,
    /// How far the backup may be behind.
    pub lag: LagConfig,
    /// Bytes of records that may wait for a joining backup; the primary is slowed beyond.
    pub join_backlog_bytes: usize,
    /// Bytes of the newest records that are kept for a follower that comes back.
    pub log_bytes: usize,
    /// How many members a primary takes at most.
    pub max_members: usize,
    /// This host is a spare: it joins where members are lacking, and powers nothing on.
    pub is_spare: bool,
    /// How long members have to be lacking before a primary takes a spare.
    pub spare_after: Duration,
    /// How often the arbiter is asked.
    pub claim_pacing: ClaimPacing,
    /// How often it is looked whether the arbiter is there and the same on both sides.
    pub watch_interval: Duration,
    /// When a guest's flush is complete, in generations with members.
    pub durability: Durability,
    /// The machine has a disk that all its hosts reach: a member that won goes live when its host has fenced it off
    /// from whoever had it before, and says so.
    pub has_shared_disks: bool,
    /// Whether this host keeps a journal, and what outputs have to do with it.
    pub journal: JournalRole,
    /// A journal that has not made durable what it was given for so long has failed.
    pub journal_timeout: Duration,
    /// Old bugs, for the simulator. `Mutations::default()` is none.
    pub mutations: Mutations,
}

impl PairConfig {
    /// The default times.
    pub fn new(greeting: Greeting) -> PairConfig {
        PairConfig {
            greeting,
            replication: Replication::default(),
            protocol: PROTOCOL_VERSION,
            machine_memory: 0,
            detector: DetectorConfig::default(),
            batch: BatchConfig::default(),
            digest_interval: Duration::from_secs(1),
            lag: LagConfig::default(),
            join_backlog_bytes: 64 << 20,
            log_bytes: 64 << 20,
            max_members: 1,
            is_spare: false,
            spare_after: Duration::from_secs(10),
            claim_pacing: ClaimPacing::default(),
            watch_interval: Duration::from_secs(3),
            durability: Durability::default(),
            has_shared_disks: false,
            journal: JournalRole::default(),
            journal_timeout: Duration::from_secs(10),
            mutations: Mutations::default(),
        }
    }

    /// Who writes the keys that this process claims.
    pub fn writer(&self) -> Writer {
        Writer {
            host: self.greeting.host.clone(),
            run: self.greeting.run,
        }
    }

    pub(crate) fn beacon(&self, host: HostId) -> BeaconName {
        BeaconName {
            machine: self.greeting.machine.clone(),
            host,
        }
    }
}
