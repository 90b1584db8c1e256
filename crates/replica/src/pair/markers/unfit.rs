//! Whether this host's disks may become copies of a primary's: looked at before a marker, or anything else, is written.

use super::{LIMIT_BYTES, Places};
use crate::config::{DiskFile, Fencing};
use crate::disk::blank;
use crate::disk::copy_place::{self, CopyPlace};
use crate::disk::shared::{SeenLock, lock_unseen, seen_lock};
use environment::fs;
use replication::marker::{Found, Marker, Role};
use replication::message::LifeId;
use replication::succession::{Entry, Generation, MachineName};
use std::fmt;
use std::path::Path;

/// Whose copies the disks here are to become.
#[derive(Clone, Debug)]
pub struct Sought {
    life: LifeId,
    /// In which another host is the primary.
    generation: Generation,
    /// How long its disks are, if it has said so.
    lengths: Vec<u64>,
}

impl Sought {
    /// Of the primary that lives in the generation that this key opened.
    pub fn of(newest: &Entry, lengths: Vec<u64>) -> Sought {
        Sought {
            life: newest.life,
            generation: newest.next_generation(),
            lengths,
        }
    }
}

/// Why this host's disks cannot become copies of a primary's, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnfitDisks {
    /// What is on one must not be overwritten.
    Kept(String),
    /// One is another's, or cannot be used.
    Unusable(String),
}

impl UnfitDisks {
    /// The event that tells it.
    pub fn event(&self) -> &'static str {
        match self {
            UnfitDisks::Kept(_) => "disk_kept",
            UnfitDisks::Unusable(_) => "disk_unusable",
        }
    }
}

impl fmt::Display for UnfitDisks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnfitDisks::Kept(what) => write!(f, "nothing here is overwritten: {what}"),
            UnfitDisks::Unusable(what) => f.write_str(what),
        }
    }
}

impl Places {
    /// Why a disk cannot become a copy of the primary's, if one cannot. Nothing is written.
    pub(super) fn unfit(&self, machine: &MachineName, sought: &Sought) -> Option<UnfitDisks> {
        let mut disks = self.all.iter().enumerate();
        disks.find_map(|(index, disk)| {
            if disk.is_shared {
                return self.unreached(disk, machine, sought);
            }
            let wanted = sought.lengths.get(index).copied();
            let length = match copy_place::look(disk, wanted) {
                Ok(CopyPlace::Disk(length)) => length,
                Ok(CopyPlace::Nothing | CopyPlace::OwnMachine) => return None,
                Err(error) => return Some(UnfitDisks::Unusable(error.to_string())),
            };
            // One that the guest cannot write has no marker.
            let (_, marker) = self.disks.iter().find(|(its, _)| its.path == disk.path)?;
            let content = fs::read(marker, LIMIT_BYTES).unwrap_or_default();
            let found = Found::beside(machine, Some(&content), length);
            self.anothers(disk, marker, &found, sought)
                .or_else(|| kept(machine, disk, &content, &found))
        })
    }

    /// Why a disk is not the one that the primary's host has, as far as is seen from here: beside that is a marker of the
    /// life that is sought, and it is locked.
    fn unreached(
        &self,
        disk: &DiskFile,
        machine: &MachineName,
        sought: &Sought,
    ) -> Option<UnfitDisks> {
        let unusable = |what: String| Some(UnfitDisks::Unusable(what));
        let (path, marker) = (
            disk.path.display(),
            &self.disks.iter().find(|(its, _)| its.path == disk.path)?.1,
        );
        let seen = match seen_lock(disk) {
            Ok(seen) => seen,
            Err(error) => return unusable(error.to_string()),
        };
        let content = fs::read(marker, LIMIT_BYTES).unwrap_or_default();
        match Found::read(machine, Some(&content)) {
            Found::Marker(of) if of.life_id == sought.life => {}
            _ => {
                return unusable(format!(
                    "the shared disk {path} has no marker of the live machine's beside it ({}): it is not the file that the \
                     machine's host has, or that host has not marked it yet",
                    marker.display()
                ));
            }
        }
        match seen {
            // A machine of before is about to let go of it; what is seen then is looked at before it follows.
            SeenLock::Anothers | SeenLock::OwnMachines => None,
            SeenLock::Nobodys if disk.fencing == Some(Fencing::Outside) => None,
            SeenLock::Nobodys => unusable(lock_unseen(disk)),
        }
    }

