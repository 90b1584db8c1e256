//! Recordings: what is no recording, what was damaged, cut off, or is made by another program.

use crate::assert_refused;
use crate::support::guest_program::{counting_busily, counting_to};
use crate::support::{Process, error_text, run, wait_for};
use replication::log::{LogHeader, LogItem, LogReader, LogSummary, LogWriter};
use replication::record::{InstructionCount, RecordBody};
use riscv::SEMANTICS_VERSION;
use std::fs;
use std::path::PathBuf;

struct Recording {
    directory: tempfile::TempDir,
    whole: Vec<u8>,
}

impl Recording {
    /// A small guest's whole run.
    fn new() -> Recording {
        Recording::with_options(&[])
    }

    /// The same with further options of `understudy run`.
    fn with_options(options: &[&str]) -> Recording {
        let directory = tempfile::tempdir().unwrap();
        let kernel = directory.path().join("guest.elf");
        fs::write(&kernel, counting_to(100, 0)).unwrap();
        let log = directory.path().join("run.log");
        let (kernel, log) = (kernel.to_str().unwrap(), log.to_str().unwrap());
        let command = ["run", "--memory", "4M", "--kernel", kernel, "--record", log];
        let output = run(&[&command, options].concat());
        assert!(output.status.success(), "{}", error_text(&output));
        let whole = fs::read(log).unwrap();
        Recording { directory, whole }
    }

