//! What a replica tells about itself.

use crate::events::Event;
use crate::host_time::rfc3339;
use crate::journal::KeptHistory;
use crate::peer_addresses::PeerAddresses;
use crate::vcpu::Gauges;
use machine::engine::Engine;
use replication::capacity::{HostFacts, Needs};
use replication::primary::{FollowerStatus, JournalPhase, JournalStatus};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long a replica's visible outputs waited for the backup's acknowledgement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputDelay {
    /// Median of the newest outputs, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// How many outputs were ever held.
    pub outputs: u64,
}

/// How far the copy of the machine and its disks is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JoinProgress {
    /// Bytes done; what need not be copied of the disks because it is there already is among them.
    pub done_bytes: u64,
    /// Bytes of that which were sent.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes altogether, as far as is known.
    pub total_bytes: u64,
    /// The share that is done, in hundredths.
    pub percent: f64,
    /// Bytes done in a second, on average.
    pub bytes_per_second: u64,
    /// How many seconds the rest takes at this rate.
    pub seconds_left: Option<f64>,
}

/// What a host has for the machine. 0: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostLine {
    /// Bytes of memory that its process may have, what it has included, when it was looked at last: at the
    /// start and before it joins.
    pub memory_bytes: u64,
    /// Cores that it may use.
    pub cores: u32,
    /// Million instructions of a test program that its engine executes in a second of a core.
    pub speed_mips: f64,
}

impl From<&HostFacts> for HostLine {
    fn from(facts: &HostFacts) -> HostLine {
        HostLine {
            memory_bytes: facts.memory,
            cores: facts.cores,
            speed_mips: facts.speed as f64 / 1e6,
        }
    }
}

/// What the machine needs of a host that follows it. 0: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeedsLine {
    /// Bytes of memory for the process.
    pub memory_bytes: u64,
    /// Million instructions of the test program a second, by what the machine did in the last two minutes.
    pub speed_mips: f64,
}

impl From<&Needs> for NeedsLine {
    fn from(needs: &Needs) -> NeedsLine {
        NeedsLine {
            memory_bytes: needs.memory,
            speed_mips: needs.speed as f64 / 1e6,
        }
    }
}

/// A follower of a primary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FollowerLine {
    /// Its host's name.
    pub host: String,
    /// What its program was built from.
    #[serde(default)]
    pub version: String,
    /// What its host has, as it told when it joined.
    #[serde(default)]
    pub has: HostLine,
    /// Whether that is slower than what the machine has needed lately.
    #[serde(default)]
    pub slow: bool,
    /// Where the machine would be booted from something else there, as its host told when it joined.
    #[serde(default)]
    pub boots_otherwise: Vec<String>,
    /// Whether outputs wait for it; it is joining otherwise.
    pub member: bool,
    /// Whether it can take over.
    pub protects: bool,
    /// Why its host could not go on with the machine as the primary, as it says: nobody hands it over to that.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Number of the last record that it acknowledged.
    pub acknowledged: u64,
    /// How far its execution is behind, in milliseconds of guest time.
    pub lag_ms: f64,
    /// How far it would be behind if the primary had not been slowed for it, in milliseconds.
    #[serde(default)]
    pub arrears_ms: f64,
    /// The links of its channel, if that has several: where it calls from.
    #[serde(default)]
    pub links: Vec<LinkLine>,
}

impl From<&FollowerStatus> for FollowerLine {
    fn from(follower: &FollowerStatus) -> FollowerLine {
        FollowerLine {
            host: follower.host.node().to_owned(),
            version: follower.build.to_string(),
            has: HostLine::from(&follower.facts),
            slow: follower.is_slow,
            boots_otherwise: follower
                .boots_otherwise
                .iter()
                .map(|difference| difference.describe(follower.host.node()))
                .collect(),
            member: follower.is_member,
            protects: follower.protects,
            trouble: follower.trouble.clone(),
            acknowledged: follower.acknowledged.0,
            lag_ms: follower.lag.as_secs_f64() * 1e3,
            arrears_ms: follower.arrears.as_secs_f64() * 1e3,
            links: Vec::new(),
        }
    }
}

