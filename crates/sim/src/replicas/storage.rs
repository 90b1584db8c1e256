//! What all hosts of a world reach: a file server. A write takes its time to get there, and lands though the process that
//! made it has died or stands still; the process has its lock until then. What is not synced is in the memory of the
//! host that wrote it.

use super::files::{Change, Files};
use super::guest_disk::SECTOR_BYTES;
use super::shared::{ProcessId, State};
use crate::random::Random;
use replication::succession::{Generation, LifeNumber};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// A write of a process that died lands so long after that, at most.
const LANDS_WITHIN_NS: u64 = 1_500 * MS;

/// The life and generation in which a primary wrote, and which process it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    process: ProcessId,
    place: (LifeNumber, Generation),
}

/// A write on its way.
#[derive(Clone, Debug)]
pub struct Flight {
    pub file: u64,
    pub handle: u64,
    pub node: usize,
    pub change: Change,
    writer: Option<Writer>,
    /// Of a process that has died: when it lands.
    lands_at_ns: Option<u64>,
    began_ns: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Storage {
    /// What is there.
    pub files: Files,
    /// Where it is seen, on every host.
    directory: PathBuf,
    disk: PathBuf,
    flights: BTreeMap<u64, Flight>,
    /// Writes to the machine's disk that were begun.
    pub begun: u64,
    /// Whoever wrote, or spoke for the machine, last.
    newest: Option<Writer>,
    /// Sectors that were written since the machine was powered on last.
    written: BTreeMap<u64, Vec<u8>>,
}

impl Storage {
    /// With a disk of this content.
    pub fn new(directory: &Path, disk: &Path, content: Vec<u8>) -> Storage {
        let mut files = Files::default();
        files.put(disk, content);
        Storage {
            files,
            directory: directory.into(),
            disk: disk.into(),
            ..Storage::default()
        }
    }

    /// Whether a file of this name is there, and not on a host.
    pub fn has(&self, path: &Path) -> bool {
        !self.directory.as_os_str().is_empty() && path.starts_with(&self.directory)
    }

    /// When a write of a process that has died lands.
    pub fn next_deadline(&self) -> Option<u64> {
        let flights = self.flights.values();
        flights.filter_map(|flight| flight.lands_at_ns).min()
    }

    /// Whether a write is on its way by this handle.
    pub fn is_awaited(&self, handle: u64) -> bool {
        self.flights.values().any(|flight| flight.handle == handle)
    }

    /// How long a write takes to get there.
    pub fn way_ns(random: &mut Random) -> u64 {
        match random.between(0, 99) {
            0..85 => random.between(20, 300) * US,
            85..97 => random.between(1, 20) * MS,
            _ => random.between(20, 200) * MS,
        }
    }
}

impl State {
    /// Who a process is for the machine, by the newest key that it made.
    fn writer(&self, process: ProcessId) -> Option<Writer> {
        let opened = self.observer.opened_by(process)?;
        let place = (opened.key.life, opened.next_generation());
        Some(Writer { process, place })
    }

    /// A process has given its host a write.
    pub fn flight_begins(
        &mut self,
        process: ProcessId,
        (file, handle): (u64, u64),
        change: Change,
    ) -> u64 {
        let (node, writer) = (self.process(process).node, self.writer(process));
        let began_ns = self.now_ns;
        let number = self.storage.files.number();
        let flight = Flight {
            file,
            handle,
            node,
            change,
            writer,
            lands_at_ns: None,
            began_ns,
        };
        self.storage.flights.insert(number, flight);
        let of_disk = self.storage.files.is_called(file, &self.storage.disk);
        self.storage.begun += u64::from(of_disk);
        number
    }

    /// The process that made it has died before it was there: it lands all the same, or never does where its host has lost
    /// its power.
    pub fn flight_is_orphaned(&mut self, number: u64, process: ProcessId) {
        let is_silent = self.process(process).silent;
        if is_silent && self.random.percent(50) {
            self.storage.flights.remove(&number);
            return;
        }
        let lands_at_ns = self.now_ns + self.random.between(0, LANDS_WITHIN_NS);
        if let Some(flight) = self.storage.flights.get_mut(&number) {
            flight.lands_at_ns = Some(lands_at_ns);
        }
    }

