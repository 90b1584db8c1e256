//! What one simulated process has of its host.

use super::files;
use super::network::{Port, SimulatedListener, SimulatedSocket};
use super::shared::{ProcessId, Shared, this_thread};
use environment::frames::FramePort;
use environment::fs::{Opening, StoredFile};
use environment::net::{Listener, Socket};
use environment::{Parked, Simulation, ThreadId};
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Where the calendars of all hosts begin.
const CALENDAR_NS: u64 = 1_700_000_000_000_000_000;

/// The host, as one process of it sees it.
pub struct SimulatedHost {
    /// The world.
    pub shared: Arc<Shared>,
    /// The process.
    pub process: ProcessId,
    /// So far this host's monotonic clock is ahead of the world's, in nanoseconds.
    pub ahead_ns: u64,
}

impl SimulatedHost {
    fn world_ns(&self, host_ns: u64) -> u64 {
        host_ns.saturating_sub(self.ahead_ns)
    }
}

impl Simulation for SimulatedHost {
    fn monotonic_ns(&self) -> u64 {
        self.shared.look_at_clock() + self.ahead_ns
    }

    fn unix_ns(&self) -> u64 {
        self.shared.look_at_clock() + CALENDAR_NS
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.shared.lock();
        // The checkers take identities for numbers of 64 bits.
        let bits = state.random.bits().to_ne_bytes();
        bytes.fill(0);
        let length = bytes.len().min(bits.len());
        bytes[..length].copy_from_slice(&bits[..length]);
        Ok(())
    }

    fn spawn(&self, name: &str, run: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let host: Arc<dyn Simulation> = Arc::new(SimulatedHost {
            shared: self.shared.clone(),
            process: self.process,
            ahead_ns: self.ahead_ns,
        });
        let run = move || environment::enter(host, run);
        self.shared.spawn(self.process, name, run)
    }

    fn this_thread(&self) -> ThreadId {
        this_thread()
    }

    fn park(&self, until_ns: Option<u64>) -> Parked {
        self.shared.park(until_ns.map(|ns| self.world_ns(ns)))
    }

    fn unpark(&self, thread: ThreadId) {
        self.shared.lock().unpark(thread);
    }

    fn bind(&self, addresses: &[SocketAddr]) -> io::Result<Box<dyn Listener>> {
        let listener = SimulatedListener::bind(&self.shared, self.process, addresses)?;
        Ok(Box::new(listener))
    }

    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<Box<dyn Socket>> {
        let socket = SimulatedSocket::connect(&self.shared, self.process, address, timeout)?;
        Ok(Box::new(socket))
    }

    fn ask_to_end_by(&self, sender: UnixStream) {
        let mut state = self.shared.lock();
        if let Some(process) = state.processes.get_mut(&self.process) {
            process.signals = Some(sender);
        }
    }

    fn attach(&self, _: [u8; 6]) -> Box<dyn FramePort> {
        Box::new(Port::attach(&self.shared, self.process))
    }

    fn open(&self, path: &Path, how: Opening) -> io::Result<Box<dyn StoredFile>> {
        let file = files::open(&self.shared, self.process, path, how)?;
        Ok(Box::new(file))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        files::remove(&self.shared, self.process, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        files::rename(&self.shared, self.process, from, to)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(files::names(&self.shared, self.process, path))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        files::sync_directory(&self.shared, self.process, path)
    }

    fn tell(&self, line: &str) {
        self.shared.lock().tell(self.process, line);
    }
}
