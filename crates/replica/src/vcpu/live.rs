//! The live mode: time is steered, inputs are injected and recorded, outputs are reported.

mod checkpoints;
mod snapshots;

use super::Ends;
use super::guest::{GuestError, InputEncoding, ReplicaGuest, encode_input};
use super::messages::{Command, DiskRead, LiveCommand, LiveReport, Step, VisibleOutputs};
use crate::calendar::{CalendarWatch, GuestScale};
use crate::clock::{ClockSteering, GuestNow};
use crate::disk::Completion;
use crate::host_time::{monotonic_ns, unix_ns};
pub use checkpoints::CheckpointOptions;
use checkpoints::{Checkpoints, OutputWaits};
use environment::mpsc::{self, RecvTimeoutError, TryRecvError};
use machine::Stop;
use machine::input::{DiskStatus, Input};
use machine::output::{Finish, Output, Trouble};
use replication::guest::Guest;
use replication::lag::{FULL_SPEED, RunShare};
use replication::record::{InstructionCount, Record, RecordBody};
pub(crate) use snapshots::MOST_ROUNDS;
use snapshots::Snapshots;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Host time that a quantum should take: what arrives waits half of it on average.
const QUANTUM_NS: u64 = 200_000;
/// Instructions of a quantum, whatever the speed.
const QUANTUM_LIMITS: std::ops::RangeInclusive<u64> = 2_000..=2_000_000;
/// A guest that runs on often has more to say: its outputs wait so long for each other.
const COALESCING_NS: u64 = 100_000;
/// Records that nothing waits for are reported this often.
const BATCH_NS: u64 = 1_000_000;
/// How often the event loop is told how far a guest that only computes has come: as often as it lets
/// the backup follow.
const PROGRESS_INTERVAL_NS: u64 = 8_000_000;
/// Between two markers while a flush waits for the backup's disk.
const ALONG_NS: u64 = 2_000_000;
/// A throttled guest sleeps when it owes this much.
const LEAST_SLEEP_NS: u64 = 500_000;
/// A guest that should not run at all still runs this little, so that time goes on for it.
const LEAST_SHARE: RunShare = 5;
/// …and never longer than this at once, because inputs wait meanwhile.
const LONGEST_SLEEP_NS: u64 = 5_000_000;

/// How a machine goes live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveOptions {
    /// Host time between two digests, nanoseconds; 0 for none.
    pub digest_interval_ns: u64,
    /// Instructions between two digests, give or take a quantum, besides those of host time; 0 for
    /// none.
    pub digest_interval_instructions: u64,
    /// Flushes are not told to the guest until [`super::LiveVcpu::complete_flushes`] says so: the
    /// disk is not yet known to be the right one.
    pub flushes_wait: bool,
    /// What disks read is reported, besides the records that tell of it.
    pub reports_reads: bool,
    /// Backups execute nothing: checkpoints are made for them, and no other records.
    pub checkpoints: Option<CheckpointOptions>,
    /// A bug, for the simulator: what was asked of a shared disk, and may not have been done, is not asked again.
    pub forgets_shared: bool,
}

/// How a machine becomes live.
pub(super) struct GoingLive {
    pub(super) options: LiveOptions,
    /// What came while it replayed.
    pub(super) commands: Vec<LiveCommand>,
    /// How long the guest has stood still since its primary was heard last, in nanoseconds.
    pub(super) lost_ns: u64,
}

/// Whether to go on, or how it ended: by the guest, or because the thread was told to stop.
type Turn = ControlFlow<Option<Finish>>;

/// Runs the machine until the guest ends it or the thread is told to stop. `commands` came while it
/// replayed.
pub(super) fn run(
    guest: &mut ReplicaGuest,
    encoding: InputEncoding,
    going_live: GoingLive,
    ends: &Ends,
) -> Result<(), GuestError> {
    if let Some(options) = going_live.options.checkpoints {
        let begun = ends.begin_packing(options.piece_bytes);
        begun.map_err(|error| GuestError::Host(error.to_string()))?;
    }
    guest.share(going_live.options.forgets_shared);
    let mut live = Live::new(guest, encoding, &going_live, ends);
    let result = live.run(going_live.commands);
    live.digest();
    live.flush(Flush::Whole);
    if let Some(finish) = result? {
        ends.live(LiveReport::Finished(finish));
    }
    Ok(())
}

