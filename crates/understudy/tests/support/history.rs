//! What the outside saw of a guest that counts.

use super::{ReplicaFiles, wait_for};

/// The numbers that the outside saw, whole lines only.
pub fn numbers(console: &str) -> Vec<u32> {
    let whole = console.rfind('\n').map_or("", |end| &console[..end]);
    whole
        .lines()
        .map(|line| u32::from_str_radix(line, 16).unwrap())
        .collect()
}

/// What the outside saw has no gap: each replica's output is a run of numbers, and the later one
/// begins no later than where the earlier one ended.
pub fn assert_one_history(first: &ReplicaFiles, second: &ReplicaFiles) {
    assert_one_history_of(u32::MAX, first, second);
}

/// The same of a guest that begins anew after so many numbers, which are more than twice as many as
/// are ever told twice.
pub fn assert_one_history_of(period: u32, first: &ReplicaFiles, second: &ReplicaFiles) {
    let (before, after) = (first.console(), second.console());
    let (earlier, later) = (
        numbers(&before),
        numbers(after.split_once('\n').map_or("", |(_, rest)| rest)),
    );
    assert!(
        earlier
            .iter()
            .enumerate()
            .all(|(index, number)| *number == index as u32 % period),
        "{earlier:?}"
    );
    assert!(
        later
            .windows(2)
            .all(|pair| pair[1] == (pair[0] + 1) % period),
        "{later:?}"
    );
    let last = earlier.last().copied().unwrap();
    // The first line of the later one may be cut: outputs are released by the byte.
    let told_twice =
        (u64::from(last) + 2 + u64::from(period) - u64::from(later[0])) % u64::from(period);
    assert!(
        told_twice < u64::from(period / 2),
        "a gap: {last} is followed by {}",
        later[0]
    );
}

/// Waits until so many numbers are out.
pub fn await_lines(replica: &ReplicaFiles, lines: usize) {
    wait_for("the guest's output", || {
        (numbers(&replica.console()).len() >= lines).then_some(())
    });
}
