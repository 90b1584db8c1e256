//! Who this replica is, for its peer, the arbiter and people.

use crate::config::ReplicaConfig;
use crate::end::ReplicaError;
use crate::machines::Machines;
use crate::peer_stream::Membership;
use crate::random;
use crate::state_directory::replace;
use environment::fs;
use keys::{HostName, Keys, KeysError, LetIn, Purpose};
use replication::config::PairConfig;
use replication::message::Greeting;
use replication::succession::{Durability, Host, HostId, MachineName, RunId};
use std::io;
use std::path::Path;

/// Holds this host's identity, as far as this machine is concerned.
const FILE: &str = "host-id";
/// Its digits and the end of the line, and what betrays that there is more.
const LIMIT_BYTES: u64 = 64;

/// The identity in the state directory; made when there is none.
fn host_id(directory: &Path) -> io::Result<HostId> {
    let path = directory.join(FILE);
    match fs::read(&path, LIMIT_BYTES) {
        Ok(content) => {
            let id = std::str::from_utf8(&content).unwrap_or("").trim_end();
            let id = (id.len() == 32).then(|| u128::from_str_radix(id, 16));
            return match id {
                Some(Ok(id)) => Ok(HostId(id)),
                _ => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is no host's identity", path.display()),
                )),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = HostId(random::number()?);
    replace(&path, format!("{id}\n").as_bytes())?;
    Ok(id)
}

/// What both hosts have to agree on: the machine, and when a flush of its guest is complete.
fn handshake_hash(config: &ReplicaConfig, machines: &dyn Machines) -> u64 {
    const BOTH: u64 = 0x626f_7468_2064_6973;
    let machine = machines.configuration_hash();
    match config.disk_durability {
        Durability::Primary => machine,
        Durability::Both => machine ^ BOTH,
    }
}

/// By what the machine's members know this host, and this host them.
///
/// # Errors
/// The keys of this host cannot be used, or are not those of a member.
pub fn membership(config: &ReplicaConfig) -> Result<Membership, ReplicaError> {
    if environment::current().is_some() {
        return Ok(Membership::Simulated);
    }
    let members = &config.pair.members;
    let let_in = LetIn::Hosts(members.clone());
    let keys = Keys::open(&config.pair.keys, Purpose::Replica, let_in)?;
    let name = keys.certificate().name;
    if !members.contains(&name) {
        let names: Vec<&str> = members.iter().map(HostName::as_str).collect();
        return Err(ReplicaError::Keys(KeysError::NotAMember {
            directory: config.pair.keys.clone(),
            name,
            members: names.join(", "),
        }));
    }
    Ok(Membership::Keys(keys))
}

/// What the replication core has to know of this replica.
pub fn pair_config(
    config: &ReplicaConfig,
    membership: &Membership,
    machines: &dyn Machines,
) -> io::Result<PairConfig> {
    let node = match (&config.pair.host, membership) {
        (Some(host), _) => host.clone(),
        (None, Membership::Keys(keys)) => keys.certificate().name.to_string(),
        (None, Membership::Simulated) => String::new(),
    };
    let machine = MachineName::new(&config.name)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let greeting = Greeting {
        semantics_version: machines.semantics_version(),
        configuration_hash: handshake_hash(config, machines),
        machine,
        host: Host::new(host_id(&config.state_directory)?, &node),
        run: RunId(random::number()?),
    };
    let mut pair_config = PairConfig::new(greeting);
    pair_config.detector.heartbeat_interval = config.pair.heartbeat;
    pair_config.detector.silence_timeout = config.pair.suspect_after;
    pair_config.digest_interval = config.pair.digest_interval;
    pair_config.durability = config.disk_durability;
    pair_config.lag.target = config.pair.lag_target;
    if let Some(journal) = &config.journal {
        pair_config.journal = journal.role;
        pair_config.journal_timeout = journal.timeout;
    }
    Ok(pair_config)
}
