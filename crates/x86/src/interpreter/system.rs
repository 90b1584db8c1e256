//! Instructions for system software (SDM volume 3, chapter 2.8 and where each is described).

use super::core::{Core, EFER_LMA, EFER_LME, Raised};
use super::flags::{AC, Status, ZF};
use super::op::Op;
use super::width::{Double, Quad, Width, Word};
use crate::cpu::{FS, GS, SS, Segment, Shadow};
use crate::fault::{Fault, SEGMENT_NOT_PRESENT};
use crate::mmu::{PHYSICAL_BITS, is_canonical};

const CR0_PE: u64 = 1;
const CR0_MP: u64 = 1 << 1;
const CR0_EM: u64 = 1 << 2;
const CR0_TS: u64 = 1 << 3;
const CR0_ET: u64 = 1 << 4;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
const CR0_DEFINED: u64 = 0xe005_003f;

const CR4_TSD: u64 = 1 << 2;
const CR4_PAE: u64 = 1 << 5;
const CR4_FSGSBASE: u64 = 1 << 16;
/// PVI and VME have no meaning here; DE, PSE, TSD, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT, FSGSBASE,
/// SMEP, SMAP.
const CR4_DEFINED: u64 = 0x31_07fc;
/// SMEP and SMAP: what the translations that are remembered rest on.
const CR4_TRANSLATES: u64 = 1 << 20 | 1 << 21;

/// Loads a segment register other than CS.
pub(super) fn load_segment(core: &mut Core<'_>, index: usize, selector: u16) -> Result<(), Raised> {
    if index == SS {
        let privilege = core.privilege();
        let segment = core.stack_segment(selector, privilege)?;
        core.set_stack_segment(segment);
        core.registers.shadow = Shadow::StackSegment;
        Ok(())
    } else {
        core.load_data_segment(index, selector)
    }
}

/// MOV to a segment register: `target` is the segment; `source` the register unless `detail` is 1.
pub(super) fn move_to_segment(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let selector = if op.detail == 1 {
        core.load::<Word>(core.address(op))?
    } else {
        core.r[usize::from(op.source & 15)]
    };
    load_segment(core, usize::from(op.target), selector as u16)
}

/// MOV from a segment register, STR, SLDT and SMSW: `source` 0 to 5 is the segment, then LDTR, TR, CR0;
/// `detail` is the size of the register, 0 for memory.
pub(super) fn store_selector(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = match op.source {
        6 => u64::from(core.registers.ldtr.selector),
        7 => u64::from(core.registers.tr.selector),
        8 => core.registers.cr0,
        index => u64::from(core.registers.segments[usize::from(index)].selector),
    };
    match op.detail {
        0 => core.store::<Word>(core.address(op), value & 0xffff)?,
        2 => Word::set(&mut core.r, op.target, value),
        4 => Double::set(&mut core.r, op.target, value),
        _ => Quad::set(&mut core.r, op.target, value),
    }
    Ok(())
}

/// POP of FS and GS: `target` is the segment, `detail` the operand size.
pub(super) fn pop_segment(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = match op.detail {
        2 => core.load::<Word>(core.r[4])?,
        4 => core.load::<Double>(core.r[4])?,
        _ => core.load::<Quad>(core.r[4])?,
    };
    load_segment(core, usize::from(op.target), value as u16)?;
    core.r[4] = core.r[4].wrapping_add(u64::from(op.detail));
    Ok(())
}

/// PUSH of FS and GS: `source` is the segment, `detail` the operand size.
pub(super) fn push_segment(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = u64::from(core.registers.segments[usize::from(op.source)].selector);
    match op.detail {
        2 => core.push::<Word>(value),
        4 => core.push::<Double>(value),
        _ => core.push::<Quad>(value),
    }
}

/// MOV from CRn: `source` is n.
pub(super) fn move_from_control(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    let value = match op.source {
        0 => core.registers.cr0,
        2 => core.registers.cr2,
        3 => core.registers.cr3,
        4 => core.registers.cr4,
        8 => u64::from(core.bus.task_priority()),
        _ => return Err(core.raise(Fault::INVALID_OPCODE)),
    };
    core.r[usize::from(op.target & 15)] = value;
    Ok(())
}

