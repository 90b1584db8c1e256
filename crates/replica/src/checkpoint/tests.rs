//! What is packed at the primary is what a backup holds.

use super::*;
use crate::wake::Waker;
use environment::mpsc::{self, Receiver};
use machine::memory::{PAGE_SIZE, PageBatch};
use machine::output::DiskOperation;
use replication::record::{InstructionCount, RecordBody};
use std::collections::BTreeMap;

use crate::vcpu::{LiveReport, Step};

const PAGE: usize = PAGE_SIZE as usize;

struct Pair {
    packer: Option<Packer>,
    reports: Receiver<LiveReport>,
    held: HeldCheckpoint,
    /// As the backup has it.
    ram: BTreeMap<u32, Vec<u8>>,
    /// Bytes of pieces.
    bytes: usize,
}

impl Pair {
    fn new() -> Pair {
        let (sender, reports) = mpsc::channel();
        Pair {
            packer: Some(Packer::start(sender, Waker::new().unwrap(), PIECE_BYTES).unwrap()),
            reports,
            held: HeldCheckpoint::default(),
            ram: (0..2_000).map(|index| (index, vec![0; PAGE])).collect(),
            bytes: 0,
        }
    }

    fn pack(&self, pages: &BTreeMap<u32, Vec<u8>>, moment: &Moment) {
        let packer = self.packer.as_ref().unwrap();
        packer.give(Work::Begin(InstructionCount(5)));
        let mut batch = PageBatch::default();
        for (index, bytes) in pages {
            batch.add_any(*index as usize, bytes);
        }
        packer.give(Work::Pages(batch));
        let taken = Taken {
            count: InstructionCount(9),
            ..Taken::default()
        };
        packer.give(Work::End(Box::new(moment.clone()), taken));
    }

    /// The next checkpoint's pieces and its end.
    fn next(&mut self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut pieces = Vec::new();
        while let Ok(LiveReport::Steps { steps, .. }) = self.reports.recv() {
            for step in steps {
                match step {
                    Step::Record(record) => match record.body {
                        RecordBody::Piece(piece) => {
                            assert_eq!(record.count, InstructionCount(5));
                            pieces.push(piece);
                        }
                        RecordBody::Checkpoint(end) => {
                            assert_eq!(record.count, InstructionCount(9));
                            self.bytes = pieces.iter().map(Vec::len).sum();
                            return (pieces, end);
                        }
                        _ => {}
                    },
                    Step::Outputs(_) | Step::Pressed { .. } | Step::Read(_) => {}
                }
            }
        }
        panic!("no checkpoint came");
    }

    /// The backup takes it.
    fn take(&mut self, pieces: &[Vec<u8>], end: &[u8]) -> Result<Moment, CheckpointError> {
        for piece in pieces {
            self.held.hold(piece)?;
        }
        let ram = &self.ram;
        let page = |index: usize| ram.get(&(index as u32)).map(|bytes| &bytes[..]);
        let moment = self.held.take(end, page)?;
        let pages: Vec<(u32, Vec<u8>)> = self.held.pages().collect();
        self.ram.extend(pages);
        self.held.clear();
        Ok(moment)
    }
}

fn pages(indices: impl IntoIterator<Item = u32>, seed: u64) -> BTreeMap<u32, Vec<u8>> {
    let page = |index: u32| {
        let mut state = seed ^ u64::from(index) << 32 | 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        (index, (0..PAGE).map(|_| next()).collect())
    };
    indices.into_iter().map(page).collect()
}

fn moment(seed: u8) -> Moment {
    Moment {
        state: vec![seed; 100_000],
        writes: vec![DiskRequest {
            device: 0,
            request: seed.into(),
            operation: DiskOperation::Write {
                sector: 3,
                data: vec![seed; 1 << 20],
            },
        }],
        outputs: vec![Output::NetworkFrame {
            device: 0,
            frame: vec![seed; 60],
        }],
        entropy: vec![4],
    }
}

#[test]
fn a_backup_has_what_was_packed_checkpoint_after_checkpoint() {
    let mut pair = Pair::new();
    let mut ram = pair.ram.clone();
    for round in 0..6 {
        // New pages, pages with a word that is another, and pages that are zero again.
        let mut written = pages((0..300).map(|index| index * 3 + round), u64::from(round));
        for index in 0..200 {
            let mut bytes = ram[&(index * 5)].clone();
            bytes[8] ^= 1 + round as u8;
            written.insert(index * 5, bytes);
        }
        written.extend((0..50).map(|index| (index * 7, vec![0; PAGE])));
        ram.extend(written.clone());
        pair.pack(&written, &moment(round as u8));
        let (pieces, end) = pair.next();
        assert!(pieces.len() > 2, "they go one after the other");
        assert_eq!(pair.take(&pieces, &end).unwrap(), moment(round as u8));
        assert!(pair.ram == ram, "round {round}");
    }
}

/// A page that was sent before costs what changed in it.
#[test]
fn a_page_that_is_sent_again_is_small() {
    let mut pair = Pair::new();
    let mut written = pages(0..64, 7);
    pair.pack(&written, &Moment::default());
    let (pieces, end) = pair.next();
    pair.take(&pieces, &end).unwrap();
    assert!(pair.bytes > 64 * PAGE, "noise does not compress");
    written.values_mut().for_each(|bytes| bytes[100] ^= 1);
    pair.pack(&written, &Moment::default());
    let (pieces, end) = pair.next();
    pair.take(&pieces, &end).unwrap();
    assert!(pair.bytes < 64 * 100, "{} bytes", pair.bytes);
    // Whoever joins now has the pages of a snapshot.
    pair.packer.as_ref().unwrap().give(Work::Forget);
    pair.pack(&written, &Moment::default());
    let (_, _) = pair.next();
    assert!(pair.bytes > 64 * PAGE);
}

#[test]
fn half_a_checkpoint_is_dropped_when_the_next_one_begins_and_never_taken() {
    let mut pair = Pair::new();
    pair.pack(&pages(0..200, 1), &moment(1));
    let (pieces, end) = pair.next();
    let before = pair.ram.clone();
    let half = &pieces[..pieces.len() - 1];
    let error = pair.take(half, &end).unwrap_err().to_string();
    assert!(error.contains("not all of its pieces"), "{error}");
    assert!(pair.ram == before);
    // The successor's first.
    let mut successor = Pair::new();
    successor.pack(&pages(100..300, 2), &moment(2));
    let (pieces, end) = successor.next();
    assert_eq!(pair.take(&pieces, &end).unwrap(), moment(2));
    let mut expected = before;
    expected.extend(pages(100..300, 2));
    assert!(pair.ram == expected, "nothing is left of the first");
}

#[test]
fn what_no_primary_makes_is_refused() {
    let mut pair = Pair::new();
    pair.pack(&pages(0..200, 1), &moment(1));
    let (pieces, end) = pair.next();
    let error = pair.held.hold(&pieces[1]).unwrap_err().to_string();
    assert!(error.contains("piece 1"), "{error}");
    let mut damaged = pieces.clone();
    let last = damaged[1].len() - 1;
    damaged[1][last] ^= 1;
    assert!(pair.take(&damaged, &end).is_err());
    let mut wrong_end = end.clone();
    *wrong_end.last_mut().unwrap() ^= 1;
    assert!(pair.take(&pieces, &wrong_end).is_err());
    let too_long = [&[0][..], &[0xff, 0xff, 0xff, 0x7f], &pieces[0][4..]].concat();
    assert!(pair.held.hold(&too_long).is_err());
    assert_eq!(pair.take(&pieces, &end).unwrap(), moment(1));
}
