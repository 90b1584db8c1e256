//! Journals in a bucket: `PREFIX/LIFE-GENERATION-JOURNAL/00000001.segment/…`. Objects are put once and never over one
//! that is there, and each of a journal has the one name that follows from what is there before it.

use super::bucket_files::BucketFiles;
use super::{Asking, Begun, JournalFiles, Storage, head_of, in_the_way};
use crate::config::JournalBucket;
use crate::host_time::monotonic;
use crate::journal::ReadMeter;
use arbiter::{Attempt, BucketError, ObjectBucket, ObjectList};
use environment::mpsc::channel;
use environment::thread;
use replication::succession::{Generation, JournalId, LifeNumber, MachineName, RunId};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An attempt has failed when for so long nothing came, and nothing of what is sent arrived; or for half of what is
/// allowed altogether. How much time that takes is not asked, as long as something moves.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);
/// What is in a hurry has the way to the bucket for itself when it has taken so long.
const SHARED_FOR: Duration = Duration::from_millis(250);
/// What waits for that looks so often.
const BETWEEN_TURNS: Duration = Duration::from_millis(10);
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
    /// For so long after anything moved.
    patience: Duration,
    /// Who writes.
    pub run: RunId,
    /// Since when outputs wait for something that is being put.
    hurry: Mutex<Option<Duration>>,
    /// When something of an object came last, to whichever reader.
    came: Mutex<Duration>,
}

/// What of a bucket's users has to wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Now,
    /// It reads: as long as anything comes to another reader it is not given up, as it may be behind that.
    Reads,
    /// Nobody waits for it: it gives way to what is in a hurry.
    GivesWay,
}

