//! What the vcpu thread is told and what it reports. A live machine and a replaying one have nothing
//! in common here but their end.

use super::LiveOptions;
use super::copying::SnapshotPages;
use crate::disk::overlay::LayerId;
use crate::disk::{CopiedPart, Freezing, PassAhead, SECTOR_BYTES, copied_parts};
use environment::mpsc::{self, Receiver, Sender};
use machine::Machine;
use machine::input::Input;
use machine::memory::{Extent, PAGE_SIZE};
use machine::output::{Finish, Output, Trouble};
use machine::snapshot::{Snapshot, SnapshotHead};
use replication::journal::MachineTimes;
use replication::lag::RunShare;
use replication::message::DivergenceReport;
use replication::record::{InstructionCount, Record, RecordNumber};
use std::time::Duration;

/// What the thread is told.
pub(crate) enum Command {
    Live(LiveCommand),
    Replay(ReplayCommand),
    /// Something else than the channel has news: a disk's completion.
    Look,
    /// End the thread.
    Stop,
}

/// What a live machine is told.
#[derive(Debug)]
pub(crate) enum LiveCommand {
    /// Inject these at the end of the quantum, in order.
    Inputs(Vec<Input>),
    /// Inject this, if anything; then report [`Step::Pressed`].
    Press { input: Option<Input>, press: u64 },
    /// Run this share of the time.
    Throttle(RunShare),
    /// Flushes that ended may be told to the guest if it asked for them at an instruction count of at
    /// most this; the others have to wait.
    CompleteFlushes { up_to: InstructionCount },
    /// Begin a snapshot with this number, of so much of RAM, and what belongs to it of the disks.
    Snapshot {
        pairing: u64,
        extent: Extent,
        disks: SnapshotDisks,
    },
    /// Report [`LiveReport::DisksBegun`] for this pairing if there is something of disks to be copied, or else begin as
    /// for [`LiveCommand::Copy`].
    CopyDisksFirst { pairing: u64 },
    /// A pass over the disks, ahead of the copy.
    CopyDisks(PassAhead),
    /// There are no more such passes: what was copied has ended, or went no further.
    EndDisks { pairing: u64 },
    /// Begin a copy of the machine for this pairing, in rounds. The last is a snapshot.
    Copy { pairing: u64 },
    /// Go on to the next round of this copy.
    NextRound { pairing: u64 },
    /// All members hold the oldest checkpoint of which that was not said yet.
    CheckpointHeld,
    /// Nobody is left for whom there were checkpoints since the snapshot of this pairing.
    EndCheckpoints { pairing: u64 },
    /// Go no further: report everything, then [`LiveReport::StandsStill`].
    StandStill,
    /// Go on after standing still.
    Resume,
}

/// What becomes of the disks at a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotDisks {
    /// They are copied.
    #[default]
    Copied,
    /// They stay where they are: from here on the guest writes to layers of this name.
    Layered(LayerId),
    /// Nothing: they are only read, or the snapshot is for the history alone.
    Untouched,
}

/// What a replaying machine is told.
#[derive(Debug)]
pub(crate) enum ReplayCommand {
    /// These records follow those that were given before.
    Records {
        /// The last of those; of the first time, that after which the machine stands.
        after: RecordNumber,
        /// In order.
        records: Vec<Record>,
    },
    /// The machine that differed goes on, and is not compared.
    StopComparing,
    /// What is given from here on is compared again.
    Compare,
    /// Begin a snapshot with this number, disks included.
    Snapshot { number: u64 },
    /// All records were given; go live when they were replayed.
    GoLive(LiveOptions),
}

/// What happened to a live machine, in the order in which it took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An input was injected, or a digest taken.
    Record(Record),
    /// What a disk read, before the record that tells of it: where that is wanted, and the records do not hold it.
    Read(DiskRead),
    /// What the outside can see of it: at most one in a report, and then the last.
    Outputs(VisibleOutputs),
    /// A button took effect, and everything before was reported: whoever pressed it may be told when an
    /// output that was made here might leave.
    Pressed {
        /// Where.
        count: InstructionCount,
        /// The machine's running number of visible outputs.
        visible: u64,
        /// Which press it was.
        press: u64,
    },
}

