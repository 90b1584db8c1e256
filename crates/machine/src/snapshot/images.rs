//! The boot images in a snapshot. Most of their pages are also in RAM, where they were loaded: these are
//! only named.
//!
//! Layout behind the pages of RAM, little-endian: number of images u8, then per image its length u64
//! and the index u32 of the page of RAM where it was loaded (all ones if there is none), a bit for each
//! of its pages (lowest first, in whole bytes; none without such an index) that says whether it is as it
//! is in RAM, and the bytes of all other pages; the last page may be a part of one.

use super::{Hashing, PAGE, SnapshotError};
use crate::memory::keep_in_huge_pages;
use std::io::Read;
use std::sync::Arc;

/// An image that a machine keeps, to begin anew from it when the guest resets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptImage {
    /// The whole file.
    pub bytes: Arc<[u8]>,
    /// Index of the page of RAM where its first byte was loaded, if all of it was loaded from there on.
    pub first_page: Option<u32>,
}

/// More images than any machine has are garbage.
const MAX_IMAGES: u8 = 8;
/// No image is larger: it fits its machine's memory.
const MAX_IMAGE_BYTES: u64 = 16 << 30;
const NO_PAGE: u32 = u32::MAX;

/// An image on its way into a snapshot.
pub(super) struct ImageEncoder {
    image: KeptImage,
    /// Of each of its pages whether it is the same in the snapshot's RAM. (A page of zeros is not: nothing
    /// comes for it, and a reader's memory would grow by nothing that came.)
    in_ram: Vec<bool>,
}

impl ImageEncoder {
    pub(super) fn new(image: KeptImage) -> ImageEncoder {
        let in_ram = vec![false; image.bytes.len().div_ceil(PAGE)];
        ImageEncoder { image, in_ram }
    }

    /// The snapshot holds this page of RAM.
    pub(super) fn look_at_page(&mut self, index: u32, bytes: &[u8]) {
        let first_page = self.image.first_page;
        let Some(page) = first_page.and_then(|first| index.checked_sub(first)) else {
            return;
        };
        let page = page as usize;
        if let Some(in_ram) = self.in_ram.get_mut(page) {
            let own = &self.image.bytes[page * PAGE..];
            let own = &own[..own.len().min(PAGE)];
            *in_ram = bytes[..own.len()] == *own;
        }
    }
}

/// Encodes images that have looked at all pages of RAM.
pub(super) fn write<E>(
    images: &[ImageEncoder],
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    assert!(
        images.len() <= MAX_IMAGES.into(),
        "a machine has few images"
    );
    put(&[images.len() as u8])?;
    for ImageEncoder { image, in_ram } in images {
        put(&(image.bytes.len() as u64).to_le_bytes())?;
        put(&image.first_page.unwrap_or(NO_PAGE).to_le_bytes())?;
        if image.first_page.is_some() {
            let bits = in_ram.chunks(8).map(|pages| {
                let bits = pages.iter().enumerate();
                bits.fold(0, |byte, (bit, &is)| byte | u8::from(is) << bit)
            });
            put(&bits.collect::<Vec<u8>>())?;
        }
        let pages = image.bytes.chunks(PAGE).zip(in_ram);
        for (bytes, _) in pages.filter(|(_, in_ram)| !**in_ram) {
            put(bytes)?;
        }
    }
    Ok(())
}

/// An image as a snapshot holds it.
pub(super) struct EncodedImage {
    length: u64,
    first_page: Option<u32>,
    /// Of each page whether it is as it is in RAM.
    in_ram: Vec<u8>,
    /// The bytes of all others.
    others: Vec<u8>,
}

impl EncodedImage {
    fn is_in_ram(&self, page: usize) -> bool {
        self.in_ram
            .get(page / 8)
            .is_some_and(|byte| byte >> (page % 8) & 1 != 0)
    }

    fn page_lengths(length: u64) -> impl Iterator<Item = usize> {
        let pages = length.div_ceil(PAGE as u64);
        (0..pages).map(move |page| (length - page * PAGE as u64).min(PAGE as u64) as usize)
    }

