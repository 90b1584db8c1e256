//! `docs/protocol.md`, "Handing over".

use crate::pair::{Pair, ms};
use replication::backup::BackupAction;
use replication::message::{Button, MAX_ANSWER_BYTES};
use replication::primary::{Asked, PrimaryAction, PrimaryPhase, PrimaryStop};
use replication::record::{InstructionCount, RecordNumber};
use replication::succession::{Kind, Outcome, Request};

#[test]
fn a_primary_hands_over_and_says_nothing_more() {
    let mut pair = Pair::protected();
    pair.answers = true;
    pair.to_primary = false;
    pair.output(10, 1);
    assert!(pair.primary.hand_over(pair.now));
    pair.to_primary = true;
    pair.settle();
    pair.run(ms(100));
    let live = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::GoLive {
            opened, outputs, ..
        } => Some((opened.kind, outputs.clone())),
        _ => None,
    });
    assert_eq!(live, Some((Kind::HandedOver, vec![1])));
    assert!(pair.emitted.is_empty());
    assert!(matches!(
        pair.primary_did.last(),
        Some(PrimaryAction::Stop(PrimaryStop::Superseded { by })) if by.kind == Kind::HandedOver
    ));
}

/// What was let out a moment before is known to the successor, though no records followed it.
#[test]
fn what_left_before_a_handover_is_not_said_again() {
    let mut pair = Pair::protected();
    pair.answers = true;
    pair.output(10, 1);
    pair.settle();
    assert_eq!(pair.emitted, [1]);
    assert!(pair.primary.hand_over(pair.now));
    pair.settle();
    pair.run(ms(100));
    let said_again = pair.backup_did.iter().find_map(|action| match action {
        BackupAction::GoLive { outputs, .. } => Some(outputs.clone()),
        _ => None,
    });
    assert_eq!(said_again, Some(vec![]));
}

/// Finding: a machine was handed over while its heir had a second of it left to execute, for which all clients
/// waited.
#[test]
fn an_heir_that_is_behind_comes_near_while_the_machine_runs_on_slowly() {
    const PER_MS: u64 = 300_000;
    let mut pair = Pair::protected();
    pair.replays = false;
    let (mut share, mut count, mut executed) = (1000, 0, 0);
    let mut step = |pair: &mut Pair| {
        pair.run(ms(1));
        for action in std::mem::take(&mut pair.primary_did) {
            if let PrimaryAction::Throttle(to) = action {
                share = u64::from(to);
            }
        }
        count += PER_MS * share / 1000;
        pair.primary.progress(pair.now, InstructionCount(count));
        pair.input(count);
        // The heir is as fast as the primary, and was 80 ms late once.
        if pair.now > ms(180) {
            let last = pair.to_replay.last().map_or(0, |last| last.count.0);
            executed = last.min(executed + PER_MS);
        }
        let held = pair.to_replay.iter();
        let replayed = held.take_while(|record| record.count.0 <= executed).count();
        pair.replayed = RecordNumber(replayed as u64);
        pair.backup
            .replayed(pair.now, 1, pair.replayed, InstructionCount(executed));
        pair.settle();
        share
    };
    for _ in 0..100 {
        step(&mut pair);
    }
    let lag = pair.primary.heir_lag().unwrap();
    assert!(
        lag > ms(5),
        "an heir at the same speed stays behind: {lag:?}"
    );
    pair.primary.approach_handover();
    let approach = (0..500).find(|_| {
        let share = step(&mut pair);
        assert!((1..=300).contains(&share), "the machine runs on: {share}");
        pair.primary.heir_lag().is_some_and(|lag| lag <= ms(5))
    });
    assert!(approach.is_some(), "it does not come near");
    // Nothing comes of it: it is as fast as before.
    pair.primary.leave_approach();
    assert!((0..500).any(|_| step(&mut pair) == 1000));
}

#[test]
fn a_machine_that_nobody_took_over_runs_on() {
    let mut pair = Pair::protected();
    pair.answers = true;
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.output(10, 1);
    assert!(pair.primary.hand_over(pair.now));
    pair.settle();
    assert_eq!(pair.primary.status().phase, PrimaryPhase::HandingOver);
    pair.run(ms(300));
    let resumes = |action: &PrimaryAction<u32>| matches!(action, PrimaryAction::Resume);
    assert!(pair.primary_did.iter().any(resumes));
    assert_eq!(pair.primary.status().phase, PrimaryPhase::Alone);
    assert_eq!(pair.emitted, [1]);
}

