//! Pairs whose guest writes to its disk and flushes it, under kills, failing and full disks.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::device_programs::{COUNTED_SECTORS, counting_to_disk};
use support::history::{assert_one_history, await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, wait_for, without_no_jit};

const DISK_BYTES: usize = 1 << 20;
/// A sector that the guest leaves alone.
const UNTOUCHED: usize = 1000;

/// The keys of a replica whose disk is a file of this name beside its configuration.
fn with_disk(name: &str) -> String {
    format!("[[disks]]\npath = \"{name}.img\"\n")
}

struct DiskPair(PairDirectory);

impl DiskPair {
    /// A directory with the first replica's disk: zeros, but for a word in one sector.
    fn new(lines: u16) -> DiskPair {
        let pair = PairDirectory::new(&counting_to_disk(lines));
        let mut disk = vec![0; DISK_BYTES];
        disk[UNTOUCHED * 512..][..9].copy_from_slice(b"untouched");
        fs::write(pair.path().join("r1.img"), disk).unwrap();
        DiskPair(pair)
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.img"))
    }

    fn primary(&self) -> (ReplicaFiles, Process, String) {
        self.0.primary_with("r1", &with_disk("r1"))
    }

    fn backup(&self, name: &str, peer: &str) -> (ReplicaFiles, Process) {
        self.0.backup_with(name, peer, &with_disk(name))
    }
}

/// Everything that the guest was told is durable, and has printed since, is on this disk; besides the
/// counted sectors there is what was there at the beginning.
fn assert_has_all(disk: &Path, printed: &[u32]) {
    let bytes = fs::read(disk).unwrap();
    assert_eq!(bytes.len(), DISK_BYTES);
    let last = *printed.last().unwrap();
    for number in last.saturating_sub(COUNTED_SECTORS as u32 - 1)..=last {
        let at = (u64::from(number) % COUNTED_SECTORS) as usize * 512;
        let written = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert!(
            written >= number.into() && (written - u64::from(number)) % COUNTED_SECTORS == 0,
            "{number} was flushed, its sector holds {written}"
        );
    }
    let rest = &bytes[COUNTED_SECTORS as usize * 512..];
    let at = UNTOUCHED * 512 - COUNTED_SECTORS as usize * 512;
    assert!(rest[at..].starts_with(b"untouched"));
    let others = rest.iter().filter(|byte| **byte != 0).count();
    assert_eq!(others, 9, "bytes that nobody wrote");
}

