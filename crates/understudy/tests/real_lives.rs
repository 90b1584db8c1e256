//! The life of a machine on two hosts, each with its own disk and the same command: started in any
//! order and twice, killed, stopped, powered off. Nobody starts an older disk over a newer one, and
//! there is never a second machine.

mod support;

use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Stdio;
use support::device_programs::counting_to_disk;
use support::guest_program::echoing_the_next_letter;
use support::history::{await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, run, understudy, wait_for};

const DISK_BYTES: usize = 1 << 20;
/// Statuses of `understudy replica`.
const LIFE_IS_OVER: i32 = 3;
const IN_USE: i32 = 6;
const HANDED_OVER: i32 = 10;
const LEFT: i32 = 11;
const UNPLUGGED: i32 = 12;

/// Two hosts, `a` and `b`, of a guest that counts on its disk and aloud.
struct Site {
    directory: PairDirectory,
    a: ReplicaFiles,
    b: ReplicaFiles,
}

impl Site {
    fn new(lines: u16) -> Site {
        Site::of(&counting_to_disk(lines))
    }

    fn of(program: &[u8]) -> Site {
        let directory = PairDirectory::new(program);
        let names = ["a", "b"];
        let [a, b] =
            directory.two_hosts(names, |name| format!("[[disks]]\npath = \"{name}.img\"\n"));
        for name in names {
            let disk = directory.path().join(format!("{name}.img"));
            fs::write(disk, vec![0; DISK_BYTES]).unwrap();
        }
        Site { directory, a, b }
    }

    fn start(&self, host: &ReplicaFiles) -> Process {
        Process::start(&["replica", "--config", host.config()])
    }

    /// Both run, `a` is the primary, and the guest has counted for a while.
    fn protected(&self) -> (Process, Process) {
        let a = self.start(&self.a);
        self.a.await_state("alone");
        let b = self.start(&self.b);
        self.a.await_state("protected");
        // The copy is settled behind the backup's back; until its marker says so it starts nothing.
        wait_for("the backup's disk to be whole", || {
            let marker = fs::read_to_string(self.b.state.join("marker")).unwrap_or_default();
            marker.contains("whole").then_some(())
        });
        self.counts_on(&self.a);
        (a, b)
    }

    /// The guest counts on at this host. Returns a number that the outside has seen.
    fn counts_on(&self, host: &ReplicaFiles) -> u32 {
        let lines = seen(host).len();
        wait_for("the guest to count on", || {
            (seen(host).len() > lines + 30).then_some(())
        });
        *seen(host).last().unwrap()
    }

    fn arbiter(&self) -> PathBuf {
        self.directory.path().join("arbiter")
    }
}

/// The numbers of a console, which may begin in the middle of a line, and more than once from 0.
fn seen(host: &ReplicaFiles) -> Vec<u32> {
    let console = host.console();
    numbers(console.split_once('\n').map_or("", |(_, rest)| rest))
}

fn await_role(host: &ReplicaFiles, role: &str) -> serde_json::Value {
    wait_for(&format!("{} to be {role}", host.state.display()), || {
        host.status().filter(|status| status["role"] == role)
    })
}

/// How often this host has made the machine from its images and disks.
fn starts(host: &ReplicaFiles) -> usize {
    count(host, "machine_started")
}

/// How often this host has told an event of this name.
fn count(host: &ReplicaFiles, event: &str) -> usize {
    let events = fs::read_to_string(host.state.join("events.jsonl")).unwrap();
    events.matches(&format!("\"{event}\"")).count()
}

/// The largest number that a guest has written to this host's disk.
fn largest_on_disk(site: &Site, host: &str) -> u64 {
    let bytes = fs::read(site.directory.path().join(format!("{host}.img"))).unwrap();
    let sectors = bytes.chunks_exact(512);
    let numbers = sectors.map(|sector| u64::from_le_bytes(sector[..8].try_into().unwrap()));
    numbers.max().unwrap()
}

