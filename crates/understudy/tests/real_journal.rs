//! Real processes, killed with SIGKILL: a machine with a journal and no backup goes on exactly where
//! the outside saw it last.
//!
//! `KILLS=20 cargo test --release -p understudy --test real_journal -- killed_again` kills as often.

mod support;

use rustix::process::Signal;
use std::fs;
use support::device_programs::{COUNTED_SECTORS, counting_to_disk};
use support::guest_program::{
    counting_busily, counting_slowly, filling_memory_then_counting,
    filling_memory_then_counting_busily,
};
use support::journaled::Journaled;
use support::{PairDirectory, wait_for};

fn kills() -> usize {
    let kills = std::env::var("KILLS").ok();
    kills.map_or(6, |kills| kills.parse().unwrap())
}

#[test]
fn killed_again_and_again_it_goes_on_where_it_was_seen_last() {
    let mut journaled = Journaled::start(&counting_slowly(), "8M");
    for kill in 0..kills() {
        journaled.await_more(200 + 137 * kill);
        journaled.kill();
        journaled.restart();
    }
    journaled.files.await_state("journaled");
    journaled.await_more(500);
    journaled.kill();
    journaled.assert_one_history();
    // One life, and each start went on in it.
    let console = journaled.files.console();
    assert!(console.len() > 500 * kills(), "{}", console.len());
}

/// A guest that never waits, and whose memory is large: the snapshot is taken while it runs.
#[test]
fn a_busy_guest_with_much_memory_goes_on_as_well() {
    let program = filling_memory_then_counting(24 << 20);
    let mut journaled = Journaled::start(&program, "64M");
    journaled.await_more(2_000);
    journaled.kill();
    journaled.restart();
    // Killed while it replays, it loses nothing either.
    wait_for("the replay", || {
        journaled.files.has_event("recovering").then_some(())
    });
    journaled.kill();
    journaled.restart();
    journaled.await_more(500);
    journaled.assert_one_history();
    drop(journaled);

    let mut journaled = Journaled::start(&counting_busily(), "8M");
    journaled.await_more(200);
    journaled.kill();
    journaled.restart();
    journaled.await_more(200);
    journaled.assert_one_history();
}

#[test]
fn asked_to_end_it_stays_in_its_journal_and_goes_on_from_there() {
    let mut journaled = Journaled::start(&counting_slowly(), "8M");
    journaled.await_more(300);
    journaled.process.signal(Signal::TERM);
    let (status, _) = journaled.process.end();
    assert_eq!(status.code(), Some(15));
    journaled.restart();
    journaled.await_more(300);
    journaled.assert_one_history();
}

/// Nothing is given up silently, and nothing is started from something else.
#[test]
fn a_damaged_or_missing_journal_is_waited_for_and_what_is_wrong_is_told() {
    let mut journaled = Journaled::start(&counting_slowly(), "8M");
    journaled.await_more(1_500);
    journaled.kill();
    // A bit flips in the middle of what was durable.
    let segment = &journaled.journal_files("segment")[0];
    let whole = fs::read(segment).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(segment, &damaged).unwrap();
    let segment = segment.clone();
    journaled.restart();
    let said = journaled.await_waiting("damaged after record");
    assert!(
        said.contains("new-life") && said.contains("segment"),
        "{said}"
    );
    // A page of the snapshot is damaged.
    fs::write(&segment, &whole).unwrap();
    journaled.kill();
    let snapshot = journaled.journal_files("snapshot")[0].clone();
    let mut damaged = fs::read(&snapshot).unwrap();
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    fs::write(&snapshot, &damaged).unwrap();
    journaled.restart();
    let said = journaled.await_waiting("piece");
    assert!(said.contains("of the snapshot) is damaged"), "{said}");
    damaged[at] ^= 1;
    fs::write(&snapshot, &damaged).unwrap();
    journaled.kill();
    // What was being written when everything ended is cut off.
    let torn = [&whole[..], &[2, 0x99, 7, 7, 7]].concat();
    fs::write(&segment, &torn).unwrap();
    // And its disk is not mounted.
    let (journal, away) = (
        journaled.pair.path().join("journal"),
        journaled.pair.path().join("away"),
    );
    fs::rename(&journal, &away).unwrap();
    journaled.restart();
    journaled.await_waiting("is that mounted?");
    // It is: the replica looks by itself.
    for entry in fs::read_dir(&away).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            fs::rename(entry.path(), journal.join(entry.file_name())).unwrap();
        }
    }
    journaled.await_more(300);
    journaled.assert_one_history();
    assert_eq!(fs::read(&segment).unwrap(), whole);
}

/// By snapshots now and then the journal stays short, and so does the time to go on from it. What the newest builds on
/// stays, whatever else goes.
#[test]
fn old_segments_go_when_there_is_a_newer_snapshot() {
    let extra = "memory = \"8M\"\n";
    let journal = "recover_within = \"1s\"\n";
    let program = filling_memory_then_counting_busily(1 << 20);
    let mut journaled = Journaled::with(&program, extra, journal);
    let first = |journaled: &Journaled, ending| {
        let files = journaled.journal_files(ending);
        let name = files
            .first()
            .map(|file| file.file_stem().unwrap().to_owned());
        name.map_or(0, |name| name.to_str().unwrap().parse::<u64>().unwrap())
    };
    for start in 0..2 {
        let before = first(&journaled, "segment");
        wait_for("snapshots and the end of what was before them", || {
            let bytes = snapshot_bytes(&journaled);
            let are_chained = bytes.len() >= 3 && bytes[bytes.len() - 2..].iter().all(is_small);
            (first(&journaled, "segment") > before + 1 && are_chained).then_some(())
        });
        journaled.kill();
        let (snapshot, segment) = (first(&journaled, "snapshot"), first(&journaled, "segment"));
        assert!(snapshot < segment, "start {start}: {snapshot}, {segment}");
        assert!(journaled.journal_files("segment").len() <= 3);
        assert_chained_snapshots(&mut journaled, start);
        journaled.restart();
        journaled.await_more(100);
    }
    journaled.assert_one_history();
    // Right after a start nothing is known of how fast this host replays, and the least is assumed: the next snapshot
    // comes the sooner for that.
    wait_for("a snapshot from which it would be quick to go on", || {
        let status = journaled.files.status()?;
        let recovers_in_ms = status["journal_recovers_in_ms"].as_f64()?;
        (recovers_in_ms < 5_000.0).then_some(())
    });
}

