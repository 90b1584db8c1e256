//! Snapshots: plain, versioned state.
//!
//! Layout, little-endian: magic `USNAPSHT`, format version u32, semantics version u32, length of
//! the state u64, the state (postcard), length of the boot images u64, these, number of pages u64, then per page its index u32 and its
//! 4096 bytes (pages of zeros are left out), and at the end XXH3-64 of all that precedes.

use crate::machine::reboot;
use crate::machine::{Machine, SEMANTICS_VERSION, State};
use crate::memory::{Memory, PAGE_SIZE, RAM_BASE};
use std::io::{self, Read, Write};
use std::sync::Arc;
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 8] = *b"USNAPSHT";
const FORMAT_VERSION: u32 = 2;
/// No machine's state without RAM comes near it: a larger length is garbage.
const MAX_STATE_BYTES: u64 = 64 << 20;
/// No images that a machine boots from are larger.
const MAX_IMAGES_BYTES: u64 = 4 << 30;
const PAGE: usize = PAGE_SIZE as usize;

/// Why a snapshot cannot be used.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// It ends early, or the host could not read it.
    #[error("the snapshot cannot be read to its end: {0}")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("this is not a snapshot of a machine (its first bytes are not \"USNAPSHT\")")]
    NotASnapshot,
    /// Another format.
    #[error("the snapshot has format {0}, this program reads format {FORMAT_VERSION}")]
    Format(u32),
    /// Another semantics version.
    #[error(
        "the snapshot was made under semantics version {found}, this machine computes version \
         {computed}: use the program that made it"
    )]
    Semantics {
        /// The snapshot's.
        found: u32,
        /// This machine's.
        computed: u32,
    },
    /// It was damaged.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// The host cannot provide the machine's memory.
    #[error("the machine has {0} bytes of memory, more than this host can provide")]
    Memory(u64),
}

/// A machine's whole state at an instruction count.
pub struct Snapshot {
    semantics: u32,
    state: Vec<u8>,
    /// What a machine that can reboot loads then; the machine's own bytes, not a copy.
    images: Arc<[u8]>,
    page_indices: Vec<u32>,
    pages: Vec<u8>,
}

impl Machine {
    /// Copies the whole state.
    pub fn snapshot(&self) -> Snapshot {
        let state = postcard::to_stdvec(&self.state).expect("plain data serialises");
        let mut snapshot = Snapshot::new(SEMANTICS_VERSION, state, self.memory.size());
        snapshot.images = Arc::clone(&self.images);
        for index in 0..self.memory.pages() {
            if !self.is_known_to_be_zero(index) {
                snapshot.add_page(index, self.memory.page(index));
            }
        }
        snapshot
    }

    /// A machine in the state of the snapshot.
    pub fn restore(snapshot: &Snapshot) -> Result<Machine, SnapshotError> {
        let (state, mut memory) = prepare(snapshot.state(SEMANTICS_VERSION)?, &snapshot.images)?;
        for (index, bytes) in snapshot.pages() {
            put_page(&mut memory, index, bytes)?;
        }
        Ok(Machine::from_parts(
            state,
            memory,
            Arc::clone(&snapshot.images),
        ))
    }

    /// A machine in the state of a snapshot as [`Snapshot::write_to`] wrote it, made while it is read:
    /// its pages are nowhere but in the machine's memory.
    pub fn restore_from(reader: impl Read) -> Result<Machine, SnapshotError> {
        let mut reader = SnapshotReader::open(reader)?;
        let (state, mut memory) = prepare(reader.state(SEMANTICS_VERSION)?, &reader.images)?;
        while let Some((index, bytes)) = reader.next_page()? {
            put_page(&mut memory, index.into(), &bytes)?;
        }
        Ok(Machine::from_parts(state, memory, reader.images))
    }
}

