//! Members whose hosts could not go on with the machine as its primary. `docs/protocol.md`, "Handing over".

use super::member::Member;
use super::{Primary, State};
use crate::event::Event;
use crate::message::printable;
use crate::mutation::Mutation;
use std::time::Duration;

impl<O> Primary<O> {
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
    /// they are members as any other.
    pub fn let_members_go(&mut self, now: Duration) {
        self.enter(now);
        if matches!(self.state, State::Running { .. }) {
            for member in &mut self.members {
                member.is_let_go = true;
            }
        }
        self.maintain(now);
    }
}
