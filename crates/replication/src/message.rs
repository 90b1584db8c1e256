//! The messages of the logging channel and their encoding. `docs/protocol.md`, "Messages".

use crate::frame::{FrameError, FrameReader, FrameWriter};
use crate::record::{Record, decode_batch, encode_batch};
use crate::wire::{Fields, WireError, put_bytes, put_varint};
use std::fmt;

/// The version of this protocol; both sides must speak the same.
pub const PROTOCOL_VERSION: u32 = 2;
/// The longest payload of a frame on the channel once the greetings are over: 9 MiB.
pub const MAX_MESSAGE_BYTES: usize = 9 << 20;
/// The longest payload before: whoever has not greeted makes nobody hold more.
pub const MAX_GREETING_BYTES: usize = 4096;
/// The most bytes in a [`SnapshotChunk`].
pub const MAX_CHUNK_BYTES: usize = 1 << 20;
/// The longest name of a machine or node, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Identifies one life of a virtual machine, from power-on to its end: random, chosen once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LifeId(pub u128);

impl fmt::Display for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What each side says about itself first; two replicas pair only when the first three are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The machine's semantics version.
    pub semantics_version: u32,
    /// Hash of the machine's configuration: board, memory, devices, images.
    pub configuration_hash: u64,
    /// The virtual machine's name, at most [`MAX_NAME_BYTES`].
    pub vm: String,
    /// The node's name, for people, at most [`MAX_NAME_BYTES`].
    pub node: String,
    /// Random, new for each start of a process: tells a node from itself before it restarted.
    pub run: u128,
}

/// Why a primary does not take a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has one, or is busy with another, or is asking the arbiter: try again later.
    NotNow,
    /// Another protocol version.
    ProtocolVersion {
        /// What the primary speaks.
        ours: u32,
    },
    /// Another semantics version.
    SemanticsVersion {
        /// What the primary's machine computes.
        ours: u32,
    },
    /// Another machine configuration.
    Configuration {
        /// The primary's hash.
        ours: u64,
    },
    /// Another virtual machine.
    Vm {
        /// The primary's name for it.
        ours: String,
    },
}

impl Refusal {
    /// Whether it makes sense to come again with the same greeting.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Refusal::NotNow)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotNow => write!(f, "the primary cannot take a backup now"),
            Refusal::ProtocolVersion { ours } => {
                write!(
                    f,
                    "the primary speaks protocol version {ours}, we {PROTOCOL_VERSION}"
                )
            }
            Refusal::SemanticsVersion { ours } => {
                write!(
                    f,
                    "the primary's machine has semantics version {ours}: use the same build"
                )
            }
            Refusal::Configuration { ours } => write!(
                f,
                "the primary's machine is configured differently (hash {ours:016x}): \
                 compare memory, harts, devices and images in both configurations"
            ),
            Refusal::Vm { ours } => write!(f, "the primary runs another machine, \"{ours}\""),
        }
    }
}

/// What a piece of a snapshot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SnapshotPart {
    /// The machine's state: opaque here.
    Machine,
    /// The disk of this index.
    Disk(u8),
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The pairing that it is for.
    pub generation: u64,
    /// What it belongs to.
    pub part: SnapshotPart,
    /// Where in that, in bytes. For the machine's state without gaps; a disk may leave out zeros.
    pub offset: u64,
    /// At most [`MAX_CHUNK_BYTES`].
    pub bytes: Vec<u8>,
}

/// Why one side leaves in an orderly way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// The guest ended the machine; all its outputs are out. Nobody claims.
    Finished,
    /// The backup is being stopped. It will not claim.
    Leaving,
    /// The backup's own disk failed: its machine is worth nothing any more, it will not claim.
    DiskFailed,
    /// The primary suspects the backup and is asking the arbiter already. The backup lets it.
    Suspected,
}

/// Where two replicas were found to differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DivergenceReport {
    /// Number of the record at which it was seen.
    pub sequence: u64,
    /// The backup's instruction count there.
    pub count: u64,
    /// In words.
    pub what: String,
}

