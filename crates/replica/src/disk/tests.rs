use super::*;
use machine::output::DiskRequest;
use replication::blocks::{Comparison, Difference, WINDOW_BYTES};
use replication::mutation::Mutations;
use std::sync::Arc;
use std::sync::mpsc;
use tempfile::TempDir;

fn image(length: u64) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(length)
        .unwrap();
    (directory, path)
}

#[test]
fn requests_are_carried_out_in_order() {
    let (_directory, path) = image(1 << 20);
    let disk = Disk::open(&DiskFile::new(&path, false)).unwrap();
    assert_eq!(disk.sectors(), 2048);
    let (sender, completions) = mpsc::channel();
    let thread = DiskThread::start(Arc::new(vec![disk]), move |c| sender.send(c).unwrap()).unwrap();
    let operations = [
        DiskOperation::Write {
            sector: 3,
            data: vec![7; 1024],
        },
        DiskOperation::Flush,
        DiskOperation::Zero {
            sector: 4,
            sectors: 1,
        },
        DiskOperation::Read {
            sector: 3,
            length: 1024,
        },
    ];
    for (request, operation) in operations.into_iter().enumerate() {
        thread.submit(DiskRequest {
            device: 0,
            request: request as u64,
            operation,
        });
    }
    let completions: Vec<_> = completions.iter().take(4).collect();
    assert!(completions.iter().all(|c| c.status == DiskStatus::Ok));
    let expected = [vec![7; 512], vec![0; 512]].concat();
    assert_eq!(
        (completions[3].request, &completions[3].data),
        (3, &expected)
    );
}

#[test]
fn a_request_outside_the_disk_or_to_no_disk_is_an_error_of_the_guest() {
    let (_directory, path) = image(1 << 20);
    let disk = Disk::open(&DiskFile::new(&path, false)).unwrap();
    for operation in [
        DiskOperation::Read {
            sector: 2047,
            length: 1024,
        },
        DiskOperation::Read {
            sector: u64::MAX,
            length: 512,
        },
        DiskOperation::Read {
            sector: 0,
            length: u32::MAX,
        },
        DiskOperation::Write {
            sector: 2048,
            data: vec![0; 512],
        },
        DiskOperation::Write {
            sector: 0,
            data: vec![0; 5],
        },
        DiskOperation::Zero {
            sector: 1,
            sectors: u64::MAX,
        },
    ] {
        let outcome = disk.perform(&operation);
        assert_eq!(outcome.status, DiskStatus::IoError, "{operation:?}");
        assert!(
            outcome.host_error.is_none(),
            "another disk would do no better"
        );
    }
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let (_directory, path) = image(4096);
    let disk = Disk::open(&DiskFile::new(&path, true)).unwrap();
    let outcome = disk.perform(&DiskOperation::Write {
        sector: 0,
        data: vec![1; 512],
    });
    assert_eq!(outcome.status, DiskStatus::IoError);
    assert_eq!(
        disk.perform(&DiskOperation::Read {
            sector: 0,
            length: 512
        })
        .data,
        vec![0; 512]
    );
}

#[test]
fn a_disk_is_used_by_one_machine_at_a_time() {
    let (_directory, path) = image(4096);
    let first = Disk::open(&DiskFile::new(&path, false)).unwrap();
    assert!(matches!(
        Disk::open(&DiskFile::new(&path, false)),
        Err(DiskError::InUseHere { .. })
    ));
    // Nor is what lies over its image anybody else's.
    let mut layer = path.clone().into_os_string();
    layer.push(".overlay-00000001");
    let layer = PathBuf::from(layer);
    std::fs::write(&layer, []).unwrap();
    assert!(matches!(
        for_copy(&path, 4096),
        Err(DiskError::InUseHere { .. })
    ));
    assert!(layer.exists());
    drop(first);
    for_copy(&path, 4096).unwrap();
    assert!(!layer.exists());
}

/// With its state directory beside the image, in which whatever is there may go.
fn for_copy(path: &Path, length: u64) -> Result<Disk, DiskError> {
    let file = DiskFile {
        may_be_overwritten: true,
        ..DiskFile::new(path, false)
    };
    Disk::for_copy(&file, length, path.parent().unwrap())
}

