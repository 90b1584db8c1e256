//! Disks of this host that fail, or that cannot become copies of the primary's.

use super::{Backup, BackupAction, BackupStop, State};
use crate::ConnectionId;
use crate::event::Event;
use crate::marker::{DiskState, Role};
use crate::message::{Message, OF_ITS_HOST, Parting};
use crate::record::RecordNumber;
use std::time::Duration;

impl<O> Backup<O> {
    /// A disk of this host failed a request of `pairing`'s machine that the primary's disk did, or
    /// cannot be synced, or cannot be told what it is worth. The machine is worth nothing from here
    /// on: this replica says so and leaves, and if it was about to take over, it does not.
    pub fn own_disk_failed(&mut self, now: Duration, pairing: u64, what: String) {
        self.enter(now);
        if let Some(follow) = self.follow_mut(pairing) {
            let connection = follow.connection();
            self.suspect_own_disk();
            self.report(Event::DiskFailed { what: what.clone() });
            if let State::Following(_) = &self.state {
                self.say_disk_failed(connection, pairing, &what);
            }
            self.stop(BackupStop::DiskFailed(what));
        }
        self.maintain(now);
    }

    /// A disk of this host cannot become a copy of the primary's, or must not be overwritten: instead of
    /// [`Backup::marked`], or of [`Backup::restored`]. Nothing of it was written. The primary is told why.
    pub fn cannot_follow(&mut self, now: Duration, why: String) {
        self.enter(now);
        if let State::Following(follow) = &self.state
            && !follow.has_begun()
        {
            self.say_disk_failed(follow.connection(), follow.pairing(), &why);
            self.stop(BackupStop::CannotFollow(why));
        }
        self.maintain(now);
    }

    /// Leaves because of a disk of this host. A primary that is still being joined is told what is wrong: one of before
    /// takes it for nonsense, and the joining ends all the same.
    fn say_disk_failed(&mut self, connection: ConnectionId, pairing: u64, why: &str) {
        let joins = matches!(&self.state, State::Following(follow) if !follow.has_begun());
        if joins {
            let (nonce, trouble) = (OF_ITS_HOST, why.to_owned());
            let sees = Message::Sees {
                pairing,
                nonce,
                trouble,
            };
            self.send(connection, sees);
        }
        let parting = Parting::DiskFailed;
        self.send(connection, Message::Goodbye { pairing, parting });
        self.actions.push_back(BackupAction::Close(connection));
    }

    /// The disk here belongs to a machine that differs: it is worth nothing, before anybody is told.
    pub(super) fn suspect_own_disk(&mut self) {
        let follow = match &self.state {
            State::Following(follow)
            | State::Claiming(follow, _)
            | State::Draining(follow, _)
            | State::Ending(follow) => Some(follow),
            State::Dialing | State::Greeting { .. } => self.held.as_ref(),
            State::Live | State::Stopped => None,
        };
        let Some(follow) = follow else {
            return;
        };
        let marker = self.marker(
            follow.opened(),
            Role::None,
            DiskState::Suspect,
            RecordNumber::BEFORE_ALL,
        );
        self.actions.push_back(BackupAction::Mark(marker));
    }
}
