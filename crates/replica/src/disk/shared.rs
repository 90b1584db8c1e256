//! A disk that all hosts of the machine reach: one file, of which the primary has the lock. A backup has it not even open.
//!
//! `docs/decisions/shared-disks.md` says why the lock is the fence.

use super::held::{self, HeldFile, Locked};
use super::{DiskError, opening};
use crate::config::{DiskFile, DiskFormat, Fencing};
use environment::fs::{File, FileSystem, Kind, Lock, OpenOptions};
use std::io;
use std::sync::{Arc, OnceLock};

/// The file as one machine has it: open and locked, or to be opened and locked when it goes live.
#[derive(Clone, Debug)]
pub struct SharedFile {
    file: DiskFile,
    length: u64,
    held: Arc<OnceLock<HeldFile>>,
}

/// Whose the lock of a shared file is, as seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenLock {
    /// Another process's.
    Anothers,
    /// A machine's of this process, which is about to let go of it.
    OwnMachines,
    /// Nobody's.
    Nobodys,
}

impl SharedFile {
    /// Looks at it without taking it: it is there, it can be written, and so that whoever loses it can be fenced off.
    ///
    /// # Errors
    /// It is not.
    pub fn look(file: &DiskFile) -> Result<SharedFile, DiskError> {
        let (_, length) = open(file)?;
        Ok(SharedFile {
            file: file.clone(),
            length,
            held: Arc::default(),
        })
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether this process has it.
    pub fn is_taken(&self) -> bool {
        self.held.get().is_some()
    }

    /// Whether it was taken with its lock.
    pub fn is_locked(&self) -> bool {
        self.held.get().is_some_and(HeldFile::is_locked)
    }

    /// Takes the lock of one that was taken without it, if nobody has it any more. True: it has it.
    pub fn lock_late(&self) -> bool {
        let held = self.held.get();
        held.is_some_and(|held| held.lock_late(&self.file.path))
    }

    /// What the configuration says that fences it.
    pub fn fencing(&self) -> Option<Fencing> {
        self.file.fencing
    }

    /// For people.
    pub fn path(&self) -> std::path::Display<'_> {
        self.file.path.display()
    }

    /// Takes it for a machine that goes live. `is_fenced`: somebody has said that nobody else can write to it,
    /// whatever has become of the lock.
    ///
    /// # Errors
    /// Somebody else has it, or it cannot be used.
    pub fn take(&self, is_fenced: bool) -> Result<(), DiskError> {
        if self.is_taken() {
            return Ok(());
        }
        let path = || self.file.path.clone();
        let (opened, length) = open(&self.file)?;
        if length != self.length {
            return Err(DiskError::OtherLength {
                path: path(),
                length,
                wanted: self.length,
            });
        }
        let held = match lock(&self.file, opened)? {
            Locked::Now(held) => held,
            Locked::Here | Locked::Elsewhere if is_fenced => {
                HeldFile::unlocked(open(&self.file)?.0)
            }
            Locked::Here | Locked::Elsewhere => {
                return Err(DiskError::SharedInUse { path: path() });
            }
        };
        // What this host has in memory of it is of another time.
        held.forget_cached();
        // Whoever was first has it as well.
        let _set = self.held.set(held);
        Ok(())
    }

    /// The file.
    ///
    /// # Errors
    /// This process has not taken it.
    pub(super) fn taken(&self) -> io::Result<&File> {
        match self.held.get() {
            Some(held) => Ok(held),
            None => Err(io::Error::other("this host has not taken the shared disk")),
        }
    }
}

