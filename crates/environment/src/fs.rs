//! Files whose content has to outlast a loss of power: a drop-in for what is used of [`std::fs`].

use crate::simulation::{current, with_current};
use rustix::fs::{Advice, FallocateFlags, FlockOperation, fadvise, fallocate, flock};
use rustix::io::Errno;
use std::fmt;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A file as a world has it, opened; all threads of its process may use it at once.
pub trait StoredFile: Send + Sync + fmt::Debug {
    /// Reads from `offset` on; fewer bytes at the end of the file.
    ///
    /// # Errors
    /// The disk fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of it; a loss of power may take it away again until it is synced.
    ///
    /// # Errors
    /// The disk fails, or is full.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Bytes.
    fn length(&self) -> u64;

    /// Cuts it, or adds zeros.
    ///
    /// # Errors
    /// As [`StoredFile::write_at`].
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes bytes zero.
    ///
    /// # Errors
    /// As [`StoredFile::write_at`].
    fn zero(&self, offset: u64, length: u64) -> io::Result<()>;

    /// What was written before the call stays.
    ///
    /// # Errors
    /// The disk fails: what stays is not known.
    fn sync(&self) -> io::Result<()>;

    /// Locks it as flock(2) does; false if somebody else has it.
    fn lock(&self, lock: Lock) -> bool;
}

/// How a file is to be opened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// It will be written to.
    pub write: bool,
    /// It is made when it is absent.
    pub create: bool,
    /// It has to be absent.
    pub create_new: bool,
}

/// A lock that is not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Others may have such a one as well.
    Shared,
    /// Nobody else has any.
    Exclusive,
}

/// What something with a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with content of its own.
    Plain,
    /// A block device.
    BlockDevice,
    /// A directory, a pipe, a socket, …
    Other,
}

/// What a file is kept in, as far as its locks are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// One of this host alone: the kernel that has the locks is the one that carries out the writes.
    OfThisHost,
    /// Another one, by its name if that is known, and the number that statfs(2) gives it.
    Other(&'static str, u64),
}

/// statfs(2) and the kernel's `include/uapi/linux/magic.h`; of ZFS, its own sources.
const OF_THIS_HOST: [u64; 8] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
];
const OTHERS: [(u64, &str); 9] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE"),
    (0x00c3_6400, "Ceph"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x5346_414f, "AFS"),
];

impl FileSystem {
    fn numbered(number: u64) -> FileSystem {
        if OF_THIS_HOST.contains(&number) {
            return FileSystem::OfThisHost;
        }
        let name = OTHERS.iter().find(|(other, _)| *other == number);
        FileSystem::Other(name.map_or("a file system", |(_, name)| *name), number)
    }
}

impl From<fs::FileType> for Kind {
    fn from(kind: fs::FileType) -> Kind {
        if kind.is_file() {
            Kind::Plain
        } else if kind.is_block_device() {
            Kind::BlockDevice
        } else {
            Kind::Other
        }
    }
}

/// How a file is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    host: fs::OpenOptions,
    opening: Opening,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions::new()
    }
}

impl OpenOptions {
    /// For nothing yet.
    pub fn new() -> OpenOptions {
        OpenOptions {
            host: fs::OpenOptions::new(),
            opening: Opening::default(),
        }
    }

    /// To read it.
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.host.read(read);
        self
    }

    /// To write to it.
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.host.write(write);
        self.opening.write = write;
        self
    }

    /// It is made when it is absent, and kept as it is otherwise.
    pub fn create(&mut self, create: bool) -> &mut OpenOptions {
        self.host.create(create).truncate(false);
        self.opening.create = create;
        self
    }

    /// It has to be absent, and is made.
    pub fn create_new(&mut self, create_new: bool) -> &mut OpenOptions {
        self.host.create_new(create_new);
        self.opening.create_new = create_new;
        self
    }

    /// The rights of a file that is made.
    pub fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.host.mode(mode);
        self
    }

    /// Flags of open(2).
    pub fn custom_flags(&mut self, flags: i32) -> &mut OpenOptions {
        self.host.custom_flags(flags);
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// As [`std::fs::OpenOptions::open`].
    pub fn open(&self, path: &Path) -> io::Result<File> {
        match with_current(|simulation| simulation.open(path, self.opening)) {
            None => self.host.open(path).map(File::Host),
            Some(opened) => opened.map(File::Simulated),
        }
    }
}

