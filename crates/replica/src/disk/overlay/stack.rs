//! One disk while its machine runs: the image, and the layers over it.

use super::chain::{self, Begun};
use super::extents::Content;
use super::layer::{Layer, LayerHead};
use super::{LayerId, OverlayError, SECTOR_BYTES};
use crate::disk::{Disk, Outcome, outside};
use machine::output::DiskOperation;
use std::io;
use std::sync::Arc;

/// The layers of one disk.
#[derive(Debug, Default)]
pub(super) struct Stack {
    /// To which nothing is written any more, the oldest first.
    pub frozen: Vec<Arc<Layer>>,
    /// What the guest writes now; without one it writes into the image.
    pub top: Option<Layer>,
    /// The number of the last layer that there was.
    last: u64,
    /// It was written to without a layer, and not synced since.
    is_image_unsynced: bool,
    /// The top is that of a replay, and others count as long as it is not committed.
    is_replay: bool,
}

impl Stack {
    pub fn new(begun: Option<Begun>) -> Stack {
        let Some(begun) = begun else {
            return Stack::default();
        };
        let (layer, last) = begun.into_layer();
        Stack {
            top: Some(layer),
            last,
            is_replay: true,
            ..Stack::default()
        }
    }

    pub fn is_layered(&self) -> bool {
        self.top.is_some() || !self.frozen.is_empty()
    }

    /// Bytes of the layer that is written to.
    pub fn top_bytes(&self) -> u64 {
        self.top.as_ref().map_or(0, Layer::bytes)
    }

    /// As [`Disk::perform`].
    pub fn perform(&mut self, disk: &Disk, operation: &DiskOperation) -> Outcome {
        if !self.is_layered() {
            let outcome = disk.perform(operation);
            match operation {
                DiskOperation::Write { .. } | DiskOperation::Zero { .. } => {
                    self.is_image_unsynced = true;
                }
                DiskOperation::Flush if outcome.host_error.is_none() => {
                    self.is_image_unsynced = false;
                }
                DiskOperation::Flush | DiskOperation::Read { .. } => {}
            }
            return outcome;
        }
        disk.outcome(operation, self.try_perform(disk, operation))
    }

    fn try_perform(&mut self, disk: &Disk, operation: &DiskOperation) -> io::Result<Vec<u8>> {
        match operation {
            DiskOperation::Read { sector, length } => {
                disk.range(*sector, u64::from(*length))?;
                let mut data = vec![0; *length as usize];
                self.read(disk, *sector, &mut data)?;
                Ok(data)
            }
            DiskOperation::Write { sector, data } => {
                disk.range(*sector, data.len() as u64)?;
                disk.writable()?;
                let sectors = data.len() as u64 / SECTOR_BYTES;
                self.append(*sector, sectors, Some(data))
            }
            DiskOperation::Flush => self.flush(disk),
            DiskOperation::Zero { sector, sectors } => {
                let bytes = sectors.checked_mul(SECTOR_BYTES).ok_or_else(outside)?;
                disk.checked_range(*sector, bytes)?;
                disk.writable()?;
                self.append(*sector, *sectors, None)
            }
        }
    }

    fn append(&mut self, sector: u64, sectors: u64, data: Option<&[u8]>) -> io::Result<Vec<u8>> {
        let Some(top) = &mut self.top else {
            unreachable!("a layer is over those that are frozen");
        };
        if sectors > 0 {
            top.append(sector, sectors, data)?;
        }
        Ok(Vec::new())
    }

    fn flush(&mut self, disk: &Disk) -> io::Result<Vec<u8>> {
        if self.is_image_unsynced {
            disk.medium.sync()?;
            self.is_image_unsynced = false;
        }
        self.frozen.iter().try_for_each(|layer| layer.sync())?;
        if let Some(top) = &mut self.top {
            top.flush()?;
        }
        Ok(Vec::new())
    }

    /// The youngest that has a sector says what is in it.
    pub fn read(&self, disk: &Disk, sector: u64, out: &mut [u8]) -> io::Result<()> {
        let layers: Vec<&Layer> = self
            .top
            .iter()
            .chain(self.frozen.iter().rev().map(Arc::as_ref))
            .collect();
        read_from(&layers, disk, sector, out)
    }

    /// As [`Disk::next_data`].
    pub fn next_data(&self, disk: &Disk, offset: u64) -> u64 {
        let layers = self.frozen.iter().map(Arc::as_ref).chain(&self.top);
        let next = layers.filter_map(|layer| layer.extents().next(offset / SECTOR_BYTES));
        let next = next.map(|sector| (sector * SECTOR_BYTES).max(offset));
        next.fold(disk.next_data(offset), u64::min)
    }

    /// A layer for the next writes, of which nothing is known yet.
    pub fn create_next(&self, disk: &Disk, id: LayerId) -> io::Result<Layer> {
        let Some(base) = &disk.overlay_base else {
            let why = "there is no place for an overlay of it";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        };
        let head = LayerHead {
            id,
            number: self.last + 1,
            replaces: 0,
            image_bytes: disk.length(),
        };
        chain::create(base, head)
    }

    /// From here on the guest writes to this one.
    pub fn begin(&mut self, next: Layer) {
        assert!(!self.is_replay, "a replay is committed before it is left");
        self.last = next.head.number;
        self.frozen.extend(self.top.replace(next).map(Arc::new));
    }

    /// See [`chain::commit`].
    pub fn commit(&mut self, disk: &Disk) -> Result<(), OverlayError> {
        if let (true, Some(top), Some(base)) = (self.is_replay, &mut self.top, &disk.overlay_base) {
            chain::commit(top, base)?;
            self.is_replay = false;
        }
        Ok(())
    }

    /// Those that are older than the one that begins with `id` are in the image.
    pub fn merged(&mut self, count: usize) {
        self.frozen.drain(..count);
    }

    /// How many of those that are frozen are older than the one that begins with this snapshot.
    pub fn older_than(&self, id: LayerId) -> usize {
        let is_its = |layer: &Arc<Layer>| layer.head.id == id;
        let place = self.frozen.iter().position(is_its);
        place.unwrap_or(self.frozen.len())
    }

    /// Has the guest write into the image again: the top is merged into it here and now.
    pub fn flatten(&mut self, disk: &Disk) -> Result<(), OverlayError> {
        assert!(self.frozen.is_empty(), "the older come first");
        let Some(top) = &self.top else {
            return Ok(());
        };
        chain::write_into(top, disk)?;
        let synced = disk.medium.sync();
        synced.map_err(|source| OverlayError::io(&disk.path, source))?;
        chain::remove_in_order(std::slice::from_ref(&top.path))?;
        self.top = None;
        self.is_image_unsynced = false;
        Ok(())
    }
}

fn read_from(layers: &[&Layer], disk: &Disk, sector: u64, out: &mut [u8]) -> io::Result<()> {
    let Some((youngest, older)) = layers.split_first() else {
        return disk.medium.read(out, sector * SECTOR_BYTES);
    };
    let to = sector + out.len() as u64 / SECTOR_BYTES;
    for stretch in youngest.extents().stretches(sector, to) {
        let begin = ((stretch.from - sector) * SECTOR_BYTES) as usize;
        let end = ((stretch.to - sector) * SECTOR_BYTES) as usize;
        let out = &mut out[begin..end];
        match stretch.content {
            Some(Content::Zero) => out.fill(0),
            Some(Content::At(offset)) => youngest.read(offset, out)?,
            None => read_from(older, disk, stretch.from, out)?,
        }
    }
    Ok(())
}
