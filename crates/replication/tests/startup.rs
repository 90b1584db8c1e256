//! `docs/protocol.md`, "Starting": a host that answers and cannot be asked is not off.

mod support;

use replication::marker::{DiskState, Marker, Role, Worth};
use replication::message::LifeId;
use replication::startup::{
    Basis, FoundJournal, JournalWorth, PeerAnswer, PeerId, Reach, Stance, Standing, Startup,
    StartupAction, StartupConfig, TurnedAway, Waiting, Word,
};
use replication::succession::{
    Generation, Host, HostId, JournalId, Kind, LifeNumber, Membership, RecordNumber, RunId,
};
use std::collections::BTreeSet;
use std::time::Duration;
use support::{Store, config, host, power_on};

/// A start of host "a", in a generation of "a" and its member "b", among two peers.
struct Start {
    now: Duration,
    startup: Startup,
    store: Store,
    /// What the peers answer.
    answers: [PeerAnswer; 2],
}

const LIFE: LifeId = LifeId(9);

/// What is here: the primary's whole disk, or one that was not.
fn worth(role: Role, disk: DiskState) -> Worth {
    Worth::Known(Marker {
        machine: config("a").greeting.machine,
        life: LifeNumber(1),
        life_id: LIFE,
        generation: Generation(2),
        role,
        record: RecordNumber(5),
        disk,
    })
}

impl Start {
    fn of(worth: Worth, answers: [PeerAnswer; 2]) -> Start {
        Start::among(&[host("b")], worth, answers)
    }

    fn among(members: &[Host], worth: Worth, answers: [PeerAnswer; 2]) -> Start {
        let first = power_on(&config("a"));
        let next = Membership {
            members: members.to_vec(),
            ..first.membership().clone()
        };
        let writer = config("a").writer();
        let joined = first.left(writer, Kind::Joined, RecordNumber(3), Some(next));
        let mut store = Store::with(&first);
        store.keys.insert(joined.key.clone(), joined.content());
        let greeting = config("a").greeting;
        let startup = StartupConfig {
            peers: 2,
            ..StartupConfig::new(greeting.machine, greeting.host, RunId(77), LifeId(1))
        };
        Start {
            now: Duration::ZERO,
            startup: Startup::new(Duration::ZERO, startup, worth),
            store,
            answers,
        }
    }

    /// The next action but questions.
    fn decided(&mut self) -> StartupAction {
        for _ in 0..1000 {
            match self.startup.next_action() {
                Some(StartupAction::Ask(request)) => {
                    let outcome = self.store.carry_out(&request);
                    self.startup.arbiter_answered(self.now, &request, &outcome);
                }
                Some(StartupAction::AskPeers) => {
                    for (index, answer) in self.answers.clone().into_iter().enumerate() {
                        let peer = PeerId(index as u8);
                        self.startup.peer_answered(self.now, peer, answer);
                    }
                }
                Some(StartupAction::Wait(Waiting::Claiming(_))) => {}
                Some(action) => return action,
                None => {
                    self.now = self.startup.next_deadline().unwrap().max(self.now);
                    self.startup.tick(self.now);
                }
            }
        }
        panic!("nothing is decided: {}", self.startup.waiting());
    }

    fn waits(&mut self) -> Waiting {
        match self.decided() {
            StartupAction::Wait(waiting) => waiting,
            other => panic!("it does not wait: {other:?}"),
        }
    }

    /// A person says that these hosts are off.
    fn word(&mut self, hosts: &[Host]) {
        let without: BTreeSet<_> = hosts.iter().map(|host| host.id).collect();
        let new_life = false;
        self.startup.word(self.now, Word { without, new_life });
    }

    fn says_without(&mut self, hosts: &[Host]) -> StartupAction {
        self.word(hosts);
        self.decided()
    }
}

