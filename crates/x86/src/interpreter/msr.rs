//! Model-specific registers. What is not here raises #GP(0), as on any CPU that has not got it.

use super::core::{Core, EFER_LMA, EFER_LME};
use crate::cpu::{FS, GS};
use crate::mmu::is_canonical;

const TIME_STAMP_COUNTER: u32 = 0x10;
const PLATFORM_ID: u32 = 0x17;
const APIC_BASE: u32 = 0x1b;
const TSC_ADJUST: u32 = 0x3b;
const FEATURE_CONTROL: u32 = 0x3a;
const BIOS_SIGNATURE: u32 = 0x8b;
const ARCH_CAPABILITIES: u32 = 0x10a;
const MISC_ENABLE: u32 = 0x1a0;
const PAT: u32 = 0x277;
const TSC_DEADLINE: u32 = 0x6e0;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const FMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;

/// IA32_ARCH_CAPABILITIES: an interpreter leaks nothing by speculation. RDCL_NO, IBRS_ALL,
/// SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO,
/// PBRSB_NO, GDS_NO, RFDS_NO.
const CAPABILITIES: u64 = 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 62;

/// EFER's SCE, LME, LMA, NXE.
const EFER_DEFINED: u64 = 0xd01;

/// RDMSR; `None` is #GP.
pub(super) fn read(core: &mut Core<'_>, index: u32) -> Option<u64> {
    let registers = &core.registers;
    Some(match index {
        TIME_STAMP_COUNTER => core.bus.time_stamp_counter(core.now),
        APIC_BASE | TSC_ADJUST | TSC_DEADLINE | 0x800..=0x8ff => {
            let now = core.now;
            return core.bus.read_apic_msr(index, now);
        }
        PLATFORM_ID | BIOS_SIGNATURE => 0,
        FEATURE_CONTROL => 1, // locked, no VMX
        ARCH_CAPABILITIES => CAPABILITIES,
        0x174..=0x176 => registers.sysenter[index as usize - 0x174],
        MISC_ENABLE => registers.misc_enable,
        PAT => registers.pat,
        EFER => registers.efer,
        STAR => registers.star,
        LSTAR => registers.lstar,
        CSTAR => registers.cstar,
        FMASK => registers.fmask,
        FS_BASE => registers.segments[FS].base,
        GS_BASE => registers.segments[GS].base,
        KERNEL_GS_BASE => registers.kernel_gs_base,
        TSC_AUX => registers.tsc_aux,
        _ => return None,
    })
}

fn canonical(value: u64) -> Option<u64> {
    is_canonical(value).then_some(value)
}

/// WRMSR; `None` is #GP.
pub(super) fn write(core: &mut Core<'_>, index: u32, value: u64) -> Option<()> {
    match index {
        TIME_STAMP_COUNTER => {
            let now = core.now;
            core.bus.set_time_stamp_counter(value, now);
            core.touched_device = true;
            core.limit = 0;
        }
        APIC_BASE | TSC_ADJUST | TSC_DEADLINE | 0x800..=0x8ff => {
            core.touched_device = true;
            core.limit = 0;
            let now = core.now;
            return core.bus.write_apic_msr(index, value, now);
        }
        BIOS_SIGNATURE => {}
        0x174 => core.registers.sysenter[0] = value,
        0x175 | 0x176 => core.registers.sysenter[index as usize - 0x174] = canonical(value)?,
        MISC_ENABLE => core.registers.misc_enable = value,
        PAT => {
            let is_valid = value
                .to_le_bytes()
                .iter()
                .all(|kind| matches!(kind, 0 | 1 | 4..=7));
            if !is_valid {
                return None;
            }
            core.registers.pat = value;
        }
        EFER => {
            // SDM volume 3, 10.8.5: LMA is not for software, nor is LME while paging is on.
            let active = core.registers.efer & EFER_LMA;
            let changes_mode = active != 0 && value & EFER_LME == 0;
            if value & !EFER_DEFINED != 0 || changes_mode {
                return None;
            }
            core.registers.efer = value & !EFER_LMA | active;
            core.flush_translations();
        }
        STAR => core.registers.star = value,
        LSTAR => core.registers.lstar = canonical(value)?,
        CSTAR => core.registers.cstar = canonical(value)?,
        FMASK => {
            if value >> 32 != 0 {
                return None;
            }
            core.registers.fmask = value;
        }
        FS_BASE => core.registers.segments[FS].base = canonical(value)?,
        GS_BASE => core.registers.segments[GS].base = canonical(value)?,
        KERNEL_GS_BASE => core.registers.kernel_gs_base = canonical(value)?,
        TSC_AUX => {
            if value >> 32 != 0 {
                return None;
            }
            core.registers.tsc_aux = value;
        }
        _ => return None,
    }
    Some(())
}