/// The state if it makes sense, and memory of zeros for it.
fn prepare(mut state: State, images: &[u8]) -> Result<(State, Memory), SnapshotError> {
    if state.config.board.validate().is_err()
        || state.harts.len() != state.config.board.harts as usize
        || state.current >= state.harts.len()
    {
        return Err(SnapshotError::Damaged("its state contradicts itself"));
    }
    if reboot::decode(images).is_none() {
        return Err(SnapshotError::Damaged("its boot images do not decode"));
    }
    let memory_bytes = state.config.board.memory_bytes;
    check_that_the_host_has(memory_bytes)?;
    for hart in &mut state.harts {
        hart.update_translation_context();
    }
    Ok((state, Memory::new(memory_bytes)))
}

fn put_page(memory: &mut Memory, index: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
    memory
        .write(RAM_BASE + index * PAGE_SIZE, bytes)
        .map_err(|_| SnapshotError::Damaged("it holds a page outside RAM"))
}

fn decode_state<T: serde::de::DeserializeOwned>(
    found: u32,
    computed: u32,
    state: &[u8],
) -> Result<T, SnapshotError> {
    if found != computed {
        return Err(SnapshotError::Semantics { found, computed });
    }
    postcard::from_bytes(state).map_err(|_| SnapshotError::Damaged("its state does not decode"))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks_exact(64)
        .all(|chunk| chunk.iter().fold(0, |or, byte| or | byte) == 0)
}

/// A request for memory that the host cannot grant would end the program.
///
/// # Errors
/// [`SnapshotError::Memory`]
pub fn check_that_the_host_has(memory_bytes: u64) -> Result<(), SnapshotError> {
    let granted = Vec::<u8>::new().try_reserve_exact(memory_bytes as usize);
    granted.map_err(|_| SnapshotError::Memory(memory_bytes))
}

impl Snapshot {
    /// Of a machine that computes this semantics version and has RAM of so many bytes, with all pages
    /// zero. `state` is everything else.
    pub fn new(semantics: u32, state: Vec<u8>, memory_bytes: u64) -> Snapshot {
        Snapshot {
            semantics,
            state,
            images: Arc::default(),
            page_indices: Vec::new(),
            // The guest waits for this copy. Room for everything costs nothing until it is used, and
            // saves copying what was copied already.
            pages: Vec::with_capacity(memory_bytes as usize),
        }
    }

    /// Adds a page of RAM, in ascending order of their indices; pages of zeros are left out.
    pub fn add_page(&mut self, index: usize, bytes: &[u8]) {
        assert_eq!(bytes.len(), PAGE, "page {index} is no page");
        if !is_zero(bytes) {
            self.page_indices.push(index as u32);
            self.pages.extend_from_slice(bytes);
        }
    }

    /// Everything but RAM, of a machine that computes this semantics version.
    ///
    /// # Errors
    /// [`SnapshotError::Semantics`], and [`SnapshotError::Damaged`] if it does not decode.
    pub fn state<T: serde::de::DeserializeOwned>(&self, computed: u32) -> Result<T, SnapshotError> {
        decode_state(self.semantics, computed, &self.state)
    }

