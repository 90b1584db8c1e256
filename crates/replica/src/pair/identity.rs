//! Who this replica is, for its peer, the arbiter and people.

use crate::config::ReplicaConfig;
use crate::machines::Machines;
use crate::random;
use replication::config::PairConfig;
use replication::message::Greeting;
use std::io;
use std::time::Duration;

/// What the replication core has to know of this replica.
pub fn pair_config(config: &ReplicaConfig, machines: &dyn Machines) -> io::Result<PairConfig> {
    let host = rustix::system::uname();
    let greeting = Greeting {
        semantics_version: machines.semantics_version(),
        configuration_hash: machines.configuration_hash(),
        vm: config.name.clone(),
        node: format!(
            "{}:{}",
            host.nodename().to_string_lossy(),
            std::process::id()
        ),
        run: random::number()?,
    };
    let mut pair_config = PairConfig::new(greeting);
    pair_config.detector.heartbeat_interval = config.pair.heartbeat;
    pair_config.detector.silence_timeout = config.pair.suspect_after;
    pair_config.digest_interval = config.pair.digest_interval;
    pair_config.lag.target = config.pair.lag_target;
    // A disk of many gigabytes takes its time.
    pair_config.detector.join_timeout = Duration::from_secs(30);
    Ok(pair_config)
}
