//! `understudy switchover`: two hosts with disks, asked at the live one, at the backup, and when it cannot be.

mod support;

use rustix::process::Signal;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;
use support::device_programs::counting_to_disk;
use support::history::{await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, error_text, run, wait_for};

const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const HANDED_OVER: i32 = 10;
const UNPLUGGED: i32 = 12;
const NO_REPLICA: i32 = 8;

struct Site {
    directory: PairDirectory,
    a: ReplicaFiles,
    b: ReplicaFiles,
}

impl Site {
    fn new() -> Site {
        Site::with("")
    }

    /// Nobody is suspected before 2 s.
    fn patient() -> Site {
        Site::with("suspect_after = \"2s\"\n")
    }

    fn with(pair_keys: &'static str) -> Site {
        let mut directory = PairDirectory::new(&counting_to_disk(u16::MAX));
        directory.pair_keys = pair_keys;
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

/// What an event that happened once says.
fn detail(host: &ReplicaFiles, event: &str) -> String {
    let events = fs::read_to_string(host.state.join("events.jsonl")).unwrap();
    let name = format!("\"event\":\"{event}\"");
    let mut lines = events.lines().filter(|line| line.contains(&name));
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no {event}: {events}"));
    assert!(lines.next().is_none(), "{event} twice: {events}");
    line.to_owned()
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

/// Finding: a primary that had not run for a moment when it was asked to end was unplugged, with a backup that was well:
/// that had not answered since. A busy host is enough.
#[test]
fn a_primary_that_slept_hands_over_all_the_same() {
    let site = Site::patient();
    let [mut a, _b] = site.protected();
    // Longer than half of what is suspected, which is what a process takes for a pause of its own.
    a.signal(Signal::STOP);
    a.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(1200));
    a.signal(Signal::CONT);
    let (status, said) = a.end();
    assert_eq!(status.code(), Some(HANDED_OVER), "{said}");
    await_primary(&site.b);
    assert!(site.a.has_event("paused"), "it did not notice");
    assert_eq!(count(&site.b, "suspected"), 0);
}

/// Keeps the marker of a host's state directory from being written, for root as well, until it is dropped.
struct NoRoom(PathBuf);

impl NoRoom {
    /// Of a backup whose own marker is written: one that cannot be is as bad as a disk that fails.
    fn at(host: &ReplicaFiles) -> NoRoom {
        wait_for("the backup's marker", || {
            let marker = fs::read_to_string(host.state.join("marker")).ok()?;
            let is_settled = marker.contains("role=member") && marker.contains("disk=whole");
            is_settled.then_some(())
        });
        NoRoom(take_marker_name(host))
    }
}

/// Takes the name by which a marker is written, so that none can be. A replica that tries whether it could write one has that
/// name itself for a moment.
fn take_marker_name(host: &ReplicaFiles) -> PathBuf {
    let name = host.state.join("marker.new");
    wait_for("no trial to have the name", || {
        let made = fs::create_dir(&name);
        let is_taken = matches!(&made, Err(error) if error.kind() == ErrorKind::AlreadyExists);
        (!is_taken).then(|| made.unwrap())
    });
    name
}

impl Drop for NoRoom {
    fn drop(&mut self) {
        let _removed = fs::remove_dir(&self.0);
    }
}

/// Waits until a host's status says this, or nothing, of its trouble.
fn await_trouble(host: &ReplicaFiles, words: Option<&str>) {
    let named = format!("trouble {words:?} of {}", host.state.display());
    wait_for(&named, || {
        let trouble = host.status()?["trouble"].as_str().map(str::to_owned);
        let is_so = match (&trouble, words) {
            (Some(trouble), Some(words)) => trouble.contains(words),
            (trouble, words) => trouble.is_none() && words.is_none(),
        };
        is_so.then_some(())
    });
}

/// Finding: a switchover, and the end of the primary, handed the machine to a host whose state directory took no
/// marker: its guest could flush nothing there, and nobody could join.
#[test]
fn a_machine_goes_to_no_host_that_could_not_go_on_with_it() {
    const UNABLE: &str = "could not go on with the machine";
    let site = Site::new();
    let [mut a, _b] = site.protected();
    let no_room = NoRoom::at(&site.b);
    await_trouble(&site.b, Some(UNABLE));
    await_trouble(&site.a, Some("b could not go on"));
    for host in [&site.a, &site.b] {
        assert_eq!(count(host, "cannot_take_over"), 1);
        let refused = switchover(host, &[]);
        assert_eq!(refused.status.code(), Some(FAILURE));
        let why = error_text(&refused);
        assert!(why.contains(UNABLE) && why.contains("marker"), "{why}");
    }
    let named = error_text(&switchover(&site.a, &["--to", "b"]));
    assert!(named.contains(UNABLE), "{named}");
    assert_eq!(site.a.await_state("protected")["role"], "primary");
    // Whoever has to end waits for a while, and the guest runs on; there is room in time.
    a.signal(Signal::TERM);
    let lines = site.a.console().lines().count();
    await_lines(&site.a, lines + 20);
    assert_eq!(count(&site.a, "handing_over"), 0);
    drop(no_room);
    let (status, said) = a.end();
    assert_eq!(status.code(), Some(HANDED_OVER), "{said}");
    await_primary(&site.b);
    await_lines(&site.b, 20);
    assert_eq!(count(&site.b, "can_take_over"), 1);
    assert_eq!(count(&site.b, "marker_failed"), 0);
}

/// A host that does not become able in time is let go before the guest is asked to power off: it does not go on.
#[test]
fn a_primary_that_ends_lets_a_host_go_that_could_not_go_on() {
    let site = Site::new();
    let [mut a, b] = site.protected();
    let no_room = NoRoom::at(&site.b);
    await_trouble(&site.a, Some("b could not go on"));
    a.signal(Signal::TERM);
    let (status, said) = a.end();
    assert_eq!(status.code(), Some(UNPLUGGED), "{said}");
    assert_eq!(count(&site.a, "lets_go"), 1, "{said}");
    // Finding: nothing was said of the ten seconds in which making room would have kept the service, and the backup said
    // that it had lagged.
    let told = detail(&site.a, "cannot_hand_over");
    for words in [
        "b could not go on with the machine",
        "marker",
        "within 10 s",
    ] {
        assert!(told.contains(words), "{told}");
    }
    let told = detail(&site.b, "suspected");
    assert!(
        told.contains("let this replica go")
            && told.contains("b could not go on")
            && !told.contains("lag"),
        "{told}"
    );
    assert_eq!(count(&site.a, "handing_over"), 0);
    let _a = start(&site.a);
    await_primary(&site.a);
    assert!(!site.b.has_event("live"), "it went on with the machine");
    drop(no_room);
    let status = site.a.await_state("protected");
    assert_eq!(status["role"], "primary");
    drop(b);
}

/// Finding: that the primary's own state directory took no marker was seen only after a switchover, when it could not
/// follow.
#[test]
fn a_primary_says_that_its_own_host_could_not_follow() {
    let site = Site::new();
    let _a = start(&site.a);
    wait_for("the primary's marker", || {
        let marker = fs::read_to_string(site.a.state.join("marker")).ok()?;
        marker.contains("role=primary").then_some(())
    });
    let in_the_way = take_marker_name(&site.a);
    await_trouble(&site.a, Some("this host cannot write its markers"));
    let told = detail(&site.a, "cannot_write_markers");
    assert!(told.contains("a/marker: "), "{told}");
    fs::remove_dir(&in_the_way).unwrap();
    await_trouble(&site.a, None);
    assert_eq!(count(&site.a, "can_write_markers"), 1);
    assert_eq!(count(&site.a, "marker_failed"), 0);
}

/// When the primary is lost its backup goes on, whatever its host is worth: a guest that waits for its flushes is more
/// than none.
#[test]
fn a_lost_primary_is_followed_by_a_host_that_could_not_be_handed_the_machine() {
    let site = Site::new();
    let [mut a, _b] = site.protected();
    let no_room = NoRoom::at(&site.b);
    await_trouble(&site.a, Some("b could not go on"));
    a.kill();
    await_primary(&site.b);
    await_trouble(&site.b, Some("the guest's flushes and any backup wait"));
    drop(no_room);
    await_trouble(&site.b, None);
    await_lines(&site.b, 20);
}
