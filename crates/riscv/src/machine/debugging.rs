//! A RISC-V machine that is looked into: see [`machine::debugging`].

use super::snapshot::decode;
use super::{Machine, lines};
use crate::architecture::{NAME, SEMANTICS_VERSION};
use crate::board::clint;
use crate::hart::{Hart, Privilege};
use crate::memory::RAM_BASE;
use crate::mmu::spaces;
use machine::Stop;
use machine::debugging::{AddressSpace, Armed, Debuggable, HartView, Trap, TrapStop, Traps};
use machine::input::InstructionCount;
use machine::memory::{Consumer, OutsideRam, PAGE_SIZE};
use machine::snapshot::{SnapshotError, SnapshotHead};
use std::fmt::Write;

/// Names of the integer registers (RISC-V psABI, "Register Convention"), as gdb has them.
const INTEGER: [&str; 32] = [
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1", "a0", "a1", "a2", "a3", "a4",
    "a5", "a6", "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4",
    "t5", "t6",
];
/// Names of the floating-point registers.
const FLOAT: [&str; 32] = [
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0", "fs1", "fa0", "fa1", "fa2",
    "fa3", "fa4", "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7", "fs8", "fs9",
    "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
];
/// Control and status registers that say where a trap came from and where addresses lead.
const CONTROL: [&str; 10] = [
    "mstatus", "mepc", "mcause", "mtval", "stvec", "sscratch", "sepc", "scause", "stval", "satp",
];

const VALID: u64 = 1;
/// R or X of a page-table entry: it is a leaf.
const LEAF: u64 = 1 << 1 | 1 << 3;
const PHYSICAL_PAGE: u64 = ((1 << 44) - 1) << 10;

impl Machine {
    /// The hart that has the next turn, what [`Machine::choose_hart`] is about to find, and the interrupt
    /// that it takes before its next instruction.
    fn next_turn(&self) -> Option<(usize, Option<u64>)> {
        let state = &self.state;
        let harts = state.harts.len();
        let ticks = clint::ticks(state.clock.time_ns(state.count));
        let first = usize::from(harts > 1 && state.count >= state.slice_end);
        (first..first + harts)
            .map(|i| (state.current + i) % harts)
            .find_map(|candidate| {
                let hart = &state.harts[candidate];
                let pending = hart.interrupts_pending(&lines(&state.bus, candidate), ticks);
                let runs = !hart.waiting || pending & hart.csr.mie != 0;
                runs.then(|| (candidate, hart.interrupt_to_take(pending)))
            })
    }

    /// The hart that executes an instruction at a breakpoint next.
    fn hart_at_breakpoint(&self) -> Option<usize> {
        let (next, interrupt) = self.next_turn()?;
        let hart = &self.state.harts[next];
        let program_counter = match interrupt {
            None => hart.pc,
            Some(_) => self.view(next, interrupt).pc,
        };
        let traps = &self.memory.traps;
        traps.breaks_at(program_counter).then_some(next)
    }

    /// A copy of a hart, which has taken this interrupt.
    fn view(&self, index: usize, interrupt: Option<u64>) -> Hart {
        let bytes = postcard::to_stdvec(&self.state.harts[index]).expect("plain data serialises");
        let mut hart: Hart = postcard::from_bytes(&bytes).expect("it was just written");
        if let Some(cause) = interrupt {
            hart.take_interrupt(cause);
        }
        hart
    }

    fn run_armed(&mut self, until: InstructionCount) -> TrapStop {
        loop {
            if let Some(stop) = self.stop_before_next(until) {
                return TrapStop::Stop(stop);
            }
            if let Some(hart) = self.hart_at_breakpoint() {
                return TrapStop::Trap(Trap::Breakpoint { hart });
            }
            if !self.choose_hart() {
                return TrapStop::Stop(Stop::Idle {
                    wake_at_ns: self.next_wake_ns(),
                });
            }
            self.run_hart(until);
            if let Some(watchpoint) = self.memory.traps.take_hit() {
                // What is left to do at this count is done as if it had been asked for.
                let hart = self.state.current;
                return match self.stop_before_next(self.state.count) {
                    Some(Stop::Reached) | None => TrapStop::Trap(Trap::Watchpoint {
                        hart,
                        address: watchpoint.address,
                        access: watchpoint.access,
                    }),
                    // The access made the machine stop (a device): that is told first.
                    Some(stop) => TrapStop::Stop(stop),
                };
            }
        }
    }

    /// Whatever the engine remembers of breakpoints and of watched pages is dropped.
    fn forget_traps(&mut self) {
        self.blocks.clear();
        self.memory.forget_code();
        self.drop_translations();
    }
}

impl Debuggable for Machine {
    fn target_description(&self) -> String {
        description()
    }

    fn gdb_steps_over_watchpoints(&self) -> bool {
        true // as the triggers of the debug specification (5.5.3)
    }

    fn harts(&self) -> Vec<HartView> {
        let next = self.next_turn();
        let harts = 0..self.state.harts.len();
        harts
            .map(|index| {
                let interrupt = next
                    .filter(|(hart, _)| *hart == index)
                    .and_then(|next| next.1);
                view(&self.view(index, interrupt))
            })
            .collect()
    }

    fn next_hart(&self) -> Option<usize> {
        self.next_turn().map(|(hart, _)| hart)
    }

