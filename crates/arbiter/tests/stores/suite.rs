//! What is asked of every store.

use crate::servers::{Backend, Directory, Etcd, S3, races};
use crate::way::{Fault, Way};
use crate::{Claimant, claim, entry, key};
use arbiter::CONTENT_LIMIT;
use replication::succession::{BeaconName, HostId, MachineName, Outcome, Request, Verdict};
use std::sync::Barrier;

const CLAIMANTS: u128 = 8;

/// Of all who claim a generation at the same time one wins, and the others hear of it.
fn each_race_has_one_winner(backend: impl Backend, races: u64) {
    let barrier = Barrier::new(CLAIMANTS as usize);
    let verdicts: Vec<Vec<Verdict>> = std::thread::scope(|scope| {
        let claimants: Vec<_> = (0..CLAIMANTS)
            .map(|host| {
                let (barrier, backend) = (&barrier, &backend);
                scope.spawn(move || {
                    let mut store = backend.open(&Way::clear());
                    let race = |generation| {
                        barrier.wait();
                        claim(&mut *store, entry(generation, host, 1))
                    };
                    (0..races).map(race).collect()
                })
            })
            .collect();
        let verdicts = claimants
            .into_iter()
            .map(|claimant| claimant.join().unwrap());
        verdicts.collect()
    });
    for race in 0..races {
        let verdicts: Vec<_> = verdicts
            .iter()
            .map(|verdicts| &verdicts[race as usize])
            .collect();
        let is_won = |verdict: &&Verdict| **verdict == Verdict::Won;
        let winner = verdicts.iter().position(is_won);
        let winner = winner.unwrap_or_else(|| panic!("nobody won race {race}"));
        let won = Verdict::Lost(Box::new(entry(race, winner as u128, 1)));
        for (host, verdict) in verdicts.iter().enumerate() {
            assert!(
                host == winner || **verdict == won,
                "race {race}: {verdict:?}, not {won:?}"
            );
        }
    }
}

fn keys_are_created_once_and_only_after_the_one_before(backend: impl Backend) {
    let mut store = backend.open(&Way::clear());
    let mut other = backend.open(&Way::clear());
    let create = |generation: u64, after: Option<u64>, content: &[u8]| Request::Create {
        key: key(generation),
        after: after.map(key),
        content: content.to_vec(),
    };
    let read = |generation| Request::Read {
        key: key(generation),
    };
    assert_eq!(store.answer(&read(1)), Outcome::Absent);
    let missing = Outcome::Unknown(key(1).missing());
    assert_eq!(store.answer(&create(2, Some(1), b"me")), missing);
    assert_eq!(other.answer(&read(2)), Outcome::Absent);
    assert_eq!(
        store.answer(&create(1, None, b"me\n\xff")),
        Outcome::Created
    );
    assert_eq!(other.answer(&create(1, None, b"you")), Outcome::NotCreated);
    assert_eq!(other.answer(&read(1)), Outcome::Holds(b"me\n\xff".to_vec()));
    assert_eq!(other.answer(&create(2, Some(1), b"you")), Outcome::Created);
    assert_eq!(
        store.answer(&create(2, Some(1), b"me")),
        Outcome::NotCreated
    );
    let long = vec![b'x'; CONTENT_LIMIT];
    assert_eq!(store.answer(&create(3, None, &long)), Outcome::Created);
    assert_eq!(other.answer(&read(3)), Outcome::Holds(long));
    let too_long = store.answer(&create(4, None, &[b'x'; CONTENT_LIMIT + 1]));
    assert!(matches!(too_long, Outcome::Unknown(_)), "{too_long:?}");
    assert_eq!(other.answer(&read(4)), Outcome::Absent);
}

/// "The same arbiter" in docs/protocol.md.
fn a_beacon_is_overwritten_and_seen_by_others(backend: impl Backend) {
    let mut store = backend.open(&Way::clear());
    let mut other = backend.open(&Way::clear());
    let beacon = BeaconName {
        machine: MachineName::new("vm").unwrap(),
        host: HostId(3),
    };
    let read = Request::ReadBeacon {
        beacon: beacon.clone(),
    };
    assert_eq!(other.answer(&read), Outcome::Absent);
    for content in [b"one", b"two"] {
        let request = Request::WriteBeacon {
            beacon: beacon.clone(),
            content: content.to_vec(),
        };
        assert_eq!(store.answer(&request), Outcome::Written);
        assert_eq!(other.answer(&read), Outcome::Holds(content.to_vec()));
    }
}

