//! A kept snapshot, cut and damaged at every place: it is refused, and what is wrong has a name.
//! `docs/log-format.md`, "A kept snapshot".

use proptest::prelude::*;
use replication::configuration::{Build, Configuration};
use replication::message::LifeId;
use replication::record::InstructionCount;
use replication::snapshot_file::{FileError, FileHead, FileItem, FilePart, FileReader, FileWriter};
use replication::succession::{Generation, LifeNumber, MachineName};

fn head(disks: &[u64]) -> FileHead {
    FileHead {
        machine: MachineName::new("vm").unwrap(),
        host: "hosta".into(),
        build: Build::new("0.1.0 (abc)"),
        taken_unix_ns: 1_796_000_000_000_000_000,
        life: LifeNumber(3),
        life_id: LifeId(77),
        generation: Generation(5),
        count: InstructionCount(123_456_789),
        semantics_version: 8,
        configuration: Configuration::new(99)
            .with("memory", "512M")
            .with("harts", 1),
        memory_bytes: 1 << 20,
        disks: disks.to_vec(),
    }
}

/// Parts of every kind, and what is in them.
fn parts() -> Vec<(FilePart, Vec<u8>)> {
    let state = |bytes| FilePart::State { bytes };
    let pages = |first, last| FilePart::Pages {
        first,
        last,
        bytes: 4100,
    };
    vec![
        (state(40), vec![1; 40]),
        (pages(0, 255), (0..200).map(|n| n as u8).collect()),
        (pages(256, 511), vec![3; 90]),
        (state(8), vec![4; 8]),
        (
            FilePart::Disk {
                device: 0,
                from: 0,
                to: 512,
            },
            vec![5; 60],
        ),
        (
            FilePart::Hole {
                device: 0,
                from: 512,
                to: 4096,
            },
            vec![],
        ),
        (
            FilePart::Disk {
                device: 1,
                from: 0,
                to: 1024,
            },
            vec![6; 30],
        ),
    ]
}

/// The file of these parts, and where each of them begins and ends in it.
fn written(parts: &[(FilePart, Vec<u8>)]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let mut writer = FileWriter::begin(&head(&[4096, 1024]));
    let mut file = writer.take_bytes();
    let mut places = Vec::new();
    for (part, bytes) in parts {
        let begins = file.len();
        writer.part(*part, bytes);
        file.extend(writer.take_bytes());
        places.push((begins, file.len()));
    }
    writer.end();
    file.extend(writer.take_bytes());
    (file, places)
}

/// All of it, in pieces of this length.
fn read(file: &[u8], piece: usize) -> Result<Vec<FileItem>, FileError> {
    let mut reader = FileReader::default();
    let mut items = Vec::new();
    for bytes in file.chunks(piece) {
        reader.push(bytes);
        while let Some(item) = reader.next_item()? {
            items.push(item);
        }
    }
    reader.finish().map(|()| items)
}

#[test]
fn what_is_written_is_read_whatever_the_pieces() {
    let (file, _) = written(&parts());
    for piece in [1, 2, 7, 64, file.len()] {
        let items = read(&file, piece).unwrap();
        assert_eq!(items[0], FileItem::Head(Box::new(head(&[4096, 1024]))));
        let read: Vec<_> = items[1..items.len() - 1].to_vec();
        let expected = parts().into_iter();
        let expected: Vec<_> = expected
            .map(|(part, bytes)| FileItem::Part(part, bytes))
            .collect();
        assert_eq!(read, expected);
        assert_eq!(items.last(), Some(&FileItem::End));
    }
}

#[test]
fn cut_at_any_byte_it_is_torn_and_says_after_what() {
    let (file, places) = written(&parts());
    for length in 0..file.len() {
        let error = read(&file[..length], 64).unwrap_err();
        let FileError::Torn { after } = &error else {
            panic!("cut after {length} of {}: {error}", file.len());
        };
        let whole = places.iter().filter(|(_, end)| *end <= length).count();
        if whole > 0 {
            assert_eq!(
                *after,
                parts()[whole - 1].0.to_string(),
                "cut after {length}"
            );
        }
    }
}

#[test]
fn any_bit_that_flips_is_found_and_the_part_is_named() {
    let (file, places) = written(&parts());
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            let error = read(&damaged, 64).expect_err("damage was not seen");
            let place = places
                .iter()
                .position(|(from, to)| (*from..*to).contains(&at));
            let Some(place) = place else {
                continue;
            };
            // Which part it is is said in the frame before: where that is damaged, the one before is named.
            let own = parts()[place].0.to_string();
            let before = match place {
                0 => "its head".into(),
                place => parts()[place - 1].0.to_string(),
            };
            let told = error.to_string();
            assert!(
                told.contains(&own) || told.contains(&before),
                "byte {at}, bit {bit}: {told}"
            );
        }
    }
}

#[test]
fn what_is_in_a_damaged_part_is_named_by_pages_or_by_bytes_of_a_disk() {
    let (file, places) = written(&parts());
    for (part, named) in [
        (1, "memory, pages 0 to 255"),
        (4, "disk 0, bytes 0 to 512"),
        (6, "disk 1, bytes 0 to 1024"),
    ] {
        let mut damaged = file.clone();
        damaged[places[part].1 - 3] ^= 0x10;
        let told = read(&damaged, 64).unwrap_err().to_string();
        assert!(told.contains(&format!("damaged in {named}")), "{told}");
    }
}

#[test]
fn a_part_that_is_missing_repeated_or_out_of_order_is_found() {
    let whole = parts();
    for index in 4..whole.len() {
        let mut fewer = whole.clone();
        fewer.remove(index);
        assert!(matches!(
            read(&written(&fewer).0, 64),
            Err(FileError::Order { .. })
        ));
        let mut more = whole.clone();
        more.push(whole[index].clone());
        assert!(matches!(
            read(&written(&more).0, 64),
            Err(FileError::Order { .. })
        ));
    }
    let mut late = whole.clone();
    late.push(whole[0].clone());
    assert!(matches!(
        read(&written(&late).0, 64),
        Err(FileError::Order { .. })
    ));
    let (mut file, _) = written(&whole);
    file.push(0);
    assert_eq!(read(&file, 64), Err(FileError::Beyond));
}

#[test]
fn what_is_something_else_or_of_another_version_is_told() {
    assert_eq!(read(&[7; 100], 9), Err(FileError::Foreign));
    let (mut file, _) = written(&parts());
    file[8] = 9;
    assert_eq!(read(&file, 9), Err(FileError::Version { found: 9 }));
}

#[test]
fn a_taking_that_was_given_up_is_no_file() {
    let mut writer = FileWriter::begin(&head(&[]));
    writer.part(FilePart::State { bytes: 3 }, &[1, 2, 3]);
    writer.failed("the disk failed");
    let items = read(&writer.take_bytes(), 5).unwrap();
    assert_eq!(
        items.last(),
        Some(&FileItem::Failed("the disk failed".into()))
    );
}

proptest! {
    /// Whatever comes, nothing panics, and nothing that was not written is taken for whole.
    #[test]
    fn garbage_is_refused(garbage in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400) {
        let (file, _) = written(&parts());
        let at = at.min(file.len());
        let mut mixed = file[..at].to_vec();
        mixed.extend_from_slice(&garbage);
        if mixed != file {
            prop_assert!(read(&mixed, 33).is_err());
        }
    }
}
