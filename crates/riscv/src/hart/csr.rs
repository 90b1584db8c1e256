//! Control and status registers: numbers, state, reads and writes.

use super::physical_memory_protection::ENTRIES as PMP_ENTRIES;
use super::{Hart, Privilege};
use crate::isa::{Extension, Extensions};
use machine::input::InstructionCount;
use serde::{Deserialize, Serialize};

/// CSR numbers (privileged specification, 2.2).
#[rustfmt::skip]
#[allow(missing_docs)] // the names are the specification's
pub mod number {
    pub const FFLAGS: u16 = 0x001; pub const FRM: u16 = 0x002; pub const FCSR: u16 = 0x003;
    pub const CYCLE: u16 = 0xc00; pub const TIME: u16 = 0xc01; pub const INSTRET: u16 = 0xc02;
    pub const SSTATUS: u16 = 0x100; pub const SIE: u16 = 0x104; pub const STVEC: u16 = 0x105;
    pub const SCOUNTEREN: u16 = 0x106; pub const SENVCFG: u16 = 0x10a;
    pub const SSCRATCH: u16 = 0x140; pub const SEPC: u16 = 0x141; pub const SCAUSE: u16 = 0x142;
    pub const STVAL: u16 = 0x143; pub const SIP: u16 = 0x144; pub const STIMECMP: u16 = 0x14d;
    pub const SATP: u16 = 0x180;
    pub const MVENDORID: u16 = 0xf11; pub const MARCHID: u16 = 0xf12; pub const MIMPID: u16 = 0xf13;
    pub const MHARTID: u16 = 0xf14; pub const MCONFIGPTR: u16 = 0xf15;
    pub const MSTATUS: u16 = 0x300; pub const MISA: u16 = 0x301; pub const MEDELEG: u16 = 0x302;
    pub const MIDELEG: u16 = 0x303; pub const MIE: u16 = 0x304; pub const MTVEC: u16 = 0x305;
    pub const MCOUNTEREN: u16 = 0x306; pub const MENVCFG: u16 = 0x30a;
    pub const MCOUNTINHIBIT: u16 = 0x320;
    pub const MSCRATCH: u16 = 0x340; pub const MEPC: u16 = 0x341; pub const MCAUSE: u16 = 0x342;
    pub const MTVAL: u16 = 0x343; pub const MIP: u16 = 0x344;
    pub const PMPCFG0: u16 = 0x3a0; pub const PMPADDR0: u16 = 0x3b0;
    pub const MCYCLE: u16 = 0xb00; pub const MINSTRET: u16 = 0xb02;
}

/// Fields of `mstatus` (privileged specification, 3.1.6).
#[rustfmt::skip]
#[allow(missing_docs)] // the names are the specification's
pub mod status {
    pub const SIE: u64 = 1 << 1; pub const MIE: u64 = 1 << 3; pub const SPIE: u64 = 1 << 5;
    pub const MPIE: u64 = 1 << 7; pub const SPP: u64 = 1 << 8; pub const MPP: u64 = 3 << 11;
    pub const FS: u64 = 3 << 13; pub const MPRV: u64 = 1 << 17; pub const SUM: u64 = 1 << 18;
    pub const MXR: u64 = 1 << 19; pub const TVM: u64 = 1 << 20; pub const TW: u64 = 1 << 21;
    pub const TSR: u64 = 1 << 22; pub const UXL: u64 = 2 << 32; pub const SXL: u64 = 2 << 34;
    pub const SD: u64 = 1 << 63;
    pub const SUPERVISOR: u64 = SIE | SPIE | SPP | FS | SUM | MXR;
    pub const WRITABLE: u64 = SUPERVISOR | MIE | MPIE | MPP | MPRV | TVM | TW | TSR;
}

/// Interrupt bits of `mip` and `mie`.
#[rustfmt::skip]
#[allow(missing_docs)] // the names are the specification's
pub mod interrupt_bit {
    pub const SSI: u64 = 1 << 1; pub const MSI: u64 = 1 << 3; pub const STI: u64 = 1 << 5;
    pub const MTI: u64 = 1 << 7; pub const SEI: u64 = 1 << 9; pub const MEI: u64 = 1 << 11;
    pub const SUPERVISOR: u64 = SSI | STI | SEI;
    pub const ALL: u64 = SUPERVISOR | MSI | MTI | MEI;
}

