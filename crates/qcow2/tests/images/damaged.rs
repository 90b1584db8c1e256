//! Images that are none, or that contradict themselves.

use crate::support::{Memory, SECTOR, name, open, pattern, qemu_img_ok};
use proptest::prelude::*;
use qcow2::OpenError;
use std::sync::{Arc, LazyLock};

/// One with data, zeros, compressed clusters and a snapshot, of small clusters: all kinds of tables are in
/// few bytes.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    let raw = directory.path().join("raw");
    std::fs::write(&raw, vec![7; 64 << 10]).unwrap();
    let options = "cluster_size=512";
    qemu_img_ok(&[
        "convert",
        "-c",
        "-O",
        "qcow2",
        "-o",
        options,
        "-f",
        "raw",
        name(&raw),
        name(&path),
    ]);
    qemu_img_ok(&["resize", "-q", name(&path), "256K"]);
    let bytes = std::fs::read(&path).unwrap();
    let memory = Arc::new(Memory::new(bytes));
    let image = open(memory.clone(), None).unwrap();
    image.write(70_144, &pattern(1, 20_480)).unwrap();
    image.zero(1024, 2048).unwrap();
    drop(image);
    std::fs::write(&path, memory.content()).unwrap();
    qemu_img_ok(&["snapshot", "-c", "then", name(&path)]);
    std::fs::read(&path).unwrap()
});

/// What an image says whose bytes from `at` on were replaced.
fn error_of(at: usize, bytes: &[u8]) -> String {
    let mut image = WHOLE.clone();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    match open(Arc::new(Memory::new(image)), None) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn each_thing_that_cannot_be_is_named() {
    let word = |word: u32| word.to_be_bytes().to_vec();
    let long = |long: u64| long.to_be_bytes().to_vec();
    for (at, bytes, text) in [
        (0, b"QFI ".to_vec(), "is no qcow2 image"),
        (4, word(1), "has qcow2 version 1"),
        (
            8,
            [long(1 << 40), word(20)].concat(),
            "name of its backing file",
        ),
        (20, word(8), "clusters of 2^8 bytes"),
        (20, word(22), "clusters of 2^22 bytes"),
        (24, long(1 << 47), "more than 64 TiB"),
        (24, long(1 << 46), "a first table of"),
        (32, word(1), "encryption (AES)"),
        (32, word(2), "encryption (LUKS)"),
        (36, word(1 << 23), "a first table of 8388608 entries"),
        (40, long(513), "its first table is said to be at byte 513"),
        (40, long(1 << 30), "was it cut off?"),
        (48, long(0), "its refcount table is said to be at byte 0"),
        (56, word(0), "a refcount table of 0 clusters"),
        (72, long(1 << 1), "marked as corrupt"),
        (72, long(1 << 2), "an external data file"),
        (72, long(1 << 4), "extended L2 entries"),
        (72, long(1 << 9), "incompatible feature 9"),
        (96, word(7), "refcounts of 2^7 bits"),
        (100, word(16), "a header of 16 bytes"),
        (100, word(600), "a header of 600 bytes"),
    ] {
        let error = error_of(at, &bytes);
        assert!(
            error.contains(text),
            "{at}: {error:?} does not say {text:?}"
        );
    }
    assert_eq!(error_of(0, b"QFI"), "", "as it is, it opens");
}

/// Finding: an image without its end was opened; reading there failed until the file grew, and gave zeros then.
#[test]
fn an_image_without_its_end_is_refused_unless_the_disk_has_nothing_there() {
    let whole = open(Arc::new(Memory::new(WHOLE.clone())), None).unwrap();
    let mut expected = vec![0; 256 << 10];
    whole.read(0, &mut expected).unwrap();
    let (mut opened, mut named) = (0, 0);
    for length in (0..WHOLE.len()).step_by(SECTOR) {
        let cut = WHOLE[..length].to_vec();
        match open(Arc::new(Memory::new(cut)), None) {
            Ok(image) => {
                opened += 1;
                // The snapshot's own tables are at the end, and not the disk's.
                let mut out = vec![0; 256 << 10];
                image.read(0, &mut out).unwrap();
                assert!(out == expected, "{length}: something else is read");
            }
            Err(OpenError::CutOff { at, first, end }) => {
                named += 1;
                assert!(at < 256 << 10 && first >= end && end == length as u64);
            }
            Err(_) => {}
        }
    }
    assert!(opened > 0, "an image without its end opens");
    assert!(named > 20, "the first cluster that is missing is named");
}

/// With clusters as QEMU makes them, and an image of our own.
#[test]
fn a_copy_that_ended_early_is_refused_with_the_first_cluster_that_is_missing() {
    let memory = Arc::new(Memory::new(Vec::new()));
    qcow2::create(&*memory, 64 << 20).unwrap();
    let image = open(memory.clone(), None).unwrap();
    image.write(1 << 20, &pattern(1, 3 << 16)).unwrap();
    image.write(40 << 20, &pattern(2, 1 << 16)).unwrap();
    drop(image);
    let bytes = memory.content();
    drop(open(Arc::new(Memory::new(bytes.clone())), None).unwrap());
    let cut = bytes[..bytes.len() - (1 << 16)].to_vec();
    let error = open(Arc::new(Memory::new(cut)), None).unwrap_err();
    let OpenError::CutOff { at, .. } = error else {
        panic!("{error}")
    };
    assert!([40 << 20, (1 << 20) + (2 << 16)].contains(&at), "{at}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever its bytes are, nothing panics and nothing hangs, and what is written can be an error.
    #[test]
    fn no_bytes_bring_the_host_down(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..8),
        seed in any::<u64>(),
    ) {
        let mut bytes = WHOLE.clone();
        let length = bytes.len();
        for (at, byte, is_header) in changes {
            bytes[at.index(if is_header { 112 } else { length })] = byte;
        }
        let memory = Arc::new(Memory::new(bytes));
        let Ok(image) = open(memory, None) else {
            return Ok(());
        };
        let length = image.length().min(1 << 20);
        let mut out = vec![0; length as usize];
        let _read = image.read(0, &mut out);
        let _next = image.next_data(0);
        let at = seed % (length / 512).max(1) * 512;
        let _written = image.write(at, &pattern(seed, (length - at).min(9000) as usize));
        let _zeroed = image.zero(0, length / 2);
        let _flushed = image.flush();
        let _read = image.read(0, &mut out);
    }
}
