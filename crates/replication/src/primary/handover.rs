//! Handing the machine over to its backup. `docs/protocol.md`, "Handing over".

use super::{Primary, PrimaryAction, State};
use crate::event::Event;
use crate::message::Message;
use std::time::Duration;

impl<O> Primary<O> {
    /// Whether the backup could take over at once.
    pub fn can_hand_over(&self) -> bool {
        let State::Paired(pair) = &self.state else {
            return false;
        };
        pair.is_protected() && !self.finishing && !self.stands_still
    }

    /// A disk of this host failed a request of the guest. Its outcome was *not* given to the guest
    /// and is in no record; the vcpu was stopped, and everything that it made was given to this core.
    ///
    /// True: the backup, whose disk may be good, is asked to take over, as by
    /// [`hand_over`](Self::hand_over). False: there is none that could; the guest has to be told.
    pub fn disk_failed(&mut self, now: Duration, what: String) -> bool {
        self.report(Event::DiskFailed { what });
        self.hand_over(now)
    }

    /// Lets the backup take over. The vcpu was stopped, and everything that it made was given to
    /// this core. From here on nothing is emitted; in the end comes
    /// [`PrimaryStop::LostClaim`](super::PrimaryStop::LostClaim), or [`PrimaryAction::Resume`] if
    /// nobody took over. False: it cannot be done now, let the vcpu run on.
    pub fn hand_over(&mut self, now: Duration) -> bool {
        self.enter(now);
        let can = self.can_hand_over();
        if can {
            self.flush(now, true);
        }
        if let State::Paired(pair) = &mut self.state
            && can
        {
            let (connection, generation) = (pair.connection(), pair.generation());
            let stream = pair.stream_mut();
            let sequence = stream.sent_sequence();
            assert!(sequence == stream.sequence(), "everything was sent");
            self.stands_still = true;
            self.send(
                connection,
                Message::Handover {
                    generation,
                    sequence,
                },
            );
            self.report(Event::HandingOver { generation });
        }
        self.maintain(now);
        can
    }

    /// Nobody took over: the machine goes on here.
    pub(super) fn resume(&mut self) {
        if std::mem::take(&mut self.stands_still) {
            self.actions.push_back(PrimaryAction::Resume);
        }
    }
}
