//! The proof on Debian guests that engines agree: each workload is recorded under one engine and
//! replayed under the other, in both directions, and every digest on the way is compared.

pub mod console;
mod debian_disk;
pub mod image;
mod recording;
mod redis_load;
mod workload;

use crate::program;
use anyhow::{Context, Result, bail};
use recording::{Recording, Replayed};
use std::fs;
use std::path::{Path, PathBuf};
use workload::Workload;

/// What is run.
pub struct Options {
    /// Of the guests, by Debian's name.
    pub architecture: String,
    /// Names of workloads; none for all of them.
    pub workloads: Vec<String>,
    /// Guest images are built here, unless they are here already.
    pub guest_directory: PathBuf,
    /// Of every guest.
    pub harts: u32,
    /// Recorded under the first engine and replayed under the second, in this order.
    pub directions: Vec<(String, String)>,
    /// The build of the program that replays; none for the one that records.
    pub replay_program: Option<PathBuf>,
}

impl Options {
    /// The JIT against the interpreter and the reverse, or only the direction that is named.
    pub fn directions(first: Option<String>, second: Option<String>) -> Vec<(String, String)> {
        let (jit, interpreter) = ("jit".to_owned(), "interpreter".to_owned());
        match (first, second) {
            (None, None) => vec![
                (jit.clone(), interpreter.clone()),
                (interpreter, jit.clone()),
            ],
            (first, second) => vec![(first.unwrap_or(jit), second.unwrap_or(interpreter))],
        }
    }
}

/// Runs them, prints a table, and fails if anything differed or a workload itself failed.
pub fn run(options: &Options) -> Result<()> {
    let workloads = workload::select(&options.workloads)?;
    let recordings = options.guest_directory.join("recordings");
    fs::create_dir_all(&recordings)
        .with_context(|| format!("cannot make {}", recordings.display()))?;
    let replay_program = match &options.replay_program {
        Some(program) => program.clone(),
        None => program::path()?,
    };
    let mut failures = 0;
    let mut lines = Vec::new();
    for workload in workloads {
        let image = image::ready(&workload, &options.architecture, &options.guest_directory)?;
        for (first, second) in &options.directions {
            println!(
                "{}: recorded under {first}, replayed under {second}",
                workload.name
            );
            let recording = Recording::new(&recordings, workload.name, first, options.harts);
            match prove(&workload, &image, &recording, &replay_program, second) {
                Ok(line) => {
                    println!("  {line}");
                    lines.push(line);
                }
                Err(error) => {
                    println!("  FAILED: {error:#}");
                    failures += 1;
                }
            }
        }
    }
    println!("\n{}", Line::HEADER);
    lines.iter().for_each(|line| println!("{line}"));
    if failures > 0 {
        bail!("{failures} failed");
    }
    Ok(())
}

/// Records and replays once. What it is about stays on the disk only if it failed.
fn prove(
    workload: &Workload,
    image: &Path,
    recording: &Recording,
    replay_program: &Path,
    second: &str,
) -> Result<Line> {
    recording.make(workload, image)?;
    let replayed = recording.replay(replay_program, second)?;
    let line = Line {
        workload: workload.name,
        first: recording.engine.clone(),
        second: second.to_owned(),
        replayed,
    };
    recording.remove();
    Ok(line)
}

/// What one direction of one workload came to.
struct Line {
    workload: &'static str,
    first: String,
    second: String,
    replayed: Replayed,
}

impl Line {
    const HEADER: &str = "| workload | recorded | replayed | instructions, M | digests equal | \
        replay, s |\n| --- | --- | --- | ---: | ---: | ---: |";
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "| {} | {} | {} | {:.0} | {} | {:.1} |",
            self.workload,
            self.first,
            self.second,
            self.replayed.instructions as f64 / 1e6,
            self.replayed.digests,
            self.replayed.seconds,
        )
    }
}
