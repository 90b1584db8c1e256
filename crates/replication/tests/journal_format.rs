//! A journal's files, cut and damaged at every place: a torn tail loses only the tail, and what was
//! durable is never given up silently.

use replication::frame::FrameWriter;
use replication::journal::{
    BaseSnapshot, FORMAT_VERSION, JournalError, JournalHead, JournalItem, MachineTimes,
    SegmentReader, SegmentWriter, SnapshotFileReader, SnapshotFileWriter, SnapshotPiece,
    StoredRead, Tail,
};
use replication::life_log::{LogMark, Place};
use replication::message::LifeId;
use replication::primary::StoredRecords;
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};
use replication::succession::{JournalId, LifeNumber, MachineName};

fn head() -> JournalHead {
    JournalHead {
        disk_layer: 17,
        id: JournalId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        segment: 3,
        before: 99,
        machine: MachineName::new("vm").unwrap(),
        life: LifeNumber(2),
        life_id: LifeId(7),
        semantics_version: 5,
        configuration_hash: 6,
        place: Place {
            record: RecordNumber(40),
            count: InstructionCount(1000),
            mark: LogMark(8),
        },
        visible_outputs: 12,
        times: Some(MachineTimes {
            guest_ns: 1_000_000,
            unix_ns: 1_700_000_000_001_000_000,
        }),
        builds_on: None,
    }
}

/// What disks read before each of the commits.
fn reads() -> Vec<Vec<StoredRead>> {
    let read = |request: u64, length: usize| StoredRead {
        device: 1,
        request,
        bytes: 3 * length as u64,
        packed: vec![request as u8; length],
    };
    vec![
        vec![],
        vec![read(7, 300), read(9, 1)],
        vec![read(8, 40)],
        vec![],
    ]
}

/// Commits of several batches, with inputs of several lengths.
fn commits() -> Vec<Vec<StoredRecords>> {
    let mut next = 41;
    let mut commit = |lengths: &[&[usize]]| {
        let batches = lengths.iter().map(|lengths| {
            let first = next;
            let records = lengths.iter().map(|length| {
                next += 1;
                Record {
                    count: InstructionCount(1000 + next),
                    body: RecordBody::Input(vec![next as u8; *length]),
                }
            });
            let records = records.collect();
            StoredRecords {
                first_record: RecordNumber(first),
                released: first,
                records,
            }
        });
        batches.collect::<Vec<StoredRecords>>()
    };
    vec![
        commit(&[&[5]]),
        commit(&[&[1, 200], &[90]]),
        commit(&[&[30]]),
        commit(&[&[0, 0, 3], &[40], &[7]]),
    ]
}

/// The file, and where each commit ends.
fn written() -> (Vec<u8>, Vec<usize>) {
    let mut writer = SegmentWriter::begin(&head());
    let mut file = writer.take_bytes();
    let mut ends = vec![file.len()];
    for (reads, commit) in reads().iter().zip(commits()) {
        writer.commit(reads, &commit);
        file.extend(writer.take_bytes());
        ends.push(file.len());
    }
    assert_eq!(writer.bytes(), file.len() as u64);
    (file, ends)
}

type Read = (Vec<JournalItem>, Result<Tail, JournalError>);

fn read(bytes: &[u8], piece: usize) -> Read {
    let mut reader = SegmentReader::default();
    let mut items = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.next_item() {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return (items, Err(error)),
            }
        }
    }
    let last = reader.last();
    let end = reader.finish();
    let mut items_of_records = items.clone();
    items_of_records.retain(|item| !matches!(item, JournalItem::Read(_)));
    if let Some(JournalItem::Records(stored)) = items_of_records.last() {
        assert_eq!(stored.last_record(), last);
    }
    (items, end)
}

/// Items in the first so many commits.
fn batches(whole: usize) -> usize {
    let records = commits()[..whole].iter().map(Vec::len).sum::<usize>();
    records + reads()[..whole].iter().map(Vec::len).sum::<usize>()
}