/// RV64 with A, C, D, F, I, M, S and U. B is 0 on every board: that only says that Zba, Zbb or Zbs
/// might be missing (privileged specification, 3.1.1); the device tree says what there is.
pub const MISA: u64 =
    2 << 62 | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 12 | 1 << 18 | 1 << 20;

/// Exceptions that `medeleg` can delegate: all that exist but `ecall` from M.
const DELEGABLE: u64 = 0xb3ff;
/// Fields of `menvcfg` and `senvcfg` (privileged specification, 3.1.18).
#[rustfmt::skip]
#[allow(missing_docs)] // the names are the specification's
pub mod envcfg {
    pub const FIOM: u64 = 1 << 0; pub const CBIE: u64 = 3 << 4; pub const CBCFE: u64 = 1 << 6;
    pub const CBZE: u64 = 1 << 7;
    /// Of `menvcfg` only: leaves may have a memory type (Svpbmt).
    pub const PBMTE: u64 = 1 << 62;
}

/// What `senvcfg` has on a board with these extensions.
fn senvcfg_writable(extensions: Extensions) -> u64 {
    let field = |extension, field| {
        if extensions.contain(extension) {
            field
        } else {
            0
        }
    };
    envcfg::FIOM
        | field(Extension::Zicbom, envcfg::CBIE | envcfg::CBCFE)
        | field(Extension::Zicboz, envcfg::CBZE)
}

/// What `menvcfg` has on a board with these extensions.
fn menvcfg_writable(extensions: Extensions) -> u64 {
    let memory_types = if extensions.contain(Extension::Svpbmt) {
        envcfg::PBMTE
    } else {
        0
    };
    senvcfg_writable(extensions) | memory_types | MENVCFG_ADUE | MENVCFG_STCE
}

/// The new value of `menvcfg` or `senvcfg`. CBIE 2 is reserved (WARL: as it was).
fn written_envcfg(old: u64, value: u64, writable: u64) -> u64 {
    let writable = if value & envcfg::CBIE == 2 << 4 {
        writable & !envcfg::CBIE
    } else {
        writable
    };
    let kept = old & envcfg::CBIE & !writable;
    value & writable | kept
}

/// `menvcfg.ADUE`: the page-table walk sets A and D (Svadu). Set at reset, as on QEMU's default CPU:
/// kernels that know nothing of it rely on it.
pub const MENVCFG_ADUE: u64 = 1 << 61;
/// `menvcfg.STCE`: S-mode has its own timer compare (Sstc).
pub const MENVCFG_STCE: u64 = 1 << 63;

/// The registers that are plain state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are the specification's
pub struct Csrs {
    /// `mstatus` without SD, UXL and SXL.
    pub status: u64,
    pub medeleg: u64,
    pub mideleg: u64,
    pub mie: u64,
    /// The bits of `mip` that software writes: SSIP, STIP, SEIP.
    pub mip_written: u64,
    pub mtvec: u64,
    pub mcounteren: u32,
    pub menvcfg: u64,
    pub mscratch: u64,
    pub mepc: u64,
    pub mcause: u64,
    pub mtval: u64,
    pub stvec: u64,
    pub scounteren: u32,
    pub senvcfg: u64,
    pub sscratch: u64,
    pub sepc: u64,
    pub scause: u64,
    pub stval: u64,
    pub stimecmp: u64,
    pub satp: u64,
    pub fflags: u8,
    pub frm: u8,
}

impl Default for Csrs {
    fn default() -> Csrs {
        Csrs {
            status: 0,
            medeleg: 0,
            mideleg: 0,
            mie: 0,
            mip_written: 0,
            mtvec: 0,
            mcounteren: 0,
            menvcfg: MENVCFG_ADUE,
            mscratch: 0,
            mepc: 0,
            mcause: 0,
            mtval: 0,
            stvec: 0,
            scounteren: 0,
            senvcfg: 0,
            sscratch: 0,
            sepc: 0,
            scause: 0,
            stval: 0,
            stimecmp: u64::MAX,
            satp: 0,
            fflags: 0,
            frm: 0,
        }
    }
}

