//! The arbiter's store on a shared directory, local or NFS.
//!
//! A key is a file. It is written under a name of its own, made durable, and then linked to the
//! key's name: a hard link is the one operation that NFS makes atomic and exclusive in every
//! version. A link whose answer was lost reports an error though it landed, so the caller reads
//! the key back on anything but plain success.

use crate::{CONTENT_LIMIT, Store, key_name};
use replication::generation::{ClaimKey, ClaimOutcome, ClaimRequest};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use thiserror::Error;

/// The directory cannot be an arbiter.
#[derive(Debug, Error)]
#[error("the arbiter directory {} cannot be used: {source}; it has to exist on both hosts, be shared by them and be writable", path.display())]
pub struct DirectoryError {
    path: PathBuf,
    source: io::Error,
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
    /// Uses `directory`, which has to be there and writable.
    pub fn open(directory: &Path) -> Result<DirectoryStore, DirectoryError> {
        let wrong = |source| DirectoryError {
            path: directory.into(),
            source,
        };
        if !fs::metadata(directory).map_err(wrong)?.is_dir() {
            return Err(wrong(io::ErrorKind::NotADirectory.into()));
        }
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let tag = format!("{}-{}", std::process::id(), since_epoch.as_nanos());
        let mut store = DirectoryStore {
            directory: directory.into(),
            tag,
            attempts: 0,
        };
        let (probe, file) = store.temporary().map_err(wrong)?;
        drop(file);
        fs::remove_file(probe).map_err(wrong)?;
        Ok(store)
    }

    fn temporary(&mut self) -> io::Result<(PathBuf, File)> {
        self.attempts += 1;
        let path = self
            .directory
            .join(format!(".claim-{}-{}", self.tag, self.attempts));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok((path, file))
    }

    fn create(&mut self, name: &str, content: &[u8]) -> io::Result<ClaimOutcome> {
        if content.len() > CONTENT_LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (temporary, mut file) = self.temporary()?;
        let linked = file
            .write_all(content)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::hard_link(&temporary, self.directory.join(name)));
        // What is left of a failed removal is a hidden file of a hundred bytes, no key.
        let _removed = fs::remove_file(&temporary);
        match linked {
            Ok(()) => {
                self.sync()?;
                Ok(ClaimOutcome::Created)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(ClaimOutcome::NotCreated)
            }
            Err(error) => Err(error),
        }
    }

    fn read_back(&self, name: &str) -> io::Result<ClaimOutcome> {
        let mut content = Vec::new();
        let read = File::open(self.directory.join(name)).and_then(|file| {
            file.take(CONTENT_LIMIT as u64 + 1)
                .read_to_end(&mut content)
        });
        match read {
            Ok(length) if length > CONTENT_LIMIT => Ok(ClaimOutcome::Unknown(format!(
                "the arbiter's key {name} has been tampered with"
            ))),
            Ok(_) => {
                // The create that made it may have failed here: a key that a crash of the store
                // takes back is nobody's.
                self.sync()?;
                Ok(ClaimOutcome::HeldBy(content))
            }
            // A directory that was unmounted or removed says "not found" for every key.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.directory.is_dir() => {
                Ok(ClaimOutcome::Absent)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the directory's entries durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

impl Store for DirectoryStore {
    fn answer(&mut self, request: &ClaimRequest) -> ClaimOutcome {
        let (ClaimRequest::Create { key, .. } | ClaimRequest::ReadBack { key }) = request;
        let Some(name) = key_name(key) else {
            return ClaimOutcome::Unknown(format!("{} cannot be a key", describe(key)));
        };
        let outcome = match request {
            ClaimRequest::Create { content, .. } => self.create(&name, content),
            ClaimRequest::ReadBack { .. } => self.read_back(&name),
        };
        outcome.unwrap_or_else(|error| {
            ClaimOutcome::Unknown(format!(
                "arbiter directory {}: {error}",
                self.directory.display()
            ))
        })
    }
}

fn describe(key: &ClaimKey) -> String {
    format!("{:?} with generation {}", key.vm, key.generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::message::LifeId;
    use std::sync::Barrier;

    fn key(vm: &str, generation: u64) -> ClaimKey {
        ClaimKey {
            vm: vm.into(),
            life: LifeId(7),
            generation,
        }
    }

    fn create(store: &mut DirectoryStore, key: ClaimKey, content: &[u8]) -> ClaimOutcome {
        let content = content.to_vec();
        store.answer(&ClaimRequest::Create { key, content })
    }

    fn read_back(store: &mut DirectoryStore, key: ClaimKey) -> ClaimOutcome {
        store.answer(&ClaimRequest::ReadBack { key })
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
                            match create(&mut store, key("vm", race), &[claimant]) {
                                ClaimOutcome::Created => Some(claimant),
                                ClaimOutcome::NotCreated => None,
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
            let held = read_back(&mut store, key("vm", race));
            assert_eq!(held, ClaimOutcome::HeldBy(winners));
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
        assert_eq!(read_back(&mut store, key("vm", 1)), ClaimOutcome::Absent);
        fs::remove_dir(&directory).unwrap();
        let read = read_back(&mut store, key("vm", 1));
        assert!(matches!(read, ClaimOutcome::Unknown(_)), "{read:?}");
        let created = create(&mut store, key("vm", 1), b"me");
        assert!(matches!(created, ClaimOutcome::Unknown(_)), "{created:?}");
    }

    #[test]
    fn a_missing_directory_is_one_clear_error() {
        let error = DirectoryStore::open(Path::new("/nonexistent/arbiter"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/arbiter") && error.contains("shared"),
            "{error}"
        );
    }

    #[test]
    fn a_key_cannot_leave_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = DirectoryStore::open(directory.path()).unwrap();
        for vm in ["../x", "a/b", ".hidden", &"x".repeat(200)] {
            let created = create(&mut store, key(vm, 1), b"");
            assert!(matches!(created, ClaimOutcome::Unknown(_)), "{vm}");
            let read = read_back(&mut store, key(vm, 1));
            assert!(matches!(read, ClaimOutcome::Unknown(_)), "{vm}");
        }
        let too_long = vec![0; CONTENT_LIMIT + 1];
        let created = create(&mut store, key("vm", 1), &too_long);
        assert!(matches!(created, ClaimOutcome::Unknown(_)), "{created:?}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
