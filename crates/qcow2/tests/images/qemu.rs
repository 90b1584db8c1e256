//! Images that QEMU made for other uses: with snapshots, and made here for QEMU.

use crate::support::{check, content, name, on_disk, open, pattern, qemu_img, qemu_img_ok};
use std::path::PathBuf;

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    (directory, path)
}

#[test]
fn an_image_that_was_made_here_is_one_for_qemu() {
    for length in [512, 1 << 20, 700 << 30, 64 << 40] {
        let (_directory, path) = directory();
        std::fs::write(&path, b"").unwrap();
        qcow2::create(&*on_disk(&path), length).unwrap();
        assert_eq!(check(&path), 0);
        let (text, _) = qemu_img(&["info", "--output=json", name(&path)]);
        assert!(
            text.contains(&format!("\"virtual-size\": {length}")),
            "{text}"
        );
        let image = open(on_disk(&path), None).unwrap();
        let last = pattern(3, 512);
        image.write(length - 512, &last).unwrap();
        drop(image);
        assert_eq!(check(&path), 0);
        let image = open(on_disk(&path), None).unwrap();
        let mut out = vec![0; 512];
        image.read(length - 512, &mut out).unwrap();
        assert_eq!(out, last);
        assert_eq!(image.next_data(0), (length - 1) / 65536 * 65536);
    }
}

/// What a snapshot has is not written over: tables and clusters that it shares are copied.
#[test]
fn a_snapshot_inside_an_image_stays_as_it_was() {
    let (directory, path) = directory();
    let before = pattern(1, 1 << 20);
    let raw = directory.path().join("raw");
    std::fs::write(&raw, &before).unwrap();
    let options = "cluster_size=4096";
    qemu_img_ok(&[
        "convert",
        "-O",
        "qcow2",
        "-o",
        options,
        "-f",
        "raw",
        name(&raw),
        name(&path),
    ]);
    qemu_img_ok(&["snapshot", "-c", "then", name(&path)]);
    let image = open(on_disk(&path), None).unwrap();
    let mut after = before.clone();
    for (at, length) in [(0, 512), (5000 / 512 * 512, 40960), (900_096, 51_200)] {
        let bytes = pattern(at as u64 + 7, length);
        image.write(at as u64, &bytes).unwrap();
        after[at..at + length].copy_from_slice(&bytes);
    }
    image.zero(262_144, 131_072).unwrap();
    after[262_144..262_144 + 131_072].fill(0);
    drop(image);
    assert_eq!(check(&path), 0);
    assert!(content(&path) == after);
    qemu_img_ok(&["snapshot", "-a", "then", name(&path)]);
    assert!(content(&path) == before, "the snapshot has changed");
    assert_eq!(check(&path), 0);
}

/// Zeros give room back: what is written after a flush goes where they were.
#[test]
fn what_was_zeroed_is_used_again_after_a_flush() {
    let (_directory, path) = directory();
    qemu_img_ok(&["create", "-q", "-f", "qcow2", name(&path), "64M"]);
    let image = open(on_disk(&path), None).unwrap();
    let bytes = pattern(9, 8 << 20);
    image.write(0, &bytes).unwrap();
    image.flush().unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    for round in 1..5 {
        image.zero(0, 64 << 20).unwrap();
        image.flush().unwrap();
        image.write(round << 23, &bytes).unwrap();
        image.flush().unwrap();
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
    drop(image);
    assert_eq!(check(&path), 0);
}

/// Others can have the image open to read it while a guest writes.
#[test]
fn an_image_that_qemu_closed_lazily_is_not_written_to() {
    let (_directory, path) = directory();
    qemu_img_ok(&["create", "-q", "-f", "qcow2", name(&path), "1M"]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[79] |= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = open(on_disk(&path), None).unwrap_err().to_string();
    assert!(error.contains("was not closed"), "{error}");
    let header = qcow2::Header::read(&*on_disk(&path)).unwrap();
    qcow2::Image::open(on_disk(&path), header, None, true).unwrap();
}