    fn translate(&self, space: AddressSpace, address: u64) -> Option<u64> {
        let levels = match space.root >> 60 {
            _ if space.mode == Privilege::Machine as u64 => return Some(address),
            8 => 3,
            9 => 4,
            10 => 5,
            _ => return Some(address),
        };
        let sign = 64 - (12 + 9 * levels);
        if (address << sign) as i64 >> sign != address as i64 {
            return None;
        }
        let mut table = spaces::root_page(space.root) * PAGE_SIZE;
        for level in (0..levels).rev() {
            let index = address >> (12 + 9 * level) & 511;
            let entry = u64::from_le_bytes(self.read_array(table + index * 8).ok()?);
            let next = (entry & PHYSICAL_PAGE) << 2;
            if entry & VALID == 0 {
                return None;
            }
            if entry & LEAF != 0 {
                let within = (1u64 << (12 + 9 * level)) - 1;
                return Some(next & !within | address & within);
            }
            table = next;
        }
        None
    }

    fn read_physical(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam> {
        if let Some(bytes) = self.state.bus.rom_at(address, buffer.len()) {
            buffer.copy_from_slice(&bytes);
            return Ok(());
        }
        self.memory.read(address, buffer)
    }

    fn set_traps(&mut self, traps: Traps) {
        self.memory.traps = traps;
        self.forget_traps();
    }

    fn run_to_trap(&mut self, until: InstructionCount, armed: Armed) -> TrapStop {
        self.memory.traps.arm(armed);
        let stop = self.run_armed(until);
        self.memory.traps.arm(Armed::Nothing);
        stop
    }

    fn save(&self) -> SnapshotHead {
        self.snapshot_head()
    }

    fn visit_written(&mut self, f: &mut dyn FnMut(usize, &[u8])) {
        self.memory.visit_written(Consumer::Checkpoint, f);
        self.state.current_hart().tlb.clear_stores();
    }

    fn set_back(
        &mut self,
        head: &SnapshotHead,
        pages: &mut dyn Iterator<Item = (usize, &[u8])>,
    ) -> Result<(), SnapshotError> {
        let state = decode(head.state(NAME, SEMANTICS_VERSION)?)?;
        let (then, now) = (&state.config, &self.state.config);
        if then.board != now.board || then.extensions != now.extensions {
            return Err(SnapshotError::Damaged("it is of another machine"));
        }
        // Compiled code knows translations by the numbers that this TLB gave.
        let tlb = std::mem::take(&mut self.state.current_hart().tlb);
        self.state = state;
        self.state.current_hart().tlb = tlb;
        for (index, bytes) in pages {
            let address = RAM_BASE + index as u64 * PAGE_SIZE;
            self.memory
                .write(address, bytes)
                .expect("it is a page of this machine");
        }
        self.settle_disturbances();
        self.drop_translations();
        Ok(())
    }
}

fn view(hart: &Hart) -> HartView {
    let csr = &hart.csr;
    let mut registers = Vec::new();
    let mut put = |value: u64| registers.extend(value.to_le_bytes());
    (0..32).for_each(|register| put(hart.x.get(register)));
    put(hart.pc);
    hart.f.iter().for_each(|bits| put(*bits));
    let controls = [
        csr.status,
        csr.mepc,
        csr.mcause,
        csr.mtval,
        csr.stvec,
        csr.sscratch,
        csr.sepc,
        csr.scause,
        csr.stval,
        csr.satp,
    ];
    controls.into_iter().for_each(&mut put);
    for small in [
        u32::from(csr.fflags),
        u32::from(csr.frm),
        u32::from(csr.frm) << 5 | u32::from(csr.fflags),
    ] {
        registers.extend(small.to_le_bytes());
    }
    HartView {
        registers,
        program_counter: hart.pc,
        space: AddressSpace {
            root: csr.satp,
            mode: hart.privilege as u64,
        },
        describe: format!(
            "{:?} mode{}",
            hart.privilege,
            if hart.waiting { ", waits" } else { "" }
        ),
    }
}

/// gdb's standard features for RISC-V (gdb manual, "RISC-V Features"), in the order of [`view`].
fn description() -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>riscv:rv64</architecture>",
    );
    let mut number = 0;
    let mut register = |xml: &mut String, name: &str, bits: u32, kind: &str| {
        let _written = write!(
            xml,
            "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{number}\"/>"
        );
        number += 1;
    };
    xml += "<feature name=\"org.gnu.gdb.riscv.cpu\">";
    for name in INTEGER {
        let kind = match name {
            "ra" => "code_ptr",
            "sp" | "gp" | "tp" | "fp" => "data_ptr",
            _ => "int",
        };
        register(&mut xml, name, 64, kind);
    }
    register(&mut xml, "pc", 64, "code_ptr");
    xml += "</feature><feature name=\"org.gnu.gdb.riscv.fpu\">";
    for name in FLOAT {
        register(&mut xml, name, 64, "ieee_double");
    }
    xml += "</feature><feature name=\"org.gnu.gdb.riscv.csr\">";
    for name in CONTROL {
        register(&mut xml, name, 64, "int");
    }
    for name in ["fflags", "frm", "fcsr"] {
        register(&mut xml, name, 32, "int");
    }
    xml + "</feature></target>"
}
