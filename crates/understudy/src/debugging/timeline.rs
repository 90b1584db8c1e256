//! A recording as a line on which a machine can be set to any instruction count, forward and back.
//!
//! Going back is setting the machine back to a checkpoint and executing again. A checkpoint holds what the
//! machine is without its RAM, and the pages that were written since the checkpoint before it; setting back
//! writes only the pages that differ, so compiled code is still there.
//!
//! A position is an instruction count, with every record of that count in effect.

mod pages;

use machine::debugging::{Armed, Debuggable, Trap, TrapStop, Traps, Watchpoint};
use machine::input::{InputError, InstructionCount};
use machine::snapshot::{SnapshotError, SnapshotHead};
use machine::{InjectError, Machine, Stop};
use pages::Pages;
use replica::vcpu::{GuestError, decode_input};
use replication::record::{Record, RecordBody, RecordNumber};
use std::collections::BTreeSet;
use thiserror::Error;

/// Instructions between two checkpoints, at first.
const CHECKPOINT_INTERVAL: u64 = 50_000_000;
/// How far before a position that was gone back to there is a checkpoint: whoever steps back goes on doing so.
const NEAR: [u64; 2] = [1_000_000, 20_000];
/// Bytes of pages that checkpoints may hold, besides those of the beginning, before some are given up.
const PAGE_BUDGET: usize = 1 << 30;
/// Instructions between two looks at whether somebody wants to interrupt.
const LOOK: u64 = 5_000_000;

/// Why the machine cannot be brought to a position.
#[derive(Debug, Error)]
pub enum TimelineError {
    /// The architecture has nothing for debuggers.
    #[error("machines of this architecture cannot be looked into yet")]
    NotDebuggable,
    /// It is another machine than the recorded one.
    #[error("the replay diverges at record {record}, instruction {count}: {what}")]
    Diverged {
        /// Number of the record.
        record: RecordNumber,
        /// Where the machine is.
        count: InstructionCount,
        /// What differs.
        what: String,
    },
    /// The records are a journal's, and do not hold what a disk read.
    #[error("record {record}, instruction {count}: {source}")]
    NotRecorded {
        /// Number of the record.
        record: RecordNumber,
        /// Where the machine is.
        count: InstructionCount,
        /// What is not there.
        source: GuestError,
    },
    /// A checkpoint cannot be used.
    #[error("the machine cannot be set back: {0}")]
    SetBack(#[from] SnapshotError),
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The position that was asked for.
    Position,
    /// A trap, before it.
    Trap(Trap),
    /// The end of the recording.
    End,
    /// The beginning of the recording.
    Begin,
    /// Somebody interrupted.
    Interrupted,
}

/// Asked between pieces of work whether to stop.
pub type Interrupted<'a> = &'a mut dyn FnMut() -> bool;

struct Checkpoint {
    count: InstructionCount,
    /// Index of the record that comes next.
    next_record: usize,
    head: SnapshotHead,
    /// Pages that were written since the checkpoint before, or more.
    written: Vec<u32>,
}

/// A machine on the line of its recording.
pub struct Timeline {
    machine: Box<dyn Machine>,
    records: Vec<Record>,
    /// Records that precede the first.
    before: RecordNumber,
    next_record: usize,
    end: InstructionCount,
    /// In the order of their counts; the first is the beginning.
    checkpoints: Vec<Checkpoint>,
    pages: Pages,
    interval: u64,
    page_budget: usize,
    has_traps: bool,
}

impl Timeline {
    /// The line of `machine`, which stands at its beginning, and of these records, up to instruction count
    /// `end`. So many records precede the first.
    ///
    /// # Errors
    /// The machine cannot be looked into, or does not take the first records.
    pub fn new(
        machine: Box<dyn Machine>,
        before: RecordNumber,
        records: Vec<Record>,
        end: InstructionCount,
    ) -> Result<Timeline, TimelineError> {
        let mut timeline = Timeline {
            machine,
            records,
            before,
            next_record: 0,
            end,
            checkpoints: Vec::new(),
            pages: Pages::default(),
            interval: CHECKPOINT_INTERVAL,
            page_budget: usize::MAX,
            has_traps: false,
        };
        timeline.debuggable()?;
        timeline.apply_records()?;
        timeline.add_checkpoint()?;
        timeline.limit_checkpoints(CHECKPOINT_INTERVAL, PAGE_BUDGET);
        Ok(timeline)
    }

