//! The integer instructions, loads and stores, and the dispatch to all others.

use super::block::DecodedOp;
use super::environment::Environment;
use super::{atomic, cache_block, float, system};
use crate::hart::trap::{Cause, Exception};
use crate::isa::Op;

/// What `.uw` instructions take of rs1.
const LOW_WORD: u64 = 0xffff_ffff;

/// How a run of instructions ended. Except after an exception, `hart.pc` is that of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With the last instruction, which did not branch.
    FallThrough,
    /// With a direct branch or jump that was taken.
    Taken,
    /// With anything else.
    Other,
    /// The instruction at `hart.pc` raised an exception; it is not among the executed ones.
    Exception(Exception),
}

/// Executes `ops`, the first of which is at `hart.pc`, until one leaves the block, raises an
/// exception or asks for attention. Gives the number of instructions executed.
#[allow(clippy::too_many_lines)] // one arm an instruction: a table, not a function
pub fn execute(environment: &mut Environment, ops: &[DecodedOp]) -> (usize, Exit) {
    let base = environment.hart.pc;

    macro_rules! x {
        ($index:expr) => {
            environment.hart.x.get($index)
        };
    }
    macro_rules! leave {
        ($index:expr, $op:expr, $exit:expr) => {{
            environment.hart.pc = base.wrapping_add(u64::from($op.offset) + u64::from($op.length));
            return ($index + 1, $exit);
        }};
    }
    macro_rules! raise {
        ($index:expr, $op:expr, $exception:expr) => {{
            environment.hart.pc = base.wrapping_add(u64::from($op.offset));
            return ($index, Exit::Exception($exception));
        }};
    }

    for (index, op) in ops.iter().enumerate() {
        let immediate = op.immediate as i64 as u64;
        macro_rules! set {
            ($value:expr) => {{
                let value = $value;
                environment.hart.x.set_mapped(op.rd, value);
            }};
        }
        macro_rules! address {
            () => {
                x!(op.rs1).wrapping_add(immediate)
            };
        }
        macro_rules! load {
            ($load:ident, $type:ty, $value:ident => $target:expr) => {{
                const SIZE: usize = size_of::<$type>();
                let address = address!();
                let known = environment
                    .hart
                    .tlb
                    .load
                    .lookup(address, environment.hart.tlb.data_context);
                match known {
                    Some(offset) if address & 0xfff <= 0x1000 - SIZE as u64 => {
                        let $value = environment.memory.$load(offset);
                        $target
                    }
                    _ => match environment.load_slow(address, SIZE, index) {
                        Ok(value) => {
                            let $value = value as $type;
                            $target;
                            if environment.attention {
                                leave!(index, op, Exit::Other)
                            }
                        }
                        Err(exception) => raise!(index, op, exception),
                    },
                }
            }};
        }
        macro_rules! store {
            ($store:ident, $type:ty, $value:expr) => {{
                const SIZE: usize = size_of::<$type>();
                let address = address!();
                let value = $value;
                let known = environment
                    .hart
                    .tlb
                    .store
                    .lookup(address, environment.hart.tlb.data_context);
                match known {
                    Some(offset) if address & 0xfff <= 0x1000 - SIZE as u64 => {
                        environment.memory.$store(offset, value as $type);
                    }
                    _ => match environment.store_slow(address, SIZE, value, index) {
                        Ok(()) => {
                            if environment.attention {
                                leave!(index, op, Exit::Other)
                            }
                        }
                        Err(exception) => raise!(index, op, exception),
                    },
                }
            }};
        }
        macro_rules! branch {
            ($condition:expr) => {{
                let taken = $condition;
                if taken {
                    environment.hart.pc = base
                        .wrapping_add(u64::from(op.offset))
                        .wrapping_add(immediate);
                    return (index + 1, Exit::Taken);
                }
                leave!(index, op, Exit::FallThrough)
            }};
        }
        macro_rules! float_store {
            ($store:ident, $type:ty) => {{
                if !environment.hart.csr.float_is_on() {
                    raise!(index, op, illegal(environment, base, op))
                }
                store!($store, $type, environment.hart.f[op.rs2 as usize & 31])
            }};
        }
        macro_rules! float_load {
            ($load:ident, $type:ty, $value:ident => $boxed:expr) => {{
                if !environment.hart.csr.float_is_on() {
                    raise!(index, op, illegal(environment, base, op))
                }
                load!($load, $type, $value => {
                    environment.hart.f[op.rd as usize & 31] = $boxed;
                    environment.hart.csr.float_is_dirty();
                })
            }};
        }

        match op.op {
            Op::Lui => set!(immediate),
            Op::Auipc => set!(
                base.wrapping_add(u64::from(op.offset))
                    .wrapping_add(immediate)
            ),
            Op::Jal => {
                let pc = base.wrapping_add(u64::from(op.offset));
                set!(pc.wrapping_add(u64::from(op.length)));
                environment.hart.pc = pc.wrapping_add(immediate);
                return (index + 1, Exit::Taken);
            }
            Op::Jalr => {
                let target = address!() & !1;
                set!(base.wrapping_add(u64::from(op.offset) + u64::from(op.length)));
                environment.hart.pc = target;
                return (index + 1, Exit::Other);
            }
            Op::Beq => branch!(x!(op.rs1) == x!(op.rs2)),
            Op::Bne => branch!(x!(op.rs1) != x!(op.rs2)),
            Op::Blt => branch!((x!(op.rs1) as i64) < x!(op.rs2) as i64),
            Op::Bge => branch!(x!(op.rs1) as i64 >= x!(op.rs2) as i64),
            Op::Bltu => branch!(x!(op.rs1) < x!(op.rs2)),
            Op::Bgeu => branch!(x!(op.rs1) >= x!(op.rs2)),
            Op::Lb => load!(load_u8, u8, v => set!(v as i8 as i64 as u64)),
            Op::Lh => load!(load_u16, u16, v => set!(v as i16 as i64 as u64)),
            Op::Lw => load!(load_u32, u32, v => set!(v as i32 as i64 as u64)),
            Op::Ld => load!(load_u64, u64, v => set!(v)),
            Op::Lbu => load!(load_u8, u8, v => set!(u64::from(v))),
            Op::Lhu => load!(load_u16, u16, v => set!(u64::from(v))),
            Op::Lwu => load!(load_u32, u32, v => set!(u64::from(v))),
            Op::Sb => store!(store_u8, u8, x!(op.rs2)),
            Op::Sh => store!(store_u16, u16, x!(op.rs2)),
            Op::Sw => store!(store_u32, u32, x!(op.rs2)),
            Op::Sd => store!(store_u64, u64, x!(op.rs2)),
            Op::Addi => set!(x!(op.rs1).wrapping_add(immediate)),
            Op::Slti => set!(u64::from((x!(op.rs1) as i64) < immediate as i64)),
            Op::Sltiu => set!(u64::from(x!(op.rs1) < immediate)),
            Op::Xori => set!(x!(op.rs1) ^ immediate),
            Op::Ori => set!(x!(op.rs1) | immediate),
            Op::Andi => set!(x!(op.rs1) & immediate),
            Op::Slli => set!(x!(op.rs1) << (immediate & 63)),
            Op::Srli => set!(x!(op.rs1) >> (immediate & 63)),
            Op::Srai => set!((x!(op.rs1) as i64 >> (immediate & 63)) as u64),
            Op::Add => set!(x!(op.rs1).wrapping_add(x!(op.rs2))),
            Op::Sub => set!(x!(op.rs1).wrapping_sub(x!(op.rs2))),
            Op::Sll => set!(x!(op.rs1) << (x!(op.rs2) & 63)),
            Op::Slt => set!(u64::from((x!(op.rs1) as i64) < x!(op.rs2) as i64)),
            Op::Sltu => set!(u64::from(x!(op.rs1) < x!(op.rs2))),
            Op::Xor => set!(x!(op.rs1) ^ x!(op.rs2)),
            Op::Srl => set!(x!(op.rs1) >> (x!(op.rs2) & 63)),
            Op::Sra => set!((x!(op.rs1) as i64 >> (x!(op.rs2) & 63)) as u64),
            Op::Or => set!(x!(op.rs1) | x!(op.rs2)),
            Op::And => set!(x!(op.rs1) & x!(op.rs2)),
            Op::Addiw => set!(word((x!(op.rs1) as u32).wrapping_add(immediate as u32))),
            Op::Slliw => set!(word((x!(op.rs1) as u32) << (immediate & 31))),
            Op::Srliw => set!(word(x!(op.rs1) as u32 >> (immediate & 31))),
            Op::Sraiw => set!(word((x!(op.rs1) as i32 >> (immediate & 31)) as u32)),
            Op::Addw => set!(word((x!(op.rs1) as u32).wrapping_add(x!(op.rs2) as u32))),
            Op::Subw => set!(word((x!(op.rs1) as u32).wrapping_sub(x!(op.rs2) as u32))),
            Op::Sllw => set!(word((x!(op.rs1) as u32) << (x!(op.rs2) & 31))),
            Op::Srlw => set!(word(x!(op.rs1) as u32 >> (x!(op.rs2) & 31))),
            Op::Sraw => set!(word((x!(op.rs1) as i32 >> (x!(op.rs2) & 31)) as u32)),
            Op::Fence => {} // one thread executes everything in order
            Op::Mul => set!(x!(op.rs1).wrapping_mul(x!(op.rs2))),
            Op::Mulh => {
                set!(((i128::from(x!(op.rs1) as i64) * i128::from(x!(op.rs2) as i64)) >> 64) as u64)
            }
            Op::Mulhsu => {
                set!(((i128::from(x!(op.rs1) as i64) * i128::from(x!(op.rs2))) >> 64) as u64)
            }
            Op::Mulhu => set!(((u128::from(x!(op.rs1)) * u128::from(x!(op.rs2))) >> 64) as u64),
            Op::Div => set!(divide(x!(op.rs1) as i64, x!(op.rs2) as i64)),
            Op::Divu => set!(x!(op.rs1).checked_div(x!(op.rs2)).unwrap_or(u64::MAX)),
            Op::Rem => set!(remainder(x!(op.rs1) as i64, x!(op.rs2) as i64)),
            Op::Remu => set!(x!(op.rs1).checked_rem(x!(op.rs2)).unwrap_or(x!(op.rs1))),
            Op::Mulw => set!(word((x!(op.rs1) as u32).wrapping_mul(x!(op.rs2) as u32))),
            Op::Divw => {
                set!(word(
                    divide(x!(op.rs1) as i32 as i64, x!(op.rs2) as i32 as i64) as u32
                ))
            }
            Op::Divuw => set!(word(
                (x!(op.rs1) as u32)
                    .checked_div(x!(op.rs2) as u32)
                    .unwrap_or(u32::MAX)
            )),
            Op::Remw => {
                set!(word(
                    remainder(x!(op.rs1) as i32 as i64, x!(op.rs2) as i32 as i64) as u32
                ))
            }
            Op::Remuw => set!(word(
                (x!(op.rs1) as u32)
                    .checked_rem(x!(op.rs2) as u32)
                    .unwrap_or(x!(op.rs1) as u32)
            )),
            Op::AddUw => set!((x!(op.rs1) & LOW_WORD).wrapping_add(x!(op.rs2))),
            Op::Sh1add => set!((x!(op.rs1) << 1).wrapping_add(x!(op.rs2))),
            Op::Sh2add => set!((x!(op.rs1) << 2).wrapping_add(x!(op.rs2))),
            Op::Sh3add => set!((x!(op.rs1) << 3).wrapping_add(x!(op.rs2))),
            Op::Sh1addUw => set!(((x!(op.rs1) & LOW_WORD) << 1).wrapping_add(x!(op.rs2))),
            Op::Sh2addUw => set!(((x!(op.rs1) & LOW_WORD) << 2).wrapping_add(x!(op.rs2))),
            Op::Sh3addUw => set!(((x!(op.rs1) & LOW_WORD) << 3).wrapping_add(x!(op.rs2))),
            Op::SlliUw => set!((x!(op.rs1) & LOW_WORD) << (immediate & 63)),
            Op::Andn => set!(x!(op.rs1) & !x!(op.rs2)),
            Op::Orn => set!(x!(op.rs1) | !x!(op.rs2)),
            Op::Xnor => set!(!(x!(op.rs1) ^ x!(op.rs2))),
            Op::Clz => set!(x!(op.rs1).leading_zeros().into()),
            Op::Ctz => set!(x!(op.rs1).trailing_zeros().into()),
            Op::Cpop => set!(x!(op.rs1).count_ones().into()),
            Op::Clzw => set!((x!(op.rs1) as u32).leading_zeros().into()),
            Op::Ctzw => set!((x!(op.rs1) as u32).trailing_zeros().into()),
            Op::Cpopw => set!((x!(op.rs1) as u32).count_ones().into()),
            Op::Max => set!((x!(op.rs1) as i64).max(x!(op.rs2) as i64) as u64),
            Op::Maxu => set!(x!(op.rs1).max(x!(op.rs2))),
            Op::Min => set!((x!(op.rs1) as i64).min(x!(op.rs2) as i64) as u64),
            Op::Minu => set!(x!(op.rs1).min(x!(op.rs2))),
            Op::SextB => set!(x!(op.rs1) as i8 as i64 as u64),
            Op::SextH => set!(x!(op.rs1) as i16 as i64 as u64),
            Op::ZextH => set!(x!(op.rs1) & 0xffff),
            Op::Rol => set!(x!(op.rs1).rotate_left(x!(op.rs2) as u32 & 63)),
            Op::Ror => set!(x!(op.rs1).rotate_right(x!(op.rs2) as u32 & 63)),
            Op::Rori => set!(x!(op.rs1).rotate_right(immediate as u32 & 63)),
            Op::Rolw => set!(word(
                (x!(op.rs1) as u32).rotate_left(x!(op.rs2) as u32 & 31)
            )),
            Op::Rorw => set!(word(
                (x!(op.rs1) as u32).rotate_right(x!(op.rs2) as u32 & 31)
            )),
            Op::Roriw => set!(word(
                (x!(op.rs1) as u32).rotate_right(immediate as u32 & 31)
            )),
            Op::OrcB => set!(or_combine_bytes(x!(op.rs1))),
            Op::Rev8 => set!(x!(op.rs1).swap_bytes()),
            Op::Bclr => set!(x!(op.rs1) & !(1 << (x!(op.rs2) & 63))),
            Op::Bext => set!(x!(op.rs1) >> (x!(op.rs2) & 63) & 1),
            Op::Binv => set!(x!(op.rs1) ^ 1 << (x!(op.rs2) & 63)),
            Op::Bset => set!(x!(op.rs1) | 1 << (x!(op.rs2) & 63)),
            Op::Bclri => set!(x!(op.rs1) & !(1 << (immediate & 63))),
            Op::Bexti => set!(x!(op.rs1) >> (immediate & 63) & 1),
            Op::Binvi => set!(x!(op.rs1) ^ 1 << (immediate & 63)),
            Op::Bseti => set!(x!(op.rs1) | 1 << (immediate & 63)),
            Op::Clmul => set!(carry_less_product(x!(op.rs1), x!(op.rs2)) as u64),
            Op::Clmulh => set!((carry_less_product(x!(op.rs1), x!(op.rs2)) >> 64) as u64),
            Op::Clmulr => set!((carry_less_product(x!(op.rs1), x!(op.rs2)) >> 63) as u64),
            Op::CzeroEqz => set!(if x!(op.rs2) == 0 { 0 } else { x!(op.rs1) }),
            Op::CzeroNez => set!(if x!(op.rs2) == 0 { x!(op.rs1) } else { 0 }),
            Op::CboInval | Op::CboClean | Op::CboFlush | Op::CboZero => {
                if !cache_block::is_allowed(environment.hart, op.op) {
                    raise!(index, op, illegal(environment, base, op))
                }
                match cache_block::execute(environment, op) {
                    Ok(()) => {
                        if environment.attention {
                            leave!(index, op, Exit::Other)
                        }
                    }
                    Err(exception) => raise!(index, op, exception),
                }
            }
            Op::Flw => float_load!(load_u32, u32, v => crate::float::box_f32(v)),
            Op::Fld => float_load!(load_u64, u64, v => v),
            Op::Flh => float_load!(load_u16, u16, v => crate::float::box_f16(v)),
            Op::Fsh => float_store!(store_u16, u16),
            Op::Fsw => float_store!(store_u32, u32),
            Op::Fsd => float_store!(store_u64, u64),
            Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci => {
                match system::csr(environment, op, index) {
                    Ok(()) => leave!(index, op, Exit::FallThrough),
                    Err(exception) => raise!(index, op, exception),
                }
            }
            // A stall may end at any time (unprivileged specification, "Zawrs"): this one ends when all
            // other harts had their turn, so it is bounded and `mstatus.TW` has nothing to trap.
            Op::Pause | Op::WrsNto | Op::WrsSto => {
                environment.end_turn();
                leave!(index, op, Exit::Other)
            }
            Op::FenceI => leave!(index, op, Exit::FallThrough), // fetches always see every store
            Op::Ecall => raise!(index, op, environment.environment_call()),
            Op::Ebreak => {
                let pc = base.wrapping_add(u64::from(op.offset));
                raise!(index, op, Exception::new(Cause::Breakpoint, pc))
            }
            Op::Mret
            | Op::Sret
            | Op::Wfi
            | Op::SfenceVma
            | Op::SinvalVma
            | Op::SfenceWInval
            | Op::SfenceInvalIr => {
                environment.hart.pc =
                    base.wrapping_add(u64::from(op.offset) + u64::from(op.length));
                if !system::privileged(environment, op.op) {
                    raise!(index, op, illegal(environment, base, op))
                }
                return (index + 1, Exit::Other);
            }
            Op::Illegal => raise!(index, op, illegal(environment, base, op)),
            Op::LrW
            | Op::ScW
            | Op::LrD
            | Op::ScD
            | Op::AmoswapW
            | Op::AmoaddW
            | Op::AmoxorW
            | Op::AmoandW
            | Op::AmoorW
            | Op::AmominW
            | Op::AmomaxW
            | Op::AmominuW
            | Op::AmomaxuW
            | Op::AmoswapD
            | Op::AmoaddD
            | Op::AmoxorD
            | Op::AmoandD
            | Op::AmoorD
            | Op::AmominD
            | Op::AmomaxD
            | Op::AmominuD
            | Op::AmomaxuD => match atomic::execute(environment, op) {
                Ok(()) => {
                    if environment.attention {
                        leave!(index, op, Exit::Other)
                    }
                }
                Err(exception) => raise!(index, op, exception),
            },
            _ => {
                if !environment.hart.csr.float_is_on() || !float::execute(environment.hart, op) {
                    raise!(index, op, illegal(environment, base, op))
                }
            }
        }
    }
    let length = ops
        .last()
        .map_or(0, |op| u64::from(op.offset) + u64::from(op.length));
    environment.hart.pc = base.wrapping_add(length);
    (ops.len(), Exit::FallThrough)
}

