//! Everything a developer runs: check, conformance, sim, bench.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use sim::replicas::Kind;
use std::path::PathBuf;
use xtask::{bench, blocks, check, compiler, conformance, engines, simulate, test, upgrade};

#[derive(Parser)]
#[command(about = "What a developer of Understudy runs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format, clippy with warnings as errors, documentation, licences, a bug of the compiler.
    Check,
    /// That bug of the compiler, in every crate of the product: before a release.
    Compiler,
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
        /// Whole replicas, with the event loop and the threads that ship, instead of the cores alone.
        #[arg(long)]
        whole: bool,
        /// Worlds of whole replicas of this kind only: plain, journals, lives, moving, untold, differs; may be
        /// given several times. Plain by default.
        #[arg(long, requires = "whole")]
        kind: Vec<Kind>,
    },
    /// Judge every engine by the interpreter, on programs of random blocks.
    Blocks {
        /// How many blocks at least.
        #[arg(long, default_value_t = 100_000)]
        count: u64,
        /// The first program.
        #[arg(long, default_value_t = 0)]
        seed: u64,
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
        /// The guests' architecture (riscv64, amd64).
        #[arg(long, default_value = "riscv64")]
        arch: String,
        /// Only this workload (login, redis, postgresql, compiler, node, java); may be repeated.
        #[arg(long)]
        workload: Vec<String>,
        /// Where guest images are built, and used again; several GB.
        #[arg(long, default_value = "target/guest-workloads")]
        guest_dir: PathBuf,
        /// Harts of the guests.
        #[arg(long, default_value_t = 1)]
        harts: u32,
        /// Only one direction: the engine that records (default: both directions).
        #[arg(long)]
        first: Option<String>,
        /// Only one direction: the engine that replays.
        #[arg(long)]
        second: Option<String>,
        /// Another build of the program that replays, for another host for example.
        #[arg(long)]
        replay_program: Option<PathBuf>,
    },
    /// A rolling upgrade under load: a pair of the program of a commit before goes over to this one, host by
    /// host; or the two refuse each other, and say why.
    Upgrade {
        /// The commit (default: the one before this tree).
        #[arg(long)]
        from: Option<String>,
    },
    /// Measure; each benchmark ends with one line of JSON.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand)]