/// When the event loop is told what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// The guest runs on: more may come at once.
    Passing,
    /// The guest waits: nothing more comes for now.
    Pausing,
    /// Everything, whatever it is.
    Whole,
}

struct Live<'a> {
    guest: &'a mut ReplicaGuest,
    encoding: InputEncoding,
    ends: &'a Ends,
    steering: ClockSteering,
    scale: GuestScale,
    calendar: CalendarWatch,
    steps: Vec<Step>,
    /// Outputs since the last report: they end it, with one marker, one message and one
    /// acknowledgement for all of them.
    outputs: Vec<Output>,
    /// Since when one of them waits.
    urgent_since_ns: Option<u64>,
    /// Since when those wait that wait for a checkpoint.
    output_waits: OutputWaits,
    flushed_at_ns: u64,
    /// The last report that woke the event loop, and where the machine was.
    told_at_ns: u64,
    told_count: InstructionCount,
    options: LiveOptions,
    digest_at_ns: u64,
    digest_at_count: InstructionCount,
    run_share: RunShare,
    sleep_owed_ns: u64,
    /// Flushes that ended are told to the guest if it asked for them at an instruction count of at most
    /// this; those that wait, and when it asked for them.
    flushes_up_to: InstructionCount,
    ended_flushes: Vec<(InstructionCount, Completion)>,
    /// When there was a marker last.
    along_at_ns: u64,
    snapshots: Snapshots,
    checkpoints: Checkpoints,
    /// A request that this host failed, and those that ended with it: they take effect when it is
    /// certain that this machine goes on.
    failed: Vec<Completion>,
}

