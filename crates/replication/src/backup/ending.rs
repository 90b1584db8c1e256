//! The end of a life, as a backup sees it. `docs/protocol.md`, "The end".

use super::{Backup, BackupAction, BackupStop, State};
use crate::marker::{DiskState, Role};
use crate::message::{Message, Parting};
use crate::mutation::Mutation;
use crate::record::RecordNumber;
use crate::succession::{Entry, Kind};

impl<O> Backup<O> {
    /// The primary says that the guest has ended, that everything is out, and that the key is there.
    pub(super) fn primary_finished(&mut self) {
        let State::Following(follow) = &self.state else {
            return;
        };
        let (connection, pairing) = (follow.connection(), follow.pairing());
        let parting = Parting::Finished;
        self.send(connection, Message::Goodbye { pairing, parting });
        self.actions.push_back(BackupAction::Close(connection));
        self.life_ended();
    }

    /// Whether `by` ends the life with exactly what this replica holds: the primary's Goodbye was
    /// lost.
    pub(super) fn is_end_of_what_we_hold(&self, by: &Entry) -> bool {
        let State::Claiming(follow, _) = &self.state else {
            return false;
        };
        by.kind == Kind::Ended && by.record == follow.received().next()
    }

    /// What was acknowledged is replayed before this replica ends: the primary relied on it, and a
    /// later life may begin from this host's disk.
    pub(super) fn life_ended(&mut self) {
        match std::mem::replace(&mut self.state, State::Stopped) {
            State::Following(follow) | State::Claiming(follow, _)
                if !self.config.mutations.active(Mutation::EndsUndrained) =>
            {
                self.state = State::Ending(follow);
                self.end_when_drained();
            }
            _ => self.stop(BackupStop::Finished),
        }
    }

    /// When all is replayed, the disk is synced; when that is done, this replica ends.
    pub(super) fn end_when_drained(&mut self) {
        let State::Ending(follow) = &mut self.state else {
            return;
        };
        if !follow.is_drained() {
            return;
        }
        let pairing = follow.pairing();
        if follow.settle_at_the_end() {
            let record = follow.received();
            let marker = self.marker_of_member(record);
            self.actions
                .extend(marker.map(|marker| BackupAction::Settle { pairing, marker }));
        } else if follow.is_settled_at_the_end() {
            self.stop(BackupStop::Finished);
        }
    }

    fn marker_of_member(&self, record: RecordNumber) -> Option<crate::marker::Marker> {
        let State::Ending(follow) = &self.state else {
            return None;
        };
        Some(self.marker(follow.opened(), Role::Member, DiskState::Whole, record))
    }
}
