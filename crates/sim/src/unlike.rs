//! Hosts that are not alike: one of an older program, one without the memory for the machine, a slow one.

use crate::coverage::Situation;
use crate::random::mix;
use crate::scenario::Scenario;
use crate::world::World;
use replication::capacity::HostFacts;
use replication::event::Event;
use replication::lag::LagPolicy;
use replication::message::{Message, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, Refusal};

/// What a host needs for the machine, in bytes.
pub const MACHINE_MEMORY: u64 = 1 << 20;
/// What it has to do in a second, of nothing in particular.
const SPEED_NEEDED: u64 = 800;

/// In what one of the hosts is unlike the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlike {
    /// In nothing.
    None,
    /// Its program is older.
    OlderProgram(usize),
    /// It has not the memory, up to a moment.
    Small {
        /// Which.
        node: usize,
        /// Until then, in nanoseconds.
        until: u64,
    },
    /// It is slower than what the machine needs.
    Slow(usize),
}

impl Unlike {
    /// In half of the worlds one is. What a clock says is as good as any other number: worlds stay what they
    /// were.
    pub fn choose(scenario: &Scenario) -> Unlike {
        let number = mix(scenario.clocks[0].0 ^ scenario.clocks[1].0.rotate_left(17));
        let node = (number >> 8) as usize % scenario.nodes;
        match number & 7 {
            0 | 1 => Unlike::OlderProgram(node),
            2 => Unlike::Small {
                node,
                until: scenario.calm_from / 2,
            },
            // Where laggards are let go all is never well again: nobody waits for it.
            3 if scenario.lag_policy() == LagPolicy::Slow => Unlike::Slow(node),
            _ => Unlike::None,
        }
    }
}

impl Scenario {
    /// The newest protocol that a host's program speaks.
    pub fn protocol(&self, node: usize) -> u32 {
        match self.unlike {
            Unlike::OlderProgram(older) if older == node => OLDEST_PROTOCOL_VERSION,
            _ => PROTOCOL_VERSION,
        }
    }

    /// What the machine needs of a host's speed.
    pub fn speed_needed(&self) -> u64 {
        SPEED_NEEDED
    }

    /// What a host has.
    pub fn facts(&self, node: usize, now: u64) -> HostFacts {
        let is_small = matches!(self.unlike, Unlike::Small { node: small, until } if small == node && now < until);
        let is_slow = self.unlike == Unlike::Slow(node);
        HostFacts {
            memory: if is_small {
                MACHINE_MEMORY - 1
            } else {
                MACHINE_MEMORY
            },
            cores: 2,
            speed: if is_slow {
                SPEED_NEEDED / 2
            } else {
                SPEED_NEEDED
            },
        }
    }
}

impl World {
    /// What a backup says when it joins. One that has not the memory for the machine had it not when it greeted.
    pub(crate) fn joiner_says(&mut self, node: usize, message: &Message) {
        match message {
            Message::Hello { protocol, .. } if *protocol < self.scenario.protocol(node) => {
                self.coverage.reached(Situation::OlderProtocolSpoken);
            }
            Message::Accept { .. }
                if self.scenario.facts(node, self.now).memory < MACHINE_MEMORY =>
            {
                self.violated(format!(
                    "node {node} has not the memory for the machine, and is sent it"
                ));
            }
            _ => {}
        }
    }

    /// What a primary said of a host that joins, or does not.
    pub(crate) fn fitness_told(&mut self, event: &Event) {
        match event {
            Event::JoinerIsSlow { .. } => self.coverage.reached(Situation::SlowJoinerTold),
            Event::RefusedBackup {
                refusal: Refusal::NoRoom(_),
                ..
            } => self.coverage.reached(Situation::RefusedForMemory),
            _ => {}
        }
    }
}
