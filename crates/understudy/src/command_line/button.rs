//! `understudy power-button`, `reset`, `pause` and `resume`: the buttons of a machine.

use crate::config::VmConfig;
use crate::exit::{ExitStatus, Failure};
use crate::status;
use anyhow::anyhow;
use clap::Args;
use replica::control::{self, Answer, Request};
use replica::status::ReplicaStatus;
use std::io;
use std::path::{Path, PathBuf};

/// Which machine.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Front {
    /// The machine and its pair: this host's replica is asked
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A replica's state directory, or a directory of those (the demonstration's)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Press the machine's power button: its guest is asked to power off.
///
/// Asked at either host, it goes to whoever is live. A guest that powers off because of it ends the
/// machine's life, as one that does so by itself. Guests of `understudy guest` and systems with
/// systemd-logind listen to the button (drivers: virtio_input, evdev); one that boots does not yet.
///
/// Status 0: it was pressed. 1: the live machine's replica refused, and says why, or was lost. 8: no
/// replica answers. 9: this user may not ask.
#[derive(Debug, Args)]
pub struct PowerButton {
    #[command(flatten)]
    front: Front,
}

/// Press the machine's reset button: it begins anew, within its life.
///
/// For the guest it is a loss of power: what it had not written to its disks is lost. It boots from the
/// images of the power-on, on both hosts, and protection goes on.
///
/// Status as of `understudy power-button`.
#[derive(Debug, Args)]
pub struct Reset {
    #[command(flatten)]
    front: Front,
}

/// Let the machine stand still, on both hosts at the same instruction.
///
/// Its time stands still as well; what it had sent leaves, what is sent to it is lost. A failover while it is
/// paused leaves it paused: `understudy status` says so, and `understudy resume` lets it go on.
///
/// Status as of `understudy power-button`.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    front: Front,
}

/// Let a machine that was paused go on.
///
/// Its monotonic clock goes on from where it was; its real-time clock is right at once, and its own date as
/// docs/operations.md says under "The guest's time".
///
/// Status as of `understudy power-button`.
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    front: Front,
}

impl PowerButton {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        self.front.press(control::Button::Power)
    }
}

impl Reset {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        self.front.press(control::Button::Reset)
    }
}

impl Pause {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        self.front.press(control::Button::Pause)
    }
}

impl Resume {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        self.front.press(control::Button::Resume)
    }
}

impl Front {
    fn press(&self, button: control::Button) -> Result<ExitStatus, Failure> {
        self.request(&Request::Press(button))
    }

    /// Asks the replica, and prints what it answers.
    pub(super) fn request(&self, request: &Request) -> Result<ExitStatus, Failure> {
        let directory = self.state_directory()?;
        match control::ask(&directory, request) {
            Ok(Answer::Done(what)) => {
                println!("{what}");
                Ok(ExitStatus::Success)
            }
            Ok(Answer::Refused(why)) => Err(Failure::new(ExitStatus::Failure, anyhow!(why))),
            Ok(Answer::Status(_)) => Err(Failure::from(anyhow!("the replica answered a question"))),
            Err(error) => Err(unanswered(&directory, &error)),
        }
    }

    /// That of the replica to be asked.
    fn state_directory(&self) -> Result<PathBuf, Failure> {
        // The primary is the first.
        self.state_directory_of(|_| true)
    }

    /// That of the replica to be asked: under a directory of several the first that is `preferred`.
    pub(super) fn state_directory_of(
        &self,
        preferred: impl Fn(&ReplicaStatus) -> bool,
    ) -> Result<PathBuf, Failure> {
        match (&self.config, &self.dir) {
            (Some(file), _) => Ok(VmConfig::load(file)
                .map_err(Failure::usage)?
                .state_directory),
            (None, Some(directory)) => of_replica_under(directory, preferred),
            (None, None) => Err(Failure::usage(anyhow!("give --config or --dir"))),
        }
    }
}

/// The state directory of the first replica under `directory` that is `preferred`, or of another one there, which
/// passes on what it is asked.
pub(super) fn of_replica_under(
    directory: &Path,
    preferred: impl Fn(&ReplicaStatus) -> bool,
) -> Result<PathBuf, Failure> {
    if !directory.is_dir() {
        let error = anyhow!("{} is no directory", directory.display());
        return Err(Failure::usage(error));
    }
    let status = status::collect(directory);
    let mut replicas = status.replicas.iter();
    let replica = replicas.find(|replica| preferred(replica));
    if let Some(replica) = replica.or(status.replicas.first()) {
        return Ok(replica.directory.clone());
    }
    let others = status.not_permitted.first();
    let (other, kind) = match others {
        Some(others) => (others.as_path(), io::ErrorKind::PermissionDenied),
        None if !status.unreadable.is_empty() => {
            return Err(Failure::new(
                ExitStatus::NotPermitted,
                anyhow!(status::describe_unreadable(&status.unreadable)),
            ));
        }
        None => (directory, io::ErrorKind::NotFound),
    };
    Err(unanswered(other, &kind.into()))
}

pub(super) fn unanswered(directory: &Path, error: &io::Error) -> Failure {
    let directory = directory.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(
            ExitStatus::NotPermitted,
            anyhow!("{directory} is another user's: its replica cannot be asked"),
        ),
        io::ErrorKind::UnexpectedEof => Failure::new(
            ExitStatus::NoReplica,
            anyhow!(
                "the replica in {directory} ended before it answered, and may have done what it was asked: \
                 `understudy status` tells what became of the machine, here and on the other hosts"
            ),
        ),
        _ => Failure::new(
            ExitStatus::NoReplica,
            anyhow!("no replica answers in {directory}: {error}"),
        ),
    }
}
