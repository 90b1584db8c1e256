//! Snapshots: everything but RAM is encoded by postcard.

use super::{Machine, NAME, SEMANTICS_VERSION, State, check, reboot};
use crate::ram::{Ram, region};
use machine::memory::{PageBatch, Ram as MachineRam};
use machine::snapshot::{
    EXECUTED, KeptImage, Snapshot, SnapshotError, SnapshotHead, SnapshotReader,
};
use std::io::Read;

impl Machine {
    /// Everything but RAM.
    pub(super) fn snapshot_head(&self) -> SnapshotHead {
        let state = postcard::to_stdvec(&self.state).expect("plain data serialises");
        SnapshotHead::new(NAME, SEMANTICS_VERSION, state).with_images(self.images.to_vec())
    }

    /// A machine in the state of the snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`] for what is no state of such a machine, or has more RAM than the host.
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

    /// Becomes what another machine of this board was at a checkpoint: `pages` were written since the one
    /// that this machine is of.
    ///
    /// # Errors
    /// [`SnapshotError`] for what is no state of such a machine, and nothing has changed.
    pub fn apply_checkpoint(
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
        self.ram.replace_pages(pages)?;
        self.state = state;
        self.brought_to = self.state.count;
        Ok(())
    }

    fn of_snapshot(
        state: State,
        ram: MachineRam,
        images: Vec<KeptImage>,
    ) -> Result<Machine, SnapshotError> {
        let images = reboot::of_snapshot(images)
            .ok_or(SnapshotError::Damaged("its boot images are no machine's"))?;
        Ok(Machine::from_parts(state, Ram::of(ram), images))
    }
}

/// The state, if it makes sense.
pub(super) fn decode(state: &[u8]) -> Result<State, SnapshotError> {
    let state: State = postcard::from_bytes(state)
        .map_err(|_| SnapshotError::Damaged("its state does not decode"))?;
    let board = &state.config.board;
    if check(&state.config).is_err()
        || !state.board.belongs_to(board)
        || state.cpus.len() != board.harts as usize
        || state.current >= state.cpus.len()
    {
        return Err(SnapshotError::Damaged("its state contradicts itself"));
    }
    Ok(state)
}
