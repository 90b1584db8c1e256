//! The simulator can fail: old bugs, brought back one at a time, are found within few seeds. Those that
//! whole replicas show as well are in `replicas.rs`, which looks at more of what ships.

mod hunt;

use replication::mutation::Mutation;
use sim::{Options, run_seed};

/// Runs seeds until the bug is seen, and says after how many and how.
fn seeds_until_found(
    mutation: Mutation,
    hosts: Option<usize>,
    first: u64,
    at_most: u64,
) -> Option<(u64, String)> {
    let options = Options {
        mutation: Some(mutation),
        hosts,
        ..Options::default()
    };
    hunt::seeds_until_found(at_most, |seed| {
        let failure = run_seed(first + seed, &options).err()?;
        Some(failure.violation.to_string())
    })
}

macro_rules! found {
    ($($name:ident: $mutation:ident within $seeds:literal $(of $hosts:literal)? $(from $first:literal)?,)*) => {$(
        #[test]
        fn $name() {
            let (hosts, first) = (None $(.or(Some($hosts)))?, 0 $(+ $first)?);
            let found = seeds_until_found(Mutation::$mutation, hosts, first, $seeds);
            println!("{:?}: {found:?}", Mutation::$mutation);
            assert!(found.is_some(), "not found within {} seeds", $seeds);
        }
    )*};
}

found! {
    a_lost_answer_taken_as_defeat_is_found: LostAnswerIsDefeat within 1000,
    an_unnoticed_gap_is_found: GapUnnoticed within 300,
    a_start_from_any_disk_is_found: AnyDiskStarts within 2000,
    // Among more hosts there is nearly always one that knows better: worlds of two find these soon.
    a_flush_before_the_disk_is_settled_is_found: FlushBeforeSettled within 2000 of 2,
    a_disk_overwritten_before_it_is_marked_is_found: OverwrittenBeforeMarked within 2000,
    an_end_without_a_key_is_found: EndWithoutKey within 2000,
    a_key_that_is_not_read_back_is_found: KeyNotReadBack within 2000,
    a_key_without_the_one_before_is_found: KeyBeforeNotRequired within 2000,
    a_round_trip_taken_for_lag_is_found: RoundTripIsLag within 500,
    a_restore_taken_for_silence_is_found: RestoreCountsAsSilence within 500,
    a_fixed_time_for_records_is_found: RecordTimeoutIsFixed within 500,
    // One world in some hundred shows it, and the first is the 640th: to look for it from the beginning took half of the
    // time of all of these.
    an_own_disk_that_is_not_asked_is_found: OwnDiskFailureIgnored within 1400 of 2 from 600,
    a_snapshot_that_is_not_cancelled_is_found: SnapshotNotCancelled within 500,
    a_torn_key_taken_for_defeat_is_found: TornKeyIsDefeat within 1000,
    a_log_that_forgets_what_is_needed_is_found: LogForgetsWhatIsNeeded within 500,
    a_laggard_let_go_before_its_key_is_found: LetGoBeforeTheKey within 1000 of 3,
    a_last_member_let_go_is_found: LastMemberLetGo within 500 of 2,
    a_host_that_is_too_small_and_taken_is_found: TakesTheTooSmall within 100,
    a_spare_that_powers_on_is_found: SparePowersOn within 200 of 3,
    a_majority_that_is_not_looked_at_is_found: MajorityNotLookedAt within 200 of 3,
    an_end_before_the_log_is_drained_is_found: EndsUndrained within 1000,
}

/// Somebody has to leave the generation of a machine that is live and whose host heard nothing: seldom.
#[test]
#[ignore = "takes minutes: cargo test -p sim --test mutations -- --ignored"]
fn an_own_key_that_is_not_looked_at_is_found() {
    let found = seeds_until_found(Mutation::OwnKeyNotLookedAt, None, 0, 2000);
    println!("{found:?}");
    assert!(found.is_some(), "not found within 2000 seeds");
}

/// The second backup has to be lost while the key without the first is on its way: seldom.
#[test]
#[ignore = "takes minutes: cargo test -p sim --test mutations -- --ignored"]
fn two_drops_at_once_are_found() {
    let found = seeds_until_found(Mutation::SecondDropForgotten, Some(3), 0, 2000);
    println!("{found:?}");
    assert!(found.is_some(), "not found within 2000 seeds");
}
