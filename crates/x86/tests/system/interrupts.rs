use crate::rig::{CODE, DATA, KERNEL_CODE, Rig, STACK};
use x86::interpreter::Exit;

const IF: u64 = 0x200;

/// SDM volume 2, STI: the next instruction is executed before an interrupt is taken.
#[test]
fn sti_keeps_interrupts_out_for_one_instruction() {
    // sti; inc eax; inc eax
    let mut rig = Rig::new(&[0xfb, 0xff, 0xc0, 0xff, 0xc0]);
    rig.line.pending = Some(0x40);
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.rip), (0x40, CODE + 3));
    assert_eq!((rig.cpu.registers.gpr[0], frame.rflags & IF), (1, IF));
    // STI with IF set casts no shadow.
    let mut rig = Rig::new(&[0xfb, 0xff, 0xc0]);
    rig.cpu.registers.rflags |= IF;
    rig.run(1);
    rig.line.pending = Some(0x40);
    let (_, _, frame) = rig.exception();
    assert_eq!(frame.rip, CODE + 1);
}

/// STI; HLT: the interrupt comes after HLT, and returns behind it.
#[test]
fn sti_hlt_waits_for_the_interrupt() {
    let mut rig = Rig::new(&[0xfb, 0xf4, 0x90]);
    rig.line.pending = Some(0x40);
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.rip), (0x40, CODE + 2));
    let mut rig = Rig::new(&[0xfb, 0xf4, 0x90]);
    assert_eq!(rig.run(100), Exit::Halted);
    assert_eq!((rig.now, rig.cpu.registers.rip), (2, CODE + 2));
    rig.line.pending = Some(0x41);
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.rip), (0x41, CODE + 2));
    // Taking it counted nothing: HLT, HLT of the handler.
    assert_eq!(rig.now, 3);
}

/// SDM volume 3, 6.8.3: after a load of SS.
#[test]
fn mov_ss_keeps_interrupts_out_for_one_instruction() {
    // mov ss, eax; mov rsp, rbx; inc ecx
    let mut rig = Rig::new(&[0x8e, 0xd0, 0x48, 0x89, 0xdc, 0xff, 0xc1]);
    rig.cpu.registers.gpr[0] = 0x18;
    rig.cpu.registers.gpr[3] = STACK - 0x100;
    rig.cpu.registers.rflags |= IF;
    rig.run(1);
    rig.line.pending = Some(0x40);
    let (_, _, frame) = rig.exception();
    assert_eq!((frame.rip, frame.rsp), (CODE + 5, STACK - 0x100));
}

/// POPF and IRET let an interrupt in at once.
#[test]
fn popf_lets_interrupts_in() {
    // popfq; inc eax
    let mut rig = Rig::new(&[0x9d, 0xff, 0xc0]);
    rig.cpu.registers.gpr[4] = STACK - 8;
    rig.poke(STACK - 8, 0x202);
    rig.line.pending = Some(0x40);
    let (_, _, frame) = rig.exception();
    assert_eq!((frame.rip, frame.cs), (CODE + 1, KERNEL_CODE.into()));
    assert_eq!(rig.cpu.registers.gpr[0], 0);
}

/// A device that an instruction touches interrupts behind that instruction.
#[test]
fn a_port_write_may_interrupt_at_once() {
    // mov al, 0x50; out 0x99, al; inc ebx
    let mut rig = Rig::new(&[0xb0, 0x50, 0xe6, 0x99, 0xff, 0xc3]);
    rig.cpu.registers.rflags |= IF;
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.rip), (0x50, CODE + 4));
    assert_eq!(rig.line.written, [(0x99, 0x50, 1)]);
}

/// An interrupt between two iterations: RIP is the instruction's.
#[test]
fn an_interrupt_within_a_repeated_instruction() {
    // rep movsq
    let mut rig = Rig::new(&[0xf3, 0x48, 0xa5]);
    rig.cpu.registers.gpr[1] = 1000;
    rig.cpu.registers.gpr[6] = DATA;
    rig.cpu.registers.gpr[7] = DATA + 0x8000;
    rig.cpu.registers.rflags |= IF;
    assert_eq!(rig.run(123), Exit::Count);
    rig.line.pending = Some(0x40);
    let (_, _, frame) = rig.exception();
    assert_eq!((frame.rip, rig.cpu.registers.gpr[1]), (CODE, 1000 - 123));
}
