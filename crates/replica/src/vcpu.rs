//! The vcpu thread: it owns the machine and runs it.
//!
//! The thread is in one of two modes. **Live**, it steers guest time along host time, injects what
//! arrives at the end of a quantum, and reports every input and output in the order in which they
//! took effect. **Replaying**, it does what the records say and nothing else. A replica goes live
//! once; it never goes back.

mod completions;
mod copying;
mod failure;
mod flushes;
mod guest;
mod live;
mod messages;
mod replay;

pub use completions::Completions;
pub use copying::{PagesLost, SnapshotPages};
pub use guest::{GuestError, InputEncoding, ReplicaGuest, decode_input, encode_input};
pub(crate) use live::MOST_ROUNDS;
pub use live::{CheckpointOptions, LiveOptions};
pub use messages::{
    BegunCopy, BegunDisks, BegunSnapshot, CopyAsks, DiskRead, LiveReport, ReplayReport,
    SnapshotDisks, Step, VcpuFailure, VisibleOutputs, times_of,
};

use crate::checkpoint::{Packer, Work};
use crate::disk::overlay::Begun;
use crate::disk::{Disk, DiskThread};
use crate::evidence::EvidenceStore;
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, Sender};
use environment::thread::JoinHandle;
use machine::Machine;
use machine::engine::Engine;
use machine::input::Input;
use machine::memory::{Extent, PAGE_SIZE, PageBatch};
use messages::{Command, LiveCommand, ReplayCommand};
use replication::lag::RunShare;
use replication::record::{InstructionCount, Record, RecordNumber};
use std::cell::OnceCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Figures that anybody may read at any time.
#[derive(Debug, Default)]
pub struct Gauges {
    /// The instruction count.
    pub count: AtomicU64,
    /// Guest time in nanoseconds.
    pub guest_time_ns: AtomicU64,
    /// For how long the harts ran since the machine went live here, in nanoseconds.
    pub ran_ns: AtomicU64,
    /// Visible outputs since power-on.
    pub visible: AtomicU64,
    /// Bytes of RAM in use, as last known.
    pub memory_in_use: AtomicU64,
    /// Recorded digests that the machine was compared with: the first that differs ends the replay.
    pub digests_compared: AtomicU64,
    /// The pairing whose snapshot is wanted; 0 for none.
    wanted_snapshot: AtomicU64,
    /// Replaying: somebody waits for the end of the replay.
    eager: AtomicBool,
    /// Whether the machine stands still because somebody paused it.
    pub paused: AtomicBool,
    /// Checkpoints that were made here…
    pub checkpoints: AtomicU64,
    /// …how many pages they held…
    pub checkpoint_pages: AtomicU64,
    /// …how long the guest stood still for all of them, in nanoseconds…
    pub checkpoint_ns: AtomicU64,
    /// …and for the longest.
    pub longest_checkpoint_ns: AtomicU64,
}

/// The ends of the channels that the thread holds.
pub(crate) struct Ends {
    commands: Receiver<Command>,
    /// For whoever has to wake the thread.
    own: Sender<Command>,
    live: Sender<LiveReport>,
    replay: Sender<ReplayReport>,
    evidence: Sender<io::Result<PathBuf>>,
    waker: Waker,
    gauges: Arc<Gauges>,
    /// Where checkpoints may be made every report goes through it.
    packer: OnceCell<Packer>,
}

impl Gauges {
    /// A checkpoint of so many pages was made, for which the guest stood still for so long.
    fn checkpoint_made(&self, pages: usize, took_ns: u64) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.checkpoint_pages
            .fetch_add(pages as u64, Ordering::Relaxed);
        self.checkpoint_ns.fetch_add(took_ns, Ordering::Relaxed);
        self.longest_checkpoint_ns
            .fetch_max(took_ns, Ordering::Relaxed);
    }
}

impl Ends {
    /// From here on what is reported goes through the thread that compresses checkpoints.
    fn begin_packing(&self, piece_bytes: usize) -> io::Result<()> {
        let packer = Packer::start(self.live.clone(), self.waker.clone(), piece_bytes)?;
        // A machine goes live once.
        let _set = self.packer.set(packer);
        Ok(())
    }

    /// Gives the thread that compresses checkpoints something, if there is one.
    fn pack(&self, work: Work) {
        if let Some(packer) = self.packer.get() {
            packer.give(work);
        }
    }

