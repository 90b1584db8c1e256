//! Asks the arbiter for the core: one answer for each question, `Unknown` when it takes too long.

use crate::arbiter::{Answer, ArbiterThread, Created, DirectoryStore, Found, Question};
use crate::wake::Waker;
use replication::generation::{ClaimKey, ClaimOutcome, ClaimRequest};
use std::io;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

struct Pending {
    key: String,
    generation: u64,
    is_create: bool,
    until: Duration,
}

/// The arbiter's thread and the question that is under way.
pub struct ArbiterDesk {
    thread: ArbiterThread,
    answers: Receiver<Answer>,
    pending: Option<Pending>,
    /// Questions that the thread has not answered, given up ones included.
    unanswered: u32,
}

impl ArbiterDesk {
    /// Starts the thread.
    pub fn start(store: DirectoryStore, waker: Waker) -> io::Result<ArbiterDesk> {
        let (sender, answers) = mpsc::channel();
        let thread = ArbiterThread::start(Box::new(store), move |answer| {
            // A replica that has ended wants no answer.
            let _sent = sender.send(answer);
            waker.wake();
        })?;
        Ok(ArbiterDesk {
            thread,
            answers,
            pending: None,
            unanswered: 0,
        })
    }

    /// Asks. The core asks one question at a time.
    pub fn ask(&mut self, now: Duration, request: &ClaimRequest) {
        let (key, question, is_create) = match request {
            ClaimRequest::Create { key, content } => (
                key,
                Question::Create {
                    key: file_name(key),
                    content: content.clone(),
                },
                true,
            ),
            ClaimRequest::ReadBack { key } => (
                key,
                Question::Read {
                    key: file_name(key),
                },
                false,
            ),
        };
        let pending = Pending {
            key: file_name(key),
            generation: key.generation,
            is_create,
            until: now + ANSWER_TIMEOUT,
        };
        self.pending = Some(pending);
        // A store that hangs is given no more questions: they would only be asked too late.
        if self.unanswered == 0 {
            self.unanswered += 1;
            self.thread.ask(question);
        }
    }

    /// When [`ArbiterDesk::answer`] has something without being woken.
    pub fn deadline(&self) -> Option<Duration> {
        self.pending.as_ref().map(|pending| pending.until)
    }

    /// The answer to the question that is under way, if there is one.
    pub fn answer(&mut self, now: Duration) -> Option<(u64, ClaimOutcome)> {
        while let Ok(answer) = self.answers.try_recv() {
            self.unanswered = self.unanswered.saturating_sub(1);
            if let Some(answered) = self.match_answer(answer) {
                self.pending = None;
                return Some(answered);
            }
        }
        let pending = self.pending.take_if(|pending| pending.until <= now)?;
        let why = format!("no answer within {} ms", ANSWER_TIMEOUT.as_millis());
        Some((pending.generation, ClaimOutcome::Unknown(why)))
    }

    /// What an answer means if it belongs to the question under way.
    fn match_answer(&self, answer: Answer) -> Option<(u64, ClaimOutcome)> {
        let pending = self.pending.as_ref()?;
        let outcome = match answer {
            Answer::Create { key, created } if pending.is_create && key == pending.key => {
                match created {
                    Created::Now => ClaimOutcome::Created,
                    Created::Exists => ClaimOutcome::NotCreated,
                    Created::Unknown(trouble) => ClaimOutcome::Unknown(trouble.0),
                }
            }
            Answer::Read { key, found } if !pending.is_create && key == pending.key => {
                match found {
                    Found::Content(content) => ClaimOutcome::HeldBy(content),
                    Found::Absent => ClaimOutcome::Absent,
                    Found::Unknown(trouble) => ClaimOutcome::Unknown(trouble.0),
                }
            }
            Answer::Create { .. } | Answer::Read { .. } => return None,
        };
        Some((pending.generation, outcome))
    }
}

fn file_name(key: &ClaimKey) -> String {
    format!("{}-{}-{}", key.vm, key.life, key.generation)
}
