//! A few worlds in every test run; `cargo xtask test` runs hundreds, these among them, as `cargo xtask sim --seeds N`
//! does, and looks whether every situation occurred.

use sim::{Options, run_seed, run_seeds};

#[test]
fn no_promise_is_broken() {
    let summary = run_seeds(0..20, &Options::default());
    for failure in &summary.failures {
        println!("{failure}");
    }
    assert!(
        summary.failures.is_empty(),
        "{} seeds failed",
        summary.failures.len()
    );
}

#[test]
fn the_same_seed_is_the_same_world() {
    let options = Options {
        trace: true,
        trace_lines: 100_000,
        ..Options::default()
    };
    for seed in 0..5 {
        let runs = [(); 2].map(|()| run_seed(seed, &options).map(|report| report.trace));
        let [Ok(first), Ok(second)] = runs else {
            panic!("seed {seed} fails")
        };
        assert!(!first.is_empty());
        assert!(first == second, "seed {seed} has two histories");
    }
}
