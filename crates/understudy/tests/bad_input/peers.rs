//! A peer on the logging channel that is another program, another guest, or tells lies.

use crate::support::guest_program::counting_slowly;
use crate::support::{PATIENCE, PairDirectory, Process, ReplicaFiles, wait_for};
use keys::{BlockingSession, Keys};
use replication::capacity::HostFacts;
use replication::configuration::{Build, Configuration, Difference};
use replication::life_log::LogMark;
use replication::marker::Worth;
use replication::message::{
    Continuation, Greeting, LifeId, Message, MessageReader, MessageWriter, PROTOCOL_VERSION,
    Refusal, SnapshotChunk, SnapshotPart,
};
use replication::record::InstructionCount;
use replication::startup::{Stance, Standing};
use replication::succession::{
    Durability, Entry, Generation, Host, HostId, Key, Kind, LifeNumber, MachineName, Membership,
    Origin, RecordNumber, RunId, Writer,
};
use riscv::SEMANTICS_VERSION;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

/// The other end of the logging channel, in the test's hands.
pub struct Peer {
    stream: BlockingSession,
    writer: MessageWriter,
    reader: MessageReader,
}

impl Peer {
    /// To a replica that listens, as a member.
    pub fn connect(pair: &PairDirectory, listen: &str) -> Peer {
        Peer::new(pair.speak(listen))
    }

    /// With a replica that connected.
    pub fn accept(keys: &Keys, listener: &TcpListener) -> Peer {
        let (socket, _) = listener.accept().unwrap();
        Peer::new(BlockingSession::accept(keys, socket, PATIENCE).unwrap())
    }

    fn new(stream: BlockingSession) -> Peer {
        let patience = Some(Duration::from_secs(30));
        stream.socket().set_read_timeout(patience).unwrap();
        Peer {
            stream,
            writer: MessageWriter::default(),
            reader: MessageReader::new(),
        }
    }

    pub fn send(&mut self, message: &Message) {
        let mut bytes = Vec::new();
        self.writer.write(&mut bytes, message);
        // The other side may hang up at any time: what it says matters, not what it hears.
        let _sent = self.stream.write_all(&bytes);
    }

