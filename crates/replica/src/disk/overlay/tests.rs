//! Layers over real files: what is read, and what a start finds whatever the end was.

use super::chain::{Begun, begin_again, has_layer, merge_all, remove_all};
use super::volumes::Volumes;
use super::{LayerId, OverlayError, SECTOR_BYTES};
use crate::config::DiskFile;
use crate::disk::Disk;
use machine::input::DiskStatus;
use machine::output::DiskOperation;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const SECTORS: u64 = 64;

/// A disk, what it should hold, and the layers over its image.
struct Bench {
    directory: TempDir,
    volumes: Volumes,
    model: Vec<u8>,
}

/// The image there, whatever it is.
fn image(directory: &Path) -> PathBuf {
    let qcow2 = directory.join("disk.qcow2");
    let is_qcow2 = qcow2.exists();
    if is_qcow2 {
        qcow2
    } else {
        directory.join("disk.raw")
    }
}

impl Bench {
    fn new() -> Bench {
        Bench::with("disk.raw")
    }

    /// With an image of this name.
    fn with(name: &str) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let model = vec![0xee; (SECTORS * SECTOR_BYTES) as usize];
        let file = DiskFile::new(&directory.path().join(name), false);
        let disk = Disk::for_copy(&file, model.len() as u64, directory.path()).unwrap();
        disk.write_copied(0, &model).unwrap();
        drop(disk);
        let volumes = volumes(directory.path(), None);
        Bench {
            directory,
            volumes,
            model,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn perform(&mut self, operation: DiskOperation) -> Vec<u8> {
        let outcome = self.volumes.perform(0, &operation).unwrap();
        assert_eq!(outcome.status, DiskStatus::Ok, "{:?}", outcome.host_error);
        outcome.data
    }

    fn write(&mut self, sector: u64, sectors: u64, byte: u8) {
        let data = vec![byte; (sectors * SECTOR_BYTES) as usize];
        let from = (sector * SECTOR_BYTES) as usize;
        self.model[from..from + data.len()].copy_from_slice(&data);
        self.perform(DiskOperation::Write { sector, data });
    }

    fn zero(&mut self, sector: u64, sectors: u64) {
        let from = (sector * SECTOR_BYTES) as usize;
        self.model[from..from + (sectors * SECTOR_BYTES) as usize].fill(0);
        self.perform(DiskOperation::Zero { sector, sectors });
    }

    fn flush(&mut self) {
        self.perform(DiskOperation::Flush);
    }

    fn all(&mut self) -> Vec<u8> {
        let (sector, length) = (0, (SECTORS * SECTOR_BYTES) as u32);
        self.perform(DiskOperation::Read { sector, length })
    }

    fn freeze(&mut self, id: u128) {
        let frozen = self.volumes.freeze(LayerId(id)).unwrap();
        frozen.sync().unwrap();
    }

    fn merge(&mut self, id: u128) {
        let merging = self.volumes.older_than(LayerId(id));
        let counts = merging.counts();
        merging.run().unwrap();
        self.volumes.merged(&counts);
    }

    fn leave(&mut self) {
        while let Some(merging) = self.volumes.leave().unwrap() {
            let counts = merging.counts();
            merging.run().unwrap();
            self.volumes.merged(&counts);
        }
    }

    /// Everything ends: what the files are then, in a directory of their own.
    fn crashed(&self) -> TempDir {
        let crashed = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), crashed.path().join(entry.file_name())).unwrap();
        }
        crashed
    }
}

fn volumes(directory: &Path, begun: Option<Begun>) -> Volumes {
    let disk = Disk::open(&DiskFile::new(&image(directory), false)).unwrap();
    Volumes::new(Arc::new(vec![disk]), vec![begun])
}

/// What a machine finds that is started from its disk.
fn started(directory: &Path) -> Result<Vec<u8>, OverlayError> {
    let disk = Disk::open(&DiskFile::new(&image(directory), false)).unwrap();
    merge_all(&image(directory), &disk)?;
    let mut content = vec![0; disk.length() as usize];
    disk.read_at(0, &mut content).unwrap();
    Ok(content)
}

/// The files beside the image.
fn beside(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains(".overlay")).collect();
    names.sort();
    names
}

