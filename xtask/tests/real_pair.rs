//! Real processes, a real Debian guest, real kills.

use xtask::bench::failover::{self, Victims};

/// One open connection increments and reads counters while replicas die: primary and backup in
/// turn. No error, no lost or repeated reply, every value exact.
#[test]
fn twenty_kills_of_primary_and_backup_in_turn_are_invisible_on_one_connection() {
    let outcome = failover::run(20, 20_101, Victims::InTurn, 0, &[]).expect("the pair keeps going");
    println!("{outcome:?}");
    assert_eq!(outcome.kills, 20);
    assert_eq!((outcome.errors, outcome.lost, outcome.repeated), (0, 0, 0));
    assert!(
        outcome.requests > 200,
        "too little traffic to mean anything"
    );
}
