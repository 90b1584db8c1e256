//! Who this replica is, for its peer, the arbiter and people.

use crate::checkpoint;
use crate::config::ReplicaConfig;
use crate::end::ReplicaError;
use crate::machines::Machines;
use crate::peer_stream::Membership;
use crate::random;
use crate::state_directory::replace;
use environment::fs;
use keys::{HostName, Keys, KeysError, LetIn, Purpose};
use replication::config::{PairConfig, Replication};
use replication::configuration::Configuration;
use replication::message::Greeting;
use replication::succession::{Durability, Host, HostId, MAX_MEMBERS, MachineName, RunId};
use std::io;
use std::path::Path;

/// Holds this host's identity, as far as this machine is concerned.
const FILE: &str = "host-id";
/// What a replica has in memory besides its machine: at most 64 MiB of the log and as much for who joins
/// (`PairConfig::log_bytes`), compiled code, buffers.
const PROCESS_BYTES: u64 = 128 << 20;
/// …and where state is transferred: pages as they were sent last, and one checkpoint.
const CHECKPOINT_BYTES: u64 = 128 << 20;
/// Its digits, a name and the end of the line, and what betrays that there is more.
const LIMIT_BYTES: u64 = 128;

/// The identity in the state directory, which belongs to the host of this name; made when there is none.
///
/// A directory that was copied to another host would make two hosts one, and each could start the machine in
/// the belief that it is its primary's: so the name stands beside the identity.
fn host_id(directory: &Path, name: &str) -> Result<HostId, ReplicaError> {
    let path = directory.join(FILE);
    let content = match fs::read(&path, LIMIT_BYTES) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = HostId(random::number()?);
            write(&path, id, name)?;
            return Ok(id);
        }
        Err(error) => return Err(error.into()),
    };
    let text = std::str::from_utf8(&content).unwrap_or("");
    let (id, owner) = match text.trim_end().split_once(' ') {
        Some((id, owner)) => (id, Some(owner)),
        None => (text.trim_end(), None),
    };
    let id = (id.len() == 32).then(|| u128::from_str_radix(id, 16));
    let Some(Ok(id)) = id else {
        let what = format!("{} is no host's identity", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, what).into());
    };
    let id = HostId(id);
    match owner {
        Some(owner) if owner == name => {}
        // A host without a name, as some simulated ones are.
        None if name.is_empty() => {}
        // A directory of a version that did not write it.
        None => write(&path, id, name)?,
        Some(owner) => {
            return Err(ReplicaError::AnotherHosts {
                path,
                owner: owner.to_owned(),
                name: name.to_owned(),
            });
        }
    }
    Ok(id)
}

/// Notes who this host is, for good.
fn write(path: &Path, id: HostId, name: &str) -> io::Result<()> {
    replace(path, line(id, name).as_bytes()).map_err(|error| {
        let what = format!("{} cannot be written: {error}", path.display());
        io::Error::new(error.kind(), what)
    })
}

fn line(id: HostId, name: &str) -> String {
    match name {
        "" => format!("{id}\n"),
        name => format!("{id} {name}\n"),
    }
}

/// What this host is called: everywhere as in its certificate, by which others know it.
fn node(config: &ReplicaConfig, membership: &Membership) -> Result<String, ReplicaError> {
    let said = config.pair.host.as_deref();
    match membership {
        Membership::Simulated => Ok(said.unwrap_or_default().to_owned()),
        Membership::Keys(keys) => {
            let name = keys.certificate().name.to_string();
            match said {
                Some(said) if said != name => Err(ReplicaError::HostName {
                    said: said.to_owned(),
                    name,
                }),
                Some(_) | None => Ok(name),
            }
        }
    }
}

/// What both hosts have to agree on: the machine, and when a flush of its guest is complete.
fn agreed(config: &ReplicaConfig, machines: &dyn Machines) -> Configuration {
    let durability = match config.disk_durability {
        Durability::Primary => "primary",
        Durability::Both => "both",
    };
    let agreed = machines.configuration().with("disk_durability", durability);
    match config.pair.replication() {
        // As programs say that know of no other.
        Replication::Log => agreed,
        Replication::StateTransfer => agreed.with("replication", checkpoint::FORMAT),
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
///
/// # Errors
/// The state directory is another host's, or the configuration calls this host by another name than its
/// certificate does.
pub fn pair_config(
    config: &ReplicaConfig,
    membership: &Membership,
    machines: &dyn Machines,
) -> Result<PairConfig, ReplicaError> {
    let node = node(config, membership)?;
    let machine = MachineName::new(&config.name)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let greeting = Greeting {
        build: config.build.clone(),
        semantics_version: machines.semantics_version(),
        configuration: agreed(config, machines),
        machine,
        host: Host::new(host_id(&config.state_directory, &node)?, &node),
        run: RunId(random::number()?),
        // Known when the host listens.
        listen_port: 0,
    };
    let mut pair_config = PairConfig::new(greeting);
    let process_bytes = match config.pair.replication() {
        Replication::Log => PROCESS_BYTES,
        Replication::StateTransfer => PROCESS_BYTES + CHECKPOINT_BYTES,
    };
    pair_config.machine_memory = config.memory_bytes.saturating_add(process_bytes);
    pair_config.detector.heartbeat_interval = config.pair.heartbeat;
    pair_config.detector.silence_timeout = config.pair.suspect_after;
    pair_config.digest_interval = config.pair.digest_interval;
    pair_config.durability = config.disk_durability;
    pair_config.has_shared_disks = config.has_shared_disks();
    pair_config.replication = config.pair.replication();
    pair_config.max_members = config.pair.backups.clamp(1, MAX_MEMBERS);
    pair_config.is_spare = config.pair.is_spare;
    pair_config.spare_after = config.pair.spare_after;
    pair_config.lag.target = config.pair.lag_target;
    if let Some(journal) = &config.journal {
        pair_config.journal = journal.role;
        pair_config.journal_timeout = journal.timeout;
    }
    pair_config.lag.policy = config.pair.lag_policy;
    pair_config.lag.limit = config.pair.lag_limit;
    Ok(pair_config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Finding: a state directory that was copied made two hosts one.
    #[test]
    fn a_state_directory_is_of_one_host() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| host_id(directory.path(), name);
        let id = of("hosta").unwrap();
        assert_eq!(of("hosta").unwrap(), id);
        let error = of("hostb").unwrap_err();
        assert!(
            matches!(error, ReplicaError::AnotherHosts { .. }),
            "{error}"
        );
        let error = error.to_string();
        for word in ["hosta", "hostb", "host-id", "empty"] {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
        // A host that is called otherwise now, as a person says.
        let file = directory.path().join(FILE);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("hosta", "hostb")).unwrap();
        assert_eq!(of("hostb").unwrap(), id);
    }

    #[test]
    fn a_state_directory_of_before_gets_its_hosts_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        fs::write(&file, format!("{}\n", HostId(7))).unwrap();
        assert_eq!(host_id(directory.path(), "hosta").unwrap(), HostId(7));
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            format!("{} hosta\n", HostId(7))
        );
        fs::write(&file, "nobody\n").unwrap();
        assert!(host_id(directory.path(), "hosta").is_err());
    }
}