fn a_claim_whose_answers_are_lost_is_won_by_reading_back(backend: impl Backend) {
    let way = Way::clear();
    let mut store = backend.open(&way);
    way.set(Fault::AnswersLost);
    let mut claimant = Claimant::new(entry(0, 1, 1));
    let told = claimant.ask_in_vain(&mut *store, 3);
    assert!(!told.is_empty(), "nobody was told");
    way.set(Fault::None);
    assert_eq!(claimant.verdict(&mut *store), Verdict::Won);
    let mut other = backend.open(&Way::clear());
    let lost = Verdict::Lost(Box::new(entry(0, 1, 1)));
    assert_eq!(claim(&mut *other, entry(0, 2, 1)), lost);
}

/// Its next run finds what it wrote, and knows it for that of another process.
fn who_dies_between_the_claim_and_its_answer_has_claimed(backend: impl Backend) {
    let way = Way::clear();
    let mut store = backend.open(&way);
    way.set(Fault::AnswersLost);
    Claimant::new(entry(0, 1, 1)).ask_in_vain(&mut *store, 1);
    drop(store);
    let mut store = backend.open(&Way::clear());
    let lost = Verdict::Lost(Box::new(entry(0, 1, 1)));
    assert_eq!(claim(&mut *store, entry(0, 1, 2)), lost);
    assert_eq!(claim(&mut *store, entry(1, 1, 2)), Verdict::Won);
}

/// What was asked once may land at any time: here after another claim was won, or before it.
fn a_request_that_was_held_up_lands_and_changes_nothing_that_was_decided(backend: impl Backend) {
    let mut clear = backend.open(&Way::clear());
    assert_eq!(claim(&mut *clear, entry(0, 2, 1)), Verdict::Won);
    for is_first_to_land in [false, true] {
        let generation = 1 + u64::from(is_first_to_land);
        let way = Way::clear();
        let mut slow = backend.open(&way);
        way.set(Fault::HeldUp);
        let (first, mut claimant, mut slow) = std::thread::scope(|scope| {
            let held_up = scope.spawn(move || {
                let mut claimant = Claimant::new(entry(generation, 1, 1));
                let first = claimant.step(&mut *slow);
                (first, claimant, slow)
            });
            way.await_held_up();
            if !is_first_to_land {
                assert_eq!(claim(&mut *clear, entry(generation, 2, 1)), Verdict::Won);
            }
            way.set(Fault::None);
            held_up.join().unwrap()
        });
        assert_eq!(first, Verdict::Pending, "its answer was lost");
        let verdict = claimant.verdict(&mut *slow);
        let other = claim(&mut *clear, entry(generation, 3, 1));
        match verdict {
            Verdict::Won => {
                assert!(is_first_to_land, "two won");
                assert_eq!(other, Verdict::Lost(Box::new(entry(generation, 1, 1))));
            }
            Verdict::Lost(by) => assert_eq!(other, Verdict::Lost(by)),
            Verdict::Pending => panic!("no verdict"),
        }
    }
}

fn a_store_that_fails_decides_nothing_and_loses_nothing(backend: impl Backend) {
    for (generation, fault) in [(0, Fault::Failing), (1, Fault::Unreachable)] {
        let ways = [Way::clear(), Way::clear()];
        let mut stores = ways.each_ref().map(|way| backend.open(way));
        let mut claimants = [1, 2].map(|host| Claimant::new(entry(generation, host, 1)));
        ways.iter().for_each(|way| way.set(fault));
        for (claimant, store) in claimants.iter_mut().zip(&mut stores) {
            let told = claimant.ask_in_vain(&mut **store, 4);
            assert!(!told.is_empty(), "nobody was told");
            assert_eq!(claimant.claim.unanswered(), 4, "not each was told at once");
        }
        let mut clear = backend.open(&Way::clear());
        let read = clear.answer(&Request::Read {
            key: key(generation),
        });
        assert_eq!(read, Outcome::Absent);
        ways.iter().for_each(|way| way.set(Fault::None));
        let [one, two] = &mut claimants;
        assert_eq!(two.verdict(&mut *stores[1]), Verdict::Won);
        let lost = Verdict::Lost(Box::new(entry(generation, 2, 1)));
        assert_eq!(one.verdict(&mut *stores[0]), lost);
    }
}

