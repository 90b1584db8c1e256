//! What both roles need to know.

use crate::batch::BatchConfig;
use crate::failure_detector::DetectorConfig;
use crate::generation::{ClaimKey, ClaimPacing, Claimant};
use crate::lag::LagConfig;
use crate::message::{Greeting, LifeId};
use crate::mutation::Mutations;
use std::time::Duration;

/// Configuration of a replica, primary or backup. Both sides should have the same times.
#[derive(Clone, Debug)]
pub struct PairConfig {
    /// What this process says about itself. `run` must be new for each start of a process.
    pub greeting: Greeting,
    /// When a peer is suspected.
    pub detector: DetectorConfig,
    /// When records are sent.
    pub batch: BatchConfig,
    /// How often this replica's program makes a digest record as a primary, even if the guest
    /// idles. Begin tells it to the backup, whose own may be another.
    pub digest_interval: Duration,
    /// How far the backup may be behind.
    pub lag: LagConfig,
    /// Bytes of records that may wait for a joining backup; the primary is slowed beyond.
    pub join_backlog_bytes: usize,
    /// How often the arbiter is asked.
    pub claim_pacing: ClaimPacing,
    /// How long a backup waits between attempts to join.
    pub reconnect_delay: Duration,
    /// Old bugs, for the simulator. `Mutations::default()` is none.
    pub mutations: Mutations,
}

impl PairConfig {
    /// The default times.
    pub fn new(greeting: Greeting) -> PairConfig {
        PairConfig {
            greeting,
            detector: DetectorConfig::default(),
            batch: BatchConfig::default(),
            digest_interval: Duration::from_secs(1),
            lag: LagConfig::default(),
            join_backlog_bytes: 64 << 20,
            claim_pacing: ClaimPacing::default(),
            reconnect_delay: Duration::from_millis(200),
            mutations: Mutations::default(),
        }
    }

    pub(crate) fn claimant(&self) -> Claimant {
        Claimant {
            node: self.greeting.node.clone(),
            nonce: self.greeting.run,
        }
    }

    pub(crate) fn key(&self, life: LifeId, generation: u64) -> ClaimKey {
        ClaimKey {
            vm: self.greeting.vm.clone(),
            life,
            generation,
        }
    }
}
