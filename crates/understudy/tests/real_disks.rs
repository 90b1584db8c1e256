//! Pairs whose guest writes to its disk and flushes it, under kills, failing and full disks.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::device_programs::{COUNTED_SECTORS, counting_to_disk};
use support::failing_disk::{Faults, Request};
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

    /// The same whose replicas suspect each other after a second: a busy host is not silent for so long.
    fn patient() -> DiskPair {
        let mut pair = DiskPair::new(u16::MAX);
        pair.0.pair_keys = "suspect_after = \"1s\"\n";
        pair
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.img"))
    }

    fn files(&self, name: &str) -> ReplicaFiles {
        ReplicaFiles {
            config: self.0.path().join(format!("{name}.toml")),
            state: self.0.path().join(name),
        }
    }

    fn primary(&self) -> (ReplicaFiles, Process, String) {
        self.0.primary_with("r1", &with_disk("r1"))
    }

    fn backup(&self, name: &str, peer: &str) -> (ReplicaFiles, Process) {
        self.0.backup_with(name, peer, &with_disk(name))
    }
}

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output();
    let output = output.expect("qemu-img is there: apt-get install qemu-utils");
    // Room that nobody uses is no error.
    let is_fine = matches!(output.status.code(), Some(0))
        || arguments[0] == "check" && output.status.code() == Some(3);
    assert!(is_fine, "qemu-img {arguments:?}: {output:?}");
}

/// The disk in an image, a qcow2 one as QEMU reads it.
fn content(disk: &Path) -> Vec<u8> {
    if disk
        .extension()
        .is_none_or(|extension| extension != "qcow2")
    {
        return fs::read(disk).unwrap();
    }
    let (image, raw) = (disk.to_str().unwrap(), disk.with_extension("content"));
    qemu_img(&["check", "-f", "qcow2", image]);
    let raw_name = raw.to_str().unwrap();
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", image, raw_name]);
    fs::read(raw).unwrap()
}

/// Everything that the guest was told is durable, and has printed since, is on this disk; besides the
/// counted sectors there is what was there at the beginning.
fn assert_has_all(disk: &Path, printed: &[u32]) {
    let bytes = content(disk);
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

/// Finding 13: every disk is a copy, made while the guest writes, over something older and longer. The first
/// is a qcow2 image over a raw one, the second raw, the third is made, as a qcow2 image: it is all the same.
#[test]
fn what_was_flushed_is_on_the_disk_of_whoever_goes_on() {
    let pair = DiskPair::new(u16::MAX);
    let image = |name: &str| pair.0.path().join(format!("{name}.qcow2"));
    let over = image("r1");
    let (base, over) = (pair.disk("r1"), over.to_str().unwrap());
    let before = fs::read(&base).unwrap();
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        base.to_str().unwrap(),
        over,
    ]);
    fs::write(pair.disk("r2"), vec![0xaa; 3 * DISK_BYTES]).unwrap();
    let disk = |name: &str| match name {
        "r1" => "[[disks]]\npath = \"r1.qcow2\"\nbacking = [\"r1.img\"]\n".to_owned(),
        "r3" => "[[disks]]\npath = \"r3.qcow2\"\n".to_owned(),
        // Something older and longer, which may go.
        name => format!("{}overwrite = true\n", with_disk(name)),
    };
    let (primary, mut process, listen) = pair.0.primary_with("r1", &disk("r1"));
    await_lines(&primary, 20);
    let (second, mut second_process) = pair.0.backup_with("r2", &listen, &disk("r2"));
    primary.await_state("protected");
    await_more_lines(&primary);
    process.kill();
    let listen = await_live(&second);
    await_more_lines(&second);
    assert_one_history(&primary, &second);
    let (third, mut third_process) = pair.0.backup_with("r3", &listen, &disk("r3"));
    second.await_state("protected");
    await_more_lines(&second);
    second_process.kill();
    let _listen = await_live(&third);
    await_more_lines(&third);
    for replica in [&second, &third] {
        assert!(!replica.has_event("diverged") && !replica.has_event("disk_error"));
    }
    third_process.kill();
    assert_has_all(&image("r1"), &numbers(&primary.console()));
    assert_has_all(&pair.disk("r2"), &whole_lines(&second));
    assert_has_all(&image("r3"), &whole_lines(&third));
    assert!(
        fs::read(&base).unwrap() == before,
        "what lies under is only read"
    );
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
    pair.0.two_hosts(["r1", "r2"], with_disk);
    let path = pair.0.path().join(format!("{full}.toml"));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&format!("{full}.img"), "FULL/disk.img")).unwrap();
}

