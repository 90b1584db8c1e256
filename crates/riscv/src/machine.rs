//! The machine: harts, RAM and devices that run together.

mod contract;
mod debugging;
mod description;
mod reboot;
mod snapshot;
mod turns;

use crate::board::boot::BootError;
use crate::board::bus::Bus;
use crate::board::clint::{self, NANOSECONDS_PER_TICK};
use crate::emitter::Jit;
use crate::hart::Hart;
use crate::hart::interrupt::Lines;
use crate::interpreter;
use crate::interpreter::block::BlockCache;
use crate::interpreter::environment::Environment;
use crate::isa::Extensions;
use crate::memory::{Disturbance, Memory, RAM_BASE};
use devices::DeviceContext;
use machine::clock::Clock;
use machine::config::{BoardConfig, BootImages};
use machine::engine::Engine;
use machine::input::InstructionCount;
use machine::memory::{OutsideRam, PAGE_SIZE};
use machine::output::Outputs;
use machine::{Machine as _, Stop};
use reboot::KeptImages;
use serde::{Deserialize, Serialize};

/// What a machine is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Memory, harts and devices.
    pub board: BoardConfig,
    /// What the harts have beyond RV64GC.
    pub extensions: Extensions,
    /// Unix time at power-on, in nanoseconds: what the RTC begins with.
    pub unix_base_ns: u64,
}

/// Everything but RAM: plain, and the same on every replica at the same instruction count.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) count: InstructionCount,
    pub(crate) clock: Clock,
    pub(crate) harts: Vec<Hart>,
    /// The hart that runs.
    pub(crate) current: usize,
    /// When the next hart has its turn.
    pub(crate) slice_end: InstructionCount,
    pub(crate) bus: Bus,
    pub(crate) outputs: Outputs,
    /// It executes nothing: somebody paused it.
    pub(crate) paused: bool,
}

impl State {
    /// The hart that runs: it has the TLB.
    pub(crate) fn current_hart(&mut self) -> &mut Hart {
        &mut self.harts[self.current]
    }
}

/// The deterministic machine. What it does is in the contract, [`machine::Machine`].
pub struct Machine {
    pub(crate) state: State,
    pub(crate) memory: Memory,
    /// What a reset loads: see `reboot`.
    images: KeptImages,
    blocks: BlockCache,
    engine: Engine,
    pub(crate) jit: Option<Box<Jit>>,
    /// Seeds random disturbances of caches.
    chaos_seed: Option<u64>,
    /// Where a snapshot or a checkpoint left it: it has executed nothing as long as it stands there.
    brought_to: InstructionCount,
}

impl Machine {
    /// A machine at power-on, its images loaded.
    ///
    /// # Errors
    /// There is no such board, or the images do not fit it.
    pub fn new(config: Config, images: &BootImages) -> Result<Machine, BootError> {
        let mut memory = Memory::new(config.board.memory_bytes);
        let mut bus = Bus::new(&config.board)?;
        let entry = reboot::load(&config, images, &mut memory, &mut bus)?;
        let harts = reboot::harts(&config, entry, 0);
        let state = State {
            config,
            count: 0,
            clock: Clock::new(),
            harts,
            current: 0,
            slice_end: turns::SLICE,
            bus,
            outputs: Outputs::default(),
            paused: false,
        };
        Ok(Machine::from_parts(
            state,
            memory,
            reboot::keep(images, entry),
        ))
    }

    /// What the machine was made from.
    pub fn config(&self) -> &Config {
        &self.state.config
    }

