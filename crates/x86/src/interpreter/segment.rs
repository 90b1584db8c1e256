//! Selectors and descriptors (SDM volume 3, chapters 3 and 5), as 64-bit code sees them.

use super::core::{COMPATIBILITY_MASK, Core, Raised};
use super::op::RIP;
use crate::cpu::{CS, SS, Segment};
use crate::fault::{Fault, GENERAL_PROTECTION, SEGMENT_NOT_PRESENT, STACK_FAULT};

/// Accessed.
const ACCESSED: u16 = 1;
/// Code or data, not a system segment.
const S: u16 = 1 << 4;
/// Code.
const CODE: u16 = 1 << 3;
/// Readable code, writable data.
const READABLE: u16 = 1 << 1;
/// Conforming code.
const CONFORMING: u16 = 1 << 2;
/// Present.
const PRESENT: u16 = 1 << 7;
/// 64-bit code.
const LONG: u16 = 1 << 13;
/// 32-bit code.
const DEFAULT_32: u16 = 1 << 14;
/// Granularity.
const GRANULAR: u16 = 1 << 15;

impl Segment {
    /// DPL.
    pub(super) fn privilege(&self) -> u8 {
        (self.attributes >> 5 & 3) as u8
    }
    fn is_code(&self) -> bool {
        self.attributes & (S | CODE) == S | CODE
    }
    pub(super) fn is_conforming(&self) -> bool {
        self.is_code() && self.attributes & CONFORMING != 0
    }
    pub(super) fn is_present(&self) -> bool {
        self.attributes & PRESENT != 0
    }
    pub(super) fn is_system(&self) -> bool {
        self.attributes & S == 0
    }
    /// The type field.
    pub(super) fn kind(&self) -> u16 {
        self.attributes & 15
    }
    fn is_readable(&self) -> bool {
        !self.is_system() && (!self.is_code() || self.attributes & READABLE != 0)
    }
    fn is_writable(&self) -> bool {
        !self.is_system() && !self.is_code() && self.attributes & READABLE != 0
    }
    /// 64-bit code.
    pub(super) fn is_long_code(&self) -> bool {
        self.is_code() && self.attributes & (LONG | DEFAULT_32) == LONG
    }
    /// 32-bit code that begins at 0, the only other kind that this machine executes.
    fn is_flat_32_bit_code(&self) -> bool {
        self.is_code() && self.attributes & (LONG | DEFAULT_32) == DEFAULT_32 && self.base == 0
    }

    /// From the 8 bytes in a descriptor table.
    pub(super) fn from_descriptor(selector: u16, descriptor: u64) -> Segment {
        let attributes = (descriptor >> 40) as u16 & 0xf0ff;
        let mut limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
        if attributes & GRANULAR != 0 {
            limit = limit << 12 | 0xfff;
        }
        Segment {
            selector,
            base: descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000,
            limit,
            attributes,
        }
    }

    /// The flat code segment that SYSCALL and SYSRET make.
    pub(super) fn flat_code(selector: u16, privilege: u16) -> Segment {
        Segment {
            selector,
            base: 0,
            limit: u32::MAX,
            attributes: 0xa09b | privilege << 5,
        }
    }

    /// The flat segment of 32-bit code that SYSRET and SYSEXIT make.
    pub(super) fn flat_compatibility_code(selector: u16, privilege: u16) -> Segment {
        Segment {
            attributes: 0xc09b | privilege << 5,
            ..Segment::flat_code(selector, privilege)
        }
    }

    /// The flat stack segment that SYSCALL and SYSRET make.
    pub(super) fn flat_data(selector: u16, privilege: u16) -> Segment {
        Segment {
            selector,
            base: 0,
            limit: u32::MAX,
            attributes: 0xc093 | privilege << 5,
        }
    }
}

/// Whether a selector is null, whatever its RPL.
pub(super) fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// #GP with a selector as its error code.
fn protection(selector: u16) -> Fault {
    Fault::with_code(GENERAL_PROTECTION, u32::from(selector & !3))
}

