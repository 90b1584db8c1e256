//! A recording under a debugger: gdb looks into the machine at any moment, forward and back.
//!
//! Nothing that it does reaches a machine that runs somewhere: what it looks into is a replay of its own.

mod address;
mod server;
pub mod timeline;

use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use crate::leftovers::remove_when_stopped;
use crate::replaying::history::History;
use crate::replaying::moment::Moment;
use crate::replaying::{Source, journal};
pub use address::GdbAddress;
use anyhow::{Context, anyhow};
use machine::engine::Engine;
use server::Debugged;
use timeline::{Found, Timeline, TimelineError};

/// Lets one debugger after the other look at the recording, from `at` on, until one kills it.
///
/// # Errors
/// The recording cannot be used, nobody can be listened to, or the replay diverges.
pub fn serve(
    source: &Source,
    at: Option<Moment>,
    address: &GdbAddress,
    engine: EngineName,
) -> Result<ExitStatus, Failure> {
    if engine.0 == Engine::Paranoid {
        let error =
            anyhow!("the paranoid engine has no breakpoints: use the JIT or the interpreter");
        return Err(Failure::usage(error));
    }
    let (history, what) = match source {
        Source::Recording(path) => (History::read(path, engine)?, "recording"),
        Source::Journal(place) => (journal::history(place, at, engine)?, "journal"),
    };
    let described = history.describe_end;
    let timeline = Timeline::new(
        history.machine,
        history.before,
        history.records,
        history.end,
    );
    let timeline = timeline.map_err(failure)?;
    let mut debugged = Debugged::new(timeline).map_err(failure)?;
    if let Some(at) = at
        && debugged.go_to(at, &mut || false).map_err(failure)? == Found::End
    {
        return Err(Failure::usage(anyhow!(
            "{at} lies beyond the end of the {what}: it ends at {}",
            debugged.describe_position()
        )));
    }
    let listener = address
        .listen()
        .with_context(|| format!("cannot listen on {address}"))
        .map_err(Failure::usage)?;
    if let Some(path) = listener.path() {
        remove_when_stopped(path).context("cannot catch signals")?;
    }
    eprintln!(
        "understudy: at {}; the {what} is {described}",
        debugged.describe_position()
    );
    eprintln!("understudy: {}", listener.invitation());
    loop {
        let served = listener.serve_next(&mut debugged)?;
        match served {
            Ok(true) => eprintln!("understudy: the debugger has gone; waiting for the next one"),
            Ok(false) => return Ok(ExitStatus::Success),
            Err(why) => {
                eprintln!("understudy: the debugger was left: {why}; waiting for the next one")
            }
        }
    }
}

fn failure(error: TimelineError) -> Failure {
    let status = match error {
        TimelineError::Diverged { .. } => ExitStatus::Diverged,
        TimelineError::NotDebuggable | TimelineError::NotRecorded { .. } => ExitStatus::Usage,
        TimelineError::SetBack(_) => ExitStatus::Failure,
    };
    Failure::new(status, anyhow!(error))
}
