//! What a host knows about its own state and disks: the marker in the state directory, and the one
//! beside each writable disk. `docs/protocol.md`, "Markers".
//!
//! A marker that gives rights is written after the fact: the disk is synced first. One that takes
//! rights away is written, and synced, before the fact. All markers of a host are written in one
//! order, the disks' first, so that the state's is never ahead of any of them.

use crate::line::{LineError, LineReader, LineWriter};
use crate::message::LifeId;
use crate::record::RecordNumber;
use crate::succession::{Generation, LifeNumber, MachineName};
use std::fmt;

const WORD: &str = "understudy-marker";
/// In the state directory.
const VERSION: u32 = 1;
/// Beside a disk: its length stands there as well.
const VERSION_BESIDE: u32 = 2;

/// What this host was in the generation that its marker names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The primary: every flush that the guest knows to be complete is on this disk.
    Primary,
    /// A member, whose disk had everything up to its marker's record.
    Member,
    /// Neither: whatever is on the disk belongs to nobody.
    None,
}

/// What a disk is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// It is the machine's disk, at some time after its marker's record.
    Whole,
    /// It is being made anew from a snapshot, or has not yet caught up with one.
    Copying,
    /// Its machine differed from the primary's, or it failed.
    Suspect,
}

/// The marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The machine.
    pub machine: MachineName,
    /// Which life.
    pub life: LifeNumber,
    /// That life's identity.
    pub life_id: LifeId,
    /// The generation.
    pub generation: Generation,
    /// What the host was in it.
    pub role: Role,
    /// A record of the life that the disk has everything up to.
    pub record: RecordNumber,
    /// What the disk is worth.
    pub disk: DiskState,
}

const ROLES: [(Role, &str); 3] = [
    (Role::Primary, "primary"),
    (Role::Member, "member"),
    (Role::None, "none"),
];
const STATES: [(DiskState, &str); 3] = [
    (DiskState::Whole, "whole"),
    (DiskState::Copying, "copying"),
    (DiskState::Suspect, "suspect"),
];

