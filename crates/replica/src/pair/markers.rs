//! The markers of this host: read once, written on a thread of their own, one after the other.

mod unfit;

pub use unfit::{Sought, UnfitDisks};

use crate::config::{DiskFile, ReplicaConfig};
use crate::disk::{held, length_of, overlay, standing, sync_file};
use crate::end::ReplicaError;
use crate::state_directory::{overwrite, replace, try_to_replace};
use crate::wake::Waker;
use environment::fs;
use environment::mpsc::{self, Receiver, Sender};
use replication::marker::{Found, Marker, Worth};
use replication::succession::MachineName;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The marker in the state directory.
const FILE: &str = "marker";
/// No marker is longer.
const LIMIT_BYTES: u64 = 1024;

/// Why a marker was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What is here loses rights.
    Mark,
    /// The disk of this pairing's backup is settled.
    Member(u64),
    /// The primary's disk is settled.
    Primary,
}

impl Purpose {
    /// What waits until it is written, for people.
    pub fn waits(self) -> &'static str {
        match self {
            Purpose::Mark => "this host does not join",
            Purpose::Member(_) => {
                "a machine that lost its power does not start from this host's disk"
            }
            Purpose::Primary => "the guest's flushes wait, and no backup can join",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Mark => "this host's disk is not to be started from, as it is no whole copy",
            Purpose::Member(_) => "this host's disk is a whole copy of the primary's",
            Purpose::Primary => "this host's disk is the one to be started from",
        })
    }
}

/// What the thread does.
enum Job {
    /// Writes this one.
    Write(Purpose, Marker),
    /// Tries whether one could be written, and synced.
    Try { is_synced: bool },
    /// Looks whether the disks may become copies of a primary's.
    Look(Sought),
}

/// What came of a trial: whether it was synced, and whether all went well.
type Tried = (bool, io::Result<()>);

/// Where the markers are, and the thread that writes them.
pub struct Markers {
    machine: MachineName,
    places: Places,
    jobs: Sender<Job>,
    done: Receiver<(Purpose, io::Result<()>)>,
    tried: Receiver<Tried>,
    looked: Receiver<Option<UnfitDisks>>,
    pending: usize,
    /// The last that took rights from what is here, until it is written: nothing here has any.
    unwritten: Option<Marker>,
}

#[derive(Clone)]
struct Places {
    state: PathBuf,
    /// What tells this host's files from those of others in one directory.
    host: String,
    /// The writable disks and their markers.
    disks: Vec<(DiskFile, PathBuf)>,
    /// All disks, in the machine's order.
    all: Vec<DiskFile>,
}

impl Markers {
    /// For this configuration; the thread ends when this is dropped.
    /// `host`: what this host is called.
    pub fn open(
        config: &ReplicaConfig,
        machine: MachineName,
        host: &str,
        waker: Waker,
    ) -> io::Result<Markers> {
        let writable = config.disks.iter().filter(|disk| !disk.read_only);
        let place = |disk: &DiskFile| {
            let marker = beside(&disk.path, &config.state_directory);
            (disk.clone(), marker)
        };
        let places = Places {
            state: config.state_directory.join(FILE),
            host: host.into(),
            disks: writable.map(place).collect(),
            all: config.disks.clone(),
        };
        Markers::serve(places, machine, waker)
    }

    fn serve(places: Places, machine: MachineName, waker: Waker) -> io::Result<Markers> {
        let (jobs, received) = mpsc::channel::<Job>();
        let (sender, done) = mpsc::channel();
        let (told, tried) = mpsc::channel();
        let (seen, looked) = mpsc::channel();
        let (written, own) = (places.clone(), machine.clone());
        environment::thread::Builder::new()
            .name("markers".into())
            .spawn(move || {
                for job in received.iter() {
                    // A replica that has ended wants no answer.
                    match job {
                        Job::Write(purpose, marker) => {
                            let result = written.write(purpose, &marker);
                            let _sent = sender.send((purpose, result));
                        }
                        Job::Try { is_synced } => {
                            let result = written.try_all(is_synced);
                            let _sent = told.send((is_synced, result));
                        }
                        Job::Look(sought) => {
                            let _sent = seen.send(written.unfit(&own, &sought));
                        }
                    }
                    waker.wake();
                }
            })?;
        Ok(Markers {
            machine,
            places,
            jobs,
            done,
            tried,
            looked,
            pending: 0,
            unwritten: None,
        })
    }

