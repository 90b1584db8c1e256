//! Whose turn it is: harts run one after the other, a slice of instructions each.
//!
//! A slice is long, because whoever begins one finds the host's caches, and what compiled code
//! remembers of translations, as another hart left them. So a hart that only waits for another one
//! does not run its slice to the end: `pause` ends it, and so does a software interrupt for another
//! hart, since the answer is often waited for.

use super::{Machine, lines};
use crate::board::clint;
use crate::hart::Hart;
use crate::hart::csr::envcfg;
use crate::hart::reservation::Reservation;

/// Instructions that a hart runs before the next one has its turn.
pub(super) const SLICE: u64 = 200_000;

impl Machine {
    /// How many harts besides the current one have a software interrupt: who raises one often waits
    /// for the answer.
    pub(super) fn others_called(&self) -> usize {
        let state = &self.state;
        (0..state.harts.len())
            .filter(|&hart| hart != state.current && state.bus.software_interrupt(hart))
            .count()
    }

    /// Makes a hart that can run the current one; false if all wait.
    pub(super) fn choose_hart(&mut self) -> bool {
        let state = &mut self.state;
        let harts = state.harts.len();
        let ticks = clint::ticks(state.clock.time_ns(state.count));
        let turn_is_over = harts > 1 && state.count >= state.slice_end;
        let first = if turn_is_over { 1 } else { 0 };
        for candidate in (first..first + harts).map(|i| (state.current + i) % harts) {
            let hart = &mut state.harts[candidate];
            if hart.waiting {
                let pending = hart.interrupts_pending(&lines(&state.bus, candidate), ticks);
                hart.waiting = pending & hart.csr.mie == 0;
            }
            if !hart.waiting {
                self.switch_to(candidate, turn_is_over);
                return true;
            }
        }
        false
    }

    fn switch_to(&mut self, next: usize, turn_is_over: bool) {
        let state = &mut self.state;
        if next != state.current {
            let [old, new] = state
                .harts
                .get_disjoint_mut([state.current, next])
                .expect("they are two harts of this machine");
            old.counters.stop(state.count);
            old.reservation = Reservation::NONE;
            new.counters.go_on(state.count);
            hand_over_translations(old, new);
        }
        if turn_is_over || next != state.current {
            state.slice_end = state.count + SLICE;
        }
        state.current = next;
    }
}

/// The TLB goes to the hart that runs: the others have empty ones. What it holds is keyed by `satp`
/// and the mode, and true of every hart that protects physical memory in the same way and reads
/// memory types alike.
fn hand_over_translations(old: &mut Hart, new: &mut Hart) {
    std::mem::swap(&mut old.tlb, &mut new.tlb);
    let has_memory_types = |hart: &Hart| hart.csr.menvcfg & envcfg::PBMTE != 0;
    if old.pmp != new.pmp || has_memory_types(old) != has_memory_types(new) {
        new.tlb.abandon_spaces();
    }
    new.update_translation_context();
}
