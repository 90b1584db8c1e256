//! Journals in a bucket: `PREFIX/LIFE-GENERATION-JOURNAL/00000001.segment/…`. Objects are put once and never over one
//! that is there, and each of a journal has the one name that follows from what is there before it.

use super::bucket_files::BucketFiles;
use super::{Begun, JournalFiles, Storage, head_of, in_the_way};
use crate::config::JournalBucket;
use crate::host_time::monotonic;
use arbiter::{BucketError, ObjectBucket, ObjectList};
use environment::mpsc::channel;
use environment::thread;
use replication::succession::{Generation, JournalId, LifeNumber, MachineName, RunId};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// No answer to one attempt takes longer, and so much longer for each of these bytes.
const ATTEMPT: Duration = Duration::from_secs(3);
const SLOWEST_BYTES_PER_SECOND: u64 = 256 << 10;
/// Between the first attempts, and twice as long each time, up to the second.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// Objects are read by so many threads at once: one answer takes as long as the way there and back.
const READERS: usize = 16;

/// It is tried so often to remove a journal that somebody reads, or that is out of reach.
const SWEEPS: u32 = 40;
const BETWEEN_SWEEPS: Duration = Duration::from_secs(60);

/// The name of a journal in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JournalName {
    pub life: LifeNumber,
    pub generation: Generation,
    pub id: JournalId,
}

impl JournalName {
    pub fn parse(text: &str) -> Option<JournalName> {
        let mut parts = text.split('-');
        let mut number = |length: usize| {
            let part = parts.next()?;
            let is_number = part.len() >= length && part.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| part.parse().ok()).flatten()
        };
        let (life, generation) = (number(8)?, number(8)?);
        let id = parts.next().filter(|id| id.len() == 32)?;
        let name = JournalName {
            life: LifeNumber(life),
            generation: Generation(generation),
            id: JournalId(u128::from_str_radix(id, 16).ok()?),
        };
        parts.next().is_none().then_some(name)
    }
}

impl std::fmt::Display for JournalName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let JournalName {
            life,
            generation,
            id,
        } = self;
        write!(f, "{:08}-{:08}-{:032x}", life.0, generation.0, id.0)
    }
}

/// A bucket that is asked again for a while when it does not answer.
#[derive(Debug)]
pub(super) struct PatientBucket {
    bucket: ObjectBucket,
    /// For so long.
    patience: Duration,
    /// Who writes.
    pub run: RunId,
}

