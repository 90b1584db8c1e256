//! Leaving a generation by its key, and looking whether somebody else left it. `docs/protocol.md`,
//! "The succession".

use super::join::JoinStep;
use super::{Primary, PrimaryAction, PrimaryStop, State};
use crate::event::Event;
use crate::message::{Message, Parting};
use crate::mutation::Mutation;
use crate::succession::{Claim, Entry, Kind, Membership, Outcome, RecordNumber, Request, Verdict};
use crate::watch::{Agreement, Look};
use std::time::Duration;

impl<O> Primary<O> {
    /// Asks the arbiter for the key of the generation: once, until there is a verdict.
    pub(super) fn leave_generation(&mut self, now: Duration, kind: Kind, next: Option<Membership>) {
        assert!(
            self.leaving.is_none(),
            "a generation is left in one way only"
        );
        let record = RecordNumber(self.record).next();
        let entry = self.opened.left(self.config.writer(), kind, record, next);
        let (pacing, mutations) = (self.config.claim_pacing, self.config.mutations);
        self.leaving = Some(Claim::new(now, entry, None, pacing, mutations));
    }

    pub(super) fn ask_arbiter(&mut self, now: Duration) {
        if matches!(self.state, State::Stopped | State::Parting { .. }) {
            return;
        }
        let request = match &mut self.leaving {
            Some(claim) => claim.poll(now),
            None => self.watch.poll(now, &self.opened),
        };
        let beacon = self.beacon.poll();
        for request in [request, beacon].into_iter().flatten() {
            self.actions.push_back(PrimaryAction::Ask(request));
        }
    }

    /// The answer to [`PrimaryAction::Ask`], with the request that it answers.
    pub fn arbiter_answered(&mut self, now: Duration, request: &Request, outcome: &Outcome) {
        self.enter(now);
        if let Some(nonce) = self.beacon.answer(request, outcome)
            && let State::Paired(pair) = &self.state
        {
            let (connection, pairing) = (pair.connection(), pair.pairing());
            self.send(connection, Message::Challenged { pairing, nonce });
        }
        let look = self.watch.answer(now, &self.opened, request, outcome);
        if let Some(claim) = &mut self.leaving {
            let (before, awaited) = (claim.unanswered(), claim.awaits(request));
            let verdict = claim.answer(now, request, outcome);
            let trouble = claim.trouble_since(before);
            let entry = claim.entry().clone();
            if awaited && let Some(event) = self.outage.asked(now, trouble) {
                self.report(event);
            }
            match verdict {
                Verdict::Won => {
                    self.leaving = None;
                    self.left(now, entry);
                }
                Verdict::Lost(by) => self.superseded(by),
                Verdict::Pending => {}
            }
        } else if !matches!(self.state, State::Stopped | State::Parting { .. }) {
            self.looked(now, look);
        }
        self.maintain(now);
    }

    fn looked(&mut self, now: Duration, look: Look) {
        match look {
            Look::None => {}
            Look::Well => {
                if let Some(event) = self.outage.asked(now, None) {
                    self.report(event);
                }
                if self.agreement == Agreement::Unreachable {
                    self.agree(Agreement::Unknown);
                }
            }
            Look::LeftBy(_) if self.config.mutations.active(Mutation::OwnKeyNotLookedAt) => {}
            Look::LeftBy(by) => self.superseded(by),
            Look::Unanswered(why) => {
                if let Some(event) = self.outage.asked(now, Some(why)) {
                    self.report(event);
                }
                self.agreement = Agreement::Unreachable;
            }
        }
    }

    /// Notes what is known about the arbiters; told when it changes.
    pub(super) fn agree(&mut self, agreement: Agreement) {
        if std::mem::replace(&mut self.agreement, agreement) != agreement {
            self.report(Event::Arbiter { agreement });
        }
    }

    /// The key is ours: the next generation begins.
    fn left(&mut self, now: Duration, entry: Entry) {
        assert!(
            entry.key == self.opened.next_key(),
            "generations follow each other"
        );
        self.watch.restart(now);
        let kind = entry.kind;
        if kind.ends_life() {
            return self.life_ended(now);
        }
        self.opened = entry;
        match kind {
            Kind::Joined => self.key_of_joining_is_there(now),
            Kind::Dropped => self.go_on_alone(now),
            other => panic!("a primary leaves no generation by {other}"),
        }
    }

    /// The joiner may be gone by now. It has not read Begin, so nobody else can leave the
    /// generation, and outputs go on as before while the member is dropped again.
    fn key_of_joining_is_there(&mut self, now: Duration) {
        let key = self.opened.content();
        let State::Alone { join } = &mut self.state else {
            panic!("a generation with a member begins in no other state");
        };
        match join {
            Some(join) if join.step() == JoinStep::Claiming => {
                join.key_is_there(now);
                let (connection, pairing) = (join.connection(), join.pairing());
                self.send(connection, Message::Joined { pairing, key });
            }
            _ => self.drop_joiner(now),
        }
    }

    /// Leaves the generation of a member that never read Begin.
    pub(super) fn drop_joiner(&mut self, now: Duration) {
        let next = self.without_members();
        self.leave_generation(now, Kind::Dropped, Some(next));
    }

    pub(super) fn life_ended(&mut self, now: Duration) {
        match &self.state {
            State::Paired(pair) => {
                let (connection, pairing) = (pair.connection(), pair.pairing());
                let parting = Parting::Finished;
                self.send(connection, Message::Goodbye { pairing, parting });
                let deadline = now + self.config.detector.silence_timeout;
                self.state = State::Parting {
                    connection,
                    deadline,
                };
            }
            _ => self.stop(PrimaryStop::Finished),
        }
    }

    /// Somebody else left the generation.
    fn superseded(&mut self, by: Box<Entry>) {
        self.report(Event::Superseded { by: by.clone() });
        let connection = match &self.state {
            State::Paired(pair) => Some(pair.connection()),
            State::Alone { join: Some(join) } => Some(join.connection()),
            _ => None,
        };
        if let Some(connection) = connection {
            self.actions.push_back(PrimaryAction::Close(connection));
        }
        self.stop(PrimaryStop::Superseded { by });
    }
}
