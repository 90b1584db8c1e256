//! Replaying a log, and everything in which a replay can differ from it.

use replication::guest::{Guest, GuestStop, Injection, InjectionError};
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};
use replication::replay::{Divergence, DivergenceKind, Progress, Replayer};

/// Works for a hundred instructions after each input, says its count every forty, and ends at the
/// input 255.
#[derive(Default)]
struct Counter {
    count: u64,
    busy_until: u64,
    said: u64,
    waiting: Vec<u64>,
    finished: bool,
    not_yet: u32,
    longest_run: u64,
    /// Its inputs are what it writes to a shared disk, when it takes the input.
    written: u128,
}

impl Guest for Counter {
    type Output = u64;

    fn instruction_count(&self) -> InstructionCount {
        InstructionCount(self.count)
    }

    fn run(&mut self, until: InstructionCount) -> GuestStop {
        let until = until.0;
        self.longest_run = self.longest_run.max(until - self.count);
        if self.finished {
            return GuestStop::Finished;
        }
        while self.count < until {
            if self.count == self.busy_until {
                return GuestStop::Idle;
            }
            self.count += 1;
            if self.count.is_multiple_of(40) {
                self.said += 1;
                self.waiting.push(self.count);
                return GuestStop::Output;
            }
        }
        GuestStop::Reached
    }

    fn inject(&mut self, input: &[u8]) -> Result<Injection, InjectionError> {
        match input {
            [255] => self.finished = true,
            [1] if self.not_yet > 0 => {
                self.not_yet -= 1;
                return Ok(Injection::NotYet);
            }
            [byte] => {
                self.busy_until = self.count + 100;
                self.written = self.written * 256 + u128::from(*byte);
            }
            _ => return Err(InjectionError("one byte is expected".into())),
        }
        Ok(Injection::Done)
    }

    fn take_written(&mut self) -> u128 {
        std::mem::take(&mut self.written)
    }

    fn take_outputs(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.waiting)
    }

    fn visible_outputs(&self) -> u64 {
        self.said
    }

    fn digest(&mut self) -> u128 {
        u128::from(self.count) << 64 | u128::from(self.busy_until)
    }
}

fn written(count: u64, digest: u128) -> Record {
    Record {
        count: InstructionCount(count),
        body: RecordBody::Written(digest),
    }
}

fn input(count: u64, byte: u8) -> Record {
    Record {
        count: InstructionCount(count),
        body: RecordBody::Input(vec![byte]),
    }
}

fn marker(count: u64, visible_outputs: u64) -> Record {
    Record {
        count: InstructionCount(count),
        body: RecordBody::Marker { visible_outputs },
    }
}

fn replayer(records: impl IntoIterator<Item = Record>) -> Replayer<Counter> {
    let mut replayer = Replayer::new(Counter::default());
    records.into_iter().for_each(|record| replayer.push(record));
    replayer
}

fn to_the_end(replayer: &mut Replayer<Counter>, step: u64) -> Result<(), Divergence> {
    while replayer.step(step)? != Progress::Waiting {}
    Ok(())
}

fn difference(records: impl IntoIterator<Item = Record>) -> Divergence {
    let mut replayer = replayer(records);
    let divergence = to_the_end(&mut replayer, 1000).expect_err("it differs");
    assert_eq!(
        replayer.step(1000),
        Err(divergence.clone()),
        "and does so for ever"
    );
    divergence
}