/// Why an object is not put: one of its name is there.
pub(super) fn is_there(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

impl PatientBucket {
    /// Where, for people.
    pub fn place(&self) -> String {
        self.bucket.address().to_string()
    }

    /// Asks until there is an answer. `ask` is told whether an attempt before may have been carried out.
    fn ask<T>(
        &self,
        bytes: u64,
        wait: &mut dyn FnMut(String),
        mut ask: impl FnMut(Duration, bool) -> Result<T, BucketError>,
    ) -> io::Result<T> {
        let until = monotonic() + self.patience;
        let attempt = ATTEMPT + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
        let (mut rest, mut is_again) = (FIRST_REST, false);
        loop {
            let why = match ask(attempt, is_again) {
                Ok(answer) => return Ok(answer),
                Err(BucketError::Refused(why)) => return Err(io::Error::other(why)),
                Err(BucketError::Silent(why)) => why,
            };
            if monotonic() + rest >= until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            wait(why);
            is_again = true;
            thread::sleep(rest);
            rest = (rest * 2).min(LONGEST_REST);
        }
    }

    /// Puts an object that is not there.
    ///
    /// # Errors
    /// One is there that this did not put ([`is_there`]); or there is no answer.
    pub fn create(
        &self,
        name: &str,
        content: &[u8],
        wait: &mut dyn FnMut(String),
    ) -> io::Result<()> {
        let bytes = content.len() as u64;
        let (created, is_again) = self.ask(bytes, wait, |timeout, is_again| {
            Ok((self.bucket.create(name, content, timeout)?, is_again))
        })?;
        // The attempt before this one may have put it, unheard.
        let is_own =
            || Ok::<_, io::Error>(self.get(name, bytes)?.is_some_and(|held| held == content));
        if created || is_again && is_own()? {
            return Ok(());
        }
        let why = format!(
            "{name} is there, and another process put it: it goes on from this journal, and this one does not"
        );
        Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
    }

    /// What an object holds; one that is longer than it may be counts as another.
    pub fn get(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        self.ask(limit, &mut |_| {}, |timeout, _| {
            self.bucket.get(name, limit, timeout)
        })
    }

    /// What these objects hold, of which the bytes are known.
    pub fn get_all(self: &Arc<Self>, objects: &[(String, u64)]) -> io::Result<Vec<Vec<u8>>> {
        if let [(name, bytes)] = objects {
            return Ok(vec![self.get_whole(name, *bytes)?]);
        }
        let (tell, got) = channel();
        for reader in 0..READERS.min(objects.len()) {
            let (bucket, tell) = (self.clone(), tell.clone());
            let objects: Vec<(usize, (String, u64))> = objects
                .iter()
                .cloned()
                .enumerate()
                .skip(reader)
                .step_by(READERS)
                .collect();
            thread::Builder::new()
                .name("journal-read".into())
                .spawn(move || {
                    for (index, (name, bytes)) in objects {
                        let read = bucket.get_whole(&name, bytes);
                        let failed = read.is_err();
                        if tell.send((index, read)).is_err() || failed {
                            break;
                        }
                    }
                })?;
        }
        drop(tell);
        let mut contents = vec![Vec::new(); objects.len()];
        while let Ok((index, read)) = got.recv() {
            contents[index] = read?;
        }
        Ok(contents)
    }

    fn get_whole(&self, name: &str, bytes: u64) -> io::Result<Vec<u8>> {
        let held = self.get(name, bytes)?.ok_or_else(|| {
            let why = format!("{name} has gone");
            io::Error::new(io::ErrorKind::NotFound, why)
        })?;
        if held.len() as u64 != bytes {
            let why = format!("{name} has not the {bytes} bytes that it had");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(held)
    }

    pub fn list(&self, beginning: &str, is_flat: bool) -> io::Result<ObjectList> {
        self.ask(0, &mut |_| {}, |timeout, _| {
            self.bucket.list(beginning, is_flat, timeout)
        })
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.ask(0, &mut |_| {}, |timeout, _| {
            self.bucket.remove(name, timeout)
        })
    }
}

/// Journals in a bucket, all hosts' of one machine.
#[derive(Debug)]
pub struct BucketStorage {
    bucket: Arc<PatientBucket>,
}

impl BucketStorage {
    /// Asks nobody yet. `run`: who writes.
    ///
    /// # Errors
    /// The configuration cannot be.
    pub fn open(config: &JournalBucket, run: RunId) -> io::Result<BucketStorage> {
        let bucket = ObjectBucket::new(&config.settings).map_err(io::Error::other)?;
        let patience = config.patience;
        Ok(BucketStorage {
            bucket: Arc::new(PatientBucket {
                bucket,
                patience,
                run,
            }),
        })
    }

    fn names(&self) -> io::Result<Vec<JournalName>> {
        let list = self.bucket.list("", true)?;
        let names = list.directories.iter();
        Ok(names.filter_map(|name| JournalName::parse(name)).collect())
    }

    fn files(&self, name: JournalName) -> Arc<dyn JournalFiles> {
        Arc::new(BucketFiles::new(
            self.bucket.clone(),
            Some(name.to_string()),
        ))
    }

    /// A service that puts an object over one that is there fences nobody.
    fn prove(&self, wait: &mut dyn FnMut(String)) -> io::Result<()> {
        self.bucket
            .ask(0, wait, |timeout, _| self.bucket.bucket.prove(timeout))
    }
}

impl Storage for BucketStorage {
    fn place(&self) -> String {
        self.bucket.place()
    }

    /// Also the one whose own prefix it is.
    fn journals(&self) -> io::Result<BTreeMap<JournalId, Arc<dyn JournalFiles>>> {
        let names = self.names()?.into_iter();
        let mut journals: BTreeMap<JournalId, Arc<dyn JournalFiles>> =
            names.map(|name| (name.id, self.files(name))).collect();
        let place = self.place();
        let own = place.rsplit('/').next().and_then(JournalName::parse);
        if let Some(name) = own {
            let files = BucketFiles::new(self.bucket.clone(), None);
            journals.insert(name.id, Arc::new(files));
        }
        Ok(journals)
    }

    /// Those of generations before go: nobody goes on from them any more. One of a later generation is never touched:
    /// this process has lost its place without knowing.
    fn begin(
        &self,
        begun: Begun,
        owner: &MachineName,
        wait: &mut dyn FnMut(String),
    ) -> io::Result<Arc<dyn JournalFiles>> {
        self.prove(wait)?;
        let own = JournalName {
            life: begun.life,
            generation: begun.generation,
            id: begun.id,
        };
        let mut old = Vec::new();
        for name in self.names()? {
            let files = self.files(name);
            if let Some(head) = head_of(&*files)
                && let Some(why) = in_the_way(name.id, &head, &begun, owner)
            {
                return Err(why);
            }
            if (name.life, name.generation) > (own.life, own.generation) {
                let why = format!(
                    "{name} is of a later generation than this host's, {}",
                    own.generation
                );
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            old.push(name);
        }
        let old = old.into_iter();
        let old = old.map(|name| BucketFiles::new(self.bucket.clone(), Some(name.to_string())));
        let old: Vec<BucketFiles> = old.collect();
        thread::Builder::new()
            .name("journal-sweep".into())
            .spawn(move || sweep(old))?;
        Ok(self.files(own))
    }
}

/// Removes journals that nobody goes on from, once nobody reads them. What is left is removed when the next is begun.
fn sweep(mut old: Vec<BucketFiles>) {
    for _ in 0..SWEEPS {
        old.retain(|files| !matches!(files.remove_everything(), Ok(true)));
        if old.is_empty() {
            return;
        }
        thread::sleep(BETWEEN_SWEEPS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_journals_say_of_which_generation_they_are() {
        let name = JournalName {
            life: LifeNumber(3),
            generation: Generation(123_456_789),
            id: JournalId(0xabc),
        };
        assert_eq!(JournalName::parse(&name.to_string()), Some(name));
        for other in [
            "",
            "probe",
            "00000003-00000001",
            "00000003-00000001-abc",
            "a-b-c",
        ] {
            assert_eq!(JournalName::parse(other), None, "{other}");
        }
    }
}