#[test]
fn what_was_written_is_read_back() {
    let (file, _) = written();
    let mut writer = SegmentWriter::begin(&head());
    writer.take_bytes();
    let commits = || reads().into_iter().zip(commits());
    commits().for_each(|(reads, commit)| writer.commit(&reads, &commit));
    writer.take_bytes();
    for piece in [1, 7, 4096] {
        let (items, end) = read(&file, piece);
        let stored = commits().flat_map(|(reads, commit)| {
            let reads = reads.into_iter().map(JournalItem::Read);
            reads.chain(commit.into_iter().map(JournalItem::Records))
        });
        let expected: Vec<JournalItem> = std::iter::once(JournalItem::Head(head()))
            .chain(stored)
            .collect();
        assert_eq!(items, expected);
        let tail = end.unwrap();
        assert_eq!((tail.good_bytes, tail.torn_bytes), (file.len() as u64, 0));
        assert_eq!(tail.digest, writer.digest());
    }
}

/// Wherever the file ends, everything before the frame that is cut is there.
#[test]
fn a_torn_tail_loses_only_the_tail() {
    let (file, ends) = written();
    for length in ends[0]..=file.len() {
        let whole = ends.iter().filter(|end| **end <= length).count() - 1;
        for tail in [0, 3, 5000] {
            let torn = [&file[..length], &vec![0; tail][..]].concat();
            let (items, end) = read(&torn, 512);
            let end = end.unwrap_or_else(|error| panic!("{length}, {tail}: {error}"));
            assert!(items.len() > batches(whole), "{length}");
            assert!(end.good_bytes >= ends[whole] as u64 && end.good_bytes <= length as u64);
            assert_eq!(end.good_bytes + end.torn_bytes, torn.len() as u64);
        }
    }
}

/// A commit is written when the one before it is durable: damage before the last one is told, with the
/// last good record, whichever bit it is.
#[test]
fn a_flipped_bit_in_what_was_durable_is_refused_with_the_record_named() {
    let (file, ends) = written();
    let commits = commits();
    for position in ends[0]..ends[3] {
        let whole = ends.iter().filter(|end| **end <= position).count() - 1;
        let before = commits[..whole].iter().flatten().last();
        let before = before.map_or(RecordNumber(40), StoredRecords::last_record);
        let of_commit = commits[whole].iter();
        let until = before.plus(of_commit.map(|stored| stored.records.len() as u64).sum());
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[position] ^= 1 << bit;
            let (_, end) = read(&damaged, 100);
            match end {
                Err(JournalError::Records { after, .. } | JournalError::Order { after, .. }) => {
                    assert!((before..until).contains(&after), "{position}: {after}")
                }
                other => panic!("byte {position}, bit {bit}: {other:?}"),
            }
        }
    }
}

/// What is wrong in the last commit may never have been written whole.
#[test]
fn a_flipped_bit_in_the_last_commit_loses_no_more_than_that() {
    let (file, ends) = written();
    for position in ends[3]..file.len() {
        let mut damaged = file.clone();
        damaged[position] ^= 0x10;
        let (items, end) = read(&damaged, 100);
        assert!(items.len() > batches(3), "{position}");
        assert!(end.unwrap().good_bytes >= ends[3] as u64);
    }
}

#[test]
fn a_damaged_head_is_refused() {
    let (file, ends) = written();
    for position in 0..ends[0] {
        let mut damaged = file.clone();
        damaged[position] ^= 4;
        let (_, end) = read(&damaged, 100);
        end.unwrap_err();
    }
    for length in 0..ends[0] {
        let (items, end) = read(&file[..length], 100);
        assert!(items.is_empty());
        assert_eq!(end, Err(JournalError::NoHead));
    }
}

