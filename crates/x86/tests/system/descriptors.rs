use crate::rig::{CODE, DATA, GDT, KERNEL_CODE, Rig, STACK};

const FS: usize = 4;
const ZF: u64 = 0x40;

fn after(code: &[u8], prepare: impl Fn(&mut Rig)) -> Rig {
    let mut rig = Rig::new(code);
    prepare(&mut rig);
    rig.step().unwrap();
    rig
}

/// SDM volume 2, LAR, LSL, VERR, VERW: what can be seen of a descriptor.
#[test]
fn lar_lsl_verr_and_verw() {
    // lar eax, ecx; lsl eax, ecx; verr cx; verw cx
    let (lar, lsl) = (&[0x0f, 0x02, 0xc1], &[0x0f, 0x03, 0xc1]);
    let (verr, verw) = (&[0x0f, 0x00, 0xe1], &[0x0f, 0x00, 0xe9]);
    let look = |code: &[u8], selector: u64, is_user: bool| {
        let mut rig = Rig::new(code);
        if is_user {
            rig = rig.user();
        }
        rig.cpu.registers.gpr[1] = selector;
        rig.step().unwrap();
        let registers = &rig.cpu.registers;
        (registers.rflags & ZF != 0).then_some(registers.gpr[0])
    };
    assert_eq!(look(lar, 0x10, false), Some(0x00af_9b00));
    assert_eq!(look(lar, 0x2b, true), Some(0x00cf_f300));
    assert_eq!(look(lar, 0x40, false), Some(0x0000_8900));
    assert_eq!(look(lsl, 0x18, false), Some(0xffff_ffff));
    assert_eq!(look(lsl, 0x40, false), Some(0x67));
    for code in [&lar[..], lsl, verr, verw] {
        assert_eq!(look(code, 0, false), None);
        assert_eq!(look(code, 0x18, true), None, "the kernel's");
        assert_eq!(look(code, 0x1000, false), None, "beyond the table");
    }
    assert!(look(verr, 0x10, false).is_some());
    assert!(look(verw, 0x10, false).is_none());
    assert!(look(verw, 0x2b, true).is_some());
}

/// SDM volume 2, SGDT, SIDT, STR, SLDT, SMSW.
#[test]
fn stores_of_system_registers() {
    // sgdt [rdi]; sidt [rdi]
    for (code, limit, base) in [(0x07, 0x4f, GDT), (0x0f, 0xfff, 0x9000)] {
        let rig = after(&[0x0f, 0x01, code], |rig| rig.cpu.registers.gpr[7] = DATA);
        assert_eq!(rig.peek(DATA) & 0xffff, limit);
        assert_eq!(rig.peek(DATA + 2), base);
    }
    // str eax; sldt rax; smsw eax; str [rdi]
    let eax = |code: &[u8]| {
        after(code, |rig| rig.cpu.registers.gpr[0] = u64::MAX)
            .cpu
            .registers
            .gpr[0]
    };
    assert_eq!(eax(&[0x0f, 0x00, 0xc8]), 0x40);
    assert_eq!(eax(&[0x48, 0x0f, 0x00, 0xc0]), 0);
    assert_eq!(eax(&[0x0f, 0x01, 0xe0]), 0x8001_0033);
    let rig = after(&[0x0f, 0x00, 0x0f], |rig| {
        rig.cpu.registers.gpr[7] = DATA;
        rig.poke(DATA, u64::MAX);
    });
    assert_eq!(rig.peek(DATA), 0xffff_ffff_ffff_0040);
}

