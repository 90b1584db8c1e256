//! `docs/protocol.md`, "The same arbiter".

use crate::pair::{Pair, ms};
use replication::backup::BackupAction;
use replication::event::Event;
use replication::primary::PrimaryAction;
use replication::watch::Agreement;

fn feed(pair: &mut Pair, seconds: u64) {
    for _ in 0..seconds {
        let count = pair.primary.status().instruction_count.0 + 5_000_000;
        pair.input(count);
        pair.run(ms(1000));
    }
}

#[test]
fn another_arbiter_is_noticed_while_all_is_well() {
    let mut pair = Pair::protected();
    pair.answers = true;
    feed(&mut pair, 8);
    assert_eq!(pair.primary.status().arbiter, Agreement::Agreed);
    assert_eq!(pair.backup.status().arbiter, Agreement::Agreed);
    pair.split = true;
    feed(&mut pair, 8);
    assert_eq!(pair.primary.status().arbiter, Agreement::Differs);
    assert_eq!(pair.backup.status().arbiter, Agreement::Differs);
    let told = |event: &Event| {
        matches!(
            event,
            Event::Arbiter {
                agreement: Agreement::Differs
            }
        )
    };
    let events = pair
        .primary_did
        .iter()
        .filter(|action| matches!(action, PrimaryAction::Report(event) if told(event)));
    assert_eq!(events.count(), 1, "told once, not once for each look");
    assert!(pair.primary.status().protected && pair.suspicions().is_empty());
}

/// Finding: beacons were written into, and read from, a store that had been emptied, which was told to be the same
/// on both hosts; and the status said nothing of it.
#[test]
fn an_emptied_arbiter_is_not_the_same_until_it_has_its_keys() {
    let mut pair = Pair::protected();
    pair.answers = true;
    feed(&mut pair, 8);
    let troubles = |pair: &Pair| {
        let (primary, backup) = (pair.primary.status(), pair.backup.status());
        (primary.arbiter_trouble, backup.arbiter_trouble)
    };
    assert_eq!(troubles(&pair), (None, None));
    let is_agreed = |event: &Event| {
        let agreement = Agreement::Agreed;
        *event == Event::Arbiter { agreement }
    };
    let agreed = |pair: &Pair| {
        let primary = pair.primary_did.iter();
        let backup = pair.backup_did.iter();
        let of_primary = |action: &&PrimaryAction<u32>| matches!(action, PrimaryAction::Report(event) if is_agreed(event));
        let of_backup = |action: &&BackupAction<u32>| matches!(action, BackupAction::Report(event) if is_agreed(event));
        (
            primary.filter(of_primary).count(),
            backup.filter(of_backup).count(),
        )
    };
    let told = agreed(&pair);
    let kept = std::mem::take(&mut pair.store.keys);
    feed(&mut pair, 60);
    let missing = pair.primary.opened().key.missing();
    let (primary, backup) = troubles(&pair);
    assert_eq!(primary, Some(missing));
    assert_eq!(backup.as_deref(), Agreement::Unreachable.trouble());
    assert_eq!(agreed(&pair), told, "said to be the same");
    assert!(pair.primary.status().protected && pair.suspicions().is_empty());
    pair.store.keys = kept;
    feed(&mut pair, 20);
    assert_eq!(troubles(&pair), (None, None));
    assert_eq!(pair.primary.status().arbiter, Agreement::Agreed);
}