/// Everything that goes over the logging channel. B: backup to primary, P: primary to backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// B: wants to join. First.
    Hello {
        /// Protocol version.
        protocol: u32,
        /// Who asks.
        greeting: Greeting,
    },
    /// P: may join, as this generation.
    Welcome {
        /// Who answers.
        greeting: Greeting,
        /// The life of the machine.
        life: LifeId,
        /// The pairing that is to be.
        generation: u64,
    },
    /// P: may not join.
    Refuse(Refusal),
    /// P: a piece of the snapshot.
    Snapshot(SnapshotChunk),
    /// P: the snapshot is whole.
    SnapshotEnd {
        /// The pairing.
        generation: u64,
        /// Pieces that were sent.
        chunks: u64,
        /// Instruction count at which it was taken.
        count: u64,
        /// Visible outputs there.
        visible_outputs: u64,
    },
    /// B: holds the snapshot and runs.
    Ready {
        /// The pairing.
        generation: u64,
    },
    /// B: still makes a machine of the snapshot.
    Restoring {
        /// The pairing.
        generation: u64,
        /// Bytes done.
        done: u64,
        /// Bytes to do, as far as is known.
        total: u64,
    },
    /// P: from here on outputs wait for acknowledgements; either side may claim the generation,
    /// and neither may go on alone without it.
    Begin {
        /// The pairing.
        generation: u64,
        /// Number of the last record before it.
        sequence: u64,
        /// Visible outputs released so far.
        released: u64,
        /// There is a record at least this often, even if the guest idles: milliseconds.
        record_interval_ms: u64,
    },
    /// P: records.
    Records {
        /// The pairing.
        generation: u64,
        /// Number of the first.
        first_sequence: u64,
        /// An output waits for the acknowledgement.
        urgent: bool,
        /// Visible outputs released so far.
        released: u64,
        /// At least one.
        records: Vec<Record>,
    },
    /// P: nothing new, still here.
    Heartbeat {
        /// The pairing.
        generation: u64,
        /// Number of the last record sent.
        sequence: u64,
        /// Visible outputs released so far.
        released: u64,
        /// To be sent back in the next [`Message::Ack`], at once if it is new.
        probe: u64,
    },
    /// B: holds every record up to here. Also its heartbeat.
    Ack {
        /// The pairing.
        generation: u64,
        /// Number of the last record held.
        sequence: u64,
        /// Instruction count that its machine has reached.
        executed: u64,
        /// The newest probe seen.
        echo: u64,
    },
    /// P: goes on no further than this; the backup shall take over.
    Handover {
        /// The pairing.
        generation: u64,
        /// Number of the last record.
        sequence: u64,
    },
    /// B: its machine differs; it will not claim this generation.
    Diverged {
        /// The pairing.
        generation: u64,
        /// Where.
        report: DivergenceReport,
    },
    /// Both: the end, in an orderly way; and the answer to it.
    Goodbye {
        /// The pairing.
        generation: u64,
        /// Why.
        parting: Parting,
    },
}

mod kind {
    pub const HELLO: u8 = 1;
    pub const WELCOME: u8 = 2;
    pub const REFUSE: u8 = 3;
    pub const SNAPSHOT: u8 = 4;
    pub const SNAPSHOT_END: u8 = 5;
    pub const READY: u8 = 6;
    pub const BEGIN: u8 = 7;
    pub const RECORDS: u8 = 8;
    pub const HEARTBEAT: u8 = 9;
    pub const ACK: u8 = 10;
    pub const DIVERGED: u8 = 11;
    pub const GOODBYE: u8 = 12;
    pub const HANDOVER: u8 = 16;
    pub const RESTORING: u8 = 22;
}

/// Encodes messages for one direction of one connection.
#[derive(Clone, Debug, Default)]
pub struct MessageWriter {
    frames: FrameWriter,
    payload: Vec<u8>,
}

