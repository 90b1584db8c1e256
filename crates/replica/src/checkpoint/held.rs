//! What a backup holds of the next checkpoint: nothing of it has touched the machine before all is here.

use super::{End, MOST_PIECE_BYTES, Moment, TAG_DELTA, TAG_MOMENT, TAG_PAGE, TAG_ZERO};
use machine::Machine;
use machine::memory::{BATCH_PAGES, PAGE_SIZE, PageBatch};
use replication::record::InstructionCount;
use replication::wire::{Fields, WireError};
use std::io;
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;
use zstd::bulk::Decompressor;

const PAGE: usize = PAGE_SIZE as usize;

/// A checkpoint that no primary makes.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A piece is missing, or comes twice.
    #[error("piece {found} of a checkpoint came where piece {expected} was to come")]
    Order {
        /// Its number.
        found: u64,
        /// What it should be.
        expected: u32,
    },
    /// A piece does not decompress.
    #[error("a piece of a checkpoint does not decompress: {0}")]
    Compression(io::Error),
    /// A piece is too long, or does not decode.
    #[error("a piece of a checkpoint does not decode: {0}")]
    Wire(#[from] WireError),
    /// What it says of itself is not so.
    #[error("a checkpoint is damaged: {0}")]
    Damaged(&'static str),
    /// The machine cannot be that.
    #[error("{0}")]
    Machine(#[from] machine::snapshot::SnapshotError),
}

/// The pieces of the next checkpoint, as far as they have come.
pub struct HeldCheckpoint {
    decompressor: Option<Decompressor<'static>>,
    pieces: u32,
    hash: Xxh3,
    moment: Vec<u8>,
    batches: Vec<PageBatch>,
    /// Which of the pages are differences, by their places in the batches.
    deltas: Vec<(usize, usize)>,
    spare: Vec<PageBatch>,
}

impl Default for HeldCheckpoint {
    fn default() -> HeldCheckpoint {
        HeldCheckpoint {
            decompressor: None,
            pieces: 0,
            hash: Xxh3::new(),
            moment: Vec::new(),
            batches: Vec::new(),
            deltas: Vec::new(),
            spare: Vec::new(),
        }
    }
}

impl HeldCheckpoint {
    /// Holds one more piece. The first of a checkpoint takes the place of what was there: a primary that died
    /// has left it.
    ///
    /// # Errors
    /// [`CheckpointError`]
    pub fn hold(&mut self, piece: &[u8]) -> Result<(), CheckpointError> {
        let mut fields = Fields::new(piece);
        let number = fields.varint()?;
        if number == 0 {
            self.clear();
        }
        if number != u64::from(self.pieces) {
            return Err(CheckpointError::Order {
                found: number,
                expected: self.pieces,
            });
        }
        let bytes = fields.varint()?;
        if bytes > MOST_PIECE_BYTES as u64 {
            return Err(CheckpointError::Damaged("a piece is too long"));
        }
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(CheckpointError::Compression)?),
        };
        let items = decompressor.decompress(fields.remainder(), bytes as usize);
        let items = items.map_err(CheckpointError::Compression)?;
        self.hash.update(&items);
        self.pieces += 1;
        self.take_items(&items)
    }

    fn take_items(&mut self, items: &[u8]) -> Result<(), CheckpointError> {
        let mut fields = Fields::new(items);
        while !fields.is_empty() {
            match fields.byte()? {
                tag @ (TAG_PAGE | TAG_DELTA) => {
                    let index = u32::from_le_bytes(fields.array()?);
                    self.add(index, &fields.array::<PAGE>()?, tag == TAG_DELTA);
                }
                TAG_ZERO => self.add(u32::from_le_bytes(fields.array()?), &[0; PAGE], false),
                TAG_MOMENT => {
                    let chunk = fields.bytes("a part of a checkpoint's moment", items.len())?;
                    self.moment.extend_from_slice(chunk);
                }
                tag => {
                    let what = "item of a checkpoint";
                    return Err(WireError::UnknownTag { what, tag }.into());
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, index: u32, bytes: &[u8], is_delta: bool) {
        let has_room = |batch: &PageBatch| batch.len() < BATCH_PAGES;
        if !self.batches.last().is_some_and(has_room) {
            let empty = self.spare.pop();
            let empty = empty.unwrap_or_else(|| PageBatch::with_capacity(BATCH_PAGES));
            self.batches.push(empty);
        }
        let last = self.batches.len() - 1;
        if is_delta {
            self.deltas.push((last, self.batches[last].len()));
        }
        self.batches[last].add_any(index as usize, bytes);
    }

    /// All has come: `machine` becomes what the checkpoint says, and everything else of it is given.
    ///
    /// # Errors
    /// [`CheckpointError`]: it is not whole, or not of this machine, which is as it was.
    pub fn apply(
        &mut self,
        machine: &mut dyn Machine,
        count: InstructionCount,
        end: &[u8],
    ) -> Result<Moment, CheckpointError> {
        let moment = self.take(end, |index| machine.page(index))?;
        machine.apply_checkpoint(&moment.state, &self.batches)?;
        self.clear();
        if machine.instruction_count() != count.0 {
            return Err(CheckpointError::Damaged(
                "it is of another instruction count",
            ));
        }
        Ok(moment)
    }

    /// All has come: everything but pages, which are whole in the batches afterwards. `page`: as they were.
    pub fn take<'a>(
        &mut self,
        end: &[u8],
        page: impl Fn(usize) -> Option<&'a [u8]>,
    ) -> Result<Moment, CheckpointError> {
        let damaged = CheckpointError::Damaged;
        let end: End = postcard::from_bytes(end).map_err(|_| damaged("it has no end"))?;
        if end.pieces != self.pieces {
            return Err(damaged("it has not all of its pieces"));
        }
        if end.hash != self.hash.digest() {
            return Err(damaged("its hash is wrong"));
        }
        let moment = postcard::from_bytes(&self.moment);
        let moment: Moment = moment.map_err(|_| damaged("its moment does not decode"))?;
        self.resolve(page)?;
        Ok(moment)
    }

    /// Puts the pages that have come so far into `machine`: the bug that the simulator has to find.
    pub fn apply_pages(&mut self, machine: &mut dyn Machine) {
        let state = machine.take_checkpoint(&mut |_, _| {});
        if self.resolve(|index| machine.page(index)).is_ok() {
            // It is a bug already.
            let _applied = machine.apply_checkpoint(&state, &self.batches);
        }
    }

    /// Makes pages of differences.
    fn resolve<'a>(
        &mut self,
        page: impl Fn(usize) -> Option<&'a [u8]>,
    ) -> Result<(), CheckpointError> {
        for (batch, place) in self.deltas.drain(..) {
            let (index, bytes) = self.batches[batch].page_mut(place);
            let before = page(index as usize);
            let before = before.ok_or(CheckpointError::Damaged("it holds a page outside RAM"))?;
            for (byte, old) in bytes.iter_mut().zip(before) {
                *byte ^= old;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn pages(&self) -> impl Iterator<Item = (u32, Vec<u8>)> {
        let pages = self.batches.iter().flat_map(PageBatch::iter);
        pages.map(|(index, bytes)| (index, bytes.to_vec()))
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        self.pieces = 0;
        self.hash.reset();
        self.moment.clear();
        self.deltas.clear();
        for mut batch in self.batches.drain(..) {
            batch.clear();
            self.spare.push(batch);
        }
        self.spare.truncate(SPARE_BATCHES);
    }
}

/// Batches of a megabyte that are kept for the next checkpoint.
const SPARE_BATCHES: usize = 16;
