//! What `gdbstub` asks of a target, answered by [`Debugged`].

use super::described::{Described, RawRegisters};
use super::{Debugged, Resume, StopReason, thread};
use crate::debugging::timeline::TimelineError;
use gdbstub::common::{Signal, Tid};
use gdbstub::conn::{Connection, ConnectionExt};
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::reverse_exec::{
    ReverseCont, ReverseContOps, ReverseStep, ReverseStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub::{output, outputln};
use machine::debugging::{Access, Watchpoint};
use machine::memory::PAGE_SIZE;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// `EFAULT`: nothing is at this address.
const NOTHING_THERE: u8 = 14;
/// `EROFS`: a recording cannot be changed.
const READ_ONLY: u8 = 30;
/// Between two looks at whether gdb sent something while the machine runs.
const LOOK: Duration = Duration::from_millis(20);

/// gdb takes a target for dead that says nothing for two seconds (its `remotetimeout`).
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Runs the machine while it looks whether gdb says something.
pub(super) struct Loop<C>(PhantomData<C>);

impl<C> BlockingEventLoop for Loop<C>
where
    C: ConnectionExt<Error = std::io::Error>,
{
    type Target = Debugged;
    type Connection = C;
    type StopReason = StopReason;

    fn wait_for_stop_reason(
        target: &mut Debugged,
        connection: &mut C,
    ) -> Result<Event<StopReason>, WaitForStopReasonError<TimelineError, <C as Connection>::Error>>
    {
        let mut looked_at = Instant::now();
        let mut broken = None;
        let mut interrupted = || {
            if looked_at.elapsed() < LOOK {
                return false;
            }
            looked_at = Instant::now();
            match connection.peek() {
                Ok(byte) => byte.is_some(),
                Err(error) => {
                    broken = Some(error);
                    true
                }
            }
        };
        let stopped = target
            .run(&mut interrupted)
            .map_err(WaitForStopReasonError::Target)?;
        if let Some(error) = broken {
            return Err(WaitForStopReasonError::Connection(error));
        }
        match stopped {
            Some(reason) => Ok(Event::TargetStopped(reason)),
            None => connection
                .read()
                .map(Event::IncomingData)
                .map_err(WaitForStopReasonError::Connection),
        }
    }

    fn on_interrupt(_: &mut Debugged) -> Result<Option<StopReason>, TimelineError> {
        Ok(Some(StopReason::Signal(Signal::SIGINT)))
    }
}

impl Target for Debugged {
    type Arch = Described;
    type Error = TimelineError;

    fn base_ops(&mut self) -> BaseOps<'_, Described, TimelineError> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl TargetDescriptionXmlOverride for Debugged {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buffer: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let rest = self
            .description
            .as_bytes()
            .get(offset as usize..)
            .unwrap_or_default();
        let copied = rest.len().min(length).min(buffer.len());
        buffer[..copied].copy_from_slice(&rest[..copied]);
        Ok(copied)
    }
}

impl MonitorCmd for Debugged {
    fn handle_monitor_cmd(
        &mut self,
        command: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), TimelineError> {
        let (mut said_at, mut has_said) = (Instant::now(), false);
        let mut going = || {
            if said_at.elapsed() >= SIGN_OF_LIFE {
                (said_at, has_said) = (Instant::now(), true);
                output!(out, ".");
                out.flush();
            }
            false
        };
        let lines = self.monitor(&String::from_utf8_lossy(command), &mut going)?;
        if has_said {
            outputln!(out);
        }
        for line in lines {
            outputln!(out, "{line}");
        }
        Ok(())
    }
}

impl MultiThreadBase for Debugged {
    fn read_registers(&mut self, registers: &mut RawRegisters, tid: Tid) -> TargetResult<(), Self> {
        let view = self.view(tid)?;
        *registers = RawRegisters::new(view.program_counter, view.registers);
        Ok(())
    }

    fn write_registers(&mut self, _: &RawRegisters, _: Tid) -> TargetResult<(), Self> {
        Err(TargetError::Errno(READ_ONLY))
    }