    /// Room for the pages of a checkpoint.
    fn empty_batch(&self) -> PageBatch {
        self.packer
            .get()
            .map_or_else(PageBatch::default, Packer::empty_batch)
    }

    // An event loop that has gone needs no reports; the channel of commands ends the thread.

    /// Reports without waking the event loop, which looks at the reports every few milliseconds.
    fn live_quietly(&self, report: LiveReport) {
        match self.packer.get() {
            Some(packer) => packer.give(Work::Report(report, false)),
            None => {
                let _sent = self.live.send(report);
            }
        }
    }

    /// Reports and wakes the event loop.
    fn live(&self, report: LiveReport) {
        match self.packer.get() {
            Some(packer) => packer.give(Work::Report(report, true)),
            None => {
                self.live_quietly(report);
                self.waker.wake();
            }
        }
    }

    /// As [`Ends::live_quietly`].
    fn replay_quietly(&self, report: ReplayReport) {
        let _sent = self.replay.send(report);
    }

    /// As [`Ends::live`].
    fn replay(&self, report: ReplayReport) {
        self.replay_quietly(report);
        self.waker.wake();
    }

    /// The pairing whose snapshot is wanted; 0 for none.
    fn wanted_snapshot(&self) -> u64 {
        self.gauges.wanted_snapshot.load(Ordering::Acquire)
    }

    fn is_eager(&self) -> bool {
        self.gauges.eager.load(Ordering::SeqCst)
    }

    /// Lets the machine's figures be seen.
    fn publish(&self, machine: &dyn Machine) {
        self.gauges
            .count
            .store(machine.instruction_count(), Ordering::Release);
        self.gauges
            .guest_time_ns
            .store(machine.guest_time_ns(), Ordering::Release);
        self.gauges
            .visible
            .store(machine.visible_outputs(), Ordering::Release);
        self.gauges
            .paused
            .store(machine.is_paused(), Ordering::Relaxed);
        let memory_in_use = machine.pages_in_use() as u64 * PAGE_SIZE;
        self.gauges
            .memory_in_use
            .store(memory_in_use, Ordering::Relaxed);
    }
}

/// Where the machine's thread begins.
enum Start {
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
    /// Where evidence of a failure goes, if it is to be kept.
    pub evidence: Option<EvidenceStore>,
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
}

/// The thread as seen from outside, in either mode. It ends when it is told to or this is dropped.
pub struct VcpuThread {
    commands: Sender<Command>,
    evidence: Receiver<io::Result<PathBuf>>,
    gauges: Arc<Gauges>,
    engine: Engine,
    thread: Option<JoinHandle<()>>,
    /// That of its disks, which ends after it, and its end.
    disk_thread: Option<DiskThread>,
    disks: Option<JoinHandle<()>>,
}

impl VcpuThread {
    fn command(&self, command: Command) {
        // A thread that has ended has reported why.
        let _sent = self.commands.send(command);
    }

    /// What executes the guest on this host.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The thread of its disks, if it has some.
    pub fn disk_thread(&self) -> Option<&DiskThread> {
        self.disk_thread.as_ref()
    }

    /// Figures that may be read at any time.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// After a failure: waits until its evidence is kept, and says where. `None` when none was to be
    /// kept. A thread that does not get it done within `patience` is left to itself.
    pub fn evidence(&mut self, patience: Duration) -> Option<io::Result<PathBuf>> {
        match self.evidence.recv_timeout(patience) {
            Ok(kept) => Some(kept),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.thread = None;
                Some(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Ends the thread. Its last reports are still there.
    pub fn stop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // The thread guards itself, and has reported its panic.
            let _joined = thread.join();
        }
    }
}

impl VcpuThread {
    /// Ends the thread, and waits until its disks are closed. That may take as long as a disk does.
    pub fn close(mut self) {
        self.stop();
        self.disk_thread = None;
        if let Some(disks) = self.disks.take() {
            // A panic has ended the process.
            let _joined = disks.join();
        }
    }
}

impl Drop for VcpuThread {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A thread with a live machine.
pub struct LiveVcpu {
    thread: VcpuThread,
    reports: Receiver<LiveReport>,
}

impl LiveVcpu {
    /// As [`VcpuThread::close`].
    pub fn close(self) {
        let LiveVcpu {
            mut thread,
            reports,
        } = self;
        thread.stop();
        // A snapshot that nobody looked at keeps the disks.
        drop(reports);
        thread.close();
    }