/// Keys that the primary asked about since this was asked last, and what its looks came to.
fn asked_and_looked(pair: &mut Pair) -> (Vec<Request>, Vec<Option<String>>) {
    pair.settle();
    let (mut asked, mut looked) = (Vec::new(), Vec::new());
    for action in pair.primary_did.drain(..) {
        match action {
            PrimaryAction::Ask(request @ Request::Read { .. }) => asked.push(request),
            PrimaryAction::Looked { trouble } => looked.push(trouble),
            _ => {}
        }
    }
    (asked, looked)
}

fn answer(pair: &mut Pair, request: &Request) {
    let outcome = pair.carry_out(request, false);
    pair.primary.arbiter_answered(pair.now, request, &outcome);
}

/// Finding: whether the arbiter is there was known from a look that was seconds old, and a machine that was
/// handed over by it stood still until the arbiter was back.
#[test]
fn an_arbiter_that_went_away_since_the_last_look_is_found_before_the_machine_stands_still() {
    let mut pair = Pair::protected();
    assert!(pair.primary.can_hand_over(), "by the last look all is well");
    pair.primary.look_at_arbiter(pair.now);
    let (asked, looked) = asked_and_looked(&mut pair);
    assert!(looked.is_empty());
    let [request] = &asked[..] else {
        panic!("it is asked once: {asked:?}");
    };
    let gone = Outcome::Unknown("it is not mounted".into());
    pair.primary.arbiter_answered(pair.now, request, &gone);
    let (_, looked) = asked_and_looked(&mut pair);
    assert_eq!(looked, [Some("it is not mounted".to_owned())]);
    assert!(!pair.primary.can_hand_over() && pair.primary.has_heir());
    // It is back.
    pair.primary.look_at_arbiter(pair.now);
    let (asked, _) = asked_and_looked(&mut pair);
    answer(&mut pair, &asked[0]);
    let (_, looked) = asked_and_looked(&mut pair);
    assert_eq!(looked, [None]);
    assert!(pair.primary.can_hand_over());
    // An emptied store answers, and is none.
    pair.primary.look_at_arbiter(pair.now);
    let (asked, _) = asked_and_looked(&mut pair);
    pair.primary
        .arbiter_answered(pair.now, &asked[0], &Outcome::Absent);
    let (_, looked) = asked_and_looked(&mut pair);
    assert!(matches!(&looked[..], [Some(_)]), "{looked:?}");
}

/// What was asked before may have been answered before the arbiter went away.
#[test]
fn an_answer_that_was_under_way_is_no_fresh_look() {
    let mut pair = Pair::protected();
    let under_way = loop {
        pair.run(ms(10));
        let (asked, _) = asked_and_looked(&mut pair);
        if let Some(request) = asked.into_iter().next() {
            break request;
        }
    };
    pair.primary.look_at_arbiter(pair.now);
    let (asked, looked) = asked_and_looked(&mut pair);
    assert!(asked.is_empty() && looked.is_empty(), "one at a time");
    answer(&mut pair, &under_way);
    let (asked, looked) = asked_and_looked(&mut pair);
    assert!(looked.is_empty(), "this was asked before");
    answer(&mut pair, &asked[0]);
    let (_, looked) = asked_and_looked(&mut pair);
    assert_eq!(looked, [None]);
}

/// Finding: what was asked for at a backup was passed on, and nobody there heard that it was refused.
#[test]
fn what_is_asked_for_at_a_backup_is_answered_there() {
    let mut pair = Pair::protected();
    assert!(pair.backup.switch_over(pair.now, 7));
    assert!(pair.backup.press(pair.now, Button::Pause, 8));
    pair.settle();
    let asked: Vec<Asked> = pair
        .primary_did
        .iter()
        .filter_map(|action| match action {
            PrimaryAction::SwitchOver(asked) | PrimaryAction::Press(Button::Pause, asked) => {
                Some(*asked)
            }
            _ => None,
        })
        .collect();
    let requests: Vec<u64> = asked.iter().map(|asked| asked.request).collect();
    assert_eq!(requests, [7, 8]);
    pair.primary
        .answer(pair.now, asked[1], true, "so be it".into());
    let long = "é".repeat(MAX_ANSWER_BYTES);
    pair.primary.answer(pair.now, asked[0], false, long);
    // Of a backup that is gone: nobody hears it.
    let gone = Asked {
        pairing: 99,
        ..asked[0]
    };
    pair.primary.answer(pair.now, gone, false, "never".into());
    pair.settle();
    let answers: Vec<(u64, bool)> = pair
        .backup_did
        .iter()
        .filter_map(|action| match action {
            BackupAction::Answered { request, done, .. } => Some((*request, *done)),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [(8, true), (7, false)]);
    assert!(pair.suspicions().is_empty());
}
