use crate::rig::{ALL, CODE, DATA, PAGES, ROOT, Rig};

const PAGE_FAULT: u64 = 14;
const NX: u64 = 1 << 63;
const SMEP: u64 = 1 << 20;
const SMAP: u64 = 1 << 21;
const WP: u64 = 1 << 16;

/// mov rax, [rdi]
const LOAD: [u8; 3] = [0x48, 0x8b, 0x07];
/// mov [rdi], rax
const STORE: [u8; 3] = [0x48, 0x89, 0x07];
/// add [rdi], rax
const CHANGE: [u8; 3] = [0x48, 0x01, 0x07];
/// jmp rdi
const JUMP: [u8; 2] = [0xff, 0xe7];

/// What an access to DATA does: `None` if it is let through, else the error code.
fn access(code: &[u8], is_user: bool, bits: u64, prepare: impl Fn(&mut Rig)) -> Option<u64> {
    let mut rig = Rig::new(code);
    if is_user {
        rig = rig.user();
    }
    rig.set_entry(DATA, bits);
    rig.cpu.registers.gpr[7] = DATA;
    prepare(&mut rig);
    match rig.step() {
        Ok(()) if code == JUMP => {
            rig.ram.write(DATA, &[0x90]).unwrap();
            rig.step().err().map(|fault| {
                assert_eq!((u64::from(fault.vector), fault.address), (PAGE_FAULT, DATA));
                u64::from(fault.error_code.unwrap())
            })
        }
        Ok(()) => None,
        Err(fault) => {
            assert_eq!((u64::from(fault.vector), fault.address), (PAGE_FAULT, DATA));
            Some(u64::from(fault.error_code.unwrap()))
        }
    }
}

/// SDM volume 3, 4.6 and 4.7: who may do what, and what the error code says.
#[test]
fn access_rights_and_error_codes() {
    let nothing = |_: &mut Rig| {};
    // Not present.
    assert_eq!(access(&LOAD, false, 6, nothing), Some(0));
    assert_eq!(access(&STORE, false, 6, nothing), Some(2));
    assert_eq!(access(&CHANGE, false, 6, nothing), Some(2));
    assert_eq!(access(&LOAD, true, 6, nothing), Some(4));
    assert_eq!(access(&STORE, true, 6, nothing), Some(6));
    assert_eq!(access(&JUMP, true, 6, nothing), Some(0x14));
    // Pages of the kernel's.
    assert_eq!(access(&LOAD, false, 3, nothing), None);
    assert_eq!(access(&LOAD, true, 3, nothing), Some(5));
    assert_eq!(access(&STORE, true, 3, nothing), Some(7));
    assert_eq!(access(&JUMP, true, 3, nothing), Some(0x15));
    // Read-only.
    assert_eq!(access(&LOAD, true, 5, nothing), None);
    assert_eq!(access(&STORE, true, 5, nothing), Some(7));
    assert_eq!(access(&CHANGE, true, 5, nothing), Some(7));
    assert_eq!(access(&STORE, false, 1, nothing), Some(3));
    let no_wp = |rig: &mut Rig| rig.cpu.registers.cr0 &= !WP;
    assert_eq!(access(&STORE, false, 1, no_wp), None);
    assert_eq!(access(&STORE, true, 5, no_wp), Some(7));
    // NX.
    assert_eq!(access(&JUMP, false, NX | 3, nothing), Some(0x11));
    assert_eq!(access(&LOAD, false, NX | 3, nothing), None);
    let no_nx = |rig: &mut Rig| rig.cpu.registers.efer &= !0x800;
    assert_eq!(access(&LOAD, false, NX | 3, no_nx), Some(9));
    // Reserved bits.
    assert_eq!(access(&LOAD, false, 1 << 45 | 3, nothing), Some(9));
    assert_eq!(access(&STORE, true, 1 << 45 | ALL, nothing), Some(0xf));
}

/// SDM volume 3, 4.6.1: user pages are out of the kernel's reach.
#[test]
fn smep_and_smap() {
    let smep = |rig: &mut Rig| {
        rig.cpu.registers.cr4 |= SMEP;
        rig.set_entry(CODE, 3);
    };
    assert_eq!(access(&JUMP, false, ALL, smep), Some(0x11));
    assert_eq!(access(&LOAD, false, ALL, smep), None);
    let smap = |rig: &mut Rig| {
        rig.cpu.registers.cr4 |= SMAP;
        rig.set_entry(CODE, 3);
    };
    assert_eq!(access(&LOAD, false, ALL, smap), Some(1));
    assert_eq!(access(&STORE, false, ALL, smap), Some(3));
    assert_eq!(access(&LOAD, false, 3, smap), None);
    assert_eq!(
        access(&LOAD, true, ALL, |rig| rig.cpu.registers.cr4 |= SMAP),
        None
    );
    let reaching = |rig: &mut Rig| {
        rig.cpu.registers.cr4 |= SMAP;
        rig.cpu.registers.rflags |= 1 << 18;
    };
    assert_eq!(access(&LOAD, false, ALL, reaching), None);
}

/// SDM volume 3, 4.8: set by the walk, before the instruction ends; not for a walk that fails.
#[test]
fn accessed_and_dirty_bits() {
    let bits = |code: &[u8], entry: u64, is_user: bool| {
        let mut rig = Rig::new(code);
        if is_user {
            rig = rig.user();
        }
        rig.set_entry(DATA, entry);
        rig.cpu.registers.gpr[7] = DATA;
        let _ = rig.step();
        (rig.entry(DATA) & 0x60, rig.peek(ROOT) & 0x20)
    };
    assert_eq!(bits(&LOAD, ALL, false), (0x20, 0x20));
    assert_eq!(bits(&STORE, ALL, false), (0x60, 0x20));
    assert_eq!(bits(&CHANGE, ALL, true), (0x60, 0x20));
    assert_eq!(bits(&STORE, 5, true).0, 0);
    assert_eq!(bits(&LOAD, 3, true).0, 0);
}

