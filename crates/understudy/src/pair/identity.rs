//! Who this replica is, for its peer, the arbiter and people.

use crate::config::{PairSection, VmConfig};
use crate::setup;
use machine::machine::SEMANTICS_VERSION;
use replication::config::PairConfig;
use replication::message::Greeting;
use std::io;
use std::time::Duration;

/// A random number that nobody else has.
pub fn random_u128() -> io::Result<u128> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(length) => filled += length,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(u128::from_ne_bytes(bytes))
}

/// What the replication core has to know of this replica.
pub fn pair_config(config: &VmConfig, pair: &PairSection) -> io::Result<PairConfig> {
    let host = rustix::system::uname();
    let greeting = Greeting {
        semantics_version: SEMANTICS_VERSION,
        configuration_hash: setup::pairing_hash(config),
        vm: config.name.clone(),
        node: format!(
            "{}:{}",
            host.nodename().to_string_lossy(),
            std::process::id()
        ),
        run: random_u128()?,
    };
    let mut pair_config = PairConfig::new(greeting);
    pair_config.detector.heartbeat_interval = pair.heartbeat.duration();
    pair_config.detector.silence_timeout = pair.suspect_after.duration();
    pair_config.lag.target = pair.lag_target.duration();
    // A disk of many gigabytes takes its time.
    pair_config.detector.join_timeout = Duration::from_secs(30);
    Ok(pair_config)
}
