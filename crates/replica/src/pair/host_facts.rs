//! What this host has for the machine (memory, cores, and how fast its engine is), and what the machine would be booted
//! from here. Looked at on threads of their own.

use crate::host_memory;
use crate::machines::Machines;
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, TryRecvError};
use replication::capacity::HostFacts;
use replication::configuration::Configuration;
use std::sync::Arc;
use std::time::Duration;

/// Whoever joins waits so long for its own facts; what is not known then is not told.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the machine would be booted from is read anew when it was read so long ago.
const BOOT_INTERVAL: Duration = Duration::from_secs(60);

/// Looks at what this host has.
pub struct HostFactsDesk {
    machines: Arc<dyn Machines>,
    waker: Waker,
    /// Under way, and since when.
    looking: Option<(Receiver<HostFacts>, Duration)>,
    facts: HostFacts,
    /// The files are being read: however slow their disk is, nothing else is told later for it.
    reading: Option<Receiver<Configuration>>,
    /// When that was begun last, and whether anybody still waits for it.
    reading_since: Option<Duration>,
    boot_is_awaited: bool,
    boot: Configuration,
}

impl HostFactsDesk {
    /// Begins to measure.
    pub fn start(now: Duration, machines: Arc<dyn Machines>, waker: Waker) -> HostFactsDesk {
        let mut desk = HostFactsDesk {
            machines,
            waker,
            looking: None,
            facts: HostFacts::default(),
            reading: None,
            reading_since: None,
            boot_is_awaited: false,
            boot: Configuration::default(),
        };
        desk.look(now);
        desk
    }

    /// Looks again at what changes: how much memory there is, and now and then what the machine would be booted from. The
    /// speed is measured once.
    pub fn look(&mut self, now: Duration) {
        self.look_at_boot(now);
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

    /// Reads what the machine would be booted from, if it was not read of late.
    pub fn look_at_boot(&mut self, now: Duration) {
        let is_fresh = |since: Duration| now < since + BOOT_INTERVAL;
        let is_simulated = environment::current().is_some();
        if is_simulated || self.reading.is_some() || self.reading_since.is_some_and(is_fresh) {
            return;
        }
        let (sender, read) = mpsc::channel();
        let (machines, waker) = (self.machines.clone(), self.waker.clone());
        let thread = environment::thread::Builder::new().name("boot-files".into());
        let started = thread.spawn(move || {
            // The process may be about to end.
            let _sent = sender.send(machines.boot());
            waker.wake();
        });
        self.reading = started.ok().map(|_| read);
        self.reading_since = Some(now);
        self.boot_is_awaited = self.reading.is_some();
    }

    /// Takes what was read. Whether it is not awaited any more.
    fn boot_is_read(&mut self, now: Duration) -> bool {
        match self.reading.as_ref().map(Receiver::try_recv) {
            Some(Ok(boot)) => {
                self.boot = boot;
                self.reading = None;
            }
            Some(Err(TryRecvError::Empty)) => {
                let since = self.reading_since;
                self.boot_is_awaited &= since.is_some_and(|since| now < since + PATIENCE);
                return !self.boot_is_awaited;
            }
            Some(Err(TryRecvError::Disconnected)) | None => self.reading = None,
        }
        self.boot_is_awaited = false;
        true
    }

    /// Takes what was found. Whether nothing is awaited any more.
    pub fn is_done(&mut self, now: Duration) -> bool {
        let boot_is_read = self.boot_is_read(now);
        let Some((looked, since)) = &self.looking else {
            return boot_is_read;
        };
        match looked.try_recv() {
            Ok(facts) => self.facts = facts,
            Err(TryRecvError::Empty) if now < *since + PATIENCE => return false,
            // What comes later is of no use to whoever asked; a panic has ended the process.
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        self.looking = None;
        boot_is_read
    }

    /// When [`HostFactsDesk::is_done`] gives up.
    pub fn deadline(&self) -> Option<Duration> {
        let reading = self.reading_since.filter(|_| self.boot_is_awaited);
        let looking = self.looking.as_ref().map(|(_, since)| *since);
        let given_up = [looking, reading].into_iter().flatten().min();
        given_up.map(|since| since + PATIENCE)
    }

    /// What the machine would be booted from here, as read last; empty: not yet.
    pub fn boot(&self) -> &Configuration {
        &self.boot
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
