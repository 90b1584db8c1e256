//! String instructions. With a REP prefix each iteration counts as one instruction, and the run may end
//! between two of them: RIP then still points at the instruction.

use super::core::{Core, Raised};
use super::flags::DF;
use super::op::{Handler, Op, RIP};
use super::width::{Byte, Double, Quad, Width, Word, by_width};

/// `detail`: REP or REPE.
pub(super) const REPEAT: u8 = 1;
/// `detail`: REPNE.
pub(super) const REPEAT_NOT_EQUAL: u8 = 2;

const RSI: usize = 6;
const RDI: usize = 7;

/// One iteration, and whether the condition of REPE and REPNE looks at ZF.
trait Step: 'static {
    const COMPARES: bool = false;
    /// Whether it may be executed at all, even no time.
    fn is_allowed<W: Width>(_: &mut Core<'_>) -> Result<(), Raised> {
        Ok(())
    }
    fn step<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised>;
    /// Many iterations at once, where nothing can go wrong: how many were done, at most `most`.
    fn bulk<W: Width>(_: &mut Core<'_>, _: &Op, _most: u64) -> u64 {
        0
    }
}

fn pointer(core: &Core<'_>, op: &Op, register: usize) -> u64 {
    if op.is_address_32 {
        core.r[register] & 0xffff_ffff
    } else {
        core.r[register]
    }
}

fn source(core: &Core<'_>, op: &Op) -> u64 {
    let offset = pointer(core, op, RSI);
    if op.segment > 3 {
        core.in_segment(op, offset)
    } else {
        offset
    }
}

fn set_pointer(core: &mut Core<'_>, op: &Op, register: usize, value: u64) {
    if op.is_address_32 {
        Double::set(&mut core.r, register as u8, value);
    } else {
        core.r[register] = value;
    }
}

fn advance(core: &mut Core<'_>, op: &Op, register: usize, bytes: u64) {
    let value = pointer(core, op, register);
    let value = if core.flags & DF == 0 {
        value.wrapping_add(bytes)
    } else {
        value.wrapping_sub(bytes)
    };
    set_pointer(core, op, register, value);
}

/// Iterations that fit between an address and the end of its page, upwards.
fn fits<W: Width>(address: u64) -> u64 {
    (4096 - (address & 0xfff)) / W::SIZE as u64
}

struct Movs;
struct Stos;
struct Lods;
struct Cmps;
struct Scas;
struct Ins;
struct Outs;

impl Step for Movs {
    #[inline(always)]
    fn step<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
        let value = core.load::<W>(source(core, op))?;
        core.store::<W>(pointer(core, op, RDI), value)?;
        advance(core, op, RSI, W::SIZE as u64);
        advance(core, op, RDI, W::SIZE as u64);
        Ok(())
    }

    fn bulk<W: Width>(core: &mut Core<'_>, op: &Op, most: u64) -> u64 {
        let (from, to) = (source(core, op), pointer(core, op, RDI));
        let count = most.min(fits::<W>(from)).min(fits::<W>(to));
        let bytes = count * W::SIZE as u64;
        let (Some(physical_from), Some(physical_to)) = (
            core.tlb.read(from, 1, core.bank),
            core.tlb.write(to, 1, core.bank),
        ) else {
            return 0;
        };
        if physical_to > physical_from && physical_to - physical_from < bytes {
            // Overlapping forwards, the bytes repeat: one by one.
            return 0;
        }
        core.ram
            .copy_plain(physical_from, physical_to, bytes as usize);
        advance(core, op, RSI, bytes);
        advance(core, op, RDI, bytes);
        count
    }
}

impl Step for Stos {
    #[inline(always)]
    fn step<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
        let value = W::get(&core.r, 0);
        core.store::<W>(pointer(core, op, RDI), value)?;
        advance(core, op, RDI, W::SIZE as u64);
        Ok(())
    }

    fn bulk<W: Width>(core: &mut Core<'_>, op: &Op, most: u64) -> u64 {
        let to = pointer(core, op, RDI);
        let count = most.min(fits::<W>(to));
        let bytes = count * W::SIZE as u64;
        let Some(physical) = core.tlb.write(to, 1, core.bank) else {
            return 0;
        };
        let pattern = core.r[0].to_le_bytes();
        let target = core.ram.plain_bytes(physical, bytes as usize);
        for unit in target.chunks_exact_mut(W::SIZE) {
            unit.copy_from_slice(&pattern[..W::SIZE]);
        }
        advance(core, op, RDI, bytes);
        count
    }
}

