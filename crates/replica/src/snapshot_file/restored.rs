//! The machine of a file, on its way to a replica: it waits in the state directory until the replica is started.
//!
//! It is of one life, and of its first generation. Whoever starts a machine from this host's disks leaves a
//! generation by a key: who leaves the first one goes on from here, and nobody after that. So it is used once,
//! whatever dies meanwhile.

use super::placing::PlaceError;
use super::source::{MachineBytes, SnapshotFileError, SnapshotSource};
use crate::disk::{Disk, SECTOR_BYTES};
use crate::machines::Machines;
use crate::state_directory::replace;
use environment::fs::{self, OpenOptions};
use machine::Machine;
use replication::snapshot_file::{FileHead, FileWriter};
use replication::succession::{Entry, Generation};
use std::io;
use std::path::{Path, PathBuf};

/// The machine in the state directory.
const MACHINE: &str = "restored.snapshot";
/// …while it is being written.
const UNFINISHED: &str = "restored.snapshot.new";
/// There while a file is being restored.
const NOTE: &str = "restoring";

/// From here on nothing starts from the disks here, until [`end_restoring`].
///
/// # Errors
/// It cannot be noted.
pub fn begin_restoring(state_directory: &Path, file: &Path) -> io::Result<()> {
    let text = format!("{}\n", file.display());
    replace(&state_directory.join(NOTE), text.as_bytes())
}

/// Everything is where it should be, or nothing was changed.
///
/// # Errors
/// It cannot be noted.
pub fn end_restoring(state_directory: &Path) -> io::Result<()> {
    remove(&state_directory.join(NOTE))
}

/// Why no machine starts from the disks here, if a file is being restored, or was and did not come to its end.
pub fn obstacle(state_directory: &Path) -> Option<String> {
    let note = state_directory.join(NOTE);
    fs::look_at(&note).ok()?;
    Some(format!(
        "a snapshot is being restored here, or that did not come to its end, and the disks here may be half of \
         it: restore it again (`understudy restore`); if the disks are whole all the same, remove {}",
        note.display()
    ))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::sync_directory(path.parent().unwrap_or(Path::new("."))),
    }
}

/// Writes the machine of a file into the state directory, for the life that was begun by this key.
pub(super) fn write_machine(
    source: &mut SnapshotSource,
    state_directory: &Path,
    begun: &Entry,
) -> Result<(), PlaceError> {
    let path = state_directory.join(UNFINISHED);
    let failed = |source| PlaceError::Write {
        what: path.display().to_string(),
        source,
    };
    remove(&path).map_err(failed)?;
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let file = options.open(&path).map_err(failed)?;
    // The disks' part is on the disks.
    let head = FileHead {
        life: begun.key.life,
        life_id: begun.life,
        generation: begun.next_generation(),
        disks: Vec::new(),
        ..source.head().clone()
    };
    let mut writer = FileWriter::begin(&head);
    let mut at = 0;
    loop {
        let part = source.next_packed_of_machine()?;
        match &part {
            Some((part, packed)) => writer.part(*part, packed),
            None => writer.end(),
        }
        let bytes = writer.take_bytes();
        file.write_all_at(&bytes, at).map_err(failed)?;
        at += bytes.len() as u64;
        if part.is_none() {
            break;
        }
    }
    let named = file.sync_all();
    let named = named.and_then(|()| fs::rename(&path, &state_directory.join(MACHINE)));
    let named = named.and_then(|()| fs::sync_directory(state_directory));
    named.map_err(failed)
}

/// A machine that waits in a state directory for the start that goes on from it.
pub struct RestoredMachine {
    source: SnapshotSource,
}

