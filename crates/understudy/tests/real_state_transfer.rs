//! Real pairs whose backup executes nothing: `replication = "state-transfer"`.

mod support;

use std::fs;
use support::device_programs::{COUNTED_SECTORS, counting_to_disk};
use support::history::{assert_one_history, await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, wait_for};

const DISK_BYTES: usize = 1 << 20;

fn pair() -> PairDirectory {
    let mut pair = PairDirectory::new(&counting_to_disk(u16::MAX));
    pair.pair_keys = "replication = \"state-transfer\"\ncheckpoint_interval = \"10ms\"\nsuspect_after = \"1s\"\n";
    fs::write(pair.path().join("r1.img"), vec![0; DISK_BYTES]).unwrap();
    pair
}

fn with_disk(name: &str) -> String {
    format!("[[disks]]\npath = \"{name}.img\"\n")
}

fn await_live(backup: &ReplicaFiles) -> String {
    let status = wait_for("the backup to go live", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
    status["listen"].as_str().unwrap().to_owned()
}

fn await_more_lines(replica: &ReplicaFiles) {
    let lines = numbers(&replica.console()).len();
    await_lines(replica, lines + 2 * COUNTED_SECTORS as usize);
}

/// The last replica's console begins in the middle of a line, perhaps.
fn whole_lines(replica: &ReplicaFiles) -> Vec<u32> {
    let console = replica.console();
    numbers(console.split_once('\n').map_or("", |(_, rest)| rest))
}

/// What the guest has printed since it was durable is on this disk.
fn assert_has_all(pair: &PairDirectory, name: &str, printed: &[u32]) {
    let bytes = fs::read(pair.path().join(format!("{name}.img"))).unwrap();
    let last = *printed.last().unwrap();
    for number in last.saturating_sub(COUNTED_SECTORS as u32 - 1)..=last {
        let at = (u64::from(number) % COUNTED_SECTORS) as usize * 512;
        let written = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert!(
            written >= number.into() && (written - u64::from(number)) % COUNTED_SECTORS == 0,
            "{number} was flushed, its sector of {name} holds {written}"
        );
    }
}

/// The primary is killed, and the one after it: no output is lost or contradicted, and each disk has what its guest was
/// told to be durable. Digests are compared meanwhile.
#[test]
fn a_machine_that_is_brought_along_by_its_state_survives_its_hosts() {
    let pair = pair();
    let (first, mut first_process, listen) = pair.primary_with("r1", &with_disk("r1"));
    let (second, mut second_process) = pair.backup_with("r2", &listen, &with_disk("r2"));
    first.await_state("protected");
    await_more_lines(&first);
    wait_for("a digest to be compared", || {
        let status = second.status()?;
        (status["digests_compared"].as_u64()? > 0).then_some(())
    });
    first_process.kill();
    let listen = await_live(&second);
    await_more_lines(&second);
    assert_one_history(&first, &second);
    let (third, mut third_process): (ReplicaFiles, Process) =
        pair.backup_with("r3", &listen, &with_disk("r3"));
    second.await_state("protected");
    await_more_lines(&second);
    second_process.kill();
    await_live(&third);
    await_more_lines(&third);
    third_process.kill();
    for replica in [&second, &third] {
        assert!(!replica.has_event("diverged") && !replica.has_event("disk_error"));
    }
    assert_has_all(&pair, "r2", &whole_lines(&second));
    assert_has_all(&pair, "r3", &whole_lines(&third));
}
