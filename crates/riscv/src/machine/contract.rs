//! What a RISC-V machine does, as every machine does it.

use super::Machine;
use crate::architecture::configuration_hash;
use crate::emitter::Jit;
use crate::hart::reservation::Reservation;
use machine::config::{BoardConfig, PanicPolicy};
use machine::debugging::Debuggable;
use machine::engine::Engine;
use machine::input::{ClockRecord, Input, InstructionCount};
use machine::memory::{Capture, Consumer, Extent, OutsideRam, PageBatch, Region};
use machine::output::{DiskRequest, Output};
use machine::snapshot::{Snapshot, SnapshotError, SnapshotHead};
use machine::{InjectError, Stop};
use xxhash_rust::xxh3::xxh3_128;

impl machine::Machine for Machine {
    fn run(&mut self, until: InstructionCount) -> Stop {
        loop {
            if let Some(stop) = self.stop_before_next(until) {
                return stop;
            }
            if !self.choose_hart() {
                return Stop::Idle {
                    wake_at_ns: self.next_wake_ns(),
                };
            }
            self.run_hart(until);
        }
    }

    fn end_at_reset(&mut self) {
        self.state.bus.end_at_reset();
    }

    fn set_panic_policy(&mut self, policy: PanicPolicy) -> bool {
        self.state.bus.set_panic_policy(policy);
        true
    }

    fn has_panicked(&self) -> bool {
        self.state.bus.has_panicked()
    }

    fn is_paused(&self) -> bool {
        self.state.paused
    }

    fn inject(&mut self, input: &Input) -> Result<(), InjectError> {
        match input {
            Input::Clock(record) => self.state.clock.set(self.state.count, *record)?,
            Input::Pause => self.state.paused = true,
            Input::Resume => self.state.paused = false,
            _ => {
                let (bus, mut context) = self.device_context();
                bus.inject(input, &mut context)?;
            }
        }
        if let Input::Calendar { unix_base_ns } = input {
            self.state.config.unix_base_ns = *unix_base_ns;
        }
        self.raise_device_timers(); // a clock record moves time
        self.reset_if_asked();
        for hart in &mut self.state.harts {
            hart.reservation = Reservation::NONE;
        }
        self.settle_disturbances();
        Ok(())
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.state.outputs.take()
    }

    fn visible_outputs(&self) -> u64 {
        self.state.outputs.visible()
    }

    fn instruction_count(&self) -> InstructionCount {
        self.state.count
    }

    fn guest_time_ns(&self) -> u64 {
        self.state.clock.time_ns(self.state.count)
    }

    fn clock(&self) -> ClockRecord {
        self.state.clock.record()
    }

    fn board(&self) -> &BoardConfig {
        &self.state.config.board
    }

    fn unix_base_ns(&self) -> u64 {
        self.state.config.unix_base_ns
    }

    fn configuration_hash(&self) -> u64 {
        let config = self.config();
        configuration_hash(&config.board, config.extensions)
    }

    fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.state.bus.virtio().open_disk_requests()
    }

    fn snapshot(&self) -> Snapshot {
        self.take_snapshot()
    }

    fn begin_snapshot(&mut self, extent: Extent) -> SnapshotHead {
        self.memory.begin_capture(extent);
        self.state.current_hart().tlb.clear_stores();
        self.snapshot_head()
    }

    fn pages_changed(&self) -> usize {
        self.memory.pages_changed()
    }

    fn capture(&mut self) -> Option<Capture<'_>> {
        self.memory.capture()
    }

    fn begin_checkpoints(&mut self) {
        self.memory.begin_epoch(Consumer::Checkpoint);
        self.state.current_hart().tlb.clear_stores();
    }

    fn take_checkpoint(&mut self, page: &mut dyn FnMut(usize, &[u8])) -> Vec<u8> {
        self.memory.visit_written(Consumer::Checkpoint, page);
        self.state.current_hart().tlb.clear_stores();
        postcard::to_stdvec(&self.state).expect("plain data serialises")
    }

    fn page(&self, index: usize) -> Option<&[u8]> {
        (index < self.memory.pages()).then(|| self.memory.page(index))
    }

    fn pages_since_checkpoint(&self) -> usize {
        self.memory.pages_unseen(Consumer::Checkpoint)
    }

    fn apply_checkpoint(&mut self, state: &[u8], pages: &[PageBatch]) -> Result<(), SnapshotError> {
        self.take_over(state, pages)
    }

    fn pages_in_use(&self) -> usize {
        self.memory.pages_in_use()
    }

    fn digest(&mut self) -> u128 {
        let ram = self.memory.digest();
        self.state.current_hart().tlb.clear_stores();
        let mut bytes = postcard::to_stdvec(&self.state).expect("plain data serialises");
        bytes.extend(ram.to_le_bytes());
        xxh3_128(&bytes)
    }

    fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam> {
        self.memory.read(address, buffer)
    }

    fn memory_regions(&self) -> Vec<Region> {
        self.memory.regions()
    }

    fn debuggable(&mut self) -> Option<&mut dyn Debuggable> {
        Some(self)
    }

    fn describe(&self) -> String {
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

    fn set_engine(&mut self, engine: Engine) -> Engine {
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

    fn engine(&self) -> Engine {
        self.engine
    }

    fn set_chaos(&mut self, seed: Option<u64>) {
        self.chaos_seed = seed;
        if let Some(jit) = &mut self.jit {
            jit.set_chaos(seed);
        }
    }
}
