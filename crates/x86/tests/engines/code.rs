//! Guests of random code: slots of a fixed size, each with a few instructions of any kind. A fault adds
//! what it is told to a sum, and goes on with the next slot.

use crate::kernel_image::kernel_image;
use crate::kernels;
use crate::random::Random;
use crate::remapping;
use crate::rings;
use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind, Register};

const LOAD: u64 = 0x10_0000;
const ENTRY: u64 = LOAD + 0x200;
const SLOTS: u64 = LOAD + 0x2000;
const SLOT: u64 = 128;
/// Slots, and subroutines behind them.
const STEPS: u64 = 90;
const SUBROUTINES: u64 = 6;
/// Behind these, subroutines with loops whose pages change.
const REMAPPING: u64 = SLOTS + (STEPS + SUBROUTINES) * SLOT;
const REMAPPING_ROUTINES: u64 = 6;
const REMAPPING_BYTES: u64 = 1024;
/// Behind these, subroutines that go to an inner privilege that is not the kernel's.
const RINGS: u64 = REMAPPING + REMAPPING_ROUTINES * REMAPPING_BYTES;
const RING_ROUTINES: u64 = 3;
const RING_BYTES: u64 = 1024;
const DESCRIPTORS: u64 = 0x1_0000;
const GDT: u64 = DESCRIPTORS + 0x1000;
const TSS: u64 = DESCRIPTORS + 0x1100;
const POINTER: u64 = DESCRIPTORS + 0x1200;
const MONITOR: u64 = 0x2_0000;
/// Where a fault goes on.
pub const RESUME: u64 = MONITOR;
/// With which CS and SS.
pub const RESUME_CODE: u64 = MONITOR + 32;
pub const RESUME_STACK: u64 = MONITOR + 40;
/// The kernel's CS and SS, and those of CPL 1 and 2.
pub const KERNEL: [u16; 2] = [0x10, 0x18];
pub const INNER: [[u16; 2]; 2] = [[0x31, 0x39], [0x42, 0x4a]];
/// Where the guest counts its faults; behind that, the sum of what they said.
pub const FAULTS: u64 = MONITOR + 8;
const SUM: u64 = MONITOR + 16;
const LOOP: u64 = MONITOR + 24;
const FAULT_STACK: u64 = 0x3_0000;
const STACK: u64 = 0x8_0000;
pub const DATA: u64 = 0x20_0000;

/// RAM that a guest needs.
pub const MEMORY_BYTES: u64 = 16 << 20;

/// The guest of a seed, as a bzImage.
pub fn generate(seed: u64) -> Vec<u8> {
    let code = assemble(&mut Random::new(seed)).expect("the guest assembles");
    kernel_image(LOAD, &code)
}

fn assemble(random: &mut Random) -> Result<Vec<u8>, IcedError> {
    let mut code = start(random)?;
    assert!(code.len() < (SLOTS - ENTRY) as usize);
    code.resize((SLOTS - ENTRY) as usize, 0x90);
    for number in 0..STEPS {
        let at = SLOTS + number * SLOT;
        let mut slot = slot(random, at)?;
        if number == STEPS - 1 {
            slot = jump_back(at)?;
        }
        assert!(slot.len() <= SLOT as usize, "a slot of {}", slot.len());
        slot.resize(SLOT as usize, 0x90);
        code.extend(slot);
    }
    for _ in 0..SUBROUTINES {
        let mut a = CodeAssembler::new(64)?;
        for _ in 0..1 + random.below(3) {
            any(&mut a, random)?;
        }
        a.ret()?;
        let mut subroutine = a.assemble(0)?;
        subroutine.resize(SLOT as usize, 0xcc);
        code.extend(subroutine);
    }
    for number in 0..REMAPPING_ROUTINES {
        let mut a = CodeAssembler::new(64)?;
        remapping::rounds(&mut a, random)?;
        a.ret()?;
        let mut routine = a.assemble(REMAPPING + number * REMAPPING_BYTES)?;
        assert!(routine.len() <= REMAPPING_BYTES as usize);
        routine.resize(REMAPPING_BYTES as usize, 0xcc);
        code.extend(routine);
    }
    for number in 0..RING_ROUTINES {
        let mut a = CodeAssembler::new(64)?;
        rings::rounds(&mut a, random)?;
        let mut routine = a.assemble(RINGS + number * RING_BYTES)?;
        assert!(routine.len() <= RING_BYTES as usize);
        routine.resize(RING_BYTES as usize, 0xcc);
        code.extend(routine);
    }
    Ok(code)
}

