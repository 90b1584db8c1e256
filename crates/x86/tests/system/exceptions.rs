use crate::rig::{
    CODE, DATA, Frame, HANDLERS, INTERRUPT_STACK, KERNEL_CODE, Rig, STACK, STACK_0, USER_CODE,
    USER_DATA,
};
use x86::cpu::CS;
use x86::interpreter::Exit;

/// SDM volume 3, 6.14.2: the frame in 64-bit mode, on an aligned stack, with RF set for a fault.
#[test]
fn a_fault_in_kernel_mode() {
    // ud2
    let mut rig = Rig::new(&[0x0f, 0x0b]);
    rig.cpu.registers.gpr[4] = STACK - 4;
    let (vector, code, frame) = rig.exception();
    assert_eq!((vector, code), (6, None));
    let expected = Frame {
        rip: CODE,
        cs: KERNEL_CODE.into(),
        rflags: 0x1_0002,
        rsp: STACK - 4,
        ss: 0x18,
    };
    assert_eq!(frame, expected);
    assert_eq!(rig.cpu.registers.gpr[4], STACK - 16 - 40);
    // The instruction that faulted and the HLT.
    assert_eq!(rig.now, 2);
}

/// SDM volume 3, 6.14.4: RSP0, SS becomes null.
#[test]
fn a_fault_in_user_mode() {
    // hlt
    let mut rig = Rig::new(&[0xf4]).user();
    rig.cpu.registers.rflags |= 0x200;
    let (vector, code, frame) = rig.exception();
    assert_eq!((vector, code), (13, Some(0)));
    let expected = Frame {
        rip: CODE,
        cs: USER_CODE.into(),
        rflags: 0x1_0202,
        rsp: STACK,
        ss: USER_DATA.into(),
    };
    assert_eq!(frame, expected);
    assert_eq!(rig.cpu.registers.gpr[4], STACK_0 - 48);
    assert_eq!(rig.cpu.registers.segments[2].selector, 0);
    assert_eq!(rig.cpu.registers.rflags & 0x200, 0);
}

/// SDM volume 3, 6.14.5.
#[test]
fn an_interrupt_stack_is_used_from_any_privilege() {
    for is_user in [false, true] {
        let mut rig = Rig::new(&[0x0f, 0x0b]);
        rig.set_interrupt_stack(6, 1);
        if is_user {
            rig = rig.user();
        }
        rig.exception();
        assert_eq!(rig.cpu.registers.gpr[4], INTERRUPT_STACK - 40);
    }
}

/// A page fault says where.
#[test]
fn cr2_is_the_address() {
    let mut rig = Rig::new(&[0x48, 0x8b, 0x07]);
    rig.set_entry(DATA, 0);
    rig.cpu.registers.gpr[7] = DATA + 5;
    let (vector, code, _) = rig.exception();
    assert_eq!((vector, code), (14, Some(0)));
    assert_eq!(rig.cpu.registers.cr2, DATA + 5);
}

/// SDM volume 3, 6.12.1.2: INT n needs the gate's privilege; a fault does not.
#[test]
fn software_interrupts_and_privilege() {
    // int 0x80
    let mut rig = Rig::new(&[0xcd, 0x80]).user();
    let (vector, code, frame) = rig.exception();
    assert_eq!((vector, code, frame.rip), (13, Some(0x80 * 8 + 2), CODE));
    let mut rig = Rig::new(&[0xcd, 0x80]).user();
    rig.set_gate(0x80, 0xee);
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.rip, frame.rflags), (0x80, CODE + 2, 2));
    // int3
    let mut rig = Rig::new(&[0xcc]).user();
    rig.set_gate(3, 0xee);
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.rip), (3, CODE + 1));
}

/// SDM volume 3, table 6-5, and 6.15, interrupt 8.
#[test]
fn double_and_triple_faults() {
    // A page fault whose gate is not present: #NP is contributory.
    let mut rig = Rig::new(&[0x48, 0x8b, 0x07]);
    rig.set_entry(DATA, 0);
    rig.cpu.registers.gpr[7] = DATA;
    rig.set_gate(14, 0x0e);
    let (vector, code, frame) = rig.exception();
    assert_eq!((vector, code, frame.rip), (8, Some(0), CODE));
    // #UD whose gate is not present becomes #NP: #UD is benign.
    let mut rig = Rig::new(&[0x0f, 0x0b]);
    rig.set_gate(6, 0x0e);
    let (vector, code, _) = rig.exception();
    assert_eq!((vector, code), (11, Some(6 * 8 + 3)));
    // Without a table nothing can be delivered.
    let mut rig = Rig::new(&[0x0f, 0x0b]);
    rig.cpu.registers.idtr.limit = 0;
    assert_eq!(rig.run(10), Exit::TripleFault);
    assert_eq!(rig.now, 1);
}

