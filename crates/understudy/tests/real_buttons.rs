//! The buttons on the front of a machine on two hosts: pressed on either, for whoever is live; and what a
//! guest that can power off has of a host that is stopped.

mod support;

use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};
use support::device_programs::{counting_to_disk, counting_until_the_button};
use support::guest_program::counting_slowly;
use support::history::{await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, run, wait_for};

/// Statuses of the commands.
const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const LIFE_IS_OVER: i32 = 3;
const NOT_PROTECTED: i32 = 7;
const NO_REPLICA: i32 = 8;
const NOT_PERMITTED: i32 = 9;
const UNPLUGGED: i32 = 12;
const POWERED_OFF: i32 = 14;

struct Site {
    directory: PairDirectory,
    a: ReplicaFiles,
    b: ReplicaFiles,
}

impl Site {
    fn new(program: &[u8], keys: &str) -> Site {
        let directory = PairDirectory::new(program);
        let [a, b] = directory.two_hosts(["a", "b"], |name| {
            fs::write(directory.path().join(format!("{name}.img")), [0; 1 << 20]).unwrap();
            format!("{keys}\n[[disks]]\npath = \"{name}.img\"\n")
        });
        Site { directory, a, b }
    }

    fn protected(&self) -> (Process, Process) {
        let a = start(&self.a);
        self.a.await_state("alone");
        let b = start(&self.b);
        self.a.await_state("protected");
        await_lines(&self.a, 20);
        (a, b)
    }
}

fn start(host: &ReplicaFiles) -> Process {
    Process::start(&["replica", "--config", host.config()])
}