/// A file that is open.
#[derive(Debug)]
pub enum File {
    /// Of a host.
    Host(fs::File),
    /// Of a world.
    Simulated(Box<dyn StoredFile>),
}

impl File {
    /// Opens it to read it.
    ///
    /// # Errors
    /// As [`std::fs::File::open`].
    pub fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    /// What it is.
    ///
    /// # Errors
    /// The host does not say.
    pub fn kind(&self) -> io::Result<Kind> {
        match self {
            File::Host(file) => file.metadata().map(|there| there.file_type().into()),
            File::Simulated(_) => Ok(Kind::Plain),
        }
    }

    /// Device and number by which a host knows it, whatever its names; `None` in a world, where a file has one name.
    ///
    /// # Errors
    /// The host does not say.
    pub fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        match self {
            File::Host(file) => file
                .metadata()
                .map(|there| Some((there.dev(), there.ino()))),
            File::Simulated(_) => Ok(None),
        }
    }

    /// What it is kept in.
    ///
    /// # Errors
    /// The host does not say.
    pub fn file_system(&self) -> io::Result<FileSystem> {
        match self {
            // The kernel's type is another one on each architecture; the numbers have 32 bits.
            File::Host(file) => {
                let number = u64::from(rustix::fs::fstatfs(file)?.f_type as u32);
                Ok(FileSystem::numbered(number))
            }
            File::Simulated(_) => Ok(FileSystem::OfThisHost),
        }
    }

    /// The bytes of a file or a block device.
    ///
    /// # Errors
    /// The host does not say.
    pub fn length(&self) -> io::Result<u64> {
        match self {
            File::Host(file) => {
                let mut file = file;
                let length = file.seek(SeekFrom::End(0))?;
                file.rewind()?;
                Ok(length)
            }
            File::Simulated(file) => Ok(file.length()),
        }
    }

    /// Reads as much as `buffer` holds, from `offset` on.
    ///
    /// # Errors
    /// There is less, or the disk fails.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            File::Host(file) => file.read_exact_at(buffer, offset),
            File::Simulated(file) => match file.read_at(buffer, offset)? {
                length if length == buffer.len() => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        }
    }

    /// Reads from `offset` on, and says how much there was: less than `buffer` holds only at the end.
    ///
    /// # Errors
    /// The disk fails.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = match self {
            File::Host(file) => file,
            File::Simulated(file) => return file.read_at(buffer, offset),
        };
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(length) => done += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all of it at `offset`.
    ///
    /// # Errors
    /// The disk fails, or is full.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            File::Host(file) => file.write_all_at(bytes, offset),
            File::Simulated(file) => file.write_at(bytes, offset),
        }
    }

    /// Cuts it, or adds zeros.
    ///
    /// # Errors
    /// The disk fails, or is full, or it is no plain file.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        match self {
            File::Host(file) => file.set_len(length),
            File::Simulated(file) => file.set_length(length),
        }
    }

    /// Makes bytes zero by forgetting them, which keeps the length.
    ///
    /// # Errors
    /// The file system cannot, or the disk fails.
    pub fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        match self {
            File::Host(file) => {
                let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(fallocate(file, punch, offset, length)?)
            }
            File::Simulated(file) => file.zero(offset, length),
        }
    }

    /// Where there may be something else than zeros, at or after `offset`; `None` if nothing follows. A
    /// file system that does not say so says `offset`, and so does a world.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        match self {
            File::Host(file) => match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
                Ok(data) => Some(data.max(offset)),
                Err(Errno::NXIO) => None,
                Err(_) => Some(offset),
            },
            File::Simulated(_) => Some(offset),
        }
    }

    /// What was written and synced is read from the disk from here on, and not from memory: an error of
    /// which nobody was told may have left something else on the disk than there. A host need not do it.
    pub fn forget_cached(&self) {
        if let File::Host(file) = self {
            // Advice that is not taken changes nothing.
            let _taken = fadvise(file, 0, None, Advice::DontNeed);
        }
    }

    /// What was written stays, and what is known of the file.
    ///
    /// # Errors
    /// The disk fails: what stays is not known.
    pub fn sync_all(&self) -> io::Result<()> {
        match self {
            File::Host(file) => file.sync_all(),
            File::Simulated(file) => file.sync(),
        }
    }

    /// What was written stays.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    pub fn sync_data(&self) -> io::Result<()> {
        match self {
            File::Host(file) => file.sync_data(),
            File::Simulated(file) => file.sync(),
        }
    }

    /// Locks it, until it is closed.
    ///
    /// # Errors
    /// [`Errno::WOULDBLOCK`] if somebody else has it; others as flock(2) has them.
    pub fn lock(&self, lock: Lock) -> Result<(), Errno> {
        match self {
            File::Host(file) => {
                let operation = match lock {
                    Lock::Shared => FlockOperation::NonBlockingLockShared,
                    Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
                };
                flock(file, operation)
            }
            File::Simulated(file) => file.lock(lock).then_some(()).ok_or(Errno::WOULDBLOCK),
        }
    }
}