/// A backup's machine is as the primary's by its digest, and wrote something else in between.
#[test]
fn what_is_written_to_a_shared_disk_is_compared_and_each_write_once() {
    let first = [input(0, 3), input(5, 4), written(5, 0x304)];
    let second = [input(50, 7), written(90, 7), written(90, 0)];
    let records = first.into_iter().chain(second.clone());
    let mut same = replayer(records);
    to_the_end(&mut same, 1000).unwrap();
    assert_eq!(same.replayed(), RecordNumber(6));
    // In another order.
    let swapped = [input(0, 4), input(5, 3), written(5, 0x304)];
    let divergence = difference(swapped.into_iter().chain(second));
    let (expected, found) = (0x304, 0x403);
    assert_eq!(divergence.kind, DivergenceKind::Written { expected, found });
    assert_eq!(
        (divergence.record, divergence.record_count),
        (RecordNumber(3), InstructionCount(5))
    );
    let told = divergence.to_string();
    assert!(told.contains("wrote to shared disks"), "{told}");
    // The majority's machine goes on, and what it wrote before is not taken for what it writes then.
    let mut odd = replayer([input(0, 4), written(5, 3), input(6, 9)]);
    assert!(to_the_end(&mut odd, 1000).is_err());
    odd.stop_comparing();
    odd.compare();
    odd.push(written(7, 9));
    to_the_end(&mut odd, 1000).unwrap();
}

#[test]
fn records_take_effect_at_their_counts_in_steps_of_any_size() {
    for step in [1, 7, 40, 1_000_000] {
        let records = [input(0, 0), marker(80, 2), input(90, 1), marker(160, 4)];
        let mut replayer = replayer(records);
        to_the_end(&mut replayer, step).unwrap();
        assert_eq!(
            (replayer.executed(), replayer.replayed(), replayer.backlog()),
            (InstructionCount(160), RecordNumber(4), 0)
        );
        let outputs = replayer.take_outputs();
        let said: Vec<(u64, Vec<u64>)> = outputs
            .into_iter()
            .map(|done| (done.visible_outputs, done.outputs))
            .collect();
        assert_eq!(
            said,
            [(1, vec![40]), (2, vec![80]), (3, vec![120]), (4, vec![160])]
        );
        assert!(replayer.guest().longest_run <= step);
    }
}

#[test]
fn a_marker_comes_before_an_input_of_the_same_count() {
    // The output at 80 belongs to the marker although the input at 80 comes in the same place.
    let mut replayer = replayer([input(0, 0), marker(80, 2), input(80, 0), marker(80, 2)]);
    to_the_end(&mut replayer, 1000).unwrap();
}

#[test]
fn an_input_that_needs_this_hosts_disk_is_tried_again() {
    let mut replayer = replayer([input(0, 1), marker(40, 1)]);
    replayer.guest_mut().not_yet = 2;
    assert_eq!(replayer.step(1000), Ok(Progress::Blocked));
    assert_eq!(replayer.step(1000), Ok(Progress::Blocked));
    assert_eq!(replayer.replayed(), RecordNumber(0));
    to_the_end(&mut replayer, 1000).unwrap();
    assert_eq!(replayer.replayed(), RecordNumber(2));
}

#[test]
fn another_digest_is_a_difference() {
    let divergence = difference([
        input(0, 0),
        Record {
            count: InstructionCount(50),
            body: RecordBody::Digest(1),
        },
    ]);
    assert_eq!(
        (divergence.record, divergence.guest_count),
        (RecordNumber(2), InstructionCount(50))
    );
    assert!(matches!(
        divergence.kind,
        DivergenceKind::Digest { expected: 1, .. }
    ));
}

#[test]
fn another_number_of_outputs_is_a_difference() {
    let kind = difference([input(0, 0), marker(50, 2)]).kind;
    assert_eq!(
        kind,
        DivergenceKind::VisibleOutputs {
            expected: 2,
            found: 1
        }
    );
}

#[test]
fn a_guest_that_idles_before_the_next_record_is_a_difference() {
    let kind = difference([input(0, 0), marker(130, 3)]).kind;
    assert_eq!(kind, DivergenceKind::Idle { missing: 30 });
}

#[test]
fn a_guest_that_ends_before_the_next_record_is_a_difference() {
    assert_eq!(
        difference([input(0, 255), marker(10, 0)]).kind,
        DivergenceKind::Finished
    );
}

