//! The vcpu thread: it owns the machine and runs it.
//!
//! The thread is in one of two modes. **Live**, it steers guest time along host time, injects what
//! arrives at the end of a quantum, and reports every input and output in the order in which they
//! took effect. **Replaying**, it does what the records say and nothing else. A replica goes live
//! once; it never goes back.

mod completions;
mod guest;
mod live;
mod replay;

pub use completions::Completions;
pub use guest::{InputEncoding, ReplicaGuest, decode_input, encode_input};
pub use live::LiveOptions;

use crate::disk::{DiskChunk, DiskThread};
use crate::wake::Waker;
use machine::engine::Engine;
use machine::input::Input;
use machine::machine::Machine;
use machine::output::{Finish, Output};
use machine::state::Snapshot;
use replication::lag::RunShare;
use replication::message::DivergenceReport;
use replication::record::Record;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

/// What the vcpu thread is told.
pub enum Command {
    /// Live: inject this at the end of the quantum.
    Input(Input),
    /// Replaying: these records follow those that were given before.
    Records(Vec<Record>),
    /// Replaying: all records were given; go live when they were replayed.
    GoLive(LiveOptions),
    /// Live: run this share of the time, in thousandths.
    Throttle(RunShare),
    /// Live: take a snapshot for this pairing, and begin to copy the disks.
    Snapshot {
        /// The pairing.
        generation: u64,
    },
    /// Something else than the channel has news: a disk's completion.
    Look,
    /// End the thread.
    Stop,
}

/// What happened, in the order in which it took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Live: an input was injected, or a digest taken.
    Record(Record),
    /// Something that the outside can see.
    Outputs(VisibleOutputs),
}

/// Outputs that were collected together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisibleOutputs {
    /// Where the machine had come to when they were collected.
    pub count: u64,
    /// The machine's running number of visible outputs, with these.
    pub visible: u64,
    /// Frames and console bytes, in order.
    pub outputs: Vec<Output>,
}

/// What the vcpu thread reports.
pub enum Report {
    /// Live or replaying: what happened since the last report.
    Steps {
        /// In order; empty when the guest only computed.
        steps: Vec<Step>,
        /// Where the machine is now.
        count: u64,
        /// Replaying: the number of the last record replayed.
        replayed: u64,
    },
    /// Live: the snapshot that was asked for, at this instruction count. All that was reported
    /// before is in it, nothing that is reported after.
    Snapshot(Box<TakenSnapshot>),
    /// Replaying: all records were replayed; what follows is live.
    Live {
        /// Where.
        count: u64,
    },
    /// Replaying: the machine does not do what the records say.
    Diverged {
        /// Where and how.
        report: DivergenceReport,
        /// The machine as it is, for the evidence.
        snapshot: Box<Snapshot>,
    },
    /// The host could not carry out a disk request; the guest got an I/O error.
    DiskError(String),
    /// The guest ended the machine, after all steps that were reported.
    Finished(Finish),
    /// The machine cannot go on.
    Failed(String),
}

/// A snapshot, and the disks that belong to it.
pub struct TakenSnapshot {
    /// The pairing that it is for.
    pub generation: u64,
    /// Where it was taken.
    pub count: u64,
    /// The running number of visible outputs.
    pub visible: u64,
    /// The machine.
    pub snapshot: Snapshot,
    /// What its disks hold.
    pub disk_chunks: Receiver<DiskChunk>,
}

/// Figures that anybody may read at any time.
#[derive(Debug, Default)]
pub struct Gauges {
    /// The instruction count.
    pub count: AtomicU64,
    /// Guest time in nanoseconds.
    pub guest_time_ns: AtomicU64,
    /// Visible outputs since power-on.
    pub visible: AtomicU64,
    /// Recorded digests that the machine was compared with: the first that differs ends the replay.
    pub digests_compared: AtomicU64,
    /// Replaying: somebody waits for the end of the replay.
    eager: AtomicBool,
}

/// The thread as seen from outside. It ends when it is told to or this is dropped.
pub struct Vcpu {
    commands: Sender<Command>,
    reports: Receiver<Report>,
    gauges: Arc<Gauges>,
    engine: Engine,
    thread: Option<JoinHandle<()>>,
}

/// The ends of the channels that the thread holds.
pub(crate) struct Ends {
    pub(crate) commands: Receiver<Command>,
    pub(crate) reports: Sender<Report>,
    pub(crate) waker: Waker,
    pub(crate) gauges: Arc<Gauges>,
}

impl Ends {
    /// Reports without waking the event loop, which looks at the reports every few milliseconds.
    pub(crate) fn report_quietly(&self, report: Report) {
        // An event loop that has gone needs no reports; the channel of commands ends the thread.
        let _sent = self.reports.send(report);
    }

    /// Reports and wakes the event loop.
    pub(crate) fn report(&self, report: Report) {
        self.report_quietly(report);
        self.waker.wake();
    }

    pub(crate) fn is_eager(&self) -> bool {
        self.gauges.eager.load(Ordering::SeqCst)
    }