/// What a CSR read needs from outside the hart.
#[derive(Clone, Copy, Debug)]
pub struct CsrContext {
    /// Instruction count of the instruction that reads or writes.
    pub count: InstructionCount,
    /// `time`, in ticks.
    pub time_ticks: u64,
    /// `mip` with all its sources.
    pub interrupts_pending: u64,
    /// What the hart has beyond RV64GC.
    pub extensions: Extensions,
}

/// The CSR does not exist or may not be accessed from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IllegalAccess;

impl Csrs {
    /// `mstatus` as it is read.
    pub fn mstatus(&self) -> u64 {
        let dirty = if self.status & status::FS == status::FS {
            status::SD
        } else {
            0
        };
        self.status | status::UXL | status::SXL | dirty
    }

    /// Floating point was used: `mstatus.FS` becomes Dirty.
    #[inline]
    pub fn float_is_dirty(&mut self) {
        self.status |= status::FS;
    }

    /// Whether floating-point instructions are legal.
    #[inline]
    pub fn float_is_on(&self) -> bool {
        self.status & status::FS != 0
    }

    fn write_status(&mut self, value: u64, writable: u64) {
        let mut new = self.status & !writable | value & writable;
        if new & status::MPP == 2 << 11 {
            new = new & !status::MPP | self.status & status::MPP; // reserved: WARL keeps the old one
        }
        self.status = new;
    }
}

impl Hart {
    fn check_access(&self, csr: u16, write: bool) -> Result<(), IllegalAccess> {
        let lowest = u64::from(csr >> 8 & 3);
        let read_only = csr >> 10 == 3;
        if (self.privilege as u64) < lowest || write && read_only {
            return Err(IllegalAccess);
        }
        let counter_bit = 1u32 << (csr & 31);
        let counter_allowed = match csr {
            0xc00..=0xc1f => match self.privilege {
                Privilege::Machine => true,
                Privilege::Supervisor => self.csr.mcounteren & counter_bit != 0,
                Privilege::User => self.csr.mcounteren & self.csr.scounteren & counter_bit != 0,
            },
            number::STIMECMP if self.privilege != Privilege::Machine => {
                // Sstc, 2.1.1: needs mcounteren.TM and menvcfg.STCE
                self.csr.mcounteren & 2 != 0 && self.csr.menvcfg & MENVCFG_STCE != 0
            }
            number::SATP if self.privilege == Privilege::Supervisor => {
                self.csr.status & status::TVM == 0
            }
            number::FFLAGS | number::FRM | number::FCSR => self.csr.float_is_on(),
            _ => true,
        };
        if counter_allowed {
            Ok(())
        } else {
            Err(IllegalAccess)
        }
    }

    /// Reads a CSR; `write` says that the same instruction writes it too.
    pub fn read_csr(&self, csr: u16, write: bool, ctx: &CsrContext) -> Result<u64, IllegalAccess> {
        self.check_access(csr, write)?;
        let c = &self.csr;
        Ok(match csr {
            number::FFLAGS => u64::from(c.fflags),
            number::FRM => u64::from(c.frm),
            number::FCSR => u64::from(c.frm) << 5 | u64::from(c.fflags),
            number::TIME => ctx.time_ticks,
            number::CYCLE | number::MCYCLE => self.counters.cycle(ctx.count),
            number::INSTRET | number::MINSTRET => self.counters.retired(ctx.count),
            0xc03..=0xc1f | 0xb03..=0xb1f | 0x323..=0x33f => 0, // no hardware performance events
            number::SSTATUS => c.mstatus() & (status::SUPERVISOR | status::UXL | status::SD),
            number::SIE => c.mie & c.mideleg,
            number::STVEC => c.stvec,
            number::SCOUNTEREN => u64::from(c.scounteren),
            number::SENVCFG => c.senvcfg,
            number::SSCRATCH => c.sscratch,
            number::SEPC => c.sepc,
            number::SCAUSE => c.scause,
            number::STVAL => c.stval,
            number::SIP => ctx.interrupts_pending & c.mideleg,
            number::STIMECMP => c.stimecmp,
            number::SATP => c.satp,
            number::MVENDORID | number::MARCHID | number::MIMPID | number::MCONFIGPTR => 0,
            number::MHARTID => u64::from(self.id),
            number::MSTATUS => c.mstatus(),
            number::MISA => MISA,
            number::MEDELEG => c.medeleg,
            number::MIDELEG => c.mideleg,
            number::MIE => c.mie,
            number::MTVEC => c.mtvec,
            number::MCOUNTEREN => u64::from(c.mcounteren),
            number::MENVCFG => c.menvcfg,
            number::MCOUNTINHIBIT => 0,
            number::MSCRATCH => c.mscratch,
            number::MEPC => c.mepc,
            number::MCAUSE => c.mcause,
            number::MTVAL => c.mtval,
            number::MIP => ctx.interrupts_pending,
            0x3a0 | 0x3a2 => self.pmp.configuration((csr - number::PMPCFG0) as usize),
            0x3b0..0x3c0 => self.pmp.address((csr - number::PMPADDR0) as usize),
            0x3a4..=0x3ae if csr & 1 == 0 => 0, // entries 16 to 63 read as zero
            0x3c0..=0x3ef => 0,
            // There are no triggers, so tselect and tdata1 to tdata3 do not exist.
            _ => return Err(IllegalAccess),
        })
    }