#[test]
fn a_guest_that_ended_may_still_be_checked_where_it_ended() {
    let mut replayer = replayer([input(0, 0), input(50, 255), marker(50, 1)]);
    to_the_end(&mut replayer, 1000).unwrap();
}

#[test]
fn a_guest_beyond_the_records_count_is_a_difference() {
    let mut replayer = replayer([input(0, 0), marker(40, 1)]);
    to_the_end(&mut replayer, 1000).unwrap();
    replayer.push(marker(39, 1));
    let kind = replayer.step(1000).unwrap_err().kind;
    assert_eq!(
        kind,
        DivergenceKind::Beyond {
            count: InstructionCount(40)
        }
    );
}

#[test]
fn an_input_that_does_not_fit_is_a_difference() {
    let record = Record {
        count: InstructionCount(0),
        body: RecordBody::Input(vec![1, 2]),
    };
    let divergence = difference([record]);
    assert!(matches!(divergence.kind, DivergenceKind::Injection(_)));
    assert!(divergence.to_string().contains("one byte is expected"));
}

/// Its records are those of a machine that is wrong: another digest, an output that was not made, an input
/// that does not fit, and instructions that it never ran.
#[test]
fn a_guest_that_is_right_goes_on_along_a_wrong_log_and_is_compared_again_afterwards() {
    let digest = |count, digest| Record {
        count: InstructionCount(count),
        body: RecordBody::Digest(digest),
    };
    let misfit = Record {
        count: InstructionCount(60),
        body: RecordBody::Input(vec![1, 2]),
    };
    let wrong = [
        digest(50, 1),
        marker(55, 9),
        misfit,
        input(60, 0),
        marker(300, 9),
    ];
    let mut replayer = replayer([input(0, 0)]);
    wrong.into_iter().for_each(|record| replayer.push(record));
    let divergence = to_the_end(&mut replayer, 1000).unwrap_err();
    assert_eq!(
        (divergence.record, divergence.guest_digest),
        (RecordNumber(2), 50 << 64 | 100)
    );
    replayer.stop_comparing();
    to_the_end(&mut replayer, 1000).unwrap();
    assert_eq!(
        (replayer.replayed(), replayer.executed()),
        (RecordNumber(6), InstructionCount(160))
    );
    replayer.compare();
    replayer.push(marker(160, 4));
    to_the_end(&mut replayer, 1000).unwrap();
    replayer.push(marker(160, 5));
    assert!(replayer.step(1000).is_err());
}

#[test]
fn an_input_that_was_the_difference_is_left_out_by_who_is_right() {
    let misfit = Record {
        count: InstructionCount(0),
        body: RecordBody::Input(vec![1, 2]),
    };
    let mut replayer = replayer([misfit, input(0, 0), marker(40, 1)]);
    assert!(to_the_end(&mut replayer, 1000).is_err());
    replayer.stop_comparing();
    to_the_end(&mut replayer, 1000).unwrap();
    assert_eq!(
        (replayer.replayed(), replayer.executed()),
        (RecordNumber(3), InstructionCount(40))
    );
}

/// A guest that executes nothing: it holds what it is given, and becomes what a checkpoint says.
#[derive(Default)]
struct Follower {
    count: u64,
    held: Vec<u8>,
    state: Vec<u8>,
    said: u64,
    waiting: Vec<u64>,
}

impl Guest for Follower {
    type Output = u64;

    fn instruction_count(&self) -> InstructionCount {
        InstructionCount(self.count)
    }

    fn run(&mut self, _: InstructionCount) -> GuestStop {
        GuestStop::Idle
    }

    fn inject(&mut self, _: &[u8]) -> Result<Injection, InjectionError> {
        Err(InjectionError("it executes nothing".into()))
    }

    fn hold_piece(&mut self, piece: &[u8]) -> Result<(), InjectionError> {
        self.held.extend(piece);
        Ok(())
    }

