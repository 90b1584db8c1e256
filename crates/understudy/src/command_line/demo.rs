//! `understudy demo`.

use super::engine::EngineOption;
use crate::config::{ByteSize, Milliseconds, ReplicationName, default_checkpoint_interval};
use crate::demo::{self, DemoOptions};
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use anyhow::anyhow;
use clap::Args;
use guest_image::Architecture;
use std::path::PathBuf;

/// Show Redis on Debian living through the death of its primary.
///
/// Builds the guest image (cached), starts a switch, a primary and a backup as processes of this
/// host, and shows their state. Kill the primary (key k, or kill -9), and go on: a new backup is
/// started each time. Nothing is left behind at the end.
#[derive(Debug, Args)]
pub struct Demo {
    /// No terminal: print one line when Redis answers, then run until SIGTERM
    #[arg(long)]
    headless: bool,
    /// Keep all state in this directory (default: a temporary one)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The host port that leads to Redis; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// RAM of the guest
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    memory: ByteSize,
    /// Where the guest image and its packages are cached (default: ~/.cache/understudy)
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The guest's architecture: riscv64 or x86-64
    #[arg(
        long,
        value_name = "NAME",
        default_value = "riscv64",
        conflicts_with = "guest"
    )]
    arch: Architecture,
    /// Take this image, built by `understudy guest build`, instead of the demonstration's own
    #[arg(long, value_name = "DIR")]
    guest: Option<PathBuf>,
    /// How the backup is kept alike: log (it does what the primary's machine is made to do) or state-transfer (it is
    /// brought along by its state)
    #[arg(long, value_name = "HOW", value_enum, default_value = "log")]
    replication: ReplicationName,
    /// Time between two checkpoints, with state-transfer
    #[arg(long, value_name = "TIME", default_value_t = default_checkpoint_interval())]
    checkpoint_interval: Milliseconds,
    #[command(flatten)]
    engine: EngineOption,
}

impl Demo {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let cache = self
            .cache
            .or_else(guest_image::default_cache_directory)
            .ok_or_else(|| {
                Failure::usage(anyhow!(
                    "there is no home directory: name a cache directory with --cache"
                ))
            })?;
        demo::run(&DemoOptions {
            headless: self.headless,
            directory: self.dir,
            cache,
            port: self.port,
            memory: self.memory.0,
            architecture: self.arch,
            guest: self.guest,
            engine: self.engine.or(EngineName::default()),
            replication: self.replication,
            checkpoint_interval: self.checkpoint_interval,
        })
    }
}
