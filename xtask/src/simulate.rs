//! The simulator: many seeds, or one with all that happened in it.

use anyhow::{Result, bail};
use sim::replicas::{self, Kind};
use sim::{Options, Summary, run_seed, run_seeds};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Seeds that a worker takes at a time: progress is printed between them.
const PORTION: u64 = 50;

/// Runs `seeds`; fails if a promise was broken, or if a situation that many seeds are meant to
/// reach never occurred.
pub fn many(seeds: Range<u64>) -> Result<()> {
    let start = Instant::now();
    let (mut summary, mut printed) = (Summary::default(), Duration::ZERO);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut next = seeds.start;
    while next < seeds.end && summary.failures.is_empty() {
        let end = seeds.end.min(next + workers * PORTION);
        for part in in_parallel(next..end, workers)? {
            summary.seeds += part.seeds;
            summary.duration += part.duration;
            summary.coverage.add(&part.coverage);
            summary.failures.extend(part.failures);
        }
        next = end;
        if start.elapsed() - printed > Duration::from_secs(5) {
            printed = start.elapsed();
            println!(
                "{} of {} seeds",
                next - seeds.start,
                seeds.end - seeds.start
            );
        }
    }
    for failure in &summary.failures {
        println!("{failure}\n");
    }
    println!("{}", summary.coverage);
    println!(
        "{} seeds, {:.0} s of simulated time, {} failures, {:.1} s",
        summary.seeds,
        summary.duration as f64 / 1e9,
        summary.failures.len(),
        start.elapsed().as_secs_f64()
    );
    if !summary.is_good() {
        bail!(
            "broken promises, or situations never reached: {:?}",
            summary.coverage.missing()
        );
    }
    Ok(())
}

fn in_parallel(seeds: Range<u64>, workers: u64) -> Result<Vec<Summary>> {
    let share = (seeds.end - seeds.start).div_ceil(workers);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|worker| {
                let first = (seeds.start + worker * share).min(seeds.end);
                let part = first..(first + share).min(seeds.end);
                scope.spawn(|| run_seeds(part, &Options::default()))
            })
            .collect();
        running
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .map_err(|_| anyhow::anyhow!("a worker panicked"))
            })
            .collect()
    })
}

/// Runs one seed and prints everything that happened.
pub fn one(seed: u64) -> Result<()> {
    let options = Options {
        trace: true,
        trace_lines: usize::MAX,
        ..Options::default()
    };
    match run_seed(seed, &options) {
        Ok(report) => {
            report.trace.iter().for_each(|line| println!("{line}"));
            println!("seed {seed}: no promise was broken");
            Ok(())
        }
        Err(failure) => bail!("{failure}"),
    }
}

/// As [`many`], with whole replicas, in worlds of these kinds, one after the other; plain ones if none is named.
pub fn many_whole(seeds: Range<u64>, kinds: &[Kind]) -> Result<()> {
    let kinds = if kinds.is_empty() {
        &[Kind::Plain]
    } else {
        kinds
    };
    for kind in kinds {
        println!("worlds of kind {}", kind.name());
        many_of_kind(seeds.clone(), *kind)?;
    }
    Ok(())
}

fn many_of_kind(seeds: Range<u64>, kind: Kind) -> Result<()> {
    let options = replicas::Options {
        kind,
        ..replicas::Options::default()
    };
    let start = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let share = (seeds.end - seeds.start).div_ceil(workers);
    let mut summary = replicas::Summary::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers)
            .map(|worker| {
                let first = (seeds.start + worker * share).min(seeds.end);
                let part = first..(first + share).min(seeds.end);
                scope.spawn(|| replicas::run_seeds(part, &options))
            })
            .collect();
        for worker in running {
            match worker.join() {
                Ok(part) => summary.add(part),
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(())
    })?;
    for failure in &summary.failures {
        println!("{failure}\n");
    }
    for (what, times) in &summary.counts {
        println!("{times:8} {what}");
    }
    let (recovery_ns, seed) = summary.longest_recovery;
    println!(
        "longest recovery after the last fault: {:.1} s, seed {seed}",
        recovery_ns as f64 / 1e9
    );
    println!(
        "{} seeds of whole replicas, {:.0} s of simulated time, {} failures, {:.1} s",
        summary.seeds,
        summary.duration_ns as f64 / 1e9,
        summary.failures.len(),
        start.elapsed().as_secs_f64()
    );
    if !summary.failures.is_empty() || !summary.missing(kind).is_empty() {
        bail!(
            "broken promises, or situations never reached: {:?}",
            summary.missing(kind)
        );
    }
    Ok(())
}

/// As [`one`], with whole replicas.
pub fn one_whole(seed: u64, kind: Kind) -> Result<()> {
    let options = replicas::Options {
        kind,
        trace: true,
        ..replicas::Options::default()
    };
    match replicas::run_seed(seed, &options) {
        Ok(report) => {
            report.trace.iter().for_each(|line| println!("{line}"));
            println!("whole replicas, seed {seed}: no promise was broken");
            Ok(())
        }
        Err(failure) => bail!("{failure}"),
    }
}
