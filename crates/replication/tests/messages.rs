//! `docs/protocol.md`, "Messages": encoding, and what garbage does.

use proptest::prelude::*;
use replication::blocks::BlockDigest;
use replication::capacity::{HostFacts, Needs, Shortfall};
use replication::configuration::{Build, Configuration, Difference, MAX_KEYS};
use replication::life_log::{LogMark, Place};
use replication::links::{LinkId, MAX_LINKS};
use replication::marker::{DiskState, Marker, Role, Worth};
use replication::message::{
    Busy, Button, Continuation, DiskBlocks, DivergenceReport, Fetched, Greeting, LifeId,
    MAX_DIFFERENCES, MAX_GREETING_BYTES, Message, MessageReader, MessageWriter,
    OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, Parting, Refusal, SnapshotChunk, SnapshotPart,
    Standpoint, tells_boot, tells_facts,
};
use replication::record::{InstructionCount, Record, RecordBody};
use replication::startup::{Stance, Standing};
use replication::succession::{
    ArrivalId, Destination, Generation, Host, HostId, LifeNumber, MachineName, RecordNumber, RunId,
};
use replication::watch::Agreement;

fn greeting() -> impl Strategy<Value = Greeting> {
    let build = "\\PC{0,60}";
    (
        build,
        any::<u32>(),
        configuration(),
        machine(),
        host(),
        any::<u128>(),
        any::<u16>(),
    )
        .prop_map(
            |(build, semantics_version, configuration, machine, host, run, listen_port)| Greeting {
                build: Build::new(&build),
                semantics_version,
                configuration,
                machine,
                host,
                run: RunId(run),
                listen_port,
            },
        )
}

/// A version that is understood.
fn spoken() -> impl Strategy<Value = u32> {
    OLDEST_PROTOCOL_VERSION..=PROTOCOL_VERSION
}

fn facts() -> impl Strategy<Value = HostFacts> {
    any::<(u64, u32, u64)>().prop_map(|(memory, cores, speed)| HostFacts {
        memory,
        cores,
        speed,
    })
}

fn needs() -> impl Strategy<Value = Option<Needs>> {
    proptest::option::of(any::<(u64, u64)>().prop_map(|(memory, speed)| Needs { memory, speed }))
}

/// What a machine would be booted from: with a hash that means nothing, and nothing without a key.
fn boot() -> impl Strategy<Value = Configuration> {
    let values = proptest::collection::btree_map("[a-z_]{1,32}", "\\PC{0,90}", 0..=6usize);
    values.prop_map(|values| {
        let none = Configuration::default();
        let with = |told: Configuration, (key, value): (&String, &String)| told.with(key, value);
        values.iter().fold(none, with)
    })
}

fn busy() -> impl Strategy<Value = Busy> {
    prop::sample::select(vec![
        Busy::Untold,
        Busy::Joins,
        Busy::Ends,
        Busy::HandsOver,
        Busy::Differs,
        Busy::LosesMember,
        Busy::Moves,
        Busy::AsksArbiter,
        Busy::Settles,
        Busy::WritesSnapshot,
        Busy::Before,
    ])
}

fn shortfall() -> impl Strategy<Value = Shortfall> {
    any::<(u64, u64)>().prop_map(|(needed, there)| Shortfall { needed, there })
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let values = proptest::collection::btree_map("[a-z_]{1,32}", "\\PC{0,90}", 0..=MAX_KEYS);
    (values, any::<u64>()).prop_map(|(values, rest)| {
        let empty = Configuration::new(rest);
        values
            .iter()
            .fold(empty, |told, (key, value)| told.with(key, value))
    })
}

fn difference() -> impl Strategy<Value = Difference> {
    let side = || proptest::option::of("[ -~]{0,64}");
    ("[ -~]{0,32}", side(), side()).prop_map(|(key, here, there)| Difference { key, here, there })
}

fn machine() -> impl Strategy<Value = MachineName> {
    "[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}".prop_map(|name| MachineName::new(&name).unwrap())
}

fn host() -> impl Strategy<Value = Host> {
    (any::<u128>(), "\\PC{0,60}").prop_map(|(id, node)| Host::new(HostId(id), &node))
}

fn agreement() -> impl Strategy<Value = Agreement> {
    prop::sample::select(vec![
        Agreement::Unknown,
        Agreement::Agreed,
        Agreement::Differs,
        Agreement::Unreachable,
    ])
}

