//! How a machine's backups are kept alike.

use super::{DiskDurability, Milliseconds, VmConfig};
use replica::vcpu::CheckpointOptions;
use serde::{Deserialize, Serialize};

/// How a machine's backups are kept alike; the same on all hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicationName {
    /// They do what the primary's machine is made to do.
    #[default]
    Log,
    /// They are brought along by its state, and execute nothing.
    StateTransfer,
}

/// Checkpoints as often as this cost more than they spare, and more seldom a failover takes back too much.
const INTERVALS: std::ops::RangeInclusive<u64> = 5..=1_000;

/// Measured: see `docs/performance.md`.
pub fn default_checkpoint_interval() -> Milliseconds {
    Milliseconds(10)
}

/// How checkpoints are made, if they are.
pub(super) fn checkpoints(
    replication: ReplicationName,
    interval: Milliseconds,
) -> Option<CheckpointOptions> {
    let options = CheckpointOptions::every(interval.duration());
    (replication == ReplicationName::StateTransfer).then_some(options)
}

/// What of a configuration does not go with state transfer: the key, and why.
pub(super) fn check(config: &VmConfig) -> Result<(), (&'static str, String)> {
    let Some(pair) = &config.pair else {
        return Ok(());
    };
    if pair.replication != ReplicationName::StateTransfer {
        return Ok(());
    }
    if config.journal.is_some() {
        let why = "a journal keeps what the machine was made to do, which nothing says with pair.replication = \
                   \"state-transfer\": leave one of both out";
        return Err(("journal", why.into()));
    }
    if config.disk_durability == DiskDurability::Both {
        let why = "\"both\" does not go with pair.replication = \"state-transfer\", where a backup's disk is brought \
                   along by checkpoints: leave one of both out";
        return Err(("disk_durability", why.into()));
    }
    if !INTERVALS.contains(&pair.checkpoint_interval.0) {
        let why = format!(
            "{} ms is not within {} to {}",
            pair.checkpoint_interval.0,
            INTERVALS.start(),
            INTERVALS.end()
        );
        return Err(("pair.checkpoint_interval", why));
    }
    Ok(())
}
