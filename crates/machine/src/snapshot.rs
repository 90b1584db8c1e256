//! Snapshots: plain, versioned state.
//!
//! Layout, little-endian: magic `USNAPSHT`, format version u32, length of the architecture's name u8,
//! the name, semantics version u32, length of the state u64, the state (the architecture's own
//! encoding of everything but RAM), then per page its index u32 and its 4096 bytes (in any order; pages
//! of zeros are left out), after the last one the index 2^32-1, the boot images (see `images`), and at the end
//! XXH3-64 of all that precedes.
//!
//! One that is made in rounds, as a backup gets it, has after the first round the index 2^32-2 and the boot
//! images already, then pages that changed, the index 2^32-3 and the state again, of the moment at which the
//! last round began, its pages, the index 2^32-1 and the hash. Of a page that comes again the last one counts,
//! and so of the state.
//!
//! An *increment*, which a journal keeps, begins with `USNAPINC` instead, is the same up to the index 2^32-1, and
//! has no images: only the hash follows. Its pages are those that were written since the snapshot on which it builds
//! (see `chain`).

mod chain;
mod images;

pub use chain::{Chain, ChainPart};
pub use images::KeptImage;

use crate::memory::{PAGE_SIZE, PageBatch, Ram, Region};
use images::{EncodedImage, ImageEncoder};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 8] = *b"USNAPSHT";
const INCREMENT_MAGIC: [u8; 8] = *b"USNAPINC";
const FORMAT_VERSION: u32 = 3;
/// Instead of a page's index: no page follows.
const NO_MORE_PAGES: u32 = u32::MAX;
/// Instead of a page's index: the boot images, and more pages after them.
const ROUND_ENDED: u32 = u32::MAX - 1;
/// Instead of a page's index: another state, and more pages after it.
const LAST_ROUND: u32 = u32::MAX - 2;
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
    /// It is something else than what builds on a snapshot.
    #[error("this builds on no snapshot of a machine (its first bytes are not \"USNAPINC\")")]
    NotAnIncrement,
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
#[derive(PartialEq, Eq)]
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

/// A machine's whole state at an instruction count, but for its RAM.
pub struct SnapshotHead {
    header: Header,
    state: Vec<u8>,
    images: Vec<KeptImage>,
}