/// SDM volume 3, 10.8.5: long mode is left by 32-bit code that switches paging off, and begins where it is switched
/// on. Other kinds of paging there are none.
fn set_cr0(core: &mut Core<'_>, value: u64) -> Result<(), Raised> {
    let may_page = core.registers.efer & EFER_LME != 0 && core.registers.cr4 & CR4_PAE != 0;
    let pages = value & CR0_PG != 0;
    let is_wrong = value >> 32 != 0
        || value & CR0_PE == 0
        || value & (CR0_NW | CR0_CD) == CR0_NW
        || pages && !may_page
        || !pages && !core.is_compatibility;
    if is_wrong {
        return Err(core.general_protection());
    }
    let active = if pages { EFER_LMA } else { 0 };
    core.registers.efer = core.registers.efer & !EFER_LMA | active;
    core.registers.cr0 = value & CR0_DEFINED | CR0_ET;
    core.flush_translations();
    Ok(())
}

/// MOV to CRn: `target` is n.
pub(super) fn move_to_control(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    let value = core.r[usize::from(op.source & 15)];
    match op.target {
        0 => set_cr0(core, value)?,
        2 => core.registers.cr2 = value,
        3 => {
            if value >> PHYSICAL_BITS != 0 {
                return Err(core.general_protection());
            }
            core.set_root(value);
        }
        4 => {
            // SDM volume 3, 2.5: PAE may not be cleared in long mode; without paging it may.
            let needs_pae = core.is_in_long_mode() && value & CR4_PAE == 0;
            if value & !CR4_DEFINED != 0 || needs_pae {
                return Err(core.general_protection());
            }
            // Toggling PGE is how Linux flushes everything: here there is nothing to flush.
            let changed = std::mem::replace(&mut core.registers.cr4, value) ^ value;
            if changed & CR4_TRANSLATES != 0 {
                core.flush_translations();
            }
            core.mode_changed();
        }
        8 => {
            if value > 15 {
                return Err(core.general_protection());
            }
            core.bus.set_task_priority(value as u8);
            core.touched_device = true;
            core.limit = 0;
        }
        _ => return Err(core.raise(Fault::INVALID_OPCODE)),
    }
    Ok(())
}

const CR4_DE: u64 = 1 << 3;

fn debug_register(core: &mut Core<'_>, number: u8) -> Result<usize, Raised> {
    core.require_kernel()?;
    match number {
        4 | 5 if core.registers.cr4 & CR4_DE != 0 => Err(core.raise(Fault::INVALID_OPCODE)),
        4 | 5 => Ok(usize::from(number) + 2),
        _ => Ok(usize::from(number)),
    }
}

/// MOV from DRn: `source` is n.
pub(super) fn move_from_debug(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let value = match debug_register(core, op.source)? {
        6 => core.registers.dr6,
        7 => core.registers.dr7,
        number => core.registers.debug_address[number],
    };
    core.r[usize::from(op.target & 15)] = value;
    Ok(())
}

/// MOV to DRn: `target` is n. Breakpoints are kept and never hit.
pub(super) fn move_to_debug(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let number = debug_register(core, op.target)?;
    let value = core.r[usize::from(op.source & 15)];
    if number >= 6 && value >> 32 != 0 {
        return Err(core.general_protection());
    }
    match number {
        6 => core.registers.dr6 = value & 0xe00f | 0xffff_0ff0,
        7 => core.registers.dr7 = value & 0xffff_2fff | 0x400,
        number => core.registers.debug_address[number] = value,
    }
    Ok(())
}

/// LMSW: `source` is the register unless `detail` is 1.
pub(super) fn load_machine_status(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    let value = if op.detail == 1 {
        core.load::<Word>(core.address(op))?
    } else {
        core.r[usize::from(op.source & 15)]
    };
    let settable = CR0_MP | CR0_EM | CR0_TS;
    core.registers.cr0 = core.registers.cr0 & !settable | value & settable;
    Ok(())
}