/// Opens it, and says how many bytes it has.
fn open(file: &DiskFile) -> Result<(File, u64), DiskError> {
    let path = &file.path;
    let mut options = OpenOptions::new();
    let (opened, kind) = opening::open_file(path, options.read(true).write(true))?;
    if file.format() != DiskFormat::Raw {
        let why = "a qcow2 image has tables in its host's memory, of which another host sees nothing: convert it (`qemu-img \
                   convert -O raw`)";
        return Err(not_shared(file, why.into()));
    }
    opening::check_said(file, &opened)?;
    let failed = |error| opening::failed(path, error);
    let length = opened.length().map_err(failed)?;
    opening::check_length(path, length)?;
    let file_system = opened.file_system().map_err(failed)?;
    match unfenced(file.fencing, kind, file_system) {
        None => Ok((opened, length)),
        Some(why) => Err(not_shared(file, why)),
    }
}

fn not_shared(file: &DiskFile, why: String) -> DiskError {
    let path = file.path.clone();
    DiskError::NotShared { path, why }
}

/// Why whoever loses a shared file cannot be kept from writing to it, if that is so as far as is known.
fn unfenced(fencing: Option<Fencing>, kind: Kind, file_system: FileSystem) -> Option<String> {
    match (fencing, kind, file_system) {
        (_, Kind::BlockDevice | Kind::Other, _) => Some(
            "a block device has no lock that another host sees, and nothing beside it by which both would know that it is the \
             same one: a shared disk is a raw file"
                .into(),
        ),
        (Some(Fencing::Outside | Fencing::Lock), Kind::Plain, _)
        | (None, Kind::Plain, FileSystem::OfThisHost) => None,
        (None, Kind::Plain, FileSystem::Other(name, number)) => Some(format!(
            "it is on {name} ({number:#x}), of which this program does not know what a lock is worth: write `fencing = \"lock\"` \
             below its path where whoever has lost a lock cannot write any more (as NFS from version 4 on, without \
             `nolock` and `local_lock`), or `fencing = \"outside\"` where something else keeps a host that has lost the machine \
             from writing, and says so by `understudy fenced`"
        )),
    }
}

fn lock(file: &DiskFile, opened: File) -> Result<Locked, DiskError> {
    let tried = match file.fencing {
        Some(Fencing::Outside) => held::try_lock(&file.path, opened, Lock::Exclusive),
        Some(Fencing::Lock) | None => held::try_real_lock(&file.path, opened, Lock::Exclusive),
    };
    tried.map_err(|error| opening::failed(&file.path, error.into()))
}

/// Whose the lock is: of a live machine it has to be another process's, or locks do not reach this host.
///
/// # Errors
/// The file cannot be used.
pub fn seen_lock(file: &DiskFile) -> Result<SeenLock, DiskError> {
    Ok(match lock(file, open(file)?.0)? {
        Locked::Elsewhere => SeenLock::Anothers,
        Locked::Here => SeenLock::OwnMachines,
        Locked::Now(_) => SeenLock::Nobodys,
    })
}

