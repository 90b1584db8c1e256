//! Real pairs whose arbiter, harts or processes do what they should not: whatever happens, one
//! replica goes on, and what the outside saw has no gap.

mod support;

use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::symlink;
use support::device_programs::counting_on_all_harts;
use support::guest_program::counting_slowly;
use support::history::{assert_one_history, await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, run, wait_for};

/// A pair that nobody could take over in, as its arbiter is of no use.
const NO_ARBITER: i32 = 16;

/// A protected pair with the guest's output under way.
struct Pair {
    directory: PairDirectory,
    primary: (ReplicaFiles, Process),
    backup: (ReplicaFiles, Process),
}

impl Pair {
    fn new(program: &[u8], extra: &str) -> Pair {
        let directory = PairDirectory::new(program);
        let (primary, process, listen) = directory.primary_with("r1", extra);
        let (backup, backup_process) = directory.backup_with("r2", &listen, extra);
        primary.await_state("protected");
        let lines = numbers(&primary.console()).len();
        await_lines(&primary, lines + 20);
        Pair {
            directory,
            primary: (primary, process),
            backup: (backup, backup_process),
        }
    }

    /// Takes the arbiter away, as `replacement` does it.
    fn hide_arbiter(&self, replacement: impl Fn(&std::path::Path)) {
        let path = self.directory.path();
        fs::rename(path.join("arbiter"), path.join("far-away")).unwrap();
        replacement(&path.join("arbiter"));
    }

    fn restore_arbiter(&self) {
        let path = self.directory.path();
        // There may be nothing in its place.
        let _removed = fs::remove_file(path.join("arbiter"));
        fs::rename(path.join("far-away"), path.join("arbiter")).unwrap();
    }
}

/// How many generations were ever left.
fn claims(directory: &PairDirectory) -> usize {
    ["arbiter", "far-away"]
        .iter()
        .filter_map(|name| fs::read_dir(directory.path().join(name)).ok())
        .flatten()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("succession.")
        })
        .count()
}

fn await_live(backup: &ReplicaFiles) -> serde_json::Value {
    wait_for("the backup to go live", || {
        backup.status().filter(|status| status["role"] == "primary")
    })
}

fn await_event(replica: &ReplicaFiles, event: &str) {
    wait_for(event, || replica.has_event(event).then_some(()));
}

/// What a replica has printed when nothing more comes out of it. It is asked whether it holds its
/// outputs: the event says so before, and everything that was released is in the file by then.
fn held_console(replica: &ReplicaFiles) -> String {
    await_event(replica, "arbiter_unanswered");
    replica.console()
}

#[test]
fn a_machine_of_two_harts_goes_on_after_each_of_two_kills() {
    let extra = "harts = 2";
    let mut pair = Pair::new(&counting_on_all_harts(), extra);
    pair.primary.1.kill();
    let listen = await_live(&pair.backup.0)["listen"]
        .as_str()
        .unwrap()
        .to_owned();
    await_lines(&pair.backup.0, 50);
    assert_one_history(&pair.primary.0, &pair.backup.0);
    let (third, _process) = pair.directory.backup_with("r3", &listen, extra);
    pair.backup.0.await_state("protected");
    let lines = numbers(&pair.backup.0.console().split_off(6)).len();
    pair.backup.1.kill();
    await_live(&third);
    await_lines(&third, 50);
    assert!(lines > 0 && !third.has_event("diverged"));
}

#[test]
fn nobody_goes_live_while_the_arbiter_is_a_dangling_link_or_a_file() {
    let replacements: [fn(&std::path::Path); 2] = [
        |arbiter| symlink("/nonexistent/arbiter", arbiter).unwrap(),
        |arbiter| fs::write(arbiter, "").unwrap(),
    ];
    for replacement in replacements {
        let mut pair = Pair::new(&counting_slowly(), "");
        let before = claims(&pair.directory);
        pair.hide_arbiter(replacement);
        pair.primary.1.kill();
        assert_eq!(held_console(&pair.backup.0), "");
        assert_eq!(pair.backup.0.status().unwrap()["role"], "backup");
        assert_eq!(claims(&pair.directory), before);
        pair.restore_arbiter();
        await_live(&pair.backup.0);
        await_lines(&pair.backup.0, 20);
        assert_one_history(&pair.primary.0, &pair.backup.0);
        assert_eq!(claims(&pair.directory), before + 1);
    }
}