    fn apply_checkpoint(
        &mut self,
        count: InstructionCount,
        end: &[u8],
    ) -> Result<Injection, InjectionError> {
        if end != [self.held.len() as u8] {
            return Err(InjectionError("it is not whole".into()));
        }
        self.count = count.0;
        self.state = std::mem::take(&mut self.held);
        self.said += 1;
        self.waiting.push(count.0);
        Ok(Injection::Done)
    }

    fn take_outputs(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.waiting)
    }

    fn visible_outputs(&self) -> u64 {
        self.said
    }

    fn digest(&mut self) -> u128 {
        self.state
            .iter()
            .fold(1, |sum, byte| sum * 7 + u128::from(*byte))
    }
}

fn piece(count: u64, byte: u8) -> Record {
    let body = RecordBody::Piece(vec![byte]);
    Record {
        count: InstructionCount(count),
        body,
    }
}

fn checkpoint(count: u64, pieces: u8) -> Record {
    let body = RecordBody::Checkpoint(vec![pieces]);
    Record {
        count: InstructionCount(count),
        body,
    }
}

fn follow(records: impl IntoIterator<Item = Record>) -> (Replayer<Follower>, Option<Divergence>) {
    let mut replayer = Replayer::new(Follower::default());
    records.into_iter().for_each(|record| replayer.push(record));
    loop {
        match replayer.step(1000) {
            Ok(Progress::Waiting) => return (replayer, None),
            Ok(_) => {}
            Err(divergence) => return (replayer, Some(divergence)),
        }
    }
}

#[test]
fn a_checkpoint_leads_where_nothing_is_executed_and_is_compared_there() {
    let digest = Record {
        count: InstructionCount(500),
        body: RecordBody::Digest((7 + 3) * 7 + 4),
    };
    let records = [
        piece(0, 3),
        piece(0, 4),
        checkpoint(500, 2),
        digest,
        marker(500, 1),
    ];
    let (mut replayer, divergence) = follow(records);
    assert_eq!(divergence, None);
    assert_eq!(
        (replayer.executed(), replayer.replayed()),
        (InstructionCount(500), RecordNumber(5))
    );
    let outputs = replayer.take_outputs();
    assert_eq!(
        (outputs[0].visible_outputs, outputs[0].outputs.as_slice()),
        (1, [500].as_slice())
    );
    let wrong = Record {
        count: InstructionCount(500),
        body: RecordBody::Digest(5),
    };
    let (_, divergence) = follow([piece(0, 3), checkpoint(500, 1), wrong]);
    let kind = divergence.map(|divergence| divergence.kind);
    assert!(
        matches!(kind, Some(DivergenceKind::Digest { .. })),
        "{kind:?}"
    );
}

/// All that is left of a primary that died in the middle of one.
#[test]
fn the_pieces_of_half_a_checkpoint_change_nothing() {
    let records = [
        piece(0, 3),
        checkpoint(500, 1),
        piece(500, 4),
        piece(500, 5),
    ];
    let (replayer, divergence) = follow(records);
    assert_eq!(divergence, None);
    assert_eq!(
        (replayer.executed(), replayer.replayed()),
        (InstructionCount(500), RecordNumber(4))
    );
    assert_eq!(replayer.guest().state, [3]);
}

#[test]
fn whoever_executes_nothing_goes_nowhere_without_a_checkpoint_and_takes_none_that_is_not_whole() {
    let (_, divergence) = follow([piece(0, 3), marker(500, 0)]);
    let kind = divergence.map(|divergence| divergence.kind);
    assert_eq!(kind, Some(DivergenceKind::Idle { missing: 500 }));
    let (replayer, divergence) = follow([piece(0, 3), checkpoint(500, 2)]);
    assert!(divergence.is_some());
    assert_eq!(replayer.executed(), InstructionCount(0));
    // The other way round: a guest that executes takes no checkpoint.
    let mut replayer = Replayer::new(Counter::default());
    replayer.push(piece(0, 3));
    assert!(replayer.step(1000).is_err());
}
