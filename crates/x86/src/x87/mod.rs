//! The x87 floating-point unit, in software: the same bits on every host.
//!
//! Exceptions are precise and delayed as on a processor: an instruction leaves one pending in the
//! status word, and the next waiting instruction ends in #MF. CR0.NE is taken for set.
//!
//! As in `simd`, `m` is the unit with all that it reaches, `i` the instruction, `e` the environment of
//! one operation.

mod arithmetic;
mod constants;
mod conversion;
mod environment;
mod image;
mod operation;
mod state;
mod transcendental;
mod wide;

use iced_x86::{Code, Instruction};

use self::image::{ENVIRONMENT_16, ENVIRONMENT_32, REGISTERS};
use self::operation::{
    Binary, Constant, Loaded, Store, Unordered, divide_reversed, subtract_reversed,
};
pub use self::state::X87State;
use crate::bytes::{self, StatusFlags};
use crate::fault::Fault;
use crate::float::{DoubleExtended, Interchange, Rounding};
use crate::operands::Operands;

/// Whether the instruction was one of those asked for, or the fault that it ended in.
type Outcome = Result<bool, Fault>;

/// The x87 unit and the rest of the CPU, to one instruction.
struct Unit<'a, O> {
    x87: &'a mut X87State,
    operands: &'a mut O,
}

/// Executes an x87 instruction, FWAIT among them. CR0.NE counts as set.
///
/// # Errors
/// #MF where an exception is pending, #UD for what is not x87's, or the fault of an access to memory,
/// with nothing changed.
pub fn execute(
    instruction: &Instruction,
    x87: &mut X87State,
    operands: &mut impl Operands,
) -> Result<(), Fault> {
    let mut unit = Unit { x87, operands };
    if any(&mut unit, instruction)? {
        Ok(())
    } else {
        Err(Fault::INVALID_OPCODE)
    }
}

fn any<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    if without_waiting(m, i)? {
        return Ok(true);
    }
    if m.x87.is_pending() {
        return Err(Fault::X87);
    }
    Ok(memory_arithmetic(m, i)?
        || loads(m, i)?
        || stores(m, i)?
        || stack(m.x87, i)
        || stack_control(m.x87, i)
        || control(m, i)?
        || flags(m, i))
}

/// The control instructions that do not look for a pending exception (volume 1, 8.3.11).
fn without_waiting<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Fninit => m.x87.initialise(),
        Code::Fnclex => m.x87.clear_exceptions(),
        // Of 8087 and 80287 times: they do nothing since.
        Code::Fneni | Code::Fndisi | Code::Fnsetpm => {}
        Code::Fnstcw_m2byte => {
            let control = m.x87.control;
            store(m, control.to_le_bytes())?;
        }
        Code::Fnstsw_m2byte => {
            let status = m.x87.status;
            store(m, status.to_le_bytes())?;
        }
        Code::Fnstsw_AX => {
            let status = m.x87.status;
            m.operands.set_gpr(iced_x86::Register::AX, status.into());
        }
        Code::Fnstenv_m14byte => store_environment::<O, ENVIRONMENT_16>(m)?,
        Code::Fnstenv_m28byte => store_environment::<O, ENVIRONMENT_32>(m)?,
        Code::Fnsave_m94byte => save::<O, { ENVIRONMENT_16 + REGISTERS }>(m, ENVIRONMENT_16)?,
        Code::Fnsave_m108byte => save::<O, { ENVIRONMENT_32 + REGISTERS }>(m, ENVIRONMENT_32)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn load<O: Operands, const N: usize>(m: &mut Unit<'_, O>) -> Result<[u8; N], Fault> {
    bytes::load(m.operands)
}

fn store<O: Operands, const N: usize>(m: &mut Unit<'_, O>, bytes: [u8; N]) -> Result<(), Fault> {
    bytes::store(m.operands, bytes)
}

/// FNSTENV, which masks all exceptions once it has stored them.
fn store_environment<O: Operands, const N: usize>(m: &mut Unit<'_, O>) -> Result<(), Fault> {
    let mut image = [0; N];
    m.x87.store_environment(&mut image);
    store(m, image)?;
    let control = m.x87.control;
    m.x87.set_control(control | 0x3f);
    Ok(())
}

