//! Random guests: a kernel image whose code takes interrupts of the local APIC's timer, of the serial port and of
//! other CPUs while it computes, stores, copies, prints, modifies itself and waits, on one CPU or on several.

use crate::kernel_image::kernel_image;
use crate::random::Random;
use iced_x86::code_asm::*;

/// Where the boot loader is asked to put the code.
const LOAD: u64 = 0x10_0000;
/// The 64-bit entry.
const ENTRY: u64 = LOAD + 0x200;
const STACK: u64 = 0x8_0000;
const DESCRIPTORS: u64 = 0x1_0000;
/// What the guest stores to.
const DATA: u64 = 0x20_0000;
/// Where it counts the interrupts of its timer and, behind that, of its serial port, those that CPUs send, and those
/// of these that cannot be masked.
pub const COUNTERS: u64 = DATA + 0x3000;
const APIC: u64 = 0xfee0_0000;
const IO_APIC: u64 = 0xfec0_0000;
const SERIAL: u32 = 0x3f8;
const TIMER_VECTOR: u32 = 0x40;
const SERIAL_VECTOR: u32 = 0x34;
const CPU_VECTOR: u32 = 0x50;
const NONMASKABLE_VECTOR: u32 = 2;
const MAILBOX: u64 = 0xd000_8000;
/// Bytes of a CPU's stack, below those of the CPUs before.
const STACK_BYTES: u64 = 0x2000;
/// Steps of the guest's endless loop.
const STEPS: usize = 120;

/// RAM that a guest needs.
pub const MEMORY_BYTES: u64 = 16 << 20;

/// CPUs of the guest of a seed.
pub fn cpus(seed: u64) -> u32 {
    1 + (seed % 3) as u32
}

/// The guest of a seed, as a bzImage.
pub fn generate(seed: u64) -> Vec<u8> {
    let code = assemble(&mut Random::new(seed), cpus(seed)).expect("the guest assembles");
    kernel_image(LOAD, &code)
}