fn jump_back(at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    a.mov(rsp, STACK)?;
    a.jmp(SLOTS)?;
    a.assemble(at)
}

/// Descriptors, registers, and what happens at a fault.
fn start(random: &mut Random) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let quads = [
        (GDT + 0x10, 0x00af_9b00_0000_ffffu64),
        (GDT + 0x18, 0x00cf_9300_0000_ffff),
        (GDT + 0x20, 0x67 | (TSS & 0xff_ffff) << 16 | 0x89 << 40),
        (GDT + 0x28, 0),
        (GDT + 0x30, 0x00af_bb00_0000_ffff),
        (GDT + 0x38, 0x00cf_b300_0000_ffff),
        (GDT + 0x40, 0x00af_db00_0000_ffff),
        (GDT + 0x48, 0x00cf_d300_0000_ffff),
        (RESUME_CODE, KERNEL[0].into()),
        (RESUME_STACK, KERNEL[1].into()),
        (TSS + 0x24, FAULT_STACK),
    ];
    for (at, value) in quads {
        a.mov(rax, value)?;
        a.mov(rcx, at)?;
        a.mov(qword_ptr(rcx), rax)?;
    }
    a.mov(rcx, POINTER)?;
    a.mov(word_ptr(rcx), 0x4f)?;
    a.mov(rax, GDT)?;
    a.mov(qword_ptr(rcx + 2), rax)?;
    a.lgdt(ptr(rcx))?;
    a.mov(eax, 0x20)?;
    a.ltr(ax)?;
    let mut common = a.create_label();
    for vector in 0..32u32 {
        let mut stub = a.create_label();
        let mut behind = a.create_label();
        a.jmp(behind)?;
        a.set_label(&mut stub)?;
        if !matches!(vector, 8 | 10..=14 | 17) {
            a.push(0)?;
        }
        a.push(vector as i32)?;
        a.jmp(common)?;
        a.set_label(&mut behind)?;
        a.mov(rdx, DESCRIPTORS + u64::from(vector) * 16)?;
        a.lea(rax, ptr(stub))?;
        a.mov(word_ptr(rdx), ax)?;
        a.mov(word_ptr(rdx + 2), 0x10)?;
        a.mov(word_ptr(rdx + 4), 0x8e01)?;
        a.shr(rax, 16)?;
        a.mov(word_ptr(rdx + 6), ax)?;
        a.mov(qword_ptr(rdx + 8), 0)?;
    }
    a.mov(rcx, POINTER)?;
    a.mov(word_ptr(rcx), 0x1ff)?;
    a.mov(rax, DESCRIPTORS)?;
    a.mov(qword_ptr(rcx + 2), rax)?;
    a.lidt(ptr(rcx))?;
    a.mov(rax, cr4)?;
    a.or(rax, 0x600)?; // OSFXSR, OSXMMEXCPT
    a.mov(cr4, rax)?;
    remapping::begin(&mut a)?;
    for register in [
        rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15,
    ] {
        a.mov(register, random.bits())?;
    }
    a.mov(rsp, STACK)?;
    a.jmp(SLOTS)?;

    // On the stack: vector, code, RIP, CS, RFLAGS, RSP, SS.
    a.set_label(&mut common)?;
    a.push(rax)?;
    a.inc(qword_ptr(FAULTS))?;
    for at in [8, 16, 24, 40, 48] {
        a.mov(rax, qword_ptr(rsp + at))?;
        a.xor(qword_ptr(SUM), rax)?;
        a.rol(qword_ptr(SUM), 7)?;
    }
    a.mov(rax, cr2)?;
    a.xor(qword_ptr(SUM), rax)?;
    a.mov(rax, qword_ptr(RESUME))?;
    a.mov(qword_ptr(rsp + 24), rax)?;
    a.mov(rax, qword_ptr(RESUME_CODE))?;
    a.mov(qword_ptr(rsp + 32), rax)?;
    a.mov(rax, qword_ptr(RESUME_STACK))?;
    a.mov(qword_ptr(rsp + 56), rax)?;
    a.pop(rax)?;
    a.add(rsp, 16)?;
    // Single steps end here, and RF is not always wanted; IOPL stays.
    a.and(dword_ptr(rsp + 16), random.pick(&[0x3cd5, 0x1_3cd5]))?;
    a.iretq()?;
    a.assemble(ENTRY)
}

