//! What a rehearsal sees of the board: nothing that an access would change.

use crate::bus::Bus;
use crate::cpuid::Processor;
use crate::ram::Ram;

/// Tells what can be told without an effect, and remembers whether anything else was asked for.
pub struct RehearsalBus<'a> {
    board: &'a dyn Bus,
    was_touched: bool,
}

impl<'a> RehearsalBus<'a> {
    /// Before the rehearsal.
    pub fn new(board: &'a dyn Bus) -> RehearsalBus<'a> {
        RehearsalBus {
            board,
            was_touched: false,
        }
    }

    /// Whether an instruction wanted what has an effect: it was not rehearsed.
    pub fn was_touched(&self) -> bool {
        self.was_touched
    }

    /// Whether an interrupt is on offer.
    pub fn offers_interrupt(&self) -> bool {
        self.board.pending_interrupt().is_some() || self.board.has_nonmaskable_interrupt()
    }
}

impl Bus for RehearsalBus<'_> {
    fn read_device(&mut self, _: &mut Ram, _: u64, _: usize, _: u64) -> u64 {
        self.was_touched = true;
        0
    }

    fn write_device(&mut self, _: &mut Ram, _: u64, _: usize, _: u64, _: u64) {
        self.was_touched = true;
    }

    fn read_port(&mut self, _: &mut Ram, _: u16, _: usize, _: u64) -> u32 {
        self.was_touched = true;
        0
    }

    fn write_port(&mut self, _: &mut Ram, _: u16, _: usize, _: u32, _: u64) {
        self.was_touched = true;
    }

    fn processor(&self) -> Processor {
        self.board.processor()
    }

    fn has_nonmaskable_interrupt(&self) -> bool {
        self.board.has_nonmaskable_interrupt()
    }

    fn acknowledge_nonmaskable_interrupt(&mut self) {
        self.was_touched = true;
    }

    fn pending_interrupt(&self) -> Option<u8> {
        self.board.pending_interrupt()
    }

    fn acknowledge_interrupt(&mut self) -> u8 {
        self.was_touched = true;
        0
    }

    fn task_priority(&self) -> u8 {
        self.board.task_priority()
    }

    fn set_task_priority(&mut self, _: u8) {
        self.was_touched = true;
    }

    fn time_stamp_counter(&self, now: u64) -> u64 {
        self.board.time_stamp_counter(now)
    }

    fn set_time_stamp_counter(&mut self, _: u64, _: u64) {
        self.was_touched = true;
    }

    fn read_apic_msr(&mut self, _: u32, _: u64) -> Option<u64> {
        self.was_touched = true;
        Some(0)
    }

    fn write_apic_msr(&mut self, _: u32, _: u64, _: u64) -> Option<()> {
        self.was_touched = true;
        Some(())
    }

    fn wants_attention(&self) -> bool {
        false
    }
}
