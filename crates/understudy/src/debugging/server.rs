//! A timeline as gdb sees it: one process, a thread for each hart, no write to anything.
//!
//! gdb's remote serial protocol is `gdbstub`'s; what its commands mean on a recording is here.

mod described;
mod target;

use super::timeline::{Found, Interrupted, Timeline, TimelineError};
use crate::replaying::moment::{Distance, Moment};
use crate::replaying::position;
use gdbstub::common::Tid;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use gdbstub::target::TargetError;
use gdbstub::target::ext::base::reverse_exec::ReplayLogPosition;
use gdbstub::target::ext::breakpoints::WatchKind;
use machine::debugging::{Access, HartView, Trap, Watchpoint};
use replica::vcpu::times_of;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use target::Loop;

/// Instructions of other harts that a step of one waits for, at most.
const LONGEST_WAIT: u64 = 2_000_000;

/// What the machine is to do when gdb has it run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resume {
    Continue,
    Step(usize),
    ReverseContinue,
    ReverseStep(usize),
}

/// The target of one debugger after the other.
pub struct Debugged {
    timeline: Timeline,
    breakpoints: BTreeSet<u64>,
    watchpoints: BTreeSet<Watchpoint>,
    /// The machine does not know them yet.
    traps_changed: bool,
    resume: Resume,
    description: String,
}

type StopReason = MultiThreadStopReason<u64>;

impl Debugged {
    /// On this line.
    ///
    /// # Errors
    /// Machines of this architecture cannot be looked into.
    pub fn new(mut timeline: Timeline) -> Result<Debugged, TimelineError> {
        let description = timeline.debuggable()?.target_description();
        Ok(Debugged {
            timeline,
            breakpoints: BTreeSet::new(),
            watchpoints: BTreeSet::new(),
            traps_changed: false,
            resume: Resume::Continue,
            description,
        })
    }

    /// Serves one debugger, until it goes. False if it wants everything to end.
    ///
    /// # Errors
    /// A sentence: the connection broke, or the replay diverges.
    pub fn serve<C>(&mut self, connection: C) -> Result<bool, String>
    where
        C: ConnectionExt<Error = std::io::Error>,
    {
        self.breakpoints.clear();
        self.watchpoints.clear();
        self.traps_changed = true;
        let stub = GdbStub::new(connection);
        match stub.run_blocking::<Loop<C>>(self) {
            Ok(DisconnectReason::Kill) => Ok(false),
            Ok(_) => Ok(true),
            Err(error) if error.is_target_error() => Err(error
                .into_target_error()
                .map_or_else(|| "the target failed".to_owned(), |error| error.to_string())),
            Err(error) => Err(error.to_string()),
        }
    }

    fn view(&mut self, tid: Tid) -> Result<HartView, TargetError<TimelineError>> {
        let harts = self
            .timeline
            .debuggable()
            .map_err(TargetError::Fatal)?
            .harts();
        harts
            .into_iter()
            .nth(tid.get() - 1)
            .ok_or(TargetError::NonFatal)
    }

    fn set_traps(&mut self) -> Result<(), TimelineError> {
        if std::mem::take(&mut self.traps_changed) {
            self.timeline
                .set_traps(self.breakpoints.clone(), self.watchpoints.clone())?;
        }
        Ok(())
    }

