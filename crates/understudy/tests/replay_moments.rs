//! `understudy replay --at`: any moment of a recording again, exactly.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use support::guest_program::counting_to;
use support::{error_text, run};

const LINES: u16 = 2000;

fn record(directory: &Path) -> PathBuf {
    let kernel = directory.join("guest.elf");
    fs::write(&kernel, counting_to(LINES, 0)).unwrap();
    let log = directory.join("run.log");
    let kernel = kernel.to_str().unwrap();
    let output = run(&[
        "run",
        "--kernel",
        kernel,
        "--memory",
        "8M",
        "--digest-interval",
        "3000",
        "--record",
        log.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", error_text(&output));
    log
}

fn replay(log: &Path, options: &[&str]) -> Output {
    let output = run(&[&["replay", log.to_str().unwrap()], options].concat());
    assert!(
        output.status.success(),
        "{options:?}: {}",
        error_text(&output)
    );
    output
}

/// What stands between two texts of what a replay said.
fn between<'a>(said: &'a str, before: &str, after: &str) -> &'a str {
    let begin = said
        .find(before)
        .unwrap_or_else(|| panic!("no {before:?}: {said}"))
        + before.len();
    let length = said[begin..]
        .find(after)
        .unwrap_or_else(|| panic!("no {after:?}: {said}"));
    &said[begin..begin + length]
}

struct Position {
    instruction: u64,
    record: u64,
    time_ns: u64,
    digest: String,
}

fn position(output: &Output) -> Position {
    let said = error_text(output);
    let stopped = between(&said, "stopped at ", "\n");
    let time = between(
        stopped,
        &format!("record {}, ", between(stopped, "record ", ",")),
        " s",
    );
    Position {
        instruction: between(stopped, "instruction ", ",").parse().unwrap(),
        record: between(stopped, "record ", ",").parse().unwrap(),
        time_ns: time.replace('.', "").parse().unwrap(),
        digest: between(&said, "digest ", " at").to_owned(),
    }
}

#[test]
fn a_replay_stops_exactly_there_whatever_executes_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = record(directory.path());
    for count in [0u64, 1, 777, 3000, 3001, 12_345] {
        let at = format!("instruction:{count}");
        let found = position(&replay(&log, &["--at", &at]));
        assert_eq!(found.instruction, count);
        for options in [
            ["--at", at.as_str(), "--engine", "interpreter"],
            ["--until", &count.to_string(), "--engine", "jit"],
        ] {
            assert_eq!(
                position(&replay(&log, &options)).digest,
                found.digest,
                "{options:?}"
            );
        }
    }
}

#[test]
fn a_record_is_a_moment_after_which_it_has_taken_effect() {
    let directory = tempfile::tempdir().unwrap();
    let log = record(directory.path());
    let mut last = 0;
    for number in [1u64, 2, 3, 10] {
        let found = position(&replay(&log, &["--at", &format!("record:{number}")]));
        assert_eq!(found.record, number);
        assert!(found.instruction >= last);
        last = found.instruction;
    }
}

#[test]
fn guest_time_is_reached_at_its_first_instruction() {
    let directory = tempfile::tempdir().unwrap();
    let log = record(directory.path());
    for time_ns in [1u64, 999, 20_000, 31_415] {
        let found = position(&replay(&log, &["--at", &format!("{time_ns}ns")]));
        assert!(found.time_ns >= time_ns, "{} {time_ns}", found.time_ns);
        let before = format!("instruction:{}", found.instruction - 1);
        let before = position(&replay(&log, &["--at", &before]));
        assert!(before.time_ns < time_ns, "{} {time_ns}", before.time_ns);
    }
}

