//! Small bare-metal guests for M-mode, assembled here: no foreign toolchain is needed.

const RAM: u64 = 0x8000_0000;

// Registers.
const ZERO: u32 = 0;
const COUNTER: u32 = 5;
const UART: u32 = 6;
const SHIFT: u32 = 7;
const DIGIT: u32 = 28;
const TEMPORARY: u32 = 29;
const CLINT: u32 = 30;
const LIMIT: u32 = 31;
const TIME: u32 = 8;
const WORK: u32 = 9;

fn lui(rd: u32, upper: u32) -> u32 {
    upper << 12 | rd << 7 | 0x37
}

fn addi(rd: u32, rs1: u32, immediate: i32) -> u32 {
    (immediate as u32) << 20 | rs1 << 15 | rd << 7 | 0x13
}

fn andi(rd: u32, rs1: u32, immediate: u32) -> u32 {
    immediate << 20 | rs1 << 15 | 7 << 12 | rd << 7 | 0x13
}

fn add(rd: u32, rs1: u32, rs2: u32) -> u32 {
    rs2 << 20 | rs1 << 15 | rd << 7 | 0x33
}

fn srl(rd: u32, rs1: u32, rs2: u32) -> u32 {
    rs2 << 20 | rs1 << 15 | 5 << 12 | rd << 7 | 0x33
}

fn ld(rd: u32, rs1: u32, offset: i32) -> u32 {
    (offset as u32) << 20 | rs1 << 15 | 3 << 12 | rd << 7 | 0x03
}

fn store(width: u32, rs2: u32, rs1: u32, offset: i32) -> u32 {
    let offset = offset as u32;
    (offset >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | width << 12 | (offset & 0x1f) << 7 | 0x23
}

fn branch(condition: u32, rs1: u32, rs2: u32, instructions: i32) -> u32 {
    let offset = (instructions * 4) as u32;
    (offset >> 12 & 1) << 31
        | (offset >> 5 & 0x3f) << 25
        | rs2 << 20
        | rs1 << 15
        | condition << 12
        | (offset >> 1 & 0xf) << 8
        | (offset >> 11 & 1) << 7
        | 0x63
}

fn jump(instructions: i32) -> u32 {
    let offset = (instructions * 4) as u32;
    (offset >> 20 & 1) << 31
        | (offset >> 1 & 0x3ff) << 21
        | (offset >> 11 & 1) << 20
        | offset & 0xff000
        | 0x6f
}

const BNE: u32 = 1;
const BLT: u32 = 4;
const BGE: u32 = 5;
const BYTE: u32 = 0;
const WORD: u32 = 2;
const DOUBLE: u32 = 3;
const WFI: u32 = 0x1050_0073;
/// csrrw zero, mie, TEMPORARY
const ENABLE_INTERRUPTS: u32 = 0x304 << 20 | TEMPORARY << 15 | 1 << 12 | 0x73;

/// Prints the counter as four hexadecimal digits and a newline.
fn print_counter() -> Vec<u32> {
    vec![
        addi(SHIFT, ZERO, 12),
        // each digit:
        srl(DIGIT, COUNTER, SHIFT),
        andi(DIGIT, DIGIT, 15),
        addi(DIGIT, DIGIT, 48),
        addi(TEMPORARY, ZERO, 58),
        branch(BLT, DIGIT, TEMPORARY, 2),
        addi(DIGIT, DIGIT, 39),
        store(BYTE, DIGIT, UART, 0),
        addi(SHIFT, SHIFT, -4),
        branch(BGE, SHIFT, ZERO, -8),
        addi(DIGIT, ZERO, 10),
        store(BYTE, DIGIT, UART, 0),
    ]
}

fn prologue() -> Vec<u32> {
    vec![
        addi(COUNTER, ZERO, 0),
        lui(UART, 0x10000),
        lui(CLINT, 0x200c),
        addi(TEMPORARY, ZERO, 128),
        ENABLE_INTERRUPTS,
    ]
}

/// Waits for `ticks` (of 100 ns) with `wfi`.
fn wait(ticks: i32) -> Vec<u32> {
    vec![
        ld(TIME, CLINT, -8), // mtime
        addi(TIME, TIME, ticks),
        lui(TEMPORARY, 0x2004),
        store(DOUBLE, TIME, TEMPORARY, 0), // mtimecmp
        WFI,
        ld(TEMPORARY, CLINT, -8),
        branch(BLT, TEMPORARY, TIME, -2),
    ]
}

/// Prints 0000, 0001, … and waits 0.2 ms after each.
pub fn counting_slowly() -> Vec<u8> {
    let mut code = prologue();
    let start = code.len() as i32;
    code.extend(print_counter());
    code.push(addi(COUNTER, COUNTER, 1));
    code.extend(wait(2000));
    code.push(jump(start - code.len() as i32));
    elf(&code)
}

/// Prints a number after every 400,000 instructions or so, and never waits.
pub fn counting_busily() -> Vec<u8> {
    let mut code = prologue();
    let start = code.len() as i32;
    code.extend(print_counter());
    code.extend([
        addi(COUNTER, COUNTER, 1),
        lui(WORK, 49),
        addi(WORK, WORK, -1),
        branch(BNE, WORK, ZERO, -1),
    ]);
    code.push(jump(start - code.len() as i32));
    elf(&code)
}

/// Counts to `lines`, then ends the machine with `status`.
pub fn counting_to(lines: i32, status: u16) -> Vec<u8> {
    let mut code = prologue();
    code.push(addi(LIMIT, ZERO, lines));
    let start = code.len() as i32;
    code.extend(print_counter());
    code.push(addi(COUNTER, COUNTER, 1));
    code.extend(wait(2000));
    code.push(branch(BNE, COUNTER, LIMIT, start - code.len() as i32));
    code.push(lui(TEMPORARY, 0x100));
    let word: u32 = if status == 0 {
        0x5555
    } else {
        u32::from(status) << 16 | 0x3333
    };
    let low = (word << 20) as i32 >> 20;
    code.push(lui(WORK, word.wrapping_sub(low as u32) >> 12));
    code.push(addi(WORK, WORK, low));
    code.push(store(WORD, WORK, TEMPORARY, 0));
    code.push(jump(0));
    elf(&code)
}

/// A statically linked ELF file of one segment at the beginning of RAM.
fn elf(code: &[u32]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = Vec::new();
    file.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2u16.to_le_bytes()); // executable
    file.extend(243u16.to_le_bytes()); // RISC-V
    file.extend(1u32.to_le_bytes());
    file.extend(RAM.to_le_bytes()); // entry
    file.extend(64u64.to_le_bytes()); // program headers
    file.extend(0u64.to_le_bytes()); // no section headers
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let length = code.len() as u64 * 4;
    file.extend(1u32.to_le_bytes()); // load
    file.extend(5u32.to_le_bytes()); // readable, executable
    for word in [HEADERS, RAM, RAM, length, length, 4] {
        file.extend(word.to_le_bytes());
    }
    for instruction in code {
        file.extend(instruction.to_le_bytes());
    }
    file
}