fn await_live(backup: &ReplicaFiles) -> String {
    let status = wait_for("the backup to go live", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
    status["listen"].as_str().unwrap().to_owned()
}

fn await_more_lines(replica: &ReplicaFiles) {
    let lines = numbers(&replica.console()).len();
    await_lines(replica, lines + 3 * COUNTED_SECTORS as usize);
}

/// The last replica's console begins in the middle of a line, perhaps.
fn whole_lines(replica: &ReplicaFiles) -> Vec<u32> {
    let console = replica.console();
    numbers(console.split_once('\n').map_or("", |(_, rest)| rest))
}

/// Finding 13: every disk is a copy, made while the guest writes, over something older and longer.
#[test]
fn what_was_flushed_is_on_the_disk_of_whoever_goes_on() {
    let pair = DiskPair::new(u16::MAX);
    for name in ["r2", "r3"] {
        fs::write(pair.disk(name), vec![0xaa; 3 * DISK_BYTES]).unwrap();
    }
    let (primary, mut process, listen) = pair.primary();
    await_lines(&primary, 20);
    let (second, mut second_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    await_more_lines(&primary);
    process.kill();
    let listen = await_live(&second);
    await_more_lines(&second);
    assert_one_history(&primary, &second);
    let (third, mut third_process) = pair.backup("r3", &listen);
    second.await_state("protected");
    await_more_lines(&second);
    second_process.kill();
    let _listen = await_live(&third);
    await_more_lines(&third);
    for replica in [&second, &third] {
        assert!(!replica.has_event("diverged") && !replica.has_event("disk_error"));
    }
    third_process.kill();
    assert_has_all(&pair.disk("r1"), &numbers(&primary.console()));
    assert_has_all(&pair.disk("r2"), &whole_lines(&second));
    assert_has_all(&pair.disk("r3"), &whole_lines(&third));
}

/// Runs a shell script in a mount namespace of its own, where `$FULL` is a file system of 2 MiB and
/// the directory is the pair's. `None` where the host does not allow that; it is said why.
fn with_small_file_system(pair: &DiskPair, script: &str) -> Option<Output> {
    let mount = "mount -t tmpfs -o size=2m small \"$FULL\"";
    let full = tempfile::tempdir().unwrap();
    let shell = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .current_dir(pair.0.path())
            .env("FULL", full.path())
            .env("PROGRAM", env!("CARGO_BIN_EXE_understudy"))
            .stdin(Stdio::null());
        command.output()
    };
    let possible = shell(mount);
    if !possible
        .as_ref()
        .is_ok_and(|output| output.status.success())
    {
        println!("skipped: no mount namespace here: {possible:?}");
        return None;
    }
    Some(shell(&format!("{mount} || exit 99\n{FUNCTIONS}\n{script}")).unwrap())
}

/// A protected pair of `r1` and `r2`, `$first` and `$second`; `fill` leaves no room.
const FUNCTIONS: &str = r#"
    status() { "$PROGRAM" status --dir "$1" --json; }
    # until_says REPLICA PATTERN
    until_says() {
        for attempt in $(seq 600); do status "$1" | grep -q "$2" && return; sleep 0.1; done
        echo "$1 never said $2"; status "$1"; kill -9 $first $second; exit 1
    }
    has_event() { grep -q "\"event\":\"$2\"" "$1/events.jsonl"; }
    lines() { wc -l < "$1/console.log"; }
    # until_lines REPLICA MORE
    until_lines() {
        until=$(($(lines "$1") + $2))
        for attempt in $(seq 600); do [ $(lines "$1") -ge $until ] && return; sleep 0.1; done
        echo "$1 stands still"; kill -9 $first $second; exit 1
    }
    # Takes away what the disk has on the full file system, again and again until the process ends or
    # says the event: the guest's next write there finds no room. break_disk PROCESS REPLICA EVENT
    break_disk() {
        while kill -0 "$1" 2> /dev/null && ! has_event "$2" "$3"; do
            fallocate -p -o 0 -l 1M "$FULL/disk.img"
            cat /dev/zero >> "$FULL/rest" 2> /dev/null
        done
    }
    pair() {
        "$PROGRAM" replica --config r1.toml & first=$!
        until_says r1 '"role":"primary"'
        listen=$(status r1 | grep -o '"listen":"[^"]*' | cut -d'"' -f4)
        sed -i "s|PEER|$listen|" r2.toml
        "$PROGRAM" replica --config r2.toml & second=$!
        until_says r1 '"state":"protected"'
        until_lines r1 100
    }
"#;

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| without_no_jit(&String::from_utf8_lossy(bytes));
    (text(&output.stdout), text(&output.stderr))
}

/// Writes both configurations, with the disk of `full` on the small file system.
fn configure(pair: &DiskPair, full: &str) {
    pair.0.replica("r1", None, &with_disk("r1"));
    pair.0.replica("r2", Some("PEER"), &with_disk("r2"));
    let path = pair.0.path().join(format!("{full}.toml"));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&format!("{full}.img"), "FULL/disk.img")).unwrap();
}

/// Findings 3 and 13: a backup whose disk fails must not follow on without it.
#[test]
fn a_backup_whose_disk_is_full_leaves_and_says_why() {
    let pair = DiskPair::new(u16::MAX);
    configure(&pair, "r2");
    let script = r#"
        sed -i "s|FULL|$FULL|" r2.toml
        pair
        break_disk $second r2 machine_failed
        wait $second; echo "backup $?"
        until_says r1 '"state":"alone"'
        until_lines r1 100
        has_event r1 disk_error && echo "the primary has a disk error"
        has_event r1 diverged && echo "the primary diverged"
        kill -9 $first
        echo done
    "#;
    let Some(output) = with_small_file_system(&pair, script) else {
        return;
    };
    let (printed, said) = texts(&output);
    assert!(printed.ends_with("done\n"), "{printed}{said}");
    assert!(!printed.contains("the primary"), "{printed}{said}");
    assert!(!printed.contains("backup 0"), "{printed}{said}");
    assert!(
        said.contains("disk.img") && said.contains("No space left"),
        "{printed}{said}"
    );
}