const ALL: [AsmRegister64; 16] = [
    rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15,
];

fn slot(random: &mut Random, at: u64) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let next = at + SLOT;
    a.mov(qword_ptr(RESUME), next as i32)?;
    if random.below(5) != 0 {
        a.mov(rsp, STACK - 8 * random.below(600))?;
    }
    match random.below(21) {
        0 => {
            let mut over = a.create_label();
            any(&mut a, random)?;
            branch(&mut a, random, over)?;
            any(&mut a, random)?;
            a.set_label(&mut over)?;
            any(&mut a, random)?;
        }
        1 => {
            let mut again = a.create_label();
            a.mov(dword_ptr(LOOP), 1 + random.below(40) as u32)?;
            a.set_label(&mut again)?;
            any(&mut a, random)?;
            a.dec(dword_ptr(LOOP))?;
            a.jne(again)?;
        }
        2 => {
            any(&mut a, random)?;
            let to = SLOTS + (STEPS + random.below(SUBROUTINES)) * SLOT;
            match random.below(3) {
                0 => a.call(to)?,
                1 => {
                    let register = random.pick(&ALL);
                    a.mov(register, to)?;
                    a.call(register)?;
                }
                _ => {
                    a.mov(rdx, to)?;
                    a.mov(qword_ptr(LOOP), rdx)?;
                    a.call(qword_ptr(LOOP))?;
                }
            }
            any(&mut a, random)?;
        }
        3 => {
            any(&mut a, random)?;
            let register = random.pick(&ALL);
            a.mov(
                register,
                if random.once_in(8) {
                    random.bits()
                } else {
                    next
                },
            )?;
            a.jmp(register)?;
        }
        4 => {
            // Changes the immediate of the instruction after the next.
            let mut changed = a.create_label();
            a.lea(rax, ptr(changed))?;
            a.add(dword_ptr(rax + 2), random.below(1 << 20) as i32)?;
            a.set_label(&mut changed)?;
            a.mov(rcx, 0x1234_5678_9abc_def0u64)?;
            any(&mut a, random)?;
        }
        5 => {
            let flags = random.bits() as i32 & if random.once_in(4) { 0x4_0dd5 } else { 0xcd5 };
            a.push(flags)?;
            a.popfq()?;
            any(&mut a, random)?;
            any(&mut a, random)?;
        }
        6 => {
            a.mov(rcx, random.below(40))?;
            a.mov(rsi, DATA + random.below(0x2000))?;
            a.mov(rdi, DATA + random.below(0x2000))?;
            any(&mut a, random)?;
            string(&mut a, random)?;
        }
        7 => {
            // To the next slot or the one behind it, or to an odd place.
            any(&mut a, random)?;
            let over = next + SLOT * random.below(2);
            branch_to(&mut a, random, over)?;
            any(&mut a, random)?;
        }
        8 | 9 => {
            let mut over = a.create_label();
            frame(&mut a, random)?;
            branch(&mut a, random, over)?;
            a.inc(r14)?;
            a.set_label(&mut over)?;
            a.seto(cl)?;
        }
        10 | 11 => rounds(&mut a, random)?,
        12 | 13 => {
            any(&mut a, random)?;
            a.call(REMAPPING + random.below(REMAPPING_ROUTINES) * REMAPPING_BYTES)?;
        }
        14 | 15 => hand_over(&mut a, random)?,
        16 | 17 => kernels::paths(&mut a, random)?,
        18 => a.call(RINGS + random.below(RING_ROUTINES) * RING_BYTES)?,
        _ => {
            for _ in 0..1 + random.below(3) {
                any(&mut a, random)?;
            }
        }
    }
    a.assemble(at)
}