/// SDM volume 2, IRET: back to where the frame says, flags and all.
#[test]
fn iretq_returns_to_user_mode() {
    // iretq
    let mut rig = Rig::new(&[0x48, 0xcf]);
    let top = STACK - 40;
    for (index, value) in [
        CODE + 0x100,
        USER_CODE.into(),
        0x3_3ad7,
        STACK - 8,
        USER_DATA.into(),
    ]
    .into_iter()
    .enumerate()
    {
        rig.poke(top + 8 * index as u64, value);
    }
    rig.cpu.registers.gpr[4] = top;
    rig.step().unwrap();
    let registers = &rig.cpu.registers;
    assert_eq!((registers.rip, registers.gpr[4]), (CODE + 0x100, STACK - 8));
    assert_eq!(registers.segments[1].selector, USER_CODE);
    assert_eq!(registers.segments[2].selector, USER_DATA);
    // IOPL and IF come along from CPL 0, VM does not.
    assert_eq!(registers.rflags, 0x1_3ad7);
}

/// SDM volume 2, SYSCALL and SYSRET.
#[test]
fn system_call_and_return() {
    // syscall
    let mut rig = Rig::new(&[0x0f, 0x05]).user();
    let registers = &mut rig.cpu.registers;
    registers.star = 0x0020_0010 << 32;
    registers.lstar = CODE + 0x200;
    registers.fmask = 0x600;
    registers.rflags = 0x0e03;
    rig.ram.write(CODE + 0x200, &[0x48, 0x0f, 0x07]).unwrap(); // sysretq
    rig.step().unwrap();
    let registers = &rig.cpu.registers;
    assert_eq!(
        (registers.rip, registers.gpr[1], registers.gpr[11]),
        (CODE + 0x200, CODE + 2, 0xe03)
    );
    assert_eq!(registers.rflags, 0x803);
    assert_eq!(
        (
            registers.segments[1].selector,
            registers.segments[2].selector
        ),
        (0x10, 0x18)
    );
    assert_eq!(registers.gpr[4], STACK);
    rig.step().unwrap();
    let registers = &rig.cpu.registers;
    assert_eq!((registers.rip, registers.rflags), (CODE + 2, 0xe03));
    assert_eq!(
        (
            registers.segments[1].selector,
            registers.segments[2].selector
        ),
        (0x33, 0x2b)
    );
    // In kernel mode, as on Intel: a return address that is not canonical.
    rig.cpu.registers.rip = CODE;
    rig.step().unwrap();
    rig.cpu.registers.gpr[1] = 1 << 47;
    let fault = rig.step().unwrap_err();
    assert_eq!(
        (fault.vector, rig.cpu.registers.segments[1].selector),
        (13, 0x10)
    );
    // Not enabled.
    let mut rig = Rig::new(&[0x0f, 0x05]).user();
    rig.cpu.registers.efer &= !1;
    assert_eq!(rig.step().unwrap_err().vector, 6);
}

/// SDM volume 3, 17.3.1.4: #DB after each instruction, and after each iteration.
#[test]
fn single_step() {
    // inc eax; rep movsb; inc eax
    let mut rig = Rig::new(&[0xff, 0xc0, 0xf3, 0xa4, 0xff, 0xc0]);
    rig.cpu.registers.gpr[1] = 3;
    rig.cpu.registers.gpr[6] = DATA;
    rig.cpu.registers.gpr[7] = DATA + 0x100;
    let mut seen = Vec::new();
    for _ in 0..5 {
        rig.cpu.registers.rflags |= 0x100;
        let (vector, _, frame) = rig.exception();
        assert_eq!((vector, rig.cpu.registers.dr6 & 0x4000), (1, 0x4000));
        assert_eq!(rig.cpu.registers.rflags & 0x100, 0);
        seen.push((frame.rip - CODE, rig.cpu.registers.gpr[1]));
        rig.cpu.registers.rip = frame.rip;
        rig.cpu.registers.gpr[4] = frame.rsp;
        rig.cpu.registers.is_halted = false;
    }
    assert_eq!(seen, [(2, 3), (2, 2), (2, 1), (4, 0), (6, 0)]);
}

