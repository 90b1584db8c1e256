//! The files of one journal in a bucket: each is a row of objects, named by where they begin in the file.
//!
//! `00000001.segment/0000000000000000` and on, one for each commit. The name of the next object of a journal follows
//! from those that are there: behind the last bytes of the last segment, or, when that has ended, at the beginning of
//! the one after it. Whoever puts it adds to the journal, or ends the segment. One that goes on from the journal ends it
//! by a *fence*, and with it everybody else who writes: all put without overwriting, and each has to have the name.
//!
//! `00000001.snapshot/0000000000000000` and on, and `00000001.snapshot/whole` when it is.

use super::bucket::{PatientBucket, is_there};
use super::bucket_readers::{Announced, BucketHold, Readers};
use super::{
    Asking, Hold, JournalFile, JournalFiles, Listing, READ_BYTES, ReadFile, SegmentFile,
    SnapshotFile,
};
use crate::host_time::monotonic;
use crate::journal::ReadMeter;
use replication::succession::RunId;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What ends a segment begins like this; then a version, and who put it. No commit, and no head of a segment, is as
/// short as that.
const END_MAGIC: [u8; 8] = *b"USTDYEND";
const END_VERSION: u16 = 1;
/// Bytes of what its writer ends a segment by, and of a fence, which has one more.
const END_BYTES: u64 = 26;
const FENCE_BYTES: u64 = 27;
/// Bytes of an object of a snapshot: as many as are put in a second or so, within these bounds. For so long what outputs wait for
/// may be behind it. The first one has less, for those who want nothing but its head; the second is the first that is
/// timed.
const MOST_OBJECT_BYTES: usize = 4 << 20;
const LEAST_OBJECT_BYTES: usize = 128 << 10;
const TIMED_OBJECT_BYTES: usize = LEAST_OBJECT_BYTES;
const FIRST_OBJECT_BYTES: usize = 4096;
const OBJECT_TIME: Duration = Duration::from_secs(1);
/// What says that a snapshot is whole.
const WHOLE: &str = "whole";
/// The longest of it: a number.
const WHOLE_LIMIT_BYTES: u64 = 20;
/// A writer looks this often whether what it put before is still there, and whenever the bucket did not answer at once: the
/// service behind it may be another one since, or the same from before.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

fn end_object(run: RunId) -> Vec<u8> {
    let mut bytes = END_MAGIC.to_vec();
    bytes.extend_from_slice(&END_VERSION.to_le_bytes());
    bytes.extend_from_slice(&run.0.to_le_bytes());
    bytes
}

fn fence_object(run: RunId) -> Vec<u8> {
    let mut bytes = end_object(run);
    bytes.push(b'F');
    bytes
}

fn offset_name(file: &str, offset: u64) -> String {
    format!("{file}/{offset:016}")
}

/// The objects of one segment, as far as one follows the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    objects: Vec<(String, u64)>,
    bytes: u64,
    /// What ends it.
    end: Option<String>,
}

impl Row {
    /// Of objects by where they begin.
    fn of(objects: &BTreeMap<u64, (String, u64)>) -> Row {
        let mut row = Row::default();
        while let Some((name, bytes)) = objects.get(&row.bytes) {
            if matches!(*bytes, END_BYTES | FENCE_BYTES) {
                row.end = Some(name.clone());
                break;
            }
            row.objects.push((name.clone(), *bytes));
            row.bytes += bytes;
        }
        row
    }
}

/// Everything that there is of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Everything {
    segments: BTreeMap<u64, Row>,
    /// Bytes of the objects of snapshots, and whether it is said that they are whole.
    snapshots: BTreeMap<u64, (u64, bool)>,
}