    fn read_addrs(&mut self, address: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let space = self.view(tid)?.space;
        let mut done = 0;
        while done < data.len() {
            let at = address.wrapping_add(done as u64);
            let length = ((PAGE_SIZE - at % PAGE_SIZE) as usize).min(data.len() - done);
            let debuggable = self.timeline.debuggable().map_err(TargetError::Fatal)?;
            let physical = debuggable.translate(space, at);
            let piece = &mut data[done..done + length];
            if physical.is_none_or(|physical| debuggable.read_physical(physical, piece).is_err()) {
                break;
            }
            done += length;
        }
        if done == 0 && !data.is_empty() {
            return Err(TargetError::Errno(NOTHING_THERE));
        }
        Ok(done)
    }

    fn write_addrs(&mut self, _: u64, _: &[u8], _: Tid) -> TargetResult<(), Self> {
        Err(TargetError::Errno(READ_ONLY))
    }

    fn list_active_threads(
        &mut self,
        thread_is_active: &mut dyn FnMut(Tid),
    ) -> Result<(), TimelineError> {
        let harts = self.timeline.machine().board().harts;
        (0..harts as usize).for_each(|hart| thread_is_active(thread(hart)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for Debugged {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, TimelineError> {
        let text = format!("hart {}", tid.get() - 1);
        let copied = text.len().min(buffer.len());
        buffer[..copied].copy_from_slice(&text.as_bytes()[..copied]);
        Ok(copied)
    }
}

impl MultiThreadResume for Debugged {
    fn resume(&mut self) -> Result<(), TimelineError> {
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), TimelineError> {
        self.resume = Resume::Continue;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        _: Tid,
        _: Option<Signal>,
    ) -> Result<(), TimelineError> {
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }

    fn support_reverse_step(&mut self) -> Option<ReverseStepOps<'_, Tid, Self>> {
        Some(self)
    }

    fn support_reverse_cont(&mut self) -> Option<ReverseContOps<'_, Tid, Self>> {
        Some(self)
    }
}

impl MultiThreadSchedulerLocking for Debugged {
    /// A recording has one order of instructions: the other harts have their turns all the same.
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), TimelineError> {
        Ok(())
    }
}

impl MultiThreadSingleStep for Debugged {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), TimelineError> {
        self.resume = Resume::Step(tid.get() - 1);
        Ok(())
    }
}

impl ReverseCont<Tid> for Debugged {
    fn reverse_cont(&mut self) -> Result<(), TimelineError> {
        self.resume = Resume::ReverseContinue;
        Ok(())
    }
}

impl ReverseStep<Tid> for Debugged {
    fn reverse_step(&mut self, tid: Tid) -> Result<(), TimelineError> {
        self.resume = Resume::ReverseStep(tid.get() - 1);
        Ok(())
    }
}

impl Breakpoints for Debugged {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debugged {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.traps_changed |= self.breakpoints.insert(address);
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        let was_there = self.breakpoints.remove(&address);
        self.traps_changed |= was_there;
        Ok(was_there)
    }
}

impl HwBreakpoint for Debugged {
    fn add_hw_breakpoint(&mut self, address: u64, kind: usize) -> TargetResult<bool, Self> {
        self.add_sw_breakpoint(address, kind)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, kind: usize) -> TargetResult<bool, Self> {
        self.remove_sw_breakpoint(address, kind)
    }
}

fn watchpoint(address: u64, length: u64, kind: WatchKind) -> Watchpoint {
    Watchpoint {
        address,
        length,
        access: match kind {
            WatchKind::Write => Access::Write,
            WatchKind::Read => Access::Read,
            WatchKind::ReadWrite => Access::Any,
        },
    }
}

impl HwWatchpoint for Debugged {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        if length == 0 {
            return Ok(false);
        }
        self.traps_changed |= self.watchpoints.insert(watchpoint(address, length, kind));
        Ok(true)
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let was_there = self.watchpoints.remove(&watchpoint(address, length, kind));
        self.traps_changed |= was_there;
        Ok(was_there)
    }
}
