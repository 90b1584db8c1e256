//! All disks of a machine, with their layers: the disks' thread works with them.

use super::chain::{self, Begun};
use super::layer::Layer;
use super::stack::Stack;
use super::{LayerId, OverlayError};
use crate::disk::{Disk, Outcome};
use crate::priority::yield_to_the_guest;
use machine::output::DiskOperation;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A layer that is not longer is merged while the guest waits.
const SHORT_BYTES: u64 = 4 << 20;

/// See the module.
pub(crate) struct Volumes {
    disks: Arc<Vec<Disk>>,
    stacks: Vec<Stack>,
}

/// What was written before a journal's snapshot, to be made durable with it.
pub(crate) struct Frozen {
    disks: Arc<Vec<Disk>>,
    layers: Vec<Arc<Layer>>,
}

impl Frozen {
    /// Makes it durable: the disks at the snapshot are there after a loss of power.
    pub fn sync(&self) -> Result<(), String> {
        for disk in self.disks.iter().filter(|disk| !disk.read_only) {
            let synced = disk.medium.sync();
            synced.map_err(|error| format!("{}: {error}", disk.path.display()))?;
        }
        for layer in &self.layers {
            let synced = layer.sync();
            synced.map_err(|error| format!("{}: {error}", layer.path.display()))?;
        }
        Ok(())
    }
}

/// Layers that are to go into their images, of each disk so many.
pub(crate) struct Merging {
    disks: Arc<Vec<Disk>>,
    layers: Vec<Vec<Arc<Layer>>>,
}

impl Merging {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(Vec::is_empty)
    }

    /// Of each disk so many.
    pub fn counts(&self) -> Vec<usize> {
        self.layers.iter().map(Vec::len).collect()
    }

    /// Does it: the images have it durably, and the files are gone.
    pub fn run(self) -> Result<(), OverlayError> {
        yield_to_the_guest();
        for (disk, layers) in self.disks.iter().zip(self.layers) {
            if layers.is_empty() {
                continue;
            }
            for layer in &layers {
                chain::write_into(layer, disk)?;
            }
            let synced = disk.medium.sync();
            synced.map_err(|source| OverlayError::io(&disk.path, source))?;
            let paths: Vec<PathBuf> = layers.iter().map(|layer| layer.path.clone()).collect();
            chain::remove_in_order(&paths)?;
        }
        Ok(())
    }
}

impl Volumes {
    /// `begun`: the layers of those disks that a journal goes on with.
    pub fn new(disks: Arc<Vec<Disk>>, begun: Vec<Option<Begun>>) -> Volumes {
        let mut begun = begun.into_iter();
        let stacks = disks.iter().map(|_| Stack::new(begun.next().flatten()));
        Volumes {
            stacks: stacks.collect(),
            disks,
        }
    }

    /// The disks themselves.
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// As [`Disk::perform`]; `None` if there is no such disk.
    pub fn perform(&mut self, device: usize, operation: &DiskOperation) -> Option<Outcome> {
        let (disk, stack) = (self.disks.get(device)?, self.stacks.get_mut(device)?);
        Some(stack.perform(disk, operation))
    }

    /// As [`Disk::next_data`].
    pub fn next_data(&self, device: usize, offset: u64) -> u64 {
        self.stacks[device].next_data(&self.disks[device], offset)
    }

    /// Bytes of the layers that are written to.
    pub fn top_bytes(&self) -> u64 {
        self.stacks.iter().map(Stack::top_bytes).sum()
    }

    fn writable(&mut self) -> impl Iterator<Item = (&Disk, &mut Stack)> {
        let disks = self.disks.iter().zip(&mut self.stacks);
        disks.filter(|(disk, _)| !disk.read_only)
    }

    /// From here on the guest writes to new layers, which begin with this snapshot. On an error
    /// everything is as it was.
    pub fn freeze(&mut self, id: LayerId) -> io::Result<Frozen> {
        let next: io::Result<Vec<Layer>> = self
            .writable()
            .map(|(disk, stack)| stack.create_next(disk, id))
            .collect();
        for ((_, stack), next) in self.writable().zip(next?) {
            stack.begin(next);
        }
        let frozen = self.stacks.iter().flat_map(|stack| &stack.frozen);
        Ok(Frozen {
            disks: self.disks.clone(),
            layers: frozen.cloned().collect(),
        })
    }

    /// What is frozen and older than the layers that begin with this snapshot.
    pub fn older_than(&self, id: LayerId) -> Merging {
        self.frozen(|stack| stack.older_than(id))
    }

    /// So many of the oldest of each disk.
    fn frozen(&self, count: impl Fn(&Stack) -> usize) -> Merging {
        let layers = self.stacks.iter();
        let layers = layers.map(|stack| stack.frozen[..count(stack)].to_vec());
        Merging {
            layers: layers.collect(),
            disks: self.disks.clone(),
        }
    }

    /// So many of each disk are in the images.
    pub fn merged(&mut self, counts: &[usize]) {
        for (stack, count) in self.stacks.iter_mut().zip(counts) {
            stack.merged(*count);
        }
    }

    /// See [`Stack::commit`].
    pub fn commit(&mut self) -> Result<(), OverlayError> {
        self.writable()
            .try_for_each(|(disk, stack)| stack.commit(disk))
    }

    /// The layers are not needed any more. What is to be merged for that behind the guest's back, or
    /// `None` once the guest writes into the images.
    pub fn leave(&mut self) -> Result<Option<Merging>, OverlayError> {
        let is_frozen = self.stacks.iter().any(|stack| !stack.frozen.is_empty());
        if !is_frozen && self.top_bytes() <= SHORT_BYTES {
            self.writable()
                .try_for_each(|(disk, stack)| stack.flatten(disk))?;
            return Ok(None);
        }
        if self.top_bytes() > SHORT_BYTES {
            let frozen = self.freeze(LayerId::NONE);
            if let Err(source) = frozen {
                let path = self.disks[0].path.clone();
                return Err(OverlayError::Io { path, source });
            }
        }
        Ok(Some(self.frozen(|stack| stack.frozen.len())))
    }
}