/// Finding: what had been put in the place of a copy, with the copy's marker beside it, was cut to the machine's length.
#[test]
fn a_file_of_another_length_is_no_copy_unless_there_is_nothing_in_it() {
    let (directory, path) = image(8192);
    let file = DiskFile::new(&path, false);
    let copy = |length| Disk::for_copy(&file, length, directory.path());
    let mut layer = path.clone().into_os_string();
    layer.push(".overlay-00000001");
    std::fs::write(&path, [7; 8192]).unwrap();
    std::fs::write(&layer, []).unwrap();
    let refused = copy(4096).unwrap_err().to_string();
    assert!(
        refused.contains("has 8192 bytes") && refused.contains("disk has 4096"),
        "{refused}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), [7; 8192]);
    assert!(Path::new(&layer).exists(), "what lies over it is its own");
    drop(copy(8192).unwrap());
    std::fs::write(&path, [0; 8192]).unwrap();
    drop(copy(4096).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), [0; 4096]);
}

#[test]
fn wrong_images_are_refused_with_the_reason() {
    let (directory, path) = image(1000);
    assert!(
        Disk::open(&DiskFile::new(&path, false))
            .unwrap_err()
            .to_string()
            .contains("1000 bytes")
    );
    assert!(matches!(
        Disk::open(&DiskFile::new(directory.path(), true)),
        Err(DiskError::Kind { .. })
    ));
    let missing = directory.path().join("missing");
    assert!(
        Disk::open(&DiskFile::new(&missing, false))
            .unwrap_err()
            .to_string()
            .contains("missing")
    );
    std::fs::File::create(&path).unwrap();
    assert!(matches!(
        Disk::open(&DiskFile::new(&path, false)),
        Err(DiskError::Size { length: 0, .. })
    ));
}

/// What is there stays, but for what is beyond the new end.
#[test]
fn a_copy_begins_with_what_was_there_at_the_length_that_it_is_to_have() {
    for old in [0, 1000, 4096, 8192, 100_000] {
        let (_directory, path) = image(0);
        std::fs::write(&path, vec![9; old]).unwrap();
        let copy = for_copy(&path, 8192).unwrap();
        assert_eq!(copy.length(), 8192);
        let mut expected = vec![9; old];
        expected.resize(8192, 0);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }
}

/// Writes a byte into some sectors of a disk of a few windows.
fn fill(disk: &Disk, sectors: impl Iterator<Item = u64>, byte: u8) {
    for sector in sectors {
        let data = vec![byte; 512];
        let outcome = disk.perform(&DiskOperation::Write { sector, data });
        assert_eq!(outcome.status, DiskStatus::Ok);
    }
}

/// Brings `copy` along as a primary and a joiner do, each with its own side of it; `write` is called when the
/// copy has begun. Returns the bytes that were sent.
fn bring_along(from: Disk, copy: Disk, write: impl FnOnce(&DiskThread)) -> (u64, Disk) {
    let lengths = [from.length()];
    let (sender, _completions) = mpsc::channel();
    let thread = DiskThread::start(Arc::new(vec![from]), move |c| {
        let _sent = sender.send(c);
    });
    let thread = thread.unwrap();
    let parts = thread.begin_copy(1);
    write(&thread);
    let copy = Arc::new(vec![copy]);
    let comparison = Comparison {
        seed: 3,
        mutations: Mutations::default(),
    };
    let digesting = Digesting::start(copy.clone(), comparison.seed).unwrap();
    let mut sent = 0;
    for (device, range) in windows(&lengths) {
        let window = digesting.next().unwrap().unwrap();
        assert!((window.device, &window.range) == (device, &range) && window.is_whole());
        while let CopiedPart::Chunk(chunk) = parts.recv().unwrap() {
            let content = chunk.content.unwrap();
            let known = window.at(chunk.device, chunk.offset, content.length());
            let found = match &content {
                Content::Bytes(bytes) => comparison.differences(bytes, known),
                Content::Zeros(length) => {
                    comparison.differences_from_zeros(*length as usize, known)
                }
            };
            for Difference { range, is_zeros } in found {
                let at = chunk.offset + range.start as u64;
                match &content {
                    Content::Bytes(bytes) if !is_zeros => {
                        sent += range.len() as u64;
                        copy[0].write_copied(at, &bytes[range]).unwrap();
                    }
                    _ => copy[0].zero_copied(at, range.len() as u64).unwrap(),
                }
            }
        }
    }
    assert!(digesting.next().is_none() && parts.recv().is_err());
    digesting.close();
    (sent, Arc::into_inner(copy).unwrap().pop().unwrap())
}