impl Everything {
    fn of(root: &str, objects: Vec<(String, u64)>) -> Everything {
        let mut segments: BTreeMap<u64, BTreeMap<u64, (String, u64)>> = BTreeMap::new();
        let mut snapshots: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
        for (name, bytes) in objects {
            let parts = name
                .strip_prefix(root)
                .and_then(|name| name.split_once('/'));
            let Some((file, at)) = parts else {
                continue;
            };
            if let Some(Ok(number)) = file.strip_suffix(".segment").map(str::parse)
                && let Ok(offset) = at.parse()
            {
                let segment = segments.entry(number).or_default();
                segment.insert(offset, (name, bytes));
            } else if let Some(Ok(number)) = file.strip_suffix(".snapshot").map(str::parse) {
                let snapshot = snapshots.entry(number).or_default();
                match at == WHOLE {
                    true => snapshot.1 = true,
                    false => snapshot.0 += bytes,
                }
            }
        }
        let rows = segments.into_iter();
        let rows = rows.map(|(number, objects)| (number, Row::of(&objects)));
        // One without a beginning is being removed.
        let rows = rows.filter(|(_, row)| row.bytes > 0 || row.end.is_some());
        Everything {
            segments: rows.collect(),
            snapshots,
        }
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing::default();
        for (number, row) in &self.segments {
            if row.objects.is_empty() {
                listing.fences.insert(*number);
            } else {
                listing.segments.insert(*number, row.bytes);
            }
        }
        let whole = self.snapshots.iter();
        let whole = whole.filter_map(|(number, (bytes, whole))| whole.then_some((*number, *bytes)));
        listing.snapshots = whole.collect();
        listing
    }
}

/// The files of one journal.
#[derive(Debug)]
pub(super) struct BucketFiles {
    bucket: Arc<PatientBucket>,
    /// The beginning of all names.
    root: String,
    readers: Readers,
}

impl BucketFiles {
    /// Of the journal of this name; without one, of the bucket's prefix itself.
    pub fn new(bucket: Arc<PatientBucket>, name: Option<String>) -> BucketFiles {
        let root = name.map_or_else(String::new, |name| format!("{name}/"));
        BucketFiles {
            bucket,
            root,
            readers: Readers::default(),
        }
    }

    fn name(&self, file: JournalFile) -> String {
        format!("{}{file}", self.root)
    }

    fn everything(&self) -> io::Result<Everything> {
        let list = self.bucket.list(&self.root, false)?;
        Ok(Everything::of(&self.root, list.objects))
    }

    fn gone(&self, file: JournalFile) -> io::Error {
        let why = format!("{} is not there", self.path(Some(file)).display());
        io::Error::new(io::ErrorKind::NotFound, why)
    }

    /// Removes the journal, but for its fences. False: somebody reads it.
    pub fn remove_everything(&self) -> io::Result<bool> {
        let there = self.everything()?;
        let segments = there.segments.keys();
        let segments = segments.map(|number| JournalFile::Segment(*number));
        let snapshots = there.snapshots.keys();
        let snapshots = snapshots.map(|number| JournalFile::Snapshot(*number));
        let files: Vec<JournalFile> = segments.chain(snapshots).collect();
        self.remove(&files, u64::MAX)
    }

