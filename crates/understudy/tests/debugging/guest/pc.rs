//! The x86-64 guest: a bzImage whose lines end with a repeated instruction, each iteration of which counts.

#[path = "../../../../x86/testing/kernel_image.rs"]
mod kernel_image;

use super::Places;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use kernel_image::kernel_image;

const LOAD: u64 = 0x10_0000;
const ENTRY: u64 = LOAD + 0x200;
const DATA: u64 = 0x20_0000;
const STACK: u64 = 0x30_0000;
const DESCRIPTORS: u64 = 0x40_0000;
const APIC: u64 = 0xfee0_0000;
const SERIAL: u32 = 0x3f8;
const SLEEP_CONTROL: u32 = 0x600;
const TIMER_VECTOR: u64 = 0x40;
/// Nanoseconds between two interrupts.
const PERIOD: u32 = 700;
const LINES: i32 = 150;

/// The guest, and where things are in it.
pub fn program() -> Result<(Vec<u8>, Places), IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let [
        mut handler,
        mut handler_store,
        mut line,
        mut second,
        mut store,
    ] = [(); 5].map(|()| a.create_label());
    a.mov(rsp, STACK)?;
    take_timer_interrupts(&mut a, handler)?;
    a.mov(rbx, DATA)?;
    a.xor(r12d, r12d)?;
    a.sti()?;

    a.set_label(&mut line)?;
    a.mov(edx, SERIAL)?;
    a.set_label(&mut second)?;
    print_counter(&mut a)?;
    a.inc(r12d)?;
    a.set_label(&mut store)?;
    a.mov(dword_ptr(rbx + 8), r12d)?;
    a.lea(rdi, ptr(rbx + 0x100))?;
    a.mov(ecx, 20)?;
    a.rep().stosb()?;
    a.cmp(r12d, LINES)?;
    a.jb(line)?;
    a.mov(edx, SLEEP_CONTROL)?;
    a.mov(al, 5 << 2 | 1 << 5)?; // soft off
    a.out(dx, al)?;

    a.set_label(&mut handler)?;
    a.cld()?; // the stack is as the interrupt left it
    a.push(rax)?;
    a.mov(eax, dword_ptr(rbx + 16))?;
    a.inc(eax)?;
    a.set_label(&mut handler_store)?;
    a.mov(dword_ptr(rbx + 16), eax)?;
    a.mov(rax, APIC + 0xb0)?;
    a.mov(dword_ptr(rax), 0)?; // end of interrupt
    a.pop(rax)?;
    a.iretq()?;

    let options = iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let assembled = a.assemble_options(ENTRY, options)?;
    let places = Places {
        line: assembled.label_ip(&line)?,
        second: assembled.label_ip(&second)?,
        store: assembled.label_ip(&store)?,
        handler: assembled.label_ip(&handler)?,
        handler_store: assembled.label_ip(&handler_store)?,
        counted: DATA + 8,
        interrupts: DATA + 16,
    };
    Ok((kernel_image(LOAD, &assembled.inner.code_buffer), places))
}

fn take_timer_interrupts(a: &mut CodeAssembler, handler: CodeLabel) -> Result<(), IcedError> {
    a.mov(rdx, DESCRIPTORS + TIMER_VECTOR * 16)?;
    a.lea(rax, ptr(handler))?;
    a.mov(word_ptr(rdx), ax)?;
    a.mov(word_ptr(rdx + 2), 0x10)?;
    a.mov(word_ptr(rdx + 4), 0x8e00)?; // an interrupt gate
    a.shr(rax, 16)?;
    a.mov(word_ptr(rdx + 6), ax)?;
    a.mov(qword_ptr(rdx + 8), 0)?;
    a.mov(rax, DESCRIPTORS + 0x1000)?;
    a.mov(word_ptr(rax), 0xfff)?;
    a.mov(rcx, DESCRIPTORS)?;
    a.mov(qword_ptr(rax + 2), rcx)?;
    a.lidt(ptr(rax))?;
    for (register, value) in [
        (0xf0, 0x1ff),                          // enabled
        (0x320, 1 << 17 | TIMER_VECTOR as u32), // periodic
        (0x3e0, 0xb),                           // each nanosecond
        (0x380, PERIOD),
    ] {
        a.mov(rax, APIC + register)?;
        a.mov(dword_ptr(rax), value)?;
    }
    Ok(())
}

/// As four hexadecimal digits and a newline; the serial port is in DX.
fn print_counter(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let [mut digit, mut is_decimal] = [(); 2].map(|()| a.create_label());
    a.mov(ecx, 12)?;
    a.set_label(&mut digit)?;
    a.mov(eax, r12d)?;
    a.shr(eax, cl)?;
    a.and(eax, 15)?;
    a.add(eax, 48)?;
    a.cmp(eax, 58)?;
    a.jb(is_decimal)?;
    a.add(eax, 39)?;
    a.set_label(&mut is_decimal)?;
    a.out(dx, al)?;
    a.sub(ecx, 4)?;
    a.jns(digit)?;
    a.mov(al, 10)?;
    a.out(dx, al)
}
