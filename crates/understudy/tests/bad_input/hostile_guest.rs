//! A guest that writes nonsense to every device: the host lives, and replays it exactly.

use crate::support::device_programs::hostile;
use crate::support::{PairDirectory, Process, error_text, run, wait_for};
use std::fs;

#[test]
fn a_guest_that_writes_nonsense_to_every_device_ends_as_it_likes_and_replays() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let kernel = path("guest.elf");
    fs::write(&kernel, hostile(3)).unwrap();
    fs::write(path("disk"), vec![0; 1 << 20]).unwrap();
    fs::write(path("readonly"), vec![0; 1 << 20]).unwrap();
    let socket = format!("unix:{}", path("switch.sock"));
    let mut switch = Process::start(&["switch", "--listen", &socket]);
    wait_for("the switch", || fs::metadata(path("switch.sock")).ok());
    for harts in ["1", "3"] {
        let log = path(&format!("run-{harts}.log"));
        let readonly = format!("{},readonly", path("readonly"));
        let disk = path("disk");
        let arguments = [
            "run",
            "--memory",
            "8M",
            "--harts",
            harts,
            "--kernel",
            &kernel,
            "--virtio-console",
            "--disk",
            &disk,
            "--disk",
            &readonly,
            "--network",
            &socket,
            "--record",
            &log,
        ];
        let output = run(&arguments);
        let said = error_text(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        let faults = said.matches("the device stands still").count();
        assert!((1..=10).contains(&faults), "{faults} faults: {said}");
        assert!(!output.stdout.is_empty(), "its nonsense reached the UART");
        let output = run(&["replay", &log]);
        let said = error_text(&output);
        assert!(
            output.status.success() && said.contains("complete"),
            "{said}"
        );
        // Behind how far it was, if it took long.
        let result = said.lines().rfind(|line| line.contains("complete"));
        let instructions = result.and_then(|line| line.split_whitespace().nth(2));
        let instructions: u64 = instructions
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("it says no number: {said}"));
        assert!(instructions > 1_000_000, "it came to an early end: {said}");
        assert!(
            fs::read(path("readonly"))
                .unwrap()
                .iter()
                .all(|byte| *byte == 0)
        );
    }
    switch.signal(rustix::process::Signal::TERM);
    assert!(switch.end().0.success(), "the switch lives as well");
}

#[test]
fn a_backup_follows_a_guest_that_writes_nonsense_to_every_device() {
    let pair = PairDirectory::new(&hostile(1 << 40));
    fs::write(pair.path().join("disk"), vec![0; 1 << 20]).unwrap();
    let extra = |replica: &str| {
        format!(
            "virtio_console = true\nharts = 2\n\
             [[disks]]\npath = \"{replica}.disk\"\n"
        )
    };
    for replica in ["r1", "r2"] {
        fs::write(
            pair.path().join(format!("{replica}.disk")),
            vec![0; 1 << 20],
        )
        .unwrap();
    }
    let (primary, mut process, listen) = pair.primary_with("r1", &extra("r1"));
    let (backup, _backup_process) = pair.backup_with("r2", &listen, &extra("r2"));
    let begun = primary.await_state("protected")["instruction_count"]
        .as_u64()
        .unwrap();
    // Several rounds of about two million instructions, with digests in between.
    wait_for("some rounds", || {
        (backup.status()?["instruction_count"].as_u64()? > begun + 20_000_000).then_some(())
    });
    for replica in [&primary, &backup] {
        assert!(!replica.has_event("diverged") && !replica.has_event("suspected"));
    }
    // Finding 21: what a driver of the guest does wrong reached no operator.
    assert!(primary.has_event("driver_fault"));
    process.kill();
    let live = wait_for("the takeover", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
    let count = live["instruction_count"].as_u64().unwrap();
    wait_for("the guest to go on", || {
        (backup.status()?["instruction_count"].as_u64()? > count + 1_000_000).then_some(())
    });
}