impl Core<'_> {
    /// #GP(selector).
    pub(super) fn selector_fault(&mut self, selector: u16) -> Raised {
        self.raise(protection(selector))
    }

    /// The linear address of a descriptor; #GP(selector) beyond the table.
    pub(super) fn descriptor_address(&mut self, selector: u16, length: u64) -> Result<u64, Raised> {
        let (base, limit) = if selector & 4 != 0 {
            let ldtr = &self.registers.ldtr;
            if !ldtr.is_present() {
                return Err(self.selector_fault(selector));
            }
            (ldtr.base, u64::from(ldtr.limit))
        } else {
            let gdtr = &self.registers.gdtr;
            (gdtr.base, u64::from(gdtr.limit))
        };
        let offset = u64::from(selector & !7);
        if offset + length - 1 > limit {
            return Err(self.selector_fault(selector));
        }
        Ok(base.wrapping_add(offset))
    }

    /// Reads a descriptor.
    pub(super) fn descriptor(&mut self, selector: u16) -> Result<Segment, Raised> {
        let address = self.descriptor_address(selector, 8)?;
        let descriptor = self.load_system(address, 8)?;
        Ok(Segment::from_descriptor(selector, descriptor))
    }

    /// Sets the accessed bit of a descriptor that is being loaded.
    fn mark_accessed(&mut self, segment: &mut Segment) -> Result<(), Raised> {
        if segment.attributes & ACCESSED == 0 {
            let address = self
                .descriptor_address(segment.selector, 8)?
                .wrapping_add(5);
            let kind = self.load_system(address, 1)?;
            self.store_system(address, 1, kind | 1)?;
            segment.attributes |= ACCESSED;
        }
        Ok(())
    }

    /// Loads ES, DS, FS or GS.
    pub(super) fn load_data_segment(&mut self, index: usize, selector: u16) -> Result<(), Raised> {
        if is_null(selector) {
            self.registers.segments[index] = Segment {
                selector,
                ..Segment::default()
            };
            return Ok(());
        }
        let mut segment = self.descriptor(selector)?;
        let weakest = self.privilege().max((selector & 3) as u8);
        let is_allowed = segment.is_conforming() || segment.privilege() >= weakest;
        if !segment.is_readable() || !is_allowed {
            return Err(self.selector_fault(selector));
        }
        if !segment.is_present() {
            let code = u32::from(selector & !3);
            return Err(self.raise(Fault::with_code(SEGMENT_NOT_PRESENT, code)));
        }
        self.mark_accessed(&mut segment)?;
        self.registers.segments[index] = segment;
        Ok(())
    }

    /// Reads and checks what is to become SS at a privilege; null is allowed below 3.
    pub(super) fn stack_segment(
        &mut self,
        selector: u16,
        privilege: u8,
    ) -> Result<Segment, Raised> {
        if is_null(selector) {
            if privilege == 3 || (selector & 3) as u8 != privilege {
                return Err(self.general_protection());
            }
            return Ok(Segment {
                selector,
                ..Segment::default()
            });
        }
        let mut segment = self.descriptor(selector)?;
        let is_allowed = (selector & 3) as u8 == privilege && segment.privilege() == privilege;
        if !is_allowed || !segment.is_writable() {
            return Err(self.selector_fault(selector));
        }
        if !segment.is_present() {
            let code = u32::from(selector & !3);
            return Err(self.raise(Fault::with_code(STACK_FAULT, code)));
        }
        self.mark_accessed(&mut segment)?;
        Ok(segment)
    }

    /// Reads and checks what is to become CS, by a far jump, call or return to `privilege`. Programs (CPL 3) may be flat
    /// 32-bit code, and so may kernels (CPL 0), on the way of a CPU that starts. A kernel that goes on to other code is
    /// on its way to real mode, to reboot: it gets there by a shutdown.
    pub(super) fn code_segment(&mut self, selector: u16, privilege: u8) -> Result<Segment, Raised> {
        if is_null(selector) {
            return Err(self.general_protection());
        }
        let mut segment = self.descriptor(selector)?;
        let is_allowed = if segment.is_conforming() {
            segment.privilege() <= privilege
        } else {
            segment.privilege() == privilege
        };
        let may_be_32_bit = matches!(privilege, 0 | 3) && segment.is_flat_32_bit_code();
        let is_long = segment.is_long_code() && self.is_in_long_mode();
        let is_known = is_long || may_be_32_bit;
        if !is_known || !is_allowed {
            self.has_shut_down = segment.is_code() && is_allowed && privilege == 0;
            return Err(self.selector_fault(selector));
        }
        if !segment.is_present() {
            let code = u32::from(selector & !3);
            return Err(self.raise(Fault::with_code(SEGMENT_NOT_PRESENT, code)));
        }
        self.mark_accessed(&mut segment)?;
        segment.selector = selector & !3 | u16::from(privilege);
        Ok(segment)
    }

    /// CS is `segment` from now on.
    pub(super) fn set_code_segment(&mut self, segment: Segment) {
        let is_user = segment.selector & 3 == 3;
        self.registers.segments[CS] = segment;
        self.is_user = is_user;
        self.is_compatibility = !segment.is_long_code();
        if self.is_compatibility {
            // SDM volume 1, 3.4.1.1: the upper halves are not preserved.
            for register in &mut self.r[..8] {
                *register &= COMPATIBILITY_MASK;
            }
            self.r[usize::from(RIP)] &= COMPATIBILITY_MASK;
        }
        self.mode_changed();
    }

    /// SS is `segment` from now on.
    pub(super) fn set_stack_segment(&mut self, segment: Segment) {
        self.registers.segments[SS] = segment;
    }

    /// What LAR, LSL, VERR and VERW look at: the descriptor, if it can be seen at all.
    pub(super) fn visible_descriptor(&mut self, selector: u16) -> Result<Option<Segment>, Raised> {
        if is_null(selector) {
            return Ok(None);
        }
        let Ok(address) = self.descriptor_address(selector, 8) else {
            return Ok(None);
        };
        let descriptor = self.load_system(address, 8)?;
        let segment = Segment::from_descriptor(selector, descriptor);
        let weakest = self.privilege().max((selector & 3) as u8);
        if !segment.is_conforming() && segment.privilege() < weakest {
            return Ok(None);
        }
        Ok(Some(segment))
    }

    /// Whether VERR (or VERW) says yes.
    pub(super) fn can_access(&mut self, selector: u16, writing: bool) -> Result<bool, Raised> {
        Ok(match self.visible_descriptor(selector)? {
            Some(segment) if writing => segment.is_writable(),
            Some(segment) => segment.is_readable(),
            None => false,
        })
    }

    /// The raw second double word that LAR shows, where LAR may (SDM volume 2, LAR, table 3-53).
    pub(super) fn access_rights(&mut self, selector: u16) -> Result<Option<u64>, Raised> {
        let Some(segment) = self.visible_descriptor(selector)? else {
            return Ok(None);
        };
        if segment.is_system() && !matches!(segment.kind(), 2 | 9 | 11 | 12) {
            return Ok(None);
        }
        let address = self.descriptor_address(selector, 8)?;
        let descriptor = self.load_system(address, 8)?;
        Ok(Some(descriptor >> 32 & 0x00ff_ff00))
    }

    /// The limit that LSL shows, where LSL may.
    pub(super) fn segment_limit(&mut self, selector: u16) -> Result<Option<u64>, Raised> {
        Ok(match self.visible_descriptor(selector)? {
            Some(segment) if segment.is_system() && !matches!(segment.kind(), 2 | 9 | 11) => None,
            Some(segment) => Some(u64::from(segment.limit)),
            None => None,
        })
    }
}
