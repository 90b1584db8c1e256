//! Loops in which what is known of a page stops being true: its entry names another page, becomes absent, read-only
//! or the user's, the code of the loop changes, or what the CPU may reach does. Compiled code has to notice it in the
//! same round as the interpreter.

use crate::code::DATA;
use crate::random::Random;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// The table whose entries map [`DATA`], page by page.
pub const TABLE: u64 = 0x5_0000;
/// Its entry for [`DATA`] in the tables that the machine boots with.
const DIRECTORY_ENTRY: u64 = 0xb008;
/// Addresses that nobody else uses, and the entry for them there.
const SPARE: u64 = 0x60_0000;
const SPARE_DIRECTORY_ENTRY: u64 = 0xb018;
/// The number of the first page whose entry loops change, and how many there are.
const FIRST: u64 = 32;
const PAGES: u64 = 4;
/// Present, writable, accessed, dirty.
const ENTRY: u64 = 0x63;
/// A place whose contents nobody cares about, not in a table.
const ELSEWHERE: u64 = DATA + 0x8000;

fn page(number: u64) -> u64 {
    DATA + (FIRST + number) * 0x1000
}

fn entry(number: u64) -> u64 {
    TABLE + (FIRST + number) * 8
}

/// Maps [`DATA`] by pages of 4 KiB to itself. Uses rax, rcx and rdi.
pub fn begin(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    a.mov(rdi, TABLE)?;
    a.mov(rax, DATA | ENTRY)?;
    a.mov(ecx, 512)?;
    a.set_label(&mut again)?;
    a.mov(qword_ptr(rdi), rax)?;
    a.add(rdi, 8)?;
    a.add(rax, 0x1000)?;
    a.dec(ecx)?;
    a.jne(again)?;
    // A page is the user's if all levels say so.
    for upper in [0x9000, 0xa000u64] {
        a.or(byte_ptr(upper), 4)?;
    }
    a.mov(rax, TABLE | 7)?;
    a.mov(qword_ptr(DIRECTORY_ENTRY), rax)?;
    a.mov(rax, cr3)?;
    a.mov(cr3, rax)?;
    // Supervisors do not write to what is read-only, nor reach users' pages unless AC is set.
    a.mov(rax, cr0)?;
    a.or(eax, 1 << 16)?;
    a.mov(cr0, rax)?;
    a.mov(rax, cr4)?;
    a.or(eax, 1 << 21)?;
    a.mov(cr4, rax)
}

/// Such loops.
pub fn rounds(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    match random.below(6) {
        0 => loses_its_right(a, random),
        1 => becomes_a_table(a, random),
        2 => reads_what_it_may_not_write(a, random),
        3 => reaches_into_the_next_page(a, random),
        _ => changes_its_entry(a, random),
    }
}

/// Puts the address of a page of the user's into RDI.
pub fn give_to_user(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(qword_ptr(entry(0)), (page(0) | ENTRY | 4) as i32)?;
    a.mov(rdi, page(0))
}

/// A loop that reaches a page of the user's until AC is cleared in its middle. That is done by an instruction behind which
/// compiled code goes on.
fn loses_its_right(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    const AC: i32 = 1 << 18;
    give_to_user(a)?;
    a.mov(rsi, page(0) + 0x20)?;
    a.pushfq()?;
    a.pop(r9)?;
    a.or(r9, AC)?;
    a.mov(r12, r9)?;
    a.and(r12, !AC)?;
    a.push(r9)?;
    a.popfq()?;
    let count = 4 + random.below(40) as i32;
    a.mov(ebx, count)?;
    a.xor(ecx, ecx)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    for _ in 0..1 + random.below(3) {
        access(a, random)?;
    }
    a.lea(ecx, ptr(rcx + 1))?;
    a.and(ecx, 3)?;
    a.mov(r11, r9)?;
    a.cmp(ebx, random.below(count as u64) as i32)?;
    a.cmove(r11, r12)?;
    a.push(r11)?;
    a.popfq()?;
    a.dec(ebx)?;
    a.jne(again)?;
    a.push(r12)?;
    a.popfq()
}

