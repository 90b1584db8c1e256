//! Runs the history of a journal again, from the newest snapshot before the moment that is asked for. Its machine
//! may be writing it.

use super::headway::Headway;
use super::history::History;
use super::moment::{Moment, Seconds};
use super::{Replay, ReplayOptions, check_semantics};
use crate::architecture::Architecture;
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use anyhow::{Context, anyhow};
use machine::Machine;
use replica::config::JournalPlace;
use replica::host_time::rfc3339;
use replica::journal::history::{HistoryEnd, HistoryRecords, JournalHistory, MachineFile, WayIn};
use replication::journal::{JournalHead, MachineTimes};
use replication::record::{InstructionCount, RecordNumber};
use std::fmt::Write;

const READING: &str = "reading the journal";

/// Replays the journal at `place`, or the one in it which has the moment, and prints a summary.
///
/// # Errors
/// There is none, none has the moment, it is damaged before it, or the replay diverges.
pub fn replay(place: &JournalPlace, options: ReplayOptions) -> Result<ExitStatus, Failure> {
    let engine = options.engine;
    let headway = Headway::start(READING);
    let found = Found::of(place, options.at, &headway)?;
    let entered = found.enter(0, engine, &headway)?;
    headway.goes_on("replaying", found.journal.bytes_after(&entered.way_in));
    let mut replay = Replay::new("journal", options)?;
    replay.architecture = Some(entered.architecture);
    replay.begin(entered.machine, entered.way_in.head.place.record)?;
    let mut records = entered.records;
    let mut number = records.last();
    while !replay.is_over() {
        let Some(batch) = records.next_batch().map_err(Failure::usage)? else {
            break;
        };
        for record in batch {
            number = number.next();
            replay.record(number, record)?;
        }
        replay.run(false)?;
    }
    let end = (!replay.is_over()).then(|| describe_end(&records));
    let finished = replay.finish(end);
    let named = || format!("the journal {}", found.journal.path().display());
    finished.map_err(|failure| Failure::new(failure.status, failure.error.context(named())))
}

/// What a debugger looks at: from the snapshot before the one that is nearest to `at` (so that there is something
/// to go back to) to the second after it, or to the end. Without a moment it is the end of the journal.
///
/// # Errors
/// As [`replay`], but for a moment that lies beyond the end.
pub fn history(
    place: &JournalPlace,
    at: Option<Moment>,
    engine: EngineName,
) -> Result<History, Failure> {
    let headway = Headway::start(READING);
    let found = match at {
        Some(_) => Found::of(place, at, &headway)?,
        None => Found::newest(place, &headway)?,
    };
    let entered = found.enter(1, engine, &headway)?;
    let most_bytes = found.journal.bytes_after(&entered.way_in);
    headway.goes_on("reading the journal's records", most_bytes);
    let before = entered.way_in.head.place.record;
    let mut reader = entered.records;
    let mut records = Vec::new();
    while let Some(batch) = reader.next_batch().map_err(Failure::usage)? {
        records.extend(batch);
    }
    let last = records.last().map(|record| record.count);
    let end = last.map_or(entered.machine.instruction_count(), |end| end.0);
    let describe_end = match entered.is_to_the_end {
        true => describe_end(&reader),
        false => "longer: what follows is another moment's".into(),
    };
    Ok(History {
        machine: entered.machine,
        before,
        records,
        end,
        describe_end,
    })
}