    /// The objects of a snapshot that is whole.
    fn snapshot_objects(&self, number: u64) -> io::Result<Vec<(String, u64)>> {
        let file = JournalFile::Snapshot(number);
        let name = self.name(file);
        let whole = format!("{name}/{WHOLE}");
        let said = self.bucket.get(&whole, WHOLE_LIMIT_BYTES)?;
        let said = said.ok_or_else(|| self.gone(file))?;
        let mut objects = self.bucket.list(&format!("{name}/"), false)?.objects;
        objects.retain(|(name, _)| *name != whole);
        let bytes: u64 = objects.iter().map(|(_, bytes)| bytes).sum();
        if said != bytes.to_string().as_bytes() {
            let said = String::from_utf8_lossy(&said);
            let why =
                format!("its objects have {bytes} bytes, and {whole} says that it has {said}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(objects)
    }

    /// Looks whether there is anything of a segment that the next one follows: it is needed until a snapshot is whole with which
    /// that one begins.
    fn look_for_segment(&self, number: u64) -> io::Result<()> {
        let name = self.name(JournalFile::Segment(number));
        let list = self.bucket.list(&format!("{name}/"), false)?;
        match list.objects.is_empty() {
            true => Err(gone(&name)),
            false => Ok(()),
        }
    }
}

impl JournalFiles for BucketFiles {
    fn path(&self, file: Option<JournalFile>) -> PathBuf {
        let file = file.map_or_else(String::new, |file| file.to_string());
        let name = format!("{}/{}{file}", self.bucket.place(), self.root);
        name.trim_end_matches('/').into()
    }

    /// But for what somebody is about to remove.
    fn list(&self) -> io::Result<Listing> {
        let going = Announced::read(&self.bucket, &self.root)?.files;
        let mut listing = self.everything()?.listing();
        let stays = |file: JournalFile| !going.contains(&file.to_string());
        listing
            .segments
            .retain(|number, _| stays(JournalFile::Segment(*number)));
        listing
            .snapshots
            .retain(|number, _| stays(JournalFile::Snapshot(*number)));
        Ok(listing)
    }

    fn open(&self, file: JournalFile) -> io::Result<Box<dyn ReadFile>> {
        let objects = match file {
            JournalFile::Segment(number) => {
                let name = format!("{}/", self.name(file));
                let list = self.bucket.list(&name, false)?;
                let mut everything = Everything::of(&self.root, list.objects);
                let row = everything.segments.remove(&number);
                row.ok_or_else(|| self.gone(file))?.objects
            }
            JournalFile::Snapshot(number) => self.snapshot_objects(number)?,
        };
        Ok(Box::new(OpenObjects {
            bucket: self.bucket.clone(),
            objects: objects.into(),
            is_begun: false,
            meter: ReadMeter::default(),
        }))
    }

    fn begin_segment(
        &self,
        number: u64,
        bytes: &[u8],
        told: &mut dyn FnMut(Asking),
    ) -> io::Result<Box<dyn SegmentFile>> {
        let name = self.name(JournalFile::Segment(number));
        let _hurry = self.bucket.hurry();
        self.bucket.create(&offset_name(&name, 0), bytes, told)?;
        if number > 1 {
            // Its own objects are all that is looked for from here on.
            self.look_for_segment(number - 1)?;
        }
        Ok(Box::new(OpenSegment {
            bucket: self.bucket.clone(),
            name,
            last: 0,
            written: bytes.len() as u64,
            looked: monotonic(),
        }))
    }

    fn begin_snapshot(&self, number: u64) -> io::Result<Box<dyn SnapshotFile>> {
        Ok(Box::new(OpenSnapshot {
            bucket: self.bucket.clone(),
            name: self.name(JournalFile::Snapshot(number)),
            waiting: Vec::new(),
            written: 0,
            most_bytes: FIRST_OBJECT_BYTES,
        }))
    }

    /// An object is there whole, or not at all.
    fn cut(&self, segment: u64, good_bytes: u64) -> io::Result<()> {
        let bytes = self.list()?.segments.get(&segment).copied();
        match bytes == Some(good_bytes) {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "nothing is cut in a bucket",
            )),
        }
    }

    fn may_be_torn(&self) -> bool {
        false
    }

    fn is_locked(&self) -> bool {
        false
    }

    fn hold(&self) -> io::Result<Box<dyn Hold>> {
        let hold = BucketHold::begin(self.bucket.clone(), &self.root)?;
        Ok(Box::new(hold))
    }

    fn remove(&self, files: &[JournalFile], newest: u64) -> io::Result<bool> {
        // With what somebody before has announced, and not carried out.
        let mut going = Announced::read(&self.bucket, &self.root)?;
        if !files.is_empty() {
            going.announce(&self.bucket, &self.root, files)?;
        }
        if self.readers.are_there(&self.bucket, &self.root)? {
            going.withdraw(&self.bucket)?;
            return Ok(false);
        }
        for file in &going.files {
            let name = format!("{}{file}", self.root);
            self.bucket.remove(&format!("{name}/{WHOLE}"))?;
            remove_all(&self.bucket, &format!("{name}/"))?;
        }
        let unfinished = self.everything()?.snapshots;
        let unfinished = unfinished.range(..newest).filter(|(_, (_, whole))| !whole);
        for (number, _) in unfinished {
            let name = self.name(JournalFile::Snapshot(*number));
            remove_all(&self.bucket, &format!("{name}/"))?;
        }
        going.withdraw(&self.bucket)?;
        Ok(true)
    }

