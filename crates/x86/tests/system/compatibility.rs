//! Compatibility mode (SDM volume 1, 3.1.1; volume 3, 5.8): 32-bit code of programs, and the ways to and from
//! it.

use crate::rig::{CODE, DATA, GDT, KERNEL_CODE, Rig, STACK, USER_DATA};
use iced_x86::code_asm::*;
use x86::cpu::CS;

/// Selector of 32-bit user code: the rig leaves the place free.
const CODE_32: u64 = 0x23;
const FLAT_32: u64 = 0x00cf_fb00_0000_ffff;
/// Where the 32-bit code is.
const AT: u64 = CODE + 0x1000;

/// A rig whose kernel goes to 32-bit code by IRETQ, with the stack pointer `stack`.
fn rig(stack: u64, program: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Rig {
    let mut a = CodeAssembler::new(64).unwrap();
    a.push(i32::from(USER_DATA)).unwrap();
    a.push(rax).unwrap();
    a.push(0x202).unwrap();
    a.push(CODE_32 as i32).unwrap();
    a.push(rcx).unwrap();
    a.iretq().unwrap();
    let mut rig = Rig::new(&a.assemble(CODE).unwrap());
    rig.poke(GDT + 0x20, FLAT_32);
    rig.cpu.registers.gpr[0] = stack;
    rig.cpu.registers.gpr[1] = AT;
    rig.cpu.registers.gpr[3] = 0xdead_beef_0000_0001;
    let mut a = CodeAssembler::new(32).unwrap();
    program(&mut a).unwrap();
    let code = a.assemble(AT).unwrap();
    rig.ram.write(AT, &code).unwrap();
    rig.set_gate(0x80, 0xee);
    rig
}

/// Runs to `int 0x80`, and says what EAX is there.
fn result_of(program: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> u64 {
    let mut rig = rig(STACK, |a| {
        program(a)?;
        a.int(0x80)
    });
    let (vector, _, frame) = rig.exception();
    assert_eq!(vector, 0x80, "{:x?}", rig.cpu.registers);
    assert_eq!((frame.cs, frame.ss), (CODE_32, u64::from(USER_DATA)));
    assert_eq!(frame.rsp, STACK, "the stack is where it was");
    assert_eq!(rig.cpu.registers.segments[CS].selector, KERNEL_CODE);
    rig.cpu.registers.gpr[0]
}

#[test]
fn a_program_of_32_bits_pushes_calls_and_returns_in_units_of_4_bytes() {
    let result = result_of(|a| {
        let (mut function, mut start) = (a.create_label(), a.create_label());
        a.jmp(start)?;
        a.set_label(&mut function)?;
        a.enter(8, 0)?;
        a.mov(eax, dword_ptr(ebp + 8))?;
        a.add(eax, dword_ptr(ebp + 12))?;
        a.leave()?;
        a.ret_1(8)?;
        a.set_label(&mut start)?;
        a.push(-2)?;
        a.push(44)?;
        a.call(function)?;
        a.pushfd()?;
        a.pop(edx)?;
        a.push(edx)?;
        a.popfd()?;
        a.push(es)?;
        a.pop(es)
    });
    assert_eq!(result, 42);
}

#[test]
fn sdm_volume_2_pushad_and_popad() {
    let result = result_of(|a| {
        a.mov(eax, 1)?;
        a.mov(edi, 7)?;
        a.pushad()?;
        a.mov(edx, dword_ptr(esp))?; // EDI
        a.shl(edx, 8)?;
        a.or(edx, dword_ptr(esp + 28))?; // EAX
        a.mov(dword_ptr(esp + 28), edx)?;
        a.popad()
    });
    assert_eq!(result, 0x701);
}

/// INC and DEC have the places of REX prefixes; addresses wrap around at 4 GiB, in FS and GS too.
#[test]
fn opcodes_and_addresses_are_those_of_32_bits() {
    let result = result_of(|a| {
        a.xor(eax, eax)?;
        a.db(&[0x40, 0x40, 0x48])?; // inc eax; inc eax; dec eax
        a.mov(ecx, -16)?;
        a.mov(dword_ptr(DATA as u32), 0x70)?;
        a.add(eax, dword_ptr(ecx + (DATA as i32 + 16)))?;
        // mov eax, [moffs]
        a.mov(edx, eax)?;
        a.db(&[0xa1])?;
        a.dd(&[DATA as u32])?;
        a.add(eax, edx)
    });
    assert_eq!(result, 0xe1);
}

#[test]
fn gs_has_a_base_and_wraps_around_at_4_gib() {
    let mut rig = rig(STACK, |a| {
        a.mov(eax, 0x2b)?;
        a.mov(gs, eax)?;
        a.mov(ecx, DATA as u32)?;
        a.mov(eax, dword_ptr(ecx + 0x1000).gs())?;
        a.int(0x80)
    });
    // A data segment that begins one page below 4 GiB.
    rig.poke(GDT + 0x28, 0xffcf_f3ff_f000_ffff);
    rig.poke(DATA, 0x1234_5678);
    let (vector, _, _) = rig.exception();
    assert_eq!((vector, rig.cpu.registers.gpr[0]), (0x80, 0x1234_5678));
}

/// Volume 1, 3.4.1.1: the upper halves are not preserved. Here they are zero.
#[test]
fn upper_halves_are_zero_in_32_bit_code() {
    let mut rig = rig(0xffff_ffff_0000_0000 | STACK, |a| a.int(0x80));
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.rsp), (0x80, STACK));
    assert_eq!(rig.cpu.registers.gpr[3], 1);
}