#[test]
fn between_two_moments_is_what_was_printed_between_them() {
    let directory = tempfile::tempdir().unwrap();
    let log = record(directory.path());
    let printed = |options: &[&str]| {
        let output = replay(&log, &[options, &["--dump-console"]].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let (first, second) = ("instruction:5000", "instruction:20000");
    let before = printed(&["--at", first]);
    let all = printed(&["--at", second]);
    let between = printed(&["--at", first, "--until", second]);
    assert!(!before.is_empty() && !between.is_empty());
    assert_eq!(before + &between, all);
    let whole = printed(&[]);
    assert!(whole.starts_with(&all) && whole.len() > all.len());
    for wrong in ["instruction:20001", "record:1000000"] {
        let output = run(&[
            "replay",
            log.to_str().unwrap(),
            "--at",
            wrong,
            "--until",
            second,
        ]);
        assert_eq!(output.status.code(), Some(2), "{}", error_text(&output));
    }
}

#[test]
fn a_moment_beyond_the_end_is_told_with_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let log = record(directory.path());
    for at in ["instruction:99999999999", "record:99999999", "9h"] {
        let output = run(&["replay", log.to_str().unwrap(), "--at", at]);
        let said = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("beyond the end of the recording: it ends at instruction"),
            "{said}"
        );
    }
    for at in ["12", "record:0", "5 s"] {
        let output = run(&["replay", log.to_str().unwrap(), "--at", at]);
        assert!(
            error_text(&output).contains("instruction:5000000000"),
            "{}",
            error_text(&output)
        );
    }
}

/// The bytes at a guest physical address of a core file.
fn bytes_at(core: &[u8], address: u64, length: usize) -> &[u8] {
    let number = |at: usize| u64::from_le_bytes(core[at..at + 8].try_into().unwrap());
    assert_eq!(core[..6], *b"\x7fELF\x02\x01");
    let (offset, physical) = (number(64 + 8), number(64 + 24));
    let begin = (offset + address - physical) as usize;
    &core[begin..begin + length]
}

#[test]
fn memory_is_dumped_as_it_was_at_the_moment() {
    let directory = tempfile::tempdir().unwrap();
    let log = record(directory.path());
    let dump = |name: &str, options: &[&str]| {
        let path = directory.path().join(name);
        replay(
            &log,
            &[options, &["--dump-memory", path.to_str().unwrap()]].concat(),
        );
        fs::read(path).unwrap()
    };
    let early = dump("early", &["--at", "instruction:40"]);
    let later = dump(
        "later",
        &["--at", "instruction:40", "--until", "instruction:9000"],
    );
    assert_eq!(early.len(), (8 << 20) + 4096);
    assert!(early == later, "it is dumped at --at");
    let program = fs::read(directory.path().join("guest.elf")).unwrap();
    let code = bytes_at(&early, 0x8000_0000, 64);
    assert!(program.windows(64).any(|window| window == code));
    let again = directory.path().join("early");
    let output = run(&[
        "replay",
        log.to_str().unwrap(),
        "--dump-memory",
        again.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(2), "a file is not overwritten");
}

/// A name that was a slip costs nothing: neither the recording that is replayed, nor an image.
#[test]
fn a_capture_replaces_only_its_like_and_a_recording_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = record(directory.path());
    let recorded = fs::read(&log).unwrap();
    let log_name = log.to_str().unwrap();
    let output = run(&["replay", log_name, "--pcap", log_name]);
    let said = error_text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no capture: name another file"), "{said}");
    assert!(fs::read(&log).unwrap() == recorded, "the recording is lost");

    let kernel = directory.path().join("guest.elf");
    let program = fs::read(&kernel).unwrap();
    let name = kernel.to_str().unwrap();
    let output = run(&["run", "--kernel", name, "--memory", "8M", "--record", name]);
    let said = error_text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("no recording: name another file"), "{said}");
    assert!(fs::read(&kernel).unwrap() == program, "the kernel is lost");

    // Finding: an older recording was replaced without a word.
    let (kernel, log_name) = (kernel.to_str().unwrap(), log.to_str().unwrap());
    let again = [
        "run", "--kernel", kernel, "--memory", "8M", "--record", log_name,
    ];
    let output = run(&again);
    let said = error_text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("is a recording already: name another file"),
        "{said}"
    );
    assert!(fs::read(&log).unwrap() == recorded, "the recording is lost");
    // An empty file is taken, and a capture is replaced, and each is its owner's alone whatever it was before.
    let capture = directory.path().join("frames.pcap");
    let capture_name = capture.to_str().unwrap();
    replay(&log, &["--pcap", capture_name]);
    for file in [&capture, &log] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    replay(&log, &["--pcap", capture_name]);
    fs::write(&log, []).unwrap();
    record(directory.path());
    for file in [&capture, &log] {
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}