/// A primary's journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JournalLine {
    /// Which: a directory of this name is in the journal's.
    pub id: String,
    /// `beginning`, `in force` (outputs wait for it, and the machine can go on from it), or `kept`
    /// (it has the history, and nothing waits for it).
    pub state: String,
    /// Number of the last record that is durable there.
    pub durable: u64,
    /// Bytes of records that are not yet, about.
    pub bytes_waiting: u64,
    /// Where it is: `understudy replay` looks into it there.
    #[serde(default)]
    pub directory: String,
    /// Bytes of what is kept though no machine needs it to go on.
    #[serde(default)]
    pub kept_bytes: u64,
    /// The earliest moment that can be looked into (RFC 3339); empty when that is not known.
    #[serde(default)]
    pub kept_since: String,
    /// Why the place does not answer, and is asked again; empty while it does. Nothing more becomes durable meanwhile.
    #[serde(default)]
    pub unanswered: String,
}

impl JournalLine {
    /// Of this journal, which is in `directory`.
    pub fn of(
        journal: &JournalStatus,
        directory: &str,
        kept: KeptHistory,
        unanswered: Option<&str>,
    ) -> JournalLine {
        JournalLine {
            directory: directory.into(),
            unanswered: unanswered.unwrap_or_default().into(),
            kept_bytes: kept.bytes,
            kept_since: kept.since_unix_ns.map(rfc3339).unwrap_or_default(),
            id: journal.id.to_string(),
            state: match journal.phase {
                JournalPhase::AwaitSnapshot | JournalPhase::Storing => "beginning",
                JournalPhase::Ready | JournalPhase::Claiming => "asking the arbiter",
                JournalPhase::InForce => "in force",
                JournalPhase::Kept => "kept",
            }
            .into(),
            durable: journal.durable.0,
            bytes_waiting: journal.bytes_waiting as u64,
        }
    }
}

/// One of the addresses of a host at the other end of a channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkLine {
    /// Where the host is reached.
    pub address: String,
    /// Whether the channel goes over it.
    pub in_use: bool,
    /// Whether the host answers there.
    #[serde(default)]
    pub up: bool,
    /// How long it is there and back, in milliseconds, if that is known.
    #[serde(default)]
    pub round_trip_ms: Option<f64>,
}

impl LinkLine {
    /// Of a host whose channel has one connection, to the first of its addresses.
    pub fn of(addresses: &PeerAddresses) -> Vec<LinkLine> {
        let line = |(index, address): (usize, &str)| LinkLine {
            address: address.to_owned(),
            in_use: index == 0,
            up: index == 0,
            round_trip_ms: None,
        };
        addresses.iter().enumerate().map(line).collect()
    }
}

/// The primary that a backup follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PrimaryLine {
    /// Its host's name.
    pub host: String,
    /// What its program was built from.
    pub version: String,
    /// By which of its addresses it is followed.
    #[serde(default)]
    pub links: Vec<LinkLine>,
}

/// The arbiter is out of reach, was emptied or replaced, or is not the same for all: nobody could take over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArbiterTrouble {
    /// Since when this replica knows, in UTC.
    pub since: String,
    /// What is wrong, for people.
    pub why: String,
}

/// The checkpoints that a primary has made for backups that execute nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointsLine {
    /// How many.
    pub made: u64,
    /// Pages of 4 KiB in one, on average.
    pub pages: f64,
    /// How long the guest stood still for one, on average, in milliseconds…
    pub pause_ms: f64,
    /// …and at most.
    pub longest_pause_ms: f64,
}

impl CheckpointsLine {
    /// Of these figures.
    pub fn of(gauges: &Gauges) -> CheckpointsLine {
        let number = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed) as f64;
        let made = number(&gauges.checkpoints);
        let per_checkpoint = |sum: f64| if made > 0.0 { sum / made } else { 0.0 };
        CheckpointsLine {
            made: made as u64,
            pages: per_checkpoint(number(&gauges.checkpoint_pages)),
            pause_ms: per_checkpoint(number(&gauges.checkpoint_ns)) / 1e6,
            longest_pause_ms: number(&gauges.longest_checkpoint_ns) / 1e6,
        }
    }
}

