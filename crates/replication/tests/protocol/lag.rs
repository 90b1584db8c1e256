//! `docs/protocol.md`, "Lag".

use crate::pair::{Pair, ms};
use replication::primary::PrimaryAction;
use replication::record::{InstructionCount, Record, RecordBody};
use std::time::Duration;

/// A backup at 40% of the primary's speed: the lag is held near its target, and the pair still
/// runs at nearly the backup's speed.
#[test]
fn the_lag_is_bounded_by_slowing_the_primary() {
    const PER_MS: u64 = 300_000;
    let mut pair = Pair::protected();
    pair.replays = false;
    let (mut share, mut count, mut executed) = (1000u64, 0, 0);
    let mut worst = Duration::ZERO;
    for step in 0..10_000u64 {
        pair.run(ms(1));
        for action in std::mem::take(&mut pair.primary_did) {
            if let PrimaryAction::Throttle(to) = action {
                share = to.into();
            }
        }
        count += PER_MS * share / 1000;
        pair.primary.progress(pair.now, InstructionCount(count));
        if step % 10 == 0 {
            pair.input(count);
        }
        executed = pair.to_replay.last().map_or(executed, |last| {
            last.count.0.min(executed + PER_MS * 40 / 100)
        });
        while pair
            .to_replay
            .get(pair.replayed.0 as usize)
            .is_some_and(|r| r.count.0 <= executed)
        {
            pair.replayed = pair.replayed.next();
        }
        pair.backup
            .replayed(pair.now, 1, pair.replayed, InstructionCount(executed));
        pair.settle();
        if step > 2000 {
            worst = worst.max(pair.primary.status().lag);
        }
    }
    println!(
        "worst lag {worst:?}, {} % of the backup's speed",
        executed * 100 / PER_MS / 4000
    );
    assert!(worst < ms(150), "lag {worst:?}");
    let wanted = PER_MS * 40 / 100 * 10_000;
    assert!(
        executed > wanted * 75 / 100,
        "{} %",
        executed * 100 / wanted
    );
    assert!(pair.suspicions().is_empty());
}

#[test]
fn an_idle_pair_sends_less_than_ten_kilobits_a_second() {
    let mut pair = Pair::protected();
    pair.wire_bytes = 0;
    for step in 0..150u64 {
        // Fifteen wakeups a second, and a digest once a second, half a day after power-on.
        let count = 12_960_000_000_000 + step * 20_000;
        let body = match step % 15 {
            0 => RecordBody::Digest(step.into()),
            _ => RecordBody::Input(vec![4; 14]),
        };
        pair.primary.record(
            pair.now,
            Record {
                count: InstructionCount(count),
                body,
            },
        );
        pair.run(ms(66));
    }
    let kilobits = pair.wire_bytes as f64 * 8.0 / 1000.0 / (150.0 * 0.066);
    println!("{kilobits:.2} kbit/s in both directions");
    assert!(kilobits < 10.0, "{kilobits}");
}
