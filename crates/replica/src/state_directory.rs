//! A replica's state directory: used by one process at a time, read by its owner alone, and nothing
//! in it is a way to somewhere else.

use crate::host_time::monotonic;
use environment::fs::{remove_file, rename, sync_directory};
use environment::thread::sleep;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The file that is locked for as long as a process uses the directory; it holds the process's
/// number, for people.
pub const LOCK_NAME: &str = "lock";

/// The state directory cannot be used.
#[derive(Debug, Error)]
pub enum StateDirectoryError {
    /// A process has it, and be it stopped or hung.
    #[error(
        "the state directory {} is in use by {}: end that one first, or give this replica a directory of its own",
        directory.display(),
        describe_holder(*pid)
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process, if it has written its number there.
        pid: Option<i32>,
    },
    /// It cannot be made, opened or locked.
    #[error("cannot use the state directory {}: {source}", directory.display())]
    Unusable {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directory, for as long as this lives: the lock goes with the process however it ends, and a
/// process that is only stopped keeps it.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// Makes the directory if it is absent and takes it; it is its owner's alone from then on.
    ///
    /// # Errors
    /// It cannot be used, or another process has it.
    /// A process that has it and is dying is waited for: after SIGKILL it takes a while until the memory of its
    /// machine is given back, and its lock with it.
    pub fn take(path: &Path) -> Result<StateDirectory, StateDirectoryError> {
        StateDirectory::take_within(path, DYING)
    }

    fn take_within(path: &Path, patience: Duration) -> Result<StateDirectory, StateDirectoryError> {
        let unusable = |source| StateDirectoryError::Unusable {
            directory: path.into(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        // One that somebody made beforehand, or an older version, may be everybody's to read.
        let mode = fs::metadata(path).map_err(unusable)?.mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(path, PermissionsExt::from_mode(0o700)).map_err(unusable)?;
        }
        let mut lock = options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_NAME))
            .map_err(unusable)?;
        lock_file(path, &mut lock, patience)?;
        let write_pid = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        // Its number is a courtesy: a full disk keeps nobody from running.
        let _written = write_pid(&mut lock);
        Ok(StateDirectory {
            path: path.into(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file of the directory, made if it is absent, to append to.
    ///
    /// # Errors
    /// It cannot be opened, or is no file of the directory's own: a symbolic link, a pipe, a device.
    pub fn append(&self, name: &str) -> io::Result<File> {
        append_to(&self.path.join(name))
    }
}

/// For how long a process that has the directory and is dying is waited for.
const DYING: Duration = Duration::from_secs(5);
/// Between two looks whether it has died.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Takes the lock.
///
/// # Errors
/// A living process has it, or one that has not died for so long.
fn lock_file(path: &Path, lock: &mut File, patience: Duration) -> Result<(), StateDirectoryError> {
    let until = monotonic() + patience;
    let mut is_told = false;
    loop {
        match flock(&*lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => {
                return Err(StateDirectoryError::Unusable {
                    directory: path.into(),
                    source: error.into(),
                });
            }
        }
        // Whoever has just taken it writes its number a moment later.
        let pid = number_in(lock);
        if pid.is_some_and(|pid| !is_dying(pid)) || monotonic() >= until {
            return Err(StateDirectoryError::InUse {
                directory: path.into(),
                pid,
            });
        }
        if !std::mem::replace(&mut is_told, true) {
            // Standard error may be closed.
            let _told = writeln!(
                io::stderr(),
                "understudy: {} is still held by {}, which is ending: waiting for that, up to {} s",
                path.display(),
                describe_holder(pid),
                patience.as_secs()
            );
        }
        sleep(LOOK_AGAIN);
    }
}

fn describe_holder(pid: Option<i32>) -> String {
    pid.map_or_else(
        || "a process that has not written its number there".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// The number of the process that wrote it last.
fn number_in(lock: &mut File) -> Option<i32> {
    let mut pid = String::new();
    lock.rewind().ok()?;
    lock.take(20).read_to_string(&mut pid).ok()?;
    pid.trim().parse().ok()
}

/// Whether a process is gone, a zombie, on its way there, or has SIGKILL before it (proc_pid_stat(5),
/// proc_pid_status(5)). A zombie of several threads keeps its files until the last of them has ended.
fn is_dying(pid: i32) -> bool {
    /// `PF_EXITING` in the kernel's `sched.h`.
    const EXITING: u64 = 4;
    /// Bit 8 of a set of signals.
    const KILLED: u64 = 1 << 8;
    let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let (Ok(stat), Ok(status)) = (read("stat"), read("status")) else {
        // Without /proc nobody is taken for dead.
        return Path::new("/proc/self/stat").exists();
    };
    // The name before it may have spaces and brackets.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let mut fields = fields.split(' ');
    let state = fields.next().unwrap_or_default();
    let flags: u64 = fields
        .nth(5)
        .and_then(|flags| flags.parse().ok())
        .unwrap_or(0);
    let is_killed = status.lines().any(|line| {
        let pending = line
            .strip_prefix("SigPnd:")
            .or(line.strip_prefix("ShdPnd:"));
        let pending = pending.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        pending.is_some_and(|set| set & KILLED != 0)
    });
    matches!(state, "Z" | "X" | "x") || flags & EXITING != 0 || is_killed
}

/// The process that has a state directory, if there is one: its number, as it wrote it there. Nothing
/// is taken in order to know, or a replica that starts at this moment would find it taken.
pub fn holder(directory: &Path) -> Option<u32> {
    let mut lock = options().read(true).open(directory.join(LOCK_NAME)).ok()?;
    let inode = lock.metadata().ok()?.ino();
    let mut pid = String::new();
    (&mut lock).take(20).read_to_string(&mut pid).ok()?;
    let pid: u32 = pid.trim().parse().ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK ADVISORY WRITE 4711 fe:01:262149 0 EOF`
    let is_its = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, by, file, ..] = words[..] else {
            return false;
        };
        by == pid.to_string() && file.rsplit(':').next() == Some(&inode.to_string())
    };
    locks.lines().any(is_its).then_some(pid)
}

/// No link is followed; and without O_NONBLOCK a pipe that somebody planted would be waited for.
const FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(FLAGS.bits() as i32).mode(0o600);
    options
}

/// Opens a file for its owner alone, made if it is absent, to append to.
///
/// # Errors
/// It cannot be opened, or it is a symbolic link, a pipe, a device.
pub fn append_to(path: &Path) -> io::Result<File> {
    let file = options().append(true).create(true).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a plain file", path.display()),
        ));
    }
    // One that an older version made was everybody's to read.
    fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

/// Replaces a file as a whole, durably; it is its owner's alone. What lies in the way of the new one,
/// left behind or planted, is removed and not followed.
///
/// # Errors
/// It cannot be written or synced.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = new_beside(path, content, true)?;
    rename(&new, path)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    sync_directory(directory)
}

/// Writes a file that is there anew, in its own place: where there is no room for another one beside it. Half of it may be
/// there after a crash, which has to mean no more than the whole.
///
/// # Errors
/// It is not there, or cannot be written.
pub fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = environment::fs::OpenOptions::new();
    let file = options
        .custom_flags(FLAGS.bits() as i32)
        .write(true)
        .open(path)?;
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)?;
    file.sync_all()
}

/// Whether [`replace`] could do its work now: what it writes first is written, and removed again. What is there stays.
///
/// # Errors
/// It cannot be written, or, if that was wanted, synced.
pub fn try_to_replace(path: &Path, content: &[u8], is_synced: bool) -> io::Result<()> {
    let new = new_beside(path, content, is_synced)?;
    remove_file(&new)
}

/// What is to take a file's place.
fn new_beside(path: &Path, content: &[u8], is_synced: bool) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    match remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = environment::fs::OpenOptions::new();
    options.custom_flags(FLAGS.bits() as i32).mode(0o600);
    let file = options.write(true).create_new(true).open(&new)?;
    let written = file
        .write_all_at(content, 0)
        .and_then(|()| match is_synced {
            true => file.sync_all(),
            false => Ok(()),
        });
    if let Err(error) = written {
        // Half of one is in nobody's way, but of no use either.
        let _removed = remove_file(&new);
        return Err(error);
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_has_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let first = StateDirectory::take(&path).unwrap();
        let error = StateDirectory::take(&path).unwrap_err();
        let expected = format!("in use by process {}", std::process::id());
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(first);
        assert_eq!(holder(&path), None);
        StateDirectory::take(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    /// Finding: a replica that was started within milliseconds of a `kill -9` was told to end the dead one first.
    #[test]
    fn whoever_is_dying_is_waited_for_and_whoever_is_not_known_yet() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        // A zombie: it has ended, and nobody has asked for its status.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        while !is_dying(pid) {
            std::thread::yield_now();
        }
        for number in [pid.to_string(), String::new()] {
            let first = StateDirectory::take(&path).unwrap();
            fs::write(path.join(LOCK_NAME), &number).unwrap();
            let error = StateDirectory::take_within(&path, Duration::ZERO).unwrap_err();
            let text = error.to_string();
            let who = match number.as_str() {
                "" => "a process that has not written its number".to_owned(),
                number => format!("process {number}"),
            };
            assert!(text.contains(&who), "{text}");
            std::thread::scope(|scope| {
                let second = scope.spawn(|| StateDirectory::take_within(&path, Duration::MAX / 4));
                // Long enough to be refused, if it were.
                std::thread::sleep(4 * LOOK_AGAIN);
                drop(first);
                second.join().unwrap().unwrap();
            });
        }
        child.wait().unwrap();
        assert!(is_dying(pid), "it is gone");
        assert!(!is_dying(std::process::id() as i32));
    }

    #[test]
    fn links_and_pipes_are_not_written_to() {
        let parent = tempfile::tempdir().unwrap();
        let directory = StateDirectory::take(&parent.path().join("state")).unwrap();
        let elsewhere = parent.path().join("elsewhere");
        fs::write(&elsewhere, "as it was").unwrap();
        std::os::unix::fs::symlink(&elsewhere, directory.path().join("events.jsonl")).unwrap();
        directory.append("events.jsonl").unwrap_err();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "as it was");
        let pipe = directory.path().join("console.log");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        directory.append("console.log").unwrap_err();
    }

    /// Finding 20, of the files that are replaced: identity and markers.
    #[test]
    fn what_is_replaced_follows_no_link_and_is_its_owners() {
        let parent = tempfile::tempdir().unwrap();
        let (elsewhere, path) = (
            parent.path().join("elsewhere"),
            parent.path().join("marker"),
        );
        fs::write(&elsewhere, "as it was").unwrap();
        std::os::unix::fs::symlink(&elsewhere, parent.path().join("marker.new")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        replace(&path, b"content").unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"as it was");
        assert_eq!(fs::read(&path).unwrap(), b"content");
        let there = fs::symlink_metadata(&path).unwrap();
        assert!(there.is_file());
        assert_eq!(there.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_everybody_could_read_is_its_owners_again() {
        let parent = tempfile::tempdir().unwrap();
        let directory = StateDirectory::take(parent.path()).unwrap();
        let path = parent.path().join("console.log");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        directory.append("console.log").unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
