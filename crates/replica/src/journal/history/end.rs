//! Where the history of a journal ends.

use super::{HistoryError, HistoryRecords};
use crate::vcpu::decode_input;
use machine::input::{ClockRecord, Input};
use replication::journal::{JournalHead, MachineTimes};
use replication::record::{InstructionCount, Record, RecordBody, RecordNumber};

/// The last moment of a journal's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryEnd {
    /// Number of the last record.
    pub record: RecordNumber,
    /// Instructions at it.
    pub count: InstructionCount,
    /// What the machine's clocks show there, or a little less: guest time before the first clock record after the
    /// snapshot is not reckoned. Nothing in a journal of before.
    pub times: Option<MachineTimes>,
    /// Bytes after it that were being written, or were when everything ended.
    pub torn_bytes: u64,
}

/// Of the records after the newest snapshot.
pub(super) fn of(
    head: &JournalHead,
    mut records: HistoryRecords,
) -> Result<HistoryEnd, HistoryError> {
    let mut count = head.place.count;
    let mut times = head.times;
    let mut clock = None;
    while let Some(batch) = records.next_batch()? {
        for record in &batch {
            count = record.count;
            match (input(record), &mut times) {
                (Some(Input::Clock(set)), Some(_)) => clock = Some((count, set)),
                (Some(Input::Calendar { unix_base_ns }), Some(times)) => {
                    times.unix_ns = unix_base_ns.saturating_add(times.guest_ns);
                }
                _ => {}
            }
        }
    }
    if let (Some(times), Some((at, set))) = (&mut times, clock) {
        let guest_ns = time_ns(at, set, count);
        let passed_ns = guest_ns.saturating_sub(times.guest_ns);
        *times = MachineTimes {
            guest_ns,
            unix_ns: times.unix_ns.saturating_add(passed_ns),
        };
    }
    Ok(HistoryEnd {
        record: records.last(),
        count,
        times,
        torn_bytes: records.torn_bytes(),
    })
}

/// As `machine::clock`: this record was set at `at`, the machine is at `count`.
fn time_ns(at: InstructionCount, set: ClockRecord, count: InstructionCount) -> u64 {
    let passed = (u128::from(count.beyond(at)) * u128::from(set.rate)) >> 32;
    set.time_ns.saturating_add(passed as u64)
}

fn input(record: &Record) -> Option<Input> {
    match &record.body {
        RecordBody::Input(encoded) => decode_input(encoded).ok(),
        _ => None,
    }
}