/// CLTS.
pub(super) fn clear_task_switched(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    core.registers.cr0 &= !CR0_TS;
    Ok(())
}

/// LGDT and LIDT: `detail` 0 and 1.
pub(super) fn load_table(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    let address = core.address(op);
    let limit = core.load::<Word>(address)? as u16;
    let base = if core.is_compatibility {
        core.load::<Double>(address.wrapping_add(2))?
    } else {
        core.load::<Quad>(address.wrapping_add(2))?
    };
    if !is_canonical(base) {
        return Err(core.general_protection());
    }
    let table = if op.detail == 0 {
        &mut core.registers.gdtr
    } else {
        &mut core.registers.idtr
    };
    table.limit = limit;
    table.base = base;
    Ok(())
}

/// SGDT and SIDT: `detail` 0 and 1.
pub(super) fn store_table(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let address = core.address(op);
    let table = if op.detail == 0 {
        core.registers.gdtr
    } else {
        core.registers.idtr
    };
    core.check_store(address, 10)?;
    core.store::<Word>(address, u64::from(table.limit))?;
    core.store::<Quad>(address.wrapping_add(2), table.base)
}

/// LLDT and LTR: `detail` bit 0 is memory, bit 1 is LTR.
pub(super) fn load_system_segment(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    let selector = if op.detail & 1 != 0 {
        core.load::<Word>(core.address(op))?
    } else {
        core.r[usize::from(op.source & 15)]
    } as u16;
    let is_task = op.detail & 2 != 0;
    if super::segment::is_null(selector) {
        if is_task {
            return Err(core.general_protection());
        }
        core.registers.ldtr = Segment {
            selector,
            ..Segment::default()
        };
        return Ok(());
    }
    if selector & 4 != 0 {
        return Err(core.selector_fault(selector));
    }
    let address = core.descriptor_address(selector, 16)?;
    let low = core.load_system(address, 8)?;
    let high = core.load_system(address.wrapping_add(8), 8)?;
    let mut segment = Segment::from_descriptor(selector, low);
    segment.base |= high << 32;
    let wanted = if is_task { 9 } else { 2 };
    if !segment.is_system() || segment.kind() != wanted || !is_canonical(segment.base) {
        return Err(core.selector_fault(selector));
    }
    if !segment.is_present() {
        let code = u32::from(selector & !3);
        return Err(core.raise(Fault::with_code(SEGMENT_NOT_PRESENT, code)));
    }
    if is_task {
        // Busy.
        core.store_system(address, 8, low | 1 << 41)?;
        segment.attributes |= 2;
        core.registers.tr = segment;
    } else {
        core.registers.ldtr = segment;
    }
    Ok(())
}

/// INVLPG: every access behaves as if freshly walked, so nothing is left to do.
pub(super) fn invalidate_page(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    core.require_kernel()
}

/// INVD and WBINVD: memory is always coherent.
pub(super) fn write_back(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    core.require_kernel()
}

/// HLT.
pub(super) fn halt(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    core.registers.is_halted = true;
    core.check_interrupts = true;
    Ok(())
}

/// PAUSE: who waits for another CPU lets it run.
pub(super) fn pause(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    if core.bus.processor().of > 1 {
        core.turn_is_over = true;
        core.limit = 0;
    }
    Ok(())
}

/// SWAPGS.
pub(super) fn swap_gs(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    std::mem::swap(
        &mut core.registers.segments[GS].base,
        &mut core.registers.kernel_gs_base,
    );
    Ok(())
}

/// CLAC and STAC: `detail` 0, 1.
pub(super) fn change_alignment_check(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    if core.privilege() != 0 {
        return Err(core.raise(Fault::INVALID_OPCODE));
    }
    if op.detail == 0 {
        core.flags &= !AC;
    } else {
        core.flags |= AC;
    }
    core.bank = core.tlb.bank_of(core.data_mode());
    Ok(())
}

/// RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: `detail` bit 0 is GS, bit 1 a write, bit 2 of 64 bits;
/// `target` is the register.
pub(super) fn segment_base(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    if core.registers.cr4 & CR4_FSGSBASE == 0 {
        return Err(core.raise(Fault::INVALID_OPCODE));
    }
    let segment = if op.detail & 1 != 0 { GS } else { FS };
    let is_wide = op.detail & 4 != 0;
    if op.detail & 2 == 0 {
        let base = core.registers.segments[segment].base;
        if is_wide {
            Quad::set(&mut core.r, op.target, base);
        } else {
            Double::set(&mut core.r, op.target, base);
        }
        return Ok(());
    }
    let base = if is_wide {
        Quad::get(&core.r, op.target)
    } else {
        Double::get(&core.r, op.target)
    };
    if !is_canonical(base) {
        return Err(core.general_protection());
    }
    core.registers.segments[segment].base = base;
    Ok(())
}

/// RDTSC; RDTSCP with `detail` 1.
pub(super) fn read_time_stamp(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    if core.registers.cr4 & CR4_TSD != 0 && core.privilege() != 0 {
        return Err(core.general_protection());
    }
    let value = core.bus.time_stamp_counter(core.now);
    core.r[0] = value & 0xffff_ffff;
    core.r[2] = value >> 32;
    if op.detail == 1 {
        core.r[1] = core.registers.tsc_aux & 0xffff_ffff;
    }
    Ok(())
}

/// RDPMC: no counter is announced.
pub(super) fn read_performance_counter(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    Err(core.general_protection())
}

/// CPUID.
pub(super) fn identify(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    let processor = core.bus.processor();
    let leaf = crate::cpuid::leaf(core.r[0] as u32, core.r[1] as u32, processor);
    for (register, value) in [(0, leaf.eax), (3, leaf.ebx), (1, leaf.ecx), (2, leaf.edx)] {
        core.r[register] = u64::from(value);
    }
    Ok(())
}

/// RDMSR.
pub(super) fn read_msr(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    let index = core.r[1] as u32;
    match super::msr::read(core, index) {
        Some(value) => {
            core.r[0] = value & 0xffff_ffff;
            core.r[2] = value >> 32;
            Ok(())
        }
        None => Err(core.general_protection()),
    }
}

/// WRMSR.
pub(super) fn write_msr(core: &mut Core<'_>, _: &Op) -> Result<(), Raised> {
    core.require_kernel()?;
    let index = core.r[1] as u32;
    let value = core.r[2] << 32 | core.r[0] & 0xffff_ffff;
    match super::msr::write(core, index, value) {
        Some(()) => Ok(()),
        None => Err(core.general_protection()),
    }
}

fn selector_operand(core: &mut Core<'_>, op: &Op) -> Result<u16, Raised> {
    Ok(if op.source == 255 {
        core.load::<Word>(core.address(op))?
    } else {
        core.r[usize::from(op.source & 15)]
    } as u16)
}

/// LAR and LSL: `detail` bit 7 is LSL, the rest the operand size; `source` 255 is memory.
pub(super) fn look_at_segment(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let selector = selector_operand(core, op)?;
    let seen = if op.detail & 0x80 != 0 {
        core.segment_limit(selector)?
    } else {
        core.access_rights(selector)?
    };
    let flags = core.status.to_flags() & !ZF;
    match seen {
        Some(value) => {
            match op.detail & 0x7f {
                2 => Word::set(&mut core.r, op.target, value),
                _ => Double::set(&mut core.r, op.target, value),
            }
            core.status = Status::from_flags(flags | ZF);
        }
        None => core.status = Status::from_flags(flags),
    }
    Ok(())
}

/// VERR and VERW: `detail` 0, 1; `source` 255 is memory.
pub(super) fn verify_segment(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    let selector = selector_operand(core, op)?;
    let flags = core.status.to_flags() & !ZF;
    let verified = core.can_access(selector, op.detail == 1)?;
    core.status = Status::from_flags(flags | if verified { ZF } else { 0 });
    Ok(())
}
