//! The file of a snapshot that people keep: a machine and its disks, at one moment.
//! `docs/log-format.md`, "A kept snapshot".
//!
//! Frames, each checked in continuation of the one before. Before the bytes of a part there is a frame that
//! says which part it is, so that what is damaged has a name. What is in a part is packed by whoever writes
//! it: nothing is packed or unpacked here. As in a log, the writer gives bytes to be appended and the reader
//! takes bytes as they come: neither opens anything.

use crate::configuration::{Build, Configuration, MAX_BUILD_BYTES};
use crate::frame::{Frame, FrameError, FrameReader, FrameWriter, MAX_PAYLOAD};
use crate::message::{LifeId, get_configuration, put_configuration};
use crate::preamble::{Foreign, Preamble, preamble};
use crate::record::InstructionCount;
use crate::succession::{Generation, LifeNumber, MachineName};
use crate::wire::{Fields, WireError, put_bytes, put_varint};
use std::fmt;
use thiserror::Error;

/// The first bytes of the file.
pub const MAGIC: [u8; 8] = *b"USTDYKPT";
/// The format that this build writes and reads.
pub const FORMAT_VERSION: u16 = 1;
/// Bytes of a part before it is packed, at most.
pub const MAX_PART_BYTES: u64 = 2 << 20;

/// Bytes of a name, at most.
const MAX_NAME_BYTES: usize = 255;
/// No machine has more disks.
const MAX_DISKS: u64 = 255;
/// Bytes of a text that says why there is no more, at most.
const MAX_TEXT_BYTES: usize = 4096;

const KIND_HEAD: u8 = 1;
const KIND_PART: u8 = 2;
const KIND_BYTES: u8 = 3;
const KIND_END: u8 = 4;
const KIND_FAILED: u8 = 5;

const PART_STATE: u8 = 1;
const PART_PAGES: u8 = 2;
const PART_DISK: u8 = 3;
const PART_HOLE: u8 = 4;

/// What the file says at its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHead {
    /// The machine.
    pub machine: MachineName,
    /// The name of the host on which it was taken.
    pub host: String,
    /// What the program was built from that took it.
    pub build: Build,
    /// When, in nanoseconds since 1970.
    pub taken_unix_ns: u64,
    /// The machine's life then.
    pub life: LifeNumber,
    /// That life's identity.
    pub life_id: LifeId,
    /// The generation.
    pub generation: Generation,
    /// Instructions since power-on.
    pub count: InstructionCount,
    /// What the machine computes.
    pub semantics_version: u32,
    /// What it is made of.
    pub configuration: Configuration,
    /// About how many bytes of RAM there are.
    pub memory_bytes: u64,
    /// How long its disks are, in bytes.
    pub disks: Vec<u64>,
}

impl FileHead {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.machine.as_str().as_bytes());
        put_bytes(&mut out, self.host.as_bytes());
        put_bytes(&mut out, self.build.as_str().as_bytes());
        put_varint(&mut out, self.taken_unix_ns);
        put_varint(&mut out, self.life.0);
        out.extend_from_slice(&self.life_id.0.to_le_bytes());
        put_varint(&mut out, self.generation.0);
        put_varint(&mut out, self.count.0);
        out.extend_from_slice(&self.semantics_version.to_le_bytes());
        put_configuration(&mut out, &self.configuration);
        put_varint(&mut out, self.memory_bytes);
        put_varint(&mut out, self.disks.len() as u64);
        self.disks
            .iter()
            .for_each(|length| put_varint(&mut out, *length));
        out
    }

    fn decode(payload: &[u8]) -> Result<FileHead, WireError> {
        let mut fields = Fields::new(payload);
        let head = FileHead {
            machine: MachineName::new(&fields.string("a machine's name", MAX_NAME_BYTES)?)
                .map_err(|_| WireError::Name)?,
            host: fields.string("a host's name", MAX_NAME_BYTES)?,
            build: Build::new(&fields.string("a build", MAX_BUILD_BYTES)?),
            taken_unix_ns: fields.varint()?,
            life: LifeNumber(fields.varint()?),
            life_id: LifeId(u128::from_le_bytes(fields.array()?)),
            generation: Generation(fields.varint()?),
            count: InstructionCount(fields.varint()?),
            semantics_version: u32::from_le_bytes(fields.array()?),
            configuration: get_configuration(&mut fields)?,
            memory_bytes: fields.varint()?,
            disks: {
                let count = limited("disks", fields.varint()?, MAX_DISKS)?;
                let lengths = (0..count).map(|_| fields.varint());
                lengths.collect::<Result<_, _>>()?
            },
        };
        fields.end()?;
        Ok(head)
    }
}

