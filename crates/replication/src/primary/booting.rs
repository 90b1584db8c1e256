//! What the machine would be booted from on the hosts of a pair. `docs/protocol.md`, "What a host boots".

use super::{FollowerStatus, Primary, State};
use crate::configuration::{Configuration, Difference, boot_differences};
use crate::event::Event;
use std::time::Duration;

/// What a follower's host would boot, and what was told of it.
#[derive(Clone, Debug, Default)]
pub(super) struct TheirBoot {
    boot: Configuration,
    told: Vec<Difference>,
}

impl TheirBoot {
    pub(super) fn new(boot: Configuration) -> TheirBoot {
        TheirBoot {
            boot,
            told: Vec::new(),
        }
    }

    /// Where it differs, if that is not what was told last.
    fn news(&mut self, ours: &Configuration) -> Option<Vec<Difference>> {
        let differences = boot_differences(ours, &self.boot);
        if differences == self.told {
            return None;
        }
        self.told.clone_from(&differences);
        Some(differences)
    }
}

impl<O> Primary<O> {
    /// What the machine would be booted from on this host at its next power-on: to be called when that is known, and
    /// when it changes.
    pub fn would_boot(&mut self, now: Duration, boot: &Configuration) {
        if self.boot == *boot {
            return;
        }
        self.enter(now);
        self.boot = boot.clone();
        self.tell_boots();
        self.maintain(now);
    }

    /// Says on whose hosts the machine would be booted from something else than here, when that changes.
    pub(super) fn tell_boots(&mut self) {
        let join = match &mut self.state {
            State::Running { join: Some(join) } => Some((join.host().clone(), join.boot_mut())),
            _ => None,
        };
        let members = self.members.iter_mut();
        let members = members.map(|member| (member.host().clone(), &mut member.boot));
        let mut news = Vec::new();
        for (host, theirs) in members.chain(join) {
            if let Some(differences) = theirs.news(&self.boot) {
                news.push(Event::BootsOtherwise { host, differences });
            }
        }
        for event in news {
            self.report(event);
        }
    }

    /// Adds to the members' and the joiner's, in this order, where they differ.
    pub(super) fn describe_boots(&self, followers: &mut [FollowerStatus]) {
        let join = match &self.state {
            State::Running { join: Some(join) } => Some(join.boot()),
            _ => None,
        };
        let boots = self.members.iter().map(|member| &member.boot).chain(join);
        for (follower, theirs) in followers.iter_mut().zip(boots) {
            follower.boots_otherwise = boot_differences(&self.boot, &theirs.boot);
        }
    }
}