/// Says what there is to look into.
///
/// # Errors
/// There is no journal, or it cannot be read.
pub fn list(place: &JournalPlace) -> Result<String, Failure> {
    let mut text = String::new();
    let headway = Headway::start(READING);
    for journal in all_in(place, &headway)? {
        let (segments, segment_bytes) = journal.segments();
        let ways_in = journal.ways_in();
        let snapshot_bytes: u64 = ways_in.iter().map(|way_in| way_in.bytes).sum();
        let snapshot_bytes = snapshot_bytes + journal.base_bytes();
        let head = &ways_in[0].head;
        let _ = writeln!(
            text,
            "journal {}: machine {}, life {}; {} snapshots, {:.1} MiB; {segments} segments, {:.1} MiB",
            journal.id(),
            head.machine,
            head.life,
            ways_in.len(),
            mib(snapshot_bytes),
            mib(segment_bytes)
        );
        for way_in in ways_in {
            let _ = writeln!(
                text,
                "  snapshot {:08}  {}  ({:.1} MiB{})",
                way_in.head.segment,
                describe_head(&way_in.head),
                mib(way_in.bytes),
                describe_base(&way_in.head)
            );
        }
        for unusable in journal.unusable() {
            let _ = writeln!(text, "  not usable: {unusable}");
        }
        let _ = match journal.end() {
            Ok(end) => writeln!(
                text,
                "  until              {}",
                describe_place(end.record, end.count, end.times)
            ),
            Err(error) => writeln!(text, "  until it is damaged: {error}"),
        };
    }
    Ok(text)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn describe_base(head: &JournalHead) -> String {
    let base = head.builds_on;
    base.map_or_else(String::new, |base| {
        format!(", builds on {:08}", base.segment)
    })
}

fn describe_head(head: &JournalHead) -> String {
    describe_place(head.place.record, head.place.count, head.times)
}

fn describe_place(
    record: RecordNumber,
    count: InstructionCount,
    times: Option<MachineTimes>,
) -> String {
    let times = times.map(|times| {
        let (guest, unix) = (Seconds(times.guest_ns), rfc3339(times.unix_ns));
        format!(", {guest} of guest time, {unix}")
    });
    format!(
        "instruction {count}, record {record}{}",
        times.unwrap_or_default()
    )
}

fn describe_end(records: &HistoryRecords) -> String {
    match records.torn_bytes() {
        0 => "whole up to its last commit".into(),
        torn => format!(
            "whole up to its last commit; the {torn} bytes after it are being written, or torn"
        ),
    }
}

fn all_in(place: &JournalPlace, headway: &Headway) -> Result<Vec<JournalHistory>, Failure> {
    let journals = JournalHistory::all_in(place, headway.meter()).map_err(Failure::usage)?;
    for unusable in journals.iter().flat_map(JournalHistory::unusable) {
        eprintln!("understudy: a snapshot is no way in: {unusable}");
    }
    Ok(journals)
}

/// Where a moment is.
struct Found {
    journal: JournalHistory,
    /// Index of the snapshot from which it is reached.
    way_in: usize,
}

/// A journal that was entered.
struct Entered {
    architecture: Architecture,
    machine: Box<dyn Machine>,
    way_in: WayIn,
    records: HistoryRecords,
    is_to_the_end: bool,
}

impl Found {
    /// The youngest journal here that has this moment; without one the youngest from its beginning.
    fn of(
        place: &JournalPlace,
        moment: Option<Moment>,
        headway: &Headway,
    ) -> Result<Found, Failure> {
        let mut journals = all_in(place, headway)?;
        let mut ranges = Vec::new();
        while let Some(journal) = journals.pop() {
            let Some(moment) = moment else {
                return Ok(Found { journal, way_in: 0 });
            };
            let way_in = way_in_before(journal.ways_in(), moment);
            // One that is damaged somewhere may have it all the same.
            let end = journal.end();
            let is_there = end.as_ref().is_ok_and(|end| is_within(end, moment));
            if let (Some(way_in), true) = (way_in, is_there || end.is_err()) {
                return Ok(Found { journal, way_in });
            }
            let from = describe_head(&journal.ways_in()[0].head);
            let to = match &end {
                Ok(end) => describe_place(end.record, end.count, end.times),
                Err(error) => format!("where it is damaged: {error}"),
            };
            ranges.push(format!("journal {} goes from {from} to {to}", journal.id()));
        }
        let moment = moment.map(|moment| moment.to_string()).unwrap_or_default();
        let error = anyhow!("{moment} is not in what is kept: {}", ranges.join("; "));
        Err(Failure::usage(error))
    }

    /// The youngest journal from its newest snapshot on.
    fn newest(place: &JournalPlace, headway: &Headway) -> Result<Found, Failure> {
        let journal = all_in(place, headway)?.pop();
        let journal = journal.ok_or_else(|| Failure::from(anyhow!("there is no journal")))?;
        let way_in = journal.ways_in().len() - 1;
        Ok(Found { journal, way_in })
    }

    /// Restores the machine of its way in, or so many snapshots before; if one is damaged, of the one before that.
    /// With `earlier`, what follows ends where the second snapshot after its own begins.
    fn enter(
        &self,
        earlier: usize,
        engine: EngineName,
        headway: &Headway,
    ) -> Result<Entered, Failure> {
        let ways_in = self.journal.ways_in();
        let until = (earlier > 0)
            .then(|| ways_in.get(self.way_in + 2))
            .flatten();
        let first = self.way_in.saturating_sub(earlier);
        let mut refused: Option<anyhow::Error> = None;
        for way_in in ways_in[..=first].iter().rev() {
            // With those on which it builds it is more.
            headway.goes_on("reading a snapshot", 0);
            let (mut file, records) = match self.journal.enter(way_in, until) {
                Ok(entered) => entered,
                Err(error) => {
                    refused.get_or_insert(error.into());
                    continue;
                }
            };
            let architecture =
                check_semantics(way_in.head.semantics_version).map_err(Failure::usage)?;
            match restore(&mut file, architecture, engine) {
                Ok(machine) => {
                    if let Some(error) = refused {
                        eprintln!("understudy: {error:#}; from the snapshot before it");
                    }
                    return Ok(Entered {
                        architecture,
                        machine,
                        way_in: way_in.clone(),
                        records,
                        is_to_the_end: until.is_none(),
                    });
                }
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        Err(Failure::usage(
            refused.unwrap_or_else(|| anyhow!("it has no snapshot")),
        ))
    }
}

fn restore(
    file: &mut MachineFile,
    architecture: Architecture,
    engine: EngineName,
) -> anyhow::Result<Box<dyn Machine>> {
    let machine = architecture.restore_from(file, engine);
    machine.with_context(|| format!("the snapshot {}", file.path().display()))
}

/// The newest snapshot from which the moment is reached, exactly as from one before.
fn way_in_before(ways_in: &[WayIn], moment: Moment) -> Option<usize> {
    let is_before = |way_in: &WayIn| {
        let head = &way_in.head;
        match moment {
            // The machine went on after the last record that is in it.
            Moment::Record(number) => Some(head.place.record < number),
            Moment::Instruction(count) => Some(head.place.count.0 <= count),
            Moment::Time(time_ns) => head.times.map(|times| times.guest_ns < time_ns),
            Moment::Calendar(unix_ns) => head.times.map(|times| times.unix_ns < unix_ns),
        }
    };
    let newest = ways_in
        .iter()
        .rposition(|way_in| is_before(way_in) == Some(true));
    // Those of a program of before do not say when they were taken: the replay sees whether it is too late.
    newest.or_else(|| {
        ways_in
            .iter()
            .position(|way_in| is_before(way_in).is_none())
    })
}

fn is_within(end: &HistoryEnd, moment: Moment) -> bool {
    match moment {
        Moment::Record(number) => number <= end.record,
        Moment::Instruction(count) => count <= end.count.0,
        Moment::Time(time_ns) => end.times.is_none_or(|times| time_ns <= times.guest_ns),
        Moment::Calendar(unix_ns) => end.times.is_none_or(|times| unix_ns <= times.unix_ns),
    }
}