/// What a disk read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRead {
    /// Index among the machine's disks.
    pub device: u8,
    /// The request's number.
    pub request: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Outputs that are reported together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisibleOutputs {
    /// Where the machine had come to when they were reported.
    pub count: InstructionCount,
    /// The machine's running number of visible outputs, with these.
    pub visible: u64,
    /// Frames and console bytes, in order.
    pub outputs: Vec<Output>,
    /// How long they waited before they were reported, on average, where that is long.
    pub waited: Duration,
}

/// What a live machine reports.
pub enum LiveReport {
    /// What happened since the last report.
    Steps {
        /// In order; empty when the guest only computed.
        steps: Vec<Step>,
        /// Where the machine is now.
        count: InstructionCount,
    },
    /// The snapshot that was asked for, or the last round of a copy, at this instruction count. All that
    /// was reported before is in it, nothing that is reported after.
    Snapshot(Box<BegunSnapshot>),
    /// A copy that was asked for begins with the disks.
    DisksBegun(Box<BegunDisks>),
    /// The first round of a copy that was asked for.
    CopyBegun(Box<BegunCopy>),
    /// Another round of this pairing's copy, which is not the last.
    CopyRound(u64, SnapshotPages),
    /// The machine stands still, as it was told; everything before was reported.
    StandsStill,
    /// The host could not carry out a disk request, and this is how. The guest was not told: the
    /// machine stands still, everything before was reported. If it goes on here, the guest is told.
    DiskFailed(String),
    /// The guest reset the machine, which begins anew at this instruction count.
    Rebooted {
        /// Instructions since power-on.
        count: InstructionCount,
    },
    /// This host's calendar and the guest's are a second apart or more.
    Calendar {
        /// Instructions since power-on.
        count: InstructionCount,
        /// How far this host's is ahead, in nanoseconds.
        ahead_ns: i64,
    },
    /// The guest is in trouble.
    Trouble {
        /// Instructions since power-on.
        count: InstructionCount,
        /// Which.
        trouble: Trouble,
    },
    /// The guest ended the machine; nothing follows.
    Finished(Finish),
    /// The machine cannot go on; nothing follows but the evidence.
    Failed(VcpuFailure),
}

/// What a replaying machine reports.
pub enum ReplayReport {
    /// How far it came since the last report.
    Progress {
        /// What the outside would have seen meanwhile.
        outputs: Vec<VisibleOutputs>,
        /// Where the machine is now.
        count: InstructionCount,
        /// The number of the last record replayed.
        replayed: RecordNumber,
    },
    /// The snapshot that was asked for.
    Snapshot(Box<BegunSnapshot>),
    /// This host's disks have all that the guest had written before it asked for any flush at an
    /// instruction count of at most this.
    Durable {
        /// The instruction count.
        count: InstructionCount,
    },
    /// The machine does not do what the records say; nothing follows before it is told to go on.
    Diverged {
        /// Where and how.
        report: DivergenceReport,
        /// The machine as it is, for the evidence: comes when it is copied, which takes its time.
        found: Receiver<Box<Snapshot>>,
    },
    /// This host's disk failed a request that the primary's did, and this is how; nothing follows.
    DiskFailed(String),
    /// The machine cannot go on, though nothing says that it differs; nothing follows but the
    /// evidence.
    Failed(VcpuFailure),
}

/// Why a machine cannot go on: a bug of this program, a difference that the paranoid engine found, or
/// a host that fails it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuFailure {
    /// Where the machine had come to when it was last looked at.
    pub count: InstructionCount,
    /// Why, on one line.
    pub reason: String,
}

/// A copy whose disks are made before the machine's: records are for the backup only from the last round of the
/// machine on, however long the disks take.
pub struct BegunDisks {
    /// About how many bytes of RAM there are to come.
    pub memory_bytes: u64,
    /// How long its disks are, in bytes.
    pub disk_lengths: Vec<u64>,
    /// Asks for what is to come.
    pub asks: CopyAsks,
}

/// Asks the machine's thread for the next of a copy. Who drops this ends what there is of the disks' copy before the
/// last round.
pub struct CopyAsks {
    pairing: u64,
    thread: Sender<Command>,
}

