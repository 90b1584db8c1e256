//! Says how far a long replay is.

use replica::journal::ReadMeter;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(2);

/// A line on standard error now and then, for as long as this lives.
pub struct Headway {
    meter: ReadMeter,
    what: Arc<Mutex<&'static str>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Headway {
    /// Nothing is read so far. A host without another thread tells nothing.
    pub fn start(what: &'static str) -> Headway {
        let meter = ReadMeter::default();
        let what = Arc::new(Mutex::new(what));
        let (stop, stopped) = mpsc::channel();
        let (of_thread, telling) = (meter.clone(), what.clone());
        let thread = std::thread::Builder::new()
            .name("headway".into())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
                    let what = *telling.lock().unwrap_or_else(PoisonError::into_inner);
                    // Whoever does not read it may want the rest all the same.
                    let _written = writeln!(std::io::stderr(), "understudy: {what}: {of_thread}");
                }
            });
        Headway {
            meter,
            what,
            stop: Some(stop),
            thread: thread.ok(),
        }
    }

    /// Counts what is read.
    pub fn meter(&self) -> &ReadMeter {
        &self.meter
    }

    /// Something else is done now, with so many bytes at most, or 0 where that is not known.
    pub fn goes_on(&self, what: &'static str, most_bytes: u64) {
        *self.what.lock().unwrap_or_else(PoisonError::into_inner) = what;
        self.meter.begin();
        self.meter.expect(most_bytes);
    }
}

impl Drop for Headway {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that has panicked said so.
            let _joined = thread.join();
        }
    }
}
