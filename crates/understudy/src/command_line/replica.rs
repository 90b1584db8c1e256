//! `understudy primary` and `understudy backup`.

use super::engine::EngineOption;
use crate::config::VmConfig;
use crate::exit::{ExitStatus, Failure};
use crate::setup::ConfiguredMachine;
use arbiter::DirectoryStore;
use clap::Args;
use replica::{ReplicaConfig, run_backup, run_primary};
use std::path::{Path, PathBuf};

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
        let config = load(&self.config, &self.engine)?;
        let (replica, store) = open(&config, &self.config)?;
        let machines = Box::new(ConfiguredMachine(config));
        Ok(run_primary(replica, machines, Box::new(store))?.into())
    }
}

impl Backup {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let config = load(&self.config, &self.engine)?;
        let (replica, store) = open(&config, &self.config)?;
        let peer = config.peer(&self.config).map_err(Failure::usage)?;
        let machines = Box::new(ConfiguredMachine(config));
        Ok(run_backup(replica, peer, machines, Box::new(store))?.into())
    }
}

fn load(path: &Path, engine: &EngineOption) -> Result<VmConfig, Failure> {
    let mut config = VmConfig::load(path).map_err(Failure::usage)?;
    config.engine = engine.or(config.engine);
    Ok(config)
}

/// What the replica has to know, and its arbiter.
fn open(config: &VmConfig, path: &Path) -> Result<(ReplicaConfig, DirectoryStore), Failure> {
    let (replica, arbiter) = config.replica(path).map_err(Failure::usage)?;
    let store = DirectoryStore::open(&arbiter.directory).map_err(Failure::usage)?;
    Ok((replica, store))
}