impl MessageWriter {
    /// Appends `message` to `out`. Every message that a connection carries in this direction must
    /// go through the same writer, in order.
    pub fn write(&mut self, out: &mut Vec<u8>, message: &Message) {
        self.payload.clear();
        let kind = encode(&mut self.payload, message);
        self.frames.write(out, kind, &self.payload);
    }
}

/// Decodes messages of one direction of one connection.
#[derive(Clone, Debug)]
pub struct MessageReader {
    frames: FrameReader,
}

impl Default for MessageReader {
    fn default() -> MessageReader {
        MessageReader::new()
    }
}

impl MessageReader {
    /// For a new connection: accepts [`MAX_GREETING_BYTES`] until the first message was read,
    /// then [`MAX_MESSAGE_BYTES`].
    pub fn new() -> MessageReader {
        MessageReader {
            frames: FrameReader::new(MAX_GREETING_BYTES),
        }
    }

    /// Adds bytes as they came from the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// The next message, or `None` until more bytes come. After an error close the connection.
    pub fn next_message(&mut self) -> Result<Option<Message>, FrameError> {
        let Some(frame) = self.frames.next_frame()? else {
            return Ok(None);
        };
        let message = decode(frame.kind, &frame.payload).map_err(|source| FrameError::Payload {
            offset: frame.offset,
            source,
        })?;
        if matches!(message, Message::Hello { .. } | Message::Welcome { .. }) {
            self.frames.set_limit(MAX_MESSAGE_BYTES);
        }
        Ok(Some(message))
    }
}

fn put_greeting(out: &mut Vec<u8>, greeting: &Greeting) {
    put_varint(out, greeting.semantics_version.into());
    out.extend_from_slice(&greeting.configuration_hash.to_le_bytes());
    put_bytes(out, greeting.vm.as_bytes());
    put_bytes(out, greeting.node.as_bytes());
    out.extend_from_slice(&greeting.run.to_le_bytes());
}

fn get_u32(fields: &mut Fields<'_>, what: &'static str) -> Result<u32, WireError> {
    let value = fields.varint()?;
    u32::try_from(value).map_err(|_| WireError::TooLarge {
        what,
        value,
        limit: u32::MAX.into(),
    })
}

fn get_greeting(fields: &mut Fields<'_>) -> Result<Greeting, WireError> {
    Ok(Greeting {
        semantics_version: get_u32(fields, "the semantics version")?,
        configuration_hash: u64::from_le_bytes(fields.array()?),
        vm: fields.string("the machine's name", MAX_NAME_BYTES)?,
        node: fields.string("the node's name", MAX_NAME_BYTES)?,
        run: u128::from_le_bytes(fields.array()?),
    })
}

fn put_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    match refusal {
        Refusal::NotNow => out.push(0),
        Refusal::ProtocolVersion { ours } => {
            out.push(1);
            put_varint(out, (*ours).into());
        }
        Refusal::SemanticsVersion { ours } => {
            out.push(2);
            put_varint(out, (*ours).into());
        }
        Refusal::Configuration { ours } => {
            out.push(3);
            out.extend_from_slice(&ours.to_le_bytes());
        }
        Refusal::Vm { ours } => {
            out.push(4);
            put_bytes(out, ours.as_bytes());
        }
    }
}

fn get_refusal(fields: &mut Fields<'_>) -> Result<Refusal, WireError> {
    Ok(match fields.byte()? {
        0 => Refusal::NotNow,
        1 => Refusal::ProtocolVersion {
            ours: get_u32(fields, "the protocol version")?,
        },
        2 => Refusal::SemanticsVersion {
            ours: get_u32(fields, "the semantics version")?,
        },
        3 => Refusal::Configuration {
            ours: u64::from_le_bytes(fields.array()?),
        },
        4 => Refusal::Vm {
            ours: fields.string("the machine's name", MAX_NAME_BYTES)?,
        },
        tag => {
            return Err(WireError::UnknownTag {
                what: "refusal",
                tag,
            });
        }
    })
}