/// A fault counts as one; so does each iteration; none at all counts as one, too.
#[test]
fn what_counts() {
    // rep stosb; hlt
    let code = [0xf3, 0xaa, 0xf4];
    for (iterations, counted) in [(0, 2), (1, 2), (5, 6), (10_000, 10_001)] {
        let mut rig = Rig::new(&code);
        rig.cpu.registers.gpr[1] = iterations;
        rig.cpu.registers.gpr[7] = DATA;
        assert_eq!(rig.run(100_000), Exit::Halted);
        assert_eq!(rig.now, counted);
        assert_eq!(rig.cpu.registers.gpr[7], DATA + iterations);
    }
    // The run's end between two iterations.
    for slice in [1, 7, 4096, 5000] {
        let mut rig = Rig::new(&code);
        rig.cpu.registers.gpr[1] = 10_000;
        rig.cpu.registers.gpr[7] = DATA + 3;
        rig.run(slice);
        assert_eq!(rig.now, slice);
        assert_eq!(rig.cpu.registers.gpr[1], 10_000 - slice);
        assert_eq!(rig.cpu.registers.rip, CODE);
    }
    // A page that is not there: what was done stays, RIP is the instruction's.
    let mut rig = Rig::new(&code);
    rig.cpu.registers.gpr[1] = 10_000;
    rig.cpu.registers.gpr[7] = DATA;
    rig.set_entry(DATA + 0x1000, 0);
    let (vector, _, frame) = rig.exception();
    assert_eq!((vector, frame.rip), (14, CODE));
    assert_eq!(
        (rig.cpu.registers.gpr[1], rig.now),
        (10_000 - 4096, 4096 + 2)
    );
    assert!(rig.cpu.registers.rip > HANDLERS);
}

/// 16-bit code is nobody's; a kernel that goes there resets by it.
#[test]
fn code_of_16_bits_is_refused() {
    // retfq
    for (is_user, descriptor) in [
        (true, 0x008f_fb00_0000_ffff_u64),
        (false, 0x008f_9b00_0000_ffff),
    ] {
        let mut rig = Rig::new(&[0x48, 0xcb]);
        rig.poke(crate::rig::GDT + 0x20, descriptor);
        let selector = if is_user { 0x23 } else { 0x20 };
        rig.poke(STACK - 16, CODE);
        rig.poke(STACK - 8, selector);
        rig.cpu.registers.gpr[4] = STACK - 16;
        if is_user {
            rig = rig.user();
            let (vector, code, _) = rig.exception();
            assert_eq!((vector, code), (13, Some(0x20)));
        } else {
            assert_eq!(rig.run(10), Exit::TripleFault);
        }
    }
}

/// SDM volume 3, 10.8.5: 64-bit code cannot switch paging off; 32-bit code of a kernel can, and shuts down with the
/// first exception then.
#[test]
fn a_kernel_of_32_bits_without_paging_takes_no_exception() {
    // mov cr0, rax
    let mut rig = Rig::new(&[0x0f, 0x22, 0xc0]);
    rig.cpu.registers.gpr[0] = rig.cpu.registers.cr0 & 0x7fff_ffff;
    assert_eq!(rig.exception().0, 13);
    // mov cr0, eax; mov ebx, 1; then what raises something
    let raising: [&[u8]; 4] = [
        &[0x0f, 0x0b],                // ud2
        &[0xcd, 0x80],                // int 0x80
        &[0x0f, 0x22, 0xc8],          // mov cr1, eax
        &[0x66, 0xea, 0, 0, 0x10, 0], // a far jump of 16 bits, as before real mode
    ];
    for code in raising {
        let mut rig = Rig::new(&[&[0x0f, 0x22, 0xc0, 0xbb, 1, 0, 0, 0], code].concat());
        rig.cpu.registers.segments[CS].attributes = 0xc09b;
        rig.cpu.registers.gpr[0] = rig.cpu.registers.cr0 & 0x7fff_ffff;
        assert_eq!(rig.run(2), Exit::Count);
        assert_eq!(rig.cpu.registers.efer & 0x500, 0x100, "LMA is clear");
        assert_eq!(rig.run(2), Exit::TripleFault, "{code:x?}");
        assert_eq!(rig.cpu.registers.gpr[3], 1);
    }
}

/// SDM volume 3, 10.8.5: neither LMA nor, while paging is on, LME is for software; paging is long mode's or none.
#[test]
fn efer_says_what_paging_is() {
    const EFER: u64 = 0xc000_0080;
    // wrmsr; rdmsr
    let write = |value: u64| {
        let mut rig = Rig::new(&[0x0f, 0x30, 0x0f, 0x32, 0xf4]);
        rig.cpu.registers.gpr[0] = value;
        rig.cpu.registers.gpr[1] = EFER;
        rig
    };
    let mut rig = write(0xd01);
    assert_eq!(rig.run(3), Exit::Halted);
    assert_eq!(rig.cpu.registers.gpr[0], 0xd01);
    let mut rig = write(0x901);
    assert_eq!(rig.run(3), Exit::Halted);
    assert_eq!(rig.cpu.registers.gpr[0], 0xd01, "LMA stays");
    assert_eq!(write(0xc01).exception().0, 13, "LME");
    // Paging without LME: mov cr0, eax
    let mut rig = Rig::new(&[0x0f, 0x22, 0xc0]);
    rig.cpu.registers.segments[CS].attributes = 0xc09b;
    rig.cpu.registers.gpr[0] = rig.cpu.registers.cr0;
    rig.cpu.registers.cr0 &= 0x7fff_ffff;
    rig.cpu.registers.efer = 0;
    assert_eq!(rig.run(1), Exit::TripleFault);
}
