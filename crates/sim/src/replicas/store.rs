//! The arbiter as a replica's thread asks it, and everything that can go wrong on the way.

use super::shared::{ProcessId, Shared};
use crate::arbiter::Mood;
use arbiter::Store;
use environment::thread::sleep;
use replication::succession::{Entry, Outcome, Request};
use std::sync::Arc;
use std::time::Duration;

/// A little less than a replica waits for an answer.
const NO_ANSWER: Duration = Duration::from_millis(1_800);

/// One process's way to the arbiter.
pub struct SimulatedStore {
    /// The world.
    pub shared: Arc<Shared>,
    /// Whose.
    pub process: ProcessId,
}

impl SimulatedStore {
    fn carry_out(&self, request: &Request) -> Outcome {
        let mut state = self.shared.lock();
        let outcome = state.observer.arbiter.carry_out(request);
        if let (
            Request::Create {
                key,
                after: _,
                content,
            },
            Outcome::Created,
        ) = (request, &outcome)
            && let Ok(entry) = Entry::parse(key, content)
        {
            state.key_created(self.process, entry);
        }
        outcome
    }
}

impl Store for SimulatedStore {
    fn name(&self) -> String {
        "simulated".into()
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        let (mood, delay_us) = {
            let mut state = self.shared.lock();
            let node = state.process(self.process).node;
            (state.observer.moods[node], state.random.between(200, 5_000))
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
                Request::Read { .. } | Request::ReadBeacon { .. } => self.carry_out(request),
            },
        }
    }
}
