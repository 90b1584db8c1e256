//! The machine: run, inject, outputs.

mod debugging;
mod reboot;
mod snapshot;
mod turns;

use crate::board::{Board, BoardBus, Surroundings};
use crate::boot::{self, BootError, BootImages};
use crate::cpu::Cpu;
use crate::emitter::Jit;
use crate::interpreter::{Exit, Interpreter};
use crate::ram::Ram;
use machine::clock::Clock;
use machine::config::{BoardConfigError, BoardLimits, MachineConfig, PanicPolicy};
use machine::engine::Engine;
use machine::input::{ClockRecord, Input, InstructionCount};
use machine::memory::{Capture, Consumer, Extent};
use machine::output::{DiskRequest, Output, Outputs};
use machine::snapshot::{Snapshot, SnapshotHead};
use machine::{InjectError, Stop};
use reboot::KeptImages;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The architecture's name.
pub const NAME: &str = "x86-64";

/// CPUs of a machine at most.
const MOST_CPUS: u32 = 8;

/// Number of the semantics: what the machine computes from the same inputs. Every change of an
/// instruction, a device or the clock that a guest could see raises it. The numbers of x86-64 begin at
/// 8,600,000, so that no snapshot or log of another architecture is taken for one of this.
pub const SEMANTICS_VERSION: u32 = 8_600_009;

