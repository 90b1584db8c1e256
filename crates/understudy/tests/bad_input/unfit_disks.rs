//! Hosts whose disk cannot become a copy of the primary's: another's, or no disk.

use crate::support::device_programs::counting_to_disk;
use crate::support::{PairDirectory, Process, ReplicaFiles, wait_for};
use std::fs;
use std::path::Path;

const DISK_BYTES: usize = 1 << 20;

fn pair(second: &str) -> (PairDirectory, [ReplicaFiles; 2]) {
    let pair = PairDirectory::new(&counting_to_disk(u16::MAX));
    fs::write(pair.path().join("r1.img"), vec![0; DISK_BYTES]).unwrap();
    let hosts = pair.two_hosts(["r1", "r2"], |name| match name {
        "r1" => disk("r1.img"),
        _ => disk(second),
    });
    (pair, hosts)
}

fn disk(path: &str) -> String {
    format!("[[disks]]\npath = \"{path}\"\n")
}

fn start(replica: &ReplicaFiles) -> Process {
    Process::start(&["replica", "--config", replica.config()])
}

/// Waits until what the status says under this key has all these words.
fn await_words(replica: &ReplicaFiles, key: &str, words: &[&str]) {
    wait_for(
        &format!("{key} of {} to say {words:?}", replica.config()),
        || {
            let status = replica.status()?;
            let text = status[key].as_str()?;
            words.iter().all(|word| text.contains(word)).then_some(())
        },
    );
}

/// How often an event happened.
fn times(replica: &ReplicaFiles, event: &str) -> usize {
    let events = fs::read_to_string(replica.state.join("events.jsonl")).unwrap_or_default();
    let event = format!("\"event\":\"{event}\"");
    events.lines().filter(|line| line.contains(&event)).count()
}

fn replace_disk(replica: &ReplicaFiles, path: &str) {
    let text = fs::read_to_string(&replica.config).unwrap();
    let lines = text.lines().map(|line| match line.strip_prefix("path = ") {
        Some(_) => format!("path = \"{path}\"\n"),
        None => format!("{line}\n"),
    });
    let text: String = lines.collect();
    fs::write(&replica.config, text).unwrap();
}

fn marker_beside(directory: &Path) -> String {
    fs::read_to_string(directory.join("r1.img.understudy")).unwrap_or_default()
}

/// Finding: the second host wrote its marker over the first one's, beside the one disk that both named, and no start
/// came to anything until somebody had removed it.
#[test]
fn two_hosts_with_one_disk_file_are_told_so_and_the_first_starts_again() {
    let (pair, [first, second]) = pair("r1.img");
    let mut first_process = start(&first);
    first.await_state("alone");
    wait_for("the disk to be the primary's", || {
        marker_beside(pair.path())
            .contains("role=primary")
            .then_some(())
    });
    let before = marker_beside(pair.path());
    let mut second_process = start(&second);
    let why = [
        "r1.img is in use by another process",
        "a disk file of its own",
    ];
    await_words(&second, "state", &why);
    await_words(&first, "trouble", &["r2 cannot follow", why[0]]);
    assert!(second.has_event("disk_unusable") && first.has_event("join_failed"));
    assert_eq!(marker_beside(pair.path()), before);
    assert!(!second.state.join("marker").exists());
    second_process.kill();
    first_process.kill();
    let _first_process = start(&first);
    first.await_state("alone");
    // With a disk of its own it follows, and nobody has to do anything else.
    replace_disk(&second, "r2.img");
    let _second_process = start(&second);
    first.await_state("protected");
    assert!(first.status().unwrap()["trouble"].is_null());
}

/// Finding: a backup that could not open its image tried three times a second, and said only that the connection had
/// ended.
#[test]
fn a_backup_without_a_usable_image_says_why_once_and_comes_when_it_has_one() {
    let (pair, [first, second]) = pair("r2.qcow2");
    let image = pair.path().join("r2.qcow2");
    fs::write(&image, b"no image").unwrap();
    let _first_process = start(&first);
    first.await_state("alone");
    let _second_process = start(&second);
    await_words(&second, "state", &["r2.qcow2 is no qcow2 image"]);
    await_words(&first, "trouble", &["r2.qcow2 is no qcow2 image"]);
    assert_eq!(fs::read(&image).unwrap(), b"no image");
    // Half of one, which has a header.
    let half = [&b"QFI\xfb\0\0\0\x03"[..], &[0; 200]].concat();
    // An empty file is a disk that is to be made: nobody is to see one.
    let beside = pair.path().join("half");
    fs::write(&beside, half).unwrap();
    fs::rename(&beside, &image).unwrap();
    await_words(&second, "state", &["r2.qcow2 is damaged"]);
    fs::remove_file(&image).unwrap();
    first.await_state("protected");
    assert_eq!(times(&second, "disk_unusable"), 2, "once for each reason");
    assert!(
        times(&first, "joining") <= 3,
        "it was told once for each reason"
    );
    assert!(first.status().unwrap()["trouble"].is_null());
}
