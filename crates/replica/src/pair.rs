//! A replica of a machine: the event loop around the replication core.
//!
//! One thread waits for everything that can happen to a replica, tells the core, and does what the
//! core says. The vcpu, the disks, their markers, the arbiter and the sending of a snapshot have
//! their own threads.

mod ability;
mod arbiter_outage;
mod backup;
mod backup_machine;
mod buttons;
mod channel;
mod copy;
mod demand;
mod fence;
mod host;
mod host_facts;
mod identity;
mod journal_chain;
mod journaling;
mod keeping;
mod links;
mod markers;
mod moving;
mod neighbours;
pub mod new_life;
mod peers;
mod primary;
mod progress;
mod rates;
mod recovering;
mod requests;
mod restore;
mod rivals;
mod slow_turns;
mod snapshot_sender;
mod starting;
mod stopping;
mod switchover;

use crate::config::ReplicaConfig;
use crate::end::{Ended, ReplicaError};
use crate::host_time::monotonic;
use crate::machines::Machines;
use crate::peer_addresses::PeerAddresses;
use crate::random;
use arbiter::Store;
use backup::{BackupEnding, BackupLoop, KeptMachine};
use host::{Host, LooksAgain};
use machine::output::Output;
use primary::{PrimaryEnding, PrimaryLoop};
use replication::message::LifeId;
use replication::mutation::Mutations;
use replication::startup::{Startup, StartupConfig};
use replication::succession::Kind;
use starting::Next;

/// What the core holds back until those have it who have to.
enum Said {
    /// By the machine.
    Output(Output),
    /// To whoever made this press of a button.
    Pressed(u64),
}

type ReplicationCore = replication::primary::Primary<Said>;

/// Runs a replica: it looks at the arbiter, its own markers and its peers, and joins, waits, starts
/// the machine again or powers it on; and looks again when it has lost its machine to another.
///
/// # Errors
/// Something of the configuration cannot be used, the life is over, a peer refuses this replica for
/// good, or the machine or the host fails.
pub fn run_replica(
    config: ReplicaConfig,
    peers: Vec<PeerAddresses>,
    machines: Box<dyn Machines>,
    arbiter: Box<dyn Store>,
) -> Result<Ended, ReplicaError> {
    run_mutated(config, peers, machines, arbiter, Mutations::default())
}

/// As [`run_replica`], with an old bug brought back: for the simulator.
///
/// # Errors
/// As there.
pub fn run_mutated(
    config: ReplicaConfig,
    peers: Vec<PeerAddresses>,
    machines: Box<dyn Machines>,
    arbiter: Box<dyn Store>,
    mutations: Mutations,
) -> Result<Ended, ReplicaError> {
    let mut host = Host::open(config, machines, arbiter, mutations)?;
    host.peers = peers;
    host.events.add("started", 0, 0, "as a replica");
    let greeting = &host.pair_config.greeting;
    let startup = StartupConfig {
        is_spare: host.config.pair.is_spare,
        has_disks: host.config.disks.iter().any(|disk| !disk.read_only),
        durability: host.pair_config.durability,
        mutations,
        ..StartupConfig::new(
            greeting.machine.clone(),
            greeting.host.clone(),
            greeting.run,
            LifeId(random::number()?),
        )
    };
    let mut kept: Option<Box<KeptMachine>> = None;
    let mut startup = Startup::new(monotonic(), startup, host.markers.worth());
    loop {
        let mut primary = match starting::serve(&mut host, &mut startup)? {
            Next::Exit(ended) => {
                host.stopped(0, 0, &ended);
                return ended;
            }
            Next::Start(won) => {
                // Another machine begins here, from the same disks.
                if let Some(kept) = kept.take() {
                    host.discarding = kept.discard(host.discarding.take());
                }
                if won.kind == Kind::Recovered {
                    PrimaryLoop::from_journal(host, *won)?
                } else {
                    PrimaryLoop::from_disk(host, *won)?
                }
            }
            Next::Join(peer, newest) => {
                let backup = BackupLoop::new(host, peer, *newest, kept.take());
                match backup.serve()? {
                    BackupEnding::Exit(ended) => return ended,
                    BackupEnding::Again(left, machine) => {
                        host = *left;
                        kept = machine;
                        let worth = host.markers.worth();
                        match std::mem::take(&mut host.looks_again) {
                            LooksAgain::Soon => startup.again(monotonic(), worth),
                            LooksAgain::AtOnce => startup.superseded(monotonic(), worth),
                            LooksAgain::After(rest) => {
                                startup.again_after(monotonic(), worth, rest);
                            }
                        }
                        continue;
                    }
                    BackupEnding::Live(primary) => *primary,
                }
            }
        };
        match primary.serve()? {
            PrimaryEnding::Exit(ended) => {
                if let Ok(Ended::Guest(_)) = ended {
                    primary.close_disks();
                }
                return ended;
            }
            PrimaryEnding::Again => {
                host = primary.into_host();
                startup.superseded(monotonic(), host.markers.worth());
            }
        }
    }
}
