//! How long a machine stands still while a snapshot of its RAM is begun, and what copying it takes:
//! `cargo run --release -p machine --example snapshot_pause -- MIB...`, each MiB of RAM all in use.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // measures: outside the machine

use machine::memory::{Extent, PAGE_SIZE, Ram, Region};
use std::time::Instant;

fn main() {
    for argument in std::env::args().skip(1) {
        let mib: u64 = argument.parse().expect("a number of MiB");
        let mut ram = Ram::new(&[Region {
            base: 0,
            length: mib << 20,
        }]);
        for page in 0..ram.pages() {
            ram.store(page * PAGE_SIZE as usize, 8, page as u64 + 1);
        }
        let began = Instant::now();
        let _first = ram.digest();
        let digest = began.elapsed();
        let began = Instant::now();
        ram.begin_capture(Extent::Whole);
        let pause = began.elapsed();
        let began = Instant::now();
        let mut batches = 0;
        loop {
            let mut capture = ram.capture().expect("it was begun");
            capture.copy(16);
            while let Some(batch) = capture.take_batch() {
                batches += 1;
                capture.reuse(batch);
            }
            if capture.is_complete() {
                capture.end();
                break;
            }
        }
        println!(
            "{mib} MiB in use: pause {pause:.2?}, copied in {:.2?} ({batches} MiB), first digest {digest:.2?}",
            began.elapsed()
        );
    }
}
