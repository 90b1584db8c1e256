//! Handing the machine over to its backup. `docs/protocol.md`, "Handing over".

use super::{Primary, State};
use crate::event::Event;
use crate::message::Message;
use crate::watch::Agreement;
use std::time::Duration;

impl<O> Primary<O> {
    /// Whether the backup could take over at once: it is protected, and the arbiter was there when
    /// it was last looked at.
    pub fn can_hand_over(&self) -> bool {
        let State::Paired(pair) = &self.state else {
            return false;
        };
        pair.is_protected()
            && !self.finishing
            && !self.stands_still
            && self.leaving.is_none()
            && !matches!(self.agreement, Agreement::Unreachable | Agreement::Differs)
    }

    /// Lets the backup take over. The vcpu was stopped, and everything that it made was given to
    /// this core. From here on nothing is emitted; in the end comes
    /// [`PrimaryStop::Superseded`](super::PrimaryStop::Superseded), or
    /// [`PrimaryAction::Resume`](super::PrimaryAction::Resume) if nobody took over. False: it cannot
    /// be done now, let the vcpu run on.
    pub fn hand_over(&mut self, now: Duration) -> bool {
        self.enter(now);
        let can = self.can_hand_over();
        if can {
            self.flush(now, true);
        }
        if let State::Paired(pair) = &mut self.state
            && can
        {
            let (connection, pairing) = (pair.connection(), pair.pairing());
            let sequence = pair.stream_mut().sent_sequence();
            assert!(sequence == self.record, "everything was sent");
            self.stands_still = true;
            self.send(connection, Message::Handover { pairing, sequence });
            self.report(Event::HandingOver { pairing });
        }
        self.maintain(now);
        can
    }
}