fn branch(a: &mut CodeAssembler, random: &mut Random, to: CodeLabel) -> Result<(), IcedError> {
    match random.below(16) {
        0 => a.jo(to),
        1 => a.jno(to),
        2 => a.jb(to),
        3 => a.jae(to),
        4 => a.je(to),
        5 => a.jne(to),
        6 => a.jbe(to),
        7 => a.ja(to),
        8 => a.js(to),
        9 => a.jns(to),
        10 => a.jp(to),
        11 => a.jnp(to),
        12 => a.jl(to),
        13 => a.jge(to),
        14 => a.jle(to),
        _ => a.jg(to),
    }
}

fn branch_to(a: &mut CodeAssembler, random: &mut Random, to: u64) -> Result<(), IcedError> {
    match random.below(6) {
        0 => a.jo(to),
        1 => a.jb(to),
        2 => a.je(to),
        3 => a.jl(to),
        4 => a.jg(to),
        _ => a.ja(to),
    }
}

fn string(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    match random.below(8) {
        0 => a.rep().movsb(),
        1 => a.rep().movsq(),
        2 => a.rep().stosb(),
        3 => a.rep().stosd(),
        4 => a.repe().cmpsb(),
        5 => a.repne().scasb(),
        6 => a.lodsq(),
        _ => a.movsd(),
    }
}

/// Accesses by one base register near each other, which compiled code looks up together, with flags that are
/// written and read between them.
fn frame(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    const VECTORS: [AsmRegisterXmm; 4] = [xmm0, xmm3, xmm8, xmm15];
    let base = random.pick(&[rsp, rbp, rbx, r8, r12, r13]);
    let odd = if random.once_in(6) { 8 } else { 0 };
    a.mov(base, DATA + 0xf00 + 16 * random.below(0x80) + odd)?;
    for _ in 0..4 + random.below(7) {
        let at = base + 16 * random.below(5) as i32;
        let (first, second) = (
            random.pick(&[rax, rdx, rdi, r10, r11, r15]),
            random.pick(&[rcx, rsi, r9, r10, r14]),
        );
        let vector = random.pick(&VECTORS);
        match random.below(26) {
            0 | 1 => a.movaps(xmmword_ptr(at), vector)?,
            2 => a.movaps(vector, xmmword_ptr(at))?,
            3 => a.paddd(vector, xmmword_ptr(at))?,
            4 => a.movups(vector, xmmword_ptr(at + 3))?,
            5 => a.movq(vector, qword_ptr(at))?,
            6 | 7 => a.cmp(first, second)?,
            8 => a.shl(first, 1 + random.below(40) as u32)?,
            9 => a.shr(first, 1 + random.below(40) as u32)?,
            10 => a.xor(first, second)?,
            11 => a.add(qword_ptr(at), first)?,
            12 => a.mov(qword_ptr(at), first)?,
            13 => a.mov(first, qword_ptr(at))?,
            14 => a.adc(first, qword_ptr(at))?,
            15 => a.cmovl(first, qword_ptr(at))?,
            16 => a.cmovb(second, qword_ptr(at))?,
            17 => a.setg(byte_ptr(at))?,
            18 => a.seto(byte_ptr(at))?,
            19 => a.inc(qword_ptr(at))?,
            20 => a.rol(qword_ptr(at), 1)?,
            21 => a.bt(qword_ptr(at), 7)?,
            22 => a.imul_2(first, qword_ptr(at))?,
            23 => a.lea(base, qword_ptr(base + 8))?,
            24 => a.push(first)?,
            _ => a.pop(second)?,
        }
    }
    Ok(())
}

/// Pieces that hand flags over to each other, by branches, jumps and calls: those of comparisons and sums, to what overwrites
/// them, asks for them or faults.
fn hand_over(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let (mut again, mut first, mut second) = (a.create_label(), a.create_label(), a.create_label());
    let mut inner = a.create_label();
    a.mov(dword_ptr(LOOP), 1 + random.below(40) as u32)?;
    a.jmp(again)?;
    a.set_label(&mut inner)?;
    receive(a, random)?;
    a.ret()?;
    a.set_label(&mut again)?;
    give(a, random)?;
    branch(a, random, first)?;
    receive(a, random)?;
    give(a, random)?;
    if random.once_in(2) {
        a.call(inner)?;
    } else {
        a.jmp(second)?;
    }
    a.set_label(&mut first)?;
    receive(a, random)?;
    a.set_label(&mut second)?;
    receive(a, random)?;
    a.dec(dword_ptr(LOOP))?;
    a.jne(again)
}

