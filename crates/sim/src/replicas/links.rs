//! Worlds of hosts in two networks, of which each may fail alone. Once all is calm one after the other does, again and
//! again, and nobody may lose its protection by that.

use super::faults::Loss;
use super::world::{MS, SECOND, What, World};
use std::fmt::Write as _;

/// What has ended is opened again, and in use, within this.
const REST_NS: u64 = 4 * SECOND;
/// So often a network fails, once all is calm.
const TROUBLES: u64 = 6;

/// What nobody acknowledges for so long ends its connection, as kernels do when they are told to.
const USER_TIMEOUT_NS: u64 = 10 * SECOND;
/// Longer than any world.
const FOR_GOOD_NS: u64 = 3_600 * SECOND;

impl World {
    /// Nothing gets from one host to others in one network, in one direction or both.
    pub(super) fn cut_network(&mut self) {
        if self.random.percent(20) {
            let network = self.random.between(0, self.site.networks as u64 - 1) as usize;
            return self.shared.lock().reset(network);
        }
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
        self.after(USER_TIMEOUT_NS, What::ResetNetwork(network));
    }

    /// The network that was lost is there again. When the hosts have links in both.
    pub(super) fn find_the_network(&mut self, now_ns: u64) -> u64 {
        let found = self.links_at_ns.is_some();
        let at_ns = *self.links_at_ns.get_or_insert(now_ns + REST_NS);
        if !found {
            let mut state = self.shared.lock();
            state.network.mend();
            state.note(|text| text.push_str("both networks are there"));
        }
        at_ns
    }

    /// How long the troubles of links last.
    pub(super) fn troubles_ns(&self) -> u64 {
        TROUBLES * (3 * SECOND + REST_NS)
    }

    /// Something befalls one network, while the other is well.
    pub(super) fn trouble_link(&mut self) {
        let network = self.random.between(0, self.site.networks as u64 - 1) as usize;
        let for_ns = self.random.between(20, 3_000) * MS;
        let what = match self.random.between(0, 3) {
            0 => {
                for node in 0..self.nodes.len() {
                    self.cut_off(network, node, for_ns, true);
                }
                "all cables of a network pulled"
            }
            1 => {
                let (node, both) = (self.any_node(), self.random.percent(50));
                self.cut_off(network, node, for_ns, both);
                "one cable pulled"
            }
            2 => {
                let more_ns = self.random.between(5, 150) * MS;
                let mut state = self.shared.lock();
                let until_ns = state.now_ns + for_ns;
                state.network.slow_down(network, more_ns, until_ns);
                state.note(|text| {
                    let _ = write!(text, "network {network} takes {} ms more", more_ns / MS);
                });
                "a network slow"
            }
            _ => {
                self.shared.lock().reset(network);
                "connections of a network reset"
            }
        };
        self.shared.lock().observer.count(what);
        self.after(for_ns + REST_NS, What::TroubleLink);
    }
}
