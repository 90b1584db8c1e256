//! Snapshots that build on each other, as the bytes of one.
//!
//! A whole one, and after it those that hold what changed since the one before. Read as one they are a snapshot in
//! rounds: the pages of the first are its first round, and the state is the last one's.

use super::images;
use super::{
    FORMAT_VERSION, LAST_ROUND, MAGIC, NO_MORE_PAGES, Part, ROUND_ENDED, Round, SnapshotError,
    SnapshotReader, beginning, encoded_state,
};
use std::io::{self, Read};
use std::vec::IntoIter;
use xxhash_rust::xxh3::Xxh3;

const _: () = assert!(
    FORMAT_VERSION == 3,
    "a chain is read as a snapshot in rounds"
);

/// One of the snapshots of a chain.
pub struct ChainPart<R> {
    /// What it is called, for people.
    pub name: String,
    /// Its bytes.
    pub bytes: R,
}

/// What snapshots that build on each other are together: the bytes of one snapshot.
pub struct Chain<R> {
    name: String,
    reader: SnapshotReader<R>,
    increments: IntoIter<ChainPart<R>>,
    /// Images have come: pages are those that changed.
    is_in_increments: bool,
    hash: Xxh3,
    out: Vec<u8>,
    taken: usize,
    has_ended: bool,
}

impl<R: Read> Chain<R> {
    /// Of a whole one, and of those that build on it, each on the one before.
    ///
    /// # Errors
    /// The first is none, or cannot be read.
    pub fn open(
        whole: ChainPart<R>,
        increments: Vec<ChainPart<R>>,
    ) -> Result<Chain<R>, SnapshotError> {
        let ChainPart { name, bytes } = whole;
        let reader = SnapshotReader::open(bytes).map_err(|error| of(&name, error))?;
        let mut chain = Chain {
            name,
            reader,
            increments: increments.into_iter(),
            is_in_increments: false,
            hash: Xxh3::new(),
            out: Vec::new(),
            taken: 0,
            has_ended: false,
        };
        let head = &chain.reader.head;
        let out = beginning(MAGIC, &head.header, &head.state);
        chain.put(&out);
        Ok(chain)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.out.extend_from_slice(bytes);
    }

    /// Puts what follows into `out`.
    fn go_on(&mut self) -> Result<(), SnapshotError> {
        let part = self.reader.next_part();
        match part.map_err(|error| of(&self.name, error))? {
            Part::Page(index) => {
                self.hash.update(&index.to_le_bytes());
                self.out.extend(index.to_le_bytes());
                self.hash.update(&*self.reader.page);
                self.out.extend_from_slice(&*self.reader.page);
            }
            Part::Images => {
                if self.reader.round != Round::Read {
                    let why = "it is a copy in rounds, on which nothing builds";
                    return Err(of(&self.name, SnapshotError::Damaged(why)));
                }
                let images = self.reader.images.take().unwrap_or_default();
                let mark = match self.increments.len() {
                    0 => NO_MORE_PAGES,
                    _ => ROUND_ENDED,
                };
                self.put(&mark.to_le_bytes());
                self.put(&images::encoded(&images));
            }
            Part::End => self.next_increment()?,
        }
        Ok(())
    }

    fn next_increment(&mut self) -> Result<(), SnapshotError> {
        let Some(ChainPart { name, bytes }) = self.increments.next() else {
            if self.is_in_increments {
                self.put(&NO_MORE_PAGES.to_le_bytes());
            }
            self.out.extend(self.hash.digest().to_le_bytes());
            self.has_ended = true;
            return Ok(());
        };
        let next = SnapshotReader::open_increment(bytes).map_err(|error| of(&name, error))?;
        if next.head.header != self.reader.head.header {
            let why = "it is of another kind of machine than the one on which it builds";
            return Err(of(&name, SnapshotError::Damaged(why)));
        }
        self.is_in_increments = true;
        self.name = name;
        self.reader = next;
        if self.increments.len() == 0 {
            self.put(&LAST_ROUND.to_le_bytes());
            let state = encoded_state(&self.reader.head.state);
            self.put(&state);
        }
        Ok(())
    }
}

/// Says which of them it is.
fn of(name: &str, error: SnapshotError) -> SnapshotError {
    SnapshotError::Read(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{name}: {error}"),
    ))
}