fn word<T: PartialEq>(words: &[(T, &'static str)], value: &T) -> &'static str {
    words
        .iter()
        .find(|(known, _)| known == value)
        .map_or("", |(_, word)| word)
}

fn parse<T: Copy>(
    words: &[(T, &'static str)],
    field: &'static str,
    text: &str,
) -> Result<T, LineError> {
    words
        .iter()
        .find(|(_, word)| *word == text)
        .map(|(value, _)| *value)
        .ok_or(LineError::Field(field))
}

impl Marker {
    /// The one line of the file in the state directory.
    pub fn content(&self) -> Vec<u8> {
        self.line(None)
    }

    /// The one line of the file beside a disk of so many bytes: another disk that is put in its place
    /// is known by that, perhaps.
    pub fn content_beside(&self, disk_bytes: u64) -> Vec<u8> {
        self.line(Some(disk_bytes))
    }

    fn line(&self, disk_bytes: Option<u64>) -> Vec<u8> {
        assert!(self.life > LifeNumber(0), "a marker names a life");
        let version = disk_bytes.map_or(VERSION, |_| VERSION_BESIDE);
        let mut line = LineWriter::new(WORD, version);
        line.field("machine", &self.machine)
            .field("life", self.life)
            .field("life-id", self.life_id)
            .field("generation", self.generation)
            .field("role", word(&ROLES, &self.role))
            .field("record", self.record)
            .field("disk", word(&STATES, &self.disk));
        if let Some(bytes) = disk_bytes {
            line.field("bytes", bytes);
        }
        line.finish()
    }

    /// Reads a marker of `machine`, wherever it was. Whatever is not exactly what somebody would have
    /// written is an error, and gives no rights.
    pub fn parse(machine: &MachineName, content: &[u8]) -> Result<Marker, LineError> {
        Marker::parse_line(machine, content).map(|(marker, _)| marker)
    }

    /// The machine that a whole marker is of, whatever else it says.
    pub fn machine_of(content: &[u8]) -> Option<&str> {
        let mut versions = [VERSION_BESIDE, VERSION].into_iter();
        let mut line =
            versions.find_map(|version| LineReader::open(content, WORD, version).ok())?;
        line.field("machine").ok()
    }

    /// The marker, and the length of the disk beside which it was written.
    fn parse_line(
        machine: &MachineName,
        content: &[u8],
    ) -> Result<(Marker, Option<u64>), LineError> {
        let (mut line, is_beside) = match LineReader::open(content, WORD, VERSION_BESIDE) {
            Ok(line) => (line, true),
            Err(LineError::Version(_)) => (LineReader::open(content, WORD, VERSION)?, false),
            Err(error) => return Err(error),
        };
        if line.field("machine")? != machine.as_str() {
            return Err(LineError::Field("machine"));
        }
        let marker = Marker {
            machine: machine.clone(),
            life: LifeNumber(line.number("life")?),
            life_id: LifeId(line.identity("life-id")?),
            generation: Generation(line.number("generation")?),
            role: parse(&ROLES, "role", line.field("role")?)?,
            record: RecordNumber(line.number("record")?),
            disk: parse(&STATES, "disk", line.field("disk")?)?,
        };
        let disk_bytes = is_beside.then(|| line.number("bytes")).transpose()?;
        line.end()?;
        if marker.life == LifeNumber(0) || marker.line(disk_bytes) != content {
            return Err(LineError::Field("whole"));
        }
        Ok((marker, disk_bytes))
    }

    fn place(&self) -> (LifeNumber, Generation) {
        (self.life, self.generation)
    }
}

/// What was found where a marker belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No file.
    Nothing,
    /// A marker.
    Marker(Marker),
    /// Something that cannot be read, and why.
    Unreadable(String),
    /// A marker of a disk of another length than the one that is there.
    OfAnotherDisk {
        /// The length of the disk that it was written beside.
        marked: u64,
        /// That of the disk that is there now.
        there: u64,
    },
}

impl Found {
    /// From the file's content, `None` if there is no file.
    pub fn read(machine: &MachineName, content: Option<&[u8]>) -> Found {
        match content.map(|content| Marker::parse(machine, content)) {
            None => Found::Nothing,
            Some(Ok(marker)) => Found::Marker(marker),
            Some(Err(error)) => Found::Unreadable(match content.and_then(Marker::machine_of) {
                Some(theirs) if theirs != machine.as_str() => {
                    format!("it is of machine {theirs}, and this one is {machine} (`name`)")
                }
                _ => error.to_string(),
            }),
        }
    }

    /// The same beside a disk of `disk_bytes` bytes. One that is not whole has no rights, and may have
    /// any length.
    pub fn beside(machine: &MachineName, content: Option<&[u8]>, disk_bytes: u64) -> Found {
        let found = content.map(|content| Marker::parse_line(machine, content));
        match found {
            Some(Ok((marker, Some(marked))))
                if marked != disk_bytes && marker.disk == DiskState::Whole =>
            {
                let there = disk_bytes;
                Found::OfAnotherDisk { marked, there }
            }
            _ => Found::read(machine, content),
        }
    }
}

/// What this host's state and disks are worth, all markers together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worth {
    /// No marker anywhere: fresh images.
    Fresh,
    /// The least that the markers agree on. Of a machine without writable disks, that of the state
    /// directory: such a machine loses nothing wherever it starts.
    Known(Marker),
    /// They contradict each other, or one cannot be read: no rights come of it.
    Nothing(String),
}

impl Worth {
    /// Puts together what was found in the state directory and beside each writable disk.
    pub fn of(state: &Found, disks: &[Found]) -> Worth {
        if let Some(why) = [state].into_iter().chain(disks).find_map(unreadable) {
            return Worth::Nothing(format!("a marker cannot be read: {why}"));
        }
        if let Some(why) = disks.iter().find_map(of_another_disk) {
            return Worth::Nothing(why);
        }
        let mut least: Option<&Marker> = None;
        let mut without = 0;
        for disk in disks {
            match (disk, state) {
                (Found::Marker(marker), Found::Marker(state)) if marker.place() < state.place() => {
                    return Worth::Nothing(format!(
                        "a disk's marker is of generation {} of life {}, that of the state \
                         directory of generation {} of life {}: the disk is not the one that was \
                         used last",
                        marker.generation, marker.life, state.generation, state.life
                    ));
                }
                (Found::Marker(marker), _) => {
                    if least.is_none_or(|least| marker.place() < least.place()) {
                        least = Some(marker);
                    }
                }
                (_, Found::Marker(state)) => {
                    return Worth::Nothing(format!(
                        "a disk has no marker, though the state directory's is of generation {} \
                         of life {}: the disk is not the one that was used last",
                        state.generation, state.life
                    ));
                }
                _ => without += 1,
            }
        }
        let least = match (least, state) {
            // The very first marker is written beside one disk after the other.
            (Some(first), _) if without > 0 && first.generation <= Generation(1) => {
                return Worth::Fresh;
            }
            (Some(_), _) if without > 0 => {
                return Worth::Nothing("some disks have markers, others have none".to_owned());
            }
            (Some(least), _) => least,
            (None, Found::Marker(state)) => state,
            (None, _) => return Worth::Fresh,
        };
        let worst = disks
            .iter()
            .filter_map(disk_state)
            .find(|state| *state != DiskState::Whole);
        let mut known = least.clone();
        known.disk = worst.unwrap_or(known.disk);
        Worth::Known(known)
    }

    /// The life and generation that it names; (0, 0) if none.
    pub fn place(&self) -> (LifeNumber, Generation) {
        match self {
            Worth::Known(marker) => marker.place(),
            Worth::Fresh | Worth::Nothing(_) => Default::default(),
        }
    }

    /// The marker, if there is a good one.
    pub fn marker(&self) -> Option<&Marker> {
        match self {
            Worth::Known(marker) => Some(marker),
            Worth::Fresh | Worth::Nothing(_) => None,
        }
    }
}

fn unreadable(found: &Found) -> Option<&str> {
    match found {
        Found::Unreadable(why) => Some(why),
        _ => None,
    }
}

fn of_another_disk(found: &Found) -> Option<String> {
    match found {
        Found::OfAnotherDisk { marked, there: 0 } => Some(format!(
            "a disk is empty or not there, whose marker was written beside one of {marked} bytes: put it back"
        )),
        Found::OfAnotherDisk { marked, there } => Some(format!(
            "a disk of {there} bytes, whose marker was written beside one of {marked}: it is not the \
             disk that was used last"
        )),
        _ => None,
    }
}

fn disk_state(found: &Found) -> Option<DiskState> {
    match found {
        Found::Marker(marker) => Some(marker.disk),
        _ => None,
    }
}

impl fmt::Display for Worth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Worth::Fresh => write!(f, "no marker"),
            Worth::Known(marker) => write!(
                f,
                "a {} disk, {} of generation {} of life {}",
                word(&STATES, &marker.disk),
                word(&ROLES, &marker.role),
                marker.generation,
                marker.life
            ),
            Worth::Nothing(why) => f.write_str(why),
        }
    }
}