fn turned_away(host: Option<&str>) -> PeerAnswer {
    PeerAnswer::TurnedAway(TurnedAway {
        host: host.map(str::to_owned),
        why: "b answers, but lets nobody named a in".into(),
    })
}

/// Today's mistake: the word was taken, and two machines could be live.
#[test]
fn a_host_that_answers_is_not_declared_to_be_off() {
    let primary = || worth(Role::Primary, DiskState::Whole);
    // By its name; by nobody's name, by one that the generation does not know, or with a copy of this host's
    // own keys: it may be that host.
    for name in [Some("b"), None, Some("elsewhere"), Some("a")] {
        let answers = [PeerAnswer::Unreachable, turned_away(name)];
        let mut start = Start::of(primary(), answers);
        let waiting = start.waits();
        assert!(
            matches!(&waiting, Waiting::Unasked { hosts, .. } if hosts[..] == [host("b")]),
            "{name:?}: {waiting}"
        );
        let text = waiting.to_string();
        assert!(text.contains("lets nobody named a in"), "{text}");
        assert!(!text.contains("--without"), "{text}");
        let said = start.says_without(&[host("b")]);
        assert_eq!(said, StartupAction::Wait(waiting), "{name:?}");
        // As soon as it is off, the word counts.
        start.answers = [PeerAnswer::Unreachable, PeerAnswer::Unreachable];
        let said = start.says_without(&[host("b")]);
        assert!(
            matches!(said, StartupAction::Start { .. }),
            "{name:?}: {said:?}"
        );
    }
}

/// Finding: a host whose configuration named a copy of the arbiter's directory said for ever that it looked at the arbiter.
#[test]
fn a_peer_that_stays_ahead_of_the_arbiter_is_told_of_as_one_with_another_arbiter() {
    let live = PeerAnswer::Standing(Standing {
        machine: config("a").greeting.machine,
        host: host("b"),
        stance: Stance::Live,
        life: LifeNumber(1),
        life_id: power_on(&config("a")).life,
        generation: Generation(7),
        worth: Worth::Fresh,
    });
    let answers = [live, PeerAnswer::Unreachable];
    let mut start = Start::of(worth(Role::Member, DiskState::Whole), answers);
    let waiting = start.waits();
    assert_eq!(waiting, Waiting::ArbiterDiffers(host("b")));
    assert!(start.now >= Duration::from_secs(10), "it may be late");
    let said = start.says_without(&[host("b")]);
    assert_eq!(said, StartupAction::Wait(waiting));
    // The peer has gone: there is nobody who is ahead.
    start.answers[0] = PeerAnswer::Unreachable;
    let waiting = start.waits();
    assert!(!matches!(waiting, Waiting::ArbiterDiffers(_)), "{waiting}");
}

/// One of several that answers is not off, whoever is named with it.
#[test]
fn a_word_for_all_starts_nothing_while_one_of_them_answers() {
    let answers = [turned_away(Some("c")), PeerAnswer::Unreachable];
    let members = ["b", "c"].map(host);
    let mut start = Start::among(&members, worth(Role::Primary, DiskState::Whole), answers);
    let silent = |start: &mut Start| match start.waits() {
        Waiting::Unasked { hosts, .. } => hosts,
        other => panic!("{other}"),
    };
    assert_eq!(silent(&mut start), members);
    start.word(&members);
    assert_eq!(silent(&mut start), members);
}

/// Where the right disk is elsewhere, a host says that its holder answers, and what keeps them apart.
#[test]
fn a_host_that_waits_for_one_that_turns_it_away_says_so() {
    let answers = [turned_away(Some("b")), PeerAnswer::Unreachable];
    let mut start = Start::of(Worth::Fresh, answers);
    // The machine of "b", alone.
    start.store = Store::with(&power_on(&config("b")));
    let waiting = start.waits();
    let is_told = matches!(
        &waiting,
        Waiting::RightDisk {
            reach: Reach::TurnedAway(_),
            ..
        }
    );
    let text = waiting.to_string();
    assert!(is_told, "{text}");
    assert!(
        text.contains("b answers, but lets nobody named a in"),
        "{text}"
    );
    let said = start.says_without(&[host("b")]);
    assert_eq!(said, StartupAction::Wait(waiting));
}

