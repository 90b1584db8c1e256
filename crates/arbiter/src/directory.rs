//! The arbiter's store on a shared directory, local or NFS.
//!
//! A key is a file. It is written under a name of its own, made durable, and then linked to the
//! key's name: a hard link is the one operation that NFS makes atomic and exclusive in every
//! version. A link whose answer was lost reports an error though it landed, so the caller reads
//! the key back on anything but plain success.

use crate::{CONTENT_LIMIT, Store};
use replication::succession::{BeaconName, Key, Outcome, Request};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use thiserror::Error;

/// This can never be an arbiter's directory.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// No path at all.
    #[error("the arbiter's directory has no name: give one that both hosts share and may write")]
    Unnamed,
    /// Something else is there.
    #[error("the arbiter {} is no directory: give one that both hosts share and may write", .0.display())]
    NotADirectory(PathBuf),
}

/// A directory of create-only keys.
#[derive(Debug)]
pub struct DirectoryStore {
    directory: PathBuf,
    /// Distinguishes this process's temporary files from those of all others.
    tag: String,
    attempts: u64,
}

impl DirectoryStore {
    /// Uses `directory`. That it is not there, or cannot be used, may change: it may be mounted later.
    /// Until then every answer says so.
    ///
    /// # Errors
    /// It never can be used.
    pub fn open(directory: &Path) -> Result<DirectoryStore, DirectoryError> {
        if directory.as_os_str().is_empty() {
            return Err(DirectoryError::Unnamed);
        }
        if fs::metadata(directory).is_ok_and(|there| !there.is_dir()) {
            return Err(DirectoryError::NotADirectory(directory.into()));
        }
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let tag = format!("{}-{}", std::process::id(), since_epoch.as_nanos());
        Ok(DirectoryStore {
            directory: directory.into(),
            tag,
            attempts: 0,
        })
    }

    /// The directory as it is mounted now. All that one answer takes happens in it, so that it is
    /// one store however mounts come and go.
    fn open_directory(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.directory, flags, Mode::empty())?.into())
    }

    fn temporary(&mut self, directory: &File) -> io::Result<(String, File)> {
        self.attempts += 1;
        let name = format!(".claim-{}-{}", self.tag, self.attempts);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, &name, flags, Mode::from_raw_mode(0o644))?;
        Ok((name, file.into()))
    }

    /// Writes `content` to a file of its own and lets `then` give it its name.
    fn write(
        &mut self,
        directory: &File,
        content: &[u8],
        then: impl FnOnce(&str) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        if content.len() > CONTENT_LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (temporary, mut file) = self.temporary(directory)?;
        let written = file
            .write_all(content)
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(then(&temporary)?));
        // What is left of a failed removal is a hidden file of a few hundred bytes, no key.
        let _removed = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
        written
    }

    fn create(
        &mut self,
        directory: &File,
        key: &Key,
        after: Option<&Key>,
        content: &[u8],
    ) -> io::Result<Outcome> {
        if let Some(after) = after
            && read(directory, &after.object_name())?.is_none()
        {
            return Ok(Outcome::Unknown(after.missing()));
        }
        let name = key.object_name();
        let linked = self.write(directory, content, |temporary| {
            rustix::fs::linkat(directory, temporary, directory, &name, AtFlags::empty())
        });
        match linked {
            Ok(()) => {
                directory.sync_all()?;
                Ok(Outcome::Created)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Outcome::NotCreated),
            Err(error) => Err(error),
        }
    }

    fn read_key(directory: &File, key: &Key) -> io::Result<Outcome> {
        match read(directory, &key.object_name())? {
            None => Ok(Outcome::Absent),
            Some(content) => {
                // The create that made it may have failed here: a key that a crash of the store
                // takes back is nobody's.
                directory.sync_all()?;
                Ok(Outcome::Holds(content))
            }
        }
    }

    fn write_beacon(
        &mut self,
        directory: &File,
        beacon: &BeaconName,
        content: &[u8],
    ) -> io::Result<Outcome> {
        let name = beacon.object_name();
        self.write(directory, content, |temporary| {
            rustix::fs::renameat(directory, temporary, directory, &name)
        })?;
        Ok(Outcome::Written)
    }
}

/// What to do about it, where that is known.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (is it mounted? Both hosts have to share it)",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (this replica has to be able to write there)"
        }
        _ => "",
    }
}

/// What a file holds; `None` if there is none.
fn read(directory: &File, name: &str) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut content = Vec::new();
    file.take(CONTENT_LIMIT as u64 + 1)
        .read_to_end(&mut content)?;
    if content.len() > CONTENT_LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{name} has been tampered with"),
        ));
    }
    Ok(Some(content))
}

