//! Accesses in a loop: the page is most often in that slot of the TLB where the one of the round before was. So
//! the access need not wait until the slot is computed from its address. The site remembers the slot, and nothing
//! else: whatever slot is looked at, what it says is true. So nobody has to tell a site anything.
//!
//! A site that sees another page too often is given up: its code then computes the slot as all others do.

use super::emitter::{Cold, Emitter};
use super::layout::*;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use jit::code_cache::CodeCache;

/// So many times another slot is the right one before a site is given up.
pub const PATIENCE: u32 = 256;

/// `rorx ecx, eax, 8; and ecx, 0x3ff0`: the slot of the address in `rax`.
const COMPUTE_SLOT: [u8; 12] = [
    0xc4, 0xe3, 0x7b, 0xf0, 0xc8, 0x08, 0x81, 0xe1, 0xf0, 0x3f, 0x00, 0x00,
];
/// A `nop` of the length that `mov ecx, [site]` lacks.
const NOP: [u8; 6] = [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00];

/// A site in the cache of sites: the slot's offset and what is left of the patience; where its code is.
fn new_site(code: usize, patience: u32) -> [u64; 2] {
    [u64::from(patience) << 32, code as u64]
}

/// Lets the code of a site compute its slot from now on.
pub fn give_up(cache: &mut CodeCache, site: usize) {
    let code = cache.site_mut(site)[1];
    cache.replace(code as usize, &COMPUTE_SLOT);
}

impl Emitter<'_> {
    /// [`Emitter::check`] in a loop.
    pub(super) fn check_same_slot(&mut self, table: i32, size: i32, miss: DynamicLabel) {
        let site = self.cache.add_site();
        let number = self.cache.site_number(site);
        let begin = self.asm.offset().0;
        self.cache
            .site_mut(number)
            .copy_from_slice(&new_site(self.start + begin, self.patience));
        let (from, back) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        dynasm!(self.asm; .arch x64; mov ecx, DWORD [extern site]);
        self.asm.extend(&NOP);
        let length = self.asm.offset().0 - begin;
        assert_eq!(length, COMPUTE_SLOT.len(), "one replaces the other");
        self.check_slot(table, size, from);
        dynasm!(self.asm; .arch x64; =>back);
        self.add_place(table);
        self.cold.push(Cold::OtherSlot {
            from,
            back,
            miss,
            site,
            table,
            size,
        });
    }

    /// The page is not in the slot of the round before.
    pub(super) fn look_in_other_slot(
        &mut self,
        from: DynamicLabel,
        back: DynamicLabel,
        miss: DynamicLabel,
        site: usize,
        table: i32,
        size: i32,
    ) {
        let wanders = self.asm.new_dynamic_label();
        let number = self.cache.site_number(site) as i32;
        dynasm!(self.asm; .arch x64
            ; =>from
            ; add rax, [r14 + rcx + table]
            ; rorx ecx, eax, 8
            ; and ecx, 0x3ff0
            ; mov DWORD [extern site], ecx
            ; sub DWORD [extern site + 4], 1
            ; jz =>wanders
        );
        self.check_slot(table, size, miss);
        dynasm!(self.asm; .arch x64
            ; jmp =>back
            ; =>wanders
            ; mov DWORD [rsp + WANDERING], number + 1
            ; jmp =>miss
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emitter::x86_64::routines::Assembler;

    #[test]
    fn a_site_that_is_given_up_computes_the_slot_of_its_address() {
        let mut asm = Assembler::new(0);
        let mask = (crate::mmu::SLOTS as i32 - 1) << 4;
        dynasm!(asm; .arch x64; rorx ecx, eax, 8; and ecx, mask);
        assert_eq!(asm.finalize().as_deref(), Ok(&COMPUTE_SLOT[..]));
    }
}