/// Finding: a host whose state directory was lost waited for a host of its own name, and nothing said what to do.
#[test]
fn a_lost_state_directory_is_told_with_the_identity_that_was_in_it() {
    let before = Host::new(HostId(0x1234), "a");
    let mut config = config("a");
    config.greeting.host = before.clone();
    let first = power_on(&config);
    let kept = Membership {
        journal: Some(JournalId(7)),
        ..first.membership().clone()
    };
    let joined = first.left(config.writer(), Kind::Joined, RecordNumber(3), Some(kept));
    for (has_disks, tells_what_to_write) in [(false, true), (true, false)] {
        let nobody = [PeerAnswer::Unreachable, PeerAnswer::Unreachable];
        let mut start = Start::of(Worth::Fresh, nobody);
        start.store = Store::with(&first);
        start
            .store
            .keys
            .insert(joined.key.clone(), joined.content());
        let greeting = support::config("a").greeting;
        let config = StartupConfig {
            peers: 2,
            has_disks,
            ..StartupConfig::new(greeting.machine, greeting.host, RunId(77), LifeId(1))
        };
        start.startup = Startup::new(Duration::ZERO, config, Worth::Fresh);
        let text = start.waits().to_string();
        let line = format!("\"{} a\" to host-id", before.id);
        assert!(text.contains("with another identity"), "{text}");
        assert_eq!(text.contains(&line), tells_what_to_write, "{text}");
        assert!(text.contains(&format!("--without {}", before.id)), "{text}");
    }
}

const JOURNAL: JournalId = JournalId(7);

/// A start of host "a", without disks, in a generation of `primary` alone, whose journal is elsewhere than on its disk.
fn journaled(primary: &str) -> Start {
    let nobody = [PeerAnswer::Unreachable, PeerAnswer::Unreachable];
    let mut start = Start::of(Worth::Fresh, nobody);
    let config = config(primary);
    let first = power_on(&config);
    let kept = Membership {
        journal: Some(JOURNAL),
        ..first.membership().clone()
    };
    let joined = first.left(config.writer(), Kind::Joined, RecordNumber(3), Some(kept));
    start.store = Store::with(&first);
    start
        .store
        .keys
        .insert(joined.key.clone(), joined.content());
    let greeting = support::config("a").greeting;
    let config = StartupConfig {
        peers: 2,
        has_disks: false,
        ..StartupConfig::new(greeting.machine, greeting.host, RunId(77), LifeId(1))
    };
    start.startup = Startup::new(Duration::ZERO, config, Worth::Fresh);
    start
}

/// The journal is here, and this is its last record.
fn journal(last: u64, is_fenced: bool) -> JournalWorth {
    let found = FoundJournal {
        life: LifeNumber(1),
        life_id: LIFE,
        last: RecordNumber(last),
        is_fenced,
    };
    JournalWorth::Read {
        place: "s3://bucket/shop".into(),
        found: [(JOURNAL, Ok(found))].into(),
    }
}

/// Whoever had the journal before may have added to it since it was read, and the outside may have seen that.
#[test]
fn no_key_is_asked_for_before_nobody_else_adds_to_the_journal() {
    for (primary, word) in [("a", false), ("b", true)] {
        let mut start = journaled(primary);
        start.startup.journal_is(start.now, journal(40, false));
        let mut decided = start.decided();
        if word {
            let text = format!("{decided:?}");
            assert!(text.contains("SharedJournal"), "{text}");
            decided = start.says_without(&[host(primary)]);
        }
        assert_eq!(
            decided,
            StartupAction::Wait(Waiting::JournalFenced),
            "{primary}"
        );
        assert_eq!(start.decided(), StartupAction::FenceJournal(JOURNAL));
        // Two more had come.
        start.startup.journal_is(start.now, journal(42, true));
        let StartupAction::Start { won } = start.decided() else {
            panic!("it does not start")
        };
        assert_eq!((won.kind, won.record), (Kind::Recovered, RecordNumber(43)));
        let membership = won.membership();
        assert_eq!(membership.primary, host("a"));
        assert_eq!(membership.journal, Some(JOURNAL));
    }
}