    /// Puts an object of its own behind what is there. Whatever somebody else has put meanwhile is before it, and
    /// belongs to the journal.
    fn fence(&self, run: RunId) -> io::Result<()> {
        let own = fence_object(run);
        loop {
            let segments = self.everything()?.segments;
            let next = match segments.last_key_value() {
                None => offset_name(&self.name(JournalFile::Segment(1)), 0),
                Some((number, row)) => match &row.end {
                    None => offset_name(&self.name(JournalFile::Segment(*number)), row.bytes),
                    Some(end)
                        if self.bucket.get(end, FENCE_BYTES)?.as_deref() == Some(&own[..]) =>
                    {
                        return Ok(());
                    }
                    Some(_) => offset_name(&self.name(JournalFile::Segment(number + 1)), 0),
                },
            };
            match self.bucket.create(&next, &own, &mut |_| {}) {
                Err(error) if is_there(&error) => {}
                other => return other,
            }
        }
    }
}

/// Removes everything of a journal that begins like this, the first first, but for fences: they keep those off who wrote
/// before, and may have slept ever since.
///
/// The first goes alone: without its beginning a file is none, whichever of the others are still there when everything ends,
/// and what was announced to go is removed by whoever removes next.
fn remove_all(bucket: &Arc<PatientBucket>, beginning: &str) -> io::Result<()> {
    let objects = bucket.list(beginning, false)?.objects.into_iter();
    let going =
        objects.filter(|(name, bytes)| *bytes != FENCE_BYTES || !name.contains(".segment/"));
    let mut names = going.map(|(name, _)| name);
    if let Some(first) = names.next() {
        bucket.remove(&first)?;
    }
    bucket.remove_many(&names.collect::<Vec<_>>())
}

/// A file that is read.
struct OpenObjects {
    bucket: Arc<PatientBucket>,
    objects: VecDeque<(String, u64)>,
    is_begun: bool,
    meter: ReadMeter,
}

impl ReadFile for OpenObjects {
    fn next_bytes(&mut self) -> io::Result<Vec<u8>> {
        // Many want nothing but the beginning.
        let most = if self.is_begun { READ_BYTES as u64 } else { 1 };
        self.is_begun = true;
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < most
            && let Some((name, length)) = self.objects.pop_front()
        {
            bytes += length;
            taken.push((name, length));
        }
        Ok(self.bucket.get_all(&taken, &self.meter)?.concat())
    }

    fn is_counted_by(&mut self, meter: &ReadMeter) -> bool {
        self.meter = meter.clone();
        true
    }
}

/// What this process had put is not there.
fn gone(what: &str) -> io::Error {
    let why = format!(
        "{what} was put and is not there any more: the bucket was emptied, or is as it was before, or another process goes on \
         from this journal and has removed it"
    );
    io::Error::new(io::ErrorKind::NotFound, why)
}

/// A segment that is written.
struct OpenSegment {
    bucket: Arc<PatientBucket>,
    name: String,
    /// Where the object begins that was put last.
    last: u64,
    written: u64,
    looked: Duration,
}

impl OpenSegment {
    /// Looks whether the object that was put last is there. Put without overwriting, an object says nothing of those before
    /// it: a service that has lost them takes it as well.
    fn look(&mut self) -> io::Result<()> {
        let name = offset_name(&self.name, self.last);
        let length = self.written - self.last;
        let objects = self.bucket.list(&name, false)?.objects;
        let is_there = objects
            .iter()
            .any(|(object, bytes)| *object == name && *bytes == length);
        if is_there {
            self.looked = monotonic();
            return Ok(());
        }
        Err(gone(&format!("{name}, of {length} bytes,")))
    }
}

impl SegmentFile for OpenSegment {
    fn append(&mut self, bytes: &[u8], told: &mut dyn FnMut(Asking)) -> io::Result<()> {
        let length = bytes.len() as u64;
        assert!(length > FENCE_BYTES, "a commit of {length} bytes");
        let name = offset_name(&self.name, self.written);
        let mut was_silent = false;
        let _hurry = self.bucket.hurry();
        self.bucket.create(&name, bytes, &mut |asking| {
            was_silent |= matches!(asking, Asking::Waits(_));
            told(asking);
        })?;
        if was_silent || monotonic() >= self.looked + BETWEEN_LOOKS {
            self.look()?;
        }
        self.last = self.written;
        self.written += length;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let name = offset_name(&self.name, self.written);
        let end = end_object(self.bucket.run);
        let _hurry = self.bucket.hurry();
        self.bucket.create(&name, &end, &mut |_| {})
    }
}

