//! Whether a host has what the machine needs. `docs/protocol.md`, "What a host has".

use super::join::Newcomer;
use super::{Primary, State};
use crate::capacity::{HostFacts, Needs, spare_patience};
use crate::event::Event;
use crate::lag::LagPolicy;
use crate::message::{Continuation, Refusal};
use crate::mutation::Mutation;
use crate::succession::HostId;
use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

/// Of so many hosts it is remembered what was told of them; there are never as many.
const MOST_REMEMBERED: usize = 64;

/// Hosts that were refused for what they lack, and come again and again: each is told about once.
#[derive(Debug, Default)]
pub(super) struct Unfit(BTreeMap<HostId, Discriminant<Refusal>>);

impl Unfit {
    /// Whether it is the first time in a row that this host is refused for this.
    pub fn is_news(&mut self, host: HostId, refusal: &Refusal) -> bool {
        let kind = discriminant(refusal);
        if self.0.get(&host) == Some(&kind) {
            return false;
        }
        if self.0.len() == MOST_REMEMBERED {
            self.0.pop_first();
        }
        self.0.insert(host, kind);
        assert!(self.0.len() <= MOST_REMEMBERED, "hosts that are remembered");
        true
    }

    /// It is taken.
    pub fn forget(&mut self, host: HostId) {
        self.0.remove(&host);
    }
}

impl<O> Primary<O> {
    /// What a host has to execute of the test program a second to keep up with what the machine did lately; 0:
    /// not known. To be called whenever that changes.
    pub fn needs_speed(&mut self, speed: u64) {
        self.speed_needed = speed;
    }

    /// What the machine needs of whoever follows it.
    pub(super) fn needs(&self) -> Needs {
        Needs {
            memory: self.config.machine_memory,
            speed: self.speed_needed,
        }
    }

    /// Whether the machine has room on that host.
    pub(super) fn check_memory(&self, newcomer: &Newcomer) -> Result<(), Refusal> {
        let shortfall = self.needs().lacks_memory(&newcomer.facts);
        // A machine that goes on from where it stands is in memory already.
        let has_it = self.continuation(newcomer.stands_at) == Continuation::Continues;
        let mutated = self.config.mutations.active(Mutation::TakesTheTooSmall);
        match shortfall {
            Some(shortfall) if !has_it && !mutated => Err(Refusal::NoRoom(shortfall)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether that host keeps up with what the machine did lately, or may lag.
    pub(super) fn check_speed(
        &self,
        newcomer: &Newcomer,
        others_protect: bool,
    ) -> Result<(), Refusal> {
        let may_lag = match self.config.lag.policy {
            LagPolicy::Slow => true,
            // Better a slow backup than none.
            LagPolicy::Drop => !others_protect,
            LagPolicy::DropAny => false,
        };
        match self.needs().lacks_speed(&newcomer.facts) {
            Some(shortfall) if !may_lag => Err(Refusal::TooSlow(shortfall)),
            Some(_) | None => Ok(()),
        }
    }

    /// How long members have to be lacking before this spare is taken.
    pub(super) fn spare_patience(&self, facts: &HostFacts) -> Duration {
        spare_patience(self.config.spare_after, &self.needs(), facts)
    }

    /// Says that who joins now is slow, if it is: before it is relied on.
    pub(super) fn tell_if_slow(&mut self) {
        let needs = self.needs();
        let State::Running { join: Some(join) } = &mut self.state else {
            return;
        };
        if let Some(shortfall) = needs.lacks_speed(join.facts())
            && join.is_told_slow_first()
        {
            let (pairing, host) = (join.pairing(), join.host().clone());
            self.report(Event::JoinerIsSlow {
                pairing,
                host,
                shortfall,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_comes_again_and_again_is_told_about_once_and_strangers_fill_nothing() {
        let mut unfit = Unfit::default();
        let (host, refusal) = (HostId(1), Refusal::NotNeeded);
        assert!(unfit.is_news(host, &refusal));
        assert!(!unfit.is_news(host, &refusal));
        assert!(unfit.is_news(host, &Refusal::Lagged), "for another reason");
        unfit.forget(host);
        assert!(unfit.is_news(host, &Refusal::Lagged));
        for id in 0..1000 {
            unfit.is_news(HostId(id), &refusal);
        }
        assert_eq!(unfit.0.len(), MOST_REMEMBERED);
    }
}