impl RestoredMachine {
    /// That of the start by this key, if there is one. One for another start is never used any more, and is removed.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(
        state_directory: &Path,
        won: &Entry,
    ) -> Result<Option<RestoredMachine>, SnapshotFileError> {
        let path = state_directory.join(MACHINE);
        if fs::look_at(&path).is_err() {
            return Ok(None);
        }
        let source = SnapshotSource::open(&path)?;
        let head = source.head();
        let is_its = (head.life_id, head.generation) == (won.life, won.key.generation)
            && won.key.generation > Generation(0);
        if is_its {
            return Ok(Some(RestoredMachine { source }));
        }
        // It does no harm.
        let _removed = remove(&path);
        Ok(None)
    }

    /// Makes it, on these disks.
    ///
    /// # Errors
    /// The file was damaged since, or the disks are others.
    pub fn make(
        mut self,
        machines: &dyn Machines,
        disks: &[Disk],
    ) -> Result<Box<dyn Machine>, SnapshotFileError> {
        let path: PathBuf = self.source.path().into();
        let other = |why: String| SnapshotFileError::Other {
            path: path.clone(),
            why,
        };
        let machine = machines.restore(&mut MachineBytes::of(&mut self.source));
        let machine = machine.map_err(|error| other(error.to_string()))?;
        let theirs = machine.board().disks.iter().map(|disk| disk.sectors);
        if !theirs.eq(disks.iter().map(|disk| disk.length() / SECTOR_BYTES)) {
            let why = "the disks here are not as long as its own";
            return Err(other(why.into()));
        }
        Ok(machine)
    }
}

/// A start has gone on from the machine that waited here.
pub(crate) fn forget(state_directory: &Path) {
    // Nothing uses it any more, whether it is there or not.
    let _removed = remove(&state_directory.join(MACHINE));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot_file::tests::{head, write_file};
    use replication::message::LifeId;
    use replication::snapshot_file::FilePart;
    use replication::succession::{
        Durability, Host, HostId, Key, Kind, LifeNumber, MachineName, Membership, Origin,
        RecordNumber, RunId, Writer,
    };

    /// The key that begins a life.
    fn power_on(life: u64, life_id: u128) -> Entry {
        let host = Host::new(HostId(1), "hosta");
        Entry {
            key: Key::power_on(&MachineName::new("vm").unwrap(), LifeNumber(life)),
            kind: Kind::PowerOn,
            writer: Writer {
                host: host.clone(),
                run: RunId(5),
            },
            life: LifeId(life_id),
            record: RecordNumber(1),
            next: Some(Membership {
                primary: host.clone(),
                members: Vec::new(),
                since: Generation(1),
                durability: Durability::Primary,
                origin: Origin {
                    host,
                    life: LifeNumber(0),
                    generation: Generation(0),
                },
                journal: None,
            }),
            moved_to: None,
        }
    }

    /// The key by which a machine starts in the life that `before` opened or went on.
    fn started(before: &Entry) -> Entry {
        let next = before.next.clone();
        before.left(before.writer.clone(), Kind::ColdStart, before.record, next)
    }

    /// What the start before it wrote to the disks would be missing in the memory.
    #[test]
    fn only_the_first_start_of_its_own_life_goes_on_from_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kept");
        let state = |bytes| FilePart::State { bytes };
        write_file(&file, &head(&[]), &[(state(3), b"abc"), (state(2), b"de")]);
        let begun = power_on(2, 7);
        let first = started(&begun);
        let second = started(&first);
        let other = started(&power_on(2, 8));
        for (won, is_used) in [(&first, true), (&second, false), (&other, false)] {
            let mut source = SnapshotSource::open(&file).unwrap();
            write_machine(&mut source, directory.path(), &begun).unwrap();
            let found = RestoredMachine::of(directory.path(), won).unwrap();
            assert_eq!(found.is_some(), is_used, "{won}");
            let Some(mut restored) = found else {
                assert!(!directory.path().join(MACHINE).exists());
                continue;
            };
            let mut bytes = Vec::new();
            let mut machine = MachineBytes::of(&mut restored.source);
            io::Read::read_to_end(&mut machine, &mut bytes).unwrap();
            assert_eq!(bytes, b"abcde");
        }
    }

    #[test]
    fn nothing_starts_while_something_is_being_restored() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(obstacle(directory.path()), None);
        begin_restoring(directory.path(), Path::new("/backup/vm")).unwrap();
        assert!(
            obstacle(directory.path())
                .unwrap()
                .contains("understudy restore")
        );
        end_restoring(directory.path()).unwrap();
        assert_eq!(obstacle(directory.path()), None);
    }
}
