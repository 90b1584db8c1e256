//! Several backups, as real processes. `docs/protocol.md`, "One log, many followers".

mod support;

use machine::engine::Engine;
use serde_json::Value;
use std::net::TcpListener;
use support::guest_program::{counting_busily, counting_slowly};
use support::history::{assert_one_history, assert_one_history_of};
use support::{PairDirectory, Process, ReplicaFiles, error_text, run, wait_for};

const HOSTS: usize = 3;

/// Three hosts that know each other.
struct Three {
    _directory: PairDirectory,
    files: Vec<ReplicaFiles>,
    processes: Vec<Option<Process>>,
}

impl Three {
    fn new() -> Three {
        Three::with(&counting_slowly(), "", |_| "")
    }

    /// `pair`: more for the section of the pair; `extra`: more of each host's before the sections.
    fn with(program: &[u8], pair: &str, extra: impl Fn(usize) -> &'static str) -> Three {
        let directory = PairDirectory::new(program);
        // All at once, so that they differ.
        let listeners = [(); HOSTS].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = listeners.map(|listener| listener.local_addr().unwrap().to_string());
        let files = (0..HOSTS).map(|host| {
            let name = ["a", "b", "c"][host];
            let files = directory.replica(name, None, extra(host));
            let others = addresses.iter().enumerate();
            let others = others.filter(|(other, _)| *other != host);
            let peers: Vec<String> = others.map(|(_, peer)| format!("\"{peer}\"")).collect();
            let text = std::fs::read_to_string(&files.config).unwrap();
            let own = format!(
                "host = \"{name}\"\nlisten = \"{}\"\npeers = [{}]\n{pair}",
                addresses[host],
                peers.join(", ")
            );
            let text = text.replace("listen = \"127.0.0.1:0\"", &own);
            std::fs::write(&files.config, text).unwrap();
            files
        });
        Three {
            files: files.collect(),
            _directory: directory,
            processes: (0..HOSTS).map(|_| None).collect(),
        }
    }

    fn start(&mut self, host: usize) {
        let config = self.files[host].config().to_owned();
        self.processes[host] = Some(Process::start(&["replica", "--config", &config]));
    }

    fn kill(&mut self, host: usize) {
        self.processes[host].take().unwrap().kill();
    }

    /// The guest says so much more, on a host that may have been its primary before.
    fn await_more_lines(&self, host: usize, lines: usize) {
        let said = || self.files[host].console().lines().count();
        let before = said();
        wait_for("the guest's output", || {
            (said() >= before + lines).then_some(())
        });
    }

    /// The primary, once so many backups can take over.
    fn protected_by(&self, backups: usize) -> usize {
        wait_for(&format!("{backups} backups"), || {
            (0..HOSTS)
                .filter(|host| self.processes[*host].is_some())
                .find(|host| {
                    self.files[*host].status().is_some_and(|status| {
                        status["role"] == "primary" && protecting(&status) == backups
                    })
                })
        })
    }
}

fn protecting(status: &Value) -> usize {
    let followers = status["followers"].as_array().unwrap();
    followers.iter().filter(|f| f["protects"] == true).count()
}

/// Outputs wait for two backups; the primary dies, one of them goes live and the other follows it; the
/// next dies, too. What the outside saw has no gap.
#[test]
fn three_hosts_bear_one_death_after_the_other() {
    let mut three = Three::new();
    (0..HOSTS).for_each(|host| three.start(host));
    let mut primary = three.protected_by(2);
    for _ in 0..3 {
        three.await_more_lines(primary, 50);
        three.kill(primary);
        // The one that is left joins whoever went live.
        let next = three.protected_by(1);
        assert_ne!(next, primary);
        let other = HOSTS - primary - next;
        let came = |event| three.files[other].has_event(event);
        assert!(
            came("goes_on") || came("copied_anew"),
            "what became of its machine is said"
        );
        assert!(!came("diverged"));
        three.await_more_lines(next, 20);
        three.start(primary);
        primary = three.protected_by(2);
        assert_eq!(primary, next, "nobody else goes live");
    }
}

/// The host that is named gets the machine, whichever it is, and whoever holds as much.
#[test]
fn of_two_backups_the_one_that_is_named_takes_over() {
    let mut three = Three::new();
    (0..HOSTS).for_each(|host| three.start(host));
    for round in 0..4 {
        let primary = three.protected_by(2);
        let wanted = (primary + 1 + round % 2) % HOSTS;
        let name = ["a", "b", "c"][wanted];
        let config = three.files[primary].config().to_owned();
        let output = run(&["switchover", "--config", &config, "--to", name]);
        assert!(output.status.success(), "{}", error_text(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&format!("went over to {name} ")), "{said}");
        assert_eq!(three.protected_by(2), wanted, "round {round}");
    }
}

/// One of two backups dies: the guest's outputs go on with the other, and it joins again.
#[test]
fn a_backup_that_dies_is_dropped_and_the_other_stays() {
    let mut three = Three::new();
    (0..HOSTS).for_each(|host| three.start(host));
    let primary = three.protected_by(2);
    let backup = (primary + 1) % HOSTS;
    let other = HOSTS - primary - backup;
    three.kill(backup);
    assert_eq!(three.protected_by(1), primary);
    three.await_more_lines(primary, 50);
    assert!(!three.files[other].has_event("claim_lost"));
    // The one that stayed takes over with all that was said.
    three.kill(primary);
    assert_eq!(three.protected_by(0), other);
    three.await_more_lines(other, 20);
    assert_one_history(&three.files[primary], &three.files[other]);
}

