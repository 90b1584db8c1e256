//! Everything a developer runs: check, test, conformance, sim, bench.
#![forbid(unsafe_code)]

mod check;
mod conformance;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

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
    /// Run bare-metal ELF programs (riscv-tests) that report through `tohost` or the finisher.
    Conformance {
        /// Directory with the programs.
        directory: PathBuf,
        /// Only programs whose name begins so.
        #[arg(long, default_value = "rv64")]
        prefix: String,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Check => check::run(),
        Command::Conformance { directory, prefix } => conformance::run(&directory, &prefix),
    }
}
