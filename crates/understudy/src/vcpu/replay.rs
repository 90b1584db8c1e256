//! The replaying mode: the machine does what the records say, and is checked against them.

use super::guest::{GuestError, ReplicaGuest};
use super::live::{LiveOptions, visible_units};
use super::{Command, Ends, ReplayStep, Report, Step};
use machine::machine::Stop;
use std::collections::VecDeque;

/// Instructions between two looks at the commands.
const QUANTUM: u64 = 200_000;

/// Why a replay cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// The machine does something else than the records say.
    Diverged(String),
    /// It is this host that failed.
    Host(String),
}

/// Replays until it is told to go live or to stop. Returns the machine that is to go live.
pub(super) fn run(mut guest: ReplicaGuest, ends: &Ends) -> Option<(ReplicaGuest, LiveOptions)> {
    let mut steps = VecDeque::new();
    let mut go_live = None;
    loop {
        // Wait only when there is nothing to do.
        let command = if steps.is_empty() { ends.commands.recv().ok() } else { ends.commands.try_recv().ok() };
        match command {
            Some(Command::Records(more)) => steps.extend(more),
            Some(Command::GoLive(options)) => go_live = Some(options),
            Some(Command::Stop) => return None,
            Some(Command::Input(_) | Command::Throttle(_) | Command::Snapshot | Command::Look) => {}
            None if steps.is_empty() => return None,
            None => {}
        }
        let before = guest.machine.instruction_count();
        if let Some(step) = steps.pop_front()
            && let Err(error) = advance(&mut guest, step, &mut steps)
        {
            report_error(&guest, error, ends);
            return None;
        }
        report_progress(&mut guest, before, ends);
        if steps.is_empty()
            && let Some(options) = go_live
        {
            ends.report(Report::Live { count: guest.machine.instruction_count() });
            return Some((guest, options));
        }
    }
}

/// Runs towards a step at most a quantum, and takes the step when it is reached; otherwise the
/// step is put back.
fn advance(
    guest: &mut ReplicaGuest,
    step: ReplayStep,
    steps: &mut VecDeque<ReplayStep>,
) -> Result<(), ReplayError> {
    let target = step.count();
    let now = guest.machine.instruction_count();
    if target > now.saturating_add(QUANTUM) {
        run_to(guest, now + QUANTUM)?;
        steps.push_front(step);
        return Ok(());
    }
    run_to(guest, target)?;
    take(guest, &step)
}

impl ReplayStep {
    /// Where it takes effect.
    pub fn count(&self) -> u64 {
        match self {
            ReplayStep::Input { count, .. }
            | ReplayStep::Digest { count, .. }
            | ReplayStep::Visible { count, .. } => *count,
        }
    }
}

/// Runs the machine to an instruction count. Outputs wait in `guest` until they are taken.
pub fn run_to(guest: &mut ReplicaGuest, target: u64) -> Result<(), ReplayError> {
    loop {
        let now = guest.machine.instruction_count();
        if now == target {
            return Ok(());
        }
        if now > target {
            return Err(ReplayError::Diverged(format!("a record is for {target}, the machine is past it")));
        }
        match guest.run(target) {
            Stop::Reached => {}
            Stop::Output => guest.hold_outputs(),
            Stop::Idle { .. } => {
                let now = guest.machine.instruction_count();
                if now < target {
                    return Err(ReplayError::Diverged(format!(
                        "all harts wait, but the recording went on to {target}"
                    )));
                }
            }
            Stop::Finished(_) => {
                let now = guest.machine.instruction_count();
                if now < target {
                    return Err(ReplayError::Diverged(format!(
                        "the guest ended the machine, but the recording went on to {target}"
                    )));
                }
            }
        }
    }
}

/// Takes a step at which the machine is.
pub fn take(guest: &mut ReplicaGuest, step: &ReplayStep) -> Result<(), ReplayError> {
    match step {
        ReplayStep::Input { encoded, .. } => {
            guest.hold_outputs();
            guest.inject_recorded(encoded).map_err(|error| match error {
                GuestError::OwnDisk(_) => ReplayError::Host(error.to_string()),
                GuestError::Refused(_) | GuestError::UnknownInput => ReplayError::Diverged(error.to_string()),
            })
        }
        ReplayStep::Digest { digest, .. } => {
            let own = guest.machine.digest();
            if own == *digest {
                Ok(())
            } else {
                Err(ReplayError::Diverged(format!("its digest is {own:032x}, the recorded one {digest:032x}")))
            }
        }
        ReplayStep::Visible { visible, .. } => {
            let own = guest.machine.visible_outputs();
            if own == *visible {
                Ok(())
            } else {
                Err(ReplayError::Diverged(format!("it made {own} visible outputs, the recording {visible}")))
            }
        }
    }
}

fn report_error(guest: &ReplicaGuest, error: ReplayError, ends: &Ends) {
    ends.report(match error {
        ReplayError::Diverged(reason) => Report::Diverged {
            count: guest.machine.instruction_count(),
            reason,
            snapshot: Box::new(guest.machine.snapshot()),
        },
        ReplayError::Host(reason) => Report::Failed(reason),
    });
}

fn report_progress(guest: &mut ReplicaGuest, before: u64, ends: &Ends) {
    let count = guest.machine.instruction_count();
    let outputs = guest.outputs();
    if outputs.is_empty() && count == before {
        return;
    }
    let following: u64 = outputs.iter().map(visible_units).sum();
    let mut visible = guest.machine.visible_outputs() - following;
    let steps = outputs
        .into_iter()
        .filter(|output| visible_units(output) > 0)
        .map(|output| {
            visible += visible_units(&output);
            Step::Output { count, visible, output }
        })
        .collect();
    ends.publish(count, guest.machine.guest_time_ns());
    ends.report_quietly(Report::Steps { steps, count });
}