/// A life is not begun, and no disk is touched, by whoever comes second.
#[test]
fn both_hosts_started_at_once_and_twice_are_one_pair() {
    let site = Site::new(u16::MAX);
    let _processes = (site.start(&site.a), site.start(&site.b));
    wait_for("a protected pair", || {
        let is_protected = |host: &ReplicaFiles| {
            let status = host.status().filter(|status| status["role"] == "primary")?;
            (status["state"] == "protected").then_some(())
        };
        is_protected(&site.a).or_else(|| is_protected(&site.b))
    });
    for host in [&site.a, &site.b] {
        let (status, said) = site.start(host).end();
        assert_eq!(status.code(), Some(IN_USE), "{said}");
    }
    let lives = fs::read_dir(site.arbiter()).unwrap().flatten();
    let power_ons = lives.filter(|entry| entry.file_name().to_string_lossy().ends_with(".1.0"));
    assert_eq!(power_ons.count(), 1);
}

/// A boot unit starts the dead primary's host again: it follows, it is no second machine.
#[test]
fn a_host_that_comes_back_follows_whoever_went_on() {
    let site = Site::new(u16::MAX);
    let (mut a, _b) = site.protected();
    a.kill();
    await_role(&site.b, "primary");
    let printed = site.a.console();
    let _again = site.start(&site.a);
    site.b.await_state("protected");
    assert_eq!(await_role(&site.a, "backup")["state"], "replaying");
    site.counts_on(&site.b);
    assert_eq!(site.a.console(), printed);
}

/// Both hosts lost power. Finding 12: the one that was only the backup waits, whoever is first.
#[test]
fn after_a_loss_of_power_the_host_with_the_right_disk_starts_the_machine() {
    let site = Site::new(u16::MAX);
    let (mut a, mut b) = site.protected();
    a.kill();
    await_role(&site.b, "primary");
    let last = site.counts_on(&site.b);
    b.kill();
    let old = largest_on_disk(&site, "a");
    assert!(old < last.into(), "the test wants an older disk at a");
    let _a = site.start(&site.a);
    let waiting = wait_for("a to say why it waits", || {
        let status = site
            .a
            .status()
            .filter(|status| status["role"] == "waiting")?;
        let state = status["state"].as_str().unwrap().to_owned();
        state.contains("right disk").then_some(state)
    });
    assert!(
        waiting.starts_with("host b has the right disk"),
        "{waiting}"
    );
    let _b = site.start(&site.b);
    site.b.await_state("protected");
    await_role(&site.a, "backup");
    site.counts_on(&site.b);
    assert_eq!(
        starts(&site.a) + starts(&site.b),
        2,
        "power-on, and this one"
    );
    assert_eq!(starts(&site.b), 1);
}

/// The other way round: the primary's host comes back first, and starts the machine as soon as the
/// backup's says that it holds nothing.
#[test]
fn after_a_loss_of_power_the_primary_asks_whoever_may_hold_the_machine() {
    let site = Site::new(u16::MAX);
    let (mut a, mut b) = site.protected();
    a.signal(Signal::STOP);
    b.kill();
    a.kill();
    let _a = site.start(&site.a);
    let waiting = wait_for("a to say why it waits", || {
        let status = site
            .a
            .status()
            .filter(|status| status["role"] == "waiting")?;
        let state = status["state"].as_str().unwrap().to_owned();
        state.contains("--without b").then_some(state)
    });
    assert!(
        waiting.contains("b may hold the running machine"),
        "{waiting}"
    );
    let _b = site.start(&site.b);
    site.a.await_state("protected");
    site.counts_on(&site.a);
}