    /// The machine, to look at it.
    pub fn machine(&self) -> &dyn Machine {
        &*self.machine
    }

    /// The machine, to look into it.
    ///
    /// # Errors
    /// There is nothing for that.
    pub fn debuggable(&mut self) -> Result<&mut dyn Debuggable, TimelineError> {
        self.machine
            .debuggable()
            .ok_or(TimelineError::NotDebuggable)
    }

    /// The digest of the machine as it is here.
    pub fn digest(&mut self) -> u128 {
        self.machine.digest()
    }

    /// The position.
    pub fn position(&self) -> InstructionCount {
        self.machine.instruction_count()
    }

    /// Number of the last record in effect.
    pub fn replayed(&self) -> RecordNumber {
        self.before.plus(self.next_record as u64)
    }

    /// Number of the last record before the beginning.
    pub fn before(&self) -> RecordNumber {
        self.before
    }

    /// The first position.
    pub fn begin(&self) -> InstructionCount {
        self.checkpoints[0].count
    }

    /// The last position.
    pub fn end(&self) -> InstructionCount {
        self.end
    }

    /// Position at which this record takes effect, if there is such a record.
    pub fn record_position(&self, number: RecordNumber) -> Option<InstructionCount> {
        let first = self.before.next();
        let index = (number >= first).then(|| number.since(first))?;
        let index = usize::try_from(index).ok()?;
        self.records.get(index).map(|record| record.count.0)
    }

    /// Position of the next record, or of the end.
    pub fn next_record_position(&self) -> InstructionCount {
        let next = self.records.get(self.next_record);
        next.map_or(self.end, |record| record.count.0)
    }

    /// Positions that can be gone back to without executing.
    pub fn checkpoints(&self) -> usize {
        self.checkpoints.len()
    }

    /// Has a checkpoint every so many instructions from here on, and gives some up when they hold so many
    /// bytes of pages more than they do now.
    pub fn limit_checkpoints(&mut self, interval: u64, page_bytes: usize) {
        self.interval = interval.max(1);
        self.page_budget = self.pages.bytes().saturating_add(page_bytes);
    }

    /// Sets all breakpoints and watchpoints.
    ///
    /// # Errors
    /// The machine cannot be looked into.
    pub fn set_traps(
        &mut self,
        breakpoints: BTreeSet<u64>,
        watchpoints: BTreeSet<Watchpoint>,
    ) -> Result<(), TimelineError> {
        self.has_traps = !(breakpoints.is_empty() && watchpoints.is_empty());
        self.debuggable()?
            .set_traps(Traps::new(breakpoints, watchpoints));
        Ok(())
    }

    /// Goes to a position of the recording.
    ///
    /// # Errors
    /// [`TimelineError`]
    pub fn go_to(
        &mut self,
        position: InstructionCount,
        interrupted: Interrupted,
    ) -> Result<Found, TimelineError> {
        let position = position.clamp(self.begin(), self.end);
        if position < self.position() {
            self.set_back_before(position + 1)?;
            for before in NEAR {
                let near = position.saturating_sub(before);
                if near > self.position() + before / 2 {
                    if self.advance(near, Armed::Nothing, interrupted)? == Found::Interrupted {
                        return Ok(Found::Interrupted);
                    }
                    self.add_checkpoint()?;
                }
            }
        } else {
            self.jump_ahead(position)?;
        }
        self.advance(position, Armed::Nothing, interrupted)
    }