/// Presses a button at a host; what is said.
fn press(button: &str, host: &ReplicaFiles) -> String {
    let output = run(&[button, "--config", host.config()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{button}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn await_event(host: &ReplicaFiles, event: &str) {
    let what = format!("{event} of {}", host.state.display());
    wait_for(&what, || host.has_event(event).then_some(()));
}

fn await_primary(host: &ReplicaFiles) -> serde_json::Value {
    wait_for("a host to go live", || {
        host.status().filter(|status| status["role"] == "primary")
    })
}

fn assert_well(site: &Site) {
    for host in [&site.a, &site.b] {
        assert!(!host.has_event("diverged") && !host.has_event("suspected"));
    }
}

/// Pressed on the backup's host it is for the live machine; a guest that powers off ends its life.
#[test]
fn the_power_button_of_either_host_ends_the_life() {
    let site = Site::new(&counting_until_the_button(), "");
    let (mut a, mut b) = site.protected();
    let said = press("power-button", &site.b);
    assert!(said.contains("asked to power off"), "{said}");
    for process in [&mut a, &mut b] {
        let (status, said) = process.end();
        assert_eq!(status.code(), Some(0), "{said}");
    }
    assert!(site.a.has_event("power_button"));
    assert_well(&site);
    let (status, said) = start(&site.a).end();
    assert_eq!(status.code(), Some(LIFE_IS_OVER), "{said}");
}

/// The boot unit starts the host's replica again after the host was up again: the life goes on.
#[test]
fn a_host_that_is_stopped_lets_its_guest_power_off_and_the_life_goes_on() {
    let site = Site::new(&counting_until_the_button(), "power_off_wait = \"50s\"");
    let mut a = start(&site.a);
    site.a.await_state("alone");
    await_lines(&site.a, 20);
    a.signal(Signal::TERM);
    let (status, said) = a.end();
    assert_eq!(status.code(), Some(POWERED_OFF), "{said}");
    assert!(site.a.has_event("powering_off"));
    let _a = start(&site.a);
    let status = site.a.await_state("alone");
    assert_eq!(status["generation"], 2, "a cold start of the same life");
    await_lines(&site.a, 40);
    // Whoever is the second now is no other life's.
    let _b = start(&site.b);
    site.a.await_state("protected");
}

/// A guest without a driver does not hear of the button.
#[test]
fn a_guest_that_does_not_power_off_is_unplugged_in_time_and_at_once_by_a_second_signal() {
    let site = Site::new(&counting_slowly(), "power_off_wait = \"50s\"");
    let mut a = start(&site.a);
    site.a.await_state("alone");
    await_lines(&site.a, 20);
    let began = Instant::now();
    a.signal(Signal::TERM);
    await_event(&site.a, "powering_off");
    // It counts on, and nobody joins it.
    let lines = numbers(&site.a.console()).len();
    await_lines(&site.a, lines + 50);
    a.signal(Signal::TERM);
    let (status, said) = a.end();
    assert_eq!(status.code(), Some(UNPLUGGED), "{said}");
    assert!(
        began.elapsed() < Duration::from_secs(45),
        "it was waited for"
    );
    let text = fs::read_to_string(&site.a.config).unwrap();
    fs::write(&site.a.config, text.replace("\"50s\"", "\"300ms\"")).unwrap();
    let mut a = start(&site.a);
    site.a.await_state("alone");
    a.signal(Signal::TERM);
    let (status, said) = a.end();
    assert_eq!(status.code(), Some(UNPLUGGED), "{said}");
}

/// The machine begins anew on both sides, and nobody goes live because of it.
#[test]
fn the_reset_button_begins_anew_within_the_life_and_protection_goes_on() {
    let site = Site::new(&counting_to_disk(u16::MAX), "");
    let (mut a, _b) = site.protected();
    press("reset", &site.b);
    await_event(&site.a, "rebooted");
    wait_for("the guest to count from 0 again", || {
        let seen = numbers(&site.a.console());
        (seen.iter().filter(|number| **number == 5).count() == 2).then_some(())
    });
    let status = site.a.await_state("protected");
    assert_eq!(status["generation"], 2);
    assert_well(&site);
    a.kill();
    await_primary(&site.b);
    await_lines(&site.b, 50);
    assert!(!site.b.has_event("diverged"));
}

/// It stands still on both sides, its backup is not taken for dead, and whoever goes on leaves it so.
#[test]
fn a_paused_machine_stays_paused_across_a_failover_until_it_is_resumed() {
    let site = Site::new(&counting_slowly(), "");
    let (mut a, _b) = site.protected();
    press("pause", &site.a);
    for host in [&site.a, &site.b] {
        wait_for("both to stand still", || {
            host.status().filter(|status| status["paused"] == true)
        });
    }
    let printed = site.a.console();
    let stands_at = |host: &ReplicaFiles| {
        let status = host.status().unwrap();
        let number = |key: &str| status[key].as_u64().unwrap();
        (number("instruction_count"), number("guest_time_ms"))
    };
    let at = stands_at(&site.a);
    // Longer than any timeout: the digests of a machine that stands still say that it is there.
    let compared = |host: &ReplicaFiles| host.status().unwrap()["digests_compared"].as_u64();
    let before = compared(&site.b).unwrap();
    wait_for("more digests", || {
        (compared(&site.b).unwrap() > before + 6).then_some(())
    });
    assert_eq!(stands_at(&site.a), at);
    assert_eq!(stands_at(&site.b), at);
    assert_eq!(site.a.console(), printed);
    assert_well(&site);
    a.kill();
    let status = await_primary(&site.b);
    assert_eq!(status["paused"], true);
    assert_eq!(stands_at(&site.b), at);
    let words = run(&["status", "--dir", site.b.state.to_str().unwrap()]);
    assert_eq!(words.status.code(), Some(NOT_PROTECTED));
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains("understudy resume"), "{words}");
    // A backup that joins has the machine as it stands.
    let _a = start(&site.a);
    site.b.await_state("protected");
    assert_eq!(stands_at(&site.b), at);
    let last = *numbers(&printed).last().unwrap();
    let said = press("resume", &site.a);
    assert!(said.contains("the machine goes on"), "{said}");
    wait_for("the guest to count on", || {
        let seen = numbers(&site.b.console());
        seen.iter().find(|number| **number > last + 20).copied()
    });
    assert!(press("resume", &site.b).contains("not paused"));
    assert!(!site.b.has_event("diverged"));
}

/// Finding: whoever pressed was told at once. When a backup had just taken over, or did before it heard of it,
/// the machine ran on though a person had been told that it stands still.
#[test]
fn a_press_is_told_when_whoever_may_go_on_has_it() {
    let site = Site::new(&counting_slowly(), "");
    let (_a, b) = site.protected();
    let here = site.directory.path().join("arbiter");
    let away = site.directory.path().join("away");
    fs::rename(&here, &away).unwrap();
    b.signal(Signal::STOP);
    let _press = Process::start(&["pause", "--config", site.a.config()]);
    wait_for("a to stand still", || {
        site.a.status().filter(|status| status["paused"] == true)
    });
    for _ in 0..20 {
        assert!(site.a.status().is_some());
        assert!(!site.a.has_event("machine_paused"), "b may go on without");
    }
    fs::rename(&away, &here).unwrap();
    await_event(&site.a, "machine_paused");
    site.a.await_state("alone");
}

#[test]
fn what_cannot_be_asked_is_one_clear_error() {
    let site = Site::new(&counting_slowly(), "");
    let said = |arguments: &[&str], status: i32| {
        let output = run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        said
    };
    let config = site.a.config();
    let nobody = said(&["power-button", "--config", config], NO_REPLICA);
    assert!(
        nobody.starts_with("understudy: no replica answers in"),
        "{nobody}"
    );
    assert_eq!(nobody.lines().count(), 1, "{nobody}");
    let directory = site.directory.path().to_str().unwrap();
    said(&["pause", "--dir", directory], NO_REPLICA);
    said(&["reset"], USAGE);
    said(&["resume", "--dir", "/nowhere"], USAGE);
    said(&["pause", "--dir", directory, "--config", config], USAGE);
    fs::create_dir(site.directory.path().join("elsewhere")).unwrap();
    let text = fs::read_to_string(&site.b.config).unwrap();
    let text = text.replace("directory = \"arbiter\"", "directory = \"elsewhere\"");
    fs::write(&site.b.config, text).unwrap();
    let _a = start(&site.a);
    site.a.await_state("alone");
    let _b = start(&site.b);
    wait_for("b to wait", || {
        site.b.status().filter(|status| status["role"] == "waiting")
    });
    let waits = said(&["pause", "--config", site.b.config()], FAILURE);
    assert!(waits.contains("nothing is live here"), "{waits}");
    // Of those under a directory the live one is asked.
    let output = run(&["pause", "--dir", directory]);
    assert!(output.status.success());
    wait_for("a to stand still", || {
        site.a.status().filter(|status| status["paused"] == true)
    });
}

/// Another user is told that he may not ask, and not that nobody answers.
#[test]
fn another_user_may_not_ask() {
    let site = Site::new(&counting_slowly(), "");
    let _a = start(&site.a);
    site.a.await_state("alone");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(site.directory.path(), open).unwrap();
    let state = site.a.state.to_str().unwrap();
    // What else has been made for its owner alone is no replica's.
    let keys = site.directory.path().join("keys-of-its-own");
    fs::create_dir(&keys).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o700)).unwrap();
    let whole = site.directory.path().to_str().unwrap();
    let asked = ["status", "power-button", "console"];
    let asked = asked.map(|command| (command, state));
    for (command, directory) in asked
        .into_iter()
        .chain([("status", whole), ("console", whole)])
    {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let output = Command::new("setpriv")
            .args(nobody)
            .args([
                env!("CARGO_BIN_EXE_understudy"),
                command,
                "--dir",
                directory,
            ])
            .stdin(std::process::Stdio::null())
            .output();
        match output {
            // setpriv's own failures: no such right here, or the program is out of reach.
            Ok(output) if ![Some(1), Some(126), Some(127)].contains(&output.status.code()) => {
                assert_eq!(output.status.code(), Some(NOT_PERMITTED), "{output:?}");
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8(said).unwrap();
                let lines = said.lines().filter(|line| line.contains("another user's"));
                assert_eq!(lines.count(), 1, "{said}");
                assert!(
                    !said.contains("its replica cannot"),
                    "it may be no replica's: {said}"
                );
            }
            other => println!("skipped: this user cannot be another one: {other:?}"),
        }
    }
}
