//! Everything a developer runs: check, conformance, sim, bench.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use xtask::{bench, check, conformance, engines, simulate, test};

#[derive(Parser)]
#[command(about = "What a developer of Understudy runs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format, clippy with warnings as errors, documentation, licences.
    Check,
    /// All tests.
    Test,
    /// Simulate pairs among crashes, partitions, frozen processes and a bad arbiter.
    Sim {
        /// How many seeds.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// Only this seed, with everything that happens in it.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Run bare-metal ELF programs (riscv-tests) that report through `tohost` or the finisher.
    Conformance {
        /// Directory with the programs.
        directory: PathBuf,
        /// Only programs whose name begins so.
        #[arg(long, default_value = "rv64")]
        prefix: String,
    },
    /// Record Debian guests under one engine and replay them under the other.
    Engines {
        /// Only this workload (login, redis, postgresql, compiler, node); may be repeated.
        #[arg(long)]
        workload: Vec<String>,
        /// Where guest images are built, and used again; several GB.
        #[arg(long, default_value = "target/guest-workloads")]
        guest_dir: PathBuf,
        /// Only one direction: the engine that records (default: both directions).
        #[arg(long)]
        first: Option<String>,
        /// Only one direction: the engine that replays.
        #[arg(long)]
        second: Option<String>,
    },
    /// Measure; each benchmark ends with one line of JSON.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand)]
enum Bench {
    /// Bare-metal programs and boot to Redis, side by side with QEMU's record and replay.
    Cpu {
        /// How often each is run; the median counts.
        #[arg(long, default_value_t = 3)]
        repetitions: usize,
        /// Directory of a built guest image, for the boot.
        #[arg(long)]
        guest: Option<PathBuf>,
    },
    /// One Redis connection while primaries are killed.
    Failover {
        /// How many kills.
        #[arg(long, default_value_t = 20)]
        kills: usize,
        /// Spreads the moments of the kills.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Passed on to `understudy demo`.
        #[arg(last = true)]
        demo: Vec<String>,
    },
    /// Throughput of a pair against a single machine.
    Pair {
        /// How often each is run; the median counts.
        #[arg(long, default_value_t = 3)]
        repetitions: usize,
        /// Directory of a built guest image with Redis.
        #[arg(long)]
        guest: PathBuf,
    },
    /// Bandwidth of the logging channel.
    Log {
        /// Seconds of each phase.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Passed on to `understudy demo`.
        #[arg(last = true)]
        demo: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Check => check::run(),
        Command::Test => test::run(),
        Command::Sim {
            seed: Some(seed), ..
        } => simulate::one(seed),
        Command::Sim {
            seeds,
            start,
            seed: None,
        } => simulate::many(start..start + seeds),
        Command::Conformance { directory, prefix } => conformance::run(&directory, &prefix),
        Command::Engines {
            workload,
            guest_dir,
            first,
            second,
        } => engines::run(&engines::Options {
            workloads: workload,
            guest_directory: guest_dir,
            directions: engines::Options::directions(first, second),
        }),
        Command::Bench(bench) => run_bench(bench),
    }
}

fn run_bench(bench: Bench) -> Result<()> {
    match bench {
        Bench::Cpu { repetitions, guest } => bench::cpu::bench(repetitions, guest.as_deref()),
        Bench::Failover { kills, seed, demo } => bench::failover::bench(kills, seed, &words(&demo)),
        Bench::Pair { repetitions, guest } => bench::pair::bench(repetitions, &guest),
        Bench::Log { seconds, demo } => bench::log::bench(seconds, &words(&demo)),
    }
}

fn words(demo: &[String]) -> Vec<&str> {
    demo.iter().map(String::as_str).collect()
}