impl SnapshotHead {
    /// Of a machine of this architecture and these semantics. `state` is everything but RAM, in the
    /// architecture's own encoding.
    ///
    /// # Panics
    /// The name is none of 1 to 255 bytes.
    pub fn new(architecture: &'static str, semantics_version: u32, state: Vec<u8>) -> SnapshotHead {
        assert!(
            (1..=255).contains(&architecture.len()),
            "an architecture has a name of 1 to 255 bytes"
        );
        SnapshotHead {
            header: Header {
                architecture: architecture.into(),
                semantics_version,
            },
            state,
            images: Vec::new(),
        }
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

    /// Everything but RAM and images, in the architecture's own encoding.
    pub fn into_state(self) -> Vec<u8> {
        self.state
    }

    /// With the images that the machine begins from when the guest resets it. They are the machine's
    /// own bytes and not copied.
    pub fn with_images(mut self, images: Vec<KeptImage>) -> SnapshotHead {
        self.images = images;
        self
    }
}

/// Everything before the pages.
fn beginning(magic: [u8; 8], header: &Header, state: &[u8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend(FORMAT_VERSION.to_le_bytes());
    out.push(header.architecture.len() as u8);
    out.extend_from_slice(header.architecture.as_bytes());
    out.extend(header.semantics_version.to_le_bytes());
    out.extend(encoded_state(state));
    out
}

fn encoded_state(state: &[u8]) -> Vec<u8> {
    let mut out = (state.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(state);
    out
}

/// Writes a snapshot as bytes, while its pages come.
pub struct SnapshotWriter<W> {
    writer: W,
    hash: Xxh3,
    /// Until they are written.
    images: Option<Vec<ImageEncoder>>,
}

impl<W: Write> SnapshotWriter<W> {
    /// Writes everything but RAM.
    ///
    /// # Errors
    /// As the writer.
    pub fn begin(head: &SnapshotHead, writer: W) -> io::Result<SnapshotWriter<W>> {
        let images = head.images.iter().cloned().map(ImageEncoder::new);
        let mut this = SnapshotWriter {
            writer,
            hash: Xxh3::new(),
            images: Some(images.collect()),
        };
        this.put(&beginning(MAGIC, &head.header, &head.state))?;
        Ok(this)
    }

    /// Writes everything but RAM of one that builds on another: pages are those that changed since then. The images
    /// are that one's.
    ///
    /// # Errors
    /// As the writer.
    pub fn begin_increment(head: &SnapshotHead, writer: W) -> io::Result<SnapshotWriter<W>> {
        let mut this = SnapshotWriter {
            writer,
            hash: Xxh3::new(),
            images: None,
        };
        this.put(&beginning(INCREMENT_MAGIC, &head.header, &head.state))?;
        Ok(this)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.writer.write_all(bytes)
    }

    /// Writes pages; none may come twice in a round.
    ///
    /// # Errors
    /// As the writer.
    pub fn pages(&mut self, pages: &PageBatch) -> io::Result<()> {
        pages.iter().try_for_each(|(index, bytes)| {
            for image in self.images.iter_mut().flatten() {
                image.look_at_page(index, bytes);
            }
            self.put(&index.to_le_bytes())?;
            self.put(bytes)
        })
    }

    /// The first round has ended: what follows is pages that changed meanwhile, and at the last
    /// [`SnapshotWriter::last_round`]. Writes what is large and does not change, while nobody waits for it.
    ///
    /// # Errors
    /// As the writer.
    pub fn first_round_ended(&mut self) -> io::Result<()> {
        self.put(&ROUND_ENDED.to_le_bytes())?;
        self.write_images()
    }

    /// The writer, between pages.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.writer
    }

    /// What follows is the pages that changed until this moment of the machine.
    ///
    /// # Errors
    /// As the writer.
    pub fn last_round(&mut self, head: &SnapshotHead) -> io::Result<()> {
        assert!(self.images.is_none(), "a first round precedes the last");
        self.put(&LAST_ROUND.to_le_bytes())?;
        self.put(&encoded_state(&head.state))
    }

    fn write_images(&mut self) -> io::Result<()> {
        let images = self.images.take();
        images.map_or(Ok(()), |images| {
            images::write(&images, |bytes| self.put(bytes))
        })
    }

    /// There are no more pages. Gives the writer back.
    ///
    /// # Errors
    /// As the writer.
    pub fn end(mut self) -> io::Result<W> {
        self.put(&NO_MORE_PAGES.to_le_bytes())?;
        self.write_images()?;
        self.writer.write_all(&self.hash.digest().to_le_bytes())?;
        Ok(self.writer)
    }
}

/// A machine's whole state at an instruction count.
pub struct Snapshot {
    head: SnapshotHead,
    pages: PageBatch,
}

impl Snapshot {
    /// With all pages of RAM.
    pub fn new(head: SnapshotHead, ram: &Ram) -> Snapshot {
        // Room for everything costs nothing until it is used, and saves copying what was copied
        // already.
        let mut pages = PageBatch::with_capacity(ram.pages());
        for index in 0..ram.pages() {
            if !ram.is_known_to_be_zero(index) {
                pages.add(index, ram.page(index));
            }
        }
        Snapshot { head, pages }
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
        self.head.header.check(architecture, semantics_version)?;
        Ok(&self.head.state)
    }

    /// RAM of these regions (see [`Ram::new`]) with the pages of the snapshot.
    ///
    /// # Errors
    /// The host has not so much memory, or the snapshot holds a page outside of it.
    pub fn ram(&self, regions: &[Region]) -> Result<Ram, SnapshotError> {
        let mut ram = new_ram(regions)?;
        for (index, bytes) in self.pages.iter() {
            load_page(&mut ram, index, bytes)?;
        }
        Ok(ram)
    }

    /// The images that the machine begins from when the guest resets it; none if it cannot.
    pub fn images(&self) -> &[KeptImage] {
        &self.head.images
    }

    /// Writes it as bytes.
    ///
    /// # Errors
    /// As the writer.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        let mut writer = SnapshotWriter::begin(&self.head, writer)?;
        writer.pages(&self.pages)?;
        writer.end().map(drop)
    }

    /// Reads it back. Never allocates more than the bytes that really come.
    pub fn read_from(reader: &mut impl Read) -> Result<Snapshot, SnapshotError> {
        let mut reader = SnapshotReader::open(reader)?;
        let mut pages = PageBatch::default();
        loop {
            match reader.next_part()? {
                Part::Page(index) => pages.add_any(index as usize, &*reader.page),
                Part::Images => {
                    let by_index: BTreeMap<u32, &[u8]> = pages.iter().collect();
                    reader.decode_images(|index| by_index.get(&index).copied())?;
                }
                Part::End => break,
            }
        }
        let head = reader.head;
        Ok(Snapshot { head, pages })
    }
}

/// A snapshot that is read piece by piece: everything but RAM first, then page by page.
pub struct SnapshotReader<R> {
    reader: Hashing<R>,
    head: SnapshotHead,
    /// There when all pages of the first round have come, until they are decoded.
    images: Option<Vec<EncodedImage>>,
    round: Round,
    /// The newest page.
    page: Box<[u8; PAGE]>,
}

/// How far a snapshot was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    First,
    /// The images have come.
    Between,
    /// The state has come again.
    Last,
    Read,
}