    /// The pages of RAM that are not zero: index and bytes.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let indices = self.page_indices.iter().map(|&index| u64::from(index));
        indices.zip(self.pages.chunks_exact(PAGE))
    }

    /// Bytes that [`Snapshot::write_to`] writes.
    pub fn encoded_length(&self) -> u64 {
        let pages = self.page_indices.len() as u64;
        (8 + 4 + 4 + 8 + self.state.len() as u64 + 8 + self.images.len() as u64 + 8)
            + pages * (4 + PAGE_SIZE)
            + 8
    }

    /// Writes it as bytes.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let mut hash = Xxh3::new();
        let mut put = |bytes: &[u8]| {
            hash.update(bytes);
            writer.write_all(bytes)
        };
        put(&MAGIC)?;
        put(&FORMAT_VERSION.to_le_bytes())?;
        put(&self.semantics.to_le_bytes())?;
        put(&(self.state.len() as u64).to_le_bytes())?;
        put(&self.state)?;
        put(&(self.images.len() as u64).to_le_bytes())?;
        put(&self.images)?;
        put(&(self.page_indices.len() as u64).to_le_bytes())?;
        for (index, bytes) in self.page_indices.iter().zip(self.pages.chunks_exact(PAGE)) {
            put(&index.to_le_bytes())?;
            put(bytes)?;
        }
        writer.write_all(&hash.digest().to_le_bytes())
    }

    /// Reads it back. Never allocates more than the bytes that really come.
    pub fn read_from(reader: &mut impl Read) -> Result<Snapshot, SnapshotError> {
        let mut reader = SnapshotReader::open(reader)?;
        let (mut page_indices, mut pages) = (Vec::new(), Vec::new());
        while let Some((index, bytes)) = reader.next_page()? {
            page_indices.push(index);
            pages.extend_from_slice(&bytes);
        }
        Ok(Snapshot {
            semantics: reader.semantics,
            state: reader.state,
            images: reader.images,
            page_indices,
            pages,
        })
    }
}

/// A snapshot that is read piece by piece: everything but RAM first, then page by page.
pub struct SnapshotReader<R> {
    reader: Hashing<R>,
    semantics: u32,
    state: Vec<u8>,
    images: Arc<[u8]>,
    pages_left: u64,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads everything but RAM.
    ///
    /// # Errors
    /// [`SnapshotError`] for what is no snapshot, and when reading fails.
    pub fn open(reader: R) -> Result<SnapshotReader<R>, SnapshotError> {
        let mut reader = Hashing {
            reader,
            hash: Xxh3::new(),
        };
        if reader.array::<8>()? != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        let format = u32::from_le_bytes(reader.array()?);
        if format != FORMAT_VERSION {
            return Err(SnapshotError::Format(format));
        }
        let semantics = u32::from_le_bytes(reader.array()?);
        let length = u64::from_le_bytes(reader.array()?);
        if length > MAX_STATE_BYTES {
            return Err(SnapshotError::Damaged("its state has an impossible length"));
        }
        let state = reader.bytes(length)?;
        let length = u64::from_le_bytes(reader.array()?);
        if length > MAX_IMAGES_BYTES {
            return Err(SnapshotError::Damaged(
                "its images have an impossible length",
            ));
        }
        let images = reader.bytes(length)?.into();
        let pages_left = u64::from_le_bytes(reader.array()?);
        Ok(SnapshotReader {
            reader,
            semantics,
            state,
            images,
            pages_left,
        })
    }

    /// As [`Snapshot::state`].
    ///
    /// # Errors
    /// As there.
    pub fn state<T: serde::de::DeserializeOwned>(&self, computed: u32) -> Result<T, SnapshotError> {
        decode_state(self.semantics, computed, &self.state)
    }

    /// The next page's index and bytes. `None` after the last, when the checksum was right.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] for a wrong checksum, and when reading fails.
    pub fn next_page(&mut self) -> Result<Option<(u32, [u8; PAGE])>, SnapshotError> {
        if self.pages_left > 0 {
            self.pages_left -= 1;
            let index = u32::from_le_bytes(self.reader.array()?);
            return Ok(Some((index, self.reader.array()?)));
        }
        let expected = self.reader.hash.digest();
        if u64::from_le_bytes(self.reader.array()?) == expected {
            Ok(None)
        } else {
            Err(SnapshotError::Damaged("its checksum is wrong"))
        }
    }
}

struct Hashing<R> {
    reader: R,
    hash: Xxh3,
}

impl<R: Read> Hashing<R> {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buffer)?;
        self.hash.update(buffer);
        Ok(())
    }

    /// `length` bytes, for which memory is reserved as they come.
    fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader.by_ref().take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }
}
