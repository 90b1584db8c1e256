//! `understudy switchover`: two hosts with disks, asked at the live one, at the backup, and when it cannot be.

mod support;

use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use support::device_programs::counting_to_disk;
use support::history::{await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, error_text, run, wait_for};

const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const HANDED_OVER: i32 = 10;
const NO_REPLICA: i32 = 8;

struct Site {
    directory: PairDirectory,
    a: ReplicaFiles,
    b: ReplicaFiles,
}

impl Site {
    fn new() -> Site {
        let directory = PairDirectory::new(&counting_to_disk(u16::MAX));
        let [a, b] = directory.two_hosts(["a", "b"], |name| {
            fs::write(directory.path().join(format!("{name}.img")), [0; 1 << 20]).unwrap();
            format!("[[disks]]\npath = \"{name}.img\"\n")
        });
        Site { directory, a, b }
    }
}

impl Site {
    fn protected(&self) -> [Process; 2] {
        let a = start(&self.a);
        self.a.await_state("alone");
        let b = start(&self.b);
        self.a.await_state("protected");
        await_lines(&self.a, 20);
        [a, b]
    }

    fn arbiter(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The arbiter is out of reach of everybody, for now.
    fn arbiter_goes_away(&self) {
        fs::rename(self.arbiter("arbiter"), self.arbiter("away")).unwrap();
    }

    fn arbiter_is_back(&self) {
        fs::rename(self.arbiter("away"), self.arbiter("arbiter")).unwrap();
    }
}

fn start(host: &ReplicaFiles) -> Process {
    Process::start(&["replica", "--config", host.config()])
}

/// Asks a host for a switchover.
fn switchover(host: &ReplicaFiles, more: &[&str]) -> Output {
    let mut arguments = vec!["switchover", "--config", host.config()];
    arguments.extend(more);
    run(&arguments)
}

fn await_primary(host: &ReplicaFiles) {
    wait_for(&format!("{} to be live", host.state.display()), || {
        host.status().filter(|status| status["role"] == "primary")
    });
}

fn count(host: &ReplicaFiles, event: &str) -> usize {
    let events = fs::read_to_string(host.state.join("events.jsonl")).unwrap();
    events.matches(&format!("\"{event}\"")).count()
}

/// The identity of a host, without its name.
fn id(host: &ReplicaFiles) -> String {
    let text = fs::read_to_string(host.state.join("host-id")).unwrap();
    let identity = text.split_whitespace().next();
    identity.unwrap().to_owned()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", error_text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_machine_goes_over_and_back_while_no_process_ends_and_nothing_is_suspected() {
    let site = Site::new();
    let _a = start(&site.a);
    site.a.await_state("alone");
    let _b = start(&site.b);
    site.a.await_state("protected");
    await_lines(&site.a, 20);

    let done = said(&switchover(&site.a, &["--to", &id(&site.b)]));
    assert!(done.contains("went over to"), "{done}");
    await_primary(&site.b);
    let said_before = site.a.console().len();
    let protected = site.b.await_state("protected");
    assert_eq!(protected["role"], "primary");
    // Asked for what is so already.
    let again = said(&switchover(&site.b, &["--to", &id(&site.b)]));
    assert!(again.contains("already"), "{again}");

    // Back, asked at the backup.
    let passed_on = said(&switchover(&site.a, &[]));
    assert!(
        passed_on.contains("went over to a, this host"),
        "{passed_on}"
    );
    let status = site.a.status().unwrap();
    assert_eq!(status["role"], "primary", "it was waited for");
    site.a.await_state("protected");

    for host in [&site.a, &site.b] {
        assert_eq!(count(host, "started"), 1, "a process ended");
        assert_eq!(count(host, "suspected"), 0, "somebody was found dead");
        assert_eq!(count(host, "switched_over"), 1);
        assert!(!host.has_event("diverged") && !host.has_event("unplugged"));
    }
    let lines = site.a.console().lines().count();
    await_lines(&site.a, lines + 20);
    // What the outside saw, in order: not an octet is missing, none is there twice.
    let (first, console) = (site.b.console(), site.a.console());
    let outside = format!(
        "{}{first}{}",
        &console[..said_before],
        &console[said_before..]
    );
    let seen = numbers(&outside);
    let expected: Vec<u32> = (0..).take(seen.len()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn what_cannot_be_switched_over_stays_and_says_why() {
    let site = Site::new();
    let nobody = switchover(&site.a, &[]);
    assert_eq!(
        nobody.status.code(),
        Some(NO_REPLICA),
        "{}",
        error_text(&nobody)
    );
    let _a = start(&site.a);
    site.a.await_state("alone");
    for arguments in [&[][..], &["--to", "nobody"]] {
        let alone = switchover(&site.a, arguments);
        assert_eq!(alone.status.code(), Some(FAILURE));
        let why = error_text(&alone);
        assert!(why.contains("backup"), "{why}");
    }
    let _b = start(&site.b);
    site.a.await_state("protected");
    let stranger = switchover(&site.a, &["--to", "nobody"]);
    assert_eq!(stranger.status.code(), Some(FAILURE));
    let why = error_text(&stranger);
    assert!(why.contains("no backup of this machine"), "{why}");
    let empty = switchover(&site.a, &["--to", ""]);
    assert_eq!(empty.status.code(), Some(USAGE));
    let why = error_text(&empty);
    assert!(why.contains("--to <HOST>"), "{why}");
    let other = switchover(&site.b, &["--to", &id(&site.a)]);
    assert_eq!(other.status.code(), Some(FAILURE), "{}", error_text(&other));
    let status = site.a.await_state("protected");
    assert_eq!(status["role"], "primary");
    await_lines(&site.a, 40);
}

/// Finding: a machine that was switched over just as the arbiter went away stood still until it was back.
#[test]
fn no_machine_stands_still_for_an_arbiter_that_has_just_gone_away() {
    let site = Site::new();
    let [mut a, _b] = site.protected();
    site.arbiter_goes_away();
    // Finding: asked at the backup it was passed on, with status 0, whatever came of it.
    for asked_at in [&site.a, &site.b] {
        let refused = switchover(asked_at, &[]);
        assert_eq!(refused.status.code(), Some(FAILURE));
        let why = error_text(&refused);
        assert!(
            why.contains("arbiter") && why.contains("goes on here"),
            "{why}"
        );
    }
    assert_eq!(count(&site.a, "handing_over"), 0, "it stood still");
    let lines = site.a.console().lines().count();
    await_lines(&site.a, lines + 20);
    // Whoever has to end waits for the arbiter for a while, and the guest runs on.
    a.signal(Signal::TERM);
    let lines = site.a.console().lines().count();
    await_lines(&site.a, lines + 20);
    site.arbiter_is_back();
    let (status, said) = a.end();
    assert_eq!(status.code(), Some(HANDED_OVER), "{said}");
    await_primary(&site.b);
    await_lines(&site.b, 20);
}
