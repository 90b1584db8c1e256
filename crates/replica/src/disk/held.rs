//! Which disks this process has locked.
//!
//! A disk that cannot be locked is in use, and whoever is about to overwrite it has to know by whom: by another process,
//! then it is not this host's to overwrite; or by a machine of this very process, which is about to be dropped, or kept.

use environment::fs::{self, File, Kind, Lock};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// What is told apart by it: two names of one file are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    /// A host's device and number.
    Host(u64, u64),
    /// Of a file of a simulated world.
    Named(PathBuf),
}

impl Identity {
    fn of(path: &Path, file: &File) -> Identity {
        match file.identity() {
            Ok(Some((device, number))) => Identity::Host(device, number),
            Ok(None) | Err(_) => Identity::Named(path.into()),
        }
    }
}

/// How often each is locked. It is held while a lock is tried, which waits for nobody: so what is locked here is known here.
static HELD: Mutex<BTreeMap<Held, usize>> = Mutex::new(BTreeMap::new());

/// A file, and by which of its names it was opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    identity: Identity,
    path: PathBuf,
}

fn held() -> MutexGuard<'static, BTreeMap<Held, usize>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file is locked by this process: dropped right after the file is closed.
#[derive(Debug)]
struct Holding(Held);

impl Drop for Holding {
    fn drop(&mut self) {
        let mut held = held();
        if let Some(count) = held.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.0);
            }
        }
    }
}

/// A file, and the lock on it, if it has one: that is noted until the file is closed.
#[derive(Debug)]
pub(super) struct HeldFile {
    file: File,
    /// Until the file is closed.
    holding: OnceLock<Holding>,
}

impl HeldFile {
    /// Nobody keeps it from others.
    pub fn unlocked(file: File) -> HeldFile {
        HeldFile {
            file,
            holding: OnceLock::new(),
        }
    }

    /// Whether it is kept from others.
    pub fn is_locked(&self) -> bool {
        self.holding.get().is_some()
    }

    /// Keeps it from others now, if nobody else has it. False: somebody does, or the host says that it cannot be.
    pub fn lock_late(&self, path: &Path) -> bool {
        if self.is_locked() {
            return true;
        }
        let is = Held {
            identity: Identity::of(path, &self.file),
            path: path.to_owned(),
        };
        let mut held = held();
        if self.file.lock(Lock::Exclusive).is_err() {
            return false;
        }
        *held.entry(is.clone()).or_default() += 1;
        drop(held);
        // Should another thread have been first, its note is that of this lock, and ours goes again.
        let _noted = self.holding.set(Holding(is));
        true
    }
}

impl Deref for HeldFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// Who has a file.
#[derive(Debug)]
pub(super) enum Locked {
    /// Whoever asked, from here on.
    Now(HeldFile),
    /// Another machine of this process.
    Here,
    /// Another process, on this host or another.
    Elsewhere,
}

/// Tries to lock it. A file system without locks has them all: the pair's own fencing does not need them.
///
/// # Errors
/// As flock(2).
pub(super) fn try_lock(path: &Path, file: File, lock: Lock) -> Result<Locked, Errno> {
    locked(path, file, lock, true)
}

/// The same, and a file system without locks is an error: here they are what fences.
///
/// # Errors
/// As flock(2).
pub(super) fn try_real_lock(path: &Path, file: File, lock: Lock) -> Result<Locked, Errno> {
    locked(path, file, lock, false)
}

fn locked(path: &Path, file: File, lock: Lock, or_without: bool) -> Result<Locked, Errno> {
    let identity = Identity::of(path, &file);
    let mut held = held();
    let tried = match file.lock(lock) {
        Err(Errno::NOLCK | Errno::OPNOTSUPP) if or_without => Ok(()),
        tried => tried,
    };
    match tried {
        Ok(()) => {
            let path = path.to_owned();
            let is = Held { identity, path };
            *held.entry(is.clone()).or_default() += 1;
            Ok(Locked::Now(HeldFile {
                file,
                holding: OnceLock::from(Holding(is)),
            }))
        }
        Err(Errno::WOULDBLOCK) if held.keys().any(|is| is.identity == identity) => Ok(Locked::Here),
        Err(Errno::WOULDBLOCK) => Ok(Locked::Elsewhere),
        Err(error) => Err(error),
    }
}

/// Whether what has this name is another file than this process has locked by it, if it has one.
///
/// # Errors
/// Nothing has it, or it cannot be opened.
pub(crate) fn is_another(path: &Path) -> io::Result<bool> {
    let (kind, _) = fs::look_at(path)?;
    // Opening a pipe would wait for whoever writes there.
    let now = match kind {
        Kind::Other => None,
        Kind::Plain | Kind::BlockDevice => Some(Identity::of(path, &File::open(path)?)),
    };
    let held = held();
    let mut locked = held.keys().filter(|is| is.path == path).peekable();
    Ok(locked.peek().is_some() && !locked.any(|is| Some(&is.identity) == now.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use environment::fs::OpenOptions;

    /// Finding: a file that took the disk's name (`rsync`, `mv`) was not noticed, and what was written afterwards was lost.
    #[test]
    fn a_file_that_took_the_name_of_one_that_is_open_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (
            directory.path().join("disk"),
            directory.path().join("other"),
        );
        std::fs::write(&path, b"old").unwrap();
        std::fs::write(&other, b"new").unwrap();
        assert!(!is_another(&path).unwrap(), "nobody has it");
        let file = OpenOptions::new().read(true).open(&path).unwrap();
        let open = try_lock(&path, file, Lock::Shared).unwrap();
        assert!(!is_another(&path).unwrap());
        std::fs::rename(&other, &path).unwrap();
        assert!(is_another(&path).unwrap());
        drop(open);
        assert!(!is_another(&path).unwrap(), "nobody has the former");
    }

    #[test]
    fn whoever_has_a_file_is_told_apart_from_this_process() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (
            directory.path().join("disk"),
            directory.path().join("other"),
        );
        std::fs::write(&path, b"").unwrap();
        std::fs::hard_link(&path, &other).unwrap();
        let open = |path: &Path| OpenOptions::new().read(true).open(path).unwrap();
        let exclusive = |path: &Path| try_lock(path, open(path), Lock::Exclusive).unwrap();
        let first = exclusive(&path);
        assert!(matches!(first, Locked::Now(_)));
        assert!(matches!(exclusive(&other), Locked::Here), "one file");
        drop(first);
        // As another process has it: nothing here knows of it.
        let third = open(&path);
        third.lock(Lock::Exclusive).unwrap();
        assert!(matches!(exclusive(&other), Locked::Elsewhere));
        drop(third);
        assert!(matches!(exclusive(&other), Locked::Now(_)));
    }
}
