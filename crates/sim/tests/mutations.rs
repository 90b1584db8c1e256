//! The simulator can fail: old bugs, brought back one at a time, are found within few seeds.

use replication::mutation::Mutation;
use sim::{Options, run_seed};

/// Runs seeds until the bug is seen, and says after how many and how.
fn seeds_until_found(mutation: Mutation, at_most: u64) -> Option<(u64, String)> {
    let options = Options {
        mutation: Some(mutation),
        ..Options::default()
    };
    (0..at_most).find_map(|seed| {
        run_seed(seed, &options)
            .err()
            .map(|failure| (seed + 1, failure.violation))
    })
}

macro_rules! found {
    ($($name:ident: $mutation:ident within $seeds:literal,)*) => {$(
        #[test]
        fn $name() {
            let found = seeds_until_found(Mutation::$mutation, $seeds);
            println!("{:?}: {found:?}", Mutation::$mutation);
            assert!(found.is_some(), "not found within {} seeds", $seeds);
        }
    )*};
}

found! {
    outputs_that_do_not_wait_are_found: NoOutputRule within 50,
    a_backup_dropped_without_asking_is_found: DropBackupWithoutAsking within 200,
    a_backup_live_without_asking_is_found: GoLiveWithoutAsking within 50,
    a_log_not_drained_is_found: NotDrained within 200,
    a_lost_answer_taken_as_defeat_is_found: LostAnswerIsDefeat within 1000,
    an_unnoticed_gap_is_found: GapUnnoticed within 300,
    a_claim_before_begin_is_found: ClaimBeforeBegin within 500,
    outputs_that_are_not_repeated_are_found: OutputsNotRepeated within 200,
    trust_after_sleep_is_found: NoDoubtAfterSleep within 2000,
    a_restore_taken_for_silence_is_found: RestoreCountsAsSilence within 500,
    a_round_trip_taken_for_lag_is_found: RoundTripIsLag within 500,
    a_fixed_time_for_records_is_found: RecordTimeoutIsFixed within 500,
}