/// FNSAVE, which initialises the unit.
fn save<O: Operands, const N: usize>(m: &mut Unit<'_, O>, environment: usize) -> Result<(), Fault> {
    let mut image = [0; N];
    m.x87.store_environment(&mut image[..environment]);
    m.x87.store_registers(&mut image[environment..]);
    store(m, image)?;
    m.x87.initialise();
    Ok(())
}

/// The single, double, word or doubleword in memory.
fn operand<O: Operands>(m: &mut Unit<'_, O>, kind: Kind) -> Result<Loaded, Fault> {
    Ok(match kind {
        Kind::Single => Loaded::interchange::<f32>(u32::from_le_bytes(load(m)?).into()),
        Kind::Double => Loaded::interchange::<f64>(u64::from_le_bytes(load(m)?)),
        Kind::Word => Loaded::integer(i16::from_le_bytes(load(m)?).into()),
        Kind::Doubleword => Loaded::integer(i32::from_le_bytes(load(m)?).into()),
    })
}

/// What an operand in memory is.
#[derive(Clone, Copy)]
enum Kind {
    Single,
    Double,
    Word,
    Doubleword,
}

/// ST(0) with an operand in memory.
fn memory_arithmetic<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    use Kind::{Double, Doubleword, Single, Word};
    use arithmetic::{add, divide, multiply, subtract};
    let (operation, kind): (Binary, Kind) = match i.code() {
        Code::Fadd_m32fp => (add, Single),
        Code::Fadd_m64fp => (add, Double),
        Code::Fiadd_m16int => (add, Word),
        Code::Fiadd_m32int => (add, Doubleword),
        Code::Fmul_m32fp => (multiply, Single),
        Code::Fmul_m64fp => (multiply, Double),
        Code::Fimul_m16int => (multiply, Word),
        Code::Fimul_m32int => (multiply, Doubleword),
        Code::Fsub_m32fp => (subtract, Single),
        Code::Fsub_m64fp => (subtract, Double),
        Code::Fisub_m16int => (subtract, Word),
        Code::Fisub_m32int => (subtract, Doubleword),
        Code::Fsubr_m32fp => (subtract_reversed, Single),
        Code::Fsubr_m64fp => (subtract_reversed, Double),
        Code::Fisubr_m16int => (subtract_reversed, Word),
        Code::Fisubr_m32int => (subtract_reversed, Doubleword),
        Code::Fdiv_m32fp => (divide, Single),
        Code::Fdiv_m64fp => (divide, Double),
        Code::Fidiv_m16int => (divide, Word),
        Code::Fidiv_m32int => (divide, Doubleword),
        Code::Fdivr_m32fp => (divide_reversed, Single),
        Code::Fdivr_m64fp => (divide_reversed, Double),
        Code::Fidivr_m16int => (divide_reversed, Word),
        Code::Fidivr_m32int => (divide_reversed, Doubleword),
        _ => return memory_comparison(m, i),
    };
    let source = operand(m, kind)?;
    m.x87.binary_memory(operation, source);
    Ok(true)
}

fn memory_comparison<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    let (kind, pops) = match i.code() {
        Code::Fcom_m32fp => (Kind::Single, 0),
        Code::Fcomp_m32fp => (Kind::Single, 1),
        Code::Fcom_m64fp => (Kind::Double, 0),
        Code::Fcomp_m64fp => (Kind::Double, 1),
        Code::Ficom_m16int => (Kind::Word, 0),
        Code::Ficomp_m16int => (Kind::Word, 1),
        Code::Ficom_m32int => (Kind::Doubleword, 0),
        Code::Ficomp_m32int => (Kind::Doubleword, 1),
        _ => return Ok(false),
    };
    let source = operand(m, kind)?;
    m.x87
        .compare_conditions(Some(source), Unordered::Signals, pops);
    Ok(true)
}

