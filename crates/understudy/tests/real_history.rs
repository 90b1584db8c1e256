//! Any moment again, out of the journal of a machine that goes on writing it.

mod support;

use replica::config::JournalPlace;
use replication::record::RecordNumber;
use std::fs;
use std::path::Path;
use std::process::Output;
use support::device_programs::counting_through_disk;
use support::guest_program::{counting_busily, counting_slowly};
use support::journaled::Journaled;
use support::{PairDirectory, error_text, run, wait_for};
use understudy::debugging::timeline::{Found, Timeline};
use understudy::replaying::journal;
use understudy::replaying::moment::Moment;

fn replay(journal: &Path, options: &[&str]) -> Output {
    run(&[&["replay", journal.to_str().unwrap()], options].concat())
}

/// What it says of itself when it goes well.
fn replayed(journal: &Path, options: &[&str]) -> String {
    let output = replay(journal, options);
    let said = error_text(&output);
    assert!(output.status.success(), "{options:?}: {said}");
    said
}

fn refused(journal: &Path, options: &[&str]) -> String {
    let output = replay(journal, options);
    let said = error_text(&output);
    assert_eq!(output.status.code(), Some(2), "{options:?}: {said}");
    said
}

/// What it says, and what the guest printed.
fn printing(journal: &Path, options: &[&str]) -> (String, String) {
    let output = replay(journal, &[options, &["--dump-console"]].concat());
    let said = error_text(&output);
    assert!(output.status.success(), "{said}");
    (said, String::from_utf8(output.stdout).unwrap())
}

/// What stands between two texts.
fn between<'a>(said: &'a str, before: &str, after: &str) -> &'a str {
    let begin = said.find(before);
    let begin = begin.unwrap_or_else(|| panic!("no {before:?}: {said}")) + before.len();
    let length = said[begin..].find(after);
    &said[begin..begin + length.unwrap_or_else(|| panic!("no {after:?}: {said}"))]
}

fn number(said: &str, before: &str, after: &str) -> u64 {
    between(said, before, after).parse().unwrap()
}

/// Where a replay stopped: instruction, record, digest.
fn position(said: &str) -> (u64, u64, String) {
    let stopped = between(said, "stopped at ", "\n");
    (
        number(stopped, "instruction ", ","),
        number(stopped, "record ", ","),
        between(said, "digest ", " at").to_owned(),
    )
}

/// The lines of `--list` for snapshots.
fn ways_in(list: &str) -> Vec<(u64, u64)> {
    let lines = list.lines().filter(|line| line.contains("  snapshot "));
    let places = lines.map(|line| {
        let instruction = number(line, "instruction ", ",");
        (instruction, number(line, "record ", ","))
    });
    places.collect()
}