    /// Runs on to the next trap, or to the end. One that it stands at does not count.
    ///
    /// # Errors
    /// [`TimelineError`]
    pub fn go_on(&mut self, interrupted: Interrupted) -> Result<Found, TimelineError> {
        if self.position() >= self.end {
            return Ok(Found::End);
        }
        if let Found::Trap(trap) = self.step_watching(interrupted)? {
            return Ok(Found::Trap(trap));
        }
        match self.advance(self.end, Armed::Everything, interrupted)? {
            Found::Position => Ok(Found::End),
            other => Ok(other),
        }
    }

    /// Executes one instruction of the machine, at a breakpoint or not. A watchpoint that it hits is told.
    ///
    /// # Errors
    /// [`TimelineError`]
    pub fn step_watching(&mut self, interrupted: Interrupted) -> Result<Found, TimelineError> {
        let next = self.position() + 1;
        if next > self.end {
            return Ok(Found::End);
        }
        self.advance(next, Armed::Watchpoints, interrupted)
    }

    /// Runs back to the trap before this position, or to the beginning: before the instruction at a
    /// breakpoint, and before one that accesses what is watched.
    ///
    /// # Errors
    /// [`TimelineError`]
    pub fn go_back(&mut self, interrupted: Interrupted) -> Result<Found, TimelineError> {
        let from = self.position();
        let mut before = from;
        while before > self.begin() {
            self.set_back_before(before)?;
            let segment = self.position();
            match self.last_trap_before(before, interrupted)? {
                Search::Found(position, trap) => {
                    self.go_to(position, &mut || false)?;
                    return Ok(Found::Trap(trap));
                }
                Search::Interrupted => {
                    self.go_to(from, &mut || false)?;
                    return Ok(Found::Interrupted);
                }
                Search::Nothing => before = segment,
            }
        }
        self.go_to(self.begin(), &mut || false)?;
        Ok(Found::Begin)
    }

    /// The last trap of the positions from here up to, and without, `before`.
    fn last_trap_before(
        &mut self,
        before: InstructionCount,
        interrupted: Interrupted,
    ) -> Result<Search, TimelineError> {
        let mut last = Search::Nothing;
        if !self.has_traps {
            return Ok(last);
        }
        loop {
            match self.advance(before, Armed::Everything, interrupted)? {
                Found::Trap(trap @ Trap::Breakpoint { .. }) => {
                    if self.position() >= before {
                        return Ok(last);
                    }
                    last = Search::Found(self.position(), trap);
                    // Past it; what the instruction accesses is looked at, too.
                    let next = self.position() + 1;
                    if let Found::Trap(trap) = self.step_watching(interrupted)?
                        && matches!(trap, Trap::Watchpoint { .. })
                    {
                        last = Search::Found(next - 1, trap);
                    }
                }
                Found::Trap(trap @ Trap::Watchpoint { .. }) => {
                    last = Search::Found(self.position() - 1, trap);
                }
                Found::Interrupted => return Ok(Search::Interrupted),
                _ => return Ok(last),
            }
        }
    }

    /// Runs on to `target`, with every record on the way.
    fn advance(
        &mut self,
        target: InstructionCount,
        armed: Armed,
        interrupted: Interrupted,
    ) -> Result<Found, TimelineError> {
        let armed = if self.has_traps {
            armed
        } else {
            Armed::Nothing
        };
        while self.position() < target {
            if interrupted() {
                return Ok(Found::Interrupted);
            }
            let until = self.next_stop(target);
            let (stop, trap) = self.run(until, armed)?;
            drop(self.machine.outputs());
            let is_there = self.position() == until;
            if is_there {
                self.apply_records()?;
                self.pass_checkpoint()?;
            }
            if let Some(trap) = trap {
                return Ok(Found::Trap(trap));
            }
            if !is_there && !matches!(stop, Stop::Reached | Stop::Output) {
                return Err(self.diverged(format!(
                    "the guest stops ({stop:?}) before instruction {until}"
                )));
            }
        }
        Ok(Found::Position)
    }

    fn run(
        &mut self,
        until: InstructionCount,
        armed: Armed,
    ) -> Result<(Stop, Option<Trap>), TimelineError> {
        if armed == Armed::Nothing {
            return Ok((self.machine.run(until), None));
        }
        Ok(match self.debuggable()?.run_to_trap(until, armed) {
            TrapStop::Stop(stop) => (stop, None),
            TrapStop::Trap(trap) => (Stop::Reached, Some(trap)),
        })
    }

