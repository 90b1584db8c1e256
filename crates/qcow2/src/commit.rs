//! Bringing changes to the disk, in an order in which each moment is sound.
//!
//! 1. Refcounts of what was taken, and tables of which no table on the disk speaks yet. Sync: with them is
//!    what the guest wrote.
//! 2. Tables that speak of them. Sync.
//! 3. What no table speaks of any more is free: its refcounts go to the disk with the next commit. Lost,
//!    they leave clusters counted that nobody uses.
//!
//! The image's lock is not held while the disk syncs: whoever reads or writes goes on, and what he changes
//! belongs to the next commit. So what is written in the second step is what the tables were in the first.

use crate::header::field;
use crate::image::Image;
use crate::state::State;
use std::collections::BTreeSet;
use std::io;
use std::sync::PoisonError;

/// Clusters that wait for a commit to be free: as many as have 64 GiB, where they are of 64 KiB.
const MOST_RELEASED: usize = 1 << 20;

/// What is written after the first sync.
#[derive(Debug, Default)]
struct Later {
    /// Parts of the file.
    parts: Vec<(u64, Vec<u8>)>,
    l1: BTreeSet<usize>,
    /// Entries of the refcount table, and its place in the header: they go before the first sync.
    counts: BTreeSet<usize>,
    is_table_moved: bool,
    released: Vec<u64>,
    /// Tables of which the parts speak for the first time.
    new_tables: Vec<u64>,
}

impl Image {
    /// What was written before the call stays, when it succeeds.
    ///
    /// # Errors
    /// The disk fails: what stays is not known, and a later flush tries it again.
    pub fn flush(&self) -> io::Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        let _one = self
            .committing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let later = self.state().begin_commit()?;
        if let Err(error) = self.file.sync() {
            self.state().undo(later);
            return Err(error);
        }
        self.state().is_counted(&later);
        if later.parts.is_empty() && later.released.is_empty() {
            self.state().l2_tables.settle();
            return Ok(());
        }
        let written = later
            .parts
            .iter()
            .try_for_each(|(offset, bytes)| self.file.write_at(bytes, *offset));
        if let Err(error) = written.and_then(|()| self.file.sync()) {
            self.state().undo(later);
            return Err(error);
        }
        self.state().end_commit(&later.released);
        Ok(())
    }

    /// Commits when as much was changed as is kept in memory.
    pub(crate) fn commit_if_due(&self) -> io::Result<()> {
        let state = self.state();
        let is_due = state.l2_tables.is_full_of_changes() || state.released.len() >= MOST_RELEASED;
        drop(state);
        if is_due { self.flush() } else { Ok(()) }
    }
}

impl Drop for Image {
    /// Nobody can be told of an error; whoever has to know flushes first.
    fn drop(&mut self) {
        if !self.is_read_only() && !self.state().is_unchanged() {
            let _flushed = self.flush();
        }
    }
}

const _: () = assert!(field::REFCOUNT_TABLE_CLUSTERS == field::REFCOUNT_TABLE_OFFSET + 8);

impl State {
    /// Whether the file has everything.
    fn is_unchanged(&mut self) -> bool {
        let mut tables = self
            .l2_tables
            .iter_mut()
            .chain(self.refcount_blocks.iter_mut());
        let has_dirty = tables.any(|(_, table)| table.is_dirty());
        let has_changed = !self.l1_changed.is_empty() || !self.refcount_table_changed.is_empty();
        !has_dirty && !has_changed && self.released.is_empty()
    }

    /// The first step, but for its sync. On an error nothing is lost.
    fn begin_commit(&mut self) -> io::Result<Later> {
        let mut later = Later::default();
        match self.try_begin_commit(&mut later) {
            Ok(()) => Ok(later),
            Err(error) => {
                self.undo(later);
                Err(error)
            }
        }
    }

    fn try_begin_commit(&mut self, later: &mut Later) -> io::Result<()> {
        self.write_refcounts()?;
        self.write_refcount_places(later)?;
        for (offset, table) in self.l2_tables.iter_mut() {
            if !table.is_dirty() {
                continue;
            }
            let is_new = table.is_new;
            let (begin, bytes) = table.take_dirty();
            let place = offset + begin as u64;
            if is_new {
                later.new_tables.push(offset);
                self.file.write_at(bytes, place)?;
            } else {
                later.parts.push((place, bytes.to_vec()));
            }
        }
        later.l1 = std::mem::take(&mut self.l1_changed);
        for index in &later.l1 {
            let place = self.header.l1_offset + *index as u64 * 8;
            later
                .parts
                .push((place, self.l1[*index].to_be_bytes().to_vec()));
        }
        later.released = std::mem::take(&mut self.released);
        Ok(())
    }

    fn write_refcount_places(&mut self, later: &mut Later) -> io::Result<()> {
        later.counts = std::mem::take(&mut self.refcount_table_changed);
        for index in &later.counts {
            let place = self.refcount_table_offset + *index as u64 * 8;
            let entry = self.refcount_table[*index].to_be_bytes();
            self.file.write_at(&entry, place)?;
        }
        later.is_table_moved = std::mem::take(&mut self.is_refcount_table_moved);
        if later.is_table_moved {
            let clusters = self.refcount_table.len() as u64 * 8 / self.cluster_bytes();
            let mut place = self.refcount_table_offset.to_be_bytes().to_vec();
            place.extend_from_slice(&(clusters as u32).to_be_bytes());
            self.file
                .write_at(&place, field::REFCOUNT_TABLE_OFFSET as u64)?;
        }
        Ok(())
    }

    fn write_refcounts(&mut self) -> io::Result<()> {
        for (offset, block) in self.refcount_blocks.iter_mut() {
            if block.is_dirty() {
                let (begin, bytes) = block.take_dirty();
                self.file.write_at(bytes, offset + begin as u64)?;
            }
        }
        Ok(())
    }

    /// The first sync succeeded.
    fn is_counted(&mut self, later: &Later) {
        self.refcount_blocks.settle();
        for offset in &later.new_tables {
            if let Some(table) = self.l2_tables.get(*offset) {
                table.is_new = false;
            }
        }
    }

    /// Nobody knows what of it is on the disk.
    fn undo(&mut self, later: Later) {
        self.refcount_blocks.restore();
        self.l2_tables.restore();
        self.l1_changed.extend(later.l1);
        self.refcount_table_changed.extend(later.counts);
        self.is_refcount_table_moved |= later.is_table_moved;
        self.released.extend(later.released);
    }

    /// Both syncs succeeded.
    fn end_commit(&mut self, released: &[u64]) {
        self.l2_tables.settle();
        self.release(released);
        // Should the process end here, they are in the file. What fails is tried again.
        if self.write_refcounts().is_err() {
            self.refcount_blocks.restore();
        }
    }
}