/// Says to the replica of `host`, which waits, that others are off.
fn say_off(host: &ReplicaFiles, others: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["start", "--config", host.config(), "--yes"];
    for other in others {
        arguments.extend(["--without", other]);
    }
    let output = run(&arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &error_text(&output);
    (output.status.code(), said)
}

/// All hosts lost power and one is back. Finding: a word that named too few hosts was refused without a
/// reason, and one that named enough because it named a host that the replica had not spoken of.
#[test]
fn a_person_is_told_which_other_hosts_have_to_be_off_and_can_name_them_all() {
    let mut three = Three::new();
    (0..HOSTS).for_each(|host| three.start(host));
    let primary = three.protected_by(2);
    three.await_more_lines(primary, 5);
    // At once, so that nobody takes over from another.
    for process in three.processes.iter().flatten() {
        process.signal(rustix::process::Signal::STOP);
    }
    (0..HOSTS).for_each(|host| three.kill(host));
    let (back, third) = ((primary + 1) % HOSTS, (primary + 2) % HOSTS);
    let name = |host: usize| ["a", "b", "c"][host];
    three.start(back);
    let files = &three.files[back];
    let together = format!("--without {},{}`", name(primary), name(third));
    wait_for("the replica to say what would help", || {
        let state = files.status()?["state"].as_str()?.to_owned();
        state.contains(&together).then_some(())
    });
    let (status, said) = say_off(files, &[name(primary)]);
    assert_eq!(status, Some(1), "{said}");
    let missing = format!("host {} may hold the running machine", name(third));
    assert!(
        said.contains(&missing) && said.contains(&together),
        "{said}"
    );
    let (status, said) = say_off(files, &[name(third)]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("had the machine last"), "{said}");
    let (status, said) = say_off(files, &["nobody"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("\"nobody\" is none of the hosts"), "{said}");
    let (status, said) = say_off(files, &[name(third), name(primary)]);
    assert_eq!(status, Some(0), "{said}");
    files.await_state("alone");
}

/// One of three hosts is many times slower than the others: it is let go while the others go on, is told
/// why, and is taken again as soon as nobody else protects the machine.
#[test]
fn a_backup_that_is_too_slow_is_let_go_until_it_is_needed() {
    if riscv::RISCV64.available(Engine::Jit) != Engine::Jit {
        println!("skipped: without a JIT all hosts are as slow as the slow one");
        return;
    }
    let policy = "lag_policy = \"drop\"\nlag_limit = \"1s\"\n";
    let mut three = Three::with(&counting_busily(), policy, |host| {
        ["", "", "engine = \"interpreter\""][host]
    });
    let [primary, other, slow] = [0, 1, 2];
    three.start(primary);
    three.files[primary].await_state("alone");
    // The first backup is taken however slow it is; with the other one here it would be refused.
    three.start(slow);
    three.files[primary].await_state("protected");
    three.start(other);
    wait_for("the slow one to be let go", || {
        three.files[primary].has_event("lets_go").then_some(())
    });
    let told = |host: usize, event: &str, what: &str| {
        let text = std::fs::read_to_string(three.files[host].state.join("events.jsonl")).unwrap();
        let mut lines = text.lines().filter(|line| line.contains(event));
        lines.any(|line| line.contains(what))
    };
    assert!(told(primary, "lets_go", "host c"));
    wait_for("the slow one to be told", || {
        told(slow, "looks_again", "because it lagged").then_some(())
    });
    assert!(told(slow, "suspected", "lag_limit"));
    assert!(!told(primary, "suspected", ""));
    assert!(!told(other, "suspected", ""));
    assert_eq!(three.protected_by(1), primary);
    three.await_more_lines(primary, 50);
    // The other one dies: better a slow backup than none.
    three.kill(other);
    assert_eq!(three.protected_by(1), primary);
    let status = three.files[primary].status().unwrap();
    assert_eq!(status["followers"][0]["host"], "c");
    three.await_more_lines(primary, 20);
    three.kill(primary);
    assert_eq!(three.protected_by(0), slow);
    three.await_more_lines(slow, 5);
    // It counts with 16 bits.
    assert_one_history_of(1 << 16, &three.files[primary], &three.files[slow]);
}

/// A spare stays out while the two others are there, takes the place of one that dies, and the machine
/// when the other one dies as well.
#[test]
fn a_spare_takes_the_place_of_a_backup_that_dies() {
    let mut three = Three::new();
    let spare = 2;
    for host in 0..HOSTS {
        let text = std::fs::read_to_string(&three.files[host].config).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("peers = "))
            .unwrap();
        let peers: Vec<&str> = line["peers = [".len()..line.len() - 1]
            .split(", ")
            .collect();
        let more = if host == spare {
            format!("{line}\nspare = true")
        } else {
            format!(
                "peers = [{}]\nspares = [{}]\nspare_after = \"1s\"",
                peers[0], peers[1]
            )
        };
        std::fs::write(&three.files[host].config, text.replace(line, &more)).unwrap();
    }
    three.start(spare);
    three.files[spare].await_state(
        "this host is a spare (`pair.spare`): the others have the machine, or power it on, and it joins when one of them is lacking",
    );
    (0..spare).for_each(|host| three.start(host));
    let primary = three.protected_by(1);
    assert_ne!(primary, spare);
    wait_for("the spare to be told that it is one", || {
        three.files[spare].has_event("looks_again").then_some(())
    });
    assert!(!three.files[spare].has_event("joining"));
    let backup = 1 - primary;
    three.await_more_lines(primary, 20);
    three.kill(backup);
    assert_eq!(three.protected_by(1), primary);
    assert!(three.files[spare].has_event("protected"));
    three.kill(primary);
    assert_eq!(three.protected_by(0), spare);
    three.await_more_lines(spare, 20);
    assert_one_history(&three.files[primary], &three.files[spare]);
    // It is the machine's host now, and takes whoever comes back.
    three.start(primary);
    assert_eq!(three.protected_by(1), spare);
}