    /// That none of them is of another machine: most likely the configuration has a slip in `name`, and
    /// nothing that could be waited for mends that.
    ///
    /// # Errors
    /// One is.
    pub fn are_of_this_machine(&self) -> Result<(), ReplicaError> {
        let disks = self.places.disks.iter();
        let disks = disks.map(|(disk, marker)| (marker, format!("beside {}", disk.path.display())));
        let state = (&self.places.state, "in the state directory".to_owned());
        for (path, place) in disks.chain([state]) {
            // What is not there, or cannot be read, is said where it is needed.
            let content = fs::read(path, LIMIT_BYTES).unwrap_or_default();
            match Marker::machine_of(&content) {
                Some(theirs) if theirs != self.machine.as_str() => {
                    return Err(ReplicaError::AnotherMachines {
                        path: path.clone(),
                        place,
                        theirs: theirs.to_owned(),
                        name: self.machine.to_string(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What they say.
    pub fn worth(&self) -> Worth {
        if self.unwritten.is_some() {
            let why = "the marker that takes its rights from this host's disk cannot be written";
            return Worth::Nothing(why.into());
        }
        let state = self.read(&self.places.state, None);
        let mut disks = Vec::new();
        for (disk, marker) in &self.places.disks {
            let bytes = match length_of(disk) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
                // An image without a byte has no header that says how long its disk is.
                Err(_) if fs::look_at(&disk.path).is_ok_and(|(_, bytes)| bytes == 0) => Some(0),
                length => length.ok(),
            };
            let found = self.read(marker, bytes);
            if !disk.is_shared {
                disks.push(found);
                continue;
            }
            // All hosts have the same one beside it, which the primary has written: it says whose life's disk it is. What
            // this host was in that life, its own marker says.
            match (&state, found) {
                (Found::Marker(own), Found::Marker(shared)) if own.life_id != shared.life_id => {
                    let path = disk.path.display();
                    let (theirs, ours) = (shared.life, own.life);
                    return Worth::Nothing(format!(
                        "the shared disk {path} has been used in another life ({theirs}) than this host's marker names ({ours})"
                    ));
                }
                (Found::Marker(_), Found::Marker(_) | Found::Nothing) => {}
                (_, found) => disks.push(found),
            }
        }
        Worth::of(&state, &disks)
    }

    /// `disk_bytes`: of the disk beside it.
    fn read(&self, path: &Path, disk_bytes: Option<u64>) -> Found {
        match fs::read(path, LIMIT_BYTES) {
            Ok(content) => match disk_bytes {
                Some(bytes) => Found::beside(&self.machine, Some(&content), bytes),
                None => Found::read(&self.machine, Some(&content)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
            Err(error) => Found::Unreadable(format!("{}: {error}", path.display())),
        }
    }

    /// Writes a marker after all that were asked for before; one that gives rights after the disks
    /// were synced.
    pub fn write(&mut self, purpose: Purpose, marker: Marker) {
        self.pending += 1;
        if purpose == Purpose::Mark {
            self.unwritten = Some(marker.clone());
        }
        // The thread ends only with this object.
        let _sent = self.jobs.send(Job::Write(purpose, marker));
    }

    /// Writes again what took rights from what is here and could not be written. False: there is no such thing.
    pub fn write_again(&mut self) -> bool {
        let unwritten = self.unwritten.clone().filter(|_| !self.is_writing());
        unwritten
            .map(|marker| self.write(Purpose::Mark, marker))
            .is_some()
    }

    /// Tries whether markers could be written, without writing any, after all that were asked for before.
    pub fn try_places(&self, is_synced: bool) {
        // The thread ends only with this object.
        let _sent = self.jobs.send(Job::Try { is_synced });
    }

    /// What came of a trial.
    pub fn tried(&mut self) -> Option<io::Result<()>> {
        self.tried_how().map(|(_, result)| result)
    }

    /// The same, and whether it was synced.
    pub(super) fn tried_how(&mut self) -> Option<Tried> {
        self.tried.try_recv().ok()
    }

    /// Looks whether the disks here may become copies of that primary's, after all that was asked for before.
    pub fn look_at_disks(&self, sought: Sought) {
        // The thread ends only with this object.
        let _sent = self.jobs.send(Job::Look(sought));
    }

    /// What came of it: why they may not, if they may not.
    pub fn looked(&mut self) -> Option<Option<UnfitDisks>> {
        self.looked.try_recv().ok()
    }

    /// Whether markers are being written: that includes the sync of the disks.
    pub fn is_writing(&self) -> bool {
        self.pending > 0
    }

    /// Where the marker of the state directory is.
    pub fn state_marker(&self) -> &Path {
        &self.places.state
    }

    /// What was done since the last call.
    pub fn done(&mut self) -> Option<(Purpose, io::Result<()>)> {
        let done = self.done.try_recv().ok()?;
        self.pending -= 1;
        if done.1.is_ok() && self.pending == 0 {
            self.unwritten = None;
        }
        Some(done)
    }
}

/// Where a disk's marker is: beside its image, or for a block device (beside which nothing lasts) in
/// the state directory.
fn beside(disk: &Path, state_directory: &Path) -> PathBuf {
    let mut name = overlay::base(disk, state_directory).into_os_string();
    name.push(".understudy");
    name.into()
}

impl Places {
    fn write(&self, purpose: Purpose, of: &Marker) -> io::Result<()> {
        // A shared disk's marker is its primary's.
        let marked = |disk: &DiskFile| !disk.is_shared || purpose == Purpose::Primary;
        let marked = self.disks.iter().filter(|(disk, _)| marked(disk));
        if purpose != Purpose::Mark {
            for (disk, _) in marked.clone() {
                // One that is not there gets its marker before it is made.
                match is_the_open_one(&disk.path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    is_it => is_it?,
                }
                sync_file(disk).map_err(|error| at(&disk.path, &error))?;
            }
        }
        let put = |path: &Path, content: &[u8]| {
            let put = match replace(path, content) {
                // A full file system is no reason to keep rights. Half of such a marker gives none either.
                Err(full) if purpose == Purpose::Mark => overwrite(path, content).map_err(|_| full),
                put => put,
            };
            put.map_err(|error| at(path, &error))
        };
        for (disk, marker) in marked {
            // A disk that is not there has no length, and gets its marker before it is made.
            let bytes = length_of(disk).unwrap_or(0);
            put(marker, &of.content_beside(bytes))?;
        }
        put(&self.state, &of.content())
    }

    /// A file beside a shared disk that no other host has.
    fn own_beside(&self, marker: &Path) -> PathBuf {
        let mut name = marker.as_os_str().to_owned();
        name.push(format!(".{}", self.host));
        name.into()
    }

    /// As far as a marker gets before it takes the place of the one that is there. And whether the disks are where they
    /// were: one whose file was removed takes what is written to it, and nobody will ever open it again.
    fn try_all(&self, is_synced: bool) -> io::Result<()> {
        for disk in &self.all {
            fs::look_at(&disk.path).map_err(|error| {
                let gone = format!(
                    "the disk {} is not to be seen any more: {error}",
                    disk.path.display()
                );
                io::Error::new(error.kind(), gone)
            })?;
            is_the_open_one(&disk.path)?;
            standing::look(&disk.path)?;
            // The layers of a block device are not beside it.
            let state = self.state.parent().unwrap_or(Path::new("."));
            standing::look(&overlay::base(&disk.path, state))?;
        }
        let content = [0; LIMIT_BYTES as usize];
        let disks = self.disks.iter();
        let disks = disks.map(|(disk, marker)| match disk.is_shared {
            true => self.own_beside(marker),
            false => marker.clone(),
        });
        for marker in disks.chain([self.state.clone()]) {
            let tried = try_to_replace(&marker, &content, is_synced);
            tried.map_err(|error| at(&marker, &error))?;
        }
        Ok(())
    }
}

/// That the disk which the machine has open is the one that will be found by its name.
fn is_the_open_one(path: &Path) -> io::Result<()> {
    match held::is_another(path)? {
        false => Ok(()),
        true => Err(io::Error::other(format!(
            "the disk {} has been replaced: another file has its name, and what the machine writes goes into the former one, \
             which nobody will ever open again. Copy /proc/{}/fd/N of it back, or hand the machine over to a host whose disk is right",
            path.display(),
            std::process::id()
        ))),
    }
}

/// The error, with the file that it is about.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::PairOptions;
    use machine::engine::Engine;
    use replication::lag::LagPolicy;
    use replication::marker::{DiskState, Role};
    use replication::message::LifeId;
    use replication::succession::{Generation, LifeNumber, RecordNumber};
    use std::fs;
    use std::time::Duration;

    pub fn markers(directory: &Path) -> Markers {
        let disk = directory.join("disk.raw");
        fs::write(&disk, [0; 512]).unwrap();
        let zero = Duration::ZERO;
        let config = ReplicaConfig {
            name: "vm".into(),
            build: Default::default(),
            state_directory: directory.into(),
            memory_bytes: 1 << 20,
            engine: Engine::Interpreter,
            disks: vec![DiskFile::new(&disk, false)],
            network: None,
            disk_durability: Default::default(),
            power_off_wait: Duration::ZERO,
            journal: None,
            pair: PairOptions {
                host: None,
                keys: directory.into(),
                members: Default::default(),
                listen: "127.0.0.1:0".into(),
                heartbeat: zero,
                suspect_after: zero,
                lag_target: zero,
                backups: 1,
                is_spare: false,
                spare_after: zero,
                lag_policy: LagPolicy::Slow,
                lag_limit: zero,
                digest_interval: zero,
                checkpoints: None,
                compression: Default::default(),
            },
        };
        let machine = MachineName::new("vm").unwrap();
        Markers::open(&config, machine, "here", Waker::new().unwrap()).unwrap()
    }

    impl Markers {
        /// All disks are shared from here on.
        pub fn share_disks(&mut self) {
            let share = |disk: &mut DiskFile| disk.is_shared = true;
            self.places
                .disks
                .iter_mut()
                .for_each(|(disk, _)| share(disk));
            self.places.all.iter_mut().for_each(share);
            let (places, machine) = (self.places.clone(), self.machine.clone());
            *self = Markers::serve(places, machine, Waker::new().unwrap()).unwrap();
        }
    }

    pub fn marker(generation: u64, disk: DiskState) -> Marker {
        Marker {
            machine: MachineName::new("vm").unwrap(),
            life: LifeNumber(1),
            life_id: LifeId(7),
            generation: Generation(generation),
            role: Role::None,
            record: RecordNumber(generation),
            disk,
        }
    }

    /// What was written next.
    fn written(markers: &mut Markers) -> (Purpose, io::Result<()>) {
        loop {
            match markers.done() {
                Some(done) => return done,
                None => std::thread::yield_now(),
            }
        }
    }

    /// Finding: a backup whose disk had missed a write for want of room stayed marked as a whole copy for the same reason,
    /// and a person who believed that started the machine without what it had acknowledged.
    #[test]
    fn where_there_is_no_room_for_another_marker_the_one_that_is_there_loses_its_rights() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        markers.write(Purpose::Member(1), marker(3, DiskState::Whole));
        written(&mut markers).1.unwrap();
        let beside = directory.path().join("disk.raw.understudy");
        for place in ["marker.new", "disk.raw.understudy.new"] {
            fs::create_dir(directory.path().join(place)).unwrap();
        }
        markers.write(Purpose::Mark, marker(3, DiskState::Suspect));
        written(&mut markers).1.unwrap();
        let suspect = marker(3, DiskState::Suspect);
        assert_eq!(fs::read(&beside).unwrap(), suspect.content_beside(512));
        assert_eq!(markers.worth(), Worth::Known(suspect));
        // Rights are not given so: half of such a marker would be none, and the one before is gone.
        markers.write(Purpose::Member(2), marker(4, DiskState::Whole));
        written(&mut markers).1.unwrap_err();
    }

    #[test]
    fn what_could_not_take_the_rights_is_written_when_it_can_be_and_until_then_there_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        markers.write(Purpose::Member(1), marker(3, DiskState::Whole));
        written(&mut markers).1.unwrap();
        assert!(!markers.write_again(), "everything is written");
        // Neither beside it nor in its place.
        let beside = directory.path().join("disk.raw.understudy");
        let kept = fs::read(&beside).unwrap();
        fs::remove_file(&beside).unwrap();
        fs::create_dir(&beside).unwrap();
        markers.write(Purpose::Mark, marker(3, DiskState::Suspect));
        written(&mut markers).1.unwrap_err();
        fs::remove_dir(&beside).unwrap();
        fs::write(&beside, kept).unwrap();
        let Worth::Nothing(why) = markers.worth() else {
            panic!("a disk that missed a write has rights")
        };
        assert!(why.contains("cannot be written"), "{why}");
        assert!(markers.write_again());
        written(&mut markers).1.unwrap();
        let suspect = marker(3, DiskState::Suspect);
        assert_eq!(markers.worth(), Worth::Known(suspect));
        assert!(!markers.write_again());
    }

    /// A marker that gives rights waits for the disk to be synced; one that takes them away does not,
    /// and still never comes before it.
    #[test]
    fn markers_are_written_in_the_order_in_which_they_were_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        let mut asked = Vec::new();
        for generation in 1..100 {
            let (purpose, disk) = match generation % 3 {
                0 => (Purpose::Mark, DiskState::Copying),
                1 => (Purpose::Member(generation), DiskState::Whole),
                _ => (Purpose::Primary, DiskState::Whole),
            };
            markers.write(purpose, marker(generation, disk));
            asked.push(purpose);
        }
        for purpose in asked {
            let (written, result) = written(&mut markers);
            assert_eq!(written, purpose);
            result.unwrap();
        }
        let last = marker(99, DiskState::Copying);
        for (place, content) in [
            (FILE, last.content()),
            ("disk.raw.understudy", last.content_beside(512)),
        ] {
            assert_eq!(fs::read(directory.path().join(place)).unwrap(), content);
        }
        assert_eq!(markers.worth().place(), (LifeNumber(1), Generation(99)));
    }

    /// Finding: a marker beside a disk that had been replaced was trusted.
    #[test]
    fn a_disk_of_another_length_in_the_place_of_a_whole_one_has_no_rights() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        markers.write(Purpose::Primary, marker(3, DiskState::Whole));
        written(&mut markers).1.unwrap();
        assert_eq!(markers.worth(), Worth::Known(marker(3, DiskState::Whole)));
        let disk = directory.path().join("disk.raw");
        fs::write(&disk, [0; 1024]).unwrap();
        let Worth::Nothing(why) = markers.worth() else {
            panic!("another disk is taken for the one that was marked")
        };
        assert!(why.contains("1024") && why.contains("512"), "{why}");
        // While it is being copied it has the length of neither.
        markers.write(Purpose::Mark, marker(4, DiskState::Copying));
        written(&mut markers).1.unwrap();
        fs::write(&disk, [0; 512]).unwrap();
        assert_eq!(markers.worth().place().1, Generation(4));
    }

    /// One disk has one marker, its primary's: what a host was in the life stands in its own state directory.
    #[test]
    fn the_marker_beside_a_shared_disk_is_its_primarys_and_says_whose_life_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        let beside = directory.path().join("disk.raw.understudy");
        markers.share_disks();
        markers.write(Purpose::Mark, marker(1, DiskState::Copying));
        markers.write(Purpose::Member(1), marker(2, DiskState::Whole));
        for _ in 0..2 {
            written(&mut markers).1.unwrap();
        }
        assert!(!beside.exists(), "a member marks nothing there");
        assert_eq!(markers.worth(), Worth::Known(marker(2, DiskState::Whole)));
        // A trial is in nobody's way: the primary's own next marker may be under way.
        fs::create_dir(directory.path().join("disk.raw.understudy.new")).unwrap();
        markers.try_places(true);
        markers.tried.recv().unwrap().1.unwrap();
        fs::remove_dir(directory.path().join("disk.raw.understudy.new")).unwrap();
        // Another host is its primary by now.
        let primarys = marker(5, DiskState::Whole).content_beside(512);
        fs::write(&beside, &primarys).unwrap();
        assert_eq!(markers.worth(), Worth::Known(marker(2, DiskState::Whole)));
        let other_life = Marker {
            life_id: LifeId(8),
            ..marker(1, DiskState::Whole)
        };
        fs::write(&beside, other_life.content_beside(512)).unwrap();
        let Worth::Nothing(why) = markers.worth() else {
            panic!("the disk of another life is started from")
        };
        assert!(why.contains("another life"), "{why}");
        // A host that was never there knows by it that there is a life.
        fs::remove_file(directory.path().join(FILE)).unwrap();
        fs::write(&beside, primarys).unwrap();
        assert_eq!(markers.worth().place(), (LifeNumber(1), Generation(5)));
        markers.write(Purpose::Primary, marker(6, DiskState::Whole));
        written(&mut markers).1.unwrap();
        let written = fs::read(&beside).unwrap();
        assert_eq!(written, marker(6, DiskState::Whole).content_beside(512));
    }

    /// Finding: with another name in the configuration a replica waited for ever, as "its machine makes no sense".
    #[test]
    fn a_marker_of_another_machine_ends_the_start_and_names_both() {
        let directory = tempfile::tempdir().unwrap();
        let markers = markers(directory.path());
        markers.are_of_this_machine().unwrap();
        let theirs = Marker {
            machine: MachineName::new("shop").unwrap(),
            ..marker(3, DiskState::Whole)
        };
        let places = [
            (
                "disk.raw.understudy",
                theirs.content_beside(512),
                "disk.raw",
            ),
            (FILE, theirs.content(), "state directory"),
        ];
        for (file, content, place) in places {
            let path = directory.path().join(file);
            fs::write(&path, content).unwrap();
            let error = markers.are_of_this_machine().unwrap_err().to_string();
            for words in [place, "machine \"shop\"", "name = \"vm\"", file] {
                assert!(error.contains(words), "{error}");
            }
            let Worth::Nothing(why) = markers.worth() else {
                panic!("another machine's marker has rights")
            };
            assert!(why.contains("of machine shop"), "{why}");
            // What is not whole says nothing.
            fs::write(&path, b"understudy-marker 1 machine=shop").unwrap();
            markers.are_of_this_machine().unwrap();
            fs::remove_file(&path).unwrap();
        }
    }

    /// Finding: `protected` was said for as long as anybody looked, of a host whose disk had been removed beneath it.
    #[test]
    fn a_disk_that_is_not_there_any_more_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        markers.write(Purpose::Primary, marker(3, DiskState::Whole));
        written(&mut markers).1.unwrap();
        let tried = || {
            markers.try_places(false);
            markers.tried.recv().unwrap().1
        };
        tried().unwrap();
        let (disk, away) = (
            directory.path().join("disk.raw"),
            directory.path().join("away"),
        );
        fs::rename(&disk, &away).unwrap();
        let why = tried().unwrap_err().to_string();
        assert!(why.contains("disk.raw is not to be seen any more"), "{why}");
        // Whoever asks is not told that there is a whole one.
        let Worth::Nothing(why) = markers.worth() else {
            panic!("a disk that is not there has rights")
        };
        assert!(why.contains("not there"), "{why}");
        fs::rename(&away, &disk).unwrap();
        tried().unwrap();
    }

    /// Finding: of an image that was cut off nobody heard before somebody read what was missing, and of an overlay that was
    /// removed nobody at all: the machine was said to be journaled, and would not have come back.
    #[test]
    fn a_disk_that_was_cut_off_and_an_overlay_that_was_removed_are_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let markers = markers(directory.path());
        let path = directory.path().join("disk.raw");
        let tried = || {
            markers.try_places(false);
            markers
                .tried
                .recv()
                .unwrap()
                .1
                .map_err(|error| error.to_string())
        };
        tried().unwrap();
        fs::write(&path, [0; 2048]).unwrap();
        let file = DiskFile::new(&path, false);
        let disk = crate::disk::Disk::open(&file).unwrap();
        tried().unwrap();
        let cut = |bytes| {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(bytes).unwrap();
        };
        cut(1024);
        let why = tried().unwrap_err();
        assert!(
            why.contains("disk.raw has been cut off: it has 1024 bytes, and had 2048"),
            "{why}"
        );
        drop(disk);
        tried().unwrap();
        // One that becomes the copy of a shorter disk is cut on purpose, also while another machine of this process goes.
        let former = crate::disk::standing::Standing::expect(
            &path,
            &environment::fs::File::open(&path).unwrap(),
            1024,
        );
        let copy = crate::disk::Disk::for_copy(&file, 512, directory.path()).unwrap();
        tried().unwrap();
        drop(copy);
        drop(former);
        let disk = crate::disk::Disk::open(&file)
            .unwrap()
            .overlaid(Some(directory.path()));
        let disks = std::sync::Arc::new(vec![disk]);
        let mut volumes = overlay::Volumes::new(disks, Vec::new());
        volumes.freeze(overlay::LayerId(7)).unwrap();
        tried().unwrap();
        let layer = directory.path().join("disk.raw.overlay-00000001");
        fs::rename(&layer, directory.path().join("away")).unwrap();
        let why = tried().unwrap_err();
        assert!(
            why.contains(
                "disk.raw.overlay-00000001, which the machine has open, is not to be seen any more"
            ),
            "{why}"
        );
        fs::rename(directory.path().join("away"), &layer).unwrap();
        tried().unwrap();
    }

