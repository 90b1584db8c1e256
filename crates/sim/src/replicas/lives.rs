//! Lives that end, because a guest was powered off or a person declared them lost, and those that a person
//! begins then.

use super::faults::Loss;
use super::world::{MS, What, World};
use replica::control::{Button, Request};
use replica::new_life::NewLife;

impl World {
    /// A life ends: in an orderly way, or because a person gives it up, though it may be well.
    pub(super) fn end_life(&mut self, node: usize) {
        let after_ns = self.random.between(1, 3_000) * MS;
        if self.random.percent(60) {
            self.ask(node, Request::Press(Button::Power), None);
            let another = self.any_node();
            self.after(after_ns, What::NewLife(another));
        } else {
            self.new_life(node);
        }
    }

    /// A person ends what runs on a node, and begins another life there. It is refused where that would be
    /// wrong; the boot unit starts the replica again afterwards.
    pub(super) fn new_life(&mut self, node: usize) {
        if self.is_watched() || self.nodes[node].is_kept_off {
            return;
        }
        self.end(node, Loss::Process);
        let id = self.process_of(node, "is to begin another life");
        self.begins_life = Some(id);
        let (config, peers) = (self.config(node), self.peers(node));
        let machines = self.machines(node, id);
        let store = Box::new(self.store(node, id));
        let shared = self.shared.clone();
        self.begin_process(node, id, move || {
            let begun = NewLife::open(&config, peers, &machines, store)
                .and_then(|mut new_life| new_life.begin());
            match begun {
                Ok(key) => {
                    shared.lock().observer.count("life begun");
                    format!("a life was begun: {key}")
                }
                Err(error) => error.to_string(),
            }
        });
    }

    /// When faults are over and the machine is off, a person begins another life, until one is there.
    pub(super) fn go_on_after_the_end(&mut self) {
        let is_busy = self
            .nodes
            .iter()
            .any(|node| node.process.is_some() && node.process == self.begins_life);
        let newest = self.shared.lock().observer.arbiter.newest();
        if is_busy || newest.is_none_or(|newest| newest.next.is_some()) {
            return;
        }
        let node = self.any_node();
        self.new_life(node);
    }
}