/// A loop that reads a page that is read-only, its stack perhaps, and at some round writes there by the same register.
fn reads_what_it_may_not_write(
    a: &mut CodeAssembler,
    random: &mut Random,
) -> Result<(), IcedError> {
    const WRITABLE: u64 = 2;
    a.mov(qword_ptr(entry(0)), ((page(0) | ENTRY) & !WRITABLE) as i32)?;
    a.mov(r13, rsp)?;
    a.mov(rdi, page(0) + 0x100)?;
    a.mov(rsp, page(0) + 0x400)?;
    let count = 20 + random.below(40) as i32;
    a.mov(ebx, count)?;
    let (mut again, mut over) = (a.create_label(), a.create_label());
    let is_stack = random.once_in(2);
    a.set_label(&mut again)?;
    maybe_jump(a, random)?;
    match (is_stack, random.below(3)) {
        (true, 0) => {
            a.pop(rdx)?;
            a.lea(rsp, ptr(rsp - 8))?;
        }
        (true, 1) => a.add(rax, qword_ptr(rsp + 24))?,
        (true, _) => {
            a.pop(rdx)?;
            a.pop(rsi)?;
            a.lea(rsp, ptr(rsp - 16))?;
        }
        (false, 0) => a.add(rax, qword_ptr(rdi + 24))?,
        (false, 1) => {
            a.add(rax, qword_ptr(rdi + 24))?;
            a.xor(rax, qword_ptr(rdi + 32))?;
        }
        (false, _) => a.xor(rdx, qword_ptr(rdi))?,
    }
    maybe_jump(a, random)?;
    a.cmp(ebx, random.below(count as u64) as i32)?;
    a.jne(over)?;
    match (is_stack, random.below(3)) {
        (true, 0) => a.push(rax)?,
        (true, 1) => {
            a.push(rax)?;
            a.push(rdx)?;
        }
        (true, _) => a.mov(qword_ptr(rsp + 16), rax)?,
        (false, 0) => {
            a.mov(qword_ptr(rdi + 16), rax)?;
            a.mov(qword_ptr(rdi + 24), rax)?;
        }
        (false, _) => a.add(qword_ptr(rdi + 16), rax)?,
    }
    a.set_label(&mut over)?;
    a.dec(ebx)?;
    a.jne(again)?;
    a.mov(rsp, r13)
}

/// Ends a piece of compiled code, so that a loop is more than one.
fn maybe_jump(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    if random.once_in(2) {
        let mut next = a.create_label();
        a.jmp(next)?;
        a.set_label(&mut next)?;
    }
    Ok(())
}

/// A loop with an access whose first bytes are in a page that it knows, and the others in the next, which is elsewhere in RAM.
fn reaches_into_the_next_page(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    for number in 0..PAGES {
        a.mov(qword_ptr(entry(number)), (page(number ^ 1) | ENTRY) as i32)?;
        a.mov(dword_ptr(page(number)), random.bits() as u32)?;
    }
    a.mov(rdi, page(random.below(PAGES - 1)))?;
    a.mov(ebx, 20 + random.below(20) as u32)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    maybe_jump(a, random)?;
    a.add(rax, qword_ptr(rdi + 0xff0))?;
    if random.once_in(2) {
        a.mov(qword_ptr(rdi + 0xfe8), rax)?;
    }
    maybe_jump(a, random)?;
    match random.below(6) {
        0 => a.movzx(edx, word_ptr(rdi + 0xfff))?,
        1 => a.xor(rdx, qword_ptr(rdi + 0xffb))?,
        2 => a.mov(dword_ptr(rdi + 0xffe), edx)?,
        3 => a.add(qword_ptr(rdi + 0xff9), rdx)?,
        4 => a.paddq(xmm1, xmmword_ptr(rdi + 0xff8))?,
        _ => {
            a.xor(rax, qword_ptr(rdi + 0xff8))?;
            a.xor(rdx, qword_ptr(rdi + 0x1000))?;
        }
    }
    a.rol(rax, 1)?;
    a.dec(ebx)?;
    a.jne(again)
}

/// A loop that writes to a page all the time, and from some round on reads by it as a table: from then on each write
/// changes what is read.
fn becomes_a_table(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let (table, first, second) = (page(1), page(2), page(3));
    for number in 1..PAGES {
        a.mov(qword_ptr(entry(number)), (page(number) | ENTRY) as i32)?;
    }
    a.mov(qword_ptr(table), (first | ENTRY) as i32)?;
    a.mov(qword_ptr(SPARE_DIRECTORY_ENTRY), (table | ENTRY) as i32)?;
    a.add(dword_ptr(first), 0x1111)?;
    a.add(dword_ptr(second), 0x7777)?;
    // It is no table yet: all is forgotten.
    a.mov(rax, cr0)?;
    a.mov(cr0, rax)?;
    a.mov(rdi, table)?;
    a.mov(r8, SPARE)?;
    a.mov(r9, second | ENTRY)?;
    a.mov(r10, first | ENTRY)?;
    a.mov(r12, ELSEWHERE)?;
    let count = 8 + random.below(40) as i32;
    a.mov(ebx, count)?;
    a.xor(ecx, ecx)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.mov(qword_ptr(rdi + rcx * 8), r9)?;
    a.xchg(r9, r10)?;
    a.mov(r11, r12)?;
    a.cmp(ebx, random.below(count as u64) as i32)?;
    a.cmovbe(r11, r8)?;
    a.add(rax, qword_ptr(r11 + rcx * 8))?;
    a.rol(rax, 1)?;
    a.dec(ebx)?;
    a.jne(again)
}

