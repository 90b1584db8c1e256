//! The CPU's state: plain, and all of it part of a snapshot.

use crate::simd::VectorState;
use crate::x87::X87State;
use serde::{Deserialize, Serialize};

/// One logical processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// All but what the vector and x87 units keep.
    pub registers: Registers,
    /// XMM registers and MXCSR.
    pub vector: VectorState,
    /// The x87 stack, which MMX shares.
    pub x87: X87State,
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Bits 8 to 23 of the descriptor's second double word, shifted down by 8: type, S, DPL, P, then
    /// AVL, L, D/B and G in bits 12 to 15. Zero is a null segment.
    pub attributes: u16,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorTable {
    /// Linear address.
    pub base: u64,
    /// Its last byte.
    pub limit: u16,
}

/// Index of ES in [`Registers::segments`]; the order is that of the encoding.
pub const ES: usize = 0;
/// Index of CS.
pub const CS: usize = 1;
/// Index of SS.
pub const SS: usize = 2;
/// Index of DS.
pub const DS: usize = 3;
/// Index of FS.
pub const FS: usize = 4;
/// Index of GS.
pub const GS: usize = 5;

/// What keeps interrupts out for one instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shadow {
    /// Nothing.
    #[default]
    None,
    /// The instruction before was STI that set IF.
    Sti,
    /// The instruction before loaded SS: debug traps wait, too.
    StackSegment,
}

/// Everything but the vector and x87 units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// The next instruction.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdtr: DescriptorTable,
    /// Interrupt descriptor table.
    pub idtr: DescriptorTable,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// DR0 to DR3.
    pub debug_address: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS, ESP, EIP.
    pub sysenter: [u64; 3],
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// Interrupts are kept out until the next instruction has ended.
    pub shadow: Shadow,
    /// HLT, until an interrupt.
    pub is_halted: bool,
    /// Interrupts that cannot be masked wait: one was taken, and its handler has not returned.
    pub blocks_nonmaskable: bool,
}

impl Cpu {
    /// The state in which 64-bit code begins without firmware: long mode, flat segments, interrupts
    /// off, paging by `cr3`.
    pub fn long_mode(cr3: u64, rip: u64) -> Cpu {
        let data = Segment {
            selector: 0x18,
            base: 0,
            limit: u32::MAX,
            attributes: 0xc093,
        };
        let code = Segment {
            selector: 0x10,
            attributes: 0xa09b,
            ..data
        };
        Cpu {
            registers: Registers {
                gpr: [0; 16],
                rip,
                rflags: 2,
                segments: [data, code, data, data, data, data],
                ldtr: Segment {
                    attributes: 0x82,
                    ..Segment::default()
                },
                tr: Segment {
                    limit: 0xffff,
                    attributes: 0x8b,
                    ..Segment::default()
                },
                gdtr: DescriptorTable::default(),
                idtr: DescriptorTable::default(),
                cr0: 0x8000_0033, // PG, NE, ET, MP, PE
                cr2: 0,
                cr3,
                cr4: 0x20, // PAE
                debug_address: [0; 4],
                dr6: 0xffff_0ff0,
                dr7: 0x400,
                efer: 0x500, // LMA, LME
                star: 0,
                lstar: 0,
                cstar: 0,
                fmask: 0,
                kernel_gs_base: 0,
                sysenter: [0; 3],
                tsc_aux: 0,
                pat: 0x0007_0406_0007_0406,
                misc_enable: 1,
                shadow: Shadow::None,
                is_halted: false,
                blocks_nonmaskable: false,
            },
            vector: VectorState::default(),
            x87: X87State::default(),
        }
    }

    /// The state in which flat 32-bit code begins: protected mode without paging, interrupts off.
    pub fn protected_mode(eip: u32) -> Cpu {
        let mut cpu = Cpu::long_mode(0, eip.into());
        let registers = &mut cpu.registers;
        registers.segments[CS].attributes = 0xc09b;
        registers.cr0 = 0x11; // ET, PE
        registers.cr4 = 0;
        registers.efer = 0;
        registers.tr.limit = 0x67;
        cpu
    }
}
