//! `understudy replay`.

use super::engine::EngineOption;
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use crate::replaying::{self, ReplayOptions};
use clap::Args;
use std::path::PathBuf;

/// Run a recording again, and check that the machine does exactly what it did.
///
/// Every digest and the number of outputs are compared. Status 0: all equal (also for a recording
/// whose writer died: what was written is checked); 2: not a recording, or damaged; 4: the replay
/// does something else.
#[derive(Debug, Args)]
pub struct Replay {
    /// The recording
    file: PathBuf,
    /// Stop at this instruction count
    #[arg(long, value_name = "COUNT")]
    until: Option<u64>,
    /// Print what the guest printed
    #[arg(long)]
    dump_console: bool,
    #[command(flatten)]
    engine: EngineOption,
}

impl Replay {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        replaying::replay(
            &self.file,
            ReplayOptions {
                until: self.until,
                dump_console: self.dump_console,
                engine: self.engine.or(EngineName::default()),
            },
        )
    }
}
