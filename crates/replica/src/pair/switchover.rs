//! `understudy switchover`: the machine goes over to its backup at an instruction, because a person wants
//! it to, and this replica follows it there.

use super::primary::PrimaryLoop;
use super::requests::Asker;
use crate::control::Answer;
use crate::host_time::monotonic;
use replication::succession::{Entry, Host};
use std::time::Duration;

/// One that was asked for.
#[derive(Debug)]
pub(super) struct Switchover {
    /// Who waits for an answer.
    asker: Asker,
    /// The host that was named.
    to: Option<Host>,
    /// On the monotonic clock.
    began: Duration,
    /// When the machine was made to stand still, and how far its heir was behind then.
    stood_still: Option<(Duration, Duration)>,
}

impl Switchover {
    /// The machine is made to stand still, with an heir that is so far behind.
    pub(super) fn stands_still(&mut self, lag: Duration) {
        self.stood_still = Some((monotonic(), lag));
    }

    /// How long it took, as far as this host saw it.
    fn describe(&self) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let now = monotonic();
        let took = milliseconds(now.saturating_sub(self.began));
        match self.stood_still {
            None => format!("within {took:.1} ms"),
            Some((at, lag)) => format!(
                "within {took:.1} ms, for {:.1} of which it stood still here; {:.1} ms of its work were left \
                 to execute before it was live there",
                milliseconds(now.saturating_sub(at)),
                milliseconds(lag)
            ),
        }
    }
}

impl PrimaryLoop {
    /// Somebody asked for it: here, or at the backup.
    pub(super) fn switch_over(&mut self, asker: Asker, to: Option<&str>) {
        let to = match self.may_switch_over(to) {
            Ok(to) => to,
            Err(answer) => {
                if let Answer::Refused(why) = &answer {
                    self.tell("switchover_refused", why);
                }
                return self.reply(asker, &answer);
            }
        };
        let began = monotonic();
        self.switchover = Some(Switchover {
            asker,
            to,
            began,
            stood_still: None,
        });
        self.tell("switchover", "the machine is to go over to its backup");
        self.begin_to_switch_over();
    }

    /// Whether it can be done now, and to which host if one was named; if not, what is to be answered.
    fn may_switch_over(&mut self, to: Option<&str>) -> Result<Option<Host>, Answer> {
        let refused = |why: String| Err(Answer::Refused(why));
        let membership = self.core.opened().membership();
        let mut named = None;
        if let Some(to) = to {
            let names = |host: &Host| host.node() == to || host.id.to_string() == to;
            if names(&membership.primary) {
                return Err(Answer::Done(format!("the machine is live on {to} already")));
            }
            named = membership.members.iter().find(|host| names(host)).cloned();
            if named.is_none() {
                let members = membership.members.iter().map(|member| member.node());
                let members: Vec<&str> = members.collect();
                return refused(match &members[..] {
                    [] => format!("{to:?} cannot take over: the machine has no backup now"),
                    members => format!(
                        "{to:?} is no backup of this machine now; {} could take over",
                        members.join(", ")
                    ),
                });
            }
        }
        if self.is_stopping() || self.disk_failed.is_some() || self.outvoted {
            return refused("the machine is being handed over, or ends, already".into());
        }
        if !self.core.has_heir() {
            let why = self.core.obstacle_to_handing_over().unwrap_or_default();
            return refused(why);
        }
        if let Some(host) = &named
            && let Err(why) = self.core.prefer_heir(host.id)
        {
            return refused(format!("{}: {why}", host.node()));
        }
        if let Some(why) = self.core.why_no_heir_could_go_on() {
            return refused(why);
        }
        Ok(named)
    }

    /// Somebody else has left the generation.
    pub(super) fn switched_over(&mut self, by: &Entry) {
        let Some(switchover) = self.switchover.take() else {
            return;
        };
        let took = switchover.describe();
        let heir = &by.membership().primary;
        let node = heir.node().to_owned();
        let wanted = switchover.to.filter(|to| to.id != heir.id);
        let done = format!("the machine went over to {node} {took}; this host follows it");
        self.tell("switched_over", &done);
        let answer = match wanted {
            Some(wanted) => Answer::Refused(format!(
                "{} could not take it over any more: {done}",
                wanted.node()
            )),
            None => Answer::Done(done),
        };
        self.reply(switchover.asker, &answer);
    }

    /// Nothing came of it, or it is not known what will.
    pub(super) fn not_switched_over(&mut self, why: &str) {
        let Some(switchover) = self.switchover.take() else {
            return;
        };
        self.tell("switchover_refused", why);
        self.reply(switchover.asker, &Answer::Refused(why.into()));
    }

    fn tell(&mut self, event: &'static str, what: &str) {
        let generation = self.core.status().generation.0;
        self.host
            .events
            .add(event, generation, self.count().0, what);
    }
}