const WINDOWS: u64 = 2 * WINDOW_BYTES + 3 * CHUNK_BYTES + 1024;

/// A new host gets what is allocated of a sparse image, and one that comes back what differs.
#[test]
fn only_blocks_that_differ_are_copied() {
    let (_directory, path) = image(WINDOWS);
    let from = Disk::open(&DiskFile::new(&path, false)).unwrap();
    let every = WINDOWS / 512 / 20;
    fill(&from, (0..20).map(|n| n * every), 1);
    let (directory, copy_path) = image(0);
    let copy = for_copy(&copy_path, WINDOWS).unwrap();
    let (sent, copy) = bring_along(from, copy, |_| {});
    assert_eq!(sent, 20 * 4096, "what is allocated, to the block");
    drop(copy);
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&copy_path).unwrap());
    // The primary goes on, and so did the host that went away, with other blocks.
    let from = Disk::open(&DiskFile::new(&path, false)).unwrap();
    fill(&from, [0, every, 5 * every + 8].into_iter(), 2);
    fill(&from, [7 * every].into_iter(), 0);
    let copy = for_copy(&copy_path, WINDOWS).unwrap();
    fill(&copy, [2 * every, 9 * every + 16].into_iter(), 3);
    let (sent, copy) = bring_along(from, copy, |_| {});
    assert_eq!(sent, 4 * 4096, "what differs, to the block, and no zeros");
    drop(copy);
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&copy_path).unwrap());
    drop(directory);
}

fn content(path: &Path) -> Vec<u8> {
    let disk = Disk::open(&DiskFile::new(path, false)).unwrap();
    let mut content = vec![1; disk.length() as usize];
    disk.read_at(0, &mut content).unwrap();
    content
}

/// What counts is the content: a raw image and a qcow2 image are copies of each other.
#[test]
fn only_blocks_that_differ_are_copied_between_a_raw_and_a_qcow2_image() {
    let (directory, raw) = image(WINDOWS);
    let qcow2 = directory.path().join("disk.qcow2");
    let every = WINDOWS / 512 / 20;
    let open = |path: &Path| Disk::open(&DiskFile::new(path, false)).unwrap();
    let from = open(&raw);
    fill(&from, (0..20).map(|n| n * every), 1);
    let (sent, copy) = bring_along(from, for_copy(&qcow2, WINDOWS).unwrap(), |_| {});
    assert_eq!(sent, 20 * 4096, "what is allocated, to the block");
    drop(copy);
    assert!(content(&raw) == content(&qcow2));
    let from = open(&qcow2);
    fill(&from, [0, every, 5 * every + 8].into_iter(), 2);
    from.zero_copied(7 * every * 512, 512 * every).unwrap();
    let (sent, copy) = bring_along(from, for_copy(&raw, WINDOWS).unwrap(), |_| {});
    assert_eq!(sent, 3 * 4096, "what differs, to the block, and no zeros");
    drop(copy);
    assert!(content(&raw) == content(&qcow2));
}

/// Of a raw image the kernel has everything that was written; of this one the tables are in memory.
#[test]
fn a_qcow2_image_is_synced_by_its_name_with_its_tables() {
    let directory = tempfile::tempdir().unwrap();
    let file = DiskFile::new(&directory.path().join("disk.qcow2"), false);
    let disk = for_copy(&file.path, 1 << 20).unwrap();
    fill(&disk, [3, 1000].into_iter(), 7);
    let copied = directory.path().join("copied.qcow2");
    let has_it = || {
        std::fs::copy(&file.path, &copied).unwrap();
        let content = content(&copied);
        content[3 * 512] == 7 && content[1000 * 512] == 7
    };
    assert!(!has_it(), "nobody has asked for it");
    sync_file(&file).unwrap();
    assert!(has_it());
    fill(&disk, [3].into_iter(), 0);
    drop(disk);
    assert_eq!(content(&file.path)[3 * 512], 0, "closing it writes it");
    assert_eq!(length_of(&file).unwrap(), 1 << 20);
    sync_file(&file).unwrap();
}

