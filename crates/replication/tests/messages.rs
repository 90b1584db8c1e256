//! `docs/protocol.md`, "Messages": encoding, and what garbage does.

use proptest::prelude::*;
use replication::message::{
    DivergenceReport, Greeting, LifeId, Message, MessageReader, MessageWriter, Parting, Refusal,
    SnapshotChunk, SnapshotPart,
};
use replication::record::{Record, RecordBody};

fn greeting() -> impl Strategy<Value = Greeting> {
    (
        any::<u32>(),
        any::<u64>(),
        "\\PC{0,60}",
        "\\PC{0,60}",
        any::<u128>(),
    )
        .prop_map(
            |(semantics_version, configuration_hash, vm, node, run)| Greeting {
                semantics_version,
                configuration_hash,
                vm,
                node,
                run,
            },
        )
}

fn message() -> impl Strategy<Value = Message> {
    let n = any::<u64>;
    let bytes = || proptest::collection::vec(any::<u8>(), 0..100);
    let refusal = prop_oneof![
        Just(Refusal::NotNow),
        any::<u32>().prop_map(|ours| Refusal::ProtocolVersion { ours }),
        any::<u32>().prop_map(|ours| Refusal::SemanticsVersion { ours }),
        n().prop_map(|ours| Refusal::Configuration { ours }),
        "\\PC{0,60}".prop_map(|ours| Refusal::Vm { ours }),
    ];
    let part = prop_oneof![
        Just(SnapshotPart::Machine),
        any::<u8>().prop_map(SnapshotPart::Disk)
    ];
    let body = prop_oneof![
        bytes().prop_map(RecordBody::Input),
        n().prop_map(|visible_outputs| RecordBody::Marker { visible_outputs }),
        any::<u128>().prop_map(RecordBody::Digest),
    ];
    let records = proptest::collection::vec((0..1u64 << 50, body), 1..20).prop_map(|steps| {
        let mut count = 0;
        let add = |(step, body)| {
            count += step;
            Record { count, body }
        };
        steps.into_iter().map(add).collect::<Vec<_>>()
    });
    prop_oneof![
        (any::<u32>(), greeting())
            .prop_map(|(protocol, greeting)| Message::Hello { protocol, greeting }),
        (greeting(), any::<u128>(), n()).prop_map(|(greeting, life, generation)| {
            Message::Welcome {
                greeting,
                life: LifeId(life),
                generation,
            }
        }),
        refusal.prop_map(Message::Refuse),
        (n(), part, 0..1u64 << 60, bytes()).prop_map(|(generation, part, offset, bytes)| {
            Message::Snapshot(SnapshotChunk {
                generation,
                part,
                offset,
                bytes,
            })
        }),
        (n(), n(), n(), n()).prop_map(|(generation, chunks, count, visible_outputs)| {
            Message::SnapshotEnd {
                generation,
                chunks,
                count,
                visible_outputs,
            }
        }),
        n().prop_map(|generation| Message::Ready { generation }),
        (n(), n()).prop_map(|(generation, sequence)| Message::Handover {
            generation,
            sequence
        }),
        (n(), n(), n()).prop_map(|(generation, done, total)| Message::Restoring {
            generation,
            done,
            total
        }),
        (n(), n(), n(), n()).prop_map(|(generation, sequence, released, record_interval_ms)| {
            Message::Begin {
                generation,
                sequence,
                released,
                record_interval_ms,
            }
        }),
        (n(), 0..1u64 << 60, any::<bool>(), n(), records).prop_map(
            |(generation, first_sequence, urgent, released, records)| Message::Records {
                generation,
                first_sequence,
                urgent,
                released,
                records
            }
        ),
        (n(), n(), n(), n()).prop_map(|(generation, sequence, released, probe)| {
            Message::Heartbeat {
                generation,
                sequence,
                released,
                probe,
            }
        }),
        (n(), n(), n(), n()).prop_map(|(generation, sequence, executed, echo)| Message::Ack {
            generation,
            sequence,
            executed,
            echo
        }),
        (n(), n(), n(), "\\PC{0,60}").prop_map(|(generation, sequence, count, what)| {
            Message::Diverged {
                generation,
                report: DivergenceReport {
                    sequence,
                    count,
                    what,
                },
            }
        }),
        (
            n(),
            prop_oneof![
                Just(Parting::Finished),
                Just(Parting::Leaving),
                Just(Parting::DiskFailed),
                Just(Parting::Suspected)
            ]
        )
            .prop_map(|(generation, parting)| Message::Goodbye {
                generation,
                parting
            }),
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
        // Whatever it is taken for, it is encoded to the very same bytes again.
        if let Ok(Some(message)) = reader.next_message() {
            let mut again = Vec::new();
            MessageWriter::default().write(&mut again, &message);
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn a_flood_before_the_greeting_is_refused() {
    let mut bytes = Vec::new();
    let chunk = SnapshotChunk {
        generation: 1,
        part: SnapshotPart::Machine,
        offset: 0,
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
        count,
        body: RecordBody::Input(vec![4; 14]),
    };
    let records = size(Message::Records {
        generation: 3,
        first_sequence: 500_000,
        urgent: false,
        released: 1_000_000,
        records: vec![clock],
    });
    let ack = size(Message::Ack {
        generation: 3,
        sequence: 500_000,
        executed: count,
        echo: 2,
    });
    // Twenty of each a second are the most that an idle pair needs: under 10 kbit/s.
    assert!(
        (records + ack) * 20 * 8 < 10_000,
        "{records} and {ack} bytes"
    );
}
