//! What all pieces share: the way in, the ways out, the slow half of loads and stores.

use super::atomic;
use super::emitter::COUNTS;
use super::float::{Constants, pop_floats, push_floats, put_flags_back};
use super::layout::*;

use crate::emitter::call_back::{self, Answer, Frame};
use crate::emitter::tier::Exit;
use crate::mmu::tlb::ENTRIES;
use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use jit::code_cache::CodeCache;
use std::mem::offset_of;

const REMAINING: i8 = offset_of!(Frame, remaining) as i8;
/// Bytes of stack below the saved registers; the frame's address is at the bottom.
const STACK: i8 = 24;

/// Addresses of the routines.
#[derive(Clone, Copy, Default)]
pub struct Routines {
    /// The way in: `fn(hart, entry, frame, budget) -> exit number`.
    pub enter: usize,
    /// Out, with the exit's number in `eax`; `hart.pc` is set.
    pub exit: usize,
    /// Out with the number in `eax`; the pc is `rcx` bytes into the page.
    pub exit_at: usize,
    /// Out because nothing is known of the code at `rax`.
    pub exit_to: usize,
    /// Slow halves that leave compiled code if they give up.
    pub leaving: SlowHalves,
    /// Slow halves that return with the carry flag set if they give up.
    pub returning: SlowHalves,
    /// [`atomic::find`] for stores and loads, of 4 and 8 bytes.
    pub find: [[usize; 2]; 2],
    /// Executes rare instruction `eax` at place `ecx`; `xmm` registers are lost.
    pub execute: usize,
    /// As `execute`, for an instruction that neither computes in floating point nor reads or writes
    /// its flags: they stay in MXCSR.
    pub execute_system: usize,
    /// As `execute`, but keeps the `xmm` registers that hold F registers.
    pub execute_float: usize,
    /// Addresses of constants.
    pub constants: Constants,
}

/// The slow halves of loads and stores.
#[derive(Clone, Copy, Default)]
pub struct SlowHalves {
    /// Loads of 1, 2, 4 and 8 bytes: address in `rax`, place in `ecx`, the site's address on the
    /// stack; gives the value, zero-extended, in `rax`.
    pub load: [usize; 4],
    /// Stores: as loads, with the value in `rdx`.
    pub store: [usize; 4],
}

pub(super) type Assembler = VecAssembler<X64Relocation>;

impl Routines {
    /// Emits them at the begin of the cache.
    pub fn emit(code: &mut CodeCache) -> Routines {
        let base = code.next_address();
        let mut asm: Assembler = VecAssembler::new(base);
        dynasm!(asm; .arch x64; int3; .align 16); // no piece is at offset zero
        let mut routines = Routines {
            constants: Constants::emit(&mut asm, base),
            ..Routines::default()
        };
        let here = |asm: &Assembler| {
            let offset: usize = asm.offset().0;
            base + offset
        };
        routines.enter = here(&asm);
        enter(&mut asm, &routines.constants);
        routines.exit_to = here(&asm);
        dynasm!(asm; .arch x64; mov [rbp + PC], rax; mov eax, Exit::Next.number(); jmp >exit);
        routines.exit_at = here(&asm);
        dynasm!(asm; .arch x64; add rcx, [rbp + PAGE]; mov [rbp + PC], rcx);
        routines.exit = here(&asm);
        dynasm!(asm; .arch x64; exit:);
        exit(&mut asm, &routines.constants);
        for (log, size) in [1u8, 2, 4, 8].into_iter().enumerate() {
            for (halves, exit_at) in [
                (&mut routines.leaving, Some(routines.exit_at)),
                (&mut routines.returning, None),
            ] {
                asm_align(&mut asm);
                halves.load[log] = here(&asm);
                load(&mut asm, size, exit_at);
                asm_align(&mut asm);
                halves.store[log] = here(&asm);
                store(&mut asm, size, exit_at);
            }
        }
        for is_load in [false, true] {
            for is_double in [false, true] {
                asm_align(&mut asm);
                routines.find[usize::from(is_load)][usize::from(is_double)] = here(&asm);
                atomic::find(&mut asm, is_load, is_double);
            }
        }
        asm_align(&mut asm);
        routines.execute = here(&asm);
        execute(&mut asm, &routines, Floats::Lost);
        asm_align(&mut asm);
        routines.execute_system = here(&asm);
        execute(&mut asm, &routines, Floats::Untouched);
        asm_align(&mut asm);
        routines.execute_float = here(&asm);
        execute(&mut asm, &routines, Floats::Kept);
        code.add_routines(&asm.finalize().expect("the routines refer to themselves"));
        routines
    }
}

fn asm_align(asm: &mut Assembler) {
    dynasm!(asm; .arch x64; .align 16);
}

