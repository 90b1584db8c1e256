//! Somebody at a guest's console: waits for what it prints, and types.

use crate::program;
use crate::single::Running;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a guest may print nothing of what is expected of it: the slowest engine on a busy host.
const PATIENCE: Duration = Duration::from_secs(1800);

/// `understudy run` with a console that is read and typed on.
pub struct Console {
    run: Running,
    keyboard: ChildStdin,
    printed: Receiver<Vec<u8>>,
    text: Vec<u8>,
    /// Where in the text the next expectation begins.
    seen: usize,
}

impl Console {
    /// Starts the program with these arguments; its messages go to the file `messages`.
    pub fn start(arguments: &[String], messages: &Path) -> Result<Console> {
        let messages = File::create(messages)
            .with_context(|| format!("cannot make {}", messages.display()))?;
        let mut child = Command::new(program::path()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(messages)
            .spawn()
            .context("understudy does not start")?;
        let keyboard = child.stdin.take().context("no standard input")?;
        let mut screen = child.stdout.take().context("no standard output")?;
        let (sender, printed) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Console {
            run: Running(child),
            keyboard,
            printed,
            text: Vec::new(),
            seen: 0,
        })
    }

    /// Waits until the guest prints this, after what was expected before.
    pub fn expect(&mut self, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = find(&self.text[self.seen..], wanted.as_bytes()) {
                self.seen += at + wanted.len();
                return Ok(());
            }
            match self.printed.recv_timeout(deadline - Instant::now()) {
                Ok(bytes) => self.text.extend(bytes),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the guest does not print {wanted:?} within {PATIENCE:?}")
                }
                Err(RecvTimeoutError::Disconnected) => bail!(
                    "the guest ended without printing {wanted:?}; it ends: {}",
                    self.last_words()
                ),
            }
        }
    }

    /// Types.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.keyboard
            .write_all(text.as_bytes())
            .and_then(|()| self.keyboard.flush())
            .context("the guest's console is closed")
    }

    /// Waits for the end; everything that the guest printed.
    pub fn finish(mut self) -> Result<(ExitStatus, Vec<u8>)> {
        while let Ok(bytes) = self.printed.recv_timeout(PATIENCE) {
            self.text.extend(bytes);
        }
        let status = self.run.0.wait()?;
        Ok((status, std::mem::take(&mut self.text)))
    }

    fn last_words(&self) -> String {
        let start = self.text.len().saturating_sub(600);
        String::from_utf8_lossy(&self.text[start..]).into_owned()
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len())
        .position(|window| window == wanted)
}