/// Of the snapshots that there are, the oldest first. One that goes at this moment has none.
fn snapshot_bytes(journaled: &Journaled) -> Vec<u64> {
    let files = journaled.journal_files("snapshot").into_iter();
    let bytes = files.map(|file| fs::metadata(file).map_or(0, |metadata| metadata.len()));
    bytes.collect()
}

/// A few pages: between two snapshots the guest that counts writes one.
fn is_small(bytes: &u64) -> bool {
    *bytes < 100_000
}

/// All of its memory is in the snapshots together, and little in the newest. One in the middle that is damaged is named,
/// and nothing is started.
fn assert_chained_snapshots(journaled: &mut Journaled, start: usize) {
    let bytes = snapshot_bytes(journaled);
    let all: u64 = bytes.iter().sum();
    assert!(
        all > 1 << 20 && is_small(&bytes[bytes.len() - 1]),
        "start {start}: {bytes:?}"
    );
    let files = journaled.journal_files("snapshot");
    let middle = &files[files.len() - 2];
    let whole = fs::read(middle).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(middle, &damaged).unwrap();
    journaled.restart();
    let said = journaled.await_waiting("of the snapshot) is damaged");
    let name = middle.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(name), "{said}");
    journaled.kill();
    fs::write(middle, &whole).unwrap();
}

/// As a recorder that nobody waits for: a machine does not go on from it.
#[test]
fn a_journal_that_keeps_the_history_holds_nothing_up() {
    let extra = "memory = \"8M\"\n";
    let journal = "outputs_wait_for = \"backup\"\n";
    let mut journaled = Journaled::with(&counting_slowly(), extra, journal);
    journaled.files.await_state("alone");
    journaled.await_more(300);
    journaled.kill();
    let before = journaled.files.console().len();
    journaled.restart();
    journaled.await_more(100);
    let console = journaled.files.console();
    assert!(console[before..].starts_with("0000\n"), "it began anew");
}

/// A guest that writes its disk and flushes it, killed again and again while snapshots are taken and what was
/// written before them goes into the image: each start reads what was written, and in the end the image holds
/// it all, with nothing beside it.
#[test]
fn a_machine_that_writes_its_disk_goes_on_with_the_disk_as_it_was() {
    const LINES: u16 = 4_000;
    let pair = PairDirectory::new(&counting_to_disk(LINES));
    let disk = pair.path().join("disk.img");
    fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let extra = "memory = \"8M\"\n";
    let journal = "recover_within = \"1s\"\n[[disks]]\npath = \"disk.img\"\n";
    let mut journaled = Journaled::in_directory(pair, extra, journal);
    for kill in 0..4 {
        journaled.await_more(1_000 + 171 * kill);
        journaled.kill();
        journaled.restart();
    }
    let (status, said) = journaled.process.end();
    assert_eq!(status.code(), Some(0), "{said}");
    journaled.assert_one_history();
    let console = journaled.files.console();
    assert!(
        console.ends_with(&format!("{:04x}\n", LINES - 1)),
        "{console}"
    );
    assert!(journaled.files.has_event("recovered"));
    // The last number of each sector, and no other.
    let image = fs::read(&disk).unwrap();
    for sector in 0..COUNTED_SECTORS {
        let last = u64::from(LINES) - COUNTED_SECTORS + sector;
        let at = ((last % COUNTED_SECTORS) * 512) as usize;
        assert_eq!(image[at..at + 8], last.to_le_bytes(), "sector {}", at / 512);
    }
    let beside = fs::read_dir(journaled.pair.path()).unwrap();
    let beside = beside.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let beside: Vec<String> = beside.filter(|name| name.contains("overlay")).collect();
    assert!(beside.is_empty(), "{beside:?}");
}

/// Somebody has started the machine from the image, without the journal: what it was at the snapshot is gone.
#[test]
fn a_disk_that_is_not_as_it_was_at_the_snapshot_is_told() {
    let pair = PairDirectory::new(&counting_to_disk(u16::MAX));
    fs::write(pair.path().join("disk.img"), vec![0; 1 << 20]).unwrap();
    let disk = "[[disks]]\npath = \"disk.img\"\n";
    let mut journaled = Journaled::in_directory(pair, "memory = \"8M\"\n", disk);
    journaled.await_more(300);
    journaled.kill();
    let overlay = journaled.pair.path().join("disk.img.overlay-00000001");
    let away = journaled.pair.path().join("away");
    fs::rename(&overlay, &away).unwrap();
    journaled.restart();
    let said = journaled.await_waiting("not as it was at the journal's snapshot");
    assert!(
        said.contains("disk.img") && said.contains("new-life"),
        "{said}"
    );
    fs::rename(&away, &overlay).unwrap();
    journaled.await_more(300);
    journaled.assert_one_history();
}