/// Why an object is not put: one of its name is there.
pub(super) fn is_there(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While this lives, outputs wait for what is put.
pub(super) struct Hurry(Arc<PatientBucket>);

impl Drop for Hurry {
    fn drop(&mut self) {
        *lock(&self.0.hurry) = None;
    }
}

impl PatientBucket {
    fn new(bucket: ObjectBucket, patience: Duration, run: RunId) -> PatientBucket {
        PatientBucket {
            bucket,
            patience,
            run,
            hurry: Mutex::new(None),
            came: Mutex::new(Duration::ZERO),
        }
    }

    /// Where, for people.
    pub fn place(&self) -> String {
        self.bucket.address().to_string()
    }

    /// What is put from now on is in a hurry. One thread at a time is.
    pub fn hurry(self: &Arc<Self>) -> Hurry {
        let before = lock(&self.hurry).replace(monotonic());
        assert!(before.is_none(), "one thread puts what outputs wait for");
        Hurry(self.clone())
    }

    /// Waits until nothing in a hurry takes long: that is put, or is given up. Whoever has begun to put something goes on: a
    /// service that takes one after the other is free only when it is there.
    pub fn give_way(&self) {
        while lock(&self.hurry).is_some_and(|since| monotonic() >= since + SHARED_FOR) {
            thread::sleep(BETWEEN_TURNS);
        }
    }

    /// Asks until there is an answer, or until for as long as it is patient nothing has moved that had not moved in an
    /// attempt before. `ask` is told whether an attempt before may have been carried out.
    fn ask<T>(
        &self,
        turn: Turn,
        told: &mut dyn FnMut(Asking),
        mut ask: impl FnMut(&mut Attempt<'_>, bool) -> Result<T, BucketError>,
    ) -> io::Result<T> {
        let silence = LONGEST_SILENCE.min(self.patience / 2);
        let (mut moved_at, mut furthest) = (monotonic(), 0);
        let (mut rest, mut is_again) = (FIRST_REST, false);
        loop {
            let mut moved = 0;
            let mut moves = |bytes: u64| {
                if turn == Turn::Reads {
                    *lock(&self.came) = monotonic();
                }
                moved += bytes;
                let fresh = moved.saturating_sub(furthest).min(bytes);
                if fresh > 0 {
                    told(Asking::Moves(fresh));
                }
            };
            let attempt = Attempt::until_silent_for(silence).telling(&mut moves);
            let mut attempt = match turn {
                Turn::GivesWay => attempt.that_gives_way(),
                Turn::Now | Turn::Reads => attempt,
            };
            let why = match ask(&mut attempt, is_again) {
                Ok(answer) => {
                    told(Asking::Moves(0));
                    return Ok(answer);
                }
                Err(BucketError::Refused(why)) => return Err(io::Error::other(why)),
                Err(BucketError::Silent(why)) => why,
            };
            if moved > furthest {
                // It was not silent for longer than that.
                moved_at = moved_at.max(monotonic().saturating_sub(silence));
                furthest = furthest.max(moved);
            }
            if turn == Turn::Reads {
                moved_at = moved_at.max(*lock(&self.came));
            }
            if monotonic() + rest >= moved_at + self.patience {
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            told(Asking::Waits(why));
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
        told: &mut dyn FnMut(Asking),
    ) -> io::Result<()> {
        self.create_in_turn(Turn::Now, name, content, told)
    }

    /// As [`PatientBucket::create`], of an object that nobody waits for: little of it is under way at a time.
    pub fn create_slowly(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.create_in_turn(Turn::GivesWay, name, content, &mut |_| {})
    }

    fn create_in_turn(
        &self,
        turn: Turn,
        name: &str,
        content: &[u8],
        told: &mut dyn FnMut(Asking),
    ) -> io::Result<()> {
        let (created, is_again) = self.ask(turn, told, |attempt, is_again| {
            Ok((self.bucket.create(name, content, attempt)?, is_again))
        })?;
        // The attempt before this one may have put it, unheard.
        let is_own = || {
            let held = self.get(name, content.len() as u64)?;
            Ok::<_, io::Error>(held.is_some_and(|held| held == content))
        };
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
        self.get_counted(name, limit, &ReadMeter::default())
    }

    fn get_counted(
        &self,
        name: &str,
        limit: u64,
        meter: &ReadMeter,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut told = |asking| match asking {
            Asking::Moves(bytes) => meter.add(bytes),
            Asking::Waits(why) => meter.waits(why),
        };
        self.ask(Turn::Reads, &mut told, |attempt, _| {
            self.bucket.get(name, limit, attempt)
        })
    }

    /// What these objects hold, of which the bytes are known. `meter` counts them as they come.
    pub fn get_all(
        self: &Arc<Self>,
        objects: &[(String, u64)],
        meter: &ReadMeter,
    ) -> io::Result<Vec<Vec<u8>>> {
        if let [(name, bytes)] = objects {
            return Ok(vec![self.get_whole(name, *bytes, meter)?]);
        }
        let (tell, got) = channel();
        for reader in 0..READERS.min(objects.len()) {
            let (bucket, tell, meter) = (self.clone(), tell.clone(), meter.clone());
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
                        let read = bucket.get_whole(&name, bytes, &meter);
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

    fn get_whole(&self, name: &str, bytes: u64, meter: &ReadMeter) -> io::Result<Vec<u8>> {
        let held = self.get_counted(name, bytes, meter)?.ok_or_else(|| {
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
        self.ask(Turn::Now, &mut |_| {}, |attempt, _| {
            self.bucket.list(beginning, is_flat, attempt)
        })
    }

    /// Removes them in any order, several at once: each takes as long as the way there and back.
    pub fn remove_many(self: &Arc<Self>, names: &[String]) -> io::Result<()> {
        let (tell, done) = channel();
        for remover in 0..READERS.min(names.len()) {
            let (bucket, tell) = (self.clone(), tell.clone());
            let names = names.iter().skip(remover).step_by(READERS);
            let names: Vec<String> = names.cloned().collect();
            thread::Builder::new()
                .name("journal-remove".into())
                .spawn(move || {
                    let removed = names.iter().try_for_each(|name| bucket.remove(name));
                    let _told = tell.send(removed);
                })?;
        }
        drop(tell);
        let mut all = Ok(());
        // All of them end before whoever asked goes on.
        while let Ok(removed) = done.recv() {
            all = all.and(removed);
        }
        all
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.ask(Turn::Now, &mut |_| {}, |attempt, _| {
            self.bucket.remove(name, attempt)
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
        let bucket = PatientBucket::new(bucket, config.patience, run);
        Ok(BucketStorage {
            bucket: Arc::new(bucket),
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
    fn prove(&self, told: &mut dyn FnMut(Asking)) -> io::Result<()> {
        self.bucket.ask(Turn::Now, told, |attempt, _| {
            self.bucket.bucket.prove(attempt)
        })
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
        told: &mut dyn FnMut(Asking),
    ) -> io::Result<Arc<dyn JournalFiles>> {
        self.prove(told)?;
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