/// What a host is told that does not see the lock of the live machine's.
pub fn lock_unseen(file: &DiskFile) -> String {
    format!(
        "nobody has the lock of the shared disk {}, as it is seen from here, though the machine is live on another host: it is \
         another file there, or locks on this file system do not reach other hosts (NFS: `nolock`, `local_lock`), or that \
         host went live by `understudy fenced` while somebody else had the lock, or was lost just now",
        file.path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};
    use tempfile::TempDir;

    fn image() -> (TempDir, PathBuf, DiskFile) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.raw");
        std::fs::write(&path, [7; 4096]).unwrap();
        let file = DiskFile {
            is_shared: true,
            ..DiskFile::new(&path, false)
        };
        (directory, path, file)
    }

    /// As another process has it: nothing here knows of it.
    fn another_process(path: &Path) -> environment::fs::File {
        let file = environment::fs::File::open(path).unwrap();
        file.lock(Lock::Exclusive).unwrap();
        file
    }

    #[test]
    fn whoever_goes_live_has_the_lock_or_does_not_go_live() {
        let (_directory, path, file) = image();
        let shared = SharedFile::look(&file).unwrap();
        assert_eq!(shared.length(), 4096);
        assert!(shared.taken().is_err(), "a backup has it not even open");
        let former = another_process(&path);
        for _ in 0..2 {
            let why = shared.take(false).unwrap_err().to_string();
            assert!(why.contains("disk.raw") && why.contains("locked"), "{why}");
            assert!(!shared.is_taken());
        }
        drop(former);
        shared.take(false).unwrap();
        shared.take(false).unwrap();
        let other = environment::fs::File::open(&path).unwrap();
        assert!(other.lock(Lock::Exclusive).is_err());
        // Its machine is dropped, with all that have a part of it.
        let part = shared.clone();
        drop(shared);
        assert!(other.lock(Lock::Exclusive).is_err());
        drop(part);
        other.lock(Lock::Exclusive).unwrap();
    }

    /// A server that keeps the lock of a host that is off.
    #[test]
    fn who_says_that_it_is_fenced_need_not_wait_for_the_lock() {
        let (_directory, path, file) = image();
        let shared = SharedFile::look(&file).unwrap();
        let former = another_process(&path);
        shared.take(true).unwrap();
        assert_eq!(shared.taken().unwrap().length().unwrap(), 4096);
        // Finding: it never had the lock afterwards, and nobody could join.
        assert!(!shared.is_locked() && !shared.lock_late());
        drop(former);
        assert!(shared.lock_late() && shared.is_locked());
        assert!(shared.lock_late());
        let other = environment::fs::File::open(&path).unwrap();
        assert!(other.lock(Lock::Exclusive).is_err());
        assert_eq!(seen_lock(&file).unwrap(), SeenLock::OwnMachines);
        drop(shared);
        other.lock(Lock::Exclusive).unwrap();
    }

    #[test]
    fn a_file_that_became_another_is_not_taken() {
        let (_directory, path, file) = image();
        let shared = SharedFile::look(&file).unwrap();
        std::fs::write(&path, [7; 8192]).unwrap();
        let error = shared.take(true).unwrap_err();
        assert!(matches!(error, DiskError::OtherLength { .. }), "{error}");
    }

    #[test]
    fn a_lock_that_is_not_seen_here_is_told_from_one_that_is() {
        let (_directory, path, file) = image();
        assert_eq!(seen_lock(&file).unwrap(), SeenLock::Nobodys);
        let live = another_process(&path);
        assert_eq!(seen_lock(&file).unwrap(), SeenLock::Anothers);
        drop(live);
        let shared = SharedFile::look(&file).unwrap();
        shared.take(false).unwrap();
        assert_eq!(seen_lock(&file).unwrap(), SeenLock::OwnMachines);
    }

    #[test]
    fn what_cannot_be_fenced_is_refused_unless_that_is_asked_for() {
        let plain = |fencing, file_system| unfenced(fencing, Kind::Plain, file_system);
        let nfs = FileSystem::Other("NFS", 0x6969);
        assert_eq!(plain(None, FileSystem::OfThisHost), None);
        let why = plain(None, nfs).unwrap();
        for words in [
            "NFS (0x6969)",
            "fencing = \"lock\"",
            "fencing = \"outside\"",
        ] {
            assert!(why.contains(words), "{why}");
        }
        assert_eq!(plain(Some(Fencing::Lock), nfs), None);
        assert_eq!(plain(Some(Fencing::Outside), nfs), None);
        // Nobody could tell that both hosts have the same one.
        for fencing in [None, Some(Fencing::Lock), Some(Fencing::Outside)] {
            let why = unfenced(fencing, Kind::BlockDevice, FileSystem::OfThisHost);
            assert!(why.is_some_and(|why| why.contains("is a raw file")));
        }
    }

    #[test]
    fn an_image_with_tables_is_refused() {
        let (_directory, _, file) = image();
        let file = DiskFile {
            format: Some(DiskFormat::Qcow2),
            ..file
        };
        let why = SharedFile::look(&file).unwrap_err().to_string();
        assert!(why.contains("qemu-img convert"), "{why}");
    }
}
