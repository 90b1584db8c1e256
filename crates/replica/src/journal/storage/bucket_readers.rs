//! Whoever reads a journal in a bucket holds it, and whoever removes from it says so first: nothing goes under a reader.
//!
//! A reader puts an object under `readers/` and then looks at what is announced under `going/`: that is not there for
//! it. Whoever removes announces what goes, and then looks at who reads: it removes nothing while there is one. So of
//! two at once, one at least sees the other. A reader that ended without a word holds the journal no longer than
//! [`LONGEST_HOLD`], by the clock of whoever would remove.

use super::bucket::PatientBucket;
use super::{Hold, JournalFile};
use crate::host_time::monotonic;
use crate::random;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A reader that has not said for so long that it still reads has ended.
const LONGEST_HOLD: Duration = Duration::from_secs(30 * 60);
/// It says so this often.
const RENEWAL: Duration = Duration::from_secs(5 * 60);
/// The longest announcement: two names of files for each of ten thousand snapshots.
const ANNOUNCEMENT_LIMIT_BYTES: u64 = 1 << 20;

/// Readers of one journal, as far as this process has seen them.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Since when each is there.
    seen: Mutex<BTreeMap<String, Duration>>,
}

impl Readers {
    /// Whether somebody reads.
    pub fn are_there(&self, bucket: &PatientBucket, root: &str) -> io::Result<bool> {
        let list = bucket.list(&format!("{root}readers/"), false)?;
        let names: BTreeSet<String> = list.objects.into_iter().map(|(name, _)| name).collect();
        let now = monotonic();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|name, _| names.contains(name));
        let mut ended = Vec::new();
        for name in names {
            let since = *seen.entry(name.clone()).or_insert(now);
            if now.saturating_sub(since) > LONGEST_HOLD {
                ended.push(name);
            }
        }
        for name in &ended {
            seen.remove(name);
        }
        let is_read = !seen.is_empty();
        drop(seen);
        for name in ended {
            bucket.remove(&name)?;
        }
        Ok(is_read)
    }
}

/// A journal that is read.
pub(super) struct BucketHold {
    bucket: Arc<PatientBucket>,
    /// The beginning of the names of its objects.
    name: String,
    number: u64,
    said: Duration,
}

impl BucketHold {
    /// Holds the journal whose names begin with `root`.
    pub fn begin(bucket: Arc<PatientBucket>, root: &str) -> io::Result<BucketHold> {
        let hold = BucketHold {
            name: format!("{root}readers/{:032x}", random::number()?),
            bucket,
            number: 0,
            said: monotonic(),
        };
        hold.bucket.create(&hold.object(), b"reads", &mut |_| {})?;
        Ok(hold)
    }

    fn object(&self) -> String {
        format!("{}.{}", self.name, self.number)
    }
}

impl Hold for BucketHold {
    fn renew(&mut self) -> io::Result<()> {
        if monotonic().saturating_sub(self.said) < RENEWAL {
            return Ok(());
        }
        let before = self.object();
        self.number += 1;
        self.said = monotonic();
        let name = self.object();
        self.bucket.create(&name, b"reads", &mut |_| {})?;
        self.bucket.remove(&before)
    }
}

impl Drop for BucketHold {
    fn drop(&mut self) {
        // If it cannot be removed, it ends by itself.
        let _removed = self.bucket.remove(&self.object());
    }
}

/// The files that somebody has announced to remove, and the announcements.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// Their names.
    pub files: BTreeSet<String>,
    /// Objects that say so.
    pub said: Vec<String>,
}

impl Announced {
    /// Of the journal whose names begin with `root`.
    pub fn read(bucket: &PatientBucket, root: &str) -> io::Result<Announced> {
        let mut announced = Announced::default();
        for (name, _) in bucket.list(&format!("{root}going/"), false)?.objects {
            // One that has gone meanwhile has been carried out.
            let said = bucket.get(&name, ANNOUNCEMENT_LIMIT_BYTES)?;
            let said = said.unwrap_or_default();
            let files = String::from_utf8_lossy(&said);
            let files = files.lines().map(str::to_owned);
            announced.files.extend(files);
            announced.said.push(name);
        }
        Ok(announced)
    }

    /// Says that these go as well.
    pub fn announce(
        &mut self,
        bucket: &PatientBucket,
        root: &str,
        files: &[JournalFile],
    ) -> io::Result<()> {
        let names: Vec<String> = files.iter().map(ToString::to_string).collect();
        let name = format!("{root}going/{:032x}", random::number()?);
        bucket.create(&name, names.join("\n").as_bytes(), &mut |_| {})?;
        self.files.extend(names);
        self.said.push(name);
        Ok(())
    }

    /// It is carried out, or nothing comes of it.
    pub fn withdraw(self, bucket: &PatientBucket) -> io::Result<()> {
        self.said.iter().try_for_each(|name| bucket.remove(name))
    }
}
