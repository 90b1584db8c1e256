//! What a key holds: who left a generation, how, and what follows.

use super::moved::Destination;
use super::names::{Generation, Host, HostId, JournalId, LifeNumber, MachineName, RunId};
use super::store::Key;
use crate::line::{LineError, LineReader, LineWriter, escape, parse_identity, unescape};
use crate::message::LifeId;
use crate::record::RecordNumber;
use std::fmt;

/// Bytes that an entry has at most.
pub const MAX_ENTRY_BYTES: usize = 4096;
/// Members that a generation has at most, its primary not counted.
pub const MAX_MEMBERS: usize = 7;

const WORD: &str = "understudy-succession";
const VERSION: u32 = 1;

/// How a generation was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The life begins. Only generation 0 is left so.
    PowerOn,
    /// The primary took a member in.
    Joined,
    /// The primary goes on with fewer members, or none.
    Dropped,
    /// A member goes on, because the primary seemed to be dead.
    TookOver,
    /// A member goes on, because the primary asked for it.
    HandedOver,
    /// The machine starts again from a disk.
    ColdStart,
    /// The machine goes on from a journal, where the outside saw it last.
    Recovered,
    /// The same primary and members go on, and the next generation is left at another arbiter.
    Moved,
    /// The guest powered off: the life is over.
    Ended,
    /// A person declared the life over.
    Lost,
}

const KINDS: [(Kind, &str); 10] = [
    (Kind::PowerOn, "power-on"),
    (Kind::Joined, "joined"),
    (Kind::Dropped, "dropped"),
    (Kind::TookOver, "took-over"),
    (Kind::HandedOver, "handed-over"),
    (Kind::ColdStart, "cold-start"),
    (Kind::Recovered, "recovered"),
    (Kind::Moved, "moved"),
    (Kind::Ended, "ended"),
    (Kind::Lost, "lost"),
];

impl Kind {
    fn word(self) -> &'static str {
        KINDS
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, word)| word)
    }

    fn parse(word: &str) -> Option<Kind> {
        KINDS
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(kind, _)| *kind)
    }

    /// Whether the life is over after it.
    pub fn ends_life(self) -> bool {
        matches!(self, Kind::Ended | Kind::Lost)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// When a guest's flush is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When the primary's disk has it: after a loss of power only that host may start the machine.
    #[default]
    Primary,
    /// When the primary's disk and every member's have it: any of those hosts may.
    Both,
}

impl Durability {
    fn word(self) -> &'static str {
        match self {
            Durability::Primary => "primary",
            Durability::Both => "both",
        }
    }

    fn parse(word: &str) -> Option<Durability> {
        [Durability::Primary, Durability::Both]
            .into_iter()
            .find(|durability| durability.word() == word)
    }
}

/// Which disk is the right one as long as that of the primary is not yet settled: until its marker
/// says that it is the primary's, no flush is complete, so nothing that was acknowledged as durable
/// is missing on the disk from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whose.
    pub host: Host,
    /// The life that the disk's marker has to name at least; 0: none.
    pub life: LifeNumber,
    /// The generation in that life, at least.
    pub generation: Generation,
}

/// A generation: who is in it, and whose disk counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Who meets the world.
    pub primary: Host,
    /// Who holds the log, and may take over.
    pub members: Vec<Host>,
    /// The first generation of this primary's reign: since then nobody else's disk was the right
    /// one.
    pub since: Generation,
    /// When a flush is complete, in this generation.
    pub durability: Durability,
    /// Whose disk is the right one until the primary's is settled.
    pub origin: Origin,
    /// The journal that outputs wait for in this generation: it has everything that the outside saw.
    pub journal: Option<JournalId>,
}

impl Membership {
    /// Whether `host` is in it.
    pub fn includes(&self, host: HostId) -> bool {
        self.primary.id == host || self.has_member(host)
    }

    /// Whether `host` is a member, the primary not counted.
    pub fn has_member(&self, host: HostId) -> bool {
        self.members.iter().any(|member| member.id == host)
    }

    /// Everybody but `host`.
    pub fn others(&self, host: HostId) -> impl Iterator<Item = &Host> {
        std::iter::once(&self.primary)
            .chain(&self.members)
            .filter(move |other| other.id != host)
    }
}

/// Who writes a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The host.
    pub host: Host,
    /// The start of its process: makes what it writes its own.
    pub run: RunId,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key: what was left.
    pub key: Key,
    /// How.
    pub kind: Kind,
    /// By whom.
    pub writer: Writer,
    /// The life's identity, chosen at power-on.
    pub life: LifeId,
    /// The first record of the next generation; for people, and so that numbers never go back.
    pub record: RecordNumber,
    /// Who is in the next generation; `None` when the life is over.
    pub next: Option<Membership>,
    /// The arbiter at which the next generation is left, of [`Kind::Moved`] only.
    pub moved_to: Option<Destination>,
}