/// One replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// `primary` or `backup`.
    pub role: String,
    /// More exactly: `alone`, `joining`, `protected`, `claiming`, `replaying`, `going live`,
    /// `finished`.
    pub state: String,
    /// The process.
    pub pid: u32,
    /// The machine's name.
    pub name: String,
    /// What executes the guest here; in a backup that has no machine yet, what is configured.
    pub engine: String,
    /// The host, by the name in its certificate.
    #[serde(default)]
    pub host: String,
    /// What this program was built from, its semantics and its protocol.
    #[serde(default)]
    pub version: String,
    /// What this host has for the machine.
    #[serde(default)]
    pub has: HostLine,
    /// What the machine needs: of a primary as of now, of a backup as its primary said when it joined.
    #[serde(default)]
    pub needs: NeedsLine,
    /// Whether a backup's host was slower than that.
    #[serde(default)]
    pub slow: bool,
    /// Of a backup: where the machine would be booted from something else on the primary's host, as of when it joined.
    #[serde(default)]
    pub boots_otherwise: Vec<String>,
    /// The last day of its certificate, in UTC: `2027-11-28`.
    #[serde(default)]
    pub key_expires: String,
    /// How many whole days are left until then; negative when it has expired.
    #[serde(default)]
    pub key_days_left: i64,
    /// The store that is the arbiter.
    #[serde(default)]
    pub arbiter: String,
    /// What is wrong with it, if anything is: nobody could take over by it now.
    #[serde(default)]
    pub arbiter_trouble: Option<ArbiterTrouble>,
    /// The generation, 0 before there is one.
    pub generation: u64,
    /// Whether another replica can take over.
    pub protected: bool,
    /// Who follows, as a primary knows it.
    #[serde(default)]
    pub followers: Vec<FollowerLine>,
    /// The journal of a primary that keeps one.
    #[serde(default)]
    pub journal: Option<JournalLine>,
    /// How long going on from it would take now, in milliseconds, as its speed so far says.
    #[serde(default)]
    pub journal_recovers_in_ms: f64,
    /// Whom a backup follows.
    #[serde(default)]
    pub primary: Option<PrimaryLine>,
    /// Instructions retired here since power-on.
    pub instruction_count: u64,
    /// Guest time, milliseconds since power-on.
    pub guest_time_ms: u64,
    /// Bytes of the machine's RAM in use, as last known: its pages that are not all zero.
    #[serde(default)]
    pub memory_in_use_bytes: u64,
    /// Million instructions a second, over the last second or so.
    pub mips: f64,
    /// Digests of its primary's that its machine was compared with as a backup; after one that
    /// differs it joins anew.
    pub digests_compared: u64,
    /// How far the backup's execution is behind, in milliseconds of guest time; absent when there
    /// is none.
    pub lag_ms: Option<f64>,
    /// The same in instructions.
    pub lag_instructions: Option<u64>,
    /// What the primary sends on the logging channel, bits a second over the last second or so.
    pub log_bits_per_second: u64,
    /// Bytes sent on the logging channel since this process started, snapshots apart.
    pub log_bytes_sent: u64,
    /// The longest time that the event loop did anything else than wait, in milliseconds.
    #[serde(default)]
    pub loop_longest_ms: f64,
    /// The longest time for which it was executed without a wait, in milliseconds: what is missing to
    /// `loop_longest_ms` it was blocked, or the host had no core for it.
    #[serde(default)]
    pub loop_busiest_ms: f64,
    /// Whether the guest's kernel panicked since it was booted, as far as the guest could say so.
    #[serde(default)]
    pub guest_panicked: bool,
    /// Whether the machine stands still because somebody paused it.
    #[serde(default)]
    pub paused: bool,
    /// Frames that the network brought from this guest's own address since this process is the primary:
    /// another machine has it.
    #[serde(default)]
    pub foreign_frames: u64,
    /// Why the guest's network is out of reach, if it is: it is tried again.
    #[serde(default)]
    pub network_lost: Option<String>,
    /// Snapshots that were taken for backups that came, since this process is the primary.
    #[serde(default)]
    pub snapshots_taken: u64,
    /// The longest time that the guest stood still for one of them, in milliseconds.
    #[serde(default)]
    pub snapshot_pause_ms: f64,
    /// The checkpoints of a primary that transfers state, since this process is the primary.
    #[serde(default)]
    pub checkpoints: Option<CheckpointsLine>,
    /// How far the copy for a backup that joins is, on both sides while it lasts: sent by the primary, put
    /// in its place by the backup.
    #[serde(default)]
    pub joining: Option<JoinProgress>,
    /// What keeps this replica from going on or from being protected, or its backups or this backup from being handed
    /// the machine, and is tried again.
    #[serde(default)]
    pub trouble: Option<String>,
    /// How long outputs were held back.
    pub output_delay: OutputDelay,
    /// Where it listens for a backup, when it does.
    pub listen: Option<String>,
    /// The replica's state directory.
    pub directory: PathBuf,
    /// Its newest events.
    pub events: Vec<Event>,
}

/// An engine as people write it: `interpreter`, `jit` or `paranoid`.
pub fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Interpreter => "interpreter",
        Engine::Jit => "jit",
        Engine::Paranoid => "paranoid",
    }
}