/// Finding: a pair whose arbiter was gone, or was replaced by an empty one, was `protected` with status 0, and of
/// the empty one it was told again and again that it is the same on both hosts.
#[test]
fn a_pair_whose_arbiter_is_gone_or_emptied_is_not_said_to_be_well() {
    let pair = Pair::new(&counting_slowly(), "");
    let replicas @ [primary, backup] = [&pair.primary.0, &pair.backup.0];
    for replica in replicas {
        wait_for("the arbiters to be compared", || {
            replica.has_event("arbiter").then_some(())
        });
        assert_eq!(verdict(replica), Some(0));
    }
    pair.hide_arbiter(|_| {});
    for replica in replicas {
        let since = wait_for("the status to say so", || {
            let trouble = &replica.status()?["arbiter_trouble"];
            trouble["since"].as_str().map(str::to_owned)
        });
        assert!(since.ends_with('Z'), "{since}");
        assert_eq!(verdict(replica), Some(NO_ARBITER));
    }
    fs::create_dir(pair.directory.path().join("arbiter")).unwrap();
    wait_for("the primary to say that it was emptied", || {
        let trouble = &primary.status()?["arbiter_trouble"];
        trouble["why"]
            .as_str()?
            .contains("was emptied")
            .then_some(())
    });
    for replica in replicas {
        assert_eq!(verdict(replica), Some(NO_ARBITER));
    }
    assert_eq!(
        [agreed(primary), agreed(backup)],
        [1, 1],
        "said to be the same"
    );
    fs::remove_dir_all(pair.directory.path().join("arbiter")).unwrap();
    pair.restore_arbiter();
    for replica in replicas {
        wait_for("all to be well", || {
            (verdict(replica) == Some(0)).then_some(())
        });
    }
    assert_eq!(primary.status().unwrap()["state"], "protected");
}

/// What `status` says of this host to a monitor.
fn verdict(replica: &ReplicaFiles) -> Option<i32> {
    let directory = replica.state.to_str().unwrap();
    run(&["status", "--dir", directory]).status.code()
}

/// How often it said that the arbiters are the same.
fn agreed(replica: &ReplicaFiles) -> usize {
    let events = fs::read_to_string(replica.state.join("events.jsonl")).unwrap();
    events.matches("the same on both hosts").count()
}

/// The fifth rule: a primary that lost its backup asks before it releases anything that was not
/// acknowledged.
#[test]
fn a_primary_that_lost_its_backup_holds_its_outputs_until_the_arbiter_answers() {
    let mut pair = Pair::new(&counting_slowly(), "");
    pair.hide_arbiter(|_| {});
    pair.backup.1.kill();
    let held = held_console(&pair.primary.0);
    let count = |status: serde_json::Value| status["instruction_count"].as_u64().unwrap();
    let before = count(pair.primary.0.status().unwrap());
    wait_for("the guest to go on unseen", || {
        (count(pair.primary.0.status()?) > before + 1000).then_some(())
    });
    assert_eq!(
        pair.primary.0.console(),
        held,
        "outputs got out without the arbiter"
    );
    pair.restore_arbiter();
    let status = pair.primary.0.await_state("alone");
    await_lines(&pair.primary.0, numbers(&held).len() + 100);
    let seen = numbers(&pair.primary.0.console());
    assert!(
        seen.iter()
            .enumerate()
            .all(|(index, number)| *number == index as u32),
        "{seen:?}"
    );
    let listen = status["listen"].as_str().unwrap();
    let (_third, _process) = pair.directory.backup("r3", listen);
    assert_eq!(pair.primary.0.await_state("protected")["generation"], 4);
}

