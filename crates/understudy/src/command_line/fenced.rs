//! `understudy fenced`.

use super::button::Front;
use crate::exit::{ExitStatus, Failure};
use clap::Args;
use replica::control::Request;

/// Say that nobody else can write to a machine's shared disks any more: it goes live here.
///
/// A host that has taken the machine over waits until the host before it has let go of the disks that they share (`understudy
/// status` says so). Say this only when that host is off, or cut off from the disk: what it still writes lands among what
/// this one writes. With `fencing = "outside"` in the configuration it is for whatever sees to that.
///
/// Status as of `understudy power-button`.
#[derive(Debug, Args)]
pub struct Fenced {
    #[command(flatten)]
    front: Front,
}

impl Fenced {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        self.front.request(&Request::Fenced)
    }
}