/// The same bytes at the same address are decoded again for the other mode.
#[test]
fn a_far_jump_goes_to_64_bit_code_and_back() {
    let mut rig = rig(STACK, |a| {
        // REX.W inc eax: `dec eax; inc dword` in 32-bit code
        a.xor(eax, eax)?;
        a.db(&[0xea])?; // jmp 0x33:there
        a.dd(&[(AT + 9) as u32])?;
        a.dw(&[0x33])?;
        // there
        a.db(&[0x48, 0xff, 0xc0])?; // 64-bit: inc rax; 32-bit: dec eax, inc eax
        a.db(&[0x48, 0x89, 0xc2])?; // 64-bit: mov rdx, rax; 32-bit: dec eax, mov edx, eax
        a.int(0x80)
    });
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.cs), (0x80, 0x33));
    assert_eq!((rig.cpu.registers.gpr[0], rig.cpu.registers.gpr[2]), (1, 1));
    // Back, and over the same bytes.
    let mut a = CodeAssembler::new(64).unwrap();
    a.iretq().unwrap();
    let back = a.assemble(CODE + 0x800).unwrap();
    rig.ram.write(CODE + 0x800, &back).unwrap();
    let top = rig.cpu.registers.gpr[4];
    rig.poke(top, AT + 9);
    rig.poke(top + 8, CODE_32);
    rig.cpu.registers.rip = CODE + 0x800;
    rig.cpu.registers.is_halted = false;
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.cs), (0x80, CODE_32));
    assert_eq!(rig.cpu.registers.gpr[2], 0, "{:x?}", rig.cpu.registers);
}

/// Volume 2, SYSENTER and SYSRET: how Linux' 32-bit system calls come and go on Intel's processors.
#[test]
fn sysenter_comes_from_32_bit_code_and_sysret_goes_back() {
    let kernel = CODE + 0x800;
    let mut rig = rig(STACK, |a| {
        a.mov(ecx, esp)?;
        a.sysenter()?;
        a.add(eax, 2)?;
        a.int(0x80)
    });
    let mut a = CodeAssembler::new(64).unwrap();
    a.mov(eax, 40).unwrap();
    a.mov(rcx, AT + 4).unwrap();
    a.mov(r11d, 0x202).unwrap();
    a.db(&[0x0f, 0x07]).unwrap(); // sysretl
    let code = a.assemble(kernel).unwrap();
    rig.ram.write(kernel, &code).unwrap();
    rig.cpu.registers.sysenter = [u64::from(KERNEL_CODE), 0x3_0000, kernel];
    rig.cpu.registers.star = 0x0020_0010_0000_0000;
    let (vector, _, frame) = rig.exception();
    assert_eq!(vector, 0x80, "{:x?}", rig.cpu.registers);
    assert_eq!((rig.cpu.registers.gpr[0], frame.cs), (42, CODE_32));
    assert_eq!(frame.ss, 0x2b);
}

/// A vendor's matter: Intel has no SYSCALL there. Addresses of 16 bits are not for flat segments.
#[test]
fn what_32_bit_code_has_not_is_undefined() {
    let syscall: &[u8] = &[0x0f, 0x05];
    for code in [syscall, &[0x67, 0x8b, 0x07], &[0x27], &[0x0f, 0x01, 0x0f]] {
        let mut rig = rig(STACK, |a| a.db(code));
        let (vector, _, frame) = rig.exception();
        assert_eq!((vector, frame.rip), (6, AT), "{code:x?}");
    }
}
