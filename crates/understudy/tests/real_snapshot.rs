//! Real processes: a machine is kept in a file while it runs and is protected, everything is killed, and the file
//! makes another life of it, memory and disks as they were at one moment.

mod support;

use replication::marker::{DiskState, Marker, Role};
use replication::message::LifeId;
use replication::succession::{Generation, LifeNumber, MachineName, RecordNumber};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::device_programs::{COUNTED_SECTORS, counting_to_disk};
use support::guest_program::{counting_slowly, filling_memory_then_counting};
use support::history::{await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, error_text, run, wait_for};

const DISK_BYTES: usize = 1 << 20;

fn with_disk(name: &str) -> String {
    format!("[[disks]]\npath = \"{name}.img\"\n")
}

fn snapshot(of: &Path, file: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["snapshot", "--dir", of.to_str().unwrap()];
    arguments.extend(more);
    arguments.push(file.to_str().unwrap());
    run(&arguments)
}

fn restore(files: &ReplicaFiles, file: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["restore", "--config", files.config(), "--yes"];
    arguments.extend(more);
    arguments.push(file.to_str().unwrap());
    run(&arguments)
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// It was refused, with this status, and says all of this.
fn assert_refused(output: &Output, status: i32, told: &[&str]) {
    let text = error_text(output);
    assert_eq!(output.status.code(), Some(status), "{text}");
    for word in told {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// The last number that the guest wrote to its disk: each sector holds the last of its own.
fn last_on(disk: &Path) -> u32 {
    let bytes = fs::read(disk).unwrap();
    assert_eq!(bytes.len(), DISK_BYTES);
    let sector = |number: u64| (number % COUNTED_SECTORS) as usize * 512;
    let number_in = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let numbers = (0..COUNTED_SECTORS).map(|number| number_in(sector(number)));
    let last = numbers.max().unwrap();
    for before in last + 1 - COUNTED_SECTORS..=last {
        assert_eq!(number_in(sector(before)), before, "the last is {last}");
    }
    last as u32
}

fn last_line(replica: &ReplicaFiles) -> u32 {
    numbers(&replica.console()).last().copied().unwrap()
}

/// What would be beside the disk of this machine.
fn marker_of(machine: &str) -> Marker {
    Marker {
        machine: MachineName::new(machine).unwrap(),
        life: LifeNumber(1),
        life_id: LifeId(7),
        generation: Generation(1),
        role: Role::Primary,
        record: RecordNumber(1),
        disk: DiskState::Whole,
    }
}

/// A file that differs in one byte, in the middle of what is packed.
fn damaged(file: &Path, at: usize) -> PathBuf {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x40;
    let damaged = file.with_extension("damaged");
    fs::write(&damaged, bytes).unwrap();
    damaged
}

#[test]
fn a_protected_pair_is_kept_and_comes_back_as_it_was_at_that_moment() {
    let pair = PairDirectory::new(&counting_to_disk(u16::MAX));
    fs::write(pair.path().join("r1.img"), vec![0; DISK_BYTES]).unwrap();
    let (first, mut first_process, listen) = pair.primary_with("r1", &with_disk("r1"));
    let (second, mut second_process) = pair.backup_with("r2", &listen, &with_disk("r2"));
    first.await_state("protected");
    await_lines(&first, 300);

    let file = pair.path().join("kept");
    let asked = snapshot(&first.state, &file, &[]);
    assert_refused(&asked, 1, &["host r2 follows the machine", "--here"]);
    assert!(!file.exists());
    let before = last_line(&first);
    // Under a directory of both the backup is asked.
    assert_done(&snapshot(pair.path(), &file, &[]));
    let after = last_line(&first);
    wait_for("the event", || {
        second.has_event("snapshot_taken").then_some(())
    });
    assert!(!first.has_event("snapshot_begun"));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let live = pair.path().join("kept-live");
    assert_done(&snapshot(&first.state, &live, &["--here"]));
    await_lines(&first, after as usize + 100);
    for replica in [&first, &second] {
        for event in ["diverged", "suspected", "disk_error"] {
            assert!(!replica.has_event(event), "{event}");
        }
    }
    assert_eq!(first.status().unwrap()["state"], "protected");
    first_process.kill();
    second_process.kill();

    // Nothing of a file that is refused comes to its place.
    let third = pair.replica("r3", None, &with_disk("r3"));
    let disk = pair.path().join("r3.img");
    assert_refused(
        &restore(&third, &file, &[]),
        2,
        &["life 1 is open", "--new-life"],
    );
    let length = fs::metadata(&file).unwrap().len() as usize;
    let torn = file.with_extension("torn");
    fs::write(&torn, &fs::read(&file).unwrap()[..length / 2]).unwrap();
    for (file, told) in [
        (&torn, "it is torn"),
        (&damaged(&file, length / 3), "it is damaged in "),
    ] {
        assert_refused(&restore(&third, file, &["--new-life"]), 2, &[told]);
    }
    assert!(!disk.exists() && !third.state.join("restored.snapshot").exists());

    // Finding: the disk of another machine was overwritten.
    let beside = pair.path().join("r3.img.understudy");
    fs::write(&disk, b"theirs").unwrap();
    fs::write(&beside, marker_of("shop").content_beside(6)).unwrap();
    let overwriting = ["--new-life", "--overwrite-disks"];
    assert_refused(
        &restore(&third, &file, &overwriting),
        2,
        &["machine \"shop\"", "r3.img.understudy"],
    );
    assert_eq!(fs::read(&disk).unwrap(), b"theirs");
    fs::remove_file(&disk).unwrap();
    fs::remove_file(&beside).unwrap();

    assert_done(&restore(&third, &file, &["--new-life"]));
    let kept = last_on(&disk);
    assert!(
        (before..=after + 1).contains(&kept),
        "{kept} was not between {before} and {after}"
    );
    let process = Process::start(&["replica", "--config", third.config()]);
    wait_for("the restored machine", || {
        third.has_event("restored").then_some(())
    });
    wait_for("its output", || {
        (third.console().lines().count() > 100).then_some(())
    });
    // It may have been about to end a line.
    let console = third.console();
    let (_, whole) = console.split_once('\n').unwrap();
    let told = numbers(whole);
    assert!(
        (kept..=kept + 2).contains(&told[0]),
        "the disk's last is {kept}, the memory's {}",
        told[0]
    );
    assert!(
        told.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{told:?}"
    );

    // A backup joins it as any other.
    let listen = third.status().unwrap()["listen"]
        .as_str()
        .unwrap()
        .to_owned();
    let (fourth, _fourth_process) = pair.backup_with("r4", &listen, &with_disk("r4"));
    third.await_state("protected");
    let mut process = process;
    process.kill();
    wait_for("the backup to go live", || {
        fourth.status().filter(|status| status["role"] == "primary")
    });
    assert!(!fourth.has_event("diverged"));

    // The one that was taken at the live machine is as good.
    let fifth = pair.replica("r5", None, &with_disk("r5"));
    drop(_fourth_process);
    assert_done(&restore(&fifth, &live, &["--new-life"]));
    assert!(last_on(&pair.path().join("r5.img")) >= after);
}

/// A machine alone, without disks; the state directory, the arbiter and everything else are lost.
#[test]
fn a_machine_alone_comes_back_on_a_fresh_host_and_only_once() {
    let pair = PairDirectory::new(&counting_slowly());
    let (first, mut process, _) = pair.primary("r1");
    await_lines(&first, 500);
    let file = pair.path().join("kept");
    assert_done(&snapshot(&first.state, &file, &[]));
    assert!(!file.with_extension("partial").exists());
    // Its replica runs.
    assert_refused(&restore(&first, &file, &["--new-life"]), 6, &["in use"]);
    process.kill();
    fs::remove_dir_all(pair.path().join("arbiter")).unwrap();
    fs::create_dir(pair.path().join("arbiter")).unwrap();

    let other = pair.replica("r2", None, "memory = \"16M\"\nharts = 2\n");
    let differs = ["memory: 16M here, 8M at the file", "harts: 2 here, 1"];
    assert_refused(&restore(&other, &file, &[]), 2, &differs);
    let second = pair.replica("r3", None, "");
    assert_done(&restore(&second, &file, &[]));
    let mut process = Process::start(&["replica", "--config", second.config()]);
    wait_for("its output", || {
        (second.console().lines().count() > 10).then_some(())
    });
    let console = second.console();
    let (_, whole) = console.split_once('\n').unwrap();
    assert!(numbers(whole)[0] >= 499, "it goes on");
    process.kill();
    // The life is what it was; the snapshot is used once.
    let before = second.console().len();
    let _process = Process::start(&["replica", "--config", second.config()]);
    wait_for("its output", || {
        (second.console().len() > before + 50).then_some(())
    });
    let console = second.console();
    assert!(console[before..].starts_with("0000\n"), "it began anew");
}

/// Whoever ends while it comes leaves no file, and a page that is damaged has a name.
#[test]
fn a_large_memory_is_kept_and_a_damaged_page_is_named() {
    let pair = PairDirectory::new(&filling_memory_then_counting(24 << 20));
    let (first, _process, _) = pair.primary_with("r1", "memory = \"64M\"\n");
    await_lines(&first, 50);
    let file = pair.path().join("kept");
    let arguments = ["snapshot", "--dir", first.state.to_str().unwrap()];
    let mut interrupted = Process::start(&[&arguments[..], &[file.to_str().unwrap()]].concat());
    let partial = pair.path().join("kept.partial");
    wait_for("the beginning of the file", || {
        (partial.exists() || file.exists()).then_some(())
    });
    interrupted.kill();
    assert!(!partial.exists() || !file.exists());
    wait_for("another one to be taken", || {
        snapshot(&first.state, &file, &[])
            .status
            .success()
            .then_some(())
    });
    let length = fs::metadata(&file).unwrap().len() as usize;
    assert!(length > 24 << 20, "{length}");
    let second = pair.replica("r2", None, "memory = \"64M\"\n");
    let refused = restore(&second, &damaged(&file, length / 2), &["--new-life"]);
    assert_refused(&refused, 2, &["damaged in memory, pages "]);
}

/// The longest time in which the outside saw nothing of the guest, in milliseconds, while `work` was done.
fn longest_silence(replica: &ReplicaFiles, work: impl FnOnce()) -> f64 {
    let console = replica.state.join("console.log");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let (mut longest, mut length, mut since) = (Duration::ZERO, 0, Instant::now());
            while !is_done.load(Ordering::Relaxed) {
                let now = fs::metadata(&console).unwrap().len();
                longest = longest.max(since.elapsed());
                if now != length {
                    (length, since) = (now, Instant::now());
                }
                std::thread::sleep(Duration::from_micros(100));
            }
            longest.as_secs_f64() * 1e3
        });
        work();
        is_done.store(true, Ordering::Relaxed);
        watched.join().unwrap()
    })
}

