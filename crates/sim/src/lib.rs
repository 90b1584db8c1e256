//! A seeded world around the real replication core, and checkers that watch it. Not shipped.
//!
//! Two to five nodes with stub guests, the logging channels between them, an arbiter, clients outside; and
//! everything that can happen to them: crashes at any step, frozen and woken processes, cuts in one
//! direction or both, event loops that stall, restores of any length, hosts far from each other with
//! clocks that differ, slow links, ghosts of old connections, lost and late answers of the arbiter,
//! slow replay, hung threads, flipped bits. First a time of faults in which nothing wrong may ever
//! be seen (safety), then a time of calm in which all must be well again (liveness).
#![forbid(unsafe_code)]

mod arbiter;
mod asking;
mod checker;
pub mod coverage;
mod differences;
mod disk;
mod drive;
mod faults;
mod fetching;
mod guest;
mod lives;
mod network;
mod process;
mod random;
pub mod replicas;
mod scenario;
mod unlike;
mod wire;
mod world;

use coverage::Coverage;
use replication::mutation::{Mutation, Mutations};
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
pub use world::Violation;
use world::World;

/// How a world is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// An old bug to bring back, to see that it is found.
    pub mutation: Option<Mutation>,
    /// Worlds of so many hosts only.
    pub hosts: Option<usize>,
    /// Write down what happens.
    pub trace: bool,
    /// How many of the last lines of that are kept.
    pub trace_lines: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mutation: None,
            hosts: None,
            trace: false,
            trace_lines: 400,
        }
    }
}

impl Options {
    fn mutations(&self) -> Mutations {
        self.mutation
            .map_or_else(Mutations::default, Mutations::only)
    }
}

/// A seed in which no promise was broken.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Which situations occurred.
    pub coverage: Coverage,
    /// How long the world lasted, in its own time (nanoseconds).
    pub duration: u64,
    /// What happened, if it was written down.
    pub trace: Vec<String>,
}

/// A seed in which a promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was seen.
    pub violation: Violation,
    /// What happened before.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.violation)?;
        write!(f, "replay with: cargo xtask sim --seed {}", self.seed)
    }
}

impl std::error::Error for Failure {}

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// How often each situation occurred.
    pub coverage: Coverage,
    /// Simulated time, in nanoseconds.
    pub duration: u64,
    /// The first failures, ten at most.
    pub failures: Vec<Failure>,
}

impl Summary {
    /// Whether all is well: no failure, and no situation that never occurred.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.coverage.missing().is_empty()
    }
}

/// Runs one seed. A failing seed is run once more to write down what happened.
pub fn run_seed(seed: u64, options: &Options) -> Result<Report, Box<Failure>> {
    let (result, world_trace, coverage, duration) = run_world(seed, options);
    match result {
        Ok(()) => Ok(Report {
            seed,
            coverage,
            duration,
            trace: world_trace,
        }),
        Err(violation) => {
            let trace = if options.trace {
                world_trace
            } else {
                run_world(
                    seed,
                    &Options {
                        trace: true,
                        ..options.clone()
                    },
                )
                .1
            };
            Err(Box::new(Failure {
                seed,
                violation,
                trace,
            }))
        }
    }
}

/// Where a panic ends the process (the release profile), it must at least say which seed it was.
#[cfg(panic = "abort")]
fn announce_panics(seed: u64) {
    use std::sync::Once;
    use std::sync::atomic::{AtomicU64, Ordering};
    static HOOK: Once = Once::new();
    static SEED: AtomicU64 = AtomicU64::new(0);
    SEED.store(seed, Ordering::Relaxed);
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            let seed = SEED.load(Ordering::Relaxed);
            eprintln!("an assertion failed in seed {seed}");
            eprintln!("replay with: cargo xtask sim --seed {seed}");
        }));
    });
}

/// A panic becomes a [`Failure`].
#[cfg(not(panic = "abort"))]
fn announce_panics(_: u64) {}

fn run_world(seed: u64, options: &Options) -> (Result<(), Violation>, Vec<String>, Coverage, u64) {
    announce_panics(seed);
    let mut world = World::new(seed, options);
    // The core's own assertions are checkers too.
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let result = result.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_default();
        Err(Violation::Safety(format!("an assertion failed: {text}")))
    });
    let coverage = world.coverage().clone();
    (result, world.take_trace(), coverage, world.now)
}

/// Runs many seeds; stops after ten failures. Look at [`Summary::is_good`].
pub fn run_seeds(seeds: Range<u64>, options: &Options) -> Summary {
    let mut summary = Summary::default();
    for seed in seeds {
        summary.seeds += 1;
        match run_seed(seed, options) {
            Ok(report) => {
                summary.coverage.add(&report.coverage);
                summary.duration += report.duration;
            }
            Err(failure) => summary.failures.push(*failure),
        }
        if summary.failures.len() == 10 {
            break;
        }
    }
    summary
}
