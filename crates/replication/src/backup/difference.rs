//! A difference between this backup's machine and its primary's, and whose machine is right.
//! `docs/protocol.md`, "Divergence".

use super::{Backup, BackupAction, BackupStop, State};
use crate::event::Event;
use crate::message::{DivergenceReport, Message};

impl<O> Backup<O> {
    /// A member that differs says so, and stays: the primary knows whether others differ in the same way.
    /// False: nobody is to be waited for.
    pub(super) fn awaits_verdict(&mut self, pairing: u64, report: &DivergenceReport) -> bool {
        let State::Following(follow) = &mut self.state else {
            return false;
        };
        if follow.pairing() != pairing || !follow.has_begun() || follow.is_uncompared {
            return false;
        }
        assert!(
            follow.differs.is_none(),
            "a machine that differs stands still"
        );
        follow.differs = Some(report.clone());
        let connection = follow.connection();
        // Before anybody is told.
        self.suspect_own_disk();
        let report = report.clone();
        self.keep_evidence(pairing, report.clone());
        self.send(connection, Message::Diverged { pairing, report });
        true
    }

    /// The primary is gone, or does not want this replica any more: a machine that differs is of no use.
    pub(super) fn stops_for_difference(&mut self) -> bool {
        let State::Following(follow) = &mut self.state else {
            return false;
        };
        let Some(report) = follow.differs.take() else {
            return false;
        };
        self.stop(BackupStop::Diverged(report));
        true
    }

    /// The primary is the odd one.
    pub(super) fn is_majority(&mut self) -> Result<(), &'static str> {
        let State::Following(follow) = &mut self.state else {
            return Ok(());
        };
        let Some(report) = follow.differs.take() else {
            return Err("the majority is ours, though nothing differs");
        };
        let pairing = follow.pairing();
        follow.stop_comparing(report.digest);
        self.actions.push_back(BackupAction::StopComparing);
        self.report(Event::IsMajority { pairing });
        Ok(())
    }
}