    /// Starts a thread that is live at once; `waker` is woken by every report that should be seen
    /// at once.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(
        parts: Parts,
        options: LiveOptions,
        channel: CommandChannel,
        waker: Waker,
    ) -> io::Result<LiveVcpu> {
        let (thread, reports, _) = start(parts, Start::Live(options), channel, waker)?;
        Ok(LiveVcpu { thread, reports })
    }

    /// Injects this at the end of the quantum.
    pub fn input(&self, input: Input) {
        self.inputs(vec![input]);
    }

    /// Injects these at the end of the quantum, in order: what came together wakes the thread once.
    pub fn inputs(&self, inputs: Vec<Input>) {
        if !inputs.is_empty() {
            self.thread
                .command(Command::Live(LiveCommand::Inputs(inputs)));
        }
    }

    /// A button is pressed, or was before; [`Step::Pressed`] says when that is so.
    pub fn press(&self, input: Option<Input>, press: u64) {
        self.thread
            .command(Command::Live(LiveCommand::Press { input, press }));
    }

    /// Lets the machine run this share of the time.
    pub fn throttle(&self, share: RunShare) {
        self.thread
            .command(Command::Live(LiveCommand::Throttle(share)));
    }

    /// Lets flushes that ended be told to the guest if it asked for them at an instruction count of at
    /// most `up_to`, and has the others wait.
    pub fn complete_flushes(&self, up_to: InstructionCount) {
        self.thread
            .command(Command::Live(LiveCommand::CompleteFlushes { up_to }));
    }

    /// All members hold the oldest checkpoint of which that was not said yet.
    pub fn checkpoint_held(&self) {
        self.thread
            .command(Command::Live(LiveCommand::CheckpointHeld));
    }

    /// Nobody is left for whom there were checkpoints since the snapshot of this pairing.
    pub fn end_checkpoints(&self, pairing: u64) {
        self.thread
            .command(Command::Live(LiveCommand::EndCheckpoints { pairing }));
    }

    /// Has the machine go no further; [`LiveReport::StandsStill`] says when it does, and comes after
    /// everything else.
    pub fn stand_still(&self) {
        self.thread.command(Command::Live(LiveCommand::StandStill));
    }

    /// Lets the machine go on after standing still.
    pub fn resume(&self) {
        self.thread.command(Command::Live(LiveCommand::Resume));
    }

    /// Begins a snapshot for this pairing, of so much of RAM, and what belongs to it of the disks.
    pub fn snapshot(&self, pairing: u64, extent: Extent, disks: SnapshotDisks) {
        self.thread
            .gauges
            .wanted_snapshot
            .store(pairing, Ordering::Release);
        self.thread.command(Command::Live(LiveCommand::Snapshot {
            pairing,
            extent,
            disks,
        }));
    }

    /// Begins to copy the machine for this pairing, in rounds: its disks before the first and between them, with
    /// what changed behind the last; or, if not `disks_first`, as a whole with the last.
    pub fn copy(&self, pairing: u64, disks_first: bool) {
        let gauges = self.thread.gauges();
        gauges.wanted_snapshot.store(pairing, Ordering::Release);
        let command = match disks_first {
            true => LiveCommand::CopyDisksFirst { pairing },
            false => LiveCommand::Copy { pairing },
        };
        self.thread.command(Command::Live(command));
    }

    /// Nobody wants the snapshot any more: it is not begun, or ends.
    pub fn cancel_snapshot(&self) {
        self.thread
            .gauges
            .wanted_snapshot
            .store(0, Ordering::Release);
        self.thread.command(Command::Look);
    }

    /// The next report, if there is one.
    pub fn report(&self) -> Option<LiveReport> {
        self.reports.try_recv().ok()
    }

    /// The thread.
    pub fn thread(&self) -> &VcpuThread {
        &self.thread
    }

    /// The thread, to be ended.
    pub fn thread_mut(&mut self) -> &mut VcpuThread {
        &mut self.thread
    }
}

/// A thread with a replaying machine.
pub struct ReplayingVcpu {
    thread: VcpuThread,
    reports: Receiver<ReplayReport>,
    live_reports: Receiver<LiveReport>,
}

impl ReplayingVcpu {
    /// Starts a thread that replays records which begin at the machine's instruction count.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(parts: Parts, channel: CommandChannel, waker: Waker) -> io::Result<ReplayingVcpu> {
        let (thread, live_reports, reports) = start(parts, Start::Replaying, channel, waker)?;
        Ok(ReplayingVcpu {
            thread,
            reports,
            live_reports,
        })
    }