    /// The next message; `None` at the connection's end.
    pub fn receive(&mut self) -> Option<Message> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.reader.next_message().unwrap() {
                return Some(message);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.reader.push(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }
}

pub fn stranger() -> Host {
    Host::new(HostId(17), "here")
}

fn other() -> MachineName {
    MachineName::new("other").unwrap()
}

pub fn greeting() -> Greeting {
    Greeting {
        build: Build::new("another build"),
        semantics_version: SEMANTICS_VERSION,
        configuration: Configuration::new(0),
        machine: MachineName::new("test").unwrap(),
        host: stranger(),
        run: RunId(17),
        listen_port: 0,
    }
}

/// A greeting that the replica of this configuration takes for that of a host of its machine.
pub fn right_greeting(config: &str) -> Greeting {
    let config = understudy::config::VmConfig::load(Path::new(config)).unwrap();
    let machine = understudy::setup::ConfiguredMachine(config);
    let configuration = replica::Machines::configuration(&machine);
    Greeting {
        configuration: configuration.with("disk_durability", "primary"),
        ..greeting()
    }
}

/// What a primary answers to a greeting.
fn ask(pair: &PairDirectory, listen: &str, protocol: u32, greeting: Greeting) -> Option<Message> {
    let mut peer = Peer::connect(pair, listen);
    peer.send(&Message::Hello {
        protocol,
        greeting,
        is_spare: false,
        stands_at: None,
        facts: HostFacts::default(),
        boot: Default::default(),
    });
    peer.receive()
}

#[test]
fn a_primary_refuses_a_backup_of_another_kind_and_says_why() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let refusal = |protocol, greeting| match ask(&pair, &listen, protocol, greeting) {
        Some(Message::Refuse(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    };
    let other_protocol = refusal(PROTOCOL_VERSION + 1, greeting());
    assert_eq!(
        other_protocol,
        Refusal::ProtocolVersion {
            ours: PROTOCOL_VERSION
        }
    );
    let other_semantics = Greeting {
        semantics_version: SEMANTICS_VERSION + 1,
        ..greeting()
    };
    let other_semantics = refusal(PROTOCOL_VERSION, other_semantics).to_string();
    let named = format!(
        "semantics version: {} (another build) here",
        SEMANTICS_VERSION + 1
    );
    assert!(other_semantics.contains(&named), "{other_semantics}");
    let own = format!("{SEMANTICS_VERSION} ({})", understudy::build::build());
    assert!(other_semantics.contains(&own), "{other_semantics}");
    let other_guest = refusal(
        PROTOCOL_VERSION,
        Greeting {
            machine: other(),
            ..greeting()
        },
    );
    assert_eq!(
        other_guest,
        Refusal::Machine {
            ours: MachineName::new("test").unwrap()
        }
    );
    let unknown = refusal(PROTOCOL_VERSION, greeting()).to_string();
    assert!(unknown.contains("memory: unknown here, 8M at"), "{unknown}");
    wait_for("the refusals to be told", || {
        primary.has_event("refused").then_some(())
    });
    let equal = right_greeting(primary.config());
    // Until its disk is settled it takes nobody.
    let welcome = wait_for("the primary to take a backup", || {
        match ask(&pair, &listen, PROTOCOL_VERSION, equal.clone()) {
            Some(Message::Refuse(Refusal::NotNow(_))) => None,
            answer => Some(answer),
        }
    });
    assert!(
        matches!(welcome, Some(Message::Welcome { .. })),
        "an equal one is welcome: {welcome:?}"
    );
    primary.await_state("alone");
}

/// A message that makes no sense before the greeting ends the connection, not the primary.
#[test]
fn a_primary_hangs_up_on_a_backup_that_does_not_greet() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let lies = [
        Message::Ack {
            pairing: u64::MAX,
            record: RecordNumber(u64::MAX),
            executed: InstructionCount(u64::MAX),
            echo: u64::MAX,
            durable: InstructionCount(u64::MAX),
        },
        Message::Ready { pairing: 1 },
        Message::SnapshotEnd {
            pairing: 1,
            chunks: u64::MAX,
        },
        Message::Fetch {
            pairing: 1,
            run: RunId(17),
        },
        Message::SnapshotTaken {
            pairing: 1,
            record: RecordNumber(u64::MAX),
            count: InstructionCount(u64::MAX),
            visible_outputs: u64::MAX,
            mark: LogMark(u128::MAX),
        },
        Message::Heartbeat {
            pairing: 1,
            record: RecordNumber(u64::MAX),
            released: u64::MAX,
            probe: 1,
        },
    ];
    for lie in lies {
        let mut peer = Peer::connect(&pair, &listen);
        peer.send(&lie);
        // It may hang up at once, or answer that this is no way to begin.
        drop(peer);
    }
    let (_backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
}

/// The arbiter says that the stranger powered the machine on.
fn strangers_life(pair: &PairDirectory) {
    let opened = Entry {
        key: Key::power_on(&greeting().machine, LifeNumber(1)),
        kind: Kind::PowerOn,
        writer: Writer {
            host: stranger(),
            run: RunId(17),
        },
        life: LifeId(1),
        record: RecordNumber(1),
        next: Some(Membership {
            primary: stranger(),
            members: Vec::new(),
            since: Generation(1),
            durability: Durability::Primary,
            origin: Origin {
                host: stranger(),
                life: LifeNumber(0),
                generation: Generation(0),
            },
            journal: None,
        }),
        moved_to: None,
    };
    let path = pair.path().join("arbiter").join(opened.key.object_name());
    std::fs::write(path, opened.content()).unwrap();
}

/// How the stranger says that it stands.
pub fn live() -> Standing {
    Standing {
        machine: greeting().machine,
        host: stranger(),
        stance: Stance::Live,
        life: LifeNumber(1),
        life_id: LifeId(1),
        generation: Generation(1),
        worth: Worth::Fresh,
    }
}

/// A backup, and a primary in the test's hands that has heard its greeting.
struct LyingPrimary {
    pair: PairDirectory,
    backup: ReplicaFiles,
    process: Process,
    listener: TcpListener,
    peer: Peer,
    theirs: Greeting,
}

impl LyingPrimary {
    fn new() -> LyingPrimary {
        let pair = PairDirectory::new(&counting_slowly());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap().to_string();
        let backup = pair.replica("r1", Some(&listen), "");
        strangers_life(&pair);
        let process = Process::start(&["replica", "--config", backup.config()]);
        let mut peer = Peer::accept(&pair.keys(), &listener);
        let theirs = loop {
            match peer.receive() {
                Some(Message::Ask { .. }) => {
                    peer.send(&Message::Standing(live()));
                    peer = Peer::accept(&pair.keys(), &listener);
                }
                Some(Message::Hello { greeting, .. }) => break greeting,
                other => panic!("a backup greets first: {other:?}"),
            }
        };
        LyingPrimary {
            pair,
            backup,
            process,
            listener,
            peer,
            theirs,
        }
    }

    fn welcome(&mut self, greeting: Greeting) {
        self.peer.send(&Message::Welcome {
            greeting,
            life: LifeNumber(1),
            life_id: LifeId(1),
            generation: Generation(1),
            pairing: 1,
            continuation: Continuation::NoMachine,
            needs: None,
            boot: Default::default(),
        });
    }

    /// A welcome; then the backup connects for the snapshot's pieces.
    fn asked_for_pieces(&mut self) -> Peer {
        let mut greeting = self.theirs.clone();
        greeting.host = stranger();
        self.welcome(greeting);
        loop {
            match self.peer.receive() {
                Some(Message::Accept { .. }) => break,
                Some(Message::Ack { .. }) => {}
                other => panic!("a backup first gives up what it has: {other:?}"),
            }
        }
        let taken = Message::SnapshotTaken {
            pairing: 1,
            record: RecordNumber(0),
            count: InstructionCount(5),
            visible_outputs: 0,
            mark: LogMark(0),
        };
        self.peer.send(&taken);
        let mut pieces = Peer::accept(&self.pair.keys(), &self.listener);
        let run = self.theirs.run;
        let asked = pieces.receive();
        assert_eq!(asked, Some(Message::Fetch { pairing: 1, run }));
        pieces.send(&Message::Disks {
            pairing: 1,
            seed: 1,
            lengths: Vec::new(),
        });
        pieces
    }

    /// This as the machine's snapshot, and its end.
    fn send_snapshot(&mut self, part: SnapshotPart, offset: u64, bytes: Vec<u8>) {
        let mut pieces = self.asked_for_pieces();
        let chunk = SnapshotChunk {
            pairing: 1,
            part,
            offset,
            total: 0,
            bytes,
        };
        pieces.send(&Message::Snapshot(chunk));
        let end = Message::SnapshotEnd {
            pairing: 1,
            chunks: 1,
        };
        pieces.send(&end);
    }

    /// The backup ends with this status, one line of these words, and leaves no socket behind.
    fn assert_ended(mut self, status: i32, words: &[&str]) {
        let (ended, said) = self.process.end();
        assert_eq!(ended.code(), Some(status), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
        assert!(!self.backup.state.join("control.sock").exists());
    }
}

#[test]
fn a_backup_ends_with_status_5_when_its_primary_is_of_another_kind() {
    type Change = (fn(&mut Greeting), &'static str);
    let changes: [Change; 3] = [
        (
            |greeting| greeting.semantics_version += 1,
            "semantics version: ",
        ),
        (
            |greeting| greeting.configuration = Configuration::new(0).with("memory", "9M"),
            "memory: 8M here, 9M at",
        ),
        (
            |greeting| greeting.machine = other(),
            "another machine, \"other\"",
        ),
    ];
    for (change, word) in changes {
        let mut primary = LyingPrimary::new();
        let mut greeting = primary.theirs.clone();
        greeting.host = stranger();
        change(&mut greeting);
        primary.welcome(greeting);
        primary.assert_ended(5, &[word]);
    }
}

#[test]
fn a_backup_that_is_refused_for_good_ends_with_status_5() {
    for (refusal, word) in [
        (Refusal::ProtocolVersion { ours: 99 }, "protocol version 99"),
        (
            Refusal::Differs {
                host: "hosta".into(),
                differences: vec![Difference {
                    key: "memory".into(),
                    here: Some("8M".into()),
                    there: Some("1G".into()),
                }],
            },
            "memory: 8M here, 1G at hosta",
        ),
        (
            Refusal::Machine {
                ours: MachineName::new("other").unwrap(),
            },
            "\"other\"",
        ),
    ] {
        let mut primary = LyingPrimary::new();
        primary.peer.send(&Message::Refuse(refusal));
        primary.assert_ended(5, &[word]);
    }
}

#[test]
fn a_snapshot_that_is_none_is_not_taken_over() {
    let cases: [(SnapshotPart, u64, Vec<u8>); 5] = [
        (SnapshotPart::Machine, 0, b"nothing of the kind".to_vec()),
        (
            SnapshotPart::Machine,
            0,
            [&b"USNAPSHT\x01\0\0\0\x01\0\0\0"[..], &[0xff; 64]].concat(),
        ),
        (SnapshotPart::Machine, 1 << 40, vec![1; 1000]),
        (SnapshotPart::Disk(0), 0, vec![1; 1000]),
        (SnapshotPart::Disk(255), 1 << 40, vec![1; 1000]),
    ];
    for (part, offset, bytes) in cases {
        let mut primary = LyingPrimary::new();
        primary.send_snapshot(part, offset, bytes);
        primary.assert_ended(1, &["cannot be taken over", "snapshot"]);
    }
}

/// A primary that hangs up, or sends what is no message, is one that may come back.
#[test]
fn a_backup_whose_primary_talks_garbage_tries_again() {
    let pair = PairDirectory::new(&counting_slowly());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    let backup = pair.replica("r1", Some(&listen), "");
    strangers_life(&pair);
    let mut process = Process::start(&["replica", "--config", backup.config()]);
    for attempt in 0..4 {
        let (mut stream, _) = listener.accept().unwrap();
        let garbage: &[u8] = if attempt % 2 == 0 {
            b"HTTP/1.1 400 Bad Request\r\n\r\n"
        } else {
            &[0xff; 99]
        };
        let _sent = stream.write_all(garbage);
    }
    assert_eq!(backup.status().unwrap()["role"], "waiting");
    process.signal(rustix::process::Signal::TERM);
    let (status, said) = process.end();
    assert_eq!(status.code(), Some(11), "{said}");
}

/// The connection for the pieces ends, carries another pairing's, or what is no message: nothing of it is
/// used, and the backup tries again.
#[test]
fn a_snapshot_that_does_not_come_whole_is_fetched_again() {
    let chunk = |pairing| {
        Message::Snapshot(SnapshotChunk {
            pairing,
            part: SnapshotPart::Machine,
            offset: 0,
            total: 0,
            bytes: b"USNAPSHT".to_vec(),
        })
    };
    let end = Message::SnapshotEnd {
        pairing: 1,
        chunks: 2,
    };
    let compared = Message::Alike {
        pairing: 2,
        device: 0,
        end: 4096,
    };
    let cases: [&[Message]; 5] = [&[], &[chunk(1)], &[chunk(2)], &[chunk(1), end], &[compared]];
    for messages in cases {
        let mut primary = LyingPrimary::new();
        let mut pieces = primary.asked_for_pieces();
        messages.iter().for_each(|message| pieces.send(message));
        let socket = pieces.stream.socket();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        wait_for("the backup to give it up", || {
            primary.backup.has_event("fetch_failed").then_some(())
        });
        primary.process.signal(rustix::process::Signal::TERM);
        let (status, said) = primary.process.end();
        assert_eq!(status.code(), Some(11), "{said}");
    }
}
