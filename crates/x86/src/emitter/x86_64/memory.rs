//! Where an operand in memory is in the host's memory: by the TLB, or else the interpreter executes the
//! instruction.

use super::emitter::Emitter;
use super::layout::*;
use crate::emitter::groups::Group;
use crate::interpreter::op::{Op, RIP, ZERO};
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

/// What is done to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// Written, and perhaps read before.
    Write,
}

/// Where an operand is in the host's memory, from the address in `rax` or another base.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// A register that is added, and how far it is shifted before.
    pub index: Option<(Host, u8)>,
    pub displacement: i32,
}

impl Place {
    /// At the base.
    pub const HERE: Place = Place {
        index: None,
        displacement: 0,
    };
}

/// Base, index and scale, displacement.
type Parts = (Option<Host>, Option<(Host, u8)>, i32);

impl Emitter<'_> {
    /// Puts the host's address of the present instruction's operand into `rax`. The host's flags
    /// are lost afterwards, unless its page is known. Gives the label where the interpreter comes back to, if it may
    /// have to execute the instruction: behind it.
    pub(super) fn operand(&mut self, access: Access) -> Result<Option<DynamicLabel>, ()> {
        let (back, place) = self.indexed_operand(access)?;
        self.resolve(place);
        Ok(back)
    }

    /// Puts the address of a place into `rax`.
    pub(super) fn resolve(&mut self, place: Place) {
        if place.index.is_some() || place.displacement != 0 {
            self.lea(RAX, Some(RAX), place.index, place.displacement, true);
        }
    }

    /// The same, where the host's instruction can address it with an index: gives the label and the place.
    pub(super) fn indexed_operand(
        &mut self,
        access: Access,
    ) -> Result<(Option<DynamicLabel>, Place), ()> {
        let op = &self.present().op;
        match self.place_in_group(op.base, op.displacement) {
            Some(place) => Ok((None, place)),
            None => self.operand_alone(access),
        }
    }

    fn operand_alone(&mut self, access: Access) -> Result<(Option<DynamicLabel>, Place), ()> {
        let step = self.present();
        let size = step.instruction.memory_size().size();
        if !matches!(size, 1 | 2 | 4 | 8 | 16) {
            return Err(());
        }
        self.yield_flags();
        let miss = self.asm.new_dynamic_label();
        let place = self.place(&step.op, access, size as i32, miss)?;
        Ok((Some(self.call_back_from(miss)), place))
    }

    /// Where an operand is, if that is known; else jumps to `miss`. Uses `rax` and `rcx`, and loses the host's flags.
    pub(super) fn place(
        &mut self,
        op: &Op,
        access: Access,
        size: i32,
        miss: DynamicLabel,
    ) -> Result<Place, ()> {
        self.address(op)?;
        match self.site(access) {
            Some(site) => {
                self.ask_site(site, access == Access::Write, size, miss);
                self.place_from_addend(op)
            }
            None => {
                self.check(access, size, miss);
                Ok(Place::HERE)
            }
        }
    }

    /// Where an operand is from what is in `rax`: what is to be added to its linear address. So the host's load does not
    /// wait for the sum of the guest's registers.
    fn place_from_addend(&mut self, op: &Op) -> Result<Place, ()> {
        let mut displacement = op.displacement;
        if op.segment > 3 {
            dynasm!(self.asm; .arch x64; add rax, [rsp + segment_base(op.segment)]);
        }
        let base = match op.base {
            ZERO => None,
            RIP => {
                dynasm!(self.asm; .arch x64; add rax, [BYTE rsp + (PAGE) as i8]);
                displacement = displacement.checked_add(op.next.into()).ok_or(())?;
                None
            }
            guest => match self.homes[usize::from(guest)] {
                Some(home) => Some(home),
                None => {
                    self.fetch(guest, RCX, 8);
                    dynasm!(self.asm; .arch x64; add rax, rcx);
                    None
                }
            },
        };
        let index = match op.index {
            ZERO => {
                return Ok(Place {
                    index: base.map(|base| (base, 0)),
                    displacement,
                });
            }
            guest => guest,
        };
        match self.homes[usize::from(index)] {
            Some(home) => {
                if let Some(base) = base {
                    dynasm!(self.asm; .arch x64; add rax, Rq(base));
                }
                Ok(Place {
                    index: Some((home, op.scale)),
                    displacement,
                })
            }
            None => {
                // Another operand may need `rcx`.
                self.fetch(index, RCX, 8);
                self.lea(RAX, Some(RAX), Some((RCX, op.scale)), displacement, true);
                Ok(Place {
                    index: base.map(|base| (base, 0)),
                    displacement: 0,
                })
            }
        }
    }

    /// If the present access belongs to a group, puts the host's address of `[base + displacement]` into
    /// `rax`. Uses `rcx`; only the first of a group loses flags.
    pub(super) fn in_group(&mut self, base: u8, displacement: i32) -> bool {
        let Some(place) = self.place_in_group(base, displacement) else {
            return false;
        };
        self.resolve(place);
        true
    }

    /// The same without the last addition: the host's address is that of the place, from `rax`.
    pub(super) fn place_in_group(&mut self, base: u8, displacement: i32) -> Option<Place> {
        let (number, group) = self.piece.groups.find(self.index)?;
        if group.first == self.index {
            self.yield_flags();
            let elsewhere = self.ungroup_from();
            match self.site_of_group(&group) {
                Some(site) => {
                    let base = self.source(group.base, RAX);
                    self.lea(RAX, Some(base), None, group.low, true);
                    self.ask_site(site, group.is_write, group.high - group.low, elsewhere);
                    dynasm!(self.asm; .arch x64; mov [rsp + addend(number)], rax);
                }
                None => self.check_group(number, &group, 0, elsewhere),
            }
        } else if self.addend_in_rax != Some(number) {
            dynasm!(self.asm; .arch x64; mov rax, [rsp + addend(number)]);
        }
        self.addend_in_rax = Some(number);
        if let Some(index) = self.homes[usize::from(base)] {
            return Some(Place {
                index: Some((index, 0)),
                displacement,
            });
        }
        let base = self.source(base, RCX);
        self.lea(RAX, Some(RAX), Some((base, 0)), displacement, true);
        Some(Place::HERE)
    }

    /// Looks up the page of a group whose register has moved by `moved`: its addend is in `rax` and in the
    /// frame then.
    pub(super) fn check_group(
        &mut self,
        number: usize,
        group: &Group,
        moved: i32,
        elsewhere: DynamicLabel,
    ) {
        let table = if group.is_write { WRITES } else { READS };
        let base = self.source(group.base, RAX);
        self.lea(RAX, Some(base), None, group.low.wrapping_sub(moved), true);
        dynasm!(self.asm; .arch x64
            ; rorx ecx, eax, 8
            ; and ecx, 0x3ff0
            ; sub rax, [r14 + rcx + table]
            ; cmp rax, 0x1000 - (group.high - group.low)
            ; ja =>elsewhere
            ; mov rax, [r14 + rcx + table + 8]
            ; sub rax, [r14 + rcx + table]
            ; mov [rsp + addend(number)], rax
        );
        self.addend_in_rax = None; // in the frame, whoever looked
        self.lose_flags();
    }

    /// The parts of an effective address; `rax` and `rcx` hold what has no host register.
    pub(super) fn parts(&mut self, op: &Op) -> Result<Parts, ()> {
        let mut displacement = op.displacement;
        let base = match op.base {
            ZERO => None,
            RIP => {
                self.addend_in_rax = None;
                dynasm!(self.asm; .arch x64; mov rax, [BYTE rsp + (PAGE) as i8]);
                displacement = displacement.checked_add(op.next.into()).ok_or(())?;
                Some(RAX)
            }
            guest => Some(self.source(guest, RAX)),
        };
        let index = match op.index {
            ZERO => None,
            guest => Some((self.source(guest, RCX), op.scale)),
        };
        Ok((base, index, displacement))
    }

    /// Puts the linear address of an operand into `rax`; uses `rcx`, and loses the host's flags.
    pub(super) fn address(&mut self, op: &Op) -> Result<(), ()> {
        let (base, index, displacement) = self.parts(op)?;
        match base {
            Some(RAX) if index.is_none() && displacement == 0 && !op.is_address_32 => {}
            _ => self.lea(RAX, base, index, displacement, !op.is_address_32),
        }
        if op.segment > 3 {
            dynasm!(self.asm; .arch x64; add rax, [rsp + segment_base(op.segment)]);
        }
        Ok(())
    }

    /// Looks the linear address in `rax` up: the host's is in `rax` then; or jumps to `miss`. Uses `rcx`.
    pub(super) fn check(&mut self, access: Access, size: i32, miss: DynamicLabel) {
        let table = match access {
            Access::Read => READS,
            Access::Write => WRITES,
        };
        dynasm!(self.asm; .arch x64; rorx ecx, eax, 8; and ecx, 0x3ff0);
        match table {
            READS => dynasm!(self.asm; .arch x64
                ; sub rax, [r14 + rcx]
                ; cmp rax, 0x1000 - size
                ; ja =>miss
                ; add rax, [BYTE r14 + rcx + 8]
            ),
            _ => dynasm!(self.asm; .arch x64
                ; sub rax, [r14 + rcx + table]
                ; cmp rax, 0x1000 - size
                ; ja =>miss
                ; add rax, [r14 + rcx + table + 8]
            ),
        }
        self.addend_in_rax = None;
        self.lose_flags();
    }
}
const _: () = assert!(crate::mmu::SLOTS == 0x400 && READS == 0);
