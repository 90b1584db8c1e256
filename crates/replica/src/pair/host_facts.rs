//! What this host has for the machine: memory, cores, and how fast its engine is. Looked at on a thread of its
//! own.

use crate::host_memory;
use crate::machines::Machines;
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, TryRecvError};
use replication::capacity::HostFacts;
use std::sync::Arc;
use std::time::Duration;

/// Whoever joins waits so long for its own facts; what is not known then is not told.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at what this host has.
pub struct HostFactsDesk {
    machines: Arc<dyn Machines>,
    waker: Waker,
    /// Under way, and since when.
    looking: Option<(Receiver<HostFacts>, Duration)>,
    facts: HostFacts,
}

impl HostFactsDesk {
    /// Begins to measure.
    pub fn start(now: Duration, machines: Arc<dyn Machines>, waker: Waker) -> HostFactsDesk {
        let mut desk = HostFactsDesk {
            machines,
            waker,
            looking: None,
            facts: HostFacts::default(),
        };
        desk.look(now);
        desk
    }

    /// Looks again at what changes: how much memory there is. The speed is measured once.
    pub fn look(&mut self, now: Duration) {
        if self.looking.is_some() {
            return;
        }
        if environment::current().is_some() {
            // In a simulated world nothing of this host counts, and nothing takes time.
            self.facts.speed = self.machines.speed().unwrap_or(0);
            return;
        }
        let (sender, looked) = mpsc::channel();
        let (machines, waker) = (self.machines.clone(), self.waker.clone());
        let known = self.facts.speed;
        let thread = environment::thread::Builder::new().name("host-facts".into());
        let started = thread.spawn(move || {
            let speed = match known {
                0 => machines.speed().unwrap_or(0),
                known => known,
            };
            let facts = HostFacts {
                memory: host_memory::altogether(),
                cores: cores(),
                speed,
            };
            // The process may be about to end.
            let _sent = sender.send(facts);
            waker.wake();
        });
        // A host without a thread to give knows nothing new.
        self.looking = started.ok().map(|_| (looked, now));
    }

    /// Takes what was found. Whether nothing is awaited any more.
    pub fn is_done(&mut self, now: Duration) -> bool {
        let Some((looked, since)) = &self.looking else {
            return true;
        };
        match looked.try_recv() {
            Ok(facts) => self.facts = facts,
            Err(TryRecvError::Empty) if now < *since + PATIENCE => return false,
            // What comes later is of no use to whoever asked; a panic has ended the process.
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        self.looking = None;
        true
    }

    /// When [`HostFactsDesk::is_done`] gives up.
    pub fn deadline(&self) -> Option<Duration> {
        self.looking.as_ref().map(|(_, since)| *since + PATIENCE)
    }

    /// As found last.
    pub fn facts(&self) -> HostFacts {
        self.facts
    }
}

/// Cores that this process may use, by its affinity and its cgroup; 0: not known.
fn cores() -> u32 {
    let cores = std::thread::available_parallelism();
    cores.map_or(0, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}
