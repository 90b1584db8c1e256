//! A simulated host's files, behind a page cache: what was not synced is lost with the power, or kept, or
//! torn, as the seed says.

use super::shared::{Process, ProcessId, Shared, State};
use super::storage::Storage;
use crate::random::Random;
use environment::Parked;
use environment::fs::{Lock, Opening, StoredFile};
use replication::journal::SnapshotFileReader;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a disk writes as a whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;
/// In the name of what lies over an image.
const OVERLAY: &str = ".overlay-";
const MS: u64 = 1_000_000;
/// Whose memory changes of a host's own files are in.
const OWN: usize = 0;

/// How a host's disk behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskMood {
    /// As it should.
    #[default]
    Well,
    /// Everything takes long.
    Slow,
    /// Nothing can be written or synced.
    Failing,
    /// No file gets longer, and none is made.
    Full,
}

/// A change that a loss of power may undo.
#[derive(Clone, Debug)]
pub enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(offset, bytes) => {
                let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                if content.len() < to {
                    content.resize(to, 0);
                }
                content[from..to].copy_from_slice(bytes);
            }
            Change::Length(length) => content.resize(*length as usize, 0),
        }
    }

    /// As much of it as was written when the power went.
    fn torn(self, random: &mut Random) -> Change {
        match self {
            Change::Write(offset, mut bytes) => {
                let sectors = bytes.len() / SECTOR_BYTES;
                let kept = random.between(0, sectors as u64) as usize;
                bytes.truncate(kept * SECTOR_BYTES);
                Change::Write(offset, bytes)
            }
            Change::Length(_) => self,
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    /// What a reader sees.
    now: Vec<u8>,
    /// What a loss of power leaves at least.
    synced: Vec<u8>,
    /// What is between the two, numbered in order, with the node in whose memory it is.
    unsynced: Vec<(u64, usize, Change)>,
    /// Who has it locked, handle by handle.
    locks: BTreeMap<u64, Lock>,
}

impl Content {
    /// Everything that was written before change `before` stays.
    fn synced_up_to(&mut self, before: u64, node: usize) {
        let (synced, rest) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|(number, its, _)| *number < before && *its == node);
        self.unsynced = rest;
        for (_, _, change) in synced {
            Change::apply(&change, &mut self.synced);
        }
    }

    /// Each change that was in the memory of this node has reached the disk, or has not, or a part of it.
    fn lose_memory_of(&mut self, node: usize, random: &mut Random) {
        let kept_percent = random.pick(&[0, 50, 100]);
        let (lost, rest) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|(_, its, _)| *its == node);
        self.unsynced = rest;
        for (_, _, change) in lost {
            let change: Change = change;
            if random.percent(kept_percent) {
                let is_torn = random.percent(20);
                let change = if is_torn { change.torn(random) } else { change };
                change.apply(&mut self.synced);
            }
        }
        self.now = self.synced.clone();
        for (_, _, change) in &self.unsynced {
            change.apply(&mut self.now);
        }
    }
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Put(path, file) => {
                names.insert(path.clone(), *file);
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            NameChange::Put(path, _) | NameChange::Remove(path) | NameChange::Rename(_, path) => {
                path.parent()
            }
        }
    }
}

/// All files of one host.
#[derive(Debug, Default)]
pub struct Files {
    /// How its disk behaves.
    pub mood: DiskMood,
    contents: BTreeMap<u64, Content>,
    /// As a reader sees them; what a loss of power leaves at least; and what is between the two, in order.
    names: BTreeMap<PathBuf, u64>,
    synced_names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<NameChange>,
    next: u64,
}

impl Files {
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A file that was always there.
    pub fn put(&mut self, path: &Path, content: Vec<u8>) {
        let file = self.number();
        let content = Content {
            synced: content.clone(),
            now: content,
            ..Content::default()
        };
        self.contents.insert(file, content);
        self.names.insert(path.into(), file);
        self.synced_names.insert(path.into(), file);
    }

    /// What a reader sees.
    pub fn content(&self, path: &Path) -> Option<&[u8]> {
        let file = self.names.get(path)?;
        Some(&self.contents[file].now)
    }

