//! `docs/protocol.md`, "Taking over".

use crate::pair::{Pair, WIRE, ms};
use crate::support::config;
use replication::backup::{BackupAction, BackupPhase};
use replication::primary::PrimaryAction;
use replication::record::RecordNumber;
use replication::succession::{Generation, Kind, Outcome};

#[test]
fn going_live_drains_the_log_and_repeats_what_may_not_be_out() {
    let mut pair = Pair::protected();
    pair.output(10, 1);
    pair.run(ms(60)); // the backup learns that output 1 is out
    pair.replays = false;
    pair.to_primary = false;
    pair.output(20, 2);
    pair.output(30, 3);
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    pair.answer_backup(Outcome::Created);
    assert_eq!(pair.backup.status().phase, BackupPhase::Draining);
    assert!(
        !pair
            .backup_did
            .iter()
            .any(|action| matches!(action, BackupAction::GoLive { .. }))
    );
    pair.replay_all();
    pair.settle();
    let Some(BackupAction::GoLive {
        opened,
        log,
        outputs,
    }) = pair.backup_did.last()
    else {
        panic!("{:?}", pair.backup_did.last())
    };
    assert_eq!((opened.kind, log.last()), (Kind::TookOver, RecordNumber(3)));
    assert_eq!(opened.next_generation(), Generation(3));
    assert_eq!(outputs, &[2, 3]);
}

/// Mutant: no announcement at going live. The network would send the guest's traffic to the old
/// host.
#[test]
fn whoever_goes_live_announces_the_guest_first() {
    let mut pair = Pair::protected();
    pair.output(10, 1);
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.settle();
    assert!(!pair.backup_did.contains(&BackupAction::Announce));
    pair.answer_backup(Outcome::Created);
    let last_two = &pair.backup_did[pair.backup_did.len() - 2..];
    assert!(matches!(
        last_two,
        [BackupAction::Announce, BackupAction::GoLive { .. }]
    ));
}

/// Mutant: no announcement after the network is back.
#[test]
fn a_network_that_is_back_is_told_where_the_guest_is_once_that_is_certain() {
    let announced = |pair: &mut Pair| {
        pair.primary.network_back(pair.now);
        pair.settle();
        let done = pair.primary_did.contains(&PrimaryAction::Announce);
        pair.primary_did
            .retain(|action| *action != PrimaryAction::Announce);
        done
    };
    let mut alone = Pair::new(config("a"), config("b"));
    alone.connected = true;
    assert!(announced(&mut alone));
    let mut pair = Pair::protected();
    assert!(announced(&mut pair));
    (pair.to_backup, pair.to_primary) = (false, false);
    pair.now += ms(150);
    assert!(!announced(&mut pair), "the backup may have gone live");
    pair.run(ms(300));
    assert!(!announced(&mut pair), "the arbiter is asked");
    pair.answer_primary(Outcome::Created);
    assert!(pair.primary_did.contains(&PrimaryAction::Announce));
}
