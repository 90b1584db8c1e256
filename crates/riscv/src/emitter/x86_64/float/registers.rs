//! Which F registers are in `xmm` registers, and what is known of floating point within a piece.
//!
//! The hart's F registers in memory are always up to date: an `xmm` register only saves reading one
//! again. So a way out of a piece needs no spills, and at its head nothing is known.

use crate::emitter::x86_64::layout::HostRegister;

/// How much of a register counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The low 32 bits; the register is known to be NaN-boxed.
    Single,
    /// All 64 bits.
    Double,
}

/// The first `xmm` register that holds F registers; those below are scratch.
const FIRST: HostRegister = 2;
/// How many there are.
const COUNT: usize = 14;

#[derive(Clone, Copy)]
struct Held {
    guest: u8,
    format: Format,
    /// Number of the instruction that used it last.
    used: usize,
}

/// What is known at a place in a piece.
#[derive(Clone, Default)]
pub struct FloatRegisters {
    held: [Option<Held>; COUNT],
    /// One bit for each F register whose upper half is known to be all ones.
    boxed: u32,
    /// `mstatus.FS` is not Off.
    pub is_on: bool,
    /// `mstatus.FS` is Dirty.
    pub is_dirty: bool,
    /// `frm` is to nearest even.
    pub rounds_to_nearest: bool,
}

impl FloatRegisters {
    /// The `xmm` register that holds `guest` and how much of it. `now` is the number of the
    /// instruction that asks.
    pub fn find(&mut self, guest: u8, now: usize) -> Option<(HostRegister, Format)> {
        let position = self.position(guest)?;
        let held = self.held[position].as_mut()?;
        held.used = now;
        Some((FIRST + position as HostRegister, held.format))
    }

    /// The `xmm` register that is to hold `guest` from now on: the one it has, a free one, or the
    /// one that was not used for longest, so none that instruction `now` has asked for.
    pub fn assign(&mut self, guest: u8, format: Format, now: usize) -> HostRegister {
        let position = self
            .position(guest)
            .or_else(|| self.held.iter().position(Option::is_none))
            .or_else(|| (0..COUNT).min_by_key(|&index| self.held[index].map(|held| held.used)))
            .unwrap_or_default();
        self.held[position] = Some(Held {
            guest,
            format,
            used: now,
        });
        FIRST + position as HostRegister
    }

    /// Whether an `xmm` register holds nothing.
    pub fn has_free(&self) -> bool {
        self.held.iter().any(Option::is_none)
    }

    /// The `xmm` registers that hold something, what, and how much of it.
    pub fn held(&self) -> impl Iterator<Item = (HostRegister, u8, Format)> {
        let number = |index: usize| FIRST + index as HostRegister;
        let held = self.held.iter().enumerate();
        held.filter_map(move |(index, held)| {
            held.map(|held| (number(index), held.guest, held.format))
        })
    }

    /// Whether the `xmm` register holds so much of `guest`.
    pub fn holds(&self, register: HostRegister, guest: u8, format: Format) -> bool {
        self.held[usize::from(register - FIRST)].is_some_and(|held| {
            held.guest == guest && (held.format == format || held.format == Format::Double)
        })
    }

    /// Whether all that `other` knows is known here, but for what `xmm` registers hold.
    pub fn implies_facts(&self, other: &FloatRegisters) -> bool {
        self.is_on >= other.is_on
            && self.is_dirty >= other.is_dirty
            && self.rounds_to_nearest >= other.rounds_to_nearest
            && self.boxed & other.boxed == other.boxed
    }

    fn position(&self, guest: u8) -> Option<usize> {
        self.held
            .iter()
            .position(|held| held.is_some_and(|held| held.guest == guest))
    }

    /// Whether the upper half of `guest` is known to be all ones, in memory too.
    pub fn is_boxed(&self, guest: u8) -> bool {
        self.boxed >> guest & 1 != 0
    }

    /// Says so, or that it is not known.
    pub fn set_boxed(&mut self, guest: u8, boxed: bool) {
        self.boxed = self.boxed & !(1 << guest) | u32::from(boxed) << guest;
    }

    /// The `xmm` registers were overwritten.
    pub fn forget_registers(&mut self) {
        self.held = [None; COUNT];
    }

    /// `mstatus` and `frm` may have changed.
    pub fn forget_modes(&mut self) {
        self.is_on = false;
        self.is_dirty = false;
        self.rounds_to_nearest = false;
    }
}
