//! `docs/protocol.md`, "Which disk".

use crate::pair::{Pair, WIRE, ms};
use crate::support::config;
use replication::config::PairConfig;
use replication::primary::PrimaryAction;
use replication::record::InstructionCount;
use replication::succession::{Durability, Outcome};

#[test]
fn a_flush_waits_for_both_disks() {
    let both = |node| PairConfig {
        durability: Durability::Both,
        ..config(node)
    };
    let mut pair = Pair::new(both("a"), both("b"));
    pair.settle();
    pair.run(ms(50));
    let allowed = |pair: &Pair| {
        let actions = pair.primary_did.iter().rev();
        actions
            .filter_map(|action| match action {
                PrimaryAction::CompleteFlushes { up_to } => Some(*up_to),
                _ => None,
            })
            .next()
    };
    assert_eq!(allowed(&pair), Some(InstructionCount::POWER_ON));
    pair.input(5_000_000);
    pair.run(ms(50));
    pair.backup
        .flushed(pair.now, 1, InstructionCount(5_000_000));
    pair.settle();
    assert_eq!(allowed(&pair), Some(InstructionCount(5_000_000)));
    pair.backup.disconnected(pair.now, Some(WIRE));
    pair.answers = false;
    pair.primary_did.clear();
    pair.primary.disconnected(pair.now, WIRE);
    pair.settle();
    assert_eq!(allowed(&pair), None, "not before the member is dropped");
    pair.answer_primary(Outcome::Created);
    assert_eq!(allowed(&pair), Some(InstructionCount::LAST));
}
