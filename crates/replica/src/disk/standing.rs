//! Files that a machine has open and will look for by their names: each has to stay where it is, and as long as it is.
//!
//! A file that was cut off beneath a machine fails when what is missing is read, which may be weeks later; and one whose name
//! was taken away takes whatever is written to it, and nobody will ever open it again. So whoever has such a file says here
//! what is expected of it, and it is looked now and then whether that holds.

use environment::fs::{self, File, Kind};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Clone, Debug)]
struct Expected {
    path: PathBuf,
    /// Of which file of the host; none of a simulated one.
    identity: Option<(u64, u64)>,
    least_bytes: u64,
    /// It is longer now and then, and never shorter again.
    grows: bool,
}

#[derive(Debug, Default)]
struct All {
    next: u64,
    files: BTreeMap<u64, Expected>,
}

static ALL: Mutex<All> = Mutex::new(All {
    next: 0,
    files: BTreeMap::new(),
});

fn all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file is expected to stand, until this is dropped.
#[derive(Debug)]
pub(crate) struct Standing(u64);

impl Standing {
    /// This open file, which is to be found at `path`, with so many bytes at least.
    pub fn expect(path: &Path, file: &File, least_bytes: u64) -> Standing {
        Standing::begin(path, file, least_bytes, false)
    }

    /// The same of one that grows, and is never cut.
    pub fn expect_growing(path: &Path, file: &File, least_bytes: u64) -> Standing {
        Standing::begin(path, file, least_bytes, true)
    }

    fn begin(path: &Path, file: &File, least_bytes: u64, grows: bool) -> Standing {
        let expected = Expected {
            path: path.into(),
            identity: file.identity().ok().flatten(),
            least_bytes,
            grows,
        };
        let mut all = all();
        all.next += 1;
        let number = all.next;
        all.files.insert(number, expected);
        Standing(number)
    }

    /// It has so many bytes now.
    pub fn has(&self, bytes: u64) {
        if let Some(expected) = all().files.get_mut(&self.0) {
            expected.least_bytes = bytes;
        }
    }

    /// It is about to get another name: nothing is expected until it has it.
    pub fn renamed(&self, path: &Path, rename: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let before = all().files.remove(&self.0);
        let renamed = rename();
        if let Some(before) = before {
            let path = match renamed {
                Ok(()) => path.into(),
                Err(_) => before.path,
            };
            all().files.insert(self.0, Expected { path, ..before });
        }
        renamed
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        all().files.remove(&self.0);
    }
}

/// This process is about to remove the file of this name, or to cut it: nothing is expected of it any more.
pub(super) fn forget(path: &Path) {
    all().files.retain(|_, expected| expected.path != path);
}

/// Looks whether all stand that are called so, or are a layer of what is.
///
/// # Errors
/// One does not.
pub(crate) fn look(base: &Path) -> io::Result<()> {
    let expected: Vec<(u64, Expected)> = {
        let all = all();
        let files = all.files.iter();
        let of_base = files.filter(|(_, expected)| {
            expected.path == base || super::overlay::is_layer(&expected.path, base)
        });
        of_base
            .map(|(number, expected)| (*number, expected.clone()))
            .collect()
    };
    for (number, expected) in expected {
        let wrong = match expected.look() {
            Ok(bytes) => {
                if let Some(it) = all().files.get_mut(&number)
                    && it.grows
                {
                    it.least_bytes = it.least_bytes.max(bytes);
                }
                continue;
            }
            Err(wrong) => wrong,
        };
        // This process may have removed it meanwhile, or cut it.
        let still = all().files.get(&number).cloned();
        if still.is_some_and(|still| still.path == expected.path) {
            return Err(wrong);
        }
    }
    Ok(())
}