/// What stands behind a state.
enum Part {
    /// This page; its bytes are in [`SnapshotReader::page`].
    Page(u32),
    /// The images are there, and are of RAM as it is now.
    Images,
    End,
}

fn read_state(reader: &mut Hashing<impl Read>) -> Result<Vec<u8>, SnapshotError> {
    let length = u64::from_le_bytes(reader.array()?);
    if length > MAX_STATE_BYTES {
        return Err(SnapshotError::Damaged("its state has an impossible length"));
    }
    Ok(reader.bytes(length)?)
}

impl<R: Read> SnapshotReader<R> {
    /// Reads everything but RAM.
    ///
    /// # Errors
    /// [`SnapshotError`] for what is no snapshot, and when reading fails.
    pub fn open(reader: R) -> Result<SnapshotReader<R>, SnapshotError> {
        let mut reader = Hashing::new(reader);
        if reader.array::<8>()? != MAGIC {
            return Err(SnapshotError::NotASnapshot);
        }
        SnapshotReader::begin(reader, Round::First)
    }

    /// The same, of one that builds on another: its pages are those that changed.
    fn open_increment(reader: R) -> Result<SnapshotReader<R>, SnapshotError> {
        let mut reader = Hashing::new(reader);
        if reader.array::<8>()? != INCREMENT_MAGIC {
            return Err(SnapshotError::NotAnIncrement);
        }
        SnapshotReader::begin(reader, Round::Last)
    }