impl Store for DirectoryStore {
    fn name(&self) -> String {
        self.directory.display().to_string()
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        let outcome = self.open_directory().and_then(|directory| match request {
            Request::Create {
                key,
                after,
                content,
            } => self.create(&directory, key, after.as_ref(), content),
            Request::Read { key } => DirectoryStore::read_key(&directory, key),
            Request::WriteBeacon { beacon, content } => {
                self.write_beacon(&directory, beacon, content)
            }
            Request::ReadBeacon { beacon } => {
                let found = read(&directory, &beacon.object_name())?;
                Ok(found.map_or(Outcome::Absent, Outcome::Holds))
            }
            Request::Elsewhere { .. } => Ok(Request::knows_no_other()),
        });
        outcome.unwrap_or_else(|error| {
            Outcome::Unknown(format!(
                "arbiter directory {}: {error}{}",
                self.directory.display(),
                advice(&error)
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::succession::{Generation, HostId, LifeNumber, MachineName};
    use std::sync::Barrier;

    fn key(generation: u64) -> Key {
        Key {
            machine: MachineName::new("vm").unwrap(),
            life: LifeNumber(7),
            generation: Generation(generation),
        }
    }

    fn create(store: &mut DirectoryStore, key: Key, content: &[u8]) -> Outcome {
        store.answer(&Request::Create {
            key,
            after: None,
            content: content.to_vec(),
        })
    }

    fn read_key(store: &mut DirectoryStore, key: Key) -> Outcome {
        store.answer(&Request::Read { key })
    }

    #[test]
    fn one_of_eight_claimants_wins_each_of_a_hundred_races() {
        let directory = tempfile::tempdir().unwrap();
        for race in 1..=100 {
            let barrier = Barrier::new(8);
            let winners: Vec<u8> = std::thread::scope(|scope| {
                let claimants: Vec<_> = (0..8u8)
                    .map(|claimant| {
                        let (barrier, path) = (&barrier, directory.path());
                        scope.spawn(move || {
                            let mut store = DirectoryStore::open(path).unwrap();
                            // Threads of one process share the process's tag.
                            store.tag = format!("{}-{claimant}", store.tag);
                            barrier.wait();
                            match create(&mut store, key(race), &[claimant]) {
                                Outcome::Created => Some(claimant),
                                Outcome::NotCreated => None,
                                other => panic!("{other:?}"),
                            }
                        })
                    })
                    .collect();
                claimants
                    .into_iter()
                    .filter_map(|claimant| claimant.join().unwrap())
                    .collect()
            });
            assert_eq!(winners.len(), 1);
            let mut store = DirectoryStore::open(directory.path()).unwrap();
            assert_eq!(read_key(&mut store, key(race)), Outcome::Holds(winners));
        }
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 100, "temporary files were left behind");
    }

    #[test]
    fn an_absent_key_is_absent_but_a_vanished_directory_is_unknown() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("arbiter");
        fs::create_dir(&directory).unwrap();
        let mut store = DirectoryStore::open(&directory).unwrap();
        assert_eq!(read_key(&mut store, key(1)), Outcome::Absent);
        fs::remove_dir(&directory).unwrap();
        let read = read_key(&mut store, key(1));
        assert!(matches!(read, Outcome::Unknown(_)), "{read:?}");
        let created = create(&mut store, key(1), b"me");
        assert!(matches!(created, Outcome::Unknown(_)), "{created:?}");
    }

    /// A mount point without its mount is an empty directory: there everybody would win.
    #[test]
    fn nothing_is_created_where_the_key_before_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = DirectoryStore::open(directory.path()).unwrap();
        let request = Request::Create {
            key: key(2),
            after: Some(key(1)),
            content: b"me".to_vec(),
        };
        assert_eq!(store.answer(&request), Outcome::Unknown(key(1).missing()));
        assert_eq!(read_key(&mut store, key(2)), Outcome::Absent);
        assert_eq!(create(&mut store, key(1), b"you"), Outcome::Created);
        assert_eq!(store.answer(&request), Outcome::Created);
    }

    #[test]
    fn a_beacon_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = DirectoryStore::open(directory.path()).unwrap();
        let beacon = BeaconName {
            machine: MachineName::new("vm").unwrap(),
            host: HostId(3),
        };
        let read = Request::ReadBeacon {
            beacon: beacon.clone(),
        };
        assert_eq!(store.answer(&read), Outcome::Absent);
        for content in [b"one", b"two"] {
            let request = Request::WriteBeacon {
                beacon: beacon.clone(),
                content: content.to_vec(),
            };
            assert_eq!(store.answer(&request), Outcome::Written);
            assert_eq!(store.answer(&read), Outcome::Holds(content.to_vec()));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_is_mounted_later_is_waited_for() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("arbiter");
        let mut store = DirectoryStore::open(&directory).unwrap();
        let Outcome::Unknown(why) = read_key(&mut store, key(1)) else {
            panic!("an arbiter that is not there has answered")
        };
        assert!(why.contains("arbiter") && why.contains("mounted"), "{why}");
        fs::create_dir(&directory).unwrap();
        assert_eq!(create(&mut store, key(1), b"me"), Outcome::Created);
    }

    #[test]
    fn what_can_never_be_a_directory_is_refused_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (path, word) in [(Path::new(""), "no name"), (file.path(), "no directory")] {
            let error = DirectoryStore::open(path).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_content_beyond_the_limit_makes_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = DirectoryStore::open(directory.path()).unwrap();
        let too_long = vec![0; CONTENT_LIMIT + 1];
        let created = create(&mut store, key(1), &too_long);
        assert!(matches!(created, Outcome::Unknown(_)), "{created:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
