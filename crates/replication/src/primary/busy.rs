//! What keeps a primary from taking a backup now. `docs/protocol.md`, "Joining".

use super::{Primary, State};
use crate::message::Busy;

impl<O> Primary<O> {
    /// Why nobody is taken now, whoever it is; `None`: somebody may be.
    pub(super) fn busy(&self) -> Option<Busy> {
        let ends = match &self.state {
            State::Running { join: Some(_) } => return Some(Busy::Joins),
            State::Running { join: None } => self.finishing,
            State::Parting { .. } | State::Stopped => true,
        };
        let reasons = [
            (ends, Busy::Ends),
            (self.stands_still, Busy::HandsOver),
            (self.is_disputed(), Busy::Differs),
            (!self.lost.is_empty(), Busy::LosesMember),
            (self.leaving.is_some() && self.moving.is_some(), Busy::Moves),
            (self.leaving.is_some(), Busy::AsksArbiter),
            (!self.settled, Busy::Settles),
            (self.journal_takes_snapshot(), Busy::WritesSnapshot),
        ];
        let mut true_ones = reasons.into_iter().filter(|(is_so, _)| *is_so);
        true_ones.next().map(|(_, busy)| busy)
    }
}