/// A process that is started while nobody answers asks until somebody does.
fn a_store_that_nobody_answered_for_at_the_start_is_used_later<B: Backend>(backend: B) {
    let way = Way::clear();
    let mut early = match std::any::type_name::<B>().ends_with("Directory") {
        // A directory that is not there is refused: it is a mount that is missing.
        true => backend.open(&way),
        false => {
            way.set(Fault::Unreachable);
            backend.open(&way)
        }
    };
    way.set(Fault::Unreachable);
    let mut claimant = Claimant::new(entry(0, 1, 1));
    claimant.ask_in_vain(&mut *early, 2);
    way.set(Fault::None);
    assert_eq!(claimant.verdict(&mut *early), Verdict::Won);
}

/// Reads that lag behind put a verdict off; they make nobody win or lose.
fn a_store_that_reads_from_before_decides_nothing_by_that(backend: impl Backend) {
    let way = Way::clear();
    let mut stale = backend.open(&way);
    let mut clear = backend.open(&Way::clear());
    way.set(Fault::Stale);
    for generation in [0, 1] {
        let read = Request::Read {
            key: key(generation),
        };
        assert_eq!(stale.answer(&read), Outcome::Absent);
    }
    assert_eq!(claim(&mut *clear, entry(0, 2, 1)), Verdict::Won);
    let mut loser = Claimant::new(entry(0, 1, 1));
    loser.ask_in_vain(&mut *stale, 9);
    way.set(Fault::None);
    let lost = Verdict::Lost(Box::new(entry(0, 2, 1)));
    assert_eq!(loser.verdict(&mut *stale), lost);
}

/// No store is asked for the time, and none is believed about it.
fn a_store_that_lies_about_the_time_decides_as_ever(backend: impl Backend) {
    let way = Way::with(Fault::LyingAboutTime);
    let mut lying = backend.open(&way);
    let mut clear = backend.open(&Way::clear());
    assert_eq!(claim(&mut *lying, entry(0, 1, 1)), Verdict::Won);
    let lost = Verdict::Lost(Box::new(entry(0, 1, 1)));
    assert_eq!(claim(&mut *clear, entry(0, 2, 1)), lost);
    assert_eq!(claim(&mut *clear, entry(1, 2, 1)), Verdict::Won);
    let lost = Verdict::Lost(Box::new(entry(1, 2, 1)));
    assert_eq!(claim(&mut *lying, entry(1, 1, 1)), lost);
}

/// There everybody would win: nobody does, neither who saw it full nor who comes anew.
fn a_store_that_comes_back_empty_is_found_out(mut backend: impl Backend) {
    let mut store = backend.open(&Way::clear());
    let other = backend.open(&Way::clear());
    for generation in [0, 1] {
        assert_eq!(claim(&mut *store, entry(generation, 1, 1)), Verdict::Won);
    }
    drop(other);
    backend.empty();
    let told = Claimant::new(entry(2, 1, 1)).ask_in_vain(&mut *store, 4);
    assert!(told.contains("emptied"), "{told}");
    let mut anew = backend.open(&Way::clear());
    let told = Claimant::new(entry(2, 2, 1)).ask_in_vain(&mut *anew, 1);
    assert!(told.contains("emptied"), "{told}");
    let read = anew.answer(&Request::Read { key: key(2) });
    assert_eq!(read, Outcome::Absent);
}

macro_rules! suite {
    ($($backend:ident as $name:ident),*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn each_race_has_one_winner() {
                if let Some(backend) = $backend::start() {
                    super::each_race_has_one_winner(backend, races(<$backend as Backend>::RACES));
                }
            }

            suite! { @each $backend
                keys_are_created_once_and_only_after_the_one_before
                a_beacon_is_overwritten_and_seen_by_others
                a_claim_whose_answers_are_lost_is_won_by_reading_back
                who_dies_between_the_claim_and_its_answer_has_claimed
                a_request_that_was_held_up_lands_and_changes_nothing_that_was_decided
                a_store_that_fails_decides_nothing_and_loses_nothing
                a_store_that_nobody_answered_for_at_the_start_is_used_later
                a_store_that_reads_from_before_decides_nothing_by_that
                a_store_that_lies_about_the_time_decides_as_ever
                a_store_that_comes_back_empty_is_found_out
            }
        })*
    };
    (@each $backend:ident $($test:ident)*) => {
        $(#[test]
        fn $test() {
            if let Some(backend) = $backend::start() {
                super::$test(backend);
            }
        })*
    };
}

suite! { Directory as directory, Etcd as etcd, S3 as s3 }