impl Entry {
    /// The number of the generation that follows.
    pub fn next_generation(&self) -> Generation {
        self.key.generation.next()
    }

    /// The key of leaving the generation that follows.
    pub fn next_key(&self) -> Key {
        self.key.of(self.next_generation())
    }

    /// The generation that follows. Of a life that goes on: whoever lives in it has nothing else.
    pub fn membership(&self) -> &Membership {
        match &self.next {
            Some(next) => next,
            None => panic!("no generation follows the end of a life"),
        }
    }

    /// The key of leaving the generation that this one opened; `next`: who is in the one after.
    pub fn left(
        &self,
        writer: Writer,
        kind: Kind,
        record: RecordNumber,
        next: Option<Membership>,
    ) -> Entry {
        assert!(self.next.is_some(), "a life that is over is not left");
        Entry {
            key: self.next_key(),
            kind,
            writer,
            life: self.life,
            record,
            next,
            moved_to: None,
        }
    }

    /// The key by which the generation that this one opened goes on at another arbiter, with everybody who
    /// is in it.
    pub fn moved(&self, writer: Writer, record: RecordNumber, to: Destination) -> Entry {
        let next = self.membership().clone();
        let mut entry = self.left(writer, Kind::Moved, record, Some(next));
        entry.moved_to = Some(to);
        entry
    }

    /// The key by which a member leaves the generation that this one opened, and goes on alone.
    pub fn taken_over(&self, writer: Writer, kind: Kind, record: RecordNumber) -> Entry {
        assert!(
            matches!(kind, Kind::TookOver | Kind::HandedOver),
            "{kind} is no way for a member to go on"
        );
        let left = self.membership();
        assert!(
            left.has_member(writer.host.id),
            "only a member of the generation goes on from it"
        );
        let origin = Origin {
            host: left.primary.clone(),
            life: self.key.life,
            generation: left.since,
        };
        let next = Membership {
            primary: writer.host.clone(),
            members: Vec::new(),
            since: self.next_generation().next(),
            durability: left.durability,
            origin,
            journal: None,
        };
        self.left(writer, kind, record, Some(next))
    }

    /// The line that the key holds, at most [`MAX_ENTRY_BYTES`].
    pub fn content(&self) -> Vec<u8> {
        assert!(self.is_consistent(), "no such entry may be made: {self:?}");
        let mut line = LineWriter::new(WORD, VERSION);
        line.field("machine", &self.key.machine)
            .field("life", self.key.life)
            .field("generation", self.key.generation)
            .field("kind", self.kind)
            .field("by", host_text(&self.writer.host))
            .field("run", self.writer.run)
            .field("life-id", self.life)
            .field("record", self.record);
        match &self.next {
            None => line.field("next", "none"),
            Some(next) => line
                .field("next", self.next_generation())
                .field("primary", host_text(&next.primary))
                .field("members", members_text(&next.members))
                .field("since", next.since)
                .field("durability", next.durability.word())
                .field("origin", host_text(&next.origin.host))
                .field("origin-life", next.origin.life)
                .field("origin-generation", next.origin.generation),
        };
        // Left out where there is none: a key of a machine without a journal is what it always was.
        if let Some(journal) = self.next.as_ref().and_then(|next| next.journal) {
            line.field("journal", journal);
        }
        if let Some(to) = &self.moved_to {
            line.field("to", to.text());
        }
        let content = line.finish();
        assert!(content.len() <= MAX_ENTRY_BYTES, "an entry is too long");
        content
    }

    /// Reads what `key` holds. Whatever is not exactly what somebody would have written there is
    /// an error: nobody's claim.
    pub fn parse(key: &Key, content: &[u8]) -> Result<Entry, LineError> {
        if content.len() > MAX_ENTRY_BYTES {
            return Err(LineError::Foreign);
        }
        let mut line = LineReader::open(content, WORD, VERSION)?;
        let machine = MachineName::new(line.field("machine")?);
        let found = Key {
            machine: machine.map_err(|_| LineError::Field("machine"))?,
            life: LifeNumber(line.number("life")?),
            generation: Generation(line.number("generation")?),
        };
        if found != *key {
            return Err(LineError::Field("key"));
        }
        let kind = Kind::parse(line.field("kind")?).ok_or(LineError::Field("kind"))?;
        let host = parse_host(line.field("by")?).ok_or(LineError::Field("by"))?;
        let entry = Entry {
            key: found,
            kind,
            writer: Writer {
                host,
                run: RunId(line.identity("run")?),
            },
            life: LifeId(line.identity("life-id")?),
            record: RecordNumber(line.number("record")?),
            next: parse_next(&mut line, key)?,
            moved_to: match line.optional("to") {
                Some(to) => Some(Destination::parse(to).ok_or(LineError::Field("to"))?),
                None => None,
            },
        };
        line.end()?;
        if !entry.is_consistent() || entry.content() != content {
            return Err(LineError::Field("whole"));
        }
        Ok(entry)
    }