fn standing() -> impl Strategy<Value = Standing> {
    let stance = prop::sample::select(vec![
        Stance::NoMachine,
        Stance::Joining,
        Stance::Following,
        Stance::Claiming,
        Stance::Recovering { percent: 40 },
        Stance::Live,
    ]);
    let numbers = any::<(u64, u128, u64)>();
    (machine(), host(), stance, numbers, 0..3u8, "\\PC{0,60}").prop_map(
        |(machine, host, stance, (life, life_id, generation), kind, why)| {
            let worth = match kind {
                0 => Worth::Fresh,
                1 => Worth::Nothing(why),
                _ => Worth::Known(Marker {
                    machine: machine.clone(),
                    life: LifeNumber(life.max(1)),
                    life_id: LifeId(life_id),
                    generation: Generation(generation),
                    role: Role::Member,
                    record: RecordNumber(generation),
                    disk: DiskState::Whole,
                }),
            };
            Standing {
                machine,
                host,
                stance,
                life: LifeNumber(life),
                life_id: LifeId(life_id),
                generation: Generation(generation),
                worth,
            }
        },
    )
}

fn standpoint() -> impl Strategy<Value = Option<Standpoint>> {
    let place = (any::<u128>(), any::<u64>(), any::<u64>(), any::<u128>());
    proptest::option::of(place.prop_map(|(life_id, record, count, mark)| Standpoint {
        life_id: LifeId(life_id),
        place: Place {
            record: RecordNumber(record),
            count: InstructionCount(count),
            mark: LogMark(mark),
        },
    }))
}