    /// Replays the records after this one, which is the last that was given before. The machine stands after that of the
    /// first call.
    pub fn replay(&self, after: RecordNumber, records: Vec<Record>) {
        self.thread
            .command(Command::Replay(ReplayCommand::Records { after, records }));
    }

    /// The machine that differed is right: it goes on along the records where they fit, and is not compared.
    pub fn stop_comparing(&self) {
        self.thread
            .command(Command::Replay(ReplayCommand::StopComparing));
    }

    /// What is given from here on comes from a machine that is equal.
    pub fn compare(&self) {
        self.thread.command(Command::Replay(ReplayCommand::Compare));
    }

    /// Begins a snapshot of this number, disks included: [`ReplayReport::Snapshot`] has it.
    pub fn snapshot(&self, number: u64) {
        self.thread
            .command(Command::Replay(ReplayCommand::Snapshot { number }));
    }

    /// All records were given: the machine goes live when they were replayed.
    pub fn go_live(self, options: LiveOptions) -> LiveVcpu {
        self.thread
            .command(Command::Replay(ReplayCommand::GoLive(options)));
        LiveVcpu {
            thread: self.thread,
            reports: self.live_reports,
        }
    }

    /// As [`VcpuThread::close`].
    pub fn close(self) {
        self.thread.close();
    }

    /// From now on every report wakes the event loop, because it waits for the end of the replay.
    pub fn hurry(&self) {
        self.thread.gauges.eager.store(true, Ordering::SeqCst);
    }

    /// The next report, if there is one.
    pub fn report(&self) -> Option<ReplayReport> {
        self.reports.try_recv().ok()
    }

    /// The thread.
    pub fn thread(&self) -> &VcpuThread {
        &self.thread
    }

    /// The thread, to be ended.
    pub fn thread_mut(&mut self) -> &mut VcpuThread {
        &mut self.thread
    }
}

type Started = (VcpuThread, Receiver<LiveReport>, Receiver<ReplayReport>);

fn start(parts: Parts, start: Start, channel: CommandChannel, waker: Waker) -> io::Result<Started> {
    let (live, live_reports) = mpsc::channel();
    let (replay, replay_reports) = mpsc::channel();
    let (evidence, kept) = mpsc::channel();
    let gauges = Arc::new(Gauges::default());
    let ends = Ends {
        commands: channel.receiver,
        own: channel.sender.clone(),
        live,
        replay,
        evidence,
        waker,
        gauges: gauges.clone(),
        packer: OnceCell::new(),
    };
    ends.publish(&*parts.guest.machine);
    let engine = parts.guest.machine.engine();
    let disk_thread = parts.guest.disk_thread().cloned();
    let disks = disk_thread.as_ref().and_then(DiskThread::join_handle);
    let thread = environment::thread::Builder::new()
        .name("vcpu".into())
        .spawn(move || failure::run_guarded(parts, start, &ends))?;
    let thread = VcpuThread {
        commands: channel.sender,
        evidence: kept,
        gauges,
        engine,
        thread: Some(thread),
        disk_thread,
        disks,
    };
    Ok((thread, live_reports, replay_reports))
}

/// Starts the disks' thread so that its completions reach the vcpu thread.
///
/// # Errors
/// The host gives no thread.
pub fn start_disks(
    disks: Arc<Vec<Disk>>,
    channel: &CommandChannel,
) -> io::Result<(DiskThread, Arc<Completions>)> {
    start_layered_disks(disks, Vec::new(), channel)
}

/// As [`start_disks`], with the layers of a journal that the machine goes on from.
///
/// # Errors
/// The host gives no thread.
pub fn start_layered_disks(
    disks: Arc<Vec<Disk>>,
    begun: Vec<Option<Begun>>,
    channel: &CommandChannel,
) -> io::Result<(DiskThread, Arc<Completions>)> {
    let completions = Arc::new(Completions::default());
    let (board, look) = (completions.clone(), channel.sender.clone());
    let thread = DiskThread::go_on(disks, begun, move |completion| {
        board.add(completion);
        // The vcpu thread may have ended before its disks.
        let _sent = look.send(Command::Look);
    })?;
    Ok((thread, completions))
}

#[cfg(test)]
mod tests;
