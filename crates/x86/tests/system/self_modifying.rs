use crate::rig::{ALL, CODE, DATA, Rig};

/// A store to the next instruction, in the same block, is seen by it.
#[test]
fn the_next_instruction_is_changed() {
    // mov byte [rip+1], 0xc1 (the ModRM byte of the next instruction); inc eax
    let code = [0xc6, 0x05, 0x01, 0, 0, 0, 0xc1, 0xff, 0xc0];
    let mut rig = Rig::new(&code);
    rig.run(2);
    assert_eq!((rig.cpu.registers.gpr[0], rig.cpu.registers.gpr[1]), (0, 1));
    assert_eq!(rig.now, 2);
}

/// A loop that changes its own body on each round.
#[test]
fn a_loop_that_changes_its_immediate() {
    // l: add eax, 1 (83 c0 01); inc byte [rip-7] (fe 05 f7 ff ff ff); dec ecx; jnz l
    let code = [
        0x83, 0xc0, 0x01, 0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x75, 0xf3,
    ];
    let mut rig = Rig::new(&code);
    rig.cpu.registers.gpr[1] = 10;
    rig.run(40);
    assert_eq!(rig.cpu.registers.gpr[0], (1..=10).sum::<u64>());
}

/// Code that is written through another linear page than it is executed by.
#[test]
fn code_changed_through_an_alias() {
    // call rdi; mov byte [rsi], 0xc3; call rdi; hlt
    let code = [0xff, 0xd7, 0xc6, 0x06, 0x90, 0xff, 0xd7, 0xf4];
    let mut rig = Rig::new(&code);
    // DATA holds: ret; inc eax; ret. DATA + 0x5000 is the same page.
    rig.ram.write(DATA, &[0xc3, 0xff, 0xc0, 0xc3]).unwrap();
    rig.poke(crate::rig::PAGES + ((DATA + 0x5000) >> 12) * 8, DATA | ALL);
    rig.cpu.registers.gpr[7] = DATA;
    rig.cpu.registers.gpr[6] = DATA + 0x5000;
    rig.run(100);
    assert_eq!(rig.cpu.registers.gpr[0], 1);
}

/// The second half of an instruction across pages is changed.
#[test]
fn an_instruction_across_pages_is_changed() {
    // At the page's end: mov eax, imm32 with its immediate in the next page; ret.
    // Code: call rdi; mov byte [rsi], 7; call rdi; hlt
    let code = [0xff, 0xd7, 0x89, 0xc3, 0xc6, 0x06, 0x07, 0xff, 0xd7, 0xf4];
    let mut rig = Rig::new(&code);
    rig.ram
        .write(DATA + 0xfff, &[0xb8, 5, 0, 0, 0, 0xc3])
        .unwrap();
    rig.cpu.registers.gpr[7] = DATA + 0xfff;
    rig.cpu.registers.gpr[6] = DATA + 0x1000;
    rig.run(100);
    assert_eq!((rig.cpu.registers.gpr[3], rig.cpu.registers.gpr[0]), (5, 7));
}

/// A string store over code: the iteration that hits it ends the instruction's turn, nothing else.
#[test]
fn a_string_store_over_code() {
    // rep stosb; inc eax (becomes nops); hlt
    let code = [0xf3, 0xaa, 0xff, 0xc3, 0xff, 0xc3, 0xf4];
    let mut rig = Rig::new(&code);
    rig.cpu.registers.gpr[0] = 0x90;
    rig.cpu.registers.gpr[1] = 4;
    rig.cpu.registers.gpr[7] = CODE + 2;
    rig.run(100);
    assert_eq!((rig.cpu.registers.gpr[3], rig.now), (0, 4 + 4 + 1));
}