    /// Where a run to `target` stops next, because there is something to do.
    fn next_stop(&self, target: InstructionCount) -> InstructionCount {
        let position = self.position();
        let record = self
            .records
            .get(self.next_record)
            .map(|record| record.count.0);
        let following = self.checkpoints.iter().map(|checkpoint| checkpoint.count);
        let checkpoint = following
            .rev()
            .take_while(|count| *count > position)
            .last()
            .unwrap_or_else(|| self.last_checkpoint() + self.interval);
        target
            .min(record.unwrap_or(u64::MAX))
            .min(checkpoint.max(position + 1))
            .min(position + LOOK)
    }

    fn last_checkpoint(&self) -> InstructionCount {
        self.checkpoints
            .last()
            .map_or(0, |checkpoint| checkpoint.count)
    }

    /// Lets every record of this position take effect.
    fn apply_records(&mut self) -> Result<(), TimelineError> {
        let position = self.position();
        while let Some(record) = self
            .records
            .get(self.next_record)
            .filter(|record| record.count.0 <= position)
        {
            let differs = match &record.body {
                RecordBody::Input(encoded) => match inject(&mut *self.machine, encoded) {
                    Ok(()) => None,
                    Err(Refusal::Differs(what)) => Some(what),
                    Err(Refusal::NotRecorded(source)) => {
                        return Err(TimelineError::NotRecorded {
                            record: self.replayed().next(),
                            count: position,
                            source,
                        });
                    }
                },
                RecordBody::Marker { visible_outputs } => {
                    let found = self.machine.visible_outputs();
                    (found != *visible_outputs).then(|| {
                        format!("{found} visible outputs, recorded were {visible_outputs}")
                    })
                }
                RecordBody::Digest(expected) => {
                    let found = self.machine.digest();
                    (found != *expected)
                        .then(|| format!("digest {found:032x}, recorded was {expected:032x}"))
                }
                // Nothing is written here to any disk, and no journal is kept of a machine with shared ones.
                RecordBody::Written(_) => None,
                RecordBody::Piece(_) | RecordBody::Checkpoint(_) => Some(
                    "a checkpoint: the machine's state was transferred here, not replayed".into(),
                ),
            };
            self.next_record += 1;
            if let Some(what) = differs {
                return Err(self.diverged(what));
            }
            drop(self.machine.outputs());
        }
        Ok(())
    }

    fn diverged(&self, what: String) -> TimelineError {
        TimelineError::Diverged {
            record: self.replayed(),
            count: self.position(),
            what,
        }
    }

    /// It stands somewhere: at a checkpoint, or where there should be one.
    fn pass_checkpoint(&mut self) -> Result<(), TimelineError> {
        let position = self.position();
        let found = self
            .checkpoints
            .binary_search_by_key(&position, |checkpoint| checkpoint.count);
        if found.is_ok() {
            // What was written up to here is known.
            self.debuggable()?.visit_written(&mut |_, _| {});
        } else if position >= self.last_checkpoint() + self.interval {
            self.add_checkpoint()?;
        }
        Ok(())
    }

    /// Remembers this position, if it is not remembered.
    fn add_checkpoint(&mut self) -> Result<(), TimelineError> {
        let count = self.position();
        let Err(index) = self
            .checkpoints
            .binary_search_by_key(&count, |checkpoint| checkpoint.count)
        else {
            return Ok(());
        };
        let next_record = self.next_record;
        let mut written = Vec::new();
        let debuggable = self
            .machine
            .debuggable()
            .ok_or(TimelineError::NotDebuggable)?;
        let pages = &mut self.pages;
        debuggable.visit_written(&mut |page, bytes| {
            pages.add(page as u32, count, bytes);
            written.push(page as u32);
        });
        let head = debuggable.save();
        self.checkpoints.insert(
            index,
            Checkpoint {
                count,
                next_record,
                head,
                written,
            },
        );
        // What was written since the last checkpoint is known to the machine: that one stays.
        if self.pages.bytes() > self.page_budget && count == self.last_checkpoint() {
            self.thin_out();
        }
        Ok(())
    }

