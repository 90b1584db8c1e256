//! `understudy replica`.

use super::engine::EngineOption;
use crate::config::{ConfigError, VmConfig, open_by_address};
use crate::exit::{ExitStatus, Failure};
use crate::setup::ConfiguredMachine;
use arbiter::{Store, Trail};
use clap::Args;
use replica::{ReplicaConfig, run_replica};
use std::path::{Path, PathBuf};

/// Run this host's replica of a machine: the same command on every host, at any time.
///
/// It looks at the arbiter, at its own markers and at its peer, and then joins the live machine as a
/// backup, waits, starts the machine again from its disks, or powers it on; after losing the machine
/// to another host it follows that. The disks that the configuration names are overwritten by the
/// primary's when it joins. SIGTERM: a protected primary hands over; one that nobody can replace asks its
/// guest to power off and waits (`power_off_wait`); a second SIGTERM unplugs it at once.
///
/// Status 0: the guest powered off. 3: the machine's life is over (a boot unit need not try again).
/// 5: the primary runs another machine. 10: asked to end, the machine was handed over. 11: asked to
/// end while nothing was live here. 12: asked to end, nobody could take over, the machine was
/// unplugged. 14: asked to end, nobody could take over, the guest powered off when it was asked to. 15: asked
/// to end, nobody could take over, the machine goes on from its journal at the next start. After 12 and 14
/// the life stays open: the next start on this host begins from its disks.
#[derive(Debug, Args)]
pub struct Replica {
    /// The machine and its pair
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    engine: EngineOption,
}

impl Replica {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let mut config = VmConfig::load(&self.config).map_err(Failure::usage)?;
        config.engine = self.engine.or(config.engine);
        let (replica, store) = open(&config, &self.config)?;
        let peers = config.peers();
        let machines = Box::new(ConfiguredMachine(config));
        Ok(run_replica(replica, peers, machines, store)?.into())
    }
}

/// What a replica has to know, and its arbiter.
pub fn open(config: &VmConfig, path: &Path) -> Result<(ReplicaConfig, Box<dyn Store>), Failure> {
    let usage = |error: ConfigError| Failure::usage(error);
    let (replica, arbiter) = config.replica(path).map_err(usage)?;
    let store = arbiter.open().map_err(Failure::usage)?;
    // Relative paths are those of the directory in which this process was started.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let trail = Trail::new(store, open_by_address(&path));
    Ok((replica, Box::new(trail)))
}
