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
    let (before, after) = (first.console(), second.console());
    let (earlier, later) = (
        numbers(&before),
        numbers(after.split_once('\n').map_or("", |(_, rest)| rest)),
    );
    assert!(
        earlier
            .iter()
            .enumerate()
            .all(|(index, number)| *number == index as u32),
        "{earlier:?}"
    );
    assert!(
        later.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{later:?}"
    );
    let last = earlier.last().copied().unwrap();
    // The first line of the later one may be cut: outputs are released by the byte.
    assert!(
        later[0] <= last + 2,
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
