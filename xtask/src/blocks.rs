//! Programs of random blocks that judge every engine by the interpreter, for as long as wanted.
//! The tests of the `riscv` crate try a few of the same programs.

#[path = "../../crates/riscv/tests/engines/blocks/mod.rs"]
mod programs;

use anyhow::{Result, bail};
use programs::execution::Execution;
use programs::judge::judge;
use programs::{Account, BLOCKS, Program};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often progress is printed.
const PROGRESS_PERIOD: Duration = Duration::from_secs(5);

/// What all workers share.
struct Progress {
    next: AtomicU64,
    programs: Range<u64>,
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    programs: u64,
    instructions: u64,
    account: Account,
    printed: Duration,
    failure: Option<String>,
}

/// Tries at least `count` blocks: those of the programs from number `seed` on. Every program is
/// judged under one way of execution after the other, or under all if there is only one program.
///
/// # Errors
/// The first difference, with what replays it.
pub fn run(count: u64, seed: u64) -> Result<()> {
    let programs = seed..seed + count.div_ceil(BLOCKS).max(1);
    let progress = Progress {
        next: AtomicU64::new(seed),
        programs,
        start: Instant::now(),
        state: Mutex::default(),
    };
    if Execution::others(0).next().is_none() {
        println!("this host has no JIT: the interpreter is judged by itself");
    }
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&progress));
        }
    });
    let state = progress.state.lock().unwrap_or_else(|e| e.into_inner());
    print(&progress, &state);
    println!("{:?}", state.account);
    match &state.failure {
        Some(failure) => bail!("{failure}"),
        None => Ok(()),
    }
}

fn work(progress: &Progress) {
    loop {
        let seed = progress.next.fetch_add(1, Ordering::Relaxed);
        if !progress.programs.contains(&seed) {
            return;
        }
        let outcome = judge(&Program::random(seed), seed, &executions(progress, seed));
        let mut state = progress.state.lock().unwrap_or_else(|e| e.into_inner());
        match outcome {
            Ok(reference) => {
                state.programs += 1;
                state.instructions += reference.length();
                state.account.add(&reference.account);
            }
            Err(difference) => {
                let again = format!("cargo xtask blocks --seed {seed} --count 1");
                let failure = format!("{difference}\nto see it again: {again}");
                state.failure.get_or_insert(failure);
            }
        }
        if state.failure.is_some() {
            return;
        }
        let elapsed = progress.start.elapsed();
        if elapsed - state.printed > PROGRESS_PERIOD {
            state.printed = elapsed;
            print(progress, &state);
        }
    }
}

/// One of the others in turn; all of them for a single program.
fn executions(progress: &Progress, seed: u64) -> Vec<Execution> {
    let all = Execution::all(seed);
    if progress.programs.end - progress.programs.start == 1 || all.len() == 1 {
        return all;
    }
    vec![all[1 + seed as usize % (all.len() - 1)]]
}

fn print(progress: &Progress, state: &State) {
    println!(
        "{} of {} programs, {} blocks, {} million instructions of each engine, {:.0} s",
        state.programs,
        progress.programs.end - progress.programs.start,
        state.programs * BLOCKS,
        state.instructions / 1_000_000,
        progress.start.elapsed().as_secs_f64()
    );
}
