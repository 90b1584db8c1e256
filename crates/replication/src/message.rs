//! The messages of the logging channel and their encoding. `docs/protocol.md`, "Messages".

mod encoding;
mod refusal;

pub(crate) use encoding::{get_configuration, put_configuration};
use refusal::BUSY;
pub(crate) use refusal::printable;
pub use refusal::{Busy, MAX_DIFFERENCES, Refusal};

use crate::blocks::BlockDigest;
use crate::capacity::{HostFacts, Needs};
use crate::configuration::{Build, Configuration, Difference};
use crate::frame::{FrameError, FrameReader, FrameWriter};
use crate::life_log::{LogMark, Place};
use crate::links::LinkId;
use crate::record::{InstructionCount, Record, RecordNumber};
use crate::startup::Standing;
use crate::succession::{Destination, Generation, Host, LifeNumber, MachineName, RunId};
use crate::watch::Agreement;
use encoding::{decode, decode_fetched, encode, encode_chunk_head};
use std::fmt;

/// The newest version of this protocol that this program speaks.
pub const PROTOCOL_VERSION: u32 = 14;
/// The oldest that it speaks as well, with a host of an older program: what came since is left out then.
pub const OLDEST_PROTOCOL_VERSION: u32 = 9;
/// From this version on a Hello tells what its host has, and a Welcome what the machine needs.
const FACTS_SINCE: u32 = 10;
/// From this version on both tell what a machine would boot from on their hosts, and a refusal for now why.
const BOOT_SINCE: u32 = 11;
/// From this version on a channel may go over several links.
const LINKS_SINCE: u32 = 12;
/// From this version on what is sent may be packed.
const PACKING_SINCE: u32 = 13;
/// From this version on the disks of a copy may come before the machine.
const DISKS_FIRST_SINCE: u32 = 14;
/// The longest payload of a frame on the channel once the greetings are over: 9 MiB.
pub const MAX_MESSAGE_BYTES: usize = 9 << 20;
/// The longest payload before: whoever has not greeted makes nobody hold more.
pub const MAX_GREETING_BYTES: usize = 4096;
/// The most bytes in a [`SnapshotChunk`].
pub const MAX_CHUNK_BYTES: usize = 1 << 20;
/// The nonce of a [`Message::Sees`] that nobody asked for: it is about the backup's own host, and whether that could
/// go on with the machine as its primary. No [`Message::MoveTo`] has it, and a program of before does not look at it.
pub const OF_ITS_HOST: u128 = 0;
/// The request of a [`Message::Answer`] that nobody asked for: why the backup is let go, if it is not because it lagged.
/// No request has this number, and at a program of before nobody waits for it.
pub const OF_PARTING: u64 = 0;
/// The longest text of a [`Message::Answer`], in bytes.
pub const MAX_ANSWER_BYTES: usize = 2048;
/// The longest name of a machine or node, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Whether this program speaks that version.
pub fn speaks(protocol: u32) -> bool {
    (OLDEST_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&protocol)
}

/// Whether hosts tell in this version what they have.
pub fn tells_facts(protocol: u32) -> bool {
    protocol >= FACTS_SINCE
}

/// Whether hosts tell in this version what a machine would boot from, and why nobody is taken now.
pub fn tells_boot(protocol: u32) -> bool {
    protocol >= BOOT_SINCE
}

/// Whether a channel may go over several links in this version.
pub fn carries_links(protocol: u32) -> bool {
    protocol >= LINKS_SINCE
}

/// Whether whoever speaks this version can read what is packed.
pub fn unpacks(protocol: u32) -> bool {
    protocol >= PACKING_SINCE
}

/// Whether whoever speaks this version can be sent a copy's disks before its machine.
pub fn takes_disks_first(protocol: u32) -> bool {
    protocol >= DISKS_FIRST_SINCE
}

/// The versions that this program speaks, for people.
pub fn spoken() -> String {
    format!("{OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}")
}

