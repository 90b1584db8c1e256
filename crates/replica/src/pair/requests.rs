//! What a person asks for at the host of a backup: the live machine's replica does it, and whoever asked
//! waits for what it says.

use super::backup::BackupLoop;
use crate::control::{Answer, Button, ConversationId};
use crate::host_time::monotonic;
use replication::primary::Asked;
use replication::succession::{Entry, Kind};
use std::collections::BTreeMap;
use std::time::Duration;

/// A live machine that is asked to go over says what came of it before that: it asks the arbiter, and
/// gives the heir its time.
const SWITCHOVER_PATIENCE: Duration = Duration::from_secs(25);
/// A button is pressed at once, or refused.
const BUTTON_PATIENCE: Duration = Duration::from_secs(5);

/// Who asked a primary for something, and is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// Somebody at this host.
    Here(ConversationId),
    /// Somebody at a backup's.
    Backup(Asked),
}

/// What was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Button,
    SwitchOver,
}

/// Somebody who waits.
#[derive(Debug)]
struct PassedOn {
    id: ConversationId,
    what: What,
    /// On the monotonic clock.
    began: Duration,
    until: Duration,
}

/// Those who wait for what the live machine's replica says, by the numbers of their requests.
#[derive(Debug, Default)]
pub(super) struct PassedOnRequests {
    waiting: BTreeMap<u64, PassedOn>,
    last: u64,
}

impl PassedOnRequests {
    fn add(&mut self, id: ConversationId, what: What) -> u64 {
        let began = monotonic();
        let patience = match what {
            What::Button => BUTTON_PATIENCE,
            What::SwitchOver => SWITCHOVER_PATIENCE,
        };
        self.last += 1;
        let passed_on = PassedOn {
            id,
            what,
            began,
            until: began + patience,
        };
        self.waiting.insert(self.last, passed_on);
        self.last
    }

    /// When the first of them is not waited with any longer.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.waiting.values().map(|passed_on| passed_on.until).min()
    }
}

impl BackupLoop {
    /// Somebody pressed a button here: it is the live machine's.
    pub(super) fn press(&mut self, id: ConversationId, button: Button) {
        let request = self.requests.add(id, What::Button);
        if !self.core.press(monotonic(), button.into(), request) {
            self.nobody_to_ask(request);
        }
    }

    /// Somebody asks here, at the backup: it is the live machine's to do.
    pub(super) fn switch_over(&mut self, id: ConversationId, to: Option<&str>) {
        let own = &self.host.pair_config.greeting.host;
        if to.is_some_and(|to| to != own.node() && to != own.id.to_string()) {
            let why = format!(
                "this host, {}, follows the live machine: it can only ask for itself; ask at the live \
                 host for another",
                own.node()
            );
            return self.host.answer(id, &Answer::Refused(why));
        }
        if let Some(trouble) = self.ability.trouble() {
            let why = format!(
                "this host, {}, could not go on with the machine: {trouble}; make room, or mend it, or ask at the \
                 live host for another",
                own.node()
            );
            return self.host.answer(id, &Answer::Refused(why));
        }
        let request = self.requests.add(id, What::SwitchOver);
        if !self.core.switch_over(monotonic(), request) {
            self.nobody_to_ask(request);
        }
    }

    fn nobody_to_ask(&mut self, request: u64) {
        let why = "this replica has no connection to the live machine now, and cannot pass that on: ask on the \
                   host where it is live (`understudy status` says `primary` there), or again in a moment";
        self.answered(request, &Answer::Refused(why.into()));
    }

    /// The live machine's replica says what came of it.
    pub(super) fn answered(&mut self, request: u64, answer: &Answer) {
        // Somebody who is not waited with any longer was answered.
        if let Some(passed_on) = self.requests.waiting.remove(&request) {
            self.host.answer(passed_on.id, answer);
        }
    }

    /// Whoever has waited for long enough is told so.
    pub(super) fn answer_in_time(&mut self) {
        let now = monotonic();
        let waiting = self.requests.waiting.iter();
        let late = waiting.filter(|(_, passed_on)| now >= passed_on.until);
        let late: Vec<u64> = late.map(|(request, _)| *request).collect();
        let why = format!(
            "it was passed on, and the live machine's replica at {} has not said what came of it: \
             look at `understudy status`",
            self.peer
        );
        for request in late {
            self.answered(request, &Answer::Refused(why.clone()));
        }
    }

    /// The live machine is followed no more, or never will answer: whoever waits is told what is known.
    /// `opened`: the key by which the machine is live here from now on.
    pub(super) fn answer_all(&mut self, opened: Option<&Entry>) {
        for (_, passed_on) in std::mem::take(&mut self.requests.waiting) {
            let took = monotonic().saturating_sub(passed_on.began);
            let answer = match (passed_on.what, opened.map(|opened| opened.kind)) {
                (What::SwitchOver, Some(Kind::HandedOver)) => Answer::Done(format!(
                    "the machine went over to {}, this host, within {:.1} ms",
                    self.host.pair_config.greeting.host.node(),
                    took.as_secs_f64() * 1e3
                )),
                (What::SwitchOver, Some(_)) => Answer::Done(
                    "the machine is live here: its host was lost before it had handed it over"
                        .into(),
                ),
                (What::Button, _) | (What::SwitchOver, None) => Answer::Refused(
                    "the live machine's replica was lost before it said what came of it: look at \
                     `understudy status`, and ask again"
                        .into(),
                ),
            };
            self.host.answer(passed_on.id, &answer);
        }
    }
}
