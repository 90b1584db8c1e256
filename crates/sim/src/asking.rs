//! What processes ask the arbiter, when that takes effect, and what they are told.

use crate::arbiter::Mood;
use crate::coverage::Situation;
use crate::process::Role;
use crate::scenario::MS;
use crate::world::{What, World};
use replication::marker::DiskState;
use replication::succession::{Entry, Outcome, Request, RunId};

impl World {
    pub(crate) fn ask(&mut self, node: usize, run: u64, request: Request) {
        let create = matches!(
            request,
            Request::Create { .. } | Request::WriteBeacon { .. }
        );
        if let Request::Create { key, .. } = &request {
            self.asked.insert((key.clone(), run));
            let both = (key.clone(), 0)..=(key.clone(), u64::MAX);
            if self.asked.range(both).count() > 1 {
                self.coverage.reached(Situation::ClaimRace);
            }
        }
        let soon = self.random.between(1, 4) * MS;
        let late = self.random.between(100, 3000) * MS;
        let mood = if self.nodes[node].arbiter_cut {
            Mood::Unreachable
        } else {
            self.mood
        };
        let is_wrong = self.nodes[node].wrong_arbiter;
        let lands = |world: &mut World, after: u64, answer: bool| {
            let request = request.clone();
            world.at(
                after,
                None,
                What::Lands {
                    node,
                    run,
                    request,
                    answer,
                    is_wrong,
                },
            );
        };
        let gives_up = match mood {
            Mood::Well | Mood::Torn => {
                lands(self, soon, true);
                return;
            }
            Mood::Slow => {
                lands(self, late, true);
                return;
            }
            Mood::ReadOnly if !create => {
                lands(self, soon, true);
                return;
            }
            Mood::ReadOnly => "read-only",
            Mood::Unreachable => "unreachable",
            Mood::AnswersLost => {
                lands(self, soon, false);
                self.coverage.reached(Situation::ArbiterAnswerLost);
                "no answer"
            }
            Mood::LandsLate => {
                lands(self, 300 * MS + late, false);
                self.coverage.reached(Situation::ArbiterLandedLate);
                "no answer yet"
            }
        };
        let outcome = Outcome::Unknown(gives_up.to_owned());
        self.at(250 * MS, Some((node, run)), What::Answer(request, outcome));
    }

    /// A backup says that its own arbiter has the key.
    pub(crate) fn confirms(&mut self, node: usize, run: u64) {
        if let Some(Role::Backup(backup)) = self.role(node) {
            let key = backup.opened.next_key();
            if !self.seen.contains(&(key, run)) {
                self.violated(format!("process {run} confirms a key that it did not read"));
            }
        }
    }

    /// A backup lets its disk be overwritten: nothing may give it rights any more.
    pub(crate) fn accepts(&mut self, node: usize, run: u64) {
        let worth = self.nodes[node].disk.worth();
        let is_marked = worth
            .marker()
            .is_some_and(|marker| marker.disk != DiskState::Whole);
        if !is_marked {
            self.violated(format!(
                "process {run} lets its disk be overwritten, which says that it is {worth}"
            ));
        }
    }

    /// A request reaches the store that the node sees.
    pub(crate) fn lands(
        &mut self,
        (node, run): (usize, u64),
        request: Request,
        answer: bool,
        is_wrong: bool,
    ) {
        let store = if is_wrong {
            &mut self.wrong_arbiter
        } else {
            &mut self.arbiter
        };
        let mut outcome = store.carry_out(&request);
        if self.mood == Mood::Torn
            && let (Request::Read { .. }, Outcome::Holds(content)) = (&request, &mut outcome)
        {
            content.truncate(content.len() / 2);
            self.coverage.reached(Situation::TornKeyRead);
        }
        self.note(|| format!("arbiter: {request:?} of process {run}: {outcome:?}"));
        if let (Request::Create { key, .. }, Outcome::Created) = (&request, &outcome) {
            if is_wrong {
                self.violated(format!(
                    "process {run} created {} at an arbiter that knows nothing of its life",
                    key.object_name()
                ));
            } else if let Some(entry) = self.arbiter.entry(key) {
                self.checker.key_created(&entry);
                self.nobody_else_holds_it(run, &entry);
            }
        }
        if let (Request::Read { key }, Outcome::Holds(_), false) = (&request, &outcome, is_wrong)
            && self.mood != Mood::Torn
        {
            self.seen.insert((key.clone(), run));
        }
        if answer {
            let after = self.random.between(0, 3) * MS;
            self.at(after, Some((node, run)), What::Answer(request, outcome));
        }
    }

    pub(crate) fn arbiter_answers(&mut self, node: usize, request: &Request, outcome: &Outcome) {
        let now = self.clock(node);
        match (request, outcome) {
            (Request::Read { key }, Outcome::Holds(content)) => {
                let run = self.run_of(node).map(|run| RunId(run.into()));
                let asked =
                    run.is_some_and(|run| self.asked.contains(&(key.clone(), run.0 as u64)));
                let is_own = Entry::parse(key, content).is_ok_and(|e| Some(e.writer.run) == run);
                if asked && is_own {
                    self.coverage.reached(Situation::WonByReadBack);
                }
            }
            (Request::Read { key }, Outcome::Absent) => {
                let run = self.run_of(node).unwrap_or(0);
                if self.asked.contains(&(key.clone(), run)) {
                    self.coverage.reached(Situation::AskedAgain);
                }
            }
            _ => {}
        }
        if let Some(process) = &mut self.nodes[node].process {
            match &mut process.role {
                Role::Primary(primary) => primary.core.arbiter_answered(now, request, outcome),
                Role::Backup(backup) => backup.core.arbiter_answered(now, request, outcome),
                Role::Starting => process.startup.arbiter_answered(now, request, outcome),
            }
        }
        self.settle(node);
    }
}