/// A word that would be refused, and a consequence that it would not have, are not told.
#[test]
fn no_word_is_asked_for_before_the_journal_is_read() {
    let mut start = journaled("b");
    start.startup.journal_is(start.now, JournalWorth::BeingRead);
    assert_eq!(start.decided(), StartupAction::Wait(Waiting::JournalRead));
    start.startup.journal_is(start.now, journal(40, true));
    let told = start.decided();
    assert!(
        matches!(
            &told,
            StartupAction::Wait(Waiting::RightDisk {
                basis: Basis::SharedJournal,
                ..
            })
        ),
        "{told:?}"
    );
}

/// A person says that the host is off; what the outside saw is not given up for that.
#[test]
fn no_machine_begins_anew_while_its_journal_may_be_here() {
    let damaged = JournalWorth::Read {
        place: "s3://bucket/shop".into(),
        found: [(JOURNAL, Err("a piece is damaged".into()))].into(),
    };
    for worth in [
        JournalWorth::BeingRead,
        JournalWorth::Unusable("the bucket does not answer".into()),
        damaged,
    ] {
        let mut start = journaled("b");
        start.startup.journal_is(start.now, worth.clone());
        start.waits();
        let said = start.says_without(&[host("b")]);
        assert!(
            matches!(
                said,
                StartupAction::Wait(Waiting::JournalRead | Waiting::Journal { .. })
            ),
            "{worth:?}: {said:?}"
        );
    }
    let mut start = journaled("b");
    start
        .startup
        .journal_is(start.now, JournalWorth::NotConfigured);
    start.waits();
    let said = start.says_without(&[host("b")]);
    assert!(
        matches!(&said, StartupAction::Start { won } if won.kind == Kind::ColdStart),
        "{said:?}"
    );
}

/// Finding: a host that was going on from its journal was said not to answer.
#[test]
fn a_host_that_is_going_on_from_its_journal_is_waited_for_and_says_how_far_it_is() {
    let standing = Standing {
        machine: config("b").greeting.machine,
        host: host("b"),
        stance: Stance::Recovering { percent: 40 },
        life: LifeNumber(1),
        life_id: LIFE,
        generation: Generation(3),
        worth: Worth::Fresh,
    };
    let answers = [PeerAnswer::Standing(standing), PeerAnswer::Unreachable];
    let mut start = Start::of(worth(Role::Primary, DiskState::Whole), answers);
    let text = start.waits().to_string();
    assert!(
        text.contains("host b is going on from its journal"),
        "{text}"
    );
    assert!(text.contains("40%"), "{text}");
    let said = start.says_without(&[host("b")]);
    assert!(
        matches!(said, StartupAction::Wait(Waiting::Peer(..))),
        "{said:?}"
    );
}

/// A life is not declared lost while somebody who may live it answers.
#[test]
fn no_life_begins_while_a_host_of_the_open_one_answers_and_cannot_be_asked() {
    let answers = [PeerAnswer::Unreachable, turned_away(Some("b"))];
    let mut start = Start::of(worth(Role::Primary, DiskState::Whole), answers);
    start.waits();
    let word = Word {
        new_life: true,
        ..Word::default()
    };
    start.startup.word(start.now, word);
    let waiting = start.waits();
    assert!(matches!(waiting, Waiting::Unasked { .. }), "{waiting}");
}