fn list(journal: &Path) -> String {
    let output = replay(journal, &["--list"]);
    assert!(output.status.success(), "{}", error_text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether this is what the outside saw, as far as it had seen it when the machine was killed.
fn was_seen(console: &str, replayed: &str) -> bool {
    let begin = console.find(&replayed[..40]);
    begin.is_some_and(|begin| {
        let seen = &console[begin..];
        seen.starts_with(replayed) || replayed.starts_with(seen)
    })
}

/// The last instruction that `--list` tells of.
fn end(list: &str) -> u64 {
    let last = list.lines().last().unwrap();
    assert!(last.contains("  until "), "{list}");
    number(last, "instruction ", ",")
}

/// A moment of a machine that computes, which goes on meanwhile: the digests of its own log are those of the
/// replay, and the console is what the outside saw.
#[test]
fn any_moment_of_a_machine_that_lives_is_there_again() {
    let keep = "keep_for = \"24h\"\nkeep = \"1G\"\nrecover_within = \"1s\"\n";
    let mut journaled = Journaled::with(&counting_busily(), "memory = \"8M\"\n", keep);
    let journal = journaled.journal();
    let told = wait_for("snapshots that are kept", || {
        let told = list(&journal);
        (ways_in(&told).len() >= 2 && journaled.journal_files("segment").len() >= 3).then_some(told)
    });
    let status = journaled.files.status().unwrap();
    let kept_since = status["journal"]["kept_since"].as_str().unwrap();
    assert!(kept_since.starts_with("20"), "{status}");
    assert!(
        status["journal"]["kept_bytes"].as_u64() > Some(0),
        "{status}"
    );
    let (first, count) = (ways_in(&told)[0].0, end(&told));
    let at = format!("instruction:{count}");
    let said = replayed(&journal, &["--at", &at]);
    assert_eq!(position(&said).0, count);
    for (by, of) in [
        ("--dir", &journaled.files.state),
        ("--config", &journaled.files.config),
    ] {
        let output = run(&["replay", by, of.to_str().unwrap(), "--at", &at]);
        assert_eq!(position(&error_text(&output)), position(&said), "{by}");
    }
    let from_first = format!("instruction:{first}");
    let seen = printing(&journal, &["--at", &from_first, "--until", &at]).1;
    let console = journaled.files.console();
    assert!(seen.len() > 100 && console.contains(&seen), "{seen:?}");
    for (moment, what) in [
        ("instruction:1", "is not in what is kept: journal "),
        ("9999h", "is not in what is kept: journal "),
        (
            "2020-01-01T00:00:00Z",
            "2020-01-01T00:00:00.000Z is not in what is kept",
        ),
    ] {
        let said = refused(&journal, &["--at", moment]);
        assert!(
            said.contains(what) && said.contains(" goes from instruction "),
            "{said}"
        );
    }
    // It has not noticed anything.
    journaled.await_more(100);
    journaled.kill();
    journaled.assert_one_history();
    // Now nothing changes any more: a moment is the same from whichever snapshot it is reached.
    let told = list(&journal);
    let (newest, count) = (ways_in(&told).pop().unwrap(), end(&told));
    assert!(newest.0 > first, "{told}");
    let (whole, all) = printing(&journal, &[]);
    let at = format!("instruction:{count}");
    let (near, seen) = printing(&journal, &["--at", &at]);
    let digest = position(&near).2;
    let last = format!("digest {digest} at {count}; the journal is whole up to its last commit");
    assert!(whole.contains(&last), "{whole}\n{near}");
    let instructions = |said: &str| number(said, "replayed ", " instr");
    let between = instructions(&whole) - instructions(&near);
    assert_eq!(between, newest.0 - first);
    assert!(number(&whole, "records, ", " digests equal") > 0, "{whole}");
    assert!(all.ends_with(&seen) && was_seen(&journaled.files.console(), &all));
    let record = newest.1 + 1;
    let said = replayed(&journal, &["--at", &format!("record:{record}")]);
    assert_eq!(position(&said).1, record);
}

/// By date and guest time; and what is wrong in a file is named, while everything before it is there.
#[test]
fn a_damaged_segment_is_refused_and_what_precedes_it_is_not() {
    let mut journaled = Journaled::start(&counting_slowly(), "8M");
    journaled.await_more(1_500);
    journaled.kill();
    let journal = journaled.journal();
    let told = list(&journal);
    let end = told.lines().last().unwrap();
    let (guest_time, date) = (
        between(end, "record ", " s of guest time"),
        &end[end.len() - 24..],
    );
    let guest_time = guest_time.split(", ").last().unwrap();
    // The very last moment is there, by whichever clock.
    for moment in [format!("{guest_time}s"), date.to_owned()] {
        let said = replayed(&journal, &["--at", &moment]);
        assert!(said.contains("stopped at"), "{said}");
    }
    let segment = journaled.journal_files("segment")[0].clone();
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, [&whole[..], &[2, 0x99, 7, 7, 7]].concat()).unwrap();
    let torn = replayed(&journal, &[]);
    assert!(
        torn.contains("the 5 bytes after it are being written, or torn"),
        "{torn}"
    );
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&segment, &damaged).unwrap();
    let said = refused(&journal, &[]);
    assert!(
        said.contains("00000001.segment: it is damaged after record"),
        "{said}"
    );
    let after: u64 = number(&said, "damaged after record ", ":");
    let before = replayed(&journal, &["--at", &format!("record:{after}")]);
    assert_eq!(position(&before).1, after);
    refused(&journal, &["--at", &format!("record:{}", after + 1)]);
    // A page of the snapshot.
    fs::write(&segment, &whole).unwrap();
    let snapshot = &journaled.journal_files("snapshot")[0];
    let mut damaged = fs::read(snapshot).unwrap();
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    fs::write(snapshot, &damaged).unwrap();
    let said = refused(&journal, &["--at", &format!("record:{after}")]);
    assert!(
        said.contains("00000001.snapshot") && said.contains("piece"),
        "{said}"
    );
    let said = refused(&journal.join("nothing"), &["--at", "record:9"]);
    assert!(said.contains("cannot open the recording"), "{said}");
}

