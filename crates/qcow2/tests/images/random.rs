//! Random operations on images that QEMU made, against a list of bytes.

use crate::support::{check, content, name, on_disk, open, open_below, pattern, qemu_img_ok};
use proptest::prelude::*;
use qcow2::{Backing, Image};
use std::path::{Path, PathBuf};

/// How an image was made.
#[derive(Clone, Debug)]
struct Kind {
    options: &'static str,
    length: u64,
    under: Under,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    Nothing,
    Raw,
    /// Of compressed clusters.
    Image(&'static str),
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, length: u64, seed: u64 },
    Zero { at: u64, length: u64 },
    Read { at: u64, length: u64 },
    Flush,
    Reopen,
}

fn kinds() -> impl Strategy<Value = Kind> {
    let options = prop::sample::select(vec![
        "compat=1.1,cluster_size=65536",
        "compat=1.1,cluster_size=512,refcount_bits=64",
        "compat=1.1,cluster_size=512,refcount_bits=1",
        "compat=1.1,cluster_size=4096,refcount_bits=2",
        "compat=1.1,cluster_size=2097152",
        "compat=1.1,cluster_size=4096,preallocation=metadata",
        "compat=0.10,cluster_size=4096",
        "compat=0.10,cluster_size=65536",
    ]);
    let under = prop_oneof![
        3 => Just(Under::Nothing),
        1 => Just(Under::Raw),
        1 => Just(Under::Image("compression_type=zlib")),
        1 => Just(Under::Image("compression_type=zstd,cluster_size=8192")),
    ];
    let length = prop::sample::select(vec![1 << 20, (1 << 20) + 512 * 3, 5 << 20, 700 << 9]);
    (options, length, under).prop_map(|(options, length, under)| Kind {
        // Of what lies over something, nothing can be there before.
        options: match under {
            Under::Nothing => options,
            _ => options.trim_end_matches(",preallocation=metadata"),
        },
        length,
        under,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = (0..1u64 << 30, prop_oneof![1..16u64, 1..800u64]);
    let place = place.prop_map(|(at, sectors)| (at, sectors * 512));
    let step = prop_oneof![
        6 => (place.clone(), any::<u64>()).prop_map(|((at, length), seed)| Step::Write { at, length, seed }),
        3 => place.clone().prop_map(|(at, length)| Step::Zero { at, length }),
        2 => place.prop_map(|(at, length)| Step::Read { at, length }),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// Within the disk, in whole sectors.
fn within(at: u64, length: u64, disk: u64) -> (u64, u64) {
    let at = at % disk / 512 * 512;
    (at, length.min(disk - at))
}

struct Made {
    directory: tempfile::TempDir,
    kind: Kind,
    model: Vec<u8>,
}

impl Made {
    fn new(kind: Kind) -> Made {
        let directory = tempfile::tempdir().unwrap();
        let mut made = Made {
            directory,
            model: vec![0; kind.length as usize],
            kind,
        };
        made.make();
        made
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("disk.qcow2")
    }

    fn below(&self) -> PathBuf {
        self.directory.path().join("below")
    }

    fn make(&mut self) {
        let length = self.kind.length.to_string();
        let (path, below) = (self.path(), self.below());
        let mut arguments = vec!["create", "-q", "-f", "qcow2", "-o", self.kind.options];
        match self.kind.under {
            Under::Nothing => {}
            Under::Raw => arguments.extend(["-F", "raw", "-b", name(&below)]),
            Under::Image(_) => arguments.extend(["-F", "qcow2", "-b", name(&below)]),
        }
        if self.kind.under != Under::Nothing {
            // Shorter than what lies over it.
            let length = self.kind.length / 1024 * 512;
            let mut bytes = pattern(5, length as usize);
            bytes[50_000..150_000].fill(0);
            self.model[..bytes.len()].copy_from_slice(&bytes);
            make_below(&below, self.kind.under, &bytes);
        }
        arguments.extend([name(&path), length.as_str()]);
        qemu_img_ok(&arguments);
    }

    fn open(&self) -> Image {
        let backing = match self.kind.under {
            Under::Nothing => None,
            Under::Raw => Some(Backing::Raw {
                length: std::fs::metadata(self.below()).unwrap().len(),
                storage: on_disk(&self.below()),
            }),
            Under::Image(_) => Some(open_below(&self.below(), None)),
        };
        open(on_disk(&self.path()), backing).unwrap()
    }
}

fn make_below(path: &Path, under: Under, bytes: &[u8]) {
    if let Under::Image(options) = under {
        let raw = path.with_extension("raw");
        std::fs::write(&raw, bytes).unwrap();
        qemu_img_ok(&[
            "convert",
            "-q",
            "-c",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-o",
            options,
            name(&raw),
            name(path),
        ]);
    } else {
        std::fs::write(path, bytes).unwrap();
    }
}

/// Where the image says that data may be is all that is not zero.
fn check_next_data(image: &Image, model: &[u8]) -> Result<(), TestCaseError> {
    let mut at = 0;
    while at < image.length() {
        let next = image.next_data(at);
        prop_assert!(next >= at && next <= image.length());
        let skipped = &model[at as usize..next as usize];
        prop_assert!(
            skipped.iter().all(|byte| *byte == 0),
            "{at}..{next} is not zero"
        );
        at = next + 4096;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Read here and read by QEMU, and nothing is lost or counted twice.
    #[test]
    fn an_image_holds_what_was_written_to_it_and_qemu_finds_it_sound(kind in kinds(), steps in steps()) {
        let mut made = Made::new(kind);
        let disk = made.kind.length;
        let mut image = made.open();
        prop_assert_eq!(image.length(), disk);
        for step in steps {
            match step {
                Step::Write { at, length, seed } => {
                    let (at, length) = within(at, length, disk);
                    let bytes = pattern(seed, length as usize);
                    image.write(at, &bytes).unwrap();
                    made.model[at as usize..(at + length) as usize].copy_from_slice(&bytes);
                }
                Step::Zero { at, length } => {
                    let (at, length) = within(at, length, disk);
                    image.zero(at, length).unwrap();
                    made.model[at as usize..(at + length) as usize].fill(0);
                }
                Step::Read { at, length } => {
                    let (at, length) = within(at, length, disk);
                    let mut out = vec![1; length as usize];
                    image.read(at, &mut out).unwrap();
                    prop_assert!(out == made.model[at as usize..(at + length) as usize], "at {}", at);
                }
                Step::Flush => image.flush().unwrap(),
                Step::Reopen => {
                    drop(image);
                    image = made.open();
                }
            }
        }
        let mut out = vec![1; disk as usize];
        image.read(0, &mut out).unwrap();
        prop_assert!(out == made.model);
        check_next_data(&image, &made.model)?;
        drop(image);
        prop_assert!(content(&made.path()) == made.model, "QEMU reads something else");
        prop_assert_eq!(check(&made.path()), 0, "there are leaks");
    }
}
