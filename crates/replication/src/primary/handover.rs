//! Handing the machine over to its backup. `docs/protocol.md`, "Handing over".

use super::join::JoinStep;
use super::{Primary, PrimaryAction, State};
use crate::event::Event;
use crate::message::Message;
use crate::mutation::Mutation;
use crate::watch::Agreement;
use std::time::Duration;

impl<O> Primary<O> {
    /// Whether the backup could take over at once: it is protected, and the arbiter was there when
    /// it was last looked at.
    pub fn can_hand_over(&self) -> bool {
        !matches!(self.agreement, Agreement::Unreachable | Agreement::Differs) && self.has_heir()
    }

    /// Whether there is a backup that takes over as soon as the arbiter lets it.
    fn has_heir(&self) -> bool {
        let State::Paired(pair) = &self.state else {
            return false;
        };
        pair.is_protected() && !self.finishing && !self.stands_still && self.leaving.is_none()
    }

    /// Lets the backup take over. The vcpu was stopped, and everything that it made was given to
    /// this core. From here on nothing is emitted; in the end comes
    /// [`PrimaryStop::Superseded`](super::PrimaryStop::Superseded), or [`PrimaryAction::Resume`] if
    /// nobody took over. False: it cannot be done now, let the vcpu run on.
    pub fn hand_over(&mut self, now: Duration) -> bool {
        self.enter(now);
        let can = self.can_hand_over();
        if can {
            self.begin_handover(now);
        }
        self.maintain(now);
        can
    }

    /// A disk of this host failed a request of the guest. Its outcome was *not* given to the guest
    /// and is in no record; the vcpu was stopped, and everything that it made was given to this
    /// core.
    ///
    /// A backup, whose disk may be good, is asked to take over, as by [`hand_over`](Self::hand_over).
    /// When it is certain that there is none, [`PrimaryAction::Resume`] comes: the guest has to be
    /// told.
    pub fn disk_failed(&mut self, now: Duration, what: String) {
        self.enter(now);
        assert!(!self.disk_failed, "a vcpu stands still once");
        assert!(!self.finishing, "a guest that has ended waits for no disk");
        self.report(Event::DiskFailed { what });
        self.disk_failed = true;
        self.maintain(now);
    }

    /// Decides who goes on when this host's disk failed, as soon as that can be known. While the
    /// arbiter is out of reach the machine stands still: the backup takes over when it is back.
    pub(super) fn see_to_failed_disk(&mut self, now: Duration) {
        if !self.disk_failed || self.stands_still {
            return;
        }
        if self.config.mutations.active(Mutation::DiskErrorTold) {
            return self.resume();
        }
        match &self.state {
            // Whose disk is the right one is for its arbiter to say, and it has another.
            State::Paired(_) if self.agreement == Agreement::Differs => self.tell_disk_error(),
            State::Paired(_) if self.has_heir() => self.begin_handover(now),
            State::Alone { join: Some(join) } if join.is_about_to_begin() => {}
            State::Alone { .. } => self.tell_disk_error(),
            // It is about to be known whether there is a backup, or who won.
            State::Paired(_) | State::Unpaired => {}
            State::Parting { .. } | State::Stopped => {}
        }
    }

    fn tell_disk_error(&mut self) {
        self.report(Event::DiskErrorTold);
        self.resume();
    }

    fn begin_handover(&mut self, now: Duration) {
        self.flush(now, true);
        let State::Paired(pair) = &mut self.state else {
            return;
        };
        let (connection, pairing) = (pair.connection(), pair.pairing());
        let sequence = pair.stream_mut().sent_sequence();
        assert!(sequence == self.record, "everything was sent");
        self.stands_still = true;
        self.send(connection, Message::Handover { pairing, sequence });
        self.report(Event::HandingOver { pairing });
    }

    /// The machine goes on here.
    pub(super) fn resume(&mut self) {
        let stood_still = std::mem::take(&mut self.stands_still);
        if std::mem::take(&mut self.disk_failed) || stood_still {
            self.actions.push_back(PrimaryAction::Resume);
        }
    }
}

impl super::Join {
    /// Whether it is decided within a few round trips whether this backup is a member.
    fn is_about_to_begin(&self) -> bool {
        matches!(self.step(), JoinStep::Claiming | JoinStep::AwaitConfirmed)
    }
}
