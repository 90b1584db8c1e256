//! Replaying records on a guest, in steps, with every check that the log allows.

use crate::guest::{Guest, GuestStop, Injection};
use crate::message::DivergenceReport;
use crate::record::{InstructionCount, Record, RecordBody, RecordNumber};
use std::collections::VecDeque;
use thiserror::Error;

/// How a replay differs from what was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DivergenceKind {
    /// The digests differ.
    #[error("digest {found:032x}, recorded was {expected:032x}")]
    Digest {
        /// The record's.
        expected: u128,
        /// This guest's.
        found: u128,
    },
    /// The number of outputs differs.
    #[error("{found} visible outputs, recorded were {expected}")]
    VisibleOutputs {
        /// The record's.
        expected: u64,
        /// This guest's.
        found: u64,
    },
    /// What was written to a shared disk differs.
    #[error(
        "{found:032x} is the digest of what it wrote to shared disks, recorded was {expected:032x}"
    )]
    Written {
        /// The record's.
        expected: u128,
        /// This guest's.
        found: u128,
    },
    /// The guest waits for an input before the record's count.
    #[error("the guest idles, but the next record is {missing} instructions later")]
    Idle {
        /// How many instructions are missing.
        missing: u64,
    },
    /// The guest ended before the record's count, or before an input.
    #[error("the guest has ended, but there are records left")]
    Finished,
    /// The guest is already beyond the record's count.
    #[error("the guest is at {count}, beyond the record's count")]
    Beyond {
        /// Where the guest is.
        count: InstructionCount,
    },
    /// The guest could not take an input.
    #[error("an input does not fit: {0}")]
    Injection(String),
}

/// Where and how a replay differs from what was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("record {record}, at instruction {record_count}: {kind}")]
pub struct Divergence {
    /// Number of the record.
    pub record: RecordNumber,
    /// The record's instruction count.
    pub record_count: InstructionCount,
    /// The guest's instruction count.
    pub guest_count: InstructionCount,
    /// The guest's digest.
    pub guest_digest: u128,
    /// What differs.
    pub kind: DivergenceKind,
}

impl Divergence {
    /// As it is told to the primary.
    pub fn report(&self) -> DivergenceReport {
        DivergenceReport {
            record: self.record,
            count: self.guest_count,
            digest: self.guest_digest,
            what: self.kind.to_string(),
        }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All records are replayed; the guest stands at the last one's count.
    Waiting,
    /// There is more to do: call again.
    Working,
    /// An input waits for something of this host: call again soon.
    Blocked,
}

/// Outputs that the guest produced while replaying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedOutputs<O> {
    /// The machine's visible outputs up to and including these.
    pub visible_outputs: u64,
    /// In order. May hold some that are not visible (disk requests).
    pub outputs: Vec<O>,
}

/// Which records the guest is compared with. The others are followed only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compares {
    /// Those after this one.
    After(RecordNumber),
    /// None.
    Nothing,
}

/// Runs a guest along the records of a log. It stands nowhere but at a record's count.
#[derive(Debug)]
pub struct Replayer<G: Guest> {
    guest: G,
    queue: VecDeque<Record>,
    /// Number of the last record replayed.
    replayed: RecordNumber,
    outputs: Vec<ReplayedOutputs<G::Output>>,
    diverged: Option<Divergence>,
    compares: Compares,
}

impl<G: Guest> Replayer<G> {
    /// Replays on `guest`, which stands where its snapshot was taken.
    pub fn new(guest: G) -> Replayer<G> {
        Replayer::after(guest, RecordNumber::BEFORE_ALL)
    }

    /// The same, and the first record to come follows `record`.
    pub fn after(guest: G, record: RecordNumber) -> Replayer<G> {
        Replayer {
            guest,
            queue: VecDeque::new(),
            replayed: record,
            outputs: Vec::new(),
            diverged: None,
            compares: Compares::After(RecordNumber::BEFORE_ALL),
        }
    }

    /// The next record to be added follows this one. Where the guest stands may be known only with the first.
    pub fn goes_on_after(&mut self, record: RecordNumber) {
        let last = self.replayed.plus(self.queue.len() as u64);
        if last == RecordNumber::BEFORE_ALL {
            self.replayed = record;
        } else {
            assert!(record == last, "records are replayed without gaps");
        }
    }

    /// Adds the next record.
    pub fn push(&mut self, record: Record) {
        self.queue.push_back(record);
    }

    /// Number of the last record replayed.
    pub fn replayed(&self) -> RecordNumber {
        self.replayed
    }

    /// Records that wait.
    pub fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// Instruction count of the next record, if it is here already.
    pub fn next_record_count(&self) -> Option<InstructionCount> {
        self.queue.front().map(|record| record.count)
    }

    /// The guest's instruction count.
    pub fn executed(&self) -> InstructionCount {
        self.guest.instruction_count()
    }

    /// The guest.
    pub fn guest(&self) -> &G {
        &self.guest
    }

    /// The guest, for what does not change its state (collecting digests, snapshots).
    pub fn guest_mut(&mut self) -> &mut G {
        &mut self.guest
    }

    /// Gives the guest back, to go on live. Take the outputs first.
    pub fn into_guest(self) -> G {
        self.guest
    }

    /// The outputs since the last call.
    pub fn take_outputs(&mut self) -> Vec<ReplayedOutputs<G::Output>> {
        std::mem::take(&mut self.outputs)
    }