impl Expected {
    /// Gives the bytes that it has.
    fn look(&self) -> io::Result<u64> {
        let path = self.path.display();
        let (kind, bytes) = fs::look_at(&self.path).map_err(|error| {
            let why =
                format!("{path}, which the machine has open, is not to be seen any more: {error}");
            io::Error::new(error.kind(), why)
        })?;
        let is_file = kind == Kind::Plain;
        let now = match is_file {
            true => File::open(&self.path)?.identity()?,
            false => self.identity,
        };
        if now != self.identity {
            return Err(io::Error::other(format!(
                "{path} has been replaced: another file has its name, and what the machine writes goes into the former one, \
                 which nobody will ever open again. Copy /proc/{}/fd/N of it back, or hand the machine over to a host whose \
                 disk is right",
                std::process::id()
            )));
        }
        if is_file && bytes < self.least_bytes {
            return Err(io::Error::other(format!(
                "{path} has been cut off: it has {bytes} bytes, and had {} when the machine used it last. What was behind \
                 them is lost here: hand the machine over to a host whose disk is right, or restore it from a kept snapshot",
                self.least_bytes
            )));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(path: &Path, bytes: usize) -> File {
        std::fs::write(path, vec![1; bytes]).unwrap();
        File::open(path).unwrap()
    }

    /// Finding: an image that was cut off was noticed when what was missing was read, and an overlay that was removed
    /// not at all.
    #[test]
    fn what_is_cut_off_removed_or_replaced_is_told_and_so_are_layers() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("disk.raw");
        let layer = directory.path().join("disk.raw.overlay-00000002");
        let other = directory.path().join("disk.raw2");
        let why = || look(&base).unwrap_err().to_string();
        let disk = made(&base, 4096);
        let _disk = Standing::expect(&base, &disk, 4096);
        let opened = made(&layer, 512);
        let standing = Standing::expect(&layer, &opened, 512);
        let elsewhere = made(&other, 100);
        let _other = Standing::expect(&other, &elsewhere, 1000);
        look(&base).unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&base)
            .unwrap()
            .set_len(4095)
            .unwrap();
        assert!(
            why().contains("disk.raw has been cut off: it has 4095 bytes, and had 4096"),
            "{}",
            why()
        );
        std::fs::OpenOptions::new()
            .write(true)
            .open(&base)
            .unwrap()
            .set_len(8192)
            .unwrap();
        look(&base).unwrap();
        standing.has(1024);
        assert!(
            why().contains("overlay-00000002 has been cut off"),
            "{}",
            why()
        );
        standing.has(512);
        std::fs::remove_file(&layer).unwrap();
        assert!(
            why().contains("overlay-00000002, which the machine has open, is not to be seen"),
            "{}",
            why()
        );
        std::fs::write(&layer, [2; 512]).unwrap();
        assert!(
            why().contains("overlay-00000002 has been replaced"),
            "{}",
            why()
        );
        drop(standing);
        look(&base).unwrap();
    }

    #[test]
    fn one_that_grows_is_expected_to_be_as_long_as_it_was_seen_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.qcow2");
        let file = made(&path, 1000);
        let _standing = Standing::expect_growing(&path, &file, 1000);
        let cut = |bytes| {
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            file.unwrap().set_len(bytes).unwrap();
        };
        cut(3000);
        look(&path).unwrap();
        cut(2000);
        let why = look(&path).unwrap_err().to_string();
        assert!(why.contains("it has 2000 bytes, and had 3000"), "{why}");
    }

    #[test]
    fn what_this_process_removes_cuts_or_renames_is_not_missed() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("disk.raw");
        let named = |name: &str| directory.path().join(format!("disk.raw.overlay-{name}"));
        let replay = made(&named("replay"), 512);
        let standing = Standing::expect(&named("replay"), &replay, 512);
        let renamed = || std::fs::rename(named("replay"), named("00000003"));
        standing.renamed(&named("00000003"), renamed).unwrap();
        look(&base).unwrap();
        standing.renamed(&named("00000004"), renamed).unwrap_err();
        look(&base).unwrap();
        std::fs::remove_file(named("00000003")).unwrap();
        look(&base).unwrap_err();
        forget(&named("00000003"));
        look(&base).unwrap();
        standing.has(5000);
        look(&base).unwrap();
    }
}