fn load_pinned(asm: &mut Assembler) {
    for (guest, host) in PINNED {
        dynasm!(asm; .arch x64; mov Rq(host), [BYTE rbp + x(guest)]);
    }
}

fn store_pinned(asm: &mut Assembler) {
    for (guest, host) in PINNED {
        dynasm!(asm; .arch x64; mov [BYTE rbp + x(guest)], Rq(host));
    }
}

fn enter(asm: &mut Assembler, constants: &Constants) {
    dynasm!(asm; .arch x64
        ; push rbp; push rbx; push r12; push r13; push r14; push r15
        ; sub rsp, STACK as i32
        ; mov [rsp], rdx
        ; lea rbp, [rdi + BIAS as i32]
        ; mov r15, rcx
        ; mov rax, rsi
    );
    load_pinned(asm);
    constants.clear_flags(asm);
    dynasm!(asm; .arch x64; jmp rax);
}

/// The number of the exit is in `eax`.
fn exit(asm: &mut Assembler, constants: &Constants) {
    store_pinned(asm);
    constants.accrue_flags(asm);
    dynasm!(asm; .arch x64
        ; mov rdx, [rsp]
        ; mov [rdx + REMAINING as i32], r15
        ; add rsp, STACK as i32
        ; pop r15; pop r14; pop r13; pop r12; pop rbx; pop rbp
        ; ret
    );
}

/// Host registers that hold guest registers and that a call does not preserve: `rsi`, `rdi` and
/// `r8` to `r11`.
fn push_volatile(asm: &mut Assembler) {
    dynasm!(asm; .arch x64; push rsi; push rdi; push r8; push r9; push r10; push r11);
}

fn pop_volatile(asm: &mut Assembler) {
    dynasm!(asm; .arch x64; pop r11; pop r10; pop r9; pop r8; pop rdi; pop rsi);
}

/// Looks the page of `rax` up in the table at `[rbp + table]`: falls through with the host address of
/// the page in `rdi`, or jumps to `miss`. Uses `rsi`.
pub(super) fn probe(asm: &mut Assembler, table: i32, size: u8, miss: dynasmrt::DynamicLabel) {
    dynasm!(asm; .arch x64
        ; mov rsi, rax
        ; shr rsi, 12
        ; xor rsi, [rbp + DATA_CONTEXT]
        ; mov edi, esi
        ; and edi, ENTRIES as i32 - 1
        ; shl edi, 4
        ; add rdi, [rbp + table]
        ; cmp rsi, [rdi]
        ; jne =>miss
    );
    if size > 1 {
        dynasm!(asm; .arch x64
            ; mov esi, eax
            ; and esi, 0xfff
            ; cmp esi, 0x1000 - i32::from(size)
            ; ja =>miss
        );
    }
    dynasm!(asm; .arch x64; mov rdi, [rdi + 8]; add rdi, [rbp + RAM]);
}

/// Fills the site at `[rsp + site]` for the page of `rax`, which is at `rdi`, if the access is
/// aligned; leaves in `rdi` what has to be added to an address. Uses `rsi`.
pub(super) fn fill(asm: &mut Assembler, size: u8, site: i32) {
    let unaligned = asm.new_dynamic_label();
    dynasm!(asm; .arch x64; mov rsi, rax; and rsi, -4096; sub rdi, rsi);
    if size > 1 {
        dynasm!(asm; .arch x64; test al, size as i8 - 1; jnz =>unaligned);
    }
    dynasm!(asm; .arch x64
        ; xor rsi, [rbp + SITE_KEY]
        ; push rcx
        ; mov rcx, [rsp + site + 8]
        ; mov [rcx], rsi
        ; mov [rcx + 8], rdi
        ; pop rcx
        ; =>unaligned
    );
}

/// Calls a call-back with the frame, `rax` and the size; `rdx` as the fourth argument. Keeps `rax`,
/// `rcx`, `rdx`; the answer is in `r11` until the volatile registers come back, so in flags only:
/// compares it with `Answer::Retry`.
fn call(asm: &mut Assembler, size: u8, call_back: usize, depth: i32) {
    push_volatile(asm);
    dynasm!(asm; .arch x64
        ; push rax; push rcx; push rdx
        ; mov rdi, [rsp + depth + 9 * 8]
        ; mov rsi, rax
        ; mov rcx, rdx
        ; mov edx, size as i32
        ; mov rax, QWORD call_back as i64
    );
    // The stack has to be aligned to 16 bytes at the call.
    let misaligned = (depth + 9 * 8) % 16 != 0;
    if misaligned {
        dynasm!(asm; .arch x64; sub rsp, 8);
    }
    push_floats(asm);
    dynasm!(asm; .arch x64; call rax);
    pop_floats(asm);
    if misaligned {
        dynasm!(asm; .arch x64; add rsp, 8);
    }
    dynasm!(asm; .arch x64; cmp eax, Answer::Retry as i32; pop rdx; pop rcx; pop rax);
    pop_volatile(asm); // neither changes the flags
}

