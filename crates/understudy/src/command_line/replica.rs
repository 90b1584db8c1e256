//! `understudy primary` and `understudy backup`.

use super::engine::EngineOption;
use crate::config::VmConfig;
use crate::exit::{ExitStatus, Failure};
use crate::setup::ConfiguredMachine;
use arbiter::DirectoryStore;
use clap::Args;
use replica::{ReplicaConfig, run_replica};
use std::path::{Path, PathBuf};

/// Start a replica of a machine: the same as `backup`, but it needs no peer.
///
/// It looks at the arbiter, at its own markers and at its peer, and then joins, waits, starts the
/// machine again from its disks, or powers it on. Status 0: the guest powered off, or asked to end;
/// 3: the machine's life is over.
#[derive(Debug, Args)]
pub struct Primary {
    /// The machine and its pair
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    engine: EngineOption,
}

/// Start a replica of a machine, and follow the primary at the configured peer when there is one.
///
/// The disks that the configuration names are overwritten by the primary's. Status 0: the guest
/// powered off, or asked to end; 3: the machine's life is over; 5: the primary runs another
/// machine.
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
        let peers = config.peers();
        let machines = Box::new(ConfiguredMachine(config));
        Ok(run_replica(replica, peers, machines, Box::new(store))?.into())
    }
}

impl Backup {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let config = load(&self.config, &self.engine)?;
        let (replica, store) = open(&config, &self.config)?;
        let peer = config.peer(&self.config).map_err(Failure::usage)?;
        let machines = Box::new(ConfiguredMachine(config));
        Ok(run_replica(replica, vec![peer], machines, Box::new(store))?.into())
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
