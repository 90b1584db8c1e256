//! One instruction, executed by the host's CPU with a given state.
//!
//! A stub in executable memory loads all of [`State`], runs into the instruction, and stores all of it
//! again. A signal that the instruction raises is noted, and execution goes on at the storing half, with
//! the registers as the fault left them.

use dynasmrt::{DynasmApi, dynasm};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the data pages are, in the host's address space and in the guest's.
pub const DATA: u64 = 0x10_0000_0000;
/// Their bytes. Before and behind them nothing is mapped.
pub const DATA_SIZE: usize = 3 * 4096;
/// Where the instruction begins, in the host's address space and in the guest's.
pub const CODE: u64 = 0x20_0000_0000;
const CODE_SIZE: usize = 8192;
/// The storing half, as seen from [`CODE`].
const LEAVE: u64 = CODE + 1024;

/// What FXSAVE64 stores.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FxArea(pub [u8; 512]);

impl FxArea {
    /// As after reset: x87 empty, everything masked.
    pub fn initial() -> FxArea {
        let mut area = FxArea([0; 512]);
        area.set_u16(0, 0x37f);
        area.set_mxcsr(0x1f80);
        area
    }

    /// 16 bits at an offset.
    pub fn u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.0[offset..][..2].try_into().unwrap())
    }

    /// Sets 16 bits at an offset: 0 is the control word, 2 the status word, 4 the abridged tag byte.
    pub fn set_u16(&mut self, offset: usize, value: u16) {
        self.0[offset..][..2].copy_from_slice(&value.to_le_bytes());
    }

    /// MXCSR.
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.0[24..][..4].try_into().unwrap())
    }

    /// Sets MXCSR.
    pub fn set_mxcsr(&mut self, value: u32) {
        self.0[24..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// ST(i) (relative to TOP), 80 bits; the low 64 of them are MMi when TOP is 0.
    pub fn st(&self, index: usize) -> u128 {
        u128::from_le_bytes(self.0[32 + 16 * index..][..16].try_into().unwrap()) & ((1 << 80) - 1)
    }

    /// Sets ST(i).
    pub fn set_st(&mut self, index: usize, value: u128) {
        self.0[32 + 16 * index..][..10].copy_from_slice(&value.to_le_bytes()[..10]);
    }

    /// XMMi.
    pub fn xmm(&self, index: usize) -> u128 {
        u128::from_le_bytes(self.0[160 + 16 * index..][..16].try_into().unwrap())
    }

    /// Sets XMMi.
    pub fn set_xmm(&mut self, index: usize, value: u128) {
        self.0[160 + 16 * index..][..16].copy_from_slice(&value.to_le_bytes());
    }
}

/// A signal, as the exception that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Raised {
    /// The exception's vector.
    pub vector: u64,
    /// Its error code.
    pub error_code: u64,
    /// CR2.
    pub address: u64,
}

/// The state before and after.
#[repr(C, align(16))]
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// Vector and x87 registers.
    pub fx: FxArea,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// RFLAGS. Only status flags, DF and AC mean anything before.
    pub rflags: u64,
    /// After: the exception that the instruction raised.
    pub raised: Option<Raised>,
    /// The data pages.
    pub data: Box<[u8; DATA_SIZE]>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, value) in self.gpr.iter().enumerate() {
            write!(formatter, "r{index}={value:x} ")?;
        }
        write!(formatter, "flags={:x} {:x?}", self.rflags, self.raised)?;
        for index in 0..16 {
            write!(formatter, " xmm{index}={:x}", self.fx.xmm(index))?;
        }
        for index in 0..8 {
            write!(formatter, " st{index}={:x}", self.fx.st(index))?;
        }
        write!(formatter, " x87={:x?}", &self.fx.0[..32])
    }
}

impl State {
    /// Everything zero or as after reset.
    pub fn new() -> State {
        State {
            fx: FxArea::initial(),
            gpr: [0; 16],
            rflags: 2,
            raised: None,
            data: Box::new([0; DATA_SIZE]),
        }
    }
}

/// What the stub loads and stores. The stub knows its address.
#[repr(C, align(16))]
struct Transfer {
    fx: FxArea,
    gpr: [u64; 16],
    rflags: u64,
    host_rsp: u64,
    signal: u64,
    raised: Raised,
}

const GPR: i32 = 512;
const RFLAGS: i32 = GPR + 128;
const HOST_RSP: i32 = RFLAGS + 8;

static TRANSFER: AtomicPtr<Transfer> = AtomicPtr::new(std::ptr::null_mut());
static ONLY_ONE: Mutex<()> = Mutex::new(());

