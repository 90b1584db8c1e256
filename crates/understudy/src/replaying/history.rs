//! A recording, or some of a journal, as a whole: the machine at its beginning, and every record. It is in memory, because whoever
//! looks at it goes back and forth.

use super::check_header;
use crate::engine::EngineName;
use crate::exit::Failure;
use anyhow::{Context, anyhow};
use machine::Machine;
use machine::input::InstructionCount;
use machine::snapshot::Snapshot;
use replication::log::{LogItem, LogReader};
use replication::record::{Record, RecordNumber};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// A machine and what happened to it: a snapshot and the records that follow it.
pub struct History {
    /// As the snapshot says, at the beginning.
    pub machine: Box<dyn Machine>,
    /// How many records precede the first.
    pub before: RecordNumber,
    /// In order.
    pub records: Vec<Record>,
    /// The last instruction count that is known of.
    pub end: InstructionCount,
    /// How the source ends, for people.
    pub describe_end: String,
}

/// Bytes that are read from the file in one go.
const READ_BYTES: usize = 1 << 20;

impl History {
    /// Reads the recording at `path`, as far as it goes.
    ///
    /// # Errors
    /// It is no recording, or damaged, or of another version.
    pub fn read(path: &Path, engine: EngineName) -> Result<History, Failure> {
        let file = File::open(path)
            .with_context(|| format!("cannot open the recording {}", path.display()))
            .map_err(Failure::usage)?;
        // A recording that grows meanwhile would never end.
        let kind = file.metadata().map_err(Failure::usage)?;
        let length = if kind.is_file() { kind.len() } else { u64::MAX };
        read(
            BufReader::with_capacity(READ_BYTES, file).take(length),
            engine,
        )
        .with_context(|| format!("the recording {}", path.display()))
        .map_err(Failure::usage)
    }
}

fn read(mut source: impl Read, engine: EngineName) -> anyhow::Result<History> {
    let mut reader = LogReader::new();
    let mut buffer = vec![0; READ_BYTES];
    let (mut architecture, mut snapshot, mut machine) = (None, Vec::new(), None);
    let (mut records, mut end) = (Vec::new(), None);
    loop {
        let length = source.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        reader.push(&buffer[..length]);
        while let Some(item) = reader.next_item()? {
            match item {
                LogItem::Header(header) => architecture = Some(check_header(&header)?),
                LogItem::Snapshot(piece) => snapshot.extend_from_slice(&piece),
                LogItem::SnapshotEnd { .. } => {
                    let architecture = architecture.ok_or_else(|| anyhow!("it has no header"))?;
                    let read = Snapshot::read_from(&mut &snapshot[..])?;
                    snapshot = Vec::new();
                    machine = Some(architecture.restore(&read, engine)?);
                }
                LogItem::Record(_, record) => records.push(record),
                LogItem::End(summary) => end = Some(summary.final_count),
            }
        }
    }
    let describe_end = reader.finish()?.describe(false);
    let machine = machine.ok_or_else(|| anyhow!("it ends before its snapshot does"))?;
    let last = records.last().map(|record| record.count);
    let end = end
        .or(last)
        .map_or(machine.instruction_count(), |end| end.0);
    Ok(History {
        machine,
        before: RecordNumber::BEFORE_ALL,
        records,
        end,
        describe_end,
    })
}