/// A host that stays off is a person's word, and only hosts that are waited for can be named.
#[test]
fn a_person_may_say_that_a_host_stays_off() {
    let site = Site::new(u16::MAX);
    let (mut a, mut b) = site.protected();
    let refused = |words: &[&str], arguments: &[&str]| {
        let config = ["start", "--config", site.b.config(), "--yes", "--without"];
        let output = run(&[&config[..], arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        // Who would be asked is not frightened first.
        let config = ["start", "--config", site.b.config(), "--without"];
        let output = run(&[&config[..], arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        let asked = String::from_utf8(output.stdout).unwrap();
        assert_eq!(asked, "", "of what is refused");
    };
    refused(&["follows"], &["a"]);
    // Neither goes on alone before it dies.
    a.signal(Signal::STOP);
    b.kill();
    a.kill();
    refused(&["no replica answers", "understudy replica"], &["a"]);
    let _b = site.start(&site.b);
    wait_for("b to wait for the right disk", || {
        let status = site.b.status()?;
        status["state"]
            .as_str()?
            .contains("right disk")
            .then_some(())
    });
    refused(&["\"c\" is none of the hosts", "right disk"], &["c"]);
    let config = site.b.config();
    let output = run(&["start", "--config", config, "--without", "a"]);
    let asked = String::from_utf8(output.stdout).unwrap();
    assert!(asked.contains("two machines may be live"), "{asked}");
    assert_eq!(output.status.code(), Some(2), "nobody is at this terminal");
    let output = run(&["start", "--config", config, "--yes", "--without", "a"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    site.b.await_state("alone");
    site.counts_on(&site.b);
    // What a has is older now, and it follows.
    let _a = site.start(&site.a);
    site.b.await_state("protected");
    await_role(&site.a, "backup");
}

#[test]
fn a_protected_primary_that_is_stopped_hands_over_and_its_unit_starts_a_backup() {
    let site = Site::new(u16::MAX);
    let (mut a, mut b) = site.protected();
    for (stopped, process, other) in [(&site.a, &mut a, &site.b), (&site.b, &mut b, &site.a)] {
        let suspicions = count(other, "suspected");
        process.signal(Signal::TERM);
        let (status, said) = process.end();
        assert_eq!(status.code(), Some(HANDED_OVER), "{said}");
        await_role(other, "primary");
        assert_eq!(count(other, "suspected"), suspicions, "it was found dead");
        let before = seen(stopped).last().copied().unwrap();
        site.counts_on(other);
        // The first line of the console of whoever went on may be cut, and is not looked at.
        let after = seen(other);
        assert!(
            after.contains(&(before + 1)) || after.contains(&(before + 2)),
            "{before} is followed by a gap"
        );
        *process = site.start(stopped);
        other.await_state("protected");
    }
}

#[test]
fn a_primary_that_nobody_could_replace_is_unplugged_and_starts_again_from_its_disk() {
    let site = Site::new(u16::MAX);
    let mut a = site.start(&site.a);
    site.a.await_state("alone");
    site.counts_on(&site.a);
    a.signal(Signal::TERM);
    let (status, said) = a.end();
    assert_eq!(status.code(), Some(UNPLUGGED), "{said}");
    let _again = site.start(&site.a);
    let status = site.a.await_state("alone");
    assert_eq!(status["generation"], 2, "the life goes on");
    site.counts_on(&site.a);
    assert_eq!(starts(&site.a), 2);
}

#[test]
fn a_backup_that_is_stopped_leaves_and_joins_when_it_is_started_again() {
    let site = Site::new(u16::MAX);
    let (_a, mut b) = site.protected();
    b.signal(Signal::TERM);
    let (status, said) = b.end();
    assert_eq!(status.code(), Some(LEFT), "{said}");
    site.a.await_state("alone");
    let _b = site.start(&site.b);
    site.a.await_state("protected");
}

/// The end of a life is an end: what comes after it is a person's word.
#[test]
fn a_life_that_is_over_is_not_begun_again_by_a_boot_unit() {
    const LINES: usize = 3000;
    let site = Site::new(LINES as u16);
    let (mut a, mut b) = site.protected();
    for process in [&mut a, &mut b] {
        let (status, said) = process.end();
        assert_eq!(status.code(), Some(0), "{said}");
    }
    let (status, said) = site.start(&site.a).end();
    assert_eq!(status.code(), Some(LIFE_IS_OVER), "{said}");
    assert!(said.contains("new-life"), "{said}");
    let new_life = |arguments: &[&str]| {
        let config = ["new-life", "--config", site.a.config()];
        run(&[&config[..], arguments].concat())
    };
    let nobody_to_ask = new_life(&[]);
    assert_eq!(nobody_to_ask.status.code(), Some(2));
    let begun = new_life(&["--yes"]);
    let said = String::from_utf8(begun.stdout).unwrap();
    assert!(begun.status.success(), "{said}");
    assert!(
        said.contains("life 1 is over") && said.contains("life 2"),
        "{said}"
    );
    let _a = site.start(&site.a);
    let _b = site.start(&site.b);
    wait_for("the second life to end", || {
        (seen(&site.a).len() + seen(&site.b).len() > LINES + LINES / 2).then_some(())
    });
}

/// A live machine is not declared lost, whichever host the person asks on.
#[test]
fn a_life_that_is_seen_live_cannot_be_declared_lost() {
    let site = Site::new(u16::MAX);
    let (_a, mut b) = site.protected();
    for host in [&site.a, &site.b] {
        let output = run(&["new-life", "--yes", "--config", host.config()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("lives"), "{said}");
    }
    b.kill();
    site.a.await_state("alone");
    let output = run(&["new-life", "--yes", "--config", site.b.config()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("live on host a"),
        "{said}"
    );
    site.counts_on(&site.a);
}

/// An unmounted NFS mount point: the two hosts see two directories.
#[test]
fn hosts_with_different_arbiters_do_not_pair_and_say_so() {
    let site = Site::new(u16::MAX);
    fs::create_dir(site.directory.path().join("elsewhere")).unwrap();
    let text = fs::read_to_string(&site.b.config).unwrap();
    let text = text.replace("directory = \"arbiter\"", "directory = \"elsewhere\"");
    fs::write(&site.b.config, text).unwrap();
    let _a = site.start(&site.a);
    site.a.await_state("alone");
    let _b = site.start(&site.b);
    wait_for("b to say that the arbiters differ", || {
        let status = site.b.status()?;
        let state = status["state"].as_str()?.to_owned();
        state.contains("different arbiters").then_some(())
    });
    assert_eq!(site.a.status().unwrap()["protected"], false);
    site.counts_on(&site.a);
    assert_eq!(site.b.console(), "");
    await_lines(&site.a, 10);
}

/// What is typed is an input like any other: the machine that goes on has had it, and the console is
/// attached to it.
#[test]
fn a_console_stays_attached_when_the_primary_dies() {
    let site = Site::of(&echoing_the_next_letter());
    let mut a = site.start(&site.a);
    site.a.await_state("alone");
    let mut b = site.start(&site.b);
    site.a.await_state("protected");
    let mut console = understudy()
        .args(["console", "--dir", site.directory.path().to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = console.stdin.take().unwrap();
    let mut screen = console.stdout.take().unwrap();
    let mut types = |typed: &[u8], expected: &[u8]| {
        keyboard.write_all(typed).unwrap();
        let mut seen = vec![0; expected.len()];
        screen.read_exact(&mut seen).unwrap();
        assert_eq!(seen, expected);
    };
    types(b"ABC", b"BCD");
    a.kill();
    await_role(&site.b, "primary");
    // What is typed between the two goes to nobody.
    let mut said = String::new();
    let mut stderr = console.stderr.take().unwrap();
    let mut buffer = [0; 256];
    while said.matches("attached").count() < 2 {
        let length = stderr.read(&mut buffer).unwrap();
        assert!(length > 0, "the console ended: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    types(b"HAL", b"IBM");
    assert!(said.contains("no longer live there"), "{said}");
    // Ctrl-A x leaves, and the machine goes on.
    keyboard.write_all(b"\x01x").unwrap();
    assert!(console.wait().unwrap().success());
    site.b.await_state("alone");
    b.signal(Signal::TERM);
    assert_eq!(b.end().0.code(), Some(UNPLUGGED));
}
