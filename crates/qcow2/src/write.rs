//! What the guest writes.

use crate::error::damaged;
use crate::header::long;
use crate::image::Image;
use crate::mapping::{COPIED, Mapping, ZERO, l2_place};
use crate::state::State;
use std::io;

impl Image {
    /// Writes all of it. It stays, for good, after the next [`Image::flush`] that succeeds.
    ///
    /// # Errors
    /// It is outside the disk or the disk is only read, the image is damaged, or the host's disk fails or is
    /// full: then any part of it may be written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len() as u64)?;
        self.check_writable()?;
        self.commit_if_due()?;
        self.write_to(&mut self.state(), offset, bytes)
    }

    /// Makes bytes zero, and gives their room back where whole clusters of it are free.
    ///
    /// # Errors
    /// As [`Image::write`].
    pub fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_range(offset, length)?;
        self.check_writable()?;
        let (end, reach) = (offset + length, self.header.l2_reach());
        let mut at = offset;
        while at < end {
            // The changes of one table at a time: others get the image in between.
            self.commit_if_due()?;
            let next = end.min((at / reach + 1) * reach);
            self.zero_in(&mut self.state(), at, next)?;
            at = next;
        }
        Ok(())
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.is_read_only() {
            true => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(()),
        }
    }

    fn write_to(&self, state: &mut State, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let cluster_bytes = state.cluster_bytes();
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let end = offset + bytes.len() as u64;
            let (cluster, inside) = (at / cluster_bytes, at % cluster_bytes);
            let own = own_place(state, cluster)?;
            // As many clusters as are alike, of one table.
            let table_end = (at / self.header.l2_reach() + 1) * self.header.l2_reach();
            let mut run_end = (cluster + 1) * cluster_bytes;
            while run_end < end.min(table_end) {
                let next = own_place(state, run_end / cluster_bytes)?;
                let distance = run_end - cluster * cluster_bytes;
                if next != own.map(|place| place + distance) {
                    break;
                }
                run_end += cluster_bytes;
            }
            let piece = &bytes[done..(run_end.min(end) - offset) as usize];
            done += match own {
                Some(place) => {
                    self.file.write_at(piece, place + inside)?;
                    piece.len()
                }
                None => self.write_anew(state, at, piece)?,
            };
        }
        Ok(())
    }

    /// Writes the beginning of `bytes` to clusters that are taken for it, and says how much of it.
    fn write_anew(&self, state: &mut State, at: u64, bytes: &[u8]) -> io::Result<usize> {
        let cluster_bytes = state.cluster_bytes();
        let (cluster, inside) = (at / cluster_bytes, at % cluster_bytes);
        let table = l2_for_change(state, cluster)?;
        let wanted = (inside + bytes.len() as u64).div_ceil(cluster_bytes);
        let taken = state.take(wanted)?;
        let most = taken.clusters * cluster_bytes - inside;
        let bytes = &bytes[..bytes.len().min(most as usize)];
        let filled = self.fill_around(state, at, bytes, taken.is_fresh);
        let written = filled.and_then(|filled| match filled {
            Some(whole) => self.file.write_at(&whole, taken.offset),
            None => self.file.write_at(bytes, taken.offset + inside),
        });
        if let Err(error) = written {
            state.untake(taken);
            return Err(error);
        }
        for index in 0..taken.clusters {
            let entry = (taken.offset + index * cluster_bytes) | COPIED;
            map(state, table, cluster + index, entry)?;
        }
        Ok(bytes.len())
    }

    /// The whole clusters of which `bytes` are a part, with what is in their other parts now; `None` if
    /// there are none, or if they are zero and so is what was taken.
    fn fill_around(
        &self,
        state: &mut State,
        at: u64,
        bytes: &[u8],
        is_fresh: bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let cluster_bytes = state.cluster_bytes();
        let begin = at / cluster_bytes * cluster_bytes;
        let bytes_end = at + bytes.len() as u64;
        let end = bytes_end.next_multiple_of(cluster_bytes);
        if begin == at && end == bytes_end {
            return Ok(None);
        }
        let mut whole = vec![0; (end - begin) as usize];
        let (before, after) = ((at - begin) as usize, (bytes_end - begin) as usize);
        // The disk may end within its last cluster.
        let readable = (end.min(self.length()) - begin) as usize;
        self.read_from(state, begin, &mut whole[..before])?;
        if after < readable {
            self.read_from(state, bytes_end, &mut whole[after..readable])?;
        }
        if is_fresh && whole.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        whole[before..after].copy_from_slice(bytes);
        Ok(Some(whole))
    }

    fn zero_in(&self, state: &mut State, offset: u64, end: u64) -> io::Result<()> {
        let cluster_bytes = state.cluster_bytes();
        if self.backing.is_none() && state.has_no_table(offset / cluster_bytes) {
            return Ok(());
        }
        let mut at = offset;
        while at < end {
            let cluster = at / cluster_bytes;
            let cluster_end = (cluster + 1) * cluster_bytes;
            let next = end.min(cluster_end);
            let is_whole =
                at == cluster * cluster_bytes && (next == cluster_end || next == self.length());
            let (_, mapping) = state.lookup(cluster)?;
            let reads_as_zeros = match mapping {
                Mapping::Below => self.backing.is_none(),
                Mapping::Zero { kept } => kept.is_none() || !is_whole,
                Mapping::Data { .. } | Mapping::Compressed { .. } => false,
            };
            // Version 2 has no sign for zeros that are not those below.
            let entry = match (&self.backing, self.header.version) {
                (None, _) => Some(0),
                (Some(_), 2) => None,
                (Some(_), _) => Some(ZERO),
            };
            match entry.filter(|_| is_whole) {
                _ if reads_as_zeros => {}
                Some(entry) => {
                    let table = l2_for_change(state, cluster)?;
                    map(state, table, cluster, entry)?;
                }
                None => self.write_to(state, at, &vec![0; (next - at) as usize])?,
            }
            at = next;
        }
        Ok(())
    }
}

