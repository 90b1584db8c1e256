//! What is worth telling a person, in the order in which it happened.

use crate::capacity::Shortfall;
use crate::configuration::{Difference, describe_differences};
use crate::failure_detector::Suspicion;
use crate::message::{Continuation, DivergenceReport, Refusal};
use crate::succession::{Entry, Generation, Host, JournalId};
use crate::watch::Agreement;
use std::fmt;
use std::time::Duration;

/// Something that happened to the pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A backup asked to join and was turned away.
    RefusedBackup {
        /// Its host.
        host: Host,
        /// Why.
        refusal: Refusal,
    },
    /// A pairing is being made: the snapshot comes next.
    Joining {
        /// The pairing.
        pairing: u64,
        /// The other host.
        host: Host,
    },
    /// Who joins is slower than what the machine has needed lately: before it is relied on.
    JoinerIsSlow {
        /// The pairing.
        pairing: u64,
        /// The host that joins.
        host: Host,
        /// How much.
        shortfall: Shortfall,
    },
    /// On the host of a backup the machine would be booted from something else than here, or not any more: it follows
    /// the machine that runs, and a start from its images would be another.
    BootsOtherwise {
        /// The other host.
        host: Host,
        /// Where, as this host sees it.
        differences: Vec<Difference>,
    },
    /// The pairing did not come to be; nothing is lost.
    JoinFailed {
        /// The pairing.
        pairing: u64,
        /// Why.
        why: Suspicion,
    },
    /// Both sides keep the output rule from here on.
    Protected {
        /// The pairing.
        pairing: u64,
    },
    /// The peer is suspected; the arbiter is asked.
    Suspected {
        /// The pairing.
        pairing: u64,
        /// Why.
        why: Suspicion,
    },
    /// The primary lost so much time for a member, or would have, that it is let go: the arbiter is
    /// asked to drop it.
    LetsGo {
        /// The pairing.
        pairing: u64,
        /// Its host.
        host: Host,
        /// How far it would be behind if nobody had waited for it.
        arrears: Duration,
    },
    /// The arbiter gave no useful answer; it is asked again. Told at the first such answer, then at
    /// growing distances.
    ArbiterUnanswered {
        /// Requests without a verdict so far.
        requests: u32,
        /// What the last one said.
        why: String,
    },
    /// The arbiter answers again.
    ArbiterAnswers {
        /// Requests that brought nothing meanwhile.
        requests: u32,
        /// How long it gave no answer.
        outage: Duration,
    },
    /// What is known about the arbiters of both sides has changed.
    Arbiter {
        /// What.
        agreement: Agreement,
    },
    /// The generation is ours.
    Claimed {
        /// The one that was won.
        generation: Generation,
        /// Members that are left in it.
        members: usize,
    },
    /// A backup that came back with a machine goes on from where that stands, or why it cannot and
    /// is sent a snapshot.
    Continues {
        /// The pairing.
        pairing: u64,
        /// Whether.
        continuation: Continuation,
    },
    /// The primary goes on in another generation, in which this backup is a member, too.
    Generation {
        /// What the key holds that opened it.
        by: Box<Entry>,
    },
    /// Somebody else left the generation that this replica was in.
    Superseded {
        /// What the key holds.
        by: Box<Entry>,
    },
    /// A disk of this host failed a request of the guest, which was not told.
    DiskFailed {
        /// How.
        what: String,
    },
    /// Nobody with a better disk could go on: the guest is told that its request failed.
    DiskErrorTold,
    /// The machine stands still, and the backup was asked to take over.
    HandingOver {
        /// The pairing.
        pairing: u64,
    },
    /// A backup's host could not go on with the machine as its primary, or could again.
    MayGoOn {
        /// Which.
        host: Host,
        /// Why it could not.
        trouble: Option<String>,
        /// It is this host.
        is_here: bool,
    },
    /// The backup has finished the log and meets the world now.
    Live {
        /// The pairing that ended.
        pairing: u64,
        /// Records that were still to be replayed when the pairing was won.
        drained_records: u64,
        /// Outputs sent again.
        repeated_outputs: usize,
    },
    /// The replicas differ.
    Diverged {
        /// The pairing.
        pairing: u64,
        /// Where.
        report: DivergenceReport,
    },
    /// So many of the backups, more than half of all replicas, have one machine, and the primary another: it
    /// is handed over to one of them.
    Outvoted {
        /// How many.
        backups: usize,
    },
    /// This backup's machine differs from its primary's, and is what the majority has.
    IsMajority {
        /// The pairing.
        pairing: u64,
    },
    /// A journal is begun, with a snapshot.
    JournalBegun {
        /// Which.
        id: JournalId,
    },
    /// The journal has everything that the outside sees from here on.
    JournalInForce {
        /// Which.
        id: JournalId,
    },
    /// The journal has the history of the machine from its snapshot on; nothing waits for it.
    JournalKept {
        /// Which.
        id: JournalId,
    },
    /// The journal cannot be kept any further; another one is begun later.
    JournalFailed {
        /// Which.
        id: JournalId,
        /// Why.
        why: String,
        /// When another one is begun.
        again_in: Duration,
    },
    /// This process did not run for a while and makes sure that its backup still listens.
    Paused {
        /// How long.
        pause: Duration,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::RefusedBackup { host, refusal } => {
                write!(f, "turned away host {host}: {refusal}")
            }
            // An attempt's number is for telling records apart, not for people.
            Event::Joining { pairing: _, host } => write!(f, "with host {host}"),
            Event::JoinerIsSlow {
                pairing: _,
                host,
                shortfall,
            } => write!(
                f,
                "host {host} may be too slow for the machine: {}; while the machine does as much it is slowed \
                 to what that host can follow, or lets it go, as lag_policy says",
                shortfall.of_speed()
            ),
            Event::BootsOtherwise { host, differences } if differences.is_empty() => write!(
                f,
                "host {host} would boot the machine from the same as this one"
            ),
            Event::BootsOtherwise { host, differences } => write!(
                f,
                "host {host} would boot the machine from something else: {}; what runs is followed as it is, and a start \
                 from images would be another machine there",
                describe_differences(differences, host.node())
            ),
            Event::JoinFailed { pairing: _, why } => {
                write!(f, "the backup did not come to protect the machine: {why}")
            }
            Event::Protected { pairing: _ } => {
                f.write_str("another replica can take over from here on")
            }
            Event::Suspected { pairing: _, why } => {
                write!(f, "the other replica is suspected: {why}")
            }
            Event::LetsGo {
                pairing: _,
                host,
                arrears,
            } => write!(
                f,
                "host {host} lags and is let go: it would be {:.1} s behind if the machine had not \
                 been slowed for it",
                arrears.as_secs_f64()
            ),
            Event::ArbiterUnanswered { requests, why } => write!(
                f,
                "the arbiter gave no useful answer ({requests} requests): {why}; it is asked again"
            ),
            Event::ArbiterAnswers { requests, outage } => write!(
                f,
                "the arbiter answers again, after {} s and {requests} requests",
                outage.as_secs()
            ),
            Event::Arbiter { agreement } => write!(f, "the arbiter is {agreement}"),
            Event::Claimed {
                generation,
                members: 0,
            } => write!(f, "generation {generation} is ours, alone"),
            Event::Claimed {
                generation,
                members,
            } => write!(
                f,
                "generation {generation} is ours, members left: {members}"
            ),
            Event::Continues {
                pairing: _,
                continuation,
            } => write!(f, "{continuation}"),
            Event::Generation { by } => write!(f, "{by}: this replica is a member of the next"),
            Event::Superseded { by } => write!(f, "{by}: this replica's machine is given up"),
            Event::DiskFailed { what } => write!(f, "a disk of this host failed: {what}"),
            Event::DiskErrorTold => write!(
                f,
                "no replica with a good disk could take over: the guest is told of the disk error"
            ),
            Event::HandingOver { pairing: _ } => {
                f.write_str("the machine is handed over to the backup")
            }
            Event::MayGoOn {
                host,
                trouble: None,
                is_here: _,
            } => write!(f, "host {host} could go on with the machine again"),
            Event::MayGoOn {
                host,
                trouble: Some(trouble),
                is_here,
            } => {
                let room = match is_here {
                    true => "make room here, or mend it",
                    false => "make room there, or mend it",
                };
                write!(
                    f,
                    "host {host} could not go on with the machine, which is not handed over to it until it could: \
                     {trouble}; {room}"
                )
            }
            Event::Live {
                pairing: _,
                drained_records,
                repeated_outputs,
            } => write!(
                f,
                "the machine is live here: {drained_records} records replayed, \
                 {repeated_outputs} outputs sent again"
            ),
            Event::Diverged { pairing: _, report } => write!(
                f,
                "the replicas differ at instruction {}: {}",
                report.count, report.what
            ),
            Event::Outvoted { backups } => write!(
                f,
                "{backups} backups have one machine, and this host another: nothing leaves here any more, \
                 and the machine is handed over to one of them"
            ),
            Event::IsMajority { pairing: _ } => f.write_str(
                "this host's machine is what the majority has, and the primary's is not: it goes on \
                 without being compared with that",
            ),
            Event::JournalBegun { id } => write!(f, "journal {id}, with a snapshot"),
            Event::JournalInForce { id } => write!(
                f,
                "outputs wait for journal {id}: the machine goes on from there when everything is lost"
            ),
            Event::JournalKept { id } => {
                write!(f, "journal {id} keeps the history from its snapshot on")
            }
            Event::JournalFailed { id, why, again_in } => write!(
                f,
                "journal {id} cannot be kept, and the machine goes on without it: {why}; another one \
                 is begun in {} s",
                again_in.as_secs()
            ),
            Event::Paused { pause } => {
                write!(f, "this process did not run for {} ms", pause.as_millis())
            }
        }
    }
}
