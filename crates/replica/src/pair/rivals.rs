//! Another live machine of the same name: a primary that lacks backups asks its peers whether they are live as
//! well, and hears on the network whether somebody else has its guest's address. Whoever is asked knows then
//! where this one listens, and may join it.
//!
//! The arbiter makes two live machines of one life impossible. Of two arbiters, or of two machines that were
//! given one address, it knows nothing.

use super::host::Host;
use super::peers::Peers;
use crate::host_time::monotonic;
use replication::primary::PrimaryPhase;
use replication::startup::{PeerAnswer, Stance};
use std::time::Duration;

/// Between two questions to the peers.
const ASK_INTERVAL: Duration = Duration::from_secs(10);
/// What the primary before this one had sent is heard for a little while.
const GRACE: Duration = Duration::from_secs(1);

/// What is known of others.
pub(super) struct Rivals {
    since: Duration,
    peers: Peers,
    ask_at: Duration,
    frames: u64,
}

impl Rivals {
    /// Of a replica that has just become the primary.
    pub(super) fn new(host: &Host) -> Rivals {
        let now = monotonic();
        let greeting = host.pair_config.greeting.clone();
        Rivals {
            since: now,
            peers: Peers::new(greeting, host.membership.clone(), host.waker.clone()),
            ask_at: now + ASK_INTERVAL,
            frames: 0,
        }
    }

    /// Frames that came from the guest's own address.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// When [`Rivals::look`] has something to do.
    pub(super) fn deadline(&self, lacks_backups: bool) -> Option<Duration> {
        lacks_backups.then_some(self.ask_at)
    }

    /// Asks now and then, and tells what came of it.
    pub(super) fn look(&mut self, host: &mut Host, lacks_backups: bool) {
        let now = monotonic();
        if lacks_backups && now >= self.ask_at {
            self.ask_at = now + ASK_INTERVAL;
            self.peers.ask(host.places());
        }
        while let Some((peer, answer)) = self.peers.answer_told(&mut host.events) {
            let PeerAnswer::Standing(standing) = answer else {
                continue;
            };
            let own = &host.pair_config.greeting;
            let is_rival = standing.stance == Stance::Live
                && standing.machine == own.machine
                && standing.host.id != own.host.id;
            if is_rival {
                let address = self.peers.address(peer);
                let detail = format!(
                    "{} at {} says that this machine is live there as well, in generation {} of its \
                     life {}: stop one of them, and look whether both hosts see the same arbiter",
                    standing.host.node(),
                    address,
                    standing.generation,
                    standing.life
                );
                host.events.add("another_live", 0, 0, detail);
            }
        }
    }

    /// The network brought this frame.
    pub(super) fn frame(&mut self, host: &mut Host, phase: PrimaryPhase, frame: &[u8]) {
        let Some(network) = &host.config.network else {
            return;
        };
        let is_certain = monotonic() >= self.since + GRACE && phase != PrimaryPhase::Claiming;
        if frame.get(6..12) != Some(&network.mac[..]) || !is_certain {
            return;
        }
        self.frames += 1;
        let [a, b, c, d, e, f] = network.mac;
        let detail = format!(
            "a frame came from {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, the guest's own address: \
             another machine on its network has it"
        );
        host.events.add("address_conflict", 0, 0, detail);
    }
}
