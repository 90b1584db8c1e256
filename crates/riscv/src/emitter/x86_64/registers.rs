//! Where the integer registers are at a place in a piece, and in what form.
//!
//! At the head of a piece and on every way out of it all is as [`PINNED`] says. In between a host
//! register may be lent to a guest register that has none, the upper half of one may be left
//! undefined until somebody needs it, and a shift may wait for the instruction that makes something
//! better of it. A way out that is rarely taken takes a copy of this and puts things right in the code
//! behind the piece.

use super::layout::{HostRegister, PINNED};

/// A shift by a constant that was not executed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    pub kind: ShiftKind,
    /// The register that is shifted; nothing was written to it since.
    pub source: u8,
    /// Bits.
    pub amount: u8,
}

/// The shifts that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShiftKind {
    Left,
    Right,
    LeftWord,
    RightWord,
}

/// The integer registers at one place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// The host register of each guest register that has one.
    homes: [Option<HostRegister>; 32],
    /// Guest registers that have a host register of another one. One bit each, as below.
    pub lent: u32,
    /// Guest registers whose host register holds something else.
    displaced: u32,
    /// Those of the lent whose value in the hart may be out of date.
    pub stale: u32,
    /// Registers that are the sign extension of the low half of their host register, whose upper
    /// half is undefined.
    pub words: u32,
    /// Registers that are a shift which waits.
    pub waiting: u32,
    shifts: [Shift; 32],
}

const NO_SHIFT: Shift = Shift {
    kind: ShiftKind::Left,
    source: 0,
    amount: 0,
};

/// As every piece begins and ends.
pub const STANDARD: Registers = {
    let mut homes = [None; 32];
    let mut index = 0;
    while index < PINNED.len() {
        homes[PINNED[index].0 as usize] = Some(PINNED[index].1);
        index += 1;
    }
    Registers {
        homes,
        lent: 0,
        displaced: 0,
        stale: 0,
        words: 0,
        waiting: 0,
        shifts: [NO_SHIFT; 32],
    }
};

impl Registers {
    /// The host register that holds a guest register, or what it will be computed from.
    pub fn home(&self, guest: u8) -> Option<HostRegister> {
        *self.homes.get(usize::from(guest))?
    }

    /// Whether a way out has nothing to put right.
    pub fn is_standard(&self) -> bool {
        self.displaced | self.words | self.waiting == 0
    }

    /// Whether only the low half of the host register is defined.
    pub fn is_word(&self, guest: u8) -> bool {
        is_in(self.words, guest)
    }

    /// The shift that `guest` waits for.
    pub fn shift(&self, guest: u8) -> Option<Shift> {
        is_in(self.waiting, guest).then(|| self.shifts[usize::from(guest)])
    }

    /// `guest` is a shift from now on.
    pub fn wait(&mut self, guest: u8, shift: Shift) {
        self.words &= !(1 << guest);
        self.waiting |= 1 << guest;
        self.shifts[usize::from(guest)] = shift;
    }

    /// The registers other than `guest` that are shifts of it.
    pub fn shifts_of(&self, guest: u8) -> u32 {
        members(self.waiting & !(1 << guest))
            .filter(|&waiting| self.shifts[usize::from(waiting)].source == guest)
            .fold(0, |set, waiting| set | 1 << waiting)
    }

    /// Something was written to `guest`.
    pub fn wrote(&mut self, guest: u8, is_word: bool) {
        self.waiting &= !(1 << guest);
        self.words = self.words & !(1 << guest) | u32::from(is_word) << guest;
        self.stale |= self.lent & 1 << guest;
    }

    /// The host register of `owner` is lent to `borrower`.
    pub fn lend(&mut self, owner: u8, borrower: u8) {
        self.homes[usize::from(borrower)] = self.displace(owner);
        self.lent |= 1 << borrower;
    }

    /// The host register of `owner`, if it has it, is free for something else.
    pub fn displace(&mut self, owner: u8) -> Option<HostRegister> {
        self.displaced |= 1 << owner;
        self.homes[usize::from(owner)].take()
    }

    /// Whether `owner` has a host register.
    pub fn is_home(&self, owner: u8) -> bool {
        self.home(owner).is_some()
    }

    /// The owners of the host registers that hold something else.
    pub fn owners(&self) -> impl Iterator<Item = (u8, HostRegister)> {
        let displaced = self.displaced;
        let owners = PINNED.into_iter();
        owners.filter(move |(guest, _)| is_in(displaced, *guest))
    }
}

/// The registers of a set.
pub fn members(set: u32) -> impl Iterator<Item = u8> {
    (0..32).filter(move |&register| is_in(set, register))
}

/// Whether a register is in a set.
pub fn is_in(set: u32, register: u8) -> bool {
    register < 32 && set >> register & 1 != 0
}