/// What was being made when everything ended is made again, and so is what has another length; what is
/// something else is nobody's to overwrite.
#[test]
fn a_copy_in_a_qcow2_image_is_made_where_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.qcow2");
    for before in [&b""[..], &[0; 5000]] {
        std::fs::write(&path, before).unwrap();
        let copy = for_copy(&path, 1 << 20).unwrap();
        assert_eq!(copy.length(), 1 << 20);
        fill(&copy, [9].into_iter(), 9);
    }
    assert_eq!(content(&path)[9 * 512], 9, "what is there stays");
    drop(for_copy(&path, 1 << 20).unwrap());
    assert_eq!(content(&path)[9 * 512], 9, "what is there stays");
    drop(for_copy(&path, 2 << 20).unwrap());
    assert!(content(&path) == vec![0; 2 << 20]);
    std::fs::write(&path, b"something else").unwrap();
    let error = for_copy(&path, 1 << 20).unwrap_err().to_string();
    assert!(error.contains("is no qcow2 image"), "{error}");
}

/// What the guest is about to write to comes before its window, when nobody knows what the copy has there.
#[test]
fn a_copy_of_what_is_written_to_meanwhile_is_of_its_moment() {
    let (_directory, path) = image(WINDOWS);
    let from = Disk::open(&DiskFile::new(&path, false)).unwrap();
    let every = WINDOWS / 512 / 20;
    fill(&from, (0..10).map(|n| n * every), 1);
    let expected = std::fs::read(&path).unwrap();
    let (_other, copy_path) = image(WINDOWS);
    let copy = for_copy(&copy_path, WINDOWS).unwrap();
    fill(&copy, (5..20).map(|n| n * every + 3), 2);
    let written = [19, 12, 8, 3];
    let (_, copy) = bring_along(from, copy, |thread| {
        for (request, n) in written.into_iter().enumerate() {
            thread.submit(DiskRequest {
                device: 0,
                request: request as u64,
                operation: DiskOperation::Write {
                    sector: n * every,
                    data: vec![4; 512],
                },
            });
        }
    });
    drop(copy);
    assert!(std::fs::read(&copy_path).unwrap() == expected);
}

#[test]
fn a_copy_is_of_the_moment_at_which_it_began() {
    let length = 40 * CHUNK_BYTES + 1024;
    let (_directory, path) = image(length);
    let disks = Arc::new(vec![Disk::open(&DiskFile::new(&path, false)).unwrap()]);
    let (sender, completions) = mpsc::channel();
    let thread = DiskThread::start(disks, move |c| sender.send(c).unwrap()).unwrap();
    let mut request = 0;
    let mut write = |sector: u64, byte: u8| {
        let operation = DiskOperation::Write {
            sector,
            data: vec![byte; 512],
        };
        thread.submit(DiskRequest {
            device: 0,
            request,
            operation,
        });
        request += 1;
    };
    for sector in (0..length / 512).step_by(700) {
        write(sector, 1);
    }
    let chunks = thread.begin_copy(1);
    for sector in (0..length / 512).rev().step_by(300) {
        write(sector, 2);
    }
    let (directory, copy_path) = image(0);
    let copy = for_copy(&copy_path, length).unwrap();
    for part in chunks.iter() {
        let CopiedPart::Chunk(chunk) = part else {
            continue;
        };
        match chunk.content.unwrap() {
            Content::Bytes(bytes) => copy.write_copied(chunk.offset, &bytes).unwrap(),
            Content::Zeros(length) => copy.zero_copied(chunk.offset, length).unwrap(),
        }
    }
    drop(directory);
    for sector in 0..length / 512 {
        let expected = u8::from(sector % 700 == 0);
        let data = copy
            .perform(&DiskOperation::Read {
                sector,
                length: 512,
            })
            .data;
        assert!(data.iter().all(|byte| *byte == expected), "sector {sector}");
    }
    assert!(
        completions
            .iter()
            .take(request as usize)
            .all(|c| c.status == DiskStatus::Ok)
    );
}

#[test]
fn a_copy_that_nobody_wants_any_more_ends_and_requests_go_on() {
    let (_directory, path) = image(40 * CHUNK_BYTES);
    let disk = Disk::open(&DiskFile::new(&path, false)).unwrap();
    for sector in (0..disk.sectors()).step_by(256) {
        disk.perform(&DiskOperation::Write {
            sector,
            data: vec![9; 512],
        });
    }
    let (sender, completions) = mpsc::channel();
    let thread = DiskThread::start(Arc::new(vec![disk]), move |c| sender.send(c).unwrap()).unwrap();
    let chunks = thread.begin_copy(1);
    assert!(chunks.recv().is_ok());
    drop(chunks);
    thread.submit(DiskRequest {
        device: 0,
        request: 0,
        operation: DiskOperation::Flush,
    });
    assert_eq!(completions.recv().unwrap().status, DiskStatus::Ok);
}

