//! `docs/protocol.md`, "The same arbiter".

use crate::pair::{Pair, ms};
use replication::event::Event;
use replication::primary::PrimaryAction;
use replication::watch::Agreement;

#[test]
fn another_arbiter_is_noticed_while_all_is_well() {
    let mut pair = Pair::protected();
    pair.answers = true;
    let feed = |pair: &mut Pair, seconds: u64| {
        for _ in 0..seconds {
            let count = pair.primary.status().instruction_count + 5_000_000;
            pair.input(count);
            pair.run(ms(1000));
        }
    };
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
