//! One layer: a file to which what the guest writes is appended. `docs/log-format.md`, "An overlay".

use super::extents::{Content, ExtentMap};
use super::{LayerId, OverlayError, SECTOR_BYTES};
use crate::disk::standing::{self, Standing};
use environment::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const MAGIC: [u8; 8] = *b"USTDYOVL";
/// The format that this build writes and reads.
const FORMAT_VERSION: u16 = 1;
/// The head of the file, and what each entry is a multiple of.
const BLOCK_BYTES: u64 = 512;
/// What is said of an entry before its data.
const ENTRY_HEAD_BYTES: usize = 40;
const KIND_DATA: u32 = 1;
const KIND_ZERO: u32 = 2;
/// Bytes that are read or moved at once, at most.
pub(super) const PIECE_BYTES: u64 = 1 << 20;
/// No request of the guest writes more.
const LONGEST_DATA_BYTES: u64 = 16 << 20;

/// What a layer's file says at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LayerHead {
    /// The snapshot with which it begins; 0: none.
    pub id: LayerId,
    /// Its place among the layers of its image, as in its name.
    pub number: u64,
    /// It stands for all that were there from this number on; 0: for itself.
    pub replaces: u64,
    /// Of the image, in bytes.
    pub image_bytes: u64,
}

impl LayerHead {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_BYTES as usize);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.id.0.to_le_bytes());
        for number in [self.number, self.replaces, self.image_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let check = crc32c::crc32c(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out.resize(BLOCK_BYTES as usize, 0);
        out
    }

    fn decode(block: &[u8]) -> Result<LayerHead, String> {
        if block[..8] != MAGIC {
            return Err("it is no overlay".into());
        }
        let version = u16::from_le_bytes([block[8], block[9]]);
        if version != FORMAT_VERSION {
            return Err(format!(
                "it has overlay format {version}, and this build reads format {FORMAT_VERSION}"
            ));
        }
        if crc32c::crc32c(&block[..50]) != word(block, 50) {
            return Err("its first bytes are damaged".into());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&block[10..26]);
        Ok(LayerHead {
            id: LayerId(u128::from_le_bytes(id)),
            number: long(block, 26),
            replaces: long(block, 34),
            image_bytes: long(block, 42),
        })
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}

/// What is said of an entry before its data.
#[derive(Clone, Copy, Debug)]
struct EntryHead {
    kind: u32,
    sector: u64,
    sectors: u64,
    /// Everything before this byte of the file was durable when the entry was written.
    durable: u64,
    data_check: u32,
}

impl EntryHead {
    /// Made of the layer and the place as well: no other bytes pass for an entry here.
    fn check(id: LayerId, offset: u64, fields: &[u8]) -> u32 {
        let check = crc32c::crc32c(&id.0.to_le_bytes());
        let check = crc32c::crc32c_append(check, &offset.to_le_bytes());
        crc32c::crc32c_append(check, fields)
    }

    fn encode(&self, id: LayerId, offset: u64) -> [u8; ENTRY_HEAD_BYTES] {
        let mut out = [0; ENTRY_HEAD_BYTES];
        out[4..8].copy_from_slice(&self.kind.to_le_bytes());
        out[8..16].copy_from_slice(&self.sector.to_le_bytes());
        out[16..24].copy_from_slice(&self.sectors.to_le_bytes());
        out[24..32].copy_from_slice(&self.durable.to_le_bytes());
        out[32..36].copy_from_slice(&self.data_check.to_le_bytes());
        let check = EntryHead::check(id, offset, &out[4..]);
        out[..4].copy_from_slice(&check.to_le_bytes());
        out
    }

    fn decode(id: LayerId, offset: u64, bytes: &[u8]) -> Option<EntryHead> {
        let bytes = bytes.get(..ENTRY_HEAD_BYTES)?;
        if word(bytes, 0) != EntryHead::check(id, offset, &bytes[4..]) {
            return None;
        }
        let head = EntryHead {
            kind: word(bytes, 4),
            sector: long(bytes, 8),
            sectors: long(bytes, 16),
            durable: long(bytes, 24),
            data_check: word(bytes, 32),
        };
        let is_known = head.kind == KIND_ZERO
            || head.kind == KIND_DATA && head.sectors <= LONGEST_DATA_BYTES / SECTOR_BYTES;
        is_known.then_some(head)
    }

    fn data_bytes(&self) -> u64 {
        match self.kind {
            KIND_DATA => self.sectors * SECTOR_BYTES,
            _ => 0,
        }
    }

    fn bytes(&self) -> u64 {
        (ENTRY_HEAD_BYTES as u64 + self.data_bytes()).next_multiple_of(BLOCK_BYTES)
    }
}

/// A layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub path: PathBuf,
    pub head: LayerHead,
    file: File,
    extents: ExtentMap,
    /// Where the next entry goes.
    end: u64,
    /// Everything before this byte is durable.
    durable: u64,
    is_synced: AtomicBool,
    standing: Standing,
}