enum Bench {
    /// Linux programs in a Debian guest, boots and recording, side by side with this host itself,
    /// QEMU and RVVM.
    Cpu(Cpu),
    /// Exact counting, side by side with a build that counts nothing.
    Counting {
        /// How often each is run; the median counts.
        #[arg(long, default_value_t = 5)]
        repetitions: usize,
    },
    /// Copies of a program at once, on as many harts and on one.
    Harts {
        /// Whose machine.
        #[arg(long, value_enum, default_value_t)]
        arch: bench::cpu::Target,
        /// How often each is run; the median counts.
        #[arg(long, default_value_t = 3)]
        repetitions: usize,
        /// How many harts, and copies.
        #[arg(long, default_value_t = 2)]
        harts: usize,
        /// Only these programs; may be repeated or name several, separated by commas.
        #[arg(long, value_delimiter = ',')]
        program: Vec<String>,
        /// Multiplies the programs' amounts of work.
        #[arg(long, default_value_t = 0.5)]
        scale: f64,
    },
    /// Redis in a guest behind a TAP device (root), side by side with QEMU.
    Redis {
        /// How often each is run; the median counts.
        #[arg(long, default_value_t = 3)]
        repetitions: usize,
        /// Directory of a built guest image with Redis.
        #[arg(long)]
        guest: PathBuf,
        /// Engine of our machine (default: the program's own choice).
        #[arg(long)]
        engine: Option<String>,
    },
    /// A pair whose logging channel is long: speed of a guest that computes, and requests of 20
    /// Redis clients.
    Distance {
        /// Whose machine.
        #[arg(long, value_enum, default_value_t)]
        arch: bench::cpu::Target,
        /// How long the channel takes each way, in milliseconds; the first is the yardstick.
        #[arg(long, value_delimiter = ',', default_value = "0,5,20,50")]
        one_way_ms: Vec<u64>,
        /// How often each is measured; the median counts.
        #[arg(long, default_value_t = 3)]
        repetitions: usize,
    },
    /// PostgreSQL under pgbench while primaries are killed.
    Postgresql {
        /// How many kills.
        #[arg(long, default_value_t = 10)]
        kills: usize,
        /// RAM of the guest.
        #[arg(long, default_value = "1G")]
        memory: String,
        /// Where the guest image is built, and used again.
        #[arg(long, default_value = "target/guest-workloads")]
        guest_dir: PathBuf,
    },
    /// One Redis connection while primaries are killed.
    Failover {
        /// How many kills.
        #[arg(long, default_value_t = 20)]
        kills: usize,
        /// Spreads the moments of the kills.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Nobody is killed: `understudy switchover` is asked for instead.
        #[arg(long)]
        switchover: bool,
        /// Megabytes put into the guest's Redis before; give the guest memory for it (`-- --memory 2G`).
        #[arg(long, default_value_t = 0)]
        fill_mb: u64,
        /// Passed on to `understudy demo`.
        #[arg(last = true)]
        demo: Vec<String>,
    },
    /// Redis on one host with a journal: its speed, and what is there after everything was killed at
    /// once.
    Journal {
        /// How often.
        #[arg(long, default_value_t = 20)]
        kills: usize,
        /// RAM of the guest.
        #[arg(long, default_value = "256M")]
        memory: String,
        /// Where the journal is: on a disk whose syncs are to be measured.
        #[arg(long, default_value = "target")]
        directory: PathBuf,
    },
    /// What the snapshots of a journal weigh and how long they take, while the guest serves Redis; then everything is
    /// killed, once.
    Snapshots {
        /// RAM of the guest.
        #[arg(long, default_value = "256M")]
        memory: String,
        /// Megabytes that Redis is filled with before.
        #[arg(long, default_value_t = 0)]
        fill_mb: usize,
        /// Keys that are written and read, 100 bytes each.
        #[arg(long, default_value_t = 100_000)]
        keys: usize,
        /// For how long.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// Where the journal is.
        #[arg(long, default_value = "target")]
        directory: PathBuf,
    },
    /// A backup joins while the guest computes: how long that takes, and what it costs the guest.
    Join {
        /// Megabytes that Redis is filled with before.
        #[arg(long, default_value_t = 64)]
        fill_mb: u64,
        /// How many joins; the median counts, the longest pause of all.
        #[arg(long, default_value_t = 3)]
        joins: usize,
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
        /// Passed on to `understudy demo`.
        #[arg(last = true)]
        demo: Vec<String>,
    },
    /// One machine with one backup and with two: requests, and how long outputs wait.
    Members {
        /// How often each is measured; the median counts.
        #[arg(long, default_value_t = 3)]
        repetitions: usize,
    },
    /// A message and its answer on the loopback, with TLS and without.
    Tls {
        /// Blocks of 2,000 round trips of each; the median of all counts.
        #[arg(long, default_value_t = 10)]
        repetitions: usize,
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

#[derive(Args)]
struct Cpu {
    /// Whose machine.
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["bare", "rvvm"])]
    arch: bench::cpu::Target,
    /// How often each is run; the median counts.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Engine of our machine, may be repeated: the figures are about the first (default: the
    /// program's own choice).
    #[arg(long)]
    engine: Vec<String>,
    /// RVVM's program, built elsewhere.
    #[arg(long, requires = "rvvm_firmware")]
    rvvm: Option<PathBuf>,
    /// OpenSBI's `fw_jump.bin` for RVVM, from Debian 13's package opensbi (older ones do not start
    /// the kernel there).
    #[arg(long)]
    rvvm_firmware: Option<PathBuf>,
    /// Directory of a built guest image with a disk, for the boot to a login.
    #[arg(long)]
    login_guest: Option<PathBuf>,
    /// Only these programs; may be repeated or name several, separated by commas.
    #[arg(long, value_delimiter = ',')]
    program: Vec<String>,
    /// Multiplies the programs' amounts of work.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Quick: four bare-metal programs against QEMU's record, and boot to Redis.
    #[arg(long)]
    bare: bool,
    /// Directory of a built guest image with Redis, for the boot with --bare.
    #[arg(long, requires = "bare")]
    guest: Option<PathBuf>,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Check => check::run(),
        Command::Compiler => compiler::run(compiler::Scope::All),
        Command::Test => test::run(),
        Command::Sim {
            seed: Some(seed),
            whole: true,
            kind,
            ..
        } => simulate::one_whole(seed, kind.first().copied().unwrap_or_default()),
        Command::Sim {
            seed: Some(seed), ..
        } => simulate::one(seed),
        Command::Sim {
            seeds,
            start,
            seed: None,
            whole: true,
            kind,
        } => simulate::many_whole(start..start + seeds, &kind),
        Command::Sim {
            seeds,
            start,
            seed: None,
            whole: false,
            kind: _,
        } => simulate::many(start..start + seeds),
        Command::Blocks { count, seed } => blocks::run(count, seed),
        Command::Conformance { directory, prefix } => conformance::run(&directory, &prefix),
        Command::Engines {
            arch,
            workload,
            guest_dir,
            harts,
            first,
            second,
            replay_program,
        } => engines::run(&engines::Options {
            architecture: arch,
            workloads: workload,
            guest_directory: guest_dir,
            harts,
            directions: engines::Options::directions(first, second),
            replay_program,
        }),
        Command::Upgrade { from } => upgrade::run(from.as_deref()),
        Command::Bench(bench) => run_bench(bench),
    }
}

