//! Guests that count in memory, print, and take timer interrupts; and their recordings.

mod pc;

use crate::support::assembler::{Assembler, MTVEC, RAM, ZERO};
use crate::support::guest_program::{CLOCK, COUNTER, OWN_MTIMECMP, begin, print_counter};
use crate::support::{error_text, run};
use riscv::isa::Op;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use understudy::engine::EngineName;
use understudy::replaying::history::History;

const DATA: u64 = 0x2000;
const LINES: u64 = 150;

const BASE: u8 = 26;
const LAST: u8 = 27;
const SPARE: [u8; 2] = [30, 31];
const MSTATUS: i32 = 0x300;
/// Of 100 ns, between two interrupts.
const TICKS: i32 = 200;

/// Addresses of instructions, and of what they store.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The first of a line.
    pub line: u64,
    /// The second.
    pub second: u64,
    /// It stores the counter.
    pub store: u64,
    /// The first of the interrupt handler.
    pub handler: u64,
    /// It stores the number of interrupts.
    pub handler_store: u64,
    /// Where the counter is, which every line stores.
    pub counted: u64,
    /// Where interrupts are counted.
    pub interrupts: u64,
}

fn program() -> (Vec<u8>, Places) {
    let mut program = Assembler::default();
    let address = |program: &Assembler| program.here().address();
    begin(&mut program);
    // Over the handler.
    program.branch_ahead(Op::Beq, ZERO, ZERO);
    let handler = address(&program);
    let [time, number] = SPARE;
    program.immediate(Op::Ld, time, CLOCK, 0);
    program.immediate(Op::Addi, time, time, TICKS);
    program.store(Op::Sd, time, OWN_MTIMECMP, 0);
    program.immediate(Op::Lw, number, BASE, 16);
    program.immediate(Op::Addi, number, number, 1);
    let handler_store = address(&program);
    program.store(Op::Sw, number, BASE, 16);
    program.plain(Op::Mret);
    program.land();
    program.load(BASE, RAM + DATA);
    program.load(LAST, LINES);
    program.load(time, handler);
    program.immediate(Op::Csrrw, ZERO, time, MTVEC);
    program.store(Op::Sd, ZERO, OWN_MTIMECMP, 0);
    program.immediate(Op::Csrrsi, ZERO, 8, MSTATUS); // MIE
    let line_label = program.here();
    let line = address(&program);
    print_counter(&mut program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    let store = address(&program);
    program.store(Op::Sw, COUNTER, BASE, 8);
    program.plain(Op::Pause); // another hart has its turn
    program.branch(Op::Bltu, COUNTER, LAST, line_label);
    program.finish(0);
    let places = Places {
        line,
        second: line + 4,
        store,
        handler,
        handler_store,
        counted: RAM + DATA + 8,
        interrupts: RAM + DATA + 16,
    };
    (program.elf(DATA, &[0; 32]), places)
}

/// A recording of the guest, and where things are in it.
pub struct Recorded {
    directory: TempDir,
    pub places: Places,
}

impl Recorded {
    pub fn new() -> Recorded {
        Recorded::with_harts(1)
    }

    pub fn with_harts(harts: u32) -> Recorded {
        let (elf, places) = program();
        let harts = harts.to_string();
        Recorded::of(&elf, places, &["--memory", "4M", "--harts", &harts])
    }

    /// Of an x86-64 machine.
    pub fn pc() -> Recorded {
        let (image, places) = pc::program().expect("the guest assembles");
        Recorded::of(&image, places, &["--memory", "16M", "--arch", "x86-64"])
    }

    fn of(kernel: &[u8], places: Places, options: &[&str]) -> Recorded {
        let directory = tempfile::tempdir().unwrap();
        let recorded = Recorded { directory, places };
        fs::write(recorded.kernel(), kernel).unwrap();
        let (path, log) = (recorded.kernel(), recorded.log());
        let command = [
            "run",
            "--kernel",
            path.to_str().unwrap(),
            "--digest-interval",
            "10000",
            "--record",
            log.to_str().unwrap(),
        ];
        let output = run(&[&command, options].concat());
        assert!(output.status.success(), "{}", error_text(&output));
        recorded
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn log(&self) -> PathBuf {
        self.directory.path().join("run.log")
    }

    pub fn kernel(&self) -> PathBuf {
        self.directory.path().join("guest")
    }

    pub fn history(&self, engine: &str) -> History {
        let engine: EngineName = engine.parse().unwrap();
        History::read(&self.log(), engine).unwrap_or_else(|failure| panic!("{failure}"))
    }
}
