//! What all pieces share: the way in, the ways out, the way to the interpreter.

use super::layout::*;
use super::sites::{self, Class};
use crate::emitter::call_back;
use crate::emitter::jumps::SPREAD;
use crate::emitter::piece::SITES;
use crate::emitter::tier::Exit;
use crate::interpreter::flags::AC;
use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use jit::code_cache::CodeCache;

pub(super) type Assembler = VecAssembler<X64Relocation>;

/// Addresses of the routines.
#[derive(Clone, Copy, Default)]
pub struct Routines {
    /// The way in: `fn(frame, entry) -> exit number`.
    pub enter: usize,
    /// Out with the exit's number in `eax`; the next instruction is `rcx` bytes into the page.
    pub exit_at: usize,
    /// Out with the exit's number in `eax`; the next instruction is at `rcx`.
    pub exit_to: usize,
    /// Lets the interpreter execute instruction `eax`, with which `ecx` instructions of the piece are
    /// left. Flags are in the frame.
    pub execute: usize,
    /// Loads the XMM registers and MXCSR, if they may be used. Uses `rax`.
    pub load_vectors: usize,
    /// Looks for the linear address in `rax` in the second entry that it may have: that is at `rcx` then, and ZF says whether
    /// it is there.
    pub second_look: usize,
    /// CLAC and STAC, in the core at `rax`, and the bank that is meant then. Loses `rax`.
    pub change_access: [usize; 2],
    /// Lets a site know a page ([`sites::emit_fill`]): of reads and of writes, of each class.
    pub fill_site: [[usize; Class::ALL.len()]; 2],
}

/// Bytes that the way in takes from the stack: the frame, and the address of the caller's.
const STACK: i32 = FRAME + 8;
/// The address of the caller's frame.
const CALLERS: i32 = FRAME;

impl Routines {
    /// Emits them at the begin of the cache.
    pub fn emit(code: &mut CodeCache) -> Routines {
        let base = code.next_address();
        let mut asm: Assembler = VecAssembler::new(base);
        dynasm!(asm; .arch x64; int3; .align 16); // no piece is at offset zero
        let here = |asm: &Assembler| {
            let offset: usize = asm.offset().0;
            base + offset
        };
        let mut routines = Routines {
            enter: here(&asm),
            ..Routines::default()
        };
        enter(&mut asm);
        routines.exit_at = here(&asm);
        dynasm!(asm; .arch x64; add rcx, [rsp + PAGE]);
        routines.exit_to = here(&asm);
        dynasm!(asm; .arch x64
            ; mov [rsp + KEPT], rax
            ; mov rax, [rsp + CORE]
            ; mov [rax + CORE_RIP], rcx
        );
        store_registers(&mut asm, 0);
        store_vectors(&mut asm, 0);
        let exit = asm.new_dynamic_label();
        dynasm!(asm; .arch x64; =>exit);
        leave(&mut asm);
        dynasm!(asm; .arch x64; .align 16);
        routines.execute = here(&asm);
        execute(&mut asm, exit);
        dynasm!(asm; .arch x64; .align 16);
        routines.load_vectors = here(&asm);
        load_vectors(&mut asm);
        dynasm!(asm; .arch x64; .align 16);
        routines.second_look = here(&asm);
        dynasm!(asm; .arch x64
            ; imul ecx, eax, SPREAD as i32
            ; shr ecx, 12
            ; and ecx, 0xffff0 // 16 bytes each
            ; add rcx, [rsp + 8 + JUMPS]
            ; cmp rax, [rcx]
            ; ret
        );
        for is_set in [false, true] {
            dynasm!(asm; .arch x64; .align 16);
            routines.change_access[usize::from(is_set)] = here(&asm);
            change_access(&mut asm, is_set);
        }
        for is_write in [false, true] {
            for class in Class::ALL {
                dynasm!(asm; .arch x64; .align 16);
                routines.fill_site[usize::from(is_write)][class as usize] = here(&asm);
                sites::emit_fill(&mut asm, is_write, class);
            }
        }
        code.add_routines(&asm.finalize().expect("the routines refer to themselves"));
        routines
    }
}

/// Loads all guest registers from the core at `rax`; the frame is `depth` bytes above `rsp`.
fn load_registers(asm: &mut Assembler, depth: i32) {
    for guest in SPILLED {
        dynasm!(asm; .arch x64
            ; mov rcx, [rax + register(guest)]
            ; mov [rsp + depth + spilled(guest)], rcx
        );
    }
    for (guest, home) in HOMES.into_iter().enumerate() {
        if let Some(home) = home {
            dynasm!(asm; .arch x64; mov Rq(home), [rax + register(guest as u8)]);
        }
    }
}

/// Stores them there; afterwards all but `rax` and `rcx` are free.
fn store_registers(asm: &mut Assembler, depth: i32) {
    for (guest, home) in HOMES.into_iter().enumerate() {
        if let Some(home) = home {
            dynasm!(asm; .arch x64; mov [rax + register(guest as u8)], Rq(home));
        }
    }
    for guest in SPILLED {
        dynasm!(asm; .arch x64
            ; mov rdx, [rsp + depth + spilled(guest)]
            ; mov [rax + register(guest)], rdx
        );
    }
}