/// Writes flags that can be computed again, perhaps not for long.
fn give(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let (first, second) = (
        random.pick(&[rax, rdx, rdi, r10, r15]),
        random.pick(&[rcx, rsi, r9, r10, r14]),
    );
    match random.below(8) {
        0 | 1 => a.cmp(first, second)?,
        2 => a.sub(first, 1)?,
        3 => a.add(first, second)?,
        4 => a.and(first, second)?,
        5 => a.test(second, second)?,
        6 => a.neg(first)?,
        _ => a.shl(first, 3)?,
    }
    match random.below(8) {
        0 => a.mov(first, second),
        1 => a.mov(second, qword_ptr(DATA + 0x1000)),
        2 => a.lea(second, ptr(second + 1)),
        _ => Ok(()),
    }
}

/// Overwrites all flags, or not.
fn receive(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let (first, second) = (
        random.pick(&[rax, rdx, rdi, r10, r15]),
        random.pick(&[rcx, rsi, r9, r10, r14]),
    );
    match random.below(12) {
        0 | 1 => a.cmp(first, second),
        2 => a.add(first, 7),
        3 => a.xor(first, first),
        4 => {
            a.mov(first, second)?;
            a.sub(first, 9)
        }
        5 => {
            a.inc(second)?;
            a.test(first, second)
        }
        6 => {
            a.setb(cl)?;
            a.and(first, second)
        }
        7 => a.adc(first, second),
        8 => {
            a.mov(second, qword_ptr(DATA + 0x1008))?;
            a.or(first, second)
        }
        9 => {
            a.shr(second, 1)?;
            a.sub(first, second)
        }
        10 => {
            // Sometimes nowhere.
            a.add(first, qword_ptr(second))?;
            a.cmp(first, second)
        }
        _ => a.seto(cl),
    }
}

/// A loop whose branch asks for flags of registers, with more registers than compiled code has, of which it uses
/// halves and wholes, and pages that stay or wander.
fn rounds(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let counter = random.pick(&[rbx, rsi, r12, r15, r10, rbp]);
    let base = random.pick(&[rdi, r8, r9, r13, r11]);
    let wide = [rax, rcx, rdx, r8, r9, r10, r11, r12, r13, r14, r15, rsi];
    let narrow = [
        eax, ecx, edx, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d, esi,
    ];
    let free = |random: &mut Random| loop {
        let number = random.below(wide.len() as u64) as usize;
        if wide[number] != counter && wide[number] != base {
            return (wide[number], narrow[number]);
        }
    };
    a.mov(counter, 2 + random.below(60))?;
    a.mov(base, DATA + 0xf00 + 4 * random.below(0x80))?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    for _ in 0..3 + random.below(6) {
        let ((first, first_half), (second, second_half)) = (free(random), free(random));
        let at = base + 8 * random.below(6) as i32;
        match random.below(20) {
            0 => a.mov(first_half, second_half)?,
            1 => a.mov(first, second)?,
            2 => a.xor(first_half, second_half)?,
            3 => a.add(first_half, second_half)?,
            4 => a.ror(first_half, 1 + random.below(30) as u32)?,
            5 => a.shl(first, 1 + random.below(60) as u32)?,
            6 => a.not(first_half)?,
            7 => a.lea(first_half, ptr(first + second))?,
            8 => a.movsxd(first, second_half)?,
            9 => a.mov(first_half, dword_ptr(at))?,
            10 => a.add(first, qword_ptr(at))?,
            11 => a.mov(qword_ptr(at), first)?,
            12 => a.add(dword_ptr(at), first_half)?,
            13 => a.cmovb(first_half, second_half)?,
            14 => a.adc(first, second)?,
            15 => a.imul_2(first_half, second_half)?,
            16 => a.bswap(first)?,
            17 => a.and(first_half, second_half)?,
            18 => a.push(first)?,
            _ => a.pop(second)?,
        }
    }
    if random.below(3) == 0 {
        a.add(base, random.pick(&[8, 24, 0x400, 0x1000]))?;
    }
    match random.below(4) {
        0 => a.dec(counter)?,
        1 => {
            a.sub(counter, 1)?;
            a.test(counter, counter)?;
        }
        2 => {
            a.add(counter, 1)?;
            a.cmp(counter, 70)?;
        }
        _ => a.sub(counter, 1)?,
    }
    a.jne(again)
}

