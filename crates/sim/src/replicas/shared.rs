//! What all threads of a world share, and how exactly one of them runs at a time.
//!
//! Each simulated thread is one of this process, so that the replica's code is what ships. But it runs
//! only when the world hands control to it, and hands it back wherever it would wait. So what happens
//! depends on the seed alone.

use super::differing::Flips;
use super::files::Files;
use super::network::Network;
use super::observer::Observer;
use super::storage::Storage;
use crate::random::Random;
use environment::{Dying, Ended, Parked, ThreadId};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Looking at the clock takes so long: whoever looks again and again sees time go on.
const LOOK_NS: u64 = 20;

/// Names a process: one start of the program on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It may run.
    Ready,
    /// It waits, until then at most.
    Parked(Option<u64>),
    /// It has control.
    Running,
    /// It has ended.
    Ended,
}

struct Thread {
    process: ProcessId,
    name: String,
    doing: Doing,
    /// The next wait ends at once.
    unparked: bool,
    killed: bool,
    control: Arc<Condvar>,
    handle: Option<JoinHandle<()>>,
}

/// A process, dead or alive.
#[derive(Debug)]
pub struct Process {
    /// Where it runs.
    pub node: usize,
    /// It was killed, or has ended.
    pub dead: bool,
    /// It was killed by a loss of power: nobody hears of it.
    pub silent: bool,
    /// It is stopped until then.
    pub frozen_until_ns: u64,
    /// The last time for which it was stopped.
    pub slept: Option<(u64, u64)>,
    /// When it was asked to end first.
    pub asked_to_end_ns: Option<u64>,
    /// Asks it to end.
    pub signals: Option<std::os::unix::net::UnixStream>,
    /// How it ended, if it did.
    pub ended: Option<String>,
}

/// Everything.
pub struct State {
    /// Simulated time since the world began, in nanoseconds.
    pub now_ns: u64,
    /// The one source of chance.
    pub random: Random,
    threads: BTreeMap<ThreadId, Thread>,
    running: Option<ThreadId>,
    next_thread: u64,
    /// All processes that ever were.
    pub processes: BTreeMap<ProcessId, Process>,
    /// Connections and frames.
    pub network: Network,
    /// Those of each node.
    pub files: Vec<Files>,
    /// Those that all nodes reach.
    pub storage: Storage,
    /// The directory of this run, which is none of the history's: another run has another.
    pub directory: String,
    /// Watches.
    pub observer: Observer,
    /// Bits of memory that flipped.
    pub flips: Flips,
}

/// The world's state, and the condition by which control comes back to the world.
pub struct Shared {
    state: Mutex<State>,
    world: Condvar,
}

thread_local! {
    static THIS_THREAD: Cell<ThreadId> = const { Cell::new(ThreadId(0)) };
}

/// The calling thread.
pub fn this_thread() -> ThreadId {
    THIS_THREAD.get()
}

impl State {
    /// At the beginning of time.
    pub fn new(random: Random, network: Network, files: Vec<Files>, observer: Observer) -> State {
        State {
            now_ns: 1_000_000_000,
            random,
            threads: BTreeMap::new(),
            running: None,
            next_thread: 1,
            processes: BTreeMap::new(),
            network,
            files,
            storage: Storage::default(),
            directory: String::new(),
            observer,
            flips: Flips::default(),
        }
    }

    /// Lets a thread look again.
    pub fn unpark(&mut self, id: ThreadId) {
        if let Some(thread) = self.threads.get_mut(&id) {
            match thread.doing {
                Doing::Parked(_) => thread.doing = Doing::Ready,
                Doing::Ready | Doing::Running => thread.unparked = true,
                Doing::Ended => {}
            }
        }
    }

    /// Lets threads look again.
    pub fn unpark_all(&mut self, threads: Vec<ThreadId>) {
        threads.into_iter().for_each(|thread| self.unpark(thread));
    }

    /// A process.
    pub fn process(&self, id: ProcessId) -> &Process {
        &self.processes[&id]
    }

    /// Wakes whose time is up.
    pub fn wake_due(&mut self) {
        let now_ns = self.now_ns;
        for thread in self.threads.values_mut() {
            if let Doing::Parked(Some(until_ns)) = thread.doing
                && until_ns <= now_ns
            {
                thread.doing = Doing::Ready;
            }
        }
    }

    fn frozen_until(&self, thread: &Thread) -> u64 {
        self.processes[&thread.process].frozen_until_ns
    }

    /// Threads that may run now.
    pub fn ready(&self) -> Vec<ThreadId> {
        let may = |thread: &Thread| {
            thread.doing == Doing::Ready && self.frozen_until(thread) <= self.now_ns
        };
        let ready = self.threads.iter().filter(|(_, thread)| may(thread));
        ready.map(|(id, _)| *id).collect()
    }

    /// When the next thread has something to do by itself.
    pub fn next_deadline(&self) -> Option<u64> {
        let of = |thread: &Thread| {
            let frozen_until_ns = self.frozen_until(thread);
            match thread.doing {
                Doing::Parked(until_ns) => until_ns.map(|until_ns| until_ns.max(frozen_until_ns)),
                Doing::Ready => Some(frozen_until_ns),
                Doing::Running | Doing::Ended => None,
            }
        };
        self.threads.values().filter_map(of).min()
    }