    /// It is there.
    pub fn flight_lands(&mut self, number: u64) {
        let Some(flight) = self.storage.flights.remove(&number) else {
            return;
        };
        if self
            .storage
            .files
            .is_called(flight.file, &self.storage.disk)
        {
            self.disk_is_written(&flight);
        }
        let Flight {
            file,
            handle,
            node,
            change,
            lands_at_ns,
            ..
        } = flight;
        self.storage.files.change_of(node, file, change);
        if lands_at_ns.is_some() {
            // Its file is closed then, and what a host has of a file in its memory goes to the server before that.
            self.storage.files.sync_of(node, file);
            if !self.storage.is_awaited(handle) {
                self.storage.files.unlock(file, handle);
            }
        }
    }

    /// Lets those land that are due.
    pub fn land_flights(&mut self) {
        let now_ns = self.now_ns;
        let due = |(number, flight): (&u64, &Flight)| {
            let is_due = flight.lands_at_ns.is_some_and(|at_ns| at_ns <= now_ns);
            is_due.then_some(*number)
        };
        let due: Vec<u64> = self.storage.flights.iter().filter_map(due).collect();
        due.into_iter().for_each(|number| self.flight_lands(number));
    }

    /// Two promises: whoever has lost the machine writes nothing once another has gone on with it; and what is written is of
    /// the one history that goes on, of which the guest writes each sector once.
    fn disk_is_written(&mut self, flight: &Flight) {
        let Some(writer) = flight.writer else {
            let what = "the shared disk is written by a process that never made a key";
            return self.observer.broken(what.into());
        };
        if flight.lands_at_ns.is_some() {
            self.observer.count("landed after its process had died");
        }
        if self.now_ns > flight.began_ns + LANDS_WITHIN_NS / 5 {
            self.observer.count("landed late");
        }
        if let Some(newest) = self.storage.newest
            && newest.process != writer.process
            && newest.place > writer.place
        {
            let (at_ns, now_ns) = (flight.began_ns, self.now_ns);
            let what = format!(
                "process {} wrote to the shared disk as of generation {} at {at_ns}, and it landed at {now_ns}, when process {} had \
                 gone on with the machine in generation {}",
                writer.process.0, writer.place.1, newest.process.0, newest.place.1
            );
            return self.observer.broken(what);
        }
        self.storage.newest = Some(writer);
        let Change::Write(offset, bytes) = &flight.change else {
            return self
                .observer
                .broken("the shared disk gets another length".into());
        };
        let first = *offset / SECTOR_BYTES as u64;
        let mut is_another = false;
        for (sector, new) in (first..).zip(bytes.chunks(SECTOR_BYTES)) {
            let old = self.storage.written.insert(sector, new.to_vec());
            is_another |= old.is_some_and(|old| old != new);
        }
        if is_another {
            let what = format!(
                "process {} writes over {offset} what another history has written there: a write had left that was not held",
                writer.process.0
            );
            self.observer.broken(what);
        }
        self.note(|text| {
            let _ = write!(
                text,
                "process {} has written {} bytes of the shared disk at {offset}",
                writer.process.0,
                bytes.len()
            );
        });
    }

    /// The machine begins from what is on the disk: what was not synced may lie there with gaps, and is no log of its guest.
    pub fn disk_is_begun_from(&mut self) {
        self.storage.written.clear();
    }

    /// A process has spoken for the machine.
    pub fn has_spoken(&mut self, process: ProcessId) {
        let writer = self.writer(process);
        let newest = self.storage.newest;
        if let Some(writer) = writer
            && newest.is_none_or(|newest| newest.place <= writer.place)
        {
            self.storage.newest = Some(writer);
        }
    }
}
