//! The world that stands for a host.

use crate::frames::FramePort;
use crate::fs::{Opening, StoredFile};
use crate::net::{Listener, Socket};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A thread of a simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThreadId(pub u64);

/// How waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// Something may have happened, or the time is up: look.
    Look,
    /// The process is being killed and this thread is on its way out already: nothing comes any more.
    Dying(Dying),
}

/// This thread's process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dying;

/// With this a killed process's threads unwind (see [`std::panic::resume_unwind`]): it is no panic, and
/// whoever catches panics has to let it go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

/// What one simulated process has of its host. All methods but [`Simulation::unpark`] are called on
/// the world's own threads.
pub trait Simulation: Send + Sync {
    /// Nanoseconds of the host's monotonic clock.
    fn monotonic_ns(&self) -> u64;

    /// Nanoseconds since 1970 by the host's calendar.
    fn unix_ns(&self) -> u64;

    /// Fills with random numbers.
    ///
    /// # Errors
    /// The host has none.
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// Whether that would not have to wait for them.
    ///
    /// # Errors
    /// As [`Simulation::fill_random`].
    fn random_is_ready(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Starts a thread of the same process.
    ///
    /// # Errors
    /// The process is being killed.
    fn spawn(&self, name: &str, run: Box<dyn FnOnce() + Send>) -> io::Result<()>;

    /// The calling thread.
    fn this_thread(&self) -> ThreadId;

    /// Gives control to the world, until the thread is unparked or the monotonic clock says
    /// `until_ns`. It may return for no reason. In a process that is killed it unwinds with [`Ended`],
    /// or says [`Parked::Dying`] if the thread unwinds already.
    fn park(&self, until_ns: Option<u64>) -> Parked;

    /// Has a thread return from [`Simulation::park`], or not wait the next time.
    fn unpark(&self, thread: ThreadId);

    /// Listens at the first of these addresses.
    ///
    /// # Errors
    /// Somebody does already.
    fn bind(&self, addresses: &[SocketAddr]) -> io::Result<Box<dyn Listener>>;

    /// Connects; waits for at most `timeout`.
    ///
    /// # Errors
    /// Nobody listens there, or does not answer in time.
    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<Box<dyn Socket>>;

    /// Takes the end that a byte is written to when the process is asked to end.
    fn ask_to_end_by(&self, sender: UnixStream);

    /// Attaches a machine with this Ethernet address to the guest's network.
    fn attach(&self, mac: [u8; 6]) -> Box<dyn FramePort>;

    /// Opens a file of this host's.
    ///
    /// # Errors
    /// As [`crate::fs::OpenOptions::open`].
    fn open(&self, path: &Path, how: Opening) -> io::Result<Box<dyn StoredFile>>;

    /// Takes a file's name away; a loss of power may give it back until the directory is synced.
    ///
    /// # Errors
    /// As [`crate::fs::remove_file`].
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name; a loss of power may undo it until the directory is synced.
    ///
    /// # Errors
    /// As [`crate::fs::rename`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The names in a directory, in order; none for one that is not there.
    ///
    /// # Errors
    /// As [`crate::fs::names`].
    fn names(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Has the names in a directory stay.
    ///
    /// # Errors
    /// The disk fails.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// What the process prints to standard error.
    fn tell(&self, line: &str);
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Simulation>>> = const { RefCell::new(None) };
}

/// The world that the calling thread is in; `None` on a host.
pub fn current() -> Option<Arc<dyn Simulation>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs `run` on this thread as in `simulation`. For worlds, which call it once in each thread that
/// they start.
pub fn enter(simulation: Arc<dyn Simulation>, run: impl FnOnce()) {
    CURRENT.set(Some(simulation));
    run();
    CURRENT.set(None);
}

/// As [`current`], without taking it along.
pub(crate) fn with_current<T>(of: impl FnOnce(&dyn Simulation) -> T) -> Option<T> {
    CURRENT.with_borrow(|current| current.as_deref().map(of))
}

/// Threads of a world that wait for something to change.
pub(crate) struct Waiting {
    simulation: Arc<dyn Simulation>,
    threads: Mutex<Vec<ThreadId>>,
}

impl Waiting {
    pub(crate) fn new(simulation: Arc<dyn Simulation>) -> Waiting {
        Waiting {
            simulation,
            threads: Mutex::new(Vec::new()),
        }
    }

    /// Waits until it may have changed.
    pub(crate) fn wait(&self, until_ns: Option<u64>) -> Result<(), Dying> {
        let this = self.simulation.this_thread();
        // Each lock is held for one call that cannot panic.
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if !threads.contains(&this) {
            threads.push(this);
        }
        drop(threads);
        match self.simulation.park(until_ns) {
            Parked::Look => Ok(()),
            Parked::Dying(dying) => Err(dying),
        }
    }

    /// It has changed.
    pub(crate) fn wake(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let woken = std::mem::take(&mut *threads);
        drop(threads);
        woken
            .into_iter()
            .for_each(|thread| self.simulation.unpark(thread));
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.simulation.monotonic_ns()
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Waiting").finish()
    }
}