    /// Writes a CSR that [`Hart::read_csr`] allowed to write. What depends on it (translations,
    /// pending interrupts) is the caller's to look at again.
    pub fn write_csr(&mut self, csr: u16, value: u64, ctx: &CsrContext) {
        let c = &mut self.csr;
        match csr {
            number::FFLAGS => c.fflags = (value & 31) as u8,
            number::FRM => c.frm = (value & 7) as u8,
            number::FCSR => {
                c.fflags = (value & 31) as u8;
                c.frm = (value >> 5 & 7) as u8;
            }
            number::MCYCLE => self.counters.write_cycle(ctx.count, value),
            number::MINSTRET => self.counters.write_retired(ctx.count, value),
            number::SSTATUS => c.write_status(value, status::SUPERVISOR),
            number::SIE => c.mie = c.mie & !c.mideleg | value & c.mideleg,
            number::STVEC => c.stvec = vector(value),
            number::SCOUNTEREN => c.scounteren = value as u32,
            number::SENVCFG => {
                c.senvcfg = written_envcfg(c.senvcfg, value, senvcfg_writable(ctx.extensions));
            }
            number::SSCRATCH => c.sscratch = value,
            number::SEPC => c.sepc = value & !1,
            number::SCAUSE => c.scause = value,
            number::STVAL => c.stval = value,
            number::SIP => {
                let writable = c.mideleg & interrupt_bit::SSI;
                c.mip_written = c.mip_written & !writable | value & writable;
            }
            number::STIMECMP => c.stimecmp = value,
            number::SATP => {
                // Modes that do not exist leave satp as it was (privileged specification, 12.1.11).
                if matches!(value >> 60, 0 | 8 | 9 | 10) {
                    c.satp = value;
                }
            }
            number::MSTATUS => c.write_status(value, status::WRITABLE),
            number::MEDELEG => c.medeleg = value & DELEGABLE,
            number::MIDELEG => c.mideleg = value & interrupt_bit::SUPERVISOR,
            number::MIE => c.mie = value & interrupt_bit::ALL,
            number::MTVEC => c.mtvec = vector(value),
            number::MCOUNTEREN => c.mcounteren = value as u32,
            number::MENVCFG => {
                c.menvcfg = written_envcfg(c.menvcfg, value, menvcfg_writable(ctx.extensions));
            }
            number::MSCRATCH => c.mscratch = value,
            number::MEPC => c.mepc = value & !1,
            number::MCAUSE => c.mcause = value,
            number::MTVAL => c.mtval = value,
            number::MIP => {
                let timer = if c.menvcfg & MENVCFG_STCE != 0 {
                    interrupt_bit::STI
                } else {
                    0
                };
                let writable = interrupt_bit::SUPERVISOR & !timer;
                c.mip_written = c.mip_written & !writable | value & writable;
            }
            0x3a0 | 0x3a2 => {
                self.pmp
                    .set_configuration((csr - number::PMPCFG0) as usize, value);
            }
            n if (number::PMPADDR0..number::PMPADDR0 + PMP_ENTRIES as u16).contains(&n) => {
                self.pmp.set_address((n - number::PMPADDR0) as usize, value);
            }
            _ => {} // read-only zero
        }
    }
}

/// `mtvec` and `stvec`: modes above 1 are reserved (WARL: direct).
fn vector(value: u64) -> u64 {
    if value & 3 > 1 {
        value & !3
    } else {
        value & !2
    }
}