    /// `N` bytes of RAM at a guest physical address.
    ///
    /// # Errors
    /// Not all of them are RAM.
    pub fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], OutsideRam> {
        self.memory.read_array(address)
    }

    pub(crate) fn from_parts(state: State, mut memory: Memory, images: KeptImages) -> Machine {
        memory.take_disturbances();
        let blocks = BlockCache::new(state.config.extensions);
        let brought_to = state.count;
        Machine {
            state,
            memory,
            images,
            blocks,
            engine: Engine::Interpreter,
            jit: None,
            chaos_seed: None,
            brought_to,
        }
    }

    /// What is due at this count before the next instruction, and why there is none, if so.
    fn stop_before_next(&mut self, until: InstructionCount) -> Option<Stop> {
        self.raise_device_timers();
        // Whatever asked for it, a device's timer too: nobody sees the machine between the two.
        self.reset_if_asked();
        if self.state.outputs.is_urgent() {
            return Some(Stop::Output);
        }
        if let Some(finish) = self.state.bus.finish() {
            return Some(Stop::Finished(finish));
        }
        if self.state.count >= until {
            return Some(Stop::Reached);
        }
        let pause = Stop::Idle { wake_at_ns: None };
        self.state.paused.then_some(pause)
    }

    /// Runs the current hart until its slice ends or something asks for attention.
    fn run_hart(&mut self, until: InstructionCount) {
        let slice_end = if self.state.harts.len() > 1 {
            self.state.slice_end
        } else {
            u64::MAX
        };
        let called = self.others_called();
        let state = &mut self.state;
        let lines = lines(&state.bus, state.current);
        let ticks = clint::ticks(state.clock.time_ns(state.count));
        let hart = &mut state.harts[state.current];
        let pending = hart.interrupts_pending(&lines, ticks);
        if let Some(cause) = hart.interrupt_to_take(pending) {
            hart.take_interrupt(cause);
            hart.update_translation_context();
        }
        let timer = hart
            .next_timer(&lines, ticks)
            .and_then(|ticks| ticks.checked_mul(NANOSECONDS_PER_TICK))
            .into_iter()
            .chain(state.bus.next_device_timer_ns())
            .min()
            .map_or(u64::MAX, |time_ns| state.clock.count_at(time_ns));
        let mut environment = Environment {
            hart,
            memory: &mut self.memory,
            bus: &mut state.bus,
            outputs: &mut state.outputs,
            clock: &state.clock,
            count: state.count,
            unix_base_ns: state.config.unix_base_ns,
            extensions: state.config.extensions,
            interrupts_pending: pending,
            attention: false,
            turn_is_over: false,
        };
        let end = until.min(slice_end).min(timer);
        match &mut self.jit {
            None => interpreter::run(&mut self.blocks, &mut environment, end),
            Some(jit) => jit.run(&mut self.blocks, &mut environment, end),
        }
        let turn_is_over = environment.turn_is_over;
        self.state.count = environment.count;
        if turn_is_over || self.others_called() > called {
            self.state.slice_end = self.state.count;
        }
        if self.memory.is_disturbed() {
            self.settle_disturbances();
        }
    }

    /// Guest time of the next timer of any hart or device.
    fn next_wake_ns(&self) -> Option<u64> {
        let state = &self.state;
        let ticks = clint::ticks(state.clock.time_ns(state.count));
        let harts = (0..state.harts.len()).filter_map(|hart| {
            state.harts[hart]
                .next_timer(&lines(&state.bus, hart), ticks)?
                .checked_mul(NANOSECONDS_PER_TICK)
        });
        harts.chain(state.bus.next_device_timer_ns()).min()
    }

    /// Brings the devices up to guest time. Whoever can be asked for a digest next has done so: else
    /// a machine that found all harts waiting would differ from one that was stopped there.
    fn raise_device_timers(&mut self) {
        let time_ns = self.guest_time_ns();
        if self
            .state
            .bus
            .next_device_timer_ns()
            .is_some_and(|timer| timer <= time_ns)
        {
            let (bus, mut context) = self.device_context();
            bus.time_passed(&mut context);
        }
    }

    fn device_context(&mut self) -> (&mut Bus, DeviceContext<'_>) {
        let time_ns = self.guest_time_ns();
        let context = DeviceContext {
            memory: &mut *self.memory,
            outputs: &mut self.state.outputs,
            time_ns,
            unix_base_ns: self.state.config.unix_base_ns,
        };
        (&mut self.state.bus, context)
    }

    /// Drops what stores and transfers made stale, before the next instruction.
    fn settle_disturbances(&mut self) {
        for disturbance in self.memory.take_disturbances() {
            match disturbance {
                Disturbance::Code { page_offset } => self.blocks.drop_page(page_offset),
                Disturbance::LeafEntry(leaf) => self.state.current_hart().tlb.drop_leaf(leaf),
                Disturbance::LowerHalf => self.drop_lower_halves(),
                Disturbance::Root { page_offset } => self.root_changed(page_offset),
                Disturbance::Translations => self.drop_translations(),
            }
        }
    }

    fn drop_translations(&mut self) {
        let hart = self.state.current_hart();
        hart.tlb.abandon_spaces();
        hart.update_translation_context();
        self.memory.forget_page_tables();
    }

    /// A page table changed by which only lower halves of address spaces were translated.
    fn drop_lower_halves(&mut self) {
        let roots: Vec<usize> = self.current_roots().collect();
        let harts = &self.state.harts;
        let spaces: Vec<u64> = harts.iter().map(|hart| hart.csr.satp).collect();
        let hart = self.state.current_hart();
        hart.tlb.abandon_whole_spaces(&spaces);
        hart.update_translation_context();
        self.memory.forget_lower_tables(&roots);
    }

    /// The upper half of a root page table changed. It is most often one of the past, which becomes
    /// the root of a new process.
    fn root_changed(&mut self, page_offset: usize) {
        if self.current_roots().any(|root| root == page_offset) {
            return self.drop_translations();
        }
        let page = (RAM_BASE + page_offset as u64) / PAGE_SIZE;
        let hart = self.state.current_hart();
        hart.tlb.forget_root(page);
        hart.update_translation_context();
        self.memory.forget_root(page_offset);
    }

    /// Offsets in RAM of the root page tables that `satp` of the harts names.
    fn current_roots(&self) -> impl Iterator<Item = usize> {
        let harts = self.state.harts.iter();
        harts.filter_map(|hart| {
            let root = hart.root_page_table()?;
            self.memory.offset(root, PAGE_SIZE).ok()
        })
    }
}

fn lines(bus: &Bus, hart: usize) -> Lines {
    Lines {
        software: bus.software_interrupt(hart),
        machine_external: bus.machine_external_interrupt(hart),
        supervisor_external: bus.supervisor_external_interrupt(hart),
        machine_timer_compare: bus.machine_timer_compare(hart),
    }
}