/// Appends the payload and says its kind.
fn encode(out: &mut Vec<u8>, message: &Message) -> u8 {
    let numbers = |out: &mut Vec<u8>, numbers: &[u64]| {
        for number in numbers {
            put_varint(out, *number);
        }
    };
    match message {
        Message::Hello { protocol, greeting } => {
            put_varint(out, (*protocol).into());
            put_greeting(out, greeting);
            kind::HELLO
        }
        Message::Welcome {
            greeting,
            life,
            generation,
        } => {
            put_greeting(out, greeting);
            out.extend_from_slice(&life.0.to_le_bytes());
            put_varint(out, *generation);
            kind::WELCOME
        }
        Message::Refuse(refusal) => {
            put_refusal(out, refusal);
            kind::REFUSE
        }
        Message::Snapshot(chunk) => {
            put_varint(out, chunk.generation);
            match chunk.part {
                SnapshotPart::Machine => out.push(0),
                SnapshotPart::Disk(index) => out.extend_from_slice(&[1, index]),
            }
            put_varint(out, chunk.offset);
            assert!(
                chunk.bytes.len() <= MAX_CHUNK_BYTES,
                "a chunk of {}",
                chunk.bytes.len()
            );
            out.extend_from_slice(&chunk.bytes);
            kind::SNAPSHOT
        }
        Message::SnapshotEnd {
            generation,
            chunks,
            count,
            visible_outputs,
        } => {
            numbers(out, &[*generation, *chunks, *count, *visible_outputs]);
            kind::SNAPSHOT_END
        }
        Message::Ready { generation } => {
            numbers(out, &[*generation]);
            kind::READY
        }
        Message::Restoring {
            generation,
            done,
            total,
        } => {
            numbers(out, &[*generation, *done, *total]);
            kind::RESTORING
        }
        Message::Begin {
            generation,
            sequence,
            released,
            record_interval_ms,
        } => {
            numbers(
                out,
                &[*generation, *sequence, *released, *record_interval_ms],
            );
            kind::BEGIN
        }
        Message::Records {
            generation,
            first_sequence,
            urgent,
            released,
            records,
        } => {
            numbers(out, &[*generation, *first_sequence, *released]);
            out.push((*urgent).into());
            encode_batch(out, records);
            kind::RECORDS
        }
        Message::Heartbeat {
            generation,
            sequence,
            released,
            probe,
        } => {
            numbers(out, &[*generation, *sequence, *released, *probe]);
            kind::HEARTBEAT
        }
        Message::Ack {
            generation,
            sequence,
            executed,
            echo,
        } => {
            numbers(out, &[*generation, *sequence, *executed, *echo]);
            kind::ACK
        }
        Message::Handover {
            generation,
            sequence,
        } => {
            numbers(out, &[*generation, *sequence]);
            kind::HANDOVER
        }
        Message::Diverged { generation, report } => {
            numbers(out, &[*generation, report.sequence, report.count]);
            let end = report.what.floor_char_boundary(MAX_GREETING_BYTES / 2);
            put_bytes(out, &report.what.as_bytes()[..end]);
            kind::DIVERGED
        }
        Message::Goodbye {
            generation,
            parting,
        } => {
            numbers(out, &[*generation]);
            out.push(match parting {
                Parting::Finished => 0,
                Parting::Leaving => 1,
                Parting::Suspected => 2,
                Parting::DiskFailed => 3,
            });
            kind::GOODBYE
        }
    }
}

