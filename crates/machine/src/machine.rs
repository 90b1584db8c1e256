//! The machine: run, inject, outputs.

pub(crate) mod reboot;
mod turns;

use crate::boot::{BootError, BootImages, IsaDescription};
use crate::bus::{BoardConfig, Bus, DeviceContext, InputError};
use crate::clock::{Clock, NANOSECONDS_PER_TICK, TimeTurnsBack};
use crate::digest::PageDigests;
use crate::engine::Engine;
use crate::hart::Hart;
use crate::hart::interrupt::Lines;
use crate::hart::reservation::Reservation;
use crate::input::{ClockRecord, Input, InstructionCount};
use crate::interpreter;
use crate::interpreter::block::BlockCache;
use crate::interpreter::environment::Environment;
use crate::isa::Extensions;
use crate::jit::Jit;
use crate::memory::{Disturbance, Memory, OutsideRam, PAGE_SIZE, RAM_BASE};
use crate::output::{DiskRequest, Finish, Output, Outputs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

/// Number of the semantics: what the machine computes from the same inputs. Two builds replay each
/// other's logs only when it is equal; every change of an instruction, a device or the clock that a
/// guest could see raises it.
pub const SEMANTICS_VERSION: u32 = 4;

/// What a machine is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Memory, harts and devices.
    pub board: BoardConfig,
    /// Unix time at power-on, in nanoseconds: what the RTC begins with.
    pub unix_base_ns: u64,
}

/// Why [`Machine::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The instruction count is the one asked for.
    Reached,
    /// Every hart waits for an interrupt: nothing happens before an input.
    Idle {
        /// Guest time, in nanoseconds, of the next timer, if one is set.
        wake_at_ns: Option<u64>,
    },
    /// An output waits that should not wait longer; collect it with [`Machine::outputs`].
    Output,
    /// The guest ended the machine. (One that resets begins anew instead: see
    /// [`Machine::end_at_reset`].)
    Finished(Finish),
}

/// An input that cannot take effect. The machine is as it was.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum InjectError {
    /// Guest time cannot turn back.
    #[error(transparent)]
    Clock(#[from] TimeTurnsBack),
    /// The device refused it.
    #[error(transparent)]
    Device(#[from] InputError),
}

/// Everything but RAM: plain, and the same on every replica at the same instruction count.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) config: MachineConfig,
    pub(crate) count: InstructionCount,
    pub(crate) clock: Clock,
    pub(crate) harts: Vec<Hart>,
    /// The hart that runs.
    pub(crate) current: usize,
    /// When the next hart has its turn.
    pub(crate) slice_end: InstructionCount,
    pub(crate) bus: Bus,
    pub(crate) outputs: Outputs,
    /// See [`Machine::end_at_reset`].
    pub(crate) ends_at_reset: bool,
}

impl State {
    /// The hart that runs: it has the TLB.
    pub(crate) fn current_hart(&mut self) -> &mut Hart {
        &mut self.harts[self.current]
    }
}

/// The deterministic machine.
pub struct Machine {
    pub(crate) state: State,
    pub(crate) memory: Memory,
    pub(crate) page_digests: PageDigests,
    /// What a reboot loads: see `reboot`.
    pub(crate) images: Arc<[u8]>,
    blocks: BlockCache,
    engine: Engine,
    pub(crate) jit: Option<Box<Jit>>,
    /// Seeds random disturbances of caches: see [`Machine::set_chaos`].
    chaos_seed: Option<u64>,
}

impl Machine {
    /// A machine at power-on, its images loaded.
    pub fn new(config: MachineConfig, images: &BootImages) -> Result<Machine, BootError> {
        let mut memory = Memory::new(config.board.memory_bytes);
        let mut bus = Bus::new(&config.board)?;
        let entry = reboot::load(&config.board, images, &mut memory, &mut bus)?;
        let harts = reboot::harts(&config.board, entry, 0);
        let state = State {
            config,
            count: 0,
            clock: Clock::new(),
            harts,
            current: 0,
            slice_end: turns::SLICE,
            bus,
            outputs: Outputs::default(),
            ends_at_reset: false,
        };
        Ok(Machine::from_parts(state, memory, reboot::encode(images)))
    }

    pub(crate) fn from_parts(state: State, mut memory: Memory, images: Arc<[u8]>) -> Machine {
        memory.take_disturbances();
        let page_digests = PageDigests::new(memory.pages());
        let blocks = BlockCache::new(state.config.board.extensions());
        Machine {
            state,
            memory,
            page_digests,
            images,
            blocks,
            engine: Engine::Interpreter,
            jit: None,
            chaos_seed: None,
        }
    }

    /// Chooses what executes instructions from here on, and says what it is on this host. At first
    /// (and after [`Machine::restore`]) it is the interpreter.
    pub fn set_engine(&mut self, engine: Engine) -> Engine {
        self.jit = match engine {
            Engine::Interpreter => None,
            Engine::Jit | Engine::Paranoid => self.jit.take().or_else(|| Jit::new().map(Box::new)),
        };
        if let Some(jit) = &mut self.jit {
            jit.set_paranoid(engine == Engine::Paranoid);
        }
        self.set_chaos(self.chaos_seed);
        self.engine = if self.jit.is_some() {
            engine
        } else {
            Engine::Interpreter
        };
        self.engine
    }