    /// Whether a file has this name.
    pub(super) fn is_called(&self, file: u64, path: &Path) -> bool {
        self.names.get(path) == Some(&file)
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn open(&mut self, path: &Path, how: Opening) -> io::Result<u64> {
        match self.names.get(path) {
            Some(_) if how.create_new => Err(ErrorKind::AlreadyExists.into()),
            Some(file) => Ok(*file),
            None if !how.create && !how.create_new => Err(ErrorKind::NotFound.into()),
            None => {
                self.may_write(true)?;
                let file = self.number();
                self.contents.insert(file, Content::default());
                self.change_name(NameChange::Put(path.into(), file));
                Ok(file)
            }
        }
    }

    fn may_write(&self, grows: bool) -> io::Result<()> {
        match self.mood {
            DiskMood::Failing => Err(io::Error::other("the disk fails (simulated)")),
            DiskMood::Full if grows => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// It is in the memory of this node, and everybody sees it.
    pub(super) fn change_of(&mut self, node: usize, file: u64, change: Change) {
        let number = self.number();
        if let Some(content) = self.contents.get_mut(&file) {
            change.apply(&mut content.now);
            content.unsynced.push((number, node, change));
        }
    }

    /// What this node has of it in its memory stays.
    pub(super) fn sync_of(&mut self, node: usize, file: u64) {
        if let Some(content) = self.contents.get_mut(&file) {
            content.synced_up_to(u64::MAX, node);
        }
    }

    /// Whoever had it locked by this handle has it no more.
    pub(super) fn unlock(&mut self, file: u64, handle: u64) {
        if let Some(content) = self.contents.get_mut(&file) {
            content.locks.remove(&handle);
        }
    }

    /// A node that has these files in common with others has lost its power. What names they have the server knows.
    pub fn lose_memory_of(&mut self, node: usize, random: &mut Random) {
        for content in self.contents.values_mut() {
            content.lose_memory_of(node, random);
        }
    }

    fn sync_names(&mut self, directory: &Path) {
        let (synced, rest) = std::mem::take(&mut self.unsynced_names)
            .into_iter()
            .partition(|change: &NameChange| change.directory() == Some(directory));
        self.unsynced_names = rest;
        for change in synced {
            NameChange::apply(&change, &mut self.synced_names);
        }
    }

    /// The host has lost its power. True if anything was lost that a reader had seen.
    pub fn lose_power(&mut self, random: &mut Random) -> bool {
        let before: BTreeMap<PathBuf, Vec<u8>> = self.seen();
        let kept = random.between(0, self.unsynced_names.len() as u64) as usize;
        for change in &self.unsynced_names[..kept] {
            change.apply(&mut self.synced_names);
        }
        self.unsynced_names.clear();
        self.names = self.synced_names.clone();
        let named: Vec<u64> = self.names.values().copied().collect();
        self.contents.retain(|file, _| named.contains(file));
        for content in self.contents.values_mut() {
            content.lose_memory_of(OWN, random);
            content.locks.clear();
        }
        self.seen() != before
    }

    fn seen(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let names = self.names.iter();
        names
            .map(|(path, file)| (path.clone(), self.contents[file].now.clone()))
            .collect()
    }
}

impl State {
    /// Those of its host, or what all hosts reach.
    fn files_of(&mut self, process: ProcessId, is_stored: bool) -> &mut Files {
        match is_stored {
            true => &mut self.storage.files,
            false => {
                let node = self.process(process).node;
                &mut self.files[node]
            }
        }
    }

    fn files_at(&mut self, process: ProcessId, path: &Path) -> &mut Files {
        let is_stored = self.storage.has(path);
        self.files_of(process, is_stored)
    }

    /// What a reader of a node sees.
    pub fn content_at(&self, node: usize, path: &Path) -> Option<&[u8]> {
        match self.storage.has(path) {
            true => self.storage.files.content(path),
            false => self.files[node].content(path),
        }
    }

    /// How long a disk takes to sync, in nanoseconds.
    fn sync_ns(&mut self, process: ProcessId) -> u64 {
        match self.files_of(process, false).mood {
            DiskMood::Slow => self.random.between(50, 800) * MS,
            _ => self.random.between(100, 8_000) * 1_000,
        }
    }
}

/// Waits; an error when the process was killed.
fn wait(shared: &Shared, for_ns: u64) -> io::Result<()> {
    let until_ns = shared.lock().now_ns + for_ns;
    while shared.lock().now_ns < until_ns {
        if let Parked::Dying(_) = shared.park(Some(until_ns)) {
            return Err(ErrorKind::Interrupted.into());
        }
    }
    Ok(())
}

/// An open file.
pub struct SimulatedFile {
    shared: Arc<Shared>,
    process: ProcessId,
    file: u64,
    /// Names this handle.
    handle: u64,
    /// All hosts reach it.
    is_stored: bool,
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedFile({})", self.file)
    }
}

/// Opens a file of the process's host.
pub fn open(
    shared: &Arc<Shared>,
    process: ProcessId,
    path: &Path,
    how: Opening,
) -> io::Result<SimulatedFile> {
    let mut state = shared.lock();
    let is_stored = state.storage.has(path);
    let files = state.files_of(process, is_stored);
    let file = files.open(path, how)?;
    let handle = files.number();
    Ok(SimulatedFile {
        shared: shared.clone(),
        process,
        file,
        handle,
        is_stored,
    })
}

/// See [`environment::fs::remove_file`].
pub fn remove(shared: &Shared, process: ProcessId, path: &Path) -> io::Result<()> {
    let mut state = shared.lock();
    let files = state.files_at(process, path);
    if !files.names.contains_key(path) {
        return Err(ErrorKind::NotFound.into());
    }
    files.may_write(false)?;
    files.change_name(NameChange::Remove(path.into()));
    if path.to_string_lossy().contains(OVERLAY) {
        state.observer.count("overlay merged");
    }
    Ok(())
}

/// See [`environment::fs::rename`].
pub fn rename(shared: &Shared, process: ProcessId, from: &Path, to: &Path) -> io::Result<()> {
    let mut state = shared.lock();
    let files = state.files_at(process, from);
    if !files.names.contains_key(from) {
        return Err(ErrorKind::NotFound.into());
    }
    files.may_write(false)?;
    files.change_name(NameChange::Rename(from.into(), to.into()));
    if to.to_string_lossy().contains(OVERLAY) {
        state.observer.count("overlay written again");
    }
    let node = state.process(process).node;
    if is_increment(state.files[node].content(to)) {
        state.observer.count("snapshot built on another");
    }
    Ok(())
}

/// Whether it is the file of a journal's snapshot that builds on another one.
fn is_increment(content: Option<&[u8]>) -> bool {
    let mut reader = SnapshotFileReader::default();
    reader.push(content.unwrap_or_default());
    // What comes first is its head; what is no such file has none.
    let _first = reader.next_piece();
    reader.head().is_some_and(|head| head.builds_on.is_some())
}

/// See [`environment::fs::names`].
pub fn names(shared: &Shared, process: ProcessId, directory: &Path) -> Vec<String> {
    let mut state = shared.lock();
    let files = state.files_at(process, directory);
    let below = files.names.keys();
    let below = below.filter_map(|path| path.strip_prefix(directory).ok());
    let first = below.filter_map(|path| path.components().next());
    let mut names: Vec<String> = first
        .filter_map(|name| name.as_os_str().to_str().map(str::to_owned))
        .collect();
    names.dedup();
    names
}

/// See [`environment::fs::sync_directory`].
pub fn sync_directory(shared: &Shared, process: ProcessId, directory: &Path) -> io::Result<()> {
    let for_ns = shared.lock().sync_ns(process);
    wait(shared, for_ns)?;
    let mut state = shared.lock();
    let files = state.files_at(process, directory);
    files.may_write(false)?;
    files.sync_names(directory);
    Ok(())
}

impl SimulatedFile {
    /// A write takes its time, and may find out then that the disk fails.
    fn change(&self, grows_to: u64, change: Change) -> io::Result<()> {
        if self.is_stored {
            return self.send(change);
        }
        if self.shared.lock().files_of(self.process, false).mood == DiskMood::Slow {
            let for_ns = self.shared.lock().random.between(1, 30) * MS;
            wait(&self.shared, for_ns)?;
        }
        let mut state = self.shared.lock();
        let files = state.files_of(self.process, false);
        let length = files.length(self.file);
        files.may_write(grows_to > length)?;
        files.change_of(OWN, self.file, change);
        Ok(())
    }

    /// To where all hosts reach it. It lands though the process is stopped or dies meanwhile.
    fn send(&self, change: Change) -> io::Result<()> {
        let (number, for_ns) = {
            let mut state = self.shared.lock();
            let place = (self.file, self.handle);
            let number = state.flight_begins(self.process, place, change);
            (number, Storage::way_ns(&mut state.random))
        };
        let mut under_way = UnderWay {
            of: self,
            number: Some(number),
        };
        wait(&self.shared, for_ns)?;
        under_way.number = None;
        self.shared.lock().flight_lands(number);
        Ok(())
    }

    fn node(&self) -> usize {
        match self.is_stored {
            true => self.shared.lock().process(self.process).node,
            false => OWN,
        }
    }
}

/// A write that is on its way: whoever gives it up does not take it back.
struct UnderWay<'a> {
    of: &'a SimulatedFile,
    number: Option<u64>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.of.shared.lock();
            state.flight_is_orphaned(number, self.of.process);
        }
    }
}

