//! How long event loops did anything else than wait, over all tests with real processes.
//!
//! A replica's status says how long the longest turn of its event loop was, and for how much of it the loop had a core
//! (architecture: an event loop blocks for nothing, ever). Tests note every status that they read in one file.

use anyhow::{Context, Result};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Names the file, for the tests that `cargo xtask test` starts; `crates/understudy/tests/support` knows it as well.
const FILE: &str = "UNDERSTUDY_EVENT_LOOPS";

/// Adds what a status says of the longest turns, if anybody collects it.
///
/// # Errors
/// The file cannot be written.
pub fn note(status: &Value) -> Result<()> {
    let Some(file) = std::env::var_os(FILE) else {
        return Ok(());
    };
    let test = std::thread::current().name().unwrap_or("").to_owned();
    let line = serde_json::json!({
        "test": test,
        "longest_ms": status["loop_longest_ms"],
        "busiest_ms": status["loop_busiest_ms"],
    });
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .with_context(|| format!("{}", file.display()))?;
    // One write: tests run beside each other.
    file.write_all(format!("{line}\n").as_bytes())?;
    Ok(())
}

/// The longest turns of one test run.
#[derive(Debug)]
pub struct Collection {
    file: PathBuf,
}

impl Collection {
    /// Begins anew.
    ///
    /// # Errors
    /// What an earlier run left cannot be removed.
    pub fn begin() -> Result<Collection> {
        let file = std::path::absolute("target/event-loops.jsonl")?;
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be removed", file.display()))
            }
            _ => Ok(Collection { file }),
        }
    }

    /// What the tests find their file by.
    pub fn variable(&self) -> (&'static str, &Path) {
        (FILE, &self.file)
    }

    /// Says which turns were the longest.
    ///
    /// # Errors
    /// No test noted anything, so that the figure would be of nothing.
    pub fn report(&self) -> Result<()> {
        let text = fs::read_to_string(&self.file)
            .context("no test with real processes noted its event loops' turns")?;
        for (what, field) in [("turn", "longest_ms"), ("busy", "busiest_ms")] {
            let (milliseconds, test) =
                longest(&text, field).context("no turn of an event loop was noted")?;
            println!("event loops: longest {what} {milliseconds:.1} ms, in {test}");
        }
        Ok(())
    }
}

fn longest(lines: &str, field: &str) -> Option<(f64, String)> {
    lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| Some((line[field].as_f64()?, line["test"].as_str()?.to_owned())))
        .max_by(|one, other| one.0.total_cmp(&other.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_of_all_is_told_with_its_test() {
        let lines = "{\"test\":\"a\",\"longest_ms\":3.5,\"busiest_ms\":1}\ntorn\n\
                     {\"test\":\"b\",\"longest_ms\":12,\"busiest_ms\":0.5}\n";
        assert_eq!(longest(lines, "longest_ms"), Some((12.0, "b".to_owned())));
        assert_eq!(longest(lines, "busiest_ms"), Some((1.0, "a".to_owned())));
        assert_eq!(longest("", "busiest_ms"), None);
    }
}