/// What disks read is in the journal of a machine whose history is kept: neither the image is read, nor what is
/// beside it. A journal that keeps none says so.
#[test]
fn what_disks_read_is_in_the_history() {
    for (keep, is_kept) in [("keep = \"1G\"\n", true), ("", false)] {
        let pair = PairDirectory::new(&counting_through_disk(u16::MAX));
        fs::write(pair.path().join("disk.img"), vec![0; 1 << 20]).unwrap();
        let section = format!("{keep}[[disks]]\npath = \"disk.img\"\n");
        let mut journaled = Journaled::in_directory(pair, "memory = \"8M\"\n", &section);
        journaled.await_more(600);
        journaled.kill();
        let journal = journaled.journal();
        if !is_kept {
            let said = refused(&journal, &[]);
            assert!(
                said.contains("of disk 0 read is not in the records"),
                "{said}"
            );
            continue;
        }
        // Nothing of it is needed.
        for entry in fs::read_dir(journaled.pair.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with("disk.img") {
                let away = journaled.pair.path().join(format!("away.{name}"));
                fs::rename(journaled.pair.path().join(&name), away).unwrap();
            }
        }
        let seen = printing(&journal, &[]).1;
        assert!(seen.len() > 500 && was_seen(&journaled.files.console(), &seen));
    }
}

/// What a debugger does on a part of the history: numbers, positions and digests are those of the whole.
#[test]
fn a_debugger_goes_back_and_forth_in_a_journal() {
    let mut journaled = Journaled::start(&counting_slowly(), "8M");
    journaled.await_more(1_000);
    journaled.kill();
    let journal = journaled.journal();
    let (begin, record) = ways_in(&list(&journal))[0];
    let at = begin + 6_000;
    let history = journal::history(
        &JournalPlace::Directory(journal.clone()),
        Some(Moment::Instruction(at)),
        "interpreter".parse().unwrap(),
    );
    let history = history.unwrap_or_else(|failure| panic!("{failure}"));
    let mut timeline = Timeline::new(
        history.machine,
        history.before,
        history.records,
        history.end,
    )
    .unwrap();
    assert!(timeline.replayed() >= RecordNumber(record) && timeline.begin() == begin);
    let mut never = || false;
    for position in [at, at - 1, begin + 7, at] {
        assert_eq!(
            timeline.go_to(position, &mut never).unwrap(),
            Found::Position
        );
        let said = replayed(&journal, &["--at", &format!("instruction:{position}")]);
        let expected = self::position(&said);
        let found = format!("{:032x}", timeline.digest());
        assert_eq!(
            (timeline.position(), timeline.replayed().0, found),
            expected
        );
    }
    let next = timeline.replayed().next();
    let place = timeline.record_position(next).unwrap();
    let said = replayed(&journal, &["--at", &format!("record:{next}")]);
    assert_eq!(position(&said).0, place);
}
