//! Primary and backup as real processes.

mod support;

use replication::message::{PROTOCOL_VERSION, spoken};
use riscv::SEMANTICS_VERSION;
use rustix::process::Signal;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::guest_program::{
    counting_and_panicking, counting_and_resetting, counting_busily, counting_slowly, counting_to,
    counting_until_time_jumps,
};
use support::history::{assert_one_history, assert_one_history_of, await_lines, numbers};
use support::{PairDirectory, Process, run, wait_for};

#[test]
fn a_killed_primary_is_replaced_again_and_again() {
    let pair = PairDirectory::new(&counting_slowly());
    let (mut primary, mut process, mut listen) = pair.primary("r1");
    let mut generation = 0;
    for round in 2..5 {
        let (backup, backup_process) = pair.backup(&format!("r{round}"), &listen);
        primary.await_state("protected");
        let lines = numbers(&primary.console()).len();
        await_lines(&primary, lines + 50);
        process.kill();
        let status = wait_for("the backup to go live", || {
            backup.status().filter(|status| status["role"] == "primary")
        });
        // One for the backup's joining and one for the takeover; a busy host may have lost a pairing between.
        let now = status["generation"].as_u64().unwrap();
        assert!(now >= generation + 2, "from {generation} to {now}");
        generation = now;
        await_lines(&backup, 50);
        if round == 2 {
            assert_one_history(&primary, &backup);
        }
        listen = status["listen"].as_str().unwrap().to_owned();
        (primary, process) = (backup, backup_process);
    }
}