    fn run(
        &mut self,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<StopReason>, TimelineError> {
        self.set_traps()?;
        let found = match self.resume {
            Resume::Continue => self.timeline.go_on(interrupted)?,
            Resume::ReverseContinue => self.timeline.go_back(interrupted)?,
            Resume::Step(hart) => return self.step(hart, interrupted),
            Resume::ReverseStep(hart) => self.step_back(hart, interrupted)?,
        };
        let found = match (found, self.resume) {
            (Found::Trap(Trap::Watchpoint { .. }), Resume::ReverseContinue) => {
                self.as_gdb_expects(found, self.timeline.position() + 1)?
            }
            _ => self.as_gdb_expects(found, self.timeline.position().saturating_sub(1))?,
        };
        Ok(reason(found))
    }

    /// At a watchpoint, goes to the other side of the access, `position`, if gdb crosses it by itself.
    fn as_gdb_expects(&mut self, found: Found, position: u64) -> Result<Found, TimelineError> {
        if matches!(found, Found::Trap(Trap::Watchpoint { .. }))
            && self.timeline.debuggable()?.gdb_steps_over_watchpoints()
        {
            self.timeline.go_to(position, &mut || false)?;
        }
        Ok(found)
    }

    /// One instruction of this hart, and what others execute before it.
    fn step(
        &mut self,
        hart: usize,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Option<StopReason>, TimelineError> {
        let begin = self.timeline.position();
        loop {
            let next = self.timeline.debuggable()?.next_hart();
            let is_other = next.is_some_and(|next| next != hart);
            if is_other && self.timeline.position() > begin && self.stands_at_breakpoint(next)? {
                return Ok(next.map(|next| StopReason::SwBreak(thread(next))));
            }
            match self.timeline.step_watching(interrupted)? {
                Found::Position if is_other && self.timeline.position() < begin + LONGEST_WAIT => {}
                found => {
                    let before = self.timeline.position().saturating_sub(1);
                    return self.as_gdb_expects(found, before).map(reason);
                }
            }
        }
    }

    fn stands_at_breakpoint(&mut self, next: Option<usize>) -> Result<bool, TimelineError> {
        if self.breakpoints.is_empty() {
            return Ok(false);
        }
        let harts = self.timeline.debuggable()?.harts();
        let hart = next.and_then(|next| harts.get(next));
        Ok(hart.is_some_and(|hart| self.breakpoints.contains(&hart.program_counter)))
    }

    /// Back before the last instruction that this hart executed; before the machine's last one if that is
    /// too long ago.
    fn step_back(
        &mut self,
        hart: usize,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Found, TimelineError> {
        let from = self.timeline.position();
        if from == self.timeline.begin() {
            return Ok(Found::Begin);
        }
        if self.timeline.machine().board().harts == 1 {
            return self.timeline.go_to(from - 1, interrupted);
        }
        for distance in [1, 1000, LONGEST_WAIT] {
            let begin = from.saturating_sub(distance).max(self.timeline.begin());
            self.timeline.go_to(begin, interrupted)?;
            let mut last = None;
            while self.timeline.position() < from {
                if self.timeline.debuggable()?.next_hart() == Some(hart) {
                    last = Some(self.timeline.position());
                }
                let next = self.timeline.position() + 1;
                if self.timeline.go_to(next, interrupted)? == Found::Interrupted {
                    return Ok(Found::Interrupted);
                }
            }
            if let Some(position) = last {
                return self.timeline.go_to(position, &mut || false);
            }
        }
        self.timeline.go_to(from - 1, interrupted)
    }

    /// Goes to a moment, wherever it is.
    ///
    /// # Errors
    /// [`TimelineError`]
    pub fn go_to(&mut self, moment: Moment, going: Interrupted) -> Result<Found, TimelineError> {
        let timeline = &mut self.timeline;
        match moment {
            Moment::Instruction(count) if count > timeline.end() => return Ok(Found::End),
            Moment::Instruction(count) => return timeline.go_to(count, going),
            Moment::Record(number) if number <= timeline.before() => {
                return timeline.go_to(timeline.begin(), going);
            }
            Moment::Record(number) => {
                return match timeline.record_position(number) {
                    None => Ok(Found::End),
                    Some(position) => timeline.go_to(position, going),
                };
            }
            Moment::Time(time_ns) if timeline.machine().guest_time_ns() > time_ns => {
                timeline.go_to(timeline.begin(), going)?;
            }
            Moment::Calendar(unix_ns) if times_of(timeline.machine()).unix_ns > unix_ns => {
                timeline.go_to(timeline.begin(), going)?;
            }
            Moment::Time(_) | Moment::Calendar(_) => {}
        }
        loop {
            let distance = moment.distance(timeline.machine(), timeline.replayed());
            let Distance::Instructions(instructions) = distance else {
                return Ok(Found::Position);
            };
            if timeline.position() >= timeline.end() {
                return Ok(Found::End);
            }
            let target = timeline.position().saturating_add(instructions);
            timeline.go_to(target.min(timeline.next_record_position()), going)?;
        }
    }

    /// Where it is, for people.
    pub fn describe_position(&self) -> String {
        position(self.timeline.machine(), self.timeline.replayed())
    }

    /// `going` is called now and then while that takes its time.
    fn monitor(&mut self, command: &str, going: Interrupted) -> Result<Vec<String>, TimelineError> {
        let mut words = command.split_whitespace();
        let mut said = Vec::new();
        match (words.next(), words.next()) {
            (Some("goto"), Some(_)) if words.next().is_some() => {
                said.push(format!(
                    "{command:?} names more than a moment: nothing moved"
                ));
            }
            (Some("where"), None) => said.push(self.describe_position()),
            (Some("digest"), None) => said.push(format!("{:032x}", self.timeline.digest())),
            (Some("goto"), Some(moment)) => {
                match moment.parse::<Moment>() {
                    Ok(moment) => {
                        if self.go_to(moment, going)? == Found::End {
                            said.push(format!("{moment} lies beyond the end of the recording"));
                        }
                        said.push(self.describe_position());
                        said.push("say `maintenance flush register-cache`: gdb does not know that it moved".into());
                    }
                    Err(wrong) => said.push(wrong),
                }
            }
            _ => said.push(
                "monitor where | digest | goto MOMENT (12.5s, record:1234, instruction:5000000000)"
                    .into(),
            ),
        }
        Ok(said)
    }
}

fn thread(hart: usize) -> Tid {
    NonZeroUsize::MIN.saturating_add(hart)
}

/// What gdb is told; nothing after an interruption, which it knows of.
fn reason(found: Found) -> Option<StopReason> {
    let at_end = |pos| StopReason::ReplayLog { tid: None, pos };
    Some(match found {
        Found::Position => StopReason::DoneStep,
        Found::End => at_end(ReplayLogPosition::End),
        Found::Begin => at_end(ReplayLogPosition::Begin),
        Found::Trap(Trap::Breakpoint { hart }) => StopReason::SwBreak(thread(hart)),
        Found::Trap(Trap::Watchpoint {
            hart,
            address,
            access,
        }) => StopReason::Watch {
            tid: thread(hart),
            kind: match access {
                Access::Read => WatchKind::Read,
                Access::Write => WatchKind::Write,
                Access::Any => WatchKind::ReadWrite,
            },
            addr: address,
        },
        Found::Interrupted => return None,
    })
}
