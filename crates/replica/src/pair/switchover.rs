//! `understudy switchover`: the machine goes over to its backup at an instruction, because a person wants
//! it to, and this replica follows it there.

use super::backup::BackupLoop;
use super::primary::PrimaryLoop;
use crate::control::{Answer, ConversationId};
use crate::host_time::monotonic;
use replication::succession::Entry;
use std::time::Duration;

/// One that was asked for.
#[derive(Debug)]
pub(super) struct Switchover {
    /// Who waits for an answer; nobody if it was asked for at the backup.
    asked: Option<ConversationId>,
    /// On the monotonic clock.
    began: Duration,
}

impl PrimaryLoop {
    /// Somebody asked for it: here, or at the backup.
    pub(super) fn switch_over(&mut self, asked: Option<ConversationId>, to: Option<&str>) {
        if let Err(answer) = self.may_switch_over(to) {
            if let Answer::Refused(why) = &answer {
                self.tell("switchover_refused", why);
            }
            if let Some(id) = asked {
                self.host.answer(id, &answer);
            }
            return;
        }
        let began = monotonic();
        self.switchover = Some(Switchover { asked, began });
        self.tell("switchover", "the machine is to go over to its backup");
        self.halt_to_switch_over();
    }

    /// Whether it can be done now; if not, what is to be answered.
    fn may_switch_over(&self, to: Option<&str>) -> Result<(), Answer> {
        let refused = |why: String| Err(Answer::Refused(why));
        let membership = self.core.opened().membership();
        if let Some(to) = to {
            let names = |host: &replication::succession::Host| {
                host.node() == to || host.id.to_string() == to
            };
            if names(&membership.primary) {
                return Err(Answer::Done(format!("the machine is live on {to} already")));
            }
            if !membership.members.iter().any(names) {
                let members = membership.members.iter().map(|member| member.node());
                let members: Vec<&str> = members.collect();
                return refused(match &members[..] {
                    [] => format!("{to} cannot take over: the machine has no backup now"),
                    members => format!(
                        "{to} is no backup of this machine now; {} could take over",
                        members.join(", ")
                    ),
                });
            }
        }
        if self.is_stopping() || self.disk_failed.is_some() {
            return refused("the machine is being handed over, or ends, already".into());
        }
        if !self.core.can_hand_over() {
            return refused(
                "no backup could take over now: ask again when `understudy status` says that the \
                 machine is protected and the arbiter answers"
                    .into(),
            );
        }
        Ok(())
    }

    /// Somebody else has left the generation.
    pub(super) fn switched_over(&mut self, by: &Entry) {
        let Some(switchover) = self.switchover.take() else {
            return;
        };
        let took = monotonic().saturating_sub(switchover.began);
        let node = by.membership().primary.node().to_owned();
        let done = format!(
            "the machine went over to {node} within {:.1} ms; this host follows it",
            took.as_secs_f64() * 1e3
        );
        self.tell("switched_over", &done);
        if let Some(id) = switchover.asked {
            self.host.answer(id, &Answer::Done(done));
        }
    }

    /// Nothing came of it, or it is not known what will.
    pub(super) fn not_switched_over(&mut self, why: &str) {
        let Some(switchover) = self.switchover.take() else {
            return;
        };
        self.tell("switchover_refused", why);
        if let Some(id) = switchover.asked {
            self.host.answer(id, &Answer::Refused(why.into()));
        }
    }

    fn tell(&mut self, event: &'static str, what: &str) {
        let generation = self.core.status().generation.0;
        self.host.events.add(event, generation, self.count(), what);
    }
}

impl BackupLoop {
    /// Somebody asks here, at the backup: it is the live machine's to do.
    pub(super) fn switch_over(&mut self, to: Option<&str>) -> Answer {
        let own = &self.host.pair_config.greeting.host;
        if to.is_some_and(|to| to != own.node() && to != own.id.to_string()) {
            return Answer::Refused(format!(
                "this host, {}, follows the live machine: it can only ask for itself; ask at the live \
                 host for another",
                own.node()
            ));
        }
        if self.core.switch_over(monotonic()) {
            return Answer::Done(format!(
                "passed on to the live machine at {}: `understudy status` says when it is here",
                self.peer
            ));
        }
        Answer::Refused(
            "this replica is not in touch with a live machine now: its host's may be".into(),
        )
    }
}