/// An instruction of any kind that goes on with the next, most often with an address that is mapped.
fn any(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    loop {
        let bytes = bytes(random);
        let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() && !random.once_in(400) {
            continue;
        }
        if !instruction.is_invalid() {
            if instruction.flow_control() != FlowControl::Next
                || is_unwanted(instruction.mnemonic())
            {
                continue;
            }
            let is_system = (0..instruction.op_count()).any(|operand| {
                let register = instruction.op_register(operand);
                register.is_segment_register() || register.is_cr() || register.is_dr()
            });
            if is_system || instruction.is_string_instruction() {
                continue;
            }
            for operand in 0..instruction.op_count() {
                if instruction.op_kind(operand) != OpKind::Memory || random.once_in(8) {
                    continue;
                }
                let (base, index) = (instruction.memory_base(), instruction.memory_index());
                if base.is_gpr() {
                    let mut at = DATA + 0x1000 + random.below(0x1400);
                    if random.below(3) == 0 {
                        at &= !15;
                    }
                    a.mov(ALL[base.full_register().number()], at)?;
                }
                if index.is_gpr() {
                    a.mov(ALL[index.full_register().number()], random.below(0x80))?;
                }
                if base == Register::None || base.is_ip() {
                    // Wherever it leads.
                }
            }
        }
        return a.db(&bytes[..instruction.len().max(1)]);
    }
}

/// What would end the guest, or lead it away.
fn is_unwanted(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Hlt | In
            | Out
            | Insb
            | Insd
            | Insw
            | Outsb
            | Outsd
            | Outsw
            | Lgdt
            | Lidt
            | Lldt
            | Ltr
            | Lmsw
            | Cli
            | Sti
            | Popf
            | Popfq
            | Wrmsr
            | Rdmsr
            | Swapgs
            | Clts
            | Lss
            | Lfs
            | Lgs
            | Wrfsbase
            | Wrgsbase
            | Invlpg
            | Invd
            | Wbinvd
            | Cpuid
            | Pushf
            | Enter
            | Xsetbv
            | Ldmxcsr
            | Fldcw
            | Fxrstor
            | Frstor
            | Fldenv
    ) && mnemonic != Pushf
}

fn bytes(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    if random.once_in(6) {
        bytes.push(0x66);
    }
    if random.once_in(12) {
        bytes.push(random.pick(&[0xf2, 0xf3]));
    }
    if random.once_in(30) {
        bytes.push(random.pick(&[0xf0, 0x64, 0x65, 0x67]));
    }
    if random.below(3) != 0 {
        bytes.push(0x40 | random.below(16) as u8);
    }
    match random.below(8) {
        0..=4 => {
            // Half of all are of the first rows and groups, which programs are made of.
            let opcode = match random.below(4) {
                0 => random.pick(&[
                    0x80, 0x81, 0x83, 0xc0, 0xc1, 0xd0, 0xd1, 0xd3, 0xf6, 0xf7, 0xff,
                ]),
                1 => random.below(0x40) as u8,
                2 => random.pick(&[
                    0x63, 0x69, 0x6b, 0x84, 0x85, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d,
                ]),
                _ => random.bits() as u8,
            };
            bytes.push(opcode);
        }
        5 | 6 => bytes.extend([0x0f, random.bits() as u8]),
        _ => bytes.extend([0x0f, random.pick(&[0x38, 0x3a]), random.bits() as u8]),
    }
    let mode = random.pick(&[0u8, 1, 2, 3, 3]);
    let rm = random.below(8) as u8;
    bytes.push(mode << 6 | (random.below(8) as u8) << 3 | rm);
    if mode != 3 && rm == 4 {
        bytes.push(random.bits() as u8);
    }
    match mode {
        1 => bytes.push(random.bits() as u8),
        2 => bytes.extend((random.below(0x1000) as i32 - 0x800).to_le_bytes()),
        _ => {}
    }
    let any = random.bits();
    let immediate = random.pick(&[1, any, any & 0x3f]);
    bytes.extend(immediate.to_le_bytes());
    bytes.extend([0; 8]);
    bytes
}