/// Stores what comes of a copy, while the guest goes on with what `meanwhile` does; says how many bytes came.
fn store(
    parts: &environment::mpsc::Receiver<CopiedPart>,
    copy: &Disk,
    mut meanwhile: impl FnMut(),
) -> u64 {
    let mut bytes = 0;
    for part in parts.iter() {
        let CopiedPart::Chunk(chunk) = part else {
            continue;
        };
        let content = chunk.content.unwrap();
        bytes += content.length();
        match content {
            Content::Bytes(bytes) => copy.write_copied(chunk.offset, &bytes).unwrap(),
            Content::Zeros(length) => copy.zero_copied(chunk.offset, length).unwrap(),
        }
        meanwhile();
    }
    bytes
}

/// A guest that writes and discards here and there, and what its disk holds.
struct WritingGuest<'a> {
    thread: &'a DiskThread,
    holds: Vec<u8>,
    state: u64,
}

impl WritingGuest<'_> {
    fn random(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below
    }

    fn write(&mut self) {
        let sectors = self.holds.len() as u64 / 512;
        // At a place in four: so some are written to again and again.
        let sector = self.random(sectors) / 4;
        let most = [1, 9, 1200][self.random(3) as usize];
        let count = (1 + self.random(most)).min(sectors - sector);
        let bytes = sector as usize * 512..(sector + count) as usize * 512;
        let operation = match self.random(4) {
            0 => {
                self.holds[bytes].fill(0);
                let sectors = count;
                DiskOperation::Zero { sector, sectors }
            }
            _ => {
                let byte = self.random(256) as u8;
                self.holds[bytes.clone()].fill(byte);
                let data = vec![byte; bytes.len()];
                DiskOperation::Write { sector, data }
            }
        };
        let device = 0;
        let request = self.state;
        self.thread.submit(DiskRequest {
            device,
            request,
            operation,
        });
    }
}

/// Finding: all of a joiner's disks were copied behind the moment from which it needs the log.
#[test]
fn a_copy_ahead_and_what_changed_since_are_the_disk_at_the_moment_of_the_last() {
    for seed in 1..=20 {
        let length = 21 * CHUNK_BYTES + 1536;
        let (_directory, path) = image(length);
        let disks = Arc::new(vec![Disk::open(&DiskFile::new(&path, false)).unwrap()]);
        let thread = DiskThread::start(disks, |c| assert_eq!(c.status, DiskStatus::Ok)).unwrap();
        let mut guest = WritingGuest {
            thread: &thread,
            holds: vec![0; length as usize],
            state: seed,
        };
        (0..9).for_each(|_| guest.write());
        let (_other, copy_path) = image(0);
        let copy = for_copy(&copy_path, length).unwrap();
        let mut passes = Vec::new();
        for _ in 0..3 {
            let (sender, parts) = copied_parts();
            thread.copy_ahead(PassAhead {
                pairing: 7,
                parts: sender,
                forgets_changes: false,
            });
            let mut left = 6;
            passes.push(store(&parts, &copy, || {
                if left > 0 {
                    guest.write();
                    left -= 1;
                }
            }));
        }
        let expected = guest.holds.clone();
        let rest = thread.begin_copy(7);
        passes.push(store(&rest, &copy, || guest.write()));
        assert_eq!(passes[0], length, "the first is of everything");
        assert!(
            passes[1..].iter().all(|bytes| *bytes < length),
            "{passes:?}"
        );
        let mut holds = vec![1; length as usize];
        copy.read_at(0, &mut holds).unwrap();
        assert!(holds == expected, "seed {seed}: {passes:?}");
        // The rest ends it: another copy for the same pairing is of everything, as it is then.
        let expected = guest.holds.clone();
        assert_eq!(store(&thread.begin_copy(7), &copy, || {}), length);
        copy.read_at(0, &mut holds).unwrap();
        assert!(holds == expected, "seed {seed}");
    }
}
