//! Snapshots: plain, versioned state.
//!
//! Layout, little-endian: magic `USNAPSHT`, format version u32, length of the architecture's name u8,
//! the name, semantics version u32, length of the state u64, the state (the architecture's own
//! encoding of everything but RAM), number of pages u64, then per page its index u32 and its 4096
//! bytes (pages of zeros are left out), and at the end XXH3-64 of all that precedes.

use crate::memory::{PAGE_SIZE, Ram, Region};
use std::io::{self, Read, Write};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 8] = *b"USNAPSHT";
const FORMAT_VERSION: u32 = 2;
/// No machine's state without RAM comes near it: a larger length is garbage.
const MAX_STATE_BYTES: u64 = 64 << 20;
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
    /// A machine of another architecture.
    #[error("the snapshot is of a machine of architecture {theirs:?}, and this one is {ours}")]
    Architecture {
        /// That of the snapshot.
        theirs: String,
        /// The one that was to restore it.
        ours: &'static str,
    },
    /// Another semantics version.
    #[error(
        "the snapshot was made under semantics version {theirs}, this program computes version \
         {ours}: use the program that made it"
    )]
    Semantics {
        /// That of the snapshot.
        theirs: u32,
        /// The one that was to restore it.
        ours: u32,
    },
    /// It was damaged.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// The host cannot provide the machine's memory.
    #[error("the machine has {0} bytes of memory, more than this host can provide")]
    Memory(u64),
}

/// Whose snapshot it is.
struct Header {
    architecture: String,
    semantics_version: u32,
}

impl Header {
    fn check(
        &self,
        architecture: &'static str,
        semantics_version: u32,
    ) -> Result<(), SnapshotError> {
        if self.architecture != architecture {
            return Err(SnapshotError::Architecture {
                theirs: self.architecture.clone(),
                ours: architecture,
            });
        }
        if self.semantics_version != semantics_version {
            return Err(SnapshotError::Semantics {
                theirs: self.semantics_version,
                ours: semantics_version,
            });
        }
        Ok(())
    }
}

/// A machine's whole state at an instruction count.
pub struct Snapshot {
    header: Header,
    state: Vec<u8>,
    page_indices: Vec<u32>,
    pages: Vec<u8>,
}

impl Snapshot {
    /// Of a machine of this architecture and these semantics that has RAM of so many bytes, all of it
    /// zero. `state` is everything else, in the architecture's own encoding.
    ///
    /// # Panics
    /// The name is none of 1 to 255 bytes.
    pub fn new(
        architecture: &'static str,
        semantics_version: u32,
        state: Vec<u8>,
        memory_bytes: u64,
    ) -> Snapshot {
        assert!(
            (1..=255).contains(&architecture.len()),
            "an architecture has a name of 1 to 255 bytes"
        );
        Snapshot {
            header: Header {
                architecture: architecture.into(),
                semantics_version,
            },
            state,
            page_indices: Vec::new(),
            // The guest waits for this copy. Room for everything costs nothing until it is used, and
            // saves copying what was copied already.
            pages: Vec::with_capacity(memory_bytes as usize),
        }
    }

    /// Copies RAM.
    pub fn add_ram(&mut self, ram: &Ram) {
        for index in 0..ram.pages() {
            if !ram.is_known_to_be_zero(index) {
                self.add_page(index, ram.page(index));
            }
        }
    }

    /// Adds a page of RAM, in ascending order of their indices; pages of zeros are left out.
    ///
    /// # Panics
    /// `bytes` is no page.
    pub fn add_page(&mut self, index: usize, bytes: &[u8]) {
        assert_eq!(bytes.len(), PAGE, "page {index} is no page");
        if !is_zero(bytes) {
            self.page_indices.push(index as u32);
            self.pages.extend_from_slice(bytes);
        }
    }