impl Step for Lods {
    fn step<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
        let value = core.load::<W>(source(core, op))?;
        W::set(&mut core.r, 0, value);
        advance(core, op, RSI, W::SIZE as u64);
        Ok(())
    }
}

impl Step for Cmps {
    const COMPARES: bool = true;
    fn step<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
        let a = core.load::<W>(source(core, op))?;
        let b = core.load::<W>(pointer(core, op, RDI))?;
        super::alu::subtract::<W>(&mut core.status, a, b, 0);
        advance(core, op, RSI, W::SIZE as u64);
        advance(core, op, RDI, W::SIZE as u64);
        Ok(())
    }
}

impl Step for Scas {
    const COMPARES: bool = true;
    fn step<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
        let a = W::get(&core.r, 0);
        let b = core.load::<W>(pointer(core, op, RDI))?;
        super::alu::subtract::<W>(&mut core.status, a, b, 0);
        advance(core, op, RDI, W::SIZE as u64);
        Ok(())
    }
}

impl Step for Ins {
    fn is_allowed<W: Width>(core: &mut Core<'_>) -> Result<(), Raised> {
        let port = core.r[2] as u16;
        super::port::require(core, port, W::SIZE)
    }

    fn step<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
        let port = core.r[2] as u16;
        let to = pointer(core, op, RDI);
        core.check_store(to, W::SIZE as u64)?;
        let value = super::port::read(core, port, W::SIZE);
        core.store::<W>(to, value)?;
        advance(core, op, RDI, W::SIZE as u64);
        Ok(())
    }
}

impl Step for Outs {
    fn is_allowed<W: Width>(core: &mut Core<'_>) -> Result<(), Raised> {
        let port = core.r[2] as u16;
        super::port::require(core, port, W::SIZE)
    }

    fn step<W: Width>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
        let port = core.r[2] as u16;
        let value = core.load::<W>(source(core, op))?;
        super::port::write(core, port, W::SIZE, value);
        advance(core, op, RSI, W::SIZE as u64);
        Ok(())
    }
}

fn execute<W: Width, S: Step>(core: &mut Core<'_>, op: &Op) -> Result<(), Raised> {
    S::is_allowed::<W>(core)?;
    if op.detail & (REPEAT | REPEAT_NOT_EQUAL) == 0 {
        return S::step::<W>(core, op);
    }
    let mut left = pointer(core, op, 1);
    if left == 0 {
        return Ok(());
    }
    loop {
        // This iteration and those that fit before the run's end.
        let most = left.min(core.until - core.now);
        if !S::COMPARES && most > 8 && core.flags & DF == 0 {
            let done = S::bulk::<W>(core, op, most);
            if done > 0 {
                left -= done;
                set_pointer(core, op, 1, left);
                core.now += done - 1;
                if !goes_on(core, op, left) {
                    return Ok(());
                }
                continue;
            }
        }
        S::step::<W>(core, op)?;
        left -= 1;
        set_pointer(core, op, 1, left);
        let has_ended = S::COMPARES && core.status.zero() != (op.detail & REPEAT != 0);
        if has_ended || !goes_on(core, op, left) {
            return Ok(());
        }
    }
}

/// Whether the next iteration is to be done now; if not, RIP is where it has to be.
fn goes_on(core: &mut Core<'_>, op: &Op, left: u64) -> bool {
    if left == 0 {
        return false;
    }
    if core.now + 1 >= core.until || core.limit == 0 {
        // `limit` is zero when a device was touched or code was written.
        core.r[usize::from(RIP)] = core.rip().wrapping_sub(u64::from(op.length));
        core.limit = 0;
        return false;
    }
    core.now += 1;
    true
}

/// Which string instruction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    Movs,
    Stos,
    Lods,
    Cmps,
    Scas,
    Ins,
    Outs,
}

/// The handler of a string instruction.
pub(super) fn string(which: Which, size: usize) -> Handler {
    match which {
        Which::Movs => by_width!(size, W => execute::<W, Movs>),
        Which::Stos => by_width!(size, W => execute::<W, Stos>),
        Which::Lods => by_width!(size, W => execute::<W, Lods>),
        Which::Cmps => by_width!(size, W => execute::<W, Cmps>),
        Which::Scas => by_width!(size, W => execute::<W, Scas>),
        Which::Ins => by_width!(size, W => execute::<W, Ins>),
        Which::Outs => by_width!(size, W => execute::<W, Outs>),
    }
}