/// Findings 3 and 13: a backup whose disk fails must not follow on without it, and comes back when
/// there is room again.
#[test]
fn a_backup_whose_disk_is_full_leaves_and_says_why() {
    let pair = DiskPair::new(u16::MAX);
    configure(&pair, "r2");
    let script = r#"
        sed -i "s|FULL|$FULL|" r2.toml
        pair
        break_disk $second r2 disk_failed
        until_says r1 '"state":"alone"'
        until_says r2 'a disk of this host failed'
        until_lines r1 100
        has_event r1 disk_error && echo "the primary has a disk error"
        has_event r1 diverged && echo "the primary diverged"
        has_event r2 diverged && echo "the backup diverged"
        grep '"event":"suspected"' r1/events.jsonl
        rm "$FULL/rest"
        until_says r1 '"state":"protected"'
        has_event r2 disk_well || echo "the disk is not well"
        kill -9 $first $second
        echo done
    "#;
    let Some(output) = with_small_file_system(&pair, script) else {
        return;
    };
    let (printed, said) = texts(&output);
    assert!(printed.ends_with("done\n"), "{printed}{said}");
    for wrong in ["the primary", "the backup", "not well"] {
        assert!(!printed.contains(wrong), "{printed}{said}");
    }
    assert!(printed.contains("its disk failed"), "{printed}{said}");
}

/// Finding 3: the guest got errors of the primary's disk though its backup's was good, and later the
/// good copy was overwritten by the bad one.
#[test]
fn a_primary_whose_disk_is_full_hands_over() {
    let pair = DiskPair::new(u16::MAX);
    configure(&pair, "r1");
    let script = r#"
        sed -i "s|FULL|$FULL|" r1.toml
        cp r1.img "$FULL/disk.img"
        pair
        break_disk $first r1 handing_over
        until_says r2 '"role":"primary"'
        until_lines r2 100
        until_says r1 'a disk of this host failed'
        for name in r1 r2; do
            has_event $name disk_error && echo "the guest was told"
            has_event $name diverged && echo "they differ"
        done
        rm "$FULL/rest"
        until_says r2 '"state":"protected"'
        until_lines r2 100
        kill -9 $second
        until_says r1 '"role":"primary"'
        until_lines r1 100
        kill -9 $first
        cp "$FULL/disk.img" r1.img
        echo done
    "#;
    let Some(output) = with_small_file_system(&pair, script) else {
        return;
    };
    let (printed, said) = texts(&output);
    assert!(printed.ends_with("done\n"), "{printed}{said}");
    assert!(!printed.contains("the guest was told"), "{printed}{said}");
    assert!(!printed.contains("they differ"), "{printed}{said}");
    assert_has_all(&pair.disk("r1"), &whole_lines(&pair.files("r1")));
    assert_has_all(&pair.disk("r2"), &whole_lines(&pair.files("r2")));
}

/// A protected pair, of which one has disk faults.
struct FaultyPair {
    pair: DiskPair,
    first: (ReplicaFiles, Process),
    second: (ReplicaFiles, Process),
    faults: Faults,
}

impl FaultyPair {
    /// `faulty`: the name of the one with the faults.
    fn new(faulty: &str) -> FaultyPair {
        FaultyPair::of(DiskPair::new(u16::MAX), faulty)
    }

