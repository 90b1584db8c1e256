//! One recording: made under one engine, replayed under another, kept if that fails.

use super::console::Console;
use super::debian_disk;
use super::redis_load;
use super::workload::{Guest, Workload};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Instructions between two digests.
const DIGEST_INTERVAL: u64 = 50_000_000;
/// Fewer digests than one for so many instructions are no proof: the interval, and what a guest runs
/// between two stops.
const MOST_INSTRUCTIONS_A_DIGEST: u64 = DIGEST_INTERVAL + 5_000_000;
/// What the program says on a host that cannot run the engine that it was asked for.
const NO_JIT: &str = "this host has no JIT";

/// Files of a recording.
pub struct Recording {
    /// Under which it is made.
    pub engine: String,
    harts: u32,
    log: PathBuf,
    console: PathBuf,
    messages: PathBuf,
    disk: PathBuf,
}

/// What a replay came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replayed {
    /// Instructions.
    pub instructions: u64,
    /// Digests that were equal.
    pub digests: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Recording {
    /// Names the files.
    pub fn new(directory: &Path, workload: &str, engine: &str, harts: u32) -> Recording {
        let path = |suffix: &str| directory.join(format!("{workload}-{engine}.{suffix}"));
        Recording {
            engine: engine.to_owned(),
            harts,
            log: path("log"),
            console: path("console"),
            messages: path("messages"),
            disk: path("disk"),
        }
    }

    /// Runs the workload and records it.
    pub fn make(&self, workload: &Workload, image: &Path) -> Result<()> {
        let (status, printed) = self.drive(workload, image).with_context(|| {
            let said = fs::read_to_string(&self.messages).unwrap_or_default();
            format!("{}: {}", self.evidence(), said.trim_end())
        })?;
        fs::write(&self.console, printed)
            .with_context(|| format!("cannot write {}", self.console.display()))?;
        let said = fs::read_to_string(&self.messages)?;
        ensure!(status.success(), "{status}: {said}");
        self.check_engine(&self.engine, &said)
    }

    /// Has the guest do its work and end; its status and what it printed.
    fn drive(&self, workload: &Workload, image: &Path) -> Result<(ExitStatus, Vec<u8>)> {
        // That of an earlier run, which the program would not replace.
        if self.log.exists() {
            fs::remove_file(&self.log)?;
        }
        let mut arguments = self.arguments(workload, image);
        match &workload.guest {
            Guest::Script { .. } => {
                let mut console = Console::start(&arguments, &self.messages)?;
                console.expect("understudy: exit status 0\r\n")?;
                console.finish()
            }
            Guest::Redis => redis_load::drive(arguments, &self.messages),
            Guest::DebianOnDisk { script } => {
                debian_disk::copy(image, &self.disk)?;
                let disk = self.disk.to_string_lossy().into_owned();
                arguments.extend(["--disk".to_owned(), disk]);
                debian_disk::drive(&arguments, &self.messages, script)
            }
        }
    }

    fn arguments(&self, workload: &Workload, image: &Path) -> Vec<String> {
        let log = self.log.to_string_lossy();
        let interval = DIGEST_INTERVAL.to_string();
        let harts = self.harts.to_string();
        let image = image.to_string_lossy();
        [
            ["run", "--summary"],
            ["--memory", workload.memory],
            ["--harts", &harts],
            ["--engine", &self.engine],
            ["--record", &log],
            ["--digest-interval", &interval],
            ["--guest", &image],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    /// Replays the recording and compares what the guest prints as well.
    pub fn replay(&self, understudy: &Path, engine: &str) -> Result<Replayed> {
        let output = Command::new(understudy)
            .args(["replay", "--dump-console", "--engine", engine])
            .arg(&self.log)
            .output()
            .with_context(|| format!("{} does not start", understudy.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}{}", said, self.evidence());
        self.check_engine(engine, &said)?;
        let replayed = parse(&said)
            .with_context(|| format!("what understudy replay says is unknown: {said}"))?;
        ensure!(
            replayed.digests * MOST_INSTRUCTIONS_A_DIGEST >= replayed.instructions,
            "{} digests for {} instructions prove too little",
            replayed.digests,
            replayed.instructions
        );
        ensure!(
            output.stdout == fs::read(&self.console)?,
            "the replay prints something else; {}",
            self.evidence()
        );
        Ok(replayed)
    }

    /// Removes all files.
    pub fn remove(&self) {
        for file in [&self.log, &self.console, &self.messages, &self.disk] {
            // Not every workload has every file.
            let _ = fs::remove_file(file);
        }
    }

    fn check_engine(&self, engine: &str, said: &str) -> Result<()> {
        if said.contains(NO_JIT) || !said.contains(&format!("({engine})")) {
            bail!("the guest did not run under {engine}: {said}");
        }
        Ok(())
    }

    fn evidence(&self) -> String {
        format!("the recording is kept: {}", self.log.display())
    }
}

/// Takes the figures out of `understudy replay`'s summary.
fn parse(said: &str) -> Option<Replayed> {
    let summary = said.lines().find(|line| line.contains(" replayed "))?;
    let before = |unit: &str| {
        let words = &summary[..summary.find(unit)?];
        words.rsplit(' ').next()
    };
    Some(Replayed {
        instructions: before(" instructions in")?.parse().ok()?,
        digests: before(" digests equal")?.parse().ok()?,
        seconds: before(" s,")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replays_own_summary_is_understood_and_nothing_else() {
        let said = "understudy: replayed 52000000 instructions in 1.25 s, 41 MIPS (jit); 7 records, \
            3 digests equal; 9 visible outputs; digest 0 at 5; the recording is complete";
        let expected = Replayed {
            instructions: 52_000_000,
            digests: 3,
            seconds: 1.25,
        };
        assert_eq!(parse(said), Some(expected));
        assert_eq!(
            parse("understudy: the recording x: the replay diverges"),
            None
        );
    }
}