    fn begin(mut reader: Hashing<R>, round: Round) -> Result<SnapshotReader<R>, SnapshotError> {
        let format = u32::from_le_bytes(reader.array()?);
        if format != FORMAT_VERSION {
            return Err(SnapshotError::Format(format));
        }
        let [name_length] = reader.array()?;
        let architecture = String::from_utf8(reader.bytes(name_length.into())?)
            .map_err(|_| SnapshotError::Damaged("its architecture has no readable name"))?;
        let semantics_version = u32::from_le_bytes(reader.array()?);
        let state = read_state(&mut reader)?;
        let header = Header {
            architecture,
            semantics_version,
        };
        Ok(SnapshotReader {
            reader,
            head: SnapshotHead {
                header,
                state,
                images: Vec::new(),
            },
            images: None,
            round,
            page: Box::new([0; PAGE]),
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
        self.head.header.check(architecture, semantics_version)?;
        Ok(&self.head.state)
    }

    /// What comes next. [`Part::End`] after the last, when the checksum was right.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] for a wrong checksum or order, and when reading fails.
    fn next_part(&mut self) -> Result<Part, SnapshotError> {
        loop {
            let index = match self.round {
                Round::Read => return Ok(Part::End),
                _ => u32::from_le_bytes(self.reader.array()?),
            };
            match (index, self.round) {
                (NO_MORE_PAGES, Round::First) => {
                    self.images = Some(images::read(&mut self.reader)?);
                    self.check_hash()?;
                    return Ok(Part::Images);
                }
                (NO_MORE_PAGES, Round::Last) => {
                    self.check_hash()?;
                    return Ok(Part::End);
                }
                (ROUND_ENDED, Round::First) => {
                    self.round = Round::Between;
                    self.images = Some(images::read(&mut self.reader)?);
                    return Ok(Part::Images);
                }
                (LAST_ROUND, Round::Between) => {
                    self.round = Round::Last;
                    self.head.state = read_state(&mut self.reader)?;
                }
                (NO_MORE_PAGES | ROUND_ENDED | LAST_ROUND, _) => {
                    return Err(SnapshotError::Damaged("its rounds are out of order"));
                }
                (index, _) => {
                    self.reader.fill(&mut *self.page)?;
                    return Ok(Part::Page(index));
                }
            }
        }
    }

    fn check_hash(&mut self) -> Result<(), SnapshotError> {
        let expected = self.reader.hash.digest();
        if u64::from_le_bytes(self.reader.array()?) != expected {
            return Err(SnapshotError::Damaged("its checksum is wrong"));
        }
        self.round = Round::Read;
        Ok(())
    }

    /// The images, beside RAM as it is when they come.
    fn decode_images<'a>(
        &mut self,
        page: impl Fn(u32) -> Option<&'a [u8]>,
    ) -> Result<(), SnapshotError> {
        let images = self.images.take().unwrap_or_default();
        let images = images.iter().map(|image| image.decode(&page));
        self.head.images = images.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// As [`Snapshot::ram`], of the pages that come: they are nowhere else. Of a snapshot that was made in
    /// rounds the state is that of the last one afterwards.
    ///
    /// # Errors
    /// As there, [`SnapshotError::Damaged`] for a wrong checksum, and when reading fails.
    pub fn ram(&mut self, regions: &[Region]) -> Result<Ram, SnapshotError> {
        let mut ram = new_ram(regions)?;
        loop {
            match self.next_part()? {
                Part::Page(index) => load_page(&mut ram, index, &*self.page)?,
                Part::Images => self.decode_images(|index| {
                    ((index as usize) < ram.pages()).then(|| ram.page(index as usize))
                })?,
                Part::End => return Ok(ram),
            }
        }
    }

    /// As [`Snapshot::images`], once all pages have come.
    pub fn into_images(self) -> Vec<KeptImage> {
        self.head.images
    }
}

fn new_ram(regions: &[Region]) -> Result<Ram, SnapshotError> {
    check_that_the_host_has(regions.iter().map(|region| region.length).sum())?;
    Ok(Ram::new(regions))
}

fn load_page(ram: &mut Ram, index: u32, bytes: &[u8]) -> Result<(), SnapshotError> {
    if index as usize >= ram.pages() {
        return Err(SnapshotError::Damaged("it holds a page outside RAM"));
    }
    ram.load_page(index as usize, bytes);
    Ok(())
}

/// A machine that executes is its own: what changed since some moment of another one's makes no sense of it.
pub const EXECUTED: &str = "the machine has executed something, and is brought along no more";

/// Puts pages of another machine's in the place of this one's: of none, if one is outside.
///
/// # Errors
/// [`SnapshotError::Damaged`]
pub fn replace_pages(ram: &mut Ram, pages: &[PageBatch]) -> Result<(), SnapshotError> {
    let mut indices = pages.iter().flat_map(PageBatch::iter);
    if indices.any(|(index, _)| index as usize >= ram.pages()) {
        return Err(SnapshotError::Damaged("it holds a page outside RAM"));
    }
    for (index, bytes) in pages.iter().flat_map(PageBatch::iter) {
        ram.load_page(index as usize, bytes);
    }
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

struct Hashing<R> {
    reader: R,
    hash: Xxh3,
}

impl<R: Read> Hashing<R> {
    fn new(reader: R) -> Hashing<R> {
        Hashing {
            reader,
            hash: Xxh3::new(),
        }
    }

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