impl Files {
    fn length(&self, file: u64) -> u64 {
        let content = self.contents.get(&file);
        content.map_or(0, |content| content.now.len() as u64)
    }
}

impl StoredFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.shared.lock();
        let files = state.files_of(self.process, self.is_stored);
        let Some(content) = files.contents.get(&self.file) else {
            return Ok(0);
        };
        let from = content.now.get(offset as usize..).unwrap_or(&[]);
        let length = from.len().min(buffer.len());
        buffer[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.change(end, Change::Write(offset, bytes.to_vec()))
    }

    fn length(&self) -> u64 {
        let mut state = self.shared.lock();
        let files = state.files_of(self.process, self.is_stored);
        files.length(self.file)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(length, Change::Length(length))
    }

    fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.length().min(offset.saturating_add(length));
        let zeros = vec![0; end.saturating_sub(offset) as usize];
        self.change(0, Change::Write(offset, zeros))
    }

    fn sync(&self) -> io::Result<()> {
        let (before, for_ns) = {
            let mut state = self.shared.lock();
            let files = state.files_of(self.process, self.is_stored);
            let before = files.number();
            (before, state.sync_ns(self.process))
        };
        wait(&self.shared, for_ns)?;
        let node = self.node();
        let mut state = self.shared.lock();
        let files = state.files_of(self.process, self.is_stored);
        files.may_write(false)?;
        if let Some(content) = files.contents.get_mut(&self.file) {
            content.synced_up_to(before, node);
        }
        Ok(())
    }

    fn lock(&self, lock: Lock) -> bool {
        let mut state = self.shared.lock();
        let files = state.files_of(self.process, self.is_stored);
        let Some(content) = files.contents.get_mut(&self.file) else {
            return true;
        };
        let in_the_way = content.locks.iter().any(|(handle, other)| {
            *handle != self.handle && (lock == Lock::Exclusive || *other == Lock::Exclusive)
        });
        if !in_the_way {
            content.locks.insert(self.handle, lock);
        }
        !in_the_way
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let handle = self.handle;
        let Process { node, silent, .. } = *state.process(self.process);
        if self.is_stored && !silent {
            // A host without power closes nothing; others send what they have before they give the lock back.
            state.storage.files.sync_of(node, self.file);
        }
        // A kernel closes a file when all that it was asked to do with it is done.
        if !(self.is_stored && state.storage.is_awaited(handle)) {
            let files = state.files_of(self.process, self.is_stored);
            files.unlock(self.file, handle);
        }
    }
}
