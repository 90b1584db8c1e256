//! `understudy arbiter move`: the life of a machine goes on at another arbiter, because a person wants it to.

use super::button::Front;
use crate::exit::{ExitStatus, Failure};
use anyhow::anyhow;
use arbiter::Address;
use clap::{Args, Subcommand};
use replica::control::Request;

/// The arbiter of a running machine.
#[derive(Debug, Args)]
pub struct Arbiter {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Move(Move),
}

/// Let the life of a running machine go on at another arbiter; the machine runs, and stays protected.
///
/// Asked at the live host, it makes sure that this host and every backup see the new arbiter, and the same
/// one, then writes one last key at the old one, which says where the life is now. From there on every host
/// asks the new one, also one that starts with the old configuration, as long as the old arbiter can be read.
/// Afterwards write the new arbiter into the configuration of every host; then the old one can be switched off.
///
/// Where an address is not all that it takes (certificates, keys of a bucket), put it into a section
/// `[next_arbiter]` of the configuration of every host first: the keys of `[arbiter]`, and no restart is needed.
///
/// Status 0: it has moved. 1: it has not, and why. 8: no replica answers. 9: this user may not ask.
#[derive(Debug, Args)]
struct Move {
    #[command(flatten)]
    front: Front,
    /// The new arbiter, as it is written in a configuration: a directory, etcd://…, etcds://…, s3://…
    #[arg(long, value_name = "ADDRESS")]
    to: String,
}

impl Arbiter {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let Command::Move(Move { front, to }) = self.command;
        match to.parse::<Address>() {
            Err(error) => Err(Failure::usage(error)),
            Ok(Address::Directory(path)) if !path.is_absolute() => Err(Failure::usage(anyhow!(
                "--to {to:?}: give the directory's whole path, which has to be the same on every host"
            ))),
            Ok(_) => front.request(&Request::MoveArbiter { to }),
        }
    }
}