/// In which version to say again what was said in version `tried`, to whoever answered that the newest it speaks
/// is `theirs`. `None`: there is none that both speak.
pub fn spoken_by_both(tried: u32, theirs: u32) -> Option<u32> {
    let common = theirs.min(PROTOCOL_VERSION);
    (speaks(common) && common != tried).then_some(common)
}

/// Identifies one life of a virtual machine, from power-on to its end: random, chosen once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LifeId(pub u128);

impl fmt::Display for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What each side says about itself first; two replicas pair only when semantics version, configuration
/// and machine are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// What the program was built from, for people.
    pub build: Build,
    /// The machine's semantics version.
    pub semantics_version: u32,
    /// The machine's configuration, as far as both hosts must say the same: board, memory, devices.
    pub configuration: Configuration,
    /// The virtual machine's name.
    pub machine: MachineName,
    /// The host.
    pub host: Host,
    /// New for each start of a process: tells a host from itself before it restarted.
    pub run: RunId,
    /// The port at which this process listens for others, at the address that it calls from; 0: at none.
    pub listen_port: u16,
}

impl Greeting {
    /// Why nothing is said to a peer that calls itself so: two hosts are one, as far as anybody can
    /// tell. `None` for any other peer, and for this process itself.
    pub fn clash(&self, theirs: &Greeting) -> Option<Refusal> {
        let (own, other) = (&self.host, &theirs.host);
        if own.id == other.id {
            return (self.run != theirs.run).then_some(Refusal::SameHost);
        }
        let is_same_name = own.node() == other.node() && !own.node().is_empty();
        is_same_name.then(|| Refusal::SameName {
            name: own.node().to_owned(),
        })
    }

    /// Why a peer that is here does not let another one be here besides: the same name with another
    /// identity, the same identity with another name, or another process of the same.
    pub(crate) fn clash_among_others(&self, theirs: &Greeting) -> Option<Refusal> {
        self.clash(theirs).map(|_| Refusal::NameInUse {
            name: theirs.host.node().to_owned(),
        })
    }

    /// Why the two machines are not the same, if they are not, as this side sees it.
    pub(crate) fn refusal_of_machine(&self, theirs: &Greeting) -> Option<Refusal> {
        if theirs.machine != self.machine {
            return None;
        }
        let mut differences = self.configuration.differences(&theirs.configuration);
        if theirs.semantics_version != self.semantics_version {
            let described = |greeting: &Greeting| {
                Some(format!(
                    "{} ({})",
                    greeting.semantics_version, greeting.build
                ))
            };
            let first = Difference {
                key: refusal::SEMANTICS_VERSION.into(),
                here: described(self),
                there: described(theirs),
            };
            differences.insert(0, first);
        }
        differences.truncate(MAX_DIFFERENCES);
        let host = theirs.host.node().to_owned();
        (!differences.is_empty()).then_some(Refusal::Differs { host, differences })
    }
}

/// Where the machine of somebody stands who was a follower of this life before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standpoint {
    /// The identity of the life.
    pub life_id: LifeId,
    /// The last record that it holds.
    pub place: Place,
}

/// What a primary says to a backup that has a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// It has none: a snapshot is sent.
    NoMachine,
    /// Its log is a prefix of the primary's, which still holds what follows: records are sent from there.
    Continues,
    /// The primary's log does not go back so far: a snapshot is sent.
    Forgotten,
    /// Its log is no prefix of the primary's: a snapshot is sent.
    Differs,
}

impl fmt::Display for Continuation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Continuation::NoMachine => "the backup has no machine: all of it is copied",
            Continuation::Continues => "the backup's machine goes on from where it stands",
            Continuation::Forgotten => {
                "the backup was away for longer than the primary's log remembers: all of its \
                 machine is copied"
            }
            Continuation::Differs => {
                "the backup's machine went another way than the primary's: all of it is copied"
            }
        })
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
    pub pairing: u64,
    /// What it belongs to.
    pub part: SnapshotPart,
    /// Where in that, in bytes. For the machine's state without gaps; of a disk what is equal is left out.
    pub offset: u64,
    /// About how many bytes all parts together have, for whoever wants to know how far it is.
    pub total: u64,
    /// At most [`MAX_CHUNK_BYTES`].
    pub bytes: Vec<u8>,
}