/// One or two loops in which an entry changes.
fn changes_its_entry(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    for number in 0..PAGES {
        // Neighbours are not neighbours in RAM.
        a.mov(qword_ptr(entry(number)), (page(number ^ 1) | ENTRY) as i32)?;
        if random.once_in(2) {
            // The pages differ.
            a.inc(dword_ptr(page(number) + 8 * random.below(4)))?;
        }
    }
    a.mov(rdi, page(random.below(PAGES)))?;
    let is_other = random.once_in(2);
    a.mov(
        rsi,
        page(if is_other { random.below(PAGES) } else { 0 }) + 0x18,
    )?;
    let changed = random.below(PAGES);
    a.mov(r8, entry(changed))?;
    // Another page, absent, read-only, the user's.
    let change = random.pick(&[0x1000, 0x2000, 0x3000, 1, 2, 2, 4]);
    a.mov(r9, page(changed ^ 1) | ENTRY)?;
    a.mov(r10, (page(changed ^ 1) | ENTRY) ^ change)?;
    a.mov(r12, ELSEWHERE)?;
    a.mov(r13, rsp)?;
    if random.once_in(2) {
        let number = random.pick(&[changed, changed, 0, 1, 2, 3]);
        a.mov(rsp, page(number) + 0x800 * random.below(2))?;
    }
    if random.once_in(3) {
        a.stac()?;
    }
    one(a, random)?;
    if random.once_in(2) {
        match random.below(4) {
            0 => a.clac()?,
            1 => a.mov(qword_ptr(r8), r10)?,
            2 => {
                a.mov(rax, cr3)?;
                a.mov(cr3, rax)?;
            }
            _ => {}
        }
        one(a, random)?;
    }
    a.mov(rsp, r13)
}

/// A loop; RDI, RSI and perhaps RSP are at data, R8 at a page's entry, R9 and R10 its two values, R12 elsewhere.
fn one(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let count = 4 + random.below(40) as i32;
    let moment = random.below(count as u64) as i32;
    a.mov(ebx, count)?;
    a.xor(ecx, ecx)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    for _ in 0..random.below(3) {
        access(a, random)?;
    }
    match random.below(8) {
        // In one round: the entry, or a place that is not one.
        0..=2 => {
            a.mov(r11, r12)?;
            a.cmp(ebx, moment)?;
            a.cmove(r11, r8)?;
            a.mov(qword_ptr(r11), r10)?;
        }
        // In each round.
        3 | 4 => {
            a.mov(qword_ptr(r8), r10)?;
            a.xchg(r9, r10)?;
        }
        5 => {
            // The immediate of the next instruction.
            let mut immediate = a.create_label();
            a.lea(r11, ptr(immediate))?;
            a.cmp(ebx, moment)?;
            a.cmovne(r11, r12)?;
            a.add(dword_ptr(r11 + 3), 0x0101)?;
            a.set_label(&mut immediate)?;
            a.add(r15d, 0x1234_5678)?;
        }
        6 => a.invlpg(byte_ptr(rdi))?,
        _ => {}
    }
    let accesses = u64::from(!random.once_in(4));
    for _ in 0..accesses + random.below(3) {
        access(a, random)?;
    }
    a.lea(ecx, ptr(rcx + 1))?;
    a.and(ecx, 3)?;
    a.dec(ebx)?;
    a.jne(again)
}

/// An access by an index, which is one of its own, or several by one register.
fn access(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let at = random.pick(&[rdi, rsi]);
    match random.below(18) {
        0 => a.add(rax, qword_ptr(at + rcx * 8)),
        1 => a.add(dword_ptr(at + rcx * 8), eax),
        2 => a.mov(qword_ptr(at + rcx * 8 + 8), rax),
        3 => a.movzx(edx, byte_ptr(at + rcx * 2 + 1)),
        4 => a.xor(r14, qword_ptr(at + rcx * 8)),
        5 => a.paddq(xmm1, xmmword_ptr(at + rcx * 8)),
        6 => {
            a.add(rax, qword_ptr(at + 8))?;
            a.xor(rdx, qword_ptr(at + 16))
        }
        7 => {
            a.add(dword_ptr(at), eax)?;
            a.rol(dword_ptr(at + 4), 1)
        }
        8 => a.movzx(edx, word_ptr(at + rcx * 8 + 0xff1)),
        9 => a.mov(rdx, qword_ptr(at + rcx * 8 + 0xfed)),
        10 => a.mov(byte_ptr(at + rcx + 0xfff), dl),
        11 => a.add(qword_ptr(at + rcx * 8 + 0xfed), rdx),
        12 => a.push(rax),
        13 => a.pop(rdx),
        14 => a.add(qword_ptr(rsp + 24), rax),
        15 => {
            a.push(rdx)?;
            a.xor(rax, qword_ptr(rsp + 16))?;
            a.pop(rdx)
        }
        _ => a.adc(rax, qword_ptr(at + rcx * 8)),
    }
}