/// Every access behaves as if freshly walked: no INVLPG, no CR3.
#[test]
fn a_store_to_a_table_is_seen_by_the_next_instruction() {
    // mov rax, [rdi]; mov [rsi], rdx; mov rbx, [rdi]
    let code = [0x48, 0x8b, 0x07, 0x48, 0x89, 0x16, 0x48, 0x8b, 0x1f];
    let mut rig = Rig::new(&code);
    rig.poke(DATA, 1);
    rig.poke(DATA + 0x1000, 2);
    rig.cpu.registers.gpr[7] = DATA;
    rig.cpu.registers.gpr[6] = PAGES + (DATA >> 12) * 8;
    rig.cpu.registers.gpr[2] = (DATA + 0x1000) | ALL;
    rig.run(3);
    assert_eq!((rig.cpu.registers.gpr[0], rig.cpu.registers.gpr[3]), (1, 2));
    // Accessed and dirty bits are set again when the guest has cleared them.
    rig.cpu.registers.rip = CODE;
    rig.cpu.registers.gpr[2] = (DATA + 0x1000) | ALL;
    rig.run(3);
    assert_eq!(rig.entry(DATA) & 0x60, 0x20);
}

/// SDM volume 3, 4.5: 2 MiB and 1 GiB pages.
#[test]
fn large_pages() {
    let code = [0x48, 0x8b, 0x07];
    let mut rig = Rig::new(&code);
    // The second GiB is the first one, the page at 2 MiB is that at 0.
    rig.poke(ROOT + 0x1000 + 8, 0x83);
    rig.poke(ROOT + 0x2000 + 8, 0x83);
    rig.poke(DATA, 77);
    rig.cpu.registers.gpr[7] = (1 << 30) + DATA;
    rig.run(1);
    assert_eq!(rig.cpu.registers.gpr[0], 77);
    rig.cpu.registers.rip = CODE;
    rig.cpu.registers.gpr[0] = 0;
    rig.cpu.registers.gpr[7] = (2 << 20) + DATA;
    rig.run(1);
    assert_eq!(rig.cpu.registers.gpr[0], 77);
    assert_eq!(rig.peek(ROOT + 0x2000 + 8), 0xa3);
    // A bit within the page is reserved.
    rig.poke(ROOT + 0x2000 + 16, 0x2083);
    rig.cpu.registers.rip = CODE;
    rig.cpu.registers.gpr[7] = 4 << 20;
    let fault = rig.step().unwrap_err();
    assert_eq!((fault.vector, fault.error_code), (14, Some(9)));
}

/// An access that crosses into a page faults as a whole, with that page's address.
#[test]
fn accesses_across_pages() {
    for code in [LOAD, STORE, CHANGE] {
        let mut rig = Rig::new(&code);
        rig.set_entry(DATA + 0x1000, 0);
        rig.cpu.registers.gpr[7] = DATA + 0xffc;
        rig.cpu.registers.gpr[0] = u64::MAX;
        let fault = rig.step().unwrap_err();
        assert_eq!((fault.vector, fault.address), (14, DATA + 0x1000));
        assert_eq!(rig.peek(DATA + 0xff8), 0);
        rig.set_entry(DATA + 0x1000, ALL);
        rig.step().unwrap();
        let stored = rig.peek(DATA + 0xffc);
        assert_eq!(stored, if code == LOAD { 0 } else { u64::MAX });
    }
}

/// SDM volume 3, 3.3.7.1: #GP for data, #SS for the stack.
#[test]
fn addresses_that_are_not_canonical() {
    // mov rax, [rdi]; mov rax, [rbp]; push rax; mov rax, gs:[rdi]
    for (code, vector) in [
        (&[0x48, 0x8b, 0x07][..], 13),
        (&[0x48, 0x8b, 0x45, 0x00], 12),
        (&[0x50], 12),
        (&[0x36, 0x48, 0x8b, 0x07], 13),       // ss: is ignored
        (&[0x3e, 0x48, 0x8b, 0x45, 0x00], 12), // so is ds:
        (&[0x65, 0x48, 0x8b, 0x07], 13),
        (&[0xff, 0xe7], 13),
    ] {
        let mut rig = Rig::new(code);
        for register in [4, 5, 7] {
            rig.cpu.registers.gpr[register] = 0x8000_0000_0000;
        }
        rig.cpu.registers.gpr[4] += 8;
        let fault = rig.step().unwrap_err();
        assert_eq!(
            (fault.vector, fault.error_code),
            (vector, Some(0)),
            "{code:x?}"
        );
        assert_eq!(rig.cpu.registers.rip, CODE);
    }
}

/// An instruction whose second half is not there: the fault is that page's.
#[test]
fn instructions_across_pages() {
    let mut rig = Rig::new(&[]);
    let end = CODE + 0xffd;
    // mov rax, 0x1122334455667788
    rig.ram
        .write(
            end,
            &[0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11],
        )
        .unwrap();
    rig.set_entry(CODE + 0x1000, 0);
    rig.cpu.registers.rip = end;
    let fault = rig.step().unwrap_err();
    assert_eq!((fault.vector, fault.address), (14, CODE + 0x1000));
    rig.set_entry(CODE + 0x1000, ALL);
    rig.run(1);
    assert_eq!(rig.cpu.registers.gpr[0], 0x1122_3344_5566_7788);
    assert_eq!(rig.cpu.registers.rip, end + 10);
}
