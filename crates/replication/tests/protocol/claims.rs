//! `docs/protocol.md`, "The succession" and "Taking over".

use crate::pair::{Pair, ms};
use crate::support::{config, key};
use replication::backup::{BackupAction, BackupPhase, BackupStop};
use replication::event::Event;
use replication::primary::{PrimaryAction, PrimaryPhase, PrimaryStop};
use replication::succession::{Kind, Outcome, RecordNumber, Request};
use std::time::Duration;

#[test]
fn on_anything_but_plain_success_the_key_is_read_back() {
    let mut pair = Pair::protected();
    pair.to_backup = false;
    pair.to_primary = false;
    pair.output(10, 1);
    pair.run(ms(300));
    let Some(Request::Create { content, .. }) = pair.primary_asks().first().cloned() else {
        panic!("nothing asked")
    };
    // No answer; then unreadable; then absent: asked again; a conflict; then it is ours.
    pair.answer_primary(Outcome::Unknown("timeout".into()));
    assert!(matches!(pair.primary_asks()[1], Request::Read { .. }));
    pair.answer_primary(Outcome::Unknown("timeout".into()));
    pair.run(ms(60));
    assert!(matches!(pair.primary_asks()[2], Request::Read { .. }));
    pair.answer_primary(Outcome::Absent);
    pair.run(ms(110));
    assert!(matches!(pair.primary_asks()[3], Request::Create { .. }));
    pair.answer_primary(Outcome::NotCreated);
    assert!(matches!(pair.primary_asks()[4], Request::Read { .. }));
    assert!(pair.emitted.is_empty(), "outputs wait for the arbiter");
    pair.answer_primary(Outcome::Holds(content));
    assert_eq!(pair.emitted, [1]);
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
}

#[test]
fn an_answer_about_another_generation_is_not_taken() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    pair.run(ms(300));
    for generation in [0, 1, 3] {
        let request = Request::Create {
            key: key(generation),
            after: None,
            content: Vec::new(),
        };
        let created = Outcome::Created;
        pair.primary.arbiter_answered(pair.now, &request, &created);
        pair.backup.arbiter_answered(pair.now, &request, &created);
        pair.settle();
    }
    assert!(pair.emitted.is_empty());
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Claiming);
    assert_eq!(pair.backup.status().phase, BackupPhase::Claiming);
}

/// Finding: an event a second for as long as an outage of the arbiter lasts.
#[test]
fn an_outage_of_the_arbiter_is_told_ever_more_seldom_and_its_end_is_told() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.run(ms(300));
    let asked = |pair: &Pair| pair.primary_asks().len();
    let told = |pair: &Pair| {
        let is_word = |action: &&PrimaryAction<u32>| {
            matches!(
                action,
                PrimaryAction::Report(Event::ArbiterUnanswered { .. })
            )
        };
        pair.primary_did.iter().filter(is_word).count()
    };
    let mut answered = 0;
    let mut words = Vec::new();
    for second in 0..3600 {
        if asked(&pair) > answered {
            answered = asked(&pair);
            pair.answer_primary(Outcome::Unknown("timeout".into()));
        }
        pair.run(ms(1000));
        if [0, 9, 60, 3599].contains(&second) {
            words.push(told(&pair));
        }
    }
    assert_eq!(words, [1, 1, 3, 9]);
    pair.answer_primary(Outcome::Absent);
    let again = pair.primary_did.iter().any(|action| {
        matches!(action, PrimaryAction::Report(Event::ArbiterAnswers { outage, .. })
            if *outage > Duration::from_secs(3590))
    });
    assert!(again);
}

/// Finding 8: an empty or torn key was taken for somebody else's claim.
#[test]
fn a_key_that_makes_no_sense_is_nobodys() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    pair.run(ms(300));
    pair.answer_primary(Outcome::NotCreated);
    let whole = pair.left_by("b", 1).content();
    for torn in [&b""[..], b"claimed by b\n", &whole[..whole.len() - 1]] {
        pair.answer_primary(Outcome::Holds(torn.to_vec()));
        assert_eq!(pair.primary.status().phase, PrimaryPhase::Claiming);
        pair.run(ms(1100));
    }
    assert!(pair.emitted.is_empty());
    pair.answer_primary(Outcome::Holds(whole));
    assert!(matches!(
        pair.primary_did.last(),
        Some(PrimaryAction::Stop(PrimaryStop::Superseded { .. }))
    ));
}

