//! A key counts when a crash of the store cannot take it back: finding 9, and the mutant of finding
//! 14 that syncs nothing.
//!
//! This binary brings its own `fsync`, which stands before the C library's.

use arbiter::{DirectoryStore, Store};
use replication::message::LifeId;
use replication::mutation::Mutations;
use replication::succession::{
    Claim, ClaimPacing, Entry, Generation, Host, HostId, Key, Kind, LifeNumber, MachineName,
    Membership, Origin, Outcome, RecordNumber, Request, RunId, Verdict, Writer,
};
use rustix::fs::FileType;
use std::cell::RefCell;
use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What this thread's test wants of `fsync`, and what was synced.
#[derive(Default)]
struct Syncs {
    files_fail: bool,
    directories_fail: bool,
    done: Vec<FileType>,
}

thread_local! {
    static SYNCS: RefCell<Syncs> = RefCell::default();
}

/// Makes what this descriptor stands for durable, unless the test says that it cannot be.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: the caller's descriptor is open for as long as its call lasts.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
    let fails = SYNCS.with_borrow_mut(|syncs| match kind {
        Ok(kind) => {
            syncs.done.push(kind);
            match kind {
                FileType::Directory => syncs.directories_fail,
                _ => syncs.files_fail,
            }
        }
        Err(_) => true,
    });
    if fails || rustix::fs::fsync(fd).is_err() {
        // Leaves an error number for the caller to look at, any but that of an interruption.
        let _missing = std::fs::metadata("/nonexistent");
        return -1;
    }
    0
}

fn set(change: impl FnOnce(&mut Syncs)) {
    SYNCS.with_borrow_mut(change);
}

fn entry() -> Entry {
    let host = Host::new(HostId(3), "a");
    Entry {
        key: Key {
            machine: MachineName::new("vm").unwrap(),
            life: LifeNumber(1),
            generation: Generation(0),
        },
        kind: Kind::PowerOn,
        writer: Writer {
            host: host.clone(),
            run: RunId(1),
        },
        life: LifeId(9),
        record: RecordNumber(1),
        next: Some(Membership {
            primary: host.clone(),
            members: Vec::new(),
            since: Generation(1),
            durability: Default::default(),
            origin: Origin {
                host,
                life: LifeNumber(0),
                generation: Generation(0),
            },
            journal: None,
        }),
        moved_to: None,
    }
}

/// Finding 9: the read-back said "ours" though the key could still be taken back.
#[test]
fn a_key_whose_directory_cannot_be_synced_is_not_yet_ours() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = DirectoryStore::open(directory.path()).unwrap();
    let pacing = ClaimPacing::default();
    let mut claim = Claim::new(Duration::ZERO, entry(), None, pacing, Mutations::default());
    let mut now = Duration::ZERO;
    set(|syncs| syncs.directories_fail = true);
    for _ in 0..6 {
        now += Duration::from_secs(2);
        let Some(request) = claim.poll(now) else {
            panic!("it asks until there is a verdict")
        };
        let outcome = store.answer(&request);
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
        assert_eq!(claim.answer(now, &request, &outcome), Verdict::Pending);
    }
    let is_there = std::fs::read_dir(directory.path()).unwrap().count() == 1;
    assert!(is_there, "the key is there, as far as a reader sees");
    set(|syncs| syncs.directories_fail = false);
    now += Duration::from_secs(2);
    let request = claim.poll(now).unwrap();
    let outcome = store.answer(&request);
    assert_eq!(claim.answer(now, &request, &outcome), Verdict::Won);
}

#[test]
fn a_content_that_cannot_be_synced_gets_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = DirectoryStore::open(directory.path()).unwrap();
    set(|syncs| syncs.files_fail = true);
    let key = entry().key;
    let create = Request::Create {
        key: key.clone(),
        after: None,
        content: entry().content(),
    };
    let created = store.answer(&create);
    assert!(matches!(created, Outcome::Unknown(_)), "{created:?}");
    assert_eq!(store.answer(&Request::Read { key }), Outcome::Absent);
}

/// Finding 14's mutant: no sync at all.
#[test]
fn the_content_is_durable_before_the_key_and_the_key_before_the_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = DirectoryStore::open(directory.path()).unwrap();
    set(|syncs| syncs.done.clear());
    let create = Request::Create {
        key: entry().key,
        after: None,
        content: entry().content(),
    };
    assert_eq!(store.answer(&create), Outcome::Created);
    let done = SYNCS.with_borrow(|syncs| syncs.done.clone());
    assert_eq!(done, [FileType::RegularFile, FileType::Directory]);
    set(|syncs| syncs.done.clear());
    let read = Request::Read { key: entry().key };
    let read = store.answer(&read);
    assert_eq!(read, Outcome::Holds(entry().content()));
    let done = SYNCS.with_borrow(|syncs| syncs.done.clone());
    assert_eq!(
        done,
        [FileType::Directory],
        "whoever made it may have failed"
    );
}