/// A snapshot that is written.
struct OpenSnapshot {
    bucket: Arc<PatientBucket>,
    name: String,
    waiting: Vec<u8>,
    written: u64,
    /// The next object has so many bytes.
    most_bytes: usize,
}

/// How many bytes are put in a second or so, when so many took that long.
fn object_bytes(bytes: usize, took: Duration) -> usize {
    let in_time = bytes as f64 * OBJECT_TIME.as_secs_f64() / took.as_secs_f64().max(1e-3);
    (in_time as usize).clamp(LEAST_OBJECT_BYTES, MOST_OBJECT_BYTES)
}

impl OpenSnapshot {
    fn put(&mut self, bytes: usize) -> io::Result<()> {
        let rest = self.waiting.split_off(bytes);
        let object = std::mem::replace(&mut self.waiting, rest);
        let name = offset_name(&self.name, self.written);
        self.bucket.give_way();
        let begun = monotonic();
        self.bucket.create_slowly(&name, &object)?;
        let took = monotonic().saturating_sub(begun);
        self.most_bytes = match self.written {
            0 => TIMED_OBJECT_BYTES,
            _ => object_bytes(object.len(), took),
        };
        self.written += object.len() as u64;
        Ok(())
    }
}

impl SnapshotFile for OpenSnapshot {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        while self.waiting.len() >= self.most_bytes {
            self.put(self.most_bytes)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.waiting.len() {
            0 => Ok(()),
            bytes => self.put(bytes),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let name = format!("{}/{WHOLE}", self.name);
        let bytes = self.written.to_string();
        self.bucket.create(&name, bytes.as_bytes(), &mut |_| {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything(objects: &[(&str, u64)]) -> Everything {
        let objects = objects
            .iter()
            .map(|(name, bytes)| (format!("j/{name}"), *bytes));
        Everything::of("j/", objects.collect())
    }

    #[test]
    fn an_object_of_a_snapshot_is_put_in_a_second_or_so_as_far_as_its_bounds_let_it() {
        let second = Duration::from_secs(1);
        assert_eq!(object_bytes(512 << 10, second / 2), 1 << 20);
        assert_eq!(object_bytes(1 << 20, second * 4), 256 << 10);
        assert_eq!(object_bytes(512 << 10, second * 60), LEAST_OBJECT_BYTES);
        assert_eq!(object_bytes(512 << 10, Duration::ZERO), MOST_OBJECT_BYTES);
    }

    #[test]
    fn what_follows_in_a_row_is_a_segment_and_what_is_behind_an_end_or_a_gap_is_none_of_it() {
        let objects = [
            ("00000001.segment/0000000000000000", 100),
            ("00000001.segment/0000000000000100", 50),
            ("00000001.segment/0000000000000150", END_BYTES),
            // A late put behind it.
            ("00000001.segment/0000000000000176", 70),
            ("00000002.segment/0000000000000000", FENCE_BYTES),
            ("00000003.segment/0000000000000000", 90),
            ("00000003.segment/0000000000000190", 90),
            // Removed, but for what keeps others off.
            ("00000000.segment/0000000000000010", FENCE_BYTES),
            ("00000001.snapshot/0000000000000000", 4096),
            ("00000001.snapshot/0000000000004096", 10),
            ("00000001.snapshot/whole", 4),
            ("00000003.snapshot/0000000000000000", 4096),
            ("something/else", 3),
        ];
        let listing = everything(&objects).listing();
        assert_eq!(listing.segments, [(1, 150), (3, 90)].into());
        assert_eq!(listing.fences, [2].into());
        assert_eq!(listing.snapshots, [(1, 4106)].into());
        assert_eq!(listing.next_segment(), 4);
    }
}
