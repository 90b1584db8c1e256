//! What is kept when two replicas were found to differ.

use crate::host_time;
use machine::state::Snapshot;
use replication::log::{LogHeader, LogSummary, LogWriter};
use replication::message::DivergenceReport;
use replication::record::{Record, RecordBody};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Bytes of records that are remembered.
const LIMIT_BYTES: usize = 32 << 20;
/// Digest records that are remembered: the difference arose after the last but one at the latest.
const DIGESTS: usize = 3;

/// The newest records of a pairing, back to a digest that was still equal.
#[derive(Clone, Debug, Default)]
pub struct RecentRecords {
    records: VecDeque<Record>,
    bytes: usize,
    digests: usize,
}

impl RecentRecords {
    /// Adds records, and forgets those that no longer matter.
    pub fn add(&mut self, records: &[Record]) {
        for record in records {
            self.bytes += record.encoded_size_bound();
            self.digests += usize::from(is_digest(record));
            self.records.push_back(record.clone());
        }
        while self.digests > DIGESTS || self.bytes > LIMIT_BYTES {
            let Some(record) = self.records.pop_front() else {
                return;
            };
            self.bytes -= record.encoded_size_bound();
            self.digests -= usize::from(is_digest(&record));
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = RecentRecords::default();
    }
}

fn is_digest(record: &Record) -> bool {
    matches!(record.body, RecordBody::Digest(_))
}

/// Writes the evidence into a new directory under `state_directory`: the report, the machine as it
/// was found, and the records that led there.
pub fn keep(
    state_directory: &Path,
    header: LogHeader,
    report: &DivergenceReport,
    snapshot: Option<&Snapshot>,
    recent: &RecentRecords,
) -> io::Result<PathBuf> {
    let directory = state_directory.join(format!("divergence-{}", host_time::unix_ns()));
    fs::create_dir(&directory)?;
    let text = format!(
        "record {} at instruction {}: {}\n",
        report.sequence, report.count, report.what
    );
    fs::write(directory.join("report.txt"), text)?;
    if let Some(snapshot) = snapshot {
        let mut writer = BufWriter::new(File::create(directory.join("machine.snapshot"))?);
        snapshot.write_to(&mut writer)?;
        writer.flush()?;
    }
    let mut log = LogWriter::new(&header);
    for record in &recent.records {
        log.record(record.clone());
    }
    log.end(&LogSummary {
        final_count: recent.records.back().map_or(0, |record| record.count),
        visible_outputs: 0,
        records: 0,
        digest: 0,
        reason: "the newest records before a divergence".into(),
    });
    fs::write(directory.join("records.log"), log.take_bytes())?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_remembered_back_to_the_third_last_digest() {
        let mut recent = RecentRecords::default();
        for count in 0..100 {
            let body = if count % 10 == 0 {
                RecordBody::Digest(count.into())
            } else {
                RecordBody::Input(vec![0; 100])
            };
            recent.add(&[Record { count, body }]);
        }
        assert_eq!(recent.records.front().map(|record| record.count), Some(61));
        assert_eq!(
            recent
                .records
                .iter()
                .filter(|record| is_digest(record))
                .count(),
            DIGESTS
        );
    }
}