/// Gives up before the instruction at place `ecx`: the interpreter executes it. `depth` bytes are on
/// the stack.
fn give_up(asm: &mut Assembler, exit_at: Option<usize>, depth: i32) {
    let Some(exit_at) = exit_at else {
        dynasm!(asm; .arch x64; stc; ret);
        return;
    };
    dynasm!(asm; .arch x64; add rsp, depth);
    if COUNTS {
        dynasm!(asm; .arch x64; movzx eax, cx; add r15, rax);
    }
    dynasm!(asm; .arch x64
        ; shr ecx, 16
        ; mov eax, Exit::Interpret.number()
        ; jmp extern exit_at
    );
}

fn load(asm: &mut Assembler, size: u8, exit_at: Option<usize>) {
    let (again, miss) = (asm.new_dynamic_label(), asm.new_dynamic_label());
    // On the stack: return address, site, frame.
    dynasm!(asm; .arch x64; =>again; push rsi; push rdi);
    probe(asm, LOAD_TABLE, size, miss);
    fill(asm, size, 24);
    match size {
        1 => dynasm!(asm; .arch x64; movzx eax, BYTE [rax + rdi]),
        2 => dynasm!(asm; .arch x64; movzx eax, WORD [rax + rdi]),
        4 => dynasm!(asm; .arch x64; mov eax, [rax + rdi]),
        _ => dynasm!(asm; .arch x64; mov rax, [rax + rdi]),
    }
    dynasm!(asm; .arch x64; pop rdi; pop rsi; clc; ret; =>miss; pop rdi; pop rsi);
    call(asm, size, call_back::load_missed as *const () as usize, 16);
    dynasm!(asm; .arch x64; je =>again);
    give_up(asm, exit_at, 16);
}

fn store(asm: &mut Assembler, size: u8, exit_at: Option<usize>) {
    let (done, miss) = (asm.new_dynamic_label(), asm.new_dynamic_label());
    dynasm!(asm; .arch x64; push rsi; push rdi);
    probe(asm, STORE_TABLE, size, miss);
    fill(asm, size, 24);
    match size {
        1 => dynasm!(asm; .arch x64; mov [rax + rdi], dl),
        2 => dynasm!(asm; .arch x64; mov [rax + rdi], dx),
        4 => dynasm!(asm; .arch x64; mov [rax + rdi], edx),
        _ => dynasm!(asm; .arch x64; mov [rax + rdi], rdx),
    }
    dynasm!(asm; .arch x64; pop rdi; pop rsi; clc; ret; =>miss; pop rdi; pop rsi);
    call(asm, size, call_back::store_missed as *const () as usize, 16);
    dynasm!(asm; .arch x64; ja =>done); // Answer::Done
    give_up(asm, exit_at, 16);
    dynasm!(asm; .arch x64; =>done; clc; ret);
}

/// What a call to execute an instruction does to floating point.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Floats {
    /// Flags go to the hart, `xmm` registers are lost.
    Lost,
    /// Flags go to the hart, `xmm` registers are kept.
    Kept,
    /// Flags stay in MXCSR, `xmm` registers are lost.
    Untouched,
}

/// Rare instruction `eax` at place `ecx`.
fn execute(asm: &mut Assembler, routines: &Routines, floats: Floats) {
    let leaves = asm.new_dynamic_label();
    store_pinned(asm);
    if floats != Floats::Untouched {
        routines.constants.accrue_flags(asm);
    }
    dynasm!(asm; .arch x64
        ; mov rdi, [rsp + 8]
        ; mov [rdi + REMAINING as i32], r15
        ; mov esi, ecx
        ; mov edx, eax
        ; mov rax, QWORD call_back::execute_rare as *const () as i64
        ; sub rsp, 8
    );
    match floats {
        Floats::Lost => {}
        Floats::Kept => push_floats(asm),
        Floats::Untouched => dynasm!(asm; .arch x64; vstmxcsr [rsp]),
    }
    dynasm!(asm; .arch x64; call rax);
    match floats {
        Floats::Lost => {}
        Floats::Kept => pop_floats(asm),
        Floats::Untouched => put_flags_back(asm, 0),
    }
    dynasm!(asm; .arch x64
        ; add rsp, 8
        ; mov rdi, [rsp + 8]
        ; mov r15, [rdi + REMAINING as i32]
    );
    load_pinned(asm);
    if floats != Floats::Untouched {
        routines.constants.clear_flags(asm);
    }
    dynasm!(asm; .arch x64
        ; test al, al
        ; jnz =>leaves
        ; ret
        ; =>leaves
        ; add rsp, 8
        ; mov eax, Exit::Next.number()
        ; jmp extern routines.exit
    );
}