impl<R: Read> Read for Chain<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.out.len() {
            if self.has_ended {
                return Ok(0);
            }
            self.out.clear();
            self.taken = 0;
            self.go_on().map_err(|error| match error {
                SnapshotError::Read(error) => error,
                error => io::Error::other(error),
            })?;
        }
        let rest = &self.out[self.taken..];
        let length = out.len().min(rest.len());
        out[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeptImage, Snapshot, SnapshotHead, SnapshotWriter};
    use super::*;
    use crate::memory::{PAGE_SIZE, PageBatch, Region};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const PAGE: usize = PAGE_SIZE as usize;
    const PAGES: usize = 12;
    const REGION: Region = Region {
        base: 0x8000_0000,
        length: PAGES as u64 * PAGE_SIZE,
    };

    type Pages = BTreeMap<usize, u8>;

    fn image() -> KeptImage {
        KeptImage {
            bytes: [[7; PAGE], [8; PAGE]].concat().into(),
            first_page: Some(1),
        }
    }

    fn head(state: u8, semantics_version: u32) -> SnapshotHead {
        let head = SnapshotHead::new("test", semantics_version, vec![state; 5]);
        head.with_images(vec![image()])
    }

    fn written(mut writer: SnapshotWriter<Vec<u8>>, pages: &Pages) -> Vec<u8> {
        let mut batch = PageBatch::default();
        for (index, byte) in pages {
            batch.add_any(*index, &[*byte; PAGE]);
        }
        writer.pages(&batch).unwrap();
        writer.end().unwrap()
    }

    /// A whole one and increments; the state of each is its number.
    fn files(all: &[Pages]) -> Vec<Vec<u8>> {
        let files = all.iter().enumerate().map(|(number, pages)| {
            let head = head(number as u8, 1);
            let writer = match number {
                0 => SnapshotWriter::begin(&head, Vec::new()),
                _ => SnapshotWriter::begin_increment(&head, Vec::new()),
            };
            written(writer.unwrap(), pages)
        });
        files.collect()
    }

    fn read(files: &[Vec<u8>]) -> Result<Vec<u8>, SnapshotError> {
        let mut parts = files.iter().enumerate().map(|(number, bytes)| ChainPart {
            name: format!("file {number}"),
            bytes: &bytes[..],
        });
        let whole = parts.next().unwrap();
        let mut bytes = Vec::new();
        Chain::open(whole, parts.collect())?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn pages() -> impl Strategy<Value = Pages> {
        prop::collection::btree_map(0..PAGES, 0u8..4, 0..PAGES)
    }

    proptest! {
        /// Of each page the newest snapshot that has it counts; state and images as of one that is whole.
        #[test]
        fn a_chain_is_the_machine_of_its_newest(all in prop::collection::vec(pages(), 1..6)) {
            let bytes = read(&files(&all)).unwrap();
            let mut expected = Pages::new();
            all.iter().for_each(|pages| expected.extend(pages));
            let mut reader = SnapshotReader::open(&*bytes).unwrap();
            let ram = reader.ram(&[REGION]).unwrap();
            prop_assert_eq!(reader.state("test", 1).unwrap(), vec![all.len() as u8 - 1; 5]);
            prop_assert_eq!(reader.into_images(), vec![image()]);
            for index in 0..PAGES {
                let byte = expected.get(&index).copied().unwrap_or(0);
                prop_assert!(ram.page(index).iter().all(|at| *at == byte), "page {}", index);
            }
            let snapshot = Snapshot::read_from(&mut &*bytes).unwrap();
            prop_assert_eq!(snapshot.images(), [image()]);
        }

        /// Whatever becomes of one of its files, it is told, and of which file.
        #[test]
        fn a_damaged_or_cut_part_is_named(
            all in prop::collection::vec(pages(), 2..4),
            which in any::<prop::sample::Index>(),
            place in any::<prop::sample::Index>(),
            bit in prop::option::of(0u8..8),
        ) {
            let mut files = files(&all);
            let which = which.index(files.len());
            let place = place.index(files[which].len());
            match bit {
                Some(bit) => files[which][place] ^= 1 << bit,
                None => files[which].truncate(place),
            }
            let error = read(&files).unwrap_err().to_string();
            prop_assert!(error.contains(&format!("file {which}: ")), "{}", error);
        }
    }

    #[test]
    fn what_builds_on_another_is_no_machine_and_a_whole_one_builds_on_none() {
        let pages = Pages::from([(1, 7)]);
        let files = files(&[pages.clone(), pages.clone()]);
        let error = Snapshot::read_from(&mut &*files[1]).err().unwrap();
        assert!(matches!(error, SnapshotError::NotASnapshot), "{error}");
        let error = read(&[files[0].clone(), files[0].clone()]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("file 1: this builds on no snapshot"),
            "{error}"
        );
        let other = SnapshotWriter::begin_increment(&head(1, 2), Vec::new()).unwrap();
        let error = read(&[files[0].clone(), written(other, &pages)]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("file 1: the snapshot is damaged: it is of another kind"),
            "{error}"
        );
    }

    /// What a backup's copy is: its pages would come after its images, and be taken for changes.
    #[test]
    fn nothing_builds_on_a_copy_in_rounds() {
        let mut writer = SnapshotWriter::begin(&head(0, 1), Vec::new()).unwrap();
        writer.first_round_ended().unwrap();
        writer.last_round(&head(1, 1)).unwrap();
        let copy = writer.end().unwrap();
        let error = read(&[copy]).unwrap_err();
        assert!(error.to_string().contains("a copy in rounds"), "{error}");
    }
}