    fn of(pair: DiskPair, faulty: &str) -> FaultyPair {
        let faults = Faults::new(pair.0.path().join("faults"));
        let nobody = Faults::new(pair.0.path().join("nothing"));
        let of = |name: &str| if name == faulty { &faults } else { &nobody };
        let [first, second] = pair.0.two_hosts(["r1", "r2"], with_disk);
        let process = of("r1").start(first.config());
        let first = (first, process);
        await_live(&first.0);
        let process = of("r2").start(second.config());
        let second = (second, process);
        first.0.await_state("protected");
        await_more_lines(&first.0);
        FaultyPair {
            pair,
            first,
            second,
            faults,
        }
    }
}

fn await_event(replica: &ReplicaFiles, event: &str) {
    wait_for(&format!("{event} of {}", replica.state.display()), || {
        replica.has_event(event).then_some(())
    });
}

/// EIO at the write itself and at the flush after it.
#[test]
fn an_error_of_the_primarys_disk_is_not_the_guests() {
    for request in [Request::Write, Request::Sync] {
        let FaultyPair {
            pair,
            first: (first, mut first_process),
            second: (second, mut second_process),
            faults,
        } = FaultyPair::new("r1");
        faults.fail(request);
        await_live(&second);
        await_more_lines(&second);
        assert_one_history(&first, &second);
        await_event(&first, "disk_failed");
        faults.end();
        second.await_state("protected");
        assert!(first.has_event("disk_well"));
        for replica in [&first, &second] {
            assert!(!replica.has_event("disk_error") && !replica.has_event("diverged"));
        }
        await_more_lines(&second);
        first_process.kill();
        second_process.kill();
        assert_has_all(&pair.disk("r2"), &whole_lines(&second));
    }
}

#[test]
fn an_error_of_the_backups_disk_is_not_a_divergence() {
    for request in [Request::Write, Request::Sync] {
        let FaultyPair {
            pair,
            first: (first, mut first_process),
            second: (second, _second_process),
            faults,
        } = FaultyPair::new("r2");
        faults.fail(request);
        await_event(&second, "disk_failed");
        first.await_state("alone");
        await_more_lines(&first);
        faults.end();
        first.await_state("protected");
        assert!(!first.has_event("disk_error") && !first.has_event("diverged"));
        assert!(!second.has_event("diverged"));
        await_more_lines(&first);
        first_process.kill();
        await_live(&second);
        await_more_lines(&second);
        assert_has_all(&pair.disk("r1"), &numbers(&first.console()));
    }
}

/// Without a member the guest is told, and so are people.
#[test]
fn an_error_of_a_disk_that_nobody_has_better_is_the_guests() {
    let pair = DiskPair::new(u16::MAX);
    let faults = Faults::new(pair.0.path().join("faults"));
    let files = pair.0.replica("r1", None, &with_disk("r1"));
    let mut process = faults.start(files.config());
    await_lines(&files, 20);
    faults.fail(Request::Write);
    let (status, said) = process.end();
    // The guest ends with the device's status plus one.
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(files.has_event("disk_failed") && files.has_event("disk_error"));
}

/// A disk that takes its time is no reason to suspect anybody, wherever it is: one sync takes longer than the
/// silence after which a peer is suspected.
#[test]
fn a_slow_disk_is_waited_for() {
    for slow in ["r1", "r2"] {
        let FaultyPair {
            pair,
            first: (first, mut first_process),
            second: (second, mut second_process),
            faults,
        } = FaultyPair::of(DiskPair::patient(), slow);
        faults.stick(Request::Sync);
        let lines = numbers(&first.console()).len();
        await_lines(&first, lines + 3);
        assert!(!first.has_event("suspected") && !second.has_event("suspected"));
        first.await_state("protected");
        faults.end();
        first_process.kill();
        await_live(&second);
        await_more_lines(&second);
        assert_one_history(&first, &second);
        second_process.kill();
        assert_has_all(&pair.disk("r2"), &whole_lines(&second));
    }
}