impl Layer {
    /// Makes the file, which is there durably but for its name. One that was being made is made anew.
    pub fn create(path: PathBuf, head: LayerHead) -> io::Result<Layer> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let file = options.open(&path)?;
        standing::forget(&path);
        file.set_len(0)?;
        file.write_all_at(&head.encode(), 0)?;
        file.sync_all()?;
        Ok(Layer {
            standing: Standing::expect(&path, &file, BLOCK_BYTES),
            path,
            head,
            file,
            extents: ExtentMap::default(),
            end: BLOCK_BYTES,
            durable: BLOCK_BYTES,
            is_synced: AtomicBool::new(true),
        })
    }

    /// What a file says at its beginning; `None` of one that was being made when everything ended.
    pub fn look(path: &Path) -> Result<Option<LayerHead>, OverlayError> {
        let failed = |source| OverlayError::io(path, source);
        let file = File::open(path).map_err(failed)?;
        if file.length().map_err(failed)? < BLOCK_BYTES {
            return Ok(None);
        }
        let mut block = [0; BLOCK_BYTES as usize];
        file.read_exact_at(&mut block, 0).map_err(failed)?;
        match LayerHead::decode(&block) {
            Ok(head) => Ok(Some(head)),
            Err(_) if file.length().map_err(failed)? == BLOCK_BYTES => Ok(None),
            Err(why) => Err(OverlayError::damaged(path, why)),
        }
    }

    /// Reads a file to its end. What was being written when everything ended is left out.
    pub fn open(path: PathBuf, head: LayerHead) -> Result<Layer, OverlayError> {
        let file = File::open(&path).map_err(|source| OverlayError::io(&path, source))?;
        let mut layer = Layer {
            standing: Standing::expect(&path, &file, BLOCK_BYTES),
            path,
            head,
            file,
            extents: ExtentMap::default(),
            end: BLOCK_BYTES,
            durable: BLOCK_BYTES,
            is_synced: AtomicBool::new(false),
        };
        let length = layer.file.length();
        let length = length.map_err(|source| OverlayError::io(&layer.path, source))?;
        while layer.end < length {
            let entry = layer.entry(length);
            match entry.map_err(|source| OverlayError::io(&layer.path, source))? {
                Some(entry) => layer.place(&entry),
                None => {
                    layer.check_torn(length)?;
                    break;
                }
            }
        }
        Ok(layer)
    }

    /// The entry at the end of what was read, if it is whole.
    fn entry(&self, length: u64) -> io::Result<Option<EntryHead>> {
        let mut bytes = [0; ENTRY_HEAD_BYTES];
        if self.end + BLOCK_BYTES > length {
            return Ok(None);
        }
        self.file.read_exact_at(&mut bytes, self.end)?;
        let entry = EntryHead::decode(self.head.id, self.end, &bytes);
        let Some(entry) = entry.filter(|entry| self.end + entry.bytes() <= length) else {
            return Ok(None);
        };
        let fits = entry.sector.checked_add(entry.sectors);
        if fits.is_none_or(|to| to > self.head.image_bytes / SECTOR_BYTES) {
            return Ok(None);
        }
        let mut data = vec![0; entry.data_bytes() as usize];
        self.file
            .read_exact_at(&mut data, self.end + ENTRY_HEAD_BYTES as u64)?;
        Ok((crc32c::crc32c(&data) == entry.data_check).then_some(entry))
    }

    /// What is wrong from here on was being written, unless something behind it says that it was durable.
    fn check_torn(&self, length: u64) -> Result<(), OverlayError> {
        let mut at = self.end;
        let mut buffer = vec![0; PIECE_BYTES as usize];
        while at < length {
            let piece = (length - at).min(PIECE_BYTES);
            let bytes = &mut buffer[..piece as usize];
            let read = self.file.read_exact_at(bytes, at);
            read.map_err(|source| OverlayError::io(&self.path, source))?;
            for (index, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
                let offset = at + index as u64 * BLOCK_BYTES;
                let entry = EntryHead::decode(self.head.id, offset, block);
                if entry.is_some_and(|entry| entry.durable > self.end) {
                    let why = format!(
                        "what was durable is damaged at byte {}: byte {offset} came after it",
                        self.end
                    );
                    return Err(OverlayError::damaged(&self.path, why));
                }
            }
            at += piece;
        }
        Ok(())
    }

    fn place(&mut self, entry: &EntryHead) {
        let content = match entry.kind {
            KIND_DATA => Content::At(self.end + ENTRY_HEAD_BYTES as u64),
            _ => Content::Zero,
        };
        let to = entry.sector + entry.sectors;
        self.extents.insert(entry.sector, to, content);
        self.end += entry.bytes();
        self.standing.has(self.end);
    }

    /// It is moved to where layers are looked for, durably but for its name.
    pub fn rename(&mut self, path: PathBuf) -> io::Result<()> {
        let from = &self.path;
        self.standing.renamed(&path, || fs::rename(from, &path))?;
        self.path = path;
        Ok(())
    }

    /// Appends what the guest writes: these sectors, or zeros. What fails is as if it had never been.
    pub fn append(&mut self, sector: u64, sectors: u64, data: Option<&[u8]>) -> io::Result<()> {
        let data = data.unwrap_or(&[]);
        let entry = EntryHead {
            kind: if data.is_empty() {
                KIND_ZERO
            } else {
                KIND_DATA
            },
            sector,
            sectors,
            durable: self.durable,
            data_check: crc32c::crc32c(data),
        };
        assert!(
            entry.data_bytes() == data.len() as u64,
            "an entry has as much data as it says"
        );
        let mut bytes = Vec::with_capacity(entry.bytes() as usize);
        bytes.extend_from_slice(&entry.encode(self.head.id, self.end));
        bytes.extend_from_slice(data);
        bytes.resize(entry.bytes() as usize, 0);
        self.is_synced.store(false, Ordering::Release);
        self.file.write_all_at(&bytes, self.end)?;
        self.place(&entry);
        Ok(())
    }

    /// Makes it durable, and the next entry say so.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sync()?;
        self.durable = self.end;
        Ok(())
    }

    /// Makes it durable, if it is not.
    pub fn sync(&self) -> io::Result<()> {
        if !self.is_synced.load(Ordering::Acquire) {
            self.file.sync_data()?;
            self.is_synced.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Bytes of its file.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// What it has of these sectors.
    pub fn extents(&self) -> &ExtentMap {
        &self.extents
    }

    /// Reads what it has at this byte of its file.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
}