/// Digests of the blocks of a joiner's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskBlocks {
    /// The pairing.
    pub pairing: u64,
    /// Index of the disk.
    pub device: u8,
    /// Where the first block begins, in bytes.
    pub offset: u64,
    /// Of a window at most: see [`crate::blocks::WINDOW_BLOCKS`].
    pub digests: Vec<BlockDigest>,
}

/// Why one side leaves in an orderly way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// The guest ended the machine; all its outputs are out. Nobody claims.
    Finished,
    /// The backup is being stopped. It will not claim.
    Leaving,
    /// The backup's own disk failed: its machine is worth nothing any more. It will not claim.
    DiskFailed,
    /// The primary suspects the backup and is asking the arbiter already. The backup lets it.
    Suspected,
    /// The key is there that drops this backup, for it lagged.
    LetGo,
}

/// Where two replicas were found to differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DivergenceReport {
    /// Number of the record at which it was seen.
    pub record: RecordNumber,
    /// The backup's instruction count there.
    pub count: InstructionCount,
    /// The digest of its machine there: two backups that differ from the primary in the same way are equal.
    pub digest: u128,
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
        /// It is a spare: it wants to join only where members are lacking.
        is_spare: bool,
        /// It has a machine that stands here.
        stands_at: Option<Standpoint>,
        /// What its host has; unknown in protocol 9.
        facts: HostFacts,
        /// What the machine would be booted from there; empty before protocol 11.
        boot: Configuration,
    },
    /// P: may join, as this pairing.
    Welcome {
        /// Who answers.
        greeting: Greeting,
        /// The number of the machine's life.
        life: LifeNumber,
        /// The identity of that life.
        life_id: LifeId,
        /// The generation in which the primary lives: it must be the newest that the arbiter
        /// knows, or the backup's disk may be worth more than the primary's.
        generation: Generation,
        /// The pairing that is to be.
        pairing: u64,
        /// Whether the backup's machine goes on from where it stands, without a snapshot.
        continuation: Continuation,
        /// What the machine needs; not told in protocol 9.
        needs: Option<Needs>,
        /// What it would be booted from on the primary's host; empty before protocol 11.
        boot: Configuration,
    },
    /// B: what is here may be overwritten: send the snapshot.
    Accept {
        /// The pairing.
        pairing: u64,
    },
    /// P: may not join.
    Refuse(Refusal),
    /// P: the snapshot is taken here: the records that follow come after it. Its pieces are fetched on
    /// a connection of their own.
    SnapshotTaken {
        /// The pairing.
        pairing: u64,
        /// Number of the last record before it.
        record: RecordNumber,
        /// Instruction count at which it was taken.
        count: InstructionCount,
        /// Visible outputs there.
        visible_outputs: u64,
        /// Of the log up to there.
        mark: LogMark,
    },
    /// B, first on the connection for the pieces: I am the backup that you told this pairing.
    Fetch {
        /// The pairing.
        pairing: u64,
        /// As in the backup's Hello.
        run: RunId,
    },
    /// B, after Welcome, and then P: what I say on this connection from here on is of [`crate::links`], and so is what
    /// is said on others that name this token. No core sees it.
    Links {
        /// As B has chosen it, at random.
        token: u128,
    },
    /// B, first on a further connection: this is a link of the channel that was told this token. All that follows, in
    /// both directions, is of [`crate::links`].
    Link {
        /// The channel's.
        token: u128,
        /// Which of its links; in place of one of this number that is there.
        link: LinkId,
    },
    /// P, once the machine is a backup's, and first on the connection for a snapshot's pieces: what I say here from now
    /// on comes in chunks, of which some are packed. No core sees it.
    Packed,
    /// P, on that connection, before [`Message::Disks`]: the disks come before the machine, and what changed of them
    /// since by and by.
    DisksFirst {
        /// The pairing.
        pairing: u64,
    },
    /// P, on that connection, first: the disks that belong to the snapshot.
    Disks {
        /// The pairing.
        pairing: u64,
        /// Of the digests of blocks; new for each copy.
        seed: u64,
        /// Bytes of each.
        lengths: Vec<u64>,
    },
    /// P, on that connection: a piece of the snapshot.
    Snapshot(SnapshotChunk),
    /// P, on that connection: the pieces so far hold a round of the machine; another follows. B: they are
    /// where they belong.
    SnapshotRound {
        /// The pairing.
        pairing: u64,
    },
    /// B, on that connection: what its own disk has here. After the machine's last piece, and then after each
    /// [`Message::Alike`].
    Blocks(DiskBlocks),
    /// P, on that connection: zeros belong here.
    Zeros {
        /// The pairing.
        pairing: u64,
        /// Index of the disk.
        device: u8,
        /// Where they begin, in bytes.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// P, on that connection: everything before this that differs was sent, so that the disks are alike.
    Alike {
        /// The pairing.
        pairing: u64,
        /// Index of the disk.
        device: u8,
        /// Where the next blocks begin, in bytes.
        end: u64,
    },
    /// P, on that connection: those were all pieces.
    SnapshotEnd {
        /// The pairing.
        pairing: u64,
        /// Pieces that were sent, zeros too.
        chunks: u64,
    },
    /// B: holds the snapshot and runs.
    Ready {
        /// The pairing.
        pairing: u64,
    },
    /// B: still makes a machine of the snapshot.
    Restoring {
        /// The pairing.
        pairing: u64,
        /// Bytes done.
        done: u64,
        /// Bytes to do, as far as is known.
        total: u64,
    },
    /// P: the key that makes the backup a member is there: this is what it holds.
    Joined {
        /// The pairing.
        pairing: u64,
        /// The key's content.
        key: Vec<u8>,
    },
    /// B: it has read the same at its own arbiter.
    Confirmed {
        /// The pairing.
        pairing: u64,
    },
    /// P: from here on outputs wait for acknowledgements; either side may leave the generation by
    /// its key, and neither may go on alone without it.
    Begin {
        /// The pairing.
        pairing: u64,
        /// Number of the last record before it.
        record: RecordNumber,
        /// Visible outputs released so far.
        released: u64,
        /// There is a record at least this often, even if the guest idles: milliseconds.
        record_interval_ms: u64,
    },
    /// P: records.
    Records {
        /// The pairing.
        pairing: u64,
        /// Number of the first.
        first_record: RecordNumber,
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
        pairing: u64,
        /// Number of the last record sent.
        record: RecordNumber,
        /// Visible outputs released so far.
        released: u64,
        /// To be sent back in the next [`Message::Ack`], at once if it is new.
        probe: u64,
    },
    /// B: holds every record up to here. Also its heartbeat.
    Ack {
        /// The pairing.
        pairing: u64,
        /// Number of the last record held.
        record: RecordNumber,
        /// Instruction count that its machine has reached.
        executed: InstructionCount,
        /// The newest probe seen.
        echo: u64,
        /// Its disk has everything that the guest had written up to this instruction count; 0
        /// until the disk is settled.
        durable: InstructionCount,
    },
    /// P: the generation was left by this key, and the backup is a member of the next one, too.
    Generation {
        /// The pairing.
        pairing: u64,
        /// The key's content.
        key: Vec<u8>,
    },
    /// P: the machine is to move to another arbiter: does the backup see it, with what the primary has
    /// just written there?
    MoveTo {
        /// The pairing.
        pairing: u64,
        /// Which arbiter.
        to: Destination,
        /// What the primary's beacon there holds: never used before.
        nonce: u128,
    },
    /// B: it does, or why it does not. With [`OF_ITS_HOST`] unasked: its host could go on with the machine, or
    /// why it could not.
    Sees {
        /// The pairing.
        pairing: u64,
        /// As in [`Message::MoveTo`], or [`OF_ITS_HOST`].
        nonce: u128,
        /// For people; what is longer than [`MAX_ANSWER_BYTES`] is cut. Empty: it sees it, or could.
        trouble: String,
    },
    /// P: goes on no further than this; the backup shall take over.
    Handover {
        /// The pairing.
        pairing: u64,
        /// Number of the last record.
        record: RecordNumber,
        /// Visible outputs released: all that will ever be. The others are the backup's to say.
        released: u64,
    },
    /// B: has taken over what was handed over.
    TakenOver {
        /// The pairing.
        pairing: u64,
    },
    /// B: let the beacon hold this, to show that both see the same arbiter.
    Challenge {
        /// The pairing.
        pairing: u64,
        /// Never used before.
        nonce: u128,
        /// What came of the last.
        agreement: Agreement,
    },
    /// P: the beacon holds it.
    Challenged {
        /// The pairing.
        pairing: u64,
        /// What it holds.
        nonce: u128,
    },
    /// B: somebody pressed a button there; it is for the live machine.
    Press {
        /// The pairing.
        pairing: u64,
        /// Which.
        button: Button,
        /// The request's number, for [`Message::Answer`].
        request: u64,
    },
    /// B: somebody asked there that the live machine goes over to it. When it does, nothing is answered:
    /// the backup has it then.
    SwitchOver {
        /// The pairing.
        pairing: u64,
        /// The request's number, for [`Message::Answer`].
        request: u64,
    },
    /// P: what came of what somebody asked for at the backup.
    Answer {
        /// The pairing.
        pairing: u64,
        /// Which request.
        request: u64,
        /// Whether it was done; it was refused otherwise.
        done: bool,
        /// For people; what is longer than [`MAX_ANSWER_BYTES`] is cut.
        text: String,
    },
    /// Anybody: how do you stand? First, instead of a Hello.
    Ask {
        /// Protocol version.
        protocol: u32,
        /// Who asks.
        greeting: Greeting,
    },
    /// Anybody: a Hello or an Ask of another protocol version, of which no more can be understood. To be
    /// answered with [`Refusal::ProtocolVersion`].
    Foreign {
        /// Protocol version: none that this program [speaks].
        protocol: u32,
    },
    /// The answer to [`Message::Ask`], and to a Hello that did not find a primary.
    Standing(Standing),
    /// B: its machine differs; it will not take over, unless it is told [`Message::Majority`].
    Diverged {
        /// The pairing.
        pairing: u64,
        /// Where.
        report: DivergenceReport,
    },
    /// P: another backup's machine differs at this record. To be answered with [`Message::Compared`] as soon
    /// as it was replayed, or with [`Message::Diverged`].
    Compare {
        /// The pairing.
        pairing: u64,
        /// Number of the record.
        record: RecordNumber,
    },
    /// B: has replayed everything up to this record, and differs nowhere.
    Compared {
        /// The pairing.
        pairing: u64,
        /// Number of the record.
        record: RecordNumber,
    },
    /// P: the machine of this backup, which said that it differs, is what the majority has: it goes on along
    /// the log without being compared, and may take over.
    Majority {
        /// The pairing.
        pairing: u64,
    },
    /// Both: the end, in an orderly way; and the answer to it.
    Goodbye {
        /// The pairing.
        pairing: u64,
        /// Why.
        parting: Parting,
    },
}