/// Rule 6: what is half-copied never starts, and the right disk does.
#[test]
fn a_copy_that_was_cut_off_never_starts() {
    let pair = DiskPair::new(u16::MAX);
    fs::write(pair.disk("r2"), vec![0xaa; 3 * DISK_BYTES]).unwrap();
    let (first, mut first_process, listen) = pair.primary();
    await_lines(&first, 20);
    let faults = Faults::new(pair.0.path().join("faults"));
    let disk = format!("{}overwrite = true\n", with_disk("r2"));
    let second = pair.0.replica("r2", Some(&listen), &disk);
    faults.slow(Request::Write);
    faults.slow(Request::Sync);
    let mut second_process = faults.start(second.config());
    let marker = pair.0.path().join("r2.img.understudy");
    let copying = || {
        fs::read_to_string(&marker)
            .unwrap_or_default()
            .contains("disk=copying")
    };
    wait_for("the copy to begin", || copying().then_some(()));
    second_process.kill();
    first_process.kill();
    assert!(copying(), "it was to be killed in the middle of it");
    faults.end();

    // Alone it is not the one to start the machine, however long it is alone.
    let mut second_process = faults.start(second.config());
    wait_for("it to say what it waits for", || {
        let status = second.status()?;
        (status["role"] == "waiting" && second.has_event("waiting")).then_some(())
    });
    second_process.kill();
    let printed = numbers(&first.console());
    assert_has_all(&pair.disk("r1"), &printed);
    let (again, mut first_process, listen) = pair.primary();
    // It may have ended before the file was made as long as the machine's disk.
    let (second, mut second_process) = pair.0.backup_with("r2", &listen, &disk);
    again.await_state("protected");
    await_more_lines(&again);
    first_process.kill();
    await_live(&second);
    await_more_lines(&second);
    second_process.kill();
    assert_has_all(&pair.disk("r2"), &whole_lines(&second));
}

/// `disk_durability = "both"`: what the guest said is durable is on the backup's disk as well, however slow
/// that is, and its host goes on when the primary's disk is lost with the power of both.
#[test]
fn with_both_disks_durable_the_members_host_may_start() {
    let pair = DiskPair::new(u16::MAX);
    let both = |name: &str| format!("disk_durability = \"both\"\n{}", with_disk(name));
    let faults = Faults::new(pair.0.path().join("faults"));
    let [first, second] = pair.0.two_hosts(["r1", "r2"], both);
    let mut first_process = Process::start(&["replica", "--config", first.config()]);
    await_live(&first);
    let mut second_process = faults.start(second.config());
    first.await_state("protected");
    wait_for("the backup's disk to be whole", || {
        let marker = fs::read_to_string(second.state.join("marker")).unwrap_or_default();
        marker.contains("whole").then_some(())
    });
    await_more_lines(&first);
    faults.slow(Request::Sync);
    let lines = numbers(&first.console()).len();
    await_lines(&first, lines + 40);
    first_process.signal(rustix::process::Signal::STOP);
    second_process.kill();
    first_process.kill();
    faults.end();
    assert!(!first.has_event("suspected") && !second.has_event("suspected"));
    let printed = numbers(&first.console());
    assert_has_all(&pair.disk("r2"), &printed);

    // A new disk in the primary's host, with nothing on it.
    fs::write(pair.disk("r1"), vec![0; DISK_BYTES]).unwrap();
    fs::remove_file(pair.0.path().join("r1.img.understudy")).unwrap();
    let mut second_process = Process::start(&["replica", "--config", second.config()]);
    let _first_process = Process::start(&["replica", "--config", first.config()]);
    second.await_state("protected");
    await_more_lines(&second);
    assert!(!second.has_event("diverged"));
    second_process.kill();
    await_live(&first);
}

/// What is in force is the key's: both hosts have to say the same.
#[test]
fn hosts_that_disagree_on_durability_do_not_pair() {
    let pair = DiskPair::new(u16::MAX);
    let [first, second] = pair.0.two_hosts(["r1", "r2"], |name| {
        let durability = if name == "r1" { "primary" } else { "both" };
        format!("disk_durability = \"{durability}\"\n{}", with_disk(name))
    });
    let _first_process = Process::start(&["replica", "--config", first.config()]);
    first.await_state("alone");
    let mut second_process = Process::start(&["replica", "--config", second.config()]);
    let (status, said) = second_process.end();
    assert_eq!(status.code(), Some(5), "{said}");
    assert!(said.contains("disk_durability"), "{said}");
}

