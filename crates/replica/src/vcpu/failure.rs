//! The thread's end when the machine cannot go on: the event loop is told at once, so that it stops
//! speaking for the machine and the other replica goes on; then what is known is kept.

use super::guest::GuestError;
use super::live::GoingLive;
use super::messages::{LiveReport, ReplayReport, VcpuFailure};
use super::{Ends, Parts, ReplicaGuest, Start, live, replay};
use crate::panic::{self, Panic};
use replication::record::InstructionCount;
use std::fmt::Write;

/// Runs the machine to its end. A panic, which is a bug of this program or a difference that the
/// paranoid engine found, is an end of the machine and not only of its thread.
pub(super) fn run_guarded(mut parts: Parts, start: Start, ends: &Ends) {
    match panic::guard(|| run(&mut parts, start, ends)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => fail(&mut parts, ends, &error.to_string(), None),
        Err(panic) => {
            let reason = panic.message.lines().next().unwrap_or("a panic").to_owned();
            fail(&mut parts, ends, &reason, Some(&panic));
        }
    }
}

fn run(parts: &mut Parts, start: Start, ends: &Ends) -> Result<(), GuestError> {
    let Parts {
        guest, encoding, ..
    } = parts;
    let going_live = match start {
        Start::Live(options) => GoingLive {
            options,
            commands: Vec::new(),
            lost_ns: 0,
        },
        Start::Replaying => match replay::run(guest, ends)? {
            Some(going_live) => going_live,
            None => return Ok(()),
        },
    };
    live::run(guest, *encoding, going_live, ends)
}

fn fail(parts: &mut Parts, ends: &Ends, reason: &str, panic: Option<&Panic>) {
    // What a panic left of the machine may panic again when it is looked at.
    let count = panic::guard(|| parts.guest.machine.instruction_count()).unwrap_or(0);
    let failure = VcpuFailure {
        count: InstructionCount(count),
        reason: reason.to_owned(),
    };
    // The event loop holds one of the two ends, and the thread's mode is not certain any more.
    ends.live(LiveReport::Failed(failure.clone()));
    ends.replay(ReplayReport::Failed(failure));
    if let Some(store) = &parts.evidence {
        let text = panic::guard(|| describe(&parts.guest, reason, panic))
            .unwrap_or_else(|_| format!("{reason}\n"));
        let guest = &mut parts.guest;
        let snapshot = panic::guard(|| guest.machine.snapshot()).ok();
        // The event loop may have waited long enough.
        let _sent = ends
            .evidence
            .send(store.keep_failure(&text, snapshot.as_ref()));
    }
}

fn describe(guest: &ReplicaGuest, reason: &str, panic: Option<&Panic>) -> String {
    let machine = &guest.machine;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", panic.map_or(reason, |panic| &panic.message));
    let _ = writeln!(
        text,
        "\nunder {:?}: instruction {}, guest time {} ns, {} visible outputs, {} digests compared",
        machine.engine(),
        machine.instruction_count(),
        machine.guest_time_ns(),
        machine.visible_outputs(),
        guest.digests()
    );
    if let Some(panic) = panic {
        let _ = writeln!(text, "\nat {}\n{}", panic.place, panic.backtrace);
    }
    text
}