fn enter(asm: &mut Assembler) {
    dynasm!(asm; .arch x64
        ; push rbp; push rbx; push r12; push r13; push r14; push r15
        ; sub rsp, STACK
        ; mov [rsp + CALLERS], rdi
        ; mov r14, [rdi + BANK]
        ; mov r15, [rdi + REMAINING]
    );
    for at in (0..COPIED).step_by(16) {
        dynasm!(asm; .arch x64; movups xmm0, [rdi + at]; movups [rsp + at], xmm0);
    }
    dynasm!(asm; .arch x64; mov rax, [rdi + CORE]; mov [rsp + TARGET], rsi);
    load_registers(asm, 0);
    dynasm!(asm; .arch x64; jmp QWORD [rsp + TARGET]);
}

/// Leaves, with the number of the exit in the frame.
fn leave(asm: &mut Assembler) {
    dynasm!(asm; .arch x64
        ; mov rdi, [rsp + CALLERS]
        ; mov [rdi + REMAINING], r15
        ; mov rcx, [rsp + FLAGS]
        ; mov [rdi + FLAGS], rcx
        ; mov rcx, [rsp + IS_TRIPLE_FAULT]
        ; mov [rdi + IS_TRIPLE_FAULT], rcx
        ; mov rax, [rsp + KEPT]
        ; add rsp, STACK
        ; pop r15; pop r14; pop r13; pop r12; pop rbx; pop rbp
        ; ret
    );
}

/// [`Routines::load_vectors`].
fn load_vectors(asm: &mut Assembler) {
    let done = asm.new_dynamic_label();
    dynasm!(asm; .arch x64
        ; cmp BYTE [rsp + 8 + HAS_VECTORS], 0
        ; jne =>done
        ; cmp BYTE [rsp + 8 + ALLOWS_VECTORS], 0
        ; je =>done
        ; mov BYTE [rsp + 8 + HAS_VECTORS], 1
        ; mov rax, [rsp + 8 + VECTORS]
        ; ldmxcsr [rax + MXCSR]
    );
    for number in 0..16u8 {
        let at = XMM + 16 * i32::from(number);
        dynasm!(asm; .arch x64; movups Rx(number), [rax + at]);
    }
    dynasm!(asm; .arch x64; =>done; ret);
}

/// [`Routines::change_access`]. All sites forget.
fn change_access(asm: &mut Assembler, is_set: bool) {
    const FRAME_AT: i32 = 8; // above the return address
    let number = usize::from(is_set) as i32;
    match is_set {
        true => dynasm!(asm; .arch x64; or DWORD [rax + CORE_FLAGS], AC as i32),
        false => dynasm!(asm; .arch x64; and DWORD [rax + CORE_FLAGS], !(AC as i32)),
    }
    dynasm!(asm; .arch x64
        ; mov QWORD [rax + CORE_BANK], number
        ; mov r14, [rsp + FRAME_AT + KERNEL_BANKS + 8 * number]
        ; mov [rsp + FRAME_AT + BANK], r14
        ; xor eax, eax
    );
    for site in 0..SITES as i32 {
        dynasm!(asm; .arch x64; mov [rsp + FRAME_AT + SITE_LIMITS + 8 * site], rax);
    }
    dynasm!(asm; .arch x64; ret);
}

/// Stores them, if they are loaded, and gives the host its MXCSR back. Uses `rdx`.
fn store_vectors(asm: &mut Assembler, depth: i32) {
    let done = asm.new_dynamic_label();
    dynasm!(asm; .arch x64
        ; cmp BYTE [rsp + depth + HAS_VECTORS], 0
        ; je =>done
        ; mov BYTE [rsp + depth + HAS_VECTORS], 0
        ; mov rdx, [rsp + depth + VECTORS]
        ; stmxcsr [rdx + MXCSR]
        ; ldmxcsr [rsp + depth + HOST_MXCSR]
    );
    for number in 0..16u8 {
        let at = XMM + 16 * i32::from(number);
        dynasm!(asm; .arch x64; movups [rdx + at], Rx(number));
    }
    dynasm!(asm; .arch x64; =>done);
}

/// [`Routines::execute`].
fn execute(asm: &mut Assembler, exit: dynasmrt::DynamicLabel) {
    let (leaves, elsewhere) = (asm.new_dynamic_label(), asm.new_dynamic_label());
    dynasm!(asm; .arch x64
        ; mov [rsp + 8 + REMAINING], r15
        ; mov [rsp + 8 + KEPT], rax
        ; mov rax, [rsp + 8 + CORE]
    );
    store_registers(asm, 8);
    store_vectors(asm, 8);
    dynasm!(asm; .arch x64
        ; lea rdi, [rsp + 8]
        ; mov rsi, [rsp + 8 + KEPT]
        ; mov edx, ecx
        ; mov rax, QWORD call_back::execute as *const () as i64
        ; sub rsp, 8
        ; call rax
        ; add rsp, 8
        ; mov r15, [rsp + 8 + REMAINING]
        ; mov r14, [rsp + 8 + BANK]
        ; cmp rax, call_back::LEAVE as i32
        ; je =>leaves
        ; mov [rsp + 8 + TARGET], rax
        ; mov rax, [rsp + 8 + CORE]
    );
    load_registers(asm, 8);
    dynasm!(asm; .arch x64
        ; cmp QWORD [rsp + 8 + TARGET], call_back::GO_ON as i32
        ; jne =>elsewhere
        ; ret
        ; =>elsewhere
        ; add rsp, 8
        ; jmp QWORD [rsp + TARGET]
        ; =>leaves
        ; add rsp, 8
        ; mov QWORD [rsp + KEPT], Exit::Next.number()
        ; jmp =>exit
    );
}