/// Where the content of a cluster is, if it may be written there.
fn own_place(state: &mut State, cluster: u64) -> io::Result<Option<u64>> {
    let (l1_index, _) = state.indices(cluster);
    let is_own_table = l2_place(&state.header, state.l1[l1_index])?.is_some_and(|(_, own)| own);
    match state.lookup(cluster)?.1 {
        Mapping::Data {
            offset,
            is_own: true,
        } if is_own_table => {
            let place = offset / state.cluster_bytes();
            match state.tables.contains(&place) {
                true => Err(damaged(format!(
                    "content is said to be in the table at byte {offset}"
                ))),
                false => Ok(Some(offset)),
            }
        }
        _ => Ok(None),
    }
}

/// The L2 table for a cluster of the disk, of which nobody else has need: where it is.
fn l2_for_change(state: &mut State, cluster: u64) -> io::Result<u64> {
    let (l1_index, _) = state.indices(cluster);
    let place = l2_place(&state.header, state.l1[l1_index])?;
    let bytes = match place {
        Some((offset, true)) => return Ok(offset),
        Some((offset, false)) => state.l2_table(offset)?.bytes().to_vec(),
        None => vec![0; state.cluster_bytes() as usize],
    };
    let taken = state.take(1)?;
    state.l2_tables.insert_new(taken.offset, bytes);
    let cluster_bytes = state.cluster_bytes();
    state.tables.insert(taken.offset / cluster_bytes);
    state.l1[l1_index] = taken.offset | COPIED;
    state.l1_changed.insert(l1_index);
    state
        .released
        .extend(place.map(|(offset, _)| offset / cluster_bytes));
    Ok(taken.offset)
}

/// Has the table speak of another place for a cluster. What it spoke of is released when that is on the
/// disk.
fn map(state: &mut State, table: u64, cluster: u64, entry: u64) -> io::Result<()> {
    let cluster_bytes = state.cluster_bytes();
    let at = state.indices(cluster).1 * 8;
    let header = state.header.clone();
    let table = state.l2_table(table)?;
    let old = Mapping::decode(&header, long(table.bytes(), at))?;
    table.change(at, &entry.to_be_bytes());
    if let Some((first, last)) = old.holds(cluster_bytes) {
        state
            .released
            .extend(first / cluster_bytes..=last / cluster_bytes);
    }
    Ok(())
}