    fn read(reader: &mut Hashing<impl Read>) -> Result<EncodedImage, SnapshotError> {
        let length = u64::from_le_bytes(reader.array()?);
        if length > MAX_IMAGE_BYTES {
            return Err(SnapshotError::Damaged("an image has an impossible length"));
        }
        let first_page = u32::from_le_bytes(reader.array()?);
        let first_page = (first_page != NO_PAGE).then_some(first_page);
        let pages = length.div_ceil(PAGE as u64);
        let mut image = EncodedImage {
            length,
            first_page,
            in_ram: Vec::new(),
            others: Vec::new(),
        };
        if first_page.is_some() {
            image.in_ram = reader.bytes(pages.div_ceil(8))?;
        }
        let lengths = EncodedImage::page_lengths(length).enumerate();
        let others = lengths.filter(|(page, _)| !image.is_in_ram(*page));
        let others: u64 = others.map(|(_, length)| length as u64).sum();
        image.others = reader.bytes(others)?;
        Ok(image)
    }

    /// The image, beside RAM of which `page` gives the pages: none where there is no RAM.
    pub(super) fn decode<'a>(
        &self,
        page: impl Fn(u32) -> Option<&'a [u8]>,
    ) -> Result<KeptImage, SnapshotError> {
        const DAMAGED: SnapshotError = SnapshotError::Damaged("an image names a page outside RAM");
        let mut bytes = Vec::new();
        let mut others = &self.others[..];
        for (index, length) in EncodedImage::page_lengths(self.length).enumerate() {
            if self.is_in_ram(index) {
                let first = self.first_page.ok_or(DAMAGED)?;
                let in_ram = u32::try_from(index).ok().and_then(|i| first.checked_add(i));
                let page = in_ram.and_then(&page).ok_or(DAMAGED)?;
                bytes.extend_from_slice(&page[..length]);
            } else {
                let (own, rest) = others.split_at(length);
                bytes.extend_from_slice(own);
                others = rest;
            }
        }
        Ok(KeptImage {
            bytes: keep_in_huge_pages(&bytes),
            first_page: self.first_page,
        })
    }
}

/// Images that were read, as they were.
pub(super) fn encoded(images: &[EncodedImage]) -> Vec<u8> {
    let mut out = vec![images.len() as u8];
    for image in images {
        out.extend(image.length.to_le_bytes());
        out.extend(image.first_page.unwrap_or(NO_PAGE).to_le_bytes());
        out.extend_from_slice(&image.in_ram);
        out.extend_from_slice(&image.others);
    }
    out
}