/// What a machine has that goes on from its journal.
fn recovered(directory: &Path, id: u128) -> Bench2 {
    let disk = Disk::open(&DiskFile::new(&image(directory), false)).unwrap();
    let begun = begin_again(&image(directory), &disk, LayerId(id)).unwrap();
    drop(disk);
    Bench2(volumes(directory, Some(begun)))
}

/// A disk of which nothing else is known.
struct Bench2(Volumes);

impl Bench2 {
    fn all(&mut self) -> Vec<u8> {
        let (sector, length) = (0, (SECTORS * SECTOR_BYTES) as u32);
        let read = DiskOperation::Read { sector, length };
        self.0.perform(0, &read).unwrap().data
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64),
    Zero(u64, u64),
    Flush,
    Snapshot,
    Merge,
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    let stretch = (0..SECTORS, 1..9u64);
    let stretch = stretch.prop_map(|(from, length)| (from, length.min(SECTORS - from)));
    prop_oneof![
        6 => stretch.clone().prop_map(|(from, length)| Step::Write(from, length)),
        2 => stretch.prop_map(|(from, length)| Step::Zero(from, length)),
        1 => Just(Step::Flush),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Merge),
        1 => Just(Step::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The guest reads what it wrote, a start finds it, and a journal finds what there was at its snapshot,
    /// whatever was merged by then.
    #[test]
    fn a_disk_in_layers_is_the_disk(
        is_qcow2 in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut bench = Bench::with(if is_qcow2 { "disk.qcow2" } else { "disk.raw" });
        let mut snapshots: Vec<Vec<u8>> = Vec::new();
        // The first that a journal can go on from, and whether none can.
        let (mut first, mut has_left) = (1, true);
        for (index, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(from, length) => bench.write(from, length, index as u8),
                Step::Zero(from, length) => bench.zero(from, length),
                Step::Flush => bench.flush(),
                Step::Snapshot => {
                    snapshots.push(bench.model.clone());
                    bench.freeze(snapshots.len() as u128);
                    has_left = false;
                }
                // The newest snapshot is whole.
                Step::Merge if !has_left => {
                    bench.merge(snapshots.len() as u128);
                    first = snapshots.len();
                }
                Step::Merge => {}
                Step::Leave => {
                    bench.leave();
                    (first, has_left) = (snapshots.len() + 1, true);
                    prop_assert!(beside(bench.path()).is_empty());
                }
            }
            let expected = bench.model.clone();
            prop_assert_eq!(bench.all(), expected);
        }
        bench.flush();
        let crashed = bench.crashed();
        if !has_left {
            // The newest that is whole, or the one that was being taken.
            for snapshot in first..=snapshots.len() {
                let crashed = bench.crashed();
                let mut recovered = recovered(crashed.path(), snapshot as u128);
                prop_assert_eq!(&recovered.all(), &snapshots[snapshot - 1]);
            }
        }
        prop_assert_eq!(started(crashed.path()).unwrap(), bench.model);
        prop_assert!(beside(crashed.path()).is_empty());
    }
}

/// A machine replays its journal: until it has, what was beside the image is the disk.
#[test]
fn an_overlay_counts_until_the_replay_that_takes_its_place_is_over() {
    let mut bench = Bench::new();
    bench.write(0, 4, 1);
    bench.freeze(7);
    let at_snapshot = bench.model.clone();
    bench.write(2, 4, 2);
    bench.flush();
    // The next snapshot was being taken.
    bench.freeze(8);
    bench.write(4, 4, 3);
    bench.flush();
    let whole = bench.model.clone();
    let crashed = bench.crashed();
    let mut replay = recovered(crashed.path(), 7);
    assert_eq!(replay.all(), at_snapshot);
    let again = DiskOperation::Write {
        sector: 2,
        data: vec![2; 4 * SECTOR_BYTES as usize],
    };
    replay.0.perform(0, &again).unwrap();
    let mut replayed = at_snapshot.clone();
    replayed[2 * 512..6 * 512].fill(2);
    assert_eq!(replay.all(), replayed);
    let copy_of = |from: &Path| {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        copy
    };
    let in_between = copy_of(crashed.path());
    assert_eq!(started(in_between.path()).unwrap(), whole);
    let in_between = copy_of(crashed.path());
    assert_eq!(recovered(in_between.path(), 7).all(), at_snapshot);
    replay.0.commit().unwrap();
    assert_eq!(beside(crashed.path()).len(), 1);
    has_layer(&image(crashed.path()), LayerId(7)).unwrap();
    has_layer(&image(crashed.path()), LayerId(8)).unwrap_err();
    let afterwards = copy_of(crashed.path());
    assert_eq!(recovered(afterwards.path(), 7).all(), at_snapshot);
    drop(replay);
    assert_eq!(started(crashed.path()).unwrap(), replayed);
}