fn limited(what: &'static str, value: u64, limit: u64) -> Result<u64, WireError> {
    if value > limit {
        return Err(WireError::TooLarge { what, value, limit });
    }
    Ok(value)
}

/// A part of the machine or of a disk. What is in it, unpacked, has the length that it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilePart {
    /// Of the machine's bytes: what is no page of RAM.
    State {
        /// Bytes.
        bytes: u64,
    },
    /// Of the machine's bytes: pages of RAM with their numbers, all of them between these two.
    Pages {
        /// The lowest number.
        first: u32,
        /// The highest.
        last: u32,
        /// Bytes.
        bytes: u64,
    },
    /// Bytes of a disk.
    Disk {
        /// Index among the machine's disks.
        device: u8,
        /// Where they begin.
        from: u64,
        /// Where they end.
        to: u64,
    },
    /// Zeros of a disk: nothing is in it.
    Hole {
        /// Index among the machine's disks.
        device: u8,
        /// Where they begin.
        from: u64,
        /// Where they end.
        to: u64,
    },
}

impl FilePart {
    /// Bytes that are in it, unpacked.
    pub fn bytes(self) -> u64 {
        match self {
            FilePart::State { bytes } | FilePart::Pages { bytes, .. } => bytes,
            FilePart::Disk { from, to, .. } => to.saturating_sub(from),
            FilePart::Hole { .. } => 0,
        }
    }

    /// Whether it is of the machine, and not of a disk.
    pub fn is_machines(self) -> bool {
        matches!(self, FilePart::State { .. } | FilePart::Pages { .. })
    }

    fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        let (tag, fields) = match self {
            FilePart::State { bytes } => (PART_STATE, [0, 0, bytes]),
            FilePart::Pages { first, last, bytes } => {
                (PART_PAGES, [u64::from(first), u64::from(last), bytes])
            }
            FilePart::Disk { device, from, to } => (PART_DISK, [u64::from(device), from, to]),
            FilePart::Hole { device, from, to } => (PART_HOLE, [u64::from(device), from, to]),
        };
        out.push(tag);
        fields.iter().for_each(|field| put_varint(&mut out, *field));
        out
    }

    fn decode(payload: &[u8]) -> Result<FilePart, WireError> {
        let mut fields = Fields::new(payload);
        let tag = fields.byte()?;
        let (first, second, third) = (fields.varint()?, fields.varint()?, fields.varint()?);
        fields.end()?;
        let narrow = |value: u64| u32::try_from(value).map_err(|_| WireError::Overflow);
        let device = || u8::try_from(first).map_err(|_| WireError::Overflow);
        let ordered = |part: FilePart| match second < third {
            true => Ok(part),
            false => Err(WireError::Order("a range of a disk")),
        };
        let (from, to) = (second, third);
        let part = match tag {
            PART_STATE => FilePart::State { bytes: third },
            PART_PAGES => FilePart::Pages {
                first: narrow(first)?,
                last: narrow(second)?,
                bytes: third,
            },
            PART_DISK => {
                let device = device()?;
                ordered(FilePart::Disk { device, from, to })?
            }
            PART_HOLE => {
                let device = device()?;
                ordered(FilePart::Hole { device, from, to })?
            }
            tag => {
                let what = "part of a snapshot";
                return Err(WireError::UnknownTag { what, tag });
            }
        };
        limited("a part", part.bytes(), MAX_PART_BYTES)?;
        Ok(part)
    }
}

impl fmt::Display for FilePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilePart::State { .. } => f.write_str("the state of harts and devices"),
            FilePart::Pages { first, last, .. } => write!(f, "memory, pages {first} to {last}"),
            FilePart::Disk { device, from, to } | FilePart::Hole { device, from, to } => {
                write!(f, "disk {device}, bytes {from} to {to}")
            }
        }
    }
}