fn continuation() -> impl Strategy<Value = Continuation> {
    prop_oneof![
        Just(Continuation::NoMachine),
        Just(Continuation::Continues),
        Just(Continuation::Forgotten),
        Just(Continuation::Differs),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let n = any::<u64>;
    let bytes = || proptest::collection::vec(any::<u8>(), 0..100);
    let refusal = prop_oneof![
        busy().prop_map(Refusal::NotNow),
        any::<u32>().prop_map(|ours| Refusal::ProtocolVersion { ours }),
        (
            "\\PC{0,60}",
            proptest::collection::vec(difference(), 0..=MAX_DIFFERENCES)
        )
            .prop_map(|(host, differences)| Refusal::Differs { host, differences }),
        machine().prop_map(|ours| Refusal::Machine { ours }),
        Just(Refusal::SameHost),
        "\\PC{0,60}".prop_map(|name| Refusal::SameName { name }),
        "\\PC{0,60}".prop_map(|name| Refusal::NameInUse { name }),
        Just(Refusal::Lagged),
        Just(Refusal::NotNeeded),
        shortfall().prop_map(Refusal::NoRoom),
        shortfall().prop_map(Refusal::TooSlow),
    ];
    let part = prop_oneof![
        Just(SnapshotPart::Machine),
        any::<u8>().prop_map(SnapshotPart::Disk)
    ];
    let digest = prop_oneof![
        Just(BlockDigest::ZEROS),
        any::<u128>().prop_map(BlockDigest)
    ];
    let body = prop_oneof![
        bytes().prop_map(RecordBody::Input),
        n().prop_map(|visible_outputs| RecordBody::Marker { visible_outputs }),
        any::<u128>().prop_map(RecordBody::Digest),
        bytes().prop_map(RecordBody::Piece),
        bytes().prop_map(RecordBody::Checkpoint),
        any::<u128>().prop_map(RecordBody::Written),
    ];
    let records = proptest::collection::vec((0..1u64 << 50, body), 1..20).prop_map(|steps| {
        let mut count = 0;
        let add = |(step, body)| {
            count += step;
            Record {
                count: InstructionCount(count),
                body,
            }
        };
        steps.into_iter().map(add).collect::<Vec<_>>()
    });
    prop_oneof![
        (
            spoken(),
            greeting(),
            any::<bool>(),
            standpoint(),
            (facts(), boot())
        )
            .prop_map(|(protocol, greeting, is_spare, stands_at, (facts, boot))| {
                Message::Hello {
                    protocol,
                    greeting,
                    is_spare,
                    stands_at,
                    facts: if tells_facts(protocol) {
                        facts
                    } else {
                        HostFacts::default()
                    },
                    boot: if tells_boot(protocol) {
                        boot
                    } else {
                        Configuration::default()
                    },
                }
            }),
        (PROTOCOL_VERSION + 1..).prop_map(|protocol| Message::Foreign { protocol }),
        (0..OLDEST_PROTOCOL_VERSION).prop_map(|protocol| Message::Foreign { protocol }),
        (
            greeting(),
            any::<u128>(),
            any::<[u64; 3]>(),
            continuation(),
            (needs(), boot())
        )
            .prop_map(
                |(greeting, life_id, [life, generation, pairing], continuation, (needs, boot))| {
                    Message::Welcome {
                        greeting,
                        life: LifeNumber(life),
                        life_id: LifeId(life_id),
                        generation: Generation(generation),
                        pairing,
                        continuation,
                        needs,
                        boot: if needs.is_some() {
                            boot
                        } else {
                            Configuration::default()
                        },
                    }
                }
            ),
        (n(), bytes()).prop_map(|(pairing, key)| Message::Generation { pairing, key }),
        n().prop_map(|pairing| Message::Accept { pairing }),
        (n(), bytes()).prop_map(|(pairing, key)| Message::Joined { pairing, key }),
        n().prop_map(|pairing| Message::Confirmed { pairing }),
        any::<u128>().prop_map(|token| Message::Links { token }),
        Just(Message::Packed),
        n().prop_map(|pairing| Message::DisksFirst { pairing }),
        (any::<u128>(), 0..MAX_LINKS as u8).prop_map(|(token, link)| Message::Link {
            token,
            link: LinkId(link)
        }),
        (n(), n(), n()).prop_map(|(pairing, record, released)| Message::Handover {
            pairing,
            record: RecordNumber(record),
            released
        }),
        n().prop_map(|pairing| Message::TakenOver { pairing }),
        (n(), any::<u128>(), agreement()).prop_map(|(pairing, nonce, agreement)| {
            Message::Challenge {
                pairing,
                nonce,
                agreement,
            }
        }),
        (n(), any::<u128>()).prop_map(|(pairing, nonce)| Message::Challenged { pairing, nonce }),
        (n(), any::<(u128, u128)>(), "[ -~]{1,300}").prop_map(|(pairing, numbers, address)| {
            let arrival = ArrivalId(numbers.0);
            let to = Destination { address, arrival };
            let nonce = numbers.1;
            Message::MoveTo { pairing, to, nonce }
        }),
        (n(), any::<u128>(), ".{0,200}").prop_map(|(pairing, nonce, trouble)| Message::Sees {
            pairing,
            nonce,
            trouble
        }),
        (spoken(), greeting()).prop_map(|(protocol, greeting)| Message::Ask { protocol, greeting }),
        standing().prop_map(Message::Standing),
        refusal.prop_map(Message::Refuse),
        (n(), part, 0..1u64 << 60, n(), bytes()).prop_map(
            |(pairing, part, offset, total, bytes)| {
                Message::Snapshot(SnapshotChunk {
                    pairing,
                    part,
                    offset,
                    total,
                    bytes,
                })
            }
        ),
        (n(), n()).prop_map(|(pairing, chunks)| Message::SnapshotEnd { pairing, chunks }),
        n().prop_map(|pairing| Message::SnapshotRound { pairing }),
        (n(), n(), proptest::collection::vec(n(), 0..9)).prop_map(|(pairing, seed, lengths)| {
            Message::Disks {
                pairing,
                seed,
                lengths,
            }
        }),
        (
            n(),
            any::<u8>(),
            n(),
            proptest::collection::vec(digest, 0..40)
        )
            .prop_map(|(pairing, device, offset, digests)| {
                Message::Blocks(DiskBlocks {
                    pairing,
                    device,
                    offset,
                    digests,
                })
            }),
        (n(), any::<u8>(), 0..1u64 << 60, 0..1u64 << 60).prop_map(
            |(pairing, device, offset, length)| Message::Zeros {
                pairing,
                device,
                offset,
                length,
            }
        ),
        (n(), any::<u8>(), n()).prop_map(|(pairing, device, end)| Message::Alike {
            pairing,
            device,
            end,
        }),
        (n(), n(), n(), n(), any::<u128>()).prop_map(
            |(pairing, record, count, visible_outputs, mark)| Message::SnapshotTaken {
                pairing,
                record: RecordNumber(record),
                count: InstructionCount(count),
                visible_outputs,
                mark: LogMark(mark),
            }
        ),
        (n(), any::<u128>()).prop_map(|(pairing, run)| Message::Fetch {
            pairing,
            run: RunId(run)
        }),
        n().prop_map(|pairing| Message::Ready { pairing }),
        (n(), n()).prop_map(|(pairing, request)| Message::SwitchOver { pairing, request }),
        (n(), 0..4usize, n()).prop_map(|(pairing, button, request)| Message::Press {
            pairing,
            button: [Button::Power, Button::Reset, Button::Pause, Button::Resume][button],
            request,
        }),
        (n(), n(), any::<bool>(), "\\PC{0,60}").prop_map(|(pairing, request, done, text)| {
            Message::Answer {
                pairing,
                request,
                done,
                text,
            }
        }),
        (n(), n(), n()).prop_map(|(pairing, done, total)| Message::Restoring {
            pairing,
            done,
            total
        }),
        (n(), n(), n(), n()).prop_map(|(pairing, record, released, record_interval_ms)| {
            Message::Begin {
                pairing,
                record: RecordNumber(record),
                released,
                record_interval_ms,
            }
        }),
        (n(), 0..1u64 << 60, any::<bool>(), n(), records).prop_map(
            |(pairing, first_record, urgent, released, records)| Message::Records {
                pairing,
                first_record: RecordNumber(first_record),
                urgent,
                released,
                records
            }
        ),
        (n(), n(), n(), n()).prop_map(|(pairing, record, released, probe)| {
            Message::Heartbeat {
                pairing,
                record: RecordNumber(record),
                released,
                probe,
            }
        }),
        (n(), n(), n(), n(), n()).prop_map(|(pairing, record, executed, echo, durable)| {
            Message::Ack {
                pairing,
                record: RecordNumber(record),
                executed: InstructionCount(executed),
                echo,
                durable: InstructionCount(durable),
            }
        }),
        (n(), n()).prop_map(|(pairing, record)| Message::Compare {
            pairing,
            record: RecordNumber(record),
        }),
        (n(), n()).prop_map(|(pairing, record)| Message::Compared {
            pairing,
            record: RecordNumber(record),
        }),
        n().prop_map(|pairing| Message::Majority { pairing }),
        (n(), n(), n(), any::<u128>(), "\\PC{0,60}").prop_map(
            |(pairing, record, count, digest, what)| {
                Message::Diverged {
                    pairing,
                    report: DivergenceReport {
                        record: RecordNumber(record),
                        count: InstructionCount(count),
                        digest,
                        what,
                    },
                }
            }
        ),
        (
            n(),
            prop_oneof![
                Just(Parting::Finished),
                Just(Parting::Leaving),
                Just(Parting::DiskFailed),
                Just(Parting::LetGo),
                Just(Parting::Suspected)
            ]
        )
            .prop_map(|(pairing, parting)| Message::Goodbye { pairing, parting }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_arrive_as_they_were_sent(
        messages in proptest::collection::vec(message(), 1..10), piece in 1..100usize,
    ) {
        let mut writer = MessageWriter::default();
        let mut reader = MessageReader::new();
        let mut bytes = Vec::new();
        for message in &messages {
            writer.write(&mut bytes, message);
        }
        let mut arrived = Vec::new();
        for piece in bytes.chunks(piece) {
            reader.push(piece);
            while let Some(message) = reader.next_message().unwrap() {
                arrived.push(message);
            }
        }
        prop_assert_eq!(arrived, messages);
    }

    #[test]
    fn a_flipped_bit_ends_the_connection_or_waits_for_more(
        messages in proptest::collection::vec(message(), 1..6), bit in any::<prop::sample::Index>(),
    ) {
        let mut writer = MessageWriter::default();
        let mut bytes = Vec::new();
        for message in &messages {
            writer.write(&mut bytes, message);
        }
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut reader = MessageReader::new();
        reader.push(&bytes);
        let mut arrived = Vec::new();
        while let Ok(Some(message)) = reader.next_message() {
            arrived.push(message);
        }
        prop_assert!(arrived.len() < messages.len());
        prop_assert!(messages.starts_with(&arrived));
    }

    #[test]
    fn garbage_never_becomes_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let mut reader = MessageReader::new();
        reader.push(&bytes);
        prop_assert!(!matches!(reader.next_message(), Ok(Some(_))));
    }

    #[test]
    fn payloads_of_garbage_are_errors_not_panics(
        kind in 1..=255u8, payload in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = Vec::new();
        replication::frame::FrameWriter::default().write(&mut bytes, kind, &payload);
        let mut reader = MessageReader::new();
        reader.push(&bytes);
        // Whatever it is taken for, it is encoded to the very same bytes again; of another version's
        // greeting nothing is understood but that.
        if let Ok(Some(message)) = reader.next_message()
            && !matches!(message, Message::Foreign { .. })
        {
            let mut again = Vec::new();
            MessageWriter::default().write(&mut again, &message);
            prop_assert_eq!(again, bytes);
        }
    }
}

/// The connection for a snapshot's pieces: what is written without a copy is what is written with one,
/// and is read so in pieces of any size.
#[test]
fn a_piece_is_the_same_with_and_without_a_copy() {
    let chunk = SnapshotChunk {
        pairing: 3,
        part: SnapshotPart::Disk(2),
        offset: 1 << 33,
        total: 1 << 34,
        bytes: (0..100_000u32).map(|n| (n % 251) as u8).collect(),
    };
    let end = Message::SnapshotEnd {
        pairing: 3,
        chunks: 2,
    };
    let (mut copied, mut bytes) = (Vec::new(), Vec::new());
    let (mut first, mut second) = (MessageWriter::default(), MessageWriter::default());
    for _ in 0..2 {
        first.write(&mut copied, &Message::Snapshot(chunk.clone()));
        second.write_snapshot_head(&mut bytes, &chunk);
        bytes.extend_from_slice(&chunk.bytes);
    }
    first.write(&mut copied, &end);
    second.write(&mut bytes, &end);
    assert!(copied == bytes);
    for size in [1, 7, 4_096, 70_000, bytes.len()] {
        let mut reader = MessageReader::of_snapshot();
        let mut fetched = 0;
        let mut ended = false;
        for piece in bytes.chunks(size) {
            reader.room(piece.len())[..piece.len()].copy_from_slice(piece);
            reader.filled(piece.len());
            while let Some(next) = reader.next_fetched().unwrap() {
                match next {
                    Fetched::Chunk { offset, bytes, .. } => {
                        assert!(offset == chunk.offset && bytes == chunk.bytes);
                        fetched += 1;
                    }
                    Fetched::End { pairing, chunks } => {
                        assert_eq!((pairing, chunks, fetched), (3, 2, 2));
                        ended = true;
                    }
                    _ => panic!("nothing else was sent"),
                }
            }
        }
        assert!(ended, "in pieces of {size}");
    }
}

/// What is said before anybody is known fits in what is held for strangers, at its longest.
#[test]
fn the_longest_greeting_and_refusal_fit() {
    let long = "x".repeat(900);
    let key = |number: usize| format!("{number:0>32}");
    let configuration = (0..MAX_KEYS).fold(Configuration::new(u64::MAX), |told, number| {
        told.with(&key(number), &long)
    });
    let greeting = Greeting {
        build: Build::new(&long),
        semantics_version: u32::MAX,
        configuration,
        machine: MachineName::new(&long[..64]).unwrap(),
        host: Host::new(HostId(u128::MAX), &long[..255]),
        run: RunId(u128::MAX),
        listen_port: u16::MAX,
    };
    let place = Place {
        record: RecordNumber(u64::MAX),
        count: InstructionCount(u64::MAX),
        mark: LogMark(u128::MAX),
    };
    let standpoint = Standpoint {
        life_id: LifeId(u128::MAX),
        place,
    };
    let side = || Some(long[..64].to_owned());
    let difference = |number| Difference {
        key: key(number),
        here: side(),
        there: side(),
    };
    let refusal = Refusal::Differs {
        host: long[..255].to_owned(),
        differences: (0..MAX_DIFFERENCES).map(difference).collect(),
    };
    for message in [
        Message::Hello {
            protocol: PROTOCOL_VERSION,
            greeting,
            is_spare: false,
            stands_at: Some(standpoint),
            facts: HostFacts {
                memory: u64::MAX,
                cores: u32::MAX,
                speed: u64::MAX,
            },
            boot: (0..6).fold(Configuration::default(), |told, number| {
                told.with(&key(number), &long[..64])
            }),
        },
        Message::Refuse(refusal),
    ] {
        let mut bytes = Vec::new();
        MessageWriter::default().write(&mut bytes, &message);
        assert!(bytes.len() < MAX_GREETING_BYTES, "{} bytes", bytes.len());
        let mut reader = MessageReader::new();
        reader.push(&bytes);
        assert_eq!(reader.next_message().unwrap(), Some(message));
    }
}

/// The first thing that is said is understood for as long as there are versions: which one it is.
#[test]
fn a_greeting_of_another_version_is_known_for_one() {
    let (before, after) = (OLDEST_PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1);
    for (kind, version) in [(1, before), (20, before), (1, after), (20, 1000)] {
        let mut payload = Vec::new();
        replication::wire::put_varint(&mut payload, version.into());
        payload.extend([0xa5; 99]);
        let mut bytes = Vec::new();
        replication::frame::FrameWriter::default().write(&mut bytes, kind, &payload);
        let mut reader = MessageReader::new();
        reader.push(&bytes);
        let protocol = version;
        let message = reader.next_message().unwrap();
        assert_eq!(message, Some(Message::Foreign { protocol }));
    }
}

#[test]
fn a_flood_before_the_greeting_is_refused() {
    let mut bytes = Vec::new();
    let chunk = SnapshotChunk {
        pairing: 1,
        part: SnapshotPart::Machine,
        offset: 0,
        total: 0,
        bytes: vec![0; 1 << 20],
    };
    MessageWriter::default().write(&mut bytes, &Message::Snapshot(chunk));
    let mut reader = MessageReader::new();
    reader.push(&bytes[..20]);
    assert!(reader.next_message().is_err());
}

#[test]
fn what_an_idle_pair_sends_is_small() {
    let size = |message: Message| {
        let mut bytes = Vec::new();
        MessageWriter::default().write(&mut bytes, &message);
        bytes.len()
    };
    // Half a day at 300 million instructions a second.
    let count = 43_200 * 300_000_000;
    let clock = Record {
        count: InstructionCount(count),
        body: RecordBody::Input(vec![4; 14]),
    };
    let records = size(Message::Records {
        pairing: 3,
        first_record: RecordNumber(500_000),
        urgent: false,
        released: 1_000_000,
        records: vec![clock],
    });
    let ack = size(Message::Ack {
        pairing: 3,
        record: RecordNumber(500_000),
        executed: InstructionCount(count),
        echo: 2,
        durable: InstructionCount(0),
    });
    // Twenty of each a second are the most that an idle pair needs: under 10 kbit/s.
    assert!(
        (records + ack) * 20 * 8 < 10_000,
        "{records} and {ack} bytes"
    );
}

/// A program of protocol 9 or 10 writes and reads these very bytes: one that speaks it does, too.
#[test]
fn the_greetings_of_older_protocols_are_what_they_were() {
    let greeting = Greeting {
        build: Build::new("0.1.0"),
        semantics_version: 8,
        configuration: Configuration::new(7).with("memory", "8M"),
        machine: MachineName::new("vm").unwrap(),
        host: Host::new(HostId(5), "a"),
        run: RunId(6),
        listen_port: 7400,
    };
    let number = |number: u128| number.to_le_bytes().to_vec();
    let spelt = [
        b"\x050.1.0\x08".to_vec(),
        b"\x01\x06memory\x028M\x07\0\0\0\0\0\0\0\x02vm".to_vec(),
        [number(5), b"\x01a".to_vec(), number(6)].concat(),
        7400_u16.to_le_bytes().to_vec(),
    ]
    .concat();
    let hello = |protocol, facts| Message::Hello {
        protocol,
        greeting: greeting.clone(),
        is_spare: true,
        stands_at: None,
        facts,
        boot: Configuration::default(),
    };
    let welcome = |needs| Message::Welcome {
        greeting: greeting.clone(),
        life: LifeNumber(1),
        life_id: LifeId(4),
        generation: Generation(2),
        pairing: 3,
        continuation: Continuation::NoMachine,
        needs,
        boot: Configuration::default(),
    };
    let facts = HostFacts {
        memory: 5,
        cores: 6,
        speed: 7,
    };
    let needs = Needs {
        memory: 8,
        speed: 9,
    };
    let spelt_welcome = [spelt.clone(), number(4), vec![1, 2, 3, 0]].concat();
    for (message, kind, payload) in [
        (
            hello(9, HostFacts::default()),
            1,
            [vec![9], spelt.clone(), vec![1]].concat(),
        ),
        (
            hello(10, facts),
            1,
            [vec![10], spelt, vec![1, 5, 6, 7]].concat(),
        ),
        (welcome(None), 2, spelt_welcome.clone()),
        (
            welcome(Some(needs)),
            2,
            [spelt_welcome, vec![8, 9]].concat(),
        ),
        (Message::Refuse(Refusal::NotNow(Busy::Untold)), 3, vec![0]),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        MessageWriter::default().write(&mut ours, &message);
        replication::frame::FrameWriter::default().write(&mut theirs, kind, &payload);
        assert_eq!(ours, theirs);
        let mut reader = MessageReader::new();
        reader.push(&theirs);
        assert_eq!(reader.next_message().unwrap(), Some(message));
    }
}
