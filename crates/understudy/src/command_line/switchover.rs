//! `understudy switchover`: the machine goes over to its backup, because a person wants it to.

use super::button::Front;
use crate::exit::{ExitStatus, Failure};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use replica::control::Request;

/// Let the backup have the machine, and follow it there: nothing is lost, nobody outside notices.
///
/// The live machine stands still at an instruction, the backup goes on from there, and this host's replica
/// becomes its backup. Before maintenance of the live host; afterwards its replica can be stopped without the
/// machine being unprotected for longer than that takes. A new version of the program comes in the same way:
/// on the backup's host first, then, once it is protected again, a switchover, then on the other. Versions
/// whose machines differ refuse each other (`understudy --version` tells the semantics versions).
///
/// Asked at the live host or at the backup, it waits until it is done or refused.
///
/// Status 0: it is done. 1: it cannot be done now, and why. 8: no replica answers. 9: this user may not ask.
#[derive(Debug, Args)]
pub struct Switchover {
    #[command(flatten)]
    front: Front,
    /// The host that is to have it: its name, as `understudy status` tells it
    #[arg(long, value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    to: Option<String>,
}

impl Switchover {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        self.front.request(&Request::SwitchOver { to: self.to })
    }
}
