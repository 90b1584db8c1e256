//! The arbiter as a replica's thread asks it, and everything that can go wrong on the way.

use super::shared::{ProcessId, Shared};
use crate::arbiter::Mood;
use arbiter::{Store, Trail};
use environment::thread::sleep;
use replication::succession::{Entry, Outcome, Request};
use std::sync::Arc;
use std::time::Duration;

/// A little less than a replica waits for an answer.
const NO_ANSWER: Duration = Duration::from_millis(1_800);

/// What the two arbiters are called.
pub const ARBITERS: [&str; 2] = ["first", "second"];

/// One process's way to one of the arbiters.
pub struct SimulatedStore {
    /// The world.
    pub shared: Arc<Shared>,
    /// Whose.
    pub process: ProcessId,
    /// Which, of [`ARBITERS`].
    pub which: usize,
}

impl SimulatedStore {
    /// A process's way to the arbiters, which begins at one of them and leads on to the other.
    pub fn trail(shared: &Arc<Shared>, process: ProcessId, which: usize) -> Trail {
        let shared = shared.clone();
        let of = move |which: usize| -> Box<dyn Store> {
            Box::new(SimulatedStore {
                shared: shared.clone(),
                process,
                which,
            })
        };
        let first = of(which);
        let open = move |address: &str| {
            let which = ARBITERS.iter().position(|name| *name == address);
            which
                .map(&of)
                .ok_or_else(|| "there is no such arbiter".to_owned())
        };
        Trail::new(first, Box::new(open))
    }

    fn carry_out(&self, request: &Request) -> Outcome {
        let mut state = self.shared.lock();
        let outcome = state.observer.arbiters[self.which].carry_out(request);
        if let (Request::Create { key, content, .. }, Outcome::Created) = (request, &outcome)
            && let Ok(entry) = Entry::parse(key, content)
        {
            state.key_is_at(self.process, self.which, entry);
        }
        outcome
    }
}

impl Store for SimulatedStore {
    fn name(&self) -> String {
        ARBITERS[self.which].into()
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        let (mood, delay_us) = {
            let mut state = self.shared.lock();
            let node = state.process(self.process).node;
            (
                state.observer.moods[node][self.which],
                state.random.between(200, 5_000),
            )
        };
        let unknown = |why: &str| Outcome::Unknown(why.to_owned());
        sleep(Duration::from_micros(delay_us));
        match mood {
            Mood::Well => self.carry_out(request),
            // What is read is not whole yet.
            Mood::Torn => match self.carry_out(request) {
                Outcome::Holds(mut content) if self.shared.lock().random.percent(50) => {
                    content.truncate(content.len() / 2);
                    Outcome::Holds(content)
                }
                outcome => outcome,
            },
            Mood::Slow => {
                sleep(Duration::from_micros(delay_us * 200));
                self.carry_out(request)
            }
            Mood::Unreachable => {
                sleep(NO_ANSWER);
                unknown("it cannot be reached")
            }
            Mood::AnswersLost => {
                let _lost = self.carry_out(request);
                sleep(NO_ANSWER);
                unknown("its answer was lost")
            }
            Mood::LandsLate => {
                sleep(NO_ANSWER * 2);
                self.carry_out(request)
            }
            Mood::ReadOnly => match request {
                Request::Create { .. } | Request::WriteBeacon { .. } => unknown("it is read-only"),
                Request::Read { .. } | Request::ReadBeacon { .. } | Request::Elsewhere { .. } => {
                    self.carry_out(request)
                }
            },
        }
    }
}
