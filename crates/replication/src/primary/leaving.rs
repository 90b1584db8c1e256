//! Leaving a generation by its key, and looking whether somebody else left it. `docs/protocol.md`,
//! "The succession".

use super::join::JoinStep;
use super::member::Member;
use super::{Primary, PrimaryAction, PrimaryStop, State};
use crate::ConnectionId;
use crate::event::Event;
use crate::message::{Message, Parting};
use crate::mutation::Mutation;
use crate::succession::{Claim, Entry, Host, Kind, Membership, Outcome, Request, Verdict};
use crate::watch::{Agreement, Look};
use std::time::Duration;

impl<O> Primary<O> {
    /// Asks the arbiter for the key of the generation: once, until there is a verdict.
    pub(super) fn leave_generation(&mut self, now: Duration, kind: Kind, next: Option<Membership>) {
        let record = self.log.last().next();
        let entry = self.opened.left(self.config.writer(), kind, record, next);
        self.leave_by(now, entry);
    }

    pub(super) fn leave_by(&mut self, now: Duration, entry: Entry) {
        assert!(
            self.leaving.is_none(),
            "a generation is left in one way only"
        );
        let (pacing, mutations) = (self.config.claim_pacing, self.config.mutations);
        self.leaving = Some(Claim::new(now, entry, None, pacing, mutations));
    }

    pub(super) fn ask_arbiter(&mut self, now: Duration) {
        if matches!(self.state, State::Stopped | State::Parting { .. }) {
            return;
        }
        let request = match &mut self.leaving {
            Some(claim) => claim.poll(now),
            None => match self.poll_moving() {
                Some(request) => Some(request),
                None => self.watch.poll(now, &self.opened),
            },
        };
        // A store without the keys, or out of reach, is not shown to be the same: a beacon could be written into
        // an emptied one, too.
        let beacon = match self.outage.why() {
            None => self.beacon.poll(),
            Some(_) => None,
        };
        for request in [request, beacon].into_iter().flatten() {
            self.actions.push_back(PrimaryAction::Ask(request));
        }
    }

    /// The answer to [`PrimaryAction::Ask`], with the request that it answers.
    pub fn arbiter_answered(&mut self, now: Duration, request: &Request, outcome: &Outcome) {
        self.enter(now);
        for (host, nonce) in self.beacon.answer(request, outcome) {
            let mut members = self.members.iter();
            if let Some(member) = members.find(|member| member.host().id == host) {
                let (connection, pairing) = (member.connection(), member.pairing());
                self.send(connection, Message::Challenged { pairing, nonce });
            }
        }
        self.moving_answered(request, outcome);
        let is_fresh = self.watch.is_fresh(request);
        let look = self.watch.answer(now, &self.opened, request, outcome);
        if is_fresh && !matches!(self.state, State::Stopped | State::Parting { .. }) {
            let trouble = look.trouble();
            self.actions.push_back(PrimaryAction::Looked { trouble });
        }
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
        if agreement == Agreement::Agreed && self.outage.why().is_some() {
            // What a member saw before: it has been asked to look at nothing since.
            return;
        }
        if std::mem::replace(&mut self.agreement, agreement) != agreement {
            self.report(Event::Arbiter { agreement });
        }
    }

