//! `understudy run` with disks that are qcow2 images, and with those that may not be.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::device_programs::{COUNTED_SECTORS, counting_to_disk};
use support::{error_text, run};

const DISK_BYTES: usize = 1 << 20;

fn qemu_img(directory: &Path, arguments: &[&str]) {
    let mut command = Command::new("qemu-img");
    let output = command.args(arguments).current_dir(directory).output();
    let output = output.expect("qemu-img is there: apt-get install qemu-utils");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        error_text(&output)
    );
}

/// A directory with a guest that writes to its disk, and a raw image.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("guest.elf"), counting_to_disk(200)).unwrap();
    fs::write(directory.path().join("base.raw"), old()).unwrap();
    directory
}

/// What the disk has before.
fn old() -> Vec<u8> {
    let bytes = (0..DISK_BYTES).map(|at| (at / 512 % 251) as u8 + 1);
    bytes.collect()
}

fn run_with(directory: &Path, disk: &str) -> Output {
    let kernel = directory.join("guest.elf");
    let kernel = kernel.to_str().unwrap();
    let disk = format!("{}/{disk}", directory.display());
    let disk = disk.replace("=./", &format!("={}/", directory.display()));
    run(&[
        "run",
        "--firmware",
        "none",
        "--kernel",
        kernel,
        "--memory",
        "8M",
        "--disk",
        &disk,
    ])
}

fn content(directory: &Path, image: &str) -> Vec<u8> {
    qemu_img(directory, &["check", image]);
    qemu_img(
        directory,
        &["convert", "-f", "qcow2", "-O", "raw", image, "content"],
    );
    fs::read(directory.join("content")).unwrap()
}

/// The counted sectors are the guest's, everything else is as before.
fn assert_written(content: &[u8]) {
    assert_eq!(content.len(), DISK_BYTES);
    for number in 200 - COUNTED_SECTORS..200 {
        let at = (number % COUNTED_SECTORS) as usize * 512;
        let written = u64::from_le_bytes(content[at..at + 8].try_into().unwrap());
        assert_eq!(written, number);
    }
    let counted = COUNTED_SECTORS as usize * 512;
    assert!(
        content[counted..] == old()[counted..],
        "bytes that nobody wrote"
    );
}

#[test]
fn a_guest_writes_to_images_that_qemu_made_and_qemu_reads_them() {
    let directory = directory();
    let path = directory.path();
    let convert = ["convert", "-q", "-f", "raw", "-O", "qcow2"];
    qemu_img(path, &[&convert[..], &["base.raw", "plain.qcow2"]].concat());
    qemu_img(
        path,
        &[&convert[..], &["-c", "base.raw", "cloud.img"]].concat(),
    );
    let zstd = [
        "-c",
        "-o",
        "compression_type=zstd",
        "base.raw",
        "base.qcow2",
    ];
    qemu_img(path, &[&convert[..], &zstd[..]].concat());
    let over = ["create", "-q", "-f", "qcow2"];
    qemu_img(
        path,
        &[
            &over[..],
            &["-F", "qcow2", "-b", "base.qcow2", "middle.qcow2"],
        ]
        .concat(),
    );
    qemu_img(
        path,
        &[
            &over[..],
            &["-F", "qcow2", "-b", "middle.qcow2", "top.qcow2"],
        ]
        .concat(),
    );
    qemu_img(
        path,
        &[&over[..], &["-F", "raw", "-b", "base.raw", "over.qcow2"]].concat(),
    );
    for (image, options) in [
        ("plain.qcow2", ""),
        ("cloud.img", ",format=qcow2"),
        ("top.qcow2", ",backing=./middle.qcow2,backing=./base.qcow2"),
        ("over.qcow2", ",backing=./base.raw"),
    ] {
        let output = run_with(path, &format!("{image}{options}"));
        assert!(output.status.success(), "{image}: {}", error_text(&output));
        assert_written(&content(path, image));
    }
    assert!(
        fs::read(path.join("base.raw")).unwrap() == old(),
        "what lies under is only read"
    );
    assert!(content(path, "middle.qcow2") == old());
}

/// A guest can write what it likes into the first sector of a raw disk; the host's files stay the host's.
#[test]
fn what_an_image_is_and_what_it_lies_over_its_owner_says() {
    let directory = directory();
    let path = directory.path();
    fs::write(path.join("secret"), vec![b's'; 4096]).unwrap();
    let over = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "secret"];
    qemu_img(path, &[&over[..], &["disk.raw", "1M"]].concat());
    fs::copy(path.join("disk.raw"), path.join("named.qcow2")).unwrap();
    qemu_img(path, &["create", "-q", "-f", "qcow2", "alone.qcow2", "1M"]);
    // Finding: what an image was not made over was taken for that.
    qemu_img(path, &["create", "-q", "-f", "qcow2", "large.qcow2", "2M"]);
    let over = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
    let name = ["alone.qcow2", "over.qcow2"];
    qemu_img(path, &[&over[..], &name[..]].concat());
    qemu_img(
        path,
        &[&over[..], &["alone.qcow2", "longer.qcow2", "3M"]].concat(),
    );
    for (disk, said) in [
        (
            "disk.raw",
            "does not say what it is: add format = \"qcow2\"",
        ),
        (
            "disk.raw,format=qcow2",
            "lies over \"secret\", and `backing`",
        ),
        ("named.qcow2", "lies over \"secret\", and `backing`"),
        ("named.qcow2,backing=./absent", "cannot open the disk"),
        (
            "named.qcow2,backing=./named.qcow2",
            "is in use by this machine already",
        ),
        (
            "named.qcow2,backing=./secret,backing=./base.raw",
            "`backing` names more files",
        ),
        ("alone.qcow2,backing=./base.raw", "lies over nothing"),
        ("base.raw,format=qcow2", "is no qcow2 image"),
        ("over.qcow2,backing=./base.raw", "is no qcow2 image"),
        (
            "over.qcow2,backing=./large.qcow2",
            "large.qcow2, which it lies over, has 2097152",
        ),
        (
            "named.qcow2,backing=./large.qcow2",
            "large.qcow2, which it lies over, is raw",
        ),
        ("base.raw,backing=./secret", "is raw and lies over nothing"),
    ] {
        let output = run_with(path, disk);
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{disk}: {error}");
        assert!(error.contains(said), "{disk}: {error}");
    }
    // One that was made longer than what it lies over is as it should be.
    let output = run_with(path, "longer.qcow2,backing=./alone.qcow2");
    assert!(output.status.success(), "{}", error_text(&output));
    // Said to be raw it is, to the byte.
    let before = fs::read(path.join("disk.raw")).unwrap();
    let length = before.len().next_multiple_of(512);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(path.join("disk.raw"))
        .unwrap();
    file.set_len(length as u64).unwrap();
    let output = run_with(path, "disk.raw,format=raw,readonly");
    assert!(error_text(&output).is_empty() || output.status.code() != Some(2));
    assert!(fs::read(path.join("disk.raw")).unwrap()[..before.len()] == before);
}

/// Both of them at the same place: they would each have the whole disk.
#[test]
fn an_image_is_one_machines() {
    let directory = directory();
    let image: PathBuf = directory.path().join("disk.qcow2");
    qemu_img(
        directory.path(),
        &["create", "-q", "-f", "qcow2", "disk.qcow2", "1M"],
    );
    let file = fs::File::open(&image).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let output = run_with(directory.path(), "disk.qcow2");
    assert!(
        error_text(&output).contains("is in use"),
        "{}",
        error_text(&output)
    );
}