fn decode(kind: u8, payload: &[u8]) -> Result<Message, WireError> {
    let mut f = Fields::new(payload);
    let message = match kind {
        kind::HELLO => {
            let protocol = get_u32(&mut f, "the protocol version")?;
            Message::Hello {
                protocol,
                greeting: get_greeting(&mut f)?,
            }
        }
        kind::WELCOME => Message::Welcome {
            greeting: get_greeting(&mut f)?,
            life: LifeId(u128::from_le_bytes(f.array()?)),
            generation: f.varint()?,
        },
        kind::REFUSE => Message::Refuse(get_refusal(&mut f)?),
        kind::SNAPSHOT => Message::Snapshot(get_chunk(&mut f)?),
        kind::SNAPSHOT_END => Message::SnapshotEnd {
            generation: f.varint()?,
            chunks: f.varint()?,
            count: f.varint()?,
            visible_outputs: f.varint()?,
        },
        kind::READY => Message::Ready {
            generation: f.varint()?,
        },
        kind::RESTORING => Message::Restoring {
            generation: f.varint()?,
            done: f.varint()?,
            total: f.varint()?,
        },
        kind::BEGIN => Message::Begin {
            generation: f.varint()?,
            sequence: f.varint()?,
            released: f.varint()?,
            record_interval_ms: f.varint()?,
        },
        kind::RECORDS => get_records(&mut f)?,
        kind::HEARTBEAT => Message::Heartbeat {
            generation: f.varint()?,
            sequence: f.varint()?,
            released: f.varint()?,
            probe: f.varint()?,
        },
        kind::ACK => Message::Ack {
            generation: f.varint()?,
            sequence: f.varint()?,
            executed: f.varint()?,
            echo: f.varint()?,
        },
        kind::HANDOVER => Message::Handover {
            generation: f.varint()?,
            sequence: f.varint()?,
        },
        kind::DIVERGED => Message::Diverged {
            generation: f.varint()?,
            report: DivergenceReport {
                sequence: f.varint()?,
                count: f.varint()?,
                what: f.string("the divergence", MAX_GREETING_BYTES / 2)?,
            },
        },
        kind::GOODBYE => Message::Goodbye {
            generation: f.varint()?,
            parting: match f.byte()? {
                0 => Parting::Finished,
                1 => Parting::Leaving,
                2 => Parting::Suspected,
                3 => Parting::DiskFailed,
                tag => {
                    return Err(WireError::UnknownTag {
                        what: "parting",
                        tag,
                    });
                }
            },
        },
        tag => {
            return Err(WireError::UnknownTag {
                what: "message",
                tag,
            });
        }
    };
    f.end()?;
    Ok(message)
}

fn get_chunk(f: &mut Fields<'_>) -> Result<SnapshotChunk, WireError> {
    let generation = f.varint()?;
    let part = match f.byte()? {
        0 => SnapshotPart::Machine,
        1 => SnapshotPart::Disk(f.byte()?),
        tag => {
            return Err(WireError::UnknownTag {
                what: "snapshot part",
                tag,
            });
        }
    };
    let offset = f.varint()?;
    let bytes = f.remainder().to_vec();
    if bytes.len() > MAX_CHUNK_BYTES {
        let (value, limit) = (bytes.len() as u64, MAX_CHUNK_BYTES as u64);
        return Err(WireError::TooLarge {
            what: "a snapshot chunk",
            value,
            limit,
        });
    }
    if offset.checked_add(bytes.len() as u64).is_none() {
        return Err(WireError::Overflow);
    }
    Ok(SnapshotChunk {
        generation,
        part,
        offset,
        bytes,
    })
}

fn get_records(f: &mut Fields<'_>) -> Result<Message, WireError> {
    let (generation, first_sequence, released) = (f.varint()?, f.varint()?, f.varint()?);
    let urgent = match f.byte()? {
        0 => false,
        1 => true,
        tag => {
            return Err(WireError::UnknownTag {
                what: "urgency",
                tag,
            });
        }
    };
    let records = decode_batch(f)?;
    if records.is_empty() {
        return Err(WireError::Truncated);
    }
    if first_sequence.checked_add(records.len() as u64).is_none() {
        return Err(WireError::Overflow);
    }
    Ok(Message::Records {
        generation,
        first_sequence,
        urgent,
        released,
        records,
    })
}
