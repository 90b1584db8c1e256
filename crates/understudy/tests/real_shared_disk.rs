//! Two hosts with one disk: a file that both reach, of which the live one has the lock.

mod support;

use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use support::device_programs::{COUNTED_SECTORS, counting_through_disk, counting_to_disk};
use support::history::{assert_one_history, await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, error_text, run, wait_for};

const DISK_BYTES: usize = 1 << 20;

/// Two hosts that know each other, and their disk.
struct Site {
    pair: PairDirectory,
    hosts: [ReplicaFiles; 2],
    processes: [Option<Process>; 2],
}

impl Site {
    fn new(program: &[u8]) -> Site {
        let pair = PairDirectory::new(program);
        fs::write(pair.path().join("shared.img"), vec![0; DISK_BYTES]).unwrap();
        let disk = |_: &str| "[[disks]]\npath = \"shared.img\"\nshared = true\n".to_owned();
        let hosts = pair.two_hosts(["r1", "r2"], disk);
        Site {
            pair,
            hosts,
            processes: [None, None],
        }
    }

    /// A pair in which the first is live.
    fn protected(program: &[u8]) -> Site {
        let mut site = Site::new(program);
        site.start(0);
        site.await_live(0);
        site.start(1);
        site.hosts[0].await_state("protected");
        site
    }

    fn start(&mut self, host: usize) {
        let process = Process::start(&["replica", "--config", self.hosts[host].config()]);
        self.processes[host] = Some(process);
    }

    fn process(&mut self, host: usize) -> &mut Process {
        self.processes[host].as_mut().unwrap()
    }

    fn await_live(&self, host: usize) {
        wait_for("a host to be live", || {
            let status = self.hosts[host].status()?;
            (status["role"] == "primary").then_some(())
        });
    }

    fn await_more_lines(&self, host: usize) {
        let lines = numbers(&self.hosts[host].console()).len();
        await_lines(&self.hosts[host], lines + 2 * COUNTED_SECTORS as usize);
    }

    fn disk(&self) -> PathBuf {
        self.pair.path().join("shared.img")
    }

    /// What was flushed before it was printed is there.
    fn assert_has(&self, last: u32) {
        let bytes = fs::read(self.disk()).unwrap();
        for number in last.saturating_sub(COUNTED_SECTORS as u32 - 1)..=last {
            let at = (u64::from(number) % COUNTED_SECTORS) as usize * 512;
            let written = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            assert!(
                written >= number.into() && (written - u64::from(number)) % COUNTED_SECTORS == 0,
                "{number} was flushed, its sector holds {written}"
            );
        }
    }

    fn assert_alike(&self) {
        for host in &self.hosts {
            for event in ["diverged", "disk_error", "disk_failed", "machine_failed"] {
                assert!(
                    !host.has_event(event),
                    "{event} at {}",
                    host.state.display()
                );
            }
        }
    }
}

/// The last number that a host's guest printed.
fn last(host: &ReplicaFiles) -> u32 {
    let console = host.console();
    let lines = console
        .lines()
        .rev()
        .skip(usize::from(!console.ends_with('\n')));
    let mut numbers = lines.filter_map(|line| u32::from_str_radix(line, 16).ok());
    numbers.next().unwrap()
}