/// SDM volume 2, MOV, PUSH, POP and LFS with segment registers; volume 3, 3.4.5.1: the accessed bit.
#[test]
fn loads_of_segment_registers() {
    // A data segment with a base, not yet accessed, in the free place.
    let with_segment = |rig: &mut Rig| {
        rig.poke(GDT + 0x20, 0x12cf_9234_5678_ffff);
        rig.cpu.registers.gpr[0] = 0x20;
        rig.cpu.registers.gpr[4] = STACK - 8;
        rig.poke(STACK - 8, 0x20);
        rig.cpu.registers.gpr[7] = DATA;
        rig.poke(DATA, 0x0020_1122_3344);
    };
    // mov fs, eax; pop fs; lfs ecx, [rdi]
    for code in [&[0x8e, 0xe0][..], &[0x0f, 0xa1], &[0x0f, 0xb4, 0x0f]] {
        let rig = after(code, with_segment);
        let fs = rig.cpu.registers.segments[FS];
        assert_eq!((fs.selector, fs.base), (0x20, 0x1234_5678), "{code:x?}");
        assert_eq!(rig.peek(GDT + 0x20), 0x12cf_9334_5678_ffff);
    }
    // mov eax, cs; push fs
    let rig = after(&[0x8c, 0xc8], |_| {});
    assert_eq!(rig.cpu.registers.gpr[0], KERNEL_CODE.into());
    let rig = after(&[0x0f, 0xa0], |rig| {
        rig.cpu.registers.segments[FS].selector = 0x2b
    });
    assert_eq!(rig.peek(STACK - 8), 0x2b);
    // A null selector is no fault, and leaves no base; SS in user mode may not be null.
    let rig = after(&[0x8e, 0xe0], |rig| rig.cpu.registers.segments[FS].base = 5);
    assert_eq!(rig.cpu.registers.segments[FS].base, 0);
    let mut rig = Rig::new(&[0x8e, 0xd0]).user();
    assert_eq!(rig.step().unwrap_err().vector, 13);
    // Not present: #NP, for SS #SS. Code that cannot be read: #GP.
    for (code, descriptor, vector) in [
        ([0x8e, 0xe0], 0x00cf_1300_0000_ffff_u64, 11),
        ([0x8e, 0xd0], 0x00cf_1300_0000_ffff, 12),
        ([0x8e, 0xe0], 0x00af_9900_0000_ffff, 13),
        ([0x8e, 0xd0], 0x00cf_9100_0000_ffff, 13),
    ] {
        let mut rig = Rig::new(&code);
        rig.poke(GDT + 0x20, descriptor);
        rig.cpu.registers.gpr[0] = 0x20;
        let fault = rig.step().unwrap_err();
        assert_eq!((fault.vector, fault.error_code), (vector, Some(0x20)));
    }
}

/// SDM volume 2, LTR: the task is busy from then on, and is not taken twice.
#[test]
fn ltr_makes_the_task_busy() {
    // ltr ax; ltr ax
    let mut rig = Rig::new(&[0x0f, 0x00, 0xd8, 0x0f, 0x00, 0xd8]);
    rig.cpu.registers.gpr[0] = 0x40;
    rig.step().unwrap();
    assert_eq!(rig.peek(GDT + 0x40) >> 40 & 0xff, 0x8b);
    let fault = rig.step().unwrap_err();
    assert_eq!((fault.vector, fault.error_code), (13, Some(0x40)));
}

/// SDM volume 2, CALL, JMP and RET, far, in 64-bit mode.
#[test]
fn far_transfers_within_a_privilege() {
    // jmp far [rdi]; call far [rdi], both with offsets of 64 bits.
    let prepare = |rig: &mut Rig| {
        rig.cpu.registers.gpr[7] = DATA;
        rig.poke(DATA, CODE + 0x100);
        rig.poke(DATA + 8, KERNEL_CODE.into());
    };
    let rig = after(&[0x48, 0xff, 0x2f], prepare);
    assert_eq!(rig.cpu.registers.rip, CODE + 0x100);
    let mut rig = after(&[0x48, 0xff, 0x1f], prepare);
    assert_eq!(rig.cpu.registers.rip, CODE + 0x100);
    assert_eq!(rig.peek(STACK - 8), KERNEL_CODE.into());
    assert_eq!(rig.peek(STACK - 16), CODE + 3);
    rig.ram.write(CODE + 0x100, &[0x48, 0xcb]).unwrap(); // retfq
    rig.step().unwrap();
    assert_eq!(
        (rig.cpu.registers.rip, rig.cpu.registers.gpr[4]),
        (CODE + 3, STACK)
    );
}