impl CopyAsks {
    pub(super) fn new(pairing: u64, thread: Sender<Command>) -> CopyAsks {
        CopyAsks { pairing, thread }
    }

    /// The pairing that it is for.
    pub fn pairing(&self) -> u64 {
        self.pairing
    }

    /// Everything on the disks, or what changed since it was copied.
    pub fn disks(&self, forgets_changes: bool) -> Receiver<CopiedPart> {
        let (sender, parts) = copied_parts();
        self.ask(LiveCommand::CopyDisks(PassAhead {
            pairing: self.pairing,
            parts: sender,
            forgets_changes,
        }));
        parts
    }

    /// The machine, from its first round on: [`LiveReport::CopyBegun`].
    pub fn machine(&self) {
        let pairing = self.pairing;
        self.ask(LiveCommand::Copy { pairing });
    }

    fn ask(&self, command: LiveCommand) {
        // A machine that has gone says so elsewhere.
        let _sent = self.thread.send(Command::Live(command));
    }
}

impl Drop for CopyAsks {
    fn drop(&mut self) {
        let pairing = self.pairing;
        self.ask(LiveCommand::EndDisks { pairing });
    }
}

/// A copy that is being made while the machine runs on.
pub struct BegunCopy {
    /// The pairing that it is for.
    pub pairing: u64,
    /// The machine but for its RAM, as it was then.
    pub head: SnapshotHead,
    /// All of its RAM.
    pub pages: SnapshotPages,
    /// About how many bytes of RAM there are to come.
    pub memory_bytes: u64,
    /// How long its disks are, in bytes.
    pub disk_lengths: Vec<u64>,
    /// How long the guest stood still for it.
    pub pause: Duration,
}

/// A snapshot that is being taken while the machine runs on, and the disks that belong to it.
pub struct BegunSnapshot {
    /// The pairing that it is for.
    pub pairing: u64,
    /// Where it was begun: this is its moment.
    pub count: InstructionCount,
    /// The running number of visible outputs.
    pub visible: u64,
    /// The machine but for its RAM.
    pub head: SnapshotHead,
    /// How much of its RAM is in it.
    pub extent: Extent,
    /// Its RAM, or what changed of it.
    pub pages: SnapshotPages,
    /// What its clocks showed.
    pub times: MachineTimes,
    /// About how many bytes of RAM that may be.
    pub memory_bytes: u64,
    /// How long its disks are, in bytes.
    pub disk_lengths: Vec<u64>,
    /// What its disks hold.
    pub disk_parts: Receiver<CopiedPart>,
    /// Instead of that: they stay where they are.
    pub freezing: Option<Freezing>,
    /// How long the guest stood still for it.
    pub pause: Duration,
}

impl BegunSnapshot {
    /// Of this machine, as it is now. What becomes of its disks, and how long that took, is not in it yet.
    pub(super) fn of(
        machine: &dyn Machine,
        pairing: u64,
        head: SnapshotHead,
        (extent, pages): (Extent, SnapshotPages),
    ) -> BegunSnapshot {
        BegunSnapshot {
            pairing,
            count: InstructionCount(machine.instruction_count()),
            visible: machine.visible_outputs(),
            head,
            extent,
            pages,
            times: times_of(machine),
            memory_bytes: machine.pages_in_use() as u64 * PAGE_SIZE,
            disk_lengths: disk_lengths(machine),
            disk_parts: mpsc::sync_channel(1).1,
            freezing: None,
            pause: Duration::ZERO,
        }
    }
}

/// What a machine's clocks show.
pub fn times_of(machine: &dyn Machine) -> MachineTimes {
    let guest_ns = machine.guest_time_ns();
    MachineTimes {
        guest_ns,
        unix_ns: machine.unix_base_ns().saturating_add(guest_ns),
    }
}

/// How long a machine's disks are, in bytes.
pub(super) fn disk_lengths(machine: &dyn Machine) -> Vec<u64> {
    let disks = machine.board().disks.iter();
    let lengths = disks.map(|disk| disk.sectors.saturating_mul(SECTOR_BYTES));
    lengths.collect()
}