/// The content of a file, `limit` bytes of it at most.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    match File::open(path)? {
        File::Host(file) => {
            let mut content = Vec::new();
            file.take(limit).read_to_end(&mut content)?;
            Ok(content)
        }
        File::Simulated(file) => {
            let mut content = vec![0; file.length().min(limit) as usize];
            let length = file.read_at(&mut content, 0)?;
            content.truncate(length);
            Ok(content)
        }
    }
}

/// What has this name, and how many bytes a plain file has.
///
/// # Errors
/// Nothing has it.
pub fn look_at(path: &Path) -> io::Result<(Kind, u64)> {
    let simulated = with_current(|simulation| simulation.open(path, Opening::default()));
    match simulated {
        None => fs::metadata(path).map(|there| (there.file_type().into(), there.len())),
        Some(opened) => opened.map(|file| (Kind::Plain, file.length())),
    }
}

/// How many bytes the file system of this file or directory has room for; `None` in a world, which says nothing of that.
///
/// # Errors
/// As statvfs(3).
pub fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
    if current().is_some() {
        return Ok(None);
    }
    let file_system = rustix::fs::statvfs(path)?;
    Ok(Some(
        file_system.f_bavail.saturating_mul(file_system.f_frsize),
    ))
}

/// Whether there is a directory of this name. In a world every directory is there.
pub fn is_directory(path: &Path) -> bool {
    current().is_some() || path.is_dir()
}

/// Takes a file's name away.
///
/// # Errors
/// As [`std::fs::remove_file`].
pub fn remove_file(path: &Path) -> io::Result<()> {
    match current() {
        None => fs::remove_file(path),
        Some(simulation) => simulation.remove_file(path),
    }
}

/// Gives a file another name; whatever had that is no more.
///
/// # Errors
/// As [`std::fs::rename`].
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match current() {
        None => fs::rename(from, to),
        Some(simulation) => simulation.rename(from, to),
    }
}

/// The names in a directory that are UTF-8, in order.
///
/// # Errors
/// As [`std::fs::read_dir`].
pub fn names(path: &Path) -> io::Result<Vec<String>> {
    if let Some(simulation) = current() {
        return simulation.names(path);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes a directory for its owner alone, and those above it; one that is there stays as it is. In a world
/// every directory is there.
///
/// # Errors
/// As [`std::fs::create_dir_all`].
pub fn create_directory(path: &Path) -> io::Result<()> {
    match current() {
        None => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path),
        Some(_) => Ok(()),
    }
}

/// Removes a directory with the files in it.
///
/// # Errors
/// There are directories in it, or as [`std::fs::remove_dir`].
pub fn remove_directory(path: &Path) -> io::Result<()> {
    for name in names(path)? {
        remove_file(&path.join(name))?;
    }
    match current() {
        None => fs::remove_dir(path),
        Some(_) => Ok(()),
    }
}

/// What names the files of a directory have stays.
///
/// # Errors
/// The disk fails.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    match current() {
        None => fs::File::open(path)?.sync_all(),
        Some(simulation) => simulation.sync_directory(path),
    }
}
