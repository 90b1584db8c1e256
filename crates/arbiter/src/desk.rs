//! Asks the arbiter for the core, on a thread: a store that hangs (NFS without its server) must not
//! stop heartbeats, acknowledgements or the status. One answer for each question, `Unknown` when it
//! takes too long.

use crate::Store;
use replication::generation::{ClaimOutcome, ClaimRequest};
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

struct Pending {
    request: ClaimRequest,
    /// The store was given it.
    is_asked: bool,
    until: Duration,
}

/// The arbiter's thread and the question that is under way. The thread ends when this is dropped, as
/// soon as the store answers.
pub struct ArbiterDesk {
    requests: Sender<ClaimRequest>,
    answers: Receiver<(ClaimRequest, ClaimOutcome)>,
    pending: Option<Pending>,
    /// The store has not answered its last question, which may be one that was given up.
    is_busy: bool,
}

impl ArbiterDesk {
    /// Starts the thread; `wake` is called there when there is an answer to be taken.
    pub fn start(
        mut store: Box<dyn Store>,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<ArbiterDesk> {
        let (requests, asked) = mpsc::channel::<ClaimRequest>();
        let (sender, answers) = mpsc::channel();
        std::thread::Builder::new()
            .name("arbiter".into())
            .spawn(move || {
                for request in asked {
                    let outcome = store.answer(&request);
                    // A replica that has ended wants no answer.
                    let _sent = sender.send((request, outcome));
                    wake();
                }
            })?;
        Ok(ArbiterDesk {
            requests,
            answers,
            pending: None,
            is_busy: false,
        })
    }

    /// Asks. The core asks one question at a time: a new one takes the place of the last. `now` is
    /// monotonic.
    pub fn ask(&mut self, now: Duration, request: ClaimRequest) {
        self.pending = Some(Pending {
            request,
            is_asked: false,
            until: now + ANSWER_TIMEOUT,
        });
        self.give();
    }

    /// Gives the question to the store if it has no other: a store that hangs is given no more
    /// questions, which it would only answer too late.
    fn give(&mut self) {
        if let Some(pending) = &mut self.pending
            && !pending.is_asked
            && !self.is_busy
        {
            pending.is_asked = true;
            self.is_busy = true;
            // The thread ends only with this object.
            let _sent = self.requests.send(pending.request.clone());
        }
    }

    /// When [`ArbiterDesk::answer`] has something without being woken.
    pub fn deadline(&self) -> Option<Duration> {
        self.pending.as_ref().map(|pending| pending.until)
    }

    /// The generation of the question that is under way and the answer to it, if there is one.
    pub fn answer(&mut self, now: Duration) -> Option<(u64, ClaimOutcome)> {
        while let Ok((request, outcome)) = self.answers.try_recv() {
            assert!(self.is_busy, "an answer to no question");
            self.is_busy = false;
            let is_answer = |pending: &mut Pending| pending.is_asked && pending.request == request;
            if self.pending.take_if(is_answer).is_some() {
                return Some((generation(&request), outcome));
            }
            self.give();
        }
        let pending = self.pending.take_if(|pending| pending.until <= now)?;
        let why = format!("no answer within {} ms", ANSWER_TIMEOUT.as_millis());
        Some((generation(&pending.request), ClaimOutcome::Unknown(why)))
    }
}

fn generation(request: &ClaimRequest) -> u64 {
    let (ClaimRequest::Create { key, .. } | ClaimRequest::ReadBack { key }) = request;
    key.generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectoryStore;
    use replication::generation::ClaimKey;
    use replication::message::LifeId;

    fn key(generation: u64) -> ClaimKey {
        ClaimKey {
            vm: "vm".into(),
            life: LifeId(7),
            generation,
        }
    }

    fn create(generation: u64, content: &[u8]) -> ClaimRequest {
        ClaimRequest::Create {
            key: key(generation),
            content: content.to_vec(),
        }
    }

    /// A desk, and what tells that an answer has come.
    fn desk(store: impl Store + 'static) -> (ArbiterDesk, Receiver<()>) {
        let (wake, woken) = mpsc::channel();
        let desk = ArbiterDesk::start(Box::new(store), move || wake.send(()).unwrap()).unwrap();
        (desk, woken)
    }

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn each_question_has_its_answer() {
        let directory = tempfile::tempdir().unwrap();
        let (mut desk, woken) = desk(DirectoryStore::open(directory.path()).unwrap());
        let questions = [
            (create(1, b"me"), ClaimOutcome::Created),
            (create(1, b"you"), ClaimOutcome::NotCreated),
            (
                ClaimRequest::ReadBack { key: key(1) },
                ClaimOutcome::HeldBy(b"me".to_vec()),
            ),
            (ClaimRequest::ReadBack { key: key(2) }, ClaimOutcome::Absent),
        ];
        for (request, outcome) in questions {
            let generation = generation(&request);
            desk.ask(NOW, request);
            woken.recv().unwrap();
            assert_eq!(desk.answer(NOW), Some((generation, outcome)));
            assert_eq!(desk.answer(NOW), None);
            assert_eq!(desk.deadline(), None);
        }
    }

    /// Answers when the test says so.
    struct SlowStore(Receiver<ClaimOutcome>);

    impl Store for SlowStore {
        fn answer(&mut self, _: &ClaimRequest) -> ClaimOutcome {
            self.0.recv().unwrap()
        }
    }

    #[test]
    fn a_late_answer_is_not_taken_for_that_to_the_next_question() {
        let (answer, answers) = mpsc::channel();
        let (mut desk, woken) = desk(SlowStore(answers));
        desk.ask(NOW, create(1, b"me"));
        assert_eq!(desk.answer(NOW), None);
        let late = desk.deadline().unwrap();
        let given_up = desk.answer(late).unwrap();
        assert!(
            matches!(given_up, (1, ClaimOutcome::Unknown(_))),
            "{given_up:?}"
        );
        desk.ask(late, create(2, b"me"));
        answer.send(ClaimOutcome::Created).unwrap();
        woken.recv().unwrap();
        assert_eq!(desk.answer(late), None, "that was generation 1");
        // The store is free again: it is given the question that waited.
        answer.send(ClaimOutcome::NotCreated).unwrap();
        woken.recv().unwrap();
        assert_eq!(desk.answer(late), Some((2, ClaimOutcome::NotCreated)));
    }
}
