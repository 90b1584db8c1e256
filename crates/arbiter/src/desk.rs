//! Asks the arbiter for the core, on a thread: a store that hangs (NFS without its server) must not
//! stop heartbeats, acknowledgements or the status. One answer for each question, `Unknown` when it
//! takes too long.

use crate::Store;
use environment::mpsc::{self, Receiver, Sender};
use replication::succession::{Outcome, Request};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

struct Pending {
    request: Request,
    /// The store was given it.
    is_asked: bool,
    until: Duration,
}

/// What the thread says.
struct Answered {
    request: Request,
    outcome: Outcome,
    /// What people call the store, if that has changed.
    name: Option<String>,
}

/// The arbiter's thread and the questions that are under way. The thread ends when this is dropped, as
/// soon as the store answers.
pub struct ArbiterDesk {
    /// What people call the store.
    name: String,
    requests: Sender<Request>,
    answers: Receiver<Answered>,
    /// In the order in which they were asked, but those about keys before those about beacons.
    pending: VecDeque<Pending>,
    /// The store has not answered its last question, which may be one that was given up.
    is_busy: bool,
}

impl ArbiterDesk {
    /// Starts the thread; `wake` is called there when there is an answer to be taken.
    pub fn start(
        mut store: Box<dyn Store>,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<ArbiterDesk> {
        let name = store.name();
        let (requests, asked) = mpsc::channel::<Request>();
        let (sender, answers) = mpsc::channel();
        environment::thread::Builder::new()
            .name("arbiter".into())
            .spawn(move || {
                let mut told = store.name();
                for request in asked.iter() {
                    let outcome = store.answer(&request);
                    let name = Some(store.name()).filter(|name| *name != told);
                    told = name.clone().unwrap_or(told);
                    let answered = Answered {
                        request,
                        outcome,
                        name,
                    };
                    // A replica that has ended wants no answer.
                    let _sent = sender.send(answered);
                    wake();
                }
            })?;
        Ok(ArbiterDesk {
            name,
            requests,
            answers,
            pending: VecDeque::new(),
            is_busy: false,
        })
    }

    /// What people call the store.
    pub fn store_name(&self) -> &str {
        &self.name
    }

    /// Asks. `now` is monotonic.
    pub fn ask(&mut self, now: Duration, request: Request) {
        let is_beacon = |request: &Request| {
            matches!(
                request,
                Request::WriteBeacon { .. } | Request::ReadBeacon { .. }
            )
        };
        let place = if is_beacon(&request) {
            self.pending.len()
        } else {
            let before = |pending: &&Pending| pending.is_asked || !is_beacon(&pending.request);
            self.pending.iter().take_while(before).count()
        };
        let pending = Pending {
            request,
            is_asked: false,
            until: now + ANSWER_TIMEOUT,
        };
        self.pending.insert(place, pending);
        self.give();
    }

    /// Forgets all questions: whoever asked them is gone.
    pub fn forget(&mut self) {
        self.pending.clear();
    }

    /// Gives the next question to the store if it has no other: a store that hangs is given no more
    /// questions, which it would only answer too late.
    fn give(&mut self) {
        let next = self.pending.iter_mut().find(|pending| !pending.is_asked);
        if let Some(pending) = next
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
        self.pending.iter().map(|pending| pending.until).min()
    }

    /// An answer, and the question to which it is one.
    pub fn answer(&mut self, now: Duration) -> Option<(Request, Outcome)> {
        while let Ok(answered) = self.answers.try_recv() {
            let Answered {
                request,
                outcome,
                name,
            } = answered;
            if let Some(name) = name {
                self.name = name;
            }
            assert!(self.is_busy, "an answer to no question");
            self.is_busy = false;
            let is_answered = |pending: &Pending| pending.is_asked && pending.request == request;
            let place = self.pending.iter().position(is_answered);
            let answered = place.and_then(|place| self.pending.remove(place));
            self.give();
            if answered.is_some() {
                return Some((request, outcome));
            }
        }
        let late = self
            .pending
            .iter()
            .position(|pending| pending.until <= now)?;
        let pending = self.pending.remove(late)?;
        let why = format!("no answer within {} ms", ANSWER_TIMEOUT.as_millis());
        Some((pending.request, Outcome::Unknown(why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectoryStore;
    use replication::succession::{BeaconName, Generation, HostId, Key, LifeNumber, MachineName};

    fn key(generation: u64) -> Key {
        Key {
            machine: MachineName::new("vm").unwrap(),
            life: LifeNumber(7),
            generation: Generation(generation),
        }
    }

    fn create(generation: u64, content: &[u8]) -> Request {
        Request::Create {
            key: key(generation),
            after: None,
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
            (create(1, b"me"), Outcome::Created),
            (create(1, b"you"), Outcome::NotCreated),
            (
                Request::Read { key: key(1) },
                Outcome::Holds(b"me".to_vec()),
            ),
            (Request::Read { key: key(2) }, Outcome::Absent),
        ];
        for (request, outcome) in questions {
            desk.ask(NOW, request.clone());
            woken.recv().unwrap();
            assert_eq!(desk.answer(NOW), Some((request, outcome)));
            assert_eq!(desk.answer(NOW), None);
            assert_eq!(desk.deadline(), None);
        }
    }

    /// Answers when the test says so.
    struct SlowStore(Receiver<Outcome>);

    impl Store for SlowStore {
        fn name(&self) -> String {
            "slow".into()
        }

        fn answer(&mut self, _: &Request) -> Outcome {
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
        assert!(matches!(given_up.1, Outcome::Unknown(_)), "{given_up:?}");
        assert_eq!(given_up.0, create(1, b"me"));
        desk.ask(late, create(2, b"me"));
        answer.send(Outcome::Created).unwrap();
        woken.recv().unwrap();
        assert_eq!(desk.answer(late), None, "that was generation 1");
        // The store is free again: it is given the question that waited.
        answer.send(Outcome::NotCreated).unwrap();
        woken.recv().unwrap();
        let answered = desk.answer(late);
        assert_eq!(answered, Some((create(2, b"me"), Outcome::NotCreated)));
    }

    #[test]
    fn a_claim_does_not_wait_behind_a_beacon() {
        let (answer, answers) = mpsc::channel();
        let (mut desk, woken) = desk(SlowStore(answers));
        let beacon = |host| Request::ReadBeacon {
            beacon: BeaconName {
                machine: MachineName::new("vm").unwrap(),
                host: HostId(host),
            },
        };
        for request in [beacon(1), beacon(2), create(1, b"me")] {
            desk.ask(NOW, request);
        }
        let mut order = Vec::new();
        for _ in 0..3 {
            answer.send(Outcome::Absent).unwrap();
            woken.recv().unwrap();
            order.push(desk.answer(NOW).unwrap().0);
        }
        assert_eq!(order, [beacon(1), create(1, b"me"), beacon(2)]);
    }
}
