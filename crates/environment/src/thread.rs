//! Threads: a drop-in for what is used of [`std::thread`].

use crate::clock::monotonic_ns;
use crate::mpsc::{Receiver, channel};
use crate::simulation::{Parked, current};
use std::io;
use std::time::Duration;

/// How a thread is started.
#[derive(Debug, Default)]
pub struct Builder {
    name: String,
}

impl Builder {
    /// Without a name yet.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// What it is called, for people.
    #[must_use]
    pub fn name(mut self, name: String) -> Builder {
        self.name = name;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn spawn(self, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        let Some(simulation) = current() else {
            let handle = std::thread::Builder::new().name(self.name).spawn(run)?;
            return Ok(JoinHandle(Handle::Host(handle)));
        };
        let (running, ended) = channel();
        simulation.spawn(
            &self.name,
            Box::new(move || {
                run();
                // Whoever joins has waited for this.
                drop(running);
            }),
        )?;
        Ok(JoinHandle(Handle::Simulated(ended)))
    }
}

/// To wait for a thread's end.
#[derive(Debug)]
pub struct JoinHandle<T>(Handle<T>);

#[derive(Debug)]
enum Handle<T> {
    Host(std::thread::JoinHandle<T>),
    /// Nothing is ever sent.
    Simulated(Receiver<T>),
}

impl JoinHandle<()> {
    /// Waits for its end.
    ///
    /// # Errors
    /// It panicked.
    pub fn join(self) -> std::thread::Result<()> {
        match self.0 {
            Handle::Host(handle) => handle.join(),
            Handle::Simulated(ended) => {
                let _ended = ended.recv();
                Ok(())
            }
        }
    }
}

/// Sleeps.
pub fn sleep(duration: Duration) {
    let Some(simulation) = current() else {
        return std::thread::sleep(duration);
    };
    let until_ns = monotonic_ns().saturating_add(duration.as_nanos() as u64);
    while monotonic_ns() < until_ns {
        if let Parked::Dying(_) = simulation.park(Some(until_ns)) {
            return;
        }
    }
}
