//! Floating point on every engine: the same values, flags and `mstatus` as the interpreter gives,
//! instruction by instruction over the corners of both formats, and in long runs in which results
//! become operands.
//!
//! What the interpreter gives is judged elsewhere (`float_reference`, `float_rules`).

#[path = "instructions/assembler.rs"]
mod assembler;
#[path = "float_reference/corners.rs"]
mod corners;
#[path = "engines/execution.rs"]
mod execution;

use assembler::{Assembler, elf, register::*};
use corners::{DOUBLE, Layout, SINGLE, Stream};
use execution::Execution;
use machine::config::BoardConfig;
use machine::config::BootImages;
use machine::{Machine as _, Stop};
use riscv::board::bus::FINISHER_BASE;
use riscv::hart::csr::{number, status};
use riscv::isa::{Encoding, Extensions, Format, Op, encodings};
use riscv::memory::RAM_BASE;
use riscv::{Config, Machine};

const MEMORY_BYTES: u64 = 16 << 20;
/// What the program reads.
const INPUTS: u64 = RAM_BASE + (2 << 20);
/// Where it writes.
const RESULTS: u64 = RAM_BASE + (4 << 20);
const LIMIT: u64 = 50_000_000;

/// Operands of one case: `fcsr`, three F registers, an integer.
const CASE_DOUBLES: u64 = 5;
/// Cases that each instruction is tried on, in each rounding mode.
const CASES: u64 = 150;
/// Rounding modes that an instruction may ask for; 7 is that of `frm`.
const MODES: [i32; 6] = [0, 1, 2, 3, 4, 7];

/// Which of its registers an instruction has in common.
const REGISTER_CHOICES: u64 = 6;

/// The instructions of F and D but for loads and stores.
fn computing() -> Vec<&'static Encoding> {
    let is_float = |row: &&Encoding| {
        use Format::*;
        matches!(
            row.format,
            FloatR4 | FloatRounded | FloatUnaryRounded | FloatR
        ) || row.name.starts_with("fmv.")
            || row.name.starts_with("fclass.")
    };
    encodings().filter(is_float).collect()
}

fn is_rounded(row: &Encoding) -> bool {
    use Format::*;
    matches!(row.format, FloatR4 | FloatRounded | FloatUnaryRounded)
}

fn immediate(row: &Encoding, mode: i32, rs3: u8) -> i32 {
    let mode = if is_rounded(row) { mode } else { 0 };
    match row.format {
        Format::FloatR4 => mode | i32::from(rs3) << 8,
        _ => mode,
    }
}

/// Registers that are not in an instruction's format are zero.
fn second(row: &Encoding, rs2: u8) -> u8 {
    use Format::*;
    match row.format {
        FloatR4 | FloatRounded | FloatR => rs2,
        _ => 0,
    }
}

/// Whether the first operand is an integer register.
fn reads_integer(row: &Encoding) -> bool {
    ["fmv.w.x", "fmv.d.x", "fmv.h.x"].contains(&row.name)
        || ["w", "wu", "l", "lu"]
            .iter()
            .any(|kind| row.name.starts_with("fcvt.") && row.name.ends_with(&format!(".{kind}")))
}

/// Whether the result goes to an integer register.
fn writes_integer(row: &Encoding) -> bool {
    ["feq.", "flt.", "fle.", "fclass.", "fmv.x."]
        .iter()
        .chain(&["fcvt.w.", "fcvt.wu.", "fcvt.l.", "fcvt.lu."])
        .chain(&["fltq.", "fleq."])
        .any(|begin| row.name.starts_with(begin))
}

/// Corners of both formats, what is near them, and singles that are not boxed.
struct Operands {
    stream: Stream,
    singles: Vec<u64>,
    doubles: Vec<u64>,
}