fn assemble(random: &mut Random, cpus: u32) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut timer, mut serial) = (a.create_label(), a.create_label());
    let (mut called, mut nonmaskable) = (a.create_label(), a.create_label());
    let mode = random.below(3);
    gate(&mut a, TIMER_VECTOR, timer)?;
    gate(&mut a, SERIAL_VECTOR, serial)?;
    gate(&mut a, CPU_VECTOR, called)?;
    gate(&mut a, NONMASKABLE_VECTOR, nonmaskable)?;
    a.mov(rax, DESCRIPTORS + 0x1000)?;
    a.mov(word_ptr(rax), 0xfff)?;
    a.mov(rcx, DESCRIPTORS)?;
    a.mov(qword_ptr(rax + 2), rcx)?;
    store(&mut a, IO_APIC, 0x10 + 2 * 4)?;
    store(
        &mut a,
        IO_APIC + 0x10,
        SERIAL_VECTOR | random.pick(&[0, 1 << 15]),
    )?;
    // What the serial port sends to nobody is lost.
    store(&mut a, APIC + 0xf0, 0x1ff)?;
    store(&mut a, IO_APIC, 0x11 + 2 * 4)?;
    let everybody = 0xff << 24;
    store(
        &mut a,
        IO_APIC + 0x10,
        random.pick(&[0, everybody, everybody]),
    )?;
    port(&mut a, SERIAL + 2, 0x07)?;
    port(&mut a, SERIAL + 1, random.pick(&[1, 1, 3]))?;
    let mut every = a.create_label();
    for cpu in 1..cpus {
        wake_up(&mut a, cpu, every)?;
    }
    let period = 300 + random.below(9000);

    // Every CPU comes here.
    a.set_label(&mut every)?;
    a.mov(eax, 1)?;
    a.cpuid()?;
    a.shr(ebx, 24)?;
    a.mov(esi, ebx)?; // its number
    a.imul_3(ecx, ebx, STACK_BYTES as i32)?;
    a.mov(rsp, STACK)?;
    a.sub(rsp, rcx)?;
    // The selector of 64-bit code is the boot protocol's, the descriptor table of a CPU that was woken up is its own.
    a.mov(rax, DESCRIPTORS + 0x1010)?;
    a.mov(word_ptr(rax), 0x1f)?;
    a.mov(qword_ptr(rax + 2), 0x500)?;
    a.lgdt(ptr(rax))?;
    a.mov(rax, DESCRIPTORS + 0x1000)?;
    a.lidt(ptr(rax))?;
    store(&mut a, APIC + 0xf0, 0x1ff)?;
    let modes = [0, 1 << 17, 2 << 17];
    store(&mut a, APIC + 0x320, modes[mode as usize] | TIMER_VECTOR)?;
    store(&mut a, APIC + 0x3e0, random.pick(&[0xb, 0, 1]))?;
    arm(&mut a, mode, period)?;
    for register in [r8, r9, r10, r11, r12, r13, r14] {
        a.mov(register, random.bits())?;
        a.add(register, rsi)?;
    }
    a.mov(rbx, DATA)?;
    a.sti()?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    for _ in 0..STEPS {
        step(&mut a, random, mode, period)?;
    }
    a.jmp(again)?;

    a.set_label(&mut timer)?;
    a.push(rax)?;
    a.push(rcx)?;
    a.push(rdx)?;
    a.mov(rax, COUNTERS)?;
    a.inc(qword_ptr(rax))?;
    if mode != 1 {
        arm(&mut a, mode, period)?;
    }
    end_of_interrupt(&mut a)?;

    a.set_label(&mut serial)?;
    a.push(rax)?;
    a.push(rcx)?;
    a.push(rdx)?;
    a.mov(rax, COUNTERS)?;
    a.inc(qword_ptr(rax + 8))?;
    a.mov(edx, SERIAL + 2)?;
    a.in_(al, dx)?; // what it is
    a.mov(edx, SERIAL)?;
    a.in_(al, dx)?;
    a.xor(al, 0x20)?;
    a.out(dx, al)?;
    end_of_interrupt(&mut a)?;

    a.set_label(&mut called)?;
    a.push(rax)?;
    a.push(rcx)?;
    a.push(rdx)?;
    a.mov(rax, COUNTERS)?;
    a.inc(qword_ptr(rax + 16))?;
    end_of_interrupt(&mut a)?;

    a.set_label(&mut nonmaskable)?;
    a.push(rax)?;
    a.mov(rax, COUNTERS)?;
    a.inc(qword_ptr(rax + 24))?;
    a.pop(rax)?;
    a.iretq()?;
    a.assemble(ENTRY)
}

/// A CPU begins at a label.
fn wake_up(a: &mut CodeAssembler, cpu: u32, label: CodeLabel) -> Result<(), IcedError> {
    a.mov(rdx, MAILBOX)?;
    a.lea(rax, ptr(label))?;
    a.mov(dword_ptr(rdx + 4), cpu as i32)?;
    a.mov(qword_ptr(rdx + 8), rax)?;
    a.mov(word_ptr(rdx), 1)
}

/// An interrupt gate of 64-bit code.
fn gate(a: &mut CodeAssembler, vector: u32, handler: CodeLabel) -> Result<(), IcedError> {
    a.mov(rdx, DESCRIPTORS + u64::from(vector) * 16)?;
    a.lea(rax, ptr(handler))?;
    a.mov(word_ptr(rdx), ax)?;
    a.mov(word_ptr(rdx + 2), 0x10)?;
    a.mov(word_ptr(rdx + 4), 0x8e00)?;
    a.shr(rax, 16)?;
    a.mov(word_ptr(rdx + 6), ax)?;
    a.mov(qword_ptr(rdx + 8), 0)
}

/// A store of 32 bits to a device.
fn store(a: &mut CodeAssembler, address: u64, value: u32) -> Result<(), IcedError> {
    a.mov(rax, address)?;
    a.mov(dword_ptr(rax), value)
}

fn port(a: &mut CodeAssembler, port: u32, value: u32) -> Result<(), IcedError> {
    a.mov(edx, port)?;
    a.mov(eax, value)?;
    a.out(dx, al)
}