/// A guest that ends has both disks alike, to the byte.
#[test]
fn the_disks_of_a_pair_are_equal_in_the_end() {
    let pair = DiskPair::new(1000);
    let (_primary, mut process, listen) = pair.primary();
    let (_backup, mut backup_process) = pair.backup("r2", &listen);
    for process in [&mut process, &mut backup_process] {
        let (status, said) = process.end();
        assert!(status.success(), "{said}");
    }
    let (first, second) = (fs::read(pair.disk("r1")), fs::read(pair.disk("r2")));
    assert!(first.unwrap() == second.unwrap(), "the disks differ");
}

/// Keeps the marker beside a disk from being written, until the guard is dropped.
struct NoMarker(PathBuf);

impl NoMarker {
    fn of(disk: &Path) -> NoMarker {
        let mut new = disk.as_os_str().to_owned();
        new.push(".understudy.new");
        let new = PathBuf::from(new);
        fs::create_dir(&new).unwrap();
        NoMarker(new)
    }
}

impl Drop for NoMarker {
    fn drop(&mut self) {
        let _removed = fs::remove_dir(&self.0);
    }
}

/// Finding: a marker that could not be written at a join was not tried again, both hosts stayed
/// `joining`, and no status said why.
#[test]
fn a_marker_that_cannot_be_written_is_tried_again_and_the_status_says_so() {
    let pair = DiskPair::new(u16::MAX);
    let [first, second] = pair.0.two_hosts(["r1", "r2"], with_disk);
    let says_why = |replica: &ReplicaFiles, key: &str| {
        let status = replica.status()?;
        let why = status[key].as_str()?;
        (why.contains(".img.understudy") && replica.has_event("marker_failed")).then_some(())
    };
    // The primary's own: nothing may be flushed, and nobody can join.
    let no_marker = NoMarker::of(&pair.disk("r1"));
    let mut first_process = Process::start(&["replica", "--config", first.config()]);
    wait_for("the primary to say why", || says_why(&first, "trouble"));
    drop(no_marker);
    await_lines(&first, 20);
    assert!(first.status().unwrap()["trouble"].is_null());

    let no_marker = NoMarker::of(&pair.disk("r2"));
    let mut second_process = Process::start(&["replica", "--config", second.config()]);
    wait_for("the backup to say why", || says_why(&second, "state"));
    first.await_state("alone");
    await_more_lines(&first);
    drop(no_marker);
    first.await_state("protected");
    await_more_lines(&first);
    first_process.kill();
    await_live(&second);
    await_more_lines(&second);
    second_process.kill();
    assert_has_all(&pair.disk("r2"), &whole_lines(&second));
}

/// Finding: a wrong path was noticed only when the key existed by which the machine was powered on,
/// so that nobody else could start it.
#[test]
fn a_host_without_its_disk_takes_no_key() {
    let pair = DiskPair::new(u16::MAX);
    let [first, second] = pair.0.two_hosts(["r1", "r2"], with_disk);
    // Alone it says what is missing, and goes on looking.
    let _second_process = Process::start(&["replica", "--config", second.config()]);
    wait_for("it to say what is missing", || {
        let status = second.status()?;
        let state = status["state"].as_str()?;
        (state.contains("r2.img") && status["role"] == "waiting").then_some(())
    });
    let keys = || fs::read_dir(pair.0.path().join("arbiter")).unwrap().count();
    assert_eq!(keys(), 0);
    // The other one has all that it takes.
    let mut first_process = Process::start(&["replica", "--config", first.config()]);
    first.await_state("protected");
    await_more_lines(&first);
    first_process.kill();
    await_live(&second);
    await_more_lines(&second);
}