/// The removal of what was replaced may be undone by a loss of power, or not have been reached.
#[test]
fn what_a_replay_replaced_does_not_count_even_if_it_is_still_there() {
    let mut bench = Bench::new();
    bench.freeze(7);
    bench.write(0, 8, 1);
    bench.flush();
    let crashed = bench.crashed();
    let old = fs::read(crashed.path().join("disk.raw.overlay-00000001")).unwrap();
    let mut replay = recovered(crashed.path(), 7);
    let at_snapshot = replay.all();
    replay.0.commit().unwrap();
    drop(replay);
    fs::write(crashed.path().join("disk.raw.overlay-00000001"), old).unwrap();
    assert_eq!(started(crashed.path()).unwrap(), at_snapshot);
    assert!(beside(crashed.path()).is_empty());
}

/// What was not synced may be there in part, and is cut off; what was is there, or it is damage.
#[test]
fn a_torn_end_is_cut_off_and_damage_is_not() {
    let mut bench = Bench::new();
    bench.freeze(1);
    bench.write(0, 4, 1);
    bench.flush();
    let durable = bench.model.clone();
    bench.write(8, 4, 2);
    let layer = "disk.raw.overlay-00000001";
    let whole = fs::read(bench.path().join(layer)).unwrap();
    let second = whole.len() - 5 * 512;
    for length in (second..whole.len()).step_by(256) {
        let crashed = bench.crashed();
        fs::write(crashed.path().join(layer), &whole[..length]).unwrap();
        assert_eq!(started(crashed.path()).unwrap(), durable, "{length}");
    }
    // Blocks that never came, and a bit that fell over, in what says itself to come after a flush.
    let mut damaged = whole.clone();
    damaged[1024] ^= 1;
    let crashed = bench.crashed();
    fs::write(crashed.path().join(layer), &damaged).unwrap();
    let before = fs::read(image(crashed.path())).unwrap();
    let error = started(crashed.path()).unwrap_err().to_string();
    for word in [layer, "byte 512", &format!("byte {second} came after it")] {
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(fs::read(image(crashed.path())).unwrap(), before);
    // What was being made when everything ended.
    let crashed = bench.crashed();
    fs::write(crashed.path().join(layer), &whole[..100]).unwrap();
    started(crashed.path()).unwrap();
}

#[test]
fn an_overlay_of_another_image_is_refused_and_one_that_is_missing_is_told() {
    let mut bench = Bench::new();
    bench.freeze(1);
    bench.write(0, 4, 1);
    let crashed = bench.crashed();
    let longer = vec![0; 1 << 20];
    fs::write(image(crashed.path()), &longer).unwrap();
    let error = started(crashed.path()).unwrap_err().to_string();
    assert!(error.contains("image of 32768 bytes"), "{error}");
    remove_all(&image(crashed.path())).unwrap();
    assert!(beside(crashed.path()).is_empty());
    let error = has_layer(&image(crashed.path()), LayerId(1));
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("not as it was at the journal's snapshot"),
        "{error}"
    );
}

/// As any other write that fails.
#[test]
fn requests_that_no_disk_would_carry_out_are_the_guests_fault_in_layers_as_well() {
    let mut bench = Bench::new();
    bench.freeze(1);
    for operation in [
        DiskOperation::Write {
            sector: SECTORS,
            data: vec![0; 512],
        },
        DiskOperation::Write {
            sector: 0,
            data: vec![0; 5],
        },
        DiskOperation::Zero {
            sector: 1,
            sectors: SECTORS,
        },
        DiskOperation::Read {
            sector: u64::MAX,
            length: 512,
        },
    ] {
        let outcome = bench.volumes.perform(0, &operation).unwrap();
        assert_eq!(outcome.status, DiskStatus::IoError);
        assert_eq!(outcome.host_error, None);
    }
    let expected = bench.model.clone();
    assert_eq!(bench.all(), expected);
}
