//! From suspicion, or from a handover, to going live; and everything else about which the arbiter is
//! asked. `docs/protocol.md`, "Taking over".

use super::{Backup, BackupAction, BackupStop, Drain, State};
use crate::event::Event;
use crate::failure_detector::Suspicion;
use crate::message::{Message, Parting};
use crate::mutation::Mutation;
use crate::succession::{Claim, Entry, Kind, Outcome, Request, Verdict};
use std::time::Duration;

impl<O> Backup<O> {
    /// The primary of this attempt or pairing is gone, perhaps. Before Begin it is free to go on
    /// alone at any time, so this replica must not; after it, the arbiter decides.
    pub(super) fn lost_primary(&mut self, now: Duration, why: Suspicion) {
        self.lost_primary_for(now, why, Duration::ZERO);
    }

    /// `courtesy`: so long another claimant has before this replica asks as well.
    pub(super) fn lost_primary_for(&mut self, now: Duration, why: Suspicion, courtesy: Duration) {
        let State::Following(follow) = &self.state else {
            return;
        };
        let (connection, pairing) = (follow.connection(), follow.pairing());
        self.actions.push_back(BackupAction::Close(connection));
        let (has_begun, is_member) = (follow.has_begun(), follow.is_member());
        if self.stops_for_difference() {
            return;
        }
        let early = self.config.mutations.active(Mutation::ClaimBeforeBegin) && is_member;
        if !has_begun && !early {
            let again = why.to_string();
            self.report(Event::JoinFailed { pairing, why });
            return self.again(&again);
        }
        self.report(Event::Suspected { pairing, why });
        self.claim(now + courtesy, Kind::TookOver);
        if self.config.mutations.active(Mutation::GoLiveWithoutAsking)
            && let State::Claiming(_, claim) = &self.state
        {
            let entry = claim.entry().clone();
            self.won(entry);
        }
        self.maintain(now);
    }

    /// Asks for the key of the generation in which this replica is a member, from `at` on.
    pub(super) fn claim(&mut self, at: Duration, kind: Kind) {
        let (State::Following(follow) | State::Claiming(follow, _)) = &self.state else {
            return;
        };
        let record = follow.received().next();
        let entry = follow
            .opened()
            .taken_over(self.config.writer(), kind, record);
        let (pacing, mutations) = (self.config.claim_pacing, self.config.mutations);
        let claim = Claim::new(at, entry, None, pacing, mutations);
        if let State::Following(follow) | State::Claiming(follow, _) =
            std::mem::replace(&mut self.state, State::Stopped)
        {
            self.state = State::Claiming(follow, Box::new(claim));
        }
    }

    /// The answer to [`BackupAction::Ask`], with the request that it answers.
    pub fn arbiter_answered(&mut self, now: Duration, request: &Request, outcome: &Outcome) {
        self.enter(now);
        self.look_answered(request, outcome);
        match &mut self.state {
            State::Following(follow) => {
                follow.beacon_answered(request, outcome);
                self.key_was_read(now, request, outcome);
            }
            State::Claiming(_, claim) => {
                let (before, awaited) = (claim.unanswered(), claim.awaits(request));
                let verdict = claim.answer(now, request, outcome);
                let trouble = claim.trouble_since(before);
                let entry = claim.entry().clone();
                let kind = entry.kind;
                if awaited && let Some(event) = self.outage.asked(now, trouble) {
                    self.report(event);
                }
                match verdict {
                    Verdict::Won => self.won(entry),
                    Verdict::Lost(by) => self.lost(now, kind, by),
                    Verdict::Pending => {}
                }
            }
            _ => {}
        }
        self.maintain(now);
    }

    /// The key that makes this replica a member, as its own arbiter has it.
    fn key_was_read(&mut self, now: Duration, request: &Request, outcome: &Outcome) {
        let State::Following(follow) = &mut self.state else {
            return;
        };
        let (connection, pairing) = (follow.connection(), follow.pairing());
        match follow.key_was_read(now, request, outcome) {
            None => {}
            Some(Ok(())) => self.send(connection, Message::Confirmed { pairing }),
            Some(Err(what)) => {
                let parting = Parting::Leaving;
                self.send(connection, Message::Goodbye { pairing, parting });
                self.actions.push_back(BackupAction::Close(connection));
                self.again(&what);
            }
        }
    }

    fn won(&mut self, opened: Entry) {
        self.newest = opened.clone();
        self.report(Event::Claimed {
            generation: opened.next_generation(),
            members: 0,
        });
        if let State::Claiming(follow, _) = std::mem::replace(&mut self.state, State::Stopped) {
            if follow.is_handed_over() {
                let (connection, pairing) = (follow.connection(), follow.pairing());
                self.send(connection, Message::TakenOver { pairing });
                self.actions.push_back(BackupAction::Close(connection));
            }
            let records = follow.backlog();
            let is_fenced = !self.config.has_shared_disks;
            let drain = Box::new(Drain {
                opened,
                records,
                is_fenced,
            });
            self.state = State::Draining(follow, drain);
            if !is_fenced {
                self.actions.push_back(BackupAction::Fence);
            }
        }
    }

    /// The answer to [`BackupAction::Fence`]: nobody but this host can write to the shared disks any more.
    pub fn fenced(&mut self, now: Duration) {
        self.enter(now);
        if let State::Draining(_, drain) = &mut self.state {
            drain.is_fenced = true;
        }
        self.maintain(now);
    }

    fn lost(&mut self, now: Duration, kind: Kind, by: Box<Entry>) {
        let me = self.config.greeting.host.id;
        let mutated = self.config.mutations.active(Mutation::ClaimByNonMember);
        let State::Claiming(follow, _) = &mut self.state else {
            return;
        };
        // The primary had gone on with others, or without some, before it was lost: this replica is
        // a member of its next generation as well, and asks for the key of that.
        if follow.stays_member(&by, me) || mutated && by.kind == Kind::Dropped {
            follow.adopt((*by).clone());
            self.report(Event::Generation { by });
            return self.claim(now, kind);
        }
        if follow.is_handed_over() {
            let connection = follow.connection();
            self.actions.push_back(BackupAction::Close(connection));
        }
        self.report(Event::Superseded { by: by.clone() });
        if self.is_end_of_what_we_hold(&by) {
            return self.life_ended();
        }
        self.hold_machine();
        self.stop(BackupStop::Superseded { by });
    }

    pub(super) fn go_live(&mut self) {
        let State::Draining(follow, drain) = std::mem::replace(&mut self.state, State::Live) else {
            return;
        };
        let pairing = follow.pairing();
        let (log, outputs) = follow.into_log_and_outputs();
        self.report(Event::Live {
            pairing,
            drained_records: drain.records,
            repeated_outputs: outputs.len(),
        });
        self.actions.push_back(BackupAction::Announce);
        self.actions.push_back(BackupAction::GoLive {
            opened: Box::new(drain.opened),
            log: Box::new(log),
            outputs,
        });
    }
}
