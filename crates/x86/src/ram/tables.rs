//! Which address space's walks have read a page as a page table.
//!
//! Translations of several address spaces are remembered at a time: of the one that runs, and of others that ran
//! before. As long as nobody changes their tables, they are what a walk would find when such a space runs again.
//! A store to a table of a space that does not run lets the space be forgotten as a whole.

/// Address spaces of which translations are remembered.
pub(crate) const SPACES: usize = 14;

/// Spaces, a bit each.
type Set = u16;
const _: () = assert!(SPACES <= Set::BITS as usize);

/// The tables of a space.
#[derive(Default)]
struct Tables {
    /// Of the highest level.
    root: Option<u32>,
    /// Those below it for the lower half of the addresses; some of them twice.
    below: Vec<u32>,
}

/// The pages that are tables of the lower half, and whose.
pub(super) struct TableOwners {
    /// By page.
    owners: Vec<Set>,
    spaces: [Tables; SPACES],
    running: usize,
    /// Spaces of which nobody has changed a table while they did not run.
    intact: Set,
}

/// A page that is no table of any space any more, or only the root of one.
pub(super) struct Released {
    pub page: u32,
    pub is_root: bool,
}

fn bit(space: usize) -> Set {
    1 << space
}

impl TableOwners {
    /// No page of so many is a table.
    pub fn new(pages: usize) -> TableOwners {
        TableOwners {
            owners: vec![0; pages],
            spaces: Default::default(),
            running: 0,
            intact: Set::MAX,
        }
    }

    /// Whether the page is a table of the space that runs.
    pub fn is_owned(&self, page: u32) -> bool {
        self.owners[page as usize] & bit(self.running) != 0
    }

    /// The page is a table of the space that runs.
    pub fn add(&mut self, page: u32) {
        self.owners[page as usize] |= bit(self.running);
        self.spaces[self.running].below.push(page);
    }

    /// The page is the root of the space that runs.
    pub fn add_root(&mut self, page: u32) {
        let old = self.spaces[self.running].root.replace(page);
        assert!(
            old.is_none_or(|old| old == page),
            "a space has one root until it is forgotten"
        );
        self.owners[page as usize] |= bit(self.running);
    }

    /// The space that runs.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Another space runs. False if its tables have changed meanwhile.
    pub fn enter(&mut self, space: usize) -> bool {
        self.running = space;
        let was_intact = self.intact & bit(space) != 0;
        self.intact |= bit(space);
        was_intact
    }

    /// The spaces that have the page as a table and do not run.
    pub fn others(&self, page: u32) -> impl Iterator<Item = usize> + use<> {
        let others = self.owners[page as usize] & !bit(self.running);
        (0..SPACES).filter(move |&space| others & bit(space) != 0)
    }

    /// Nothing that was found by the tables of this space, which does not run, is true any more.
    pub fn spoil(&mut self, space: usize, released: impl FnMut(Released)) {
        self.intact &= !bit(space);
        self.forget(space, released);
    }

    /// No translation of the lower half of the running space is remembered any more. Its root is still its root.
    pub fn forget_running(&mut self, released: impl FnMut(Released)) {
        self.forget_below(self.running, released);
    }

    /// No translation of a space is remembered any more. `released` hears of the pages that were its tables only.
    pub fn forget(&mut self, space: usize, mut released: impl FnMut(Released)) {
        self.forget_below(space, &mut released);
        if let Some(page) = self.spaces[space].root.take() {
            self.owners[page as usize] &= !bit(space);
            if self.owners[page as usize] == 0 {
                let is_root = false;
                released(Released { page, is_root });
            }
        }
    }

    fn forget_below(&mut self, space: usize, mut released: impl FnMut(Released)) {
        let Tables { root, below } = &mut self.spaces[space];
        for page in below.drain(..) {
            let owners = &mut self.owners[page as usize];
            let is_root = *root == Some(page);
            if !is_root {
                *owners &= !bit(space);
            }
            if *owners & !bit(space) == 0 {
                released(Released { page, is_root });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forgotten(owners: &mut TableOwners, space: usize) -> Vec<(u32, bool)> {
        let mut pages = Vec::new();
        owners.forget(space, |released| {
            pages.push((released.page, released.is_root));
        });
        pages
    }

    /// Else a store to it would not be heard of, and the other space would go on with what it found there.
    #[test]
    fn a_table_of_two_spaces_is_one_until_both_are_forgotten() {
        let mut owners = TableOwners::new(10);
        owners.add_root(1);
        owners.add(5);
        assert!(owners.enter(3));
        owners.add_root(2);
        owners.add(5);
        owners.add(6);
        assert_eq!(forgotten(&mut owners, 0), [(1, false)]);
        assert!(owners.is_owned(5));
        assert_eq!(
            forgotten(&mut owners, 3),
            [(5, false), (6, false), (2, false)]
        );
        assert!(!owners.is_owned(5));
    }

    /// A root that maps itself.
    #[test]
    fn a_root_that_is_another_table_too_stays_a_root() {
        let mut owners = TableOwners::new(10);
        owners.add_root(1);
        owners.add(1);
        let mut pages = Vec::new();
        owners.forget_running(|released| pages.push((released.page, released.is_root)));
        assert_eq!(pages, [(1, true)]);
        assert!(owners.is_owned(1));
        assert_eq!(forgotten(&mut owners, 0), [(1, false)]);
    }

    #[test]
    fn a_space_whose_tables_changed_is_said_to_be_once() {
        let mut owners = TableOwners::new(10);
        owners.add(5);
        owners.enter(1);
        assert_eq!(owners.others(5).collect::<Vec<_>>(), [0]);
        owners.spoil(0, |_| {});
        assert_eq!(owners.others(5).count(), 0);
        assert!(!owners.enter(0));
        owners.enter(1);
        assert!(owners.enter(0));
    }
}