    /// Whether the marker beside a disk was written by the primary: it is that one's disk, where the file system has no
    /// locks between hosts. This host is not the primary in that generation, and writes no such marker.
    fn anothers(
        &self,
        disk: &DiskFile,
        marker: &Path,
        found: &Found,
        sought: &Sought,
    ) -> Option<UnfitDisks> {
        let Found::Marker(of) = found else {
            return None;
        };
        let is_primarys = of.role == Role::Primary
            && (of.life_id, of.generation) == (sought.life, sought.generation);
        is_primarys.then(|| {
            UnfitDisks::Unusable(format!(
                "the disk {} has a marker beside it that the live machine's host has written: if both hosts name one file \
                 on shared storage, give this host one of its own; if it is a copy that was made with its marker, \
                 remove {}, and write `overwrite = true` below the disk's path",
                disk.path.display(),
                marker.display()
            ))
        })
    }
}

/// What is on a disk that must not be overwritten, if anything is: no marker says that it is a copy of this machine's, or
/// one that was written beside another disk.
fn kept(
    machine: &MachineName,
    disk: &DiskFile,
    marker: &[u8],
    found: &Found,
) -> Option<UnfitDisks> {
    let is_ours = Marker::machine_of(marker) == Some(machine.as_str());
    let is_another = matches!(found, Found::OfAnotherDisk { .. });
    if disk.may_be_overwritten || is_ours && !is_another {
        return None;
    }
    let path = disk.path.display();
    let what = match (blank::is_blank(disk), found) {
        (Ok(true), _) => return None,
        (Ok(false), Found::OfAnotherDisk { marked, there }) => format!(
            "{path} has {there} bytes, and its marker was written beside a disk of {marked}: it is another disk. Put the \
             right one back, or remove this one"
        ),
        (Ok(false), _) => format!(
            "{path} holds data, and no marker beside it says that it is a copy of this machine's disk: remove it, or \
             empty it if it is raw (`truncate -s 0`)"
        ),
        (Err(error), _) => format!("{path} cannot be read ({error}): remove it"),
    };
    let otherwise = "or, if what is in it may go, write `overwrite = true` below its path";
    Some(UnfitDisks::Kept(format!("{what}, {otherwise}")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{marker, markers};
    use super::super::{FILE, Markers};
    use super::*;
    use replication::marker::DiskState;
    use std::fs;

    /// Joins the primary of life 7's generation 9, whose disks are so long.
    fn unfit(markers: &Markers, lengths: &[u64]) -> Option<UnfitDisks> {
        markers.look_at_disks(Sought {
            life: LifeId(7),
            generation: Generation(9),
            lengths: lengths.to_vec(),
        });
        markers.looked.recv().unwrap()
    }

    /// Why what is there is not overwritten.
    fn kept(markers: &Markers, lengths: &[u64]) -> String {
        match unfit(markers, lengths) {
            Some(UnfitDisks::Kept(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Why what is there cannot become a copy.
    fn unusable(markers: &Markers, lengths: &[u64]) -> String {
        match unfit(markers, lengths) {
            Some(UnfitDisks::Unusable(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Finding: a disk image of something else was cut to the primary's length, and overwritten.
    #[test]
    fn what_no_marker_says_to_be_this_machines_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let markers = markers(directory.path());
        let disk = directory.path().join("disk.raw");
        let held = || unfit(&markers, &[]);
        assert_eq!(held(), None, "zeros");
        fs::write(&disk, b"a letter").unwrap();
        let why = kept(&markers, &[]);
        assert!(
            why.contains("disk.raw holds data") && why.contains("overwrite = true"),
            "{why}"
        );
        fs::write(&disk, b"").unwrap();
        assert_eq!(held(), None, "it was emptied");
        fs::remove_file(&disk).unwrap();
        assert_eq!(held(), None, "it is not there");
        // What is half copied is of this machine as well: whoever comes back goes on without a question.
        fs::write(&disk, b"half").unwrap();
        let beside = directory.path().join("disk.raw.understudy");
        fs::write(&beside, marker(3, DiskState::Copying).content_beside(512)).unwrap();
        assert_eq!(held(), None);
        fs::write(&beside, b"torn").unwrap();
        assert!(held().is_some(), "a marker that says nothing");
    }

    /// Finding: what was put in the place of a copy, and its marker left beside it, was cut to the machine's length.
    #[test]
    fn a_disk_of_another_length_is_kept_though_a_marker_lies_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let markers = markers(directory.path());
        let disk = directory.path().join("disk.raw");
        let beside = directory.path().join("disk.raw.understudy");
        let whole = marker(3, DiskState::Whole).content_beside(512);
        fs::write(&beside, whole).unwrap();
        fs::write(&disk, [1; 1024]).unwrap();
        let why = kept(&markers, &[]);
        assert!(
            why.contains("1024 bytes") && why.contains("of 512"),
            "{why}"
        );
        fs::write(&disk, [0; 1024]).unwrap();
        assert_eq!(unfit(&markers, &[512]), None, "there is nothing on it");
        // As the primary says; a marker of a copy that was not whole says nothing of it.
        fs::write(&disk, [1; 1024]).unwrap();
        let half = marker(3, DiskState::Copying).content_beside(512);
        fs::write(&beside, half).unwrap();
        assert_eq!(unfit(&markers, &[1024]), None);
        let why = unusable(&markers, &[512]);
        assert!(
            why.contains("has 1024 bytes") && why.contains("has 512"),
            "{why}"
        );
        assert_eq!(fs::read(&disk).unwrap(), [1; 1024]);
    }

    /// Finding: the second of two hosts with one disk file wrote its marker over the first one's, and nothing started
    /// any more.
    #[test]
    fn a_disk_that_another_process_has_is_found_and_one_of_this_process_is_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let markers = markers(directory.path());
        let disk = directory.path().join("disk.raw");
        let file = environment::fs::File::open(&disk).unwrap();
        file.lock(environment::fs::Lock::Exclusive).unwrap();
        let why = unusable(&markers, &[]);
        assert!(
            why.contains("disk.raw is in use by another process") && why.contains("of its own"),
            "{why}"
        );
        drop(file);
        let own = crate::disk::Disk::open(&DiskFile::new(&disk, false)).unwrap();
        assert_eq!(unfit(&markers, &[]), None, "the machine before this one");
        drop(own);
        // Without locks between hosts, the marker tells.
        let mut of_primary = marker(9, DiskState::Whole);
        of_primary.role = Role::Primary;
        let beside = directory.path().join("disk.raw.understudy");
        fs::write(&beside, of_primary.content_beside(512)).unwrap();
        let why = unusable(&markers, &[]);
        assert!(why.contains("live machine's host has written"), "{why}");
        of_primary.generation = Generation(8);
        fs::write(&beside, of_primary.content_beside(512)).unwrap();
        assert_eq!(unfit(&markers, &[]), None, "this host was the primary once");
    }

    /// Two hosts that were to share a disk saw two files, or one whose lock only one of them saw: both wrote to it.
    #[test]
    fn a_shared_disk_is_the_one_that_the_primary_has_and_its_lock_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        markers.share_disks();
        let disk = directory.path().join("disk.raw");
        let beside = directory.path().join("disk.raw.understudy");
        let why = unusable(&markers, &[0]);
        assert!(why.contains("no marker of the live machine's"), "{why}");
        let of_before = Marker {
            life_id: LifeId(6),
            ..marker(9, DiskState::Whole)
        };
        fs::write(&beside, of_before.content_beside(512)).unwrap();
        let why = unusable(&markers, &[0]);
        assert!(why.contains("no marker of the live machine's"), "{why}");
        // As of any generation: a primary that was slow may have written it late.
        fs::write(&beside, marker(8, DiskState::Whole).content_beside(512)).unwrap();
        let why = unusable(&markers, &[0]);
        assert!(why.contains("nobody has the lock"), "{why}");
        let live = environment::fs::File::open(&disk).unwrap();
        live.lock(environment::fs::Lock::Exclusive).unwrap();
        fs::write(&disk, b"what is there is the machine's").unwrap();
        fs::write(&disk, [1; 512]).unwrap();
        assert_eq!(unfit(&markers, &[0]), None, "whatever is on it");
        fs::remove_file(&disk).unwrap();
        let why = unusable(&markers, &[0]);
        assert!(why.contains("cannot open the disk"), "{why}");
    }

    #[test]
    fn a_disk_that_cannot_be_used_is_found_before_anything_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        let elsewhere = directory.path().join("absent/disk.raw");
        let image = directory.path().join("disk.qcow2");
        fs::write(&image, b"QFI\xfb and no more of it").unwrap();
        let raw = directory.path().join("image.raw");
        fs::copy(&image, &raw).unwrap();
        for (disk, said) in [
            (&elsewhere, "its directory is not there"),
            (&image, "disk.qcow2 has qcow2 version"),
            (&raw, "begins as a qcow2 image does"),
        ] {
            let places = Places {
                state: directory.path().join(FILE),
                host: "here".into(),
                disks: Vec::new(),
                all: vec![DiskFile::new(disk, false)],
            };
            let sought = Sought {
                life: LifeId(7),
                generation: Generation(9),
                lengths: Vec::new(),
            };
            let unfit = places.unfit(&markers.machine, &sought);
            let why = unfit.expect(said).to_string();
            assert!(why.contains(said), "{why}");
        }
        assert!(markers.done().is_none());
    }
}
