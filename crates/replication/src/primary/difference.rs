//! Members whose machines differ from this one, and whose is right: that of the majority.
//! `docs/protocol.md`, "Divergence".

use super::{Primary, PrimaryAction, State};
use crate::event::Event;
use crate::failure_detector::Suspicion;
use crate::message::{DivergenceReport, Message};
use crate::mutation::Mutation;
use crate::record::{InstructionCount, RecordNumber};
use crate::watch::Agreement;
use std::time::Duration;

/// Where a member's machine was found to differ, and what it is there. Those whose votes are equal have
/// one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vote {
    record: RecordNumber,
    count: InstructionCount,
    digest: u128,
}

/// How far a primary has got whose machine is the odd one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outvoted {
    /// The vcpu was told to stand still.
    Halting,
    /// It does, and everything that it made is here.
    StandsStill,
}

/// What is known about a difference.
enum Verdict {
    /// Others have not got there yet.
    Open,
    /// No majority can be against the primary.
    PrimaryStays,
    /// These have one machine, and are the majority.
    Against(Vote),
}

impl<O> Primary<O> {
    /// Whether some member's machine differs, and it is not yet known who goes on.
    pub(super) fn is_disputed(&self) -> bool {
        self.outvoted.is_some() || self.members.iter().any(|member| member.vote.is_some())
    }

    /// A member says that its machine differs.
    pub(super) fn differs(&mut self, now: Duration, index: usize, report: DivergenceReport) {
        let vote = Vote {
            record: report.record,
            count: report.count,
            digest: report.digest,
        };
        let member = &mut self.members[index];
        let pairing = member.pairing();
        let is_first = member.vote.is_none();
        member.vote = Some(vote);
        let can_be_judged = is_first
            && report.record <= self.log.last()
            && !self.finishing
            && !self.stands_still
            && !self.disk_failed
            && self.outvoted.is_none();
        self.report(Event::Diverged { pairing, report });
        let mutation = Mutation::MajorityNotLookedAt;
        if !can_be_judged || self.config.mutations.active(mutation) {
            self.suspect(now, index, Suspicion::Diverged);
        }
    }

    /// Looks who differs from whom, until nobody does.
    pub(super) fn judge(&mut self, now: Duration) {
        while matches!(self.state, State::Running { .. }) && self.outvoted.is_none() {
            let votes = self.members.iter().filter_map(|member| member.vote);
            let Some(record) = votes.map(|vote| vote.record).min() else {
                return;
            };
            match self.verdict(record) {
                Verdict::Open => return self.ask_to_compare(record),
                Verdict::PrimaryStays => self.drop_who_differs(now, record),
                Verdict::Against(vote) => self.is_outvoted(now, vote),
            }
        }
    }

    /// Who has which machine after `record`, the earliest at which anybody differs. Whoever has
    /// not caught up yet was copied from this primary just now, and knows nothing of its own.
    fn verdict(&self, record: RecordNumber) -> Verdict {
        let (mut votes, mut agree, mut unknown) = (Vec::new(), 1, 0);
        for member in &self.members {
            match member.vote {
                Some(vote) if vote.record == record => votes.push(vote),
                // It came further without a difference.
                Some(_) => agree += 1,
                None if member.compared >= record => agree += 1,
                None if member.has_caught_up() => unknown += 1,
                None => {}
            }
        }
        let replicas = votes.len() + agree + unknown;
        let alike = |vote: &Vote| votes.iter().filter(|other| *other == vote).count();
        let Some((alike, vote)) = votes
            .iter()
            .map(|vote| (alike(vote), *vote))
            .max_by_key(|v| v.0)
        else {
            return Verdict::PrimaryStays;
        };
        assert!(alike <= replicas, "votes are replicas'");
        if 2 * alike > replicas {
            Verdict::Against(vote)
        } else if 2 * (alike + unknown) > replicas {
            Verdict::Open
        } else {
            Verdict::PrimaryStays
        }
    }

    fn ask_to_compare(&mut self, record: RecordNumber) {
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if member.vote.is_none() && member.asked_to_compare != record {
                member.asked_to_compare = record;
                let (connection, pairing) = (member.connection(), member.pairing());
                self.send(connection, Message::Compare { pairing, record });
            }
        }
    }

    /// Those who differ at `record` are no majority: they are dropped, and join anew.
    fn drop_who_differs(&mut self, now: Duration, record: RecordNumber) {
        let differs = |vote: Option<Vote>| vote.is_some_and(|vote| vote.record == record);
        while let Some(index) = self.members.iter().position(|member| differs(member.vote)) {
            self.suspect(now, index, Suspicion::Diverged);
        }
    }

    /// This machine is the odd one: nothing leaves it any more, and one of the others goes on. Whoever
    /// differs in another way, or has this machine, is no heir.
    fn is_outvoted(&mut self, now: Duration, vote: Vote) {
        // All of them have the same log, then.
        self.flush(now, true);
        let mut backups = 0;
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            member.vote = member.vote.filter(|other| *other == vote);
            if member.vote.is_some() {
                backups += 1;
                let (connection, pairing) = (member.connection(), member.pairing());
                self.send(connection, Message::Majority { pairing });
            }
        }
        assert!(backups > 0, "a majority is somebody");
        self.report(Event::Outvoted { backups });
        self.outvoted = Some(match self.finishing {
            false => Outvoted::Halting,
            true => Outvoted::StandsStill,
        });
        self.actions.push_back(PrimaryAction::StandStill);
    }

    /// Hands the machine over, as soon as that can be done, to a member that has the right one. While the
    /// arbiter is out of reach the machine stands still.
    pub(super) fn see_to_outvoted(&mut self, now: Duration) {
        let Some(outvoted) = self.outvoted else {
            return;
        };
        let is_settled = matches!(self.state, State::Running { .. }) && self.lost.is_empty();
        if !is_settled || self.stands_still || self.leaving.is_some() {
            return;
        }
        let has_heir = self.members.iter().any(|member| member.vote.is_some());
        if !has_heir || self.agreement == Agreement::Differs {
            // They are gone, or have an arbiter of their own: this machine is all that there is.
            while let Some(index) = self.members.iter().position(|member| member.vote.is_some()) {
                self.suspect(now, index, Suspicion::Diverged);
            }
            return self.resume();
        }
        if outvoted == Outvoted::StandsStill
            && let Some(heir) = self.next_heir()
        {
            self.begin_handover(now, heir);
        }
    }
}