    /// Why nobody could take over by the arbiter now, for people.
    pub(super) fn arbiter_trouble(&self) -> Option<String> {
        let own = self.outage.why().map(str::to_owned);
        let members = self.members.iter().map(Member::agreement);
        own.or_else(|| {
            members
                .filter_map(Agreement::trouble)
                .next()
                .map(Into::into)
        })
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
            Kind::Joined => {
                self.tell_generation();
                self.key_of_joining_is_there();
                self.journal_key_is_there();
            }
            Kind::Dropped => {
                // Whoever was lost meanwhile is still a member: the next key drops it.
                self.part_from_let_go();
                let next = self.opened.membership();
                let mutations = self.config.mutations;
                if mutations.active(Mutation::SecondDropForgotten) {
                    self.lost.clear();
                } else if !mutations.active(Mutation::DroppedMemberCounts) {
                    self.lost.retain(|host| next.has_member(host.id));
                }
                self.tell_generation();
                self.go_on(now);
            }
            Kind::Moved => self.moved(),
            other => panic!("a primary leaves no generation by {other}"),
        }
    }

    /// Tells the members in which generation they are now. Whoever does not hear of it finds out when
    /// it asks the arbiter.
    pub(super) fn tell_generation(&mut self) {
        let key = self.opened.content();
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let (connection, pairing) = (member.connection(), member.pairing());
            let key = key.clone();
            self.send(connection, Message::Generation { pairing, key });
        }
        if let State::Running { join: Some(join) } = &mut self.state
            && join.generation_changed(&key)
        {
            let (connection, pairing) = (join.connection(), join.pairing());
            self.send(connection, Message::Generation { pairing, key });
        }
    }

    /// The joiner may be gone by now: then it is dropped again. It has not read Begin, so it cannot
    /// leave the generation.
    fn key_of_joining_is_there(&mut self) {
        let key = self.opened.content();
        if let State::Running { join: Some(join) } = &mut self.state
            && join.step() == JoinStep::Claiming
        {
            join.key_is_there();
            let (connection, pairing) = (join.connection(), join.pairing());
            self.send(connection, Message::Joined { pairing, key });
        }
    }

    /// Members by the key that are not here, lost or gone before they had begun, are dropped by the
    /// next key, as soon as it can be asked for.
    pub(super) fn drop_absent(&mut self, now: Duration) {
        let mutated = self
            .config
            .mutations
            .active(Mutation::DropBackupWithoutAsking);
        let State::Running { join } = &self.state else {
            return;
        };
        if self.leaving.is_some() || mutated {
            return;
        }
        let joiner = join.as_ref().filter(|join| join.is_about_to_begin());
        let is_here = |host: &Host| {
            let is_member = |member: &Member| member.host().id == host.id && !member.is_let_go;
            let is_joiner = joiner.is_some_and(|join| join.host().id == host.id);
            self.members.iter().any(is_member) || is_joiner
        };
        let left = self.opened.membership();
        let here = left.members.iter().filter(|host| is_here(host)).cloned();
        let members: Vec<Host> = here.collect();
        let keeps_journal = self.journal_of_next() == left.journal;
        if members.len() < left.members.len() || !keeps_journal {
            let next = self.without_absent(left, members);
            self.leave_generation(now, Kind::Dropped, Some(next));
        }
    }

    pub(super) fn life_ended(&mut self, now: Duration) {
        let members = std::mem::take(&mut self.members);
        if members.is_empty() {
            return self.stop(PrimaryStop::Finished);
        }
        for member in &members {
            let (connection, pairing) = (member.connection(), member.pairing());
            let parting = Parting::Finished;
            self.send(connection, Message::Goodbye { pairing, parting });
        }
        self.state = State::Parting {
            waiting: members.iter().map(Member::connection).collect(),
            deadline: now + self.config.detector.silence_timeout,
        };
    }

    /// A member that was told of the end has answered, or is gone.
    pub(super) fn parted(&mut self, connection: ConnectionId, closes: bool) {
        let State::Parting { waiting, .. } = &mut self.state else {
            return;
        };
        let Some(index) = waiting.iter().position(|other| *other == connection) else {
            return;
        };
        waiting.remove(index);
        let is_last = waiting.is_empty();
        if closes {
            self.actions.push_back(PrimaryAction::Close(connection));
        }
        if is_last {
            self.stop(PrimaryStop::Finished);
        }
    }

    /// Somebody else left the generation.
    fn superseded(&mut self, by: Box<Entry>) {
        self.report(Event::Superseded { by: by.clone() });
        let join = match &self.state {
            State::Running { join } => join.as_ref().map(|join| join.connection()),
            State::Parting { .. } | State::Stopped => None,
        };
        let members = self.members.iter().map(Member::connection);
        let open: Vec<ConnectionId> = members.chain(join).collect();
        for connection in open {
            self.actions.push_back(PrimaryAction::Close(connection));
        }
        self.stop(PrimaryStop::Superseded { by });
    }
}
