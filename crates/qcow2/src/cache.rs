//! Tables of one kind that were read, with what of them was changed.
//!
//! A part of a table is changed (`dirty`), then given to the file (`written`), and when the file is synced
//! it is there for good. After a sync that failed nobody knows what the file has, and what was given to it
//! is dirty again.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes that are written at once: a table's other parts are left alone.
const PART_BYTES: usize = 512;
/// Tables may be small, and all of them are looked at when there is no room.
const MOST_TABLES: u64 = 1024;

fn union(one: &Range<usize>, other: &Range<usize>) -> Range<usize> {
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other.clone(),
        (_, true) => one.clone(),
        _ => one.start.min(other.start)..one.end.max(other.end),
    }
}

/// A table: a cluster of entries, as the file has it.
#[derive(Debug)]
pub(crate) struct Table {
    bytes: Vec<u8>,
    dirty: Range<usize>,
    written: Range<usize>,
    /// No table on the disk speaks of it yet.
    pub is_new: bool,
    used: u64,
}

impl Table {
    fn new(bytes: Vec<u8>) -> Table {
        Table {
            bytes,
            dirty: 0..0,
            written: 0..0,
            is_new: false,
            used: 0,
        }
    }

    /// As the file has it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Changes bytes of it.
    pub fn change(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        let end = (at + bytes.len()).next_multiple_of(PART_BYTES);
        self.dirty = union(&self.dirty, &(at / PART_BYTES * PART_BYTES..end));
    }

    fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.written.is_empty()
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What has to be given to the file, and where in the table it begins. It counts as given.
    pub fn take_dirty(&mut self) -> (usize, &[u8]) {
        let dirty = std::mem::replace(&mut self.dirty, 0..0);
        self.written = union(&self.written, &dirty);
        (dirty.start, &self.bytes[dirty])
    }

    fn restore(&mut self) {
        let written = std::mem::replace(&mut self.written, 0..0);
        self.dirty = union(&self.dirty, &written);
    }
}

/// Tables by their place in the file.
#[derive(Debug)]
pub(crate) struct Cache {
    tables: BTreeMap<u64, Table>,
    most: usize,
    clock: u64,
}

impl Cache {
    /// As many tables as `bytes` hold, and all that were changed.
    pub fn new(bytes: u64, table_bytes: u64) -> Cache {
        Cache {
            tables: BTreeMap::new(),
            most: (bytes / table_bytes).clamp(16, MOST_TABLES) as usize,
            clock: 0,
        }
    }

    /// The table there, if it was read.
    pub fn get(&mut self, offset: u64) -> Option<&mut Table> {
        self.clock += 1;
        let table = self.tables.get_mut(&offset)?;
        table.used = self.clock;
        Some(table)
    }

    /// One that was read.
    pub fn insert(&mut self, offset: u64, bytes: Vec<u8>) -> &mut Table {
        self.make_room();
        self.clock += 1;
        let table = self
            .tables
            .entry(offset)
            .or_insert_with(|| Table::new(bytes));
        table.used = self.clock;
        table
    }

    /// One that is made: all of it is yet to be written.
    pub fn insert_new(&mut self, offset: u64, bytes: Vec<u8>) -> &mut Table {
        self.tables.remove(&offset);
        let table = self.insert(offset, bytes);
        table.dirty = 0..table.bytes.len();
        table.is_new = true;
        table
    }

    fn make_room(&mut self) {
        while self.tables.len() >= self.most {
            let clean = self.tables.iter().filter(|(_, table)| table.is_clean());
            let oldest = clean.min_by_key(|(_, table)| table.used);
            let Some(offset) = oldest.map(|(offset, _)| *offset) else {
                return;
            };
            self.tables.remove(&offset);
        }
    }

    /// Forgets a table that is none any more.
    pub fn remove(&mut self, offset: u64) {
        self.tables.remove(&offset);
    }

    /// How many of as many as there may be were changed: more than one means that it is time to write.
    pub fn is_full_of_changes(&self) -> bool {
        let dirty = self.tables.values().filter(|table| table.is_dirty());
        dirty.count() * 2 >= self.most
    }

    /// All of them, in the file's order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Table)> {
        let tables = self.tables.iter_mut();
        tables.map(|(offset, table)| (*offset, table))
    }

    /// The file was synced after what counts as written was given to it.
    pub fn settle(&mut self) {
        for table in self.tables.values_mut() {
            table.written = 0..0;
        }
    }

    /// What counts as written may not be in the file.
    pub fn restore(&mut self) {
        for table in self.tables.values_mut() {
            table.restore();
        }
    }
}
