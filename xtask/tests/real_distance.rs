//! A real pair whose logging channel takes its time.

mod pair;

use anyhow::{Result, ensure};
use pair::client::Client;
use std::time::Duration;
use xtask::bench::{cpu::Target, distance::Pair};

/// Protected at every distance, nothing lost at a kill: the backup's log is late, not short.
fn goes_on_over_a_distance() -> Result<()> {
    let mut pair = Pair::start(Target::Riscv64)?;
    let mut client = Client::connect(&pair.redis)?;
    for one_way_ms in [0, 5, 20, 100] {
        pair.set_one_way(Duration::from_millis(one_way_ms))?;
        client.count(20)?;
        println!(
            "{one_way_ms} ms one way: the longest wait was {:?}",
            client.longest_wait
        );
        let status = pair.primary.await_state("protected")?;
        ensure!(
            pair.primary.events("suspected") + pair.backup.events("suspected") == 0,
            "suspected over {one_way_ms} ms: {status}"
        );
    }
    pair.primary.process.kill()?;
    pair.backup.await_live()?;
    client.count(200)?;
    client.check()
}

#[test]
fn a_pair_is_protected_over_a_distance_and_its_primary_may_die() {
    if let Err(error) = goes_on_over_a_distance() {
        panic!("{error:#}");
    }
}
