//! One RISC-V hardware thread: registers, CSRs, traps and interrupts.

pub mod counters;
pub mod csr;
pub mod interrupt;
pub mod physical_memory_protection;
pub mod registers;
pub mod reservation;
pub mod trap;

use crate::mmu::tlb::Tlb;
use counters::Counters;
use csr::Csrs;
use physical_memory_protection::PhysicalMemoryProtection;
use registers::Registers;
use reservation::Reservation;
use serde::{Deserialize, Serialize};

/// Privilege modes (privileged specification, 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Privilege {
    /// U.
    User = 0,
    /// S.
    Supervisor = 1,
    /// M.
    Machine = 3,
}

impl Privilege {
    /// From two bits of a status register; the reserved encoding 2 gives U.
    pub fn from_bits(bits: u64) -> Privilege {
        match bits & 3 {
            3 => Privilege::Machine,
            1 => Privilege::Supervisor,
            _ => Privilege::User,
        }
    }
}

/// A hart. Everything but the TLB is state.
#[derive(Serialize, Deserialize)]
pub struct Hart {
    /// Its number, `mhartid`.
    pub id: u32,
    /// Address of the next instruction.
    pub pc: u64,
    /// Integer registers.
    pub x: Registers,
    /// Floating-point registers, single precision NaN-boxed.
    pub f: [u64; 32],
    /// Current privilege mode.
    pub privilege: Privilege,
    /// Control and status registers.
    pub csr: Csrs,
    /// `pmpcfg` and `pmpaddr`.
    pub pmp: PhysicalMemoryProtection,
    /// `mcycle` and `minstret`.
    pub counters: Counters,
    /// An open reservation (`lr`). Ends at every trap, input and switch of harts.
    pub reservation: Reservation,
    /// In `wfi`, until an interrupt that is enabled in `mie` is pending.
    pub waiting: bool,
    /// Cached translations, of the hart that runs; never visible to the guest.
    #[serde(skip)]
    pub tlb: Tlb,
    /// What compiled code keeps beside the registers; never visible to the guest.
    #[serde(skip)]
    pub compiled: CompiledWords,
}

/// What compiled code reads and writes by its address: see `jit`.
#[derive(Default)]
#[repr(C)]
pub struct CompiledWords {
    /// Virtual address of the page that `pc` is in.
    pub page: u64,
    /// XORed into the tags of site caches: bits 3 to 11, other ones in each context.
    pub site_key: u64,
    /// The key of the same context with the other `sstatus.SUM`, XORed with this one's; 0 if it has
    /// none.
    pub sum_difference: u64,
    /// `mip` while compiled code runs: whatever changes it ends that.
    pub interrupts_pending: u64,
    /// Number that entries of the jump cache must have.
    pub jump_key: u64,
    /// Host address of guest RAM.
    pub ram: u64,
    /// Host address of the jump cache.
    pub jump_cache: u64,
    /// Not 0 if the present mode may execute `cbo.zero`.
    pub may_zero_blocks: u64,
}

impl Hart {
    /// A hart at reset (privileged specification, 3.4), about to execute at `pc` in M-mode.
    pub fn new(id: u32, pc: u64) -> Hart {
        Hart {
            id,
            pc,
            x: Registers::default(),
            f: [0; 32],
            privilege: Privilege::Machine,
            csr: Csrs::default(),
            pmp: PhysicalMemoryProtection::default(),
            counters: Counters::default(),
            reservation: Reservation::NONE,
            waiting: false,
            tlb: Tlb::default(),
            compiled: CompiledWords::default(),
        }
    }
}