/// Reads what [`encoded`] gave.
pub(super) fn read(reader: &mut Hashing<impl Read>) -> Result<Vec<EncodedImage>, SnapshotError> {
    let [count] = reader.array()?;
    if count > MAX_IMAGES {
        return Err(SnapshotError::Damaged("it holds too many images"));
    }
    (0..count).map(|_| EncodedImage::read(reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Snapshot, SnapshotHead, SnapshotReader, SnapshotWriter};
    use super::*;
    use crate::memory::PageBatch;
    use crate::memory::{PAGE_SIZE, Ram, Region};

    const REGION: Region = Region {
        base: 0x8000_0000,
        length: 32 * PAGE_SIZE,
    };

    /// Nine pages and a part of one: of zeros, and others.
    fn image() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..9 * PAGE + 100).map(|at| (at / 7) as u8).collect();
        bytes[2 * PAGE..3 * PAGE].fill(0);
        bytes
    }

    fn encoded(ram: &Ram, images: &[KeptImage]) -> Vec<u8> {
        let head = SnapshotHead::new("test", 1, vec![1, 2, 3]).with_images(images.to_vec());
        let mut bytes = Vec::new();
        Snapshot::new(head, ram).write_to(&mut bytes).unwrap();
        bytes
    }

    /// Both ways of reading.
    fn assert_reads_back(bytes: &[u8], images: &[KeptImage]) {
        let snapshot = Snapshot::read_from(&mut &*bytes).unwrap();
        assert_eq!(snapshot.images(), images);
        let mut reader = SnapshotReader::open(bytes).unwrap();
        reader.ram(&[REGION]).unwrap();
        assert_eq!(reader.into_images(), images);
    }

    fn batch(pages: &[(usize, u8)]) -> PageBatch {
        let mut batch = PageBatch::default();
        for &(index, byte) in pages {
            batch.add_any(index, &[byte; PAGE]);
        }
        batch
    }

    /// A backup's machine is made in rounds: images are of RAM in the first, pages and state of the last.
    #[test]
    fn of_several_rounds_the_last_counts_and_the_images_stay() {
        let image = KeptImage {
            bytes: [[7; PAGE], [8; PAGE]].concat().into(),
            first_page: Some(1),
        };
        let head =
            |state| SnapshotHead::new("test", 1, vec![state]).with_images(vec![image.clone()]);
        let mut writer = SnapshotWriter::begin(&head(1), Vec::new()).unwrap();
        writer.pages(&batch(&[(1, 7), (2, 8), (3, 9)])).unwrap();
        writer.first_round_ended().unwrap();
        writer.pages(&batch(&[(2, 5), (3, 5)])).unwrap();
        writer.last_round(&head(2)).unwrap();
        writer.pages(&batch(&[(2, 0), (1, 6)])).unwrap();
        let bytes = writer.end().unwrap();
        assert_reads_back(&bytes, std::slice::from_ref(&image));
        let snapshot = Snapshot::read_from(&mut &*bytes).unwrap();
        assert_eq!(snapshot.state("test", 1).unwrap(), [2]);
        let mut reader = SnapshotReader::open(&*bytes).unwrap();
        for ram in [
            snapshot.ram(&[REGION]).unwrap(),
            reader.ram(&[REGION]).unwrap(),
        ] {
            for (page, byte) in [(0, 0), (1, 6), (2, 0), (3, 5)] {
                assert!(ram.page(page).iter().all(|b| *b == byte), "page {page}");
            }
        }
        assert_eq!(reader.state("test", 1).unwrap(), [2]);
        for end in 0..bytes.len() {
            assert!(
                Snapshot::read_from(&mut &bytes[..end]).is_err(),
                "{end} bytes"
            );
        }
    }

    #[test]
    fn rounds_out_of_order_are_damage() {
        let head = SnapshotHead::new("test", 1, vec![1]);
        let mut without_state = SnapshotWriter::begin(&head, Vec::new()).unwrap();
        without_state.first_round_ended().unwrap();
        let mut twice = SnapshotWriter::begin(&head, Vec::new()).unwrap();
        twice.first_round_ended().unwrap();
        twice.last_round(&head).unwrap();
        twice.last_round(&head).unwrap();
        for writer in [without_state, twice] {
            let bytes = writer.end().unwrap();
            let error = Snapshot::read_from(&mut &*bytes).err().unwrap();
            assert!(error.to_string().contains("out of order"), "{error}");
        }
    }

    #[test]
    fn what_ram_still_holds_is_not_held_twice_and_all_of_it_comes_back() {
        let bytes = image();
        let mut ram = Ram::new(&[REGION]);
        ram.write(REGION.base + 3 * PAGE_SIZE, &bytes).unwrap();
        let without = encoded(&ram, &[]).len();
        let images = [
            KeptImage {
                bytes: b"a command line"[..].into(),
                first_page: None,
            },
            KeptImage {
                bytes: bytes.into(),
                first_page: Some(3),
            },
            KeptImage {
                bytes: Arc::default(),
                first_page: None,
            },
        ];
        let unchanged = encoded(&ram, &images);
        let own = unchanged.len() - without;
        assert!((PAGE..PAGE + 100).contains(&own), "{own}: a page of zeros");
        assert_reads_back(&unchanged, &images);
        // The guest changes a page, and fills one of zeros; what is behind the last byte of the image does
        // not count.
        for (page, byte) in [(0, 1), (2, 7)] {
            let address = REGION.base + (3 + page) * PAGE_SIZE;
            ram.write(address, &[byte; PAGE]).unwrap();
        }
        let last = REGION.base + 12 * PAGE_SIZE;
        ram.write(last + 100, &[9; 100]).unwrap();
        let changed = encoded(&ram, &images);
        // One page more of RAM, with its index, and one more of the image.
        assert_eq!(changed.len(), unchanged.len() + 2 * PAGE + 4);
        assert_reads_back(&changed, &images);
    }

    #[test]
    fn an_image_outside_ram_is_refused_and_one_that_lies_is_too() {
        let ram = Ram::new(&[REGION]);
        let lying = EncodedImage {
            length: 2 * PAGE as u64,
            first_page: Some(31),
            in_ram: vec![3],
            others: Vec::new(),
        };
        let page = |index: u32| ((index as usize) < ram.pages()).then(|| ram.page(index as usize));
        assert!(lying.decode(page).is_err());
        let mut encoded = vec![1];
        encoded.extend(u64::MAX.to_le_bytes());
        let mut reader = Hashing::new(&encoded[..]);
        assert!(matches!(read(&mut reader), Err(SnapshotError::Damaged(_))));
        let mut reader = Hashing::new(&[MAX_IMAGES + 1][..]);
        assert!(matches!(read(&mut reader), Err(SnapshotError::Damaged(_))));
    }
}