    fn write(&self, bytes: &[u8]) -> String {
        let path = self.directory.path().join("changed.log");
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn refuse(&self, bytes: &[u8], words: &[&str]) {
        assert_refused(
            &["replay", &self.write(bytes)],
            2,
            &[&["changed.log"], words].concat(),
        );
    }

    /// The same recording with changes, and all checksums right again.
    fn rewritten(&self, change: impl Fn(&mut LogItem)) -> Vec<u8> {
        let mut reader = LogReader::new();
        reader.push(&self.whole);
        let mut writer: Option<LogWriter> = None;
        while let Some(mut item) = reader.next_item().unwrap() {
            change(&mut item);
            match (item, &mut writer) {
                (LogItem::Header(header), _) => writer = Some(LogWriter::new(&header)),
                (LogItem::Snapshot(bytes), Some(writer)) => writer.snapshot(&bytes),
                (LogItem::SnapshotEnd { count }, Some(writer)) => writer.end_snapshot(count),
                (LogItem::Record(_, record), Some(writer)) => writer.record(record),
                (LogItem::End(summary), Some(writer)) => writer.end(&summary),
                (_, None) => panic!("a log begins with its header"),
            }
        }
        writer.unwrap().take_bytes()
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    let recording = Recording::new();
    assert_refused(
        &["replay", "/nonexistent/run.log"],
        2,
        &["/nonexistent/run.log", "No such file"],
    );
    let directory = recording.directory.path().to_str().unwrap();
    assert_refused(&["replay", directory], 2, &[directory, "directory"]);
    assert_refused(&["replay", "/dev/zero"], 2, &["not a replay log"]);
    assert_refused(
        &["replay", env!("CARGO_BIN_EXE_understudy")],
        2,
        &["not a replay log"],
    );
    recording.refuse(b"", &["ends before"]);
    recording.refuse(b"USTDY", &["ends before"]);
    recording.refuse(b"hello", &["not a replay log"]);
}

#[test]
fn a_recording_of_another_format_or_semantics_version_is_refused() {
    let recording = Recording::new();
    let mut other_format = recording.whole.clone();
    other_format[8] ^= 0x40;
    recording.refuse(&other_format, &["log format version"]);
    let other_semantics = recording.rewritten(|item| {
        if let LogItem::Header(header) = item {
            header.semantics_version += 1;
        }
    });
    let theirs = format!("semantics version {}", SEMANTICS_VERSION + 1);
    recording.refuse(&other_semantics, &[&theirs, "use the program that made it"]);
}

#[test]
fn a_recording_without_its_snapshot_is_refused() {
    let recording = Recording::new();
    let header = LogHeader {
        semantics_version: SEMANTICS_VERSION,
        configuration_hash: 0,
        guest_identity: "test".into(),
        has_snapshot: false,
        has_disk_reads: true,
    };
    let mut writer = LogWriter::new(&header);
    writer.end(&LogSummary {
        final_count: InstructionCount::POWER_ON,
        visible_outputs: 0,
        records: 0,
        digest: 0,
        reason: String::new(),
    });
    recording.refuse(&writer.take_bytes(), &["not self-contained"]);
}

/// What makes a recording a proof: every digest on the way is compared, not only the one at the end.
#[test]
fn a_replay_ends_at_the_first_digest_that_differs_and_says_where() {
    let recording = Recording::with_options(&["--digest-interval", "500"]);
    let mut counts = Vec::new();
    let mut reader = LogReader::new();
    reader.push(&recording.whole);
    while let Some(item) = reader.next_item().unwrap() {
        if let LogItem::Record(_, record) = item
            && matches!(record.body, RecordBody::Digest(_))
        {
            counts.push(record.count);
        }
    }
    assert!(counts.len() >= 8, "too few digests: {counts:?}");
    for first in [0, counts.len() / 2, counts.len() - 2] {
        let changed = recording.rewritten(|item| {
            if let LogItem::Record(_, record) = item
                && record.count >= counts[first]
                && let RecordBody::Digest(digest) = &mut record.body
            {
                *digest ^= 1;
            }
        });
        assert_refused(
            &["replay", &recording.write(&changed)],
            4,
            &[
                "diverges",
                &format!("at instruction {}: digest", counts[first]),
            ],
        );
    }
}

/// The bytes are right for the log's checksums, so the snapshot's own checks have to see it.
#[test]
fn a_damaged_snapshot_is_refused_wherever_the_damage_is() {
    let recording = Recording::new();
    for place in [0, 8, 12, 16, 20, 30, 100, 400, 1000, 5000] {
        let damaged = recording.rewritten(|item| {
            if let LogItem::Snapshot(bytes) = item
                && let Some(byte) = bytes.get_mut(place)
            {
                *byte ^= 0x81;
            }
        });
        assert_ne!(damaged, recording.whole, "{place} is beyond the snapshot");
        recording.refuse(&damaged, &["snapshot"]);
    }
    let cut = recording.rewritten(|item| {
        if let LogItem::Snapshot(bytes) = item {
            bytes.truncate(bytes.len() / 2);
        }
    });
    recording.refuse(&cut, &["snapshot"]);
}

#[test]
fn a_bit_that_flipped_anywhere_is_found() {
    let recording = Recording::new();
    let length = recording.whole.len();
    for step in 0..60 {
        let place = step * (length - 1) / 59;
        let mut damaged = recording.whole.clone();
        damaged[place] ^= 1 << (step % 8);
        let output = run(&["replay", &recording.write(&damaged)]);
        let said = error_text(&output);
        assert_eq!(
            output.status.code(),
            Some(2),
            "byte {place} of {length}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// A torn tail loses only the tail: whatever is left is replayed, and it is said what is missing.
#[test]
fn a_recording_cut_off_anywhere_replays_what_is_there() {
    let recording = Recording::new();
    let length = recording.whole.len();
    let mut replayed = 0;
    for step in 1..40 {
        let cut = length - step * step * length / 1600;
        if cut == length {
            continue;
        }
        let output = run(&["replay", &recording.write(&recording.whole[..cut])]);
        let said = error_text(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        match output.status.code() {
            Some(0) => {
                assert!(said.contains("not complete: its writer died"), "{said}");
                replayed += 1;
            }
            Some(2) => assert!(said.contains("ends before its snapshot does"), "{said}"),
            other => panic!("cut at {cut}: {other:?}: {said}"),
        }
    }
    assert!(replayed > 0, "the snapshot was always cut");
    let mut unwritten = recording.whole[..length - 10].to_vec();
    unwritten.extend([0; 4096]);
    let output = run(&["replay", &recording.write(&unwritten)]);
    let said = error_text(&output);
    assert!(
        output.status.success() || said.contains("corrupt"),
        "{said}"
    );
}

#[test]
fn a_recording_that_is_being_written_is_said_to_be_and_not_written_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (kernel, log) = (path("guest.elf"), path("run.log"));
    fs::write(&kernel, counting_busily()).unwrap();
    let arguments = [
        "run", "--memory", "4M", "--kernel", &kernel, "--record", &log,
    ];
    let mut process = Process::start(&arguments);
    let length = || fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let begun = wait_for("a recording", || {
        Some(length()).filter(|length| *length > 0)
    });
    wait_for("the first digest", || (length() > begun).then_some(()));
    let output = run(&["replay", &log]);
    let said = error_text(&output);
    assert!(
        output.status.success() && said.contains("in progress"),
        "{said}"
    );
    assert_refused(&arguments, 2, &["run.log", "in use"]);
    process.signal(rustix::process::Signal::TERM);
    let (status, said) = process.end();
    assert!(status.success(), "{said}");
    let said = error_text(&run(&["replay", &log]));
    assert!(
        said.contains("complete") && !said.contains("not complete"),
        "{said}"
    );
}

#[test]
fn a_recording_that_cannot_be_made_is_refused_before_the_guest_starts() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("guest.elf");
    fs::write(&kernel, counting_to(1, 0)).unwrap();
    let record = |path: PathBuf, words: &[&str]| {
        let (kernel, path) = (kernel.to_str().unwrap(), path.to_str().unwrap());
        let arguments = [
            "run", "--memory", "4M", "--kernel", kernel, "--record", path,
        ];
        assert_refused(&arguments, 2, words);
    };
    record(directory.path().into(), &["recording", "directory"]);
    record(
        directory.path().join("no/run.log"),
        &["recording", "No such file"],
    );
    record("/dev/full".into(), &["recording", "/dev/full"]);
}
