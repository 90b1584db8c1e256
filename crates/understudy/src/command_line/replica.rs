//! `understudy primary` and `understudy backup`.

use super::engine::EngineOption;
use crate::config::VmConfig;
use crate::exit::{ExitStatus, Failure};
use crate::pair;
use clap::Args;
use std::path::PathBuf;

/// Start a machine, and protect it as soon as a backup joins.
///
/// Status 0: the guest powered off, or asked to end; 3: a backup took over meanwhile.
#[derive(Debug, Args)]
pub struct Primary {
    /// The machine and its pair
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    engine: EngineOption,
}

/// Follow the primary at the configured peer, and go on in its place when it dies.
///
/// The disks that the configuration names are overwritten by the primary's. Status 0: the guest
/// powered off, or asked to end; 3: the primary went on without this backup; 4: the machines differ
/// and the primary is gone; 5: the primary runs another machine.
#[derive(Debug, Args)]
pub struct Backup {
    /// The machine and its pair
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    engine: EngineOption,
}

impl Primary {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let mut config = VmConfig::load(&self.config).map_err(Failure::usage)?;
        config.engine = self.engine.or(config.engine);
        pair::run_primary(config, &self.config)
    }
}

impl Backup {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let mut config = VmConfig::load(&self.config).map_err(Failure::usage)?;
        config.engine = self.engine.or(config.engine);
        pair::run_backup(config, &self.config)
    }
}