    fn name(&self, id: ThreadId) -> &str {
        &self.threads[&id].name
    }

    /// The threads of a process.
    pub fn of_process(&self, process: ProcessId) -> Vec<ThreadId> {
        let threads = self.threads.iter();
        let its = threads.filter(|(_, thread)| thread.process == process);
        its.map(|(id, _)| *id).collect()
    }
}

impl Shared {
    /// Around this state.
    pub fn new(state: State) -> Arc<Shared> {
        Arc::new(Shared {
            state: Mutex::new(state),
            world: Condvar::new(),
        })
    }

    /// The state: held for moments, never while a thread waits.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a thread, which runs when the world says so. `run` has control then.
    pub fn spawn(
        self: &Arc<Shared>,
        process: ProcessId,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let mut state = self.lock();
        if state.processes[&process].dead {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        let id = ThreadId(state.next_thread);
        state.next_thread += 1;
        let shared = self.clone();
        let handle = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || shared.run(id, run))?;
        let thread = Thread {
            process,
            name: name.to_owned(),
            doing: Doing::Ready,
            unparked: false,
            killed: false,
            control: Arc::new(Condvar::new()),
            handle: Some(handle),
        };
        state.threads.insert(id, thread);
        Ok(())
    }

    /// The whole of a thread.
    fn run(self: Arc<Shared>, id: ThreadId, run: impl FnOnce()) {
        THIS_THREAD.set(id);
        let killed = self.await_control(self.lock(), id);
        // A thread that never ran drops what it was given here as well.
        let result = catch_unwind(AssertUnwindSafe(move || {
            if !killed {
                run();
            }
        }));
        let mut state = self.lock();
        if let Err(payload) = result
            && !payload.is::<Ended>()
        {
            let text = payload.downcast_ref::<String>().cloned().or_else(|| {
                payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
            });
            let name = state.name(id).to_owned();
            let text = text.unwrap_or_default();
            state
                .observer
                .broken(format!("an assertion failed in thread {name}: {text}"));
        }
        if let Some(thread) = state.threads.get_mut(&id) {
            thread.doing = Doing::Ended;
        }
        state.running = None;
        self.world.notify_one();
    }

    /// Waits until the world gives control to this thread. True if its process was killed.
    fn await_control<'a>(&'a self, mut state: MutexGuard<'a, State>, id: ThreadId) -> bool {
        while state.running != Some(id) {
            let control = state.threads.get(&id).map(|thread| thread.control.clone());
            state = match control {
                Some(control) => control.wait(state).unwrap_or_else(PoisonError::into_inner),
                // `spawn` has not put it there yet.
                None => {
                    drop(state);
                    std::thread::yield_now();
                    self.lock()
                }
            };
        }
        state.threads[&id].killed
    }

    /// See [`environment::Simulation::park`].
    pub fn park(&self, until_ns: Option<u64>) -> Parked {
        let id = this_thread();
        let mut state = self.lock();
        let Some(thread) = state.threads.get_mut(&id) else {
            unreachable!("only a world's threads park")
        };
        let killed = thread.killed || {
            thread.doing = match std::mem::take(&mut thread.unparked) {
                true => Doing::Ready,
                false => Doing::Parked(until_ns),
            };
            state.running = None;
            self.world.notify_one();
            self.await_control(state, id)
        };
        match (killed, std::thread::panicking()) {
            (false, _) => Parked::Look,
            (true, true) => Parked::Dying(Dying),
            (true, false) => resume_unwind(Box::new(Ended)),
        }
    }

    /// What the clock says to a thread that looks.
    pub fn look_at_clock(&self) -> u64 {
        let mut state = self.lock();
        state.now_ns += LOOK_NS;
        state.now_ns
    }

    /// Gives control to a thread until it gives it back. For the world alone.
    pub fn resume(&self, id: ThreadId) {
        let mut state = self.lock();
        let Some(thread) = state.threads.get_mut(&id) else {
            return;
        };
        thread.doing = Doing::Running;
        let control = thread.control.clone();
        state.running = Some(id);
        control.notify_one();
        while state.running.is_some() {
            state = self
                .world
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let has_ended = |thread: &Thread| thread.doing == Doing::Ended;
        if state.threads.get(&id).is_some_and(has_ended)
            && let Some(thread) = state.threads.remove(&id)
        {
            drop(state);
            if let Some(handle) = thread.handle {
                // What it panicked with was caught within it.
                let _joined = handle.join();
            }
        }
    }

    /// Ends all threads of a process, wherever each of them is.
    pub fn kill(&self, process: ProcessId, silently: bool) {
        let mut state = self.lock();
        let now_ns = state.now_ns;
        if let Some(process) = state.processes.get_mut(&process) {
            process.dead = true;
            process.silent |= silently;
            process.frozen_until_ns = now_ns;
            process.signals = None;
        }
        let threads = state.of_process(process);
        for id in &threads {
            if let Some(thread) = state.threads.get_mut(id) {
                thread.killed = true;
            }
        }
        drop(state);
        threads.into_iter().for_each(|id| self.resume(id));
    }
}