    /// The pages of RAM that are not zero: index and bytes.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let indices = self.page_indices.iter().map(|&index| u64::from(index));
        indices.zip(self.pages.chunks_exact(PAGE))
    }

    /// The state without RAM, if it is of this architecture and these semantics.
    ///
    /// # Errors
    /// It is of others.
    pub fn state(
        &self,
        architecture: &'static str,
        semantics_version: u32,
    ) -> Result<&[u8], SnapshotError> {
        self.header.check(architecture, semantics_version)?;
        Ok(&self.state)
    }

    /// RAM of these regions (see [`Ram::new`]) with the pages of the snapshot.
    ///
    /// # Errors
    /// The host has not so much memory, or the snapshot holds a page outside of it.
    pub fn ram(&self, regions: &[Region]) -> Result<Ram, SnapshotError> {
        let mut ram = new_ram(regions)?;
        for (index, bytes) in self.pages() {
            load_page(&mut ram, index, bytes)?;
        }
        Ok(ram)
    }

    /// Bytes that [`Snapshot::write_to`] writes.
    pub fn encoded_length(&self) -> u64 {
        let pages = self.page_indices.len() as u64;
        let header = 8 + 4 + 1 + self.header.architecture.len() as u64 + 4 + 8;
        header + self.state.len() as u64 + 8 + pages * (4 + PAGE_SIZE) + 8
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
        put(&[self.header.architecture.len() as u8])?;
        put(self.header.architecture.as_bytes())?;
        put(&self.header.semantics_version.to_le_bytes())?;
        put(&(self.state.len() as u64).to_le_bytes())?;
        put(&self.state)?;
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
            header: reader.header,
            state: reader.state,
            page_indices,
            pages,
        })
    }
}

/// A snapshot that is read piece by piece: everything but RAM first, then page by page.
pub struct SnapshotReader<R> {
    reader: Hashing<R>,
    header: Header,
    state: Vec<u8>,
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
        let [name_length] = reader.array()?;
        let architecture = String::from_utf8(reader.bytes(name_length.into())?)
            .map_err(|_| SnapshotError::Damaged("its architecture has no readable name"))?;
        let semantics_version = u32::from_le_bytes(reader.array()?);
        let length = u64::from_le_bytes(reader.array()?);
        if length > MAX_STATE_BYTES {
            return Err(SnapshotError::Damaged("its state has an impossible length"));
        }
        let state = reader.bytes(length)?;
        let pages_left = u64::from_le_bytes(reader.array()?);
        Ok(SnapshotReader {
            reader,
            header: Header {
                architecture,
                semantics_version,
            },
            state,
            pages_left,
        })
    }

    /// As [`Snapshot::state`].
    ///
    /// # Errors
    /// As there.
    pub fn state(
        &self,
        architecture: &'static str,
        semantics_version: u32,
    ) -> Result<&[u8], SnapshotError> {
        self.header.check(architecture, semantics_version)?;
        Ok(&self.state)
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

    /// As [`Snapshot::ram`], of the pages that come: they are nowhere else.
    ///
    /// # Errors
    /// As there, and as [`SnapshotReader::next_page`].
    pub fn ram(&mut self, regions: &[Region]) -> Result<Ram, SnapshotError> {
        let mut ram = new_ram(regions)?;
        while let Some((index, bytes)) = self.next_page()? {
            load_page(&mut ram, index.into(), &bytes)?;
        }
        Ok(ram)
    }
}

fn new_ram(regions: &[Region]) -> Result<Ram, SnapshotError> {
    check_that_the_host_has(regions.iter().map(|region| region.length).sum())?;
    Ok(Ram::new(regions))
}

fn load_page(ram: &mut Ram, index: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
    if index >= ram.pages() as u64 {
        return Err(SnapshotError::Damaged("it holds a page outside RAM"));
    }
    ram.load_page(index as usize, bytes);
    Ok(())
}

/// A request for memory that the host cannot grant would end the program.
///
/// # Errors
/// [`SnapshotError::Memory`]
pub fn check_that_the_host_has(memory_bytes: u64) -> Result<(), SnapshotError> {
    let granted = Vec::<u8>::new().try_reserve_exact(memory_bytes as usize);
    granted.map_err(|_| SnapshotError::Memory(memory_bytes))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks_exact(64)
        .all(|chunk| chunk.iter().fold(0, |or, byte| or | byte) == 0)
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
