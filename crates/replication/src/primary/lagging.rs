//! Members that lag are let go. `docs/protocol.md`, "Lag".

use super::member::Member;
use super::{Primary, PrimaryAction, State};
use crate::event::Event;
use crate::lag::{LagPolicy, RunShare};
use crate::message::{Message, OF_PARTING, Parting};
use crate::mutation::Mutation;
use crate::succession::{Host, HostId};
use crate::watch::Agreement;
use std::collections::BTreeMap;
use std::time::Duration;

/// Whoever was let go is taken again after so many times the limit, and after twice as long each time
/// that it lags again.
const FIRST_WAIT: u32 = 6;
/// But after so long.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Of so many hosts it is remembered; there are never as many members.
const MOST_REMEMBERED: usize = 64;

/// When hosts that were let go are taken again.
#[derive(Debug, Default)]
pub(super) struct Laggards(BTreeMap<HostId, KeptOut>);

#[derive(Clone, Copy, Debug)]
struct KeptOut {
    until: Duration,
    wait: Duration,
    /// It came back too early, and that was told.
    told: bool,
}

impl Laggards {
    /// It is let go now.
    fn add(&mut self, now: Duration, host: HostId, limit: Duration) {
        let first = (limit * FIRST_WAIT).min(LONGEST_WAIT);
        let before = self.0.get(&host);
        let wait = before.map_or(first, |before| (before.wait * 2).min(LONGEST_WAIT));
        let until = now + wait;
        let told = false;
        self.0.insert(host, KeptOut { until, wait, told });
        if self.0.len() > MOST_REMEMBERED
            && let Some(oldest) = self.0.iter().min_by_key(|(_, kept)| kept.until)
        {
            let oldest = *oldest.0;
            self.0.remove(&oldest);
        }
    }

    /// Whether it comes too early.
    pub fn is_kept_out(&self, now: Duration, host: HostId) -> bool {
        self.0.get(&host).is_some_and(|kept| now < kept.until)
    }

    /// Whether it is the first time that it comes too early.
    pub fn is_news(&mut self, host: HostId) -> bool {
        let kept = self.0.get_mut(&host);
        kept.is_none_or(|kept| !std::mem::replace(&mut kept.told, true))
    }
}

impl<O> Primary<O> {
    /// Counts what the primary loses for whom, since this was called last.
    pub(super) fn charge(&mut self, now: Duration, share: RunShare) {
        let (config, mutations) = (&self.config.lag, &self.config.mutations);
        for member in &mut self.members {
            // Outputs wait for all: what waits is nobody's in particular.
            let own = member.pressure(now, config, 0, mutations);
            member.arrears_mut().pass(now, share, own);
        }
    }

    /// Asks the arbiter to drop the member that lags most, if it lags for longer than it may and
    /// somebody else protects the machine. Until the key is there it is a member like any other: outputs
    /// wait for it, and no others wait because of that.
    pub(super) fn let_laggard_go(&mut self, now: Duration) {
        let limit = self.config.lag.limit;
        let is_free = matches!(self.state, State::Running { .. })
            && self.leaving.is_none()
            && self.lost.is_empty()
            && !self.finishing
            && !self.stands_still
            && !self.is_disputed()
            && !self.disk_failed;
        // While the arbiter is out of reach nothing else could be asked of it either.
        let is_there = !matches!(self.agreement, Agreement::Unreachable | Agreement::Differs);
        let may_be_last = match self.config.lag.policy {
            LagPolicy::Slow => return,
            LagPolicy::Drop => self.config.mutations.active(Mutation::LastMemberLetGo),
            LagPolicy::DropAny => true,
        };
        if !is_free || !is_there {
            return;
        }
        let members = self.members.iter().enumerate();
        let late = members.filter(|(_, member)| member.arrears() > limit);
        let Some((index, _)) = late.max_by_key(|(_, member)| member.arrears()) else {
            return;
        };
        let mut others = self.members.iter().enumerate();
        let is_last = !others.any(|(other, member)| other != index && member.protects());
        if is_last && !may_be_last {
            return;
        }
        let member = &mut self.members[index];
        member.is_let_go = true;
        let (pairing, host, arrears) = (member.pairing(), member.host().clone(), member.arrears());
        self.laggards.add(now, host.id, limit);
        self.report(Event::LetsGo {
            pairing,
            host,
            arrears,
        });
        if self.config.mutations.active(Mutation::LetGoBeforeTheKey) {
            self.part_from(|member| member.is_let_go);
        }
    }

    /// The key is there that drops those who are let go.
    pub(super) fn part_from_let_go(&mut self) {
        let next = self.opened.membership().clone();
        let is_dropped = |host: &Host| !next.has_member(host.id);
        self.part_from(|member| member.is_let_go && is_dropped(member.host()));
    }

    fn part_from(&mut self, is_dropped: impl Fn(&Member) -> bool) {
        let members = std::mem::take(&mut self.members);
        let (dropped, left): (Vec<Member>, Vec<Member>) = members.into_iter().partition(is_dropped);
        self.members = left;
        for member in dropped {
            let (connection, pairing) = (member.connection(), member.pairing());
            if let Some(text) = self.lets_go_for.clone() {
                let (request, done) = (OF_PARTING, false);
                let why = Message::Answer {
                    pairing,
                    request,
                    done,
                    text,
                };
                self.send(connection, why);
            }
            let parting = Parting::LetGo;
            self.send(connection, Message::Goodbye { pairing, parting });
            self.actions.push_back(PrimaryAction::Close(connection));
        }
    }
}