/// The host's CPU. There is one at a time, over all threads.
pub struct Native {
    transfer: Box<UnsafeCell<Transfer>>,
    enter: dynasmrt::ExecutableBuffer,
    entry: dynasmrt::AssemblyOffset,
    old_actions: Vec<(i32, libc::sigaction)>,
    _stack: Box<[u8]>,
    _guard: MutexGuard<'static, ()>,
}

const SIGNALS: [i32; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
];

extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let transfer = TRANSFER.load(Ordering::SeqCst);
    // SAFETY: the kernel passes a ucontext; TRANSFER is set for as long as the handler is installed.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let rip = registers[libc::REG_RIP as usize] as u64;
        if !(CODE..CODE + 64).contains(&rip) {
            // Not the instruction: the default action tells.
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            return;
        }
        (*transfer).signal = 1;
        (*transfer).raised = Raised {
            vector: registers[libc::REG_TRAPNO as usize] as u64,
            error_code: registers[libc::REG_ERR as usize] as u64,
            address: registers[libc::REG_CR2 as usize] as u64,
        };
        registers[libc::REG_RIP as usize] = LEAVE as i64;
    }
}

fn map(address: u64, size: usize, protection: i32) {
    // SAFETY: a fixed address that nothing else uses, refused if something does.
    let mapped = unsafe {
        libc::mmap(
            address as *mut libc::c_void,
            size,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    assert_eq!(mapped as u64, address, "the address {address:#x} is taken");
}

impl Native {
    /// Takes the host's CPU: waits until no other test has it.
    pub fn new() -> Native {
        let guard = ONLY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
        map(DATA, DATA_SIZE, libc::PROT_READ | libc::PROT_WRITE);
        map(
            CODE,
            CODE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
        );
        let transfer = Box::new(UnsafeCell::new(Transfer {
            fx: FxArea::initial(),
            gpr: [0; 16],
            rflags: 2,
            host_rsp: 0,
            signal: 0,
            raised: Raised {
                vector: 0,
                error_code: 0,
                address: 0,
            },
        }));
        TRANSFER.store(transfer.get(), Ordering::SeqCst);
        let address = transfer.get() as i64;
        let mut assembler = dynasmrt::x64::Assembler::new().unwrap();
        let entry = assembler.offset();
        dynasm!(assembler
            ; .arch x64
            ; push rbx ; push rbp ; push r12 ; push r13 ; push r14 ; push r15
            ; mov rax, QWORD address
            ; mov [rax + HOST_RSP], rsp
            ; fxrstor64 [rax]
            ; push QWORD [rax + RFLAGS]
            ; mov r8, QWORD (CODE + 512) as i64
            ; mov rcx, QWORD [rax + GPR + 8]
            ; mov rdx, QWORD [rax + GPR + 16]
            ; mov rbx, QWORD [rax + GPR + 24]
            ; mov rbp, QWORD [rax + GPR + 40]
            ; mov rsi, QWORD [rax + GPR + 48]
            ; mov rdi, QWORD [rax + GPR + 56]
            ; mov r9, QWORD [rax + GPR + 72]
            ; mov r10, QWORD [rax + GPR + 80]
            ; mov r11, QWORD [rax + GPR + 88]
            ; mov r12, QWORD [rax + GPR + 96]
            ; mov r13, QWORD [rax + GPR + 104]
            ; mov r14, QWORD [rax + GPR + 112]
            ; mov r15, QWORD [rax + GPR + 120]
            ; popfq
            ; jmp r8
        );
        let enter = assembler.finalize().unwrap();

        // The code page: the instruction at its start; at CODE + 512 the last three registers are
        // loaded; at LEAVE is the storing half.
        let mut leave = dynasmrt::VecAssembler::<dynasmrt::x64::X64Relocation>::new(LEAVE as usize);
        dynasm!(leave
            ; .arch x64
            ; mov rax, QWORD address
            ; mov [rax + GPR + 8], rcx
            ; mov [rax + GPR + 16], rdx
            ; mov [rax + GPR + 24], rbx
            ; mov [rax + GPR + 32], rsp
            ; mov [rax + GPR + 40], rbp
            ; mov [rax + GPR + 48], rsi
            ; mov [rax + GPR + 56], rdi
            ; mov [rax + GPR + 64], r8
            ; mov [rax + GPR + 72], r9
            ; mov [rax + GPR + 80], r10
            ; mov [rax + GPR + 88], r11
            ; mov [rax + GPR + 96], r12
            ; mov [rax + GPR + 104], r13
            ; mov [rax + GPR + 112], r14
            ; mov [rax + GPR + 120], r15
            ; mov rsp, [rax + HOST_RSP]
            ; pushfq
            ; pop QWORD [rax + RFLAGS]
            ; push DWORD 0x202
            ; popfq
            ; fxsave64 [rax]
            ; fninit
            ; push DWORD 0x1f80
            ; ldmxcsr [rsp]
            ; add rsp, 8
            ; pop r15 ; pop r14 ; pop r13 ; pop r12 ; pop rbp ; pop rbx
            ; ret
        );
        // First of all RAX, by the one form that needs no register: MOV moffs64, RAX.
        let mut bytes = vec![0x48, 0xa3];
        bytes.extend_from_slice(&(address + i64::from(GPR)).to_le_bytes());
        bytes.extend_from_slice(&leave.finalize().unwrap());
        let leave = bytes;
        let mut load =
            dynasmrt::VecAssembler::<dynasmrt::x64::X64Relocation>::new((CODE + 512) as usize);
        dynasm!(load
            ; .arch x64
            ; mov r8, QWORD [rax + GPR + 64]
            ; mov rsp, QWORD [rax + GPR + 32]
            ; mov rax, QWORD [rax + GPR]
        );
        let mut load = load.finalize().unwrap();
        let after = CODE + 512 + load.len() as u64 + 5;
        load.push(0xe9);
        load.extend_from_slice(&(CODE.wrapping_sub(after) as u32).to_le_bytes());
        // SAFETY: both are within the code page that was just mapped.
        unsafe {
            std::ptr::copy_nonoverlapping(leave.as_ptr(), LEAVE as *mut u8, leave.len());
            std::ptr::copy_nonoverlapping(load.as_ptr(), (CODE + 512) as *mut u8, load.len());
        }
        assert!(load.len() < 512 && leave.len() < 1024);

        let mut stack = vec![0u8; 1 << 16].into_boxed_slice();
        let mut old_actions = Vec::new();
        // SAFETY: plain use of sigaltstack and sigaction; the stack lives as long as the handler.
        unsafe {
            let alternative = libc::stack_t {
                ss_sp: stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: stack.len(),
            };
            assert_eq!(libc::sigaltstack(&alternative, std::ptr::null_mut()), 0);
            for signal in SIGNALS {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                let mut old: libc::sigaction = std::mem::zeroed();
                assert_eq!(libc::sigaction(signal, &action, &mut old), 0);
                old_actions.push((signal, old));
            }
        }
        Native {
            transfer,
            enter,
            entry,
            old_actions,
            _stack: stack,
            _guard: guard,
        }
    }

    /// Executes one instruction at [`CODE`]. It must fall through (or fault): a jump elsewhere would
    /// run wild.
    pub fn execute(&mut self, instruction: &[u8], state: &mut State) {
        assert!(instruction.len() <= 15);
        let transfer = self.transfer.get();
        let mut code = [0x90u8; 32];
        code[..instruction.len()].copy_from_slice(instruction);
        let end = CODE + instruction.len() as u64 + 5;
        code[instruction.len()] = 0xe9;
        code[instruction.len() + 1..][..4]
            .copy_from_slice(&(LEAVE.wrapping_sub(end) as u32).to_le_bytes());
        // SAFETY: the transfer is ours, the pages are mapped, and the stub keeps to its calling
        // convention whatever the instruction does.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), CODE as *mut u8, code.len());
            std::ptr::copy_nonoverlapping(state.data.as_ptr(), DATA as *mut u8, DATA_SIZE);
            (*transfer).fx = state.fx;
            (*transfer).gpr = state.gpr;
            (*transfer).rflags = state.rflags & 0x4_0cd5 | 0x202;
            (*transfer).signal = 0;
            let enter: extern "C" fn() = std::mem::transmute(self.enter.ptr(self.entry));
            enter();
            state.fx = (*transfer).fx;
            state.fx.0[28..32].fill(0); // MXCSR_MASK: the host's
            state.gpr = (*transfer).gpr;
            // Neither IF nor RF, which a signal leaves set.
            state.rflags = (*transfer).rflags & !0x1_0200 | 2;
            state.raised = ((*transfer).signal != 0).then(|| (*transfer).raised);
            std::ptr::copy_nonoverlapping(DATA as *const u8, state.data.as_mut_ptr(), DATA_SIZE);
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: undoes what `new` did.
        unsafe {
            for (signal, old) in &self.old_actions {
                libc::sigaction(*signal, old, std::ptr::null_mut());
            }
            let none = libc::stack_t {
                ss_sp: std::ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: 0,
            };
            libc::sigaltstack(&none, std::ptr::null_mut());
            libc::munmap(DATA as *mut libc::c_void, DATA_SIZE);
            libc::munmap(CODE as *mut libc::c_void, CODE_SIZE);
        }
    }
}
