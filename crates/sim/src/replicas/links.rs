//! Worlds of hosts in two networks, of which each may fail alone.

use super::faults::Loss;
use super::world::{MS, SECOND, World};
use std::fmt::Write as _;

/// Longer than any world.
const FOR_GOOD_NS: u64 = 3_600 * SECOND;

impl World {
    /// Nothing gets from one host to others in one network, in one direction or both.
    pub(super) fn cut_network(&mut self) {
        let network = self.random.between(0, self.site.networks as u64 - 1) as usize;
        let for_ns = self.random.between(20, 3_000) * MS;
        let both = self.random.percent(60);
        let node = self.any_node();
        self.cut_off(network, node, for_ns, both);
    }

    /// One host's cable, or one direction of it.
    fn cut_off(&mut self, network: usize, node: usize, for_ns: u64, both: bool) {
        let nodes = self.nodes.len();
        let mut state = self.shared.lock();
        let until_ns = state.now_ns + for_ns;
        for other in (0..nodes).filter(|other| *other != node) {
            state.network.cut_in(network, node, other, until_ns);
            if both {
                state.network.cut_in(network, other, node, until_ns);
            }
        }
        state.note(|text| {
            let ms = for_ns / MS;
            let _ = write!(
                text,
                "cut in network {network} from {node} (both ways: {both}) for {ms} ms"
            );
        });
    }

    /// When all is calm one network stays dead, and somebody has to join by the other.
    pub(super) fn lose_a_network(&mut self) {
        let network = self.random.between(0, self.site.networks as u64 - 1) as usize;
        for node in 0..self.nodes.len() {
            self.cut_off(network, node, FOR_GOOD_NS, true);
        }
        if network == 0 {
            self.shared
                .lock()
                .observer
                .count("joined beside a dead network");
        }
        let node = self.any_node();
        self.kill(node, Loss::Process);
    }
}