/// Finding: `disks[].path` of a backup named a file that held something else: it was cut to the length of the primary's
/// disk, and overwritten.
#[test]
fn what_is_no_copy_of_this_machines_disk_is_not_overwritten() {
    let pair = DiskPair::new(u16::MAX);
    let [first, second] = pair.0.two_hosts(["r1", "r2"], with_disk);
    let letters = b"letters of a whole year ".repeat(3 * DISK_BYTES / 24);
    fs::write(pair.disk("r2"), &letters).unwrap();
    let start = |replica: &ReplicaFiles| Process::start(&["replica", "--config", replica.config()]);
    let mut first_process = start(&first);
    first.await_state("alone");
    let await_refusal = |content: &[u8]| {
        wait_for("the backup to say what is there", || {
            let status = second.status()?;
            let state = status["state"].as_str()?;
            let says = state.contains("r2.img holds data") && state.contains("overwrite = true");
            (says && status["role"] == "waiting").then_some(())
        });
        let there = fs::read(pair.disk("r2")).unwrap();
        assert!(there == content, "it is changed");
        let marker = pair.0.path().join("r2.img.understudy");
        assert!(!marker.exists(), "a marker says that it is a copy");
    };
    // As a boot unit does it, again and again.
    for _ in 0..2 {
        let mut second_process = start(&second);
        await_refusal(&letters);
        second_process.kill();
    }
    // One of the same length is not this machine's either.
    fs::write(pair.disk("r2"), &letters[..DISK_BYTES]).unwrap();
    let mut second_process = start(&second);
    await_refusal(&letters[..DISK_BYTES]);
    assert!(second.has_event("disk_kept"));
    // Emptied by whoever owns it, it becomes the copy, and nobody has to do anything else.
    fs::File::create(pair.disk("r2")).unwrap();
    first.await_state("protected");
    await_more_lines(&first);
    // Whoever comes back has a copy of this machine's disk, be it half of one.
    second_process.kill();
    let mut second_process = start(&second);
    first.await_state("protected");
    first_process.kill();
    await_live(&second);
    await_more_lines(&second);
    second_process.kill();
    assert_has_all(&pair.disk("r2"), &whole_lines(&second));
}

/// A file as a block device, for as long as this lives.
struct LoopDevice(String);

impl LoopDevice {
    /// `None` where this is not allowed.
    fn of(file: &Path) -> Option<LoopDevice> {
        let mut command = Command::new("losetup");
        let output = command.args(["--find", "--show"]).arg(file).output().ok()?;
        let device = String::from_utf8(output.stdout).ok()?;
        output
            .status
            .success()
            .then(|| LoopDevice(device.trim().to_owned()))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _detached = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// The backup's disk is a block device: its marker is in the state directory, what the copy does not
/// send is zero there, too, and it starts the machine again.
#[test]
fn a_block_device_is_a_disk_like_any_other() {
    let pair = DiskPair::new(u16::MAX);
    fs::write(pair.disk("r2"), vec![0xaa; DISK_BYTES]).unwrap();
    let Some(device) = LoopDevice::of(&pair.disk("r2")) else {
        println!("skipped: no loop devices here");
        return;
    };
    let [first, second] = pair.0.two_hosts(["r1", "r2"], |name| match name {
        "r2" => format!("[[disks]]\npath = \"{}\"\noverwrite = true\n", device.0),
        _ => with_disk(name),
    });
    let start = |replica: &ReplicaFiles| Process::start(&["replica", "--config", replica.config()]);
    let mut first_process = start(&first);
    await_lines(&first, 20);
    let mut second_process = start(&second);
    first.await_state("protected");
    await_more_lines(&first);
    first_process.kill();
    await_live(&second);
    await_more_lines(&second);
    second_process.kill();
    let name = Path::new(&device.0).file_name().unwrap().to_str().unwrap();
    assert!(second.state.join(format!("{name}.understudy")).exists());

    assert_has_all(&pair.disk("r2"), &whole_lines(&second));

    // After a loss of power it is the right disk.
    let _second_process = start(&second);
    await_live(&second);
    let console = second.console().len();
    wait_for("the machine to run again", || {
        (second.console().len() > console + 100).then_some(())
    });
}
