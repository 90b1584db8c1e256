//! `understudy console`.

use super::button::of_replica_under;
use crate::exit::{ExitStatus, Failure};
use crate::status;
use crate::terminal::{EscapeFilter, RawMode};
use anyhow::{Context, anyhow};
use clap::Args;
use network::PollSet;
use replica::control;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks for the live machine.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Be at the console of a machine, also after it has moved.
///
/// Attaches to the replica under DIR that is live, and to the next one when that dies or hands over.
/// On a host whose replica is the backup it waits until that is live. Everybody who may use the control
/// socket sees and types the same. Ctrl-A x leaves; the machine goes on.
#[derive(Debug, Args)]
pub struct Console {
    /// A replica's state directory, or a directory of those (the demonstration's)
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Why a connection to the console is over.
enum End {
    /// The user left.
    Left,
    /// The machine is no longer live there.
    Moved,
}

enum Token {
    Keyboard,
    Guest,
}

impl Console {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        if !self.dir.is_dir() {
            return Err(Failure::usage(anyhow!(
                "{} is no directory",
                self.dir.display()
            )));
        }
        if status::collect(&self.dir).replicas.is_empty() {
            // Says whether nobody is there, or this user may not ask.
            of_replica_under(&self.dir, |_| true)?;
        }
        let raw_mode = RawMode::enter().context("cannot put the terminal into raw mode")?;
        let result = self.serve();
        drop(raw_mode);
        result
    }

    fn serve(&self) -> Result<ExitStatus, Failure> {
        let mut escape = EscapeFilter::default();
        let mut is_typing = true;
        let mut told = String::new();
        loop {
            match attach(&self.dir) {
                Ok(stream) => {
                    told.clear();
                    tell("attached (Ctrl-A x leaves)");
                    match serve_one(stream, &mut escape, &mut is_typing)? {
                        End::Left => return Ok(ExitStatus::Success),
                        End::Moved => tell("the machine is no longer live there"),
                    }
                }
                Err(why) if why != told => {
                    tell(&format!("waiting: {why}"));
                    told = why;
                }
                Err(_) => {}
            }
            if is_typing && left_while_waiting(&mut escape, &mut is_typing)? {
                return Ok(ExitStatus::Success);
            }
            if !is_typing {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }
}

/// Attaches to the replica that is live, or says why there is none.
fn attach(directory: &Path) -> Result<UnixStream, String> {
    let replicas = status::collect(directory).replicas;
    let live = replicas.iter().find(|replica| replica.role == "primary");
    match live {
        Some(live) => control::attach(&live.directory).map_err(|error| error.to_string()),
        None if replicas.is_empty() => Err("no replica answers".into()),
        None => Err("no replica here is live".into()),
    }
}

fn serve_one(
    mut stream: UnixStream,
    escape: &mut EscapeFilter,
    is_typing: &mut bool,
) -> Result<End, Failure> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(None)?;
    let mut buffer = [0; 4096];
    loop {
        let stdin = io::stdin();
        let mut set = PollSet::new();
        set.add(stream.as_fd(), Token::Guest, true, false);
        set.add(stdin.as_fd(), Token::Keyboard, *is_typing, false);
        for (token, _) in set.wait(None)? {
            match token {
                Token::Keyboard => {
                    let length = rustix::io::read(&stdin, &mut buffer[..]).unwrap_or(0);
                    *is_typing = length > 0;
                    let typed = escape.filter(&buffer[..length]);
                    if typed.quit {
                        return Ok(End::Left);
                    }
                    if stream.write_all(&typed.bytes).is_err() {
                        return Ok(End::Moved);
                    }
                }
                Token::Guest => match stream.read(&mut buffer) {
                    Ok(length) if length > 0 => {
                        let mut stdout = io::stdout().lock();
                        stdout.write_all(&buffer[..length])?;
                        stdout.flush()?;
                    }
                    Ok(_) | Err(_) => return Ok(End::Moved),
                },
            }
        }
    }
}

/// What is typed while nothing is attached goes to nobody, but for leaving.
fn left_while_waiting(escape: &mut EscapeFilter, is_typing: &mut bool) -> Result<bool, Failure> {
    let stdin = io::stdin();
    let mut set = PollSet::new();
    set.add(stdin.as_fd(), (), true, false);
    if set.wait(Some(LOOK_AGAIN))?.is_empty() {
        return Ok(false);
    }
    let mut buffer = [0; 256];
    let length = rustix::io::read(&stdin, &mut buffer[..]).unwrap_or(0);
    *is_typing = length > 0;
    Ok(escape.filter(&buffer[..length]).quit)
}

/// The terminal is in raw mode.
fn tell(what: &str) {
    // Standard error may be closed.
    let _printed = write!(io::stderr(), "understudy: {what}\r\n");
}