/// Loads from memory.
fn loads<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Fld_m32fp => {
            let source = operand(m, Kind::Single)?;
            m.x87.load_memory(source);
        }
        Code::Fld_m64fp => {
            let source = operand(m, Kind::Double)?;
            m.x87.load_memory(source);
        }
        Code::Fild_m16int => {
            let source = operand(m, Kind::Word)?;
            m.x87.load_memory(source);
        }
        Code::Fild_m32int => {
            let source = operand(m, Kind::Doubleword)?;
            m.x87.load_memory(source);
        }
        Code::Fild_m64int => {
            let integer = i64::from_le_bytes(load(m)?);
            m.x87.load_memory(Loaded::integer(integer));
        }
        Code::Fld_m80fp => {
            let value = DoubleExtended::from_bits(ten_bytes(load(m)?));
            m.x87.load(|_| value);
        }
        Code::Fbld_m80bcd => {
            let value = conversion::from_decimal(ten_bytes(load(m)?));
            m.x87.load(|_| value);
        }
        Code::Fldcw_m2byte => {
            let control = u16::from_le_bytes(load(m)?);
            m.x87.set_control(control);
        }
        Code::Fldenv_m14byte => {
            let image: [u8; ENVIRONMENT_16] = load(m)?;
            m.x87.load_environment(&image);
        }
        Code::Fldenv_m28byte => {
            let image: [u8; ENVIRONMENT_32] = load(m)?;
            m.x87.load_environment(&image);
        }
        Code::Frstor_m94byte => {
            let image: [u8; ENVIRONMENT_16 + REGISTERS] = load(m)?;
            restore(m.x87, &image, ENVIRONMENT_16);
        }
        Code::Frstor_m108byte => {
            let image: [u8; ENVIRONMENT_32 + REGISTERS] = load(m)?;
            restore(m.x87, &image, ENVIRONMENT_32);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn restore(x87: &mut X87State, image: &[u8], environment: usize) {
    x87.load_environment(&image[..environment]);
    x87.load_registers(&image[environment..]);
}

fn ten_bytes(bytes: [u8; 10]) -> u128 {
    let mut bits = [0; 16];
    bits[..10].copy_from_slice(&bytes);
    u128::from_le_bytes(bits)
}

/// Stores to memory.
fn stores<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    match i.code() {
        Code::Fst_m32fp => store_interchange::<O, f32, 4>(m, false)?,
        Code::Fstp_m32fp => store_interchange::<O, f32, 4>(m, true)?,
        Code::Fst_m64fp => store_interchange::<O, f64, 8>(m, false)?,
        Code::Fstp_m64fp => store_interchange::<O, f64, 8>(m, true)?,
        Code::Fist_m16int => store_integer::<O, 2>(m, None, false)?,
        Code::Fistp_m16int => store_integer::<O, 2>(m, None, true)?,
        Code::Fist_m32int => store_integer::<O, 4>(m, None, false)?,
        Code::Fistp_m32int => store_integer::<O, 4>(m, None, true)?,
        Code::Fistp_m64int => store_integer::<O, 8>(m, None, true)?,
        Code::Fisttp_m16int => store_integer::<O, 2>(m, Some(Rounding::Zero), true)?,
        Code::Fisttp_m32int => store_integer::<O, 4>(m, Some(Rounding::Zero), true)?,
        Code::Fisttp_m64int => store_integer::<O, 8>(m, Some(Rounding::Zero), true)?,
        Code::Fstp_m80fp => {
            let indefinite = bytes::first(DoubleExtended::INDEFINITE.to_bits());
            let prepared = m.x87.store(indefinite, |_, a| bytes::first(a.to_bits()));
            finish_store::<O, 10>(m, &prepared, true)?;
        }
        Code::Fbstp_m80bcd => {
            let indefinite = bytes::first(conversion::DECIMAL_INDEFINITE);
            let prepared = m.x87.store(indefinite, |e, a| {
                bytes::first(conversion::to_decimal(e, a))
            });
            finish_store::<O, 10>(m, &prepared, true)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn store_interchange<O: Operands, F: Interchange, const N: usize>(
    m: &mut Unit<'_, O>,
    pop: bool,
) -> Result<(), Fault> {
    let indefinite = bytes::first(F::INDEFINITE.into());
    let prepared = m.x87.store(indefinite, |e, a| {
        bytes::first(conversion::to_interchange::<F>(e, a).into())
    });
    finish_store::<O, N>(m, &prepared, pop)
}

fn store_integer<O: Operands, const N: usize>(
    m: &mut Unit<'_, O>,
    rounding: Option<Rounding>,
    pop: bool,
) -> Result<(), Fault> {
    let bits = 8 * N as u32;
    let indefinite = bytes::first(1 << (bits - 1));
    let prepared = m.x87.store(indefinite, |e, a| {
        let rounding = rounding.unwrap_or(e.rounding);
        bytes::first(conversion::to_integer(e, a, bits, rounding) as u128)
    });
    finish_store::<O, N>(m, &prepared, pop)
}

/// Memory first, so that a fault leaves the stack as it was.
fn finish_store<O: Operands, const N: usize>(
    m: &mut Unit<'_, O>,
    prepared: &Store<[u8; N]>,
    pop: bool,
) -> Result<(), Fault> {
    match prepared.value {
        Some(bytes) => store(m, bytes)?,
        None => bytes::check_store::<O, N>(m.operands)?,
    }
    m.x87.stored(prepared, pop);
    Ok(())
}

/// The number of the stack register that operand `n` is.
fn register(i: &Instruction, n: u32) -> usize {
    i.op_register(n).number()
}

/// Arithmetic within the stack. Tells whether it was that.
fn stack(x87: &mut X87State, i: &Instruction) -> bool {
    use arithmetic::{add, divide, multiply, subtract};
    let (operation, pop): (Binary, bool) = match i.code() {
        Code::Fadd_st0_sti | Code::Fadd_sti_st0 => (add, false),
        Code::Fmul_st0_sti | Code::Fmul_sti_st0 => (multiply, false),
        Code::Fsub_st0_sti | Code::Fsub_sti_st0 => (subtract, false),
        Code::Fsubr_st0_sti | Code::Fsubr_sti_st0 => (subtract_reversed, false),
        Code::Fdiv_st0_sti | Code::Fdiv_sti_st0 => (divide, false),
        Code::Fdivr_st0_sti | Code::Fdivr_sti_st0 => (divide_reversed, false),
        Code::Faddp_sti_st0 => (add, true),
        Code::Fmulp_sti_st0 => (multiply, true),
        Code::Fsubp_sti_st0 => (subtract, true),
        Code::Fsubrp_sti_st0 => (subtract_reversed, true),
        Code::Fdivp_sti_st0 => (divide, true),
        Code::Fdivrp_sti_st0 => (divide_reversed, true),
        _ => return stack_comparison(x87, i) || stack_function(x87, i),
    };
    x87.binary(operation, register(i, 0), register(i, 1), pop);
    true
}

fn stack_comparison(x87: &mut X87State, i: &Instruction) -> bool {
    use Unordered::{Quiet, Signals};
    match i.code() {
        Code::Fcom_st0_sti | Code::Fcom_st0_sti_DCD0 => {
            x87.compare_register(register(i, 1), Signals, 0);
        }
        Code::Fcomp_st0_sti | Code::Fcomp_st0_sti_DCD8 | Code::Fcomp_st0_sti_DED0 => {
            x87.compare_register(register(i, 1), Signals, 1);
        }
        Code::Fcompp => x87.compare_register(1, Signals, 2),
        Code::Fucom_st0_sti => x87.compare_register(register(i, 1), Quiet, 0),
        Code::Fucomp_st0_sti => x87.compare_register(register(i, 1), Quiet, 1),
        Code::Fucompp => x87.compare_register(1, Quiet, 2),
        Code::Ftst => x87.test(),
        Code::Fxam => x87.examine(),
        _ => return false,
    }
    true
}

fn stack_function(x87: &mut X87State, i: &Instruction) -> bool {
    match i.code() {
        Code::Fchs => x87.change_sign(|negative| !negative),
        Code::Fabs => x87.change_sign(|_| false),
        Code::Fsqrt => x87.unary(arithmetic::square_root),
        Code::Frndint => x87.unary(arithmetic::round_to_integral),
        Code::Fscale => x87.binary(arithmetic::scale, 0, 1, false),
        Code::Fxtract => x87.extract(),
        Code::Fprem => x87.remainder(false),
        Code::Fprem1 => x87.remainder(true),
        Code::Fsin => x87.sine_or_cosine(false),
        Code::Fcos => x87.sine_or_cosine(true),
        Code::Fsincos => x87.sine_and_cosine(),
        Code::Fptan => x87.tangent(),
        Code::Fpatan => x87.binary_pop(transcendental::arc_tangent_of),
        Code::F2xm1 => x87.power_minus_one(),
        Code::Fyl2x => x87.binary_pop(transcendental::logarithm_times),
        Code::Fyl2xp1 => x87.binary_pop(transcendental::logarithm_plus_one_times),
        _ => return false,
    }
    true
}

/// Moves within the stack, constants, and the stack pointer. Tells whether it was one of those.
fn stack_control(x87: &mut X87State, i: &Instruction) -> bool {
    match i.code() {
        Code::Fld_sti => x87.load_register(register(i, 0)),
        Code::Fst_sti => x87.store_register(register(i, 0), false),
        Code::Fstpnce_sti => x87.store_register_without_fault(register(i, 0)),
        Code::Fstp_sti | Code::Fstp_sti_DFD0 | Code::Fstp_sti_DFD8 => {
            x87.store_register(register(i, 0), true);
        }
        Code::Fxch_st0_sti | Code::Fxch_st0_sti_DDC8 | Code::Fxch_st0_sti_DFC8 => {
            x87.exchange(register(i, 1));
        }
        Code::Fld1 => x87.load_constant(Constant::One),
        Code::Fldz => x87.load_constant(Constant::Zero),
        Code::Fldpi => x87.load_constant(Constant::Pi),
        Code::Fldl2t => x87.load_constant(Constant::Log2Of10),
        Code::Fldl2e => x87.load_constant(Constant::Log2OfE),
        Code::Fldlg2 => x87.load_constant(Constant::Log10Of2),
        Code::Fldln2 => x87.load_constant(Constant::LnOf2),
        Code::Fincstp => x87.rotate(1),
        Code::Fdecstp => x87.rotate(7),
        Code::Ffree_sti => x87.free_register(register(i, 0)),
        Code::Ffreep_sti => {
            x87.free_register(register(i, 0));
            x87.pop();
        }
        Code::Fnop | Code::Wait => {}
        _ => return false,
    }
    true
}

/// The forms of control instructions that wait first. The decoder gives them as WAIT and the form
/// that does not wait, so that these come from an encoder only.
fn control<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> Outcome {
    let code = match i.code() {
        Code::Finit => Code::Fninit,
        Code::Fclex => Code::Fnclex,
        Code::Feni => Code::Fneni,
        Code::Fdisi => Code::Fndisi,
        Code::Fsetpm => Code::Fnsetpm,
        Code::Fstcw_m2byte => Code::Fnstcw_m2byte,
        Code::Fstsw_m2byte => Code::Fnstsw_m2byte,
        Code::Fstsw_AX => Code::Fnstsw_AX,
        Code::Fstenv_m14byte => Code::Fnstenv_m14byte,
        Code::Fstenv_m28byte => Code::Fnstenv_m28byte,
        Code::Fsave_m94byte => Code::Fnsave_m94byte,
        Code::Fsave_m108byte => Code::Fnsave_m108byte,
        _ => return Ok(false),
    };
    let mut waited = *i;
    waited.set_code(code);
    without_waiting(m, &waited)
}

/// FCMOVcc and FCOMI with its like, which meet the flags of RFLAGS. Tells whether it was one.
fn flags<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> bool {
    let StatusFlags {
        carry,
        zero,
        parity,
        ..
    } = bytes::status_flags(m.operands);
    let condition = match i.code() {
        Code::Fcmovb_st0_sti => carry,
        Code::Fcmove_st0_sti => zero,
        Code::Fcmovbe_st0_sti => carry || zero,
        Code::Fcmovu_st0_sti => parity,
        Code::Fcmovnb_st0_sti => !carry,
        Code::Fcmovne_st0_sti => !zero,
        Code::Fcmovnbe_st0_sti => !(carry || zero),
        Code::Fcmovnu_st0_sti => !parity,
        _ => return compare_into_flags(m, i),
    };
    m.x87.conditional_move(register(i, 1), condition);
    true
}

fn compare_into_flags<O: Operands>(m: &mut Unit<'_, O>, i: &Instruction) -> bool {
    let (unordered, pop) = match i.code() {
        Code::Fcomi_st0_sti => (Unordered::Signals, false),
        Code::Fcomip_st0_sti => (Unordered::Signals, true),
        Code::Fucomi_st0_sti => (Unordered::Quiet, false),
        Code::Fucomip_st0_sti => (Unordered::Quiet, true),
        _ => return false,
    };
    let compared = m.x87.compare_flags(register(i, 1), unordered, pop);
    if let Some((zero, parity, carry)) = compared {
        bytes::set_status_flags(
            m.operands,
            StatusFlags {
                zero,
                parity,
                carry,
                ..StatusFlags::default()
            },
        );
    }
    true
}