    /// What executes instructions.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// For tests: at places that depend on the seed only, the JIT drops translations, site caches
    /// and code, and changes the number of executions after which it compiles. The guest cannot see
    /// it.
    pub fn set_chaos(&mut self, seed: Option<u64>) {
        self.chaos_seed = seed;
        if let Some(jit) = &mut self.jit {
            jit.set_chaos(seed);
        }
    }

    /// Executes until the instruction count is `until`, or until something stops it before.
    pub fn run(&mut self, until: InstructionCount) -> Stop {
        loop {
            self.reboot_if_asked();
            self.raise_device_timers();
            if self.state.outputs.is_urgent() {
                return Stop::Output;
            }
            if let Some(finish) = self.state.bus.finish() {
                return Stop::Finished(finish);
            }
            if self.state.count >= until {
                return Stop::Reached;
            }
            if !self.choose_hart() {
                return Stop::Idle {
                    wake_at_ns: self.next_wake_ns(),
                };
            }
            self.run_hart(until);
        }
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
        let ticks = state.clock.ticks(state.count);
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
        let ticks = state.clock.ticks(state.count);
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
            memory: &mut self.memory,
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

    /// Lets an input take effect here.
    pub fn inject(&mut self, input: &Input) -> Result<(), InjectError> {
        if let Input::Clock(record) = input {
            self.state.clock.set(self.state.count, *record)?;
        } else {
            let (bus, mut context) = self.device_context();
            bus.inject(input, &mut context)?;
        }
        self.raise_device_timers(); // a clock record moves time
        for hart in &mut self.state.harts {
            hart.reservation = Reservation::NONE;
        }
        self.settle_disturbances();
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

    /// What the machine was made from.
    pub fn config(&self) -> &MachineConfig {
        &self.state.config
    }

    /// Equal for machines that can replay each other's inputs: semantics, memory, harts, devices.
    pub fn configuration_hash(&self) -> u64 {
        configuration_hash(&self.state.config.board)
    }

    /// Disk requests without completion, oldest first: to be issued again after a failover.
    pub fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.state.bus.open_disk_requests()
    }

    /// Bytes of RAM at a guest physical address.
    pub fn read_memory<const N: usize>(&self, address: u64) -> Result<[u8; N], OutsideRam> {
        self.memory.read_array(address)
    }

    /// Where every hart is, for people who look for a fault.
    pub fn describe(&self) -> String {
        let mut text = format!("count {}\n", self.state.count);
        for hart in &self.state.harts {
            text += &format!(
                "hart {}: pc {:#x} {:?} waiting {} scause {:#x} sepc {:#x} stval {:#x} mcause {:#x} mepc {:#x} mtval {:#x}\n",
                hart.id,
                hart.pc,
                hart.privilege,
                hart.waiting,
                hart.csr.scause,
                hart.csr.sepc,
                hart.csr.stval,
                hart.csr.mcause,
                hart.csr.mepc,
                hart.csr.mtval
            );
            for register in 0..32 {
                text += &format!("x{register}={:#x} ", hart.x.get(register));
            }
            for (register, bits) in hart.f.iter().enumerate() {
                text += &format!("f{register}={bits:#x} ");
            }
            let csr = &hart.csr;
            text += &format!(
                "fflags={:#x} frm={} mstatus={:#x}\n",
                csr.fflags, csr.frm, csr.status
            );
        }
        text
    }
}

/// What the device tree says of the harts. Sv57 is the widest mode; the guest may choose another.
fn isa_description(extensions: Extensions) -> IsaDescription {
    let letters = ["i", "m", "a", "f", "d", "c"];
    let mut names = vec!["zicntr", "zicsr", "zifencei", "zihintpause"];
    if extensions.bit_manipulation {
        names.extend(["zba", "zbb", "zbs"]);
    }
    names.extend(["sstc", "svadu"]);
    IsaDescription {
        isa: format!("rv64{}_{}", letters.concat(), names.join("_")),
        isa_base: "rv64i".into(),
        isa_extensions: letters.into_iter().chain(names).map(String::from).collect(),
        mmu_type: "riscv,sv57".into(),
    }
}

/// Equal for boards that can replay each other's inputs under the same semantics.
pub fn configuration_hash(board: &BoardConfig) -> u64 {
    let bytes = postcard::to_stdvec(&(SEMANTICS_VERSION, board)).expect("plain data serialises");
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

fn lines(bus: &Bus, hart: usize) -> Lines {
    Lines {
        software: bus.software_interrupt(hart),
        machine_external: bus.machine_external_interrupt(hart),
        supervisor_external: bus.supervisor_external_interrupt(hart),
        machine_timer_compare: bus.machine_timer_compare(hart),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bit_manipulation: bool) -> (String, Vec<String>) {
        let description = isa_description(Extensions { bit_manipulation });
        (description.isa, description.isa_extensions)
    }

    /// The guest uses what it is told of: both properties have to say the same, with and without.
    #[test]
    fn bit_manipulation_is_announced_where_it_is() {
        let (isa, list) = names(true);
        assert_eq!(
            isa,
            "rv64imafdc_zicntr_zicsr_zifencei_zihintpause_zba_zbb_zbs_sstc_svadu"
        );
        assert_eq!(list[6..].join("_"), isa["rv64imafdc_".len()..]);
        let (isa, list) = names(false);
        assert_eq!(
            isa,
            "rv64imafdc_zicntr_zicsr_zifencei_zihintpause_sstc_svadu"
        );
        assert_eq!(list[6..].join("_"), isa["rv64imafdc_".len()..]);
    }
}