/// Why a file is not the snapshot that was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// It begins like something else.
    #[error("it is no snapshot of a machine (it does not begin as one)")]
    Foreign,
    /// Another format.
    #[error("it has snapshot format {found}, and this program reads format {FORMAT_VERSION}")]
    Version {
        /// The file's.
        found: u16,
    },
    /// Its end is missing.
    #[error("it is torn: it ends after {after}, and the rest is missing")]
    Torn {
        /// The last part that is whole.
        after: String,
    },
    /// Something in it is not what was written.
    #[error("it is damaged in {part}: {why}")]
    Damaged {
        /// Which part.
        part: String,
        /// What is wrong.
        why: FrameError,
    },
    /// A part is not where a writer would have put it, or is missing.
    #[error("it is damaged: after {after} {what}")]
    Order {
        /// The last part that is right.
        after: String,
        /// What is wrong.
        what: &'static str,
    },
    /// There is more than a snapshot.
    #[error("it goes on after its end: it is damaged, or two files were joined")]
    Beyond,
}

/// Writes the file.
#[derive(Default)]
pub struct FileWriter {
    frames: FrameWriter,
    out: Vec<u8>,
    parts: u64,
}

impl FileWriter {
    /// Begins one.
    pub fn begin(head: &FileHead) -> FileWriter {
        let mut writer = FileWriter {
            out: preamble(MAGIC, FORMAT_VERSION),
            ..FileWriter::default()
        };
        writer
            .frames
            .write(&mut writer.out, KIND_HEAD, &head.encode());
        writer
    }

    /// Adds a part, as whoever reads it will unpack it. The machine's come first, in their order.
    ///
    /// # Panics
    /// It is longer than [`MAX_PART_BYTES`], unpacked, or than a frame.
    pub fn part(&mut self, part: FilePart, packed: &[u8]) {
        assert!(part.bytes() <= MAX_PART_BYTES, "{part} is too long");
        self.frames.write(&mut self.out, KIND_PART, &part.encode());
        self.frames.write(&mut self.out, KIND_BYTES, packed);
        self.parts += 1;
    }

    /// There are no more.
    pub fn end(&mut self) {
        let mut payload = Vec::new();
        put_varint(&mut payload, self.parts);
        self.frames.write(&mut self.out, KIND_END, &payload);
    }

    /// There are more, and they do not come, for this reason: whoever receives it keeps nothing.
    pub fn failed(&mut self, why: &str) {
        let why = &why[..why.floor_char_boundary(MAX_TEXT_BYTES)];
        self.frames
            .write(&mut self.out, KIND_FAILED, why.as_bytes());
    }

    /// The bytes since the last call.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

/// What comes of a file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileItem {
    /// Whose it is: the first.
    Head(Box<FileHead>),
    /// A part, and what is in it, as it was packed.
    Part(FilePart, Vec<u8>),
    /// Those were all.
    End,
    /// Whoever took it gave up, and why.
    Failed(String),
}

/// Reads the file from bytes in pieces of any size.
pub struct FileReader {
    preamble: Preamble,
    frames: FrameReader,
    stage: Stage,
    /// The last part that was whole.
    last: Option<FilePart>,
    parts: u64,
    /// Of each disk, the bytes that are still to come.
    missing: Vec<u64>,
    lengths: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    /// The next is a part, or the end.
    Part,
    /// Its bytes are next.
    Bytes(FilePart),
    Ended,
}

impl Default for FileReader {
    fn default() -> FileReader {
        FileReader {
            preamble: Preamble::default(),
            frames: FrameReader::new(MAX_PAYLOAD),
            stage: Stage::Head,
            last: None,
            parts: 0,
            missing: Vec::new(),
            lengths: Vec::new(),
        }
    }
}

