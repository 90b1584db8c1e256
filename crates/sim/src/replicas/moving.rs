//! Two arbiters, between which people move the life, and configurations that name either.

use super::faults::Loss;
use super::store::ARBITERS;
use super::world::World;
use replica::control::Request;
use replication::succession::{Key, LifeNumber, MachineName};
use std::fmt::Write as _;

impl World {
    /// Somebody wants the life to go on at one of the arbiters: at each host in turn, until the live one
    /// has heard of it.
    pub(super) fn move_arbiter(&mut self) {
        let to = self.random.pick(&ARBITERS).to_owned();
        for node in 0..self.nodes.len() {
            let to = to.clone();
            self.ask(node, Request::MoveArbiter { to }, None);
        }
    }

    /// Whether an arbiter has the life, or had it.
    fn knows_the_life(&self, which: usize) -> bool {
        let key = Key::power_on(&machine(), LifeNumber(1));
        self.shared.lock().observer.arbiters[which]
            .entry(&key)
            .is_some()
    }

    /// Which arbiter a host's configuration names when it starts: any that ever was the right one, or is
    /// prepared to be; in calm, one that leads to the life.
    pub(super) fn configured_arbiter(&mut self, node: usize) -> usize {
        if !self.site.moves {
            return 0;
        }
        let other = match self.is_calm {
            true => self.knows_the_life(1),
            false => self.is_prepared(1),
        };
        let which = usize::from(other && self.random.percent(50));
        self.nodes[node].arbiter = which;
        self.note(|text| {
            let _ = write!(
                text,
                "node {node} is configured for the arbiter {}",
                ARBITERS[which]
            );
        });
        which
    }

    fn is_prepared(&self, which: usize) -> bool {
        let key = Key::arrival(&machine());
        self.shared.lock().observer.arbiters[which].has(&key)
    }

    /// Whoever was given a configuration that came too early is given the right one.
    pub(super) fn mend_configurations(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].arbiter != 0 && !self.knows_the_life(1) {
                self.kill(node, Loss::Process);
            }
        }
    }
}

fn machine() -> MachineName {
    MachineName::new("vm").expect("a machine can have this name")
}