    /// Lets the machine's figures be seen.
    pub(crate) fn publish(&self, machine: &Machine) {
        self.gauges
            .count
            .store(machine.instruction_count(), Ordering::Release);
        self.gauges
            .guest_time_ns
            .store(machine.guest_time_ns(), Ordering::Release);
        self.gauges
            .visible
            .store(machine.visible_outputs(), Ordering::Release);
    }
}

/// Where the machine's thread begins.
pub enum Start {
    /// Live from the first instruction.
    Live(LiveOptions),
    /// Replaying records that begin at the machine's instruction count.
    Replaying,
}

/// The parts that the thread works with.
pub struct Parts {
    /// The machine in its disks' company.
    pub guest: ReplicaGuest,
    /// How inputs are encoded in the steps.
    pub encoding: InputEncoding,
}

/// A channel of commands, made before the thread because the disks' thread needs its end.
pub struct CommandChannel {
    sender: Sender<Command>,
    receiver: Receiver<Command>,
}

impl CommandChannel {
    /// A new channel.
    #[expect(
        clippy::new_without_default,
        reason = "a default channel would be a surprise"
    )]
    pub fn new() -> CommandChannel {
        let (sender, receiver) = mpsc::channel();
        CommandChannel { sender, receiver }
    }

    /// For the disks' thread: tells the vcpu thread to look at the completions.
    pub fn sender(&self) -> Sender<Command> {
        self.sender.clone()
    }
}

/// Runs the thread. Should it panic, which is a bug of this program or a difference that the
/// paranoid engine found, the machine has failed: a primary that went on with heartbeats alone would
/// keep its backup from taking over.
fn report_panic(ends: &Ends, run: impl FnOnce()) {
    // Nothing of what `run` had is looked at afterwards but its ends, which are channels and counters.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic");
        ends.report(Report::Failed(what.to_owned()));
    }
}

impl Vcpu {
    /// Starts the thread; `waker` is woken by every report that should be seen at once.
    pub fn start(
        parts: Parts,
        start: Start,
        channel: CommandChannel,
        waker: Waker,
    ) -> io::Result<Vcpu> {
        let (report_sender, reports) = mpsc::channel();
        let gauges = Arc::new(Gauges::default());
        let ends = Ends {
            commands: channel.receiver,
            reports: report_sender,
            waker,
            gauges: gauges.clone(),
        };
        ends.publish(&parts.guest.machine);
        let engine = parts.guest.machine.engine();
        let thread = std::thread::Builder::new()
            .name("vcpu".into())
            .spawn(move || {
                report_panic(&ends, || {
                    let Parts { guest, encoding } = parts;
                    match start {
                        Start::Live(options) => live::run(guest, encoding, options, &ends),
                        Start::Replaying => {
                            if let Some((guest, options)) = replay::run(guest, &ends) {
                                live::run(guest, encoding, options, &ends);
                            }
                        }
                    }
                });
            })?;
        Ok(Vcpu {
            commands: channel.sender,
            reports,
            gauges,
            engine,
            thread: Some(thread),
        })
    }

    /// Tells the thread something.
    pub fn command(&self, command: Command) {
        // A thread that has ended has reported why.
        let _sent = self.commands.send(command);
    }

    /// The next report, if there is one.
    pub fn report(&self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// Replaying: from now on every report wakes the event loop, because it waits for the end of the
    /// replay.
    pub fn hurry(&self) {
        self.gauges.eager.store(true, Ordering::SeqCst);
    }

    /// What executes the guest on this host.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Figures that may be read at any time.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }
}

impl Vcpu {
    /// Ends the thread. Its last reports are still there.
    pub fn stop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed by it.
            let _joined = thread.join();
        }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the disks' thread so that its completions reach the vcpu thread.
pub fn start_disks(
    disks: Arc<Vec<crate::disk::Disk>>,
    channel: &CommandChannel,
) -> io::Result<(DiskThread, Arc<Completions>)> {
    let completions = Arc::new(Completions::default());
    let (board, look) = (completions.clone(), channel.sender());
    let thread = DiskThread::start(disks, move |completion| {
        board.add(completion);
        // The vcpu thread may have ended before its disks.
        let _sent = look.send(Command::Look);
    })?;
    Ok((thread, completions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use network::PollSet;

    #[test]
    fn a_panic_of_the_machines_thread_is_a_failure_of_the_machine() {
        let (_commands, commands) = mpsc::channel();
        let (reports, reported) = mpsc::channel();
        let waker = Waker::new().unwrap();
        let ends = Ends {
            commands,
            reports,
            waker: waker.clone(),
            gauges: Arc::default(),
        };
        report_panic(&ends, || {});
        assert!(reported.try_recv().is_err());
        report_panic(&ends, || panic!("block at {:#x}", 0x8000_0000_u32));
        let Ok(Report::Failed(what)) = reported.try_recv() else {
            panic!("no failure was reported");
        };
        assert_eq!(what, "block at 0x80000000");
        let mut set = PollSet::new();
        set.add(waker.fd(), (), true, false);
        let woken = set.wait(Some(std::time::Duration::ZERO)).unwrap();
        assert_eq!(woken.len(), 1);
    }
}