#[test]
fn a_guest_that_never_waits_is_protected_too() {
    let pair = PairDirectory::new(&counting_busily());
    let (primary, mut process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    await_lines(&primary, 100);
    process.kill();
    await_lines(&backup, 50);
    assert_one_history(&primary, &backup);
}

/// The life goes on: no failover, no divergence, and the backup goes live in the middle of it.
#[test]
fn a_guest_that_resets_begins_anew_on_both_sides() {
    const LINES: u32 = 300;
    let mut pair = PairDirectory::new(&counting_and_resetting(LINES as u16));
    pair.pair_keys = "digest_interval = \"20ms\"\n";
    let (mut primary, mut process, mut listen) = pair.primary("r1");
    await_lines(&primary, 2 * LINES as usize);
    for round in 2..4 {
        // It joins a machine that has reset itself, and restores it from a snapshot.
        let (backup, backup_process) = pair.backup(&format!("r{round}"), &listen);
        primary.await_state("protected");
        let lines = numbers(&primary.console()).len();
        await_lines(&primary, lines + 3 * LINES as usize);
        assert!(primary.has_event("rebooted"));
        assert!(!backup.has_event("diverged"));
        process.kill();
        let status = wait_for("the backup to go live", || {
            backup.status().filter(|status| status["role"] == "primary")
        });
        assert_eq!(status["generation"], 2 * round - 1);
        await_lines(&backup, 2 * LINES as usize);
        assert!(backup.has_event("rebooted"));
        if round == 2 {
            assert_one_history_of(LINES, &primary, &backup);
        }
        listen = status["listen"].as_str().unwrap().to_owned();
        (primary, process) = (backup, backup_process);
    }
}

/// The operator is told by the primary, and again by the one that takes over.
#[test]
fn a_guest_that_panics_is_told_at_both_primaries_and_goes_on() {
    let pair = PairDirectory::new(&counting_and_panicking(50));
    let (primary, mut process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    wait_for("the event", || {
        primary.has_event("guest_panicked").then_some(())
    });
    wait_for("the status", || {
        primary
            .status()
            .filter(|status| status["guest_panicked"] == true)
    });
    await_lines(&primary, 100);
    assert!(!backup.has_event("guest_panicked"));
    process.kill();
    wait_for("the other one's event", || {
        backup.has_event("guest_panicked").then_some(())
    });
    wait_for("the other one's status", || {
        backup
            .status()
            .filter(|status| status["guest_panicked"] == true)
    });
    assert!(!backup.has_event("diverged"));
}

/// With `on_panic = "stop"` the life ends, on both hosts and for good.
#[test]
fn a_guest_that_panics_ends_its_life_if_that_is_wanted() {
    let pair = PairDirectory::new(&counting_and_panicking(2000));
    let (primary, mut process, listen) = pair.primary_with("r1", "on_panic = \"stop\"\n");
    let (_backup, mut backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    let (status, said) = process.end();
    assert_eq!(status.code(), Some(13), "{said}");
    let (status, said) = backup_process.end();
    assert!(status.success(), "{said}");
    assert_eq!(numbers(&primary.console()).len(), 2000);
}

/// It waits long before each quantum is over.
#[test]
fn the_machines_of_a_guest_that_always_waits_are_compared_too() {
    let mut pair = PairDirectory::new(&counting_slowly());
    pair.pair_keys = "digest_interval = \"20ms\"\n";
    let (_primary, _process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    wait_for("digests to be compared", || {
        (backup.status()?["digests_compared"].as_u64().unwrap() >= 3).then_some(())
    });
    assert!(!backup.has_event("diverged"));
}

#[test]
fn a_killed_backup_is_replaced_and_the_primary_goes_on() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    for round in 1..4u64 {
        let (_backup, mut backup_process) = pair.backup(&format!("b{round}"), &listen);
        let status = primary.await_state("protected");
        assert_eq!(status["generation"], 2 * round);
        backup_process.kill();
        primary.await_state("alone");
        let lines = numbers(&primary.console()).len();
        await_lines(&primary, lines + 20);
    }
    let seen = numbers(&primary.console());
    assert!(
        seen.iter()
            .enumerate()
            .all(|(index, number)| *number == index as u32)
    );
}

/// Finding: it then waited for ever, because its configuration names no peer: it joins the one that called it.
#[test]
fn a_primary_that_was_frozen_gives_its_machine_up_says_nothing_more_and_follows_whoever_called_it()
{
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    process.signal(Signal::STOP);
    wait_for("the takeover", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
    let printed = primary.console();
    process.signal(Signal::CONT);
    backup.await_state("protected");
    assert_eq!(primary.status().unwrap()["role"], "backup");
    assert!(primary.has_event("claim_lost"));
    assert_eq!(primary.console(), printed);
    await_lines(&backup, 10);
}

/// A boot unit starts the dead host's replica again, by the same command.
#[test]
fn a_killed_primary_that_is_started_again_joins_its_successor() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, mut process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    process.kill();
    let status = wait_for("the backup to go live", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
    let text = std::fs::read_to_string(&primary.config).unwrap();
    let peer = format!("peer = {}\nlisten", status["listen"]);
    std::fs::write(&primary.config, text.replace("listen", &peer)).unwrap();
    let _again = Process::start(&["replica", "--config", primary.config()]);
    backup.await_state("protected");
    assert_eq!(primary.status().unwrap()["role"], "backup");
    assert_one_history(&primary, &backup);
}

/// Both hosts lost power: the one that was the primary starts the machine again, the other joins.
#[test]
fn after_both_died_the_machine_is_started_once() {
    let pair = PairDirectory::new(&counting_slowly());
    let [primary, backup] = pair.two_hosts(["r1", "r2"], |_| String::new());
    let mut process = Process::start(&["replica", "--config", primary.config()]);
    primary.await_state("alone");
    let mut backup_process = Process::start(&["replica", "--config", backup.config()]);
    primary.await_state("protected");
    // At the same moment: a backup that lived on a little would take over.
    backup_process.signal(rustix::process::Signal::STOP);
    process.kill();
    backup_process.kill();
    let _waits = Process::start(&["replica", "--config", backup.config()]);
    wait_for("the backup to wait for the right disk", || {
        backup.status().filter(|status| status["role"] == "waiting")
    });
    let _starts = Process::start(&["replica", "--config", primary.config()]);
    primary.await_state("protected");
    assert_eq!(backup.status().unwrap()["role"], "backup");
}

#[test]
fn nobody_goes_live_while_the_arbiter_is_out_of_reach() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, mut process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    let (here, away) = (pair.path().join("arbiter"), pair.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    process.kill();
    wait_for("the arbiter to be asked in vain", || {
        backup.has_event("arbiter_unanswered").then_some(())
    });
    assert_eq!(backup.status().unwrap()["role"], "backup");
    assert_eq!(backup.console(), "");
    std::fs::rename(&away, &here).unwrap();
    wait_for("the takeover", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
    await_lines(&backup, 10);
}

/// The guest's monotonic clock goes on where it was, however long nobody was live; its calendar follows the
/// host's, and the operator is told.
#[test]
fn an_outage_of_the_arbiter_is_no_jump_of_the_guests_time() {
    const OUTAGE: Duration = Duration::from_secs(4);
    let pair = PairDirectory::new(&counting_until_time_jumps(3000));
    let (primary, mut process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    assert!(!primary.has_event("calendar"));
    let (here, away) = (pair.path().join("arbiter"), pair.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    process.kill();
    let killed = Instant::now();
    wait_for("the outage to last", || {
        (killed.elapsed() >= OUTAGE && backup.has_event("arbiter_unanswered")).then_some(())
    });
    std::fs::rename(&away, &here).unwrap();
    wait_for("the calendar to be told", || {
        backup.has_event("calendar").then_some(())
    });
    await_lines(&backup, 100);
    assert_eq!(backup.status().unwrap()["role"], "primary");
}

#[test]
fn a_guest_that_powers_off_ends_both_replicas() {
    let pair = PairDirectory::new(&counting_to(2000, 0));
    let (primary, mut process, listen) = pair.primary("r1");
    let (backup, mut backup_process) = pair.backup("r2", &listen);
    let (status, said) = process.end();
    assert!(status.success(), "{said}");
    let (status, said) = backup_process.end();
    assert!(status.success(), "{said}");
    assert_eq!(numbers(&primary.console()).len(), 2000);
    assert_eq!(backup.console(), "");
}

/// Both sides say what differs, with both values.
#[test]
fn a_backup_of_another_machine_is_refused_with_status_5() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    for (name, extra, key, here, there) in [
        ("m", "memory = \"16M\"", "memory", "16M", "8M"),
        ("h", "harts = 2", "harts", "2", "1"),
        (
            "b",
            "bit_manipulation = false",
            "without_extensions",
            "bit-manipulation",
            "none",
        ),
        ("t", "transport = \"pci\"", "transport", "pci", "mmio"),
        (
            "d",
            "disk_durability = \"both\"",
            "disk_durability",
            "both",
            "primary",
        ),
    ] {
        let files = pair.replica(name, Some(&listen), extra);
        let (status, said) = Process::start(&["replica", "--config", files.config()]).end();
        assert_eq!(status.code(), Some(5), "{said}");
        let at_backup = format!("differ: {key}: {here} here, {there} at ");
        assert!(said.contains(&at_backup), "{said}");
        let at_primary = format!("differ: {key}: {there} here, {here} at ");
        wait_for("the primary to say the same", || {
            let events = std::fs::read_to_string(primary.state.join("events.jsonl")).ok()?;
            events.contains(&at_primary).then_some(())
        });
    }
    primary.await_state("alone");
}

/// Both sides' status says what the other runs.
#[test]
fn a_pair_tells_the_versions_of_both() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    let build = understudy::build::build().to_string();
    let (primary, backup) = (primary.await_state("protected"), backup.status().unwrap());
    assert_eq!(primary["followers"][0]["version"], build);
    assert_eq!(backup["primary"]["version"], build);
    let own = format!(
        "{build}, semantics version {SEMANTICS_VERSION}, protocol version {PROTOCOL_VERSION}, speaks {}",
        spoken()
    );
    assert_eq!(
        (&primary["version"], &backup["version"]),
        (&own.clone().into(), &own.into())
    );
    let said = run(&["--version"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for word in [
        understudy::build::COMMIT,
        &format!("protocol version {PROTOCOL_VERSION}"),
    ] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
}

#[test]
fn garbage_and_floods_on_the_logging_channel_disturb_nobody() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let (_backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    let silent: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect(&listen).unwrap())
        .collect();
    let mut garbage = TcpStream::connect(&listen).unwrap();
    // The primary may close it in the middle.
    let _written = garbage.write_all(&[0xa5; 1 << 20]);
    wait_for("the stranger to be turned away", || {
        primary.has_event("turned_away").then_some(())
    });
    let _written = pair.speak(&listen).write_all(&[0xa5; 1 << 20]);
    wait_for("the garbage to be noticed", || {
        primary.has_event("garbage").then_some(())
    });
    primary.await_state("protected");
    assert!(!primary.has_event("suspected"));
    drop(silent);
}

#[test]
fn what_cannot_be_opened_is_one_clear_error_and_nothing_is_left_running() {
    let pair = PairDirectory::new(&counting_slowly());
    let (_primary, _process, listen) = pair.primary("r1");
    let taken = pair.replica("taken", None, "");
    let text = std::fs::read_to_string(&taken.config).unwrap();
    std::fs::write(&taken.config, text.replace("127.0.0.1:0", &listen)).unwrap();
    let (status, said) = Process::start(&["replica", "--config", taken.config()]).end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains(&listen), "{said}");
    let second = pair.path().join("r1.toml");
    let (status, said) = Process::start(&["replica", "--config", second.to_str().unwrap()]).end();
    assert_eq!(status.code(), Some(6), "{said}");
    assert!(said.contains("in use by process"), "{said}");
}
