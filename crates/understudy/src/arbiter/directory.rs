//! The arbiter's store on a shared directory, local or NFS.
//!
//! A key is a file. It is written under a name of its own, made durable, and then linked to the
//! key's name: a hard link is the one operation that NFS makes atomic and exclusive in every
//! version. A link whose answer was lost reports an error though it landed, so the caller reads
//! the key back on anything but plain success.

use super::{CONTENT_LIMIT, Created, Found, Store, StoreTrouble};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
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
        let tag = format!("{}-{}", std::process::id(), crate::host_time::unix_ns());
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

    fn write_and_link(&mut self, key: &str, content: &[u8]) -> io::Result<Created> {
        let (temporary, mut file) = self.temporary()?;
        let linked = file
            .write_all(content)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::hard_link(&temporary, self.directory.join(key)));
        // What is left of a failed removal is a hidden file of a hundred bytes, no key.
        let _removed = fs::remove_file(&temporary);
        match linked {
            Ok(()) => {
                File::open(&self.directory)?.sync_all()?;
                Ok(Created::Now)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Created::Exists),
            Err(error) => Err(error),
        }
    }

    fn trouble(&self, error: &io::Error) -> StoreTrouble {
        StoreTrouble(format!(
            "arbiter directory {}: {error}",
            self.directory.display()
        ))
    }
}

fn is_plain(key: &str) -> bool {
    (1..=200).contains(&key.len())
        && !key.starts_with('.')
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

impl Store for DirectoryStore {
    fn create(&mut self, key: &str, content: &[u8]) -> Created {
        if !is_plain(key) || content.len() > CONTENT_LIMIT {
            return Created::Unknown(StoreTrouble(format!("{key:?} cannot be a key")));
        }
        match self.write_and_link(key, content) {
            Ok(created) => created,
            Err(error) => Created::Unknown(self.trouble(&error)),
        }
    }

    fn read(&mut self, key: &str) -> Found {
        if !is_plain(key) {
            return Found::Unknown(StoreTrouble(format!("{key:?} cannot be a key")));
        }
        let mut content = Vec::new();
        let read = File::open(self.directory.join(key)).and_then(|file| {
            file.take(CONTENT_LIMIT as u64 + 1)
                .read_to_end(&mut content)
        });
        match read {
            Ok(length) if length > CONTENT_LIMIT => Found::Unknown(StoreTrouble(format!(
                "the key {key} has been tampered with"
            ))),
            Ok(_) => Found::Content(content),
            // A directory that was unmounted or removed says "not found" for every key.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.directory.is_dir() => {
                Found::Absent
            }
            Err(error) => Found::Unknown(self.trouble(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn one_of_eight_claimants_wins_each_of_a_hundred_races() {
        let directory = tempfile::tempdir().unwrap();
        for race in 0..100 {
            let key = format!("vm-life-{race}");
            let barrier = Barrier::new(8);
            let winners: Vec<u8> = std::thread::scope(|scope| {
                let claimants: Vec<_> = (0..8u8)
                    .map(|claimant| {
                        let (key, barrier, path) = (&key, &barrier, directory.path());
                        scope.spawn(move || {
                            let mut store = DirectoryStore::open(path).unwrap();
                            // Threads of one process share the process's tag.
                            store.tag = format!("{}-{claimant}", store.tag);
                            barrier.wait();
                            match store.create(key, &[claimant]) {
                                Created::Now => Some(claimant),
                                Created::Exists => None,
                                Created::Unknown(trouble) => panic!("{trouble}"),
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
            assert_eq!(store.read(&key), Found::Content(winners));
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
        assert_eq!(store.read("vm-1"), Found::Absent);
        fs::remove_dir(&directory).unwrap();
        assert!(matches!(store.read("vm-1"), Found::Unknown(_)));
        assert!(matches!(store.create("vm-1", b"me"), Created::Unknown(_)));
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
        for key in ["", "../x", "a/b", ".hidden"] {
            assert!(
                matches!(store.create(key, b""), Created::Unknown(_)),
                "{key}"
            );
            assert!(matches!(store.read(key), Found::Unknown(_)), "{key}");
        }
    }
}