/// `SNAPSHOT_MIB=1024 cargo test --release -p understudy --test real_snapshot -- --ignored --nocapture` says what it
/// costs: nothing is checked.
#[test]
#[ignore = "measures, and checks nothing"]
fn what_a_snapshot_costs_the_outside() {
    let mib: u64 = std::env::var("SNAPSHOT_MIB").map_or(256, |mib| mib.parse().unwrap());
    let pair = PairDirectory::new(&filling_memory_then_counting(mib << 20));
    let memory = format!("memory = \"{}M\"\n", mib + 64);
    let (first, _first_process, listen) = pair.primary_with("r1", &memory);
    await_lines(&first, 50);
    let (second, _second_process) = pair.backup_with("r2", &listen, &memory);
    first.await_state("protected");
    let rest = || std::thread::sleep(Duration::from_secs(3));
    println!("silence without: {:.1} ms", longest_silence(&first, rest));
    let file = pair.path().join("kept");
    for (of, more) in [(&second, &[][..]), (&first, &["--here"])] {
        let began = Instant::now();
        let silence = longest_silence(&first, || assert_done(&snapshot(&of.state, &file, more)));
        let length = fs::metadata(&file).unwrap().len() >> 20;
        println!(
            "{}: {:.1} s, {length} MiB, silence {silence:.1} ms",
            of.state.display(),
            began.elapsed().as_secs_f64()
        );
        for line in fs::read_to_string(of.state.join("events.jsonl"))
            .unwrap()
            .lines()
        {
            if line.contains("snapshot_") {
                println!("{line}");
            }
        }
    }
}