    /// Whether somebody who keeps to the rules could have written it.
    fn is_consistent(&self) -> bool {
        let is_first = self.key.generation == Generation(0);
        let by = self.writer.host.id;
        if self.key.life == LifeNumber(0) || self.key.generation.0 == u64::MAX {
            return false;
        }
        if (self.kind == Kind::Moved) != self.moved_to.is_some() {
            return false;
        }
        let Some(next) = &self.next else {
            return self.kind.ends_life() && !is_first;
        };
        let distinct = next.members.iter().enumerate().all(|(index, member)| {
            member.id != next.primary.id && !next.members[..index].contains(member)
        });
        let sound = distinct
            && next.members.len() <= MAX_MEMBERS
            && (Generation(1)..=self.next_generation()).contains(&next.since)
            && (self.kind == Kind::PowerOn) == is_first
            && next.primary.id == by;
        let is_new_reign = next.since == self.next_generation();
        let is_kept = next.journal.is_some();
        sound
            && match self.kind {
                Kind::PowerOn => is_new_reign && next.members.is_empty() && !is_kept,
                Kind::Joined => (!next.members.is_empty() || is_kept) && !is_new_reign,
                Kind::Dropped | Kind::Moved => !is_new_reign,
                Kind::TookOver | Kind::HandedOver => is_new_reign && !is_kept,
                Kind::ColdStart => next.members.is_empty() && !is_kept,
                Kind::Recovered => next.members.is_empty() && is_kept && !is_new_reign,
                Kind::Ended | Kind::Lost => false,
            }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (life, generation) = (self.key.life, self.key.generation);
        let host = &self.writer.host;
        match self.kind {
            Kind::PowerOn => write!(f, "host {host} powered the machine on: life {life} begins"),
            Kind::Moved => write!(
                f,
                "life {life} goes on at another arbiter after generation {generation}, {}, says host {host}",
                self.moved_to.as_ref().map_or("", |to| &to.address)
            ),
            kind => write!(
                f,
                "generation {generation} of life {life} is over ({kind}), says host {host}"
            ),
        }
    }
}

fn host_text(host: &Host) -> String {
    format!("{}:{}", host.id, escape(host.node()))
}

fn parse_host(text: &str) -> Option<Host> {
    let (id, node) = text.split_once(':')?;
    Some(Host::new(HostId(parse_identity(id)?), &unescape(node)?))
}

fn members_text(members: &[Host]) -> String {
    if members.is_empty() {
        return "none".to_owned();
    }
    let texts: Vec<String> = members.iter().map(host_text).collect();
    texts.join(",")
}

fn parse_members(text: &str) -> Option<Vec<Host>> {
    if text == "none" {
        return Some(Vec::new());
    }
    text.split(',').map(parse_host).collect()
}

fn parse_next(line: &mut LineReader<'_>, key: &Key) -> Result<Option<Membership>, LineError> {
    let next = line.field("next")?;
    if next == "none" {
        return Ok(None);
    }
    if key.generation.0.checked_add(1).map(|n| n.to_string()) != Some(next.to_owned()) {
        return Err(LineError::Field("next"));
    }
    Ok(Some(Membership {
        primary: parse_host(line.field("primary")?).ok_or(LineError::Field("primary"))?,
        members: parse_members(line.field("members")?).ok_or(LineError::Field("members"))?,
        since: Generation(line.number("since")?),
        durability: Durability::parse(line.field("durability")?)
            .ok_or(LineError::Field("durability"))?,
        origin: Origin {
            host: parse_host(line.field("origin")?).ok_or(LineError::Field("origin"))?,
            life: LifeNumber(line.number("origin-life")?),
            generation: Generation(line.number("origin-generation")?),
        },
        journal: match line.optional("journal") {
            Some(id) => Some(JournalId(
                parse_identity(id).ok_or(LineError::Field("journal"))?,
            )),
            None => None,
        },
    }))
}