/// The exception of an instruction that is illegal here, with its bits as the value.
#[cold]
fn illegal(environment: &mut Environment, base: u64, op: &DecodedOp) -> Exception {
    let pc = base.wrapping_add(u64::from(op.offset));
    let low = environment.fetch_half(pc).unwrap_or(0);
    let high = if op.length == 4 {
        environment.fetch_half(pc.wrapping_add(2)).unwrap_or(0)
    } else {
        0
    };
    Exception::new(
        Cause::IllegalInstruction,
        u64::from(high) << 16 | u64::from(low),
    )
}

/// A 32-bit result, sign-extended.
#[inline(always)]
fn word(value: u32) -> u64 {
    value as i32 as i64 as u64
}

/// `orc.b`: every byte that is not zero becomes 0xff.
#[inline(always)]
fn or_combine_bytes(value: u64) -> u64 {
    const LOW_BITS: u64 = 0x0101_0101_0101_0101;
    const REST: u64 = 0x7f * LOW_BITS;
    // the top bit of a byte: set in it, or carried there by any of the others
    let top = (value & REST).wrapping_add(REST) | value;
    (top >> 7 & LOW_BITS) * 0xff
}

/// The product of polynomials over GF(2).
fn carry_less_product(a: u64, b: u64) -> u128 {
    (0..64)
        .filter(|bit| b >> bit & 1 != 0)
        .fold(0, |product, bit| product ^ u128::from(a) << bit)
}

/// Division by zero gives −1, overflow the dividend (unprivileged specification, 13.2).
fn divide(dividend: i64, divisor: i64) -> u64 {
    if divisor == 0 {
        u64::MAX
    } else {
        dividend.wrapping_div(divisor) as u64
    }
}

/// The remainder of a division by zero is the dividend, of an overflow 0.
fn remainder(dividend: i64, divisor: i64) -> u64 {
    if divisor == 0 {
        dividend as u64
    } else {
        dividend.wrapping_rem(divisor) as u64
    }
}