/// Why a machine cannot be powered on.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum PowerOnError {
    /// The board cannot be built.
    #[error(transparent)]
    Board(#[from] BoardConfigError),
    /// None, or too many CPUs.
    #[error("{cpus} CPUs: an x86-64 machine has 1 to {MOST_CPUS}")]
    Cpus {
        /// What was given.
        cpus: u32,
    },
    /// The images cannot be started.
    #[error(transparent)]
    Boot(#[from] BootError),
}

/// Everything but RAM: plain, and the same on every replica at the same instruction count.
#[derive(Serialize, Deserialize)]
struct State {
    config: MachineConfig,
    count: InstructionCount,
    clock: Clock,
    cpus: Vec<Cpu>,
    /// The CPU that runs: what the engine remembers of translations is its own.
    current: usize,
    /// When the next CPU has its turn.
    slice_end: InstructionCount,
    board: Board,
    outputs: Outputs,
    /// It executes nothing: somebody paused it.
    paused: bool,
}

impl State {
    /// The CPU that runs, the board, and what its devices may touch besides their own state.
    fn board_in_surroundings(&mut self) -> (&mut Cpu, &mut Board, Surroundings<'_>) {
        let surroundings = Surroundings {
            outputs: &mut self.outputs,
            clock: &self.clock,
            unix_base_ns: self.config.unix_base_ns,
        };
        let cpu = &mut self.cpus[self.current];
        (cpu, &mut self.board, surroundings)
    }
}

/// The deterministic machine.
pub struct Machine {
    state: State,
    ram: Ram,
    /// What it begins with at a reset.
    images: KeptImages,
    interpreter: Interpreter,
    engine: Engine,
    jit: Option<Box<Jit>>,
    /// Seeds random disturbances of caches.
    chaos_seed: Option<u64>,
    /// Where a snapshot or a checkpoint left it: it has executed nothing as long as it stands there.
    brought_to: InstructionCount,
}

impl Machine {
    /// A machine at power-on, its images loaded.
    ///
    /// # Errors
    /// [`PowerOnError`] for a board that cannot be built and images that cannot be started.
    pub fn new(config: MachineConfig, images: &BootImages) -> Result<Machine, PowerOnError> {
        check(&config)?;
        let mut ram = Ram::new(config.board.memory_bytes);
        let board = Board::new(&config.board);
        let loaded = boot::load(&mut ram, images, &board.description())?;
        let state = State {
            config,
            count: 0,
            clock: Clock::new(),
            cpus: turns::cpus(loaded.cpu, board.cpus()),
            current: 0,
            slice_end: turns::SLICE,
            board,
            outputs: Outputs::default(),
            paused: false,
        };
        let images = reboot::keep(images, loaded.initrd);
        Ok(Machine::from_parts(state, ram, images))
    }

    fn from_parts(state: State, ram: Ram, images: KeptImages) -> Machine {
        let brought_to = state.count;
        Machine {
            state,
            ram,
            images,
            interpreter: Interpreter::new(),
            engine: Engine::Interpreter,
            jit: None,
            chaos_seed: None,
            brought_to,
        }
    }

    /// Chooses the engine; gives the one that this host has of it.
    pub fn set_engine(&mut self, engine: Engine) -> Engine {
        let jit = match engine {
            Engine::Interpreter => None,
            Engine::Jit | Engine::Paranoid => Jit::new(),
        };
        self.jit = jit.map(Box::new);
        self.engine = match &mut self.jit {
            None => Engine::Interpreter,
            Some(jit) => {
                jit.set_paranoid(engine == Engine::Paranoid);
                engine
            }
        };
        self.forget_caches();
        self.set_chaos(self.chaos_seed);
        self.engine
    }

    #[cfg(all(test, jit))]
    pub(crate) fn jit_mut(&mut self) -> Option<&mut Jit> {
        self.jit.as_deref_mut()
    }

    /// The engine that executes.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// For tests: disturbs what only makes the machine quick, at places that depend on the seed only.
    pub fn set_chaos(&mut self, seed: Option<u64>) {
        self.chaos_seed = seed;
        match &mut self.jit {
            Some(jit) => jit.set_chaos(seed),
            None => self.forget_caches(),
        }
    }

    /// Executes until the instruction count is `until`, or until something stops it before.
    pub fn run(&mut self, until: InstructionCount) -> Stop {
        loop {
            if let Some(stop) = self.stop_before_next(until) {
                return stop;
            }
            let Some(cpu) = self.state.next_cpu() else {
                return self.idle();
            };
            self.run_cpu(cpu, until);
        }
    }

    /// All CPUs wait.
    fn idle(&self) -> Stop {
        Stop::Idle {
            wake_at_ns: self.state.wake_at_ns(),
        }
    }

    /// Does what has to be done before the next instruction; why the run stops, if it does.
    fn stop_before_next(&mut self, until: InstructionCount) -> Option<Stop> {
        self.raise_timers();
        // Whatever asked for it: nobody sees the machine between the two.
        self.start_if_asked();
        self.reset_if_asked();
        if self.state.outputs.is_urgent() {
            return Some(Stop::Output);
        }
        if let Some(finish) = self.state.board.finish() {
            return Some(Stop::Finished(finish));
        }
        if self.state.count >= until {
            return Some(Stop::Reached);
        }
        let pause = Stop::Idle { wake_at_ns: None };
        self.state.paused.then_some(pause)
    }

    /// Lets a CPU run until its turn ends or something asks for attention.
    fn run_cpu(&mut self, cpu: usize, until: InstructionCount) {
        self.switch_to(cpu);
        let slice_end = match self.state.cpus.len() {
            1 => InstructionCount::MAX,
            _ => self.state.slice_end,
        };
        let timer = self.state.board.next_timer_ns();
        let timer = timer.map_or(u64::MAX, |time_ns| self.state.clock.count_at(time_ns));
        let mut count = self.state.count;
        let number = cpu;
        let (cpu, board, surroundings) = self.state.board_in_surroundings();
        let mut bus = BoardBus::new(board, number, surroundings);
        let (interpreter, ram) = (&mut self.interpreter, &mut self.ram);
        let until = until.min(timer).min(slice_end);
        let exit = match &mut self.jit {
            None => interpreter.run(cpu, ram, &mut bus, &mut count, until),
            Some(jit) => jit.run(interpreter, cpu, ram, &mut bus, &mut count, until),
        };
        self.state.count = count;
        match exit {
            Exit::Count | Exit::Halted | Exit::Attention => {}
            Exit::Turn => self.state.slice_end = count,
            Exit::TripleFault => self.state.board.triple_fault(&mut self.state.outputs),
        }
    }

    /// From here on a reset is an end.
    pub fn end_at_reset(&mut self) {
        self.state.board.end_at_reset();
    }

    /// What is done when the guest's kernel panics; a part of the state.
    pub fn set_panic_policy(&mut self, policy: PanicPolicy) {
        self.state.board.set_panic_policy(policy);
    }

    /// Whether the guest's kernel panicked since it was booted.
    pub fn has_panicked(&self) -> bool {
        self.state.board.has_panicked()
    }

    /// Brings the devices up to guest time. Whoever can be asked for a digest next has done so: else a
    /// machine that found its CPUs waiting would differ from one that was stopped there.
    fn raise_timers(&mut self) {
        let now_ns = self.guest_time_ns();
        self.state.board.time_passed(now_ns);
    }

    /// Whether somebody paused it.
    pub fn is_paused(&self) -> bool {
        self.state.paused
    }

    /// Lets an input take effect here.
    ///
    /// # Errors
    /// [`InjectError`], and nothing has changed.
    pub fn inject(&mut self, input: &Input) -> Result<(), InjectError> {
        let count = self.state.count;
        match input {
            Input::Clock(record) => self.state.clock.set(count, *record)?,
            Input::Calendar { unix_base_ns } => self.state.config.unix_base_ns = *unix_base_ns,
            Input::Pause => self.state.paused = true,
            Input::Resume => self.state.paused = false,
            _ => {
                let (_, board, mut surroundings) = self.state.board_in_surroundings();
                board.inject(input, &mut surroundings.context(&mut self.ram, count))?;
            }
        }
        self.raise_timers(); // a clock record moves time
        self.reset_if_asked();
        Ok(())
    }

    /// Takes what the machine wants the world to see or do, in order.
    pub fn outputs(&mut self) -> Vec<Output> {
        self.state.outputs.take()
    }

    /// Frames and console bytes since power-on, collected or not.
    pub fn visible_outputs(&self) -> u64 {
        self.state.outputs.visible()
    }

    /// Instructions since power-on.
    pub fn instruction_count(&self) -> InstructionCount {
        self.state.count
    }

    /// Guest time, in nanoseconds since power-on.
    pub fn guest_time_ns(&self) -> u64 {
        self.state.clock.time_ns(self.state.count)
    }

    /// The last clock record.
    pub fn clock(&self) -> ClockRecord {
        self.state.clock.record()
    }

    /// Bytes of RAM; none unless all are RAM.
    pub fn memory(&self, address: u64, length: u64) -> Option<&[u8]> {
        self.ram.slice(address, length)
    }

    /// What the machine was made from.
    pub fn config(&self) -> &MachineConfig {
        &self.state.config
    }

    /// Disk requests without completion, oldest first: to be issued again after a failover.
    pub fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.state.board.open_disk_requests()
    }

    /// Bytes of RAM at a guest physical address; `None` unless all are RAM.
    pub fn read_memory<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let bytes = self.ram.slice(address, N as u64)?;
        bytes.try_into().ok()
    }

    /// A digest of the whole state: registers, devices and RAM.
    pub fn digest(&mut self) -> u128 {
        let ram = self.ram.digest();
        self.interpreter.forget_writable_pages();
        let mut state = postcard::to_stdvec(&self.state).expect("plain data serialises");
        state.extend(ram.to_le_bytes());
        xxhash_rust::xxh3::xxh3_128(&state)
    }

    /// Copies the whole state.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.snapshot_head(), self.ram.inner())
    }

    /// Begins a snapshot of this moment, which is taken while the machine runs on.
    pub fn begin_snapshot(&mut self, extent: Extent) -> SnapshotHead {
        self.ram.begin_capture(extent);
        self.interpreter.forget_writable_pages();
        self.snapshot_head()
    }

    /// Pages of RAM that were written since the last round of a copy began.
    pub fn pages_changed(&self) -> usize {
        self.ram.inner().pages_changed()
    }

    /// The RAM of the snapshot that was begun.
    pub fn capture(&mut self) -> Option<Capture<'_>> {
        self.ram.capture()
    }

    /// Pages that are written from here on are those of the next checkpoint.
    pub fn begin_checkpoints(&mut self) {
        self.ram.begin_epoch(Consumer::Checkpoint);
        self.interpreter.forget_writable_pages();
    }

    /// Takes a checkpoint all at once: gives everything but RAM, and calls `page` for every page that was
    /// written since the one before.
    pub fn take_checkpoint(&mut self, page: &mut dyn FnMut(usize, &[u8])) -> Vec<u8> {
        self.ram.visit_written(page);
        self.interpreter.forget_writable_pages();
        postcard::to_stdvec(&self.state).expect("plain data serialises")
    }

    /// The bytes of a page, as the host holds RAM; `None` if there is none.
    pub fn page(&self, index: usize) -> Option<&[u8]> {
        let ram = self.ram.inner();
        (index < ram.pages()).then(|| ram.page(index))
    }

    /// Pages of RAM that the next checkpoint holds, so far.
    pub fn pages_since_checkpoint(&self) -> usize {
        self.ram.inner().pages_unseen(Consumer::Checkpoint)
    }

    /// Pages of RAM in use, as last known.
    pub fn pages_in_use(&self) -> usize {
        self.ram.inner().pages_in_use()
    }

    /// For tests: forgets everything that only makes the machine quick. The guest cannot see it.
    pub fn forget_caches(&mut self) {
        self.interpreter.forget(&mut self.ram);
        if let Some(jit) = &mut self.jit {
            jit.forget();
        }
    }

    /// Where the CPUs are, for people who look for a fault.
    pub fn describe(&self) -> String {
        let state = &self.state;
        let registers: Vec<_> = state.cpus.iter().map(|cpu| &cpu.registers).collect();
        format!(
            "count {}, CPU {} runs\n{registers:x?}\nvirtio {:?}\n",
            state.count,
            state.current,
            state.board.driver_faults()
        )
    }
}

/// Equal for boards that can replay each other's inputs under the same semantics.
pub fn configuration_hash(board: &machine::config::BoardConfig) -> u64 {
    let bytes =
        postcard::to_stdvec(&(NAME, SEMANTICS_VERSION, board)).expect("plain data serialises");
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// What a board has room for, but for what [`PowerOnError`] says better.
const LIMITS: BoardLimits = BoardLimits {
    memory_bytes: (1 << 40) - (2 << 30),
    harts: 512,
    virtio_devices: 8,
};

/// Whether such a machine can be built.
fn check(config: &MachineConfig) -> Result<(), PowerOnError> {
    config.board.validate(&LIMITS)?;
    let cpus = config.board.harts;
    if !(1..=MOST_CPUS).contains(&cpus) {
        return Err(PowerOnError::Cpus { cpus });
    }
    Ok(())
}
