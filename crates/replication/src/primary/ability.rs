//! Members whose hosts could not go on with the machine as its primary. `docs/protocol.md`, "Handing over".

use super::member::Member;
use super::{Primary, State};
use crate::event::Event;
use crate::failure_detector::Suspicion;
use crate::message::printable;
use crate::mutation::Mutation;
use crate::succession::{Host, HostId};
use std::collections::BTreeMap;
use std::time::Duration;

/// Of so many hosts it is remembered why they cannot follow; there are never as many.
const MOST_REMEMBERED: usize = 16;

/// Hosts that came to follow, and left because they cannot as they are.
#[derive(Debug, Default)]
pub(super) struct CannotFollow(BTreeMap<HostId, (String, String)>);

impl CannotFollow {
    fn add(&mut self, host: &Host, why: &str) {
        if self.0.len() == MOST_REMEMBERED {
            self.0.pop_first();
        }
        let told = (host.node().to_owned(), why.to_owned());
        self.0.insert(host.id, told);
        assert!(self.0.len() <= MOST_REMEMBERED, "hosts that are remembered");
    }

    /// It can, by now.
    pub fn forget(&mut self, host: HostId) {
        self.0.remove(&host);
    }
}

impl<O> Primary<O> {
    /// Who joins says why its host cannot follow, and leaves.
    pub(super) fn joiner_cannot_follow(&mut self, why: &Suspicion) {
        if let State::Running { join: Some(join) } = &self.state
            && let Suspicion::CannotFollow(why) = why
        {
            let host = join.host().clone();
            self.cannot_follow.add(&host, why);
        }
    }

    /// What hosts said that came to follow and cannot, for people.
    pub fn hosts_that_cannot_follow(&self) -> Option<String> {
        let told = self.cannot_follow.0.values();
        let told: Vec<String> = told
            .map(|(host, why)| format!("{host} cannot follow: {why}"))
            .collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// A member says why its host could not go on as the primary; empty: it could.
    pub(super) fn member_could_go_on(&mut self, index: usize, trouble: &str) {
        let member = &mut self.members[index];
        let trouble = (!trouble.is_empty()).then(|| printable(trouble));
        if member.trouble == trouble {
            return;
        }
        let changes = member.trouble.is_some() != trouble.is_some();
        member.trouble.clone_from(&trouble);
        let host = member.host().clone();
        if changes {
            self.report(Event::MayGoOn {
                host,
                trouble,
                is_here: false,
            });
        }
    }

    /// Whether this member is to be handed the machine if another one is not.
    pub(super) fn could_go_on(&self, member: &Member) -> bool {
        member.trouble.is_none() || self.config.mutations.active(Mutation::HandsOverToTheUnable)
    }

    /// Members could take over, and each of their hosts has said that it could not go on with the machine: why,
    /// for people. When the primary dies one of them does all the same; nobody hands the machine over to them.
    pub fn why_no_heir_could_go_on(&self) -> Option<String> {
        let heir = &self.members[self.next_heir()?];
        if self.could_go_on(heir) {
            return None;
        }
        self.members_in_trouble()
    }

    /// What members have said about why their hosts could not go on with the machine, for people.
    pub fn members_in_trouble(&self) -> Option<String> {
        let told = |member: &Member| {
            let trouble = member.trouble.as_ref()?;
            let host = member.host().node();
            Some(format!(
                "{host} could not go on with the machine: {trouble}"
            ))
        };
        let told: Vec<String> = self.members.iter().filter_map(told).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// The machine is to be this host's alone: the arbiter is asked to drop all members. Until the key is there
    /// they are members as any other. They are told why.
    pub fn let_members_go(&mut self, now: Duration, why: String) {
        self.enter(now);
        self.lets_go_for = Some(why);
        if matches!(self.state, State::Running { .. }) {
            for member in &mut self.members {
                member.is_let_go = true;
            }
        }
        self.maintain(now);
    }
}