/// The machine goes to and fro under kills: no write that was acknowledged is lost, and joining copies no disk.
#[test]
fn the_machine_goes_on_with_the_disk_that_both_hosts_reach() {
    let mut site = Site::protected(&counting_to_disk(u16::MAX));
    site.await_more_lines(0);
    for kill in 0..2 {
        let (live, other) = (kill % 2, (kill + 1) % 2);
        site.process(live).kill();
        site.await_live(other);
        let printed = last(&site.hosts[live]);
        site.await_more_lines(other);
        if kill == 0 {
            assert_one_history(&site.hosts[0], &site.hosts[1]);
        }
        assert!(last(&site.hosts[other]) > printed);
        site.assert_has(printed);
        site.start(live);
        site.hosts[other].await_state("protected");
        let copied = fs::read_to_string(site.hosts[other].state.join("events.jsonl")).unwrap();
        let copied = copied.lines().rfind(|line| line.contains("snapshot_sent"));
        let copied = copied.expect("what was copied is told").to_owned();
        assert!(!copied.contains("disks"), "no disk is copied: {copied}");
    }
    site.assert_alike();
    let live = 0;
    let printed = last(&site.hosts[live]);
    let output = run(&["switchover", "--config", site.hosts[live].config()]);
    assert!(output.status.success(), "{}", error_text(&output));
    site.await_live(1);
    site.await_more_lines(1);
    site.assert_has(printed);
    // No copy of the disk is made for anybody.
    let file = site.pair.path().join("kept");
    let output = run(&[
        "snapshot",
        "--config",
        site.hosts[1].config(),
        "--here",
        file.to_str().unwrap(),
    ]);
    assert!(error_text(&output).contains("shared disk"), "{output:?}");
    site.assert_alike();
}

/// What the guest prints is what it read: a backup reads nothing, and prints the same.
#[test]
fn what_is_read_from_the_shared_disk_reaches_the_backup_in_the_log() {
    let mut site = Site::protected(&counting_through_disk(u16::MAX));
    site.await_more_lines(0);
    site.process(0).kill();
    site.await_live(1);
    site.await_more_lines(1);
    assert_one_history(&site.hosts[0], &site.hosts[1]);
    site.assert_alike();
}

/// A primary that is stopped may have handed a write to its host: nobody goes live before it has let go of the disk, has
/// died, or somebody says that it is cut off.
#[test]
fn a_primary_that_stands_still_keeps_its_successor_from_going_live() {
    let mut site = Site::protected(&counting_to_disk(u16::MAX));
    site.await_more_lines(0);
    let waits = |site: &Site, host: usize| {
        wait_for("it to be said that it waits", || {
            let status = site.hosts[host].status()?;
            let trouble = status["trouble"].as_str()?.to_owned();
            (trouble.contains("shared.img") && status["state"] == "going live").then_some(trouble)
        })
    };
    // It goes on, finds that it has lost the machine, and lets go.
    site.process(0).signal(Signal::STOP);
    let trouble = waits(&site, 1);
    assert!(trouble.contains("locked by another process"), "{trouble}");
    wait_for("an event", || {
        site.hosts[1].has_event("waits_for_fence").then_some(())
    });
    let before = fs::read(site.disk()).unwrap();
    assert_ne!(site.hosts[1].status().unwrap()["role"], "primary");
    site.process(0).signal(Signal::CONT);
    site.await_live(1);
    assert!(site.hosts[1].has_event("fenced"));
    site.await_more_lines(1);
    assert_ne!(fs::read(site.disk()).unwrap(), before);
    site.hosts[1].await_state("protected");
    assert_one_history(&site.hosts[0], &site.hosts[1]);
    // It dies.
    site.process(1).signal(Signal::STOP);
    waits(&site, 0);
    site.process(1).kill();
    site.await_live(0);
    site.await_more_lines(0);
    site.start(1);
    site.hosts[0].await_state("protected");
    // Nothing becomes of it, and a person has cut its host off.
    site.process(0).signal(Signal::STOP);
    waits(&site, 1);
    let output = run(&["fenced", "--config", site.hosts[1].config()]);
    assert!(output.status.success(), "{}", error_text(&output));
    site.await_live(1);
    assert!(!site.hosts[1].has_event("shared_disks_locked"));
    site.process(0).kill();
    wait_for("the lock to be this host's", || {
        site.hosts[1].has_event("shared_disks_locked").then_some(())
    });
    site.await_more_lines(1);
    let output = run(&["fenced", "--config", site.hosts[1].config()]);
    assert!(
        error_text(&output).contains("no machine waits here"),
        "{output:?}"
    );
    site.assert_alike();
    let printed = last(&site.hosts[1]);
    site.process(1).kill();
    site.assert_has(printed);
}
