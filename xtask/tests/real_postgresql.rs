//! PostgreSQL in a guest of 1 GiB under pgbench, whose primaries are killed.

use std::path::Path;
use xtask::bench::postgresql;
use xtask::program;

/// Finding 1: no join of a large guest fails, and nothing that was committed is lost.
#[test]
fn no_transaction_is_lost_and_no_join_fails_when_primaries_are_killed() {
    if !program::exists("pgbench") || !program::exists("psql") {
        println!("not tried: pgbench and psql are missing (apt-get install postgresql)");
        return;
    }
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest-workloads");
    let outcome = postgresql::run(2, "1G", &guests).expect("the pair keeps going");
    println!("{outcome:?}");
    assert_eq!(
        (outcome.kills, outcome.joins_failed, outcome.lost),
        (2, 0, 0)
    );
    assert!(outcome.transactions > 0, "nothing was under way");
}
