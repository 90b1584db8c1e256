//! Benchmarks: commands, each of which ends with one line of JSON.

pub mod counting;
pub mod cpu;
pub mod distance;
pub mod failover;
pub mod join;
pub mod journal;
pub mod log;
pub mod members;
pub mod pair;
pub mod postgresql;
pub mod redis;
pub mod snapshots;
pub mod tls;

use anyhow::Result;
use std::path::PathBuf;

/// A fresh scratch directory below the system's temporary one.
pub fn scratch(name: &str) -> Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("understudy-{name}-{}", std::process::id()));
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}
