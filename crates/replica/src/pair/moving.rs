//! `understudy arbiter move`: the life goes on at another arbiter, because a person wants it to.

use super::primary::PrimaryLoop;
use crate::control::{Answer, ConversationId};
use crate::host_time::monotonic;
use crate::random;
use std::time::Duration;

/// How long whoever asked waits, at most: the core gives up before, unless it waits for the arbiter's verdict.
const PATIENCE: Duration = Duration::from_secs(25);

/// One that was asked for.
#[derive(Debug)]
pub(super) struct ArbiterMove {
    /// Who waits for an answer.
    id: ConversationId,
    to: String,
    /// On the monotonic clock.
    until: Duration,
}

impl PrimaryLoop {
    /// Somebody asked for it.
    pub(super) fn move_arbiter(&mut self, id: ConversationId, to: &str) {
        if self.arbiter_move.is_some() {
            let why = "it is being moved already";
            return self.host.answer(id, &Answer::Refused(why.into()));
        }
        let nonce = match random::number() {
            Ok(nonce) => nonce,
            Err(error) => return self.host.answer(id, &Answer::Refused(error.to_string())),
        };
        let (to, until) = (to.to_owned(), monotonic() + PATIENCE);
        self.arbiter_move = Some(ArbiterMove {
            id,
            to: to.clone(),
            until,
        });
        self.core.move_arbiter(monotonic(), to, nonce);
    }

    /// What came of it.
    pub(super) fn arbiter_moved(&mut self, result: Result<(), String>) {
        let asked = self.arbiter_move.take();
        let to = asked.as_ref().map_or("", |asked| &asked.to);
        let (event, answer) = match result {
            Ok(()) => {
                let done = format!(
                    "the life goes on at {to}: write `arbiter = {to:?}` (and what it takes) into the \
                     configuration of every host before the arbiter of before is switched off"
                );
                ("arbiter_moved", Answer::Done(done))
            }
            Err(why) => ("arbiter_not_moved", Answer::Refused(why)),
        };
        if let Answer::Done(text) | Answer::Refused(text) = &answer {
            let generation = self.core.status().generation.0;
            self.host
                .events
                .add(event, generation, self.count().0, text);
        }
        if let Some(asked) = asked {
            self.host.answer(asked.id, &answer);
        }
    }

    pub(super) fn arbiter_move_deadline(&self) -> Option<Duration> {
        self.arbiter_move.as_ref().map(|asked| asked.until)
    }

    pub(super) fn answer_arbiter_move_in_time(&mut self) {
        let is_late = |asked: &mut ArbiterMove| monotonic() >= asked.until;
        if let Some(asked) = self.arbiter_move.take_if(is_late) {
            let why = "the arbiter of now does not answer, and was asked already: the life moves as soon as it \
                       does; `understudy status` names the arbiter";
            self.host.answer(asked.id, &Answer::Refused(why.into()));
        }
    }

    /// The machine is no longer this replica's before it was known.
    pub(super) fn arbiter_move_is_not_known(&mut self) {
        if let Some(asked) = self.arbiter_move.take() {
            let why = "the machine ended here, or went to another host, before it was moved: ask again at the \
                       host where it is live";
            self.host.answer(asked.id, &Answer::Refused(why.into()));
        }
    }
}
