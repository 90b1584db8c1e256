//! Joining takes as long as it takes: neither the size of a machine nor a backup that stands still
//! while it joins harms anybody.

mod support;

use rustix::process::Signal;
use std::time::Duration;
use support::guest_program::filling_memory_then_counting;
use support::history::{assert_one_history, await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, wait_for};

const MEMORY: &str = "memory = \"1280M\"";
/// What of it holds numbers that do not compress.
const FILLED_BYTES: u64 = 1200 << 20;

/// A primary whose memory is full.
fn large(pair: &PairDirectory) -> (ReplicaFiles, Process, String) {
    let (primary, process, listen) = pair.primary_with("r1", MEMORY);
    await_lines(&primary, 10);
    (primary, process, listen)
}

/// The longest turn of a replica's event loop.
fn longest_turn_ms(replica: &ReplicaFiles) -> f64 {
    replica.status().unwrap()["loop_longest_ms"]
        .as_f64()
        .unwrap()
}

fn assert_quiet(replicas: &[&ReplicaFiles]) {
    for replica in replicas {
        let longest = longest_turn_ms(replica);
        println!("{}: longest turn {longest:.1} ms", replica.state.display());
        for event in ["suspected", "join_failed", "claimed", "diverged"] {
            assert!(!replica.has_event(event), "{event}");
        }
    }
}

/// Finding 1: a restore of more than a second was never protected, and ended healthy primaries.
#[test]
fn a_machine_with_much_memory_in_use_is_protected_killed_and_protected_again() {
    let pair = PairDirectory::new(&filling_memory_then_counting(FILLED_BYTES));
    let (primary, mut process, listen) = large(&pair);
    let (backup, _backup_process) = pair.backup_with("r2", &listen, MEMORY);
    primary.await_state("protected");
    assert_quiet(&[&primary, &backup]);
    let lines = numbers(&primary.console()).len();
    await_lines(&primary, lines + 20);
    process.kill();
    let status = wait_for("the backup to go live", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
    await_lines(&backup, 20);
    assert_one_history(&primary, &backup);
    let listen = status["listen"].as_str().unwrap();
    let (third, _third_process) = pair.backup_with("r3", listen, MEMORY);
    backup.await_state("protected");
    assert_quiet(&[&third]);
}

/// Finding 1: 1.5 s of it failed over, or never joined, 3 times of 3.
#[test]
fn a_joining_backup_that_stands_still_harms_nobody() {
    let pair = PairDirectory::new(&filling_memory_then_counting(FILLED_BYTES));
    let (primary, _process, listen) = large(&pair);
    let backup = pair.replica("r2", Some(&listen), MEMORY);
    let process = Process::start(&["replica", "--config", backup.config()]);
    wait_for("the backup to receive", || {
        (backup.status()?["joining"]["done_bytes"].as_u64()? > 0).then_some(())
    });
    process.signal(Signal::STOP);
    // This is the fault, not a wait for anything.
    std::thread::sleep(Duration::from_millis(1500));
    process.signal(Signal::CONT);
    primary.await_state("protected");
    backup.await_state("replaying");
    for event in ["suspected", "claimed", "diverged"] {
        assert!(
            !primary.has_event(event) && !backup.has_event(event),
            "{event}"
        );
    }
    let lines = numbers(&primary.console()).len();
    await_lines(&primary, lines + 20);
}
