//! Another live machine of the same name: a primary that lacks backups asks its peers whether they are live as
//! well, and hears on the network whether somebody else has its guest's address. Whoever is asked knows then
//! where this one listens, and may join it.
//!
//! The arbiter makes two live machines of one life impossible. Of two arbiters, or of two machines that were
//! given one address, it knows nothing.

use super::host::Host;
use super::peers::Peers;
use crate::host_time::monotonic;
use crate::peer_addresses::PeerAddresses;
use replication::startup::{PeerAnswer, Stance};
use replication::succession::HostId;
use std::collections::BTreeMap;
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
    unproven: Option<Unproven>,
    claimants: Claimants,
}

/// Hosts that say that they are live, of which it is not known either whether this was the live machine when they
/// said it: since when it is known of each, and what is to be told.
#[derive(Default)]
struct Claimants(BTreeMap<HostId, (Duration, String)>);

impl Claimants {
    /// This host said so; what it says again is no news.
    fn heard(&mut self, host: HostId, now: Duration, detail: String) {
        self.0.entry(host).or_insert((now, detail));
    }

    /// What is to be told of those who said so before this was the live machine for certain: each is told once, until
    /// it says so again.
    fn proven(&mut self, live_at: Option<Duration>) -> Vec<String> {
        let is_proven =
            |_: &HostId, (since, _): &mut (Duration, String)| live_at.is_some_and(|at| at > *since);
        let proven = self.0.extract_if(.., is_proven);
        proven.map(|(_, (_, detail))| detail).collect()
    }
}

/// Frames from the guest's own address, of which it is not known whether its machine was the live one when they
/// came: a process that has slept hears its successor's before anybody tells it that it has one.
struct Unproven {
    since: Duration,
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
            unproven: None,
            claimants: Claimants::default(),
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

    /// Asks now and then, and tells what came of it. `live_at`: when this was last the live machine for certain.
    pub(super) fn look(&mut self, host: &mut Host, lacks_backups: bool, live_at: Option<Duration>) {
        self.tell_frames(host, live_at);
        self.tell_claimants(host, live_at);
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
                let addresses = self.peers.addresses(peer);
                let address = addresses.as_ref().map_or("", PeerAddresses::first);
                let detail = format!(
                    "{} at {} says that this machine is live there as well, in generation {} of its \
                     life {}: stop one of them, and look whether both hosts see the same arbiter",
                    standing.host.node(),
                    address,
                    standing.generation,
                    standing.life
                );
                self.claimants.heard(standing.host.id, now, detail);
            }
        }
    }

    /// Tells of hosts that said that they are live before this was the live machine for certain. A process that has
    /// slept hears its successor before anybody tells it that it has one.
    fn tell_claimants(&mut self, host: &mut Host, live_at: Option<Duration>) {
        for detail in self.claimants.proven(live_at) {
            host.events.add("another_live", 0, 0, detail);
        }
    }

    /// The network brought this frame.
    pub(super) fn frame(&mut self, host: &Host, frame: &[u8]) {
        let Some(network) = &host.config.network else {
            return;
        };
        let now = monotonic();
        if frame.get(6..12) != Some(&network.mac[..]) || now < self.since + GRACE {
            return;
        }
        let unproven = self.unproven.get_or_insert(Unproven {
            since: now,
            frames: 0,
        });
        unproven.frames += 1;
    }

    /// Tells of frames that came while this was the live machine.
    fn tell_frames(&mut self, host: &mut Host, live_at: Option<Duration>) {
        let Some(network) = &host.config.network else {
            return;
        };
        let is_proven =
            |unproven: &mut Unproven| live_at.is_some_and(|live_at| live_at > unproven.since);
        let Some(proven) = self.unproven.take_if(is_proven) else {
            return;
        };
        self.frames += proven.frames;
        let [a, b, c, d, e, f] = network.mac;
        let detail = format!(
            "a frame came from {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, the guest's own address: \
             another machine on its network has it"
        );
        host.events.add("address_conflict", 0, 0, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding: a primary that was woken after its successor had gone live called that one another live machine.
    #[test]
    fn a_claimant_is_told_of_when_this_was_live_after_it_had_said_so() {
        let seconds = Duration::from_secs;
        let mut claimants = Claimants::default();
        claimants.heard(HostId(1), seconds(10), "first".into());
        claimants.heard(HostId(1), seconds(20), "again".into());
        claimants.heard(HostId(2), seconds(30), "second".into());
        assert!(claimants.proven(None).is_empty());
        assert!(claimants.proven(Some(seconds(10))).is_empty());
        assert_eq!(claimants.proven(Some(seconds(11))), ["first"]);
        assert!(claimants.proven(Some(seconds(29))).is_empty());
        assert_eq!(claimants.proven(Some(seconds(31))), ["second"]);
        claimants.heard(HostId(1), seconds(40), "once more".into());
        assert_eq!(claimants.proven(Some(seconds(41))), ["once more"]);
    }
}
