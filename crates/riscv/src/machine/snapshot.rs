//! Snapshots of a RISC-V machine: everything but RAM is encoded by postcard.

use super::{Machine, State, reboot};
use crate::architecture::{NAME, SEMANTICS_VERSION};
use crate::board::config::LIMITS;
use crate::memory::{Memory, region};
use machine::memory::{PageBatch, Ram};
use machine::snapshot::{
    EXECUTED, KeptImage, Snapshot, SnapshotError, SnapshotHead, SnapshotReader, replace_pages,
};
use std::io::Read;

impl Machine {
    pub(super) fn take_snapshot(&self) -> Snapshot {
        Snapshot::new(self.snapshot_head(), &self.memory)
    }

    /// Everything but RAM.
    pub(super) fn snapshot_head(&self) -> SnapshotHead {
        let state = postcard::to_stdvec(&self.state).expect("plain data serialises");
        SnapshotHead::new(NAME, SEMANTICS_VERSION, state).with_images(self.images.to_vec())
    }

    /// A machine in the state of the snapshot.
    ///
    /// # Errors
    /// The snapshot is damaged, of another architecture or of other semantics.
    pub fn restore(snapshot: &Snapshot) -> Result<Machine, SnapshotError> {
        let state = decode(snapshot.state(NAME, SEMANTICS_VERSION)?)?;
        let ram = snapshot.ram(&[region(state.config.board.memory_bytes)])?;
        Machine::of_snapshot(state, ram, snapshot.images().to_vec())
    }

    /// The same, made while the snapshot is read.
    ///
    /// # Errors
    /// As [`Machine::restore`], and when reading fails.
    pub fn restore_from(reader: impl Read) -> Result<Machine, SnapshotError> {
        let mut reader = SnapshotReader::open(reader)?;
        let first = decode(reader.state(NAME, SEMANTICS_VERSION)?)?;
        let ram = reader.ram(&[region(first.config.board.memory_bytes)])?;
        // Of one that was made in rounds it is another one now.
        let state = decode(reader.state(NAME, SEMANTICS_VERSION)?)?;
        if state.config.board != first.config.board {
            return Err(SnapshotError::Damaged("its rounds are of several machines"));
        }
        Machine::of_snapshot(state, ram, reader.into_images())
    }

    /// Becomes what another machine of this board was at a checkpoint.
    pub(super) fn take_over(
        &mut self,
        state: &[u8],
        pages: &[PageBatch],
    ) -> Result<(), SnapshotError> {
        let state = decode(state)?;
        if state.config.board != self.state.config.board {
            return Err(SnapshotError::Damaged(
                "it is of a machine of another board",
            ));
        }
        if self.state.count != self.brought_to {
            return Err(SnapshotError::Damaged(EXECUTED));
        }
        replace_pages(&mut self.memory, pages)?;
        self.state = state;
        self.memory.take_disturbances();
        self.brought_to = self.state.count;
        Ok(())
    }

    fn of_snapshot(
        state: State,
        ram: Ram,
        images: Vec<KeptImage>,
    ) -> Result<Machine, SnapshotError> {
        let images = reboot::of_snapshot(images)
            .ok_or(SnapshotError::Damaged("its boot images are no machine's"))?;
        Ok(Machine::from_parts(state, Memory::of(ram), images))
    }
}

/// The state, if it makes sense.
pub(super) fn decode(state: &[u8]) -> Result<State, SnapshotError> {
    let mut state: State = postcard::from_bytes(state)
        .map_err(|_| SnapshotError::Damaged("its state does not decode"))?;
    let board = &state.config.board;
    if board.validate(&LIMITS).is_err()
        || state.harts.len() != board.harts as usize
        || state.current >= state.harts.len()
        || !state.bus.virtio().belongs_to(board)
    {
        return Err(SnapshotError::Damaged("its state contradicts itself"));
    }
    for hart in &mut state.harts {
        hart.update_translation_context();
    }
    Ok(state)
}