    /// Gives up every second checkpoint but the first and the last ones, and has them come half as often.
    fn thin_out(&mut self) {
        const KEPT: usize = 4;
        let mut index = 1;
        while index + KEPT < self.checkpoints.len() {
            let given_up = self.checkpoints.remove(index);
            let next = &mut self.checkpoints[index];
            for page in given_up.written {
                self.pages.merge(page, given_up.count, next.count);
                next.written.push(page);
            }
            next.written.sort_unstable();
            next.written.dedup();
            index += 1;
        }
        self.interval = self.interval.saturating_mul(2);
    }

    /// The last checkpoint before `position`.
    fn checkpoint_before(&self, position: InstructionCount) -> usize {
        let after = self
            .checkpoints
            .partition_point(|checkpoint| checkpoint.count < position);
        after.saturating_sub(1)
    }

    /// Sets the machine back to the last checkpoint before `position`, which is not beyond where it is.
    fn set_back_before(&mut self, position: InstructionCount) -> Result<(), TimelineError> {
        let index = self.checkpoint_before(position);
        let passed = self.checkpoint_before(self.position() + 1);
        let between = self.checkpoints.get(index + 1..=passed).unwrap_or_default();
        let written = between.iter().flat_map(|checkpoint| &checkpoint.written);
        let mut differs: BTreeSet<u32> = written.copied().collect();
        self.set_to(index, &mut differs)
    }

    /// Goes ahead to the last checkpoint up to `position`, if that saves executing.
    fn jump_ahead(&mut self, position: InstructionCount) -> Result<(), TimelineError> {
        let index = self.checkpoint_before(position + 1);
        let passed = self.checkpoint_before(self.position() + 1);
        if index <= passed {
            return Ok(());
        }
        let between = &self.checkpoints[passed + 1..=index];
        let written = between.iter().flat_map(|checkpoint| &checkpoint.written);
        let mut differs: BTreeSet<u32> = written.copied().collect();
        self.set_to(index, &mut differs)
    }

    /// Sets the machine to a checkpoint. `differs`: pages that were written between that one and the last
    /// one that was passed; those written since then are known to the machine.
    fn set_to(&mut self, index: usize, differs: &mut BTreeSet<u32>) -> Result<(), TimelineError> {
        let Checkpoint {
            count,
            next_record,
            head,
            ..
        } = &self.checkpoints[index];
        let debuggable = self
            .machine
            .debuggable()
            .ok_or(TimelineError::NotDebuggable)?;
        debuggable.visit_written(&mut |page, _| {
            differs.insert(page as u32);
        });
        let pages = &self.pages;
        let mut restored = differs
            .iter()
            .map(|page| (*page as usize, pages.at(*page, *count)));
        debuggable.set_back(head, &mut restored)?;
        debuggable.visit_written(&mut |_, _| {});
        self.next_record = *next_record;
        assert_eq!(
            self.machine.instruction_count(),
            *count,
            "a checkpoint is set back to where it was"
        );
        Ok(())
    }
}

enum Search {
    Nothing,
    Found(InstructionCount, Trap),
    Interrupted,
}

/// Why a record is not taken.
enum Refusal {
    Differs(String),
    NotRecorded(GuestError),
}

fn inject(machine: &mut dyn Machine, encoded: &[u8]) -> Result<(), Refusal> {
    let input = decode_input(encoded).map_err(|error| Refusal::Differs(error.to_string()))?;
    machine.inject(&input).map_err(|error| match error {
        InjectError::Device(InputError::DiskDataLength {
            device,
            request,
            found: 0,
            ..
        }) => Refusal::NotRecorded(GuestError::ReadNotRecorded { device, request }),
        error => Refusal::Differs(format!("the machine refuses a recorded input: {error}")),
    })
}
