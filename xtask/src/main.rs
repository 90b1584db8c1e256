//! Everything a developer runs: check, test, sim, bench.
#![forbid(unsafe_code)]
fn main() {}
