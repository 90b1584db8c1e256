//! The demonstration's directory.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The directory cannot be used.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// Another demonstration runs there.
    #[error("another demonstration runs in {}; stop it or choose another directory", .0.display())]
    InUse(PathBuf),
    /// Somebody else's files are there.
    #[error("{} is not empty and no demonstration's directory; choose another one", .0.display())]
    Foreign(PathBuf),
    /// It cannot be made or written.
    #[error("cannot use the directory {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

const LOCK: &str = "demo.lock";

/// The directory, locked against a second demonstration.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    _lock: File,
    temporary: bool,
}

impl Layout {
    /// Makes or takes over `directory`, or makes a temporary one.
    pub fn open(directory: Option<&Path>) -> Result<Layout, LayoutError> {
        let root = match directory {
            Some(directory) => directory.to_path_buf(),
            None => std::env::temp_dir().join(format!("understudy-demo-{}", std::process::id())),
        };
        let io_error = |source| LayoutError::Io {
            path: root.clone(),
            source,
        };
        // Consoles, snapshots and keys will be in it.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .map_err(io_error)?;
        let root = fs::canonicalize(&root).map_err(io_error)?;
        let lock_path = root.join(LOCK);
        if !lock_path.exists() && fs::read_dir(&root).map_err(io_error)?.next().is_some() {
            return Err(LayoutError::Foreign(root));
        }
        let lock = File::create(&lock_path).map_err(io_error)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LayoutError::InUse(root)),
            Err(error) => return Err(io_error(error.into())),
        }
        let layout = Layout {
            root,
            _lock: lock,
            temporary: directory.is_none(),
        };
        layout.clear().map_err(io_error)?;
        Ok(layout)
    }

    /// Removes what an earlier demonstration left.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)?.flatten() {
            if entry.file_name() == LOCK {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        fs::create_dir(self.arbiter())?;
        fs::create_dir(self.switch())
    }

    /// The whole.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The arbiter's keys.
    pub fn arbiter(&self) -> PathBuf {
        self.root.join("arbiter")
    }

    /// The keys of the site that this host is, made for this demonstration.
    pub fn site(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The switch's socket and status.
    pub fn switch(&self) -> PathBuf {
        self.root.join(crate::status::SWITCH_DIRECTORY)
    }

    /// The state directory of replica `number`.
    pub fn replica(&self, number: u32) -> PathBuf {
        self.root.join(format!("replica-{number}"))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed now, nobody can remove here.
            let _removed = fs::remove_dir_all(&self.root);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_and_a_foreign_directory_are_refused() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("demo");
        let first = Layout::open(Some(&root)).unwrap();
        assert!(matches!(
            Layout::open(Some(&root)),
            Err(LayoutError::InUse(_))
        ));
        drop(first);
        Layout::open(Some(&root)).unwrap();
        let foreign = parent.path().join("photos");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("summer.jpg"), b"x").unwrap();
        assert!(matches!(
            Layout::open(Some(&foreign)),
            Err(LayoutError::Foreign(_))
        ));
        assert!(foreign.join("summer.jpg").exists());
    }

    #[test]
    fn a_temporary_directory_is_removed() {
        let layout = Layout::open(None).unwrap();
        let root = layout.root().to_path_buf();
        assert!(root.join("arbiter").is_dir());
        drop(layout);
        assert!(!root.exists());
    }
}