fn run_bench(bench: Bench) -> Result<()> {
    match bench {
        Bench::Cpu(cpu) if cpu.bare => bench::cpu::bare(cpu.repetitions, cpu.guest.as_deref()),
        Bench::Cpu(cpu) => bench::cpu::bench(&bench::cpu::Options {
            target: cpu.arch,
            repetitions: cpu.repetitions,
            engines: cpu.engine,
            rvvm: cpu
                .rvvm
                .zip(cpu.rvvm_firmware)
                .map(|(program, firmware)| bench::cpu::Rvvm { program, firmware }),
            login_guest: cpu.login_guest,
            programs: cpu.program,
            scale: cpu.scale,
        }),
        Bench::Counting { repetitions } => bench::counting::bench(repetitions),
        Bench::Harts {
            arch,
            repetitions,
            harts,
            program,
            scale,
        } => bench::cpu::harts(arch, repetitions, harts, &program, scale),
        Bench::Redis {
            repetitions,
            guest,
            engine,
        } => bench::redis::bench(repetitions, &guest, engine.as_deref()),
        Bench::Distance {
            arch,
            one_way_ms,
            repetitions,
        } => bench::distance::bench(arch, &one_way_ms, repetitions),
        Bench::Postgresql {
            kills,
            memory,
            guest_dir,
        } => bench::postgresql::bench(kills, &memory, &guest_dir),
        Bench::Failover {
            kills,
            seed,
            switchover,
            fill_mb,
            demo,
        } => {
            let victims = if switchover {
                bench::failover::Victims::Nobody
            } else {
                bench::failover::Victims::Primaries
            };
            bench::failover::bench(kills, seed, victims, fill_mb, &words(&demo))
        }
        Bench::Journal {
            kills,
            memory,
            directory,
        } => bench::journal::bench(kills, &memory, &directory),
        Bench::Snapshots {
            memory,
            fill_mb,
            keys,
            seconds,
            directory,
        } => {
            let load = bench::snapshots::Load {
                memory: &memory,
                fill_mib: fill_mb,
                keys,
                seconds,
            };
            bench::snapshots::bench(load, &directory)
        }
        Bench::Join {
            fill_mb,
            joins,
            demo,
        } => bench::join::bench(fill_mb, joins, &words(&demo)),
        Bench::Pair {
            repetitions,
            guest,
            demo,
        } => bench::pair::bench(repetitions, &guest, &words(&demo)),
        Bench::Members { repetitions } => bench::members::bench(repetitions),
        Bench::Tls { repetitions } => bench::tls::bench(repetitions),
        Bench::Log { seconds, demo } => bench::log::bench(seconds, &words(&demo)),
    }
}

fn words(demo: &[String]) -> Vec<&str> {
    demo.iter().map(String::as_str).collect()
}
