//! A disk: opened, and read.

use crate::compression::unpack;
use crate::error::{OpenError, damaged};
use crate::header::{Header, field};
use crate::mapping::Mapping;
use crate::state::{State, Unpacked};
use crate::storage::{Storage, read_or_zeros};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What lies under an image: it is only read.
#[derive(Debug)]
pub enum Backing {
    /// A disk byte for byte, of this length.
    Raw {
        /// What it is kept in.
        storage: Arc<dyn Storage>,
        /// Bytes.
        length: u64,
    },
    /// An image.
    Image(Box<Image>),
}

impl Backing {
    fn length(&self) -> u64 {
        match self {
            Backing::Raw { length, .. } => *length,
            Backing::Image(image) => image.length(),
        }
    }

    /// With zeros behind its end.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = self.length().saturating_sub(offset).min(out.len() as u64);
        let (out, behind) = out.split_at_mut(there as usize);
        behind.fill(0);
        match self {
            _ if out.is_empty() => Ok(()),
            Backing::Raw { storage, .. } => read_or_zeros(&**storage, out, offset),
            Backing::Image(image) => image.read(offset, out),
        }
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        let next = match self {
            _ if offset >= self.length() => None,
            Backing::Raw { storage, .. } => storage.next_data(offset),
            Backing::Image(image) => Some(image.next_data(offset)),
        };
        next.filter(|next| *next < self.length())
    }
}

/// An image that is open. All threads may use it at once; dropping it flushes it.
#[derive(Debug)]
pub struct Image {
    pub(crate) file: Arc<dyn Storage>,
    pub(crate) header: Header,
    pub(crate) backing: Option<Backing>,
    is_read_only: bool,
    state: Mutex<State>,
    /// Held by the one who brings changes to the disk.
    pub(crate) committing: Mutex<()>,
}

impl Image {
    /// Opens an image with this header.
    ///
    /// # Errors
    /// It contradicts itself, is not to be written as it is, or the disk fails.
    pub fn open(
        file: Arc<dyn Storage>,
        header: Header,
        backing: Option<Backing>,
        is_read_only: bool,
    ) -> Result<Image, OpenError> {
        let state = load(&file, &header, is_read_only)?;
        if header.autoclear != 0 && !is_read_only {
            // What others have noted beside the content, such as bitmaps of what changed, will not hold.
            file.write_at(&[0; 8], field::AUTOCLEAR as u64)?;
            file.sync()?;
        }
        Ok(Image {
            file,
            header,
            backing,
            is_read_only,
            state: Mutex::new(state),
            committing: Mutex::new(()),
        })
    }

    /// Looks whether [`Image::open`] would open it to be written to, without writing anything.
    ///
    /// # Errors
    /// As there.
    pub fn check(file: Arc<dyn Storage>, header: &Header) -> Result<(), OpenError> {
        load(&file, header, false).map(drop)
    }

    /// Bytes of the disk.
    pub fn length(&self) -> u64 {
        self.header.length
    }

    /// Whether it is only read.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Whoever panicked has ended everything, or nothing.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check_range(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length);
        match end.is_some_and(|end| end <= self.length()) {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "outside the disk",
            )),
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// It is outside the disk, the image is damaged, or the host's disk fails.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len() as u64)?;
        self.read_from(&mut self.state(), offset, out)
    }

    pub(crate) fn read_from(
        &self,
        state: &mut State,
        offset: u64,
        out: &mut [u8],
    ) -> io::Result<()> {
        let cluster_bytes = state.cluster_bytes();
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let (cluster, inside) = (at / cluster_bytes, at % cluster_bytes);
            let (entry, first) = state.lookup(cluster)?;
            // As many clusters as can be read at once.
            let mut end = (cluster + 1) * cluster_bytes;
            let out_end = offset + out.len() as u64;
            while end < out_end
                && follows(
                    first,
                    state.lookup(end / cluster_bytes)?.1,
                    end - cluster * cluster_bytes,
                )
            {
                end += cluster_bytes;
            }
            let piece = &mut out[done..(end.min(out_end) - offset) as usize];
            done += piece.len();
            match first {
                Mapping::Below => match &self.backing {
                    Some(backing) => backing.read(at, piece)?,
                    None => piece.fill(0),
                },
                Mapping::Zero { .. } => piece.fill(0),
                Mapping::Data { offset, .. } => {
                    read_or_zeros(&*self.file, piece, offset + inside)?;
                }
                Mapping::Compressed { offset, bytes } => {
                    let cluster = unpacked(state, entry, offset, bytes)?;
                    let begin = inside as usize;
                    piece.copy_from_slice(&cluster[begin..begin + piece.len()]);
                }
            }
        }
        Ok(())
    }

    /// Where there may be something else than zeros, at or after `offset`: the disk's length if nothing
    /// follows.
    pub fn next_data(&self, offset: u64) -> u64 {
        let state = &mut self.state();
        let cluster_bytes = state.cluster_bytes();
        let (length, reach) = (self.length(), self.header.l2_reach());
        let mut at = offset;
        let mut below = self.next_below(at);
        while at < length {
            let cluster = at / cluster_bytes;
            if state.has_no_table(cluster) {
                let end = (at / reach + 1) * reach;
                if below.is_some_and(|below| below < end) {
                    return below.unwrap_or(at).min(length);
                }
                at = end;
            } else {
                let end = (cluster + 1) * cluster_bytes;
                match state.lookup(cluster).map(|(_, mapping)| mapping) {
                    Ok(Mapping::Zero { .. }) => {}
                    Ok(Mapping::Below) if below.is_none_or(|below| below >= end) => {}
                    Ok(Mapping::Below) => return below.unwrap_or(at).min(length),
                    // Whoever reads there learns what is wrong.
                    Ok(Mapping::Data { .. } | Mapping::Compressed { .. }) | Err(_) => return at,
                }
                at = end;
            }
            if below.is_some_and(|below| below < at) {
                below = self.next_below(at);
            }
        }
        length
    }

    fn next_below(&self, offset: u64) -> Option<u64> {
        self.backing.as_ref()?.next_data(offset)
    }
}

fn load(file: &Arc<dyn Storage>, header: &Header, is_read_only: bool) -> Result<State, OpenError> {
    if header.is_dirty && !is_read_only {
        return Err(OpenError::NotClosed);
    }
    State::load(file.clone(), header.clone())
}

/// Whether the cluster `distance` bytes after `first` can be read with it.
fn follows(first: Mapping, next: Mapping, distance: u64) -> bool {
    match (first, next) {
        (Mapping::Below, Mapping::Below) => true,
        (Mapping::Zero { .. }, Mapping::Zero { .. }) => true,
        (Mapping::Data { offset, .. }, Mapping::Data { offset: next, .. }) => {
            next == offset + distance
        }
        _ => false,
    }
}

/// The content of a compressed cluster. The last one is kept: what is read in small pieces is unpacked
/// once.
fn unpacked(state: &mut State, entry: u64, offset: u64, bytes: u64) -> io::Result<&[u8]> {
    if state.unpacked.entry != entry {
        let mut packed = vec![0; bytes as usize];
        read_or_zeros(&*state.file, &mut packed, offset)?;
        let mut cluster = vec![0; state.cluster_bytes() as usize];
        unpack(state.header.compression, &packed, &mut cluster)
            .map_err(|error| damaged(format!("at byte {offset}: {error}")))?;
        state.unpacked = Unpacked {
            entry,
            bytes: cluster,
        };
    }
    Ok(&state.unpacked.bytes)
}
