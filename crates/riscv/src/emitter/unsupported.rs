//! In place of the JIT, on hosts for which there is no emitter.

use crate::interpreter::block::BlockCache;
use crate::interpreter::environment::Environment;
use machine::input::InstructionCount;

/// There is none.
pub enum Jit {}

impl Jit {
    /// There is no emitter for this host.
    pub fn new() -> Option<Jit> {
        None
    }

    /// Never called.
    pub fn run(&mut self, _: &mut BlockCache, _: &mut Environment, _: InstructionCount) {
        match *self {}
    }

    /// Never called.
    pub fn set_chaos(&mut self, _: Option<u64>) {
        match *self {}
    }

    /// Never called.
    pub fn set_paranoid(&mut self, _: bool) {
        match *self {}
    }
}
