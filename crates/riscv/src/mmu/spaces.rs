//! Which address spaces a TLB tells apart.
//!
//! Kernels map themselves into the upper half of every address space, by equal entries of every root
//! page table. What supervisor code finds there is the same in all of them, so it is remembered once
//! for all: a space of a table's *whole*, and one of its *upper half*. Nothing rests on the guest's
//! word (the G bit): roots are compared, and whoever stores to an upper half that was compared lets
//! the root be forgotten ([`PAGE_IS_ROOT`](crate::memory::PAGE_IS_ROOT)).

/// Spaces that can be told apart before all is flushed.
const SPACES: usize = 255;
/// Numbers that one change of contexts may take: two address spaces, whole and upper half.
const NEW_AT_MOST: usize = 4;
/// Upper halves that are remembered at a time.
const UPPER_HALVES: usize = 8;
/// Double-words of half a page table.
const HALF: usize = 256;
/// Roots that are remembered at a time.
const ROOTS: usize = 64;

/// What a number stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// Nothing any more.
    Abandoned,
    /// All of an address space, by its `satp`.
    Whole(u64),
    /// The upper half of all roots that have this one.
    UpperHalf(usize),
}

/// The numbers of the spaces of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    satp: u64,
    /// Of all of it.
    pub whole: u64,
    /// Of what supervisor code finds in its upper half, if no user page can be in it; that of the
    /// whole if the upper half is not shared.
    pub upper: u64,
}

/// An address space whose root was looked at.
struct Root {
    satp: u64,
    /// Its upper half; none if it shares none.
    upper_half: Option<usize>,
}

struct UpperHalf {
    /// Mode of `satp`.
    mode: u64,
    entries: Box<[u64; HALF]>,
}

/// All spaces of a TLB.
#[derive(Default)]
pub struct Spaces {
    /// By number.
    spaces: Vec<Space>,
    /// The last ones that were asked for: most often the kernel's turn and the program's.
    recent: [Option<Numbers>; 2],
    roots: Vec<Root>,
    upper_halves: Vec<UpperHalf>,
}

/// Number of the page that is the root of `satp`.
pub fn root_page(satp: u64) -> u64 {
    satp & ((1 << 44) - 1)
}

/// Whether `satp` translates at all.
pub fn is_paged(satp: u64) -> bool {
    satp >> 60 != 0
}

impl Spaces {
    /// Whether [`Spaces::numbers`] can name two more address spaces; if not, all translations have to
    /// be forgotten, and then [`Spaces::begin_anew`].
    pub fn has_room(&self) -> bool {
        self.spaces.len() + NEW_AT_MOST <= SPACES
    }

    /// All numbers are free again.
    pub fn begin_anew(&mut self) {
        *self = Spaces::default();
    }

    /// The numbers of the spaces of `satp`.
    #[inline]
    pub fn numbers(&mut self, satp: u64) -> Numbers {
        for known in self.recent.into_iter().flatten() {
            if known.satp == satp {
                return known;
            }
        }
        self.find(satp)
    }

    fn find(&mut self, satp: u64) -> Numbers {
        let whole = self.number(Space::Whole(satp));
        let upper_half = self.root(satp).and_then(|root| root.upper_half);
        let upper = match upper_half {
            Some(half) => self.number(Space::UpperHalf(half)),
            None => whole,
        };
        let numbers = Numbers { satp, whole, upper };
        self.recent = [Some(numbers), self.recent[0]];
        numbers
    }

    fn number(&mut self, space: Space) -> u64 {
        let known = self.spaces.iter().position(|&known| known == space);
        let number = known.unwrap_or_else(|| {
            self.spaces.push(space);
            self.spaces.len() - 1
        });
        number as u64
    }

    fn root(&self, satp: u64) -> Option<&Root> {
        self.roots.iter().rev().find(|root| root.satp == satp)
    }

    /// Whether the root of `satp` was looked at.
    #[inline]
    pub fn knows_root(&self, satp: u64) -> bool {
        self.root(satp).is_some()
    }

    /// Whether what supervisor code finds in the upper half of `satp` is remembered once for all
    /// address spaces with that upper half.
    pub fn shares_upper_half(&self, satp: u64) -> bool {
        self.root(satp)
            .is_some_and(|root| root.upper_half.is_some())
    }

    /// The root of `satp` was looked at: `upper_half` are the bytes of its entries 256 to 511, if it
    /// may share them. The contexts have to be set anew.
    pub fn add_root(&mut self, satp: u64, upper_half: Option<&[u8]>) {
        if self.roots.len() == ROOTS {
            self.roots.remove(0);
        }
        let upper_half = upper_half.and_then(|bytes| self.upper_half(satp >> 60, bytes));
        self.forget_recent(satp);
        self.roots.push(Root { satp, upper_half });
    }