/// Sets the timer, `mode` being one-shot, periodic or deadline. Changes RAX, RCX and RDX.
fn arm(a: &mut CodeAssembler, mode: u64, period: u64) -> Result<(), IcedError> {
    if mode < 2 {
        return store(a, APIC + 0x380, period as u32);
    }
    a.rdtsc()?;
    a.add(eax, period as u32)?;
    a.adc(edx, 0)?;
    a.mov(ecx, 0x6e0)?;
    a.wrmsr()
}

fn end_of_interrupt(a: &mut CodeAssembler) -> Result<(), IcedError> {
    store(a, APIC + 0xb0, 0)?;
    a.pop(rdx)?;
    a.pop(rcx)?;
    a.pop(rax)?;
    a.iretq()
}

const WORKING: [AsmRegister64; 7] = [r8, r9, r10, r11, r12, r13, r14];

/// One step of the guest's loop.
fn step(
    a: &mut CodeAssembler,
    random: &mut Random,
    mode: u64,
    period: u64,
) -> Result<(), IcedError> {
    let (to, from) = (random.pick(&WORKING), random.pick(&WORKING));
    let offset = random.below(0x1ff0) as i32;
    match random.below(22) {
        0..=2 => a.add(to, from),
        3 => a.xor(to, from),
        4 => a.imul_2(to, from),
        5 => a.rol(to, random.below(64) as u32),
        6 | 7 => a.mov(qword_ptr(rbx + offset), from),
        8 | 9 => a.add(to, qword_ptr(rbx + offset)),
        10 => a.lock().xadd(qword_ptr(rbx + offset), from),
        11 => copy(a, random),
        12 => {
            a.rdtsc()?;
            a.xor(to, rax)
        }
        13 => {
            // A short loop with a branch that depends on data.
            a.mov(ecx, 1 + random.below(40) as u32)?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.ror(to, 3)?;
            a.adc(from, rcx)?;
            a.dec(ecx)?;
            a.jne(again)
        }
        14 if random.once_in(3) => {
            a.mov(edx, SERIAL)?;
            a.mov(eax, 0x20 + random.below(0x5f) as u32)?;
            a.out(dx, al)
        }
        15 if random.once_in(4) => {
            if mode != 1 {
                // Another armed timer, lest nothing wakes it.
                a.cli()?;
                arm(a, mode, period)?;
                a.sti()?;
            }
            a.hlt()
        }
        16 => modify_itself(a, random, to),
        17 => {
            a.cli()?;
            a.mov(qword_ptr(rbx + offset), to)?;
            a.pushfq()?;
            a.pop(rax)?;
            a.sti()?;
            a.add(from, rax)
        }
        18 => {
            a.mov(eax, 4 * random.below(3) as u32)?; // seconds, minutes or hours
            a.out(0x70, al)?;
            a.in_(al, 0x71)?;
            a.xor(to, rax)
        }
        19 => a.pause(),
        20 if random.once_in(3) => {
            let shorthands = [1 << 18, 2 << 18, 3 << 18];
            let nonmaskable = if random.once_in(4) { 4 << 8 } else { 0 };
            let command = random.pick(&shorthands) | nonmaskable | CPU_VECTOR;
            store(a, APIC + 0x300, command)
        }
        _ => a.push(to).and_then(|()| a.pop(from)),
    }
}

/// REP MOVSB between places that may overlap.
fn copy(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    a.lea(rsi, ptr(rbx + random.below(0x1800) as i32))?;
    a.lea(rdi, ptr(rbx + random.below(0x1800) as i32))?;
    a.mov(ecx, random.below(300) as u32)?;
    a.rep().movsb()
}

/// Changes the immediate of the instruction after the next.
fn modify_itself(
    a: &mut CodeAssembler,
    random: &mut Random,
    to: AsmRegister64,
) -> Result<(), IcedError> {
    let mut changed = a.create_label();
    a.lea(rax, ptr(changed))?;
    a.add(dword_ptr(rax + 2), random.below(1 << 20) as i32)?;
    a.set_label(&mut changed)?;
    a.mov(rcx, 0x1234_5678_9abc_def0u64)?; // REX.W B9, then eight bytes
    a.xor(to, rcx)
}
