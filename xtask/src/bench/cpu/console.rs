//! A process whose standard output is watched: what it printed, and when, in host time and in the
//! CPU time that it had used by then.

use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::single::Running;

/// Ticks a second of `/proc/PID/stat`: `USER_HZ`, 100 on every host that the benchmark runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Longest silence of a process that is not stuck.
const PATIENCE: Duration = Duration::from_secs(300);

/// How far a process was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// User and system seconds of all its threads and of the children that it waited for.
    pub cpu: f64,
    /// Host seconds since its start.
    pub wall: f64,
}

impl Moment {
    /// What passed since `earlier`.
    pub fn since(self, earlier: Moment) -> Moment {
        Moment {
            cpu: self.cpu - earlier.cpu,
            wall: self.wall - earlier.wall,
        }
    }
}

/// A watched process. Killed when dropped.
pub struct Console {
    child: Running,
    pieces: Receiver<(Vec<u8>, Moment)>,
    /// Lines that were read and not yet asked for.
    lines: VecDeque<(String, Moment)>,
    /// The line that has not ended yet.
    partial: Vec<u8>,
    /// The last lines, for an error message.
    tail: VecDeque<String>,
}

impl Console {
    /// Starts a process without standard input.
    pub fn start(command: &mut Command) -> Result<Console> {
        let start = Instant::now();
        let mut child = Running(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .with_context(|| format!("{:?} does not start", command.get_program()))?,
        );
        let output = child.0.stdout.take().context("no standard output")?;
        let (sender, pieces) = channel();
        let process = child.0.id();
        std::thread::spawn(move || watch(output, process, start, &sender));
        Ok(Console {
            child,
            pieces,
            lines: VecDeque::new(),
            partial: Vec::new(),
            tail: VecDeque::new(),
        })
    }

    /// The next line, or nothing when the output has ended.
    pub fn line(&mut self) -> Result<Option<(String, Moment)>> {
        while self.lines.is_empty() {
            if self.read()?.is_none() {
                return Ok(None);
            }
        }
        Ok(self.lines.pop_front())
    }

    /// When a line with `text` ended.
    pub fn wait_for_line(&mut self, text: &str) -> Result<Moment> {
        while let Some((line, moment)) = self.line()? {
            if line.contains(text) {
                return Ok(moment);
            }
        }
        bail!("it ended without {text:?}: {}", self.last_words())
    }

    /// When `text` stood on a line that may not have ended.
    pub fn wait_for_prompt(&mut self, text: &str) -> Result<Moment> {
        loop {
            while let Some((line, moment)) = self.lines.pop_front() {
                if line.contains(text) {
                    return Ok(moment);
                }
            }
            let Some(moment) = self.read()? else {
                bail!("it ended without {text:?}: {}", self.last_words());
            };
            if String::from_utf8_lossy(&self.partial).contains(text) {
                return Ok(moment);
            }
        }
    }

    /// Waits for the end of a process whose output has ended, or that is asked for nothing more.
    pub fn wait(mut self) -> Result<()> {
        while self.line()?.is_some() {}
        let status = self.child.0.wait()?;
        if !status.success() {
            bail!("it ended with {status}: {}", self.last_words());
        }
        Ok(())
    }

    /// The last lines.
    pub fn last_words(&self) -> String {
        let lines: Vec<&str> = self.tail.iter().map(String::as_str).collect();
        lines.join(" | ")
    }

    fn read(&mut self) -> Result<Option<Moment>> {
        let (piece, moment) = match self.pieces.recv_timeout(PATIENCE) {
            Ok(piece) => piece,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => bail!(
                "silent for {} s after: {}",
                PATIENCE.as_secs(),
                self.last_words()
            ),
        };
        for byte in piece {
            if byte != b'\n' {
                self.partial.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
            self.partial.clear();
            self.tail.push_back(line.clone());
            if self.tail.len() > 4 {
                self.tail.pop_front();
            }
            self.lines.push_back((line, moment));
        }
        Ok(Some(moment))
    }
}

fn watch(mut output: impl Read, process: u32, start: Instant, sender: &Sender<(Vec<u8>, Moment)>) {
    let mut buffer = [0; 4096];
    while let Ok(length) = output.read(&mut buffer) {
        let moment = Moment {
            cpu: cpu_seconds(process).unwrap_or(f64::NAN),
            wall: start.elapsed().as_secs_f64(),
        };
        if length == 0 || sender.send((buffer[..length].to_vec(), moment)).is_err() {
            return;
        }
    }
}

/// proc(5): fields 14 to 17 of `/proc/PID/stat`, after the name in parentheses.
fn cpu_seconds(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse().unwrap_or(0))
        .sum();
    Some(ticks as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Console {
        Console::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn lines_come_in_order_and_the_end_is_told() {
        let mut console = shell("echo one; echo two");
        assert_eq!(console.line().unwrap().unwrap().0, "one");
        assert_eq!(console.line().unwrap().unwrap().0, "two");
        assert!(console.line().unwrap().is_none());
        console.wait().unwrap();
    }

    #[test]
    fn a_prompt_without_the_end_of_a_line_is_seen() {
        let mut console = shell("echo hello; printf 'host login: '; exec sleep 100");
        console.wait_for_prompt("login: ").unwrap();
    }

    #[test]
    fn an_end_without_the_text_says_what_was_last_printed() {
        let error = shell("echo panic").wait_for_prompt("login: ").unwrap_err();
        assert!(error.to_string().contains("panic"), "{error}");
    }

    #[test]
    fn the_cpu_time_of_children_counts() {
        let mut console = shell(
            "echo begin; sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo end",
        );
        let begin = console.wait_for_line("begin").unwrap();
        let spent = console.wait_for_line("end").unwrap().since(begin);
        assert!(spent.cpu > 0.0, "{spent:?}");
    }
}