    fn upper_half(&mut self, mode: u64, bytes: &[u8]) -> Option<usize> {
        let (words, _) = bytes.as_chunks::<8>();
        let equal = |known: &UpperHalf| {
            let entries = known.entries.iter().zip(words);
            known.mode == mode
                && entries
                    .into_iter()
                    .all(|(a, b)| *a == u64::from_le_bytes(*b))
        };
        if let Some(half) = self.upper_halves.iter().position(equal) {
            return Some(half);
        }
        if self.upper_halves.len() == UPPER_HALVES {
            return None;
        }
        let mut entries = Box::new([0; HALF]);
        for (entry, word) in entries.iter_mut().zip(words) {
            *entry = u64::from_le_bytes(*word);
        }
        self.upper_halves.push(UpperHalf { mode, entries });
        Some(self.upper_halves.len() - 1)
    }

    /// Supervisor code uses the lower half of `satp` too: it shares nothing. The contexts have to be
    /// set anew.
    pub fn stop_sharing(&mut self, satp: u64) {
        self.forget_recent(satp);
        for root in &mut self.roots {
            if root.satp == satp {
                root.upper_half = None;
            }
        }
    }

    fn forget_recent(&mut self, satp: u64) {
        for recent in &mut self.recent {
            if recent.is_some_and(|numbers| numbers.satp == satp) {
                *recent = None;
            }
        }
    }

    /// Every number stands for nothing any more, and no root was looked at. The contexts have to be
    /// set anew.
    pub fn abandon(&mut self) {
        self.spaces.fill(Space::Abandoned);
        self.recent = [None; 2];
        self.roots.clear();
        self.upper_halves.clear();
    }

    /// Likewise the numbers of whole address spaces; no root but those of `current`, values of
    /// `satp`, was looked at.
    pub fn abandon_whole(&mut self, current: &[u64]) {
        for space in &mut self.spaces {
            if matches!(space, Space::Whole(satp) if is_paged(*satp)) {
                *space = Space::Abandoned;
            }
        }
        self.recent = [None; 2];
        self.roots.retain(|root| current.contains(&root.satp));
    }

    /// The root at physical page number `page` was changed: nothing is known of it any more. The
    /// contexts have to be set anew.
    pub fn forget_root(&mut self, page: u64) {
        for space in &mut self.spaces {
            if matches!(space, Space::Whole(satp) if is_paged(*satp) && root_page(*satp) == page) {
                *space = Space::Abandoned;
            }
        }
        self.recent = [None; 2];
        self.roots.retain(|root| root_page(root.satp) != page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SV39: u64 = 8 << 60;

    fn half(entry: u8) -> Vec<u8> {
        vec![entry; 8 * HALF]
    }

    /// An upper half that was taken for another would show one process the other's kernel.
    #[test]
    fn only_equal_upper_halves_of_one_mode_are_shared() {
        let mut spaces = Spaces::default();
        spaces.add_root(SV39 | 1, Some(&half(1)));
        spaces.add_root(SV39 | 2, Some(&half(1)));
        spaces.add_root(SV39 | 3, Some(&half(2)));
        spaces.add_root(9 << 60 | 4, Some(&half(1)));
        spaces.add_root(SV39 | 5, None);
        let [a, b, c, d, e] =
            [SV39 | 1, SV39 | 2, SV39 | 3, 9 << 60 | 4, SV39 | 5].map(|satp| spaces.numbers(satp));
        assert_eq!(a.upper, b.upper);
        let mut all = [
            a.upper, a.whole, b.whole, c.upper, c.whole, d.upper, d.whole, e.whole,
        ];
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
        assert_eq!(e.upper, e.whole);
    }

    #[test]
    fn a_space_that_was_abandoned_gets_a_number_that_was_not_used() {
        let mut spaces = Spaces::default();
        spaces.add_root(SV39 | 1, Some(&half(1)));
        spaces.add_root(SV39 | 2, Some(&half(1)));
        let (bare, before) = (spaces.numbers(0), spaces.numbers(SV39 | 1));
        spaces.abandon_whole(&[SV39 | 1]);
        let after = spaces.numbers(SV39 | 1);
        assert_ne!(before.whole, after.whole);
        assert_eq!(before.upper, after.upper);
        assert_eq!(bare, spaces.numbers(0), "no page table concerns it");
        assert!(!spaces.knows_root(SV39 | 2), "nobody watches it any more");
        spaces.stop_sharing(SV39 | 1);
        assert_eq!(spaces.numbers(SV39 | 1).upper, after.whole);
        spaces.forget_root(1);
        assert!(!spaces.knows_root(SV39 | 1));
        assert_ne!(spaces.numbers(SV39 | 1).whole, after.whole);
        spaces.abandon();
        assert_ne!(spaces.numbers(0), bare);
    }

    #[test]
    fn no_more_numbers_are_given_than_a_tag_can_hold() {
        let mut spaces = Spaces::default();
        let mut last = 0;
        // Fetches and data are of two address spaces where M-mode borrows another mode's.
        for satp in (SV39..).step_by(2) {
            if !spaces.has_room() {
                break;
            }
            spaces.numbers(satp);
            last = spaces.numbers(satp + 1).whole;
        }
        assert!((SPACES as u64 - 5..SPACES as u64).contains(&last), "{last}");
        spaces.begin_anew();
        assert_eq!(spaces.numbers(SV39).whole, 0);
    }
}
