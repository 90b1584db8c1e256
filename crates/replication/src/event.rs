//! What is worth telling a person, in the order in which it happened.

use crate::failure_detector::Suspicion;
use crate::message::{DivergenceReport, Refusal};
use std::fmt;
use std::time::Duration;

/// Something that happened to the pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A backup asked to join and was turned away.
    RefusedBackup {
        /// Its node.
        node: String,
        /// Why.
        refusal: Refusal,
    },
    /// A pairing is being made: the snapshot comes next.
    Joining {
        /// The pairing.
        generation: u64,
        /// The other node.
        node: String,
    },
    /// The pairing did not come to be; nothing is lost.
    JoinFailed {
        /// The pairing.
        generation: u64,
        /// Why.
        why: Suspicion,
    },
    /// Both sides keep the output rule from here on.
    Protected {
        /// The pairing.
        generation: u64,
    },
    /// The peer is suspected; the arbiter is asked.
    Suspected {
        /// The pairing.
        generation: u64,
        /// Why.
        why: Suspicion,
    },
    /// The arbiter gave no useful answer; it is asked again, outputs wait. Told at the first such
    /// answer, then at growing distances.
    ArbiterUnanswered {
        /// The pairing.
        generation: u64,
        /// Requests without a verdict so far.
        requests: u32,
        /// What the last one said.
        why: String,
    },
    /// The arbiter answers again.
    ArbiterAnswers {
        /// The pairing.
        generation: u64,
        /// Requests without a verdict meanwhile.
        requests: u32,
        /// How long it gave none.
        outage: Duration,
    },
    /// The generation is ours.
    Claimed {
        /// The pairing.
        generation: u64,
    },
    /// The generation is another's.
    LostClaim {
        /// The pairing.
        generation: u64,
        /// What its key holds.
        holder: String,
    },
    /// A disk of this host failed a request of the guest, which was not told.
    DiskFailed {
        /// How.
        what: String,
    },
    /// The machine stands still, and the backup was asked to take over.
    HandingOver {
        /// The pairing.
        generation: u64,
    },
    /// The backup has finished the log and meets the world now.
    Live {
        /// The pairing that ended.
        generation: u64,
        /// Records that were still to be replayed when the generation was won.
        drained_records: u64,
        /// Outputs sent again.
        repeated_outputs: usize,
    },
    /// The replicas differ.
    Diverged {
        /// The pairing.
        generation: u64,
        /// Where.
        report: DivergenceReport,
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
            Event::RefusedBackup { node, refusal } => {
                write!(f, "turned away node {node}: {refusal}")
            }
            Event::Joining { generation, node } => {
                write!(f, "pairing {generation} with node {node} is being made")
            }
            Event::JoinFailed { generation, why } => {
                write!(f, "pairing {generation} did not come to be: {why}")
            }
            Event::Protected { generation } => write!(f, "protected: pairing {generation}"),
            Event::Suspected { generation, why } => {
                write!(f, "the peer of pairing {generation} is suspected: {why}")
            }
            Event::ArbiterUnanswered {
                generation,
                requests,
                why,
            } => write!(
                f,
                "the arbiter gave no verdict on generation {generation} \
                 ({requests} requests): {why}; outputs wait, it is asked again"
            ),
            Event::ArbiterAnswers {
                generation,
                requests,
                outage,
            } => write!(
                f,
                "the arbiter answers about generation {generation} again, after {} s and \
                 {requests} requests",
                outage.as_secs()
            ),
            Event::Claimed { generation } => write!(f, "claimed generation {generation}"),
            Event::LostClaim { generation, holder } => {
                write!(
                    f,
                    "generation {generation} is another's: {}",
                    holder.trim_end()
                )
            }
            Event::DiskFailed { what } => write!(f, "a disk of this host failed: {what}"),
            Event::HandingOver { generation } => write!(
                f,
                "the machine is handed over to the backup of pairing {generation}"
            ),
            Event::Live {
                generation,
                drained_records,
                repeated_outputs,
            } => write!(
                f,
                "live after pairing {generation}: {drained_records} records replayed, \
                 {repeated_outputs} outputs sent again"
            ),
            Event::Diverged { generation, report } => write!(
                f,
                "the replicas of pairing {generation} differ at instruction {}: {}",
                report.count, report.what
            ),
            Event::Paused { pause } => {
                write!(f, "this process did not run for {} ms", pause.as_millis())
            }
        }
    }
}
