//! What a primary says of itself and of who follows it.

use super::{JournalStatus, Primary, State};
use crate::ConnectionId;
use crate::capacity::{HostFacts, Needs};
use crate::configuration::{Build, Difference};
use crate::lag::RunShare;
use crate::record::{InstructionCount, RecordNumber};
use crate::succession::{Generation, Host, LifeNumber};
use crate::watch::Agreement;
use std::time::Duration;

/// What a primary is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryPhase {
    /// Runs alone; outputs leave at once.
    Alone,
    /// Runs alone, and a backup is joining.
    Joining,
    /// Has members; outputs wait for their acknowledgements.
    Paired,
    /// A member's machine differs; outputs wait until it is known whose is right.
    Differing,
    /// Lost a member and asks the arbiter; outputs wait.
    Claiming,
    /// Stands still, for a member to take over.
    HandingOver,
    /// Has ended.
    Stopped,
}

/// A look at a primary, for the status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryStatus {
    /// What it is doing.
    pub phase: PrimaryPhase,
    /// The life.
    pub life: LifeNumber,
    /// The generation.
    pub generation: Generation,
    /// The last pairing that was tried or made; 0 before the first.
    pub pairing: u64,
    /// What the last look at the arbiter, or the backup's, said.
    pub arbiter: Agreement,
    /// Why nobody could take over by the arbiter now, for people: it is out of reach, was emptied, or is not
    /// the same for all.
    pub arbiter_trouble: Option<String>,
    /// Number of the last record made.
    pub record: RecordNumber,
    /// Whether this host's disk is settled: see [`PrimaryAction::Settle`](super::PrimaryAction::Settle).
    pub settled: bool,
    /// Whether the death of this process would lose nothing.
    pub protected: bool,
    /// The primary's instruction count.
    pub instruction_count: InstructionCount,
    /// How many instructions the execution of the member is behind that is furthest behind.
    pub lag_instructions: u64,
    /// How far its execution is behind what it holds, in time for which the primary ran: without
    /// the round trip.
    pub lag: Duration,
    /// The longest of the members' shortest round trips of late, once one is known.
    pub round_trip: Option<Duration>,
    /// Share of time that the harts may run, in thousandths.
    pub run_share: RunShare,
    /// Outputs that wait.
    pub held_outputs: usize,
    /// Bytes of records that the members were sent, about (without frame headers).
    pub record_bytes_sent: u64,
    /// Number of the last record that all members have acknowledged.
    pub acknowledged: RecordNumber,
    /// While a backup restores: bytes done, of how many.
    pub restored: Option<(u64, u64)>,
    /// Bytes of records that are kept for whoever comes back, about.
    pub log_bytes: usize,
    /// The journal, if one is kept.
    pub journal: Option<JournalStatus>,
    /// Everybody who follows.
    pub followers: Vec<FollowerStatus>,
    /// What the machine needs of each.
    pub needs: Needs,
}

/// A look at one follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Its channel.
    pub connection: ConnectionId,
    /// Its host.
    pub host: Host,
    /// What its program was built from.
    pub build: Build,
    /// What its host has, as it told when it greeted.
    pub facts: HostFacts,
    /// Whether it is slower than what the machine has needed lately.
    pub is_slow: bool,
    /// Where the machine would be booted from something else there, as its host told when it greeted.
    pub boots_otherwise: Vec<Difference>,
    /// Whether outputs wait for it; it is joining otherwise.
    pub is_member: bool,
    /// Whether it is known to be able to take over.
    pub protects: bool,
    /// Whether it has caught up with what its restore took.
    pub has_caught_up: bool,
    /// Number of the last record that it acknowledged.
    pub acknowledged: RecordNumber,
    /// How many instructions its execution is behind.
    pub lag_instructions: u64,
    /// How far its execution is behind what it holds.
    pub lag: Duration,
    /// How far it would be behind if the primary had not been slowed for it.
    pub arrears: Duration,
    /// Its shortest round trip of late, once it is known.
    pub round_trip: Option<Duration>,
    /// Bytes of records that it was sent, about.
    pub record_bytes_sent: u64,
    /// While it restores: bytes done, of how many.
    pub restored: Option<(u64, u64)>,
    /// Why its host could not go on with the machine as the primary, as it has said.
    pub trouble: Option<String>,
}

impl<O> Primary<O> {
    /// A look at it.
    pub fn status(&self) -> PrimaryStatus {
        let members = self
            .members
            .iter()
            .map(|member| member.describe(self.count));
        let mut followers: Vec<FollowerStatus> = members.collect();
        let phase = match &self.state {
            State::Parting { .. } | State::Stopped => PrimaryPhase::Stopped,
            _ if !self.lost.is_empty() => PrimaryPhase::Claiming,
            _ if self.stands_still => PrimaryPhase::HandingOver,
            _ if self.is_disputed() => PrimaryPhase::Differing,
            _ if !followers.is_empty() => PrimaryPhase::Paired,
            State::Running { join: Some(_) } => PrimaryPhase::Joining,
            State::Running { join: None } => PrimaryPhase::Alone,
        };
        let members = &followers;
        let mut status = PrimaryStatus {
            phase,
            life: self.opened.key.life,
            generation: self.generation(),
            pairing: self.pairing,
            arbiter: self.agreement,
            arbiter_trouble: self.arbiter_trouble(),
            record: self.log.last(),
            settled: self.settled,
            protected: self.lost.is_empty()
                && !self.is_disputed()
                && !self.is_journal_lost()
                && (members.iter().any(|member| member.protects) || self.is_journal_in_force()),
            instruction_count: self.count,
            lag_instructions: members.iter().fold(0, |lag, m| lag.max(m.lag_instructions)),
            lag: members.iter().fold(Duration::ZERO, |lag, m| lag.max(m.lag)),
            round_trip: members.iter().filter_map(|member| member.round_trip).max(),
            run_share: self.throttle.share(),
            held_outputs: self.gate.held_outputs(),
            record_bytes_sent: members.iter().map(|member| member.record_bytes_sent).sum(),
            acknowledged: members
                .iter()
                .map(|m| m.acknowledged)
                .min()
                .unwrap_or_default(),
            restored: None,
            log_bytes: self.log.bytes(),
            journal: self.journal(),
            followers: Vec::new(),
            needs: self.needs(),
        };
        if let State::Running { join: Some(join) } = &self.state {
            status.restored = join.restored();
            followers.push(join.describe());
        }
        for follower in &mut followers {
            follower.is_slow = status.needs.lacks_speed(&follower.facts).is_some();
        }
        self.describe_boots(&mut followers);
        status.followers = followers;
        status
    }
}
