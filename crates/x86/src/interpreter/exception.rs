//! Delivery of exceptions and interrupts in 64-bit mode (SDM volume 3, 6.14).

use super::core::{Core, Raised};
use super::flags::{IF, NT, RF, TF, VM};
use crate::cpu::{CS, SS, Segment, Shadow};
use crate::fault::{
    BREAKPOINT, DEBUG, DIVIDE_ERROR, DOUBLE_FAULT, Fault, GENERAL_PROTECTION, INVALID_TSS,
    PAGE_FAULT, SEGMENT_NOT_PRESENT, STACK_FAULT,
};

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A fault: RF is set in the saved flags.
    Fault,
    /// A trap: #DB after an instruction.
    Trap,
    /// INT n, INT3: the gate's DPL counts.
    Software,
    /// An interrupt.
    External,
}

/// A fault could not be delivered, nor the double fault: the machine resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TripleFault;

fn is_contributory(vector: u8) -> bool {
    matches!(
        vector,
        DIVIDE_ERROR | INVALID_TSS | SEGMENT_NOT_PRESENT | STACK_FAULT | GENERAL_PROTECTION
    )
}

/// What becomes of a fault during the delivery of `first` (SDM volume 3, table 6-5).
fn combine(first: Fault, second: Fault) -> Result<Fault, TripleFault> {
    let serious = is_contributory(second.vector) || second.vector == PAGE_FAULT;
    if first.vector == DOUBLE_FAULT && serious {
        return Err(TripleFault);
    }
    let doubles = is_contributory(first.vector) && is_contributory(second.vector)
        || first.vector == PAGE_FAULT && serious;
    if doubles {
        Ok(Fault::with_code(DOUBLE_FAULT, 0))
    } else {
        Ok(second)
    }
}

impl Core<'_> {
    /// Delivers a fault of the instruction at RIP, with all that its delivery may raise.
    pub(crate) fn deliver_fault(&mut self, fault: Fault) -> Result<(), TripleFault> {
        if self.has_shut_down {
            return Err(TripleFault);
        }
        let cause = match fault.vector {
            DEBUG | BREAKPOINT => Cause::Trap,
            _ => Cause::Fault,
        };
        self.deliver_all(fault, cause)
    }

    /// Delivers an interrupt.
    pub(super) fn deliver_interrupt(&mut self, vector: u8) -> Result<(), TripleFault> {
        self.deliver_all(Fault::plain(vector), Cause::External)
    }

    fn deliver_all(&mut self, fault: Fault, cause: Cause) -> Result<(), TripleFault> {
        self.registers.shadow = Shadow::None;
        self.registers.is_halted = false;
        let (mut fault, mut cause) = (fault, cause);
        loop {
            if fault.vector == PAGE_FAULT && cause == Cause::Fault {
                self.registers.cr2 = fault.address;
            }
            match self.deliver(fault.vector, fault.error_code, cause) {
                Ok(()) => return Ok(()),
                Err(Raised) => {
                    let first = if cause == Cause::External {
                        Fault::plain(BREAKPOINT) // benign, whatever its number
                    } else {
                        fault
                    };
                    fault = combine(first, self.raised)?;
                    cause = Cause::Fault;
                }
            }
        }
    }

    /// One delivery. On an error nothing has changed.
    pub(super) fn deliver(
        &mut self,
        vector: u8,
        error_code: Option<u32>,
        cause: Cause,
    ) -> Result<(), Raised> {
        if !self.is_in_long_mode() {
            // Tables of another kind would be asked: such code takes no event, and shuts down with the first.
            return Err(self.general_protection());
        }
        let external = u32::from(cause != Cause::Software);
        let code = u32::from(vector) * 8 + 2 + external;
        let idtr = self.registers.idtr;
        if u32::from(vector) * 16 + 15 > u32::from(idtr.limit) {
            return Err(self.raise(Fault::with_code(GENERAL_PROTECTION, code)));
        }
        let at = idtr.base.wrapping_add(u64::from(vector) * 16);
        let low = self.load_system(at, 8)?;
        let high = self.load_system(at.wrapping_add(8), 8)?;
        let kind = low >> 40 & 0x1f;
        let gate_privilege = (low >> 45 & 3) as u8;
        let is_forbidden = cause == Cause::Software && gate_privilege < self.privilege();
        if !matches!(kind, 14 | 15) || is_forbidden {
            return Err(self.raise(Fault::with_code(GENERAL_PROTECTION, code)));
        }
        if low >> 47 & 1 == 0 {
            return Err(self.raise(Fault::with_code(SEGMENT_NOT_PRESENT, code)));
        }
        let target = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        let (segment, privilege) = self.gate_segment((low >> 16) as u16, external)?;
        let interrupt_stack = low >> 32 & 7;
        let top = self.delivery_stack(interrupt_stack, privilege)? & !15;

        let mut saved = self.rflags();
        if cause == Cause::Fault {
            saved |= RF;
        }
        let frame = [
            u64::from(self.registers.segments[SS].selector),
            self.r[4],
            saved,
            u64::from(self.registers.segments[CS].selector),
            self.rip(),
        ];
        let mut rsp = top;
        for value in frame.into_iter().chain(error_code.map(u64::from)) {
            rsp = rsp.wrapping_sub(8);
            self.store_system(rsp, 8, value)?;
        }
        if !crate::mmu::is_canonical(target) {
            return Err(self.general_protection());
        }

        if privilege != self.privilege() {
            self.set_stack_segment(Segment {
                selector: u16::from(privilege),
                ..Segment::default()
            });
        }
        self.flags &= !(TF | NT | RF | VM);
        if kind == 14 {
            self.flags &= !IF;
        }
        self.has_delivered = true;
        self.r[4] = rsp;
        self.r[usize::from(super::op::RIP)] = target;
        self.set_code_segment(segment);
        Ok(())
    }

    /// The gate's code segment and the privilege in it.
    fn gate_segment(&mut self, selector: u16, external: u32) -> Result<(Segment, u8), Raised> {
        if super::segment::is_null(selector) {
            return Err(self.raise(Fault::with_code(GENERAL_PROTECTION, external)));
        }
        let mut segment = self.descriptor(selector)?;
        let current = self.privilege();
        if !segment.is_long_code() || segment.privilege() > current {
            let code = u32::from(selector & !3) | external;
            return Err(self.raise(Fault::with_code(GENERAL_PROTECTION, code)));
        }
        if !segment.is_present() {
            let code = u32::from(selector & !3) | external;
            return Err(self.raise(Fault::with_code(SEGMENT_NOT_PRESENT, code)));
        }
        let privilege = if segment.is_conforming() {
            current
        } else {
            segment.privilege()
        };
        segment.selector = selector & !3 | u16::from(privilege);
        Ok((segment, privilege))
    }

    /// The stack that an event is delivered on, before it is aligned.
    fn delivery_stack(&mut self, interrupt_stack: u64, privilege: u8) -> Result<u64, Raised> {
        let offset = if interrupt_stack != 0 {
            0x1c + interrupt_stack * 8
        } else if privilege < self.privilege() {
            4 + u64::from(privilege) * 8
        } else {
            return Ok(self.r[4]);
        };
        let tr = self.registers.tr;
        if offset + 7 > u64::from(tr.limit) {
            let code = u32::from(tr.selector & !3);
            return Err(self.raise(Fault::with_code(INVALID_TSS, code)));
        }
        let rsp = self.load_system(tr.base.wrapping_add(offset), 8)?;
        if !crate::mmu::is_canonical(rsp) {
            return Err(self.raise(Fault::STACK));
        }
        Ok(rsp)
    }
}
