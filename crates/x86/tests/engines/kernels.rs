//! What kernels do all the time and programs seldom: they let interrupts in and keep them out, reach users' pages and
//! stop doing so, look at their flags, shift pairs of registers, and keep sets of bits in memory.

use crate::code::DATA;
use crate::random::Random;
use crate::remapping;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// The local APIC's registers, and its vector for the guest itself: the last one that has a gate.
const APIC: u64 = 0xfee0_0000;
const SPURIOUS: i32 = 0xf0;
const END_OF_INTERRUPT: i32 = 0xb0;
const COMMAND: i32 = 0x300;
const TO_ITSELF: i32 = 0x4_0000 | 0x1f;

const WIDE: [AsmRegister64; 10] = [rax, rbx, rcx, rdx, rsi, rbp, r9, r10, r11, r15];
const NARROW: [AsmRegister32; 10] = [eax, ebx, ecx, edx, esi, ebp, r9d, r10d, r11d, r15d];

/// A few of them, now and then with an interrupt that waits.
pub fn paths(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    match random.below(5) {
        0 => interrupts(a, random),
        1 => rights(a, random),
        2 => bits(a, random),
        _ => {
            a.mov(rdi, DATA + 0x1000 + 8 * random.below(0x200))?;
            for _ in 0..3 + random.below(5) {
                one(a, random)?;
            }
            Ok(())
        }
    }
}

/// An interrupt comes behind the instruction behind STI, wherever in a piece that is, and whoever has looked before.
fn interrupts(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    a.mov(rdi, DATA + 0x1000)?;
    if random.once_in(2) {
        a.mov(r8, APIC)?;
        a.cli()?;
        a.mov(dword_ptr(r8 + SPURIOUS), 0x1ff)?;
        a.mov(dword_ptr(r8 + END_OF_INTERRUPT), 0)?;
        if random.below(3) != 0 {
            a.mov(dword_ptr(r8 + COMMAND), TO_ITSELF)?;
        }
    }
    for _ in 0..3 + random.below(4) {
        match random.below(5) {
            0 => a.cli()?,
            1 | 2 => a.sti()?,
            _ => one(a, random)?,
        }
    }
    Ok(())
}

/// A user's page is reached while AC is set, and not before or behind that.
fn rights(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    remapping::give_to_user(a)?;
    a.stac()?;
    for _ in 0..3 + random.below(4) {
        match random.below(9) {
            0 => a.stac()?,
            1 | 2 => a.clac()?,
            3 | 4 => a.mov(rdx, qword_ptr(rdi))?,
            5 => a.add(qword_ptr(rdi + 8), rcx)?,
            6 => a.movups(xmm1, xmmword_ptr(rdi + 16))?,
            7 => a.mov(dword_ptr(rdi + 4), ecx)?,
            _ => one(a, random)?,
        }
    }
    if random.below(3) != 0 {
        a.clac()?;
    }
    Ok(())
}

/// A bit of a set in memory is looked at between those who write flags, which could be computed again, and those who read
/// all of them but CF.
fn bits(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    a.mov(rdi, DATA + 0x1000 + 8 * random.below(0x200))?;
    for _ in 0..2 + random.below(2) {
        let (first, second) = (random.pick(&WIDE[..4]), random.pick(&WIDE[4..8]));
        let place = qword_ptr(rdi + 8 * random.below(4) as i32);
        let number = random.pick(&[r9, r10, r11, r15]);
        let number = bit(a, random, number)?;
        match random.below(4) {
            0 => a.cmp(first, second)?,
            1 => a.sub(first, second)?,
            2 => a.and(first, second)?,
            _ => a.test(second, first)?,
        }
        match random.below(4) {
            0 => a.bt(place, number)?,
            1 => a.bts(place, number)?,
            2 => a.btr(place, number)?,
            _ => a.lock().btc(place, number)?,
        }
        match random.below(4) {
            0 => a.sets(byte_ptr(rdi + 40))?,
            1 => a.cmovle(first, second)?,
            2 => {
                a.pushfq()?;
                a.pop(second)?;
            }
            _ => a.seto(cl)?,
        }
    }
    Ok(())
}

fn one(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let number = random.below(WIDE.len() as u64) as usize;
    let (first, first_half) = (WIDE[number], NARROW[number]);
    let number = random.below(WIDE.len() as u64) as usize;
    let (second, second_half) = (WIDE[number], NARROW[number]);
    let any = 1 + random.below(62) as u32;
    let count = random.pick(&[1, any]);
    let place = qword_ptr(rdi + 8 * random.below(4) as i32);
    let half = dword_ptr(rdi + 4 * random.below(4) as i32);
    match random.below(24) {
        0 => a.shld(first, second, count),
        1 => a.shrd(first, second, count),
        2 => a.shld(first_half, second_half, count),
        3 => a.shrd(first_half, second_half, count),
        4 => a.shld(first, second, cl),
        5 => a.shrd(first, second, cl),
        6 => a.shrd(first_half, second_half, cl),
        7 => a.shld(first_half, second_half, cl),
        8 => a.mov(ecx, random.pick(&[0, 1, 31, 32, 33, 63, 64])),
        9 => {
            let bit = bit(a, random, first)?;
            a.bt(place, bit)
        }
        10 => {
            let bit = bit(a, random, first)?;
            a.bts(place, bit)
        }
        11 => {
            let bit = bit(a, random, first)?;
            a.btr(place, bit)
        }
        12 => {
            let bit = bit(a, random, first)?;
            a.lock().btc(place, bit)
        }
        13 => {
            bit(a, random, first)?;
            a.bts(half, first_half)
        }
        14 => {
            bit(a, random, first)?;
            a.bt(half, first_half)
        }
        15 => a.mov(byte_ptr(rdi + 3), random.pick(&[ah, bh, ch, dh])),
        16 => a.mov(byte_ptr(rdi + 2 * rbp), random.pick(&[ah, bh, ch, dh])),
        17 | 18 => {
            a.pushfq()?;
            a.pop(first)
        }
        19 => {
            a.push(second)?;
            a.pushfq()?;
            a.pop(first)?;
            a.pop(second)
        }
        20 => a.cmp(first, second),
        21 => a.add(first_half, second_half),
        22 => a.seto(byte_ptr(rdi)),
        _ => a.adc(first, second),
    }
}

/// Lets a register say a bit, most often one that is near.
fn bit(
    a: &mut CodeAssembler,
    random: &mut Random,
    register: AsmRegister64,
) -> Result<AsmRegister64, IcedError> {
    if !random.once_in(12) {
        a.mov(register, random.below(0x4000) as i64 - 0x2000)?;
    }
    Ok(register)
}
