//! "Another arbiter" in docs/protocol.md, between real stores of each kind.

use crate::servers::{Backend, Directory, Etcd, S3};
use crate::way::{Fault, Way};
use crate::{claim, entry, key};
use arbiter::{Store, Trail};
use replication::succession::{
    ArrivalId, Destination, Entry, Kind, Outcome, RecordNumber, Request, Verdict, arrival_content,
};

/// A life of some generations moves; who comes with the old configuration finds all of it at the new one,
/// also when the old one cannot be written any more.
fn a_life_moves(old: impl Backend + 'static, new: impl Backend + Send + 'static) {
    let mut opened = entry(0, 1, 1);
    let mut store = old.open(&Way::clear());
    assert_eq!(claim(&mut *store, opened.clone()), Verdict::Won);
    for generation in 1..4 {
        opened = Entry {
            kind: Kind::ColdStart,
            ..entry(generation, 1, 1)
        };
        assert_eq!(claim(&mut *store, opened.clone()), Verdict::Won);
    }
    let destination = Destination {
        address: "the new one".into(),
        arrival: ArrivalId(77),
    };
    let arrival = replication::succession::Key::arrival(&opened.key.machine);
    let created = new.open(&Way::clear()).answer(&Request::Create {
        content: arrival_content(&arrival.machine, destination.arrival),
        key: arrival,
        after: None,
    });
    assert_eq!(created, Outcome::Created);
    let moved = opened.moved(opened.writer.clone(), RecordNumber(9), destination);
    assert_eq!(claim(&mut *store, moved.clone()), Verdict::Won);

    let way = Way::clear();
    let open = {
        let way = way.clone();
        move |address: &str| {
            assert_eq!(address, "the new one");
            Ok(new.open(&way))
        }
    };
    let mut trail = Trail::new(old.open(&Way::clear()), Box::new(open));
    let next = Entry {
        kind: Kind::ColdStart,
        ..moved.left(
            moved.writer.clone(),
            Kind::ColdStart,
            RecordNumber(10),
            opened.next.clone(),
        )
    };
    way.set(Fault::Failing);
    let create = Request::Create {
        key: next.key.clone(),
        after: Some(moved.key.clone()),
        content: next.content(),
    };
    let told = trail.answer(&create);
    assert!(
        matches!(&told, Outcome::Unknown(why) if why.contains("\"the new one\"")),
        "{told:?}"
    );
    way.set(Fault::None);
    assert_eq!(claim(&mut trail, next.clone()), Verdict::Won);
    let read = store.answer(&Request::Read {
        key: next.key.clone(),
    });
    assert_eq!(read, Outcome::Absent, "it was created at the old one");
    for generation in 0..6 {
        let read = trail.answer(&Request::Read {
            key: key(generation),
        });
        assert!(matches!(read, Outcome::Holds(_)), "{generation}: {read:?}");
    }
}

#[test]
fn from_a_directory_to_etcd() {
    if let (Some(old), Some(new)) = (Directory::start(), Etcd::start()) {
        a_life_moves(old, new);
    }
}

#[test]
fn from_etcd_to_a_bucket() {
    if let (Some(old), Some(new)) = (Etcd::start(), S3::start()) {
        a_life_moves(old, new);
    }
}
