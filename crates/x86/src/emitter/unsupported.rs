//! Hosts without compiled code.

use crate::bus::Bus;
use crate::cpu::Cpu;
use crate::interpreter::{Exit, Interpreter};
use crate::ram::Ram;

/// There is none.
pub(crate) enum Jit {}

impl Jit {
    /// None on this host.
    pub(crate) fn new() -> Option<Jit> {
        None
    }

    pub(crate) fn set_chaos(&mut self, _: Option<u64>) {
        match *self {}
    }

    pub(crate) fn set_paranoid(&mut self, _: bool) {
        match *self {}
    }

    pub(crate) fn forget(&mut self) {
        match *self {}
    }

    pub(crate) fn run(
        &mut self,
        _: &mut Interpreter,
        _: &mut Cpu,
        _: &mut Ram,
        _: &mut dyn Bus,
        _: &mut u64,
        _: u64,
    ) -> Exit {
        match *self {}
    }
}