#[test]
fn the_loser_gives_its_machine_up_and_lets_nothing_out() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    pair.run(ms(300));
    let by = Box::new(pair.left_by("b", 1));
    pair.answer_primary(Outcome::NotCreated);
    pair.answer_primary(Outcome::Holds(by.content()));
    let stop = PrimaryStop::Superseded { by };
    assert_eq!(pair.primary_did.last(), Some(&PrimaryAction::Stop(stop)));
    assert!(pair.emitted.is_empty());
    let by = Box::new(pair.left_by("long", 4));
    pair.answer_backup(Outcome::NotCreated);
    pair.answer_backup(Outcome::Holds(by.content()));
    let stop = BackupStop::Superseded { by };
    assert_eq!(pair.backup_did.last(), Some(&BackupAction::Stop(stop)));
}

/// A person declares the life lost, or starts it elsewhere: whoever is alone finds out.
#[test]
fn a_primary_whose_generation_was_left_by_another_gives_its_machine_up() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.connected = true; // nobody connects
    let opened = pair.primary.opened().clone();
    let lost = opened.left(config("x").writer(), Kind::Lost, RecordNumber(2), None);
    pair.store.keys.insert(lost.key.clone(), lost.content());
    pair.run(ms(7000));
    assert!(matches!(
        pair.primary_did.last(),
        Some(PrimaryAction::Stop(PrimaryStop::Superseded { by })) if **by == lost
    ));
}

/// What the primary told of the arbiter: that it is of no use, and that it is again.
fn told_of_the_arbiter(pair: &Pair) -> (Vec<&str>, usize) {
    let (mut troubles, mut ends) = (Vec::new(), 0);
    for action in &pair.primary_did {
        match action {
            PrimaryAction::Report(Event::ArbiterUnanswered { why, .. }) => troubles.push(&why[..]),
            PrimaryAction::Report(Event::ArbiterAnswers { .. }) => ends += 1,
            _ => {}
        }
    }
    (troubles, ends)
}

/// An arbiter whose directory was replaced by an empty one was told to answer again: of the two keys
/// that are looked at in turn, an empty store does not have the one that must not be there.
#[test]
fn an_emptied_arbiter_does_not_answer_again_until_it_has_the_key_it_had() {
    let mut pair = Pair::new(config("a"), config("b"));
    pair.connected = true; // nobody connects
    let kept = std::mem::take(&mut pair.store.keys);
    pair.run(ms(30_000));
    let (troubles, ends) = told_of_the_arbiter(&pair);
    assert!(!troubles.is_empty() && ends == 0, "{troubles:?}, {ends}");
    let missing = pair.primary.opened().key.missing();
    assert!(troubles.iter().all(|why| *why == missing), "{troubles:?}");
    pair.store.keys = kept;
    pair.run(ms(30_000));
    assert_eq!(told_of_the_arbiter(&pair).1, 1);
}

/// The same while a key is asked for: reading it back says only that it is not there.
#[test]
fn a_claim_at_an_emptied_arbiter_is_not_answered_by_reading_back() {
    let mut pair = Pair::protected();
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    pair.run(ms(300));
    let missing = key(1).missing();
    for _ in 0..20 {
        let Some(request) = pair.primary_asks().last().cloned() else {
            panic!("nothing asked")
        };
        let outcome = match request {
            Request::Create { .. } => Outcome::Unknown(missing.clone()),
            _ => Outcome::Absent,
        };
        pair.answer_primary(outcome);
        pair.run(ms(1100));
    }
    let (troubles, ends) = told_of_the_arbiter(&pair);
    assert!(!troubles.is_empty() && ends == 0, "{troubles:?}, {ends}");
    assert!(troubles.iter().all(|why| *why == missing), "{troubles:?}");
}