impl FileReader {
    /// Adds the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        let rest = self.preamble.push(bytes);
        self.frames.push(rest);
    }

    /// The next item, or `None` until more bytes come, or after the last.
    ///
    /// # Errors
    /// It is no such file, or something in it is damaged, which is named.
    pub fn next_item(&mut self) -> Result<Option<FileItem>, FileError> {
        loop {
            if self.stage == Stage::Ended || !self.has_preamble()? {
                return Ok(None);
            }
            let frame = match self.frames.next_frame() {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame,
                Err(why) => return Err(self.damaged(why)),
            };
            if let Some(item) = self.take(frame)? {
                return Ok(Some(item));
            }
        }
    }

    /// Checks that everything came, after there are no more bytes.
    ///
    /// # Errors
    /// Something is missing, or there is something behind the end.
    pub fn finish(&self) -> Result<(), FileError> {
        match self.stage {
            Stage::Ended if self.frames.rest().is_empty() => Ok(()),
            Stage::Ended => Err(FileError::Beyond),
            Stage::Head | Stage::Part | Stage::Bytes(_) => Err(FileError::Torn {
                after: self.place(),
            }),
        }
    }

    fn has_preamble(&self) -> Result<bool, FileError> {
        match self.preamble.version(MAGIC) {
            Err(Foreign) => Err(FileError::Foreign),
            Ok(None) => Ok(false),
            Ok(Some(FORMAT_VERSION)) => Ok(true),
            Ok(Some(found)) => Err(FileError::Version { found }),
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<FileItem>, FileError> {
        let offset = frame.offset;
        let garbled = |source| FrameError::Payload { offset, source };
        match (frame.kind, self.stage) {
            (KIND_HEAD, Stage::Head) => {
                let head = FileHead::decode(&frame.payload);
                let head = head.map_err(|error| self.damaged(garbled(error)))?;
                self.lengths.clone_from(&head.disks);
                self.missing.clone_from(&head.disks);
                self.stage = Stage::Part;
                Ok(Some(FileItem::Head(Box::new(head))))
            }
            (KIND_PART, Stage::Part) => {
                let part = FilePart::decode(&frame.payload);
                let part = part.map_err(|error| self.damaged(garbled(error)))?;
                self.check_place(part)?;
                // What is in it comes in the next frame.
                self.stage = Stage::Bytes(part);
                Ok(None)
            }
            (KIND_BYTES, Stage::Bytes(part)) => {
                self.parts += 1;
                self.last = Some(part);
                self.stage = Stage::Part;
                Ok(Some(FileItem::Part(part, frame.payload)))
            }
            (KIND_END, Stage::Part) => {
                let parts = Fields::new(&frame.payload).varint();
                let parts = parts.map_err(|error| self.damaged(garbled(error)))?;
                if parts != self.parts || self.missing.iter().any(|bytes| *bytes > 0) {
                    return Err(self.out_of_order("parts are missing"));
                }
                self.stage = Stage::Ended;
                Ok(Some(FileItem::End))
            }
            (KIND_FAILED, Stage::Part) => {
                self.stage = Stage::Ended;
                let why = String::from_utf8_lossy(&frame.payload).into_owned();
                Ok(Some(FileItem::Failed(why)))
            }
            _ => Err(self.out_of_order("comes something out of its place")),
        }
    }

    /// The machine's parts come before those of disks, and each byte of a disk comes once.
    fn check_place(&mut self, part: FilePart) -> Result<(), FileError> {
        let (FilePart::Disk { device, from, to } | FilePart::Hole { device, from, to }) = part
        else {
            return match self.last.is_none_or(FilePart::is_machines) {
                true => Ok(()),
                false => Err(self.out_of_order("comes the machine again")),
            };
        };
        let device = usize::from(device);
        let length = self.lengths.get(device).copied().unwrap_or(0);
        let missing = self.missing.get_mut(device).filter(|_| to <= length);
        match missing.and_then(|missing| Some((missing.checked_sub(to - from)?, missing))) {
            Some((left, missing)) => *missing = left,
            None => return Err(self.out_of_order("comes more than the disk has")),
        }
        Ok(())
    }

    fn damaged(&self, why: FrameError) -> FileError {
        let part = match self.stage {
            Stage::Head => "its head".to_owned(),
            Stage::Bytes(part) => part.to_string(),
            Stage::Part | Stage::Ended => format!("what follows {}", self.place()),
        };
        FileError::Damaged { part, why }
    }

    fn out_of_order(&self, what: &'static str) -> FileError {
        let after = self.place();
        FileError::Order { after, what }
    }

    /// The last part that was right.
    fn place(&self) -> String {
        match (self.stage, self.last) {
            (Stage::Head, _) => "its beginning".to_owned(),
            (_, None) => "its head".to_owned(),
            (_, Some(part)) => part.to_string(),
        }
    }
}