    /// The records are those of a machine that is wrong, and this guest's is right: from here on it takes
    /// their inputs, where they fit, and is compared with nothing, until [`Replayer::compare`].
    pub fn stop_comparing(&mut self) {
        self.compares = Compares::Nothing;
        if let Some(divergence) = self.diverged.take() {
            let does_not_fit = matches!(divergence.kind, DivergenceKind::Injection(_));
            if does_not_fit && self.queue.pop_front().is_some() {
                self.replayed = self.replayed.next();
            }
        }
    }

    /// Records that are added from here on are those of a machine that is equal.
    pub fn compare(&mut self) {
        if self.compares == Compares::Nothing {
            let last = self.replayed.plus(self.queue.len() as u64);
            self.compares = Compares::After(last);
        }
    }

    fn compares(&self) -> bool {
        match self.compares {
            Compares::After(record) => self.replayed >= record,
            Compares::Nothing => false,
        }
    }

    /// Does the next piece of work: runs at most `max_instructions`, or replays one record at the
    /// present count. A divergence is for ever: every further call gives it again, but after
    /// [`Replayer::stop_comparing`].
    pub fn step(&mut self, max_instructions: u64) -> Result<Progress, Divergence> {
        if let Some(divergence) = &self.diverged {
            return Err(divergence.clone());
        }
        let Some(record) = self.queue.pop_front() else {
            return Ok(Progress::Waiting);
        };
        match self.advance(&record, max_instructions) {
            Ok(Progress::Waiting) => {
                self.replayed = self.replayed.next();
                let more = !self.queue.is_empty();
                Ok(if more {
                    Progress::Working
                } else {
                    Progress::Waiting
                })
            }
            Ok(progress) => {
                self.queue.push_front(record);
                Ok(progress)
            }
            Err(kind) => {
                let divergence = Divergence {
                    record: self.replayed.next(),
                    record_count: record.count,
                    guest_count: self.guest.instruction_count(),
                    guest_digest: self.guest.digest(),
                    kind,
                };
                self.queue.push_front(record);
                self.diverged = Some(divergence.clone());
                Err(divergence)
            }
        }
    }

    /// `Waiting` means here: `record` is done with.
    fn advance(&mut self, record: &Record, max: u64) -> Result<Progress, DivergenceKind> {
        if let RecordBody::Piece(_) | RecordBody::Checkpoint(_) = &record.body {
            // Nothing leads there but the checkpoint itself.
            return self.take(record);
        }
        let count = self.guest.instruction_count();
        if record.count > count {
            return self.run(record, max);
        }
        if record.count < count {
            return Err(DivergenceKind::Beyond { count });
        }
        self.take(record)
    }

    /// The guest is where `record` takes effect, or as near as it gets.
    fn take(&mut self, record: &Record) -> Result<Progress, DivergenceKind> {
        let compares = self.compares();
        match &record.body {
            RecordBody::Input(input) => match self.guest.inject(input) {
                Ok(Injection::Done) => self.collect(),
                Ok(Injection::NotYet) => return Ok(Progress::Blocked),
                Err(error) if compares => return Err(DivergenceKind::Injection(error.0)),
                Err(_) => {}
            },
            RecordBody::Marker {
                visible_outputs: expected,
            } => {
                let (expected, found) = (*expected, self.guest.visible_outputs());
                if expected != found && compares {
                    return Err(DivergenceKind::VisibleOutputs { expected, found });
                }
            }
            RecordBody::Written(expected) => {
                let (expected, found) = (*expected, self.guest.take_written());
                if expected != found && compares {
                    return Err(DivergenceKind::Written { expected, found });
                }
            }
            RecordBody::Piece(piece) => {
                let held = self.guest.hold_piece(piece);
                held.map_err(|error| DivergenceKind::Injection(error.0))?;
            }
            RecordBody::Checkpoint(checkpoint) => {
                match self.guest.apply_checkpoint(record.count, checkpoint) {
                    Ok(Injection::Done) => self.collect(),
                    Ok(Injection::NotYet) => return Ok(Progress::Blocked),
                    Err(error) => return Err(DivergenceKind::Injection(error.0)),
                }
            }
            RecordBody::Digest(_) if !compares => {}
            RecordBody::Digest(expected) => {
                let (expected, found) = (*expected, self.guest.digest());
                if expected != found {
                    return Err(DivergenceKind::Digest { expected, found });
                }
            }
        }
        Ok(Progress::Waiting)
    }

    fn run(&mut self, record: &Record, max: u64) -> Result<Progress, DivergenceKind> {
        let before = self.guest.instruction_count();
        let until = record.count.min(before.plus(max));
        let stop = self.guest.run(until);
        let count = self.guest.instruction_count();
        assert!(
            count <= until,
            "a guest never runs beyond what it was allowed"
        );
        self.collect();
        match stop {
            GuestStop::Reached | GuestStop::Output => Ok(Progress::Working),
            _ if count == record.count => Ok(Progress::Working),
            _ if !self.compares() => self.take(record),
            GuestStop::Idle => Err(DivergenceKind::Idle {
                missing: record.count.since(count),
            }),
            GuestStop::Finished => Err(DivergenceKind::Finished),
        }
    }

    fn collect(&mut self) {
        let outputs = self.guest.take_outputs();
        if !outputs.is_empty() {
            let visible_outputs = self.guest.visible_outputs();
            self.outputs.push(ReplayedOutputs {
                visible_outputs,
                outputs,
            });
        }
    }
}