/// A piece of one file in another, or the same commit twice.
#[test]
fn records_of_another_place_are_refused() {
    let (file, ends) = written();
    let twice = [&file[..ends[2]], &file[ends[1]..]].concat();
    let (_, end) = read(&twice, 100);
    assert!(matches!(end, Ok(tail) if tail.good_bytes == ends[2] as u64));
    let missing = [&file[..ends[1]], &file[ends[2]..]].concat();
    let (items, end) = read(&missing, 100);
    // Their marks name another place: they are nobody's.
    assert_eq!((items.len(), end.unwrap().good_bytes), (2, ends[1] as u64));
}

/// Packed as it is written, which here means upside down.
fn pack(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

fn snapshot(bytes: &[u8]) -> Vec<u8> {
    let mut writer = SnapshotFileWriter::begin(&head());
    for piece in bytes.chunks(1000) {
        writer.packed(piece.len(), &pack(piece));
    }
    writer.end();
    writer.take_bytes()
}

fn read_snapshot(file: &[u8]) -> Result<(JournalHead, Vec<u8>), JournalError> {
    let mut reader = SnapshotFileReader::default();
    let mut snapshot = Vec::new();
    for piece in file.chunks(4096) {
        reader.push(piece);
        while let Some(piece) = reader.next_piece()? {
            match piece {
                SnapshotPiece::Plain(bytes) => snapshot.extend(bytes),
                SnapshotPiece::Packed { bytes, packed } => {
                    assert_eq!(bytes, packed.len() as u64);
                    snapshot.extend(pack(&packed));
                }
            }
        }
    }
    reader.finish()?;
    Ok((reader.head().unwrap().clone(), snapshot))
}

#[test]
fn a_snapshot_is_read_back_or_refused_with_its_piece_named() {
    let bytes: Vec<u8> = (0..50_000u32).map(|at| ((at * at) >> 3) as u8).collect();
    let file = snapshot(&bytes);
    assert_eq!(read_snapshot(&file).unwrap(), (head(), bytes.clone()));
    assert_eq!(read_snapshot(&snapshot(&[])).unwrap().1, []);
    for length in (0..file.len()).step_by(61) {
        let error = read_snapshot(&file[..length]).unwrap_err();
        assert!(
            matches!(error, JournalError::Short { .. } | JournalError::NoHead),
            "{length}: {error}"
        );
    }
    let begin = snapshot(&[]).len();
    for position in (0..file.len()).step_by(37) {
        let mut damaged = file.clone();
        damaged[position] ^= 2;
        match read_snapshot(&damaged) {
            Err(JournalError::Piece { piece, from, .. }) if position > begin => {
                // A frame has some bytes more than its piece.
                let at = (position - begin) as u64;
                assert!(from <= at && at < from + 1_000 + 700, "{position}: {from}");
                assert_eq!(from, (piece - 1) * 1000);
            }
            Err(_) => {}
            Ok(_) => panic!("byte {position}"),
        }
    }
}

/// What a snapshot builds on is a part of what it says of itself; in format 3 nothing could be there.
#[test]
fn a_snapshot_says_on_which_one_it_builds() {
    let increment = JournalHead {
        builds_on: Some(BaseSnapshot {
            segment: 2,
            mark: LogMark(5),
        }),
        ..head()
    };
    let mut writer = SnapshotFileWriter::begin(&increment);
    writer.end();
    let file = writer.take_bytes();
    assert_eq!(read_snapshot(&file).unwrap(), (increment, vec![]));
    let mut of_format_3 = file.clone();
    of_format_3[8..10].copy_from_slice(&3u16.to_le_bytes());
    let error = read_snapshot(&of_format_3).unwrap_err().to_string();
    assert!(error.contains("one of format 3 builds"), "{error}");
    // One that is whole is the same in both.
    let mut writer = SnapshotFileWriter::begin(&head());
    writer.end();
    let mut file = writer.take_bytes();
    file[8..10].copy_from_slice(&3u16.to_le_bytes());
    assert_eq!(read_snapshot(&file).unwrap(), (head(), vec![]));
}

/// The format of before: a host that was upgraded while everything was down goes on from it.
mod format_2 {
    use super::*;
    use replication::record::encode_batch;
    use replication::wire::put_varint;

    fn begin(magic: &[u8], frames: &mut FrameWriter) -> Vec<u8> {
        let mut out = magic.to_vec();
        out.extend(2u16.to_le_bytes());
        let head = head();
        let mut payload = head.id.0.to_le_bytes().to_vec();
        put_varint(&mut payload, head.segment);
        payload.extend(head.before.to_le_bytes());
        put_varint(&mut payload, 2);
        payload.extend(b"vm");
        put_varint(&mut payload, head.life.0);
        payload.extend(head.life_id.0.to_le_bytes());
        payload.extend(head.semantics_version.to_le_bytes());
        payload.extend(head.configuration_hash.to_le_bytes());
        put_varint(&mut payload, head.place.record.0);
        put_varint(&mut payload, head.place.count.0);
        payload.extend(head.place.mark.0.to_le_bytes());
        put_varint(&mut payload, head.visible_outputs);
        payload.extend(head.disk_layer.to_le_bytes());
        frames.write(&mut out, 1, &payload);
        out
    }

    fn without_times() -> JournalHead {
        JournalHead {
            times: None,
            builds_on: None,
            ..head()
        }
    }

    #[test]
    fn its_segments_are_read() {
        let mut frames = FrameWriter::default();
        let mut file = begin(b"USTDYJNL", &mut frames);
        for commit in commits() {
            for (index, batch) in commit.iter().enumerate() {
                let mut records = Vec::new();
                put_varint(&mut records, batch.released);
                put_varint(&mut records, batch.first_record.0);
                encode_batch(&mut records, &batch.records);
                if index > 0 {
                    frames.write(&mut file, 3, &records);
                    continue;
                }
                // A commit's mark: whose, and where it is itself.
                let length = records.len() + 16;
                let varint = 1 + usize::from(length > 127);
                let position = (file.len() + 6 + varint) as u64;
                let (id, segment) = (head().id.0, head().segment);
                let place = position ^ segment.rotate_left(40) ^ (id >> 64) as u64;
                let mark = [(id as u64).to_le_bytes(), place.to_le_bytes()].concat();
                frames.write(&mut file, 2, &[mark, records].concat());
            }
        }
        let (items, end) = read(&file, 100);
        let stored = commits().into_iter().flatten().map(JournalItem::Records);
        let expected: Vec<JournalItem> = std::iter::once(JournalItem::Head(without_times()))
            .chain(stored)
            .collect();
        assert_eq!(items, expected);
        assert_eq!(end.unwrap().good_bytes, file.len() as u64);
    }

    #[test]
    fn its_snapshots_are_read() {
        let mut frames = FrameWriter::default();
        let mut file = begin(b"USTDYSNP", &mut frames);
        let bytes: Vec<u8> = (0..40_000u32).map(|at| (at * 7) as u8).collect();
        for piece in bytes.chunks(16 << 10) {
            frames.write(&mut file, 4, piece);
        }
        let mut length = Vec::new();
        put_varint(&mut length, bytes.len() as u64);
        frames.write(&mut file, 5, &length);
        assert_eq!(read_snapshot(&file).unwrap(), (without_times(), bytes));
    }

    #[test]
    fn a_format_that_is_not_known_is_told() {
        let (file, _) = written();
        for version in [1, FORMAT_VERSION + 1] {
            let mut other = file.clone();
            other[8..10].copy_from_slice(&version.to_le_bytes());
            let (_, end) = read(&other, 100);
            let error = end.unwrap_err();
            assert_eq!(error, JournalError::Version { found: version });
            assert!(
                error.to_string().contains("reads formats 2 to 4"),
                "{error}"
            );
        }
    }
}