    /// Finding: "here is a whole disk" was said of one that was gone: an image without a byte.
    #[test]
    fn an_image_that_was_emptied_is_no_whole_disk() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        let path = directory.path().join("disk.raw");
        markers.write(Purpose::Primary, marker(3, DiskState::Whole));
        written(&mut markers).1.unwrap();
        markers.places.disks[0].0.format = Some(crate::config::DiskFormat::Qcow2);
        fs::write(&path, []).unwrap();
        let Worth::Nothing(why) = markers.worth() else {
            panic!("an empty image has rights")
        };
        assert!(why.contains("empty or not there"), "{why}");
    }

    /// Finding: a host whose state directory was full was handed the machine, and was alone with a guest that could
    /// flush nothing.
    #[test]
    fn a_place_that_takes_no_marker_is_found_without_one_and_the_marker_stays() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        markers.write(Purpose::Primary, marker(3, DiskState::Whole));
        written(&mut markers).1.unwrap();
        let tried = |is_synced| {
            markers.try_places(is_synced);
            let (was_synced, result) = markers.tried.recv().unwrap();
            assert_eq!(was_synced, is_synced);
            let left = fs::read_dir(directory.path()).unwrap();
            let left = left.filter(|file| file.as_ref().unwrap().path().is_file());
            assert_eq!(left.count(), 3, "nothing but the disk and two markers");
            assert_eq!(markers.worth(), Worth::Known(marker(3, DiskState::Whole)));
            result
        };
        tried(false).unwrap();
        tried(true).unwrap();
        // What lies in the way holds for root as well, and is about what a full file system says.
        for place in [FILE, "disk.raw.understudy"] {
            let in_the_way = directory.path().join(format!("{place}.new"));
            fs::create_dir(&in_the_way).unwrap();
            let why = tried(false).unwrap_err().to_string();
            assert!(why.contains(&format!("{place}: ")), "{why}");
            fs::remove_dir(&in_the_way).unwrap();
        }
        tried(false).unwrap();
    }

    /// Without the disk beside it no marker says that it is whole.
    #[test]
    fn a_disk_that_cannot_be_synced_gets_no_marker() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        fs::remove_file(directory.path().join("disk.raw")).unwrap();
        markers.write(Purpose::Member(1), marker(1, DiskState::Whole));
        let (_, result) = written(&mut markers);
        result.unwrap_err();
        assert!(!directory.path().join("disk.raw.understudy").exists());
    }
}