impl Operands {
    fn new(seed: u64) -> Operands {
        let all = |layout: Layout| [layout.corners(), layout.integer_borders()].concat();
        Operands {
            stream: Stream(seed),
            singles: all(SINGLE),
            doubles: all(DOUBLE),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.stream.next() % limit
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// An operand; `neighbour` is the one before it.
    fn next(&mut self, neighbour: u64) -> u64 {
        const BOX: u64 = 0xffff_ffff << 32;
        match self.below(12) {
            0..3 => self.doubles[self.stream.next() as usize % self.doubles.len()],
            3..6 => BOX | self.singles[self.stream.next() as usize % self.singles.len()],
            6..8 => self.stream.operand(DOUBLE, neighbour),
            8..11 => BOX | self.stream.operand(SINGLE, neighbour & 0xffff_ffff),
            _ => self.stream.operand(SINGLE, neighbour & 0xffff_ffff),
        }
    }

    /// Three operands of one format, mostly.
    fn triple(&mut self) -> [u64; 3] {
        let a = self.next(0);
        let mut alike = || {
            let mut b = self.next(a);
            for _ in 0..2 {
                if (b >> 32 == 0xffff_ffff) == (a >> 32 == 0xffff_ffff) {
                    break;
                }
                b = self.next(a);
            }
            b
        };
        [a, alike(), alike()]
    }

    fn integer(&mut self) -> u64 {
        let (bits, shift) = (self.stream.next(), self.below(64));
        match self.below(4) {
            0 => bits >> shift,
            1 => (bits as i64 >> shift) as u64,
            2 => (1 << shift) + self.below(5) - 2,
            _ => (1_u64 << shift).wrapping_neg().wrapping_add(self.below(3)),
        }
    }

    /// `fcsr`: to nearest even more often than any other mode, reserved ones left out.
    fn fcsr(&mut self) -> u64 {
        let mode = self.pick(&[0, 0, 0, 0, 1, 2, 3, 4]);
        mode << 5 | self.pick(&[0, 0, 1, 31]) & self.stream.next()
    }
}

/// Runs a program until it finishes.
fn run(program: &[u8], inputs: &[u64], execution: Execution) -> Machine {
    let mut image = program.to_vec();
    assert!(image.len() as u64 <= INPUTS - RAM_BASE);
    image.resize((INPUTS - RAM_BASE) as usize, 0);
    image.extend(inputs.iter().flat_map(|input| input.to_le_bytes()));
    let board = BoardConfig {
        memory_bytes: MEMORY_BYTES,
        harts: 1,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
    };
    let config = Config {
        board,
        extensions: Extensions::ALL,
        unix_base_ns: 0,
    };
    let images = BootImages {
        kernel: Some(elf(RAM_BASE, &image)),
        ..BootImages::default()
    };
    let mut machine = Machine::new(config, &images).expect("the program loads");
    execution.apply(&mut machine);
    loop {
        match machine.run(LIMIT) {
            Stop::Finished(_) => return machine,
            Stop::Output => drop(machine.outputs()),
            stop => panic!(
                "{execution:?}: {stop:?}, not finished\n{}",
                machine.describe()
            ),
        }
    }
}

/// Compares what a program does on every engine; `tell` describes a result by its number.
fn compare(program: &[u8], inputs: &[u64], results: u64, seed: u64, tell: impl Fn(u64) -> String) {
    let mut reference = run(program, inputs, Execution::REFERENCE);
    let read = |machine: &Machine, index: u64| {
        u64::from_le_bytes(machine.read_array(RESULTS + 8 * index).expect("RAM"))
    };
    for execution in Execution::others(seed) {
        let mut machine = run(program, inputs, execution);
        for index in 0..results {
            let (expected, found) = (read(&reference, index), read(&machine, index));
            assert!(
                expected == found,
                "seed {seed}, {execution:?}: {}: {found:#x} instead of {expected:#x}",
                tell(index)
            );
        }
        assert_eq!(
            machine.digest(),
            reference.digest(),
            "seed {seed}, {execution:?}: something else differs"
        );
    }
}

fn start(asm: &mut Assembler) {
    asm.li(T0, status::FS);
    asm.csr(Op::Csrrs, ZERO, number::MSTATUS, T0);
    asm.li(S0, RESULTS);
}

fn finish(asm: &mut Assembler) {
    asm.li(T0, FINISHER_BASE);
    asm.li(T1, 0x5555);
    asm.store(Op::Sw, T1, T0, 0);
    let here = asm.bound_label();
    asm.jal(ZERO, here);
}

/// Every case on one instruction: the result and `fflags` of each are stored.
fn try_all_cases(asm: &mut Assembler, row: &Encoding, mode: i32, choice: u8) {
    asm.li(S1, INPUTS);
    asm.li(S2, INPUTS + 8 * CASE_DOUBLES * CASES);
    let top = asm.bound_label();
    asm.i(Op::Ld, T0, S1, 0);
    asm.csr(Op::Csrrw, ZERO, number::FCSR, T0);
    for register in 1..=3 {
        asm.i(Op::Fld, register, S1, 8 * i32::from(register));
    }
    asm.i(Op::Ld, A0, S1, 32);
    // In turn, the result overwrites nothing or one of the operands, and operands are the same.
    let rd = if choice < 4 { choice } else { 4 };
    let rs2 = if choice == 5 { 1 } else { 2 };
    let rs1 = if reads_integer(row) { A0 } else { 1 };
    let rd = if writes_integer(row) { A0 } else { rd };
    asm.op(row.op, rd, rs1, second(row, rs2), immediate(row, mode, 3));
    asm.csr(Op::Csrrs, T1, number::FFLAGS, ZERO);
    if writes_integer(row) {
        asm.store(Op::Sd, A0, S0, 0);
    } else {
        asm.store(Op::Fsd, rd, S0, 0);
    }
    asm.store(Op::Sd, T1, S0, 8);
    asm.i(Op::Addi, S0, S0, 16);
    asm.i(Op::Addi, S1, S1, 8 * CASE_DOUBLES as i32);
    asm.branch(Op::Bne, S1, S2, top);
}

#[test]
fn every_instruction_gives_the_same_value_and_flags() {
    // Each mode meets each choice of registers.
    for seed in 0..REGISTER_CHOICES {
        let mut operands = Operands::new(seed);
        let mut inputs = Vec::new();
        for _ in 0..CASES {
            inputs.push(operands.fcsr());
            inputs.extend(operands.triple());
            inputs.push(operands.integer());
        }
        let mut asm = Assembler::new(RAM_BASE);
        start(&mut asm);
        let mut tried = Vec::new();
        for row in computing() {
            for mode in if is_rounded(row) { &MODES[..] } else { &[7] } {
                let choice = (tried.len() as u64 + seed) % REGISTER_CHOICES;
                try_all_cases(&mut asm, row, *mode, choice as u8);
                tried.push((row.name, *mode, choice));
            }
        }
        finish(&mut asm);
        let results = 2 * CASES * tried.len() as u64;
        compare(&asm.finish(), &inputs, results, seed, |index| {
            let (name, mode, choice) = tried[(index / 2 / CASES) as usize];
            let case = (index / 2 % CASES * CASE_DOUBLES) as usize;
            let what = if index % 2 == 0 { "value" } else { "fflags" };
            let case = &inputs[case..case + CASE_DOUBLES as usize];
            format!("{name} rm={mode} registers {choice}: {what} of {case:x?}")
        });
    }
}

/// Double-words that a run of instructions reads, and may write.
const WINDOW: u64 = 64;
/// Instructions of a run.
const RUN: u64 = 70;
/// Runs of a program, and how often each is repeated.
const RUNS: u64 = 25;
const ROUNDS: u64 = 20;
/// Loops of a program, their instructions, and how often each goes round.
const LOOPS: u64 = 120;
const LOOP: u64 = 14;
const LOOP_ROUNDS: u64 = 60;
/// What is stored after a run: F registers, integer registers, `fcsr`, `mstatus`.
const STORED: u64 = 32 + 6 + 2;

/// Integer registers that runs compute with: pinned ones and others.
const INTEGERS: [u8; 6] = [A0, A1, A5, A6, A7, T3];

/// What a run is made of: instructions of one format, and once in a while others. The interpreter
/// goes on alone for a while where a double is taken for a single.
struct Style {
    is_single: bool,
    own: Vec<&'static Encoding>,
    all: Vec<&'static Encoding>,
    others_once_in: u64,
}

impl Style {
    fn random(operands: &mut Operands) -> Style {
        let is_single = operands.pick(&[false, true]);
        let format = if is_single { ".s" } else { ".d" };
        let all = computing();
        let own = all.iter().copied().filter(|row| row.name.contains(format));
        Style {
            is_single,
            own: own.collect(),
            others_once_in: operands.pick(&[6, 30, 1000]),
            all,
        }
    }

    fn random_instruction(&self, asm: &mut Assembler, operands: &mut Operands) {
        // Few registers make results operands; many make `xmm` registers run out.
        let registers = operands.pick(&[4, 8, 32]);
        let mut register = || operands.below(registers) as u8;
        let (rd, rs1, rs2, rs3) = (register(), register(), register(), register());
        let offset = operands.below(WINDOW) as i32 * 8;
        let is_other = operands.below(self.others_once_in) == 0;
        let (load, store) = match self.is_single != is_other {
            true => (Op::Flw, Op::Fsw),
            false => (Op::Fld, Op::Fsd),
        };
        match operands.below(10) {
            0 | 1 => asm.i(load, rd, S1, offset),
            2 => asm.store(store, rs1, S1, offset),
            _ => {
                let row = operands.pick(if is_other { &self.all } else { &self.own });
                let mode = operands.pick(&[7, 7, 7, 7, 0, 0, 1, 1, 2, 4]);
                let integer = operands.pick(&INTEGERS);
                let rs1 = if reads_integer(row) { integer } else { rs1 };
                let rd = if writes_integer(row) { integer } else { rd };
                asm.op(row.op, rd, rs1, second(row, rs2), immediate(row, mode, rs3));
            }
        }
    }

    fn load_registers(&self, asm: &mut Assembler) {
        let load = if self.is_single { Op::Flw } else { Op::Fld };
        for register in 0..32 {
            asm.i(load, register, S1, 8 * i32::from(register));
        }
    }
}

/// Registers, `fcsr` and `mstatus.FS` as a run finds them.
fn set_up(asm: &mut Assembler, operands: &mut Operands, style: &Style) {
    asm.li(S1, INPUTS);
    style.load_registers(asm);
    for (index, register) in INTEGERS.into_iter().enumerate() {
        asm.i(Op::Ld, register, S1, 8 * (32 + index as i32));
    }
    asm.li(T0, operands.fcsr());
    asm.csr(Op::Csrrw, ZERO, number::FCSR, T0);
    asm.li(T0, status::FS);
    asm.csr(Op::Csrrc, ZERO, number::MSTATUS, T0);
    asm.li(
        T0,
        operands.pick(&[1, 2, 3, 3]) * (status::FS & status::FS.wrapping_neg()),
    );
    asm.csr(Op::Csrrs, ZERO, number::MSTATUS, T0);
}

/// Stores what a run leaves behind.
fn store_state(asm: &mut Assembler) {
    asm.csr(Op::Csrrs, T0, number::FCSR, ZERO);
    asm.csr(Op::Csrrs, T1, number::MSTATUS, ZERO);
    for register in 0..32 {
        asm.store(Op::Fsd, register, S0, 8 * i32::from(register));
    }
    for (index, register) in INTEGERS.into_iter().chain([T0, T1]).enumerate() {
        asm.store(Op::Sd, register, S0, 8 * (32 + index as i32));
    }
    asm.i(Op::Addi, S0, S0, 8 * STORED as i32);
}

/// Random instructions on random registers, repeated from the same state.
fn random_run(asm: &mut Assembler, operands: &mut Operands) {
    let style = Style::random(operands);
    asm.li(S2, ROUNDS);
    let top = asm.bound_label();
    set_up(asm, operands, &style);
    for _ in 0..operands.below(RUN) {
        style.random_instruction(asm, operands);
    }
    store_state(asm);
    asm.i(Op::Addi, S2, S2, -1);
    // The loop is longer than a branch reaches.
    let done = asm.label();
    asm.branch(Op::Beq, S2, ZERO, done);
    asm.jal(ZERO, top);
    asm.bind(done);
}

/// A short loop in which each round goes on with what the last one left, perhaps with a jump over
/// some of its instructions, or with other modes for the next.
fn random_loop(asm: &mut Assembler, operands: &mut Operands) {
    let style = Style::random(operands);
    set_up(asm, operands, &style);
    asm.li(S2, LOOP_ROUNDS);
    let top = asm.label();
    asm.jal(ZERO, top); // so that compiled code begins here
    asm.bind(top);
    let instructions = 1 + operands.below(LOOP);
    let (from, to) = (operands.below(2 * LOOP), operands.below(LOOP));
    let skip = asm.label();
    for index in 0..instructions {
        if index == from.min(to) && from < to {
            let (a, b) = (operands.pick(&INTEGERS), operands.pick(&INTEGERS));
            asm.branch(operands.pick(&[Op::Blt, Op::Bgeu, Op::Beq]), a, b, skip);
        }
        if index == to {
            asm.bind(skip);
        }
        style.random_instruction(asm, operands);
    }
    if to >= instructions {
        asm.bind(skip);
    }
    match operands.below(12) {
        0 => asm.csr(Op::Csrrwi, ZERO, number::FRM, operands.pick(&[0, 1, 3])),
        1 => {
            asm.r(Op::FmvDX, 0, ZERO, 0); // Dirty, and then Initial
            asm.li(T0, status::FS << 1 & status::FS);
            asm.csr(Op::Csrrc, ZERO, number::MSTATUS, T0);
        }
        _ => {}
    }
    asm.i(Op::Addi, S2, S2, -1);
    asm.branch(Op::Bne, S2, ZERO, top);
    store_state(asm);
}

/// What runs read, and may write.
fn window(operands: &mut Operands) -> Vec<u64> {
    let mut inputs = Vec::new();
    while inputs.len() < WINDOW as usize {
        inputs.extend(operands.triple());
        inputs.push(operands.integer());
    }
    inputs
}

/// A program of `runs` pieces by `emit`, each of which stores its state `rounds` times.
fn compare_runs(
    seed: u64,
    (runs, rounds): (u64, u64),
    emit: impl Fn(&mut Assembler, &mut Operands),
) {
    let mut operands = Operands::new(seed ^ 0x5eed);
    let inputs = window(&mut operands);
    let mut asm = Assembler::new(RAM_BASE);
    start(&mut asm);
    let mut begins = Vec::new();
    for _ in 0..runs {
        begins.push(asm.here());
        emit(&mut asm, &mut operands);
    }
    finish(&mut asm);
    compare(
        &asm.finish(),
        &inputs,
        runs * rounds * STORED,
        seed,
        |index| {
            let run = index / STORED / rounds;
            format!(
                "the run at {:#x}, round {}, double-word {}",
                begins[run as usize],
                index / STORED % rounds,
                index % STORED
            )
        },
    );
}

#[test]
fn results_that_become_operands_are_the_same() {
    for seed in 0..12 {
        compare_runs(seed, (RUNS, ROUNDS), random_run);
    }
}

#[test]
fn loops_that_keep_registers_are_the_same() {
    for seed in 0..12 {
        compare_runs(seed, (LOOPS, 1), random_loop);
    }
}
