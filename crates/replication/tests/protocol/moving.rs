//! `docs/protocol.md`, "Another arbiter": what the primary and its members see to before the key. What
//! comes after it is the stores' (`crates/arbiter/tests/trail.rs`).

use crate::pair::{Pair, ms};
use crate::support::{Store, key};
use replication::primary::PrimaryAction;
use replication::succession::{Entry, Generation, Key, Kind, Request};

/// A protected pair, and another arbiter.
fn pair() -> Pair {
    let mut pair = Pair::protected();
    pair.answers = true;
    pair.store.elsewhere = Some(Box::default());
    pair
}

fn moves(pair: &mut Pair) {
    pair.primary.move_arbiter(pair.now, "new".into(), 7);
    pair.settle();
}

fn outcome(pair: &Pair) -> Option<Result<(), String>> {
    let mut did = pair.primary_did.iter();
    did.find_map(|action| match action {
        PrimaryAction::ArbiterMoved(result) => Some(result.clone()),
        _ => None,
    })
}

fn refused(pair: &Pair) -> String {
    let refused = outcome(pair).expect("it is told").unwrap_err();
    assert_eq!(pair.primary.status().generation, Generation(2), "{refused}");
    assert!(pair.primary.status().protected, "{refused}");
    refused
}

#[test]
fn a_life_moves_when_everybody_sees_the_new_arbiter_and_stays_protected() {
    let mut pair = pair();
    moves(&mut pair);
    assert_eq!(outcome(&pair), Some(Ok(())));
    let moved = Entry::parse(&key(2), &pair.store.keys[&key(2)]).unwrap();
    assert_eq!(moved.kind, Kind::Moved);
    assert_eq!(moved.moved_to.as_ref().unwrap().address, "new");
    let before = Entry::parse(&key(1), &pair.store.keys[&key(1)]).unwrap();
    assert_eq!(moved.next, before.next, "everybody is still in it");
    let [primary, backup] = [
        pair.primary.status().generation,
        pair.backup.status().generation,
    ];
    assert_eq!([primary, backup], [Generation(3); 2]);
    // Whoever leads to the stores sees the key at each host.
    assert!(pair.backup_asks().contains(&Request::Read { key: key(2) }));
    pair.output(1000, 1);
    pair.run(ms(500));
    assert_eq!(pair.emitted, [1]);
    assert!(pair.primary.status().protected && pair.suspicions().is_empty());
    // A member goes on from there.
    pair.answers = false;
    pair.to_primary = false;
    pair.to_backup = false;
    pair.run(ms(500));
    let claims = pair.backup_asks();
    let next =
        |request: &Request| matches!(request, Request::Create { key: of, .. } if *of == key(3));
    assert!(claims.iter().any(next), "{claims:?}");
}

#[test]
fn a_member_that_does_not_see_it_or_sees_another_ends_the_move() {
    let mut pair = pair();
    pair.split = true;
    moves(&mut pair);
    let told = refused(&pair);
    assert!(told.contains("no route"), "{told}");

    // The same address leads to another store, which was prepared as well.
    let mut pair = self::pair();
    pair.answers = false;
    moves(&mut pair);
    let mut foreign = Store::default();
    for _ in 0..40 {
        let asked = pair
            .primary_did
            .drain(..)
            .filter_map(|action| match action {
                PrimaryAction::Ask(request) => Some(request),
                _ => None,
            });
        for request in asked.collect::<Vec<_>>() {
            let outcome = pair.store.carry_out(&request);
            pair.primary.arbiter_answered(pair.now, &request, &outcome);
            if let Request::Elsewhere { request, .. } = &request
                && matches!(**request, Request::Create { .. })
            {
                foreign.carry_out(request);
            }
        }
        let asked = pair.backup_did.drain(..).filter_map(|action| match action {
            replication::backup::BackupAction::Ask(request) => Some(request),
            _ => None,
        });
        for request in asked.collect::<Vec<_>>() {
            let Request::Elsewhere { request: inner, .. } = &request else {
                continue;
            };
            let outcome = foreign.carry_out(inner);
            pair.backup.arbiter_answered(pair.now, &request, &outcome);
        }
        pair.settle();
        if let Some(result) = outcome(&pair) {
            let told = result.unwrap_err();
            assert!(
                told.contains("is not the arbiter that the live host sees"),
                "{told}"
            );
            return;
        }
    }
    panic!("nothing came of it");
}

#[test]
fn a_member_that_says_nothing_ends_the_move_and_one_that_is_lost_meanwhile() {
    let mut pair = pair();
    pair.to_backup = false;
    moves(&mut pair);
    assert_eq!(outcome(&pair), None, "it waits");
    pair.run(ms(600));
    let told = outcome(&pair).expect("it is told").unwrap_err();
    assert!(told.contains("came, went or took over"), "{told}");
    let left = Entry::parse(&key(2), &pair.store.keys[&key(2)]).unwrap();
    assert_ne!(left.kind, Kind::Moved);
}

#[test]
fn an_arbiter_with_another_machine_of_this_name_or_with_the_next_key_is_refused() {
    for (other, told) in [
        (false, "another machine of this name"),
        (true, "left already"),
    ] {
        let mut pair = pair();
        let mut new = Store::default();
        match other {
            false => {
                let first = Key::power_on(&key(0).machine, key(0).life);
                new.keys.insert(first, b"another".to_vec());
            }
            true => {
                new.keys.insert(key(2), b"anything".to_vec());
            }
        }
        pair.store.elsewhere = Some(Box::new(new));
        moves(&mut pair);
        let refused = refused(&pair);
        assert!(refused.contains(told), "{refused}");
    }
}
