//! The ways of executing a guest, none of which it can see.
#![allow(dead_code)] // every target that includes this file uses its own part of it

use machine::Machine;
use machine::engine::Engine;
use riscv::RISCV64;

/// An engine, and what is done to its caches meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution {
    /// What executes.
    pub engine: Engine,
    /// The seed of `Machine::set_chaos`. An even one compiles code at its first execution.
    pub chaos: Option<u64>,
}

impl Execution {
    /// What all others have to equal.
    pub const REFERENCE: Execution = Execution {
        engine: Engine::Interpreter,
        chaos: None,
    };

    /// The reference first, then every other engine of this host: as it is, with all code hot at
    /// once, and with caches that are dropped at other places for every `seed`.
    pub fn all(seed: u64) -> Vec<Execution> {
        let mut all = vec![Execution::REFERENCE];
        all.extend(Execution::others(seed));
        all
    }

    /// [`Execution::all`] but the reference; none on hosts that the JIT does not know.
    pub fn others(seed: u64) -> impl Iterator<Item = Execution> {
        Engine::ALL
            .into_iter()
            .filter(|engine| {
                *engine != Engine::Interpreter && RISCV64.available(*engine) == *engine
            })
            .flat_map(move |engine| {
                [None, Some(seed << 1), Some(seed << 1 | 1)]
                    .map(|chaos| Execution { engine, chaos })
            })
    }

    /// The machine is executed so from here on. A restored machine has to be told again.
    pub fn apply(self, machine: &mut dyn Machine) {
        assert_eq!(
            machine.set_engine(self.engine),
            self.engine,
            "this host has no such engine"
        );
        machine.set_chaos(self.chaos);
    }
}