impl<'a> Live<'a> {
    fn new(
        guest: &'a mut ReplicaGuest,
        encoding: InputEncoding,
        going_live: &GoingLive,
        ends: &'a Ends,
    ) -> Live<'a> {
        let (options, lost_ns) = (going_live.options, going_live.lost_ns);
        let host_ns = monotonic_ns();
        let guest_ns = guest.machine.guest_time_ns();
        let scale = GuestScale::begin(host_ns, guest_ns, lost_ns);
        let steering = ClockSteering::new(guest.machine.clock().rate, guest_ns);
        let count = guest.instruction_count();
        Live {
            guest,
            encoding,
            ends,
            steering,
            scale,
            calendar: CalendarWatch::default(),
            steps: Vec::new(),
            outputs: Vec::new(),
            urgent_since_ns: None,
            output_waits: OutputWaits::default(),
            flushed_at_ns: host_ns,
            told_at_ns: host_ns,
            told_count: InstructionCount::POWER_ON,
            options,
            digest_at_ns: host_ns.saturating_add(options.digest_interval_ns),
            digest_at_count: count.plus(options.digest_interval_instructions),
            run_share: FULL_SPEED,
            sleep_owed_ns: 0,
            flushes_up_to: match options.flushes_wait {
                true => InstructionCount::POWER_ON,
                false => InstructionCount::LAST,
            },
            ended_flushes: Vec::new(),
            along_at_ns: host_ns,
            snapshots: Snapshots::default(),
            checkpoints: Checkpoints::new(options.checkpoints),
            failed: Vec::new(),
        }
    }

    fn run(&mut self, commands: Vec<LiveCommand>) -> Result<Option<Finish>, GuestError> {
        if self.guest.machine.has_panicked() {
            // Under the primary before this one.
            let (count, trouble) = (self.told_count, Trouble::Panicked);
            self.ends.live(LiveReport::Trouble { count, trouble });
        }
        for command in commands {
            if let ControlFlow::Break(finish) = self.live_command(command)? {
                return Ok(finish);
            }
        }
        loop {
            if let ControlFlow::Break(finish) = self.turn()? {
                return Ok(finish);
            }
        }
    }

    /// What guest time should be now.
    fn host_ns(&self) -> u64 {
        self.scale.guest_ns(monotonic_ns())
    }

    fn guest_now(&self) -> GuestNow {
        GuestNow {
            count: self.guest.machine.instruction_count(),
            time_ns: self.guest.machine.guest_time_ns(),
            rate: self.guest.machine.clock().rate,
        }
    }

    /// Takes what arrived, runs a quantum, and waits if the guest does.
    fn turn(&mut self) -> Result<Turn, GuestError> {
        if let stopped @ ControlFlow::Break(_) = self.commands()? {
            return Ok(stopped);
        }
        if let stopped @ ControlFlow::Break(_) = self.internal_inputs()? {
            return Ok(stopped);
        }
        if self.guest.machine.is_paused() {
            return self.stand_paused();
        }
        self.watch_calendar()?;
        self.begin_snapshot();
        self.checkpoint_when_due();
        let quantum = self.steering.instructions_in(QUANTUM_NS);
        let quantum = quantum.clamp(*QUANTUM_LIMITS.start(), *QUANTUM_LIMITS.end());
        let began_ns = monotonic_ns();
        let stop = self.guest.machine.run(
            self.guest
                .machine
                .instruction_count()
                .saturating_add(quantum),
        );
        let ran_ns = monotonic_ns().saturating_sub(began_ns);
        self.ends.gauges.ran_ns.fetch_add(ran_ns, Ordering::Relaxed);
        self.checkpoints.changed();
        self.collect_outputs();
        match stop {
            Stop::Reached | Stop::Output => {
                self.after_running(began_ns)?;
                Ok(ControlFlow::Continue(()))
            }
            Stop::Idle { wake_at_ns } => {
                // A guest that always waits before its quantum is over is compared as well.
                self.digest_when_due(monotonic_ns());
                self.flush(Flush::Pausing);
                self.wait(wake_at_ns)
            }
            Stop::Finished(finish) => Ok(ControlFlow::Break(Some(finish))),
        }
    }

    /// The guest's real-time clock follows this host's calendar.
    fn watch_calendar(&mut self) -> Result<(), GuestError> {
        let host_ns = monotonic_ns();
        if !self.calendar.is_due(host_ns) {
            return Ok(());
        }
        let machine = &self.guest.machine;
        let (base_ns, guest_ns) = (machine.unix_base_ns(), machine.guest_time_ns());
        let count = self.guest.instruction_count();
        let Some(moved) = self.calendar.look(host_ns, unix_ns(), base_ns, guest_ns) else {
            return Ok(());
        };
        if let Some(ahead_ns) = moved.told_ns {
            self.ends.live(LiveReport::Calendar { count, ahead_ns });
        }
        self.inject(&Input::Calendar {
            unix_base_ns: moved.unix_base_ns,
        })
    }

    fn commands(&mut self) -> Result<Turn, GuestError> {
        loop {
            match self.ends.commands.try_recv() {
                Ok(command) => {
                    if self.command(command)?.is_break() {
                        return Ok(ControlFlow::Break(None));
                    }
                }
                Err(TryRecvError::Empty) => return Ok(ControlFlow::Continue(())),
                Err(TryRecvError::Disconnected) => return Ok(ControlFlow::Break(None)),
            }
        }
    }

    fn command(&mut self, command: Command) -> Result<Turn, GuestError> {
        match command {
            Command::Live(command) => self.live_command(command),
            Command::Look => Ok(ControlFlow::Continue(())),
            Command::Replay(command) => unreachable!("a live machine replays nothing: {command:?}"),
            Command::Stop => Ok(ControlFlow::Break(None)),
        }
    }

    fn live_command(&mut self, command: LiveCommand) -> Result<Turn, GuestError> {
        match command {
            LiveCommand::Inputs(inputs) => {
                for input in &inputs {
                    // A machine that is paused is as one that is off, for whoever sends to it.
                    let is_lost = matches!(input, Input::NetworkFrame { .. });
                    if !(is_lost && self.guest.machine.is_paused()) {
                        self.inject(input)?;
                    }
                }
            }
            LiveCommand::Press { input, press } => self.press(input, press)?,
            LiveCommand::Throttle(share) => self.run_share = share.min(FULL_SPEED),
            LiveCommand::CompleteFlushes { up_to } => self.complete_flushes(up_to)?,
            LiveCommand::Snapshot {
                pairing,
                extent,
                disks,
            } => self.ask_snapshot(pairing, extent, disks),
            LiveCommand::CopyDisksFirst { pairing } => self.begin_disks(pairing),
            LiveCommand::CopyDisks(pass) => self.copy_disks(pass),
            LiveCommand::EndDisks { pairing } => self.end_disks(pairing),
            LiveCommand::Copy { pairing } => self.begin_copy(pairing),
            LiveCommand::NextRound { pairing } => self.next_round(pairing),
            LiveCommand::CheckpointHeld => self.checkpoint_held(),
            LiveCommand::EndCheckpoints { pairing } => self.end_checkpoints(pairing),
            LiveCommand::StandStill => return self.stand_still(),
            // It was told to go on before it was told to stand still.
            LiveCommand::Resume => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn press(&mut self, input: Option<Input>, press: u64) -> Result<(), GuestError> {
        if let Some(input) = input {
            self.inject(&input)?;
        }
        if self.checkpoints.are_made() {
            self.pressed_before_checkpoint(press);
        } else {
            self.tell_pressed(press);
        }
        Ok(())
    }

    fn complete_flushes(&mut self, up_to: InstructionCount) -> Result<(), GuestError> {
        self.flushes_up_to = up_to;
        let ended = std::mem::take(&mut self.ended_flushes);
        for (asked_at, completion) in ended {
            if asked_at <= up_to {
                self.inject(&completion.into_input())?;
            } else {
                self.ended_flushes.push((asked_at, completion));
            }
        }
        Ok(())
    }

    /// Whether a flush that ended may be told to the guest then.
    fn would_complete(&self, up_to: InstructionCount) -> bool {
        let mut ended = self.ended_flushes.iter();
        ended.any(|(asked_at, _)| *asked_at <= up_to)
    }

    fn stand_still(&mut self) -> Result<Turn, GuestError> {
        self.flush(Flush::Whole);
        self.ends.live(LiveReport::StandsStill);
        self.wait_for_resume()
    }

    /// Whether the guest is to be told of a failed request is not for this host alone to say.
    fn disk_failed(&mut self, how: String) -> Result<Turn, GuestError> {
        self.flush(Flush::Whole);
        self.ends.live(LiveReport::DiskFailed(how));
        self.wait_for_resume()
    }

    /// Waits until the machine may go on. What came meanwhile takes effect then.
    fn wait_for_resume(&mut self) -> Result<Turn, GuestError> {
        let mut meanwhile = Vec::new();
        loop {
            match self.ends.commands.recv() {
                Ok(Command::Live(LiveCommand::Resume)) => break,
                Ok(Command::Stop) | Err(mpsc::RecvError) => return Ok(ControlFlow::Break(None)),
                Ok(command) => meanwhile.push(command),
            }
        }
        self.steering.resume();
        for completion in std::mem::take(&mut self.failed) {
            self.complete(completion)?;
        }
        for command in meanwhile {
            if let stopped @ ControlFlow::Break(_) = self.command(command)? {
                return Ok(stopped);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Injects what the guest's own requests brought.
    fn internal_inputs(&mut self) -> Result<Turn, GuestError> {
        let mut failure = None;
        if self.has_written_too_much() {
            return Ok(ControlFlow::Continue(()));
        }
        for mut completion in self.guest.completions() {
            if failure.is_none() {
                failure = completion.host_error.take();
            }
            if failure.is_some() {
                self.failed.push(completion);
            } else {
                self.complete(completion)?;
            }
        }
        for input in self.guest.entropy()? {
            self.inject(&input)?;
        }
        match failure {
            Some(how) => self.disk_failed(how),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// A request ended. One that failed promises nothing, and has nothing to wait for.
    fn complete(&mut self, completion: Completion) -> Result<(), GuestError> {
        if completion.is_flush {
            let asked_at = self.guest.flush_asked_at(&completion);
            if completion.status == DiskStatus::Ok && asked_at > self.flushes_up_to {
                self.ended_flushes.push((asked_at, completion));
                return Ok(());
            }
        }
        self.inject(&completion.into_input())
    }

    fn inject(&mut self, input: &Input) -> Result<(), GuestError> {
        self.guest.inject_live(input)?;
        if self.checkpoints.replace_records() {
            self.checkpoints.changed();
            self.collect_outputs();
            return Ok(());
        }
        if self.options.reports_reads
            && let Input::DiskCompletion {
                device,
                request,
                data,
                ..
            } = input
            && !data.is_empty()
        {
            self.steps.push(Step::Read(DiskRead {
                device: *device,
                request: *request,
                data: data.clone(),
            }));
        }
        let count = self.guest.instruction_count();
        let encoding = self.guest.encoding_of(input, self.encoding);
        let body = RecordBody::Input(encode_input(input, encoding));
        self.steps.push(Step::Record(Record { count, body }));
        // What the machine did because of it comes after it.
        self.collect_outputs();
        Ok(())
    }

    fn collect_outputs(&mut self) {
        let mut outputs = self.guest.outputs();
        let count = self.guest.instruction_count();
        for output in &outputs {
            match output {
                Output::Reboot => self.ends.live(LiveReport::Rebooted { count }),
                Output::Trouble(trouble) => self.ends.live(LiveReport::Trouble {
                    count,
                    trouble: trouble.clone(),
                }),
                _ => {}
            }
        }
        outputs.retain(|output| visible_units(output) > 0 || matches!(output, Output::Disk(_)));
        let is_waited_for =
            self.guest.take_asked_flush() && self.flushes_up_to != InstructionCount::LAST;
        if is_waited_for || !outputs.is_empty() {
            self.along_at_ns = monotonic_ns();
            self.urgent_since_ns.get_or_insert_with(monotonic_ns);
            self.output_waits.add(outputs.len(), self.along_at_ns);
            self.outputs.append(&mut outputs);
        }
    }

    /// A flush that waits for the backup's disk waits for the backup to come to where the guest asked for
    /// it, and it goes no further than the last record. So there is one at that place, and more while a
    /// guest that computes waits: it would be as far behind the next time.
    fn take_backup_along(&mut self, now_ns: u64) {
        let is_waited_for = self.flushes_up_to != InstructionCount::LAST
            && (self.guest.has_open_flushes() || !self.ended_flushes.is_empty());
        if is_waited_for && now_ns.saturating_sub(self.along_at_ns) >= ALONG_NS {
            self.along_at_ns = now_ns;
            self.urgent_since_ns.get_or_insert(now_ns);
        }
    }

    fn after_running(&mut self, began_ns: u64) -> Result<(), GuestError> {
        let host_ns = self.host_ns();
        if let Some(record) = self.steering.after_running(self.guest_now(), host_ns) {
            self.inject(&Input::Clock(record))?;
        }
        let now_ns = monotonic_ns();
        self.digest_when_due(now_ns);
        self.take_backup_along(now_ns);
        self.flush(Flush::Passing);
        let ran_ns = now_ns.saturating_sub(began_ns);
        let copied_ns = self.copy_pages(|copying, machine| copying.after_running(machine, ran_ns));
        self.checkpoint_after_running(ran_ns);
        self.throttle(ran_ns, copied_ns);
        Ok(())
    }

    /// Sleeps as the run share wants after having run for `ran_ns`; what copying took is no less of a
    /// rest.
    fn throttle(&mut self, ran_ns: u64, copied_ns: u64) {
        let share = self.snapshots.share();
        let share = share.min(self.run_share);
        if share >= FULL_SPEED {
            self.sleep_owed_ns = 0;
            return;
        }
        let share = u64::from(share.max(LEAST_SHARE));
        self.sleep_owed_ns += ran_ns * (u64::from(FULL_SPEED) - share) / share;
        self.sleep_owed_ns = self.sleep_owed_ns.saturating_sub(copied_ns);
        if self.sleep_owed_ns >= LEAST_SLEEP_NS {
            self.flush(Flush::Pausing);
            let sleep_ns = self.sleep_owed_ns.min(LONGEST_SLEEP_NS);
            environment::thread::sleep(Duration::from_nanos(sleep_ns));
            self.sleep_owed_ns -= sleep_ns;
        }
    }

    fn digest_when_due(&mut self, now_ns: u64) {
        let count = self.guest.instruction_count();
        let LiveOptions {
            digest_interval_ns: nanoseconds,
            digest_interval_instructions: instructions,
            ..
        } = self.options;
        if nanoseconds > 0 && now_ns >= self.digest_at_ns
            || instructions > 0 && count >= self.digest_at_count
        {
            self.digest();
        }
    }

    fn digest(&mut self) {
        let count = self.guest.instruction_count();
        let LiveOptions {
            digest_interval_ns: nanoseconds,
            digest_interval_instructions: instructions,
            flushes_wait,
            ..
        } = self.options;
        if (nanoseconds, instructions, flushes_wait) == (0, 0, false)
            || self.checkpoints.replace_records()
        {
            // Checkpoints have theirs.
            return;
        }
        self.digest_at_ns = monotonic_ns().saturating_add(self.options.digest_interval_ns);
        self.digest_at_count = count.plus(self.options.digest_interval_instructions);
        let digest = self.guest.machine.digest();
        self.steps.push(Step::Record(Record {
            count,
            body: RecordBody::Digest(digest),
        }));
    }

    /// All harts wait: sleep until the guest's next timer or the next input, then move time.
    fn wait(&mut self, wake_at_ns: Option<u64>) -> Result<Turn, GuestError> {
        let before = self.guest_now();
        loop {
            let left_ns = wake_at_ns.map(|wake_ns| self.scale.wait_ns(wake_ns, monotonic_ns()));
            if left_ns == Some(0) {
                return self.end_wait(before, wake_at_ns);
            }
            match self.await_command(left_ns) {
                Ok(command) if self.is_for_the_guest(&command) => {
                    // Time moves first, so that the guest sees the input at its own time.
                    let _ = self.end_wait(before, None)?;
                    return self.command(command);
                }
                Ok(Command::Look) => {
                    if self.guest.has_completions() {
                        return self.end_wait(before, None);
                    }
                    self.begin_snapshot();
                }
                Ok(command) => {
                    if self.command(command)?.is_break() {
                        return Ok(ControlFlow::Break(None));
                    }
                    self.checkpoint_when_due();
                    self.flush(Flush::Pausing);
                    if self.was_held_up() {
                        return self.end_wait(before, None);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    // One without a timer is compared as well.
                    self.digest_when_due(monotonic_ns());
                    self.checkpoint_when_due();
                    self.flush(Flush::Pausing);
                    if self.was_held_up() {
                        return self.end_wait(before, None);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(ControlFlow::Break(None)),
            }
        }
    }

    fn is_for_the_guest(&self, command: &Command) -> bool {
        match command {
            Command::Live(LiveCommand::Inputs(_) | LiveCommand::Press { .. }) => true,
            Command::Live(LiveCommand::CompleteFlushes { up_to }) => self.would_complete(*up_to),
            _ => false,
        }
    }

    /// The next command, waited for until the next digest is due, for `left_ns` at most. While a
    /// snapshot is under way nothing is waited for.
    fn await_command(&mut self, left_ns: Option<u64>) -> Result<Command, RecvTimeoutError> {
        if self.copies_while_waiting() || self.checkpoint_while_waiting() {
            return self.ends.commands.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            });
        }
        let until_digest_ns = (self.options.digest_interval_ns > 0
            && !self.checkpoints.replace_records())
        .then(|| self.digest_at_ns.saturating_sub(monotonic_ns()));
        let until_checkpoint_ns = self.until_checkpoint_ns();
        let waits = [left_ns, until_digest_ns, until_checkpoint_ns];
        match waits.into_iter().flatten().min() {
            Some(wait_ns) => {
                let wait = Duration::from_nanos(wait_ns);
                self.ends.commands.recv_timeout(wait)
            }
            None => {
                let received = self.ends.commands.recv();
                received.map_err(|mpsc::RecvError| RecvTimeoutError::Disconnected)
            }
        }
    }

    /// Somebody paused the machine: neither it nor its time goes on until it is resumed. It is
    /// compared, and copied, as one that runs.
    fn stand_paused(&mut self) -> Result<Turn, GuestError> {
        while self.guest.machine.is_paused() {
            if let stopped @ ControlFlow::Break(_) = self.internal_inputs()? {
                return Ok(stopped);
            }
            self.begin_snapshot();
            self.digest_when_due(monotonic_ns());
            self.checkpoint_when_due();
            self.flush(Flush::Pausing);
            match self.await_command(None) {
                Ok(command) => {
                    if let stopped @ ControlFlow::Break(_) = self.command(command)? {
                        return Ok(stopped);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(ControlFlow::Break(None)),
            }
        }
        let guest_ns = self.guest.machine.guest_time_ns();
        self.scale = self.scale.stood_still(monotonic_ns(), guest_ns);
        self.steering.resume();
        Ok(ControlFlow::Continue(()))
    }

    fn end_wait(&mut self, before: GuestNow, timer_ns: Option<u64>) -> Result<Turn, GuestError> {
        let record = self
            .steering
            .after_waiting(before, self.host_ns(), timer_ns);
        self.inject(&Input::Clock(record))?;
        Ok(ControlFlow::Continue(()))
    }

    /// Reports what happened, if anybody should know now.
    fn flush(&mut self, flush: Flush) {
        let count = self.guest.instruction_count();
        self.ends.publish(&*self.guest.machine);
        if self.checkpoints.are_made() {
            if flush == Flush::Whole {
                self.checkpoint();
            }
            return;
        }
        let now_ns = monotonic_ns();
        let since_flush_ns = now_ns.saturating_sub(self.flushed_at_ns);
        let since_told_ns = now_ns.saturating_sub(self.told_at_ns);
        let progress = count != self.told_count && since_told_ns >= PROGRESS_INTERVAL_NS;
        let urgent = self.urgent_since_ns.is_some_and(|since_ns| {
            flush != Flush::Passing || now_ns.saturating_sub(since_ns) >= COALESCING_NS
        });
        let batch_is_due = flush == Flush::Pausing || since_flush_ns >= BATCH_NS;
        let quiet = !self.steps.is_empty() && self.urgent_since_ns.is_none() && batch_is_due;
        if !(urgent || progress || quiet || flush == Flush::Whole) {
            return;
        }
        self.flushed_at_ns = now_ns;
        let mut steps = std::mem::take(&mut self.steps);
        let written = self.guest.take_shared_digest();
        if written != 0 {
            // Before its marker: it is held when that is.
            let body = RecordBody::Written(written);
            steps.push(Step::Record(Record { count, body }));
        }
        if self.urgent_since_ns.take().is_some() {
            // Everything that the machine did up to here was collected; without outputs it is how far
            // somebody waits for the backup to come.
            steps.push(Step::Outputs(VisibleOutputs {
                count,
                visible: self.guest.machine.visible_outputs(),
                outputs: std::mem::take(&mut self.outputs),
                waited: Duration::ZERO,
            }));
        }
        let report = LiveReport::Steps { steps, count };
        if urgent || progress || flush == Flush::Whole {
            self.told_at_ns = now_ns;
            self.told_count = count;
            self.ends.live(report);
        } else {
            self.ends.live_quietly(report);
        }
    }
}

/// How much an output counts in the machine's running number of visible outputs.
pub(super) fn visible_units(output: &Output) -> u64 {
    match output {
        Output::NetworkFrame { .. } => 1,
        Output::ConsoleBytes { bytes, .. } => bytes.len() as u64,
        Output::Disk(_)
        | Output::EntropyRequest { .. }
        | Output::Finish(_)
        | Output::Reboot
        | Output::Trouble(_) => 0,
    }
}