/// A button of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    /// The guest is asked to power off.
    Power,
    /// The machine begins anew.
    Reset,
    /// The machine stands still.
    Pause,
    /// It goes on.
    Resume,
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

    /// As [`MessageWriter::write`] with [`Message::Snapshot`], but the piece's bytes are left out: they
    /// are to follow in the connection right after `out`, and need not be copied for that.
    pub fn write_snapshot_head(&mut self, out: &mut Vec<u8>, chunk: &SnapshotChunk) {
        self.payload.clear();
        let kind = encode_chunk_head(&mut self.payload, chunk);
        let parts = [&self.payload[..], &chunk.bytes];
        self.frames.write_head(out, kind, &parts);
        out.extend_from_slice(&self.payload);
    }
}

/// What comes on the connection for a snapshot's pieces, not copied out of the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched<'a> {
    /// The disks that belong to it: [`Message::Disks`].
    Disks {
        /// The pairing.
        pairing: u64,
        /// Of the digests of blocks.
        seed: u64,
        /// Bytes of each.
        lengths: Vec<u64>,
    },
    /// A piece: [`Message::Snapshot`].
    Chunk {
        /// The pairing.
        pairing: u64,
        /// Of what.
        part: SnapshotPart,
        /// Where it belongs, in bytes.
        offset: u64,
        /// How many bytes all pieces have together, about.
        total: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Zeros: [`Message::Zeros`].
    Zeros {
        /// The pairing.
        pairing: u64,
        /// Index of the disk.
        device: u8,
        /// Where they begin, in bytes.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Up to there the disks are alike: [`Message::Alike`].
    Alike {
        /// The pairing.
        pairing: u64,
        /// Index of the disk.
        device: u8,
        /// Where the next blocks begin, in bytes.
        end: u64,
    },
    /// A round has ended: [`Message::SnapshotRound`].
    Round {
        /// The pairing.
        pairing: u64,
    },
    /// Those were all: [`Message::SnapshotEnd`].
    End {
        /// The pairing.
        pairing: u64,
        /// Pieces that were sent.
        chunks: u64,
    },
    /// The disks come before the machine: [`Message::DisksFirst`].
    DisksFirst {
        /// The pairing.
        pairing: u64,
    },
    /// What follows is packed, or may be: [`Message::Packed`].
    Packed,
    /// Anything else, which does not belong there.
    Other,
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

    /// For a connection on which only a snapshot's pieces come.
    pub fn of_snapshot() -> MessageReader {
        MessageReader {
            frames: FrameReader::new(MAX_MESSAGE_BYTES),
        }
    }

    /// On a connection that has become one for a snapshot's pieces.
    pub fn goes_on_with_snapshot(mut self) -> MessageReader {
        self.frames.set_limit(MAX_MESSAGE_BYTES);
        self
    }

    /// Adds bytes as they came from the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// The bytes that came and are not part of a whole message: they are none of this reader's any more.
    pub fn take_rest(&mut self) -> Vec<u8> {
        self.frames.take_rest()
    }

    /// Room for `bytes` bytes or more of the connection; say by [`MessageReader::filled`] how many
    /// came. Saves the copy that [`MessageReader::push`] makes.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        self.frames.room(bytes)
    }

    /// So many bytes at the front of [`MessageReader::room`] are the connection's next.
    ///
    /// # Panics
    /// There was less room.
    pub fn filled(&mut self, bytes: usize) {
        self.frames.filled(bytes);
    }

    /// The next message, or `None` until more bytes come. After an error close the connection.
    pub fn next_message(&mut self) -> Result<Option<Message>, FrameError> {
        let Some(frame) = self.frames.next_borrowed()? else {
            return Ok(None);
        };
        let message = decode(frame.kind, frame.payload).map_err(|source| FrameError::Payload {
            offset: frame.offset,
            source,
        })?;
        if matches!(message, Message::Hello { .. } | Message::Welcome { .. }) {
            self.frames.set_limit(MAX_MESSAGE_BYTES);
        }
        Ok(Some(message))
    }

    /// The last bytes of what was read last, until room is asked for again: a piece's, that is.
    ///
    /// # Panics
    /// There are not so many.
    pub fn last_bytes(&self, bytes: usize) -> &[u8] {
        self.frames.last_bytes(bytes)
    }

    /// The next of a snapshot's pieces, or `None` until more bytes come. After an error close the
    /// connection.
    ///
    /// # Errors
    /// What came is no message.
    pub fn next_fetched(&mut self) -> Result<Option<Fetched<'_>>, FrameError> {
        let Some(frame) = self.frames.next_borrowed()? else {
            return Ok(None);
        };
        let offset = frame.offset;
        let fetched = decode_fetched(frame.kind, frame.payload);
        fetched
            .map(Some)
            .map_err(|source| FrameError::Payload { offset, source })
    }
}