/// A primary wakes up while nobody can decide: when the arbiter is back, exactly one goes on, and
/// the other one follows it.
#[test]
fn of_a_woken_primary_and_its_backup_exactly_one_goes_on_when_the_arbiter_is_back() {
    let pair = Pair::new(&counting_slowly(), "");
    let before = claims(&pair.directory);
    pair.hide_arbiter(|_| {});
    pair.primary.1.signal(Signal::STOP);
    await_event(&pair.backup.0, "arbiter_unanswered");
    pair.primary.1.signal(Signal::CONT);
    await_event(&pair.primary.0, "arbiter_unanswered");
    let seen = pair.primary.0.console();
    assert_eq!(claims(&pair.directory), before);
    pair.restore_arbiter();
    let primary_lost = wait_for("one to lose", || {
        let primary_lost = pair.primary.0.has_event("claim_lost");
        (primary_lost || pair.backup.0.has_event("claim_lost")).then_some(primary_lost)
    });
    if primary_lost {
        await_live(&pair.backup.0);
        await_lines(&pair.backup.0, 20);
        assert_eq!(pair.primary.0.console(), seen, "the loser printed more");
        assert_one_history(&pair.primary.0, &pair.backup.0);
    } else {
        await_lines(&pair.primary.0, numbers(&seen).len() + 20);
        assert_eq!(pair.backup.0.console(), "");
        assert!(!pair.primary.0.has_event("claim_lost"), "both lost");
        // It has the primary's address, and joins by itself.
        pair.primary.0.await_state("protected");
    }
}

#[test]
fn a_frozen_backup_that_wakes_up_after_the_claim_follows_again() {
    let pair = Pair::new(&counting_slowly(), "");
    pair.backup.1.signal(Signal::STOP);
    pair.primary.0.await_state("alone");
    let lines = numbers(&pair.primary.0.console()).len();
    await_lines(&pair.primary.0, lines + 20);
    pair.backup.1.signal(Signal::CONT);
    assert_eq!(pair.primary.0.await_state("protected")["generation"], 4);
    assert_eq!(pair.backup.0.console(), "");
    let seen = numbers(&pair.primary.0.console());
    assert!(
        seen.iter()
            .enumerate()
            .all(|(index, number)| *number == index as u32),
        "{seen:?}"
    );
}

/// It says goodbye, so the primary claims at once instead of waiting for a silence.
#[test]
fn a_backup_that_is_asked_to_end_leaves_and_the_primary_goes_on() {
    let mut pair = Pair::new(&counting_slowly(), "");
    let before = claims(&pair.directory);
    pair.backup.1.signal(Signal::TERM);
    let (status, said) = pair.backup.1.end();
    assert_eq!(status.code(), Some(11), "{said}");
    assert!(said.is_empty(), "{said}");
    pair.primary.0.await_state("alone");
    assert_eq!(claims(&pair.directory), before + 1);
    let lines = numbers(&pair.primary.0.console()).len();
    await_lines(&pair.primary.0, lines + 20);
}

/// Asked to end, a protected primary hands its machine over: the service outlives it.
#[test]
fn a_primary_that_is_asked_to_end_is_replaced_by_its_backup() {
    let mut pair = Pair::new(&counting_slowly(), "");
    pair.primary.1.signal(Signal::TERM);
    let (status, said) = pair.primary.1.end();
    assert_eq!(status.code(), Some(10), "{said}");
    assert!(
        pair.backup.0.has_event("live") && !pair.backup.0.has_event("suspected"),
        "it was not handed over, but found dead"
    );
    await_live(&pair.backup.0);
    await_lines(&pair.backup.0, 20);
    assert_one_history(&pair.primary.0, &pair.backup.0);
}
